//! Which route a request takes, and what it does to it.

use std::fs;
use std::path::Path;

use crate::harness::{Answer, Authority, Client, Edge, Folder, Origin, PLAIN, SECURE, eventually};

fn site(next: &str, more: &str) -> Edge {
    Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {next}\n{more}"))
}

fn all<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let same = answer.headers.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
    same.map(|(_, value)| value.as_str()).collect()
}

#[test]
fn a_guarded_path_is_guarded_however_it_is_written() {
    let (origin, open) = (Origin::text("ok"), Origin::text("open"));
    let routes = format!(
        "    routes:\n      - {{ path: /admin/*, allow: [10.0.0.0/8] }}\n      - {{ path: /open/*, to: '{}' }}\n",
        open.url()
    );
    let edge = site(&origin.url(), &routes);
    for path in ["/admin", "/admin/x", "/%61dmin/x", "//admin/x", "/admin//x", "/%61%64min"] {
        let answer = edge.get(path);
        assert_eq!((answer.status, answer.text().contains("denied")), (403, true), "{path}");
    }
    // Another route than the one that an application might see.
    for path in ["/admin%2Fx", "/%2fadmin", "/open%2fx"] {
        let answer = edge.get(path);
        assert_eq!(
            (answer.status, answer.text().contains("ambiguous_path")),
            (400, true),
            "{path}"
        );
    }
    for path in [
        "/x/../admin/x",
        "/x/%2e%2E/admin",
        "/open/..%2fadmin",
        "/./admin",
        "/x/..;/admin",
        "/x\\..\\admin",
        "/x%5c..%5cadmin",
        "/a%00b",
        "/a%0d%0aSet-Cookie:x",
        "/%c0%ae%c0%ae/admin",
        "/%c0%afadmin",
        "/%",
        "/%2",
        "/%zz",
    ] {
        let answer = edge.get(path);
        assert_eq!((answer.status, answer.text().contains("bad_path")), (400, true), "{path}");
    }
    assert!(origin.seen().is_empty() && open.seen().is_empty(), "{:?}", origin.seen());
    // What passes goes on as it came.
    for path in ["/a%2Fb", "/%5Bslug%5D/(x)/@y", "/a//b", "/caf%C3%A9", "/%7euser", "/a;b=c"] {
        assert_eq!(edge.get(path).status, 200, "{path}");
        assert_eq!(origin.seen().last().map(|seen| seen.path().to_owned()).as_deref(), Some(path));
    }
}

#[test]
fn hosts_methods_headers_cookies_and_parameters_decide_too() {
    let (next, other) = (Origin::text("next"), Origin::text("other"));
    let to = other.url();
    let edge = Edge::start(&format!(
        "{PLAIN}sites:\n  '*.example':\n    next: {}\n    routes:\n\
        \x20     - {{ path: /host, host: beta.example, to: '{to}' }}\n\
        \x20     - {{ path: /method, method: [POST, PUT], to: '{to}' }}\n\
        \x20     - {{ path: /header, when: {{ headers: {{ x-beta: '1*', user-agent: '!*bot*' }} }}, to: '{to}' }}\n\
        \x20     - {{ path: /cookie, when: {{ cookies: {{ plan: pro }} }}, to: '{to}' }}\n\
        \x20     - {{ when: {{ query: {{ preview: '*' }} }}, to: '{to}' }}\n",
        next.url()
    ));
    let ask = |method: &str, path: &str, headers: &[(&str, &str)]| {
        let mut all = vec![("host", "a.example")];
        if headers.iter().any(|(name, _)| *name == "host") {
            all.clear();
        }
        all.extend(headers);
        edge.connect().ask(method, path, &all, b"").text()
    };
    for (method, path, headers, expected) in [
        ("GET", "/host", &[("host", "beta.example")][..], "other"),
        ("GET", "/host", &[], "next"),
        ("POST", "/method", &[], "other"),
        ("GET", "/method", &[], "next"),
        ("GET", "/header", &[("X-Beta", "12"), ("User-Agent", "Firefox")], "other"),
        ("GET", "/header", &[("X-Beta", "12"), ("User-Agent", "a bot")], "next"),
        ("GET", "/header", &[("X-Beta", "2")], "next"),
        ("GET", "/cookie", &[("Cookie", "a=b; plan=pro")], "other"),
        ("GET", "/cookie", &[("Cookie", "plan=free")], "next"),
        ("GET", "/any/where?x=1&preview", &[], "other"),
        ("GET", "/any/where?x=1&previews", &[], "next"),
    ] {
        assert_eq!(ask(method, path, headers), expected, "{method} {path} {headers:?}");
    }
}

