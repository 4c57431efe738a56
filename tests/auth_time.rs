//! Sessions as time passes: tokens that end and are followed by others, clocks that are set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use tungstenite::Message;

use crate::auth::{
    HS256, SIGNING, answer_of, claims, config, knock, refused, seconds, session, token, with_cookie,
};
use crate::harness::clock::Clock;
use crate::harness::node::Script;
use crate::harness::origin::{Origin, reply};
use crate::harness::socketio::{Heard, Line, Web, wait_for_metric};
use crate::harness::sqlite::Sqlite;
use crate::harness::{Edge, Folder, eventually};

/// An edge whose clients are not asked for a heartbeat while the clock jumps.
fn start(auth: &str, site: &str) -> (Edge, Clock) {
    start_in(Folder::new(), &config(auth, site))
}

fn start_in(folder: Folder, yaml: &str) -> (Edge, Clock) {
    let patient = "hub:\n  ping: { interval: 1h, timeout: 1h }\n";
    Clock::start(folder, &yaml.replace("hub:\n", patient))
}

fn jwt(more: &str) -> String {
    format!(
        "{{ jwt: {{ issuer: https://issuer.example.test, audience: realtime }}, secret: {SIGNING}{more} }}"
    )
}

/// Anna's token of this session, which lasts so many seconds from now.
fn lasting(session: &str, lasts: u64) -> String {
    let mut claims = claims("anna");
    claims["exp"] = json!(seconds() + lasts);
    claims["sid"] = json!(session);
    token(HS256, &claims)
}

fn site(origin: &Origin) -> String {
    format!("sites: {{ localhost: {{ next: \"{}\" }} }}\n", origin.url())
}

const ALL: &str = r#"42["all",{}]"#;

