//! WebSockets that are not the hub's.

use std::io::{Read as _, Write as _};

use crate::harness::{Edge, Origin, PLAIN};

/// Accepts every upgrade and sends back what comes, in upper case.
fn shouting() -> Origin {
    Origin::start(|seen, stream| {
        if seen.header("upgrade").is_none() {
            return crate::harness::origin::reply(stream, "200 OK", "", b"plain");
        }
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\nhello ";
        stream.write_all(head.as_bytes()).expect("sent");
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..read].to_ascii_uppercase()).expect("sent");
        }
        false
    })
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
