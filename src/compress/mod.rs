//! Compresses responses for clients that take it: chosen by `Accept-Encoding`, flushed at each pause.

mod accept;
mod body;
mod coder;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderName, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::config::{self, Coding};
use crate::exchange::{Body, Request, Response};

use body::Compressed;
use coder::Coder;

/// Smaller bodies fit into a packet or two as they are.
const LENGTH_MIN: u64 = 1024;

/// Words for the very bytes of a body: what carries one is left as it is.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// What a site compresses with; part of the snapshot.
#[derive(Debug, Default)]
pub struct Compress {
    codings: Vec<Coding>,
}

/// What was chosen for one exchange.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// The site compresses, if not for this client.
    varies: bool,
    coding: Option<Coding>,
    head: bool,
}

impl Compress {
    /// A development server's bodies are left alone.
    pub fn compile(site: &config::Site) -> Self {
        Self { codings: if site.dev { Vec::new() } else { site.compress.clone() } }
    }

    /// Chooses for a request. What is compressed here comes from the application as it is: Next.js
    /// would use gzip, and a body is compressed once.
    pub fn choose(&self, request: &mut Request) -> Choice {
        let choice = self.accepted(request);
        if choice.coding.is_some() {
            request.headers_mut().insert(ACCEPT_ENCODING, IDENTITY);
        }
        choice
    }

    /// As `choose`; the request stays as it is.
    pub fn accepted(&self, request: &Request) -> Choice {
        let head = request.method() == Method::HEAD;
        let headers = request.headers();
        if self.codings.is_empty() || is_fixed(headers) {
            return Choice { varies: false, coding: None, head };
        }
        let coding = accept::choose(headers.get_all(ACCEPT_ENCODING), &self.codings);
        Choice { varies: true, coding, head }
    }
}

impl Choice {
    /// What bodies that are worth it are compressed with.
    pub fn coding(self) -> Option<Coding> {
        self.coding
    }

    /// True if what the client takes decides.
    pub fn varies(self) -> bool {
        self.varies
    }

    /// Compresses the response if it may be, and says that it depends on `Accept-Encoding`.
    pub fn apply(self, response: &mut Response) {
        let status = response.status();
        let unchanged = status == StatusCode::NOT_MODIFIED;
        if !self.varies || !may_have_body(status) || !is_plain(response.headers(), unchanged) {
            return;
        }
        vary(response.headers_mut());
        let Some(coding) = self.coding else { return };
        if unchanged {
            return weaken(response.headers_mut());
        }
        let length = response.headers().get(CONTENT_LENGTH).and_then(number);
        if length.is_some_and(|length| length < LENGTH_MIN) {
            return;
        }
        if self.head {
            // What a GET would say of it; an empty body has no length of its own to tell.
            return describe(response.headers_mut(), coding);
        }
        let lasting = is_event_stream(response.headers());
        let Some(mut coder) = Coder::new(coding, lasting) else { return };
        let body = std::mem::replace(response.body_mut(), Body::empty());
        *response.body_mut() = match body.whole() {
            Ok(bytes) => {
                let mut out = Vec::with_capacity(bytes.len() / 2);
                let done = coder.write(&bytes, &mut out).and_then(|()| coder.finish(&mut out));
                if done.is_err() || out.len() >= bytes.len() {
                    *response.body_mut() = Body::from(bytes);
                    return;
                }
                describe(response.headers_mut(), coding);
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(out.len()));
                Body::from(bytes::Bytes::from(out))
            }
            Err(body) => {
                describe(response.headers_mut(), coding);
                Body::stream(Compressed::new(body, coder))
            }
        };
    }
}

/// True for a status whose body is all of something.
fn may_have_body(status: StatusCode) -> bool {
    let bodiless = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::PARTIAL_CONTENT];
    !status.is_informational() && !bodiless.contains(&status)
}

/// True for a body that is not compressed yet, and may be. `unchanged` ones are not described.
fn is_plain(headers: &HeaderMap, unchanged: bool) -> bool {
    if headers.contains_key(CONTENT_ENCODING)
        || headers.contains_key(CONTENT_RANGE)
        || is_fixed(headers)
        || DIGESTS.iter().any(|digest| headers.contains_key(digest))
    {
        return false;
    }
    match headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) {
        Some(kind) => is_compressible(kind),
        None => unchanged,
    }
}

/// True if nobody on the way may change the body (RFC 9111 §5.2.2.6).
fn is_fixed(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|line| {
        let mut directives = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        directives.any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
    })
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    essence(kind).eq_ignore_ascii_case(b"text/event-stream")
}

