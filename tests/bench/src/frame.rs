//! WebSocket frames as a client writes and reads them: one frame is one message.

use std::error::Error;

pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
/// Any but zero, which a server could skip.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub struct Frame<'a> {
    pub opcode: u8,
    pub payload: &'a [u8],
    /// Of the frame, with its head.
    pub length: usize,
}

pub fn write(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(FINAL | opcode);
    match u16::try_from(payload.len()).expect("the benchmark sends short messages") {
        short @ 0..126 => out.push(MASKED | short as u8),
        long => {
            out.push(MASKED | 126);
            out.extend(long.to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// The first frame of `bytes`, if it is complete.
pub fn read(bytes: &[u8]) -> Result<Option<Frame<'_>>, Box<dyn Error>> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    if first & !0x0f != FINAL || second & MASKED != 0 {
        return Err(format!("a frame that begins with {first:02x} {second:02x}").into());
    }
    let (head, length) = match (second, rest) {
        (126, &[high, low, ..]) => (4, usize::from(u16::from_be_bytes([high, low]))),
        (126, _) => return Ok(None),
        (127, _) => return Err("a frame of 64 KiB or more".into()),
        (short, _) => (2, usize::from(short)),
    };
    let opcode = first & 0x0f;
    let payload = bytes.get(head..head + length);
    Ok(payload.map(|payload| Frame { opcode, payload, length: head + length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_servers_write() {
        let long = [&[0x81, 126, 1, 0][..], &[b'x'; 256]].concat();
        /// The lengths of payload and frame.
        type Lengths = Option<(usize, usize)>;
        let table: [(&[u8], Lengths); 6] = [
            (b"", None),
            (b"\x81", None),
            (b"\x81\x02a", None),
            (b"\x81\x02ab\x81", Some((2, 4))),
            (&long, Some((256, 260))),
            (&long[..259], None),
        ];
        for (bytes, expected) in table {
            let frame = read(bytes).expect("legal");
            let found = frame.map(|frame| (frame.payload.len(), frame.length));
            assert_eq!(found, expected, "{bytes:?}");
        }
        assert!(read(b"\x01\x01a").is_err(), "a fragment");
    }

    #[test]
    fn writes_masked_frames() {
        let mut out = Vec::new();
        write(&mut out, TEXT, b"ab");
        assert_eq!(out, [0x81, 0x82, 0x37, 0xfa, 0x21, 0x3d, b'a' ^ 0x37, b'b' ^ 0xfa]);
    }
}
