//! What is too much: connections, requests, clients that are slow, frames that carry nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, HEADERS, Http2, Outcome, PING, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame,
};
use crate::harness::origin::reply;
use crate::harness::{Authority, Edge, Folder, Origin, PATIENCE, PLAIN, SECURE, eventually};

fn plain(origin: &Origin, more: &str) -> Edge {
    Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {}\n{more}", origin.url()))
}

fn secure(origin: &Origin, authority: &Authority, more: &str) -> Edge {
    let folder = Folder::new();
    authority.issue(&folder, "localhost", &["localhost"]);
    let yaml = format!("{SECURE}sites:\n  localhost:\n    next: {}\n{more}", origin.url());
    Edge::start_in(folder, &yaml)
}

fn metric(edge: &Edge, name: &str) -> f64 {
    let page = edge.admin("GET", "/metrics").text();
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
}

#[test]
fn one_address_has_so_many_connections() {
    let origin = Origin::text("ok");
    let mut edge = plain(&origin, "limits: { per_ip: { connections: 3 } }\n");
    let mut held: Vec<_> = (0..3).map(|_| edge.connect()).collect();
    for client in &mut held {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(edge.connect().is_closed());
    let refused = "vestibule_connections_refused_total{reason=\"per_ip\"}";
    eventually("the count", || (metric(&edge, refused) >= 1.0).then_some(()));
    held.pop();
    eventually("a free place", || {
        let mut next = edge.connect();
        next.try_send(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        next.rest().starts_with(b"HTTP/1.1 200").then_some(())
    });
    // Whoever is trusted speaks for many.
    let yaml = format!(
        "{PLAIN}trust: [127.0.0.1]\nsites:\n  localhost:\n    next: {}\nlimits: {{ per_ip: {{ connections: 1 }} }}\n",
        origin.url()
    );
    edge.reload_with(&yaml);
    let mut many: Vec<_> = (0..5).map(|_| edge.connect()).collect();
    assert!(many.iter_mut().all(|client| client.get("/").status == 200));
}

#[test]
fn one_address_asks_so_often_and_others_do_not_notice() {
    let origin = Origin::text("ok");
    let edge = Edge::start(&format!(
        "{PLAIN}trust: [127.0.0.1]\nsites:\n  localhost:\n    next: {}\nlimits: {{ per_ip: {{ requests: 2/m, burst: 5 }} }}\n",
        origin.url()
    ));
    let mut client = edge.connect();
    let mut from = |address: &str| client.ask("GET", "/", &[("X-Forwarded-For", address)], b"");
    for _ in 0..5 {
        assert_eq!(from("192.0.2.1").status, 200);
    }
    let refused = from("192.0.2.1");
    assert_eq!((refused.status, refused.text().contains("rate_limited")), (429, true));
    let wait = refused.header("retry-after").and_then(|wait| wait.parse().ok());
    assert!(wait.is_some_and(|wait: u32| (1..=30).contains(&wait)), "{refused:?}");
    assert_eq!(from("192.0.2.2").status, 200);
    // All of one /64 is one customer.
    for last in 1..=5 {
        assert_eq!(from(&format!("2001:db8:1:2::{last}")).status, 200);
    }
    assert_eq!(from("2001:db8:1:2:ffff::1").status, 429);
    assert_eq!(from("2001:db8:1:3::1").status, 200);
    // The peer itself is trusted, and health is nobody's request.
    for _ in 0..10 {
        assert_eq!(edge.get("/").status, 200);
        assert_eq!(edge.get("/health").status, 200);
    }
    assert_eq!(origin.seen().len(), 22);
}

#[test]
fn a_route_is_asked_so_often_by_each_key() {
    let origin = Origin::text("ok");
    let edge = plain(
        &origin,
        "    routes:\n      - { path: /login, rate: 3/m }\n      - { path: /api/*, rate: { to: 1/m, burst: 2, by: 'header:x-api-key' } }\n",
    );
    let mut client = edge.connect();
    for status in [200, 200, 200, 429] {
        assert_eq!(client.get("/login").status, status);
    }
    assert_eq!(client.get("/elsewhere").status, 200);
    for key in ["a", "b"] {
        for status in [200, 200, 429] {
            let answer = client.ask("GET", "/api/x", &[("X-API-Key", key)], b"");
            assert_eq!(answer.status, status, "{key}");
        }
    }
    for status in [200, 200, 429] {
        assert_eq!(client.get("/api/x").status, status, "without a key");
    }
}

/// Takes nothing of what it is sent.
fn deaf(edge: &Edge, path: &str) -> TcpStream {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small window");
    socket.connect(&edge.http().into()).expect("a connection");
    let mut stream = TcpStream::from(socket);
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
        .expect("sent");
    stream
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let origin = Origin::start(|_, stream| reply(stream, "200 OK", "", &vec![b'x'; 32 << 20]));
    let edge = plain(&origin, "timeouts: { body_idle: 2s }\n");
    let begun = Instant::now();
    let _held = deaf(&edge, "/stuck");
    edge.access_line(|line| line["path"] == "/stuck");
    assert!(begun.elapsed() >= Duration::from_millis(1950), "{:?}", begun.elapsed());
    eventually("the cut", || {
        (metric(&edge, "vestibule_connections_cut_total{reason=\"stuck\"}") >= 1.0).then_some(())
    });
    // One that reads slowly, but does, is served to the end.
    let mut slow = deaf(&edge, "/slow");
    let (mut all, mut piece) = (0, vec![0; 1 << 20]);
    while let Ok(read @ 1..) = slow.read(&mut piece) {
        all += read;
        if all > 32 << 20 {
            break;
        }
    }
    assert!(all > 32 << 20, "{all}");
}

#[test]
fn a_slow_body_is_cut_and_its_request_with_it() {
    let origin = Origin::text("ok");
    let edge = plain(&origin, "timeouts: { body_idle: 400ms }\n");
    let mut client = edge.connect();
    client.send("POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf");
    assert_eq!(client.answer().status, 408);
    assert!(origin.seen().is_empty());
}

/// The edge serves others while one connection floods, and the flood ends that connection alone.
fn floods(name: &str, flood: impl Fn(u32) -> Vec<u8>) {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let edge = secure(&origin, &authority, "");
    let mut healthy = Http2::connect(&edge, &authority, &[]);
    assert_eq!(healthy.get(1, "/"), Outcome::Status(200, b"ok".to_vec()));
    let mut attacker = Http2::connect(&edge, &authority, &[]);
    let begun = Instant::now();
    let mut number = 0;
    loop {
        let bytes: Vec<u8> = (0..100).flat_map(|step| flood(number + step)).collect();
        number += 100;
        if attacker.write(&bytes).is_err() {
            break;
        }
        assert!(number < 500_000 && begun.elapsed() < PATIENCE, "{name} goes on");
    }
    assert!(attacker.is_closed());
    assert_eq!(healthy.get(3, "/"), Outcome::Status(200, b"ok".to_vec()), "{name}");
    assert!(edge.resident_kb() < 100 * 1024, "{name}: {} KiB", edge.resident_kb());
}

#[test]
fn floods_of_frames_end_their_connection() {
    floods("pings", |_| frame(PING, 0, 0, &[0; 8]));
    floods("settings", |_| frame(SETTINGS, 0, 0, &[]));
    floods("acknowledgements", |_| frame(PING, ACK, 0, &[0; 8]));
    floods("priorities", |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 16]));
    floods("window updates", |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]));
    floods("unknown frames", |_| frame(200, 0, 0, &[]));
}

