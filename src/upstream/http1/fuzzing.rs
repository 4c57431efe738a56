//! What must hold for any bytes that a target answers.
//!
//! Each function panics where something does not hold; see `crate::fuzzing`.

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method};

use super::{BadResponse, Chunked, Decoded, Framing, Head, HeadReader, Names, encode_head};

/// An answer to a method that the first byte chooses, in pieces as long as the second one says.
pub fn response(data: &[u8]) {
    let Some(([method, step], bytes)) = data.split_first_chunk::<2>() else { return };
    let method = match method {
        b'H' => Method::HEAD,
        b'C' => Method::CONNECT,
        _ => Method::GET,
    };
    let whole = read(bytes, bytes.len().max(1), &method);
    let pieces = read(bytes, usize::from(*step).max(1), &method);
    let (Ok(Some((head, rest))), Ok(Some((same, same_rest)))) = (&whole, &pieces) else {
        let outcome = |result: &Result<Option<_>, BadResponse>| {
            result.as_ref().map(Option::is_some).map_err(|error| *error)
        };
        return assert_eq!(outcome(&whole), outcome(&pieces), "it depends on the pieces");
    };
    assert_eq!((head.status, head.framing, rest), (same.status, same.framing, same_rest));
    assert_eq!(head.headers, same.headers);
    assert!(bytes.ends_with(rest) && rest.len() < bytes.len());
    let size = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    assert!(size.sum::<usize>() <= bytes.len() - rest.len() && head.headers.len() <= 200);
    check_framing(head);
    check_again(head, &method);
    if head.framing == Framing::Chunked {
        chunks(rest, usize::from(*step).max(1));
    }
}

/// The head and what follows it, if the bytes come `step` at a time.
fn read(
    bytes: &[u8],
    step: usize,
    method: &Method,
) -> Result<Option<(Head, Vec<u8>)>, BadResponse> {
    let (mut reader, mut used, mut buffer) =
        (HeadReader::default(), HeaderMap::new(), BytesMut::new());
    let mut names = Names::default();
    let mut pieces = bytes.chunks(step);
    while let Some(piece) = pieces.next() {
        buffer.extend_from_slice(piece);
        if let Some(head) = reader.read(&mut buffer, method, &mut used, &mut names)? {
            buffer.extend(pieces.flatten());
            return Ok(Some((head, buffer.to_vec())));
        }
    }
    Ok(None)
}

/// Nobody behind us may find another end of the body than we do.
fn check_framing(head: &Head) {
    let lengths: Vec<_> = head.headers.get_all(CONTENT_LENGTH).iter().collect();
    let coded = head.headers.contains_key(TRANSFER_ENCODING);
    assert!(lengths.len() <= 1 && (lengths.is_empty() || !coded));
    match head.framing {
        Framing::Length(length) => {
            let given = lengths.first().and_then(|value| value.to_str().ok()?.parse().ok());
            assert_eq!(given, Some(length));
        }
        Framing::Chunked => assert!(coded),
        Framing::Close => assert!(!coded && lengths.is_empty() && !head.persists),
        Framing::None => {}
    }
}

/// What a head says is the same after it was written again.
fn check_again(head: &Head, method: &Method) {
    let mut bytes = Vec::new();
    encode_head((&Method::GET, "/"), b"", &head.headers, head.framing, &mut bytes);
    let lines = bytes.strip_prefix(b"GET / HTTP/1.1\r\n").expect("the line that was written");
    let again = [format!("HTTP/1.1 {}\r\n", head.status.as_str()).as_bytes(), lines].concat();
    let read = read(&again, again.len(), method);
    let (same, rest) = read.expect("a right head").expect("a whole head");
    assert_eq!((same.status, same.framing), (head.status, head.framing));
    assert!(rest.is_empty());
}

/// A chunked body, in pieces as long as the first byte says.
pub fn chunked(data: &[u8]) {
    let Some((step, bytes)) = data.split_first() else { return };
    let step = usize::from(*step).max(1);
    chunks(bytes, step);
    let mut coded = Vec::new();
    for chunk in bytes.chunks(step) {
        coded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        coded.extend_from_slice(chunk);
        coded.extend_from_slice(b"\r\n");
    }
    coded.extend_from_slice(b"0\r\n\r\nnext");
    let decoded = decode(&coded, step);
    assert_eq!(decoded, (bytes.to_vec(), Ok(Some((0, b"next".to_vec())))));
}

fn chunks(bytes: &[u8], step: usize) {
    let whole = decode(bytes, bytes.len().max(1));
    let (body, end) = &whole;
    assert!(body.len() <= bytes.len());
    if let Ok(Some((trailers, rest))) = end {
        assert!(bytes.ends_with(rest) && *trailers <= 64);
        assert!(body.len() + rest.len() + b"0\r\n\r\n".len() <= bytes.len());
    }
    assert_eq!(decode(bytes, step), whole, "it depends on the pieces");
}

/// How many trailers it has, and what follows the body; `None` if it is not whole.
type End = Result<Option<(usize, Vec<u8>)>, BadResponse>;

/// The data, and how it ended.
fn decode(bytes: &[u8], step: usize) -> (Vec<u8>, End) {
    let (mut chunked, mut buffer) = (Chunked::default(), BytesMut::new());
    let (mut body, mut trailers) = (Vec::new(), 0);
    let mut pieces = bytes.chunks(step);
    loop {
        match chunked.decode(&mut buffer) {
            Ok(Decoded::Data(data)) => {
                assert!(!data.is_empty(), "nothing would be taken for the end");
                body.extend_from_slice(&data);
            }
            Ok(Decoded::Trailers(map)) => trailers = map.len(),
            Ok(Decoded::End) => {
                buffer.extend(pieces.flatten());
                return (body, Ok(Some((trailers, buffer.to_vec()))));
            }
            Ok(Decoded::More) => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return (body, Ok(None)),
            },
            Err(error) => return (body, Err(error)),
        }
    }
}
