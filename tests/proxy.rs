//! What the application sees, what the client gets back, and what happens when one of them fails.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use crate::harness::node::free_address;
use crate::harness::origin::reply;
use crate::harness::{Edge, Folder, Origin, PLAIN, eventually};

fn site(next: &str, more: &str) -> Edge {
    Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {next}\n{more}"))
}

#[test]
fn forwarding_headers_are_the_connections_not_the_clients() {
    let origin = Origin::text("ok");
    let edge = site(&origin.url(), "");
    let lies = [
        ("Host", "LocalHost:8080"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Port", "1"),
        ("X-Real-IP", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"),
    ];
    edge.connect().ask("GET", "/", &lies, b"");
    let seen = origin.seen().remove(0);
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-host"), ["localhost:8080"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("x-forwarded-port"), ["8080"]);
    assert_eq!(seen.all("host"), ["localhost:8080"]);
    assert!(seen.all("x-real-ip").is_empty() && seen.all("forwarded").is_empty(), "{seen:?}");
}

#[test]
fn a_trusted_peer_speaks_for_others() {
    let origin = Origin::text("ok");
    let edge = site(&origin.url(), "trust: [127.0.0.0/8]\n");
    let told = [("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-Proto", "https")];
    edge.connect().ask("GET", "/", &told, b"");
    let seen = origin.seen().remove(0);
    assert_eq!(seen.all("x-forwarded-for"), ["1.2.3.4, 127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("x-forwarded-port"), ["443"]);
    edge.access_line(|line| line["client"] == "1.2.3.4");
}

#[test]
fn a_trusted_peer_may_say_it_with_forwarded() {
    let origin = Origin::text("ok");
    let edge = site(&origin.url(), "trust: [127.0.0.0/8]\n");
    let element = "for=6.6.6.6, for=\"[2001:db8::7]:4711\";host=\"localhost:8443\";proto=https";
    let ask = |more: &[(&str, &str)]| {
        let told = [&[("Forwarded", element)], more].concat();
        edge.connect().ask("GET", "/", &told, b"")
    };
    assert_eq!(ask(&[]).status, 200);
    let seen = origin.seen().remove(0);
    assert_eq!(seen.all("x-forwarded-for"), ["2001:db8::7, 127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-host"), ["localhost:8443"]);
    assert_eq!(seen.all("host"), ["localhost:8443"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("x-forwarded-port"), ["8443"]);
    assert!(seen.all("forwarded").is_empty(), "{seen:?}");
    edge.access_line(|line| line["client"] == "2001:db8::7");
    assert_eq!(ask(&[("X-Forwarded-For", "2001:db8::7")]).status, 200);
    let other = ask(&[("X-Forwarded-For", "203.0.113.9")]);
    assert_eq!((other.status, other.text().contains("bad_forwarded")), (400, true));
    assert_eq!(origin.seen().len(), 2);
    edge.access_line(|line| line["reason"] == "bad_forwarded" && line["client"] == "127.0.0.1");
}

/// A peer that adds to the line that its client wrote: an address is never passed over for what else
/// stands there.
#[test]
fn a_trusted_peer_is_not_itself_the_client_because_its_line_cannot_be_read() {
    let origin = Origin::text("ok");
    let ask = |more: &str| {
        let edge = site(&origin.url(), more);
        let mut client = edge.connect();
        let line = b"X-Forwarded-For: \xff, 203.0.113.7\r\n";
        client.send([b"GET / HTTP/1.1\r\nHost: localhost\r\n", &line[..], b"\r\n"].concat());
        client.answer()
    };
    let refused = ask("    allow: [127.0.0.0/8]\ntrust: [127.0.0.0/8]\n");
    assert_eq!((refused.status, refused.text().contains("bad_forwarded")), (400, true));
    assert!(origin.seen().is_empty());
    // Whoever is not trusted is not read.
    assert_eq!(ask("").status, 200);
    assert_eq!(origin.seen().remove(0).all("x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn options_go_as_far_as_they_are_meant_to() {
    let origin = Origin::text("ok");
    let routes = "    routes:\n      - { path: /a, method: [GET, OPTIONS] }\n";
    let edge = site(&origin.url(), routes);
    let ask = |method: &str, path: &str, left: &str| {
        edge.connect().ask(method, path, &[("Max-Forwards", left)], b"")
    };
    let answer = ask("OPTIONS", "/a", "0");
    assert_eq!((answer.status, answer.header("allow")), (204, Some("GET, OPTIONS")));
    let answer = ask("OPTIONS", "/b", "0");
    assert_eq!((answer.status, answer.header("allow")), (204, None));
    assert!(origin.seen().is_empty());
    for (method, left, sent) in
        [("OPTIONS", "1", "0"), ("OPTIONS", "70", "69"), ("OPTIONS", "x", "x"), ("GET", "0", "0")]
    {
        assert_eq!(ask(method, "/a", left).status, 200, "{method} {left}");
        let seen = origin.seen().pop().expect("a request");
        assert_eq!(seen.all("max-forwards"), [sent], "{method} {left}");
    }
    // Nobody is shown what others on the way have added.
    assert_eq!(ask("TRACE", "/a", "0").status, 501);
    assert_eq!(ask("TRACE", "/a", "5").status, 501);
}

#[test]
fn a_trusted_peer_may_call_it_wss() {
    let origin = Origin::text("ok");
    let hub = "trust: [127.0.0.0/8]\nhub: { namespaces: { /: { auth: none } } }\n";
    let edge = Edge::start(&format!(
        "{PLAIN}{hub}sites:\n  app.example:\n    next: {}\n    routes:\n      - {{ path: /ws, upgrade: true }}\n",
        origin.url()
    ));
    let socket = |path: &str, more: &[(&str, &str)]| {
        let said = [
            ("Host", "app.example"),
            ("Origin", "https://app.example"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let mut client = edge.connect();
        client.send(
            [&said, more]
                .concat()
                .iter()
                .fold(format!("GET {path} HTTP/1.1\r\n"), |head, (name, value)| {
                    head + &format!("{name}: {value}\r\n")
                })
                + "\r\n",
        );
        client.head().status
    };
    let hub = "/socket.io/?EIO=4&transport=websocket";
    for more in [
        &[("X-Forwarded-Proto", "wss"), ("X-Forwarded-Port", "443")][..],
        &[("X-Forwarded-Proto", "WSS")],
        &[("Forwarded", "for=192.0.2.7;proto=wss;host=app.example")],
    ] {
        assert_eq!(socket(hub, more), 101, "{more:?}");
        // The application is told by the word that it knows.
        let _refused = socket("/ws", more);
        let seen = origin.seen().pop().expect("a request");
        assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
        assert_eq!(seen.all("x-forwarded-host"), ["app.example"]);
    }
}

/// What others write in a request that passes them, applications believe.
#[test]
fn claims_about_a_client_come_from_trusted_peers_alone() {
    let origin = Origin::text("ok");
    let claims = [
        ("X-Forwarded-User", "root"),
        ("X-Forwarded-Email", "root@a.test"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Forwarded-Client-Cert", "By=a"),
        ("X-Original-Method", "GET"),
        ("X-Original-Forwarded-For", "6.6.6.6"),
    ];
    let never = [("X_Original_URI", "/open"), ("X-Original-URL", "/open"), ("X-Rewrite-URL", "/")];
    let others = [("X-Original-Filename", "a.txt")];
    for (trust, passes) in [("", false), ("trust: [127.0.0.0/8]\n", true)] {
        let edge = site(&origin.url(), trust);
        edge.connect().ask("GET", "/", &[&claims[..], &never, &others].concat(), b"");
        let seen = origin.seen().pop().expect("a request");
        let check = |all: &[(&str, &str)], passes: bool| {
            for (name, value) in all {
                let expected = if passes { vec![*value] } else { vec![] };
                assert_eq!(seen.all(&name.to_lowercase()), expected, "{name} {trust}");
            }
        };
        check(&claims, passes);
        check(&never, false);
        check(&others, true);
    }
}

#[test]
fn a_chain_of_proxies_that_are_trusted_is_read_to_its_first_stranger() {
    let origin = Origin::text("ok");
    let edge = site(&origin.url(), "trust: [127.0.0.0/8, 10.0.0.0/8]\n");
    let chain = "6.6.6.6, 203.0.113.7, 10.0.0.2, 10.0.0.3";
    edge.connect().ask("GET", "/", &[("X-Forwarded-For", chain)], b"");
    edge.access_line(|line| line["client"] == "203.0.113.7");
}

#[test]
fn a_response_that_goes_silent_is_told_from_one_that_is_cut() {
    let origin = Origin::start(|seen, stream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
        stream.write_all(head.as_bytes()).expect("sent");
        while seen.path() == "/silent" && stream.read(&mut [0]).is_ok_and(|count| count > 0) {}
        false
    });
    let edge = site(&origin.url(), "timeouts: { body_idle: 300ms }\n");
    for (path, reason) in [("/silent", "upstream_idle"), ("/cut", "upstream_cut")] {
        let mut client = edge.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.head().status, 200);
        client.rest();
        edge.access_line(|line| line["path"] == path && line["reason"] == reason);
    }
}

#[test]
fn connection_headers_and_nexts_own_stay_on_their_side() {
    let origin = Origin::start(|_, stream| {
        let headers = "x-middleware-rewrite: /secret\r\nx-powered-by: Next.js\r\nkeep-alive: timeout=5\r\nx-nextjs-prerender: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n";
        reply(stream, "200 OK", headers, b"ok")
    });
    let edge = site(&origin.url(), "");
    let sent = [
        ("Connection", "X-Private, keep-alive, x-forwarded-host"),
        ("X-Private", "1"),
        ("TE", "trailers"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("x-middleware-subrequest", "middleware"),
        ("x-middleware-prefetch", "1"),
        ("x-nextjs-data", "1"),
        ("next-resume", "1"),
        ("RSC", "1"),
        ("Next-Router-State-Tree", "%5B%22%22%5D"),
        ("Next-Action", "abc"),
    ];
    let answer = edge.connect().ask("GET", "/p%5Bx%5D?a=1&nxtPslug=2&_rsc=abc", &sent, b"");
    let seen = origin.seen().remove(0);
    assert_eq!(seen.line, "GET /p%5Bx%5D?a=1&_rsc=abc HTTP/1.1");
    for gone in [
        "x-private",
        "proxy-authorization",
        "x-middleware-subrequest",
        "x-middleware-prefetch",
        "x-nextjs-data",
        "next-resume",
    ] {
        assert!(seen.all(gone).is_empty(), "{gone}: {seen:?}");
    }
    // Trailers are taken by the client, so the application may send some.
    assert_eq!((seen.header("te"), seen.header("connection")), (Some("trailers"), Some("te")));
    for kept in ["rsc", "next-router-state-tree", "next-action", "x-forwarded-host"] {
        assert_eq!(seen.all(kept).len(), 1, "{kept}: {seen:?}");
    }
    for gone in ["x-middleware-rewrite", "x-powered-by", "keep-alive"] {
        assert_eq!(answer.header(gone), None, "{answer:?}");
    }
    assert_eq!(answer.header("x-nextjs-prerender"), Some("1"));
    let cookies = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    assert_eq!(cookies.count(), 2);
}

#[test]
fn redirects_to_the_bind_address_become_public() {
    let origin = Origin::start(|seen, stream| {
        let own = stream.local_addr().expect("an address").port();
        let location = match seen.path() {
            // A command on the client's machine, which waits for the end of its login.
            "/login" => "http://127.0.0.1:1/cb?code=x".to_owned(),
            _ => "http://0.0.0.0:3000/chat?a=1".to_owned(),
        };
        let headers =
            format!("location: {location}\r\nrefresh: 0;url=http://localhost:{own}/chat\r\n");
        reply(stream, "307 Temporary Redirect", &headers, b"")
    });
    let edge = Edge::start(&format!("{PLAIN}sites:\n  app.example:\n    next: {}\n", origin.url()));
    let answer = edge.connect().ask("GET", "/", &[("Host", "app.example")], b"");
    assert_eq!(answer.header("location"), Some("http://app.example/chat?a=1"));
    assert_eq!(answer.header("refresh"), Some("0;url=http://app.example/chat"));
    let answer = edge.connect().ask("GET", "/login", &[("Host", "app.example")], b"");
    assert_eq!(answer.header("location"), Some("http://127.0.0.1:1/cb?code=x"));
}

#[test]
fn a_response_streams_as_it_is_made() {
    // The second chunk is sent only when the client has told that it has the first.
    let (got, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |_, stream| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/html\r\n\r\n5\r\nfirst\r\n";
        stream.write_all(head.as_bytes()).expect("sent");
        wait.lock()
            .expect("a lock")
            .recv_timeout(Duration::from_secs(10))
            .expect("the client has the first chunk");
        stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").is_ok()
    });
    let edge = site(&origin.url(), "");
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.chunk().as_deref(), Some(&b"first"[..]));
    got.send(()).expect("the application waits");
    assert_eq!(client.chunk().as_deref(), Some(&b"last"[..]));
    assert_eq!(client.chunk(), None);
}

#[test]
fn an_upload_streams_in_flat_memory() {
    const MEGABYTES: usize = 100;
    let origin = sink();
    let edge = site(&origin, "limits: { body: 200MB }\n");
    edge.get("/warm");
    let before = edge.resident_peak_kb();
    let mut client = edge.connect();
    let length = MEGABYTES * 1024 * 1024;
    client
        .send(format!("POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"));
    let piece = vec![7; 1024 * 1024];
    for _ in 0..MEGABYTES {
        client.send(&piece);
    }
    let answer = client.answer();
    assert_eq!(answer.text(), length.to_string());
    let grown = edge.resident_peak_kb().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more for {MEGABYTES} MiB");
}

/// Counts bytes instead of keeping them.
fn sink() -> String {
    use std::io::{BufRead as _, BufReader, Read as _};
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                let mut reader =
                    BufReader::with_capacity(256 * 1024, stream.try_clone().expect("a clone"));
                loop {
                    let (mut length, mut line) = (0, String::new());
                    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                        let lower = line.to_ascii_lowercase();
                        if let Some(value) = lower.strip_prefix("content-length:") {
                            length = value.trim().parse().expect("a length");
                        }
                        line.clear();
                    }
                    let mut body = std::io::Read::by_ref(&mut reader).take(length);
                    let count = std::io::copy(&mut body, &mut std::io::sink()).expect("a body");
                    if !reply(&mut stream, "200 OK", "", count.to_string().as_bytes()) {
                        return;
                    }
                }
            });
        }
    });
    format!("http://{address}")
}

#[test]
fn bodies_over_the_limit_are_refused_before_they_are_read() {
    let origin = Origin::text("ok");
    let routes = "    routes: [{ path: /big/*, body: 3KB }]\nlimits: { body: 1KB }\n";
    let edge = site(&origin.url(), routes);
    assert_eq!(edge.connect().ask("POST", "/", &[], &[0; 1000]).status, 200);
    assert_eq!(edge.connect().ask("POST", "/big/1", &[], &[0; 3000]).status, 200);
    let count = origin.seen().len();
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text().contains("body_too_large")), (413, true));
    assert_eq!(origin.seen().len(), count);
    // Without a length it shows only on the way.
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000)));
    assert_eq!(client.answer().status, 413);
}

