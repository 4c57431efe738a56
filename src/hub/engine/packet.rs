//! Engine.IO packets and payloads ↔ bytes, protocol 4 and 3; pure.
//!
//! Source: the Engine.IO protocol documents, revisions 4 and 3.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// `EIO` of the request: 4 for clients from 3.0 on, 3 for older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V3,
    V4,
}

/// One packet. Its text or data is what the layer above exchanges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    Open,
    Close,
    Ping(&'a str),
    Pong(&'a str),
    Text(&'a str),
    Binary(Cow<'a, [u8]>),
    Upgrade,
    Noop,
}

/// The peer does not speak Engine.IO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Separates the packets of a payload in protocol 4.
const SEPARATOR: u8 = 0x1e;

/// A packet from a WebSocket text frame, or from a payload.
pub fn parse_text(version: Version, text: &str) -> Result<Packet<'_>, Malformed> {
    let mut characters = text.chars();
    let kind = characters.next().ok_or(Malformed)?;
    let rest = characters.as_str();
    Ok(match kind {
        '0' => Packet::Open,
        '1' => Packet::Close,
        '2' => Packet::Ping(rest),
        '3' => Packet::Pong(rest),
        '4' => Packet::Text(rest),
        '5' => Packet::Upgrade,
        '6' => Packet::Noop,
        'b' => {
            let data = match version {
                Version::V4 => rest,
                Version::V3 => rest.strip_prefix('4').ok_or(Malformed)?,
            };
            Packet::Binary(Cow::Owned(STANDARD.decode(data).map_err(|_error| Malformed)?))
        }
        _ => return Err(Malformed),
    })
}

/// A packet from a WebSocket binary frame.
pub fn parse_binary(version: Version, bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    match (version, bytes) {
        (Version::V4, bytes) => Ok(Packet::Binary(Cow::Borrowed(bytes))),
        (Version::V3, [4, bytes @ ..]) => Ok(Packet::Binary(Cow::Borrowed(bytes))),
        (Version::V3, _) => Err(Malformed),
    }
}

/// The packets of a request's body, one after the other; ends after the first bad one.
pub struct Payload<'a> {
    version: Version,
    binary: bool,
    rest: Option<&'a [u8]>,
}

impl<'a> Payload<'a> {
    /// `binary` says that the body came as `application/octet-stream`, which only protocol 3 knows.
    pub fn new(version: Version, binary: bool, body: &'a [u8]) -> Self {
        Self { version, binary, rest: Some(body) }
    }

    /// What comes behind the last packet; `None` if that was the end.
    pub fn rest(&self) -> Option<&'a [u8]> {
        self.rest
    }

    fn read(&mut self, rest: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        match (self.version, self.binary) {
            (Version::V4, _) => self.read_v4(rest),
            (Version::V3, false) => self.read_v3(rest),
            (Version::V3, true) => self.read_v3_binary(rest),
        }
    }

    fn read_v4(&mut self, rest: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let end = memchr::memchr(SEPARATOR, rest);
        let (packet, after) = match end {
            Some(end) => (rest.get(..end), rest.get(end + 1..)),
            None => (Some(rest), None),
        };
        self.rest = after;
        parse_text(Version::V4, text(packet.ok_or(Malformed)?)?)
    }

    /// `LENGTH:PACKET`, the length in UTF-16 code units, as JavaScript counts.
    fn read_v3(&mut self, rest: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let colon = memchr::memchr(b':', rest).filter(|colon| *colon < 10).ok_or(Malformed)?;
        let (digits, rest) = (rest.get(..colon), rest.get(colon + 1..));
        let units: usize = text(digits.ok_or(Malformed)?)?.parse().map_err(|_error| Malformed)?;
        let (packet, rest) = split_units(rest.ok_or(Malformed)?, units).ok_or(Malformed)?;
        self.rest = Some(rest).filter(|rest| !rest.is_empty());
        parse_text(Version::V3, packet)
    }

    /// Kind (0 text, 1 binary), decimal digits as bytes, 255, then that many bytes.
    fn read_v3_binary(&mut self, rest: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let (kind, rest) = rest.split_first().ok_or(Malformed)?;
        let end = memchr::memchr(255, rest).filter(|end| (1..10).contains(end)).ok_or(Malformed)?;
        let digits = rest.get(..end).ok_or(Malformed)?;
        let mut length = 0;
        for digit in digits {
            length = length * 10 + usize::from(*digit);
            if *digit > 9 {
                return Err(Malformed);
            }
        }
        let rest = rest.get(end + 1..).ok_or(Malformed)?;
        let (packet, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = Some(rest).filter(|rest| !rest.is_empty());
        match kind {
            0 => parse_text(Version::V3, text(packet)?),
            1 => parse_binary(Version::V3, packet),
            _ => Err(Malformed),
        }
    }
}

impl<'a> Iterator for Payload<'a> {
    type Item = Result<Packet<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let packet = self.read(rest);
        if packet.is_err() {
            self.rest = None;
        }
        Some(packet)
    }
}

