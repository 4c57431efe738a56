//! Whose pages may use the hub (RFC 6454); pure.

use http::HeaderMap;
use http::header::HeaderName;

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
        if host_of(&origin).is_some_and(|host| host == client.authority()) {
            return Verdict::Own;
        }
        let known = self.any || self.is_allowed(&origin);
        if known { Verdict::Allowed } else { Verdict::Foreign }
    }

    /// Whether a request that browsers may send by themselves, cookies and all, is from a page that
    /// may: its origin is told, to the letter; or it is a GET of the page's own, which tells none.
    /// `any` is no page in particular, so it is not enough.
    pub fn is_sure(&self, origin: Option<&str>, client: &Client, headers: &HeaderMap) -> bool {
        match origin {
            None => headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "same-origin"),
            Some(origin) => {
                let origin = written(origin);
                let own = format!("{}://{}", client.scheme.as_str(), client.authority());
                origin == own || self.is_allowed(&origin)
            }
        }
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

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

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
            (Some("https://app.example.evil"), Verdict::Foreign),
            (Some("https://app.example:8443"), Verdict::Foreign),
            (Some("https://other.example:8443"), Verdict::Allowed),
            (Some("null"), Verdict::Foreign),
            (Some(""), Verdict::Foreign),
        ] {
            assert_eq!(origins.judge(origin, &client), verdict, "{origin:?}");
        }
        client.port = 8443;
        assert_eq!(origins.judge(Some("https://app.example:8443"), &client), Verdict::Own);
        let any = Origins { any: true, ..Origins::default() };
        assert_eq!(any.judge(Some("null"), &client), Verdict::Allowed);
        assert!(!any.is_sure(Some("null"), &client, &HeaderMap::new()));
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
