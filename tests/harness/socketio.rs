//! A blocking Engine.IO and Socket.IO client that says what it is told, right or wrong.

use std::collections::VecDeque;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::{Message, Role, WebSocket};

use super::client::Upgraded;
use super::{Answer, Client, Edge, PLAIN, eventually};

/// What comes from the hub, one packet or frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// An Engine.IO packet, its digit included.
    Text(String),
    Binary(Vec<u8>),
    /// WebSocket's own.
    Pong(Vec<u8>),
    /// The WebSocket was closed, with this code if one was given; or the connection ended.
    Closed(Option<u16>),
}

/// A session, whatever carries it.
pub trait Line {
    /// Sends one packet.
    fn say(&mut self, packet: &str);

    /// Sends one binary message.
    fn say_bytes(&mut self, data: &[u8]);

    /// The next packet, pings and noops too.
    fn hear_all(&mut self) -> Heard;

    /// The next packet that is no heartbeat; pings are answered.
    fn hear(&mut self) -> Heard {
        loop {
            match self.hear_all() {
                Heard::Text(ping) if ping == "2" => self.say("3"),
                Heard::Text(noop) if noop == "6" => (),
                other => return other,
            }
        }
    }

    fn text(&mut self) -> String {
        match self.hear() {
            Heard::Text(text) => text,
            other => panic!("heard {other:?} in place of a text"),
        }
    }

    #[track_caller]
    fn expect(&mut self, packet: &str) {
        assert_eq!(self.hear(), Heard::Text(packet.to_owned()));
    }

    /// Connects to `namespace`; returns the socket's id.
    #[track_caller]
    fn enter(&mut self, namespace: &str) -> String {
        let prefix = if namespace == "/" { "40".to_owned() } else { format!("40{namespace},") };
        self.say(&prefix);
        let answer = self.text();
        let words = answer.strip_prefix(&prefix).unwrap_or_else(|| panic!("not in: {answer}"));
        let words: Value = serde_json::from_str(words).expect("JSON");
        assert_eq!(words.as_object().expect("an object").len(), 1, "{words}");
        words["sid"].as_str().expect("an id").to_owned()
    }
}

/// A proxy.yaml with a hub and nothing else; `settings` are further keys of it, one a line.
///
/// On `/`, `echo` comes back to its sender alone, `all` goes to everybody and `tell` to everybody
/// else; `/chat` has rooms.
pub fn hub_only(settings: &str) -> String {
    let own = settings.lines().find_map(|line| line.strip_prefix("limits: {"));
    let limits =
        format!("limits: {{ {GENEROUS}{} }}", own.map_or("", |own| own.trim_end_matches('}')));
    let others = settings.lines().filter(|line| !line.starts_with("limits:")).chain([&*limits]);
    let settings: String = others.map(|line| format!("  {line}\n")).collect();
    format!("{PLAIN}hub:\n{settings}{NAMESPACES}")
}

/// What tests of other things must not meet.
pub const GENEROUS: &str =
    "events: 1000000/s, burst: 1000000, per_ip: 100000, pending: 100000, handshakes: 1000000/s,";

pub const NAMESPACES: &str = r#"
  namespaces:
    /:
      auth: none
      join: ["own:{sid}"]
      events:
        echo: { relay: "own:{sid}", echo: true }
        all: { relay: "*", echo: true }
        tell: { relay: "*" }
    /chat:
      auth: none
      events:
        join: { join: "room:{0}" }
        leave: { leave: "room:{0}" }
        message: { relay: "room:{0.room}", stamp: { from: "{sid}" } }
        typing: { relay: "room:{0.room}", volatile: true }
        forbidden: deny
"#;

/// The path and query of a request to the hub.
pub fn hub(query: &str) -> String {
    format!("/socket.io/?{query}")
}

/// A WebSocket session.
pub struct Web {
    pub socket: WebSocket<Upgraded>,
    pub eio: u8,
    /// The first packet's words.
    pub open: Value,
}

pub const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
];

/// A WebSocket at `query`, before its first word; or the answer that refused it.
pub fn dial(mut client: Client, query: &str) -> Result<WebSocket<Upgraded>, Answer> {
    let answer = client.ask("GET", &hub(query), &UPGRADE, b"");
    if answer.status != 101 {
        return Err(answer);
    }
    // Of RFC 6455 §1.3, for the key above.
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    Ok(WebSocket::from_raw_socket(client.upgraded(), Role::Client, None))
}

impl Web {
    pub fn open(edge: &Edge) -> Self {
        Self::over(edge.connect(), "EIO=4")
    }