/// Whoever has just come in is still there; its worker has had something to do all the while.
#[track_caller]
fn stays(web: &mut Web, user: &str) {
    for _ in 0..20 {
        web.say(ALL);
        web.expect(&format!(r#"42["all",{{"from":"{user}"}}]"#));
    }
}

/// What its connection ends with.
fn ends(web: &mut Web) -> Heard {
    eventually("the end of a connection", || {
        let _sent = web.socket.send(Message::text(ALL));
        Some(web.hear())
            .filter(|heard| !matches!(heard, Heard::Text(text) if text.starts_with("42")))
    })
}

/// The client is to come back by itself.
const CUT: Heard = Heard::Closed(Some(1013));

fn by_bearer(edge: &Edge, token: &str) -> Result<Web, Heard> {
    let bearer = format!("Bearer {token}");
    let mut web = knock(edge, &[("Authorization", &bearer)], "").expect("a 101");
    web.say("40");
    match web.hear() {
        Heard::Text(text) if text.starts_with("40") => Ok(web),
        other => Err(other),
    }
}

/// So many connections go on by a newer token.
fn renewed(edge: &Edge, count: i64) {
    wait_for_metric(edge, "vestibule_auth_renewals_total", count);
}

fn passes_by(edge: &Edge, token: &str) {
    let bearer = format!("Bearer {token}");
    let answer = edge.connect().ask("GET", "/page", &[("Authorization", &bearer)], b"");
    assert_eq!(answer.status, 200);
}

/// Deadlines go by the time that passes, and what is shown anew by the time of day.
#[test]
fn a_clock_that_jumps_back_an_hour_moves_no_deadline() {
    let folder = Folder::new();
    let database = Sqlite(folder.path("app.db"));
    let id = "b".repeat(40);
    database.run(&format!(
        "CREATE TABLE session (id TEXT PRIMARY KEY, user_id TEXT, expires_at INTEGER);
         INSERT INTO session VALUES ('{id}', 'bob', {});",
        seconds() + 7200
    ));
    let rows = "  rows: { lucia: v3, database: \"sqlite:app.db\", cache: 0s }\nhub:\n";
    let yaml = config(&jwt(", recheck: 5s"), "").replace("hub:\n", rows);
    let yaml = yaml.replace("auth: app\n", "auth: [rows, app]\n");
    let (edge, clock) = start_in(folder, &yaml);
    let mut anna = by_bearer(&edge, &lasting("s1", 30)).expect("in");
    let mut bob = with_cookie(&edge, &session(&id));
    bob.enter("/");
    clock.set(-3600);
    // Its token holds for an hour more, if one looks at the clock on the wall.
    clock.pass(80);
    stays(&mut anna, "anna");
    clock.pass(11);
    assert_eq!(ends(&mut anna), CUT);
    // What has ended half an hour ago has not, by that clock; what has not begun is refused.
    let mut old = claims("anna");
    (old["iat"], old["exp"]) = (json!(seconds() - 5000), json!(seconds() - 1800));
    by_bearer(&edge, &token(HS256, &old)).expect("in");
    assert_eq!(by_bearer(&edge, &lasting("s1", 60)).err(), Some(refused()));
    bob.say(ALL);
    // It has heard Anna all the while.
    eventually("its own word", || bob.text().contains("bob").then_some(()));
    // And an hour ahead, what had an hour left has none; a session of rows is asked about.
    clock.set(3 * 3600);
    assert_eq!(answer_of(with_cookie(&edge, &session(&id))), refused());
}

#[test]
fn a_token_that_has_ended_cuts_its_connection_a_minute_later() {
    let (edge, clock) = start(&jwt(""), "");
    let mut anna = by_bearer(&edge, &lasting("s1", 30)).expect("in");
    clock.pass(80);
    stays(&mut anna, "anna");
    clock.pass(12);
    assert_eq!(ends(&mut anna), CUT);
}

#[test]
fn a_newer_token_of_the_same_session_moves_the_deadline() {
    let origin = Origin::text("a page");
    let (edge, clock) = start(&jwt(""), &site(&origin));
    let mut first = by_bearer(&edge, &lasting("s1", 60)).expect("in");
    let mut other = by_bearer(&edge, &lasting("s2", 61)).expect("in");
    clock.pass(50);
    // Each worker hears of it. A token that is none, or of another user, is none of theirs.
    let mut eve = claims("eve");
    (eve["sid"], eve["exp"]) = (json!("s2"), json!(seconds() + 900));
    passes_by(&edge, &token(HS256, &eve));
    passes_by(&edge, &format!("{}x", lasting("s2", 900)));
    passes_by(&edge, &lasting("s1", 170));
    renewed(&edge, 1);
    clock.pass(80);
    assert_eq!(ends(&mut other), CUT, "another session of the same user's");
    stays(&mut first, "anna");
    clock.pass(90);
    stays(&mut first, "anna");
    clock.pass(15);
    assert_eq!(ends(&mut first), CUT);
}

/// Stamps, rules and hooks go by the newer one.
#[test]
fn what_a_newer_token_says_of_its_user_is_known_of_the_sockets_that_are_here() {
    let origin = Origin::text("a page");
    let yaml = config(&jwt(""), &site(&origin));
    let yaml = yaml.replace("from: \"{user.id}\"", "from: \"{user.role}\"");
    let (edge, clock) = start_in(Folder::new(), &yaml);
    let of = |role: &str, lasts: u64| {
        let mut claims = claims("anna");
        (claims["role"], claims["sid"]) = (json!(role), json!("s1"));
        claims["exp"] = json!(seconds() + lasts);
        token(HS256, &claims)
    };
    let mut anna = by_bearer(&edge, &of("admin", 60)).expect("in");
    stays(&mut anna, "admin");
    clock.pass(10);
    passes_by(&edge, &of("guest", 300));
    renewed(&edge, 1);
    stays(&mut anna, "guest");
}

/// A second page of the same browser comes with a newer token: the first has it as well.
#[test]
fn a_newer_token_that_connects_moves_the_deadline_of_the_others() {
    let (edge, clock) = start(&jwt(""), "");
    let mut first = by_bearer(&edge, &lasting("s1", 60)).expect("in");
    let second = by_bearer(&edge, &lasting("s1", 200)).expect("in");
    renewed(&edge, 1);
    clock.pass(150);
    stays(&mut first, "anna");
    drop(second);
    clock.pass(115);
    assert_eq!(ends(&mut first), CUT);
}

/// However often its token is renewed.
#[test]
fn nobody_stays_on_one_connection_for_longer_than_max_age() {
    let origin = Origin::text("a page");
    let (edge, clock) = start(&jwt(", max_age: 5m, recheck: 10s"), &site(&origin));
    let mut anna = by_bearer(&edge, &lasting("s1", 60)).expect("in");
    for step in 1..=5 {
        clock.pass(50);
        passes_by(&edge, &lasting("s1", 60 + step * 50));
        renewed(&edge, i64::try_from(step).expect("few"));
        stays(&mut anna, "anna");
    }
    clock.pass(65);
    assert_eq!(ends(&mut anna), CUT);
}

/// Nor for much less, or more, where that is looked at no more often.
#[test]
fn max_age_is_met_whenever_sessions_are_looked_at() {
    let (edge, clock) = start(&jwt(", on_expiry: keep, max_age: 10m, recheck: 1h"), "");
    // Looks are spread by what was shown.
    let mut all: Vec<_> = ["s1", "s2", "s3"]
        .into_iter()
        .map(|name| by_bearer(&edge, &lasting(name, 3600)).expect("in"))
        .collect();
    clock.pass(570);
    all.iter_mut().for_each(|web| stays(web, "anna"));
    clock.pass(35);
    for web in &mut all {
        assert_eq!(ends(web), CUT);
    }
}

#[test]
fn on_expiry_keep_lets_who_is_in_stay_for_max_age() {
    let (edge, clock) = start(&jwt(", on_expiry: keep, max_age: 1h, recheck: 10s"), "");
    let token = lasting("s1", 60);
    let mut anna = by_bearer(&edge, &token).expect("in");
    clock.pass(3000);
    stays(&mut anna, "anna");
    assert_eq!(by_bearer(&edge, &token).err(), Some(refused()), "nobody comes anew");
    clock.pass(615);
    assert_eq!(ends(&mut anna), CUT);
}

/// Its page joins one namespace more, long after the token that it came with: it is to come back
/// with the next rather than to be refused for good.
#[test]
fn a_namespace_that_is_joined_late_asks_for_the_next_token() {
    let yaml = config(&jwt(""), "") + "    /late:\n      auth: app\n      events: deny\n";
    let (edge, clock) = start_in(Folder::new(), &yaml);
    let mut anna = by_bearer(&edge, &lasting("s1", 30)).expect("in");
    clock.pass(60);
    anna.say("40/late,");
    assert_eq!(anna.hear(), CUT);
    // Who has nothing else to show is refused.
    assert_eq!(by_bearer(&edge, &lasting("s1", 30)).err(), Some(refused()));
}

/// Signs whoever asks in anew, as applications do whose tokens have no name for their session.
fn rotating() -> Origin {
    Origin::start(|seen, stream| {
        let cookie = match seen.path() {
            "/rotate" => format!("set-cookie: token={}; Path=/\r\n", nameless("anna", 600)),
            "/switch" => format!("set-cookie: token={}; Path=/\r\n", nameless("bert", 600)),
            "/logout" => "set-cookie: token=; Max-Age=0; Path=/\r\n".to_owned(),
            "/broken" => "set-cookie: token=a.b.c; Path=/\r\n".to_owned(),
            _ => String::new(),
        };
        reply(stream, "200 OK", &cookie, b"ok")
    })
}

fn nameless(user: &str, lasts: u64) -> String {
    let mut claims = claims(user);
    claims["exp"] = json!(seconds() + lasts);
    claims["jti"] = json!(format!("{lasts}"));
    token(HS256, &claims)
}

fn asks(edge: &Edge, path: &str, cookie: &str) -> String {
    let answer = edge.connect().ask("GET", path, &[("Cookie", cookie)], b"");
    let set = answer.header("set-cookie").unwrap_or_default();
    set.split(';').next().unwrap_or_default().to_owned()
}

#[test]
fn a_token_that_the_application_replaces_is_followed_by_the_next() {
    let origin = rotating();
    let (edge, clock) = start(&jwt(", cookie: token"), &site(&origin));
    let first = format!("token={}", nameless("anna", 60));
    let mut anna = with_cookie(&edge, &first);
    anna.enter("/");
    let mut alone = with_cookie(&edge, &format!("token={}", nameless("anna", 61)));
    alone.enter("/");
    let next = asks(&edge, "/rotate", &first);
    renewed(&edge, 1);
    asks(&edge, "/broken", &first);
    stays(&mut anna, "anna");
    clock.pass(130);
    // Another of the same user's, of which nothing says that it is the same session.
    assert_eq!(ends(&mut alone), CUT);
    stays(&mut anna, "anna");
    // The logout shows the new one; the connection was opened by the old one.
    asks(&edge, "/logout", &next);
    assert_eq!(ends(&mut anna), Heard::Text("41".to_owned()));
    assert_eq!(answer_of(with_cookie(&edge, &next)), refused());
}

#[test]
fn a_browser_that_becomes_another_users_comes_back_as_that() {
    let origin = rotating();
    let (edge, _clock) = start(&jwt(", cookie: token"), &site(&origin));
    let first = format!("token={}", nameless("anna", 60));
    let mut anna = with_cookie(&edge, &first);
    anna.enter("/");
    let next = asks(&edge, "/switch", &first);
    assert_eq!(ends(&mut anna), CUT);
    let mut bert = with_cookie(&edge, &next);
    bert.enter("/");
    stays(&mut bert, "bert");
}

/// A logout shows the last token of a session, and connections were opened by those before.
#[test]
fn a_logout_ends_the_connections_of_all_tokens_of_its_session() {
    let origin = rotating();
    let (edge, _clock) = start(&jwt(", cookie: token"), &site(&origin));
    let cookie = |session: &str, lasts| format!("token={}", lasting(session, lasts));
    let mut all: Vec<Web> = [("s1", 200), ("s1", 201), ("s2", 202)]
        .map(|(session, lasts)| with_cookie(&edge, &cookie(session, lasts)))
        .into();
    all.iter_mut().for_each(|web| drop(web.enter("/")));
    asks(&edge, "/logout", &cookie("s1", 203));
    let mut other = all.pop().expect("the other session's");
    for web in &mut all {
        assert_eq!(ends(web), Heard::Text("41".to_owned()));
    }
    other.say(ALL);
    assert!(other.text().contains("anna"));
}

/// The stock client comes back by itself with what its page has by then, as the same socket, and
/// stays away once it is refused.
#[test]
fn the_stock_client_comes_back_with_its_next_token() {
    let yaml = config(&jwt(""), "").replace("hub:\n", "hub:\n  recovery: { for: 10m }\n");
    let (edge, clock) = start_in(Folder::new(), &yaml);
    let url = format!("http://localhost:{}", edge.http().port());
    let mut script = Script::start("sessions/tokens.mjs", &[("URL", &url), ("SECRET", SIGNING)]);
    script.wait_for("first token");
    clock.pass_unseen(125);
    script.wait_for("next token");
    clock.pass_unseen(125);
    let said = script.finish();
    assert!(said.contains("\"passed\""), "{said}");
}

/// The document is read again for a key that it does not know, but not more often than every
/// thirty seconds; while that fails nothing can be said of the key, and then something can.
#[test]
fn an_unknown_key_has_the_document_read_once_more() {
    let origin = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&origin);
    let (known, new) = (crate::auth_trouble::Signer::new(), crate::auth_trouble::Signer::new());
    let old = json!({ "keys": [known.jwk("a")] }).to_string();
    let both = json!({ "keys": [known.jwk("a"), new.jwk("b")] }).to_string();
    let document = Origin::start(move |_, stream| match told.load(Ordering::Relaxed) {
        0 => reply(stream, "200 OK", "", old.as_bytes()),
        1 => reply(stream, "500 Oh", "", b""),
        _ => reply(stream, "200 OK", "", both.as_bytes()),
    });
    let auth = format!(
        "{{ jwt: {{ jwks: {}/jwks.json, issuer: https://issuer.example.test, audience: realtime }}, cache: 0s }}",
        document.url()
    );
    let (edge, clock) = start(&auth, "");
    let set = |mode| origin.store(mode, Ordering::Relaxed);
    by_bearer(&edge, &known.token("a", "anna")).expect("in");
    set(1);
    clock.pass_unseen(31);
    for number in 0..8 {
        let token = new.token("b", &format!("u1-{number}"));
        assert_eq!(by_bearer(&edge, &token).err(), Some(CUT), "nobody can say");
    }
    for number in 0..4 {
        let token = known.token("a", &format!("bert{number}"));
        by_bearer(&edge, &token).expect("what is known stays so");
    }
    set(2);
    clock.pass_unseen(31);
    by_bearer(&edge, &new.token("b", "u2")).expect("in");
    clock.pass_unseen(31);
    assert_eq!(by_bearer(&edge, &new.token("c", "u3")).err(), Some(refused()));
    let asked = document.seen().len();
    assert_eq!(by_bearer(&edge, &new.token("d", "u4")).err(), Some(refused()));
    assert_eq!((asked, document.seen().len()), (4, 4), "once for all who come with strange keys");
}

/// Auth.js knows nobody while its database is away, so it is asked once more before anybody goes.
#[test]
fn an_application_that_knows_nobody_is_believed_the_second_time() {
    let gone = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&gone);
    let origin = Origin::start(move |_, stream| {
        let gone = told.load(Ordering::Relaxed);
        let body = if gone { json!(null) } else { json!({ "user": { "id": "anna" } }) };
        let json = "content-type: application/json\r\n";
        reply(stream, "200 OK", json, body.to_string().as_bytes())
    });
    let auth = "{ http: { path: /api/auth/session, words: authjs }, cache: 0s }";
    let (edge, clock) = start(auth, &site(&origin));
    let cookie = "authjs.session-token=any-token-will-do";
    let mut anna = with_cookie(&edge, cookie);
    anna.enter("/");
    // Being asked is activity to it: who is idle must not stay signed in by that.
    clock.pass(230);
    stays(&mut anna, "anna");
    assert_eq!(origin.seen().len(), 1, "asked when it came");
    gone.store(true, Ordering::Relaxed);
    clock.pass(80);
    eventually("a second question", || {
        stays(&mut anna, "anna");
        (origin.seen().len() == 2).then_some(())
    });
    clock.pass(5);
    stays(&mut anna, "anna");
    clock.pass(6);
    assert_eq!(ends(&mut anna), Heard::Text("41".to_owned()));
    assert_eq!(origin.seen().len(), 3);
}
