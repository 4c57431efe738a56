//! What must not let anybody in, or must not be taken for a refusal: one test for each. What a
//! cookie or a token comes to by itself is in src/auth/bad_inputs.rs, what time does in auth_time.rs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::auth::{
    HS256, ID, ORIGIN, OTHER, SIGNING, answer_of, assert_later, claims, config, knock, lucia,
    refused, seconds, session, token, with_cookie,
};
use crate::harness::clock::Clock;
use crate::harness::origin::{Origin, reply};
use crate::harness::socketio::{Heard, Line, hub};
use crate::harness::sqlite::Sqlite;
use crate::harness::stores::Server;
use crate::harness::{Answer, Edge, Folder, eventually};

#[track_caller]
fn assert_out(edge: &Edge, cookie: &str) {
    assert_eq!(answer_of(with_cookie(edge, cookie)), refused(), "{cookie}");
}

#[track_caller]
fn assert_in(edge: &Edge, cookie: &str) {
    let heard = answer_of(with_cookie(edge, cookie));
    assert!(matches!(&heard, Heard::Text(text) if text.starts_with("40")), "{cookie}: {heard:?}");
}

/// Statements and commands that stores were sent.
fn queries(edge: &Edge) -> u64 {
    let page = edge.admin("GET", "/metrics").text();
    let mut lines = page.lines();
    let found = lines.find_map(|line| line.strip_prefix("vestibule_auth_queries_total "));
    found.map_or(0, |count| count.parse().expect("a number"))
}

/// Refused, and no store was bothered.
#[track_caller]
fn assert_out_unasked(edge: &Edge, cookies: &[&str]) {
    let before = queries(edge);
    cookies.iter().for_each(|cookie| assert_out(edge, cookie));
    assert_eq!(queries(edge), before);
    assert_in(edge, &session(ID));
    assert_eq!(queries(edge), before + 1, "what is right is looked up");
}

#[test]
fn who_shows_nothing_is_refused() {
    let (edge, _database) = lucia("", "");
    assert_eq!(answer_of(knock(&edge, &[ORIGIN], "").expect("a 101")), refused());
    assert_out(&edge, "other=1");
}

#[test]
fn an_empty_cookie_is_none() {
    let (edge, _database) = lucia("", "");
    assert_out_unasked(&edge, &["auth_session=", "auth_session=\"\""]);
}

#[test]
fn a_cookie_that_is_there_twice_with_different_values_is_refused() {
    let (edge, _database) = lucia("", "");
    let both = [(ID, OTHER), (OTHER, ID), (ID, "x")];
    let both = both.map(|(one, other)| format!("auth_session={one}; auth_session={other}"));
    assert_out_unasked(&edge, &both.each_ref().map(String::as_str));
}

#[test]
fn a_cookie_that_is_there_twice_with_one_value_counts_once() {
    let (edge, _database) = lucia("", "");
    assert_in(&edge, &format!("auth_session={ID}; a=1; auth_session={ID}"));
}

#[test]
fn a_value_that_is_no_text_is_refused_unasked() {
    let (edge, _database) = lucia("", "");
    let values = ["%zz", "%ff%fe", "%", "%4", &format!("{ID}%e4")];
    let cookies = values.map(session);
    assert_out_unasked(&edge, &cookies.each_ref().map(String::as_str));
}

#[test]
fn a_value_with_control_characters_is_refused_unasked() {
    let (edge, _database) = lucia("", "");
    let values = ["%00", "%01", "%0a", "%7f"].map(|end| session(&format!("{ID}{end}")));
    assert_out_unasked(&edge, &values.each_ref().map(String::as_str));
    // In the raw they are no header.
    let mut client = edge.connect();
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: localhost\r\nCookie: auth_session={ID}\0\r\n\r\n",
        hub("EIO=4&transport=polling")
    ));
    assert_eq!(client.answer().status, 400);
}

