//! What a request's conditions and ranges come to (RFC 9110 §13, §14); pure.

use std::time::UNIX_EPOCH;

use http::Method;
use http::header::{self, HeaderMap, HeaderName};

use super::ranges::{self, Asked, Range};

/// What the file is told apart by from what it was before.
pub struct Validators {
    /// Strong, with its quotes.
    pub etag: String,
    /// Seconds since 1970.
    pub modified: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Whole,
    /// One or more.
    Parts(Vec<Range>),
    NotModified,
    /// 412
    Failed,
    /// 416
    Unsatisfiable,
}

/// In the order of RFC 9110 §13.2.2.
pub fn judge(method: &Method, headers: &HeaderMap, file: &Validators, length: u64) -> Outcome {
    if let Some(tags) = list(headers, &header::IF_MATCH) {
        if !tags.iter().any(|tag| *tag == "*" || *tag == file.etag) {
            return Outcome::Failed;
        }
    } else if date(headers, &header::IF_UNMODIFIED_SINCE).is_some_and(|date| file.modified > date) {
        return Outcome::Failed;
    }
    if let Some(tags) = list(headers, &header::IF_NONE_MATCH) {
        let is_known = |tag: &&str| *tag == "*" || tag.trim_start_matches("W/") == file.etag;
        if tags.iter().any(is_known) {
            return Outcome::NotModified;
        }
    } else if date(headers, &header::IF_MODIFIED_SINCE).is_some_and(|date| file.modified <= date) {
        return Outcome::NotModified;
    }
    let range = text(headers, &header::RANGE).filter(|_| *method == Method::GET);
    match range.filter(|_| same(headers, file)).map(|range| ranges::asked(range, length)) {
        Some(Asked::Parts(parts)) => Outcome::Parts(parts),
        Some(Asked::Unsatisfiable) => Outcome::Unsatisfiable,
        Some(Asked::Whole) | None => Outcome::Whole,
    }
}

/// A part is worth something to a client that has the rest of the same file alone.
fn same(headers: &HeaderMap, file: &Validators) -> bool {
    let Some(known) = text(headers, &header::IF_RANGE) else { return true };
    known == file.etag || date(headers, &header::IF_RANGE) == Some(file.modified)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// The entity tags of a header, if it is there.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Vec<&'a str>> {
    headers.contains_key(name).then(|| {
        let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(str::trim).collect()
    })
}

/// What is no date counts as if it were not there.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let date = httpdate::parse_http_date(text(headers, name)?).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use http::HeaderValue;

    use super::*;

    const THEN: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
    const BEFORE: &str = "Wed, 31 Dec 2025 23:59:59 GMT";

    fn check(lines: &[(&str, &str)], expected: &Outcome) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_str(name).expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        let file = Validators { etag: "\"a\"".to_owned(), modified: 1_767_225_600 };
        assert_eq!(judge(&Method::GET, &headers, &file, 10), *expected, "{lines:?}");
    }

    #[test]
    fn conditions_come_in_their_order() {
        check(&[], &Outcome::Whole);
        check(&[("if-none-match", "\"a\"")], &Outcome::NotModified);
        check(&[("if-none-match", "\"b\", W/\"a\"")], &Outcome::NotModified);
        check(&[("if-none-match", "*")], &Outcome::NotModified);
        check(&[("if-none-match", "\"b\""), ("if-modified-since", THEN)], &Outcome::Whole);
        check(&[("if-modified-since", THEN)], &Outcome::NotModified);
        check(&[("if-modified-since", BEFORE)], &Outcome::Whole);
        check(&[("if-modified-since", "yesterday")], &Outcome::Whole);
        check(&[("if-match", "\"a\"")], &Outcome::Whole);
        check(&[("if-match", "W/\"a\"")], &Outcome::Failed);
        check(&[("if-match", "\"b\""), ("if-none-match", "\"a\"")], &Outcome::Failed);
        check(&[("if-unmodified-since", BEFORE)], &Outcome::Failed);
        check(&[("if-unmodified-since", THEN)], &Outcome::Whole);
    }

    #[test]
    fn ranges_are_parts_of_the_same_file() {
        let part = |from, to| Outcome::Parts(vec![(from, to)]);
        check(&[("range", "bytes=2-4")], &part(2, 4));
        check(&[("range", "bytes=0-1,3-4")], &Outcome::Parts(vec![(0, 1), (3, 4)]));
        check(&[("range", "bytes=10-")], &Outcome::Unsatisfiable);
        check(&[("range", "lines=0-1")], &Outcome::Whole);
        check(&[("range", "bytes=0-1"), ("if-none-match", "\"a\"")], &Outcome::NotModified);
        check(&[("range", "bytes=0-1"), ("if-range", "\"a\"")], &part(0, 1));
        check(&[("range", "bytes=0-1"), ("if-range", THEN)], &part(0, 1));
        for other in ["\"b\"", "W/\"a\"", BEFORE] {
            check(&[("range", "bytes=0-1"), ("if-range", other)], &Outcome::Whole);
        }
    }
}
