//! Targets that are spoken to over TLS: who is believed, and that bodies stay whole.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::harness::socketio::metric;
use crate::harness::{Authority, Edge, Folder, PLAIN, eventually, vestibule};

/// An application behind TLS. Echoes each body; some paths end the connection, or change protocols.
struct Secure {
    port: u16,
    /// The name that each connection asked for.
    names: Arc<Mutex<Vec<Option<String>>>>,
    /// Each request's head.
    heads: Arc<Mutex<Vec<String>>>,
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

impl Secure {
    /// Shows the folder's `certs/FILE.pem`; asks for one of `clients` if there is such an authority.
    fn start(folder: &Folder, file: &str, clients: Option<&Authority>) -> Self {
        let read = |kind| std::fs::read(folder.path(&format!("certs/{file}.{kind}"))).expect(kind);
        let chain = vec![CertificateDer::from_pem_slice(&read("pem")).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(&read("key")).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let words = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let words = match clients {
            None => words.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                let ca = CertificateDer::from_pem_slice(authority.pem.as_bytes());
                roots.add(ca.expect("a certificate")).expect("a CA");
                let clients =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                words.with_client_cert_verifier(clients.build().expect("a verifier"))
            }
        };
        let mut words = words.with_single_cert(chain, key).expect("a pair");
        words.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let words = Arc::new(words);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let secure = Self { port, names: Arc::default(), heads: Arc::default() };
        let (names, heads) = (Arc::clone(&secure.names), Arc::clone(&secure.heads));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (words, names, heads) =
                    (Arc::clone(&words), Arc::clone(&names), Arc::clone(&heads));
                std::thread::spawn(move || {
                    let session = ServerConnection::new(words).expect("a session");
                    let mut stream = StreamOwned::new(session, socket);
                    while stream.conn.is_handshaking() {
                        if stream.conn.complete_io(&mut stream.sock).is_err() {
                            return;
                        }
                    }
                    let name = stream.conn.server_name().map(str::to_owned);
                    names.lock().expect("a lock").push(name);
                    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
                    let mut stream = BufReader::new(stream);
                    while serve(&mut stream, &heads).is_some() {}
                });
            }
        });
        secure
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

/// `None` ends the connection, without the word that TLS has for it.
fn serve(stream: &mut BufReader<Tls>, heads: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    heads.lock().expect("a lock").push(head.clone());
    let length = head.to_ascii_lowercase();
    let length =
        length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    let path = head.split(' ').nth(1).unwrap_or_default();
    match path {
        "/cut" | "/end" => {
            let half = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhalf";
            stream.get_mut().write_all(half).ok()?;
            if path == "/end" {
                stream.get_mut().conn.send_close_notify();
            }
            stream.get_mut().flush().ok()?;
            None
        }
        "/ws" => {
            let head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            stream.get_mut().write_all(head).ok()?;
            let mut word = [0; 5];
            stream.read_exact(&mut word).ok()?;
            stream.get_mut().write_all(&word.map(|byte| byte.to_ascii_uppercase())).ok()?;
            None
        }
        _ => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len() + 2);
            stream.get_mut().write_all(&[head.as_bytes(), b"ok", &body].concat()).ok()
        }
    }
}

fn site(url: &str, tls: &str) -> String {
    // Without waiting, so that what is wrong is told at once.
    format!(
        "{PLAIN}limits: {{ body: 100MB }}\nsites:\n  app.example:\n    next: {{ targets: ['{url}'], hold: none, tls: {tls} }}\n    routes: [{{ path: /ws, upgrade: true }}]\n"
    )
}

/// The status and the text of a GET.
fn get(edge: &Edge, path: &str) -> (u16, String) {
    let answer = edge.connect().ask("GET", path, &[("Host", "app.example")], b"");
    (answer.status, answer.text())
}

/// A folder with an authority's `ca.pem`, and a certificate for this machine's name and address.
fn ours() -> (Folder, Authority) {
    let (folder, authority) = (Folder::new(), Authority::new());
    authority.issue(&folder, "app", &["localhost", "127.0.0.1"]);
    folder.write("ca.pem", &authority.pem);
    (folder, authority)
}

