//! Compressed messages: permessage-deflate ↔ bytes (RFC 7692); pure.
//!
//! Neither side keeps its window from one message to the next. So a message for many is compressed
//! once, and a session costs no memory; one worker's messages share one window.

use std::borrow::Cow;
use std::cell::RefCell;

use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};
use http::header::{ACCEPT_ENCODING, SEC_WEBSOCKET_EXTENSIONS};
use http::{HeaderMap, HeaderValue};

use super::frame::FrameError;

/// What was agreed with one client, for as long as its WebSocket lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflate {
    /// Messages of fewer bytes are sent as they are.
    pub above: usize,
}

impl Deflate {
    /// The body of an answer to a poll, if it is large enough and becomes smaller (RFC 1952).
    pub fn gzip(self, body: &[u8]) -> Option<Vec<u8>> {
        if body.len() < self.above {
            return None;
        }
        let mut crc = Crc::new();
        crc.update(body);
        let mut into = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
        DEFLATE.with_borrow_mut(|deflate| {
            deflate.reset();
            feed(deflate, body, FlushCompress::Finish, &mut into)
        })?;
        into.extend(crc.sum().to_le_bytes());
        into.extend(crc.amount().to_le_bytes());
        (into.len() < body.len()).then_some(into)
    }
}

/// Whether a client takes an answer that is compressed so (RFC 9110 §12.5.3).
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|word| {
        let (name, weight) = word.split_once(';').unwrap_or((word, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f32>);
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_ok_and(|weight| weight > 0.0)
    })
}

/// Takes up what a client offers, if it is `wanted`, in the answer that begins its WebSocket.
pub fn negotiate(
    wanted: Option<Deflate>,
    asked: &HeaderMap,
    answer: &mut HeaderMap,
) -> Option<Deflate> {
    let wanted = wanted?;
    let offers = asked.get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
    let agreed = agree(offers.filter_map(|offer| offer.to_str().ok()))?;
    answer.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::try_from(agreed).ok()?);
    Some(wanted)
}

/// The answer to an offer; `None` if there is none that can be taken.
///
/// `offers` are the values of `Sec-WebSocket-Extensions`, in the order of the client's preference.
fn agree<'a>(offers: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut offers = offers.flat_map(|line| line.split(','));
    let window = offers.find_map(offered)?;
    let mut answer = NAME.to_owned() + "; server_no_context_takeover; client_no_context_takeover";
    if window == Window::Named {
        answer.push_str("; server_max_window_bits=15");
    }
    Some(answer)
}

const NAME: &str = "permessage-deflate";

/// Whether a client said how large our window may be, which must then be said again.
#[derive(PartialEq, Eq)]
enum Window {
    Unnamed,
    Named,
}

/// `None` if the offer is another extension's, is wrong, or asks for what is not done here.
fn offered(offer: &str) -> Option<Window> {
    let mut words = offer.split(';').map(str::trim);
    if words.next() != Some(NAME) {
        return None;
    }
    let (mut window, mut seen) = (Window::Unnamed, Vec::new());
    for word in words {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (word, None),
        };
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None)
            | ("client_max_window_bits", None) => (),
            ("client_max_window_bits", Some(bits)) if is_window(bits) => (),
            // One frame is for all: nobody has a smaller window.
            ("server_max_window_bits", Some("15")) => window = Window::Named,
            _ => return None,
        }
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    Some(window)
}

