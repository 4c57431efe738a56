//! Sessions in real databases and in Redis, written as the libraries write them.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use crate::auth::{answer_of, config, refused, session, with_cookie};
use crate::harness::Edge;
use crate::harness::socketio::{Heard, Line};
use crate::harness::stores::Server;

const ID: &str = "bmyfk6u7ytuq4m2ypwrmp3argznybjok54kdsxud";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const TOKEN: &str = "Zk3pQ8vT1mXw7Yb2Nc5Rd9Lf4Hg6Js0K";

fn edge(auth: &str) -> Edge {
    Edge::start(&config(auth, ""))
}

#[track_caller]
fn assert_in(edge: &Edge, cookie: &str, user: &str) {
    let mut web = with_cookie(edge, cookie);
    web.enter("/");
    web.say(r#"42["all",{}]"#);
    web.expect(&format!(r#"42["all",{{"from":"{user}"}}]"#));
}

#[track_caller]
fn assert_out(edge: &Edge, cookie: &str) {
    assert_eq!(answer_of(with_cookie(edge, cookie)), refused(), "{cookie}");
}

fn signed(token: &str, padded: bool) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hmac::sign(&key, token.as_bytes());
    let tag = if padded { STANDARD.encode(tag) } else { STANDARD_NO_PAD.encode(tag) };
    format!("{token}.{tag}").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

#[test]
fn postgresql() {
    let mut server = Server::postgres();
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", server.port);
    for sql in [
        "CREATE TABLE user_session (id TEXT PRIMARY KEY, user_id TEXT, expires_at TIMESTAMPTZ, two_factor BOOLEAN)",
        "CREATE TABLE old_session (id TEXT PRIMARY KEY, user_id INTEGER, idle_expires BIGINT)",
        "CREATE TABLE new_session (id TEXT PRIMARY KEY, user_id UUID, secret_hash BYTEA, created_at BIGINT)",
        "CREATE TABLE sessions (id SERIAL, \"sessionToken\" TEXT, \"userId\" INTEGER, expires TIMESTAMPTZ)",
        "CREATE TABLE session (id TEXT, token TEXT, \"userId\" TEXT, \"expiresAt\" TIMESTAMP(3))",
        "CREATE TABLE users (id TEXT PRIMARY KEY, name TEXT)",
        "INSERT INTO users VALUES ('alice', 'Alice')",
    ] {
        server.run(&[sql]);
    }
    let insert = |id: &str, user: &str, when: &str, second: &str| {
        server.run(&[&format!(
            "INSERT INTO user_session VALUES ('{id}', '{user}', now() + interval '{when}', {second})"
        )]);
    };
    insert(ID, "alice", "1 day", "true");
    insert(&"x".repeat(40), "alice", "-1 second", "true");
    insert(&"y".repeat(40), "alice", "1 day", "false");
    insert(&"z".repeat(40), "gone", "1 day", "true");
    let lucia = edge(&format!(
        "{{ lucia: v3, database: \"{url}\", where: {{ two_factor: true }}, user_table: users, claims: [name], cache: 0s }}"
    ));
    assert_in(&lucia, &session(ID), "alice");
    for id in ["x", "y", "z", "n"] {
        assert_out(&lucia, &session(&id.repeat(40)));
    }

    server.run(&[&format!(
        "INSERT INTO old_session VALUES ('{ID}', 7, extract(epoch from now()) * 1000 + 9000000)"
    )]);
    let v2 = edge(&format!("{{ lucia: v2, database: \"{url}\", table: public.old_session }}"));
    assert_in(&v2, &session(ID), "7");

    server.run(&["INSERT INTO new_session VALUES ('a2b3c4d5e6f7g8h9ijkmnpqr', 'c0ffee00-0000-4000-8000-000000000000', decode('3a6e3209ec40de2fa398be5dd5d937e6eb101ef866da4c82893e0576b5b08219', 'hex'), extract(epoch from now()))"]);
    let guide = edge(&format!("{{ lucia: guide-2025, database: \"{url}\", table: new_session }}"));
    let right = "session_token=a2b3c4d5e6f7g8h9ijkmnpqr.z9y8x7w6v5u4t3s2rqpnmkji";
    assert_in(&guide, right, "c0ffee00-0000-4000-8000-000000000000");
    assert_out(&guide, &right.replace("kji", "kjk"));

    server.run(&["INSERT INTO sessions (\"sessionToken\", \"userId\", expires) VALUES ('6e0f1c9a-2b4d-4c8e-9f10-a1b2c3d4e5f6', 42, now() + interval '1 day')"]);
    let authjs = edge(&format!("{{ authjs: v5, database: \"{url}\" }}"));
    assert_in(&authjs, "authjs.session-token=6e0f1c9a-2b4d-4c8e-9f10-a1b2c3d4e5f6", "42");

    server.run(&[&format!("INSERT INTO session VALUES ('s', '{TOKEN}', 'anna', (now() at time zone 'utc') + interval '1 day')")]);
    let better = edge(&format!("{{ better_auth: {{}}, secret: {SECRET}, database: \"{url}\" }}"));
    assert_in(&better, &format!("better-auth.session_token={}", signed(TOKEN, true)), "anna");
    assert_out(&better, &format!("better-auth.session_token={TOKEN}"));

    // The application's own time, in columns that do not say so.
    server.run(&["CREATE TABLE local_session (id TEXT, user_id TEXT, expires_at TIMESTAMP)"]);
    for (letter, zone, minutes) in [
        ("k", "Asia/Tokyo", 10),
        ("l", "Asia/Tokyo", -10),
        ("m", "+09:00", 10),
        ("o", "+09:00", -10),
    ] {
        let id = letter.repeat(40);
        server.run(&[&format!(
            "INSERT INTO local_session VALUES ('{id}', '{zone}', (now() at time zone 'Asia/Tokyo') + interval '{minutes} minutes')"
        )]);
    }
    let local = |zone: &str| {
        edge(&format!(
            "{{ lucia: v3, database: \"{url}\", table: local_session, time_zone: \"{zone}\" }}"
        ))
    };
    for (zone, here, gone) in [("Asia/Tokyo", "k", "l"), ("+09:00", "m", "o")] {
        let local = local(zone);
        assert_in(&local, &session(&here.repeat(40)), zone);
        assert_out(&local, &session(&gone.repeat(40)));
        assert!(!local.log().contains("have no time zone"));
    }
    let unaware = local("UTC");
    crate::harness::eventually("a warning", || {
        unaware.log().contains("have no time zone").then_some(())
    });

    server.stop();
    assert_eq!(answer_of(with_cookie(&lucia, &session(ID))), Heard::Closed(Some(1013)));
}

/// Where each transaction may be on another connection, what one has prepared means nothing, or
/// worse, something else.
#[test]
fn postgresql_behind_a_pooler() {
    let server = Server::postgres();
    let pooler = Server::pgbouncer(&server);
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", pooler.port);
    let session_of = |number: usize| format!("{number:040}");
    let token_of = |number: usize| format!("6e0f1c9a-2b4d-4c8e-9f10-{number:012}");
    for sql in [
        "CREATE TABLE user_session (id TEXT PRIMARY KEY, user_id TEXT, expires_at TIMESTAMPTZ)",
        "CREATE TABLE sessions (\"sessionToken\" TEXT PRIMARY KEY, \"userId\" TEXT, expires TIMESTAMPTZ)",
        "INSERT INTO user_session SELECT lpad(n::text, 40, '0'), 'lucia' || n, now() + interval '1 day' FROM generate_series(0, 99) n",
        "INSERT INTO sessions SELECT '6e0f1c9a-2b4d-4c8e-9f10-' || lpad(n::text, 12, '0'), 'auth' || n, now() + interval '1 day' FROM generate_series(0, 99) n",
    ] {
        server.run(&[sql]);
    }
    // Two providers in one process share its connections, and ask for different things.
    let yaml = config(&format!("{{ lucia: v3, database: \"{url}\", cache: 0s }}"), "").replace(
        "hub:\n",
        &format!("  other: {{ authjs: v5, database: \"{url}\", cache: 0s }}\nhub:\n"),
    );
    let edge = Edge::start(&yaml.replace("auth: app\n", "auth: [app, other]\n"));
    let mut all = Vec::new();
    for number in 0..60 {
        let cookies = [
            (session(&session_of(number)), format!("lucia{number}")),
            (format!("authjs.session-token={}", token_of(number)), format!("auth{number}")),
        ];
        for (cookie, user) in cookies {
            let mut web = with_cookie(&edge, &cookie);
            web.say("40");
            all.push((web, user));
        }
    }
    for (web, user) in &mut all {
        assert!(matches!(web.hear(), Heard::Text(text) if text.starts_with("40")), "{user}");
        web.say(&format!(r#"42["all",{{"of":"{user}"}}]"#));
    }
    // Everybody hears everybody; what the first hears has the edge's word for who it is.
    let (web, _) = all.first_mut().expect("somebody");
    let mut heard = 0;
    while heard < 120 {
        let Heard::Text(text) = web.hear() else { panic!("the connection ended") };
        let Some(json) = text.strip_prefix("42[\"all\",") else { continue };
        let said: serde_json::Value =
            serde_json::from_str(json.trim_end_matches(']')).expect("an object");
        assert_eq!(said["of"], said["from"]);
        heard += 1;
    }
    assert_out(&edge, &session(&session_of(100)));
    assert!(!edge.log().contains("sessions cannot be looked up"), "{}", edge.log());
}

#[test]
fn mariadb() {
    let server = Server::mariadb();
    let url = format!("mysql://app:test-password@127.0.0.1:{}/app", server.port);
    for sql in [
        "CREATE DATABASE app",
        "CREATE USER app@'127.0.0.1' IDENTIFIED BY 'test-password'",
        "GRANT SELECT ON app.* TO app@'127.0.0.1'",
        "CREATE TABLE app.user_session (id VARCHAR(255) PRIMARY KEY, user_id VARCHAR(255), expires_at DATETIME)",
        "CREATE TABLE app.old_session (id VARCHAR(127) PRIMARY KEY, user_id BIGINT, idle_expires BIGINT UNSIGNED)",
        "CREATE TABLE app.auth_session (id VARCHAR(64), user_id INT, secret_hash BINARY(32), token_last_verified_at BIGINT, created_at BIGINT)",
    ] {
        server.run(&[sql]);
    }
    server.run(&[&format!("INSERT INTO app.user_session VALUES ('{ID}', 'alice', UTC_TIMESTAMP() + INTERVAL 1 DAY), ('{}', 'alice', UTC_TIMESTAMP() - INTERVAL 1 SECOND)", "x".repeat(40))]);
    let lucia = edge(&format!("{{ lucia: v3, database: \"{url}\", cache: 0s }}"));
    assert_in(&lucia, &session(ID), "alice");
    assert_out(&lucia, &session(&"x".repeat(40)));
    // Its collation finds these rows.
    assert_out(&lucia, &session(&ID.to_uppercase()));
    assert_out(&lucia, &format!("auth_session={ID}%20"));

    crate::harness::eventually("a warning", || {
        lucia.log().contains("have no time zone").then_some(())
    });
    server.run(&[&format!("INSERT INTO app.user_session VALUES ('{}', 'ann', UTC_TIMESTAMP() + INTERVAL 9 HOUR + INTERVAL 10 MINUTE), ('{}', 'ann', UTC_TIMESTAMP() + INTERVAL 9 HOUR - INTERVAL 10 MINUTE)", "k".repeat(40), "l".repeat(40))]);
    let tokyo = edge(&format!("{{ lucia: v3, database: \"{url}\", time_zone: \"+09:00\" }}"));
    assert_in(&tokyo, &session(&"k".repeat(40)), "ann");
    assert_out(&tokyo, &session(&"l".repeat(40)));

    server.run(&[&format!(
        "INSERT INTO app.old_session VALUES ('{ID}', 7, UNIX_TIMESTAMP() * 1000 + 9000000)"
    )]);
    let v2 = edge(&format!("{{ lucia: v2, database: \"{url}\", table: old_session }}"));
    assert_in(&v2, &session(ID), "7");

    server.run(&["INSERT INTO app.auth_session VALUES ('m3n4p5q6r7s8t9ab', 9, UNHEX('91c7f79aa5138241072e26e7f9956de4b78e7ed4031423c1427eef1bd3dc9c84'), UNIX_TIMESTAMP(), UNIX_TIMESTAMP())"]);
    let file = edge(&format!("{{ lucia: file-2026, database: \"{url}\", cookie: session }}"));
    let right = "session=m3n4p5q6r7s8t9ab.%2B%2B%2B%2B5NvSycC3rqWck4qBeG9mXVRLQjkwJx4VDAP68eg%3D";
    assert_in(&file, right, "9");
    assert_out(&file, &right.replace("68eg", "68eh"));
}

fn iso(ahead: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let output = std::process::Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%S.000Z", "-d", &format!("@{}", now + ahead)])
        .output();
    String::from_utf8(output.expect("date").stdout).expect("text").trim().to_owned()
}

#[test]
fn redis() {
    let mut server = Server::redis();
    let url = format!("redis://:test-redis-password@127.0.0.1:{}", server.port);
    let express = edge(&format!(
        "{{ redis: {{ url: \"{url}\", user: passport.user, signed: {SECRET} }}, cache: 0s }}"
    ));
    let express_cookie = |id: &str| format!("connect.sid=s%3A{}", signed(id, false));
    let put = |key: &str, value: &str| server.run(&["SET", key, value]);
    let ends = iso(3600);
    put(
        "sess:VbQ0m7xT2cY5hK8pR1nW4zA6",
        &format!(r#"{{"cookie":{{"expires":"{ends}"}},"passport":{{"user":42}}}}"#),
    );
    put("sess:visitor00000000000000", &format!(r#"{{"cookie":{{"expires":"{ends}"}}}}"#));
    put("sess:broken000000000000000", "{");
    assert_in(&express, &express_cookie("VbQ0m7xT2cY5hK8pR1nW4zA6"), "42");
    for id in ["visitor00000000000000", "broken000000000000000", "nobody0000000000000000"] {
        assert_out(&express, &express_cookie(id));
    }
    assert_out(&express, "connect.sid=s%3AVbQ0m7xT2cY5hK8pR1nW4zA6.AAAA");

    let better =
        edge(&format!("{{ better_auth: {{ redis: \"{url}\" }}, secret: {SECRET}, cache: 0s }}"));
    let begun = iso(0);
    put(
        &format!("better-auth:{TOKEN}"),
        &format!(
            r#"{{"session":{{"id":"s1","token":"{TOKEN}","userId":"anna","expiresAt":"{ends}","createdAt":"{begun}"}},"user":{{"id":"anna","name":"Anna"}}}}"#
        ),
    );
    let cookie = format!("better-auth.session_token={}", signed(TOKEN, true));
    assert_in(&better, &cookie, "anna");
    put("better-auth:revoked-sessions-before-anna", "9999999999999");
    assert_out(&better, &cookie);

    server.stop();
    // Whoever was refused a moment ago still is.
    let cookie = express_cookie("VbQ0m7xT2cY5hK8pR1nW4zA6");
    assert_eq!(answer_of(with_cookie(&express, &cookie)), Heard::Closed(Some(1013)));
    for edge in [&express, &better] {
        for secret in ["test-redis-password", SECRET, TOKEN] {
            assert!(!edge.log().contains(secret), "{secret} is in the log");
        }
    }
}
