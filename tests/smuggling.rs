//! Ambiguous framing: bytes in → status, and exactly what the application saw.

use crate::harness::http2::{DATA, END_STREAM, Http2, Outcome};
use crate::harness::origin::reply;
use crate::harness::{Authority, Edge, Folder, Origin, PLAIN, SECURE, eventually};

fn origin() -> Origin {
    Origin::start(|_, stream| reply(stream, "200 OK", "", b"ok"))
}

/// Each request as its line, how its body was framed, and the body.
fn seen(origin: &Origin) -> Vec<String> {
    let all = origin.seen().into_iter().map(|seen| {
        let framing = match (seen.header("content-length"), seen.header("transfer-encoding")) {
            (None, None) => "-".to_owned(),
            (Some(length), None) => length.to_owned(),
            (None, Some(coding)) => coding.to_owned(),
            (Some(length), Some(coding)) => format!("{length} and {coding}"),
        };
        format!("{} {framing} {}", seen.line, String::from_utf8_lossy(&seen.body))
    });
    all.collect()
}

struct Table {
    edge: Edge,
    origin: Origin,
    before: usize,
}

impl Table {
    fn new() -> Self {
        let origin = origin();
        let edge = Edge::start(&format!(
            "{PLAIN}sites:\n  localhost:\n    next: {}\n    routes: [{{ path: /ws/*, upgrade: true }}]\n",
            origin.url()
        ));
        Self { edge, origin, before: 0 }
    }

    /// Sends the bytes, then a `GET /next` that must not be taken for anything else.
    fn row(&mut self, bytes: &str, statuses: &[u16], expected: &[&str]) {
        let mut client = self.edge.connect();
        let next = "GET /next HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        client.send(format!("{bytes}{next}"));
        let rest = String::from_utf8_lossy(&client.rest()).into_owned();
        // Bodies of answers have no status lines in them.
        let told: Vec<u16> = rest
            .match_indices("HTTP/1.")
            .filter_map(|(at, _)| rest.get(at + 9..at + 12)?.parse().ok())
            .collect();
        assert_eq!(told, statuses, "{bytes:?}: {rest:?}");
        let all = seen(&self.origin);
        assert_eq!(all.get(self.before..).unwrap_or_default(), expected, "{bytes:?}");
        self.before = all.len();
    }

    fn refused(&mut self, bytes: &str) {
        self.row(bytes, &[400], &[]);
    }
}

const POST: &str = "POST / HTTP/1.1\r\nHost: localhost\r\n";

