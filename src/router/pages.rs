//! What the edge's own answers look like: the operator's pages, HTML, problem+json or text; pure.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config;
use crate::exchange::headers::Seen;
use crate::exchange::{Body, Fault, Response};

/// The operator's pages, by status.
#[derive(Debug, Default)]
pub struct Pages(Vec<(u16, Arc<str>)>);

/// What a client can show.
#[derive(Debug, Default)]
pub struct Wants {
    accept: Option<HeaderValue>,
    destination: Option<HeaderValue>,
    rsc: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Html,
    /// RFC 9457.
    Problem,
    Text,
}

const DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");
const RSC: HeaderName = HeaderName::from_static("rsc");

impl Pages {
    pub fn compile(words: &[config::ErrorPage]) -> Self {
        Self(words.iter().map(|error| (error.status, Arc::clone(&error.page.html))).collect())
    }

    /// The page of the status, or that of its hundred.
    fn find(&self, status: u16) -> Option<&Arc<str>> {
        let of = |wanted| self.0.iter().find(|(known, _)| *known == wanted).map(|(_, page)| page);
        of(status).or_else(|| of(status / 100))
    }

    /// The answer that says what went wrong, as the client can show it.
    pub fn answer(&self, fault: Fault, wants: &Wants, page: Option<&Arc<str>>) -> Response {
        let mut response = fault.response();
        let status = response.status();
        let title = status.canonical_reason().unwrap_or("Error");
        let (kind, body) = match wants.form() {
            Form::Text => return response,
            Form::Problem => ("application/problem+json", problem(fault, title)),
            Form::Html => match page.or_else(|| self.find(fault.status)) {
                Some(page) => ("text/html; charset=utf-8", page.to_string()),
                None => ("text/html; charset=utf-8", plain(fault, title)),
            },
        };
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        *response.body_mut() = Body::from(body);
        response
    }
}

/// Titles and reasons are words of ours: nothing in them needs an escape.
fn problem(Fault { status, reason, .. }: Fault, title: &str) -> String {
    format!(
        "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"reason\":\"{reason}\"}}\n"
    )
}

fn plain(Fault { status, reason, .. }: Fault, title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{status} {title}</title>\n\
         <h1>{status} {title}</h1>\n<p>{reason}</p>\n"
    )
}

impl Wants {
    pub fn of(headers: &HeaderMap, seen: &Seen) -> Self {
        let get = |name: &HeaderName| {
            let value = seen.may_have(name.as_str()).then(|| headers.get(name)).flatten();
            value.cloned()
        };
        let (accept, destination) = (get(&header::ACCEPT), get(&DESTINATION));
        Self { accept, destination, rsc: get(&RSC).is_some() }
    }

    /// HTML is for documents: a script's place would try to run it, and Next.js' router to read it.
    pub fn form(&self) -> Form {
        let accept = self.accept.as_ref().and_then(|accept| accept.to_str().ok());
        let frames: [&[u8]; 5] = [b"document", b"iframe", b"frame", b"embed", b"object"];
        let shows = |destination: &HeaderValue| frames.contains(&destination.as_bytes());
        let is_document = !self.rsc && self.destination.as_ref().is_none_or(shows);
        let mut best = (0, Form::Text);
        for item in accept.unwrap_or_default().split(',') {
            let (kind, quality) = weighed(item);
            let form = match kind.to_ascii_lowercase().as_str() {
                "text/html" | "application/xhtml+xml" if is_document => Form::Html,
                "application/json" | "application/problem+json" => Form::Problem,
                "text/plain" => Form::Text,
                _ => continue,
            };
            if quality > best.0 {
                best = (quality, form);
            }
        }
        best.1
    }
}

/// A media range and its weight, in thousandths (RFC 9110 §12.4.2).
fn weighed(item: &str) -> (&str, u16) {
    let mut parts = item.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    let Some(weight) = weight else { return (kind, 1000) };
    let (whole, part) = weight.split_once('.').unwrap_or((weight, ""));
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    match (whole, part.parse()) {
        ("1", Ok(_)) => (kind, 1000),
        ("0", Ok(part)) => (kind, part),
        _ => (kind, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Side;

    fn check(
        accept: Option<&'static str>,
        destination: Option<&'static str>,
        rsc: bool,
        form: Form,
    ) {
        let wants = Wants {
            accept: accept.map(HeaderValue::from_static),
            destination: destination.map(HeaderValue::from_static),
            rsc,
        };
        assert_eq!(wants.form(), form, "{accept:?} {destination:?} {rsc}");
    }

    #[test]
    fn documents_get_html_and_programs_what_they_can_read() {
        let browser = Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
        check(browser, Some("document"), false, Form::Html);
        check(browser, None, false, Form::Html);
        check(browser, Some("document"), true, Form::Text);
        check(Some("*/*"), Some("script"), false, Form::Text);
        check(browser, Some("script"), false, Form::Text);
        check(None, None, false, Form::Text);
        check(Some("*/*"), None, false, Form::Text);
        check(Some("application/json, text/plain, */*"), Some("empty"), false, Form::Problem);
        check(Some("text/html;q=0.1, application/problem+json"), None, false, Form::Problem);
        check(Some("text/html;q=0, application/json;q=0.5"), None, false, Form::Problem);
        check(Some("text/html;q=x"), None, false, Form::Text);
        check(Some("text/html;q=1.000,application/json;q=0.999"), None, false, Form::Html);
    }

    #[test]
    fn the_page_of_a_status_goes_before_that_of_its_hundred() {
        let pages = Pages(vec![(5, "any".into()), (502, "exact".into())]);
        let found = |status| pages.find(status).map(|page| &**page);
        assert_eq!((found(502), found(503), found(404)), (Some("exact"), Some("any"), None));
        let wants =
            Wants { accept: Some(HeaderValue::from_static("text/html")), ..Wants::default() };
        let fault = Fault::new(404, Side::Client, "no_route");
        let answer = pages.answer(fault, &wants, None);
        assert_eq!(
            answer.headers().get("content-type").map(HeaderValue::as_bytes),
            Some(&b"text/html; charset=utf-8"[..])
        );
    }
}
