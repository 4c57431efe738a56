//! What a Redis says ↔ bytes, RESP2 and RESP3; pure.
//!
//! Source: the RESP specification. Streamed types, which no Redis sends, are refused.

use bytes::{Buf as _, Bytes, BytesMut};

/// The peer does not speak RESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Simple, bulk or verbatim; doubles and big numbers too, as they are written.
    Text(Bytes),
    Error(Bytes),
    Number(i64),
    /// Arrays and sets; of maps the keys and values in turn.
    List(Vec<Self>),
    /// Out of turn, in RESP3.
    Push(Vec<Self>),
    Nothing,
}

impl Value {
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            // What counts in some answers is written as text.
            Self::Text(_) => self.text()?.parse().ok(),
            _ => None,
        }
    }

    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) | Self::Push(items) => items,
            _ => &[],
        }
    }

    /// An answer that is no error.
    pub fn right(self) -> Result<Self, String> {
        match self {
            Self::Error(words) => Err(String::from_utf8_lossy(&words).into_owned()),
            right => Ok(right),
        }
    }
}

/// What one value may take. Redis itself takes texts of 512 MiB; no message of ours is near that.
const VALUE_MAX: usize = 256 << 20;
const DEPTH_MAX: usize = 16;

/// Values out of a stream of bytes.
#[derive(Default)]
pub struct Decoder {
    /// With fewer bytes there is no use in looking again.
    wanted: usize,
}

impl Decoder {
    /// The next value, without a copy of its texts; `None` if it is not all there.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Value>, Malformed> {
        if buffer.is_empty() || buffer.len() < self.wanted {
            return Ok(None);
        }
        let mut measure = Measure { bytes: buffer, at: 0 };
        match measure.skip(0) {
            Ok(()) => {}
            Err(Short::Wrong) => return Err(Malformed),
            Err(Short::Wants(bytes)) if bytes > VALUE_MAX => return Err(Malformed),
            Err(Short::Wants(bytes)) => {
                self.wanted = bytes;
                return Ok(None);
            }
        }
        self.wanted = 0;
        let length = measure.at;
        let mut whole = buffer.split_to(length).freeze();
        read(&mut whole).map(Some)
    }
}

enum Short {
    /// So many bytes at least, from the beginning of the value.
    Wants(usize),
    Wrong,
}

/// Finds where a value ends.
struct Measure<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Measure<'a> {
    fn line(&mut self) -> Result<&'a [u8], Short> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', rest) else {
            return Err(Short::Wants(self.bytes.len() + 1));
        };
        self.at += end + 1;
        rest.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Short::Wrong)
    }

    fn skip(&mut self, depth: usize) -> Result<(), Short> {
        let line = self.line()?;
        let (kind, rest) = line.split_first().ok_or(Short::Wrong)?;
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Ok(()),
            b'$' | b'=' | b'!' => match length(rest)? {
                None => Ok(()),
                Some(length) => {
                    self.at += length + 2;
                    if self.at > self.bytes.len() { Err(Short::Wants(self.at)) } else { Ok(()) }
                }
            },
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                if depth == DEPTH_MAX {
                    return Err(Short::Wrong);
                }
                let count = length(rest)?.unwrap_or_default();
                let count = if matches!(kind, b'%' | b'|') { count * 2 } else { count };
                for _ in 0..count {
                    self.skip(depth + 1)?;
                }
                // What an attribute is about comes behind it.
                if *kind == b'|' { self.skip(depth + 1) } else { Ok(()) }
            }
            _ => Err(Short::Wrong),
        }
    }
}

/// Of a text or a list; -1 is nothing at all.
fn length(digits: &[u8]) -> Result<Option<usize>, Short> {
    if digits == b"-1" {
        return Ok(None);
    }
    let plain = digits.iter().all(u8::is_ascii_digit);
    let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    let length = length.filter(|length| plain && *length <= VALUE_MAX);
    length.map(Some).ok_or(Short::Wrong)
}