fn polled(edge: &Edge, cookie: &str) -> Answer {
    let path = hub("EIO=4&transport=polling");
    edge.connect().ask("GET", &path, &[("Cookie", cookie), ORIGIN], b"")
}

#[test]
fn a_megabyte_of_cookies_is_answered_431() {
    let (edge, _database) = lucia("", "");
    let cookie = format!("a={}; {}", "x".repeat(1 << 20), session(ID));
    assert_eq!(polled(&edge, &cookie).status, 431);
}

#[test]
fn two_hundred_cookies_are_answered_400() {
    let (edge, _database) = lucia("", "");
    let many = |count| format!("{}{}", "a=1; ".repeat(count), session(ID));
    assert_eq!(polled(&edge, &many(200)).status, 400);
    assert_eq!(polled(&edge, &many(90)).status, 200);
}

#[test]
fn the_plain_name_of_a_cookie_is_not_read_on_https() {
    let folder = Folder::new();
    let database = Sqlite(folder.path("app.db"));
    let (token, ends) = ("6e0f1c9a-2b4d-4c8e-9f10-a1b2c3d4e5f6", seconds() + 900);
    database.run(&format!(
        "CREATE TABLE sessions (sessionToken TEXT, userId TEXT, expires INTEGER);
         INSERT INTO sessions VALUES ('{token}', 'anna', {ends}000);"
    ));
    let auth = "{ authjs: v5, database: \"sqlite:app.db\" }";
    let edge = Edge::start_in(folder, &config(auth, "trust: [127.0.0.0/8]\n"));
    let secure = |cookie: &str| {
        let headers =
            [("Cookie", cookie), ("X-Forwarded-Proto", "https"), ("Origin", "https://localhost")];
        answer_of(knock(&edge, &headers, "").expect("a 101"))
    };
    let (plain, own) = ("authjs.session-token", "__Secure-authjs.session-token");
    assert_eq!(secure(&format!("{plain}={token}")), refused());
    assert!(
        matches!(secure(&format!("{own}={token}")), Heard::Text(text) if text.starts_with("40"))
    );
    assert_in(&edge, &format!("{plain}={token}"));
    assert_out(&edge, &format!("{own}={token}"));
}

#[test]
fn the_name_of_a_cookie_has_its_own_capitals() {
    let (edge, _database) = lucia("", "");
    assert_out_unasked(&edge, &[&format!("AUTH_SESSION={ID}"), &format!("Auth_session={ID}")]);
}

/// Its collation finds the row all the same.
#[test]
fn an_id_in_other_capitals_or_with_a_space_after_it_is_another_in_mariadb() {
    let server = Server::mariadb();
    for sql in [
        "CREATE DATABASE app",
        "CREATE USER app@'127.0.0.1' IDENTIFIED BY 'test-password'",
        "GRANT SELECT ON app.* TO app@'127.0.0.1'",
        "CREATE TABLE app.user_session (id VARCHAR(255) PRIMARY KEY, user_id VARCHAR(255), expires_at DATETIME)",
        &format!(
            "INSERT INTO app.user_session VALUES ('{ID}', 'alice', UTC_TIMESTAMP() + INTERVAL 1 DAY)"
        ),
    ] {
        server.run(&[sql]);
    }
    let url = format!("mysql://app:test-password@127.0.0.1:{}/app", server.port);
    let auth = format!("{{ lucia: v3, database: \"{url}\", cache: 0s }}");
    let edge = Edge::start(&config(&auth, ""));
    assert_in(&edge, &session(ID));
    assert_out(&edge, &session(&ID.to_uppercase()));
    assert_out(&edge, &session(&format!("{ID}%20")));
}

#[test]
fn an_id_that_would_be_sql_is_refused_unasked() {
    let (edge, _database) = lucia("", "");
    let values = ["' OR 1=1 --", "%27%20OR%201=1%20--%20aaaaaaaaaaaaaaaaaa", "x' UNION SELECT 1--"];
    assert_out_unasked(&edge, &values.map(session).each_ref().map(String::as_str));
}

