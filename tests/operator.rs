//! What the operator looks with: pictures, advice, pages.

use crate::harness::origin::reply;
use crate::harness::{Authority, Edge, Folder, Origin, PLAIN, SECURE, vestibule};

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

#[test]
fn the_doctor_finds_nothing_where_nothing_is_wrong() {
    let origin = Origin::text("ok");
    let limits = "limits: { connections: 100 }\n";
    let yaml = format!("{PLAIN}{limits}sites:\n  localhost:\n    next: {}\n", origin.url());
    let edge = Edge::start(&yaml);
    let (well, told) = said(&edge.folder, &["doctor"]);
    // The kernel counts for the whole machine, and from its start.
    let wrong: Vec<_> = told.lines().filter(|line| line.starts_with("WRONG")).collect();
    let dropped = ["WRONG  the kernel has dropped connections that waited to be accepted"];
    assert!(well == wrong.is_empty() && (well || wrong == dropped), "{told}");
    for word in
        ["proxy.yaml is right", "can be written to", "is ready", "answers 200", "takes a header"]
    {
        assert!(told.contains(word), "no {word} in\n{told}");
    }
}

#[test]
fn the_doctor_says_what_is_wrong_and_how_it_is_mended() {
    let origin = Origin::start(|seen, stream| {
        if seen.header("x-vestibule-doctor").is_some_and(|value| value.len() > 16_000) {
            return reply(stream, "431 Request Header Fields Too Large", "", b"");
        }
        reply(stream, "200 OK", "keep-alive: timeout=3\r\ncontent-encoding: gzip\r\n", b"x")
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
        ("closes idle connections after 3s", "a shorter keep.for"),
        ("compresses what it answers", "compress: false"),
        ("refuses a header of", "--max-http-header-size"),
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