#[test]
fn what_has_two_framings_has_none() {
    let mut table = Table::new();
    for lines in [
        // Both.
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
        "Transfer-Encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n",
        // A coding that is not quite one.
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
        " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer\u{a0}Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n",
        // A length that is not quite one.
        "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "Content-Length: 3, 3\r\n\r\nabc",
        "Content-Length: +3\r\n\r\nabc",
        "Content-Length: -3\r\n\r\nabc",
        "Content-Length: 0x3\r\n\r\nabc",
        "Content-Length: 3 3\r\n\r\nabc",
        "Content-Length: 3.0\r\n\r\nabc",
        "Content-Length: \r\n\r\nabc",
        "Content-Length: 18446744073709551616\r\n\r\nabc",
        "Content-Length : 3\r\n\r\nabc",
        "Content-Length: 3\r\n 4\r\n\r\nabc",
    ] {
        table.refused(&format!("{POST}{lines}"));
    }
    table.refused(
        "POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    );
}

#[test]
fn lines_end_in_one_way() {
    let mut table = Table::new();
    for bytes in [
        "GET / HTTP/1.1\nHost: localhost\n\n",
        "GET / HTTP/1.1\r\nHost: localhost\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\n X: a\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nX\0: a\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: localhost\r\n\r\n",
        "GET /\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: localhost\r\n\r\n",
        "GET / http/1.1\r\nHost: localhost\r\n\r\n",
        "GET /\r\nHost: localhost\r\n\r\n",
        "G\x01T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n: no name\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nspace before : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    ] {
        let mut client = table.edge.connect();
        let next = "GET /next HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        client.send(format!("{bytes}{next}"));
        let told = String::from_utf8_lossy(&client.rest()).into_owned();
        assert!(told.starts_with("HTTP/1.1 400 "), "{bytes:?}: {told:?}");
    }
    let seen = seen(&table.origin);
    assert!(seen.iter().all(|line| line.starts_with("GET /next ")), "{seen:?}");
    // Empty lines before a request are passed over.
    table.before = seen.len();
    table.row(
        "\r\n\r\nGET /a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[200, 200],
        &["GET /a HTTP/1.1 - ", "GET /next HTTP/1.1 - "],
    );
}

#[test]
fn chunks_are_framed_anew_or_refused() {
    let mut table = Table::new();
    let chunked = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
    let next = "GET /next HTTP/1.1 - ";
    for (chunks, body) in [
        ("3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("3;name=value;x=\"y\"\r\nabc\r\n0;z\r\n\r\n", "abc"),
        ("00003\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", "abc0123456789"),
        ("0\r\nX-Trailer: 1\r\n\r\n", ""),
        ("1C\r\nGET /smuggled HTTP/1.1\r\n\r\nab\r\n0\r\n\r\n", "GET /smuggled HTTP/1.1\r\n\r\nab"),
    ] {
        let whole = format!("POST / HTTP/1.1 chunked {body}");
        table.row(&format!("{chunked}{chunks}"), &[200, 200], &[&whole, next]);
    }
    for chunks in [
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "-1\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
        "0\r\nX-Trailer: 1\n\r\n",
        "0\r\n X-Trailer: 1\r\n\r\n",
        "0\r\n\n",
    ] {
        table.row(&format!("{chunked}{chunks}"), &[400], &[]);
    }
}

#[test]
fn lengths_are_kept_to_the_byte() {
    let mut table = Table::new();
    let next = "GET /next HTTP/1.1 - ";
    table.row(
        &format!("{POST}Content-Length: 3\r\n\r\nabc"),
        &[200, 200],
        &["POST / HTTP/1.1 3 abc", next],
    );
    table.row(
        &format!("{POST}Content-Length: \t3 \r\n\r\na\nb"),
        &[200, 200],
        &["POST / HTTP/1.1 3 a\nb", next],
    );
    table.row(
        &format!("{POST}Content-Length: 0\r\n\r\n"),
        &[200, 200],
        &["POST / HTTP/1.1 0 ", next],
    );
    table.row(&format!("{POST}\r\n"), &[200, 200], &["POST / HTTP/1.1 0 ", next]);
    table.row(
        "GET /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nGET ",
        &[200, 200],
        &["GET /b HTTP/1.1 4 GET ", next],
    );
    // An application that takes it for a request without a body would read the body as one.
    table.row(
        "DELETE /d HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        &[411, 200],
        &[next],
    );
    // Connection can take neither the framing nor the host away.
    table.row(&format!("{POST}Connection: content-length, host, transfer-encoding\r\nContent-Length: 3\r\n\r\nabc"), &[200, 200], &["POST / HTTP/1.1 3 abc", next]);
    // A name that only looks like one frames nothing, and does not pass.
    table.row("GET /u HTTP/1.1\r\nHost: localhost\r\nContent_Length: 30\r\nTransfer_Encoding: chunked\r\n\r\n", &[200, 200], &["GET /u HTTP/1.1 - ", next]);
    assert!(
        table
            .origin
            .seen()
            .iter()
            .all(|seen| seen.headers.iter().all(|(name, _)| !name.contains('_')))
    );
}

#[test]
fn targets_have_one_form() {
    let mut table = Table::new();
    let next = "GET /next HTTP/1.1 - ";
    table.row(
        "GET http://localhost/abs?q HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[200, 200],
        &["GET /abs?q HTTP/1.1 - ", next],
    );
    table.row("GET http://elsewhere/ HTTP/1.1\r\nHost: localhost\r\n\r\n", &[400, 200], &[next]);
    table.row(
        "GET http://localhost@elsewhere/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[400, 200],
        &[next],
    );
    table.row("TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", &[501, 200], &[next]);
    table.row(
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[200, 200],
        &["OPTIONS * HTTP/1.1 - ", next],
    );
    table.row("GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", &[400, 200], &[next]);
    let long = "x".repeat(70_000);
    table.row(&format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), &[431], &[]);
    table.row(&format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"), &[431], &[]);
    let lines: String = (0..250).map(|n| format!("x-{n}: y\r\n")).collect();
    table.row(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"), &[431], &[]);
}

#[test]
fn another_protocol_is_not_followed_by_requests() {
    let mut table = Table::new();
    let ask = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    // The application does not switch, so what comes after is nobody's.
    table.row(
        &format!("GET /ws/a HTTP/1.1\r\nHost: localhost\r\n{ask}\r\n"),
        &[200],
        &["GET /ws/a HTTP/1.1 - "],
    );
    table.row(&format!("GET /a HTTP/1.1\r\nHost: localhost\r\n{ask}\r\n"), &[426], &[]);
    table.row("GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n", &[200], &["GET /a HTTP/1.1 - "]);
    table.row(
        &format!("GET /ws/a HTTP/1.1\r\nHost: localhost\r\n{ask}Content-Length: 3\r\n\r\nabc"),
        &[400],
        &[],
    );
}

#[test]
fn http2_brings_no_framing_of_http1() {
    let (origin, authority) = (origin(), Authority::new());
    let folder = Folder::new();
    authority.issue(&folder, "localhost", &["localhost"]);
    let yaml = format!("{SECURE}sites:\n  localhost:\n    next: {}\n", origin.url());
    let edge = Edge::start_in(folder, &yaml);
    for (method, path, more) in [
        ("POST", "/", &[("transfer-encoding", "chunked")][..]),
        ("GET", "/", &[("connection", "close")]),
        ("GET", "/", &[("upgrade", "websocket")]),
        ("GET", "/", &[("keep-alive", "1")]),
        ("GET", "/", &[("te", "gzip")]),
        ("GET", "/", &[("x", "a\r\nsmuggled: 1")]),
        ("GET", "/", &[("x", "a\nb")]),
        ("GET", "/", &[("x", "a\0b")]),
        ("GET", "/", &[("x\r\ny", "a")]),
        ("GET", "/", &[("X", "a")]),
        ("GET", "/", &[("x y", "a")]),
        ("GET", "/", &[("host", "elsewhere")]),
        ("GET", "/", &[(":path", "/b")]),
        ("GET", "/", &[("content-length", "3")]),
        ("GET / HTTP/1.1\r\nx:", "/", &[]),
        ("GET", "/ HTTP/1.1\r\nHost: localhost\r\n\r\nGET /smuggled", &[]),
        ("GET", "/a b", &[]),
        ("GET", "no-slash", &[]),
    ] {
        let mut client = Http2::connect(&edge, &authority, &[]);
        client.request(1, method, path, more, true);
        let outcome = client.outcome(1);
        let fine = !matches!(outcome, Outcome::Status(200, _));
        assert!(fine, "{method:?} {path:?} {more:?}: {outcome:?}");
        assert!(origin.seen().is_empty(), "{method:?} {path:?} {more:?}: {:?}", origin.seen());
    }
    // A body must be as long as it says.
    for (length, body) in [("5", "abc"), ("2", "abc")] {
        let mut client = Http2::connect(&edge, &authority, &[]);
        client.request(1, "POST", "/", &[("content-length", length)], false);
        client.send(DATA, END_STREAM, 1, body.as_bytes());
        let outcome = client.outcome(1);
        assert!(!matches!(outcome, Outcome::Status(200, _)), "{length}: {outcome:?}");
    }
    // What is right arrives framed anew.
    let count = origin.seen().len();
    let mut client = Http2::connect(&edge, &authority, &[]);
    client.request(1, "POST", "/right", &[("cookie", "a=1"), ("cookie", "b=2")], false);
    client.send(DATA, END_STREAM, 1, b"abc");
    assert_eq!(client.outcome(1), Outcome::Status(200, b"ok".to_vec()));
    let right = eventually("the request", || origin.seen().get(count).cloned());
    assert_eq!((right.line.as_str(), right.body.as_slice()), ("POST /right HTTP/1.1", &b"abc"[..]));
    assert_eq!(right.all("cookie"), ["a=1; b=2"]);
}