/// The one keeps what is shown, the other its hash: neither finds, or is opened by, the other's.
#[test]
fn a_row_that_another_variant_wrote_is_no_session() {
    let (edge, database) = lucia("", "");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"a-token-of-the-2024-guide");
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let ends = seconds() + 900;
    database.run(&format!("INSERT INTO session VALUES ('{hash}', 'alice', {ends}, 1);"));
    assert_out(&edge, &session("a-token-of-the-2024-guide"));
    let path = database.0.display();
    let auth = format!(
        "{{ lucia: guide-2024, database: \"sqlite:{path}\", table: session, cookie: auth_session, cache: 0s }}"
    );
    let guide = Edge::start(&config(&auth, ""));
    assert_in(&guide, &session("a-token-of-the-2024-guide"));
    assert_out(&guide, &session(ID));
    assert_out(&guide, &session(&hash));
}

/// One more row in a table of Lucia 3, by its values after the id.
fn with_row(more: &str, values: &str) -> (Edge, Sqlite, String) {
    let (edge, database) = lucia(more, "");
    let id = "r".repeat(40);
    database.run(&format!("INSERT INTO session VALUES ('{id}', {values});"));
    (edge, database, session(&id))
}

#[test]
fn an_end_in_milliseconds_where_seconds_are_declared_is_reported_and_refused() {
    let (edge, _database, cookie) = with_row("", &format!("'alice', {}000, 1", seconds() + 900));
    assert_out(&edge, &cookie);
    assert!(edge.log().contains("implausible_expiry"));
}

#[test]
fn an_end_that_is_null_is_reported_and_refused() {
    let (edge, _database, cookie) = with_row("", "'alice', NULL, 1");
    assert_out(&edge, &cookie);
    assert!(edge.log().contains("no_expiry"));
}

#[test]
fn a_session_whose_second_factor_is_still_to_come_is_none() {
    let ends = seconds() + 900;
    for second in ["0", "NULL"] {
        let values = format!("'alice', {ends}, {second}");
        let (edge, _database, cookie) = with_row(", where: { two_factor: 1 }", &values);
        assert_out(&edge, &cookie);
        assert_in(&edge, &session(ID));
    }
}

#[test]
fn a_session_whose_user_is_gone_is_none_and_is_not_deleted() {
    let values = format!("'gone', {}, 1", seconds() + 900);
    let (edge, database, cookie) = with_row(", user_table: user", &values);
    assert_out(&edge, &cookie);
    database.run("INSERT INTO user VALUES ('gone', 'Back');");
    std::thread::sleep(Duration::from_millis(1100));
    // A refusal is remembered for a second; the row is still there.
    assert_in(&edge, &cookie);
}

#[test]
fn a_session_that_has_ended_or_has_no_user_is_none() {
    let (edge, database, ended) = with_row("", &format!("'alice', {}, 1", seconds() - 1));
    assert_out(&edge, &ended);
    let id = "u".repeat(40);
    let ends = seconds() + 900;
    database.run(&format!("INSERT INTO session VALUES ('{id}', NULL, {ends}, 1);"));
    assert_out(&edge, &session(&id));
}

