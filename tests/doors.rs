//! Routes for whoever has a password, or whom another server lets in; sessions are in auth.rs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::harness::origin::{Origin, reply};
use crate::harness::{Answer, Edge, Folder, PLAIN};

/// Of the passwords `open sesame` and `žába:2`.
const HTPASSWD: &str = "# those who may come\nanna:ANNA\n\nbert:BERT\n";
const ANNA: &str = "$2y$05$YEZFkIKmYm9eWkMIo9OrNuQmI9O68YlDhThHHHDSyyFPknErX7wdy";
const BERT: &str = "$2b$10$F74LDhffKGKXhafJ0B942.L5EUM0qUFBhJRslXTG/eKsfr95y5YYq";

fn site(routes: &str, origin: &Origin) -> String {
    format!("{PLAIN}sites:\n  localhost:\n    next: \"{}\"\n    routes:\n{routes}", origin.url())
}

fn with_passwords(origin: &Origin) -> Edge {
    let folder = Folder::new();
    folder.write("htpasswd", &HTPASSWD.replace("ANNA", ANNA).replace("BERT", BERT));
    let routes =
        "      - { path: /admin/*, basic: { users: 'file:htpasswd', realm: The back room } }\n";
    Edge::start_in(folder, &site(routes, origin))
}

fn shown(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// What the application was told, by an origin that echoes.
fn told(answer: &Answer, name: &str) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let headers = answer.json()["headers"].clone();
    let all = headers.as_array().expect("a list").clone();
    let same = all.iter().filter(|pair| pair[0].as_str() == Some(name));
    same.map(|pair| pair[1].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn a_password_opens_a_route() {
    let origin = Origin::echo();
    let edge = with_passwords(&origin);
    let ask = |value: &str| {
        let headers = [("Authorization", value), ("X-Vestibule-User", "root")];
        edge.connect().ask("GET", "/admin/a", &headers, b"")
    };
    for (user, password) in [("anna", "open sesame"), ("bert", "žába:2")] {
        let answer = ask(&shown(user, password));
        assert_eq!(told(&answer, "x-vestibule-user"), [user]);
        assert_eq!(told(&answer, "authorization"), [""; 0], "the password goes no further");
    }
    let before = origin.seen().len();
    for wrong in [
        shown("anna", "open sesam"),
        shown("bert", "open sesame"),
        shown("carl", "open sesame"),
        shown("", ""),
        "Bearer abc".to_owned(),
        "Basic !".to_owned(),
    ] {
        let answer = ask(&wrong);
        let question = "Basic realm=\"The back room\", charset=\"UTF-8\"";
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some(question)));
    }
    assert_eq!(origin.seen().len(), before, "nobody else comes to the application");
    assert_eq!(edge.get("/admin/a").status, 401);
    assert_eq!(edge.get("/elsewhere").status, 200);
    // Elsewhere the header is the application's own.
    let bearer = [("Authorization", "Bearer app"), ("X-Vestibule-User", "root")];
    let answer = edge.connect().ask("GET", "/elsewhere", &bearer, b"");
    assert_eq!(told(&answer, "authorization"), ["Bearer app"]);
    assert_eq!(told(&answer, "x-vestibule-user"), [""; 0]);
    let access = std::fs::read_to_string(edge.folder.path("access")).expect("a file");
    for secret in ["open sesame", ANNA, &shown("anna", "open sesame")[6..]] {
        assert!(!edge.log().contains(secret) && !access.contains(secret), "{secret} is logged");
    }
}

/// What a client may take away of a request is its own, not what is said of it.
#[test]
fn a_client_cannot_take_its_name_away() {
    let origin = Origin::echo();
    let edge = with_passwords(&origin);
    let right = shown("anna", "open sesame");
    let headers = [
        ("Authorization", right.as_str()),
        ("Connection", "keep-alive, X-Vestibule-User, X-Private"),
        ("X-Private", "1"),
    ];
    let answer = edge.connect().ask("GET", "/admin/a", &headers, b"");
    assert_eq!(told(&answer, "x-vestibule-user"), ["anna"]);
    assert_eq!(told(&answer, "x-private"), [""; 0]);
}

