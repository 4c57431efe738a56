//! A scripted application: answers exactly the bytes it is told, and keeps what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// One request as the application saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Which connection it came on, from 0.
    pub connection: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = self.headers.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// What an answer may be written to; `false` ends the connection.
pub type Script = dyn Fn(&Seen, &mut TcpStream) -> bool + Send + Sync;

impl Origin {
    /// Answers each request, whose body is read already, by `script`.
    pub fn start(script: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, kept): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&seen));
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&kept));
                let Ok(stream) = stream else { continue };
                thread::spawn(move || serve(stream, number, &*script, &seen));
            }
        });
        Self { address, seen }
    }

    /// Answers everything with 200 and this text.
    pub fn text(text: &'static str) -> Self {
        Self::start(move |_, stream| reply(stream, "200 OK", "", text.as_bytes()))
    }

    /// Answers with the request's own line and headers as JSON.
    pub fn echo() -> Self {
        Self::start(|seen, stream| {
            let headers: Vec<_> =
                seen.headers.iter().map(|(n, v)| serde_json::json!([n, v])).collect();
            let body = serde_json::json!({
                "line": seen.line, "headers": headers, "length": seen.body.len(),
            });
            reply(
                stream,
                "200 OK",
                "content-type: application/json\r\n",
                body.to_string().as_bytes(),
            )
        })
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("a lock").clone()
    }

    /// How a `next:` names it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

pub fn reply(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> bool {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).is_ok()
}

fn serve(stream: TcpStream, connection: usize, script: &Script, seen: &Mutex<Vec<Seen>>) {
    let mut writer = stream.try_clone().expect("a clone");
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader, connection) {
        seen.lock().expect("a lock").push(request.clone());
        if !script(&request, &mut writer) {
            let _closed = writer.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

/// Headers or trailers, up to the blank line.
fn lines(reader: &mut BufReader<TcpStream>) -> Option<Vec<(String, String)>> {
    let mut all = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Some(all) };
        all.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read(reader: &mut BufReader<TcpStream>, connection: usize) -> Option<Seen> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut seen = Seen {
        line: line.trim_end().to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        trailers: Vec::new(),
        connection,
    };
    seen.headers = lines(reader)?;
    if seen.header("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            if size == 0 {
                seen.trailers = lines(reader)?;
                break;
            }
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            seen.body.extend(&chunk[..size]);
        }
    } else if let Some(length) = seen.header("content-length") {
        seen.body = vec![0; length.parse().ok()?];
        reader.read_exact(&mut seen.body).ok()?;
    }
    Some(seen)
}
