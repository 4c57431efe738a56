//! Engine.IO 3: clients of Socket.IO 2.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::node::Script;
use crate::harness::origin::reply;
use crate::harness::socketio::{
    Heard, Line, Poller, Web, decode, dial, hub, hub_only, listen, metric, wait_for_metric,
};
use crate::harness::{Client, Edge, Origin, PLAIN};

const BINARY: &str = "451-[\"all\",{\"_placeholder\":true,\"num\":0}]";

/// The first thing it hears: it is in `/` without asking.
fn greeted<L: Line>(mut line: L) -> L {
    line.expect("40");
    line
}

fn polling(edge: &Edge, more: &str) -> Poller {
    greeted(Poller::over(edge.connect(), edge.connect(), &format!("EIO=3{more}")))
}

#[test]
fn the_stock_client_of_then_among_those_of_today() {
    let edge = Edge::start(&hub_only(""));
    let url = format!("http://localhost:{}", edge.http().port());
    for transports in ["websocket", "polling", "polling,websocket"] {
        Script::start("oldclient.mjs", &[("URL", &url), ("TRANSPORTS", transports)]).finish();
    }
}

#[test]
fn a_page_of_another_origin_by_scripts_and_without() {
    // A browser offers to compress, and does it also with what is short.
    for compress in ["", "\ncompress: 1B"] {
        let edge = Edge::start(&hub_only(&format!("origins: ['*']{compress}")));
        let url = format!("http://localhost:{}", edge.http().port());
        Script::start("jsonp.mjs", &[("URL", &url)]).finish();
    }
}

#[test]
fn the_open_packet_comes_alone() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = Poller::over(edge.connect(), edge.connect(), "EIO=3");
    assert_eq!(poller.open["upgrades"], serde_json::json!(["websocket"]));
    let open = edge.get(&hub("EIO=3&transport=polling")).text();
    let (length, packet) = open.split_once(':').expect("a length");
    assert_eq!(length.parse(), Ok(packet.len()));
    assert_eq!(poller.poll().text(), "2:40");
    let mut web = greeted(Web::over(edge.connect(), "EIO=3"));
    assert_eq!(web.open["sid"].as_str().map(str::len), Some(20));
    web.say("42[\"tell\",1]");
    assert_eq!(poller.poll().text(), "12:42[\"tell\",1]");
}

#[test]
fn lengths_count_as_javascript_does() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = polling(&edge, "");
    let event = "42[\"echo\",\"\u{20ac}\u{1f600}\"]";
    poller.begin_poll();
    poller.say(event);
    assert_eq!(poller.polled().text(), format!("16:{event}"));
    poller.begin_poll();
    assert_eq!(poller.send("12:42[\"echo\",1]12:42[\"echo\",2]1:2").text(), "ok");
    assert_eq!(poller.polled().text(), "12:42[\"echo\",1]12:42[\"echo\",2]1:3");
    // The bytes' own count is another, and wrong.
    let answer = poller.send(format!("{}:{event}", event.len()));
    assert_eq!((answer.status, poller.status()), (400, 400));
    for wrong in ["", "abc", "42[\"echo\",1]", "1:", ":4", "-1:4", "3:42", "99999999999999999999:4"]
    {
        let mut poller = polling(&edge, "");
        assert_eq!((poller.send(wrong).status, poller.status()), (400, 400), "{wrong}");
    }
}

#[test]
fn binary_goes_as_bytes_or_as_text() {
    let edge = Edge::start(&hub_only(""));
    let mut plain = polling(&edge, "");
    let mut base64 = polling(&edge, "&b64=1");
    let mut web = greeted(Web::over(edge.connect(), "EIO=3"));
    let mut text_web = greeted(Web::over(edge.connect(), "EIO=3&b64=1"));
    let mut new = Web::open(&edge);
    new.enter("/");
    new.say(BINARY);
    new.say_bytes(&[1, 2, 3, 4]);
    let answer = plain.poll();
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let length = [
        u8::try_from(BINARY.len() / 10).expect("two digits"),
        u8::try_from(BINARY.len() % 10).expect("a digit"),
    ];
    let head = [&[0][..], &length, &[255], BINARY.as_bytes()].concat();
    assert_eq!(answer.body, [&head[..], &[1, 5, 255, 4, 1, 2, 3, 4]].concat());
    let answer = base64.poll();
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(answer.text(), format!("{}:{BINARY}10:b4AQIDBA==", BINARY.len()));
    web.expect(BINARY);
    assert_eq!(listen(&mut web.socket), Heard::Binary(vec![4, 1, 2, 3, 4]));
    text_web.expect(BINARY);
    text_web.expect("b4AQIDBA==");
    // The other way: bytes in a body, bytes in a frame, text in both.
    let body = [&head[..], &[1, 3, 255, 4, 9, 8]].concat();
    let octets = [("Content-Type", "application/octet-stream")];
    let path = plain.path().to_owned();
    let sent = plain.post.ask("POST", &path, &octets, &body);
    assert_eq!(sent.text(), "ok");
    new.expect(BINARY);
    assert_eq!(new.hear(), Heard::Binary(vec![1, 2, 3, 4]));
    new.expect(BINARY);
    assert_eq!(new.hear(), Heard::Binary(vec![9, 8]));
    for line in [&mut web as &mut dyn Line, &mut base64] {
        line.say(BINARY);
        line.say_bytes(&[7]);
        new.expect(BINARY);
        assert_eq!(new.hear(), Heard::Binary(vec![7]));
    }
}

