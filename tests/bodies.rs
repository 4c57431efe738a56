//! Bodies on their way: compressed, limited, with trailers, after interim responses.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::origin::reply;
use crate::harness::socketio::wait_for_metric;
use crate::harness::{Answer, Authority, Client, Edge, End, Folder, Origin, PLAIN, SECURE};

fn site(origin: &Origin, more: &str) -> Edge {
    Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {}\n{more}", origin.url()))
}

fn page() -> String {
    (0..500).map(|n| format!("<p>paragraph {n} of a page</p>\n")).collect()
}

fn decoded(answer: &Answer) -> String {
    let bytes = answer.body.as_slice();
    let mut text = String::new();
    let read = match answer.header("content-encoding") {
        Some("gzip") => flate2::read::MultiGzDecoder::new(bytes).read_to_string(&mut text),
        Some("br") => brotli::Decompressor::new(bytes, 4096).read_to_string(&mut text),
        Some("zstd") => zstd::Decoder::new(bytes).expect("zstd").read_to_string(&mut text),
        None => return answer.text(),
        Some(other) => panic!("{other}?"),
    };
    read.expect("a whole body");
    text
}

#[test]
fn a_page_is_compressed_as_the_client_likes_it() {
    let origin = Origin::start(|seen, stream| {
        let headers =
            "content-type: text/html\r\netag: \"tag\"\r\nvary: rsc\r\naccept-ranges: bytes\r\n";
        if seen.path() == "/chunked" {
            let head = format!("HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\n\r\n");
            let chunks = page().into_bytes();
            let chunks = chunks
                .chunks(1000)
                .map(|c| [format!("{:x}\r\n", c.len()).as_bytes(), c, b"\r\n"].concat());
            let body: Vec<u8> = chunks.flatten().collect();
            return stream.write_all(&[head.as_bytes(), &body, b"0\r\n\r\n"].concat()).is_ok();
        }
        reply(stream, "200 OK", headers, page().as_bytes())
    });
    let edge = site(&origin, "");
    let mut client = edge.connect();
    for path in ["/", "/chunked"] {
        for (accept, coding) in [
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("gzip, deflate, br", Some("br")),
            ("gzip", Some("gzip")),
            ("zstd;q=0.1, gzip", Some("gzip")),
            ("gzip;q=0", None),
            ("deflate", None),
        ] {
            let answer = client.ask("GET", path, &[("Accept-Encoding", accept)], b"");
            assert_eq!(answer.header("content-encoding"), coding, "{path} {accept}");
            assert_eq!(decoded(&answer), page(), "{path} {accept}");
            assert_eq!(
                answer.header("etag"),
                Some(if coding.is_some() { "W/\"tag\"" } else { "\"tag\"" })
            );
            let vary = answer.headers.iter().filter(|(name, _)| name == "vary");
            assert_eq!(
                vary.map(|(_, value)| value.as_str()).collect::<Vec<_>>(),
                ["rsc", "Accept-Encoding"]
            );
            assert_eq!(answer.header("accept-ranges").is_none(), coding.is_some());
            assert!(
                coding.is_none() || answer.body.len() < page().len() / 4,
                "{}",
                answer.body.len()
            );
            // Compressed once: the application is asked for the plain body.
            let asked = origin
                .seen()
                .last()
                .and_then(|seen| seen.header("accept-encoding").map(str::to_owned));
            assert_eq!(asked.as_deref(), Some(if coding.is_some() { "identity" } else { accept }));
        }
    }
    let answer = client.ask("HEAD", "/", &[("Accept-Encoding", "br")], b"");
    assert_eq!(
        (answer.header("content-encoding"), answer.header("content-length")),
        (Some("br"), None)
    );
}