#[test]
fn paths_are_rewritten() {
    let origin = Origin::text("ok");
    let to = origin.url();
    let routes = format!(
        "    routes:\n\
        \x20     - {{ path: /docs/*, to: '{to}', strip: /docs, prefix: /v2/ }}\n\
        \x20     - {{ path: /base/*, strip: /base }}\n\
        \x20     - {{ path: /plain/*, prefix: /v3 }}\n"
    );
    let edge = site(&to, &routes);
    for (path, expected) in [
        ("/docs/a?b=%20", "/v2/a?b=%20"),
        ("/docs", "/v2/"),
        ("/%64ocs/a%5Bb", "/v2/a%5Bb"),
        ("//docs//a", "/v2/a"),
        ("/base/a", "/a"),
        ("/plain/a", "/v3/plain/a"),
        ("/other//a", "/other//a"),
    ] {
        assert_eq!(edge.get(path).status, 200, "{path}");
        let seen = origin.seen().pop().expect("a request");
        assert_eq!(seen.path(), expected, "{path}");
    }
}

#[test]
fn what_is_taken_from_a_path_is_told_and_given_back() {
    let origin = Origin::start(|seen, stream| {
        let own = stream.local_addr().expect("an address");
        let location = match seen.path() {
            "/relative" => "/login".to_owned(),
            "/elsewhere" => "http://other.example/login".to_owned(),
            "/known" => format!("http://{own}/docs/login"),
            _ => format!("http://{own}/v2/login?a"),
        };
        crate::harness::origin::reply(
            stream,
            "307 Temporary Redirect",
            &format!("location: {location}\r\n"),
            b"",
        )
    });
    let to = origin.url();
    let routes = format!(
        "    routes:\n\
        \x20     - {{ path: /docs/*, to: '{to}', strip: /docs }}\n\
        \x20     - {{ path: /new/*, to: '{to}', strip: /new/, prefix: /v2 }}\n\
        \x20     - {{ path: /plain/*, to: '{to}' }}\n"
    );
    let edge = site(&to, &routes);
    for (path, location, prefix) in [
        ("/docs/a", "http://localhost/docs/v2/login?a", Some("/docs")),
        // One that knows of the prefix says it itself.
        ("/docs/known", "http://localhost/docs/login", Some("/docs")),
        ("/docs/relative", "/login", Some("/docs")),
        ("/docs/elsewhere", "http://other.example/login", Some("/docs")),
        ("/new/a", "http://localhost/new/login?a", Some("/new")),
        ("/plain/a", "http://localhost/v2/login?a", None),
    ] {
        let answer = edge.connect().ask("GET", path, &[("X-Forwarded-Prefix", "/mine")], b"");
        assert_eq!(answer.header("location"), Some(location), "{path}");
        let seen = origin.seen().pop().expect("a request");
        assert_eq!(seen.header("x-forwarded-prefix"), prefix, "{path}");
    }
}

#[test]
fn headers_are_changed_both_ways() {
    let origin = Origin::start(|_, stream| {
        let headers = "server: next\r\nx-old: 1\r\ncache-control: public\r\n";
        crate::harness::origin::reply(stream, "200 OK", headers, b"ok")
    });
    let more = "    headers: { remove: [Server, x-old], set: { Permissions-Policy: 'camera=()', cache-control: no-cache }, add: { x-site: a } }
    routes:
      - path: /r
        headers: { set: { cache-control: no-store }, add: { x-site: b } }
        request_headers: { remove: [cookie], set: { x-beta: '1', host: inner.example } }
      - { path: /go, redirect: /r }
";
    let edge = site(&origin.url(), more);
    let answer = edge.get("/");
    assert_eq!(answer.header("server"), None);
    assert_eq!(answer.header("x-old"), None);
    assert_eq!(answer.header("permissions-policy"), Some("camera=()"));
    assert_eq!(all(&answer, "cache-control"), ["no-cache"]);
    let sent = [("Cookie", "a=1"), ("X-Beta", "2")];
    let answer = edge.connect().ask("GET", "/r", &sent, b"");
    assert_eq!(all(&answer, "cache-control"), ["no-store"]);
    assert_eq!(all(&answer, "x-site"), ["a", "b"]);
    let seen = origin.seen().pop().expect("a request");
    assert_eq!((seen.all("cookie").len(), seen.all("x-beta")), (0, vec!["1"]));
    assert_eq!(seen.all("host"), ["inner.example"]);
    assert_eq!(seen.all("x-forwarded-host"), ["localhost"]);
    // The edge's own answers too.
    assert_eq!(edge.get("/go").header("permissions-policy"), Some("camera=()"));
    assert_eq!(edge.get("/%").header("permissions-policy"), None);
}

