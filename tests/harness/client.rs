//! A blocking HTTP/1.1 client that sends exactly the bytes it is told.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection.
pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
    socket: Option<TcpStream>,
}

/// A connection after its 101.
pub struct Upgraded {
    stream: BufReader<Box<dyn Stream>>,
}

/// How the other side ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Closed,
    /// By a reset, or of TLS without a word.
    Cut,
}

/// One response, its body whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {} {}", self.status, self.text()))
    }
}

impl Read for Upgraded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Upgraded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.get_mut().flush()
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_nodelay(true).expect("no delay");
        let clone = socket.try_clone().expect("a clone");
        Self { socket: Some(clone), ..Self::over(Box::new(socket)) }
    }

    pub fn over(stream: Box<dyn Stream>) -> Self {
        Self { stream: BufReader::new(stream), socket: None }
    }

    pub fn upgraded(self) -> Upgraded {
        Upgraded { stream: self.stream }
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) {
        let socket = self.socket.as_ref().expect("a plain connection");
        socket.shutdown(std::net::Shutdown::Write).expect("a half-close");
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).expect("sent");
        self.stream.get_mut().flush().expect("flushed");
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    /// A request for `localhost` unless a `host` header is given.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str("Host: localhost\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.send([head.as_bytes(), b"\r\n", body].concat());
        if method == "HEAD" { self.head() } else { self.answer() }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line");
        assert!(line.ends_with('\n'), "cut off after {line:?}");
        line.trim_end().to_owned()
    }

    /// The head of the next response; its body is not read.
    pub fn head(&mut self) -> Answer {
        let first = self.line();
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {first:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').expect("a header");
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Answer { status, headers, body: Vec::new() }
    }

    /// The next response; informational ones are passed over.
    pub fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        while answer.status < 200 && answer.status != 101 {
            answer = self.head();
        }
        if answer.status == 101 || answer.status == 204 || answer.status == 304 {
            return answer;
        }
        if answer.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk() {
                answer.body.extend(chunk);
            }
        } else if let Some(length) = answer.header("content-length") {
            answer.body = self.bytes(length.parse().expect("a length"));
        } else {
            self.stream.read_to_end(&mut answer.body).expect("a body");
        }
        answer
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).expect("bytes");
        bytes
    }

    /// The next chunk of a chunked body; `None` is its clean end. Trailers are passed over.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.line();
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16)
            .unwrap_or_else(|_| panic!("no chunk size: {size:?}"));
        if size == 0 {
            while !self.line().is_empty() {}
            return None;
        }
        let chunk = self.bytes(size);
        assert_eq!(self.bytes(2), b"\r\n");
        Some(chunk)
    }

    /// Everything until the other side ends the connection, and how it does.
    pub fn end(&mut self) -> (Vec<u8>, End) {
        let mut rest = Vec::new();
        let ended = self.stream.read_to_end(&mut rest);
        let end = match ended.map_err(|error| error.kind()) {
            Ok(_) => End::Closed,
            Err(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("the connection is open still, after {:?}", String::from_utf8_lossy(&rest))
            }
            Err(_) => End::Cut,
        };
        (rest, end)
    }

    /// Everything until the other side ends the connection, in whichever way.
    pub fn rest(&mut self) -> Vec<u8> {
        self.end().0
    }

    /// True once the other side has ended the connection without saying more.
    pub fn is_closed(&mut self) -> bool {
        self.rest().is_empty()
    }
}
