//! The lines of exchanges: their shapes, what is left out of them, and files that are moved away.

use std::fs;
use std::process::Command;

use crate::harness::{Edge, Folder, Origin, PLAIN, eventually};

fn edge(origin: &Origin, access: &str) -> Edge {
    Edge::start(&format!(
        "{PLAIN}sites:\n  localhost:\n    next: {}\nlog: {{ access: {access} }}\n",
        origin.url()
    ))
}

/// The lines of a file once `wanted` is in them.
fn lines(edge: &Edge, file: &str, wanted: &str) -> Vec<String> {
    eventually(wanted, || {
        let text = fs::read_to_string(edge.folder.path(file)).unwrap_or_default();
        text.contains(wanted).then(|| text.lines().map(str::to_owned).collect())
    })
}

const HEADERS: [(&str, &str); 4] = [
    ("User-Agent", "test/1 \"quoted\""),
    ("Referer", "https://a.example/?code=s3cret&x=1"),
    ("Cookie", "session=s3cret"),
    ("Authorization", "Bearer s3cret"),
];

#[test]
fn lines_have_the_shape_that_was_asked_for_and_no_secrets() {
    let origin = Origin::text("hello");
    for (access, start, end) in [
        (
            "{ to: access.log, format: combined }",
            "127.0.0.1 - - [",
            r#" +0000] "GET /page?access_token=***&x=1 HTTP/1.1" 200 5 "https://a.example/?code=***&x=1" "test/1 \"quoted\"""#,
        ),
        (
            "{ to: access.log, format: '{method} {host} {target} {status} {bytes} {route} {tls} {header.X-Id}' }",
            "GET localhost /page?access_token=***&x=1 200 5 next - -",
            "",
        ),
        ("access.log", "{\"time\":\"", "\\\"quoted\\\"\"}"),
    ] {
        let edge = edge(&origin, access);
        edge.connect().ask("GET", "/page?access_token=s3cret&x=1", &HEADERS, b"");
        let lines = lines(&edge, "access.log", "/page");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with(start) && lines[0].ends_with(end), "{}", lines[0]);
        assert!(!lines[0].contains("s3cret"), "{}", lines[0]);
    }
}

#[test]
fn lines_say_who_was_asked_how_often_and_for_how_long() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::start(move |seen, stream| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let first = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        match seen.path() {
            // Nobody answers the first time.
            "/again" if first => false,
            "/nonsense" => std::io::Write::write_all(stream, b"what?\r\n\r\n").is_ok(),
            _ => crate::harness::origin::reply(stream, "200 OK", "", b"hello"),
        }
    });
    let url = origin.url();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let edge = edge(&origin, "stdout");
    let mut client = edge.connect();
    assert_eq!(client.ask("GET", "/again", &[("traceparent", &parent)], b"").status, 200);
    let line = edge.access_line(|line| line["path"] == "/again");
    assert_eq!(
        (line["upstream"].as_str(), line["tries"].as_u64()),
        (Some(&*url), Some(2)),
        "{line}"
    );
    assert_eq!(line["trace"], trace, "{line}");
    let (took, all) = (line["upstream_ms"].as_f64(), line["ms"].as_f64().expect("a time"));
    assert!(took.is_some_and(|took| (40.0..=all).contains(&took)), "{line}");
    // What failed was asked too, and has no time of an answer.
    assert_eq!(client.get("/nonsense").status, 502);
    let line = edge.access_line(|line| line["path"] == "/nonsense");
    assert_eq!(
        (line["upstream"].as_str(), line["tries"].as_u64()),
        (Some(&*url), Some(1)),
        "{line}"
    );
    assert!(line["upstream_ms"].is_null() && line["trace"].is_null(), "{line}");
    // The edge's own answers ask nobody.
    assert_eq!(edge.get("/health").status, 200);
    let line = edge.access_line(|line| line["path"] == "/health");
    assert!(line["upstream"].is_null() && line["tries"].is_null(), "{line}");
    let edge =
        self::edge(&origin, "{ to: access.log, format: '{path} {upstream} {tries} {trace}' }");
    edge.get("/page");
    assert_eq!(lines(&edge, "access.log", "/page"), [format!("/page {url} 1 -")]);
}

#[test]
fn what_is_redacted_can_be_chosen() {
    let origin = Origin::text("hello");
    let edge = edge(&origin, "{ to: access.log, redact: [mail] }");
    edge.get("/page?token=1&e-mail=me");
    let lines = lines(&edge, "access.log", "/page");
    assert!(lines[0].contains("\"query\":\"token=1&e-mail=***\""), "{}", lines[0]);
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let origin = Origin::text("hello");
    let edge = edge(&origin, "access.log");
    edge.get("/before");
    lines(&edge, "access.log", "/before");
    fs::rename(edge.folder.path("access.log"), edge.folder.path("access.log.1")).expect("moved");
    edge.get("/between");
    lines(&edge, "access.log.1", "/between");
    edge.signal("USR1");
    eventually("the new file", || edge.folder.path("access.log").exists().then_some(()));
    edge.get("/after");
    assert_eq!(lines(&edge, "access.log", "/after").len(), 1);
    assert_eq!(lines(&edge, "access.log.1", "/between").len(), 2);
}

#[test]
fn no_lines_if_none_are_wanted() {
    let origin = Origin::text("hello");
    let mut edge = edge(&origin, "none");
    edge.get("/before");
    let yaml = format!(
        "{PLAIN}sites:\n  localhost:\n    next: {}\nlog: {{ access: access.log }}\n",
        origin.url()
    );
    edge.reload_with(&yaml);
    edge.get("/after");
    let lines = lines(&edge, "access.log", "/after");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(edge.access().is_empty());
}

/// Nobody reads what is written: the process does not wait for them with its own affairs.
#[test]
fn a_log_that_is_stuck_keeps_no_reload_and_no_stop_waiting() {
    let origin = Origin::text("ok");
    let folder = Folder::new();
    let made = Command::new("mkfifo").arg(folder.path("pipe")).status().expect("mkfifo");
    assert!(made.success());
    let yaml = format!(
        "{PLAIN}sites:\n  localhost:\n    next: {}\nlog: {{ access: pipe }}\n",
        origin.url()
    );
    let mut edge = Edge::start_in(folder, &yaml);
    // More than the writer's queue holds.
    let path = format!("/{}", "a".repeat(30_000));
    let mut client = edge.connect();
    eventually("lines that are lost", || {
        client.get(&path);
        let page = edge.admin("GET", "/metrics").text();
        let lost = page.lines().find(|line| line.starts_with("vestibule_access_lines_lost_total "));
        lost.is_some_and(|line| !line.ends_with(" 0")).then_some(())
    });
    edge.reload();
    edge.signal("USR1");
    edge.reload();
    edge.signal("TERM");
    assert!(edge.ended().success());
}
