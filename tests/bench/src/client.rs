//! One Socket.IO client of `/chat`: how it connects, and what it hears.

use std::error::Error;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::{Registry, Token};
use rustls::ClientConfig;

use vestibule_bench::frame;
use vestibule_bench::socket::{Got, Socket};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How a client comes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    WebSocket,
    /// As a stock client: a session by polling, then the same session over WebSocket.
    Upgrade,
}

/// Where the clients connect to, and what their connections report to.
pub struct Around {
    pub address: SocketAddr,
    pub tls: Option<Arc<ClientConfig>>,
    pub registry: Registry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Polling: the open packet is asked for.
    Handshake,
    /// Polling: the namespace is asked for.
    Joining,
    /// Polling: its answer is asked for.
    Awaiting,
    /// Polling goes on while the WebSocket is tried.
    Probing {
        confirmed: bool,
        released: bool,
    },
    /// The WebSocket is new: its open packet and the namespace's answer are due.
    Opening,
    Connected,
    Leaving,
}

pub struct Client {
    number: usize,
    phase: Phase,
    sid: String,
    polling: Option<Line>,
    websocket: Option<Line>,
    pub pings: u64,
}

/// A connection and the bytes of a message that is not complete.
struct Line {
    socket: Socket,
    begun: Vec<u8>,
    /// The answer to the WebSocket's request was read.
    switched: bool,
}

impl Client {
    pub fn start(number: usize, way: Way, around: &Around) -> Outcome<Self> {
        let mut client = Self {
            number,
            phase: Phase::Opening,
            sid: String::new(),
            polling: None,
            websocket: None,
            pings: 0,
        };
        match way {
            Way::WebSocket => client.open_websocket(around)?,
            Way::Upgrade => {
                client.phase = Phase::Handshake;
                client.polling = Some(Line::open(around, number, Token(2 * number + 1))?);
                client.poll()?;
            }
        }
        Ok(client)
    }

    /// Whose event this token is, and whether it is the WebSocket's.
    pub fn of(token: Token) -> (usize, bool) {
        (token.0 / 2, token.0.is_multiple_of(2))
    }

    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    pub fn is_gone(&self) -> bool {
        self.websocket.is_none()
    }

    /// Sends a Socket.IO packet.
    pub fn send(&mut self, packet: &str) -> Outcome<()> {
        self.send_frame(frame::TEXT, &[b"4", packet.as_bytes()].concat())
    }

    pub fn leave(&mut self) -> Outcome<()> {
        self.phase = Phase::Leaving;
        self.polling = None;
        self.send_frame(frame::CLOSE, &1000_u16.to_be_bytes())
    }

    /// The kernel takes or has something. `heard` is given every packet that is not about connecting
    /// and may answer with one.
    pub fn ready(
        &mut self,
        over_websocket: bool,
        buffer: &mut [u8],
        around: &Around,
        heard: &mut impl FnMut(&[u8]) -> Option<String>,
    ) -> Outcome<()> {
        // Taken out while it is read, as what is read may change the client.
        let slot = if over_websocket { &mut self.websocket } else { &mut self.polling };
        let Some(mut line) = slot.take() else { return Ok(()) };
        line.socket.flush()?;
        let outcome = self.read(&mut line, over_websocket, buffer, around, heard);
        let keep = match outcome {
            Ok(open) => open && (over_websocket || self.needs_polling()),
            // Goodbye was said; how the server hangs up is its own affair.
            Err(_) if self.phase == Phase::Leaving => false,
            Err(error) => {
                return Err(format!("client {} in {:?}: {error}", self.number, self.phase).into());
            }
        };
        if keep {
            let slot = if over_websocket { &mut self.websocket } else { &mut self.polling };
            *slot = Some(line);
        }
        Ok(())
    }

