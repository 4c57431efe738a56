//! Bytes to a response's head.

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode};

use super::{BadResponse, Framing};

/// Bytes of one response head.
const HEAD_MAX: usize = 64 * 1024;
/// Lines of one response head.
const LINES_MAX: usize = 200;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// A response without its body. Header values are slices of what was read.
#[derive(Debug)]
pub struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub framing: Framing,
    /// True if the connection may carry another request after the body.
    pub persists: bool,
    /// For how long the target says it keeps the connection.
    pub lasts: Option<Duration>,
}

/// Finds and reads one head in bytes that come piece by piece.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// How much of the buffer is known not to hold the head's end.
    scanned: usize,
}

/// Names that targets have used lately: finding one costs less than making it, and takes no memory
/// of its own.
#[derive(Debug)]
pub struct Names(Vec<Option<(Box<[u8]>, HeaderName)>>);

/// Places in all. Names that fall on the same one take turns.
const NAMES: usize = 128;
/// Longer names are made each time.
const NAME_MAX: usize = 40;

impl Default for Names {
    fn default() -> Self {
        Self((0..NAMES).map(|_| None).collect())
    }
}

impl Names {
    /// The name that is written so, in whatever case.
    fn find(&mut self, written: &[u8]) -> Option<HeaderName> {
        let make = || HeaderName::from_bytes(written).ok();
        let (Some(first), Some(last)) = (written.first(), written.last()) else { return None };
        let middle = written.get(written.len() / 2).unwrap_or(first);
        let [first, middle, last] = [first, middle, last].map(|byte| usize::from(*byte));
        let place = (written.len() * 7 + first * 3 + middle * 5 + last) % NAMES;
        let place = self.0.get_mut(place).filter(|_| written.len() <= NAME_MAX);
        let Some(place) = place else { return make() };
        match place {
            Some((known, name)) if **known == *written => Some(name.clone()),
            place => {
                let name = make()?;
                *place = Some((written.into(), name.clone()));
                Some(name)
            }
        }
    }
}

impl HeadReader {
    /// Takes the head off the front of `buffer` once it is whole.
    ///
    /// The memory of `used`, headers that nobody needs any more, is taken for its own.
    pub fn read(
        &mut self,
        buffer: &mut BytesMut,
        method: &Method,
        used: &mut HeaderMap,
        names: &mut Names,
    ) -> Result<Option<Head>, BadResponse> {
        let Some(end) = self.find_end(buffer)? else {
            return Ok(None);
        };
        self.scanned = 0;
        parse(&buffer.split_to(end).freeze(), method, used, names).map(Some)
    }

    /// The place after the blank line. Every line must end in CRLF, the first ones too.
    fn find_end(&mut self, buffer: &[u8]) -> Result<Option<usize>, BadResponse> {
        let unseen = buffer.get(self.scanned..).unwrap_or_default();
        for found in memchr::memchr_iter(b'\n', unseen) {
            let line = buffer.get(..self.scanned + found).unwrap_or_default();
            if !line.ends_with(b"\r") {
                return Err(BadResponse::BareLineFeed);
            }
            if line.ends_with(b"\r\n\r") {
                return within_limit(line.len() + 1).map(Some);
            }
        }
        self.scanned = buffer.len();
        within_limit(buffer.len()).map(|_length| None)
    }
}

fn within_limit(length: usize) -> Result<usize, BadResponse> {
    if length > HEAD_MAX { Err(BadResponse::HeadTooLarge { max: HEAD_MAX }) } else { Ok(length) }
}

