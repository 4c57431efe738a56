//! Certificates from a real ACME server: had, renewed, refused.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use rustls::{ServerConnection, StreamOwned};

use crate::harness::node::free_port;
use crate::harness::pebble::{Pebble, certificate};
use crate::harness::{Authority, Client, Edge, Folder, Origin, eventually};
use crate::tls::connect;

/// Longer than any test.
const DAY: u32 = 86_400;

/// Where the edge listens, which Pebble must know before.
fn ports() -> (u16, u16) {
    (free_port(), free_port())
}

fn yaml((http, https): (u16, u16), acme: &str, origin: &Origin) -> String {
    format!(
        "listen: {{ http: ['127.0.0.1:{http}'], https: ['127.0.0.1:{https}'], admin: 'unix:admin.sock' }}\n\
         workers: 2\n\
         tls: {{ certs: certs, acme: {{ email: ops@example.com, {acme} }} }}\n\
         sites:\n  a.example:\n    aliases: [www.a.example]\n    next: {0}\n  b.example:\n    next: {0}\n",
        origin.url()
    )
}

/// The certificate for `name` that `pebble` gave, once it is served.
fn given(edge: &Edge, pebble: &Pebble, name: &str) -> Vec<u8> {
    eventually(&format!("a certificate for {name}"), || {
        let stream = connect(edge, pebble.client(), name).ok()?;
        Some(stream.conn.peer_certificates()?[0].to_vec())
    })
}

fn orders(edge: &Edge, outcome: &str) -> u32 {
    let page = edge.admin("GET", "/metrics").text();
    let line = format!("vestibule_acme_orders_total{{outcome=\"{outcome}\"}} ");
    let count = page.lines().find_map(|known| known.strip_prefix(&line));
    count.map_or(0, |count| count.parse().expect("a number"))
}

