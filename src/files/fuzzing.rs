//! What must hold for any path, condition and range that a file is asked for with.
//!
//! Panics where something does not hold; see `crate::fuzzing`.

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::conditional::{Outcome, Validators, judge};
use super::place::Place;
use super::{encoding, types};

/// A path, then the headers of a request, a line each.
pub fn files(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let path = std::str::from_utf8(lines.next().unwrap_or_default()).unwrap_or("/");
    if let Some(place) = Place::of(path) {
        let names = place.path.components();
        let is_name = |name| matches!(name, std::path::Component::Normal(_));
        assert!(names.clone().all(is_name), "{path} leads to {place:?}");
        assert!(!place.path.is_absolute() && !types::of(&place.path).is_empty());
    }
    let mut headers = HeaderMap::new();
    for line in lines.take(32) {
        let (name, value) = line.split_at(memchr::memchr(b':', line).unwrap_or(line.len()));
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            headers.append(name, value);
        }
    }
    assert!(encoding::accepted(&headers).len() <= encoding::Encoding::ALL.len());
    for length in [0, 1, 10, u64::MAX] {
        let file = Validators { etag: "\"a\"".to_owned(), modified: 1_767_225_600 };
        match judge(&Method::GET, &headers, &file, length) {
            Outcome::Parts(parts) => {
                let is_there = |(from, to): &(u64, u64)| from <= to && *to < length;
                assert!(!parts.is_empty() && parts.iter().all(is_there), "{parts:?}/{length}");
                let sum = parts.iter().map(|(from, to)| u128::from(to - from) + 1).sum::<u128>();
                assert!(sum <= u128::from(length), "{parts:?}/{length}");
            }
            Outcome::Whole | Outcome::NotModified | Outcome::Failed | Outcome::Unsatisfiable => (),
        }
    }
}
