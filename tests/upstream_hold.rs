//! Requests that wait until a target can take them: a restart is a slow request, not an error.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::node::{Script, free_port};
use crate::harness::origin::reply;
use crate::harness::socketio::wait_for_metric;
use crate::harness::{Answer, Client, Edge, Origin, PLAIN, eventually};

/// An edge before `next`, as it is written behind the key.
pub fn edge(next: &str, more: &str) -> Edge {
    Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {next}\n{more}"))
}

/// An application in a process of its own; killed when it is dropped.
pub fn application(port: u16) -> Script {
    let mut script = Script::start("origin.mjs", &[("PORT", &port.to_string())]);
    script.wait_for("ready");
    script
}

fn asking(
    address: SocketAddr,
    method: &'static str,
    path: &'static str,
    body: &'static [u8],
) -> thread::JoinHandle<Answer> {
    thread::spawn(move || Client::connect(address).ask(method, path, &[], body))
}

fn held(port: u16) -> String {
    format!("vestibule_held_requests{{upstream=\"http://127.0.0.1:{port}\"}}")
}

fn outcome(port: u16, word: &str) -> String {
    format!("vestibule_holds_total{{upstream=\"http://127.0.0.1:{port}\",outcome=\"{word}\"}}")
}

#[test]
fn a_restart_is_a_slow_request_for_every_method() {
    let port = free_port();
    let running = application(port);
    let edge = edge(&format!("http://127.0.0.1:{port}"), "");
    let mut kept = edge.connect();
    let before = kept.get("/").text();
    drop(running);
    // Nothing of them has been sent, so that those wait too that may be done only once.
    let asked = [
        asking(edge.http(), "GET", "/", b""),
        asking(edge.http(), "POST", "/", b"once"),
        asking(edge.http(), "PATCH", "/", b""),
    ];
    wait_for_metric(&edge, &held(port), 3);
    assert_eq!(edge.admin("GET", "/health/ready").status, 503);
    let _running = application(port);
    for request in asked {
        let answer = request.join().expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_ne!(answer.text(), before, "the new process has answered");
    }
    assert_eq!(kept.get("/").status, 200, "a client's own connection outlives a restart");
    wait_for_metric(&edge, &held(port), 0);
    wait_for_metric(&edge, &outcome(port, "released"), 3);
}

