//! The application that all proxies stand before: bodies that are ready, a thread per connection.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::{io, thread};

/// What Next.js sends with a page.
const HEADERS: &str = "vary: rsc, next-router-state-tree, next-router-prefetch, next-router-segment-prefetch\r\n\
    x-nextjs-cache: HIT\r\nx-nextjs-prerender: 1\r\nx-nextjs-stale-time: 300\r\n\
    cache-control: s-maxage=31536000\r\netag: \"13ucv9yrp3l8mf\"\r\n\
    date: Sat, 28 Nov 2026 14:00:00 GMT\r\nconnection: keep-alive\r\nkeep-alive: timeout=60\r\n";

struct Answers {
    small: Vec<u8>,
    medium: Vec<u8>,
    chunked: Vec<u8>,
    large: Vec<u8>,
    page: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let octets = "application/octet-stream";
        Self {
            small: whole(octets, &vec![b'x'; 1 << 10]),
            medium: whole(octets, &vec![b'x'; 100 << 10]),
            chunked: chunked(octets, &vec![b'x'; 100 << 10]),
            large: whole(octets, &vec![b'x'; 1 << 20]),
            page: whole("text/html; charset=utf-8", page().as_bytes()),
        }
    }

    fn of(&self, path: &str) -> &[u8] {
        match path {
            "/100k" => &self.medium,
            "/100k-chunked" => &self.chunked,
            "/1m" => &self.large,
            "/page" => &self.page,
            _ => &self.small,
        }
    }
}

fn whole(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\n{HEADERS}content-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn chunked(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\n{HEADERS}content-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    for chunk in body.chunks(16 << 10) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// 100 KiB that compress as a page does.
fn page() -> String {
    let words = ["route", "server", "cache", "page", "render", "stream", "action", "layout"];
    let (mut text, mut state) = (String::from("<!doctype html><html><body>\n"), 7_u32);
    while text.len() < 100 << 10 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let word = words[(state >> 16) as usize % words.len()];
        text.push_str(&format!("<p class=\"{word}-{}\">{word}</p>\n", state >> 20));
    }
    text
}

/// Starts it for the life of the process.
pub fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let answers = Arc::new(Answers::new());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answers = Arc::clone(&answers);
            thread::spawn(move || serve(stream, &answers));
        }
    });
    Ok(address)
}

/// Until the proxy closes the connection.
fn serve(stream: TcpStream, answers: &Answers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(16 << 10, stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = answers.of(line.split(' ').nth(1).unwrap_or_default());
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line)?;
        }
        writer.write_all(answer)?;
    }
}