#[test]
fn a_password_that_was_right_is_not_checked_each_time() {
    let origin = Origin::text("in");
    let edge = with_passwords(&origin);
    let right = shown("anna", "open sesame");
    let mut client = edge.connect();
    // Far more than an address may try.
    for number in 0..100 {
        let answer = client.ask("GET", "/admin/a", &[("Authorization", &right)], b"");
        assert_eq!(answer.status, 200, "request {number}");
    }
}

#[test]
fn who_guesses_is_stopped() {
    let origin = Origin::text("in");
    let edge = with_passwords(&origin);
    let statuses: Vec<_> = (0..40)
        .map(|number| {
            let guess = shown("anna", &format!("guess {number}"));
            edge.connect().ask("GET", "/admin/a", &[("Authorization", &guess)], b"").status
        })
        .collect();
    assert!(statuses[..20].iter().all(|status| *status == 401), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
}

#[test]
fn a_reload_takes_a_password_away() {
    let origin = Origin::text("in");
    let mut edge = with_passwords(&origin);
    let ask = |edge: &Edge| {
        let right = shown("anna", "open sesame");
        edge.connect().ask("GET", "/admin/a", &[("Authorization", &right)], b"").status
    };
    assert_eq!(ask(&edge), 200);
    edge.folder.write("htpasswd", &format!("anna:{BERT}\n"));
    edge.reload();
    assert_eq!(ask(&edge), 401);
}

/// What decides: the status is what is set, and each answer names a user.
fn decider(mode: &Arc<AtomicU16>) -> Origin {
    let told = Arc::clone(mode);
    Origin::start(move |seen, stream| {
        let user = seen.header("cookie").unwrap_or("nobody").to_owned();
        let named = format!("remote-user: {user}\r\nx-other: 1\r\n");
        match told.load(Ordering::Relaxed) {
            200 => reply(stream, "200 OK", &named, b"ignored"),
            201 => reply(stream, "200 OK", "", b""),
            302 => reply(stream, "302 Found", "location: https://login.test/\r\n", b""),
            401 => reply(stream, "401 Unauthorized", "www-authenticate: Custom\r\n", b"log in"),
            403 => reply(stream, "403 Forbidden", &named, b"not you"),
            404 => reply(stream, "404 Not Found", &named, b""),
            500 => reply(stream, "500 Oh", &named, b""),
            1 => false,
            _ => {
                std::thread::sleep(Duration::from_secs(6));
                false
            }
        }
    })
}

#[test]
fn another_server_decides() {
    let (mode, origin) = (Arc::new(AtomicU16::new(200)), Origin::echo());
    let other = decider(&mode);
    let routes = format!(
        "      - {{ path: /internal/*, auth: {{ forward: {{ url: \"{}/verify?a=1\", headers: [Remote-User], timeout: 2s }} }} }}\n",
        other.url()
    );
    let edge = Edge::start(&site(&routes, &origin));
    let headers = [
        ("Cookie", "anna"),
        ("Remote-User", "root"),
        // For who makes variables of headers it is the same.
        ("Remote_User", "root"),
        ("X_Vestibule_User", "root"),
        ("X-Forwarded-Uri", "/forged"),
        ("X-Original-Method", "FORGED"),
        ("X_Forwarded_Uri", "/forged"),
        ("X_Forwarded_Method", "FORGED"),
        ("X_Original_URL", "/forged"),
        ("X_Real_IP", "6.6.6.6"),
        ("X-Forwarded-User", "root"),
        ("Connection", "keep-alive, Remote-User"),
        ("Content-Type", "text/plain"),
        ("Accept", "text/html"),
        ("X-Middleware-Subrequest", "middleware"),
    ];
    let ask = || edge.connect().ask("POST", "/internal/a?b=%20", &headers, b"a body");
    let answer = ask();
    assert_eq!(told(&answer, "remote-user"), ["anna"]);
    for name in ["x-other", "remote_user", "x_vestibule_user"] {
        assert_eq!(told(&answer, name), [""; 0], "{name}");
    }
    assert_eq!(answer.json()["length"], 6);
    let seen = other.seen().pop().expect("a question");
    assert_eq!((seen.line.as_str(), seen.body.len()), ("GET /verify?a=1 HTTP/1.1", 0));
    let host = format!("localhost:{}", edge.http().port());
    let url = format!("http://localhost{}", "/internal/a?b=%20");
    let own = other.url().replace("http://", "");
    for (name, value) in [
        ("x-forwarded-method", "POST"),
        ("x-forwarded-uri", "/internal/a?b=%20"),
        ("x-forwarded-proto", "http"),
        ("x-original-method", "POST"),
        ("x-original-uri", "/internal/a?b=%20"),
        ("host", own.as_str()),
        ("accept", "text/html"),
    ] {
        assert_eq!(seen.all(name), [value], "{name}");
    }
    let original = seen.header("x-original-url").expect("a URL");
    assert!(original == url || original.contains(&host), "{original}");
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    for name in [
        "content-length",
        "content-type",
        "x-middleware-subrequest",
        "x_forwarded_uri",
        "x_forwarded_method",
        "x_original_url",
        "x_real_ip",
        "x-forwarded-user",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    mode.store(201, Ordering::Relaxed);
    assert_eq!(told(&ask(), "remote-user"), [""; 0], "a client's own never counts");
    let elsewhere = edge.connect().ask("GET", "/", &headers, b"");
    for name in ["remote-user", "remote_user"] {
        assert_eq!(told(&elsewhere, name), [""; 0], "nor elsewhere");
    }

    let before = origin.seen().len();
    for (status, header, value) in [
        (302, "location", "https://login.test/"),
        (401, "www-authenticate", "Custom"),
        (403, "cache-control", "no-store"),
    ] {
        mode.store(status, Ordering::Relaxed);
        let answer = ask();
        assert_eq!((answer.status, answer.header(header)), (status, Some(value)));
    }
    for status in [404, 500, 1, 0] {
        mode.store(status, Ordering::Relaxed);
        let answer = ask();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{status}");
    }
    assert_eq!(origin.seen().len(), before, "nobody came to the application");
    edge.access_line(|line| line["reason"] == "auth_unavailable");
}

/// HTTP/2 sends cookies one by one; who decides reads one line.
#[test]
fn whoever_decides_gets_the_cookies_in_one_line() {
    let (other, origin) = (Origin::text("in"), Origin::text("in"));
    let routes = format!(
        "      - {{ path: /internal/*, auth: {{ forward: {{ url: \"{}\" }} }} }}\n",
        other.url()
    );
    let edge = Edge::start(&site(&routes, &origin));
    let cookies = [("Cookie", "a=1"), ("Cookie", "b=2")];
    assert_eq!(edge.connect().ask("GET", "/internal/a", &cookies, b"").status, 200);
    assert_eq!(other.seen()[0].all("cookie"), ["a=1; b=2"]);
}

/// All lines of one header, in their order.
fn all<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let same = answer.headers.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
    same.map(|(_, value)| value.as_str()).collect()
}

/// As proxies for logins do that prolong their session with a request that they let in.
#[test]
fn a_cookie_of_whoever_decides_reaches_the_client() {
    let other = Origin::start(|_, stream| {
        let told = "set-cookie: login=new; Path=/\r\nset-cookie: other=1\r\nx-expires: 60\r\nx-secret: 1\r\n";
        reply(stream, "200 OK", told, b"")
    });
    let origin = Origin::start(|seen, stream| {
        let own = "set-cookie: login=app\r\nset-cookie: app=1\r\nx-expires: app\r\n";
        seen.path() != "/internal/broken" && reply(stream, "200 OK", own, b"in")
    });
    let routes = format!(
        "      - {{ path: /internal/*, auth: {{ forward: {{ url: \"{}\", client_headers: [Set-Cookie, X-Expires] }} }} }}\n",
        other.url()
    );
    let edge = Edge::start(&site(&routes, &origin));
    let answer = edge.get("/internal/a");
    assert_eq!(all(&answer, "set-cookie"), ["app=1", "login=new; Path=/", "other=1"]);
    assert_eq!((all(&answer, "x-expires"), all(&answer, "x-secret")), (vec!["60"], vec![]));
    assert_eq!(origin.seen()[0].header("x-expires"), None, "the application is not told");
    // Also where the application has nothing to say: the old cookie may hold no more.
    let answer = edge.get("/internal/broken");
    assert_eq!((answer.status, all(&answer, "set-cookie").len()), (502, 2));
    assert_eq!(all(&edge.get("/"), "set-cookie"), ["login=app", "app=1"]);
}

#[test]
fn explain_says_whom_a_route_is_for_and_what_the_application_is_told() {
    let folder = Folder::new();
    folder.write("htpasswd", &format!("anna:{ANNA}\nbert:{BERT}\n"));
    folder.write(
        "proxy.yaml",
        "sites:
  a.test:
    next: http://127.0.0.1:3000
    routes:
      - { path: /me/*, auth: { by: [app, token], login: /login } }
      - { path: /back/*, basic: { users: 'file:htpasswd', realm: The back room } }
      - { path: /internal/*, auth: { forward: { url: 'http://127.0.0.1:4180/verify', headers: [Remote-User] } } }
auth:
  app: { lucia: v3, database: 'sqlite:app.db' }
  token: { jwt: { issuer: https://a.test, audience: a }, secret: 0123456789abcdef0123456789abcdef }
",
    );
    let explain = |path: &str, headers: &[&str]| -> serde_json::Value {
        let url = format!("https://a.test{path}");
        let given = headers.iter().flat_map(|header| ["-H", header]);
        let all: Vec<_> = ["explain", "--json", "GET", &url].into_iter().chain(given).collect();
        let output = crate::harness::vestibule(&all, &folder);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let forged = ["X-Vestibule-User: root", "Remote-User: root", "Authorization: Basic YTpi"];
    for (path, door, told, removed) in [
        (
            "/me/a",
            "auth.by: users of app, else token; others get 401, pages are sent to /login",
            Some(["x-vestibule-user", "(the user's id)"]),
            vec!["remote-user", "x-vestibule-user"],
        ),
        (
            "/back/a",
            "basic: 2 with a password for \"The back room\"; others get 401",
            Some(["x-vestibule-user", "(the name that was given)"]),
            vec!["authorization", "remote-user", "x-vestibule-user"],
        ),
        (
            "/internal/a",
            "auth.forward: whom http://127.0.0.1:4180/verify answers 2xx; others get its answer, or 503",
            Some(["remote-user", "(as auth.forward answers)"]),
            vec!["remote-user", "x-vestibule-user"],
        ),
        ("/a", "", None, vec!["remote-user", "x-vestibule-user"]),
    ] {
        let said = explain(path, &forged);
        assert_eq!(said["door"].as_str().unwrap_or_default(), door, "{path}");
        let added = said["request"]["added"].as_array().expect("headers");
        let is_told = told.is_none_or(|[name, value]| {
            added.iter().any(|one| one["name"] == name && one["value"] == value)
        });
        assert!(is_told, "{path}: {added:?}");
        let gone = said["request"]["removed"].as_array().expect("headers");
        let gone: Vec<_> = gone.iter().filter_map(|one| one["name"].as_str()).collect();
        assert_eq!(gone, removed, "{path}");
    }
    let output = crate::harness::vestibule(&["explain", "GET", "https://a.test/me/a"], &folder);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("door      auth.by: users of app, else token"), "{text}");
}

#[test]
fn nobody_comes_in_while_nobody_decides() {
    let origin = Origin::text("in");
    let routes = "      - { path: /internal/*, auth: { forward: 'http://127.0.0.1:1/verify' } }\n";
    let edge = Edge::start(&site(routes, &origin));
    assert_eq!(edge.get("/internal/a").status, 503);
    assert_eq!(edge.get("/").status, 200);
    assert_eq!(origin.seen().len(), 1);
}