fn parse(
    head: &Bytes,
    method: &Method,
    used: &mut HeaderMap,
    names: &mut Names,
) -> Result<Head, BadResponse> {
    let mut lines = [const { MaybeUninit::uninit() }; LINES_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, head, &mut lines)
        .map_err(BadResponse::Head)?;
    let (Some(code), Some(minor)) = (response.code, response.version) else {
        return Err(BadResponse::Head(httparse::Error::Status));
    };
    // httparse passes over empty lines before the status line; the end found must be its own.
    if parsed != httparse::Status::Complete(head.len()) || head.first() != Some(&b'H') {
        return Err(BadResponse::Head(httparse::Error::Status));
    }
    let status =
        StatusCode::from_u16(code).map_err(|_error| BadResponse::Head(httparse::Error::Status))?;
    // What comes after an interim response still needs the request's own.
    let mut headers =
        if status.is_informational() { HeaderMap::new() } else { std::mem::take(used) };
    headers.clear();
    for line in response.headers.iter() {
        let name = names.find(line.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(head.slice_ref(line.value));
        let (Some(name), Ok(value)) = (name, value) else {
            return Err(BadResponse::Head(httparse::Error::HeaderValue));
        };
        headers.append(name, value);
    }
    let framing = framing(status, method, minor, &mut headers)?;
    let persists = minor == 1 && framing != Framing::Close && !says(&headers, &CONNECTION, "close");
    let lasts = headers.get(KEEP_ALIVE).and_then(timeout);
    Ok(Head { status, headers, framing, persists, lasts })
}

/// Where the body ends: RFC 9112 §6.3 without its leniency.
fn framing(
    status: StatusCode,
    method: &Method,
    minor: u8,
    headers: &mut HeaderMap,
) -> Result<Framing, BadResponse> {
    let length = length(headers)?;
    let coded = headers.contains_key(TRANSFER_ENCODING);
    let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
    match (coded, length) {
        (true, Some(_)) => Err(BadResponse::TwoFramings),
        (true, None) if minor == 0 || !is_chunked(headers) => Err(BadResponse::Coding),
        _ if bodiless => {
            // Allowed in neither, and it would frame what is not there.
            headers.remove(CONTENT_LENGTH);
            Ok(Framing::None)
        }
        _ if method == Method::HEAD || status == StatusCode::NOT_MODIFIED => Ok(Framing::None),
        (true, None) => Ok(Framing::Chunked),
        (false, Some(length)) => Ok(Framing::Length(length)),
        (false, None) => Ok(Framing::Close),
    }
}

/// The one length given; a repeated equal one is made one.
fn length(headers: &mut HeaderMap) -> Result<Option<u64>, BadResponse> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    let parse = |value: &HeaderValue| {
        let text =
            value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        text.and_then(|text| text.parse::<u64>().ok()).ok_or(BadResponse::Length)
    };
    let length = parse(first)?;
    let mut repeated = false;
    for line in lines {
        if parse(line)? != length {
            return Err(BadResponse::Length);
        }
        repeated = true;
    }
    if repeated {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(Some(length))
}

fn is_chunked(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    let chunked =
        lines.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    chunked && lines.next().is_none()
}

/// True if a comma-separated header has this option.
fn says(headers: &HeaderMap, name: &HeaderName, option: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        let mut options = value.as_bytes().split(|byte| *byte == b',');
        options.any(|given| given.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    })
}

