//! Answers with another place.

use std::borrow::Cow;

use http::{HeaderValue, StatusCode, header};

use crate::exchange::{Body, Fault, Response, Side};

/// A place with gaps for what the route's path captured.
#[derive(Debug, PartialEq)]
pub struct Redirect {
    parts: Vec<Part>,
    status: StatusCode,
}

#[derive(Debug, PartialEq)]
enum Part {
    Literal(String),
    /// `:slug`, or `*` for the rest of the path.
    Capture(String),
}

impl Redirect {
    pub fn compile(location: &str, status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
        Self { parts: parse(location), status }
    }

    /// The redirect, with the request's query kept.
    pub fn answer(
        &self,
        captured: &dyn Fn(&str) -> Option<String>,
        query: Option<&str>,
    ) -> Response {
        let location = self.location(captured, query);
        let Ok(location) = HeaderValue::try_from(location) else {
            return Fault::new(500, Side::Edge, "bad_redirect").response();
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::LOCATION, location);
        response
    }

    fn location(&self, captured: &dyn Fn(&str) -> Option<String>, query: Option<&str>) -> String {
        let mut location = String::new();
        for part in &self.parts {
            let text = match part {
                Part::Literal(text) => Cow::Borrowed(text.as_str()),
                Part::Capture(name) => Cow::Owned(captured(name).unwrap_or_default()),
            };
            // `/` and a captured `/evil.example` would be another host's address; and so would `/`,
            // what is empty, and `/:name`.
            let is_root = location == "/";
            location.push_str(if is_root { text.trim_start_matches(['/', '\\']) } else { &text });
        }
        if let Some(query) = query {
            // What stands behind a # is the browser's own.
            let fragment = location.find('#').map(|at| location.split_off(at));
            location.push(if location.contains('?') { '&' } else { '?' });
            location.push_str(query);
            location.push_str(&fragment.unwrap_or_default());
        }
        location
    }
}

fn parse(location: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = location;
    while let Some(at) = rest.find([':', '*']) {
        let (before, here) = rest.split_at(at);
        let name = match here.strip_prefix(':') {
            None => "*",
            // A port or a scheme's colon begins no name.
            Some(after)
                if after.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') =>
            {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                after.get(..end.unwrap_or(after.len())).unwrap_or_default()
            }
            Some(_) => "",
        };
        let length = if name == "*" { 1 } else { 1 + name.len() };
        let (gap, after) = here.split_at(length);
        if name.is_empty() {
            parts.push(Part::Literal(format!("{before}{gap}")));
        } else {
            parts.extend((!before.is_empty()).then(|| Part::Literal(before.to_owned())));
            parts.push(Part::Capture(name.to_owned()));
        }
        rest = after;
    }
    parts.extend((!rest.is_empty()).then(|| Part::Literal(rest.to_owned())));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(location: &str, query: Option<&str>, expected: &str) {
        let captured = |name: &str| match name {
            "slug" => Some("a%20b".to_owned()),
            "*" => Some("/evil.example/x".to_owned()),
            _ => None,
        };
        assert_eq!(Redirect::compile(location, 307).location(&captured, query), expected);
    }

    #[test]
    fn gaps_are_filled_and_the_query_is_kept() {
        check("/blog/:slug", None, "/blog/a%20b");
        check("/blog/:slug-x/:none", Some("a=1"), "/blog/a%20b-x/?a=1");
        check("/b?from=:slug", Some("a=1"), "/b?from=a%20b&a=1");
        check("/b#part", Some("a=1"), "/b?a=1#part");
        check("/b?c#part-?:slug", Some("a=1"), "/b?c&a=1#part-?a%20b");
        check("/b#part", None, "/b#part");
        check("https://example.com:8443/:slug", None, "https://example.com:8443/a%20b");
        check("https://example.com*", None, "https://example.com/evil.example/x");
    }

    #[test]
    fn a_captured_path_names_no_other_host() {
        check("/*", None, "/evil.example/x");
        check("/:none/:slug", None, "/a%20b");
        check("/:none*", None, "/evil.example/x");
    }
}