#[test]
fn binary_frames_have_a_kind() {
    let edge = Edge::start(&hub_only(""));
    for wrong in [&[][..], &[3, 1], &[1, 2, 3]] {
        let mut web = greeted(Web::over(edge.connect(), "EIO=3"));
        web.socket.send(tungstenite::Message::binary(wrong.to_vec())).expect("sent");
        assert_eq!(web.hear(), Heard::Closed(None), "{wrong:?}");
    }
}

#[test]
fn scripts_across_origins() {
    let edge = Edge::start(&hub_only(""));
    let path = hub("EIO=3&transport=polling&j=7");
    // Scripts are for pages: whoever asks says which one it is.
    let page = [("Referer", "http://localhost/chat")];
    let get = |client: &mut Client, path: &str| client.ask("GET", path, &page, b"");
    let open = get(&mut edge.connect(), &path);
    assert_eq!(open.header("content-type"), Some("text/javascript; charset=UTF-8"));
    let inside = |text: &str| -> String {
        let json = text.strip_prefix("___eio[7](").and_then(|rest| rest.strip_suffix(");"));
        serde_json::from_str(json.unwrap_or_else(|| panic!("{text}"))).expect("a string")
    };
    let words = inside(&open.text());
    let words: Value = serde_json::from_str(words.split_once(":0").expect("open").1).expect("JSON");
    let path = format!("{path}&sid={}", words["sid"].as_str().expect("an id"));
    let mut client = edge.connect();
    assert_eq!(inside(&get(&mut client, &path).text()), "2:40");
    // A form's field, in which backslash and n stand for a newline.
    let event = "42[\"echo\",\"a\\nb\u{2028}\"]";
    let escaped = event.replace('\\', "\\\\");
    let field: String = format!("{}:{escaped}", event.encode_utf16().count())
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    let form = [("Content-Type", "application/x-www-form-urlencoded"), page[0]];
    let answer = client.ask("POST", &path, &form, format!("d={field}").as_bytes());
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    let answer = get(&mut client, &path).text();
    assert!(!answer.contains('\u{2028}'), "a script could not be read: {answer}");
    assert_eq!(inside(&answer), format!("18:{event}"));
    // A script has no bytes.
    let mut new = Web::open(&edge);
    new.enter("/");
    new.say(BINARY);
    new.say_bytes(&[1, 2, 3, 4]);
    assert_eq!(
        inside(&get(&mut client, &path).text()),
        format!("{}:{BINARY}10:b4AQIDBA==", BINARY.len())
    );
    // The index is a number, whatever the client writes.
    let other = hub("EIO=3&transport=polling&j=1;alert(1)//");
    let other = get(&mut edge.connect(), &other).text();
    assert!(other.starts_with("___eio[11]("), "{other}");
}

#[test]
fn the_client_pings() {
    let edge = Edge::start(&hub_only("ping: { interval: 300ms, timeout: 2s }"));
    let mut web = greeted(Web::over(edge.connect(), "EIO=3"));
    let mut poller = polling(&edge, "");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(3000) {
        web.say("2");
        assert_eq!(web.hear_all(), Heard::Text("3".to_owned()));
        assert_eq!(poller.send("1:2").text(), "ok");
        assert_eq!(poller.poll().text(), "1:3");
        std::thread::sleep(Duration::from_millis(100));
    }
    let silent = Instant::now();
    assert_eq!(web.hear_all(), Heard::Closed(None));
    assert!(silent.elapsed() >= Duration::from_millis(2000), "{:?}", silent.elapsed());
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"ping_timeout\"}", 2);
    // A pong from here means nothing.
    let mut web = greeted(Web::over(edge.connect(), "EIO=3"));
    web.say("3");
    assert_eq!(web.hear_all(), Heard::Closed(None));
}