#[test]
fn every_public_name_gets_one_and_keeps_it() {
    let (origin, ports) = (Origin::text("ok"), ports());
    let pebble = Pebble::start(ports, DAY);
    let acme = format!("directory: '{}', ca: '{}'", pebble.directory(), pebble.ca());
    let folder = Folder::new();
    // One name has a certificate of the operator's.
    let authority = Authority::new();
    authority.issue(&folder, "own", &["b.example"]);
    let yaml = yaml(ports, &acme, &origin);
    let mut edge = Edge::start_in(folder, &yaml);
    let first = given(&edge, &pebble, "a.example");
    given(&edge, &pebble, "www.a.example");
    assert!(connect(&edge, authority.client(&[]), "b.example").is_ok(), "the operator's stays");
    eventually("the count", || (orders(&edge, "issued") == 2).then_some(()));
    let answer = edge.connect().ask("GET", "/x", &[("Host", "a.example")], b"");
    assert_eq!(answer.status, 308);
    let kept = edge.folder.path("state/acme");
    let mut found = Vec::new();
    let mut folders = vec![kept];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let mode = entry.metadata().expect("there").permissions().mode() & 0o777;
            if entry.path().is_dir() {
                assert_eq!(mode, 0o700, "{entry:?}");
                folders.push(entry.path());
            } else {
                assert_eq!(mode, 0o600, "{entry:?}");
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    assert_eq!(found, ["a.example.pem", "account.json", "www.a.example.pem"]);
    // The next process has them at once, and asks for nothing.
    edge.signal("TERM");
    edge.ended();
    let next = Edge::start_again(&edge, &yaml);
    assert_eq!(given(&next, &pebble, "a.example"), first);
    assert_eq!(orders(&next, "issued"), 0);
}

#[test]
fn the_other_challenge_is_answered_in_the_handshake() {
    let (origin, ports) = (Origin::text("ok"), ports());
    let pebble = Pebble::start((free_port(), ports.1), DAY);
    let acme = format!(
        "directory: '{}', ca: '{}', challenge: tls-alpn-01",
        pebble.directory(),
        pebble.ca()
    );
    let edge = Edge::start(&yaml(ports, &acme, &origin));
    for name in ["a.example", "www.a.example", "b.example"] {
        given(&edge, &pebble, name);
    }
    let mut proof = pebble.client();
    proof.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    assert!(connect(&edge, proof, "a.example").is_err(), "only while somebody looks for it");
}

#[test]
fn it_serves_while_nobody_gives_a_certificate_and_tries_again() {
    let (origin, ports) = (Origin::text("ok"), ports());
    let mut pebble = Pebble::start(ports, DAY);
    let acme = format!("directory: '{}', ca: '{}'", pebble.directory(), pebble.ca());
    pebble.stop();
    let mut edge = Edge::start(&yaml(ports, &acme, &origin));
    // Plain HTTP is answered, HTTPS too, with a certificate that nobody else signed.
    let answer = edge.connect().ask("GET", "/", &[("Host", "a.example")], b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    let said = certificate(&edge, "a.example");
    assert!(said.contains("Verify return code: 18 (self-signed certificate)"), "{said}");
    eventually("a try", || (orders(&edge, "failed") >= 3).then_some(()));
    let ready = edge.admin("GET", "/health/ready");
    assert!(ready.status == 200, "it serves");
    assert!(ready.text().contains("no certificate for a.example: "), "{}", ready.text());
    // The next try would be in a minute; the operator does not wait for it.
    pebble.restart();
    edge.reload();
    given(&edge, &pebble, "a.example");
    given(&edge, &pebble, "b.example");
    eventually("a clean bill", || {
        (!edge.admin("GET", "/health/ready").text().contains("complaints")).then_some(())
    });
    let page = edge.admin("GET", "/metrics").text();
    assert!(page.contains("vestibule_acme_pending 0"), "{page}");
}

#[test]
fn a_proof_that_is_not_found_is_told() {
    let (origin, ports) = (Origin::text("ok"), ports());
    // It looks where nobody listens.
    let pebble = Pebble::start((free_port(), ports.1), DAY);
    let acme = format!("directory: '{}', ca: '{}'", pebble.directory(), pebble.ca());
    let edge = Edge::start(&yaml(ports, &acme, &origin));
    eventually("a try", || (orders(&edge, "failed") >= 3).then_some(()));
    eventually("a word about it", || edge.log().contains("did not find the proof").then_some(()));
    let log = edge.log();
    assert!(log.contains("connection refused"), "what the authority says: {log}");
    assert_eq!(orders(&edge, "failed"), 3, "each name once, and not again at once");
    // The paths of proofs that are not looked for are the application's.
    let path = "/.well-known/acme-challenge/unknown";
    assert_eq!(edge.connect().ask("GET", path, &[("Host", "a.example")], b"").text(), "ok");
}

#[test]
fn it_is_renewed_in_time_also_by_an_authority_that_has_forgotten_us() {
    let (origin, ports) = (Origin::text("ok"), ports());
    let mut pebble = Pebble::start(ports, 15);
    let acme = format!("directory: '{}', ca: '{}'", pebble.directory(), pebble.ca());
    let edge = Edge::start(&yaml(ports, &acme, &origin));
    let first = given(&edge, &pebble, "a.example");
    let connected = connect(&edge, pebble.client(), "a.example").expect("a handshake");
    let mut connected = Client::over(Box::new(connected));
    let mut ask = || connected.ask("GET", "/", &[("Host", "a.example")], b"").status;
    assert_eq!(ask(), 200);
    let second = eventually("the next certificate", || {
        Some(given(&edge, &pebble, "a.example")).filter(|next| *next != first)
    });
    // With another root, and no account.
    pebble.restart();
    let third = given(&edge, &pebble, "a.example");
    assert!(third != second && third != first);
    assert_eq!(ask(), 200, "whoever was connected stays");
}

/// An ACME server in front of Pebble that also says when to renew, which Debian's does not yet:
/// the first certificate that it is asked about at once, others never. Returns what was asked.
fn advising(pebble: &Pebble, authority: &Authority) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let base = format!("https://localhost:{}", listener.local_addr().expect("bound").port());
    let directory = pebble.get(&pebble.directory());
    let more = format!("{{\"renewalInfo\": \"{base}/renewal\",");
    let directory = directory.replacen('{', &more, 1);
    let asked = Arc::new(Mutex::new(Vec::<String>::new()));
    let (words, heard) = (Arc::new(authority.server()), Arc::clone(&asked));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = ServerConnection::new(Arc::clone(&words)).expect("a session");
            let mut stream = StreamOwned::new(session, stream);
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0)
            {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let body = match path.strip_prefix("/renewal/") {
                None => directory.clone(),
                Some(id) => {
                    let mut heard = heard.lock().expect("a lock");
                    heard.push(id.to_owned());
                    let year = if heard.iter().all(|known| known == id) { 2001 } else { 2999 };
                    format!(
                        "{{\"suggestedWindow\": {{\"start\": \"{year}-01-02T04:00:00Z\", \
                         \"end\": \"{year}-01-03T04:00:00Z\"}}, \
                         \"explanationURL\": \"https://example.com/why\"}}"
                    )
                }
            };
            let _sent = write!(
                stream,
                "HTTP/1.1 200 OK\r\nretry-after: 21600\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.conn.send_close_notify();
            let _flushed = stream.flush();
        }
    });
    (format!("{base}/dir"), asked)
}

#[test]
fn it_is_renewed_when_the_authority_suggests_it() {
    let (origin, ports) = (Origin::text("ok"), ports());
    let pebble = Pebble::start(ports, DAY);
    let front = Authority::new();
    let (directory, asked) = advising(&pebble, &front);
    let folder = Folder::new();
    // Both are spoken to: the front knows the directory, Pebble the rest.
    let both = format!("{}{}", front.pem, fs::read_to_string(pebble.ca()).expect("PEM"));
    let ca = folder.write("both.pem", &both).display().to_string();
    let acme = format!("directory: '{directory}', ca: '{ca}'");
    let yaml = yaml(ports, &acme, &origin).replace("    aliases: [www.a.example]\n", "");
    let (one, _) = yaml.split_once("  b.example").expect("two sites");
    let edge = Edge::start_in(folder, one);
    eventually("two certificates", || (orders(&edge, "issued") == 2).then_some(()));
    assert!(edge.log().contains("https://example.com/why"), "{}", edge.log());
    eventually("a look at the second", || {
        let asked = asked.lock().expect("a lock");
        (asked.first() != asked.last()).then_some(())
    });
    let asked = asked.lock().expect("a lock").clone();
    let (key, serial) = asked[0].split_once('.').expect("RFC 9773 §4.1");
    assert!(!key.is_empty() && !serial.is_empty(), "{asked:?}");
    assert_eq!(orders(&edge, "failed"), 0, "{}", edge.log());
}