/// The table is locked: each statement waits, up to all of the pool's connections.
#[test]
fn a_database_that_keeps_everybody_waiting_refuses_nobody() {
    let server = Server::postgres();
    server.run(&[
        "CREATE TABLE user_session (id TEXT PRIMARY KEY, user_id TEXT, expires_at TIMESTAMPTZ)",
    ]);
    server.run(&["INSERT INTO user_session SELECT lpad(n::text, 40, '0'), 'u' || n, now() + interval '1 day' FROM generate_series(0, 99) n"]);
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", server.port);
    let auth = format!("{{ lucia: v3, database: \"{url}\", cache: 0s }}");
    let edge = Edge::start(&config(&auth, ""));
    let user = |number: usize| session(&format!("{number:040}"));
    assert_in(&edge, &user(0));
    let port = server.port.to_string();
    let mut holder = Command::new("psql")
        .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("psql");
    let mut words = holder.stdin.take().expect("piped");
    words.write_all(b"BEGIN;\nLOCK TABLE user_session;\n\\echo locked\n").expect("told");
    let mut said = String::new();
    BufReader::new(holder.stdout.as_mut().expect("piped")).read_line(&mut said).expect("a line");
    assert_eq!(said.trim(), "locked");
    let mut crowd: Vec<_> = (1..20)
        .filter_map(|number| knock(&edge, &[("Cookie", &user(number)), ORIGIN], "").ok())
        .collect();
    crowd.iter_mut().for_each(|web| web.say("40"));
    for web in &mut crowd {
        assert_eq!(web.hear(), Heard::Closed(Some(1013)));
    }
    assert_later(&edge, &user(30));
    drop(words);
    holder.wait().expect("its end");
    eventually("everybody again", || {
        let mut web = knock(&edge, &[("Cookie", &user(40)), ORIGIN], "").ok()?;
        web.say("40");
        matches!(web.hear(), Heard::Text(text) if text.starts_with("40")).then_some(())
    });
}