fn is_window(bits: &str) -> bool {
    matches!(bits, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
}

/// What every compressed message ends in, and what is therefore left out (§7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

thread_local! {
    // What text there is in JSON is found by the fastest search, too.
    static DEFLATE: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
    static INFLATE: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// A message's payload, compressed; `None` if that makes it no smaller.
pub fn compress(parts: &[&[u8]]) -> Option<Vec<u8>> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    DEFLATE.with_borrow_mut(|deflate| {
        deflate.reset();
        let mut into = Vec::with_capacity(length / 2 + 64);
        for part in parts {
            feed(deflate, part, FlushCompress::None, &mut into)?;
        }
        feed(deflate, &[], FlushCompress::Sync, &mut into)?;
        into.truncate(into.len().checked_sub(TAIL.len())?);
        (into.len() < length).then_some(into)
    })
}

fn feed(
    deflate: &mut Compress,
    mut data: &[u8],
    flush: FlushCompress,
    into: &mut Vec<u8>,
) -> Option<()> {
    loop {
        into.reserve(1024);
        let before = deflate.total_in();
        // Nothing is wrong with any bytes that are to be compressed.
        deflate.compress_vec(data, into, flush).ok()?;
        let taken = usize::try_from(deflate.total_in() - before).ok()?;
        data = data.get(taken..)?;
        // Room that is left over says that nothing waits for it.
        if data.is_empty() && into.len() < into.capacity() {
            return Some(());
        }
    }
}

/// A client's message as it was before; one that is compressed although nobody agreed is wrong.
pub fn unpack<'a>(
    data: &'a [u8],
    compressed: bool,
    agreed: Option<Deflate>,
    max: usize,
) -> Result<Cow<'a, [u8]>, FrameError> {
    match (compressed, agreed) {
        (false, _) => Ok(Cow::Borrowed(data)),
        (true, Some(_)) => Ok(Cow::Owned(inflate(data, max)?)),
        (true, None) => Err(FrameError::Protocol),
    }
}

/// A message of a client as it was before it was compressed; of `max` bytes at most.
fn inflate(data: &[u8], max: usize) -> Result<Vec<u8>, FrameError> {
    let whole = [data, &TAIL].concat();
    let (mut rest, mut into) = (whole.as_slice(), Vec::new());
    INFLATE.with_borrow_mut(|inflate| {
        inflate.reset(false);
        loop {
            if into.len() == into.capacity() {
                grow(&mut into, rest.len(), max)?;
            }
            let (before, length) = (inflate.total_in(), into.len());
            let status = inflate.decompress_vec(rest, &mut into, FlushDecompress::Sync);
            let taken = usize::try_from(inflate.total_in() - before).unwrap_or_default();
            rest = rest.get(taken..).unwrap_or_default();
            let done = match status {
                // Who calls its last block the last fills it up with one byte, or with none.
                Ok(Status::StreamEnd) => match rest.strip_suffix(&TAIL) {
                    Some([] | [0]) => true,
                    _ => return Err(FrameError::NotDeflate),
                },
                // Room that is left over says that nothing waits for it.
                Ok(_) if rest.is_empty() => into.len() < into.capacity(),
                Ok(_) if taken > 0 || into.len() > length => false,
                _ => return Err(FrameError::NotDeflate),
            };
            if into.len() > max {
                return Err(FrameError::TooLarge);
            }
            if done {
                return Ok(std::mem::take(&mut into));
            }
        }
    })
}