#[test]
fn connections_to_the_application_are_kept_and_obey_its_word() {
    let origin = Origin::start(|seen, stream| {
        let keep = if seen.path() == "/short" {
            "keep-alive: timeout=1\r\n"
        } else {
            "keep-alive: timeout=5\r\n"
        };
        reply(stream, "200 OK", keep, b"ok")
    });
    let edge = Edge::start(&format!(
        "{}sites:\n  localhost:\n    next: {}\n",
        PLAIN.replace("workers: 2", "workers: 1"),
        origin.url()
    ));
    for _ in 0..5 {
        edge.get("/");
    }
    assert_eq!(
        origin.seen().last().map(|seen| seen.connection),
        origin.seen().first().map(|seen| seen.connection)
    );
    // One second of patience is none after the margin: the connection is not used again.
    edge.get("/short");
    edge.get("/");
    let seen = origin.seen();
    assert_ne!(seen[seen.len() - 1].connection, seen[seen.len() - 2].connection);
}

#[test]
fn a_stale_connection_is_no_error() {
    // Closes after each answer without saying so: the worst a server can do to a pool.
    let origin = Origin::start(|_, stream| {
        reply(stream, "200 OK", "", b"ok");
        false
    });
    let edge = site(&origin.url(), "");
    for number in 0..50 {
        assert_eq!(edge.get("/").status, 200, "request {number}");
    }
}