#[test]
fn requests_taken_back_at_once_end_their_connection() {
    floods("resets", |number| {
        let stream = number * 2 + 1;
        let fields =
            [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")];
        let head = frame(HEADERS, END_HEADERS | 1, stream, &block(&fields));
        [head, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
}

/// The client does not take its requests back: it makes the edge do it (CVE-2025-8671).
#[test]
fn requests_that_the_edge_is_made_to_reset_end_their_connection() {
    let head = |number: u32| {
        let fields =
            [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")];
        frame(HEADERS, END_HEADERS | 1, number * 2 + 1, &block(&fields))
    };
    let after = |number: u32, kind: u8, flags: u8, payload: &[u8]| {
        [head(number), frame(kind, flags, number * 2 + 1, payload)].concat()
    };
    floods("windows that overflow", |number| {
        after(number, WINDOW_UPDATE, 0, &0x7fff_ffff_u32.to_be_bytes())
    });
    floods("windows of nothing", |number| after(number, WINDOW_UPDATE, 0, &[0; 4]));
    floods("data after the end", |number| after(number, DATA, 1, b"more"));
    floods("a second head", |number| {
        after(number, HEADERS, END_HEADERS, &block(&[(":method", "GET")]))
    });
}

#[test]
fn heads_without_end_end_their_connection() {
    floods("continuations", |number| match number {
        0 => frame(HEADERS, 0, 1, &block(&[(":method", "GET")])),
        number => frame(CONTINUATION, 0, 1, &block(&[(&format!("x-{number}"), &"y".repeat(1000))])),
    });
    floods("empty continuations", |number| match number {
        0 => frame(HEADERS, 0, 1, &block(&[(":method", "GET")])),
        _ => frame(CONTINUATION, 0, 1, &[]),
    });
    floods("empty data", |number| match number {
        0 => {
            let fields = [
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", "localhost"),
                (":path", "/"),
            ];
            frame(HEADERS, END_HEADERS, 1, &block(&fields))
        }
        _ => frame(DATA, 0, 1, &[]),
    });
}

#[test]
fn a_block_of_headers_that_unpacks_to_much_is_refused() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let edge = secure(&origin, &authority, "");
    let before = edge.resident_peak_kb();
    let mut client = Http2::connect(&edge, &authority, &[]);
    // One field of 4,000 bytes goes into the table, and is then named ten thousand times.
    let mut bomb = block(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/"),
    ]);
    bomb.extend_from_slice(&[0x40, 1, b'a', 127]);
    bomb.extend_from_slice(&[
        0x80 | u8::try_from((4000 - 127) % 128).expect("a byte"),
        u8::try_from((4000 - 127) / 128).expect("a byte"),
    ]);
    bomb.extend_from_slice(&[b'x'; 4000]);
    bomb.extend_from_slice(&[0xbe; 10_000]);
    client.send(HEADERS, END_HEADERS | 1, 1, &bomb);
    let outcome = client.outcome(1);
    assert!(
        matches!(outcome, Outcome::Status(431, _) | Outcome::Reset(_) | Outcome::Gone),
        "{outcome:?}"
    );
    assert!(origin.seen().is_empty());
    assert!(edge.resident_peak_kb().saturating_sub(before) < 16 * 1024);
    let mut healthy = Http2::connect(&edge, &authority, &[]);
    assert_eq!(healthy.get(1, "/"), Outcome::Status(200, b"ok".to_vec()));
}

#[test]
fn a_stream_whose_window_stays_shut_is_reset_and_the_others_go_on() {
    let (origin, authority) = (
        Origin::start(|seen, stream| {
            let body = if seen.path() == "/large" { vec![b'x'; 1 << 20] } else { b"ok".to_vec() };
            reply(stream, "200 OK", "", &body)
        }),
        Authority::new(),
    );
    let edge = secure(&origin, &authority, "timeouts: { body_idle: 700ms }\n");
    let mut client = Http2::connect(&edge, &authority, &[]);
    // The connection's window is large, so that one stream cannot shut it for all.
    client.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 22).to_be_bytes());
    client.request(1, "GET", "/large", &[], true);
    assert_eq!(client.status(1), Some(200));
    let begun = Instant::now();
    // Its window is never opened again, while others on the connection are served.
    let mut stream = 3;
    loop {
        assert_eq!(client.get(stream, "/small"), Outcome::Status(200, b"ok".to_vec()));
        stream += 2;
        if edge.access().iter().any(|line| line["path"] == "/large") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the stream is still open");
    }
    let line = edge.access_line(|line| line["path"] == "/large");
    assert_eq!(line["reason"], "client_stuck", "{line}");
    assert_eq!(client.get(stream, "/small"), Outcome::Status(200, b"ok".to_vec()));
}

#[test]
fn a_connection_that_only_pings_is_idle() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let edge = secure(&origin, &authority, "timeouts: { head: 300ms, idle: 4s }\n");
    let mut client = Http2::connect(&edge, &authority, &[]);
    assert_eq!(client.get(1, "/"), Outcome::Status(200, b"ok".to_vec()));
    let begun = Instant::now();
    client.send(PING, 0, 0, &[0; 8]);
    assert!(client.is_closed());
    assert!(begun.elapsed() > Duration::from_millis(3700), "{:?}", begun.elapsed());
    // A head that has begun must end in its own time.
    let mut client = Http2::connect(&edge, &authority, &[]);
    assert_eq!(client.get(1, "/"), Outcome::Status(200, b"ok".to_vec()));
    let begun = Instant::now();
    client.send(HEADERS, 1, 3, &block(&[(":method", "GET")]));
    assert!(client.is_closed());
    assert!(begun.elapsed() < Duration::from_millis(3500), "{:?}", begun.elapsed());
}

