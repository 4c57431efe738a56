//! What the operator looks with: pictures, advice, pages.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use crate::cluster::UP;
use crate::harness::origin::{Seen, reply};
use crate::harness::redis::Redis;
use crate::harness::socketio::wait_for_metric;
use crate::harness::{Authority, Edge, Folder, Origin, PLAIN, SECURE, eventually, vestibule};

fn said(folder: &Folder, arguments: &[&str]) -> (bool, String) {
    let output = vestibule(arguments, folder);
    let all = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&all).into_owned())
}

#[test]
fn top_shows_what_goes_on() {
    let origin = Origin::text("ok");
    let edge = Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {}\n", origin.url()));
    assert_eq!(edge.get("/").status, 200);
    let (well, picture) = said(&edge.folder, &["top", "--once"]);
    assert!(well, "{picture}");
    for word in
        ["requests", "latency", "connections", "ROUTE", "next", "TARGET", "up", "generation 1"]
    {
        assert!(picture.contains(word), "no {word} in\n{picture}");
    }
    assert!(picture.contains(&origin.url().replace("http://", "")), "{picture}");
}

/// Idle connections are watched for as long as the edge would keep them.
const SHORT: &str = "keep: { for: 200ms }";

#[test]
fn the_doctor_finds_nothing_where_nothing_is_wrong() {
    let origin = Origin::text("ok");
    let limits = "limits: { connections: 100 }\n";
    let next = format!("{{ targets: [{}], {SHORT} }}", origin.url());
    let edge = Edge::start(&format!("{PLAIN}{limits}sites:\n  localhost:\n    next: {next}\n"));
    let (well, told) = said(&edge.folder, &["doctor"]);
    assert!(well && !told.contains("WRONG"), "{told}");
    for word in [
        "proxy.yaml is right",
        "can be written to",
        "is ready",
        "files may be open",
        "none dropped, 0 of ",
        "answers 200",
        "leaves compression to the edge",
        "keeps idle connections for keep.for",
        "takes a head of 16384 bytes",
    ] {
        assert!(told.contains(word), "no {word} in\n{told}");
    }
}

#[test]
fn the_doctor_says_what_is_wrong_and_how_it_is_mended() {
    let origin = Origin::start(|seen, stream| {
        if seen.header("x-vestibule-doctor").is_some_and(|value| value.len() > 16_000) {
            return reply(stream, "431 Request Header Fields Too Large", "", b"");
        }
        reply(stream, "200 OK", "keep-alive: timeout=1\r\ncontent-encoding: gzip\r\n", b"x")
    });
    let (folder, authority) = (Folder::new(), Authority::new());
    authority.issue(&folder, "a", &["a.example"]);
    folder.write("kept", "");
    let yaml = format!(
        "{SECURE}state: kept\nlimits: {{ connections: 100000000 }}\nsites:\n  a.example:\n    next: {}\n  b.example:\n    next: http://127.0.0.1:9\n",
        origin.url()
    );
    let edge = Edge::start_in(folder, &yaml);
    let (well, told) = said(&edge.folder, &["doctor"]);
    assert!(!well, "{told}");
    for (what, mend) in [
        ("no certificate for b.example", "tls.acme"),
        ("kept cannot be written to", "give the folder to its user"),
        ("files may be open", "LimitNOFILE="),
        ("idle for 1s", "--keepAliveTimeout"),
        ("also if it is asked not to", "compress: false"),
        ("refuses a head of", "--max-http-header-size"),
        ("127.0.0.1:9 does not answer", "start the application"),
    ] {
        assert!(told.contains(what) && told.contains(mend), "no {what} in\n{told}");
    }
    assert!(told.contains("certificate a.pem holds for"), "{told}");
    drop(edge);
    let alone = Folder::new();
    alone.write("proxy.yaml", "sites:\n  localhost:\n    next: http://127.0.0.1:9\n");
    assert!(said(&alone, &["doctor"]).1.contains("no process answers"));
}

#[test]
fn the_doctor_sees_whether_connections_stay_and_who_would_compress() {
    let origin = Origin::start(|seen, stream| {
        let gzip = seen.header("accept-encoding").is_some_and(|value| value.contains("gzip"));
        let coding = if gzip { "content-encoding: gzip\r\n" } else { "" };
        // Ends the connection, and does not say so.
        reply(stream, "200 OK", coding, b"x");
        false
    });
    let next = format!("{{ targets: [{}], {SHORT} }}", origin.url());
    let edge = Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {next}\n"));
    let (_, told) = said(&edge.folder, &["doctor"]);
    for word in ["before keep.for (200ms)", "a shorter keep.for", "note   ", "would compress"] {
        assert!(told.contains(word), "no {word} in\n{told}");
    }
}