    /// A session of its own over `client`; `query` names the protocol.
    pub fn over(client: Client, query: &str) -> Self {
        let socket = dial(client, &format!("{query}&transport=websocket")).expect("a 101");
        let eio = if query.contains("EIO=3") { 3 } else { 4 };
        let mut web = Self { socket, eio, open: Value::Null };
        let open = web.text();
        web.open = serde_json::from_str(open.strip_prefix('0').expect("open")).expect("JSON");
        web
    }

    pub fn sid(&self) -> &str {
        self.open["sid"].as_str().expect("an id")
    }

    /// Sends these very bytes.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).expect("sent");
    }

    pub fn frame(&mut self, frame: Frame) {
        self.socket.send(Message::Frame(frame)).expect("sent");
    }
}

impl Line for Web {
    fn say(&mut self, packet: &str) {
        self.socket.send(Message::text(packet)).expect("sent");
    }

    fn say_bytes(&mut self, data: &[u8]) {
        let typed = [&[4][..usize::from(self.eio == 3)], data].concat();
        self.socket.send(Message::binary(typed)).expect("sent");
    }

    fn hear_all(&mut self) -> Heard {
        listen(&mut self.socket)
    }
}

/// The next that comes over a WebSocket.
pub fn listen(socket: &mut WebSocket<Upgraded>) -> Heard {
    loop {
        return match socket.read() {
            Ok(Message::Text(text)) => Heard::Text(text.as_str().to_owned()),
            Ok(Message::Binary(data)) => Heard::Binary(data.to_vec()),
            Ok(Message::Pong(data)) => Heard::Pong(data.to_vec()),
            Ok(Message::Close(frame)) => Heard::Closed(frame.map(|frame| frame.code.into())),
            Ok(Message::Ping(_) | Message::Frame(_)) => continue,
            Err(tungstenite::Error::Io(error))
                if error.kind() == std::io::ErrorKind::WouldBlock =>
            {
                panic!("heard nothing in time")
            }
            Err(_) => Heard::Closed(None),
        };
    }
}

