//! What the application decides: who connects, what events come to, and that somebody has left.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use crate::harness::node::{Script, free_address};
use crate::harness::origin::{Seen, reply};
use crate::harness::socketio::{
    Heard, Line as _, Poller, Web, decode, hub, masked, wait_for_metric,
};
use crate::harness::{Edge, Origin, PATIENCE, PLAIN, eventually};

const NAMESPACES: &str = r#"
  namespaces:
    /chat:
      auth: none
      join: ["own:{sid}"]
      connect: /api/chat/connect
      disconnect: /api/chat/disconnect
      events:
        message: { forward: /api/chat/message }
        join: { join: "room:{0}" }
        say: { relay: "room:{0}" }
    /bell:
      auth: none
      events: { ring: { forward: /api/bell } }
"#;

fn edge(origin: &Origin, hooks: &str) -> Edge {
    let site = format!("sites:\n  localhost:\n    next: {}\n", origin.url());
    Edge::start(&format!(
        "{PLAIN}{site}hub:\n  limits: {{ events: 9999/s, burst: 9999 }}\n  hooks: {{ {hooks} }}\n{NAMESPACES}"
    ))
}

pub fn question(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).expect("JSON")
}

/// An application that answers each question by `script`: status and JSON, 204 without.
pub fn application(script: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static) -> Origin {
    Origin::start(move |seen, stream| {
        if seen.body.is_empty() {
            return reply(stream, "200 OK", "", b"page");
        }
        let (status, body) = script(&question(seen));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        reply(
            stream,
            &format!("{status} Said"),
            "content-type: application/json\r\n",
            body.as_bytes(),
        )
    })
}

/// The questions of one kind so far.
pub fn asked(origin: &Origin, kind: &str) -> Vec<Value> {
    let all = origin.seen();
    let asked = all.iter().filter(|seen| !seen.body.is_empty()).map(question);
    asked.filter(|question| question["type"] == kind).collect()
}

pub fn nothing(_: &Value) -> (u16, Value) {
    (204, Value::Null)
}

#[test]
fn the_application_hears_who_connects_and_may_act() {
    let origin = application(|question| match question["type"].as_str() {
        Some("connect") => {
            let hello = json!({ "to": [question["sid"]], "event": "hello", "args": [{ "n": 1 }] });
            (200, json!({ "join": ["vip"], "emit": [hello], "data": { "seat": 7 } }))
        }
        _ => (204, Value::Null),
    });
    let edge = edge(&origin, "secret: s3cret");
    let mut client = edge.connect();
    let own = ("Sec-Fetch-Site", "same-origin");
    let head = [("Cookie", "session=abc"), ("User-Agent", "test/1"), ("X-Private", "no"), own];
    let query = hub("EIO=4&transport=polling&room=a%20b&t=1");
    let answer = client.ask("GET", &query, &head, b"");
    let open: Value = serde_json::from_str(&answer.text()[1..]).expect("JSON");
    let path =
        hub(&format!("EIO=4&transport=polling&sid={}", open["sid"].as_str().expect("an id")));
    assert_eq!(edge.connect().ask("POST", &path, &[], b"40/chat,{\"token\":\"t\"}").status, 200);
    let said = client.get(&path).text();
    let (connect, hello) =
        said.split_once('\u{1e}').unwrap_or_else(|| panic!("two packets: {said}"));
    assert!(connect.starts_with("40/chat,{\"sid\":\""), "{said}");
    assert_eq!(hello, "42/chat,[\"hello\",{\"n\":1}]");

    let seen = origin.seen().into_iter().find(|seen| !seen.body.is_empty()).expect("a question");
    assert_eq!(seen.line, "POST /api/chat/connect HTTP/1.1");
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.all("cookie"), ["session=abc"]);
    assert_eq!(seen.all("user-agent"), ["test/1"]);
    assert!(seen.all("x-private").is_empty());
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-host"), ["localhost"]);
    let trace = seen.header("traceparent").expect("a trace");
    assert!(trace.len() == 55 && trace.starts_with("00-"), "{trace}");
    let asked = question(&seen);
    assert_eq!((asked["v"].as_u64(), asked["type"].as_str()), (Some(1), Some("connect")));
    assert_eq!(asked["namespace"], "/chat");
    assert!(connect.contains(asked["sid"].as_str().expect("an id")), "{asked}");
    assert_eq!(asked["user"], Value::Null);
    let handshake =
        json!({ "address": "127.0.0.1", "query": { "room": "a b" }, "auth": { "token": "t" } });
    assert_eq!(asked["handshake"], handshake);
    assert!(signed(&seen, b"s3cret") && !signed(&seen, b"another"));

    assert_eq!(edge.connect().ask("POST", &path, &[], b"42/chat,0[\"message\"]").status, 200);
    assert_eq!(client.get(&path).text(), "43/chat,0[]");
    let asked = self::asked(&origin, "event").remove(0);
    assert_eq!(asked["data"], json!({ "seat": 7 }));
    let mut rooms: Vec<_> = asked["rooms"].as_array().expect("rooms").clone();
    rooms.sort_by_key(ToString::to_string);
    assert_eq!(
        rooms,
        [json!(format!("own:{}", asked["sid"].as_str().expect("an id"))), json!("vip")]
    );
    assert!(
        asked["handshake"].get("auth").is_none(),
        "the credential is for connect alone: {asked}"
    );
}