#[test]
fn each_failure_of_the_application_has_its_answer() {
    // Nobody listens.
    let port = free_address();
    let edge = site(&format!("{{ targets: ['http://{port}'], hold: none }}"), "");
    let answer = edge.get("/");
    assert!(answer.status == 502 || answer.status == 503, "{answer:?}");
    assert!(answer.text().contains("upstream_"), "{answer:?}");

    // Closes without an answer, answers nonsense, answers too late.
    let origin = Origin::start(|seen, stream| match seen.path() {
        "/close" => false,
        "/nonsense" => stream.write_all(b"hello?\r\n\r\n").is_ok(),
        _ => {
            std::thread::sleep(Duration::from_secs(5));
            false
        }
    });
    let edge = site(&origin.url(), "timeouts: { first_byte: 1500ms }\n");
    for (path, status, reason) in [
        ("/close", 502, "upstream_closed"),
        ("/nonsense", 502, "upstream_bad_response"),
        ("/slow", 504, "upstream_slow"),
    ] {
        let answer = edge.get(path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.text().contains(reason), "{path}: {answer:?}");
        edge.access_line(|line| line["path"] == path && line["reason"] == reason);
    }
}

#[test]
fn a_cut_response_is_never_a_short_one() {
    let origin = Origin::start(|seen, stream| {
        let head = match seen.path() {
            "/length" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
            _ => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        };
        stream.write_all(head.as_bytes()).expect("sent");
        false
    });
    let edge = site(&origin.url(), "");
    for path in ["/length", "/chunked"] {
        let mut client = edge.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.head().status, 200);
        let rest = String::from_utf8_lossy(&client.rest()).into_owned();
        assert!(!rest.ends_with("0\r\n\r\n"), "{path}: a clean end: {rest:?}");
        assert!(rest.len() < 100, "{path}: {rest:?}");
        let line = edge.access_line(|line| line["path"] == path);
        assert_eq!(line["reason"], "upstream_cut", "{line}");
    }
}

