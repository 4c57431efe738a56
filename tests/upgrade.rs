//! WebSockets that are not the hub's.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::harness::http2::{DATA, END_STREAM, Http2, Outcome};
use crate::harness::{Authority, Edge, Folder, Origin, PLAIN, SECURE, eventually};

/// Accepts every upgrade and sends back what comes, in upper case.
fn shouting() -> Origin {
    Origin::start(|seen, stream| {
        if seen.header("upgrade").is_none() {
            return crate::harness::origin::reply(stream, "200 OK", "", b"plain");
        }
        let key = seen.header("sec-websocket-key").unwrap_or_default();
        let accept = match seen.path() {
            "/ws/wrong" => "sec-websocket-accept: x\r\n".to_owned(),
            "/ws/none" => String::new(),
            "/ws/twice" => accept(key).repeat(2),
            "/ws/known" => accept("AAAAAAAAAAAAAAAAAAAAAA=="),
            _ => accept(key),
        };
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n{accept}\r\nhello "
        );
        stream.write_all(head.as_bytes()).expect("sent");
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..read].to_ascii_uppercase()).expect("sent");
        }
        false
    })
}

/// The header by which a server that speaks WebSocket answers a key (RFC 6455 §4.2.2).
pub fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    format!("sec-websocket-accept: {}\r\n", STANDARD.encode(hash))
}

const ASK: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
];