/// `Keep-Alive: timeout=5, max=100`.
fn timeout(value: &HeaderValue) -> Option<Duration> {
    let mut parameters = value.to_str().ok()?.split(',').map(str::trim);
    let seconds = parameters.find_map(|parameter| parameter.strip_prefix("timeout="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One byte at a time, as the worst peer sends it.
    fn read(method: &Method, bytes: &[u8]) -> Result<Option<(Head, BytesMut)>, BadResponse> {
        let (mut reader, mut buffer) = (HeadReader::default(), BytesMut::new());
        let mut names = Names::default();
        for (at, byte) in bytes.iter().enumerate() {
            buffer.extend_from_slice(&[*byte]);
            if let Some(head) =
                reader.read(&mut buffer, method, &mut HeaderMap::new(), &mut names)?
            {
                buffer.extend_from_slice(&bytes[at + 1..]);
                return Ok(Some((head, buffer)));
            }
        }
        Ok(None)
    }

    fn check(bytes: &str, expected: Result<Framing, BadResponse>) {
        let bytes = format!("{bytes}rest");
        let read = read(&Method::GET, bytes.as_bytes());
        let framing = read.map(|read| read.map(|(head, rest)| (head.framing, rest)));
        let expected = expected.map(|framing| Some((framing, BytesMut::from("rest"))));
        assert_eq!(framing, expected, "{bytes:?}");
    }

    #[test]
    fn one_framing_or_none() {
        let with = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        for (lines, expected) in [
            ("content-length: 5\r\n", Ok(Framing::Length(5))),
            ("content-length: 5\r\nContent-Length: 5\r\n", Ok(Framing::Length(5))),
            ("transfer-encoding: Chunked\r\n", Ok(Framing::Chunked)),
            ("", Ok(Framing::Close)),
            ("content-length: 5\r\ncontent-length: 6\r\n", Err(BadResponse::Length)),
            ("content-length: 5, 5\r\n", Err(BadResponse::Length)),
            ("content-length: +5\r\n", Err(BadResponse::Length)),
            ("content-length: \r\n", Err(BadResponse::Length)),
            ("content-length: 99999999999999999999\r\n", Err(BadResponse::Length)),
            ("content-length: 5\r\ntransfer-encoding: chunked\r\n", Err(BadResponse::TwoFramings)),
            ("transfer-encoding: gzip, chunked\r\n", Err(BadResponse::Coding)),
            (
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
                Err(BadResponse::Coding),
            ),
            ("transfer-encoding: xchunked\r\n", Err(BadResponse::Coding)),
            ("a: b\n", Err(BadResponse::BareLineFeed)),
            ("a: b\r\n c\r\n", Err(BadResponse::Head(httparse::Error::HeaderName))),
            ("a : b\r\n", Err(BadResponse::Head(httparse::Error::HeaderName))),
            ("a: b\0c\r\n", Err(BadResponse::Head(httparse::Error::HeaderValue))),
        ] {
            check(&with(lines), expected);
        }
        check("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Err(BadResponse::Coding));
        check("HTTP/1.1 204 No\r\ncontent-length: 3\r\n\r\n", Ok(Framing::None));
        check("HTTP/1.1 304 No\r\ncontent-length: 3\r\n\r\n", Ok(Framing::None));
        check("HTTP/1.1 100 Continue\r\n\r\n", Ok(Framing::None));
        check("\r\nHTTP/1.1 200 OK\r\n\r\n", Err(BadResponse::Head(httparse::Error::Status)));
        check("hello?\r\n\r\n", Err(BadResponse::Head(httparse::Error::Version)));
        check("HTTP/2 200\r\n\r\n", Err(BadResponse::Head(httparse::Error::Version)));
    }

    #[test]
    fn what_the_target_says_of_the_connection() {
        for (lines, persists, lasts) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nkeep-alive: timeout=5\r\n\r\n",
                true,
                Some(5),
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nkeep-alive: max=9, timeout=7\r\n\r\n",
                true,
                Some(7),
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: foo, Close\r\n\r\n", false, None),
            ("HTTP/1.1 200 OK\r\n\r\n", false, None),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", false, None),
        ] {
            let (head, _) = read(&Method::GET, lines.as_bytes()).expect("valid").expect("whole");
            assert_eq!(
                (head.persists, head.lasts.map(|lasts| lasts.as_secs())),
                (persists, lasts),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn names_are_the_same_however_they_are_written_and_remembered() {
        let mut names = Names::default();
        let long = "x".repeat(NAME_MAX + 1);
        // More than there are places, so that they take turns; then all of them again.
        let others: Vec<_> = (0..2 * NAMES).map(|number| format!("x-{number:03}-A")).collect();
        let written = ["ETag", "etag", "ETAG", "x-Nextjs-Cache", "a", &long, "X-nextjs-cache"];
        let all = written.into_iter().chain(others.iter().map(String::as_str));
        for written in all.clone().chain(all) {
            let found = names.find(written.as_bytes());
            assert_eq!(found, HeaderName::from_bytes(written.as_bytes()).ok(), "{written}");
        }
        for bad in ["", "a b", "a:", "\u{e9}"] {
            assert_eq!(names.find(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn heads_are_bounded_on_both_sides() {
        let head = |length: usize| {
            let frame = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\na: \r\n\r\n".len();
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\na: {}\r\n\r\n",
                "x".repeat(length - frame)
            )
        };
        assert!(read(&Method::GET, head(HEAD_MAX).as_bytes()).is_ok_and(|read| read.is_some()));
        let max = HEAD_MAX;
        let read = |text: String| read(&Method::GET, text.as_bytes()).map(|read| read.is_some());
        assert_eq!(read(head(max + 1)), Err(BadResponse::HeadTooLarge { max }));
        let lines = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert_eq!(read(lines(LINES_MAX)), Ok(true));
        assert_eq!(
            read(lines(LINES_MAX + 1)),
            Err(BadResponse::Head(httparse::Error::TooManyHeaders))
        );
    }

    #[test]
    fn a_head_request_has_no_body_whatever_is_said() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
        let (head, _) = read(&Method::HEAD, bytes).expect("valid").expect("whole");
        assert_eq!((head.framing, head.headers.len()), (Framing::None, 1));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _any = read(&Method::GET, &bytes);
            let head = [b"HTTP/1.1 200 OK\r\n".as_slice(), &bytes].concat();
            let _any = read(&Method::GET, &head);
        }
    }
}