/// One frame of a client: its first byte as told, a mask, and this payload.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | u8::try_from(short).expect("short")),
        medium => {
            frame.push(0xfe);
            frame.extend(u16::try_from(medium).expect("medium").to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A long polling session: one connection for its GETs, one for its POSTs.
pub struct Poller {
    pub get: Client,
    pub post: Client,
    /// The first packet's words.
    pub open: Value,
    path: String,
    eio: u8,
    heard: VecDeque<Heard>,
}

impl Poller {
    pub fn open(edge: &Edge) -> Self {
        Self::over(edge.connect(), edge.connect(), "EIO=4")
    }

    /// A session opened on `get`; `query` names the protocol, and what else stays in the query.
    pub fn over(mut get: Client, post: Client, query: &str) -> Self {
        let path = hub(&format!("{query}&transport=polling"));
        let answer = get.get(&path);
        assert_eq!(answer.status, 200, "{answer:?}");
        let eio = if query.contains("EIO=3") { 3 } else { 4 };
        let Some(Heard::Text(open)) = decode(eio, &answer).pop_front() else {
            panic!("no text: {answer:?}")
        };
        let open: Value =
            serde_json::from_str(open.strip_prefix('0').expect("open")).expect("JSON");
        let path = format!("{path}&sid={}", open["sid"].as_str().expect("an id"));
        Self { get, post, open, path, eio, heard: VecDeque::new() }
    }

    pub fn sid(&self) -> &str {
        self.open["sid"].as_str().expect("an id")
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Sends a GET; `polled` takes its answer.
    pub fn begin_poll(&mut self) {
        self.get.send(format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", self.path));
    }

    pub fn polled(&mut self) -> Answer {
        self.get.answer()
    }

    pub fn poll(&mut self) -> Answer {
        self.begin_poll();
        self.polled()
    }

    pub fn send(&mut self, body: impl AsRef<[u8]>) -> Answer {
        self.post.ask("POST", &self.path, &[], body.as_ref())
    }

    /// The status of the next request on this session: 200 if it is alive.
    pub fn status(&mut self) -> u16 {
        self.send(if self.eio == 3 { "1:6" } else { "6" }).status
    }

    /// A WebSocket that wants to take over this session, on `client`.
    pub fn dial(&self, client: Client) -> Result<WebSocket<Upgraded>, Answer> {
        dial(client, &format!("EIO={}&transport=websocket&sid={}", self.eio, self.sid()))
    }
}

impl Line for Poller {
    fn say(&mut self, packet: &str) {
        let units = packet.encode_utf16().count();
        let body = if self.eio == 3 { format!("{units}:{packet}") } else { packet.to_owned() };
        let answer = self.send(body);
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    }

    fn say_bytes(&mut self, data: &[u8]) {
        let digit = if self.eio == 3 { "b4" } else { "b" };
        self.say(&format!("{digit}{}", STANDARD.encode(data)));
    }

    fn hear_all(&mut self) -> Heard {
        if self.heard.is_empty() {
            let answer = self.poll();
            if answer.status != 200 {
                return Heard::Closed(None);
            }
            self.heard = decode(self.eio, &answer);
        }
        self.heard.pop_front().expect("an answer is never empty")
    }
}

/// The packets of a polling answer.
pub fn decode(eio: u8, answer: &Answer) -> VecDeque<Heard> {
    let binary = answer.header("content-type") == Some("application/octet-stream");
    if binary {
        return decode_binary(&answer.body);
    }
    let text = answer.text();
    if eio == 4 {
        return text.split('\x1e').map(|packet| decode_text(packet, "b")).collect();
    }
    let units: Vec<u16> = text.encode_utf16().collect();
    let (mut packets, mut rest) = (VecDeque::new(), units.as_slice());
    while let Some(colon) = rest.iter().position(|unit| *unit == u16::from(b':')) {
        let length: usize = String::from_utf16_lossy(&rest[..colon]).parse().expect("a length");
        let end = colon + 1 + length;
        let packet = String::from_utf16(&rest[colon + 1..end]).expect("whole characters");
        packets.push_back(decode_text(&packet, "b4"));
        rest = &rest[end..];
    }
    assert_eq!(rest.len(), 0, "{text:?}");
    packets
}

fn decode_text(packet: &str, binary: &str) -> Heard {
    match packet.strip_prefix(binary) {
        Some(data) => Heard::Binary(STANDARD.decode(data).expect("base64")),
        None => Heard::Text(packet.to_owned()),
    }
}

/// Protocol 3's own framing: kind, decimal digits as bytes, 255, that many bytes.
fn decode_binary(body: &[u8]) -> VecDeque<Heard> {
    let (mut packets, mut rest) = (VecDeque::new(), body);
    while let [kind, after @ ..] = rest {
        let digits = after.iter().position(|byte| *byte == 255).expect("a length");
        let length = after[..digits].iter().fold(0, |sum, digit| sum * 10 + usize::from(*digit));
        let packet = &after[digits + 1..digits + 1 + length];
        packets.push_back(match kind {
            0 => Heard::Text(String::from_utf8(packet.to_vec()).expect("text")),
            _ => Heard::Binary(packet.strip_prefix(&[4]).expect("a message").to_vec()),
        });
        rest = &after[digits + 1 + length..];
    }
    packets
}

/// The worker that a session's id names.
pub fn worker_of(sid: &str) -> char {
    sid.chars().nth(3).expect("20 characters")
}

/// A connection that this worker accepted; the kernel spreads them, so others are tried too.
pub fn connection_on(edge: &Edge, worker: char) -> Client {
    eventually("a connection on the worker", || {
        let mut client = edge.connect();
        let path = hub("EIO=4&transport=polling");
        let answer = client.get(&path);
        if answer.status == 503 {
            // Of a process that has just been followed by another.
            return None;
        }
        let open: Value = serde_json::from_str(&answer.text()[1..]).expect("JSON");
        let sid = open["sid"].as_str().expect("an id");
        let closed = client.ask("POST", &format!("{path}&sid={sid}"), &[], b"1");
        if closed.status == 400 {
            // As above: its sessions have ended, this one a moment ago.
            return None;
        }
        assert_eq!(closed.status, 200);
        (worker_of(sid) == worker).then_some(client)
    })
}

/// A session of this worker, over WebSocket.
pub fn web_on(edge: &Edge, worker: char) -> Web {
    let web = Web::over(connection_on(edge, worker), "EIO=4");
    assert_eq!(worker_of(web.sid()), worker);
    web
}

/// The value of this line in the metrics; 0 if it is not there.
pub fn metric(edge: &Edge, line: &str) -> i64 {
    let page = edge.admin("GET", "/metrics").text();
    let value = page.lines().find_map(|known| known.strip_prefix(line)?.trim().parse().ok());
    value.unwrap_or_default()
}

/// Waits until the metric has this value.
#[track_caller]
pub fn wait_for_metric(edge: &Edge, line: &str, value: i64) {
    let mut last = 0;
    let begun = std::time::Instant::now();
    while begun.elapsed() < super::PATIENCE {
        last = metric(edge, line);
        if last == value {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{line} is {last}, not {value}");
}