/// Reads a value that is all there.
fn read(bytes: &mut Bytes) -> Result<Value, Malformed> {
    let end = memchr::memchr(b'\r', bytes).ok_or(Malformed)?;
    let line = bytes.split_to(end);
    bytes.advance(2.min(bytes.len()));
    let (kind, rest) = line.split_first().ok_or(Malformed)?;
    let list = |bytes: &mut Bytes, double: usize| {
        let Some(count) = length(rest).map_err(|_short| Malformed)? else { return Ok(None) };
        let items: Result<Vec<Value>, Malformed> =
            (0..count * double).map(|_| read(bytes)).collect();
        items.map(Some)
    };
    Ok(match kind {
        b'+' | b',' | b'(' => Value::Text(line.slice(1..)),
        b'-' => Value::Error(line.slice(1..)),
        b'_' => Value::Nothing,
        b'#' => Value::Number(i64::from(rest == b"t")),
        b':' => {
            let number = std::str::from_utf8(rest).ok().and_then(|digits| digits.parse().ok());
            Value::Number(number.ok_or(Malformed)?)
        }
        b'$' | b'=' | b'!' => match length(rest).map_err(|_short| Malformed)? {
            None => Value::Nothing,
            Some(length) => {
                let text = bytes.split_to(length.min(bytes.len()));
                bytes.advance(2.min(bytes.len()));
                match kind {
                    b'!' => Value::Error(text),
                    // "txt:" says what kind of text it is.
                    b'=' => Value::Text(text.slice(4.min(text.len())..)),
                    _ => Value::Text(text),
                }
            }
        },
        b'*' | b'~' => list(bytes, 1)?.map_or(Value::Nothing, Value::List),
        b'%' => list(bytes, 2)?.map_or(Value::Nothing, Value::List),
        b'>' => list(bytes, 1)?.map_or(Value::Nothing, Value::Push),
        b'|' => {
            drop(list(bytes, 2)?);
            read(bytes)?
        }
        _ => return Err(Malformed),
    })
}

/// A command as Redis takes it.
pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let size: usize = words.iter().map(|word| word.len() + 16).sum();
    let mut bytes = Vec::with_capacity(size + 16);
    let mut digits = itoa::Buffer::new();
    bytes.push(b'*');
    bytes.extend_from_slice(digits.format(words.len()).as_bytes());
    for word in words {
        bytes.extend_from_slice(b"\r\n$");
        bytes.extend_from_slice(digits.format(word.len()).as_bytes());
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(word);
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// Whole, and byte by byte.
    fn check(bytes: &[u8], expected: &Value) {
        let mut whole = BytesMut::from(bytes);
        let found = Decoder::default().next(&mut whole);
        assert_eq!(found.as_ref(), Ok(&Some(expected.clone())), "{}", bytes.escape_ascii());
        assert!(whole.is_empty());
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        for (at, byte) in bytes.iter().enumerate() {
            assert_eq!(decoder.next(&mut buffer), Ok(None), "{at} bytes");
            buffer.extend_from_slice(&[*byte]);
        }
        assert_eq!(decoder.next(&mut buffer), found);
    }

    #[test]
    fn both_versions_are_read() {
        check(b"+OK\r\n", &text("OK"));
        check(b"-ERR no\r\n", &Value::Error("ERR no".into()));
        check(b":-7\r\n", &Value::Number(-7));
        check(b"$5\r\na\r\nb\n\r\n", &text("a\r\nb\n"));
        check(b"$-1\r\n", &Value::Nothing);
        check(b"*-1\r\n", &Value::Nothing);
        check(b"*0\r\n", &Value::List(Vec::new()));
        let nested = Value::List(vec![text("a"), Value::List(vec![Value::Number(1)])]);
        check(b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", &nested);
        check(b"%1\r\n+a\r\n:1\r\n", &Value::List(vec![text("a"), Value::Number(1)]));
        check(b">2\r\n+message\r\n$1\r\nx\r\n", &Value::Push(vec![text("message"), text("x")]));
        check(b"_\r\n", &Value::Nothing);
        check(b"#t\r\n", &Value::Number(1));
        check(b",1.5\r\n", &text("1.5"));
        check(b"=6\r\ntxt:ab\r\n", &text("ab"));
        check(b"!4\r\nERR!\r\n", &Value::Error("ERR!".into()));
        check(b"|1\r\n+a\r\n+b\r\n:3\r\n", &Value::Number(3));
    }

    #[test]
    fn what_is_no_resp_is_refused() {
        for bytes in [
            &b"x\r\n"[..],
            b"\r\n",
            b"+a\n",
            b"$-2\r\n",
            b"$x\r\n",
            b"$?\r\n",
            b"$99999999999\r\n",
            b":x\r\n",
        ] {
            let found = Decoder::default().next(&mut BytesMut::from(bytes));
            assert_eq!(found, Err(Malformed), "{}", bytes.escape_ascii());
        }
        let deep = b"*1\r\n".repeat(DEPTH_MAX + 1);
        assert_eq!(Decoder::default().next(&mut BytesMut::from(&deep[..])), Err(Malformed));
    }

    #[test]
    fn commands_are_lists_of_texts() {
        let bytes = command(&[b"SET", b"k", b"a\r\n"]);
        assert_eq!(bytes, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\na\r\n\r\n");
        check(&bytes, &Value::List(vec![text("SET"), text("k"), text("a\r\n")]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in "[-+:$*%>|=!_#,(~0-9a\\r\\n]{0,60}") {
            let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::from(bytes.as_bytes()));
            while let Ok(Some(_)) = decoder.next(&mut buffer) {}
        }
    }
}
