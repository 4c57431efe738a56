//! What must hold for any bytes that a client of the engine sends.
//!
//! Each function panics where something does not hold; see `crate::fuzzing`.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use http::header::{ACCEPT_ENCODING, SEC_WEBSOCKET_EXTENSIONS};
use http::{HeaderMap, HeaderValue};

use crate::exchange::query::decode;
use crate::exchange::{Client, Scheme};

use super::deflate::{self, Deflate};
use super::frame::{self, Frame, FrameError, HEAD_MAX, Opcode};
use super::origin::{Origins, Verdict};
use super::packet::{self, Form, Packet, Payload, Version};
use super::reply::form_field;
use super::request::Query;

/// Payload of one frame; small, so that larger ones are met.
const MESSAGE_MAX: usize = 4096;
const MASK: usize = 4;

/// A stream of a client's frames, taken off one after the other.
pub fn frames(data: &[u8]) {
    let mut buffer = data.to_vec();
    let mut start = 0;
    while let (Some(rest), Some(sent)) = (buffer.get_mut(start..), data.get(start..)) {
        match frame::parse(rest, MESSAGE_MAX) {
            Ok(Some(found)) => {
                check_frame(sent, rest, &found);
                start += found.payload.end;
            }
            Ok(None) => {
                assert!(rest == sent, "touched before it was whole");
                assert!(rest.len() < HEAD_MAX + MASK + MESSAGE_MAX, "waits for more than may come");
                break;
            }
            Err(error) => {
                assert!([1002, 1007, 1009].contains(&error.code()));
                break;
            }
        }
    }
    check_written(data);
}

/// `read` is what was made of `sent`.
fn check_frame(sent: &[u8], read: &[u8], found: &Frame) {
    let (start, end) = (found.payload.start, found.payload.end);
    assert!(start <= HEAD_MAX + MASK && end <= read.len() && end - start <= MESSAGE_MAX);
    let head = sent.get(..start).expect("a frame has a head");
    let mask = head.last_chunk::<MASK>().expect("a client's frame has a mask");
    assert!(read.starts_with(head), "the head was touched");
    assert_eq!(read.get(end..), sent.get(end..), "what follows was touched");
    let unmasked = sent.iter().skip(start).zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key);
    assert!(read.iter().take(end).skip(start).copied().eq(unmasked.take(end - start)));
    // Before its last byte there is no frame, and no mistake either.
    for cut in [1, start / 2, start - 1, end - 1] {
        let mut piece = sent.get(..cut).unwrap_or_default().to_vec();
        assert_eq!(frame::parse(&mut piece, MESSAGE_MAX), Ok(None), "cut at {cut}");
    }
}

/// What is written is read, once it has the mask that only clients use.
fn check_written(payload: &[u8]) {
    let (first, rest) = payload.split_at(payload.len() / 2);
    let mut bytes = Vec::new();
    frame::write(&mut bytes, Opcode::Binary, &[first, rest]);
    let head = bytes.len() - payload.len();
    assert!(head <= HEAD_MAX && bytes.ends_with(payload));
    assert_eq!(frame::parse(&mut bytes.clone(), payload.len()), Err(FrameError::Protocol));
    if let Some(second) = bytes.get_mut(1) {
        *second |= 0x80;
    }
    bytes.splice(head..head, [0; MASK]);
    let found = frame::parse(&mut bytes, payload.len()).expect("a right frame");
    assert_eq!(found.map(|found| found.payload), Some(head + MASK..bytes.len()));
}

/// A polled body in one of the three forms; the first byte names it: `4`, `3`, or else the binary.
pub fn payload(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let (version, form) = match first {
        b'4' => (Version::V4, Form::V4),
        b'3' => (Version::V3, Form::V3Text),
        _ => (Version::V3, Form::V3Binary),
    };
    if let Ok(field) = form_field(body) {
        assert!(field.len() <= body.len() && std::str::from_utf8(&field).is_ok());
    }
    let all: Vec<_> = Payload::new(version, form == Form::V3Binary, body).collect();
    let good = all.iter().position(Result::is_err).unwrap_or(all.len());
    assert!(all.len() - good <= 1, "it goes on behind a mistake");
    let packets: Vec<Packet<'_>> = all.into_iter().flatten().collect();
    assert!(packets.iter().map(|packet| 1 + contents(packet).len()).sum::<usize>() <= body.len());
    let mut again = Vec::new();
    for packet in &packets {
        match (packet, text(packet)) {
            (Packet::Binary(data), _) => packet::write_binary(&mut again, form, data),
            (_, (kind, text)) => packet::write_text(&mut again, form, kind, text),
        }
    }
    if !packets.is_empty() {
        let read = Payload::new(version, form == Form::V3Binary, &again);
        assert_eq!(read.collect::<Result<Vec<_>, _>>(), Ok(packets));
    }
}

