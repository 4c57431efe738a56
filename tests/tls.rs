//! Certificates by name, ALPN, versions.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::harness::{Authority, Client, Edge, Folder, Origin, PATIENCE, SECURE};

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

pub fn connect(edge: &Edge, config: ClientConfig, name: &str) -> std::io::Result<Tls> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let session = ClientConnection::new(Arc::new(config), name).expect("a session");
    let socket = TcpStream::connect(edge.https())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

pub fn edge(origin: &Origin, authority: &Authority) -> Edge {
    let folder = Folder::new();
    authority.issue(&folder, "a", &["a.example", "localhost"]);
    authority.issue(&folder, "b", &["b.example", "*.b.example"]);
    let yaml = format!(
        "{SECURE}sites:\n  a.example:\n    next: {0}\n  b.example:\n    next: {0}\n  x.b.example:\n    next: {0}\n",
        origin.url()
    );
    Edge::start_in(folder, &yaml)
}

#[test]
fn each_name_gets_its_certificate() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let edge = edge(&origin, &authority);
    for name in ["a.example", "b.example", "x.b.example", "localhost"] {
        let stream = connect(&edge, authority.client(&[]), name);
        assert!(stream.is_ok(), "{name}: {:?}", stream.err());
    }
    assert!(connect(&edge, authority.client(&[]), "c.example").is_err());
    // One that names no host gets the first site's.
    let mut nameless = authority.client(&[]);
    nameless.enable_sni = false;
    assert!(connect(&edge, nameless, "a.example").is_ok());
}

#[test]
fn requests_over_tls_know_where_they_came_from() {
    let (origin, authority) = (Origin::echo(), Authority::new());
    let edge = edge(&origin, &authority);
    let stream =
        connect(&edge, authority.client(&[b"http/1.1"]), "b.example").expect("a handshake");
    let answer = Client::over(Box::new(stream)).ask("GET", "/", &[("Host", "b.example")], b"");
    assert_eq!(answer.status, 200);
    let seen = origin.seen().remove(0);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("x-forwarded-port"), ["443"]);
    edge.access_line(|line| line["tls"] == "TLSv1.3");
}

#[test]
fn http2_is_chosen_by_alpn() {
    let (origin, authority) = (Origin::echo(), Authority::new());
    let mut edge = edge(&origin, &authority);
    let yaml = std::fs::read_to_string(edge.folder.path("proxy.yaml")).expect("the file");
    let (url, large) = (origin.url(), format!("{{ targets: '{}', head: 64KiB }}", origin.url()));
    edge.reload_with(&yaml.replace(&url, &large));
    let stream =
        connect(&edge, authority.client(&[b"h2", b"http/1.1"]), "a.example").expect("a handshake");
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    // The stock client of the matter, with several requests on one connection.
    edge.folder.write("ca.pem", &authority.pem);
    let port = edge.https().port();
    let large = format!("next-router-state-tree: {}", "x".repeat(40_000));
    let output = std::process::Command::new("curl")
        .args(["--silent", "--show-error", "--http2", "--cacert"])
        .arg(edge.folder.path("ca.pem"))
        .args(["--resolve", &format!("a.example:{port}:127.0.0.1"), "-H", &large])
        .args(["-H", "cookie: a=1", "-w", " %{http_version} %{num_connects}\n"])
        .args([format!("https://a.example:{port}/1"), format!("https://a.example:{port}/2")])
        .output()
        .expect("curl");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert_eq!((said.matches(" 2 1\n").count(), said.matches(" 2 0\n").count()), (1, 1), "{said}");
    assert_eq!(origin.seen()[0].all("host"), [format!("a.example:{port}")]);
    edge.access_line(|line| line["protocol"] == "HTTP/2" && line["path"] == "/2");
}

#[test]
fn old_versions_are_refused_when_told_so() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let mut edge = edge(&origin, &authority);
    let old = |authority: &Authority| {
        let mut roots = rustls::RootCertStore::empty();
        use rustls::pki_types::{CertificateDer, pem::PemObject as _};
        roots
            .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM"))
            .expect("a CA");
        ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth()
    };
    assert!(connect(&edge, old(&authority), "a.example").is_ok());
    let yaml = std::fs::read_to_string(edge.folder.path("proxy.yaml")).expect("the file");
    edge.reload_with(&yaml.replace("certs: certs", "certs: certs, min: '1.3'"));
    assert!(connect(&edge, old(&authority), "a.example").is_err());
    assert!(connect(&edge, authority.client(&[]), "a.example").is_ok());
}

#[test]
fn plain_http_is_redirected_where_there_is_a_certificate() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let edge = edge(&origin, &authority);
    let answer = edge.connect().ask("GET", "/x?y", &[("Host", "a.example")], b"");
    assert_eq!(answer.status, 308);
    let location = answer.header("location").unwrap_or_default().to_owned();
    // By port 80 and yet at another one: it came through something that has 443 as well.
    assert_eq!(location, "https://a.example/x?y");
    let host = format!("a.example:{}", edge.http().port());
    let answer = edge.connect().ask("GET", "/x?y", &[("Host", &host)], b"");
    // The listener's own, as it is written.
    assert_eq!(answer.header("location"), Some("https://a.example:0/x?y"));
    assert!(origin.seen().is_empty());
}

#[test]
fn a_new_certificate_is_taken_by_a_reload_and_old_connections_stay() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let mut edge = edge(&origin, &authority);
    let old = connect(&edge, authority.client(&[]), "a.example").expect("a handshake");
    let serial = |stream: &Tls| stream.conn.peer_certificates().expect("a chain")[0].to_vec();
    let before = serial(&old);
    authority.issue(&edge.folder, "a", &["a.example"]);
    edge.reload();
    let new = connect(&edge, authority.client(&[]), "a.example").expect("a handshake");
    assert_ne!(before, serial(&new));
    let answer = Client::over(Box::new(old)).ask("GET", "/", &[("Host", "a.example")], b"");
    assert_eq!(answer.status, 200);
}

#[test]
fn a_handshake_has_a_deadline() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let mut edge = edge(&origin, &authority);
    let yaml = std::fs::read_to_string(edge.folder.path("proxy.yaml")).expect("the file");
    edge.reload_with(&format!("{yaml}timeouts: {{ handshake: 300ms }}\n"));
    let begun = Instant::now();
    let mut silent = TcpStream::connect(edge.https()).expect("a connection");
    silent.write_all(&[22, 3, 1]).expect("sent");
    silent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut buffer = [0; 16];
    assert!(silent.read(&mut buffer).is_ok_and(|read| read == 0) || begun.elapsed() < PATIENCE);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
