//! What of a request decides about the picture that Next.js makes; pure.

use http::header::{ACCEPT, HeaderMap, HeaderValue};

/// The formats that it makes besides the source's own, as it looks for them in `Accept`.
const FORMATS: [&str; 2] = ["image/avif", "image/webp"];

/// Makes requests that come to the same picture say so in the same words: of `Accept` it reads no
/// more than which of its formats are there.
///
/// What weighs one against the other stays as it is.
pub fn normalize(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(ACCEPT).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return };
    let Some(words) = line.to_str().ok().and_then(said) else { return };
    headers.insert(ACCEPT, HeaderValue::from_static(words));
}

fn said(accept: &str) -> Option<&'static str> {
    let mut found = [false; FORMATS.len()];
    for range in accept.split(',').map(str::trim) {
        let (kind, weight) = range.split_once(';').unwrap_or((range, ""));
        for (format, found) in FORMATS.iter().zip(&mut found) {
            if !kind.trim_end().eq_ignore_ascii_case(format) {
                continue;
            }
            if !weight.is_empty() || kind.trim_end() != *format {
                return None;
            }
            *found = true;
        }
    }
    Some(match found {
        [true, true] => "image/avif,image/webp",
        [true, false] => "image/avif",
        [false, true] => "image/webp",
        [false, false] => "*/*",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &[&'static str], expected: &[&str]) {
        let mut headers = HeaderMap::new();
        for line in accept {
            let line = HeaderValue::from_bytes(line.as_bytes()).expect("a value");
            headers.append(ACCEPT, line);
        }
        normalize(&mut headers);
        let lines: Vec<_> = headers
            .get_all(ACCEPT)
            .iter()
            .map(|line| String::from_utf8_lossy(line.as_bytes()))
            .collect();
        assert_eq!(lines, expected, "{accept:?}");
    }

    #[test]
    fn browsers_that_want_the_same_say_the_same() {
        let both = ["image/avif,image/webp"];
        check(&["image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"], &both);
        check(&["image/webp, image/avif , */*"], &both);
        check(&["image/webp,*/*;q=0.5"], &["image/webp"]);
        check(&["image/avif"], &["image/avif"]);
        check(&["image/png,image/*"], &["*/*"]);
        check(&["text/html,application/xhtml+xml"], &["*/*"]);
        check(&[""], &["*/*"]);
        check(&[], &[]);
        for odd in ["image/avif;q=0.1,image/webp", "image/webp;q=0", "IMAGE/WEBP", "\u{e4}"] {
            check(&[odd], &[odd]);
        }
        check(&["image/webp", "image/avif"], &["image/webp", "image/avif"]);
    }
}