#[test]
fn other_namespaces_are_asked_for() {
    let edge = Edge::start(&hub_only(""));
    let mut web = greeted(Web::over(edge.connect(), "EIO=3"));
    web.say("40/chat?token=abc,");
    web.expect("40/chat,");
    web.say("42/chat,1[\"join\",\"a\"]");
    web.expect("43/chat,1[{\"ok\":true}]");
    web.say("40/nowhere");
    web.expect("44/nowhere,{\"message\":\"Invalid namespace\"}");
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/chat\"}", 1);
    web.say("41/chat");
    web.say("42[\"echo\",1]");
    web.expect("42[\"echo\",1]");
    assert_eq!(metric(&edge, "vestibule_hub_sockets{namespace=\"/chat\"}"), 0);
}

#[test]
fn it_may_move_to_a_websocket() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = polling(&edge, "");
    let mut socket = poller.dial(edge.connect()).expect("a 101");
    socket.send("2probe".into()).expect("sent");
    assert_eq!(listen(&mut socket), Heard::Text("3probe".to_owned()));
    assert_eq!(decode(3, &poller.poll()), [Heard::Text("6".to_owned())]);
    socket.send("5".into()).expect("sent");
    socket.send("42[\"echo\",1]".into()).expect("sent");
    assert_eq!(listen(&mut socket), Heard::Text("42[\"echo\",1]".to_owned()));
    assert_eq!(poller.status(), 400);
}

#[test]
fn a_client_may_begin_to_listen_after_its_websocket_has_opened() {
    let edge = Edge::start(&hub_only(""));
    let begun = Instant::now();
    let mut socket = dial(edge.connect(), "EIO=3&transport=websocket").expect("a 101");
    let Heard::Text(open) = listen(&mut socket) else { panic!("no open packet") };
    assert!(open.starts_with('0'), "{open}");
    // It did not come together with the 101.
    assert!(begun.elapsed() >= Duration::from_millis(20), "{:?}", begun.elapsed());
}

#[test]
fn pings_alone_make_no_queue() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = polling(&edge, "");
    assert_eq!(poller.send("1:2".repeat(1000)).text(), "ok");
    assert_eq!(poller.poll().text(), "1:3");
}

/// `/` is not there; `/chat` is as the application says, by what `as` it was told.
const ASKED: &str = r#"
hub:
  namespaces:
    /chat: { auth: none, connect: /api/connect, events: { "*": deny } }
"#;

#[test]
fn what_refuses_it_has_the_form_of_then() {
    let origin = Origin::start(|seen, stream| {
        let question: Value = serde_json::from_slice(&seen.body).expect("JSON");
        let (status, body) = match &question["handshake"]["auth"]["as"] {
            Value::String(who) if who == "ann b" => ("200 OK", json!({})),
            Value::String(who) if who == "bob" => ("403 No", Value::Null),
            // Named twice, as `querystring` reads it.
            Value::Array(both) => {
                ("403 No", json!({ "error": { "message": "one of", "who": both } }))
            }
            _ => ("403 No", json!({ "error": { "message": "who?" } })),
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        reply(stream, status, "content-type: application/json\r\n", body.as_bytes())
    });
    let site = format!("sites:\n  localhost:\n    next: {}\n", origin.url());
    let edge = Edge::start(&format!("{PLAIN}{site}{ASKED}"));
    // Nobody told it of `/`, and there is none.
    let mut web = Web::over(edge.connect(), "EIO=3");
    web.say("40/chat?as=ann+b,");
    web.expect("40/chat,");
    web.say("40/nowhere?as=ann,");
    web.expect("44/nowhere,{\"message\":\"Invalid namespace\"}");
    let mut refused = Web::over(edge.connect(), "EIO=3");
    refused.say("40/chat?as=bob");
    refused.expect("44/chat,{\"code\":\"denied\"}");
    refused.say("40/chat?as=x&as=y&as=z");
    refused.expect("44/chat,{\"message\":\"one of\",\"who\":[\"x\",\"y\",\"z\"]}");
    refused.say("40/chat");
    refused.expect("44/chat,{\"message\":\"who?\"}");
    // Those of today have both in one object.
    let mut today = Web::over(edge.connect(), "EIO=4");
    today.say("40/chat,{}");
    today.expect("44/chat,{\"message\":\"who?\",\"data\":{\"message\":\"who?\"}}");
}

#[test]
fn without_data_the_message_alone_refuses() {
    let rooms = "hub:\n  limits: { rooms: 1 }\n  namespaces:\n    /: { auth: none, join: [a, b], events: { \"*\": deny } }";
    let edge = Edge::start(&format!("{PLAIN}{rooms}\n"));
    let mut web = Web::over(edge.connect(), "EIO=3");
    web.expect("44\"too_many_rooms\"");
}