/// A Redis that says these words to whatever it is asked, or nothing.
fn redis_that_says(words: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.expect("a client");
            std::thread::spawn(move || {
                let mut asked = [0; 4096];
                while stream.read(&mut asked).is_ok_and(|length| length > 0) {
                    if stream.write_all(words).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[test]
fn a_redis_that_cannot_answer_refuses_nobody() {
    for words in [
        &b"-LOADING Redis is loading the dataset in memory\r\n"[..],
        b"-MOVED 3999 127.0.0.1:6381\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"?\r\n",
        b"",
    ] {
        let port = redis_that_says(words);
        let auth = format!(
            "{{ redis: {{ url: \"redis://127.0.0.1:{port}\", user: user.id }}, cache: 0s }}"
        );
        let edge = Edge::start(&config(&auth, ""));
        assert_later(&edge, "connect.sid=an-id-that-is-long-enough");
        assert!(edge.log().contains("sessions cannot be looked up"), "{words:?}");
    }
}

#[test]
fn a_value_in_redis_that_is_no_json_is_reported_and_refused() {
    let server = Server::redis();
    let url = format!("redis://:test-redis-password@127.0.0.1:{}", server.port);
    server.run(&["SET", "sess:an-id-that-is-long-enough", "{\"user\":"]);
    let auth = format!("{{ redis: {{ url: \"{url}\", user: user.id }}, cache: 0s }}");
    let edge = Edge::start(&config(&auth, ""));
    assert_out(&edge, "connect.sid=an-id-that-is-long-enough");
    assert!(edge.log().contains("malformed_store_value"));
}

/// More than a session may be, or bytes that are no text: so is one, and the others are read.
#[test]
fn a_value_in_redis_that_cannot_be_read_is_refused_alone() {
    let server = Server::redis();
    let url = format!("redis://:test-redis-password@127.0.0.1:{}", server.port);
    server.run(&["SETRANGE", "sess:an-id-of-a-long-value", "1100000", "x"]);
    server.run(&["SETBIT", "sess:an-id-of-no-text-at-all", "0", "1"]);
    server.run(&["SET", "sess:an-id-that-is-long-enough", r#"{"user":{"id":"anna"}}"#]);
    let auth = format!("{{ redis: {{ url: \"{url}\", user: user.id }}, cache: 0s }}");
    let edge = Edge::start(&config(&auth, ""));
    for _ in 0..6 {
        assert_out(&edge, "connect.sid=an-id-of-a-long-value");
        assert_out(&edge, "connect.sid=an-id-of-no-text-at-all");
        assert_in(&edge, "connect.sid=an-id-that-is-long-enough");
    }
    assert!(edge.log().contains("malformed_store_value"));
}

fn by_bearer(edge: &Edge, token: &str) -> Heard {
    let bearer = format!("Bearer {token}");
    answer_of(knock(edge, &[("Authorization", &bearer)], "").expect("a 101"))
}

#[test]
fn what_a_token_says_of_its_keys_is_not_fetched() {
    let signer = crate::auth_trouble::Signer::new();
    let set = json!({ "keys": [signer.jwk("a")] }).to_string();
    let document = Origin::start(move |_, stream| reply(stream, "200 OK", "", set.as_bytes()));
    let forged = Origin::text("{\"keys\":[]}");
    let auth = format!(
        "{{ jwt: {{ jwks: {}/jwks.json, issuer: https://issuer.example.test, audience: realtime }} }}",
        document.url()
    );
    let edge = Edge::start(&config(&auth, ""));
    let place = forged.url();
    for head in [
        json!({ "alg": "ES256", "kid": "a", "jku": format!("{place}/k") }),
        json!({ "alg": "ES256", "kid": "a", "x5u": format!("{place}/k") }),
        json!({ "alg": "ES256", "kid": "a", "jwk": signer.jwk("a") }),
        json!({ "alg": "ES256", "kid": format!("{place}/k") }),
    ] {
        let heard = by_bearer(&edge, &token(&head.to_string(), &claims("eve")));
        assert_eq!(heard, refused(), "{head}");
    }
    assert_eq!(forged.seen().len(), 0);
    let welcome = by_bearer(&edge, &signer.token("a", "anna"));
    assert!(matches!(&welcome, Heard::Text(text) if text.starts_with("40")), "{welcome:?}");
}

/// An edge that asks an application which answers so.
fn asking(
    words: &str,
    script: impl Fn(&mut TcpStream) -> bool + Send + Sync + 'static,
) -> (Edge, Origin) {
    let origin = Origin::start(move |_, stream| script(stream));
    let site = format!("sites: {{ localhost: {{ next: \"{}\" }} }}\n", origin.url());
    let auth = format!("{{ http: {{ path: /api/who, {words} }}, cookie: session, cache: 0s }}");
    (Edge::start(&config(&auth, &site)), origin)
}

#[test]
fn a_login_page_in_place_of_an_answer_is_reported_and_refuses_nobody() {
    let (edge, _origin) = asking("", |stream| {
        reply(stream, "200 OK", "content-type: text/html\r\n", b"<html>log in</html>")
    });
    assert_later(&edge, "session=anna");
    assert!(edge.log().contains("application_answer"));
}

#[test]
fn a_redirect_to_the_login_is_a_refusal_and_is_not_followed() {
    let (edge, origin) =
        asking("", |stream| reply(stream, "302 Found", "location: /login\r\n", b""));
    assert_out(&edge, "session=anna");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_path_that_the_application_does_not_have_is_reported_and_refuses_nobody() {
    let (edge, _origin) = asking("", |stream| reply(stream, "404 Not Found", "", b""));
    assert_later(&edge, "session=anna");
    assert!(edge.log().contains("application_status"));
}

/// An application that fails at garbage is there for others: who shows it shuts nobody else out, and
/// is not asked about without end.
#[test]
fn what_an_application_fails_at_shuts_nobody_else_out() {
    let begin = |failures: &str| {
        let origin = Origin::start(|seen, stream| match seen.header("cookie") {
            Some("session=anna") => {
                let json = "content-type: application/json\r\n";
                reply(stream, "200 OK", json, b"{\"userId\":\"anna\"}")
            }
            Some(cookie) if cookie.ends_with('1') => reply(stream, "500 Oh", "", b""),
            Some(cookie) if cookie.ends_with('2') => reply(stream, "429 Slower", "", b""),
            Some(cookie) if cookie.ends_with('3') => {
                let json = "content-type: application/json\r\n";
                reply(stream, "200 OK", json, &[b' '; 70_000])
            }
            _ => reply(stream, "431 Too Large", "", b""),
        });
        let site = format!("sites: {{ localhost: {{ next: \"{}\" }} }}\n", origin.url());
        let auth =
            "{ http: { path: /api/who }, cookie: session, cache: 0s, from: [cookie, connect]";
        (Edge::start(&config(&format!("{auth}{failures} }}"), &site)), origin)
    };
    let (edge, origin) = begin("");
    for number in 0..12 {
        assert_later(&edge, &format!("session=garbage{number}"));
    }
    (0..4).for_each(|_| assert_in(&edge, "session=anna"));
    // What no application takes is not sent to one: a head of more than it reads, a header that is none.
    let asked = origin.seen().len();
    for _ in 0..6 {
        assert_out(&edge, &format!("session={}", "x".repeat(20_000)));
        let mut web = knock(&edge, &[ORIGIN], "").expect("a 101");
        web.say(r#"40{"token":"two\nlines"}"#);
        assert_eq!(web.hear(), refused());
    }
    assert_eq!(origin.seen().len(), asked);
    (0..4).for_each(|_| assert_in(&edge, "session=anna"));
    let (edge, origin) = begin(", failures: 5/m");
    for number in 0..12 {
        assert_later(&edge, &format!("session=garbage{number}"));
    }
    assert!(origin.seen().len() <= 6, "{} questions for garbage", origin.seen().len());
}

#[test]
fn an_application_that_never_answers_or_drips_refuses_nobody() {
    let (silent, _origin) = asking("timeout: 300ms", |_| {
        std::thread::sleep(Duration::from_secs(2));
        false
    });
    assert_later(&silent, "session=anna");
    let (drips, _origin) = asking("timeout: 300ms", |stream| {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n";
        let mut sent = stream.write_all(head.as_bytes());
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(100));
            sent = sent.and_then(|()| stream.write_all(b" "));
        }
        sent.is_ok()
    });
    assert_later(&drips, "session=anna");
}

#[test]
fn an_answer_without_a_user_is_a_refusal() {
    for body in [&b"null"[..], b"{}", b"{\"userId\":\"\"}", b"{\"userId\":null}"] {
        let (edge, _origin) = asking("", move |stream| {
            reply(stream, "200 OK", "content-type: application/json\r\n", body)
        });
        assert_out(&edge, "session=anna");
    }
}

#[test]
fn auth_js_without_the_users_id_is_reported_and_refused() {
    let (edge, _origin) = asking("words: authjs", |stream| {
        let body = br#"{"user":{"name":"Anna","email":"a@example.test"},"expires":"2027-01-01T00:00:00.000Z"}"#;
        reply(stream, "200 OK", "content-type: application/json\r\n", body)
    });
    assert_out(&edge, "session=anna");
    assert!(edge.log().contains("no_user_id_in_session"));
}

/// A polling session of Alice's; its path.
fn opened(edge: &Edge) -> String {
    let open = polled(edge, &session(ID)).text();
    let open: Value = serde_json::from_str(&open[1..]).expect("JSON");
    format!("{}&sid={}", hub("EIO=4&transport=polling"), open["sid"].as_str().expect("an id"))
}

#[test]
fn a_post_from_a_foreign_page_is_forbidden_whatever_it_knows() {
    let (edge, _database) = lucia("", "");
    let (path, mine) = (opened(&edge), session(ID));
    let foreign = [("Cookie", mine.as_str()), ("Origin", "http://evil.test")];
    assert_eq!(edge.connect().ask("POST", &path, &foreign, b"40").status, 403);
    let own = [("Cookie", mine.as_str()), ORIGIN];
    assert_eq!(edge.connect().ask("POST", &path, &own, b"40").status, 200);
}

#[track_caller]
fn assert_unknown(answer: &Answer) {
    assert_eq!((answer.status, answer.json()["code"].as_u64()), (400, Some(1)), "{answer:?}");
    assert_eq!(answer.json()["message"], "Session ID unknown");
}

#[test]
fn a_session_id_with_another_users_cookie_is_unknown() {
    let (edge, _database) = lucia("", "");
    let (path, other) = (opened(&edge), session(OTHER));
    for (method, body) in [("GET", &b""[..]), ("POST", b"40")] {
        let headers = [("Cookie", other.as_str()), ORIGIN];
        assert_unknown(&edge.connect().ask(method, &path, &headers, body));
        assert_unknown(&edge.connect().ask(method, &path, &[ORIGIN], body));
    }
}

#[test]
fn an_upgrade_without_the_cookie_is_of_an_unknown_session() {
    let (edge, _database) = lucia("", "");
    let path = opened(&edge);
    let (_, sid) = path.rsplit_once("&sid=").expect("an id");
    let (mine, other) = (session(ID), session(OTHER));
    let knock = |headers: &[(&str, &str)]| {
        let query = hub(&format!("EIO=4&transport=websocket&sid={sid}"));
        let all = [&crate::harness::socketio::UPGRADE[..], headers].concat();
        edge.connect().ask("GET", &query, &all, b"")
    };
    for answer in [knock(&[ORIGIN]), knock(&[("Cookie", &other), ORIGIN])] {
        assert_eq!((answer.status, answer.text().as_str()), (400, "Session ID unknown"));
    }
    assert_eq!(knock(&[("Cookie", &mine), ORIGIN]).status, 101);
}

#[test]
fn a_token_in_the_query_is_not_read() {
    let (edge, _database) = lucia("", "");
    let web = knock(&edge, &[ORIGIN], &format!("&token={ID}&auth_session={ID}"));
    assert_eq!(answer_of(web.expect("a 101")), refused());
    let line = edge.access_line(|line| line["query"].as_str().is_some_and(|q| q.contains("token")));
    assert!(!line["query"].as_str().expect("a text").contains(&format!("token={ID}")), "{line}");
}

#[test]
fn a_cookie_of_one_user_and_a_token_of_another_are_never_one() {
    // A provider reads what it is told to, in that order.
    let bert = format!("40{{\"token\":\"{}\"}}", token(HS256, &claims("bert")));
    let anna = format!("session={}", token(HS256, &claims("anna")));
    for (from, user) in [
        ("[cookie]", "anna"),
        ("[connect]", "bert"),
        ("[cookie, connect]", "anna"),
        ("[connect, cookie]", "bert"),
    ] {
        let auth = format!(
            "{{ jwt: {{ issuer: https://issuer.example.test, audience: realtime }}, secret: {SIGNING}, cookie: session, from: {from} }}"
        );
        let edge = Edge::start(&config(&auth, ""));
        let mut web = with_cookie(&edge, &anna);
        web.say(&bert);
        assert!(web.text().starts_with("40"), "{from}");
        web.say(r#"42["all",{}]"#);
        web.expect(&format!(r#"42["all",{{"from":"{user}"}}]"#));
        // What comes first counts also when it is wrong.
        let mut web = with_cookie(&edge, "session=nonsense");
        web.say(&bert);
        let is_in = web.text().starts_with("40");
        assert_eq!(is_in, user == "bert", "{from}");
    }
}

#[test]
fn headers_that_only_the_edge_may_write_do_not_pass() {
    let origin = Origin::start(|seen, stream| {
        let json = "content-type: application/json\r\n";
        if seen.path() == "/api/who" {
            return reply(stream, "200 OK", json, br#"{"userId":"anna"}"#);
        }
        reply(stream, "200 OK", json, b"{}")
    });
    let site = format!("sites: {{ localhost: {{ next: \"{}\" }} }}\n", origin.url());
    let auth =
        "{ http: { path: /api/who, secret: 0123456789abcdef-edge }, cookie: session, cache: 0s }";
    let edge = Edge::start(&config(auth, &site));
    let forged = [
        ("Cookie", "session=anna"),
        ORIGIN,
        ("X-Edge-Auth", "forged"),
        ("X-Vestibule-User", "forged"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Host", "forged"),
        ("X-Middleware-Subrequest", "middleware"),
    ];
    assert_eq!(edge.connect().ask("GET", "/page", &forged, b"").status, 200);
    knock(&edge, &forged, "").map(answer_of).expect("a 101");
    let seen = origin.seen();
    assert_eq!((seen[0].path(), seen[1].path()), ("/page", "/api/who"));
    assert_eq!(seen[0].all("x-edge-auth"), [""; 0]);
    assert_eq!(seen[1].all("x-edge-auth"), ["0123456789abcdef-edge"]);
    for seen in &seen {
        assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"], "{}", seen.line);
        for name in ["x-vestibule-user", "x-middleware-subrequest"] {
            assert_eq!(seen.header(name), None, "{name} at {}", seen.line);
        }
        assert!(!seen.headers.iter().any(|(_, value)| value.contains("forged")), "{seen:?}");
    }
}

/// Auth.js deletes the pieces that it does not need any more, and writes the others anew.
#[test]
fn a_cookie_that_gets_shorter_by_a_piece_is_no_logout() {
    let text = include_str!("golden/session-vectors.json");
    let all: Value = serde_json::from_str(text).expect("JSON");
    let mut groups = all["groups"].as_array().expect("groups").iter();
    let group = groups.find(|group| group["id"] == "authjs-v5").expect("the group");
    let mut cases = group["cases"].as_array().expect("cases").iter();
    let case = cases.find(|case| case["id"] == "chunked").expect("the case");
    let name = case["cookie_name"].as_str().expect("a name").to_owned();
    let told = name.clone();
    let origin = Origin::start(move |seen, stream| {
        let secure = "Path=/; Secure";
        let gone = |number| format!("set-cookie: {told}.{number}=; Max-Age=0; {secure}\r\n");
        let more = match seen.path() {
            "/shorter" => {
                gone(2) + &gone(1) + &format!("set-cookie: {told}.0=shorter; {secure}\r\n")
            }
            "/gap" => gone(0),
            "/logout" => gone(0) + &gone(1) + &gone(2),
            _ => String::new(),
        };
        reply(stream, "200 OK", &more, b"ok")
    });
    let secret = group["secret_list"][0].as_str().expect("a secret");
    let site =
        format!("trust: [127.0.0.0/8]\nsites: {{ localhost: {{ next: \"{}\" }} }}\n", origin.url());
    let auth = format!("{{ authjs: v5, secret: \"{secret}\", cookie: \"{name}\" }}");
    let (edge, clock) = Clock::start(Folder::new(), &config(&auth, &site));
    let then = case["now_ms"].as_i64().expect("a moment") / 1000;
    clock.set(then - i64::try_from(seconds()).expect("a number"));
    let headers = [
        ("Cookie", case["cookie_header"].as_str().expect("cookies")),
        ("X-Forwarded-Proto", "https"),
        ("Origin", "https://localhost"),
    ];
    let mut web = knock(&edge, &headers, "").expect("a 101");
    web.enter("/");
    let stays = |web: &mut crate::harness::socketio::Web| {
        web.say(r#"42["all",{}]"#);
        web.text().starts_with("42")
    };
    for path in ["/shorter", "/gap"] {
        assert_eq!(edge.connect().ask("GET", path, &headers, b"").status, 200);
        assert!(stays(&mut web), "{path}");
    }
    let again = answer_of(knock(&edge, &headers, "").expect("a 101"));
    assert!(matches!(again, Heard::Text(text) if text.starts_with("40")), "it was not revoked");
    assert_eq!(edge.connect().ask("GET", "/logout", &headers, b"").status, 200);
    web.expect("41");
    assert_eq!(answer_of(knock(&edge, &headers, "").expect("a 101")), refused());
}
