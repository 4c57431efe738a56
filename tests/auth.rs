//! The application's own sessions: who gets in, who stays, who is sent away.
//!
//! What each kind of cookie comes to is judged by vectors, next to the code; here are the stores,
//! the hub, and what happens over time. Every test looks for its secrets in all that was logged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tungstenite::protocol::{Role, WebSocket};

use crate::harness::origin::{Origin, reply};
use crate::harness::socketio::{GENEROUS, Heard, Line, UPGRADE, Web, hub, masked};
use crate::harness::sqlite::Sqlite;
use crate::harness::{Answer, Edge, Folder, PLAIN, eventually};
use crate::hub_recovery::{come_back, enter};

pub const ID: &str = "bmyfk6u7ytuq4m2ypwrmp3argznybjok54kdsxud";
pub const OTHER: &str = "cmyfk6u7ytuq4m2ypwrmp3argznybjok54kdsxud";
pub const ORIGIN: (&str, &str) = ("Origin", "http://localhost");

pub fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A hub whose users `auth` names, as `app`; `site` answers the rest.
pub fn config(auth: &str, site: &str) -> String {
    // Here is one address for everybody.
    let auth = if auth.contains("failures:") {
        auth.to_owned()
    } else {
        auth.replacen('{', "{ failures: 100000/s,", 1)
    };
    format!(
        "{PLAIN}log: {{ level: trace }}\n{site}auth:\n  app: {auth}\nhub:\n  limits: {{ {GENEROUS} \
         per_user: 3 }}\n  namespaces:\n    /:\n      auth: app\n      join: [\"user:{{user.id}}\"]\n      \
         events: {{ all: {{ relay: \"*\", echo: true, stamp: {{ from: \"{{user.id}}\" }} }} }}\n"
    )
}

/// Lucia 3 on SQLite, with one session of Alice's and one of Bob's.
pub fn lucia(more: &str, site: &str) -> (Edge, Sqlite) {
    lucia_as(more, |auth| config(auth, site))
}

/// The same with another configuration.
fn lucia_as(more: &str, yaml: impl Fn(&str) -> String) -> (Edge, Sqlite) {
    let folder = Folder::new();
    let database = Sqlite(folder.path("app.db"));
    let ends = seconds() + 86_400;
    database.run(&format!(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE user (id TEXT PRIMARY KEY, name TEXT);
         CREATE TABLE session (id TEXT PRIMARY KEY, user_id TEXT, expires_at INTEGER, two_factor INTEGER);
         INSERT INTO user VALUES ('alice', 'Alice'), ('bob', 'Bob');
         INSERT INTO session VALUES ('{ID}', 'alice', {ends}, 1), ('{OTHER}', 'bob', {ends}, 1);"
    ));
    let auth = format!("{{ lucia: v3, database: \"sqlite:app.db\", cache: 0s{more} }}");
    (Edge::start_in(folder, &yaml(&auth)), database)
}

pub fn knock(edge: &Edge, headers: &[(&str, &str)], query: &str) -> Result<Web, Answer> {
    let mut client = edge.connect();
    let path = hub(&format!("EIO=4&transport=websocket{query}"));
    let answer = client.ask("GET", &path, &[&UPGRADE[..], headers].concat(), b"");
    if answer.status != 101 {
        return Err(answer);
    }
    let socket = WebSocket::from_raw_socket(client.upgraded(), Role::Client, None);
    let mut web = Web { socket, eio: 4, open: Value::Null };
    let open = web.text();
    web.open = serde_json::from_str(open.strip_prefix('0').expect("open")).expect("JSON");
    Ok(web)
}

pub fn with_cookie(edge: &Edge, cookie: &str) -> Web {
    knock(edge, &[("Cookie", cookie), ORIGIN], "").expect("a 101")
}

/// The client is to come back: it is told so when it connects, or before if that is known already.
#[track_caller]
pub fn assert_later(edge: &Edge, cookie: &str) {
    match knock(edge, &[("Cookie", cookie), ORIGIN], "") {
        Ok(web) => assert_eq!(answer_of(web), Heard::Closed(Some(1013)), "{cookie}"),
        Err(answer) => assert_eq!(answer.status, 503, "{cookie}"),
    }
}

/// What a CONNECT is answered.
pub fn answer_of(mut web: Web) -> Heard {
    web.say("40");
    web.hear()
}