#[test]
fn the_doctor_sees_whether_pages_stream() {
    let origin = Origin::start(|seen, stream| {
        if seen.path() != "/slow" {
            return reply(stream, "200 OK", "content-type: text/html\r\n", b"all of it");
        }
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut sent = stream.write_all(head.as_bytes());
        for _ in 0..5 {
            sent = sent.and_then(|()| stream.write_all(b"5\r\nhello\r\n"));
            std::thread::sleep(Duration::from_millis(200));
        }
        // The doctor asks for the end of the connection.
        sent.and_then(|()| stream.write_all(b"0\r\n\r\n")).expect("sent");
        false
    });
    let (folder, authority) = (Folder::new(), Authority::new());
    authority.issue(&folder, "a", &["a.example"]);
    let next = format!("{{ targets: [{}], {SHORT} }}", origin.url());
    let yaml = format!("{SECURE}sites:\n  a.example:\n    next: {next}\n");
    let edge = Edge::start_in(folder, &yaml);
    let (_, told) = said(&edge.folder, &["doctor", "--stream", "/slow"]);
    for word in ["/slow streams through the edge: ", "/slow streams through the edge, compressed: "]
    {
        assert!(told.contains(word), "no {word} in\n{told}");
    }
    let (_, told) = said(&edge.folder, &["doctor", "--stream", "/fast"]);
    assert!(told.contains("WRONG  /fast comes from") && told.contains("<Suspense>"), "{told}");
    let (_, told) = said(&edge.folder, &["doctor"]);
    assert!(told.contains("note   / comes from") && told.contains("--stream PATH"), "{told}");
    assert!(said(&edge.folder, &["doctor", "--stream", "slow"]).1.contains("is no path"));
}

/// Answers as Next.js does to an action that it does not have, if it likes where the page is from.
fn takes_actions(seen: &Seen, stream: &mut TcpStream, also: &str) -> bool {
    if seen.header("upgrade").is_some() && seen.path().starts_with("/_next/hmr") {
        let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("sent");
        return false;
    }
    let origin = seen.header("origin").and_then(|origin| origin.split_once("://"));
    let told = seen.header("x-forwarded-host");
    match origin {
        Some((_, origin)) if Some(origin) != told && origin != also => {
            reply(stream, "500 Internal Server Error", "", b"")
        }
        _ => reply(stream, "409 Conflict", "x-nextjs-action-not-found: 1\r\n", b""),
    }
}

#[test]
fn the_doctor_sees_whether_actions_and_hot_reload_would_do() {
    let origin = Origin::start(|seen, stream| takes_actions(seen, stream, "known.example"));
    let next = format!("{{ targets: [{}], {SHORT} }}", origin.url());
    let site = format!("{PLAIN}sites:\n  localhost:\n    next: {next}\n");
    let mut edge = Edge::start(&format!(
        "{site}    actions: {{ origins: [known.example, strange.example] }}\n    dev: true\n"
    ));
    let (_, told) = said(&edge.folder, &["doctor"]);
    let through = format!("Server Actions from http://localhost:{}", edge.http().port());
    for word in [
        "takes Server Actions from pages of localhost",
        "takes Server Actions from pages of known.example",
        "answers 500 to Server Actions from pages of strange.example",
        "allowedOrigins: ['strange.example']",
        &format!("{through} come to it with Origin and Host alike"),
        "hot reload comes through the edge, over /_next/hmr",
    ] {
        assert!(told.contains(word), "no {word} in\n{told}");
    }
    edge.reload_with(&site);
    let (_, told) = said(&edge.folder, &["doctor"]);
    assert!(told.contains("is a development server") && told.contains("dev: true"), "{told}");
}

#[test]
fn the_doctor_sees_who_else_is_on_a_redis() {
    let redis = Redis::start();
    let hub = |adapter: &str| {
        format!(
            "{PLAIN}limits: {{ connections: 100 }}\nhub:\n  redis: {{ url: '{}', adapter: {adapter} }}\n  namespaces: {{ /chat: {{ auth: none, events: deny }} }}\n",
            redis.url()
        )
    };
    let edge = Edge::start(&hub("classic"));
    wait_for_metric(&edge, UP, 1);
    let doctor = || said(&edge.folder, &["doctor"]).1;
    let told = eventually("a node", || {
        Some(doctor()).filter(|told| told.contains("1 nodes of this program, 0 other servers"))
    });
    assert!(told.contains("as adapter: classic takes it"), "{told}");
    assert!(told.contains("the process speaks with Redis") && !told.contains("WRONG"), "{told}");
    let mut other = TcpStream::connect(("127.0.0.1", redis.port)).expect("Redis");
    other.write_all(b"SUBSCRIBE socket.io-request#/chat#\r\n").expect("sent");
    eventually("another server", || doctor().contains("1 other servers").then_some(()));
    let mut stranger = TcpStream::connect(("127.0.0.1", redis.port)).expect("Redis");
    stranger.write_all(b"SSUBSCRIBE socket.io#/chat#\r\n").expect("sent");
    let told = eventually("a stranger", || {
        Some(doctor()).filter(|told| told.contains("1 servers speak sharded"))
    });
    assert!(told.contains("WRONG") && told.contains("write adapter: sharded"), "{told}");
    drop(redis);
    assert!(doctor().contains("WRONG  Redis: "), "{}", doctor());
}

#[test]
fn the_manual_page_and_the_completions_know_every_command() {
    let folder = Folder::new();
    let (_, page) = said(&folder, &["man"]);
    assert!(page.starts_with(".ie") || page.contains(".TH vestibule 1"), "{page}");
    for command in ["run", "check", "reload", "diff", "upgrade", "status", "top", "doctor"] {
        assert!(page.contains(&format!(".SS vestibule {command}")), "{command}");
        for shell in ["bash", "zsh", "fish"] {
            let (well, script) = said(&folder, &["completions", shell]);
            assert!(well && script.contains(command), "{shell}: {command}");
        }
    }
    assert!(!page.contains("take-over"), "what is for the next process alone");
}
