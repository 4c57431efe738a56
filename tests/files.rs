//! Folders that are served: types, conditions, ranges, and what is not there.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::harness::{Answer, Edge, Folder, PLAIN, vestibule};

const PLAIN_ROUTE: &str = "files: www";

fn edge(route: &str, fill: impl FnOnce(&Folder)) -> Edge {
    let folder = Folder::new();
    fs::create_dir_all(folder.path("www")).expect("a folder");
    fill(&folder);
    let yaml = format!("{PLAIN}sites:\n  localhost:\n    routes: [{{ path: /s/*, {route} }}]\n");
    Edge::start_in(folder, &yaml)
}

fn ask(edge: &Edge, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    edge.connect().ask(method, path, headers, b"")
}

#[test]
fn files_say_what_they_are() {
    let edge = edge(PLAIN_ROUTE, |folder| {
        folder.write("www/a b.css", "body {}");
        folder.write("www/[slug]/(x)/@y.js", "1");
        folder.write("www/index.html", "home");
        folder.write("www/sub/index.html", "sub");
        folder.write("www/empty.txt", "");
        folder.write("www/.well-known/x", "known");
        fs::create_dir(folder.path("www/bare")).expect("a folder");
    });
    let answer = edge.get("/s/a%20b.css");
    assert_eq!((answer.status, answer.text().as_str()), (200, "body {}"));
    assert_eq!(answer.header("content-type"), Some("text/css; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=0, must-revalidate"));
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    assert!(answer.header("etag").is_some_and(|tag| tag.starts_with('"')));
    assert!(answer.header("last-modified").is_some());
    let head = ask(&edge, "HEAD", "/s/a%20b.css", &[]);
    assert_eq!((head.status, head.header("content-length")), (200, Some("7")));
    for (path, expected) in [
        ("/s/%5Bslug%5D/%28x%29/%40y.js", "1"),
        ("/s/", "home"),
        ("/s/sub/", "sub"),
        ("/s/empty.txt", ""),
        ("/s/.well-known/x", "known"),
        ("//s//sub//index.html", "sub"),
    ] {
        let answer = edge.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (200, expected), "{path}");
    }
    for (path, location) in [("/s", "/s/"), ("/s/sub?a=1", "/s/sub/?a=1")] {
        let answer = edge.get(path);
        assert_eq!((answer.status, answer.header("location")), (308, Some(location)), "{path}");
    }
    for path in ["/s/none", "/s/bare", "/s/bare/", "/s/empty.txt/", "/s/a%20b.css/x"] {
        let answer = edge.get(path);
        assert_eq!((answer.status, answer.text().contains("no_file")), (404, true), "{path}");
    }
    let answer = ask(&edge, "POST", "/s/empty.txt", &[]);
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
    edge.access_line(|line| line["path"] == "/s/sub/" && line["status"] == 200);
}

#[test]
fn nothing_outside_and_nothing_hidden_is_there() {
    let edge = edge(PLAIN_ROUTE, |folder| {
        folder.write("secret.txt", "secret");
        folder.write("www/a.txt", "a");
        folder.write("www/.env", "secret");
        folder.write("www/.git/config", "secret");
        folder.write("other/b.txt", "secret");
        let link = |to: &str, from: &str| symlink(to, folder.path(from)).expect("a link");
        link("../secret.txt", "www/out.txt");
        link("../other", "www/outside");
        link("/etc", "www/etc");
        link("a.txt", "www/in.txt");
        link("loop", "www/loop");
        let pipe = Command::new("mkfifo").arg(folder.path("www/pipe")).status();
        assert!(pipe.expect("mkfifo").success());
    });
    assert_eq!(edge.get("/s/in.txt").text(), "a");
    for path in [
        "/s/.env",
        "/s/%2eenv",
        "/s/.git/config",
        "/s/out.txt",
        "/s/outside/b.txt",
        "/s/etc/passwd",
        "/s/loop",
        "/s/pipe",
        "/s/a.txt%20",
        "/s/outside",
        "/s/outside/",
    ] {
        let answer = edge.get(path);
        assert_eq!((answer.status, answer.text().contains("secret")), (404, false), "{path}");
    }
    for path in [
        "/s/../secret.txt",
        "/s/%2e%2e/secret.txt",
        "/s/..%2fsecret.txt",
        "/s/%2e%2e%2fsecret.txt",
        "/s/a.txt%00.html",
        "/s/..\\secret.txt",
        "/s/%5c..%5csecret.txt",
        "/s/%c0%ae%c0%ae/secret.txt",
    ] {
        assert_eq!(edge.get(path).status, 400, "{path}");
    }
    let long = format!("/s/{}", "a".repeat(300));
    assert_eq!(edge.get(&long).status, 404);
    assert_eq!(edge.get("/s/x%2Fa.txt").status, 404);
}

