//! Sessions when things go wrong: stores that are away, crowds, guessing, keys that change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::auth::{
    ORIGIN, answer_of, claims, config, knock, refused, seconds, session, with_cookie,
};
use crate::harness::origin::{Origin, reply};
use crate::harness::redis::Redis;
use crate::harness::socketio::{Heard, Line, hub, wait_for_metric};
use crate::harness::sqlite::Sqlite;
use crate::harness::{Edge, Folder, eventually};

const ID: &str = "bmyfk6u7ytuq4m2ypwrmp3argznybjok54kdsxud";

/// Lucia 3 on SQLite, with sessions of `count` users.
fn lucia(count: usize, more: &str, site: &str) -> (Edge, Sqlite) {
    let (folder, database, yaml) = prepared(count, more, site);
    (Edge::start_in(folder, &yaml), database)
}

/// The same, where one user may have a crowd of connections.
fn crowded(more: &str) -> (Edge, Sqlite) {
    let (folder, database, yaml) = prepared(0, more, "");
    (Edge::start_in(folder, &yaml.replace("per_user: 3", "per_user: 1000")), database)
}

fn prepared(count: usize, more: &str, site: &str) -> (Folder, Sqlite, String) {
    let folder = Folder::new();
    let database = Sqlite(folder.path("app.db"));
    let ends = seconds() + 86_400;
    database.run(&format!(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE session (id TEXT PRIMARY KEY, user_id TEXT, expires_at INTEGER);
         INSERT INTO session VALUES ('{ID}', 'alice', {ends});
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO session SELECT printf('user%036d', i), 'user' || i, {ends} FROM n;"
    ));
    let auth = format!("{{ lucia: v3, database: \"sqlite:app.db\"{more} }}");
    (folder, database, config(&auth, site))
}

fn user(number: usize) -> String {
    session(&format!("user{number:036}"))
}

