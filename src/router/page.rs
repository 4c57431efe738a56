//! Whether a page may have its visitor's browser act for it (RFC 6454, Fetch metadata); pure.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request};

use crate::exchange::{Client, headers};

/// Whose page has made a browser send a request, with what lets its visitor in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The site's own, one that is listed, or no page at all.
    Own,
    Foreign,
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl Page {
    /// Browsers send cookies and passwords by themselves, whoever's page asks. What only reads is
    /// kept from other pages by the browser; what changes something, and a WebSocket, is not.
    pub fn of<B>(
        request: &Request<B>,
        client: &Client,
        allows: impl Fn(&HeaderValue) -> bool,
    ) -> Self {
        let (method, fields) = (request.method(), request.headers());
        let reads = *method == Method::GET || *method == Method::HEAD || *method == Method::OPTIONS;
        if reads && headers::upgrade(fields).is_none() {
            return Self::Own;
        }
        if is_own(fields, client) || one(fields, &header::ORIGIN).is_some_and(allows) {
            Self::Own
        } else {
            Self::Foreign
        }
    }
}

fn is_own(fields: &HeaderMap, client: &Client) -> bool {
    // The browser's own word goes first: a page may hide its origin, as Referrer-Policy does.
    if let Some(site) = one(fields, &SEC_FETCH_SITE) {
        return site == "same-origin" || site == "none";
    }
    if !fields.contains_key(header::ORIGIN) {
        // No browser: all of them send one of the two with what is not only read.
        return !fields.contains_key(SEC_FETCH_SITE);
    }
    let own = format!("{}://{}", client.scheme.as_str(), client.authority());
    one(fields, &header::ORIGIN)
        .is_some_and(|origin| origin.as_bytes().eq_ignore_ascii_case(own.as_bytes()))
}

/// The value of what is there once.
fn one<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut all = fields.get_all(name).iter();
    let first = all.next();
    first.filter(|_| all.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Scheme;

    fn check(method: &str, lines: &[(&'static str, &'static str)], expected: Page) {
        let client = Client {
            address: [10, 0, 0, 9].into(),
            host: "a.example".to_owned(),
            port: 443,
            scheme: Scheme::Https,
            chain: None,
        };
        let mut request = Request::builder().method(method);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let found = Page::of(&request, &client, |origin| origin == "https://listed.example");
        assert_eq!(found, expected, "{method} {lines:?}");
    }

    #[test]
    fn only_the_sites_own_pages_and_those_that_are_listed_act_for_a_visitor() {
        let (own, foreign) = (("origin", "https://a.example"), ("origin", "https://b.example"));
        check("POST", &[own], Page::Own);
        check("POST", &[foreign], Page::Foreign);
        check("GET", &[foreign], Page::Own);
        check("DELETE", &[("origin", "http://a.example")], Page::Foreign);
        check("POST", &[("origin", "https://a.example:8443")], Page::Foreign);
        check("POST", &[("origin", "null")], Page::Foreign);
        check("POST", &[("origin", "https://listed.example")], Page::Own);
        check("POST", &[own, foreign], Page::Foreign);
        // Scripts that are no browser.
        check("POST", &[], Page::Own);
        // A form under Referrer-Policy: no-referrer.
        check("POST", &[("origin", "null"), ("sec-fetch-site", "same-origin")], Page::Own);
        check("POST", &[("sec-fetch-site", "none")], Page::Own);
        check("POST", &[("sec-fetch-site", "cross-site")], Page::Foreign);
        check("POST", &[foreign, ("sec-fetch-site", "same-site")], Page::Foreign);
        check(
            "POST",
            &[("origin", "https://listed.example"), ("sec-fetch-site", "cross-site")],
            Page::Own,
        );
        let socket = [("connection", "upgrade"), ("upgrade", "websocket")];
        check("GET", &[&socket[..], &[foreign]].concat(), Page::Foreign);
        check("GET", &[&socket[..], &[own]].concat(), Page::Own);
    }
}
