//! One request and what is heard of its answer, and when: directly, or through the running process.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{Site, Target, Upstream, UpstreamTls};
use crate::upstream::probe::{Socket, reach};

use super::machine::Process;

/// How long an answer's head may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a body is listened to.
const LISTENED: Duration = Duration::from_secs(15);
const HEAD_MAX: usize = 1 << 20;
const BODY_MAX: usize = 64 << 20;

/// Whom to ask, and as whom.
pub struct Way {
    pub name: String,
    /// Not through the edge.
    pub is_direct: bool,
    target: Target,
    tls: UpstreamTls,
    /// The site's name, as a browser would send it.
    pub host: String,
    /// What pages of the site say where they are from.
    pub origin: String,
}

/// An answer's head, and when the pieces of its body came.
pub struct Answer {
    pub status: u16,
    head: String,
    /// Since the request was sent.
    pub pieces: Vec<Duration>,
    sent: Instant,
    socket: Socket,
}

impl Way {
    /// Without us: as the edge would ask a server of the site.
    pub fn direct(site: &Site, next: &Upstream, target: &Target) -> Self {
        let host = site.host.as_str().replace('*', "any");
        Self {
            name: target.to_string(),
            is_direct: true,
            target: target.clone(),
            tls: next.tls.clone(),
            origin: format!("https://{host}"),
            host,
        }
    }

    /// As a browser would ask the running process, at a listener of its own; `None` where only
    /// those with a certificate may.
    pub fn edge(site: &Site, process: &Process) -> Option<Self> {
        let secure = process.listener("https").filter(|_| process.has_certificate(site));
        if site.client_ca.is_some() {
            return None;
        }
        let (scheme, usual, address) = match secure {
            Some(address) => ("https", 443, address),
            None => ("http", 80, process.listener("http")?),
        };
        let mut host = site.host.as_str().replace('*', "any");
        // Whoever answers here is our own process.
        let tls =
            UpstreamTls { server_name: Some(host.clone()), verify: false, ..Default::default() };
        let (ip, port) = (near(address).to_string(), address.port());
        let target = match secure {
            Some(_) => Target::Tls(ip, port),
            None => Target::Tcp(ip, port),
        };
        if port != usual {
            host = format!("{host}:{port}");
        }
        let origin = format!("{scheme}://{host}");
        Some(Self { name: "the edge".to_owned(), is_direct: false, target, tls, host, origin })
    }

    /// Asks, and waits for the answer's head; what `fields` has ends with a line break.
    pub async fn ask(&self, line: &str, fields: &str, body: &str) -> io::Result<Answer> {
        let request = format!("{line} HTTP/1.1\r\nhost: {}\r\n{fields}\r\n{body}", self.host);
        timeout(DEADLINE, self.converse(&request)).await.unwrap_or(Err(late()))
    }

    async fn converse(&self, request: &str) -> io::Result<Answer> {
        let mut socket = reach(&self.target, &self.tls).await?;
        socket.write_all(request.as_bytes()).await?;
        socket.flush().await?;
        let sent = Instant::now();
        let (mut heard, mut piece) = (Vec::new(), vec![0; 64 << 10]);
        let end = loop {
            if let Some(end) = heard.windows(4).position(|end| end == b"\r\n\r\n") {
                break end;
            }
            let read = socket.read(&mut piece).await?;
            if read == 0 || heard.len() > HEAD_MAX {
                return Err(io::Error::other("it speaks no HTTP"));
            }
            heard.extend(piece.iter().take(read));
        };
        let has_more = heard.len() > end + 4;
        heard.truncate(end);
        let head = String::from_utf8_lossy(&heard).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("it speaks no HTTP"))?;
        let pieces = if has_more { vec![sent.elapsed()] } else { Vec::new() };
        Ok(Answer { status, head, pieces, sent, socket })
    }

    /// Asks for a page, and listens to the end of it, or for a quarter of a minute.
    pub async fn listen(&self, path: &str, accept: &str) -> io::Result<Answer> {
        let fields = format!("accept: text/html, */*\r\n{accept}connection: close\r\n");
        let mut answer = self.ask(&format!("GET {path}"), &fields, "").await?;
        let (mut piece, mut length) = (vec![0; 64 << 10], 0);
        // A connection that is cut at the end is a page that has ended.
        while let Ok(Ok(read @ 1..)) =
            timeout_at(answer.sent + LISTENED, answer.socket.read(&mut piece)).await
        {
            answer.pieces.push(answer.sent.elapsed());
            length += read;
            if length > BODY_MAX {
                break;
            }
        }
        Ok(answer)
    }
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Whether the other side closes the connection before so much time has passed; what is left of
    /// the answer is passed over.
    pub async fn is_closed_within(&mut self, time: Duration) -> bool {
        let (until, mut piece) = (Instant::now() + time, vec![0; 64 << 10]);
        loop {
            match timeout_at(until, self.socket.read(&mut piece)).await {
                Err(_elapsed) => return false,
                Ok(Ok(1..)) => {}
                Ok(_) => return true,
            }
        }
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {DEADLINE:?}"))
}

/// The address by which this machine reaches a listener of its own.
fn near(address: SocketAddr) -> IpAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}
