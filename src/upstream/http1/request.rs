//! A request's head to bytes.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method};

use super::Framing;

/// What each edge that a request passes adds to it (RFC 8586), and the end of the head: an upstream
/// that leads back here must not be asked for ever.
const PASSED: &[u8] = b"cdn-loop: vestibule\r\n\r\n";

/// Writes the request line, `lines` as they are, the headers and the blank line to `out`.
///
/// The framing is written from `framing` alone: what the headers say of it is left out.
pub fn encode_head(
    (method, target): (&Method, &str),
    lines: &[u8],
    headers: &HeaderMap,
    framing: Framing,
    out: &mut Vec<u8>,
) {
    put(out, &[method.as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n", lines]);
    for (name, value) in headers {
        if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
            continue;
        }
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        // Room for the whole line at once: its parts ask no more.
        out.reserve(name.len() + value.len() + 4);
        put(out, &[name, b": ", value, b"\r\n"]);
    }
    match framing {
        Framing::None | Framing::Close => (),
        Framing::Length(length) => {
            let mut digits = itoa::Buffer::new();
            put(out, &[b"content-length: ", digits.format(length).as_bytes(), b"\r\n"]);
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(PASSED);
}

/// Writes a chunked body's end: the last chunk, the trailers and the blank line.
pub fn encode_trailers(trailers: &HeaderMap) -> Vec<u8> {
    let mut out = b"0\r\n".to_vec();
    for (name, value) in trailers {
        put(&mut out, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn check(framing: Framing, expected: &str) {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("a.example"));
        headers.insert("content-length", HeaderValue::from_static("99"));
        headers.insert("transfer-encoding", HeaderValue::from_static("gzip"));
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        let mut out = Vec::new();
        encode_head((&Method::POST, "/p?q"), b"x: y\r\n", &headers, framing, &mut out);
        let expected = format!(
            "POST /p?q HTTP/1.1\r\nx: y\r\nhost: a.example\r\nx-a: 1\r\nx-a: 2\r\n{expected}cdn-loop: vestibule\r\n\r\n"
        );
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn the_framing_is_the_bodys_not_the_headers() {
        check(Framing::None, "");
        check(Framing::Length(5), "content-length: 5\r\n");
        check(Framing::Chunked, "transfer-encoding: chunked\r\n");
    }
}