#[test]
fn a_client_that_leaves_takes_its_request_with_it() {
    let (left, gone) = std::sync::mpsc::channel();
    let left = std::sync::Mutex::new(left);
    let origin = Origin::start(move |_, stream| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("sent");
        while stream.write_all(b"1\r\nx\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
        left.lock().expect("a lock").send(()).expect("the test waits");
        false
    });
    let edge = site(&origin.url(), "");
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.head();
    client.chunk();
    drop(client);
    gone.recv_timeout(Duration::from_secs(30)).expect("the application's connection was closed");
}

#[test]
fn several_targets_share_and_one_that_is_gone_is_passed_over() {
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let nobody = free_address();
    let targets =
        format!("{{ targets: [{}, {}, 'http://{nobody}'], balance: round }}", one.url(), two.url());
    let edge = site(&targets, "");
    for number in 0..30 {
        assert_eq!(edge.get("/").status, 200, "request {number}");
    }
    assert!(one.seen().len() >= 8, "{}", one.seen().len());
    assert!(two.seen().len() >= 8, "{}", two.seen().len());
}

#[test]
fn an_application_on_a_unix_socket() {
    let folder = Folder::new();
    let path = folder.path("app.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut buffer = [0; 4096];
            while std::io::Read::read(&mut stream, &mut buffer).is_ok_and(|read| read > 0) {
                let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nunix");
            }
        }
    });
    let edge = site(&format!("unix:{}", path.display()), "");
    assert_eq!(edge.get("/").text(), "unix");
    assert_eq!(edge.get("/").text(), "unix");
}

