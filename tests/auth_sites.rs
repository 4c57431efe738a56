//! What lets somebody in at one place and must not at another: other sites, other pages, other words.

use serde_json::json;

use crate::auth::{HS256, SIGNING, claims, seconds, token};
use crate::harness::origin::{Origin, reply};
use crate::harness::{Answer, Edge, PLAIN, eventually};

/// An application that knows this user by any cookie.
fn knowing(user: &'static str) -> Origin {
    Origin::start(move |seen, stream| {
        if seen.path() != "/api/who" {
            return reply(stream, "200 OK", "", user.as_bytes());
        }
        let host = seen.header("x-forwarded-host").unwrap_or_default();
        let known = match user {
            // It serves several sites, and knows them by their hosts.
            "by host" if host.starts_with("a.test") => "anna",
            "by host" | "nobody" => return reply(stream, "401 Unauthorized", "", b""),
            user => user,
        };
        let body = format!("{{\"userId\":\"{known}\"}}");
        reply(stream, "200 OK", "content-type: application/json\r\n", body.as_bytes())
    })
}

const DOOR: &str = "routes: [{ path: /me, auth: { by: app } }]";

fn at(edge: &Edge, host: &str, headers: &[(&str, &str)]) -> Answer {
    let cookie = [("Host", host), ("Cookie", "session=one")];
    edge.connect().ask("GET", "/me", &[&cookie[..], headers].concat(), b"")
}

#[test]
fn an_application_answers_for_its_own_site_alone() {
    let (first, second) = (knowing("anna"), knowing("nobody"));
    let auth = "auth: { app: { http: { path: /api/who }, cookie: session, cache: 1m } }\n";
    let edge = Edge::start(&format!(
        "{PLAIN}{auth}sites:\n  a.test: {{ next: \"{}\", {DOOR} }}\n  b.test: {{ next: \"{}\", {DOOR} }}\n",
        first.url(),
        second.url()
    ));
    assert_eq!(at(&edge, "a.test", &[]).status, 200);
    assert_eq!(at(&edge, "b.test", &[]).status, 401, "its own application knows nobody");
    assert_eq!(at(&edge, "a.test", &[]).status, 200);
    // One for both that looks at the host.
    let both = knowing("by host");
    let auth = format!(
        "auth: {{ app: {{ http: {{ path: /api/who, to: \"{0}\" }}, cookie: session, cache: 1m }} }}\n",
        both.url()
    );
    let edge = Edge::start(&format!(
        "{PLAIN}{auth}sites:\n  a.test: {{ next: \"{0}\", {DOOR} }}\n  b.test: {{ next: \"{0}\", {DOOR} }}\n",
        both.url()
    ));
    assert_eq!(at(&edge, "a.test", &[]).status, 200);
    assert_eq!(at(&edge, "b.test", &[]).status, 401);
}

/// As the site itself is chosen, so is the application that is asked.
#[test]
fn the_application_of_an_exact_name_is_asked_before_one_of_a_pattern() {
    let (pattern, exact) = (knowing("pattern"), knowing("exact"));
    let auth = "auth: { app: { http: { path: /api/who }, cookie: session } }\n";
    let edge = Edge::start(&format!(
        "{PLAIN}{auth}sites:\n  \"*.test\": {{ next: \"{}\", {DOOR} }}\n  a.test: {{ next: \"{}\", {DOOR} }}\n",
        pattern.url(),
        exact.url()
    ));
    for (host, origin, user) in [("a.test", &exact, "exact"), ("b.test", &pattern, "pattern")] {
        assert_eq!(at(&edge, host, &[]).text(), user);
        let told = origin.seen().pop().expect("a request");
        assert_eq!(told.all("x-vestibule-user"), [user], "{host}");
        assert_eq!(told.all("x-vestibule-provider"), ["app"], "{host}");
    }
}

