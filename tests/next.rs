//! What the edge knows of Next.js: its builds, its actions, its images.

use std::fs;

use serde_json::{Value, json};

use crate::harness::node::Next;
use crate::harness::origin::reply;
use crate::harness::{Answer, Edge, Folder, Origin, PLAIN, eventually, project, vestibule};

const ID: &str = "606c2298c58bfd3a070aa510122ed5283978c38d67";
const OTHER: &str = "706c2298c58bfd3a070aa510122ed5283978c38d67";

fn site(next: &str, more: &str) -> Edge {
    Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {next}\n{more}"))
}

fn ask(edge: &Edge, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    edge.connect().ask(method, path, headers, b"")
}

/// A build with one action, and no rules of the application's own.
fn build(folder: &Folder, name: &str, ids: &[&str]) {
    let none: [u8; 0] = [];
    let write =
        |file: &str, json: Value| drop(folder.write(&format!("{name}/{file}"), &json.to_string()));
    let ids: serde_json::Map<_, _> = ids.iter().map(|id| ((*id).to_owned(), json!({}))).collect();
    write("server/server-reference-manifest.json", json!({ "node": ids, "edge": {} }));
    write("server/middleware-manifest.json", json!({ "middleware": {} }));
    write("server/functions-config-manifest.json", json!({ "functions": {} }));
    let routes = json!({
        "basePath": "", "redirects": [{ "internal": true }], "headers": none,
        "rewrites": { "beforeFiles": none },
    });
    write("routes-manifest.json", routes);
    let images = json!({ "images": {
        "loader": "default", "path": "/_next/image", "deviceSizes": [640], "imageSizes": [32],
        "qualities": [75], "remotePatterns": [{ "hostname": "^(?:cdn\\.example)$" }], "domains": none,
    } });
    write("images-manifest.json", images);
    let required = json!({ "config": { "images": {
        "remotePatterns": [{ "protocol": "https", "hostname": "cdn.example" }], "domains": none,
        "localPatterns": [{ "pathname": "**", "search": "" }],
    } } });
    write("required-server-files.json", required);
    folder.write(&format!("{name}/BUILD_ID"), name);
}

#[test]
fn actions_are_called_by_own_pages_with_ids_that_could_be() {
    let origin = Origin::text("ok");
    let edge = site(&origin.url(), "    actions: { origins: ['*.partner.example'] }\n");
    let call = |id: &str, from: &str| {
        let headers = [("Next-Action", id), ("Origin", from)];
        ask(&edge, "POST", "/page", if from.is_empty() { &headers[..1] } else { &headers })
    };
    for from in ["", "http://localhost", "https://localhost", "https://a.partner.example"] {
        assert_eq!(call(ID, from).status, 200, "{from}");
    }
    let count = origin.seen().len();
    for from in ["null", "https://evil.example", "https://localhost:1", "https://partner.example"] {
        let answer = call(ID, from);
        assert_eq!((answer.status, answer.text().contains("action_origin")), (403, true), "{from}");
    }
    for id in ["x", "../../etc", "606c"] {
        let answer = call(id, "");
        assert_eq!((answer.status, answer.text().as_str()), (400, "Server Action unavailable."));
        assert_eq!(answer.header("x-nextjs-action-not-found"), Some("1"), "{id}");
    }
    edge.access_line(|line| line["reason"] == "action_id" && line["route"] == "next");
    assert_eq!(origin.seen().len(), count);
    // A form may be an action too; one that no page of the site sent has no origin to show.
    let post = |more: &[(&str, &str)]| {
        let form = [("Content-Type", "multipart/form-data; boundary=x"), ("Origin", "null")];
        ask(&edge, "POST", "/page", &[&form[..], more].concat())
    };
    assert_eq!(post(&[]).status, 403);
    assert_eq!(post(&[("Sec-Fetch-Site", "cross-site")]).status, 403);
    assert_eq!(post(&[("Sec-Fetch-Site", "same-origin")]).status, 200);
    // Other origins may post what is no action: the application decides.
    let answer = ask(&edge, "POST", "/api", &[("Origin", "https://evil.example")]);
    assert_eq!(answer.status, 200);
}

