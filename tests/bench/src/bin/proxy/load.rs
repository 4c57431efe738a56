//! The load: h2load of nghttp2, and connections that stay open after one request.

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

use crate::servers::Server;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a browser sends besides the host.
const BROWSER: [&str; 11] = [
    "accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "accept-language: de-DE,de;q=0.9,en;q=0.8",
    "user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    "cache-control: max-age=0",
    "cookie: session=4f9c1e0d7b2a4c6e8f1035a7; theme=dark",
    "sec-ch-ua: \"Chromium\";v=\"140\", \"Not?A_Brand\";v=\"8\"",
    "sec-ch-ua-mobile: ?0",
    "sec-ch-ua-platform: \"Linux\"",
    "sec-fetch-dest: document",
    "sec-fetch-mode: navigate",
    "referer: https://localhost/start",
];

/// One load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    pub path: &'static str,
    pub tls: bool,
    pub http2: bool,
    pub gzip: bool,
    pub clients: u32,
    pub streams: u32,
    pub requests: u32,
    /// Requests a second of all clients together; as many as it takes without.
    pub rate: Option<u32>,
}

/// What came of it.
pub struct Done {
    /// Processor time of the proxy, µs for each request.
    pub cpu: f64,
    pub per_second: f64,
    /// Microseconds; only measured at a fixed rate.
    pub p99: Option<f64>,
}

/// How long a load of a fixed rate lasts.
const LASTS: u32 = 4;

pub fn run(load: &Load, server: &Server, folder: &Path) -> Outcome<Done> {
    let (scheme, address) =
        if load.tls { ("https", server.secure) } else { ("http", server.plain) };
    let mut command = Command::new("h2load");
    command.arg("-t1").arg(format!("-c{}", load.clients)).arg(format!("-m{}", load.streams));
    let log = folder.join("requests.log");
    let _old = fs::remove_file(&log);
    match load.rate {
        Some(rate) => {
            command.arg(format!("--rps={}", f64::from(rate) / f64::from(load.clients)));
            command.arg(format!("-n{}", rate * LASTS)).arg("--log-file").arg(&log);
        }
        None => drop(command.arg(format!("-n{}", load.requests))),
    }
    if !load.http2 {
        command.arg("--h1");
    }
    for line in BROWSER {
        command.arg("-H").arg(line);
    }
    let accept = if load.gzip { "gzip" } else { "identity" };
    command.arg("-H").arg(format!("accept-encoding: {accept}"));
    command.arg(format!("{scheme}://{address}{}", load.path));
    let before = server.cpu()?;
    let output = command.output()?;
    let cpu = server.cpu()? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |after: &str, until: &str| -> Option<f64> {
        let (_, rest) = text.split_once(after)?;
        rest.split(until).next()?.trim().parse().ok()
    };
    let succeeded =
        number(" done, ", " succeeded").ok_or_else(|| format!("h2load says: {text}"))?;
    let wanted = load.rate.map_or(load.requests, |rate| rate * LASTS);
    if succeeded < f64::from(wanted) {
        return Err(format!("{succeeded} of {wanted} requests succeeded: {text}").into());
    }
    // "finished in 1.02s, 39215.69 req/s, 50.12MB/s"
    let per_second = text.split_once("finished in ").and_then(|(_, rest)| {
        let rate = rest.split(", ").nth(1)?;
        rate.split(' ').next()?.parse().ok()
    });
    Ok(Done {
        cpu: cpu.as_secs_f64() * 1e6 / succeeded,
        per_second: per_second.unwrap_or_default(),
        p99: load.rate.and_then(|_| p99(&log)),
    })
}

/// Of the times in h2load's log: when it began, status, microseconds.
fn p99(log: &Path) -> Option<f64> {
    let text = fs::read_to_string(log).ok()?;
    let mut times: Vec<f64> =
        text.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() * 99 / 100).copied()
}

/// Kilobytes more for each of so many connections that have made one request.
pub fn idle(server: &Server, tls: bool, count: usize, folder: &Path) -> Outcome<f64> {
    let config = trusting(folder)?;
    // What the first ones make the process take is not theirs.
    drop(open(server, tls, 200, &config)?);
    thread::sleep(Duration::from_secs(1));
    let before = server.resident()?;
    let held = open(server, tls, count, &config)?;
    // Idle ones are put aside after some time.
    thread::sleep(Duration::from_secs(4));
    let after = server.resident()?;
    drop(held);
    thread::sleep(Duration::from_secs(1));
    Ok((after - before) / count as f64)
}

type Held = Vec<(TcpStream, Option<Box<ClientConnection>>)>;

fn open(server: &Server, tls: bool, count: usize, config: &Arc<ClientConfig>) -> Outcome<Held> {
    let address = if tls { server.secure } else { server.plain };
    // The name of the handshake, where there is one: another site's would be refused.
    let host = if tls { format!("localhost:{}", address.port()) } else { address.to_string() };
    let request = format!("GET /1k HTTP/1.1\r\nHost: {host}\r\n{}\r\n\r\n", BROWSER.join("\r\n"));
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let session = if tls {
            let name = ServerName::try_from("localhost")?;
            let mut session = ClientConnection::new(Arc::clone(config), name)?;
            let mut stream = Stream::new(&mut session, &mut socket);
            stream.write_all(request.as_bytes())?;
            read(&mut stream)?;
            Some(Box::new(session))
        } else {
            socket.write_all(request.as_bytes())?;
            read(&mut socket)?;
            None
        };
        held.push((socket, session));
    }
    Ok(held)
}

/// A head and its body of 1 KiB.
fn read(stream: &mut impl std::io::Read) -> Outcome<()> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n")
            && all.len() >= end + 4 + 1024
        {
            return Ok(());
        }
        match stream.read(&mut buffer)? {
            0 => return Err("the proxy closed the connection".into()),
            read => all.extend_from_slice(&buffer[..read]),
        }
    }
}

fn trusting(folder: &Path) -> Outcome<Arc<ClientConfig>> {
    let pem = fs::read(folder.join("certs/localhost.pem"))?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem)?)?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let words = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(words))
}