/// True if the signature is HMAC-SHA256 of `t.body` with this secret.
fn signed(seen: &Seen, secret: &[u8]) -> bool {
    let parts = seen.header("x-vestibule-signature").expect("a signature").split(',');
    let parts: HashMap<_, _> = parts.filter_map(|part| part.split_once('=')).collect();
    let hex = parts["v1"].as_bytes().chunks(2);
    let tag: Vec<u8> = hex
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
        .collect();
    let message = [parts["t"].as_bytes(), b".", &seen.body].concat();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), &message, &tag).is_ok()
}

#[test]
fn a_refusal_is_told_and_an_outage_is_none() {
    let origin = application(|question| match question["handshake"]["auth"]["as"].as_str() {
        Some("stranger") => (403, json!({ "error": { "code": "banned", "message": "not you" } })),
        Some("nobody") => (401, Value::Null),
        Some("late") => (422, json!({ "error": "closed" })),
        Some("broken") => (500, Value::Null),
        _ => (204, Value::Null),
    });
    let edge = edge(&origin, "retry: 2s");
    let mut web = Web::open(&edge);
    for (who, error) in [
        ("stranger", r#"{"message":"not you","data":{"code":"banned","message":"not you"}}"#),
        ("nobody", r#"{"message":"denied","data":{"code":"denied"}}"#),
        ("late", r#"{"message":"closed","data":"closed"}"#),
    ] {
        web.say(&format!("40/chat,{{\"as\":\"{who}\"}}"));
        web.expect(&format!("44/chat,{error}"));
    }
    // Who was refused may try again on the same connection.
    web.say("40/chat,{\"as\":\"friend\"}");
    assert!(web.text().starts_with("40/chat,{\"sid\""));
    // The application's own failure closes the transport: the client will come back.
    let mut web = Web::open(&edge);
    web.say("40/chat,{\"as\":\"broken\"}");
    assert!(matches!(web.hear(), Heard::Closed(_)));
    assert!(
        asked(&origin, "connect")
            .iter()
            .filter(|q| q["handshake"]["auth"]["as"] == "broken")
            .count()
            > 1
    );
}

/// A client that leaves before it is answered says nothing of it, and connects again.
#[test]
fn a_second_connect_while_the_first_is_decided_changes_nothing() {
    let (go, origin) = keeping(|question| question["type"] == "connect", nothing);
    let edge = edge(&origin, "");
    let mut web = Web::open(&edge);
    web.say("40/chat,");
    eventually("the question", || (!asked(&origin, "connect").is_empty()).then_some(()));
    web.say("40/chat,");
    // It is read before that is answered.
    web.enter("/bell");
    go.send(()).expect("the application waits");
    assert!(web.text().starts_with("40/chat,{\"sid\""));
    web.say("42/chat,1[\"join\",\"a\"]");
    web.expect("43/chat,1[{\"ok\":true}]");
    assert_eq!(asked(&origin, "connect").len(), 1);
    // Who is in already, and says so, has lost count: as with Node's server.
    web.say("40/chat,");
    assert!(matches!(web.hear(), Heard::Closed(_)));
}

/// A client that says that it leaves before it is answered is let in and has left, and is let in
/// again if it has come again: as with Node's server where that decides at once. One that does not
/// would hang up.
#[test]
fn who_leaves_before_it_is_answered_has_left() {
    let (go, origin) = keeping(|question| question["type"] == "connect", nothing);
    let edge = edge(&origin, "");
    let mut seen = 0;
    for (words, entered) in
        [(&["1"][..], 1), (&["1", "0"], 2), (&["1", "0", "1"], 1), (&["1", "0", "0", "1", "0"], 2)]
    {
        for together in [true, false] {
            let what = format!("{words:?} {together}");
            let told = |kind: &str| {
                let all = asked(&origin, kind).split_off(seen / 2);
                (all.len() == entered).then_some(all)
            };
            let mut web = Web::open(&edge);
            let words = words.iter().enumerate().map(|(at, word)| match *word {
                "0" => masked(0x81, format!("40/chat,{{\"n\":{at}}}").as_bytes()),
                _ => masked(0x81, b"41/chat,"),
            });
            let words: Vec<_> = words.collect();
            let first = masked(0x81, b"40/chat,");
            if together {
                web.raw(&[&[first], &*words].concat().concat());
            } else {
                web.raw(&first);
                let before = asked(&origin, "disconnect").len();
                eventually("the question", || {
                    (asked(&origin, "connect").len() > before).then_some(())
                });
                words.iter().for_each(|word| web.raw(word));
            }
            // It is read before that is answered.
            web.enter("/bell");
            let mut ids = Vec::new();
            for _ in 0..entered {
                go.send(()).expect("the application waits");
                let answer = web.text();
                let sid = answer.strip_prefix("40/chat,").unwrap_or_else(|| panic!("{answer}"));
                let sid: Value = serde_json::from_str(sid).expect("JSON");
                ids.push(sid["sid"].clone());
            }
            if entered == 2 {
                web.say("42/chat,1[\"join\",\"a\"]");
                web.expect("43/chat,1[{\"ok\":true}]");
                web.say("41/chat,");
            }
            let connects = eventually("all questions", || told("connect"));
            let farewells = eventually("all farewells", || told("disconnect"));
            for (index, id) in ids.iter().enumerate() {
                assert_eq!(connects[index]["sid"], *id, "{what}");
                assert_eq!(farewells[index]["sid"], *id, "{what}");
                assert_eq!(farewells[index]["reason"], "client namespace disconnect", "{what}");
            }
            let shown = connects.last().map(|last| last["handshake"]["auth"].clone());
            let last = json!({ "n": words.len() - 1 });
            assert_eq!(shown, Some(if entered == 2 { last } else { json!({}) }), "{what}");
            web.say("42/bell,2[\"nothing\"]");
            web.expect("43/bell,2[{\"error\":{\"code\":\"unknown_event\"}}]");
            seen += 2 * entered;
        }
    }
}

/// Who is refused and has come again is asked about again; who speaks before it is in, or leaves
/// twice, has lost count, as with Node's server.
#[test]
fn who_is_refused_may_have_come_again() {
    let (go, origin) = keeping(
        |question| question["type"] == "connect",
        |question| match question["handshake"]["auth"]["n"].as_u64() {
            None => (403, Value::Null),
            Some(_) => (204, Value::Null),
        },
    );
    let edge = edge(&origin, "");
    let mut web = Web::open(&edge);
    for word in ["40/chat,", "41/chat,", "40/chat,{\"n\":1}"] {
        web.say(word);
    }
    // They are read before the first is answered.
    web.enter("/bell");
    go.send(()).expect("the application waits");
    web.expect("44/chat,{\"message\":\"denied\",\"data\":{\"code\":\"denied\"}}");
    go.send(()).expect("the application waits");
    assert!(web.text().starts_with("40/chat,{\"sid\""));
    for words in [&["41/chat,", "41/chat,"][..], &["42/chat,[\"join\",\"a\"]"], &["41/chat,{}"]] {
        let mut web = Web::open(&edge);
        // In one piece, and so before there is an answer.
        let frames = ["40/chat,"].iter().chain(words).map(|word| masked(0x81, word.as_bytes()));
        web.raw(&frames.collect::<Vec<_>>().concat());
        assert!(matches!(web.hear(), Heard::Closed(_)), "{words:?}");
        go.send(()).expect("the application waits");
    }
}

/// What the application is told and says again is what the client wrote, though it holds what other
/// languages do not.
#[test]
fn strange_texts_come_to_the_application_and_back() {
    const STRANGE: [&str; 3] = ["\"a\\ud83d\"", "1e999", "{\"\\udc00\":[[1]]}"];
    let origin = Origin::start(move |seen, stream| {
        let said = String::from_utf8_lossy(&seen.body).into_owned();
        let strange = STRANGE.iter().find(|strange| said.contains(**strange)).unwrap_or(&"0");
        let body = format!(
            "{{\"ack\":[{strange}],\"data\":{strange},\"emit\":[{{\"event\":\"said\",\"args\":[{strange},{{\"$binary\":\"BQ==\"}}]}}]}}"
        );
        reply(stream, "200 OK", "content-type: application/json\r\n", body.as_bytes())
    });
    let edge = edge(&origin, "");
    for (number, strange) in STRANGE.iter().enumerate() {
        let mut web = Web::open(&edge);
        web.say(&format!("40/chat,{{\"x\":{strange},\"token\":\"t\"}}"));
        assert!(web.text().starts_with("40/chat,{\"sid\""));
        let said = format!("451-/chat,[\"said\",{strange},{{\"_placeholder\":true,\"num\":0}}]");
        let hear = |web: &mut Web| {
            web.expect(&said);
            assert_eq!(web.hear(), Heard::Binary(vec![5]));
        };
        hear(&mut web);
        for event in [
            format!("42/chat,7[\"message\",{strange}]"),
            format!("451-/chat,7[\"message\",{strange},{{\"_placeholder\":true,\"num\":0}}]"),
        ] {
            web.say(&event);
            if event.starts_with("45") {
                web.say_bytes(&[9]);
            }
            hear(&mut web);
            web.expect(&format!("43/chat,7[{strange}]"));
        }
        web.say("41/chat,");
        let seen = eventually("the farewell", || {
            let all = origin.seen();
            let asked: Vec<_> = all.iter().filter(|seen| !seen.body.is_empty()).collect();
            (asked.len() == 4 * (number + 1)).then(|| {
                let last = asked[4 * number..].iter();
                last.map(|seen| String::from_utf8_lossy(&seen.body).into_owned())
                    .collect::<Vec<_>>()
            })
        });
        assert!(
            seen[0].contains(&format!("\"auth\":{{\"x\":{strange},\"token\":\"t\"}}")),
            "{seen:?}"
        );
        assert!(seen[1].contains(&format!("\"args\":[{strange}]")), "{seen:?}");
        let beside = format!("\"args\":[{strange},{{\"$binary\":\"CQ==\"}}]");
        assert!(seen[2].contains(&beside), "{seen:?}");
        for later in &seen[1..] {
            assert!(later.contains(&format!("\"data\":{strange}")), "{later}");
        }
    }
}

#[test]
fn the_stock_client_may_change_its_mind() {
    let origin = application(|question| {
        if question["type"] == "connect" {
            std::thread::sleep(Duration::from_millis(300));
        }
        nothing(question)
    });
    let edge = edge(&origin, "");
    let url = format!("http://localhost:{}", edge.http().port());
    for transports in ["websocket", "polling"] {
        Script::start("restless.mjs", &[("URL", &url), ("TRANSPORTS", transports)]).finish();
    }
}

#[test]
fn an_event_is_answered_by_the_application_and_order_is_kept() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = application(move |question| match question["args"][0].as_str() {
        Some("slow") => {
            let told = wait.lock().expect("a lock").recv_timeout(PATIENCE);
            (200, json!({ "ack": ["slow", told.is_ok()] }))
        }
        Some("denied") => (403, Value::Null),
        Some("wrong") => (422, json!({ "error": { "code": "too_long", "max": 9 } })),
        Some("nonsense") => (200, json!({ "akc": [] })),
        Some("leave") => (200, json!({ "ack": [1], "leave": ["room:a"], "disconnect": true })),
        Some("binary") => {
            let back = json!({ "$binary": question["args"][1]["$binary"] });
            (
                200,
                json!({ "ack": [back], "emit": [{ "to": ["room:a"], "event": "got", "args": [{ "$binary": "/w==" }] }] }),
            )
        }
        _ => (204, Value::Null),
    });
    let edge = edge(&origin, "");
    let (mut web, mut other) = (Web::open(&edge), Web::open(&edge));
    for web in [&mut web, &mut other] {
        web.enter("/chat");
        web.say("42/chat,0[\"join\",\"a\"]");
        web.expect("43/chat,0[{\"ok\":true}]");
    }
    // The relay that comes second waits for the first, in the other namespace nobody does.
    web.say("42/chat,1[\"message\",\"slow\"]");
    web.say("42/chat,2[\"say\",\"a\"]");
    web.say("42/chat,3[\"message\"]");
    web.enter("/bell");
    web.say("42/bell,4[\"ring\"]");
    web.expect("43/bell,4[]");
    go.send(()).expect("the application waits");
    web.expect("43/chat,1[\"slow\",true]");
    web.expect("43/chat,2[{\"ok\":true}]");
    web.expect("43/chat,3[]");
    other.expect("42/chat,[\"say\",\"a\"]");

    web.say("42/chat,5[\"message\",\"denied\"]");
    web.expect("43/chat,5[{\"error\":{\"code\":\"denied\"}}]");
    web.say("42/chat,6[\"message\",\"wrong\"]");
    web.expect("43/chat,6[{\"error\":{\"code\":\"too_long\",\"max\":9}}]");
    web.say("42/chat,7[\"message\",\"nonsense\"]");
    let answer = web.text();
    assert!(answer.starts_with("43/chat,7[{\"error\":{\"code\":\"bad_reply\""), "{answer}");

    web.say("451-/chat,8[\"message\",\"binary\",{\"_placeholder\":true,\"num\":0}]");
    web.socket.send(tungstenite::Message::binary(vec![1, 2, 3])).expect("sent");
    for web in [&mut web, &mut other] {
        web.expect("451-/chat,[\"got\",{\"_placeholder\":true,\"num\":0}]");
        assert_eq!(web.hear(), Heard::Binary(vec![0xff]));
    }
    web.expect("461-/chat,8[{\"_placeholder\":true,\"num\":0}]");
    assert_eq!(web.hear(), Heard::Binary(vec![1, 2, 3]));

    web.say("42/chat,9[\"message\",\"leave\"]");
    web.expect("43/chat,9[1]");
    web.expect("41/chat,");
    let told = eventually("the farewell", || asked(&origin, "disconnect").pop());
    assert_eq!(told["reason"], "server namespace disconnect");
}

/// What cannot be done is told before anything of it is done, and is an answer: nobody asks again, and
/// others are asked as before.
#[test]
fn a_reply_that_cannot_be_done_is_done_in_no_part() {
    let origin = application(|question| {
        let many: Vec<_> = (0..11).map(|_| json!({ "$binary": "" })).collect();
        let mut deep = json!(1);
        (0..128).for_each(|_| deep = json!([deep]));
        let emit = |emit: Value| json!({ "ack": ["done"], "join": ["vip"], "data": 7, "emit": [{ "event": "told" }, emit] });
        match question["args"][0].as_str() {
            Some("many") => (200, emit(json!({ "event": "file", "args": many }))),
            Some("reserved") => (200, emit(json!({ "event": "disconnect" }))),
            Some("base64") => (200, emit(json!({ "event": "x", "args": [{ "$binary": "!" }] }))),
            Some("null") => (200, emit(json!({ "event": "x", "to": null }))),
            Some("deep") => (200, emit(json!({ "event": "x", "args": [deep] }))),
            Some("large") => (200, json!({ "ack": ["x".repeat(1 << 20)] })),
            Some("nobody") => {
                (200, json!({ "ack": ["done"], "emit": [{ "event": "x", "to": [] }] }))
            }
            Some("rooms") => (200, json!({ "ack": [question["rooms"], question["data"]] })),
            _ => (204, Value::Null),
        }
    });
    let edge = edge(&origin, "");
    let mut web = Web::open(&edge);
    let sid = web.enter("/chat");
    for (what, place) in [
        ("many", "emit[1].args: more than 10 binary parts"),
        ("reserved", "emit[1].event: "),
        ("base64", "emit[1].args: "),
        ("null", "to is null"),
        ("deep", "emit[1].args: more than 128 levels"),
        ("large", "the reply is larger than 1048576 bytes"),
    ] {
        web.say(&format!("42/chat,1[\"message\",\"{what}\"]"));
        let answer = web.text();
        let error: Value =
            serde_json::from_str(answer.strip_prefix("43/chat,1").expect("an answer"))
                .expect("JSON");
        assert_eq!(error[0]["error"]["code"], "bad_reply", "{what}: {answer}");
        assert!(
            error[0]["error"]["message"].as_str().expect("a text").starts_with(place),
            "{answer}"
        );
        let times = asked(&origin, "event").iter().filter(|one| one["args"][0] == what).count();
        assert_eq!(times, 1, "{what}");
    }
    web.say("42/chat,2[\"message\",\"nobody\"]");
    web.expect("43/chat,2[\"done\"]");
    web.say("42/chat,3[\"message\",\"rooms\"]");
    web.expect(&format!("43/chat,3[[\"own:{sid}\"],null]"));
    assert!(edge.log().contains("a hook's reply cannot be done"), "{}", edge.log());
}

#[test]
fn an_application_that_restarts_is_a_slow_answer() {
    let port = free_address();
    let origin = application(nothing);
    let site = format!(
        "sites:\n  localhost:\n    next: {{ targets: ['http://{port}'], health: {{ every: 200ms, timeout: 100ms }} }}\n"
    );
    let namespaces = NAMESPACES.replace("      connect: /api/chat/connect\n", "");
    let edge = Edge::start(&format!("{PLAIN}{site}hub:\n{namespaces}"));
    let mut web = Web::open(&edge);
    web.enter("/chat");
    web.say("42/chat,1[\"message\"]");
    // Nobody listens there yet; what comes up then answers for the other.
    eventually("a failed attempt", || {
        let page = edge.admin("GET", "/metrics").text();
        let failed =
            page.lines().find(|line| line.starts_with("vestibule_hooks_total{outcome=\"failed\"}"));
        failed.filter(|line| !line.ends_with(" 0")).map(drop)
    });
    let listener = TcpListener::bind(port).expect("the port");
    let target = origin.address;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = std::net::TcpStream::connect(target).expect("the application");
            for (mut from, mut to) in [
                (client.try_clone().expect("a clone"), server.try_clone().expect("a clone")),
                (server, client),
            ] {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    web.expect("43/chat,1[]");
    assert_eq!(asked(&origin, "event").len(), 1);
}

#[test]
fn an_answer_that_does_not_come_is_told_as_temporary() {
    let origin = application(|question| match question["type"].as_str() {
        Some("event") => (503, Value::Null),
        _ => (204, Value::Null),
    });
    let edge = edge(&origin, "retry: 2s");
    let mut web = Web::open(&edge);
    web.enter("/chat");
    web.say("42/chat,1[\"message\",1]");
    web.expect("43/chat,1[{\"error\":{\"code\":\"unavailable\",\"temporary\":true}}]");
    let ids: Vec<_> =
        asked(&origin, "event").iter().map(|question| question["id"].clone()).collect();
    assert!(ids.len() > 1 && ids.iter().all(|id| *id == ids[0]), "the same id each time: {ids:?}");
}

/// Each has the time that it came with, not what is left behind the others.
#[test]
fn those_that_wait_behind_an_outage_end_with_it() {
    let origin = application(|question| match question["type"].as_str() {
        Some("event") => (503, Value::Null),
        _ => (204, Value::Null),
    });
    let edge = edge(&origin, "retry: 2s");
    let mut web = Web::open(&edge);
    web.enter("/chat");
    let begun = Instant::now();
    for ack in 0..5 {
        web.say(&format!("42/chat,{ack}[\"message\",{ack}]"));
    }
    for ack in 0..5 {
        let error = r#"{"error":{"code":"unavailable","temporary":true}}"#;
        web.expect(&format!("43/chat,{ack}[{error}]"));
    }
    // One after the other they would take ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let asked = asked(&origin, "event");
    assert!((0..5).all(|number| asked.iter().any(|one| one["args"][0] == number)), "{asked:?}");
}

#[test]
fn who_vanishes_is_told_about_even_to_an_application_that_was_away() {
    let away = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&away);
    let origin = application(move |question| {
        let down = switch.load(Ordering::Relaxed);
        if question["type"] == "disconnect" && down {
            (502, Value::Null)
        } else {
            (204, Value::Null)
        }
    });
    let edge = edge(&origin, "retry: 100ms");
    let mut web = Web::open(&edge);
    let id = web.enter("/chat");
    drop(web);
    // More often than a waiting client would be served.
    eventually("several attempts", || (asked(&origin, "disconnect").len() > 4).then_some(()));
    away.store(false, Ordering::Relaxed);
    let told = eventually("the farewell", || asked(&origin, "disconnect").pop());
    assert_eq!(
        (told["sid"].as_str(), told["reason"].as_str()),
        (Some(id.as_str()), Some("transport close"))
    );
    // Told once it was heard, and not again.
    let mut poller = Poller::open(&edge);
    poller.enter("/chat");
    poller.say("41/chat,");
    let told = eventually("the next farewell", || {
        asked(&origin, "disconnect").into_iter().find(|told| told["sid"] != id.as_str())
    });
    assert_eq!(told["reason"], "client namespace disconnect");
}

/// One handler that always fails is no application that is away.
#[test]
fn a_handler_that_fails_holds_up_no_other() {
    let origin = application(|question| match question["event"].as_str() {
        Some("message") => (500, Value::Null),
        _ => (204, Value::Null),
    });
    let edge = edge(&origin, "retry: 0s");
    let mut web = Web::open(&edge);
    web.enter("/chat");
    web.enter("/bell");
    for ack in 0..30 {
        web.say(&format!("42/chat,{ack}[\"message\"]"));
        let error = r#"{"error":{"code":"unavailable","temporary":true}}"#;
        web.expect(&format!("43/chat,{ack}[{error}]"));
    }
    web.say("42/bell,1[\"ring\"]");
    web.expect("43/bell,1[]");
}

#[test]
fn rooms_beyond_the_limit_are_said_not_to_be_joined() {
    let origin = application(|question| match question["type"].as_str() {
        Some("event") => {
            let said = json!({ "to": [question["sid"]], "event": "said" });
            (200, json!({ "join": question["args"], "emit": [said], "ack": ["joined"] }))
        }
        _ => (204, Value::Null),
    });
    let site = format!("sites:\n  localhost:\n    next: {}\n", origin.url());
    let edge = Edge::start(&format!("{PLAIN}{site}hub:\n  limits: {{ rooms: 3 }}\n{NAMESPACES}"));
    let mut web = Web::open(&edge);
    let id = web.enter("/chat");
    for (rooms, answer) in [
        (r#""a","b""#, r#"["joined"]"#),
        (r#""a","c""#, r#"[{"error":{"code":"too_many_rooms"}}]"#),
        (r#""b""#, r#"["joined"]"#),
    ] {
        web.say(&format!("42/chat,1[\"message\",{rooms}]"));
        web.expect("42/chat,[\"said\"]");
        web.expect(&format!("43/chat,1{answer}"));
    }
    web.say("42/chat,2[\"message\"]");
    web.expect("42/chat,[\"said\"]");
    web.expect("43/chat,2[\"joined\"]");
    let last = asked(&origin, "event").pop().expect("a question");
    let mut rooms: Vec<_> = last["rooms"].as_array().expect("rooms").clone();
    rooms.sort_by_key(ToString::to_string);
    assert_eq!(rooms, [json!("a"), json!("b"), json!(format!("own:{id}"))]);
}

/// What the edge alone says of who somebody is, no client says to a hook.
#[test]
fn hooks_are_told_of_no_user_that_a_client_claims_to_be() {
    let origin = application(nothing);
    let edge = edge(&origin, "headers: [x-vestibule-user, x_vestibule_user, x-plain]");
    let mut client = edge.connect();
    let head = [("X-Vestibule-User", "root"), ("X_Vestibule_User", "root"), ("X-Plain", "yes")];
    let answer = client.ask("GET", &hub("EIO=4&transport=polling"), &head, b"");
    let open: Value = serde_json::from_str(&answer.text()[1..]).expect("JSON");
    let path =
        hub(&format!("EIO=4&transport=polling&sid={}", open["sid"].as_str().expect("an id")));
    assert_eq!(edge.connect().ask("POST", &path, &[], b"40/chat,").status, 200);
    assert!(client.get(&path).text().starts_with("40/chat,"));
    let seen = origin.seen().into_iter().find(|seen| !seen.body.is_empty()).expect("a question");
    assert_eq!(seen.all("x-plain"), ["yes"]);
    assert!(seen.all("x-vestibule-user").is_empty() && seen.all("x_vestibule_user").is_empty());
}

/// There is no acknowledgement and no socket any more, but others may be told.
#[test]
fn who_leaves_may_be_announced_by_the_application() {
    let origin = application(|question| match question["type"].as_str() {
        Some("disconnect") => {
            let left = json!({ "to": ["room:a"], "event": "left", "args": [question["sid"]] });
            (200, json!({ "emit": [left], "ack": [1], "join": ["x"], "disconnect": true }))
        }
        _ => (204, Value::Null),
    });
    let edge = edge(&origin, "");
    let mut others: Vec<_> = (0..4).map(|_| Web::open(&edge)).collect();
    for web in &mut others {
        web.enter("/chat");
        web.say("42/chat,0[\"join\",\"a\"]");
        web.expect("43/chat,0[{\"ok\":true}]");
    }
    let mut web = Web::open(&edge);
    let id = web.enter("/chat");
    drop(web);
    for web in &mut others {
        web.expect(&format!("42/chat,[\"left\",\"{id}\"]"));
    }
    assert_eq!(asked(&origin, "disconnect").len(), 1);
}

/// However a route rewrites what a client writes.
#[test]
fn hooks_are_not_there_behind_a_route_either() {
    let origin = application(nothing);
    let site = format!(
        "sites:\n  localhost:\n    next: {0}\n    routes:\n      - {{ path: /v1/*, strip: /v1 }}\n      \
         - {{ path: /chat/*, prefix: /api }}\n      - {{ path: /old/*, strip: /old, prefix: /api }}\n",
        origin.url()
    );
    let edge = Edge::start(&format!("{PLAIN}{site}hub:\n{NAMESPACES}"));
    for path in [
        "/v1/api/chat/message",
        "/v1//api/chat/%6dessage/",
        "/v1/api%2fbell",
        "/chat/message",
        "/old/bell?x=1",
        "/old/chat/connect",
    ] {
        let answer = edge.connect().ask("POST", path, &[], b"{}");
        assert_eq!((answer.status, answer.text().contains("private")), (404, true), "{path}");
    }
    assert!(origin.seen().is_empty());
    for path in ["/v1/api/other", "/chat/other", "/old/other"] {
        assert_eq!(edge.get(path).text(), "page", "{path}");
    }
    // A plus is no space.
    let plus = NAMESPACES.replace("/api/bell", "/api/be+ll");
    let edge = Edge::start(&format!("{PLAIN}{site}hub:\n{plus}"));
    for path in ["/api/be+ll", "/api/be%2Bll", "/old/be+ll"] {
        assert_eq!(edge.connect().ask("POST", path, &[], b"{}").status, 404, "{path}");
    }
}

#[test]
fn hooks_are_not_there_for_anybody_else() {
    let origin = application(nothing);
    let edge = edge(&origin, "");
    for path in [
        "/api/chat/message",
        "/api/chat/message/",
        "//api/chat/message",
        "/api/chat/%6dessage",
        "/api/bell?x=1",
        "/api/chat/connect",
    ] {
        let answer = edge.connect().ask("POST", path, &[], b"{}");
        assert_eq!(
            (answer.status, answer.text().contains("private")),
            (404, true),
            "{path}: {answer:?}"
        );
    }
    assert_eq!(edge.connect().ask("POST", "/api/chat/x/../message", &[], b"{}").status, 400);
    assert!(origin.seen().is_empty());
    assert_eq!(edge.get("/api/chat/other").text(), "page");
}

#[test]
fn many_behind_a_slow_answer_wait_where_they_are() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = application(move |question| {
        if question["type"] == "event" && question["args"][0] == "slow" {
            let _told = wait.lock().expect("a lock").recv_timeout(PATIENCE);
        }
        (204, Value::Null)
    });
    let edge = edge(&origin, "");
    let mut web = Web::open(&edge);
    web.enter("/chat");
    web.say("42/chat,0[\"message\",\"slow\"]");
    for number in 1..=1500 {
        web.say(&format!("42/chat,{number}[\"join\",\"a\"]"));
    }
    // The same in one body of a POST.
    let mut poller = Poller::open(&edge);
    poller.enter("/chat");
    let joins = (1..=200).map(|number| format!("42/chat,{number}[\"join\",\"a\"]"));
    let said: Vec<_> =
        ["42/chat,0[\"message\",\"slow\"]".to_owned()].into_iter().chain(joins).collect();
    let url = hub(&format!("EIO=4&transport=polling&sid={}", poller.sid()));
    let body = said.join("\u{1e}");
    std::thread::scope(|scope| {
        let posting = scope.spawn(|| edge.connect().ask("POST", &url, &[], body.as_bytes()));
        wait_for_metric(&edge, "vestibule_hub_held_total{by=\"hooks\"}", 2);
        // Others do not wait with them.
        let mut other = Web::open(&edge);
        other.enter("/chat");
        other.say("42/chat,1[\"join\",\"b\"]");
        other.expect("43/chat,1[{\"ok\":true}]");
        for _ in 0..2 {
            go.send(()).expect("the application waits");
        }
        assert_eq!(posting.join().expect("a POST").status, 200);
    });
    web.expect("43/chat,0[]");
    for number in 1..=1500 {
        web.expect(&format!("43/chat,{number}[{{\"ok\":true}}]"));
    }
    let mut answered = 0;
    while answered <= 200 {
        answered += decode(4, &poller.poll()).len();
    }
}

/// An application that keeps the events whose first argument is "slow" until it is told.
fn patient(
    script: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static,
) -> (Sender<()>, Origin) {
    keeping(|question| question["args"][0] == "slow", script)
}

/// An application that keeps some questions until it is told.
fn keeping(
    these: fn(&Value) -> bool,
    script: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static,
) -> (Sender<()>, Origin) {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = application(move |question| {
        if these(question) {
            let _told = wait.lock().expect("a lock").recv_timeout(PATIENCE);
        }
        script(question)
    });
    (go, origin)
}

fn without_hooks(origin: &Origin) -> String {
    let site = format!("sites:\n  localhost:\n    next: {}\n", origin.url());
    format!(
        "{PLAIN}{site}hub:\n  namespaces:\n    /bell: {{ auth: none, events: {{ ring: {{ relay: '*' }} }} }}\n"
    )
}

#[test]
fn hooks_that_are_taken_away_leave_nobody_waiting() {
    let origin = application(|question| match question["type"].as_str() {
        Some("disconnect") => (503, Value::Null),
        _ => (204, Value::Null),
    });
    let mut edge = edge(&origin, "retry: 100ms");
    let mut web = Web::open(&edge);
    web.enter("/chat");
    drop(web);
    eventually("a farewell", || asked(&origin, "disconnect").pop());
    wait_for_metric(&edge, "vestibule_hooks_left_waiting", 1);
    edge.reload_with(&without_hooks(&origin));
    // It is told to nobody any more, and said to be lost.
    wait_for_metric(&edge, "vestibule_hooks_left_waiting", 0);
    wait_for_metric(&edge, "vestibule_hooks_lost_total{reason=\"unconfigured\"}", 1);
    let all_workers: Vec<_> = (0..4).map(|_| Web::open(&edge)).collect();
    for mut web in all_workers {
        web.enter("/bell");
        web.say("42/bell,1[\"hush\"]");
        web.expect("43/bell,1[{\"error\":{\"code\":\"unknown_event\"}}]");
    }
}

#[test]
fn who_is_sent_away_does_nothing_more() {
    let (go, origin) = patient(|question| match question["type"].as_str() {
        Some("event") => (200, json!({ "disconnect": true })),
        _ => (204, Value::Null),
    });
    let edge = edge(&origin, "");
    let (mut web, mut other) = (Web::open(&edge), Web::open(&edge));
    web.enter("/chat");
    web.say("42/chat,1[\"message\",\"slow\"]");
    web.say("42/chat,2[\"message\",\"second\"]");
    web.say("42/chat,3[\"join\",\"a\"]");
    web.enter("/bell");
    go.send(()).expect("the application waits");
    web.expect("43/chat,1[]");
    web.expect("41/chat,");
    web.say("42/bell,4[\"ring\"]");
    web.expect("43/bell,4[]");
    other.enter("/chat");
    other.say("42/chat,5[\"say\",\"a\"]");
    other.expect("43/chat,5[{\"error\":{\"code\":\"not_member\"}}]");
    assert!(asked(&origin, "event").iter().all(|question| question["args"][0] != "second"));
}

#[test]
fn what_somebody_said_before_leaving_is_heard() {
    let (go, origin) = patient(|question| match question["type"].as_str() {
        Some("event") => {
            (200, json!({ "join": ["x"], "emit": [{ "event": "said", "args": question["args"] }] }))
        }
        _ => (204, Value::Null),
    });
    let edge = edge(&origin, "");
    let (mut web, mut other) = (Web::open(&edge), Web::open(&edge));
    other.enter("/chat");
    web.enter("/chat");
    web.say("42/chat,1[\"message\",\"slow\"]");
    web.say("42/chat,2[\"message\",\"second\"]");
    eventually("the question", || asked(&origin, "event").pop());
    web.say("41/chat,");
    // What was said, and that it has left.
    wait_for_metric(&edge, "vestibule_hooks_left_waiting", 2);
    go.send(()).expect("the application waits");
    other.expect("42/chat,[\"said\",\"slow\"]");
    other.expect("42/chat,[\"said\",\"second\"]");
    let told = eventually("the farewell", || asked(&origin, "disconnect").pop());
    assert_eq!(
        (&told["reason"], asked(&origin, "event").len()),
        (&json!("client namespace disconnect"), 2)
    );
}

#[test]
fn who_was_let_in_but_is_gone_is_told_about() {
    let (go, origin) = keeping(|question| question["type"] == "connect", nothing);
    let edge = edge(&origin, "");
    let mut web = Web::open(&edge);
    web.say("40/chat,");
    let connect = eventually("the question", || asked(&origin, "connect").pop());
    drop(web);
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"websocket\"}", 0);
    go.send(()).expect("the application waits");
    let told = eventually("the farewell", || asked(&origin, "disconnect").pop());
    assert_eq!(told["sid"], connect["sid"]);
}

#[test]
fn who_came_before_there_were_hooks_is_answered() {
    let origin = application(nothing);
    let mut edge = Edge::start(&without_hooks(&origin));
    let mut web = Web::open(&edge);
    web.enter("/bell");
    let site = format!("sites:\n  localhost:\n    next: {}\n", origin.url());
    edge.reload_with(&format!("{PLAIN}{site}hub:\n{NAMESPACES}"));
    let error = r#"{"error":{"code":"unavailable","temporary":true}}"#;
    // It is to come again, with a handshake that is kept.
    web.say("42/bell,1[\"ring\"]");
    web.expect(&format!("43/bell,1[{error}]"));
    assert!(matches!(web.hear(), Heard::Closed(_)));
    let rings = |web: &mut Web, ack: u32| {
        web.say(&format!("42/bell,{ack}[\"ring\"]"));
        web.expect(&format!("43/bell,{ack}[]"));
    };
    let mut web = Web::open(&edge);
    web.enter("/bell");
    rings(&mut web, 2);
    // The same for headers that hooks are to see from now on, also for who asks for more.
    let mut other = Web::open(&edge);
    other.enter("/bell");
    edge.reload_with(&format!(
        "{PLAIN}{site}hub:\n  hooks: {{ headers: [cookie, x-tenant] }}\n{NAMESPACES}"
    ));
    let seen = asked(&origin, "event").len();
    let said = ["42/bell,3[\"ring\"]", "42/bell,[\"ring\"]"];
    web.raw(&said.map(|text| masked(0x81, text.as_bytes())).concat());
    web.expect(&format!("43/bell,3[{error}]"));
    other.say("40/chat,");
    for web in [&mut web, &mut other] {
        assert!(matches!(web.hear(), Heard::Closed(_)));
    }
    // What came behind it is not asked about either.
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/bell\"}", 0);
    assert_eq!(asked(&origin, "event").len(), seen);
    // A reload that has hooks see no more than before sends nobody away.
    let mut web = Web::open(&edge);
    web.enter("/bell");
    for headers in ["cookie, x-tenant", "cookie"] {
        edge.reload_with(&format!(
            "{PLAIN}{site}hub:\n  hooks: {{ headers: [{headers}], retry: 3s }}\n{NAMESPACES}"
        ));
        rings(&mut web, 4);
    }
}

#[test]
fn large_events_behind_a_slow_answer_wait_where_they_are() {
    let (go, origin) = patient(nothing);
    let edge = edge(&origin, "");
    let mut web = Web::open(&edge);
    web.enter("/chat");
    web.say("42/chat,0[\"message\",\"slow\"]");
    let large = "x".repeat(600_000);
    web.say(&format!("42/chat,1[\"join\",\"a\",\"{large}\"]"));
    web.say(&format!("42/chat,2[\"join\",\"b\",\"{large}\"]"));
    wait_for_metric(&edge, "vestibule_hub_held_total{by=\"hooks\"}", 1);
    go.send(()).expect("the application waits");
    web.expect("43/chat,0[]");
    web.expect("43/chat,1[{\"ok\":true}]");
    web.expect("43/chat,2[{\"ok\":true}]");
}

#[test]
fn a_namespace_that_is_taken_away_is_entered_by_nobody() {
    let (go, origin) = keeping(|question| question["type"] == "connect", nothing);
    let mut edge = edge(&origin, "retry: 9s, timeout: 9s");
    let mut web = Web::open(&edge);
    web.say("40/chat,");
    eventually("the question", || asked(&origin, "connect").pop());
    edge.reload_with(&without_hooks(&origin));
    go.send(()).expect("the application waits");
    web.expect("44/chat,{\"message\":\"denied\",\"data\":{\"code\":\"denied\"}}");
}