    /// Reads until there is nothing; false at the end of the connection.
    fn read(
        &mut self,
        line: &mut Line,
        over_websocket: bool,
        buffer: &mut [u8],
        around: &Around,
        heard: &mut impl FnMut(&[u8]) -> Option<String>,
    ) -> Outcome<bool> {
        loop {
            let length = match line.socket.read(buffer)? {
                Got::Bytes(length) => length,
                Got::Nothing => return Ok(true),
                Got::End if self.phase == Phase::Leaving || !over_websocket => return Ok(false),
                Got::End => return Err("the server closed the connection".into()),
            };
            let Some(bytes) = buffer.get(..length) else { return Ok(true) };
            line.take(bytes, |line, bytes| match over_websocket {
                true => self.read_websocket(line, bytes, heard),
                false => self.read_polling(line, bytes, around),
            })?;
            // Less than there was room for: the kernel has no more, and will say when it has.
            if length < buffer.len() && line.socket.is_plain() {
                return Ok(true);
            }
        }
    }

    /// Takes what is complete of `bytes`; returns how much that was.
    fn read_websocket(
        &mut self,
        line: &mut Line,
        bytes: &[u8],
        heard: &mut impl FnMut(&[u8]) -> Option<String>,
    ) -> Outcome<usize> {
        let mut taken = 0;
        if !line.switched {
            let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101 ") {
                return Err(String::from_utf8_lossy(bytes).into());
            }
            line.switched = true;
            taken = end + 4;
            if let Phase::Probing { .. } = self.phase {
                line.send(frame::TEXT, b"2probe")?;
            }
        }
        while let Some(found) = frame::read(&bytes[taken..])? {
            taken += found.length;
            match found.opcode {
                frame::TEXT => self.read_packet(line, found.payload, heard)?,
                frame::CLOSE if self.phase == Phase::Leaving => return Err("goodbye".into()),
                other => return Err(format!("a frame with opcode {other}").into()),
            }
        }
        Ok(taken)
    }

    fn read_packet(
        &mut self,
        line: &mut Line,
        packet: &[u8],
        heard: &mut impl FnMut(&[u8]) -> Option<String>,
    ) -> Outcome<()> {
        match (packet, self.phase) {
            ([b'4', ..], Phase::Opening) if packet.starts_with(b"40/chat,{") => {
                self.phase = Phase::Connected;
            }
            ([b'4', event @ ..], Phase::Connected) => {
                if let Some(reply) = heard(event) {
                    line.send(frame::TEXT, format!("4{reply}").as_bytes())?;
                }
            }
            (b"2", _) => {
                self.pings += 1;
                line.send(frame::TEXT, b"3")?;
            }
            ([b'0', ..], Phase::Opening) => line.send(frame::TEXT, b"40/chat,")?,
            (b"3probe", Phase::Probing { released, .. }) => {
                self.confirm(line, true, released)?;
            }
            (b"6", _) | (_, Phase::Leaving) => {}
            _ => return Err(format!("unexpected {}", String::from_utf8_lossy(packet)).into()),
        }
        Ok(())
    }

    /// Takes one answer; returns its length.
    fn read_polling(&mut self, line: &mut Line, bytes: &[u8], around: &Around) -> Outcome<usize> {
        let Some((body, length)) = answer(bytes)? else { return Ok(0) };
        match self.phase {
            Phase::Handshake => {
                self.sid = sid(body).ok_or("an open packet without sid")?.to_owned();
                self.phase = Phase::Joining;
                line.socket.write(self.post("40/chat,").as_bytes())?;
            }
            Phase::Joining => {
                self.phase = Phase::Awaiting;
                line.socket.write(self.get().as_bytes())?;
            }
            // A server may ping meanwhile; the upgrade makes up for the answer.
            Phase::Awaiting if find(body, b"40/chat,{").is_some() => {
                self.phase = Phase::Probing { confirmed: false, released: false };
                line.socket.write(self.get().as_bytes())?;
                self.open_websocket(around)?;
            }
            // The noop that lets the poll end, before the probe's answer.
            Phase::Probing { confirmed: false, .. } if body == b"6" => {
                self.phase = Phase::Probing { confirmed: false, released: true };
            }
            Phase::Probing { confirmed: false, .. } => line.socket.write(self.get().as_bytes())?,
            Phase::Probing { confirmed: true, .. } => {
                let mut websocket = self.websocket.take().ok_or("no WebSocket to move to")?;
                self.confirm(&mut websocket, true, true)?;
                self.websocket = Some(websocket);
            }
            _ => return Err(format!("unexpected {}", String::from_utf8_lossy(body)).into()),
        }
        Ok(length)
    }

    /// Moves to the WebSocket once it is confirmed and no poll is pending.
    fn confirm(&mut self, websocket: &mut Line, confirmed: bool, released: bool) -> Outcome<()> {
        self.phase = Phase::Probing { confirmed, released };
        if confirmed && released {
            websocket.send(frame::TEXT, b"5")?;
            self.phase = Phase::Connected;
        }
        Ok(())
    }

    fn needs_polling(&self) -> bool {
        !matches!(self.phase, Phase::Connected | Phase::Leaving)
    }

    fn send_frame(&mut self, opcode: u8, payload: &[u8]) -> Outcome<()> {
        let line = self.websocket.as_mut().ok_or("a client that is not there")?;
        line.send(opcode, payload)
    }

    fn poll(&mut self) -> Outcome<()> {
        let request = self.get();
        let line = self.polling.as_mut().ok_or("a client that does not poll")?;
        Ok(line.socket.write(request.as_bytes())?)
    }

    fn open_websocket(&mut self, around: &Around) -> Outcome<()> {
        let mut line = Line::open(around, self.number, Token(2 * self.number))?;
        let head = self.head("GET", "websocket");
        let request = format!(
            "{head}connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
        );
        line.socket.write(request.as_bytes())?;
        self.websocket = Some(line);
        Ok(())
    }

    fn get(&self) -> String {
        self.head("GET", "polling") + "connection: keep-alive\r\n\r\n"
    }

    fn post(&self, body: &str) -> String {
        let head = self.head("POST", "polling");
        let length = body.len();
        format!(
            "{head}connection: keep-alive\r\ncontent-type: text/plain;charset=UTF-8\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
    }

    /// What a browser sends with every request.
    fn head(&self, method: &str, transport: &str) -> String {
        let sid = match self.sid.as_str() {
            "" => String::new(),
            sid => format!("&sid={sid}"),
        };
        format!(
            "{method} /socket.io/?EIO=4&transport={transport}{sid} HTTP/1.1\r\n\
             host: localhost\r\n\
             origin: http://localhost\r\n\
             user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/138.0.0.0 Safari/537.36\r\n\
             accept: */*\r\n\
             accept-encoding: gzip, deflate, br, zstd\r\n\
             accept-language: en-GB,en;q=0.9\r\n\
             cache-control: no-cache\r\n\
             pragma: no-cache\r\n\
             cookie: session=3f1c6b0d9a7e4f52b8c1d0e9f7a6b5c4; theme=dark\r\n"
        )
    }
}