#[test]
fn what_is_known_is_not_sent_again() {
    let edge = edge(PLAIN_ROUTE, |folder| drop(folder.write("www/a.txt", "0123456789")));
    let first = edge.get("/s/a.txt");
    let (tag, date) =
        (first.header("etag").expect("a tag"), first.header("last-modified").expect("a date"));
    let get = |headers: &[(&str, &str)]| ask(&edge, "GET", "/s/a.txt", headers);
    for headers in
        [[("If-None-Match", tag)], [("If-None-Match", "\"x\", *")], [("If-Modified-Since", date)]]
    {
        let answer = get(&headers);
        assert_eq!((answer.status, answer.header("etag")), (304, Some(tag)), "{headers:?}");
    }
    assert_eq!(get(&[("If-None-Match", "\"x\"")]).status, 200);
    assert_eq!(get(&[("If-Match", "\"x\"")]).status, 412);
    for (range, expected, content) in [
        ("bytes=0-3", "0123", "bytes 0-3/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=5-500", "56789", "bytes 5-9/10"),
    ] {
        let answer = get(&[("Range", range), ("If-Range", tag)]);
        assert_eq!((answer.status, answer.text().as_str()), (206, expected), "{range}");
        assert_eq!(answer.header("content-range"), Some(content));
        assert_eq!(answer.header("content-length"), Some(expected.len().to_string().as_str()));
    }
    let answer = get(&[("Range", "bytes=0-1, 20-30, -2")]);
    assert_eq!((answer.status, answer.header("content-range")), (206, None));
    let kind = answer.header("content-type").expect("a type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect("several parts");
    let part = |range: &str, text: &str| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes {range}/10\r\n\r\n{text}"
        )
    };
    let whole = format!("{}{}\r\n--{boundary}--\r\n", part("0-1", "01"), part("8-9", "89"));
    assert_eq!(answer.text(), whole);
    // More than there is costs no more than that.
    assert_eq!(get(&[("Range", "bytes=0-,1-,2-,3-")]).text(), "0123456789");
    assert_eq!(get(&[("Range", "bytes=0-1,30-")]).text(), "01");
    let answer = get(&[("Range", "bytes=10-")]);
    assert_eq!((answer.status, answer.header("content-range")), (416, Some("bytes */10")));
    assert_eq!(get(&[("Range", "bytes=0-1"), ("If-Range", "\"x\"")]).status, 200);
    // Another file has another tag.
    edge.folder.write("www/a.txt", "something else");
    assert_eq!(get(&[("If-None-Match", tag)]).text(), "something else");
}

#[test]
fn compressed_files_stand_beside() {
    let edge = edge(PLAIN_ROUTE, |folder| {
        folder.write("www/a.js", "plain");
        folder.write("www/a.js.br", "brotli");
        folder.write("www/a.js.gz", "gzip");
        folder.write("www/b.js", "plain");
        folder.write("www/only.js.gz", "gzip");
    });
    let get = |path: &str, accept: &str| ask(&edge, "GET", path, &[("Accept-Encoding", accept)]);
    let plain = edge.get("/s/a.js");
    assert_eq!((plain.text().as_str(), plain.header("content-encoding")), ("plain", None));
    for (accept, encoding, text) in [
        ("gzip, deflate, br, zstd", Some("br"), "brotli"),
        ("gzip", Some("gzip"), "gzip"),
        ("br;q=0.1, gzip;q=0.9", Some("gzip"), "gzip"),
        ("zstd", None, "plain"),
        ("br;q=0", None, "plain"),
    ] {
        let answer = get("/s/a.js", accept);
        assert_eq!(
            (answer.header("content-encoding"), answer.text().as_str()),
            (encoding, text),
            "{accept}"
        );
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
        assert_eq!(answer.header("etag") == plain.header("etag"), encoding.is_none());
    }
    assert_eq!(get("/s/b.js", "gzip").text(), "plain");
    assert_eq!(get("/s/only.js", "gzip").status, 404);
}

#[test]
fn large_files_come_whole_and_in_flat_memory() {
    const MEGABYTES: usize = 64;
    let edge = edge(PLAIN_ROUTE, |folder| {
        let bytes: Vec<u8> =
            (0..MEGABYTES << 20).map(|at| u8::try_from(at % 251).expect("a byte")).collect();
        fs::write(folder.path("www/large.bin"), bytes).expect("a file");
    });
    edge.get("/s/none");
    let before = edge.resident_peak_kb();
    let answer = edge.get("/s/large.bin");
    assert_eq!(answer.body.len(), MEGABYTES << 20);
    assert!(answer.body.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251));
    let grown = edge.resident_peak_kb().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more for {MEGABYTES} MiB");
    let several = [("Range", "bytes=0-999999,5000000-5999999,1-1")];
    let answer = ask(&edge, "GET", "/s/large.bin", &several);
    let length = answer.header("content-length").map(str::to_owned);
    assert_eq!((answer.status, length), (206, Some(answer.body.len().to_string())));
    assert!((2_000_001..2_000_500).contains(&answer.body.len()), "{}", answer.body.len());
    let answer = ask(&edge, "GET", "/s/large.bin", &[("Range", "bytes=1000000-1400000")]);
    assert_eq!((answer.status, answer.body.len()), (206, 400_001));
    assert_eq!(usize::from(answer.body[0]), 1_000_000 % 251);
}

#[test]
fn applications_of_one_page_answer_everywhere_but_for_files() {
    let route = "files: { root: www, fallback: app.html, index: [], cache: 1y, immutable: true }";
    let edge = edge(route, |folder| drop(folder.write("www/app.html", "app")));
    for path in ["/s/", "/s/deep/place", "/s/app.html"] {
        let answer = edge.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (200, "app"), "{path}");
    }
    assert_eq!(
        edge.get("/s/app.html").header("cache-control"),
        Some("public, max-age=31536000, immutable")
    );
    assert_eq!(edge.get("/s/gone.js").status, 404);
}

#[test]
fn a_folder_that_is_not_there_is_told_of() {
    let folder = Folder::new();
    folder.write("proxy.yaml", "sites:\n  localhost:\n    routes: [{ path: /s/*, files: none }]\n");
    let output = vestibule(&["check"], &folder);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("sites.localhost") && said.contains("none is no folder"), "{said}");
}