/// One packet as a WebSocket brings it, text or binary.
pub fn packets(data: &[u8]) {
    let binary = packet::parse_binary(Version::V4, data);
    assert_eq!(binary, Ok(Packet::Binary(Cow::Borrowed(data))));
    let old = packet::parse_binary(Version::V3, data);
    assert_eq!(old.is_ok(), data.first() == Some(&4));
    let Ok(written) = std::str::from_utf8(data) else { return };
    for (version, form) in [(Version::V3, Form::V3Text), (Version::V4, Form::V4)] {
        let Ok(packet) = packet::parse_text(version, written) else { continue };
        assert!(contents(&packet).len() < written.len());
        let mut body = Vec::new();
        packet::write_text(&mut body, form, b'4', written);
        let single = Payload::new(version, false, &body).next();
        if !written.contains('\x1e') {
            assert_eq!(single, Some(Ok(Packet::Text(written))));
        }
    }
}

fn contents<'a>(packet: &'a Packet<'_>) -> &'a [u8] {
    match packet {
        Packet::Binary(data) => data,
        other => text(other).1.as_bytes(),
    }
}

/// The digit and the text of a packet that is not binary.
fn text<'a>(packet: &Packet<'a>) -> (u8, &'a str) {
    match *packet {
        Packet::Open => (b'0', ""),
        Packet::Close => (b'1', ""),
        Packet::Ping(text) => (b'2', text),
        Packet::Pong(text) => (b'3', text),
        Packet::Text(text) => (b'4', text),
        Packet::Upgrade => (b'5', ""),
        Packet::Noop | Packet::Binary(_) => (b'6', ""),
    }
}

/// The query of a request, and each component of it.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = Query::parse(text);
    let digits = parsed.jsonp.as_deref().unwrap_or_default();
    assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "it becomes part of a script");
    if let Some(Ok(id)) = parsed.id {
        assert_eq!(Query::parse(&format!("sid={id}")).id, Some(Ok(id)));
    }
    let decoded = decode(text);
    assert!(decoded.len() <= text.len());
    assert_eq!(decoded, decoded_slowly(text));
    let encoded: String = data.iter().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(decode(&encoded), text);
}

/// The same, piece by piece.
fn decoded_slowly(text: &str) -> String {
    let mut bytes = Vec::new();
    for (place, piece) in text.replace('+', " ").split('%').enumerate() {
        let hex = piece.get(..2).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte.filter(|_| place > 0) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(piece.bytes().skip(2));
            }
            None => {
                bytes.extend((place > 0).then_some(b'%'));
                bytes.extend(piece.bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An `Origin` header in front of a site; the first line is the host, the second one the header.
pub fn origins(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (host, origin) = text.split_once('\n').unwrap_or(("a.example", &text));
    let client = Client {
        address: Ipv4Addr::LOCALHOST.into(),
        host: host.to_ascii_lowercase(),
        port: 443,
        scheme: Scheme::Https,
        chain: None,
    };
    let (friend, stranger) = ("https://b.example", Origins::default());
    let friends = Origins { any: false, allowed: vec![friend.to_owned()] };
    let lower = origin.trim().to_ascii_lowercase();
    let own =
        ["http://", "https://"].iter().any(|scheme| lower == format!("{scheme}{}", client.host));
    let verdict = match (own, lower == friend) {
        (true, _) => Verdict::Own,
        (false, true) => Verdict::Allowed,
        (false, false) => Verdict::Foreign,
    };
    assert_eq!(friends.judge(Some(origin), &client), verdict);
    assert_eq!(stranger.judge(Some(origin), &client) == Verdict::Own, own);
}

/// A client's compressed message; the same as a message of ours, and as what clients may offer.
pub fn deflate(data: &[u8]) {
    let agreed = Some(Deflate { above: 0 });
    let unpack = |data, max| deflate::unpack(data, true, agreed, max).map(Cow::into_owned);
    match unpack(data, MESSAGE_MAX) {
        Ok(message) => {
            assert!(message.len() <= MESSAGE_MAX && message.capacity() <= MESSAGE_MAX + 1);
            if let Some(less) = message.len().checked_sub(1) {
                assert_eq!(unpack(data, less), Err(FrameError::TooLarge));
            }
        }
        Err(error) => assert!([FrameError::NotDeflate, FrameError::TooLarge].contains(&error)),
    }
    assert_eq!(deflate::unpack(data, true, None, MESSAGE_MAX), Err(FrameError::Protocol));
    let (first, rest) = data.split_at(data.len() / 3);
    if let Some(packed) = deflate::compress(&[first, rest]) {
        assert!(packed.len() < data.len());
        assert_eq!(unpack(&packed, data.len()).as_deref(), Ok(data));
    }
    offers(data);
}

fn offers(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let asked = HeaderMap::from_iter([
        (SEC_WEBSOCKET_EXTENSIONS, value.clone()),
        (ACCEPT_ENCODING, value.clone()),
    ]);
    let mut answer = HeaderMap::new();
    let agreed = deflate::negotiate(Some(Deflate { above: 0 }), &asked, &mut answer);
    assert_eq!(agreed.is_some(), answer.contains_key(SEC_WEBSOCKET_EXTENSIONS));
    assert!(agreed.is_none() || value.to_str().is_ok_and(|text| text.contains("deflate")));
    let lower = data.to_ascii_lowercase();
    assert!(!deflate::takes_gzip(&asked) || memchr::memmem::find(&lower, b"gzip").is_some());
}
