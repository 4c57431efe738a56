//! What pages of other origins may do (the Fetch standard, CORS protocol); pure.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::config;
use crate::exchange::{Body, Response};

/// The rules of a site or a route, as the values that are sent.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<String>,
    any: bool,
    methods: HeaderValue,
    /// `None`: whatever is asked for.
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

/// Written by the edge alone where it has rules.
const ANSWERS: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

impl Cors {
    pub fn compile(words: &config::Cors) -> Self {
        let list = |names: &[String]| HeaderValue::try_from(names.join(", ")).ok();
        let is_any = |names: &[String]| names.iter().any(|name| name == "*");
        Self {
            origins: words.origins.clone(),
            any: is_any(&words.origins),
            methods: list(&words.methods).unwrap_or_else(|| HeaderValue::from_static("")),
            headers: list(&words.headers).filter(|_| !is_any(&words.headers)),
            expose: list(&words.expose).filter(|_| !words.expose.is_empty()),
            credentials: words.credentials,
            max_age: HeaderValue::from(words.max_age.as_secs()),
        }
    }

    /// Answers what a browser asks before it sends a request; `None` if this is another request.
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let is_one = *method == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !is_one {
            return None;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        answer.append(
            header::VARY,
            HeaderValue::from_static(
                "Access-Control-Request-Method, Access-Control-Request-Headers",
            ),
        );
        if self.admits(headers.get(header::ORIGIN)) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
            let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
            if let Some(allowed) = self.headers.as_ref().or(asked) {
                answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed.clone());
            }
        }
        Some(response)
    }

    /// Tells the browser whether the page that asked may read the response; what the application
    /// says of it does not count, but for a preflight's own words.
    pub fn apply(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap, preflight: bool) {
        let kept = if preflight { 2 } else { ANSWERS.len() };
        for name in ANSWERS.iter().take(kept) {
            answer.remove(name);
        }
        let is_same_for_all = self.any && !self.credentials;
        if !is_same_for_all {
            answer.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = origin.filter(|origin| self.admits(Some(origin))) else { return };
        let allowed = if is_same_for_all { HeaderValue::from_static("*") } else { origin.clone() };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if let Some(expose) = self.expose.as_ref().filter(|_| !preflight) {
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    /// True if pages of this origin may send cookies, and are known.
    pub fn trusts(&self, origin: &HeaderValue) -> bool {
        self.credentials && !self.any && self.admits(Some(origin))
    }

    fn admits(&self, origin: Option<&HeaderValue>) -> bool {
        let Some(origin) = origin.and_then(|origin| origin.to_str().ok()) else { return false };
        let fits = |pattern: &String| match pattern.split_once("://*.") {
            Some((scheme, domain)) => {
                let host = origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
                let label = host.and_then(|host| host.strip_suffix(domain));
                let label = label.and_then(|label| label.strip_suffix('.'));
                label.is_some_and(|label| {
                    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
                    !label.is_empty() && label.bytes().all(letter)
                })
            }
            None => pattern == origin,
        };
        self.any || self.origins.iter().any(fits)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Cors::compile(&config::Cors {
            origins: owned(origins),
            methods: owned(&["GET", "PUT"]),
            headers: owned(&["*"]),
            expose: owned(&["x-total"]),
            credentials,
            max_age: Duration::from_secs(60),
        })
    }

    fn told(cors: &Cors, origin: &'static str) -> (Option<String>, bool) {
        let old = HeaderValue::from_static("old");
        let mut answer = HeaderMap::from_iter([(header::ACCESS_CONTROL_ALLOW_ORIGIN, old)]);
        cors.apply(Some(&HeaderValue::from_static(origin)), &mut answer, false);
        let allowed = answer.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        let allowed = allowed.and_then(|value| value.to_str().ok()).map(str::to_owned);
        (allowed, answer.contains_key(header::VARY))
    }

    #[test]
    fn only_listed_origins_may_read() {
        let listed = cors(&["https://a.example", "https://*.b.example"], true);
        for (origin, expected) in [
            ("https://a.example", true),
            ("http://a.example", false),
            ("https://a.example.evil", false),
            ("https://x.b.example", true),
            ("https://x.y.b.example", false),
            ("https://.b.example", false),
            ("https://xb.example", false),
            ("https://evil/.b.example", false),
            ("null", false),
        ] {
            let allowed = expected.then(|| origin.to_owned());
            assert_eq!(told(&listed, origin), (allowed, true), "{origin}");
        }
        let any = cors(&["*"], false);
        assert_eq!(told(&any, "https://x.example"), (Some("*".to_owned()), false));
    }

    #[test]
    fn a_preflight_is_answered_with_what_may_be_sent() {
        let rules = cors(&["https://a.example"], true);
        let ask = |origin: &'static str| {
            HeaderMap::from_iter([
                (header::ORIGIN, HeaderValue::from_static(origin)),
                (header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT")),
                (header::ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-a")),
            ])
        };
        let answer = rules.preflight(&Method::OPTIONS, &ask("https://a.example")).expect("one");
        let get = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(get(header::ACCESS_CONTROL_ALLOW_METHODS), Some("GET, PUT"));
        assert_eq!(get(header::ACCESS_CONTROL_ALLOW_HEADERS), Some("x-a"));
        assert_eq!(get(header::ACCESS_CONTROL_MAX_AGE), Some("60"));
        let answer = rules.preflight(&Method::OPTIONS, &ask("https://evil")).expect("one");
        assert!(!answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_METHODS));
        assert!(rules.preflight(&Method::GET, &ask("https://a.example")).is_none());
        assert!(rules.preflight(&Method::OPTIONS, &HeaderMap::new()).is_none());
    }
}