#[test]
fn routes_go_to_other_upstreams_without_their_prefix() {
    let (app, docs) = (Origin::echo(), Origin::echo());
    let edge = site(
        &app.url(),
        &format!("    routes: [{{ path: /docs/*, to: '{}', strip: /docs }}]\n", docs.url()),
    );
    assert_eq!(edge.get("/docs/a?b").json()["line"], "GET /a?b HTTP/1.1");
    assert_eq!(edge.get("/docs").json()["line"], "GET / HTTP/1.1");
    assert_eq!(edge.get("/docsy").json()["line"], "GET /docsy HTTP/1.1");
    assert_eq!((app.seen().len(), docs.seen().len()), (1, 2));
}

#[test]
fn an_early_answer_ends_the_upload() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut buffer = [0; 1024];
            let _head = std::io::Read::read(&mut stream, &mut buffer);
            let _sent = stream.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    let edge = site(&format!("http://{address}"), "limits: { body: 1GB }\n");
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000000\r\n\r\n");
    let begun = Instant::now();
    let piece = vec![0; 64 * 1024];
    for _ in 0..4 {
        let _maybe = client.try_send(&piece);
    }
    let answer = client.answer();
    assert_eq!((answer.status, answer.text().as_str()), (413, "no"));
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[test]
fn readiness_follows_the_targets() {
    let folder = Folder::new();
    let socket = folder.path("late.sock");
    let edge = site(
        &format!(
            "{{ targets: ['unix:{}'], health: {{ every: 100ms, timeout: 100ms }} }}",
            socket.display()
        ),
        "",
    );
    let answer = eventually("not ready", || {
        let answer = edge.admin("GET", "/health/ready");
        (answer.status == 503).then_some(answer)
    });
    assert!(
        answer.json()["reasons"][0].as_str().is_some_and(|why| why.contains("late.sock")),
        "{}",
        answer.text()
    );
    let _listener = UnixListener::bind(&socket).expect("a socket");
    eventually("ready", || (edge.admin("GET", "/health/ready").status == 200).then_some(()));
}