/// Room for more, but for no more than one byte too many.
fn grow(into: &mut Vec<u8>, rest: usize, max: usize) -> Result<(), FrameError> {
    let left = (max + 1).saturating_sub(into.len());
    if left == 0 {
        return Err(FrameError::TooLarge);
    }
    let wanted = (into.len() + rest * 4).max(256);
    into.reserve_exact(wanted.min(left));
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn offers_and_their_answers() {
        const PLAIN: &str =
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let named = format!("{PLAIN}; server_max_window_bits=15");
        for (offers, answer) in [
            (&["permessage-deflate"][..], Some(PLAIN)),
            // What Chromium and `ws` say.
            (&["permessage-deflate; client_max_window_bits"], Some(PLAIN)),
            (
                &["permessage-deflate;client_max_window_bits = 10;server_no_context_takeover"],
                Some(PLAIN),
            ),
            (&["permessage-deflate; server_max_window_bits=\"15\""], Some(&named)),
            (&["x-other, permessage-deflate"], Some(PLAIN)),
            (&["x-other", "permessage-deflate"], Some(PLAIN)),
            // The second is taken: nobody's window can be smaller.
            (&["permessage-deflate; server_max_window_bits=10, permessage-deflate"], Some(PLAIN)),
            (&["permessage-deflate; server_max_window_bits=10"], None),
            (&["permessage-deflate; server_max_window_bits"], None),
            (&["permessage-deflate; client_max_window_bits=16"], None),
            (&["permessage-deflate; client_max_window_bits=08"], None),
            (&["permessage-deflate; server_no_context_takeover=1"], None),
            (&["permessage-deflate; client_max_window_bits; client_max_window_bits"], None),
            (&["permessage-deflate; unknown"], None),
            (&["permessage-deflate;"], None),
            (&["x-webkit-deflate-frame"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(agree(offers.iter().copied()).as_deref(), answer, "{offers:?}");
        }
    }

    #[test]
    fn the_examples_of_rfc_7692() {
        let hello = b"Hello";
        for data in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            // Not compressed; with a last block; in two blocks.
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            assert_eq!(inflate(data, 5).as_deref(), Ok(&hello[..]), "{data:x?}");
            assert_eq!(inflate(data, 4), Err(FrameError::TooLarge), "{data:x?}");
        }
        for wrong in [
            &[0x07][..],
            &[0xff; 20],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x01],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            assert_eq!(inflate(wrong, 1000), Err(FrameError::NotDeflate), "{wrong:x?}");
        }
    }

    #[test]
    fn a_bomb_goes_off_in_a_small_room() {
        let zeros = vec![0; 10_000_000];
        let bomb = compress(&[&zeros]).expect("much smaller");
        assert!(bomb.len() < 50_000);
        assert_eq!(inflate(&bomb, 1_000_000), Err(FrameError::TooLarge));
        assert_eq!(inflate(&bomb, 9_999_999), Err(FrameError::TooLarge));
        assert_eq!(inflate(&bomb, 10_000_000).map(|data| data.len()), Ok(10_000_000));
    }

    #[test]
    fn answers_are_compressed_for_who_takes_them() {
        for (line, takes) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("br;q=1, gzip ; q=0", false),
            ("gzip;q=x", false),
            ("deflate", false),
            ("", false),
        ] {
            let line = HeaderValue::from_static(line);
            assert_eq!(
                takes_gzip(&[(ACCEPT_ENCODING, line.clone())].into_iter().collect()),
                takes,
                "{line:?}"
            );
        }
        assert!(!takes_gzip(&HeaderMap::new()));
        let deflate = Deflate { above: 100 };
        assert_eq!(deflate.gzip(&[b'x'; 99]), None);
        let packed = deflate.gzip(&[b'x'; 1000]).expect("smaller");
        let mut read = Vec::new();
        let mut reader = flate2::read::GzDecoder::new(packed.as_slice());
        std::io::Read::read_to_end(&mut reader, &mut read).expect("a right checksum");
        assert_eq!(read, [b'x'; 1000]);
    }

    proptest! {
        #[test]
        fn what_is_compressed_is_read(
            words in proptest::collection::vec("[a-d]{1,6}", 0..4000),
            noise in proptest::collection::vec(any::<u8>(), 0..3000),
        ) {
            let text = words.concat();
            let parts = [b"4", text.as_bytes(), &noise];
            let whole = parts.concat();
            if let Some(data) = compress(&parts) {
                prop_assert!(data.len() < whole.len());
                prop_assert_eq!(inflate(&data, whole.len()), Ok(whole.clone()));
                prop_assert_eq!(inflate(&data, whole.len() - 1), Err(FrameError::TooLarge));
            } else {
                prop_assert!(text.len() < 2000 || noise.len() > 500, "{} + {}", text.len(), noise.len());
            }
        }

        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(read) = inflate(&data, 1000) {
                prop_assert!(read.len() <= 1000);
            }
        }
    }
}
