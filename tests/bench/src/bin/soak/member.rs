//! One client: its connection, and how it comes back.

use std::error::Error;
use std::net::SocketAddr;

use mio::{Registry, Token};
use serde_json::Value;
use vestibule_bench::frame;
use vestibule_bench::socket::{Got, Socket};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a client is told that the judge wants to know.
#[derive(Debug, Clone, Copy)]
pub enum Heard {
    /// It is in the namespace; as the same socket as before, if there was one.
    Connected {
        same: bool,
    },
    Granted {
        id: u64,
    },
    Message {
        by: usize,
        number: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Away,
    Opening,
    In,
}

pub struct Member {
    number: usize,
    phase: Phase,
    socket: Option<Socket>,
    /// Bytes of what is not complete.
    begun: Vec<u8>,
    switched: bool,
    sid: String,
    pid: String,
    offset: Option<String>,
    /// A connection that the server believes to be alive.
    half_open: Option<Socket>,
}

impl Member {
    pub fn new(number: usize) -> Self {
        Self {
            number,
            phase: Phase::Away,
            socket: None,
            begun: Vec::new(),
            switched: false,
            sid: String::new(),
            pid: String::new(),
            offset: None,
            half_open: None,
        }
    }

    pub fn is_in(&self) -> bool {
        self.phase == Phase::In
    }

    pub fn connect(&mut self, address: SocketAddr, registry: &Registry) -> Outcome<()> {
        let mut socket = Socket::open(address, None, self.number, registry, Token(self.number))?;
        socket.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: localhost\r\n\
              origin: http://localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )?;
        self.socket = Some(socket);
        self.phase = Phase::Opening;
        self.switched = false;
        self.begun.clear();
        Ok(())
    }

    /// The connection is lost; `half`: only the client knows.
    pub fn cut(&mut self, half: bool, registry: &Registry) -> Outcome<()> {
        self.phase = Phase::Away;
        let Some(mut socket) = self.socket.take() else { return Ok(()) };
        if half {
            socket.silence(registry)?;
            self.half_open = Some(socket);
        }
        Ok(())
    }

    pub fn send(&mut self, packet: &str) -> Outcome<()> {
        let mut bytes = Vec::with_capacity(packet.len() + 12);
        frame::write(&mut bytes, frame::TEXT, format!("4{packet}").as_bytes());
        let socket = self.socket.as_mut().ok_or("a client without connection")?;
        Ok(socket.write(&bytes)?)
    }

    /// The kernel takes or has something.
    pub fn ready(&mut self, buffer: &mut [u8], heard: &mut Vec<Heard>) -> Outcome<()> {
        let Some(mut socket) = self.socket.take() else { return Ok(()) };
        socket.flush()?;
        loop {
            match socket.read(buffer)? {
                Got::Nothing => break,
                Got::End => return Err(self.lost("the server closed the connection")),
                Got::Bytes(length) => self.begun.extend(buffer.get(..length).unwrap_or_default()),
            }
        }
        let begun = std::mem::take(&mut self.begun);
        let taken = self.read(&begun, &mut socket, heard)?;
        self.begun = begun.get(taken..).unwrap_or_default().to_vec();
        self.socket = Some(socket);
        Ok(())
    }

    fn lost(&self, why: &str) -> Box<dyn Error> {
        format!("client {} in {:?}: {why}", self.number, self.phase).into()
    }

    /// Takes what is complete; returns how much that was.
    fn read(
        &mut self,
        bytes: &[u8],
        socket: &mut Socket,
        heard: &mut Vec<Heard>,
    ) -> Outcome<usize> {
        let mut taken = 0;
        if !self.switched {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
            let Some(end) = end else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101 ") {
                return Err(self.lost(&String::from_utf8_lossy(bytes)));
            }
            self.switched = true;
            taken = end + 4;
        }
        while let Some(found) = frame::read(bytes.get(taken..).unwrap_or_default())? {
            taken += found.length;
            let text = std::str::from_utf8(found.payload)?;
            if found.opcode != frame::TEXT {
                return Err(self.lost(&format!("a frame with opcode {}: {text:?}", found.opcode)));
            }
            if let Some(answer) = self.take(text, heard)? {
                let mut out = Vec::new();
                frame::write(&mut out, frame::TEXT, answer.as_bytes());
                socket.write(&out)?;
            }
        }
        Ok(taken)
    }

    fn take(&mut self, text: &str, heard: &mut Vec<Heard>) -> Outcome<Option<String>> {
        if text == "2" {
            return Ok(Some("3".to_owned()));
        }
        if text.starts_with("0{") {
            return Ok(Some(format!("40/chat,{}", self.wish())));
        }
        if let Some(words) = text.strip_prefix("40/chat,") {
            let words: Value = serde_json::from_str(words)?;
            let word = |name| words.get(name).and_then(Value::as_str).map(str::to_owned);
            let sid = word("sid").ok_or("no sid")?;
            let same = self.sid.is_empty() || self.sid == sid;
            (self.sid, self.pid) = (sid, word("pid").ok_or("no pid")?);
            self.phase = Phase::In;
            self.half_open = None;
            heard.push(Heard::Connected { same });
            return Ok(None);
        }
        if let Some(event) = text.strip_prefix("42/chat,") {
            let event: Value = serde_json::from_str(event)?;
            let number = |name: &str| event.pointer(name).and_then(Value::as_u64);
            let (Some(by), Some(number)) = (number("/1/by"), number("/1/n")) else {
                return Err(self.lost(&format!("a strange event: {text}")));
            };
            self.offset = event.pointer("/2").and_then(Value::as_str).map(str::to_owned);
            heard.push(Heard::Message { by: usize::try_from(by)?, number });
            return Ok(None);
        }
        if let Some((id, answer)) =
            text.strip_prefix("43/chat,").and_then(|ack| ack.split_once('['))
        {
            if answer != "{\"ok\":true}]" {
                return Err(self.lost(&format!("refused: {text}")));
            }
            heard.push(Heard::Granted { id: id.parse()? });
            return Ok(None);
        }
        Err(self.lost(&format!("a strange packet: {text}")))
    }

    /// What it shows when it connects.
    fn wish(&self) -> String {
        match (self.pid.as_str(), &self.offset) {
            ("", _) => String::new(),
            (pid, None) => format!("{{\"pid\":\"{pid}\"}}"),
            (pid, Some(offset)) => format!("{{\"pid\":\"{pid}\",\"offset\":\"{offset}\"}}"),
        }
    }
}