#[test]
fn a_build_says_what_there_is() {
    let origin = Origin::start(|seen, stream| {
        let kind = "content-type: text/html\r\n";
        let status =
            if seen.path().contains("/_next/static/") { "404 Not Found" } else { "200 OK" };
        reply(stream, status, kind, b"<h1>the application</h1>")
    });
    let folder = Folder::new();
    build(&folder, "app/.next", &[ID]);
    build(&folder, "old", &[OTHER]);
    folder.write("app/.next/static/chunks/[slug]-1.js", "new");
    folder.write("app/.next/server/secret.js", "secret");
    folder.write("app/.next/static/service-worker/sw.js", "sw");
    folder.write("old/static/chunks/0.js", "old");
    folder.write("app/public/robots.txt", "robots");
    folder.write("app/public/model.rsc", "a file");
    let yaml = format!(
        "{PLAIN}sites:\n  localhost:\n    next: {{ targets: '{}', build: {{ path: app/.next, keep: old }} }}\n",
        origin.url()
    );
    let edge = Edge::start_in(folder, &yaml);
    let answer = edge.get("/_next/static/chunks/%5Bslug%5D-1.js?dpl=1");
    assert_eq!((answer.status, answer.text().as_str()), (200, "new"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(edge.get("/_next/static/chunks/0.js").text(), "old");
    let answer = edge.get("/_next/static/service-worker/sw.js");
    assert_eq!(answer.header("service-worker-allowed"), Some("/"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=0, must-revalidate"));
    let answer = edge.get("/robots.txt");
    assert_eq!(
        (answer.text().as_str(), answer.header("cache-control")),
        ("robots", Some("public, max-age=0"))
    );
    // A name like one of Next.js' own is that of a file, where there is one.
    assert_eq!(edge.get("/model.rsc").text(), "a file");
    assert_eq!(edge.get("/other.rsc").status, 404);
    assert!(origin.seen().is_empty());
    // What is missing may be another build's; a page in the place of a script would be run as one.
    let headers = [("Cookie", "session=1"), ("Authorization", "Bearer x")];
    let answer = ask(&edge, "GET", "/_next/static/chunks/gone.js", &headers);
    assert_eq!((answer.status, answer.text().as_str()), (404, "Not Found"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let seen = origin.seen().pop().expect("a request");
    assert!(seen.all("cookie").is_empty() && seen.all("authorization").is_empty(), "{seen:?}");
    assert_eq!(edge.get("/_next/static/chunks/.env").status, 404);
    for path in ["/_next/server/secret.js", "/"] {
        assert!(edge.get(path).text().contains("the application"), "{path}");
    }
    assert_eq!(edge.get("/_next/static/../server/secret.js").status, 400);
    images(&edge);
    actions(&edge);
}

fn images(edge: &Edge) {
    let get = |query: &str| edge.get(&format!("/_next/image?{query}"));
    assert_eq!(get("url=%2Frobots.png&w=640&q=75").status, 200);
    assert_eq!(get("url=https%3A%2F%2Fcdn.example%2Fa.png&w=640&q=75").status, 200);
    for (query, reason) in [
        ("url=%2Fa.png&w=641&q=75", "image_width"),
        ("url=%2Fa.png&w=640&q=99", "image_quality"),
        ("url=%2Fa.png&w=640&w=640&q=75", "image_width"),
        ("url=https%3A%2F%2F169.254.169.254%2F&w=640&q=75", "image_url"),
        ("url=https%3A%2F%2Fcdn.example%40169.254.169.254%2F&w=640&q=75", "image_url"),
        ("url=http%3A%2F%2Fcdn.example%2Fa.png&w=640&q=75", "image_url"),
        ("url=%2Fa.png%3Fbig&w=640&q=75", "image_url"),
        ("url=%2F%2Fevil%2Fa.png&w=640&q=75", "image_url"),
        ("url=%2F_next%2Fimage%3Furl%3D%2Fa&w=640&q=75", "image_url"),
        ("w=640&q=75", "image_url"),
    ] {
        let answer = get(query);
        assert_eq!((answer.status, answer.text().contains(reason)), (400, true), "{query}");
    }
}

/// Only ids that were built are passed on, and those of a deploy at once.
fn actions(edge: &Edge) {
    let call = |id: &str| ask(edge, "POST", "/page", &[("Next-Action", id)]);
    assert_eq!(call(ID).status, 200);
    let answer = call(OTHER);
    assert_eq!((answer.status, answer.text().as_str()), (409, "Server Action unavailable."));
    assert_eq!(answer.header("x-nextjs-action-not-found"), Some("1"));
    // The clock of the disk may not have moved on since.
    eventually("a build in its place", || {
        build(&edge.folder, "app/.next", &[OTHER]);
        (call(OTHER).status == 200).then_some(())
    });
    eventually("the build before is forgotten", || (call(ID).status == 409).then_some(()));
}

#[test]
fn public_is_left_to_the_application_that_looks_first() {
    let origin = Origin::text("application");
    for (public, middleware, expected) in [
        ("auto", json!({ "middleware": {} }), "file"),
        ("auto", json!({ "middleware": { "/": {} } }), "application"),
        ("always", json!({ "middleware": { "/": {} } }), "file"),
        ("never", json!({ "middleware": {} }), "application"),
    ] {
        let folder = Folder::new();
        build(&folder, "app/.next", &[]);
        folder.write("app/.next/server/middleware-manifest.json", &middleware.to_string());
        folder.write("app/public/a.txt", "file");
        let next = format!(
            "{{ targets: '{}', build: {{ path: app/.next, public: {public} }} }}",
            origin.url()
        );
        let edge =
            Edge::start_in(folder, &format!("{PLAIN}sites:\n  localhost:\n    next: {next}\n"));
        assert_eq!(edge.get("/a.txt").text(), expected, "{public} {middleware}");
    }
}

#[test]
fn bodies_that_a_middleware_would_cut_are_refused_or_told_of() {
    let origin = Origin::text("ok");
    let required = json!({ "config": { "experimental": { "proxyClientMaxBodySize": 1000 } } });
    for (source, statuses, told) in
        [("/:path*", [200, 413, 413, 200], "are answered 413"), ("/admin", [200; 4], "may be cut")]
    {
        let folder = Folder::new();
        build(&folder, "app/.next", &[]);
        let matchers = json!([{ "originalSource": source, "regexp": "^/.*$" }]);
        let functions = json!({ "functions": { "/_middleware": { "matchers": matchers } } });
        folder.write("app/.next/server/functions-config-manifest.json", &functions.to_string());
        folder.write("app/.next/required-server-files.json", &required.to_string());
        let yaml = format!(
            "{PLAIN}sites:\n  localhost:\n    next: {{ targets: '{0}', build: app/.next }}\n    routes: [{{ path: /other/*, to: '{0}' }}]\n",
            origin.url()
        );
        let edge = Edge::start_in(folder, &yaml);
        let post = |path: &str, bytes: usize| {
            edge.connect().ask("POST", path, &[], &vec![b'x'; bytes]).status
        };
        let mut chunked = edge.connect();
        let body = "x".repeat(1001);
        chunked.send(format!(
            "POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{body}\r\n0\r\n\r\n"
        ));
        let found =
            [post("/a", 1000), post("/a", 1001), chunked.answer().status, post("/other/a", 1001)];
        assert_eq!(found, statuses, "{source}");
        assert!(edge.log().contains(told), "{}", edge.log());
    }
}

#[test]
fn heads_that_the_application_would_not_take_are_refused_before() {
    let origin = Origin::text("ok");
    let edge = site(&origin.url(), "");
    let state =
        |bytes: usize| ask(&edge, "GET", "/", &[("Next-Router-State-Tree", &"a".repeat(bytes))]);
    assert_eq!(state(15_500).status, 200);
    let answer = state(16_384);
    assert_eq!((answer.status, answer.text().contains("head_too_large")), (431, true));
    let edge = site(&format!("{{ targets: '{}', head: 60KiB }}", origin.url()), "");
    let tree = "a".repeat(40_000);
    assert_eq!(ask(&edge, "GET", "/", &[("Next-Router-State-Tree", &tree)]).status, 200);
    assert_eq!(
        origin.seen().last().and_then(|seen| seen.header("next-router-state-tree").map(str::len)),
        Some(40_000)
    );
}

#[test]
fn what_goes_past_the_application_is_refused() {
    let origin = Origin::text("ok");
    let edge = site(&origin.url(), "");
    for path in ["/admin.rsc", "/admin.segments/_tree.segment.rsc", "/a/b.segments/x"] {
        let answer = edge.get(path);
        assert_eq!((answer.status, answer.text().contains("internal_path")), (404, true), "{path}");
    }
    for method in ["DELETE", "OPTIONS", "GET"] {
        let mut client = edge.connect();
        client.send(format!("{method} / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.text().contains("length_required")),
            (411, true),
            "{method}"
        );
    }
    assert!(origin.seen().is_empty());
}

#[test]
fn answers_are_what_was_asked_for() {
    let origin = Origin::start(|seen, stream| {
        let status = if seen.path() == "/moved" { "307 Temporary Redirect" } else { "200 OK" };
        reply(
            stream,
            status,
            "content-type: text/x-component\r\nlocation: /moved?_rsc=x\r\n",
            b"1:[]",
        )
    });
    let edge = site(&origin.url(), "");
    let answer = ask(&edge, "GET", "/", &[("Sec-Fetch-Dest", "document"), ("Accept", "text/html")]);
    assert_eq!((answer.status, answer.text().contains("rsc_for_document")), (502, true));
    assert_eq!(ask(&edge, "GET", "/", &[("RSC", "1")]).text(), "1:[]");
    assert_eq!(
        ask(&edge, "GET", "/moved", &[("RSC", "1")]).header("cache-control"),
        Some("no-store")
    );
}

#[test]
fn a_development_server_is_not_judged() {
    let origin = Origin::text("ok");
    let edge = site(&origin.url(), "    dev: true\n");
    assert_eq!(edge.get("/a.rsc").status, 200);
    assert_eq!(ask(&edge, "POST", "/", &[("Next-Action", "x")]).status, 200);
}

#[test]
fn a_development_server_has_no_limits() {
    let origin = Origin::start(|_, stream| reply(stream, "200 OK", "", &[b'x'; 4096]));
    let limits = "limits: { body: 1KB, response_body: 1KB, body_rate: 1MB/s, per_ip: { requests: 1/m, burst: 1 } }\ntimeouts: { body_idle: 1s }\n";
    let routes = "    routes:\n      - { path: /api/*, body: 1KB, rate: 1/m, body_rate: 1MB/s, response_body: 1KB }\n";
    for dev in [true, false] {
        let sites = format!(
            "{limits}sites:\n  localhost:\n    dev: {dev}\n    next: {}\n{routes}",
            origin.url()
        );
        let edge = Edge::start(&format!("{PLAIN}{sites}"));
        for path in ["/", "/api/a"] {
            let answers =
                [0, 1].map(|_| edge.connect().ask("POST", path, &[], &[b'y'; 4096]).status);
            assert_eq!(answers == [200, 200], dev, "{path}: {answers:?}");
        }
        if dev {
            // A body that drips, for longer than it may elsewhere.
            let mut client = edge.connect();
            client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\n");
            for _ in 0..6 {
                std::thread::sleep(std::time::Duration::from_millis(300));
                client.send("x");
            }
            assert_eq!(client.answer().status, 200);
        }
    }
}

#[test]
fn data_headers_go_with_data_alone() {
    let origin = Origin::text("ok");
    let folder = Folder::new();
    build(&folder, "app/.next", &[]);
    let next = format!("{{ targets: ['{}'], build: app/.next }}", origin.url());
    let with = Edge::start_in(folder, &format!("{PLAIN}sites:\n  localhost:\n    next: {next}\n"));
    let without = site(&origin.url(), "");
    let said = [("X-Nextjs-Data", "1"), ("X-Middleware-Prefetch", "1")];
    for (path, by_guess, by_build) in [
        ("/_next/data/b/page.json", 2, 2),
        ("/blog/_next/data/b/page.json", 2, 0),
        ("/blog/_next/data/x", 0, 0),
        ("/page", 0, 0),
    ] {
        for (edge, expected) in [(&without, by_guess), (&with, by_build)] {
            assert_eq!(ask(edge, "GET", path, &said).status, 200);
            let seen = origin.seen().pop().expect("a request");
            let kept = said.iter().filter(|(name, _)| seen.header(name).is_some());
            assert_eq!(kept.count(), expected, "{path}");
        }
    }
}

#[test]
fn a_page_whose_host_ends_in_a_dot_may_call_actions() {
    let origin = Origin::text("ok");
    let edge = site(&origin.url(), "");
    let id = "0".repeat(40);
    let action = |host: &str, from: &str| {
        let said = [("Host", host), ("Origin", from), ("Next-Action", &id)];
        ask(&edge, "POST", "/", &said).status
    };
    assert_eq!(action("localhost.:81", "http://localhost.:81"), 200);
    let seen = origin.seen().pop().expect("a request");
    assert_eq!(seen.header("origin"), Some("http://localhost:81"));
    assert_eq!(seen.header("x-forwarded-host"), Some("localhost:81"));
    assert_eq!(action("localhost", "http://localhost."), 200);
    assert_eq!(action("localhost", "http://evil."), 403);
}

/// The example app is the judge: what it answers itself, the edge answers alike.
#[test]
fn the_real_application_and_its_build_agree() {
    let next = Next::shared();
    let path = project("examples/next-chat/.next");
    let build = format!("{{ targets: '{}', build: '{}' }}", next.url(), path.display());
    let (with, without) = (site(&build, ""), site(&next.url(), ""));
    let page = without.get("/").text();
    let start = page.find("/_next/static/").expect("an asset");
    let asset = page[start..].split(['"', '\\']).next().expect("its end");
    let (ours, theirs) = (with.get(asset), without.get(asset));
    assert_eq!((ours.status, theirs.status), (200, 200), "{asset}");
    assert!(ours.body == theirs.body, "{asset}");
    for name in ["content-type", "cache-control"] {
        let plain = |answer: &Answer| answer.header(name).map(str::to_ascii_lowercase);
        assert_eq!(plain(&ours), plain(&theirs), "{name} of {asset}");
    }
    let (ours, theirs) = (with.get("/doorway.png"), without.get("/doorway.png"));
    assert!(ours.status == 200 && ours.body == theirs.body);
    assert_eq!(ours.header("cache-control"), theirs.header("cache-control"));
    // An action of another build: the status and the header that Next.js' pages wait for.
    let unknown = |edge: &Edge| {
        let id = "00".repeat(21);
        let headers = [("Next-Action", id.as_str()), ("Content-Type", "text/plain;charset=UTF-8")];
        let answer = edge.connect().ask("POST", "/action", &headers, b"[]");
        let said = answer.header("x-nextjs-action-not-found").map(str::to_owned);
        (answer.status, said, answer.text())
    };
    assert_eq!(unknown(&with), unknown(&without));
    let manifest = fs::read_to_string(path.join("server/server-reference-manifest.json"));
    let manifest: Value = serde_json::from_str(&manifest.expect("a manifest")).expect("JSON");
    let id = manifest["node"].as_object().and_then(|ids| ids.keys().next()).expect("an action");
    let known = with.connect().ask("POST", "/action", &[("Next-Action", id)], b"[]");
    assert_eq!(known.header("x-nextjs-action-not-found"), None, "{known:?}");
    for query in ["url=%2Fdoorway.png&w=641&q=75", "url=%2Fdoorway.png&w=640&q=1", "w=640&q=75"] {
        let path = format!("/_next/image?{query}");
        let got = (with.get(&path).status, without.get(&path).status);
        assert_eq!(got, (400, 400), "{query}");
    }
    assert_eq!(with.get("/_next/image?url=%2Fdoorway.png&w=640&q=75").status, 200);
    let gone = with.get("/_next/static/chunks/gone.js");
    assert_eq!((gone.status, gone.text().as_str()), (404, "Not Found"));
    for path in ["/.rsc", "/chat.segments/_tree.segment.rsc"] {
        assert_eq!(with.get(path).status, 404, "{path}");
    }
}

#[test]
fn explain_says_what_a_request_would_meet() {
    let folder = Folder::new();
    folder.write("www/a.txt", "a");
    let yaml = "sites:
  app.example.com:
    next: http://127.0.0.1:3000
    hsts: 1y
    headers: { set: { x-site: a } }
    routes:
      - { path: /admin/*, allow: [10.0.0.0/8] }
      - { path: /docs/*, when: { headers: { x-beta: '*' } }, to: http://127.0.0.1:8081, strip: /docs, headers: { remove: [server] } }
      - { path: /old/:slug, redirect: /blog/:slug }
      - { path: /s/*, files: www }
hub: { namespaces: { /: { auth: none } } }
";
    folder.write("proxy.yaml", yaml);
    let explain = |arguments: &[&str]| -> Value {
        let all = [&["explain", "--json"], arguments].concat();
        let output = vestibule(&all, &folder);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let url = "https://app.example.com";
    let told = explain(&[
        "GET",
        &format!("{url}/docs/a%20b?x=1"),
        "-H",
        "X-Beta: 1",
        "-H",
        "TE: trailers",
        "-H",
        "X-Middleware-Subrequest: a",
        "-H",
        "X-Forwarded-For: 6.6.6.6",
        "--from",
        "192.0.2.7",
    ]);
    assert_eq!(told["site"], "app.example.com");
    assert_eq!(told["route"], "routes[1] /docs/*");
    assert_eq!(told["passed"][0], json!({ "route": "routes[0] /admin/*", "why": "another path" }));
    assert_eq!(
        (&told["upstream"], &told["target"]),
        (&json!("http://127.0.0.1:8081"), &json!("/a%20b?x=1"))
    );
    let added = told["request"]["added"].as_array().expect("headers");
    let why = "says who asks, and for what";
    for (name, value) in [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")] {
        let one = json!({ "name": name, "value": value, "why": why });
        assert!(added.contains(&one), "{added:?}");
    }
    let gone =
        json!({ "name": "x-middleware-subrequest", "why": "is what Next.js says to itself" });
    assert_eq!(told["request"]["removed"], json!([gone]));
    assert_eq!(told["captured"], json!({ "*": "a%20b" }));
    let response = told["response"].as_array().expect("changes");
    for change in
        ["set strict-transport-security: max-age=31536000", "set x-site: a", "remove server"]
    {
        assert!(response.contains(&json!(change)), "{response:?}");
    }
    let passed = |one: &Value| one["name"] == "cdn-loop" && one["value"] == "vestibule";
    assert!(added.iter().any(passed), "{added:?}");
    let around = format!("CDN-Loop: {}", ["vestibule"; 8].join(", "));
    for (arguments, answer, status, reason) in [
        (
            &["GET", "https://app.example.com/docs/a"][..],
            "the application",
            Value::Null,
            Value::Null,
        ),
        (&["GET", "https://app.example.com/admin"], "the edge", json!(403), json!("denied")),
        (
            &["GET", "https://app.example.com/%61dmin/x", "--from", "10.1.1.1"],
            "the application",
            Value::Null,
            Value::Null,
        ),
        (&["GET", "https://app.example.com/a/../b"], "the edge", json!(400), json!("bad_path")),
        (&["GET", "https://other.example.com/"], "the edge", json!(421), json!("no_site")),
        (
            &["POST", "https://app.example.com/", "-H", "Next-Action: x"],
            "the edge",
            json!(400),
            json!("action_id"),
        ),
        (&["GET", "https://app.example.com/socket.io/?EIO=4"], "the hub", Value::Null, Value::Null),
        (
            &["GET", "https://app.example.com/health"],
            "the edge, for its own health",
            json!(200),
            Value::Null,
        ),
        (&["GET", "https://app.example.com/s/gone"], "the edge", json!(404), json!("no_file")),
        (
            &["GET", "https://app.example.com/a", "-H", &around],
            "the edge",
            json!(508),
            json!("loop"),
        ),
        (
            &[
                "GET",
                "https://app.example.com/ws",
                "-H",
                "Upgrade: websocket",
                "-H",
                "Connection: upgrade",
            ],
            "the edge",
            json!(426),
            json!("upgrade_refused"),
        ),
    ] {
        let told = explain(arguments);
        assert_eq!(
            (&told["answer"], &told["status"], &told["reason"]),
            (&json!(answer), &status, &reason),
            "{arguments:?}"
        );
    }
    let told = explain(&["GET", &format!("{url}/old/x?a=1")]);
    assert_eq!((&told["status"], &told["location"]), (&json!(308), &json!("/blog/x?a=1")));
    let told = explain(&["GET", &format!("{url}/s/a.txt")]);
    assert!(
        told["answer"].as_str().is_some_and(|answer| answer.starts_with("a file of ")),
        "{told}"
    );
    let output = vestibule(&["explain", "GET", &format!("{url}/docs/x")], &folder);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in [
        "site      app.example.com\n",
        "route     next\n",
        "passed    routes[1] /docs/*: a header that is not there, or not so\n",
        "request   + x-forwarded-host: app.example.com   # says who asks, and for what\n",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    for arguments in [
        &["explain", "GET", "/path"][..],
        &["explain", "GET", "ftp://a/"],
        &["explain", "GET", "http://a/", "-H", "x y: 1"],
    ] {
        assert!(!vestibule(arguments, &folder).status.success(), "{arguments:?}");
    }
}
