//! What only HTTP/2 has: ends in frames of their own, windows that stay shut.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::harness::http2::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, Outcome, RST_STREAM, WINDOW_UPDATE,
    block,
};
use crate::harness::origin::reply;
use crate::harness::socketio::wait_for_metric;
use crate::harness::{Authority, Edge, Folder, Origin, PATIENCE, SECURE};
use crate::upgrade::accept;

const STUCK: &str = "vestibule_connections_cut_total{reason=\"stream_stuck\"}";
/// Bytes of an answer that is here whole when it begins.
const PAGE: usize = 1 << 20;
/// `SETTINGS_INITIAL_WINDOW_SIZE`
const WINDOW: u16 = 4;
/// A WebSocket (RFC 8441 §5).
const CONNECT: [(&str, &str); 6] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "https"),
    (":authority", "localhost"),
    (":path", "/ws"),
    ("sec-websocket-version", "13"),
];

fn secure(origin: &Origin, authority: &Authority, more: &str) -> Edge {
    let folder = Folder::new();
    authority.issue(&folder, "localhost", &["localhost"]);
    folder.write("site/a.txt", &"x".repeat(128 * 1024));
    folder.write("page.html", &"x".repeat(PAGE));
    folder.write("flag", "");
    let yaml = format!("{SECURE}sites:\n  localhost:\n    next: {}\n{more}", origin.url());
    Edge::start_in(folder, &yaml)
}

/// An answer to HEAD: its status, and whether its head was also its end.
fn head(client: &mut Http2, stream: u32, authority: &str, path: &str) -> (u16, bool) {
    let fields =
        [(":method", "HEAD"), (":scheme", "https"), (":authority", authority), (":path", path)];
    client.send(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields));
    loop {
        let frame = client.frame().expect("an answer");
        if frame.stream == stream && frame.kind == HEADERS {
            let status = crate::harness::http2::status_of(&frame.payload);
            return (status, frame.flags & END_STREAM != 0);
        }
        assert_ne!((frame.stream, frame.kind), (stream, DATA), "{authority}{path}: a body");
    }
}

