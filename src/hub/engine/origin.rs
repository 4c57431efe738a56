//! Whose pages may use the hub (RFC 6454); pure.

use http::HeaderMap;
use http::header::HeaderName;

use crate::exchange::Client;

/// The origins allowed besides the site's own.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    pub any: bool,
    /// `https://a.example`, lower case, default ports left out.
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
        let lower = origin.trim().to_ascii_lowercase();
        // Behind a proxy that ends TLS the scheme may be told wrongly; host and port decide.
        if host_of(&lower).is_some_and(|host| host == client.authority()) {
            return Verdict::Own;
        }
        let known = self.any || self.allowed.contains(&lower);
        if known { Verdict::Allowed } else { Verdict::Foreign }
    }
}

impl Origins {
    /// Whether a request that browsers may send by themselves, cookies and all, is from a page that
    /// may: its origin is told, to the letter; or it is a GET of the page's own, which tells none.
    pub fn is_sure(&self, origin: Option<&str>, client: &Client, headers: &HeaderMap) -> bool {
        match origin {
            None => headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "same-origin"),
            Some(origin) => {
                let lower = origin.to_ascii_lowercase();
                let own = format!("{}://{}", client.scheme.as_str(), client.authority());
                lower == own || self.any || self.allowed.contains(&lower)
            }
        }
    }
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
    }
}