impl Line {
    fn open(around: &Around, number: usize, token: Token) -> Outcome<Self> {
        let tls = around.tls.as_ref();
        let socket = Socket::open(around.address, tls, number, &around.registry, token)?;
        Ok(Self { socket, begun: Vec::new(), switched: false })
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) -> Outcome<()> {
        let mut bytes = Vec::with_capacity(payload.len() + 8);
        frame::write(&mut bytes, opcode, payload);
        Ok(self.socket.write(&bytes)?)
    }

    /// Puts `bytes` behind what was begun and keeps what `reader` leaves.
    fn take(
        &mut self,
        bytes: &[u8],
        mut reader: impl FnMut(&mut Self, &[u8]) -> Outcome<usize>,
    ) -> Outcome<()> {
        let mut begun = mem::take(&mut self.begun);
        if begun.is_empty() {
            let taken = reader(self, bytes)?;
            self.begun.extend_from_slice(&bytes[taken..]);
            return Ok(());
        }
        begun.extend_from_slice(bytes);
        let taken = reader(self, &begun)?;
        begun.drain(..taken);
        if !begun.is_empty() {
            self.begun = begun;
        }
        Ok(())
    }
}

/// The body of a complete answer, and its length with the head.
fn answer(bytes: &[u8]) -> Outcome<Option<(&[u8], usize)>> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    if !head.starts_with("http/1.1 200 ") {
        return Err(String::from_utf8_lossy(bytes).into());
    }
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.ok_or("an answer without length")?.trim().parse()?;
    let start = end + 4;
    Ok(bytes.get(start..start + length).map(|body| (body, start + length)))
}

fn sid(open: &[u8]) -> Option<&str> {
    let (_, rest) = std::str::from_utf8(open).ok()?.split_once("\"sid\":\"")?;
    rest.split('"').next()
}

pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