#[test]
fn an_answer_to_head_has_no_body_whoever_makes_it() {
    let origin = Origin::start(|seen, stream| match seen.path() {
        "/_next/static/gone.js" => {
            let head =
                "HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\n";
            stream.write_all(head.as_bytes()).is_ok()
        }
        _ => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").is_ok(),
    });
    let silent = Origin::start(|_, _| false);
    let authority = Authority::new();
    let more = format!(
        "    routes:
      - {{ path: /rated, rate: 1/m }}
      - {{ path: /in, basic: {{ users: 'file:htpasswd', realm: x }} }}
      - {{ path: /down, to: {{ targets: '{}', hold: none, eject: none }} }}
      - {{ path: /site/*, files: {{ root: site }} }}
      - {{ path: /old, redirect: /new }}
  closed.localhost:
    next: {}
    maintenance: {{ file: flag }}
hub: {{ namespaces: {{ /: {{ auth: none }} }} }}
",
        silent.url(),
        origin.url(),
    );
    let folder = Folder::new();
    authority.issue(&folder, "localhost", &["localhost", "closed.localhost"]);
    folder.write("site/a.txt", "a file");
    folder.write("flag", "");
    folder.write("htpasswd", "a:$2y$05$nU3HUUEmNhQPcAGzYJLFuuMgsm.xfIEdg1/PzlWOUQOlvQb5kjqYa\n");
    let yaml = format!("{SECURE}sites:\n  localhost:\n    next: {}\n{more}", origin.url());
    let edge = Edge::start_in(folder, &yaml);
    let mut client = Http2::connect(&edge, &authority, &[]);
    let mut stream = 1;
    for (host, path, status) in [
        ("localhost", "/", 200),
        ("localhost", "/rated", 200),
        ("localhost", "/rated", 429),
        ("localhost", "/in", 401),
        ("localhost", "/down", 502),
        ("localhost", "/site/a.txt", 200),
        ("localhost", "/site/none", 404),
        ("localhost", "/old", 308),
        ("localhost", "/_next/static/gone.js", 404),
        ("localhost", "/_next/image?url=x", 400),
        ("localhost", "/page.rsc", 404),
        ("localhost", "/%00", 0),
        ("localhost", "/socket.io/?EIO=3&transport=polling", 0),
        ("elsewhere.localhost", "/", 421),
        ("closed.localhost", "/", 421),
        ("localhost", "/", 200),
    ] {
        let (told, ends) = head(&mut client, stream, host, path);
        assert!(ends, "{host}{path}: {told}, and more");
        assert!(told == status || (status == 0 && told >= 400), "{host}{path}: {told}");
        stream += 2;
    }
    // The other site, on a connection of its own.
    let mut client = Http2::connect_as(&edge, &authority, "closed.localhost", &[]);
    assert_eq!(head(&mut client, 1, "closed.localhost", "/"), (503, true));
}

#[test]
fn a_request_whose_end_is_a_frame_of_its_own_has_no_body() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let edge = secure(&origin, &authority, "");
    let mut client = Http2::connect(&edge, &authority, &[]);
    for (stream, method) in (1..).step_by(2).zip(["GET", "OPTIONS", "DELETE"]) {
        client.request(stream, method, "/", &[], false);
        client.send(DATA, 0, stream, &[]);
        client.send(DATA, END_STREAM, stream, &[]);
        assert_eq!(client.outcome(stream), Outcome::Status(200, b"ok".to_vec()), "{method}");
    }
    // One that has bytes is still none that an application reads twice.
    client.request(9, "GET", "/", &[], false);
    client.send(DATA, END_STREAM, 9, b"GET /admin HTTP/1.1\r\n\r\n");
    assert!(matches!(client.outcome(9), Outcome::Status(411, _)));
    assert!(origin.seen().iter().all(|seen| seen.header("transfer-encoding").is_none()));
}

#[test]
fn the_last_piece_of_an_answer_is_waited_for_as_any_other() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let more = "    routes: [{ path: /site/*, files: { root: site } }]
timeouts: { body_idle: 2s, idle: 1h }
";
    let edge = secure(&origin, &authority, more);
    let mut client = Http2::connect(&edge, &authority, &[(WINDOW, 1)]);
    client.request(1, "GET", "/site/a.txt", &[], true);
    assert_eq!(client.status(1), Some(200));
    let line = edge.access_line(|line| line["path"] == "/site/a.txt");
    assert_eq!(line["reason"], "client_stuck", "{line}");
    // It alone has ended.
    loop {
        let frame = client.frame().expect("the connection");
        assert_ne!(frame.kind, GOAWAY);
        if (frame.kind, frame.stream) == (RST_STREAM, 1) {
            break;
        }
    }
    // One that takes it slowly has it whole.
    client.request(3, "GET", "/site/a.txt", &[], true);
    let mut all = 0;
    while all < 128 * 1024 {
        client.send(WINDOW_UPDATE, 0, 3, &10_000_u32.to_be_bytes());
        client.send(WINDOW_UPDATE, 0, 0, &10_000_u32.to_be_bytes());
        all += client.data(3).expect("data").len();
    }
}

#[test]
fn a_connection_whose_client_never_takes_what_has_ended_ends() {
    let body = vec![b'x'; 10_000];
    let origin = Origin::start(move |_, stream| reply(stream, "200 OK", "", &body));
    let authority = Authority::new();
    let edge = secure(&origin, &authority, "timeouts: { body_idle: 700ms, idle: 1h }\n");
    let mut client = Http2::connect(&edge, &authority, &[(WINDOW, 1)]);
    for stream in (1..20).step_by(2) {
        client.request(stream, "GET", "/", &[], true);
    }
    let begun = Instant::now();
    assert!(client.is_closed());
    assert!(begun.elapsed() >= Duration::from_millis(650), "{:?}", begun.elapsed());
    wait_for_metric(&edge, STUCK, 1);
    // Nobody who takes what is given is sent away.
    let mut client = Http2::connect(&edge, &authority, &[]);
    let begun = Instant::now();
    let mut stream = 1;
    while begun.elapsed() < Duration::from_secs(3) {
        assert!(matches!(client.get(stream, "/"), Outcome::Status(200, _)));
        stream += 2;
    }
}

#[test]
fn an_answer_of_one_large_piece_may_be_taken_slowly() {
    let (origin, authority) = (Origin::text("ok"), Authority::new());
    let more = "    maintenance: { file: flag, page: page.html }
timeouts: { body_idle: 1500ms }
";
    let edge = secure(&origin, &authority, more);
    let mut client = Http2::connect(&edge, &authority, &[(WINDOW, 1)]);
    client.request(1, "GET", "/", &[("accept", "text/html")], true);
    assert_eq!(client.status(1), Some(503));
    // It takes more than twice as long as nothing may be taken for.
    let step = u32::try_from(PAGE / 64).expect("a size").to_be_bytes();
    let mut all = 0;
    for _ in 0..64 {
        std::thread::sleep(Duration::from_millis(50));
        client.send(WINDOW_UPDATE, 0, 1, &step);
        client.send(WINDOW_UPDATE, 0, 0, &step);
        all += client.data(1).expect("data").len();
    }
    while all < PAGE {
        all += client.data(1).expect("data").len();
    }
}

#[test]
fn what_is_under_way_beside_a_stream_that_is_stuck_has_its_end() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |seen, stream| {
        if seen.path() == "/late" {
            wait.lock().expect("a lock").recv_timeout(PATIENCE).expect("told");
        }
        reply(stream, "200 OK", "", &[b'x'; 10_000])
    });
    let authority = Authority::new();
    let edge = secure(&origin, &authority, "timeouts: { body_idle: 3s, idle: 1h }\n");
    let mut client = Http2::connect(&edge, &authority, &[(WINDOW, 1)]);
    client.request(1, "GET", "/stuck", &[], true);
    client.request(3, "GET", "/late", &[], true);
    while client.frame().expect("the connection").kind != GOAWAY {}
    go.send(()).expect("the application waits");
    // By now all of it is said, and the client has a byte.
    edge.access_line(|line| line["path"] == "/late");
    let mut all = client.data(3).expect("data").len();
    assert_eq!(all, 1);
    client.send(WINDOW_UPDATE, 0, 3, &10_000_u32.to_be_bytes());
    while all < 10_000 {
        all += client.data(3).expect("data").len();
    }
    // What is stuck ends with the connection.
    assert!(client.is_closed());
}

#[test]
fn a_tunnel_whose_window_stays_shut_ends() {
    let origin = Origin::start(|seen, stream| {
        let accept = accept(seen.header("sec-websocket-key").unwrap_or_default());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n{accept}\r\n"
        );
        stream.write_all(head.as_bytes()).expect("sent");
        for _ in 0..3 {
            stream.write_all(&[b'x'; 4000]).expect("sent");
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    });
    let authority = Authority::new();
    let more = "    routes: [{ path: /ws, upgrade: true }]
timeouts: { body_idle: 500ms, idle: 1s }
";
    for window in [0, 1] {
        let edge = secure(&origin, &authority, more);
        let mut client = Http2::connect(&edge, &authority, &[(WINDOW, window)]);
        client.send(HEADERS, END_HEADERS, 1, &block(&CONNECT));
        assert_eq!(client.status(1), Some(200));
        let begun = Instant::now();
        // The connection has nothing else to do, and is idle once the tunnel has ended.
        assert!(client.is_closed());
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    }
}