#[test]
fn declared_paths_become_tunnels() {
    let origin = shouting();
    let edge = Edge::start(&format!(
        "{PLAIN}sites:\n  localhost:\n    next: {}\n    routes: [{{ path: /ws/*, upgrade: true }}]\n",
        origin.url()
    ));
    let mut client = edge.connect();
    let answer = client.ask("GET", "/ws/a?b", &ASK, b"");
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(client.bytes(6), b"hello ");
    client.send("abc");
    assert_eq!(client.bytes(3), b"ABC");
    let seen = origin.seen().remove(0);
    assert_eq!(seen.line, "GET /ws/a?b HTTP/1.1");
    assert_eq!(seen.all("sec-websocket-key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    client.finish();
    assert!(client.is_closed());
}

#[test]
fn other_paths_refuse_and_no_byte_passes() {
    let origin = shouting();
    let edge = Edge::start(&format!(
        "{PLAIN}sites:\n  localhost:\n    next: {}\n    routes: [{{ path: /ws/*, upgrade: true }}]\n",
        origin.url()
    ));
    let answer = edge.connect().ask("GET", "/other", &ASK, b"");
    assert_eq!(answer.status, 426, "{answer:?}");
    // With a body, an upgrade could smuggle a second request.
    let answer = edge.connect().ask("GET", "/ws/a", &ASK, b"GET /smuggled HTTP/1.1\r\n\r\n");
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
    // Another protocol is not asked for; the request is an ordinary one.
    let answer = edge.connect().ask(
        "GET",
        "/x",
        &[("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AA")],
        b"",
    );
    assert_eq!((answer.status, answer.text().as_str()), (200, "plain"));
    let seen = origin.seen().remove(0);
    assert!(seen.all("upgrade").is_empty() && seen.all("http2-settings").is_empty(), "{seen:?}");
}

#[test]
fn a_refusal_of_the_application_is_passed_on() {
    let origin = Origin::text("not here");
    let edge = Edge::start(&format!(
        "{PLAIN}sites:\n  localhost:\n    next: {}\n    routes: [{{ path: /ws/*, upgrade: true }}]\n",
        origin.url()
    ));
    let answer = edge.connect().ask("GET", "/ws/a", &ASK, b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, "not here"));
}

#[test]
fn a_development_server_keeps_its_hot_reload() {
    let origin = shouting();
    let edge = Edge::start(&format!(
        "{PLAIN}sites:\n  localhost:\n    next: {}\n    dev: true\n",
        origin.url()
    ));
    for path in ["/_next/hmr", "/_next/webpack-hmr?id=1", "/base/_next/hmr"] {
        assert_eq!(edge.connect().ask("GET", path, &ASK, b"").status, 101, "{path}");
    }
    assert_eq!(edge.connect().ask("GET", "/other", &ASK, b"").status, 426);
}

/// A text in one frame of a client's, masked with zeros.
fn masked(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    assert!(length < 126);
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// The next text of the edge's on a stream.
fn heard(client: &mut Http2, stream: u32, bytes: &mut Vec<u8>) -> String {
    loop {
        let length = match bytes.get(..4) {
            Some([_, 126, a, b]) => Some((4, usize::from(u16::from_be_bytes([*a, *b])))),
            Some([_, length, ..]) => Some((2, usize::from(*length))),
            _ => None,
        };
        if let Some((head, length)) = length.filter(|(head, length)| bytes.len() >= head + length) {
            let frame: Vec<u8> = bytes.drain(..head + length).collect();
            return String::from_utf8_lossy(&frame[head..]).into_owned();
        }
        bytes.extend(client.data(stream).expect("the tunnel is open"));
    }
}

const TUNNEL: [(&str, &str); 3] =
    [(":protocol", "websocket"), ("sec-websocket-version", "13"), ("origin", "https://localhost")];

fn secure(yaml: &str) -> (Edge, Authority) {
    let (folder, authority) = (Folder::new(), Authority::new());
    authority.issue(&folder, "localhost", &["localhost"]);
    (Edge::start_in(folder, &format!("{SECURE}{yaml}")), authority)
}

#[test]
fn http2_carries_websockets_into_the_hub() {
    let (edge, authority) = secure(
        "timeouts: { idle: 1s, head: 500ms }\nsites:\n  localhost: {}\nhub: { ping: { interval: 300ms, timeout: 5s }, namespaces: { /: { auth: none, events: { echo: { relay: '*', echo: true } } } } }\n",
    );
    let mut client = Http2::connect(&edge, &authority, &[]);
    client.request(1, "CONNECT", "/socket.io/?EIO=4&transport=websocket", &TUNNEL, false);
    assert_eq!(client.status(1), Some(200));
    let mut bytes = Vec::new();
    assert!(heard(&mut client, 1, &mut bytes).starts_with("0{\"sid\":"));
    client.send(DATA, 0, 1, &masked("40"));
    let mut pings = 0;
    let mut next = |client: &mut Http2| loop {
        let text = heard(client, 1, &mut bytes);
        if text != "2" {
            return (text, pings);
        }
        pings += 1;
        client.send(DATA, 0, 1, &masked("3"));
    };
    assert!(next(&mut client).0.starts_with("40{\"sid\":"));
    client.send(DATA, 0, 1, &masked("42[\"echo\",1]"));
    assert_eq!(next(&mut client).0, "42[\"echo\",1]");
    // The connection is not idle while a tunnel is open, however little passes; and it carries
    // other requests meanwhile.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2500) {
        client.send(DATA, 0, 1, &masked("42[\"echo\",2]"));
        assert_eq!(next(&mut client).0, "42[\"echo\",2]");
        std::thread::sleep(Duration::from_millis(400));
    }
    client.request(3, "GET", "/health", &[], true);
    assert_eq!(client.outcome(3), Outcome::Status(200, b"ok\n".to_vec()));
    let sessions = || edge.admin("GET", "/metrics").text();
    assert!(sessions().contains("vestibule_hub_sessions{transport=\"websocket\"} 1"));
    // The client's end is the session's.
    client.send(DATA, END_STREAM, 1, b"");
    eventually("the session's end", || {
        sessions().contains("vestibule_hub_sessions{transport=\"websocket\"} 0").then_some(())
    });
}

#[test]
fn http2_carries_websockets_into_tunnels() {
    let origin = shouting();
    let (edge, authority) = secure(&format!(
        "sites:\n  localhost:\n    next: {}\n    routes: [{{ path: /ws/*, upgrade: true }}]\n",
        origin.url()
    ));
    let mut client = Http2::connect(&edge, &authority, &[]);
    client.request(1, "CONNECT", "/ws/a?b", &TUNNEL, false);
    assert_eq!(client.status(1), Some(200));
    let mut bytes = Vec::new();
    while bytes != b"hello " {
        bytes.extend(client.data(1).expect("the tunnel is open"));
    }
    for number in 0..20 {
        let text = format!("message {number}");
        client.send(DATA, 0, 1, text.as_bytes());
        let mut bytes = Vec::new();
        while bytes.len() < text.len() {
            bytes.extend(client.data(1).expect("the tunnel is open"));
        }
        assert_eq!(bytes, text.to_ascii_uppercase().as_bytes());
    }
    let seen = origin.seen().remove(0);
    assert_eq!(seen.line, "GET /ws/a?b HTTP/1.1");
    assert_eq!(seen.all("sec-websocket-version"), ["13"]);
    assert_eq!(seen.all("sec-websocket-key").len(), 1);
    client.send(DATA, END_STREAM, 1, b"");
    assert_eq!(client.data(1), None);
    // Elsewhere tunnels are refused, and so is one to another host.
    client.request(3, "CONNECT", "/other", &TUNNEL, false);
    assert_eq!(client.status(3), Some(426));
    client.request(5, "CONNECT", "/ws/a", &[(":protocol", "connect-udp")], false);
    assert_eq!(client.status(5), Some(400));
}

#[test]
fn an_answer_opens_no_tunnel_over_http2() {
    let origin = Origin::start(|seen, stream| {
        let status = seen.path().rsplit('/').next().unwrap_or_default();
        crate::harness::origin::reply(stream, status, "", b"an answer")
    });
    let (edge, authority) = secure(&format!(
        "sites:\n  localhost:\n    next: {}\n    routes: [{{ path: /ws/*, upgrade: true }}, {{ path: /files/*, files: certs }}]\n",
        origin.url()
    ));
    let mut client = Http2::connect(&edge, &authority, &[]);
    for (stream, path, status) in [
        (1, "/ws/200", 426),
        (3, "/ws/204", 426),
        (5, "/health", 426),
        (7, "/files/localhost.pem", 426),
        (9, "/ws/403", 403),
        (11, "/ws/307", 307),
    ] {
        client.request(stream, "CONNECT", path, &TUNNEL, false);
        let outcome = client.outcome(stream);
        assert!(
            matches!(outcome, Outcome::Status(told, _) if told == status),
            "{path}: {outcome:?}"
        );
    }
    edge.access_line(|line| line["path"] == "/ws/200" && line["reason"] == "upgrade_refused");
    client.request(13, "GET", "/health", &[], true);
    assert_eq!(client.outcome(13), Outcome::Status(200, b"ok\n".to_vec()));
}

/// Whoever answers a key that it has not read speaks no WebSocket, and what it says is no frame.
#[test]
fn a_tunnel_over_http2_is_proved_by_a_key_of_its_own() {
    let origin = shouting();
    let (edge, authority) = secure(&format!(
        "sites:\n  localhost:\n    next: {}\n    routes: [{{ path: /ws/*, upgrade: true }}]\n",
        origin.url()
    ));
    let mut client = Http2::connect(&edge, &authority, &[]);
    let own = [&TUNNEL[..], &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]].concat();
    for (stream, path, status) in [
        (1, "/ws/a", 200),
        (3, "/ws/wrong", 502),
        (5, "/ws/none", 502),
        (7, "/ws/twice", 502),
        (9, "/ws/known", 502),
        (11, "/ws/a", 200),
    ] {
        client.request(stream, "CONNECT", path, &own, false);
        assert_eq!(client.status(stream), Some(status), "{path}");
    }
    edge.access_line(|line| line["path"] == "/ws/wrong" && line["reason"] == "upstream_bad_accept");
    let keys: HashSet<_> =
        origin.seen().iter().map(|seen| seen.all("sec-websocket-key").join(",")).collect();
    assert_eq!(keys.len(), 6, "{keys:?}");
    for key in &keys {
        assert_eq!(STANDARD.decode(key).map(|bytes| bytes.len()), Ok(16), "{key}");
    }
}