#[test]
fn what_must_not_be_compressed_is_not() {
    let origin = Origin::start(|seen, stream| {
        let (status, headers, body) = match seen.path() {
            "/tiny" => ("200 OK", "content-type: text/html\r\n", "tiny".to_owned()),
            "/fixed" => {
                ("200 OK", "content-type: text/html\r\ncache-control: no-transform\r\n", page())
            }
            "/part" => (
                "206 Partial Content",
                "content-type: text/html\r\ncontent-range: bytes 0-9/10\r\n",
                page(),
            ),
            "/done" => ("200 OK", "content-type: text/html\r\ncontent-encoding: gzip\r\n", page()),
            _ => ("200 OK", "content-type: image/png\r\n", page()),
        };
        reply(stream, status, headers, body.as_bytes())
    });
    let edge = site(&origin, "");
    for path in ["/tiny", "/fixed", "/part", "/done", "/image"] {
        let answer = edge.connect().ask("GET", path, &[("Accept-Encoding", "gzip, br, zstd")], b"");
        assert_eq!(
            answer.header("content-encoding"),
            (path == "/done").then_some("gzip"),
            "{path}"
        );
        assert!(answer.body == page().as_bytes() || answer.text() == "tiny", "{path}");
        assert!(answer.header("content-length").is_some(), "{path}");
    }
    let edge = site(&origin, "    compress: []\n");
    let answer = edge.connect().ask("GET", "/tiny", &[("Accept-Encoding", "gzip")], b"");
    assert_eq!(answer.header("vary"), None);
    assert_eq!(
        origin
            .seen()
            .last()
            .and_then(|seen| seen.header("accept-encoding").map(str::to_owned))
            .as_deref(),
        Some("gzip")
    );
}

/// Decodes a stream that has not ended.
fn so_far(coding: &str, bytes: &[u8]) -> String {
    let mut out = Vec::new();
    let mut piece = [0; 256];
    let mut reader: Box<dyn std::io::Read> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
        "br" => Box::new(brotli::Decompressor::new(bytes, 4096)),
        _ => Box::new(zstd::Decoder::new(bytes).expect("zstd")),
    };
    while let Ok(read @ 1..) = reader.read(&mut piece) {
        out.extend_from_slice(&piece[..read]);
    }
    String::from_utf8(out).expect("text")
}

#[test]
fn each_event_of_a_compressed_stream_arrives_at_once() {
    for coding in ["zstd", "br", "gzip"] {
        // The next event is sent only when the client has told that it has read the one before.
        let (got, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let origin = Origin::start(move |_, stream| {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n";
            stream.write_all(head.as_bytes()).expect("sent");
            for number in 0..5 {
                let event = format!("data: {number}\n\n");
                let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                stream.write_all(chunk.as_bytes()).expect("sent");
                wait.lock()
                    .expect("a lock")
                    .recv_timeout(Duration::from_secs(10))
                    .expect("the client has it");
            }
            stream.write_all(b"0\r\n\r\n").is_ok()
        });
        let edge = site(&origin, "");
        let mut client = edge.connect();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: {coding}\r\n\r\n"
        ));
        let head = client.head();
        assert_eq!(head.header("content-encoding"), Some(coding));
        let (mut bytes, mut expected) = (Vec::new(), String::new());
        for number in 0..5 {
            expected.push_str(&format!("data: {number}\n\n"));
            while so_far(coding, &bytes) != expected {
                bytes.extend(
                    client.chunk().unwrap_or_else(|| panic!("{coding}: an end after {number}")),
                );
            }
            got.send(()).expect("the application waits");
        }
        while let Some(chunk) = client.chunk() {
            bytes.extend(chunk);
        }
        assert_eq!(so_far(coding, &bytes), expected);
    }
}

#[test]
fn a_compressed_response_that_is_cut_has_no_end() {
    let origin = Origin::start(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/html\r\n\r\n4\r\nhalf\r\n";
        stream.write_all(head.as_bytes()).expect("sent");
        false
    });
    let edge = site(&origin, "");
    let mut client = edge.connect();
    client.send("GET /cut HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(client.head().status, 200);
    let (rest, _) = client.end();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
    edge.access_line(|line| line["path"] == "/cut" && line["reason"] == "upstream_cut");
    // For an old client the end of the connection is that of the body, compressed or not.
    for coding in ["gzip", "identity"] {
        let mut client = edge.connect();
        client.send(format!(
            "GET /old HTTP/1.0\r\nHost: localhost\r\nAccept-Encoding: {coding}\r\n\r\n"
        ));
        assert_eq!(client.head().status, 200);
        let (rest, end) = client.end();
        assert_eq!(end, End::Cut, "{coding}: {rest:?}");
    }
}