/// The text of so many UTF-16 code units at the front of `bytes`, and what follows it.
fn split_units(bytes: &[u8], units: usize) -> Option<(&str, &[u8])> {
    // A unit has three bytes at most. What is behind is left alone: a body has many packets.
    let near = bytes.get(..units.saturating_mul(3)).unwrap_or(bytes);
    let valid = near.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let mut left = units;
    let mut end = 0;
    for character in valid.chars() {
        if left == 0 {
            break;
        }
        left = left.checked_sub(character.len_utf16())?;
        end += character.len_utf8();
    }
    let whole = Some((valid.get(..end)?, bytes.get(end..)?));
    whole.filter(|_| left == 0)
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_error| Malformed)
}

/// How the packets of a polling answer are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    V4,
    V3Text,
    V3Binary,
}

/// Appends a text packet, `kind` being its digit, to an answer.
pub fn write_text(into: &mut Vec<u8>, form: Form, kind: u8, text: &str) {
    match form {
        Form::V4 => separate(into),
        Form::V3Text => {
            let units = 1 + text.chars().map(char::len_utf16).sum::<usize>();
            into.extend_from_slice(itoa::Buffer::new().format(units).as_bytes());
            into.push(b':');
        }
        Form::V3Binary => write_v3_head(into, 0, 1 + text.len()),
    }
    into.push(kind);
    into.extend_from_slice(text.as_bytes());
}

/// Appends a binary message to an answer.
pub fn write_binary(into: &mut Vec<u8>, form: Form, data: &[u8]) {
    match form {
        Form::V4 => {
            separate(into);
            into.push(b'b');
        }
        Form::V3Text => {
            let length = 2 + data.len().div_ceil(3) * 4;
            into.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            into.extend_from_slice(b":b4");
        }
        Form::V3Binary => {
            write_v3_head(into, 1, 1 + data.len());
            into.push(4);
            return into.extend_from_slice(data);
        }
    }
    append_base64(into, data);
}

/// Appends `data` in base64.
pub fn append_base64(into: &mut Vec<u8>, data: &[u8]) {
    let start = into.len();
    into.resize(start + data.len().div_ceil(3) * 4, 0);
    if let Some(space) = into.get_mut(start..) {
        // The space is exactly what base64 needs.
        let _written = STANDARD.encode_slice(data, space);
    }
}

fn separate(into: &mut Vec<u8>) {
    if !into.is_empty() {
        into.push(SEPARATOR);
    }
}

