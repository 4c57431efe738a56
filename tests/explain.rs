//! What `vestibule explain` says of a request is what an application sees of it, header by header.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{Edge, Origin, PLAIN, vestibule};

/// Headers as a client sends them.
type Lines<'a> = &'a [(&'a str, &'a str)];
/// Each header's values, by its name.
type Headers = BTreeMap<String, Vec<String>>;

fn put(headers: &mut Headers, name: &str, value: &str) {
    headers.entry(name.to_ascii_lowercase()).or_default().push(value.to_owned());
}

/// What is said of a request that these headers come with.
fn said(edge: &Edge, method: &str, url: &str, sent: &[(&str, &str)]) -> Value {
    let lines: Vec<_> = sent.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let mut all = vec!["explain", "--json", method, url];
    all.extend(lines.iter().flat_map(|line| ["-H", line]));
    let output = vestibule(&all, &edge.folder);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What the application gets by what is said: the client's, without what is removed, with what is added.
fn foretold(said: &Value, host: &str, sent: &[(&str, &str)]) -> Headers {
    let list = |key: &str| said["request"][key].as_array().expect("headers").clone();
    let text = |one: &Value, key: &str| one[key].as_str().expect("a text").to_owned();
    let mut headers = Headers::new();
    put(&mut headers, "host", host);
    sent.iter().for_each(|(name, value)| put(&mut headers, name, value));
    for one in list("removed").iter().chain(&list("added")) {
        assert!(!text(one, "why").is_empty(), "{one}");
        headers.remove(&text(one, "name"));
    }
    list("added").iter().for_each(|one| put(&mut headers, &text(one, "name"), &text(one, "value")));
    headers
}

fn seen(origin: &Origin) -> (String, Headers) {
    let seen = origin.seen().pop().expect("a request");
    let mut headers = Headers::new();
    seen.headers.iter().for_each(|(name, value)| put(&mut headers, name, value));
    (seen.path().to_owned(), headers)
}

#[test]
fn what_is_said_is_what_an_application_sees() {
    let origin = Origin::text("ok");
    let next = origin.url();
    let site = |more: &str| {
        format!(
            "{PLAIN}sites:
  localhost:
    next: '{next}'
{more}    routes:
      - {{ path: '~^/v(?<major>[0-9]+)/', to: '{next}' }}
      - {{ path: /docs/*, to: '{next}', strip: /docs, prefix: /v2 }}
      - {{ path: /ruled, request_headers: {{ set: {{ x-set: '1' }}, remove: [user-agent, x-forwarded-port], add: {{ accept: b }} }} }}
      - {{ path: /ws, upgrade: true }}
"
        )
    };
    let socket: &[(&str, &str)] = &[
        ("Upgrade", "websocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
        ("Accept-Encoding", "gzip"),
    ];
    let forged: &[(&str, &str)] = &[
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-User", "root"),
        ("Forwarded", "for=6.6.6.6"),
        ("X-Real-IP", "6.6.6.6"),
        ("X-Vestibule-User", "root"),
        ("X_Vestibule_User", "root"),
        ("X_Forwarded_For", "6.6.6.6"),
        ("X-Middleware-Subrequest", "a"),
        ("X-Nextjs-Data", "1"),
        ("Cdn-Loop", "vestibule"),
        ("Api_Key", "kept"),
    ];
    let hop: &[(&str, &str)] = &[
        ("Connection", "close, X-Private, TE"),
        ("X-Private", "1"),
        ("TE", "gzip, trailers"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authorization", "Basic YTpi"),
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
        ("Accept", "a"),
        ("User-Agent", "test"),
    ];
    let coded: &[(&str, &str)] = &[("Accept-Encoding", "gzip, zstd")];
    let parts: &[(&str, Lines<'_>, Lines<'_>)] = &[
        ("GET", &[], &[]),
        ("GET", forged, &[]),
        ("GET", hop, coded),
        ("POST", &[("Origin", "http://localhost.")], coded),
        ("OPTIONS", &[("Max-Forwards", "7")], &[]),
        ("DELETE", &[("Expect", "100-continue"), ("Cache-Control", "no-transform")], coded),
    ];
    for more in ["", "    compress: []\n", "    dev: true\n"] {
        let edge = Edge::start(&site(more));
        let port = edge.http().port();
        let host = format!("localhost:{port}");
        for path in ["/a%20b?x=1&nxtPa=2", "/v12/a", "/docs/%41/b", "/ruled", "/_next/image"] {
            for (method, one, two) in parts {
                let sent = [*one, *two].concat();
                let said = said(&edge, method, &format!("http://{host}{path}"), &sent);
                let case = format!("{more}{method} {path} {sent:?}\n{said:#}");
                let mut asked = sent.clone();
                asked.push(("Host", &host));
                let answer = edge.connect().ask(method, path, &asked, b"");
                assert_eq!((answer.status, &said["status"]), (200, &Value::Null), "{case}");
                let (target, headers) = seen(&origin);
                assert_eq!(said["target"], target, "{case}");
                assert_eq!(foretold(&said, &host, &sent), headers, "{case}");
            }
        }
        let said = said(&edge, "GET", &format!("http://{host}/ws"), socket);
        assert_eq!(said["answer"], "a tunnel to the upstream");
        let mut asked = socket.to_vec();
        asked.push(("Host", &host));
        let _refused = edge.connect().ask("GET", "/ws", &asked, b"");
        assert_eq!(foretold(&said, &host, socket), seen(&origin).1, "{said:#}");
    }
}

#[test]
fn compression_rates_and_what_a_pattern_has_found_are_told() {
    let origin = Origin::text("ok");
    let edge = Edge::start(&format!(
        "{PLAIN}limits: {{ body_rate: 2KB/s, per_ip: {{ requests: 50/s, burst: 60 }} }}
sites:
  localhost:
    next: '{}'
    routes:
      - {{ path: '~^/(?<kind>[a-z]+)/(?<id>[0-9]+)$', when: {{ headers: {{ x-v: '~^[12]$' }} }}, redirect: '/:kind?id=:id' }}
      - {{ path: /api/*, rate: {{ to: 10/s, burst: 20, by: 'header:x-key' }} }}
      - {{ path: /slow, body_rate: none }}
",
        origin.url()
    ));
    let url = |path: &str| format!("http://localhost{path}");
    let gzip = [("Accept-Encoding", "gzip")];
    let told = said(&edge, "GET", &url("/api/a"), &gzip);
    assert_eq!(told["limits"]["rate"], "10/s, 20 at once, by header:x-key", "{told:#}");
    assert_eq!(told["limits"]["per_ip.requests"], "50/s, 60 at once", "{told:#}");
    assert_eq!(told["limits"]["body_rate"], "2000 bytes a second", "{told:#}");
    let told_slow = said(&edge, "POST", &url("/slow"), &[]);
    assert_eq!(told_slow["limits"]["body_rate"], Value::Null, "{told_slow:#}");
    let has = |told: &Value, change: &str| {
        told["response"].as_array().expect("changes").iter().any(|one| one == change)
    };
    assert!(has(&told, "compress with gzip, where that is worth it"), "{told:#}");
    let told = said(&edge, "GET", &url("/api/a"), &[("Accept-Encoding", "br;q=0")]);
    assert!(has(&told, "compress nothing: the client takes none of it"), "{told:#}");
    let told = said(&edge, "GET", &url("/item/12"), &[("X-V", "2")]);
    assert_eq!(told["location"], "/item?id=12", "{told:#}");
    assert_eq!(told["captured"], serde_json::json!({ "kind": "item", "id": "12" }));
    let answer = edge.connect().ask("GET", "/item/12", &[("X-V", "2")], b"");
    assert_eq!((answer.status, answer.header("location")), (308, Some("/item?id=12")));
    for (path, value) in [("/item/12", "3"), ("/item/12a", "1"), ("/Item/12", "1")] {
        let answer = edge.connect().ask("GET", path, &[("X-V", value)], b"");
        assert_eq!(answer.status, 200, "{path} {value}");
    }
}