pub fn refused() -> Heard {
    Heard::Text(r#"44{"message":"unauthorized"}"#.to_owned())
}

pub fn session(id: &str) -> String {
    format!("auth_session={id}")
}

/// Nothing that opens a session is in any log.
pub fn assert_silent(edge: &Edge, secrets: &[&str]) {
    let access = std::fs::read_to_string(edge.folder.path("access")).expect("a file");
    let metrics = edge.admin("GET", "/metrics").text();
    assert!(edge.log().contains("TRACE"), "a log that says little proves nothing");
    for secret in secrets {
        for (name, text) in [("log", &edge.log()), ("access", &access), ("metrics", &metrics)] {
            assert!(!text.contains(secret), "{secret} is in {name}");
        }
    }
}

#[test]
fn a_session_says_who_it_is() {
    let (edge, _database) = lucia("", "");
    let mut web = with_cookie(&edge, &session(ID));
    web.enter("/");
    web.say(r#"42["all",{"from":"bob","text":"x"}]"#);
    web.expect(r#"42["all",{"text":"x","from":"alice"}]"#);
    let rooms = edge.admin("GET", "/hub/rooms?namespace=/").json();
    assert_eq!(rooms["rooms"][1]["room"], "user:alice");
    let gone = edge.admin_with("POST", "/hub/disconnect", br#"{"namespace":"/","user":"alice"}"#);
    assert_eq!(gone.json()["sockets"], 1, "{gone:?}");
    web.expect("41");
    assert_silent(&edge, &[ID]);
}

#[test]
fn cookies_count_only_from_the_sites_own_pages() {
    let (edge, _database) = lucia("", "");
    let cookie = session(ID);
    for origin in [
        &["http://localhost.evil.test"][..],
        &["https://localhost"],
        &["null"],
        &[],
        &["http://localhost, http://evil.test"],
        &["http://localhost@evil.test"],
        &["http://localhost/x"],
        &["http://localhost.."],
    ] {
        let mut headers = vec![("Cookie", cookie.as_str())];
        headers.extend(origin.iter().map(|origin| ("Origin", *origin)));
        let refused = knock(&edge, &headers, "").err().expect("a refusal");
        assert_eq!(refused.status, 403, "{origin:?}");
        let path = hub("EIO=4&transport=polling");
        assert_eq!(edge.connect().ask("GET", &path, &headers, b"").status, 403, "{origin:?}");
    }
    let own = [("Cookie", cookie.as_str()), ("Sec-Fetch-Site", "same-origin")];
    let path = hub("EIO=4&transport=polling");
    assert_eq!(edge.connect().ask("GET", &path, &own, b"").status, 200);
    let other = [("Cookie", cookie.as_str()), ("Sec-Fetch-Site", "same-site")];
    assert_eq!(edge.connect().ask("GET", &path, &other, b"").status, 403);
}

#[test]
fn who_has_logged_out_elsewhere_is_told_so() {
    let (edge, database) = lucia(", recheck: 200ms", "");
    let (mut alice, mut bob) =
        (with_cookie(&edge, &session(ID)), with_cookie(&edge, &session(OTHER)));
    alice.enter("/");
    bob.enter("/");
    database.run(&format!("DELETE FROM session WHERE id = '{ID}';"));
    alice.expect("41");
    assert!(matches!(alice.hear(), Heard::Closed(_) | Heard::Text(_)));
    bob.say(r#"42["all",{}]"#);
    bob.expect(r#"42["all",{"from":"bob"}]"#);
    assert_eq!(answer_of(with_cookie(&edge, &session(ID))), refused());
}

#[test]
fn a_session_that_ends_ends_its_sockets_unless_it_was_extended() {
    let (edge, database) = lucia("", "");
    let soon = seconds() + 4;
    let id = "e".repeat(40);
    database.run(&format!("INSERT INTO session VALUES ('{id}', 'alice', {soon}, 1);"));
    database.run(&format!("UPDATE session SET expires_at = {soon} WHERE id = '{OTHER}';"));
    let (mut alice, mut bob) =
        (with_cookie(&edge, &session(&id)), with_cookie(&edge, &session(OTHER)));
    alice.enter("/");
    bob.enter("/");
    database.run(&format!("UPDATE session SET expires_at = {soon} + 900 WHERE id = '{OTHER}';"));
    alice.expect("41");
    bob.say(r#"42["all",{}]"#);
    bob.expect(r#"42["all",{"from":"bob"}]"#);
}

#[test]
fn a_logout_that_passes_by_ends_its_sockets_at_once() {
    let answer = "set-cookie: auth_session=; Max-Age=0; Path=/\r\n";
    let origin = Origin::start(move |_, stream| reply(stream, "200 OK", answer, b"bye"));
    let site = format!("sites: {{ localhost: {{ next: \"{}\" }} }}\n", origin.url());
    let (edge, database) = lucia("", &site);
    let mut alice = with_cookie(&edge, &session(ID));
    alice.enter("/");
    // The cookie goes, the session stays: the database has the last word.
    let logout = |id: &str| edge.connect().ask("POST", "/logout", &[("Cookie", &session(id))], b"");
    assert_eq!(logout(ID).status, 200);
    alice.say(r#"42["all",{}]"#);
    alice.expect(r#"42["all",{"from":"alice"}]"#);
    database.run(&format!("DELETE FROM session WHERE id = '{ID}';"));
    assert_eq!(logout(ID).status, 200);
    alice.expect("41");
    assert_silent(&edge, &[ID]);
}

#[test]
fn while_the_database_is_away_those_who_are_here_stay() {
    let (edge, database) = lucia(", recheck: 100ms, grace: 10m", "");
    let mut alice = with_cookie(&edge, &session(ID));
    alice.enter("/");
    database.run("ALTER TABLE session RENAME TO moved;");
    let lookups = "vestibule_auth_lookups_total{outcome=\"temporary\"}";
    eventually("failed look-ups", || {
        let metrics = edge.admin("GET", "/metrics").text();
        metrics.lines().any(|line| line.starts_with(lookups)).then_some(())
    });
    // Not a refusal.
    assert_later(&edge, &session(OTHER));
    alice.say(r#"42["all",{}]"#);
    alice.expect(r#"42["all",{"from":"alice"}]"#);
    database.run("ALTER TABLE moved RENAME TO session;");
    eventually("everybody again", || {
        let mut web = knock(&edge, &[("Cookie", &session(OTHER)), ORIGIN], "").ok()?;
        web.say("40");
        matches!(web.hear(), Heard::Text(text) if text.starts_with("40")).then_some(())
    });
    assert!(edge.log().contains("sessions cannot be looked up"));
}

#[test]
fn grace_ends() {
    let (edge, database) = lucia(", recheck: 100ms, grace: 300ms", "");
    let mut alice = with_cookie(&edge, &session(ID));
    alice.enter("/");
    database.run("ALTER TABLE session RENAME TO moved;");
    assert_eq!(alice.hear(), Heard::Closed(Some(1013)));
}

#[test]
fn a_table_that_is_missing_is_said_at_the_start() {
    let folder = Folder::new();
    Sqlite(folder.path("app.db")).run("CREATE TABLE other (id TEXT);");
    let auth = "{ lucia: v3, database: \"sqlite:app.db\" }";
    let edge = Edge::start_in(folder, &config(auth, ""));
    eventually("a word", || edge.log().contains("no such table").then_some(()));
    assert_eq!(answer_of(with_cookie(&edge, &session(ID))), Heard::Closed(Some(1013)));
}

#[test]
fn one_user_has_so_many_connections() {
    let (edge, _database) = lucia("", "");
    let mut all: Vec<_> = (0..3).map(|_| with_cookie(&edge, &session(ID))).collect();
    all.iter_mut().for_each(|web| drop(web.enter("/")));
    let fourth = answer_of(with_cookie(&edge, &session(ID)));
    let full = r#"44{"message":"too_many_connections"}"#;
    assert_eq!(fourth, Heard::Text(full.to_owned()));
    with_cookie(&edge, &session(OTHER)).enter("/");
    drop(all.pop());
    eventually("a free place", || {
        matches!(answer_of(with_cookie(&edge, &session(ID))), Heard::Text(text) if text.starts_with("40"))
            .then_some(())
    });
}

/// Nor does it bring others in, as long as nobody knows whether its old connection leaves one.
#[test]
fn who_waits_for_a_seat_has_none() {
    let recovering = |auth: &str| {
        let yaml = config(auth, "").replace("hub:\n", "hub:\n  recovery: 2m\n");
        format!("{yaml}    /b: {{ auth: app, events: deny }}\n")
    };
    let (edge, _database) = lucia_as("", recovering);
    let cookie = session(ID);
    let mut before: Vec<_> = (0..3).map(|_| with_cookie(&edge, &cookie)).collect();
    let known: Vec<_> = before.iter_mut().map(|web| enter(web, "/")).collect();
    let say = |pid: &str| {
        let mut web = with_cookie(&edge, &cookie);
        let said = [format!("40{}", json!({ "pid": pid })), "40/b,".to_owned()];
        web.raw(&said.map(|text| masked(0x81, text.as_bytes())).concat());
        web
    };
    let nobody = known[0].pid.chars().rev().collect::<String>();
    for _ in 0..10 {
        assert_eq!(say(&nobody).hear(), Heard::Closed(Some(1013)));
    }
    // Both have the one that the old connection had.
    let mut back = say(&known[0].pid);
    let mut answers = [back.text(), back.text()];
    answers.sort();
    assert!(answers[0].starts_with("40/b,{"), "{answers:?}");
    assert!(answers[1].contains(&known[0].sid), "{answers:?}");
    assert_eq!(before[0].hear(), Heard::Closed(None));
    let full = Heard::Text(r#"44{"message":"too_many_connections"}"#.to_owned());
    assert_eq!(answer_of(with_cookie(&edge, &cookie)), full, "somebody new");
}

/// As after a change of networks: the server does not know yet that the old connections are gone.
#[test]
fn who_comes_back_has_the_seat_of_the_old_connection() {
    let recovering = |auth: &str| config(auth, "").replace("hub:\n", "hub:\n  recovery: 2m\n");
    let (edge, _database) = lucia_as("", recovering);
    let cookie = session(ID);
    let mut before: Vec<_> = (0..3).map(|_| with_cookie(&edge, &cookie)).collect();
    let known: Vec<_> = before.iter_mut().map(|web| enter(web, "/")).collect();
    let mut after: Vec<_> = (0..3).map(|_| with_cookie(&edge, &cookie)).collect();
    for (web, who) in after.iter_mut().zip(&known) {
        assert_eq!(come_back(web, &who.pid, None), (Vec::new(), who.clone()));
    }
    before.iter_mut().for_each(|web| assert_eq!(web.hear(), Heard::Closed(None)));
    let full = Heard::Text(r#"44{"message":"too_many_connections"}"#.to_owned());
    assert_eq!(answer_of(with_cookie(&edge, &cookie)), full, "somebody new");
    // Who only says that it comes back has no seat, and is to come again.
    let mut nobody = with_cookie(&edge, &cookie);
    let pid = known[0].pid.chars().rev().collect::<String>();
    for pid in [pid.as_str(), "no-pid"] {
        nobody.say(&format!("40{}", json!({ "pid": pid })));
        assert_eq!(nobody.hear(), Heard::Closed(Some(1013)), "{pid}");
        nobody = with_cookie(&edge, &cookie);
    }
    // The seats are as many as before.
    drop(after.pop());
    let mut last = None;
    eventually("a free seat", || {
        let mut web = with_cookie(&edge, &cookie);
        web.say("40");
        let is_in = matches!(web.hear(), Heard::Text(text) if text.starts_with("40"));
        is_in.then(|| last = Some(web))
    });
    assert_eq!(answer_of(with_cookie(&edge, &cookie)), full);
    drop(last);
}

#[test]
fn users_are_counted_once_wherever_they_are() {
    let (edge, _database) = lucia("", "");
    let counted = |room: &str| {
        let answer = edge.admin("GET", &format!("/hub/count?namespace=/{room}")).json();
        (answer["sockets"].as_u64().expect("a number"), answer["users"].as_u64().expect("a number"))
    };
    let mut all: Vec<_> =
        [ID, ID, OTHER].iter().map(|id| with_cookie(&edge, &session(id))).collect();
    let ids: Vec<_> = all.iter_mut().map(|web| web.enter("/")).collect();
    assert_eq!(counted(""), (3, 2));
    assert_eq!(counted("&room=user:alice"), (2, 1));
    assert_eq!(counted(&format!("&room={}", ids[2])), (1, 1));
    assert_eq!(counted("&room=nobody"), (0, 0));
    let both = json!({ "namespace": "/", "to": "*", "rooms": "all" });
    assert_eq!(edge.admin_with("POST", "/hub/join", both.to_string().as_bytes()).status, 200);
    let rooms = edge.admin("GET", "/hub/rooms?namespace=/").json();
    assert_eq!(rooms["rooms"][0], json!({ "room": "all", "sockets": 3, "users": 2 }));
    let left = json!({ "namespace": "/", "user": "bob", "rooms": "all" });
    assert_eq!(edge.admin_with("POST", "/hub/leave", left.to_string().as_bytes()).status, 200);
    assert_eq!(counted("&room=all"), (2, 1));
    drop(all.swap_remove(0));
    eventually("one of two", || (counted("&room=all") == (1, 1)).then_some(()));
    drop(all);
    eventually("nobody", || (counted("") == (0, 0)).then_some(()));
    assert_eq!(counted("&room=all"), (0, 0));
}

#[test]
fn a_user_is_found_by_name_wherever_it_is() {
    let plain = |auth: &str| config(auth, "").replace("join: [\"user:{user.id}\"]", "join: []");
    let (edge, _database) = lucia_as("", plain);
    let (mut alice, mut bob) =
        (with_cookie(&edge, &session(ID)), with_cookie(&edge, &session(OTHER)));
    alice.enter("/");
    bob.enter("/");
    let told = json!({ "namespace": "/", "user": "alice", "event": "news", "args": [1] });
    let answer = edge.admin_with("POST", "/hub/emit", told.to_string().as_bytes());
    assert_eq!(answer.json(), json!({ "sockets": 1 }));
    alice.expect(r#"42["news",1]"#);
    let gone = json!({ "namespace": "/", "user": "alice" });
    let answer = edge.admin_with("POST", "/hub/disconnect", gone.to_string().as_bytes());
    assert_eq!(answer.json(), json!({ "sockets": 1 }));
    alice.expect("41");
    bob.say(r#"42["all",{}]"#);
    bob.expect(r#"42["all",{"from":"bob"}]"#);
}

#[test]
fn the_application_is_asked() {
    let mode = Arc::new(AtomicU16::new(200));
    let told = Arc::clone(&mode);
    let origin = Origin::start(move |seen, stream| match told.load(Ordering::Relaxed) {
        200 => {
            let user = seen.header("cookie").unwrap_or_default().replace("session=", "");
            let body = format!("{{\"userId\":\"{user}\"}}");
            reply(stream, "200 OK", "content-type: application/json\r\n", body.as_bytes())
        }
        201 => reply(stream, "200 OK", "content-type: text/html\r\n", b"<html>log in</html>"),
        202 => reply(stream, "200 OK", "content-type: application/json\r\n", b"{\"userId\":\"\"}"),
        302 => reply(stream, "302 Found", "location: /login\r\n", b""),
        401 => reply(stream, "401 Unauthorized", "", b""),
        404 => reply(stream, "404 Not Found", "", b""),
        500 => reply(stream, "500 Oh", "", b""),
        _ => {
            std::thread::sleep(Duration::from_secs(6));
            false
        }
    });
    let site = format!("sites: {{ localhost: {{ next: \"{}\" }} }}\n", origin.url());
    let auth = "{ http: { path: /api/who, timeout: 2s, secret: 0123456789abcdef-edge }, cookie: session, cache: 0s }";
    let edge = Edge::start(&config(auth, &site));
    let mut web = with_cookie(&edge, "session=anna; other=1");
    web.enter("/");
    web.say(r#"42["all",{}]"#);
    web.expect(r#"42["all",{"from":"anna"}]"#);
    let seen = origin.seen().pop().expect("a question");
    assert_eq!(seen.line, "GET /api/who HTTP/1.1");
    assert_eq!(seen.header("cookie"), Some("session=anna"));
    assert_eq!(seen.header("x-edge-auth"), Some("0123456789abcdef-edge"));
    assert_eq!(seen.header("origin"), None);
    for status in [401, 302, 202] {
        mode.store(status, Ordering::Relaxed);
        let cookie = format!("session=user{status}");
        assert_eq!(answer_of(with_cookie(&edge, &cookie)), refused(), "{status}");
    }
    for status in [201, 404, 500, 0] {
        mode.store(status, Ordering::Relaxed);
        assert_later(&edge, &format!("session=user{status}"));
    }
    assert_silent(&edge, &["0123456789abcdef-edge"]);
}

pub const SIGNING: &str = "test-jwt-hs256-secret-0123456789abcdef0123456789abcdef";

/// A token of HS256 with these claims.
pub fn token(head: &str, claims: &Value) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", encode(head.as_bytes()), encode(claims.to_string().as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SIGNING.as_bytes());
    format!("{signed}.{}", encode(hmac::sign(&key, signed.as_bytes()).as_ref()))
}

pub const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

pub fn claims(user: &str) -> Value {
    let (iss, now) = ("https://issuer.example.test", seconds());
    json!({ "sub": user, "iss": iss, "aud": "realtime", "iat": now, "exp": now + 300 })
}

/// A namespace that is joined again as another provider's user leaves the first one's seat to the
/// namespaces that are still theirs.
#[test]
fn a_connection_counts_for_its_user_while_a_namespace_is_theirs() {
    let (folder, ends) = (Folder::new(), seconds() + 86_400);
    let database = Sqlite(folder.path("app.db"));
    database.run(&format!(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE user (id TEXT PRIMARY KEY);
         CREATE TABLE session (id TEXT PRIMARY KEY, user_id TEXT, expires_at INTEGER);
         INSERT INTO user VALUES ('alice');
         INSERT INTO session VALUES ('{ID}', 'alice', {ends});"
    ));
    let edge = Edge::start_in(
        folder,
        &format!(
            "{PLAIN}auth:\n  token: {{ jwt: {{ issuer: https://issuer.example.test, audience: \
             realtime }}, secret: {SIGNING} }}\n  app: {{ lucia: v3, database: \"sqlite:app.db\" \
             }}\nhub:\n  limits: {{ {GENEROUS} per_user: 1 }}\n  namespaces:\n    /a: {{ auth: \
             [token, app], events: deny }}\n    /b: {{ auth: token, events: deny }}\n"
        ),
    );
    let token = token(HS256, &claims("anna"));
    let enter = |web: &mut Web, words: &str| {
        web.say(&format!("40{words}"));
        web.text()
    };
    let mut first = with_cookie(&edge, &session(ID));
    for namespace in ["/a", "/b"] {
        let answer = enter(&mut first, &format!("{namespace},{{\"token\":\"{token}\"}}"));
        assert!(answer.starts_with(&format!("40{namespace},")), "{answer}");
    }
    first.say("41/a,");
    assert!(enter(&mut first, "/a,").starts_with("40/a,"), "Alice, by her cookie");
    // Anna is still here, in the other namespace, and has one connection.
    let refused = |namespace: &str| {
        let mut web = knock(&edge, &[], "").expect("a 101");
        let answer = enter(&mut web, &format!("{namespace},{{\"token\":\"{token}\"}}"));
        assert!(answer.contains("too_many_connections"), "{answer}");
    };
    refused("/a");
    refused("/b");
}

/// Two people may have the same id, if two providers let them in.
#[test]
fn users_of_two_providers_are_told_apart() {
    let (folder, ends) = (Folder::new(), seconds() + 86_400);
    let database = Sqlite(folder.path("app.db"));
    database.run(&format!(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE user (id TEXT PRIMARY KEY);
         CREATE TABLE session (id TEXT PRIMARY KEY, user_id TEXT, expires_at INTEGER);
         INSERT INTO user VALUES ('alice');
         INSERT INTO session VALUES ('{ID}', 'alice', {ends});"
    ));
    let edge = Edge::start_in(
        folder,
        &format!(
            "{PLAIN}auth:\n  token: {{ jwt: {{ issuer: https://issuer.example.test, audience: \
             realtime }}, secret: {SIGNING} }}\n  app: {{ lucia: v3, database: \"sqlite:app.db\" \
             }}\nhub:\n  limits: {{ {GENEROUS} rooms: 1 }}\n  namespaces:\n    /: {{ auth: \
             [token, app], join: [own], events: deny }}\n"
        ),
    );
    let mut one = with_cookie(&edge, &session(ID));
    one.enter("/");
    let mut other = knock(&edge, &[], "").expect("a 101");
    other.say(&format!("40{{\"token\":\"{}\"}}", token(HS256, &claims("alice"))));
    assert!(other.text().starts_with("40"));
    let emit = |provider: Option<&str>, number: u32| {
        let mut words =
            json!({ "namespace": "/", "user": "alice", "event": "n", "args": [number] });
        if let Some(provider) = provider {
            words["provider"] = json!(provider);
        }
        let answer = edge.admin_with("POST", "/hub/emit", words.to_string().as_bytes());
        answer.json()
    };
    assert_eq!(emit(None, 1), json!({ "sockets": 2 }));
    assert_eq!(emit(Some("app"), 2), json!({ "sockets": 1 }));
    assert_eq!(emit(Some("token"), 3), json!({ "sockets": 1 }));
    assert_eq!(emit(Some("none"), 4)["error"]["field"], "provider");
    for (web, number) in [(&mut one, 2), (&mut other, 3)] {
        web.expect("42[\"n\",1]");
        web.expect(&format!("42[\"n\",{number}]"));
    }
}

#[test]
fn a_token_comes_with_the_connect() {
    let auth = format!(
        "{{ jwt: {{ issuer: https://issuer.example.test, audience: realtime }}, secret: {SIGNING} }}"
    );
    let edge = Edge::start(&config(&auth, ""));
    let right = token(HS256, &claims("anna"));
    let shown = |token: &str| {
        let mut web = knock(&edge, &[], "").expect("a 101: nothing that a browser sends by itself");
        web.say(&format!("40{{\"token\":\"{token}\"}}"));
        web.hear()
    };
    assert!(matches!(shown(&right), Heard::Text(text) if text.starts_with("40")));
    let with = |name: &str, value: Value| {
        let mut claims = claims("anna");
        claims[name] = value;
        token(HS256, &claims)
    };
    for wrong in [
        with("aud", json!("others")),
        with("iss", json!("https://other.test")),
        with("sub", json!("")),
        with("sub", json!(7)),
        with("exp", json!(seconds() - 60)),
        with("exp", json!("soon")),
        with("iat", json!(seconds() + 600)),
        token(r#"{"alg":"none"}"#, &claims("anna")),
        token(r#"{"alg":"RS256"}"#, &claims("anna")),
        token(r#"{"alg":"HS256","jku":"http://evil.test"}"#, &claims("anna")),
        right.replacen('.', "..", 1),
        format!("{right}A"),
        String::new(),
    ] {
        assert_eq!(shown(&wrong), refused(), "{wrong}");
    }
    let bearer = format!("Bearer {right}");
    let mut web = knock(&edge, &[("Authorization", &bearer)], "").expect("a 101");
    web.enter("/");
    web.say(r#"42["all",{}]"#);
    web.expect(r#"42["all",{"from":"anna"}]"#);
    // The connect counts before the bearer; they are never one.
    let mut web = knock(&edge, &[("Authorization", &bearer)], "").expect("a 101");
    web.say(&format!("40{{\"token\":\"{}\"}}", token(HS256, &claims("bert"))));
    assert!(matches!(web.hear(), Heard::Text(text) if text.starts_with("40")));
    web.say(r#"42["all",{}]"#);
    let bert = Heard::Text(r#"42["all",{"from":"bert"}]"#.to_owned());
    // What anna has said may still be on its way from another worker.
    let anna = Heard::Text(r#"42["all",{"from":"anna"}]"#.to_owned());
    let first = web.hear();
    assert_eq!(if first == anna { web.hear() } else { first }, bert);
    let by_query = knock(&edge, &[], &format!("&token={right}")).expect("a 101");
    assert_eq!(answer_of(by_query), refused());
    assert_silent(&edge, &[&right, SIGNING]);
}

#[test]
fn a_reload_that_asks_for_users_sends_strangers_away() {
    let folder = Folder::new();
    let database = Sqlite(folder.path("app.db"));
    let ends = seconds() + 86_400;
    database.run(&format!(
        "CREATE TABLE session (id TEXT, user_id TEXT, expires_at INTEGER);
         INSERT INTO session VALUES ('{ID}', 'alice', {ends});"
    ));
    let auth = "{ lucia: v3, database: \"sqlite:app.db\" }";
    let users = config(auth, "");
    let open =
        users.replace("auth: app", "auth: none").replace("join: [\"user:{user.id}\"]", "join: []");
    let open = open.replace("stamp: { from: \"{user.id}\" }", "stamp: {}");
    let mut edge = Edge::start_in(folder, &open);
    let mut stranger = knock(&edge, &[], "").expect("a 101");
    let mut alice = with_cookie(&edge, &session(ID));
    stranger.enter("/");
    alice.enter("/");
    edge.reload_with(&users);
    // Nobody is told to stay away: who comes back is judged by what holds now.
    for web in [&mut stranger, &mut alice] {
        assert_eq!(web.hear(), Heard::Closed(None));
    }
    assert_eq!(answer_of(knock(&edge, &[], "").expect("a 101")), refused());
    with_cookie(&edge, &session(ID)).enter("/");
    // The same where another cookie counts from now on.
    let mut alice = knock(&edge, &[("Cookie", &format!("other={ID}")), ORIGIN], "").expect("a 101");
    alice.say("40");
    assert_eq!(alice.hear(), refused());
    edge.reload_with(&users.replace("lucia: v3,", "lucia: v3, cookie: other,"));
    alice.say("40");
    assert_eq!(alice.hear(), Heard::Closed(None));
    knock(&edge, &[("Cookie", &format!("other={ID}")), ORIGIN], "").expect("a 101").enter("/");
}

/// Who may come in at the new door as well goes on as who it was, with what it missed; who would be
/// somebody else there begins anew.
#[test]
fn who_is_cut_off_by_a_reload_goes_on_where_it_left() {
    let auth = format!(
        "{{ jwt: {{ issuer: https://issuer.example.test, audience: realtime }}, secret: {SIGNING} }}"
    );
    let yaml = config(&auth, "").replace("hub:\n", "hub:\n  recovery: 1m\n");
    let mut edge = Edge::start(&yaml);
    let enter = |edge: &Edge, user: &str, more: Value| {
        let mut words = more;
        words["token"] = json!(token(HS256, &claims(user)));
        let mut web = knock(edge, &[], "").expect("a 101");
        web.say(&format!("40{words}"));
        let mut missed = Vec::new();
        loop {
            let text = web.text();
            let Some(answer) = text.strip_prefix("40") else {
                missed.push(text);
                continue;
            };
            let who: Value = serde_json::from_str(answer).expect("JSON");
            return (web, who, missed);
        }
    };
    let (mut anna, who, _) = enter(&edge, "anna", json!({}));
    let (mut bert, ..) = enter(&edge, "bert", json!({}));
    bert.say(r#"42["all",{}]"#);
    let offset = |text: &str| {
        let words: Value = serde_json::from_str(&text[2..]).expect("JSON");
        words[2].clone()
    };
    let last = offset(&anna.text());
    let more = auth.replace("realtime", "elsewhere");
    let both = yaml.replace("hub:\n", &format!("  more: {more}\nhub:\n"));
    let both = both.replace("auth: app\n", "auth: [app, more]\n");
    assert!(both.contains("more: {") && both.contains("[app, more]"), "{both}");
    edge.reload_with(&both);
    assert_eq!(anna.hear(), Heard::Closed(None));
    while bert.hear() != Heard::Closed(None) {}
    let (mut bert, ..) = enter(&edge, "bert", json!({}));
    bert.say(r#"42["all",{}]"#);
    bert.text();
    let back = json!({ "pid": who["pid"], "offset": last });
    let (mut anna, again, missed) = enter(&edge, "anna", back);
    assert_eq!((&again["sid"], missed.len()), (&who["sid"], 1), "{missed:?}");
    assert!(missed[0].contains(r#"{"from":"bert"}"#), "{missed:?}");
    // Nobody's socket is given to another user, nor to nobody in particular.
    let open = yaml.replace("auth: app\n", "auth: none\n");
    let open = open.replace("join: [\"user:{user.id}\"]", "join: []");
    let open = open.replace("stamp: { from: \"{user.id}\" }", "stamp: {}");
    edge.reload_with(&open);
    assert_eq!(anna.hear(), Heard::Closed(None));
    let back = json!({ "pid": again["pid"], "offset": offset(&missed[0]) });
    let (_, anew, missed) = enter(&edge, "anna", back);
    assert_ne!(anew["sid"], who["sid"]);
    assert!(missed.is_empty(), "{missed:?}");
}

/// How a provider works is no part of whom it lets in: nobody is sent away, and what holds now holds
/// for those who are here.
#[test]
fn a_reload_that_changes_how_users_are_looked_at_sends_nobody_away() {
    let (mut edge, database) = lucia(", recheck: 1h", "");
    let yaml = std::fs::read_to_string(edge.folder.path("proxy.yaml")).expect("a file");
    let mut alice = with_cookie(&edge, &session(ID));
    let mut bob = with_cookie(&edge, &session(OTHER));
    alice.enter("/");
    bob.enter("/");
    let tuned = "recheck: 200ms, grace: 1h, max_age: 2h, lookups: 3, on_expiry: keep";
    let tuned = yaml.replace("recheck: 1h", tuned).replace("cache: 0s", "cache: 1ms");
    edge.reload_with(&tuned);
    alice.say(r#"42["all",{}]"#);
    for web in [&mut alice, &mut bob] {
        web.expect(r#"42["all",{"from":"alice"}]"#);
    }
    database.run(&format!("DELETE FROM session WHERE id = '{ID}';"));
    alice.expect("41");
    // Another place of the same sessions is another door.
    edge.reload_with(&tuned.replace("lucia: v3,", "lucia: v3, cookie: other,"));
    assert_eq!(bob.hear(), Heard::Closed(None));
}

/// Nor is anybody let in by an answer that was given before.
#[test]
fn who_is_cut_off_by_a_reload_is_asked_about_by_its_words() {
    let yaml = |auth: &str| config(&auth.replace("cache: 0s", "cache: 10m"), "");
    let crowd = |auth: &str| yaml(auth).replace("per_user: 3", "per_user: 100");
    let (mut edge, _database) = lucia_as("", crowd);
    // By each worker.
    for _ in 0..12 {
        with_cookie(&edge, &session(ID)).enter("/");
    }
    let mut alice = with_cookie(&edge, &session(ID));
    alice.enter("/");
    let yaml = std::fs::read_to_string(edge.folder.path("proxy.yaml")).expect("a file");
    edge.reload_with(&yaml.replace("lucia: v3,", "lucia: v3, where: { two_factor: 2 },"));
    assert_eq!(alice.hear(), Heard::Closed(None));
    for _ in 0..6 {
        assert_eq!(answer_of(with_cookie(&edge, &session(ID))), refused());
    }
}

/// Rules, stamps and hooks go by what the application says of its user by now.
#[test]
fn what_changes_about_a_user_is_known_of_the_sockets_that_are_here() {
    let (edge, database) = lucia_as(", user_table: user, claims: [name], recheck: 100ms", |auth| {
        config(auth, "").replace("from: \"{user.id}\"", "from: \"{user.name}\"")
    });
    let mut alice = with_cookie(&edge, &session(ID));
    alice.enter("/");
    alice.say(r#"42["all",{}]"#);
    alice.expect(r#"42["all",{"from":"Alice"}]"#);
    database.run("UPDATE user SET name = 'Alicia' WHERE id = 'alice';");
    eventually("the new name", || {
        alice.say(r#"42["all",{}]"#);
        (alice.text() == r#"42["all",{"from":"Alicia"}]"#).then_some(())
    });
}

/// The rooms that the hub itself puts its sockets into are not counted: who may be in one may join
/// one.
#[test]
fn rooms_of_the_hub_itself_are_not_counted() {
    let (edge, _database) = lucia_as("", |auth| {
        config(auth, "")
            .replace("per_user: 3", "per_user: 3, rooms: 1")
            .replace("join: [\"user:{user.id}\"]", "join: []")
            .replace("events: { all:", "events: { join: { join: \"room:{0}\" }, all:")
    });
    let mut alice = with_cookie(&edge, &session(ID));
    alice.enter("/");
    alice.say(r#"421["join","a"]"#);
    alice.expect(r#"431[{"ok":true}]"#);
    alice.say(r#"421["join","b"]"#);
    alice.expect(r#"431[{"error":{"code":"too_many_rooms"}}]"#);
}

#[test]
fn a_route_is_for_users_and_the_application_hears_who_it_is() {
    let origin = Origin::echo();
    let site = format!(
        "sites:\n  localhost:\n    next: \"{}\"\n    routes:\n      - {{ path: /me/*, auth: {{ by: app, login: /login }} }}\n",
        origin.url()
    );
    let (edge, database) = lucia("", &site);
    let forged = ("X-Vestibule-User", "root");
    let user_at = |path: &str, headers: &[(&str, &str)]| {
        let answer = edge.connect().ask("GET", path, &[headers, &[forged]].concat(), b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        let headers = answer.json()["headers"].clone();
        let all = headers.as_array().expect("a list").clone();
        let told = all.iter().filter(|pair| pair[0].as_str() == Some("x-vestibule-user"));
        told.map(|pair| pair[1].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    let cookie = session(ID);
    assert_eq!(user_at("/me/a", &[("Cookie", &cookie)]), ["alice"]);
    assert_eq!(user_at("/open", &[("Cookie", &cookie)]), [""; 0]);
    assert_eq!(edge.get("/me/a").status, 401);
    let page = [("Accept", "text/html,*/*"), ("Cookie", "auth_session=nobody-has-this-one")];
    let sent = edge.connect().ask("GET", "/me/a", &page, b"");
    assert_eq!((sent.status, sent.header("location")), (303, Some("/login")));
    assert_eq!(edge.connect().ask("POST", "/me/a", &page, b"x").status, 401);
    database.run("ALTER TABLE session RENAME TO moved;");
    assert_eq!(edge.connect().ask("GET", "/me/a", &[("Cookie", &cookie)], b"").status, 503);
    assert_silent(&edge, &[ID]);
}