/// Browsers send cookies whoever's page asks; what changes something is for the site's own.
#[test]
fn a_cookie_counts_only_from_the_sites_own_pages_where_something_is_changed() {
    let origin = knowing("anna");
    let auth =
        "auth: { app: { http: { path: /api/who }, cookie: session, from: [bearer, cookie] } }\n";
    let routes = "routes: [{ path: /me, auth: { by: app }, upgrade: true }], cors: { origins: \"https://listed.test\", credentials: true }";
    let edge = Edge::start(&format!(
        "{PLAIN}{auth}sites:\n  localhost: {{ next: \"{}\", {routes} }}\n",
        origin.url()
    ));
    let own = format!("http://localhost:{}", edge.http().port());
    let host = own.replace("http://", "");
    let ask = |method: &str, headers: &[(&str, &str)]| {
        let all = [&[("Host", host.as_str())], headers].concat();
        edge.connect().ask(method, "/me", &all, b"").status
    };
    let cookie = ("Cookie", "session=one");
    let foreign = ("Origin", "https://evil.test");
    for (method, headers, expected) in [
        ("POST", vec![cookie, ("Origin", own.as_str())], 200),
        ("POST", vec![cookie], 200),
        ("POST", vec![cookie, ("Origin", "null"), ("Sec-Fetch-Site", "same-origin")], 200),
        ("POST", vec![cookie, ("Origin", "https://listed.test")], 200),
        ("GET", vec![cookie, foreign], 200),
        ("POST", vec![cookie, foreign], 403),
        ("POST", vec![cookie, ("Sec-Fetch-Site", "cross-site")], 403),
        ("DELETE", vec![cookie, ("Origin", "null")], 403),
        // No browser sends it by itself.
        ("POST", vec![("Authorization", "Bearer one"), foreign], 200),
        ("POST", vec![foreign], 401),
        ("GET", vec![cookie, foreign, ("Connection", "upgrade"), ("Upgrade", "websocket")], 403),
    ] {
        assert_eq!(ask(method, &headers), expected, "{method} {headers:?}");
    }
    edge.access_line(|line| line["reason"] == "foreign_origin");
}

/// Whatever an application cannot read it takes away: that must not end what is right later, nor
/// fill the list of what is refused.
#[test]
fn only_a_token_that_is_right_is_logged_out_of() {
    let origin = Origin::start(|seen, stream| {
        let gone = "set-cookie: token=; Max-Age=0; Path=/\r\n";
        let elsewhere = "set-cookie: token=; Max-Age=0; Path=/other\r\n";
        let told = match seen.path() {
            "/logout" => gone,
            "/elsewhere" => elsewhere,
            _ => "",
        };
        reply(stream, "200 OK", told, b"ok")
    });
    let auth = format!(
        "auth: {{ app: {{ jwt: {{ issuer: https://issuer.example.test, audience: realtime }}, secret: {SIGNING}, cookie: token, cache: 0s, failures: 100000/s }} }}\n"
    );
    let edge = Edge::start(&format!(
        "{PLAIN}{auth}hub: {{ namespaces: {{ /: {{ auth: app }} }} }}\nsites:\n  localhost: {{ next: \"{}\", {DOOR} }}\n",
        origin.url()
    ));
    let ask = |path: &str, token: &str| {
        edge.connect().ask("GET", path, &[("Cookie", &format!("token={token}"))], b"").status
    };
    // Issued a moment ahead of us: refused now, and right in a few seconds.
    let mut early = claims("anna");
    early["iat"] = json!(seconds() + 10);
    let early = token(HS256, &early);
    assert_eq!(ask("/me", &early), 401);
    assert_eq!(ask("/logout", &early), 200);
    // The other worker may remember its refusal for a moment.
    let becomes = |status: u16| eventually("it", || (ask("/me", &early) == status).then_some(()));
    becomes(200);
    // A cookie of that name for another path is another.
    assert_eq!(ask("/elsewhere", &early), 200);
    becomes(200);
    assert_eq!(ask("/logout", &early), 200);
    let everywhere = || (0..8).all(|_| ask("/me", &early) == 401);
    eventually("its end on all workers", || everywhere().then_some(()));
}
