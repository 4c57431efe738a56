//! The cookies of a request as HTTP/1 has them; pure.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// HTTP/2 sends cookies one by one, HTTP/1 in one line (RFC 9113 §8.2.3).
pub fn join(fields: &mut HeaderMap) {
    let mut crumbs = fields.get_all(COOKIE).iter();
    let Some(first) = crumbs.next() else { return };
    let mut joined = None;
    for crumb in crumbs {
        let line = joined.get_or_insert_with(|| first.as_bytes().to_vec());
        line.extend_from_slice(b"; ");
        line.extend_from_slice(crumb.as_bytes());
    }
    let Some(joined) = joined else { return };
    if let Ok(line) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        fields.insert(COOKIE, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_become_one_line() {
        let mut fields = HeaderMap::new();
        for crumb in ["a=1", "b=2", "c=3"] {
            fields.append(COOKIE, HeaderValue::from_static(crumb));
        }
        join(&mut fields);
        let lines: Vec<_> = fields.get_all(COOKIE).iter().collect();
        assert_eq!(lines, ["a=1; b=2; c=3"]);
    }
}
