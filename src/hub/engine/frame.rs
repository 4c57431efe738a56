//! WebSocket frames ↔ bytes (RFC 6455 §5); pure.

use std::ops::Range;

/// What a frame is (RFC 6455 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// One frame found at the front of a buffer; its payload is unmasked in place.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub last: bool,
    /// Its message is compressed, if that was agreed upon (RFC 7692 §6).
    pub compressed: bool,
    pub opcode: Opcode,
    pub payload: Range<usize>,
}

/// Nobody who means well cuts messages into pieces of fewer bytes, or into many of them.
const PIECE: usize = 1024;

impl Frame {
    /// True of a whole message and of a large piece of one; not of what costs its sender nothing:
    /// control frames and small pieces.
    pub fn is_substantial(&self) -> bool {
        let whole = self.last && self.opcode != Opcode::Continuation;
        !self.opcode.is_control() && (whole || self.payload.len() >= PIECE)
    }
}

/// Why the stream cannot go on, with the close code for it (RFC 6455 §7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// 1002
    Protocol,
    /// 1007
    NotText,
    /// 1007
    NotDeflate,
    /// 1009
    TooLarge,
}

impl FrameError {
    pub fn code(self) -> u16 {
        match self {
            Self::Protocol => 1002,
            Self::NotText | Self::NotDeflate => 1007,
            Self::TooLarge => 1009,
        }
    }
}

/// The first frame of a client in `buffer`, if it is whole; `max` bytes of payload at most.
pub fn parse(buffer: &mut [u8], max: usize) -> Result<Option<Frame>, FrameError> {
    let &mut [first, second, ref rest @ ..] = buffer else { return Ok(None) };
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(FrameError::Protocol)?;
    let compressed = first & 0x40 != 0;
    // Other reserved bits mean nothing here, nor does this one beyond a message's first frame; and
    // clients must mask (§5.1).
    let begins = matches!(opcode, Opcode::Text | Opcode::Binary);
    if first & 0x30 != 0 || compressed && !begins || second & 0x80 == 0 {
        return Err(FrameError::Protocol);
    }
    let last = first & 0x80 != 0;
    let short = second & 0x7f;
    let (length, wide) = match short {
        126 => match rest.first_chunk::<2>() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 8),
            None => return Ok(None),
        },
        short => (u64::from(short), 0),
    };
    if opcode.is_control() && (!last || short > 125) {
        return Err(FrameError::Protocol);
    }
    let length = usize::try_from(length).ok().filter(|length| *length <= max);
    let length = length.ok_or(FrameError::TooLarge)?;
    let Some(mask) = rest.get(wide..).and_then(<[u8]>::first_chunk::<4>).copied() else {
        return Ok(None);
    };
    let start = 2 + wide + 4;
    let payload = start..start + length;
    let Some(bytes) = buffer.get_mut(payload.clone()) else { return Ok(None) };
    unmask(bytes, mask);
    Ok(Some(Frame { last, compressed, opcode, payload }))
}

/// Eight bytes at a time: the mask repeats every four.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (eights, rest) = bytes.as_chunks_mut::<8>();
    for eight in eights {
        *eight = (u64::from_ne_bytes(*eight) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends a whole, unmasked frame of a server.
pub fn write(into: &mut Vec<u8>, opcode: Opcode, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    write_head(into, opcode, length);
    for part in parts {
        into.extend_from_slice(part);
    }
}

/// The same for a payload that is compressed.
pub fn write_compressed(into: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let start = into.len();
    write(into, opcode, &[payload]);
    if let Some(first) = into.get_mut(start) {
        *first |= 0x40;
    }
}

/// Begins a whole, unmasked frame of a server, of which so many bytes follow.
pub fn write_head(into: &mut Vec<u8>, opcode: Opcode, length: usize) {
    into.push(0x80 | opcode.bits());
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..126), _) => into.push(short),
        (_, Ok(medium)) => {
            into.push(126);
            into.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            into.push(127);
            into.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Bytes that a server's frame adds to a payload of so many.
pub fn head_len(length: usize) -> usize {
    match length {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => HEAD_MAX,
    }
}

/// Bytes a frame adds to its payload, at most.
pub const HEAD_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(opcode: Opcode, last: bool, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut frame = Vec::new();
        write_head(&mut frame, opcode, payload.len());
        if let [first, second, ..] = frame.as_mut_slice() {
            *first &= if last { 0xff } else { 0x7f };
            *second |= 0x80;
        }
        frame.extend(mask);
        let start = frame.len();
        frame.extend(payload);
        unmask(&mut frame[start..], mask);
        frame
    }

    #[test]
    fn frames_that_break_the_rules() {
        for (bytes, error) in [
            (&[0x81, 0x01, b'a'][..], FrameError::Protocol),
            (&[0xa1, 0x80, 0, 0, 0, 0], FrameError::Protocol),
            (&[0xc0, 0x80, 0, 0, 0, 0], FrameError::Protocol),
            (&[0xc9, 0x80, 0, 0, 0, 0], FrameError::Protocol),
            (&[0x83, 0x80, 0, 0, 0, 0], FrameError::Protocol),
            (&[0x09, 0x80, 0, 0, 0, 0], FrameError::Protocol),
            (&[0x89, 0xfe, 0, 126, 0, 0, 0, 0], FrameError::Protocol),
            (&[0x81, 0xfe, 0x03, 0xe9], FrameError::TooLarge),
            (&[0x81, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0], FrameError::TooLarge),
        ] {
            assert_eq!(parse(&mut bytes.to_vec(), 1000), Err(error), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_masked_is_read(
            payload in proptest::collection::vec(any::<u8>(), 0..70_000),
            mask: [u8; 4],
            cut in 0usize..20,
        ) {
            let whole = masked(Opcode::Binary, true, &payload, mask);
            let mut bytes = whole.clone();
            let frame = parse(&mut bytes, 70_000).expect("a right frame").expect("a whole frame");
            prop_assert_eq!(&bytes[frame.payload.clone()], &payload[..]);
            prop_assert_eq!(frame.payload.end, whole.len());
            prop_assert_eq!(whole.len(), head_len(payload.len()) + 4 + payload.len());
            if cut > 0 && cut <= whole.len() {
                let mut short = whole[..whole.len() - cut].to_vec();
                prop_assert_eq!(parse(&mut short, 70_000), Ok(None));
                prop_assert_eq!(&short[..], &whole[..whole.len() - cut], "untouched until it is whole");
            }
        }

        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _parsed = parse(&mut bytes, 1000);
        }
    }
}