#[test]
fn a_target_that_is_what_it_says_is_asked_and_its_connection_kept() {
    let (folder, _authority) = ours();
    let secure = Secure::start(&folder, "app", None);
    let edge = Edge::start_in(
        folder,
        &site(&secure.url(), "{ ca: ca.pem }").replace("workers: 2", "workers: 1"),
    );
    let mut client = edge.connect();
    for number in 0..10 {
        let answer = client.ask("GET", "/a?b", &[("Host", "app.example")], b"");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{number}");
        let answer = client.ask("POST", "/a", &[("Host", "app.example")], b"body");
        assert_eq!(answer.text(), "okbody");
    }
    let connects = format!("vestibule_target_connects_total{{target=\"{}\"}}", secure.url());
    let count = metric(&edge, &connects);
    assert!(count <= 2, "{count} connections for twenty requests");
    let heads = secure.heads.lock().expect("a lock");
    assert!(heads[0].starts_with("GET /a?b HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[0].contains("host: app.example\r\n"), "the public host: {heads:?}");
    let names = secure.names.lock().expect("a lock");
    assert!(names.iter().all(|name| name.as_deref() == Some("localhost")), "{names:?}");
}

#[test]
fn large_bodies_go_through_both_ways() {
    let (folder, _authority) = ours();
    let secure = Secure::start(&folder, "app", None);
    let edge = Edge::start_in(folder, &site(&secure.url(), "{ ca: ca.pem }"));
    let body: Vec<u8> = (0..20_000_000_u32).map(|number| (number % 251) as u8).collect();
    for _ in 0..2 {
        let answer = edge.connect().ask("POST", "/", &[("Host", "app.example")], &body);
        assert_eq!(answer.status, 200);
        assert!(answer.body[2..] == body, "{} bytes came back", answer.body.len());
    }
    // As chunks, one by one.
    let mut client = edge.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: app.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    std::thread::sleep(Duration::from_millis(20));
    client.send("hello");
    assert_eq!(client.answer().text(), "okhello");
}

#[test]
fn who_is_not_believed_gets_no_request() {
    let (folder, authority) = ours();
    authority.issue(&folder, "other", &["other.internal"]);
    let (secure, other) =
        (Secure::start(&folder, "app", None), Secure::start(&folder, "other", None));
    let mut edge = Edge::start_in(folder, &site(&secure.url(), "{}"));
    let refused = |edge: &Edge, why: &str| {
        let (status, text) = get(edge, "/");
        assert_eq!((status, text.contains("upstream_tls")), (502, true), "{why}: {text}");
        eventually(why, || edge.log().contains(why).then_some(()));
    };
    refused(&edge, "UnknownIssuer");
    // Its address, which its certificate has too.
    let address = format!("https://127.0.0.1:{}", secure.port);
    edge.reload_with(&site(&address, "{ ca: ca.pem }"));
    assert_eq!(get(&edge, "/").0, 200);
    // Another name than its certificate has.
    edge.reload_with(&site(&other.url(), "{ ca: ca.pem }"));
    refused(&edge, "certificate not valid for name");
    edge.reload_with(&site(&other.url(), "{ ca: ca.pem, server_name: other.internal }"));
    assert_eq!(get(&edge, "/").0, 200);
    let asked = other.names.lock().expect("a lock").last().cloned();
    assert_eq!(asked, Some(Some("other.internal".to_owned())));
    edge.reload_with(&site(&other.url(), "{ verify: false }"));
    assert_eq!(get(&edge, "/").0, 200);
    assert!(edge.log().contains("certificates of targets are not verified"), "{}", edge.log());
    assert!(secure.heads.lock().expect("a lock").len() == 1, "only who believed has asked");
}

#[test]
fn a_file_that_changes_is_read_at_the_next_reload() {
    let (folder, authority) = ours();
    let secure = Secure::start(&folder, "app", None);
    folder.write("ca.pem", &Authority::new().pem);
    let yaml = site(&secure.url(), "{ ca: ca.pem }");
    let mut edge = Edge::start_in(folder, &yaml);
    assert_eq!(get(&edge, "/").0, 502);
    edge.folder.write("ca.pem", &authority.pem);
    edge.reload();
    assert_eq!(get(&edge, "/").0, 200);
    // One that cannot be used changes nothing.
    edge.folder.write("ca.pem", "nothing");
    let status = edge.reload();
    assert!(status.contains("not reloaded") && status.contains("ca.pem"), "{status}");
    assert_eq!(get(&edge, "/").0, 200);
    let said = vestibule(&["check"], &edge.folder);
    let said = (said.status.code(), String::from_utf8_lossy(&said.stderr).into_owned());
    assert!(said.0 == Some(78) && said.1.contains("no certificate in it"), "{said:?}");
}

#[test]
fn a_target_that_asks_is_shown_who_we_are() {
    let (folder, authority) = ours();
    authority.issue(&folder, "edge", &["edge.internal"]);
    let secure = Secure::start(&folder, "app", Some(&authority));
    let shown = "{ ca: ca.pem, cert: certs/edge.pem, key: certs/edge.key }";
    let mut edge = Edge::start_in(folder, &site(&secure.url(), shown));
    assert_eq!(get(&edge, "/").0, 200);
    edge.reload_with(&site(&secure.url(), "{ ca: ca.pem }"));
    assert_ne!(get(&edge, "/").0, 200, "without a certificate");
}

#[test]
fn an_answer_that_is_cut_is_never_a_short_one() {
    let (folder, _authority) = ours();
    let secure = Secure::start(&folder, "app", None);
    let edge = Edge::start_in(folder, &site(&secure.url(), "{ ca: ca.pem }"));
    for (path, whole) in [("/end", true), ("/cut", false)] {
        let mut client = edge.connect();
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n"));
        assert_eq!(client.head().status, 200);
        let rest = String::from_utf8_lossy(&client.rest()).into_owned();
        assert_eq!(rest.ends_with("0\r\n\r\n"), whole, "{path}: {rest:?}");
    }
}

#[test]
fn sockets_go_through() {
    let (folder, _authority) = ours();
    let secure = Secure::start(&folder, "app", None);
    let edge = Edge::start_in(folder, &site(&secure.url(), "{ ca: ca.pem }"));
    let mut client = edge.connect();
    client.send("GET /ws HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
    assert_eq!(client.head().status, 101);
    client.send("hello");
    assert_eq!(client.bytes(5), b"HELLO");
}

#[test]
fn checks_are_made_over_tls_too() {
    let (folder, _authority) = ours();
    let secure = Secure::start(&folder, "app", None);
    let tls = "{ ca: ca.pem }, health: { path: /ready, every: 200ms, timeout: 200ms }";
    let edge = Edge::start_in(folder, &site(&secure.url(), tls));
    let asked = || {
        let heads = secure.heads.lock().expect("a lock");
        heads.iter().any(|head| head.starts_with("GET /ready HTTP/1.1\r\nhost: localhost:"))
    };
    eventually("a check", || asked().then_some(()));
    eventually("ready", || (edge.admin("GET", "/health/ready").status == 200).then_some(()));
}
