//! An HTTP/2 client that sends exactly the frames it is told, over TLS.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::{Authority, Edge, PATIENCE};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub struct Http2 {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

/// One response, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Status(u16, Vec<u8>),
    Reset(u32),
    Gone,
}

impl Http2 {
    /// A connection whose SETTINGS are `settings`; the edge's own are acknowledged as they come.
    pub fn connect(edge: &Edge, authority: &Authority, settings: &[(u16, u32)]) -> Self {
        Self::connect_as(edge, authority, "localhost", settings)
    }

    /// The same for another site.
    pub fn connect_as(
        edge: &Edge,
        authority: &Authority,
        host: &str,
        settings: &[(u16, u32)],
    ) -> Self {
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        let config = Arc::new(authority.client(&[b"h2"]));
        let session = ClientConnection::new(config, name).expect("a session");
        let socket = TcpStream::connect(edge.https()).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_nodelay(true).expect("no delay");
        let mut http2 = Self { stream: StreamOwned::new(session, socket) };
        // No dynamic table: a response's status stands in its own frame.
        let settings = [&[(1, 0)], settings].concat();
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        http2.write(&[preface, frame(SETTINGS, 0, 0, &payload)].concat()).expect("a preface");
        http2
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.write(&frame(kind, flags, stream, payload)).expect("sent");
    }

    /// A request's head; without a body if `ends`.
    pub fn request(
        &mut self,
        stream: u32,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        ends: bool,
    ) {
        let fields = [
            &[
                (":method", method),
                (":scheme", "https"),
                (":authority", "localhost"),
                (":path", path),
            ],
            more,
        ]
        .concat();
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.send(HEADERS, flags, stream, &block(&fields));
    }

    pub fn get(&mut self, stream: u32, path: &str) -> Outcome {
        self.request(stream, "GET", path, &[], true);
        self.outcome(stream)
    }

    /// The next frame; `None` if the connection has ended.
    pub fn frame(&mut self) -> Option<Frame> {
        let mut header = [0; 9];
        self.read(&mut header)?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let stream = u32::from_be_bytes([header[5] & 0x7f, header[6], header[7], header[8]]);
        let mut payload = vec![0; length];
        self.read(&mut payload)?;
        if header[3] == SETTINGS && header[4] & ACK == 0 {
            // The connection may have been closed meanwhile; the next read will tell.
            let _sent = self.write(&frame(SETTINGS, ACK, 0, &[]));
        }
        Some(Frame { kind: header[3], flags: header[4], stream, payload })
    }

    /// Silence is no end.
    fn read(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(bytes).map_err(|error| error.kind()) {
            Err(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("the connection is open still")
            }
            read => read.ok(),
        }
    }

    /// What became of a request; what other streams get is passed over.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        let (mut status, mut body) = (None, Vec::new());
        while let Some(frame) = self.frame() {
            if frame.kind == GOAWAY && frame.payload[4..8] != [0; 4] {
                return Outcome::Gone;
            }
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                HEADERS => status = status.or(Some(status_of(&frame.payload))),
                DATA => {
                    body.extend_from_slice(&frame.payload);
                    if !frame.payload.is_empty() {
                        let size = u32::try_from(frame.payload.len()).expect("a size");
                        let size = size.to_be_bytes();
                        let _sent = self.write(&self::frame(WINDOW_UPDATE, 0, 0, &size));
                        if frame.flags & END_STREAM == 0 {
                            let _sent = self.write(&self::frame(WINDOW_UPDATE, 0, stream, &size));
                        }
                    }
                }
                RST_STREAM => {
                    let code = frame.payload.try_into().map(u32::from_be_bytes);
                    return Outcome::Reset(code.expect("a reason"));
                }
                _ => (),
            }
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                return Outcome::Status(status.expect("a head before the end"), body);
            }
        }
        Outcome::Gone
    }

    /// The head of a stream's response.
    pub fn status(&mut self, stream: u32) -> Option<u16> {
        loop {
            let frame = self.frame()?;
            if frame.stream == stream && frame.kind == HEADERS {
                return Some(status_of(&frame.payload));
            }
        }
    }

    /// The next bytes of a stream's data; `None` at its end.
    pub fn data(&mut self, stream: u32) -> Option<Vec<u8>> {
        loop {
            let frame = self.frame()?;
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                DATA if frame.payload.is_empty() && frame.flags & END_STREAM != 0 => return None,
                DATA => return Some(frame.payload),
                RST_STREAM => panic!("reset: {frame:?}"),
                _ => (),
            }
        }
    }

    /// True once the edge has ended the connection.
    pub fn is_closed(&mut self) -> bool {
        while self.frame().is_some() {}
        true
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a length").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A block of headers: literals that are never indexed, without Huffman coding (RFC 7541 §6.2.3).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        for text in [name, value] {
            integer(text.len(), &mut block);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A length with a prefix of seven bits (RFC 7541 §5.1).
fn integer(mut value: usize, out: &mut Vec<u8>) {
    if value < 127 {
        return out.push(u8::try_from(value).expect("below 127"));
    }
    out.push(127);
    value -= 127;
    while value >= 128 {
        out.push(u8::try_from(value % 128).expect("below 128") | 128);
        value /= 128;
    }
    out.push(u8::try_from(value).expect("below 128"));
}

/// The status, which stands first.
pub fn status_of(block: &[u8]) -> u16 {
    // Changes of the table's size come before it.
    let at = block.iter().position(|byte| byte & 0xe0 != 0x20).expect("a field");
    match block[at] {
        byte @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(byte - 0x88)],
        // A literal with the name of `:status`.
        0x08 | 0x18 | 0x48 => {
            let length = usize::from(block[at + 1] & 0x7f);
            let value = &block[at + 2..at + 2 + length];
            if block[at + 1] & 0x80 == 0 {
                return String::from_utf8_lossy(value).parse().expect("a status");
            }
            digits(value)
        }
        other => panic!("a status is no {other:#x}"),
    }
}

/// Digits in HPACK's Huffman code: 0, 1 and 2 have five bits, the others six.
fn digits(bytes: &[u8]) -> u16 {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut rest, mut number) = (bits.as_str(), 0);
    for _ in 0..3 {
        let (code, after) = rest.split_at(5);
        let digit = match code {
            "00000" => 0,
            "00001" => 1,
            "00010" => 2,
            _ => {
                let code = u16::from_str_radix(&rest[..6], 2).expect("bits");
                rest = &rest[6..];
                number = number * 10 + code - 0b01_1001 + 3;
                continue;
            }
        };
        rest = after;
        number = number * 10 + digit;
    }
    number
}