/// What a request is answered that came by these edges.
fn passed_by(edge: &Edge, line: &str) -> u16 {
    let passed = [("CDN-Loop", "another; a=1"), ("CDN-Loop", line)];
    edge.connect().ask("GET", "/page", &passed, b"").status
}

#[test]
fn a_request_does_not_go_round_for_ever() {
    let origin = Origin::text("ok");
    let yaml = |next: &str| format!("{PLAIN}sites:\n  localhost:\n    next: {next}\n");
    let mut edge = Edge::start(&yaml(&origin.url()));
    // An application may come back a few times, through a rewrite to a page of its own host.
    assert_eq!(passed_by(&edge, &["vestibule"; 7].join(", ")), 200);
    let seen = origin.seen().remove(0);
    assert_eq!(seen.all("cdn-loop").len(), 3, "{seen:?}");
    assert_eq!(seen.all("cdn-loop").last(), Some(&"vestibule"));
    assert_eq!(passed_by(&edge, &["vestibule"; 8].join(",")), 508);
    assert_eq!(origin.seen().len(), 1);
    // Its own upstream.
    let itself = format!("http://{}", edge.http());
    edge.reload_with(&yaml(&itself));
    let answer = edge.connect().ask("POST", "/itself", &[], b"body");
    assert_eq!(answer.status, 508, "{answer:?}");
    let asked = || edge.access().into_iter().filter(|line| line["path"] == "/itself");
    let lines = eventually("each access line", || {
        let lines: Vec<_> = asked().collect();
        (lines.len() == 9).then_some(lines)
    });
    assert!(lines.iter().all(|line| line["status"] == 508), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line["reason"] == "loop").count(), 1, "{lines:?}");
    // Two that point at each other.
    let other = Edge::start(&yaml(&itself));
    edge.reload_with(&yaml(&format!("http://{}", other.http())));
    assert_eq!(edge.get("/both").status, 508);
    assert_eq!(other.get("/both").status, 508);
    edge.reload_with(&yaml(&origin.url()));
    assert_eq!(other.get("/").status, 200, "one edge behind another is none");
}
