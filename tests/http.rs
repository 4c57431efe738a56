//! HTTP/1.1 and HTTP/2 on the way in: limits, deadlines, hosts, access lines.

use std::time::{Duration, Instant};

use crate::harness::socketio::wait_for_metric;
use crate::harness::{Edge, Origin, PLAIN};

fn with_origin(origin: &Origin, more: &str) -> Edge {
    Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {}\n{more}", origin.url()))
}

#[test]
fn a_connection_carries_many_requests() {
    let origin = Origin::echo();
    let edge = with_origin(&origin, "");
    let mut client = edge.connect();
    for number in 0..20 {
        let answer = client.get(&format!("/{number}"));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["line"], format!("GET /{number} HTTP/1.1"));
    }
    // And pipelined ones are answered in order.
    client.send(
        "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /b HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    assert_eq!(client.answer().json()["line"], "GET /a HTTP/1.1");
    assert_eq!(client.answer().json()["line"], "GET /b HTTP/1.1");
}

#[test]
fn heads_fit_next_js_and_no_more() {
    let origin = Origin::text("ok");
    let next = format!("{{ targets: '{}', head: 64KiB }}", origin.url());
    let edge = Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {next}\n"));
    let large = "x".repeat(40_000);
    let answer = edge.connect().ask("GET", "/", &[("next-router-state-tree", &large)], b"");
    assert_eq!(answer.status, 200);
    let too_large = "x".repeat(70_000);
    let answer = edge.connect().ask("GET", "/", &[("next-router-state-tree", &too_large)], b"");
    assert_eq!(answer.status, 431);
    let lines: Vec<(String, &str)> = (0..95).map(|n| (format!("x-line-{n}"), "v")).collect();
    let lines: Vec<(&str, &str)> = lines.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    assert_eq!(edge.connect().ask("GET", "/", &lines, b"").status, 200);
}

#[test]
fn requests_without_one_clear_host_are_refused() {
    let origin = Origin::text("ok");
    let edge = with_origin(&origin, "");
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: user@localhost\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n", 421),
        ("GET http://elsewhere.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n", 400),
    ] {
        let mut client = edge.connect();
        client.send(request);
        let answer = client.answer();
        assert_eq!(answer.status, status, "{request:?}: {answer:?}");
    }
    assert!(origin.seen().is_empty(), "none of them reached the application");
}

#[test]
fn a_dot_at_the_end_of_a_host_changes_nothing() {
    let origin = Origin::echo();
    let edge = with_origin(&origin, "  '*':\n    next: http://127.0.0.1:1\n");
    let answer = edge.connect().ask("GET", "/", &[("Host", "localhost.")], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(origin.seen()[0].header("x-forwarded-host"), Some("localhost"));
}

#[test]
fn refusals_say_what_would_be_taken() {
    let origin = Origin::text("ok");
    let edge = with_origin(&origin, "");
    let upgrade = [("Connection", "upgrade"), ("Upgrade", "websocket")];
    let answer = edge.connect().ask("GET", "/ws", &upgrade, b"");
    assert_eq!((answer.status, answer.header("upgrade")), (426, Some("websocket")), "{answer:?}");
    assert!(answer.header("connection").is_some_and(|words| words.contains("upgrade")));
}

#[test]
fn what_nobody_can_read_has_a_line_too() {
    let origin = Origin::text("ok");
    let edge = with_origin(&origin, "");
    for (request, status, reason) in [
        ("GE T / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400, "malformed"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nA B: c\r\n\r\n".to_owned(), 400, "malformed"),
        (format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(70_000)), 431, "head_too_large"),
    ] {
        let mut client = edge.connect();
        let _cut = client.try_send(request.as_bytes());
        let answer = client.answer();
        assert_eq!(answer.status, status, "{reason}");
        let line = edge.access_line(|line| line["reason"] == reason && line["status"] == status);
        assert_eq!(line["client"], "127.0.0.1", "{line}");
    }
    wait_for_metric(&edge, "vestibule_faults_total{reason=\"malformed\"}", 2);
    crate::harness::eventually("a line of each", || (edge.access().len() == 3).then_some(()));
}

#[test]
fn aliases_are_redirected_to_the_sites_name() {
    let origin = Origin::text("ok");
    let edge = with_origin(&origin, "    aliases: [www.localhost]\n");
    let answer = edge.connect().ask("GET", "/a?b=c", &[("Host", "www.localhost")], b"");
    assert_eq!((answer.status, answer.header("location")), (308, Some("http://localhost/a?b=c")));
}

#[test]
fn routes_redirect_with_their_parameters() {
    let origin = Origin::text("app");
    let edge = with_origin(
        &origin,
        "    routes:\n      - { path: /old/:slug, redirect: /blog/:slug }\n      - { path: /go/*, redirect: 'https://example.com/*', status: 302 }\n",
    );
    let answer = edge.get("/old/a%20b?x=1");
    assert_eq!((answer.status, answer.header("location")), (308, Some("/blog/a%20b?x=1")));
    let answer = edge.get("/go/to/there");
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, Some("https://example.com/to/there"))
    );
    assert_eq!(edge.get("/old/a/b").text(), "app");
}

