//! The chunked coding, read (RFC 9112 §7.1).

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::BadResponse;

/// Bytes of a size line, extensions included; those are passed over.
const SIZE_LINE_MAX: usize = 256;
/// Bytes of all trailers.
const TRAILERS_MAX: usize = 16 * 1024;
const TRAILER_LINES_MAX: usize = 64;

/// Where in a chunked body the next byte stands.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Size,
    Data(u64),
    /// Before the CRLF that ends a chunk's data.
    DataEnd,
    Trailers,
    Ended,
}

/// What the bytes at hand come to.
#[derive(Debug, PartialEq)]
pub enum Decoded {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// Nothing yet: more bytes are needed.
    More,
}

impl Chunked {
    /// Takes the next piece off the front of `buffer`.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, BadResponse> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = take_line(buffer, SIZE_LINE_MAX, BadResponse::ChunkSize)?
                    else {
                        return Ok(Decoded::More);
                    };
                    let size = size(&line)?;
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(_) if buffer.is_empty() => return Ok(Decoded::More),
                State::Data(left) => {
                    let here =
                        usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
                    let left = left - here as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Decoded::Data(buffer.split_to(here).freeze()));
                }
                State::DataEnd => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        drop(buffer.split_to(2));
                        self.state = State::Size;
                    }
                    None if buffer.is_empty() || buffer.as_ref() == b"\r" => {
                        return Ok(Decoded::More);
                    }
                    _ => return Err(BadResponse::ChunkEnd),
                },
                State::Trailers => return self.trailers(buffer),
                State::Ended => return Ok(Decoded::End),
            }
        }
    }

    fn trailers(&mut self, buffer: &mut BytesMut) -> Result<Decoded, BadResponse> {
        if buffer.starts_with(b"\r\n") {
            drop(buffer.split_to(2));
            self.state = State::Ended;
            return Ok(Decoded::End);
        }
        let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") else {
            // Of the end itself all but the last byte may be here.
            let fits = buffer.len() <= TRAILERS_MAX + 3;
            return if fits { Ok(Decoded::More) } else { Err(BadResponse::Trailers) };
        };
        if end > TRAILERS_MAX {
            return Err(BadResponse::Trailers);
        }
        let lines = buffer.split_to(end + 4).freeze();
        self.state = State::Ended;
        parse_trailers(&lines).map(Decoded::Trailers)
    }
}

