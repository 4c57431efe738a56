//! Whose pages may use the hub (RFC 6454); pure.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderName, REFERER};

use crate::exchange::Client;

/// The origins allowed besides the site's own.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    pub any: bool,
    /// `https://a.example` or `https://*.example`, lower case, default ports left out.
    pub allowed: Vec<String>,
}

/// What an `Origin` header comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No browser, or the site's own page: CORS plays no part.
    Own,
    /// Another site's page that may; the answer must say so.
    Allowed,
    Foreign,
}

impl Origins {
    pub fn judge(&self, origin: Option<&str>, client: &Client) -> Verdict {
        let Some(origin) = origin else { return Verdict::Own };
        let origin = written(origin);
        // Behind a proxy that ends TLS the scheme may be told wrongly; host and port decide.
        if host_of(&dotless(&origin)).is_some_and(|host| host == client.authority()) {
            return Verdict::Own;
        }
        let known = self.any || self.is_allowed(&origin);
        if known { Verdict::Allowed } else { Verdict::Foreign }
    }

    /// Whether a request that browsers may send by themselves, cookies and all, is from a page that
    /// may: its origin is told, to the letter; or it is a GET of the page's own, which tells none.
    /// `any` is no page in particular, so it is not enough.
    pub fn is_sure(&self, origin: Option<&str>, client: &Client, headers: &HeaderMap) -> bool {
        if origin.is_none() && is_same(headers) {
            return true;
        }
        origin.or_else(|| referring(headers)).is_some_and(|origin| {
            let origin = written(origin);
            let own = format!("{}://{}", client.scheme.as_str(), client.authority());
            dotless(&origin) == own || self.is_allowed(&origin)
        })
    }

    /// Whether a page may have the answer as a script, which browsers let every page read.
    pub fn admits_script(
        &self,
        origin: Option<&str>,
        client: &Client,
        headers: &HeaderMap,
    ) -> bool {
        let told = origin.or_else(|| referring(headers));
        self.any
            || is_same(headers)
            || told.is_some_and(|told| self.judge(Some(told), client) != Verdict::Foreign)
    }

    fn is_allowed(&self, origin: &str) -> bool {
        self.allowed.iter().any(|allowed| match allowed.split_once("*.") {
            None => allowed == origin,
            Some((scheme, rest)) => {
                let label = origin.strip_prefix(scheme).and_then(|host| host.strip_suffix(rest));
                let label = label.and_then(|label| label.strip_suffix('.'));
                let letter =
                    |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
                label.is_some_and(|label| !label.is_empty() && label.bytes().all(letter))
            }
        })
    }
}

/// As browsers write it: lower case, without the scheme's own port.
fn written(origin: &str) -> String {
    let mut origin = origin.trim().to_ascii_lowercase();
    for (scheme, port) in [("https://", ":443"), ("http://", ":80")] {
        if origin.starts_with(scheme) && origin.ends_with(port) {
            origin.truncate(origin.len() - port.len());
        }
    }
    origin
}

/// Without the dot that says that nothing comes after the host's name: browsers that were asked for
/// `a.example.` write it, and `Client` has it no more.
fn dotless(origin: &str) -> Cow<'_, str> {
    match (origin.strip_suffix('.'), origin.split_once(".:")) {
        (Some(bare), _) => bare.into(),
        (None, Some((host, port))) => format!("{host}:{port}").into(),
        (None, None) => origin.into(),
    }
}

/// Whether the request has something of these that a browser may have sent by itself, for whatever
/// page: cookies, and who its user is after a dialogue of its own (RFC 7617, RFC 7616, RFC 4559).
pub fn is_ambient(headers: &HeaderMap, read: &[HeaderName]) -> bool {
    let dialogues = |value: &[u8]| {
        let scheme = value.split(|byte| *byte == b' ').next().unwrap_or_default();
        DIALOGUES.iter().any(|known| scheme.eq_ignore_ascii_case(known.as_bytes()))
    };
    read.contains(&COOKIE) && headers.contains_key(COOKIE)
        || read.contains(&AUTHORIZATION)
            && headers.get_all(AUTHORIZATION).iter().any(|value| dialogues(value.as_bytes()))
}

/// Schemes whose credentials a browser keeps; others a page must write itself.
const DIALOGUES: [&str; 4] = ["basic", "digest", "negotiate", "ntlm"];

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What browsers say of each request to a page's own site, if the page came over TLS.
fn is_same(headers: &HeaderMap) -> bool {
    headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "same-origin")
}

/// The origin of the page that a request without `Origin` says it is from. No page can write it
/// for another's; one that hides it has none.
fn referring(headers: &HeaderMap) -> Option<&str> {
    let page = headers.get(REFERER)?.to_str().ok()?;
    let (scheme, rest) = page.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    page.get(..scheme.len() + "://".len() + host.len())
}