/// Sends a byte now and then, until an answer comes; how many were sent, and the answer's status.
fn dripping(edge: &Edge, path: &str, pause: Duration) -> (usize, u16) {
    let mut client = edge.connect();
    client.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60\r\n\r\n"));
    let mut sent = 0;
    while sent < 60 && !edge.access().iter().any(|line| line["path"] == path) {
        if client.try_send(b"x").is_err() {
            break;
        }
        sent += 1;
        std::thread::sleep(pause);
    }
    (sent, client.answer().status)
}

#[test]
fn a_body_that_drips_is_cut_although_it_never_stops() {
    let origin = Origin::text("ok");
    let edge = plain(
        &origin,
        "    routes: [{ path: /slow, body_rate: none }]
limits: { body_rate: 1KB/s }
timeouts: { body_idle: 1500ms }
",
    );
    let pause = Duration::from_millis(50);
    let (sent, status) = dripping(&edge, "/drip", pause);
    assert_eq!(status, 408);
    assert!((2..60).contains(&sent), "{sent} bytes");
    let line = edge.access_line(|line| line["path"] == "/drip");
    assert_eq!(line["reason"], "body_slow", "{line}");
    // Where it may be slow it may be.
    assert_eq!(dripping(&edge, "/slow", pause), (60, 200));
    // So may a body be that is made to wait: only the client's own time counts.
    let slow = Origin::start(|_, stream| reply(stream, "200 OK", "", b"ok"));
    let edge = plain(&slow, "limits: { body_rate: 100MB/s }\ntimeouts: { body_idle: 5s }\n");
    let answer = edge.connect().ask("POST", "/large", &[], &vec![b'x'; 4 << 20]);
    assert_eq!(answer.status, 200);
}

#[test]
fn a_client_that_reads_a_byte_now_and_then_is_cut() {
    let origin = Origin::start(|_, stream| reply(stream, "200 OK", "", &vec![b'x'; 32 << 20]));
    let edge = plain(&origin, "timeouts: { body_idle: 500ms }\n");
    let mut drinks = deaf(&edge, "/sips");
    let mut sip = [0; 1];
    eventually("the cut", || {
        let _sipped = drinks.read(&mut sip);
        let name = "vestibule_connections_cut_total{reason=\"stuck\"}";
        (metric(&edge, name) >= 1.0).then_some(())
    });
    edge.access_line(|line| line["path"] == "/sips");
}