#[test]
fn responses_are_as_large_as_they_may_be() {
    let origin = Origin::start(|seen, stream| {
        let length: usize =
            seen.path().rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let body = vec![b'x'; length];
        if !seen.path().contains("chunked") {
            return reply(stream, "200 OK", "", &body);
        }
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = format!("{length:x}\r\n");
        let all = [head.as_bytes(), chunk.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
        stream.write_all(&all).is_ok()
    });
    let edge = Edge::start(&format!(
        "{PLAIN}sites:\n  localhost:\n    next: {}\n    routes: [{{ path: /any/*, response_body: none }}, {{ path: /small/*, response_body: 10B }}]\nlimits: {{ response_body: 1KB }}\n",
        origin.url()
    ));
    for (path, status) in [
        ("/1000", 200),
        ("/1001", 502),
        ("/any/100000", 200),
        ("/any/chunked/100000", 200),
        ("/small/10", 200),
        ("/small/11", 502),
        ("/chunked/1000", 200),
    ] {
        let answer = edge.get(path);
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.text().contains("upstream_too_large"), status == 502, "{path}");
    }
    // What does not say its length is cut, and never ends as if it were whole.
    let mut client = edge.connect();
    client.send("GET /chunked/1001 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let rest = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(!rest.ends_with("0\r\n\r\n"), "{rest:?}");
    edge.access_line(|line| line["path"] == "/chunked/1001" && !line["reason"].is_null());
    let mut old = edge.connect();
    old.send("GET /chunked/1001 HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let (rest, end) = old.end();
    assert!(rest.is_empty() || end == End::Cut, "{rest:?}");
    assert_eq!(edge.connect().ask("HEAD", "/1001", &[], b"").status, 200);
}

#[test]
fn trailers_pass_both_ways_without_what_only_a_head_may_say() {
    let origin = Origin::start(|_, stream| {
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: server-timing, set-cookie\r\n\r\n2\r\nok\r\n0\r\nserver-timing: db;dur=5\r\nset-cookie: a=b\r\n\r\n";
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let edge = site(&origin, "");
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close, TE\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: x-checksum\r\n\r\n");
    client.send("3\r\nabc\r\n0\r\nX-Checksum: 1234\r\nContent-Length: 5\r\nX-Forwarded-For: 6.6.6.6\r\nX_Middleware_Subrequest: a\r\n\r\n");
    let answer = String::from_utf8(client.rest()).expect("text");
    assert!(answer.ends_with("2\r\nok\r\n0\r\nserver-timing: db;dur=5\r\n\r\n"), "{answer:?}");
    let seen = origin.seen().remove(0);
    assert_eq!(seen.trailers, [("x-checksum".to_owned(), "1234".to_owned())]);
    assert_eq!(seen.header("trailer"), Some("x-checksum"));
    // Who does not take them gets none.
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = String::from_utf8(client.rest()).expect("text");
    assert!(answer.ends_with("2\r\nok\r\n0\r\n\r\n"), "{answer:?}");
}

#[test]
fn interim_responses_come_before_the_answer() {
    let (got, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let origin = Origin::start(move |seen, stream| {
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nconnection: x-a\r\nx-a: 1\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
        stream.write_all(hints.as_bytes()).expect("sent");
        if seen.path() == "/wait" {
            // The answer is made only when the client has the hints.
            wait.lock()
                .expect("a lock")
                .recv_timeout(Duration::from_secs(10))
                .expect("the client has them");
        }
        reply(stream, "200 OK", "", b"ok")
    });
    let edge = site(&origin, "");
    let mut client = edge.connect();
    for _ in 0..3 {
        client.send("GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let hints = client.head();
        assert_eq!((hints.status, hints.header("link")), (103, Some("</a.css>; rel=preload")));
        assert_eq!(hints.header("x-a"), None);
        assert_eq!(client.head().status, 102);
        got.send(()).expect("the application waits");
        assert_eq!(client.answer().text(), "ok");
    }
    // Whether they are in time or not, the answers stay in order; HTTP/1.0 knows none.
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "ok");
    }
    let mut old = edge.connect();
    old.send("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
    assert_eq!(old.head().status, 200);
}

#[test]
fn a_client_is_told_to_go_on_when_the_application_takes_the_body() {
    let origin = Origin::echo();
    let edge = site(&origin, "limits: { body: 10KB }\n");
    let mut client = edge.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.head().status, 100);
    client.send("12345");
    assert_eq!(client.answer().json()["length"], 5);
    // One that is too large is refused before it is asked for.
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().status, 413);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn old_clients_get_bodies_that_end_with_the_connection() {
    let origin = Origin::start(|seen, stream| {
        if seen.path() == "/length" {
            return reply(stream, "200 OK", "", b"ok");
        }
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        stream.write_all(head.as_bytes()).is_ok()
    });
    let edge = site(&origin, "");
    let mut client = edge.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let (answer, end) = client.end();
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("\r\n\r\nok"), "{answer:?}");
    assert_eq!(end, End::Closed);
    // Without a body there is nothing that could be short.
    let mut client = edge.connect();
    client.send("HEAD / HTTP/1.0\r\n\r\n");
    assert_eq!(client.end().1, End::Closed);
    assert!(!answer.to_ascii_lowercase().contains("transfer-encoding"), "{answer:?}");
    // Kept open if it asks, and there is a length.
    let mut client = edge.connect();
    for _ in 0..2 {
        client.send("GET /length HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n");
        let answer = client.answer();
        assert_eq!(
            (answer.text().as_str(), answer.header("connection")),
            ("ok", Some("keep-alive"))
        );
    }
}

/// Whoever is refused amid an upload must not lose the answer by it.
#[test]
fn a_client_that_sends_on_hears_why_it_should_not() {
    let origin = Origin::text("ok");
    let (folder, authority) = (Folder::new(), Authority::new());
    authority.issue(&folder, "a", &["localhost"]);
    let next = origin.url();
    let edge = Edge::start_in(
        folder,
        &format!(
            "{SECURE}sites:\n  plain:\n    next: {next}\n    routes: [{{ path: /closed/*, deny: [127.0.0.0/8] }}]\n  localhost:\n    next: {next}\nlimits: {{ body: 1MB }}\n"
        ),
    );
    let piece = vec![b'x'; 64 * 1024];
    let sends_on = |client: &mut Client, head: &str, status: u16, what: &str| {
        client.send(head);
        // Longer than what the kernels hold between the two, and not faster than the answer.
        for number in 0..200 {
            let sent = client.try_send(&piece);
            assert!(sent.is_ok(), "{what}: cut at piece {number}: {sent:?}");
            if number < 5 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let answer = client.head();
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        client.finish();
        assert_eq!(client.end().1, End::Closed, "{what}");
    };
    let length = "Content-Length: 20000000\r\n\r\n";
    for (path, status) in [("/", 413), ("/closed/a", 403)] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: plain\r\n{length}");
        sends_on(&mut edge.connect(), &head, status, path);
    }
    // In two framings at once: who could say where it ends?
    let head = format!("POST / HTTP/1.1\r\nHost: plain\r\nTransfer-Encoding: chunked\r\n{length}");
    sends_on(&mut edge.connect(), &head, 400, "ambiguous");
    // A client that just stops is not waited for.
    let mut client = edge.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: plain\r\n{length}half"));
    assert_eq!(client.answer().status, 413);
    assert_eq!(client.end().1, End::Closed);
    let open = "vestibule_connections_open{listener=\"http\"}";
    wait_for_metric(&edge, open, 0);
}

#[test]
fn a_tunnel_to_anywhere_is_refused() {
    let origin = Origin::text("ok");
    let edge = site(&origin, "");
    let mut client = edge.connect();
    client.send("CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    assert!(origin.seen().is_empty());
}

/// They hold a socket each, and whoever holds many must not be waited for instead of others.
#[test]
fn so_many_are_waited_for_and_then_the_first_goes() {
    let origin = Origin::text("ok");
    let edge = Edge::start(&format!(
        "{}sites:\n  localhost:\n    next: {}\nlimits: {{ body: 1MB, per_ip: {{ connections: 1000, requests: 100000/s, burst: 100000 }} }}\n",
        PLAIN.replace("workers: 2", "workers: 1"),
        origin.url()
    ));
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n\r\n";
    let clients: Mutex<Vec<Client>> = Mutex::default();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Whoever is silent is not waited for.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for client in clients.lock().expect("a lock").iter_mut() {
                    let _gone = client.try_send(b"x");
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        for _ in 0..260 {
            let mut client = edge.connect();
            client.send(head);
            assert_eq!(client.head().status, 413);
            clients.lock().expect("a lock").push(client);
        }
        wait_for_metric(&edge, "vestibule_connections_cut_total{reason=\"crowded\"}", 4);
        wait_for_metric(&edge, "vestibule_connections_open{listener=\"http\"}", 256);
        let mut clients = std::mem::take(&mut *clients.lock().expect("a lock"));
        over.store(true, Ordering::Relaxed);
        for client in &mut clients[..4] {
            client.rest();
        }
        for client in &mut clients[4..] {
            client.try_send(b"x").expect("it is waited for");
        }
    });
}