fn parse_trailers(lines: &Bytes) -> Result<HeaderMap, BadResponse> {
    let bare = |at: usize| at == 0 || lines.get(at - 1) != Some(&b'\r');
    if memchr::memchr_iter(b'\n', lines).any(bare) {
        return Err(BadResponse::BareLineFeed);
    }
    let mut parsed = [httparse::EMPTY_HEADER; TRAILER_LINES_MAX];
    let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(lines, &mut parsed)
    else {
        return Err(BadResponse::Trailers);
    };
    let mut trailers = HeaderMap::new();
    for line in parsed {
        let name = HeaderName::from_bytes(line.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(lines.slice_ref(line.value));
        let (Ok(name), Ok(value)) = (name, value) else { return Err(BadResponse::Trailers) };
        trailers.append(name, value);
    }
    Ok(trailers)
}

/// A line without its CRLF, once it is here; no line is longer than `max`.
fn take_line(
    buffer: &mut BytesMut,
    max: usize,
    refused: BadResponse,
) -> Result<Option<BytesMut>, BadResponse> {
    let Some(end) = memchr::memchr(b'\n', buffer) else {
        return if buffer.len() <= max { Ok(None) } else { Err(refused) };
    };
    let mut line = buffer.split_to(end + 1);
    if end > max {
        return Err(refused);
    }
    if !line.ends_with(b"\r\n") {
        return Err(BadResponse::BareLineFeed);
    }
    line.truncate(end - 1);
    Ok(Some(line))
}

fn size(line: &[u8]) -> Result<u64, BadResponse> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    // White space stands only before an extension, if at all.
    let digits = if digits.len() < line.len() { digits.trim_ascii_end() } else { digits };
    let valid =
        !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit) && !line.contains(&b'\r');
    let text = std::str::from_utf8(digits).ok().filter(|_| valid);
    text.and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or(BadResponse::ChunkSize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The whole body when the bytes come `step` at a time, its trailers, and what is left over.
    #[expect(clippy::type_complexity, reason = "data, where it ends, and what follows it")]
    fn decode(bytes: &[u8], step: usize) -> Result<Option<(Vec<u8>, usize, Vec<u8>)>, BadResponse> {
        let (mut chunked, mut buffer) = (Chunked::default(), BytesMut::new());
        let (mut body, mut trailers) = (Vec::new(), 0);
        let mut pieces = bytes.chunks(step);
        loop {
            match chunked.decode(&mut buffer)? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::Trailers(map) => trailers = map.len(),
                Decoded::End => {
                    buffer.extend(pieces.flatten());
                    return Ok(Some((body, trailers, buffer.to_vec())));
                }
                Decoded::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Ok(None),
                },
            }
        }
    }

    fn check(bytes: &str, expected: Result<Option<(&str, usize)>, BadResponse>) {
        for step in [1, 2, 3, 7, 1000] {
            let decoded = decode(format!("{bytes}X").as_bytes(), step);
            let expected =
                expected.map(|end| end.map(|(body, lines)| (body.into(), lines, b"X".to_vec())));
            assert_eq!(decoded, expected, "{bytes:?} by {step}");
        }
    }

    #[test]
    fn chunks_as_they_should_be() {
        check("0\r\n\r\n", Ok(Some(("", 0))));
        check("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", Ok(Some(("abc0123456789", 0))));
        check("3;name=value\r\nabc\r\n0 ;x\r\n\r\n", Ok(Some(("abc", 0))));
        check("3\r\nabc\r\n0\r\nx-a: 1\r\nx-b: 2\r\n\r\n", Ok(Some(("abc", 2))));
    }

    #[test]
    fn chunks_as_they_must_not_be() {
        for (bytes, error) in [
            ("\r\nabc\r\n", BadResponse::ChunkSize),
            ("x\r\n", BadResponse::ChunkSize),
            ("+3\r\nabc\r\n", BadResponse::ChunkSize),
            ("0x3\r\nabc\r\n", BadResponse::ChunkSize),
            (" 3\r\nabc\r\n", BadResponse::ChunkSize),
            ("3 \r\nabc\r\n", BadResponse::ChunkSize),
            ("3;a\rb\r\nabc\r\n", BadResponse::ChunkSize),
            ("10000000000000000\r\n", BadResponse::ChunkSize),
            ("3\nabc\r\n", BadResponse::BareLineFeed),
            ("3\r\nabcd\r\n", BadResponse::ChunkEnd),
            ("3\r\nabc\n\n0\r\n\r\n", BadResponse::ChunkEnd),
            ("0\r\na b: c\r\n\r\n", BadResponse::Trailers),
        ] {
            check(bytes, Err(error));
        }
        let long = format!("3;{}", "x".repeat(300));
        assert_eq!(decode(long.as_bytes(), 10), Err(BadResponse::ChunkSize));
        let endless = format!("0\r\na: {}", "x".repeat(20_000));
        assert_eq!(decode(endless.as_bytes(), 1000), Err(BadResponse::Trailers));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8),
            step in 1_usize..60,
        ) {
            let encode = |chunk: &Vec<u8>| {
                [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()
            };
            let mut bytes: Vec<u8> = chunks.iter().flat_map(encode).collect();
            bytes.extend_from_slice(b"0\r\n\r\nnext");
            prop_assert_eq!(decode(&bytes, step), Ok(Some((chunks.concat(), 0, b"next".to_vec()))));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), step in 1_usize..20) {
            let _any = decode(&bytes, step);
        }
    }
}