#[test]
fn browsers_are_told_to_use_https_over_https_alone() {
    let (folder, authority) = (Folder::new(), Authority::new());
    authority.issue(&folder, "localhost", &["localhost"]);
    let origin = Origin::start(|_, stream| {
        let headers = "strict-transport-security: max-age=1\r\n";
        crate::harness::origin::reply(stream, "200 OK", headers, b"ok")
    });
    let yaml = format!(
        "{SECURE}sites:\n  localhost:\n    next: {}\n    hsts: {{ max_age: 1y, subdomains: true }}\n",
        origin.url()
    );
    let edge = Edge::start_in(folder, &yaml);
    let stream = crate::tls::connect(&edge, authority.client(&[b"http/1.1"]), "localhost");
    let answer = Client::over(Box::new(stream.expect("a handshake"))).get("/");
    let told = all(&answer, "strict-transport-security");
    assert_eq!(told, ["max-age=31536000; includeSubDomains"]);
    let answer = edge.get("/");
    assert_eq!((answer.status, answer.header("strict-transport-security")), (308, None));
}

#[test]
fn other_origins_may_read_what_is_theirs() {
    let origin = Origin::start(|_, stream| {
        let headers = "access-control-allow-origin: *\r\nvary: Accept-Encoding\r\n";
        crate::harness::origin::reply(stream, "200 OK", headers, b"ok")
    });
    let more = "    cors: { origins: ['https://app.example', 'https://*.pages.example'], credentials: true, expose: [x-total] }
    routes:
      - { path: /open/*, cors: '*' }
";
    let edge = site(&origin.url(), more);
    let get = |path: &str, from: &str| edge.connect().ask("GET", path, &[("Origin", from)], b"");
    let answer = get("/", "https://app.example");
    assert_eq!(all(&answer, "access-control-allow-origin"), ["https://app.example"]);
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("x-total"));
    assert_eq!(all(&answer, "vary"), ["Accept-Encoding", "Origin"]);
    assert_eq!(all(&get("/", "https://x.pages.example"), "access-control-allow-origin").len(), 1);
    let answer = get("/", "https://evil.example");
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(all(&get("/open/x", "https://evil.example"), "access-control-allow-origin"), ["*"]);
    let asked = origin.seen().len();
    let preflight = |from: &str| {
        let headers = [
            ("Origin", from),
            ("Access-Control-Request-Method", "PUT"),
            ("Access-Control-Request-Headers", "authorization"),
        ];
        edge.connect().ask("OPTIONS", "/api", &headers, b"")
    };
    let answer = preflight("https://app.example");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization, content-type"));
    assert!(answer.header("access-control-allow-methods").is_some_and(|all| all.contains("PUT")));
    let answer = preflight("https://evil.example");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, None));
    assert_eq!(origin.seen().len(), asked, "the edge answers preflights itself");
}

#[test]
fn addresses_are_those_that_are_believed() {
    let origin = Origin::text("ok");
    let more = "    routes: [{ path: /admin/*, allow: [10.0.0.0/8, 127.0.0.1], deny: [10.6.6.6] }]
trust: [127.0.0.1]
";
    let edge = site(&origin.url(), more);
    let from = |address: &str| {
        edge.connect().ask("GET", "/admin/x", &[("X-Forwarded-For", address)], b"").status
    };
    assert_eq!(from("10.1.2.3"), 200);
    assert_eq!(from("10.6.6.6"), 403);
    assert_eq!(from("192.0.2.1"), 403);
    assert_eq!(edge.get("/admin").status, 200);
    assert_eq!(edge.connect().ask("GET", "/", &[("X-Forwarded-For", "10.6.6.6")], b"").status, 200);
}

#[test]
fn a_site_is_for_some_addresses_alone_and_its_hub_with_it() {
    let origin = Origin::text("ok");
    let hub = "hub: { namespaces: { /: { auth: none } } }\n";
    let more = format!(
        "    allow: [10.0.0.0/8]
    deny: [10.6.6.6]
    aliases: [www.localhost]
    headers: {{ set: {{ x-site: a }} }}
    routes: [{{ path: /moved, redirect: /there }}, {{ path: /open/*, allow: [0.0.0.0/0] }}]
trust: [127.0.0.1]
{hub}"
    );
    let edge = site(&origin.url(), &more);
    let ask = |address: &str, path: &str| {
        edge.connect().ask("GET", path, &[("X-Forwarded-For", address)], b"")
    };
    let paths = [("/", 200), ("/moved", 308), ("/socket.io/?EIO=4&transport=polling", 200)];
    for (path, status) in paths {
        assert_eq!(ask("10.1.2.3", path).status, status, "{path}");
        for address in ["10.6.6.6", "192.0.2.1"] {
            let answer = ask(address, path);
            let told = (answer.status, answer.header("x-site"));
            assert_eq!(told, (403, Some("a")), "{address} {path}");
            assert!(answer.text().contains("denied"), "{answer:?}");
        }
    }
    // A route narrows its site, and does not open it.
    assert_eq!(ask("192.0.2.1", "/open/x").status, 403);
    let headers = [("X-Forwarded-For", "192.0.2.1"), ("Host", "www.localhost")];
    assert_eq!(edge.connect().ask("GET", "/", &headers, b"").status, 403);
    assert_eq!(ask("192.0.2.1", "/health").status, 200);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_hook_is_not_there_under_another_name_either() {
    let origin = Origin::text("ok");
    let more = "    routes: [{ path: /v1/*, strip: /v1 }, { path: /chat/*, prefix: /api }]
hub: { namespaces: { /chat: { auth: none, connect: /api/chat/connect } } }
";
    let edge = site(&origin.url(), more);
    for path in
        ["/api/chat/connect", "/v1/api/chat/connect", "/v1//api/chat/%63onnect/", "/chat/connect"]
    {
        let answer = edge.connect().ask("POST", path, &[], b"{}");
        assert_eq!((answer.status, answer.text().contains("private")), (404, true), "{path}");
    }
    assert!(origin.seen().is_empty());
    assert_eq!(edge.get("/v1/api/chat/other").status, 200);
    assert_eq!(edge.get("/chat/other").status, 200);
}

#[test]
fn a_share_of_the_clients_stays_where_it_was() {
    let (old, new) = (Origin::text("old"), Origin::text("new"));
    let route = |of: &str| format!("    routes: [{{ to: '{}', share: '{of}' }}]\n", new.url());
    let mut edge = site(&old.url(), &route("30%"));
    let mut clients = Vec::new();
    for _ in 0..400 {
        let answer = edge.get("/");
        let cookie = answer.header("set-cookie").expect("a lot").to_owned();
        assert!(cookie.starts_with("vestibule-share=") && cookie.contains("HttpOnly"), "{cookie}");
        clients.push((cookie.split(';').next().expect("a pair").to_owned(), answer.text()));
    }
    let count = clients.iter().filter(|(_, text)| text == "new").count();
    assert!((70..170).contains(&count), "{count} of 400");
    let yaml =
        |of: &str| format!("{PLAIN}sites:\n  localhost:\n    next: {}\n{}", old.url(), route(of));
    for of in ["30%", "60%"] {
        edge.reload_with(&yaml(of));
        for (cookie, text) in clients.iter().take(40) {
            let answer = edge.connect().ask("GET", "/x", &[("Cookie", cookie)], b"");
            assert_eq!(answer.header("set-cookie"), None);
            // Who had the new version keeps it, also when more have it.
            assert!(answer.text() == *text || (of == "60%" && text == "old"), "{cookie} {of}");
        }
    }
}

#[test]
fn what_is_kept_for_ever_hands_out_no_lot() {
    let origin = Origin::start(|seen, stream| {
        let cache = if seen.path() == "/" { "no-cache" } else { "public, immutable" };
        let headers = format!("cache-control: {cache}\r\n");
        crate::harness::origin::reply(stream, "200 OK", &headers, b"ok")
    });
    let edge =
        site(&origin.url(), &format!("    routes: [{{ to: '{}', share: 50% }}]\n", origin.url()));
    assert_eq!(all(&edge.get("/"), "set-cookie").len(), 1);
    assert_eq!(edge.get("/asset").header("set-cookie"), None);
}

#[test]
fn a_file_closes_the_site() {
    let origin = Origin::text("ok");
    let folder = Folder::new();
    folder.write("closed.html", "<h1>Back soon</h1>");
    let more = "    maintenance: { file: flag, page: closed.html, allow: [10.0.0.0/8], retry: 2m }
    headers: { set: { x-site: a } }
trust: [127.0.0.1]
";
    let yaml = format!("{PLAIN}sites:\n  localhost:\n    next: {}\n{more}", origin.url());
    let edge = Edge::start_in(folder, &yaml);
    assert_eq!(edge.get("/").status, 200);
    let flag = edge.folder.path("flag");
    fs::write(&flag, "").expect("a flag");
    eventually("the site closes", || (edge.get("/").status == 503).then_some(()));
    let html = [("Accept", "text/html"), ("Sec-Fetch-Dest", "document")];
    let answer = edge.connect().ask("GET", "/page", &html, b"");
    assert_eq!((answer.status, answer.text().as_str()), (503, "<h1>Back soon</h1>"));
    assert_eq!(answer.header("retry-after"), Some("120"));
    assert_eq!(answer.header("x-site"), Some("a"));
    edge.access_line(|line| line["path"] == "/page" && line["reason"] == "maintenance");
    let inside = [("X-Forwarded-For", "10.1.1.1")];
    assert_eq!(edge.connect().ask("GET", "/", &inside, b"").status, 200);
    fs::remove_file(&flag).expect("a flag");
    eventually("the site opens", || (edge.get("/").status == 200).then_some(()));
}

#[test]
fn errors_look_as_the_client_can_show_them() {
    let folder = Folder::new();
    folder.write("pages/502.html", "<h1>Our own</h1>");
    let gone = Origin::text("ok");
    let routes = "    errors: { 502: pages/502.html }\n    routes: [{ path: /a/*, deny: [0.0.0.0/0] }, { path: /cut }]\n";
    let cut = Origin::start(|_, _| false);
    let yaml = format!(
        "{PLAIN}sites:\n  localhost:\n    next: {}\n{routes}  other.example:\n    routes: [{{ path: /x, to: '{}' }}]\n",
        cut.url(),
        gone.url()
    );
    let edge = Edge::start_in(folder, &yaml);
    let ask = |path: &str, headers: &[(&str, &str)]| edge.connect().ask("POST", path, headers, b"");
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let answer = ask("/cut", &[("Accept", browser), ("Sec-Fetch-Dest", "document")]);
    assert_eq!((answer.status, answer.text().as_str()), (502, "<h1>Our own</h1>"));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    // What is no document gets no page.
    for (name, value) in [("Sec-Fetch-Dest", "script"), ("RSC", "1")] {
        let answer = ask("/cut", &[("Accept", browser), (name, value)]);
        assert_eq!(answer.text(), "502 Bad Gateway\nupstream_closed\n", "{name}");
    }
    let answer = ask("/cut", &[("Accept", "application/json, text/plain, */*")]);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem: serde_json::Value = serde_json::from_str(&answer.text()).expect("JSON");
    let expected = serde_json::json!({
        "type": "about:blank", "title": "Bad Gateway", "status": 502, "reason": "upstream_closed",
    });
    assert_eq!(problem, expected);
    let answer = ask("/a/b", &[("Accept", browser)]);
    assert!(answer.text().contains("<h1>403 Forbidden</h1>\n<p>denied</p>"), "{}", answer.text());
    let answer = ask("/", &[("Host", "other.example"), ("Accept", browser)]);
    assert_eq!((answer.status, answer.text().contains("no_route")), (404, true));
}

#[test]
fn a_quiet_stream_lives_where_it_may() {
    let (say, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |_, stream| {
        use std::io::Write as _;
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        stream.write_all(head.as_bytes()).expect("sent");
        let _told = wait.lock().expect("a lock").recv();
        stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").is_ok()
    });
    let more = "    routes: [{ path: /events, timeouts: { body_idle: 1m } }]\ntimeouts: { body_idle: 200ms }\n";
    let edge = site(&origin.url(), more);
    let open = |path: &str| {
        let mut client = edge.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.head().status, 200);
        assert_eq!(client.chunk().as_deref(), Some(&b"first"[..]));
        client
    };
    let mut patient = open("/events");
    // Once the impatient one is cut, the other has been silent for longer than that.
    assert!(open("/other").is_closed());
    say.send(()).expect("the application waits");
    say.send(()).expect("the application waits");
    assert_eq!(patient.chunk().as_deref(), Some(&b"last"[..]));
}

#[test]
fn pages_that_cannot_be_read_are_told_of() {
    let folder = Folder::new();
    folder.write(
        "proxy.yaml",
        "sites:\n  localhost:\n    next: http://127.0.0.1:1\n    errors: { 502: none.html }\n",
    );
    let output = crate::harness::vestibule(&["check"], &folder);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("sites.localhost.errors.502") && said.contains("none.html"), "{said}");
    assert!(!Path::new("none.html").exists());
}