fn write_v3_head(into: &mut Vec<u8>, kind: u8, length: usize) {
    into.push(kind);
    let mut digits = itoa::Buffer::new();
    into.extend(digits.format(length).bytes().map(|digit| digit - b'0'));
    into.push(255);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(version: Version, binary: bool, body: &[u8]) -> Vec<Result<Packet<'_>, Malformed>> {
        Payload::new(version, binary, body).collect()
    }

    fn binary(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
        Ok(Packet::Binary(Cow::Borrowed(bytes)))
    }

    #[test]
    fn the_examples_of_the_protocol_documents() {
        assert_eq!(
            decoded(Version::V4, false, b"4hello\x1e2\x1ebAQIDBA=="),
            [Ok(Packet::Text("hello")), Ok(Packet::Ping("")), binary(&[1, 2, 3, 4])]
        );
        assert_eq!(
            decoded(Version::V3, false, "6:4hello2:4\u{20ac}10:b4AQIDBA==".as_bytes()),
            [Ok(Packet::Text("hello")), Ok(Packet::Text("\u{20ac}")), binary(&[1, 2, 3, 4])]
        );
        // A character outside the basic plane counts two.
        assert_eq!(
            decoded(Version::V3, false, "3:4\u{1f600}".as_bytes()),
            [Ok(Packet::Text("\u{1f600}"))]
        );
        let bytes = [0, 6, 255, b'4', b'h', b'e', b'l', b'l', b'o', 1, 5, 255, 4, 1, 2, 3, 4];
        assert_eq!(
            decoded(Version::V3, true, &bytes),
            [Ok(Packet::Text("hello")), binary(&[1, 2, 3, 4])]
        );
    }

    #[test]
    fn the_first_bad_packet_is_the_last() {
        assert_eq!(
            decoded(Version::V4, false, b"4a\x1eabc\x1e4b"),
            [Ok(Packet::Text("a")), Err(Malformed)]
        );
        // What stands behind it is not even looked at, or many packets would be looked at often.
        assert_eq!(
            decoded(Version::V3, false, b"2:4a1:2\xff"),
            [Ok(Packet::Text("a")), Ok(Packet::Ping("")), Err(Malformed)]
        );
        for (version, body) in [
            (Version::V3, &b"2:4\xe2\x82"[..]),
            (Version::V3, b"1:\xff"),
            (Version::V4, &b""[..]),
            (Version::V4, b"7"),
            (Version::V4, b"b!"),
            (Version::V4, b"4\xff"),
            (Version::V3, b"abc"),
            (Version::V3, b"10:4a"),
            (Version::V3, b":4"),
            (Version::V3, b"0:"),
            (Version::V3, b"99999999999999999999:4"),
            (Version::V3, "2:4\u{1f600}".as_bytes()),
        ] {
            assert_eq!(decoded(version, false, body), [Err(Malformed)], "{body:?}");
        }
        for body in
            [&[][..], &[0], &[0, 255], &[0, 11, 255, 4], &[2, 1, 255, b'2'], &[0, 9, 9, 255, b'2']]
        {
            assert_eq!(decoded(Version::V3, true, body), [Err(Malformed)], "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(messages in proptest::collection::vec(
            prop_oneof!["\\PC{0,20}".prop_map(Ok), proptest::collection::vec(any::<u8>(), 0..20).prop_map(Err)], 1..6,
        )) {
            for (form, version) in [(Form::V4, Version::V4), (Form::V3Text, Version::V3), (Form::V3Binary, Version::V3)] {
                let mut body = Vec::new();
                for message in &messages {
                    match message {
                        Ok(text) => write_text(&mut body, form, b'4', text),
                        Err(data) => write_binary(&mut body, form, data),
                    }
                }
                let read = decoded(version, form == Form::V3Binary, &body);
                let wanted: Vec<_> = messages.iter().map(|message| match message {
                    Ok(text) => Ok(Packet::Text(text)),
                    Err(data) => binary(data),
                }).collect();
                prop_assert_eq!(read, wanted);
            }
        }

        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..40), binary: bool) {
            for version in [Version::V3, Version::V4] {
                decoded(version, binary, &body);
            }
        }
    }
}