fn metric(edge: &Edge, name: &str) -> u64 {
    let page = edge.admin("GET", "/metrics").text();
    let lines = page.lines().filter_map(|line| line.strip_prefix(name));
    lines.filter_map(|rest| rest.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn while_the_store_is_away_nobody_is_let_begin() {
    let (edge, database) = lucia(8, ", cache: 0s, recheck: 100ms", "");
    let mut alice = with_cookie(&edge, &session(ID));
    alice.enter("/");
    database.run("ALTER TABLE session RENAME TO moved;");
    // Each worker finds out by itself.
    let answer = eventually("a 503 at the handshake", || {
        let path = hub("EIO=4&transport=polling");
        let headers = [("Cookie", user(1)), ("Origin", "http://localhost".to_owned())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let answer = edge.connect().ask("GET", &path, &headers, b"");
        (answer.status == 503).then_some(answer)
    });
    let after: u64 = answer.header("retry-after").expect("when").parse().expect("a number");
    assert!((1..=3).contains(&after), "{after}");
    let upgrade = eventually("the same for a WebSocket", || {
        knock(&edge, &[("Cookie", &user(2)), ORIGIN], "").err()
    });
    assert_eq!(upgrade.status, 503);
    // Of whom nothing is asked, nothing is unsaid.
    assert_eq!(answer_of(knock(&edge, &[ORIGIN], "").expect("a 101")), refused());
    alice.say(r#"42["all",{}]"#);
    alice.expect(r#"42["all",{"from":"alice"}]"#);
    database.run("ALTER TABLE moved RENAME TO session;");
    eventually("everybody again", || {
        let mut web = knock(&edge, &[("Cookie", &user(3)), ORIGIN], "").ok()?;
        web.say("40");
        matches!(web.hear(), Heard::Text(text) if text.starts_with("40")).then_some(())
    });
    alice.say(r#"42["all",{}]"#);
    alice.expect(r#"42["all",{"from":"alice"}]"#);
}

#[test]
fn many_with_one_session_are_looked_at_once() {
    let (edge, database) = crowded(", cache: 10m, recheck: 1s");
    // As many as a process has files for that does not ask for more.
    let all: Vec<_> = (0..400)
        .map(|_| {
            let mut web = with_cookie(&edge, &session(ID));
            web.enter("/");
            web
        })
        .collect();
    let name = "vestibule_auth_lookups_total{outcome=\"valid\"}";
    let (before, begun) = (metric(&edge, name), Instant::now());
    eventually("three looks by each worker", || (metric(&edge, name) >= before + 6).then_some(()));
    let looks = metric(&edge, name) - before;
    let most = 2 * (begun.elapsed().as_secs() * 5 / 4 + 3);
    assert!(looks <= most, "{looks} looks in {:?}", begun.elapsed());
    drop(database);
    drop(all);
}

#[test]
fn a_crowd_is_asked_for_together() {
    let (edge, _database) = lucia(1000, ", cache: 0s, recheck: 2s", "");
    // They come at once: all handshakes are there before anybody connects.
    let mut crowd: Vec<_> = (0..300).map(|number| with_cookie(&edge, &user(number))).collect();
    crowd.iter_mut().for_each(|web| web.say("40"));
    for web in &mut crowd {
        let heard = web.hear();
        assert!(matches!(&heard, Heard::Text(text) if text.starts_with("40")), "{heard:?}");
    }
    // All are due within a while, and come along with the first.
    let lookups = || metric(&edge, "vestibule_auth_lookups_total{outcome=\"valid\"}");
    let (looked, asked) = (lookups(), metric(&edge, "vestibule_auth_queries_total"));
    eventually("everybody was looked at again", || (lookups() >= looked + 600).then_some(()));
    let asked = metric(&edge, "vestibule_auth_queries_total") - asked;
    assert!(asked < 300, "{asked} statements for {} looks", lookups() - looked);
}

#[test]
fn who_shows_much_that_is_wrong_is_told_to_come_again() {
    let (edge, _database) = lucia(8, ", cache: 10m, failures: 5/m", "");
    with_cookie(&edge, &session(ID)).enter("/");
    let wrong =
        |number: usize| answer_of(with_cookie(&edge, &session(&format!("wrong{number:035}"))));
    let answers: Vec<_> = (0..12).map(wrong).collect();
    assert!(answers[..4].iter().all(|answer| *answer == refused()), "{answers:?}");
    assert_eq!(answers[11], Heard::Closed(Some(1013)), "{answers:?}");
    let lookups = metric(&edge, "vestibule_auth_lookups_total{outcome=\"refused\"}");
    assert!(lookups <= 6, "{lookups} look-ups for guesses");
}

/// Who is in was right, and is no guess: what others of its address show keeps nobody who has been
/// logged out, and cuts nobody else when the grace is over.
#[test]
fn whose_neighbours_guess_is_looked_at_all_the_same() {
    let (edge, database) = lucia(2, ", cache: 0s, failures: 5/m, recheck: 200ms, grace: 1s", "");
    let mut alice = with_cookie(&edge, &session(ID));
    let mut neighbour = with_cookie(&edge, &user(1));
    alice.enter("/");
    neighbour.enter("/");
    let wrong =
        |number: usize| answer_of(with_cookie(&edge, &session(&format!("wrong{number:035}"))));
    let answers: Vec<_> = (0..12).map(wrong).collect();
    assert_eq!(answers[11], Heard::Closed(Some(1013)), "{answers:?}");
    database.run(&format!("DELETE FROM session WHERE id = '{ID}';"));
    alice.expect("41");
    let looks = || metric(&edge, "vestibule_auth_lookups_total{outcome=\"valid\"}");
    let before = looks();
    eventually("looks for longer than the grace", || (looks() >= before + 10).then_some(()));
    neighbour.say(r#"42["all",{}]"#);
    neighbour.expect(r#"42["all",{"from":"user1"}]"#);
}

/// A key pair of ECDSA, and documents that have it under a name.
pub struct Signer(EcdsaKeyPair);

impl Signer {
    pub fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    pub fn jwk(&self, kid: &str) -> Value {
        let point = self.0.public_key().as_ref();
        let coordinate = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid,
                "x": coordinate(1), "y": coordinate(33) })
    }

    pub fn token(&self, kid: &str, user: &str) -> String {
        let head = json!({ "alg": "ES256", "kid": kid, "typ": "JWT" }).to_string();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let signed =
            format!("{}.{}", encode(head.as_bytes()), encode(claims(user).to_string().as_bytes()));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", encode(signature.as_ref()))
    }
}

fn by_token(edge: &Edge, token: &str) -> Heard {
    let bearer = format!("Bearer {token}");
    answer_of(knock(edge, &[("Authorization", &bearer)], "").expect("a 101"))
}

#[test]
fn keys_of_tokens_change() {
    let (first, second, stranger) = (Signer::new(), Signer::new(), Signer::new());
    // What the document says: 0 the first key, 1 both, 2 an error.
    let (mode, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let old = json!({ "keys": [first.jwk("a"), { "kty": "oct", "k": "x" }] }).to_string();
    let both = json!({ "keys": [first.jwk("a"), second.jwk("b")] }).to_string();
    let (told, count) = (Arc::clone(&mode), Arc::clone(&asked));
    let document = Origin::start(move |_, stream| {
        count.fetch_add(1, Ordering::Relaxed);
        match told.load(Ordering::Relaxed) {
            0 => reply(stream, "200 OK", "", old.as_bytes()),
            1 => reply(stream, "200 OK", "", both.as_bytes()),
            _ => reply(stream, "500 Oh", "", b""),
        }
    });
    let auth = format!(
        "{{ jwt: {{ jwks: {}/jwks.json, issuer: https://issuer.example.test, audience: realtime }}, cache: 0s }}",
        document.url()
    );
    let edge = Edge::start(&config(&auth, ""));
    let is_in = |heard: Heard| matches!(heard, Heard::Text(text) if text.starts_with("40"));
    assert!(is_in(by_token(&edge, &first.token("a", "anna"))));
    assert!(is_in(by_token(&edge, &first.token("a", "bert"))));
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the document is kept");
    assert_eq!(by_token(&edge, &stranger.token("a", "eve")), refused());
    // Read a moment ago: it has the last word about a name that it does not know.
    for number in 0..20 {
        let token = stranger.token("x", &format!("eve{number}"));
        assert_eq!(by_token(&edge, &token), refused());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "strangers do not have it read again");
    mode.store(1, Ordering::Relaxed);
    // A key that is new is not known before the pause is over.
    let late = second.token("b", "late");
    assert_eq!(by_token(&edge, &late), refused());
    let later = Edge::start(&config(&auth, ""));
    assert!(is_in(by_token(&later, &late)) && is_in(by_token(&later, &first.token("a", "anna"))));
    mode.store(2, Ordering::Relaxed);
    let never = Edge::start(&config(&auth, ""));
    assert_eq!(by_token(&never, &first.token("a", "anna")), Heard::Closed(Some(1013)));
    // It is kept where it was read.
    assert!(is_in(by_token(&later, &first.token("a", "carl"))));
}

#[test]
fn a_session_has_a_name_by_which_it_is_ended() {
    let (edge, _database) = lucia(2, "", "");
    let (mut one, mut two) = (with_cookie(&edge, &session(ID)), with_cookie(&edge, &user(1)));
    one.enter("/");
    two.enter("/");
    let rooms = edge.admin("GET", "/hub/rooms?namespace=/").json();
    let rooms = rooms["rooms"].as_array().expect("a list").clone();
    let named = |room: &Value| room["room"].as_str().unwrap_or_default().to_owned();
    let sessions: Vec<_> =
        rooms.iter().map(named).filter(|room| room.starts_with("session:")).collect();
    assert_eq!(sessions.len(), 2, "{rooms:?}");
    assert!(!sessions.iter().any(|room| room.contains(ID)), "what opens it is not its name");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, ID.as_bytes());
    let name: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let body = json!({ "namespace": "/", "session": name }).to_string();
    let gone = edge.admin_with("POST", "/hub/disconnect", body.as_bytes());
    assert_eq!(gone.json()["sockets"], 1, "{gone:?}");
    one.expect("41");
    two.say(r#"42["all",{}]"#);
    two.expect(r#"42["all",{"from":"user1"}]"#);
}

#[test]
fn who_is_sent_away_while_redis_is_away_goes_here_and_the_answer_is_502() {
    let mut redis = Redis::start();
    let folder = Folder::new();
    let database = Sqlite(folder.path("app.db"));
    let ends = seconds() + 86_400;
    database.run(&format!(
        "CREATE TABLE session (id TEXT PRIMARY KEY, user_id TEXT, expires_at INTEGER);
         INSERT INTO session VALUES ('{ID}', 'alice', {ends});"
    ));
    let yaml = config("{ lucia: v3, database: \"sqlite:app.db\" }", "");
    let yaml =
        yaml.replace("hub:\n", &format!("hub:\n  redis: redis://127.0.0.1:{}\n", redis.port));
    let edge = Edge::start_in(folder, &yaml);
    eventually("the link", || (metric(&edge, "vestibule_hub_redis_up") == 1).then_some(()));
    let mut alice = with_cookie(&edge, &session(ID));
    alice.enter("/");
    redis.kill();
    eventually("no link", || (metric(&edge, "vestibule_hub_redis_up") == 0).then_some(()));
    let gone = edge.admin_with("POST", "/hub/disconnect", br#"{"namespace":"/","user":"alice"}"#);
    assert_eq!(gone.status, 502, "{gone:?}");
    assert!(gone.text().contains("here_alone"), "{gone:?}");
    alice.expect("41");
    // What is here is no answer to what is everywhere, unless just that is wanted.
    for asked in ["count", "rooms", "sockets"] {
        let path = format!("/hub/{asked}?namespace=/");
        let alone = edge.admin("GET", &path);
        assert_eq!(alone.status, 502, "{alone:?}");
        assert!(alone.text().contains("here_alone"), "{alone:?}");
        assert_eq!(edge.admin("GET", &format!("{path}&here=true")).status, 200, "{asked}");
    }
    let many = br#"[{"op":"count","namespace":"/"}]"#;
    assert_eq!(edge.admin_with("POST", "/hub/batch", many).status, 502);
}

#[test]
fn a_cookie_that_is_renewed_keeps_its_polling_connection() {
    let secret = "0123456789abcdef0123456789abcdef";
    let folder = Folder::new();
    let database = Sqlite(folder.path("app.db"));
    // guide-2025: the id stays, its secret is new.
    let row = |secret: &str| {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes());
        hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let (id, old, new) = ("a2b3c4d5e6f7g8h9ijkmnpqr", &secret[..24], &secret[8..]);
    let other = "b2b3c4d5e6f7g8h9ijkmnpqr";
    database.run(&format!(
        "CREATE TABLE session (id TEXT PRIMARY KEY, secret_hash BLOB, user_id TEXT, created_at INTEGER);
         INSERT INTO session VALUES ('{id}', x'{}', 'anna', {}), ('{other}', x'{}', 'anna', {});",
        row(old),
        seconds(),
        row(new),
        seconds()
    ));
    let auth = "{ lucia: guide-2025, database: \"sqlite:app.db\", cache: 0s, recheck: 10m }";
    let yaml =
        config(auth, "").replace("events: 1000000/s, burst: 1000000", "events: 40/s, burst: 20");
    let edge = Edge::start_in(folder, &yaml);
    let path = hub("EIO=4&transport=polling");
    let before = format!("session_token={id}.{old}");
    let after = format!("session_token={id}.{new}");
    let open = edge.connect().ask("GET", &path, &[("Cookie", &before), ORIGIN], b"").text();
    let open: Value = serde_json::from_str(&open[1..]).expect("JSON");
    let path = format!("{path}&sid={}", open["sid"].as_str().expect("an id"));
    let ask = |cookie: &str, method: &str, body: &[u8]| {
        edge.connect().ask(method, &path, &[("Cookie", cookie), ORIGIN], body)
    };
    assert_eq!(ask(&before, "POST", b"40").status, 200);
    assert!(ask(&before, "GET", b"").text().starts_with("40"));
    database.run(&format!("UPDATE session SET secret_hash = x'{}' WHERE id = '{id}';", row(new)));
    // Another session of the same user's is another, and so is whoever guesses.
    for stranger in
        [format!("session_token={other}.{new}"), format!("session_token={id}.{}", &secret[4..28])]
    {
        assert_eq!(ask(&stranger, "POST", b"42[\"all\",{}]").status, 400);
        assert_eq!(ask(&stranger, "GET", b"").status, 400);
    }
    assert_eq!(ask(&after, "POST", b"42[\"all\",{}]").status, 200);
    assert_eq!(ask(&after, "GET", b"").text(), r#"42["all",{"from":"anna"}]"#);
    // What counts from now on is the new one.
    assert_eq!(ask(&before, "GET", b"").status, 400);
    assert_eq!(ask(&after, "POST", b"42[\"all\",{}]").status, 200);
    assert_eq!(ask(&after, "GET", b"").text(), r#"42["all",{"from":"anna"}]"#);
    // With the next, too, one POST comes after the other: two at once end the connection.
    let (newest, last) = (&secret[2..26], format!("session_token={id}.{}", &secret[2..26]));
    database
        .run(&format!("UPDATE session SET secret_hash = x'{}' WHERE id = '{id}';", row(newest)));
    let many = vec!["42[\"all\",{}]"; 300].join("\x1e");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask(&last, "POST", many.as_bytes()).status);
        wait_for_metric(&edge, "vestibule_hub_held_total{by=\"events\"}", 1);
        assert_eq!(ask(&last, "POST", b"42[\"all\",{}]").status, 400);
        assert_eq!(first.join().expect("an answer"), 400);
    });
}

#[test]
fn an_application_without_its_database_knows_nobody_for_a_moment() {
    let mode = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&mode);
    let origin = Origin::start(move |_, stream| {
        let json = "content-type: application/json\r\n";
        match told.load(Ordering::Relaxed) {
            0 => reply(stream, "200 OK", json, br#"{"user":{"id":"anna"}}"#),
            _ => reply(stream, "200 OK", json, b"null"),
        }
    });
    let site = format!("sites: {{ localhost: {{ next: \"{}\" }} }}\n", origin.url());
    let auth = "{ http: { path: /api/auth/session, words: authjs }, cache: 0s, recheck: 4s }";
    let edge = Edge::start(&config(auth, &site));
    let cookie = "authjs.session-token=any-token-will-do";
    let mut anna = with_cookie(&edge, cookie);
    anna.enter("/");
    mode.store(1, Ordering::Relaxed);
    // Whoever comes anew is nobody at once; who is here is asked about twice.
    assert_eq!(answer_of(with_cookie(&edge, cookie)), refused());
    let looks = || metric(&edge, "vestibule_auth_lookups_total{outcome=\"refused\"}");
    eventually("a first doubt", || (looks() >= 2).then_some(()));
    anna.say(r#"42["all",{}]"#);
    anna.expect(r#"42["all",{"from":"anna"}]"#);
    mode.store(0, Ordering::Relaxed);
    let before = metric(&edge, "vestibule_auth_lookups_total{outcome=\"valid\"}");
    eventually("its word again", || {
        (metric(&edge, "vestibule_auth_lookups_total{outcome=\"valid\"}") > before).then_some(())
    });
    anna.say(r#"42["all",{}]"#);
    anna.expect(r#"42["all",{"from":"anna"}]"#);
}

#[test]
fn clerk_says_when_its_user_has_left() {
    let secret = "test-jwt-hs256-secret-0123456789abcdef0123456789abcdef";
    let auth = format!("{{ jwt: {{ clerk: [\"http://localhost\"] }}, secret: {secret} }}");
    let edge = Edge::start(&config(&auth, ""));
    let now = seconds();
    let claims = json!({ "sub": "anna", "azp": "http://localhost", "sid": "s1", "iat": now, "nbf": now, "exp": now + 60 });
    let token = crate::auth::token(r#"{"alg":"HS256","typ":"JWT"}"#, &claims);
    let with = |more: &str| answer_of(with_cookie(&edge, &format!("__session={token}{more}")));
    for (more, is_in) in [
        (String::new(), true),
        (format!("; __client_uat={}", now - 10), true),
        (format!("; __client_uat={now}"), true),
        (format!("; __client_uat={}", now + 1), false),
        ("; __client_uat=0".to_owned(), false),
        ("; __client_uat=soon".to_owned(), false),
    ] {
        let heard = with(&more);
        let welcome = matches!(&heard, Heard::Text(text) if text.starts_with("40"));
        assert_eq!(welcome, is_in, "{more}: {heard:?}");
    }
}

/// Every cookie of the vectors is shown to a provider of its kind, and nothing of them is logged.
#[test]
fn no_vector_is_in_any_log() {
    let text = include_str!("golden/session-vectors.json");
    let all: Value = serde_json::from_str(text).expect("JSON");
    let providers = [
        ("lucia-v2", "{ lucia: v2, database: \"sqlite:app.db\" }"),
        ("lucia-v3", "{ lucia: v3, database: \"sqlite:app.db\" }"),
        ("lucia-guide-2024-10", "{ lucia: guide-2024, database: \"sqlite:app.db\" }"),
        ("lucia-guide-2025-06", "{ lucia: guide-2025, database: \"sqlite:app.db\" }"),
        ("lucia-2026-07", "{ lucia: file-2026, database: \"sqlite:app.db\", cookie: session }"),
        ("authjs-v5", "{ authjs: v5, secret: SECRET }"),
        ("authjs-database-session", "{ authjs: v5, database: \"sqlite:app.db\" }"),
        ("nextauth-v4", "{ authjs: v4, secret: SECRET }"),
        ("better-auth-1.7", "{ better_auth: {}, secret: SECRET, database: \"sqlite:app.db\" }"),
        ("iron-session", "{ iron: { user: user.id }, secret: SECRET, cookie: app_session }"),
        (
            "jwt",
            "{ jwt: { issuer: https://issuer.example.test, audience: realtime }, secret: SECRET }",
        ),
        ("supabase", "{ jwt: { supabase: abcdefghijklmnopqrst }, secret: SECRET }"),
        ("clerk", "{ jwt: { clerk: [\"https://app.example.test\"] }, secret: SECRET }"),
        (
            "express-session",
            "{ redis: { url: \"unix:none.sock\", user: user.id, signed: SECRET } }",
        ),
    ];
    let groups = all["groups"].as_array().expect("groups");
    for (id, auth) in providers {
        let group = groups.iter().find(|group| group["id"] == id);
        let group = group.unwrap_or_else(|| panic!("no group {id}"));
        let folder = Folder::new();
        Sqlite(folder.path("app.db")).run("CREATE TABLE none (id TEXT);");
        let secret = "0123456789abcdef0123456789abcdef";
        let yaml = config(&auth.replace("SECRET", secret), "");
        let edge = Edge::start_in(folder, &format!("{yaml}trust: [127.0.0.0/8]\n"));
        let (mut secrets, mut connected) = (vec![secret.to_owned()], 0);
        for case in group["cases"].as_array().expect("cases") {
            let cookie = case["cookie_header"].as_str().unwrap_or("none=1");
            let bearer = format!("Bearer {}", case["token"].as_str().unwrap_or("none"));
            let plain = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
            if !plain(cookie) || !plain(&bearer) || cookie.len() + bearer.len() > 12_000 {
                continue;
            }
            let headers = [
                ("Cookie", cookie),
                ("Authorization", bearer.as_str()),
                ("X-Forwarded-Proto", "https"),
                ("Origin", "https://localhost"),
            ];
            if let Ok(mut web) = knock(&edge, &headers, "") {
                connected += 1;
                web.say("40");
                let heard = web.hear();
                assert!(!matches!(&heard, Heard::Text(text) if text.starts_with("40")), "{case}");
            }
            edge.connect().ask("GET", "/page", &headers, b"");
            let values =
                cookie.split("; ").filter_map(|pair| Some(pair.split_once('=')?.1.to_owned()));
            secrets
                .extend(values.chain([bearer[7..].to_owned()]).filter(|value| value.len() >= 16));
        }
        assert!(connected > 0, "{id}: nobody came as far as a CONNECT");
        assert!(secrets.len() > 1, "{id} has no cookies");
        crate::auth::assert_silent(&edge, &secrets.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