#[test]
fn those_who_wait_are_bounded_in_number_and_in_time() {
    let port = free_port();
    let edge = edge(
        &format!("{{ targets: ['http://127.0.0.1:{port}'], hold: {{ for: 4s, queue: 2 }} }}"),
        "",
    );
    let begun = Instant::now();
    let asked = [asking(edge.http(), "GET", "/", b""), asking(edge.http(), "GET", "/", b"")];
    wait_for_metric(&edge, &held(port), 2);
    let answer = edge.get("/");
    assert!(begun.elapsed() < Duration::from_secs(4), "the third does not wait");
    assert_eq!((answer.status, answer.text().contains("hold_full")), (503, true), "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    for request in asked {
        let answer = request.join().expect("an answer");
        let expected = answer.text().contains("upstream_down");
        assert_eq!((answer.status, expected), (503, true), "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    assert!(begun.elapsed() >= Duration::from_secs(4), "the others have waited");
    for (word, count) in [("full", 1), ("expired", 2), ("released", 0)] {
        wait_for_metric(&edge, &outcome(port, word), count);
    }
}

#[test]
fn without_hold_it_fails_at_once() {
    let port = free_port();
    let edge = edge(&format!("{{ targets: ['http://127.0.0.1:{port}'], hold: none }}"), "");
    let begun = Instant::now();
    for _ in 0..3 {
        let answer = edge.get("/");
        assert!([502, 503].contains(&answer.status), "{answer:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn who_leaves_gives_its_place_back() {
    let port = free_port();
    let edge = edge(&format!("http://127.0.0.1:{port}"), "");
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    wait_for_metric(&edge, &held(port), 1);
    drop(client);
    wait_for_metric(&edge, &held(port), 0);
    wait_for_metric(&edge, &outcome(port, "left"), 1);
}

#[test]
fn who_leaves_with_something_unread_gives_its_place_back_too() {
    let port = free_port();
    let edge = edge(&format!("http://127.0.0.1:{port}"), "");
    let get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nHost: localhost\r\n";
    // More than is read at once, and less than the kernel takes without anybody reading.
    let body = "x".repeat(40_000);
    for (number, sent) in (1..).zip([
        format!("{get}G"),
        format!("{get}{get}"),
        format!("{get}GET / HTTP/1.1\nHost"),
        format!("{post}Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"),
        format!("{post}Content-Length: 2000000\r\n\r\n{body}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n9c40\r\n{body}\r\n"),
    ]) {
        let mut client = edge.connect();
        client.send(&sent);
        wait_for_metric(&edge, &held(port), 1);
        drop(client);
        wait_for_metric(&edge, &outcome(port, "left"), number);
        wait_for_metric(&edge, &held(port), 0);
    }
    // Whoever stays is answered, whatever it has said beside.
    let mut client = edge.connect();
    client.send(format!("{get}{get}"));
    wait_for_metric(&edge, &held(port), 1);
    let _running = application(port);
    assert_eq!((client.answer().status, client.answer().status), (200, 200));
}

#[test]
fn a_reload_that_removes_the_target_ends_no_request() {
    let origin = Origin::start(|seen, stream| {
        if seen.path() == "/slow" {
            thread::sleep(Duration::from_millis(500));
        }
        reply(stream, "200 OK", "", b"one")
    });
    let other = Origin::text("two");
    let mut edge = edge(&origin.url(), "");
    let slow = asking(edge.http(), "GET", "/slow", b"");
    eventually("the request", || (!origin.seen().is_empty()).then_some(()));
    edge.reload_with(&format!("{PLAIN}sites:\n  localhost:\n    next: {}\n", other.url()));
    assert_eq!(edge.get("/").text(), "two");
    assert_eq!(slow.join().expect("an answer").text(), "one");
}

#[test]
fn sockets_wait_too() {
    let port = free_port();
    let edge =
        edge(&format!("http://127.0.0.1:{port}"), "    routes: [{ path: /ws, upgrade: true }]\n");
    let mut client = edge.connect();
    client.send("GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
    wait_for_metric(&edge, &held(port), 1);
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello";
                stream.write_all(head.as_bytes()).expect("sent");
                let _ended = stream.read(&mut buffer);
            }
        }
    });
    assert_eq!(client.head().status, 101);
    assert_eq!(client.bytes(5), b"hello");
}

/// Answers each request when it is told to; knows how many it had at once.
struct Slow {
    origin: Origin,
    go: mpsc::Sender<()>,
    most: Arc<AtomicUsize>,
}

fn slow() -> Slow {
    let (go, gone) = mpsc::channel();
    let (gone, now, most) = (Mutex::new(gone), AtomicUsize::new(0), Arc::<AtomicUsize>::default());
    let seen_most = Arc::clone(&most);
    let origin = Origin::start(move |_, stream| {
        seen_most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let told = gone.lock().expect("a lock").recv_timeout(Duration::from_secs(20));
        now.fetch_sub(1, Ordering::SeqCst);
        told.is_ok() && reply(stream, "200 OK", "", b"ok")
    });
    Slow { origin, go, most }
}

#[test]
fn a_target_gets_no_more_at_once_than_it_may_and_the_first_to_come_is_the_first_served() {
    let slow = slow();
    let edge = edge(&format!("{{ targets: ['{}'], max: 1 }}", slow.origin.url()), "");
    let name = format!("vestibule_held_requests{{upstream=\"{}\"}}", slow.origin.url());
    let mut asked = Vec::new();
    for number in 0..6 {
        let path: &'static str = ["/0", "/1", "/2", "/3", "/4", "/5"][number];
        asked.push(asking(edge.http(), "GET", path, b""));
        if number == 0 {
            eventually("the first", || (slow.origin.seen().len() == 1).then_some(()));
        } else {
            wait_for_metric(&edge, &name, i64::try_from(number).expect("few"));
        }
    }
    for _ in 0..6 {
        slow.go.send(()).expect("it waits");
    }
    for request in asked {
        assert_eq!(request.join().expect("an answer").status, 200);
    }
    assert_eq!(slow.most.load(Ordering::SeqCst), 1);
    let paths: Vec<_> = slow.origin.seen().iter().map(|seen| seen.path().to_owned()).collect();
    assert_eq!(paths, ["/0", "/1", "/2", "/3", "/4", "/5"]);
}

#[test]
fn who_finds_no_room_in_time_is_told_so() {
    let slow = slow();
    let next = format!("{{ targets: ['{}'], max: 1, hold: 300ms }}", slow.origin.url());
    let edge = edge(&next, "");
    let first = asking(edge.http(), "GET", "/", b"");
    eventually("the first", || (slow.origin.seen().len() == 1).then_some(()));
    let answer = edge.get("/");
    assert_eq!((answer.status, answer.text().contains("upstream_busy")), (503, true), "{answer:?}");
    slow.go.send(()).expect("it waits");
    assert_eq!(first.join().expect("an answer").status, 200);
    // The target is not blamed for being busy.
    slow.go.send(()).expect("it waits");
    assert_eq!(edge.get("/").status, 200);
}

#[test]
fn a_port_that_listens_is_not_yet_an_application_that_answers() {
    let ready = Arc::new(AtomicBool::new(false));
    let is_ready = Arc::clone(&ready);
    let origin = Origin::start(move |seen, stream| {
        let ready = seen.path() != "/ready" || is_ready.load(Ordering::Relaxed);
        reply(stream, if ready { "200 OK" } else { "500 Not Yet" }, "", b"ok")
    });
    let next = format!(
        "{{ targets: ['{}'], health: {{ path: /ready, every: 100ms, timeout: 100ms }} }}",
        origin.url()
    );
    let edge = edge(&next, "");
    eventually("not ready", || (edge.admin("GET", "/health/ready").status == 503).then_some(()));
    let asked = asking(edge.http(), "GET", "/page", b"");
    let name = format!("vestibule_held_requests{{upstream=\"{}\"}}", origin.url());
    wait_for_metric(&edge, &name, 1);
    assert!(origin.seen().iter().all(|seen| seen.path() == "/ready"));
    ready.store(true, Ordering::Relaxed);
    assert_eq!(asked.join().expect("an answer").status, 200);
    assert!(edge.log().contains("a check is answered 500"), "{}", edge.log());
}

#[test]
fn one_bad_check_is_not_the_end() {
    // Good, then two bad ones and good again; then bad for ever.
    let count = AtomicUsize::new(0);
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = Arc::clone(&broken);
    let origin = Origin::start(move |seen, stream| {
        let bad = match seen.path() {
            "/ready" if is_broken.load(Ordering::Relaxed) => true,
            "/ready" => (2..4).contains(&count.fetch_add(1, Ordering::Relaxed)),
            _ => false,
        };
        reply(stream, if bad { "503 Bad" } else { "200 OK" }, "", b"ok")
    });
    let next = format!(
        "{{ targets: ['{}'], health: {{ path: /ready, every: 1s, timeout: 1s, fall: 3 }} }}",
        origin.url()
    );
    let edge = edge(&next, "");
    let checks = || origin.seen().iter().filter(|seen| seen.path() == "/ready").count();
    eventually("checks", || (checks() > 5).then_some(()));
    assert!(!edge.log().contains("target is down"), "{}", edge.log());
    broken.store(true, Ordering::Relaxed);
    eventually("down", || edge.log().contains("target is down").then_some(()));
}

/// A path that is not there says nothing of the application, whatever has it.
#[test]
fn what_a_good_answer_to_a_check_is_can_be_said() {
    let origin = Origin::start(|seen, stream| match seen.path() {
        "/moved" => reply(stream, "307 Temporary Redirect", "location: /\r\n", b""),
        "/login" => reply(stream, "401 Unauthorized", "", b""),
        "/missing" => reply(stream, "404 Not Found", "", b""),
        _ => reply(stream, "204 No Content", "", b""),
    });
    let yaml = |health: &str| {
        let url = origin.url();
        let health = format!("{{ {health}, every: 100ms, timeout: 100ms }}");
        format!(
            "{PLAIN}sites:\n  localhost:\n    next: {{ targets: ['{url}'], health: {health} }}\n"
        )
    };
    let mut edge = Edge::start(&yaml("path: /missing"));
    for (health, status) in [
        ("path: /missing", 503),
        ("path: /moved", 200),
        ("path: /login", 503),
        ("path: /login, statuses: [2xx, 401]", 200),
        ("path: /moved, statuses: [2xx]", 503),
        ("path: /well, statuses: [200]", 503),
        ("path: /well", 200),
    ] {
        edge.reload_with(&yaml(health));
        let path = health.trim_start_matches("path: ").split(',').next().unwrap_or_default();
        let asked = origin.seen().len();
        eventually(health, || {
            let checked = origin.seen().iter().skip(asked).any(|seen| seen.path() == path);
            (checked && edge.admin("GET", "/health/ready").status == status).then_some(())
        });
    }
    for told in ["404 Not Found", "401 Unauthorized", "307 Temporary Redirect", "204 No Content"] {
        assert!(edge.log().contains(&format!("a check is answered {told}")), "{}", edge.log());
    }
}