/// A media type without its parameters.
fn essence(kind: &[u8]) -> &[u8] {
    kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// Text, and what is text under another name. Pictures, films and archives are compressed already.
fn is_compressible(kind: &[u8]) -> bool {
    const KINDS: [&str; 20] = [
        "application/ecmascript",
        "application/graphql",
        "application/javascript",
        "application/json",
        "application/ndjson",
        "application/rtf",
        "application/toml",
        "application/vnd.ms-fontobject",
        "application/wasm",
        "application/x-javascript",
        "application/x-ndjson",
        "application/x-sh",
        "application/xml",
        "application/yaml",
        "font/collection",
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/vnd.microsoft.icon",
        "image/x-icon",
    ];
    let kind = essence(kind).to_ascii_lowercase();
    kind.starts_with(b"text/")
        || [&b"+json"[..], b"+xml", b"+text"].iter().any(|suffix| kind.ends_with(suffix))
        || KINDS.iter().any(|known| known.as_bytes() == kind)
}

fn number(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.parse().ok()
}

/// Makes the headers those of the compressed body.
fn describe(headers: &mut HeaderMap, coding: Coding) {
    headers.remove(CONTENT_LENGTH);
    // Ranges would be of the body as the application has it.
    headers.remove(ACCEPT_RANGES);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    weaken(headers);
}

/// The same content in other bytes has the same tag only if that is a weak one (RFC 9110 §8.8.3).
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else {
        return;
    };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
        headers.insert(ETAG, weak);
    }
}

fn vary(headers: &mut HeaderMap) {
    let known = headers.get_all(VARY).iter().any(|line| {
        let mut names = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"))
    });
    if !known {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "some text that is long enough to be worth it. ";

    fn check(
        status: u16,
        lines: &[(&str, &str)],
        coding: Option<Coding>,
        compressed: bool,
        varies: bool,
    ) {
        let mut response = Response::new(Body::from(TEXT.repeat(100)));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            response.headers_mut().append(name, HeaderValue::from_str(value).expect("a value"));
        }
        Choice { varies: true, coding, head: false }.apply(&mut response);
        let headers = response.headers();
        let was = lines.iter().any(|(name, _)| *name == "content-encoding");
        assert_eq!(
            headers.contains_key(CONTENT_ENCODING) && !was,
            compressed,
            "{status} {lines:?}"
        );
        let says =
            headers.get_all(VARY).iter().any(|line| line.as_bytes().ends_with(b"ccept-Encoding"));
        assert_eq!(says, varies, "{status} {lines:?}");
    }

    #[test]
    fn what_may_be_compressed() {
        let html = ("content-type", "text/html; charset=utf-8");
        let gzip = Some(Coding::Gzip);
        check(200, &[html], gzip, true, true);
        check(200, &[html], None, false, true);
        check(404, &[html], gzip, true, true);
        check(200, &[("content-type", "Application/LD+JSON")], gzip, true, true);
        check(200, &[("content-type", "text/x-component")], gzip, true, true);
        for kind in ["image/png", "application/zip", "video/mp4", "font/woff2", "application/json2"]
        {
            check(200, &[("content-type", kind)], gzip, false, false);
        }
        check(200, &[], gzip, false, false);
        check(206, &[html, ("content-range", "bytes 0-9/100")], gzip, false, false);
        check(204, &[html], gzip, false, false);
        check(200, &[html, ("content-encoding", "br")], gzip, false, false);
        check(200, &[html, ("cache-control", "public, No-Transform")], gzip, false, false);
        check(200, &[html, ("repr-digest", "sha-256=:x:")], gzip, false, false);
        check(200, &[html, ("content-length", "1023")], gzip, false, true);
        check(200, &[html, ("content-length", "1024")], gzip, true, true);
        check(304, &[], gzip, false, true);
    }

    #[test]
    fn headers_are_those_of_the_compressed_body() {
        let mut response = Response::new(Body::from(TEXT.repeat(100)));
        for (name, value) in [
            (CONTENT_TYPE, "text/css"),
            (CONTENT_LENGTH, "4600"),
            (ACCEPT_RANGES, "bytes"),
            (ETAG, "\"a\""),
            (VARY, "rsc, next-url"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Choice { varies: true, coding: Some(Coding::Zstd), head: false }.apply(&mut response);
        let headers = response.headers();
        let length = http_body::Body::size_hint(response.body()).exact();
        assert!(length.is_some_and(|length| length < 200), "{length:?}");
        assert_eq!(headers.get(CONTENT_LENGTH).and_then(number), length);
        assert_eq!(headers[CONTENT_ENCODING], "zstd");
        assert_eq!(headers[ETAG], "W/\"a\"");
        assert!(!headers.contains_key(ACCEPT_RANGES));
        let vary: Vec<_> = headers.get_all(VARY).iter().collect();
        assert_eq!(vary, ["rsc, next-url", "Accept-Encoding"]);
    }

    #[test]
    fn the_application_is_asked_for_plain_bodies_if_they_are_compressed_here() {
        let compress = Compress { codings: vec![Coding::Brotli, Coding::Gzip] };
        for (accept, control, asked, coding) in [
            ("gzip, br", "", "identity", Some(Coding::Brotli)),
            ("zstd", "", "zstd", None),
            ("gzip", "no-transform", "gzip", None),
        ] {
            let mut request = Request::new(Body::empty());
            let headers = request.headers_mut();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accept));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(control));
            assert_eq!(compress.choose(&mut request).coding, coding);
            assert_eq!(request.headers()[ACCEPT_ENCODING], asked);
        }
    }
}