#[test]
fn the_edge_answers_its_own_health() {
    let origin = Origin::text("app");
    let edge = with_origin(&origin, "");
    let answer = edge.connect().ask("GET", "/health", &[("Host", "10.0.0.1:8080")], b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"));
    assert!(origin.seen().is_empty());
}

#[test]
fn every_exchange_has_one_access_line() {
    let origin = Origin::text("hello");
    let edge = with_origin(&origin, "");
    edge.connect().ask("GET", "/page?token=secret", &[("User-Agent", "test/1")], b"");
    edge.connect().ask("GET", "/lost", &[("Host", "elsewhere.example")], b"");
    let page = edge.access_line(|line| line["path"] == "/page");
    assert_eq!(page["status"], 200);
    assert_eq!(page["bytes"], 5);
    assert_eq!(page["route"], "next");
    assert_eq!(page["agent"], "test/1");
    assert_eq!(page["client"], "127.0.0.1");
    assert_eq!(page["protocol"], "HTTP/1.1");
    assert!(page.get("reason").is_none(), "{page}");
    let lost = edge.access_line(|line| line["path"] == "/lost");
    assert_eq!((lost["status"].as_u64(), lost["reason"].as_str()), (Some(421), Some("no_site")));
    assert_eq!(edge.access().len(), 2);
    let log = std::fs::read_to_string(edge.folder.path("access")).expect("the access log");
    assert!(!log.contains("secret"), "the query stays out of the log: {log}");
}

#[test]
fn a_client_that_leaves_has_a_line_too() {
    let origin = Origin::start(|_, _| {
        std::thread::sleep(Duration::from_secs(3));
        false
    });
    let edge = with_origin(&origin, "");
    let mut client = edge.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
    crate::harness::eventually("the request", || (!origin.seen().is_empty()).then_some(()));
    drop(client);
    let line = edge.access_line(|line| line["path"] == "/slow");
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(499), Some("aborted")));
}

#[test]
fn late_heads_and_idle_connections_are_closed() {
    let origin = Origin::text("ok");
    let edge = with_origin(&origin, "timeouts: { head: 300ms, idle: 4s }\n");
    // Nothing sent at all, and half a head.
    let begun = Instant::now();
    assert!(edge.connect().is_closed());
    let mut half = edge.connect();
    half.send("GET / HTTP/1.1\r\nHost: loc");
    assert!(half.is_closed());
    assert!(begun.elapsed() < Duration::from_millis(3700), "{:?}", begun.elapsed());
    // A kept connection may be idle longer than a head may take.
    let mut kept = edge.connect();
    kept.get("/");
    let begun = Instant::now();
    assert!(kept.is_closed());
    assert!(begun.elapsed() > Duration::from_millis(3700), "{:?}", begun.elapsed());
    // The next head on a kept connection has the head's deadline, not the idle one.
    let mut kept = edge.connect();
    kept.get("/");
    let begun = Instant::now();
    kept.send("GET / HT");
    assert!(kept.is_closed());
    assert!(begun.elapsed() < Duration::from_millis(3700), "{:?}", begun.elapsed());
}

#[test]
fn connections_over_the_limit_are_refused_and_the_place_is_given_back() {
    let origin = Origin::text("ok");
    let edge = with_origin(&origin, "limits: { connections: 2 }\n");
    let mut first = edge.connect();
    let mut second = edge.connect();
    assert_eq!(first.get("/").status, 200);
    assert_eq!(second.get("/").status, 200);
    assert!(edge.connect().is_closed());
    drop(first);
    crate::harness::eventually("a free place", || {
        let mut next = edge.connect();
        next.try_send(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        next.rest().starts_with(b"HTTP/1.1 200").then_some(())
    });
}

#[test]
fn a_parked_connection_goes_on_where_it_was() {
    let origin = Origin::echo();
    let edge = with_origin(&origin, "timeouts: { idle: 5s, head: 4s }\n");
    // Long enough for it to be parked, before the first request too, and half a head at a time.
    let pause = || std::thread::sleep(Duration::from_millis(700));
    let mut client = edge.connect();
    pause();
    assert_eq!(client.get("/1").json()["line"], "GET /1 HTTP/1.1");
    wait_for_metric(&edge, "vestibule_connections_parked", 1);
    client.send("POST /2 HTTP/1.1\r\nHost: localhost\r\nContent-Le");
    pause();
    client.send("ngth: 3\r\n\r\nabc");
    assert_eq!(client.answer().json()["line"], "POST /2 HTTP/1.1");
    // The next head comes with the body before, but not whole.
    client.send(
        "POST /3 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabcGET /4 HTTP/1.1\r\nHo",
    );
    assert_eq!(client.answer().json()["line"], "POST /3 HTTP/1.1");
    pause();
    client.send("st: localhost\r\n\r\n");
    assert_eq!(client.answer().json()["line"], "GET /4 HTTP/1.1");
    // What is ambiguous still is, and the deadlines hold.
    pause();
    client.send("GET /5 HTTP/1.1\nHost: localhost\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    let mut client = edge.connect();
    client.get("/");
    let begun = Instant::now();
    assert!(client.is_closed());
    assert!(begun.elapsed() > Duration::from_millis(4500), "{:?}", begun.elapsed());
}