/// Host and port of an origin as the browser writes them; the scheme's own port is left out.
fn host_of(origin: &str) -> Option<&str> {
    origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Scheme;

    #[test]
    fn own_allowed_and_foreign() {
        let mut client = Client {
            address: [127, 0, 0, 1].into(),
            host: "app.example".to_owned(),
            port: 443,
            scheme: Scheme::Https,
            chain: None,
        };
        let origins =
            Origins { any: false, allowed: vec!["https://other.example:8443".to_owned()] };
        for (origin, verdict) in [
            (None, Verdict::Own),
            (Some("https://app.example"), Verdict::Own),
            (Some("https://APP.example"), Verdict::Own),
            (Some("https://app.example."), Verdict::Own),
            (Some("https://app.example.:8443"), Verdict::Foreign),
            (Some("https://app.example.."), Verdict::Foreign),
            (Some("https://other.example.:8443"), Verdict::Foreign),
            (Some("https://app.example.evil"), Verdict::Foreign),
            (Some("https://app.example:8443"), Verdict::Foreign),
            (Some("https://other.example:8443"), Verdict::Allowed),
            (Some("null"), Verdict::Foreign),
            (Some(""), Verdict::Foreign),
        ] {
            assert_eq!(origins.judge(origin, &client), verdict, "{origin:?}");
        }
        client.port = 8443;
        for origin in ["https://app.example:8443", "https://app.example.:8443"] {
            assert_eq!(origins.judge(Some(origin), &client), Verdict::Own);
            assert!(origins.is_sure(Some(origin), &client, &HeaderMap::new()), "{origin}");
        }
        let any = Origins { any: true, ..Origins::default() };
        assert_eq!(any.judge(Some("null"), &client), Verdict::Allowed);
        assert!(!any.is_sure(Some("null"), &client, &HeaderMap::new()));
    }

    #[test]
    fn a_request_without_an_origin_is_from_the_page_that_it_names() {
        let client = Client {
            address: [127, 0, 0, 1].into(),
            host: "app.example".to_owned(),
            port: 443,
            scheme: Scheme::Https,
            chain: None,
        };
        let allowed = vec!["https://friend.example".to_owned()];
        let origins = Origins { any: false, allowed };
        for (referer, sure, script) in [
            ("https://app.example/chat?x=https://foe.example/", true, true),
            ("https://app.example", true, true),
            ("https://friend.example/a#b", true, true),
            // Behind a proxy that ends TLS; cookies count by the letter.
            ("http://app.example/", false, true),
            ("https://foe.example/https://app.example/", false, false),
            ("https://app.example@foe.example/", false, false),
            ("https://app.example.foe.example/", false, false),
            ("app.example", false, false),
            ("", false, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(REFERER, referer.parse().expect("a value"));
            assert_eq!(origins.is_sure(None, &client, &headers), sure, "{referer}");
            assert_eq!(origins.admits_script(None, &client, &headers), script, "{referer}");
            // What the browser says itself comes first.
            assert!(!origins.admits_script(Some("null"), &client, &headers), "{referer}");
        }
        assert!(!origins.admits_script(None, &client, &HeaderMap::new()));
        let any = Origins { any: true, ..Origins::default() };
        assert!(any.admits_script(None, &client, &HeaderMap::new()));
        assert!(!any.is_sure(None, &client, &HeaderMap::new()));
    }

    #[test]
    fn what_browsers_send_by_themselves() {
        let cookies = [COOKIE];
        let both = [COOKIE, AUTHORIZATION];
        for (name, value, ambient) in [
            (COOKIE, "a=b", true),
            (AUTHORIZATION, "Basic YTpi", true),
            (AUTHORIZATION, "negotiate abc", true),
            (AUTHORIZATION, "Bearer abc", false),
            (AUTHORIZATION, "Basics", false),
            (REFERER, "https://app.example", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(&name, value.parse().expect("a value"));
            assert_eq!(is_ambient(&headers, &both), ambient, "{name}: {value}");
            assert_eq!(is_ambient(&headers, &cookies), ambient && name == COOKIE);
            assert!(!is_ambient(&headers, &[]));
        }
    }

    /// Every case of the vectors' group, for requests with cookies.
    #[test]
    fn vectors() {
        let text = include_str!("../../../tests/golden/session-vectors.json");
        let all: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let groups = all["groups"].as_array().expect("groups");
        let group = groups.iter().find(|group| group["id"] == "origin").expect("the group");
        let texts = group["allowed"].as_array().expect("a list").iter();
        let allowed = texts.map(|text| text.as_str().expect("a text").to_owned()).collect();
        let origins = Origins { any: false, allowed };
        let client = Client {
            address: [127, 0, 0, 1].into(),
            host: "hub.example.test".to_owned(),
            port: 443,
            scheme: Scheme::Https,
            chain: None,
        };
        let cases = group["cases"].as_array().expect("cases");
        for case in cases {
            let sure = origins.is_sure(case["origin"].as_str(), &client, &HeaderMap::new());
            assert_eq!(sure, case["expect"]["result"] == "allow", "{case}");
        }
        assert_eq!(cases.len(), 16);
    }
}
