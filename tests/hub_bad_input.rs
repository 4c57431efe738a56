//! Bad input → answer: requests, payloads, packets. Wrong frames stand in `hub_frames`.

use crate::harness::socketio::{
    GENEROUS, Heard, Line, NAMESPACES, Poller, UPGRADE, Web, decode, hub, hub_only, masked, metric,
    wait_for_metric,
};
use crate::harness::{Client, Edge, PLAIN};

const TRANSPORT: &str = r#"{"code":0,"message":"Transport unknown"}"#;
const SESSION: &str = r#"{"code":1,"message":"Session ID unknown"}"#;
const METHOD: &str = r#"{"code":2,"message":"Bad handshake method"}"#;
const REQUEST: &str = r#"{"code":3,"message":"Bad request"}"#;
const VERSION: &str = r#"{"code":5,"message":"Unsupported protocol version"}"#;

/// What stands in the JSON.
fn message(body: &str) -> String {
    let words: serde_json::Value = serde_json::from_str(body).expect("JSON");
    words["message"].as_str().expect("a text").to_owned()
}

#[test]
fn requests() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = Poller::open(&edge);
    let mut web = Web::open(&edge);
    poller.enter("/");
    web.enter("/");
    let sid = poller.sid();
    let elsewhere = format!("{}{}", if sid.starts_with('A') { 'B' } else { 'A' }, &sid[1..]);
    let nobody = format!("{}{}", &sid[..19], if sid.ends_with('A') { 'B' } else { 'A' });
    // A worker that this process does not have.
    let lost = format!("{}z{}", &sid[..3], &sid[4..]);
    let polling = |more: &str| format!("EIO=4&transport=polling{more}");
    let websocket = |more: &str| format!("EIO=4&transport=websocket{more}");
    let of = |sid: &str| format!("&sid={sid}");
    let rows: &[(&str, String, bool, &str)] = &[
        ("GET", "EIO=4".to_owned(), false, TRANSPORT),
        ("GET", "EIO=4&transport=".to_owned(), false, TRANSPORT),
        ("GET", "EIO=4&transport=abc".to_owned(), false, TRANSPORT),
        ("GET", "EIO=4&transport=constructor".to_owned(), false, TRANSPORT),
        ("GET", "EIO=4&transport=webtransport".to_owned(), false, TRANSPORT),
        ("GET", format!("EIO=4{}", of(sid)), false, TRANSPORT),
        ("GET", "EIO=4&transport=abc".to_owned(), true, TRANSPORT),
        ("POST", String::new(), false, TRANSPORT),
        ("GET", polling("&sid="), false, SESSION),
        ("GET", polling("&sid=abc"), false, SESSION),
        ("GET", polling("&sid=../../../../etc/passwd"), false, SESSION),
        ("GET", polling(&of(&nobody)), false, SESSION),
        ("GET", polling(&of(&elsewhere)), false, SESSION),
        ("GET", polling(&of(&lost)), false, SESSION),
        ("POST", polling(&of(&nobody)), false, SESSION),
        ("GET", websocket(&of(&nobody)), true, SESSION),
        ("POST", polling(""), false, METHOD),
        ("PUT", polling(""), false, METHOD),
        ("DELETE", polling(""), false, METHOD),
        ("OPTIONS", polling(""), false, METHOD),
        ("POST", websocket(""), false, METHOD),
        ("GET", websocket(""), false, REQUEST),
        ("GET", polling(""), true, REQUEST),
        ("GET", websocket(&of(sid)), false, REQUEST),
        ("POST", websocket(&of(sid)), false, REQUEST),
        ("GET", polling(&of(sid)), true, REQUEST),
        ("GET", polling(&of(web.sid())), false, REQUEST),
        ("POST", polling(&of(web.sid())), false, REQUEST),
        ("GET", format!("EIO=3&transport=polling{}", of(sid)), false, REQUEST),
        ("POST", format!("EIO=3&transport=polling{}", of(sid)), false, REQUEST),
        ("GET", format!("transport=polling{}", of(sid)), false, REQUEST),
        ("GET", format!("EIO=3&transport=websocket{}", of(sid)), true, REQUEST),
        ("GET", "transport=polling".to_owned(), false, VERSION),
        ("GET", "EIO=abc&transport=polling".to_owned(), false, VERSION),
        ("GET", "EIO=5&transport=polling".to_owned(), false, VERSION),
        ("GET", "EIO=44&transport=polling".to_owned(), false, VERSION),
        ("GET", "transport=websocket".to_owned(), true, VERSION),
        ("GET", "EIO=abc&transport=websocket".to_owned(), true, VERSION),
        ("PUT", polling(&of(sid)), false, ""),
        ("DELETE", polling(&of(sid)), false, ""),
        ("OPTIONS", polling(&of(sid)), false, ""),
    ];
    for (method, query, upgrade, body) in rows {
        let headers: &[_] = if *upgrade { &UPGRADE } else { &[] };
        let answer = edge.connect().ask(method, &hub(query), headers, b"");
        // Who asks for a WebSocket is told the bare message.
        let said = if *upgrade { message(body) } else { (*body).to_owned() };
        assert_eq!((answer.status, answer.text()), (400, said), "{method} {query}");
        let kind = if *upgrade { "text/html" } else { "application/json" };
        let kind = (!body.is_empty()).then_some(kind);
        assert_eq!(answer.header("content-type"), kind, "{method} {query}");
        let ends = upgrade.then_some("close");
        assert_eq!(answer.header("connection"), ends, "{method} {query}");
    }
    for (name, value) in [("Sec-WebSocket-Version", "8"), ("Sec-WebSocket-Key", "short")] {
        let headers = UPGRADE.map(|(known, v)| (known, if known == name { value } else { v }));
        let answer = edge.connect().ask("GET", &hub(&websocket("")), &headers, b"");
        assert_eq!((answer.status, answer.text()), (400, message(REQUEST)), "{name}");
    }
    // None of it harmed the sessions that were named.
    poller.say("42[\"tell\",1]");
    web.expect("42[\"tell\",1]");
    web.say("42[\"tell\",2]");
    poller.expect("42[\"tell\",2]");
}

/// Bodies that are no payload: 400 or `ok`, and the session is gone.
#[test]
fn payloads() {
    let edge = Edge::start(&hub_only(""));
    let rows: &[(&str, &[u8], &str)] = &[
        ("", b"", "parse_error"),
        ("", b"abc", "parse_error"),
        ("", b"7", "parse_error"),
        ("", b"4\xff", "parse_error"),
        ("", b"b", "parse_error"),
        ("", b"b!!!!", "parse_error"),
        ("", b"bAQID=", "parse_error"),
        ("", b"6\x1e", "parse_error"),
        ("", b"\x1e6", "parse_error"),
        ("", b"2", "transport_error"),
        ("", b"2probe", "transport_error"),
        ("Content-Type: application/octet-stream\r\n", b"6", "transport_error"),
    ];
    for (header, body, reason) in rows {
        let line = format!("vestibule_hub_closes_total{{reason=\"{reason}\"}}");
        let before = metric(&edge, &line);
        let mut poller = Poller::open(&edge);
        poller.enter("/");
        let what = String::from_utf8_lossy(body);
        let head = format!("POST {} HTTP/1.1\r\nHost: localhost\r\n{header}", poller.path());
        poller.post.send(format!("{head}Content-Length: {}\r\n\r\n", body.len()));
        poller.post.send(body);
        let answer = poller.post.answer();
        assert!([200, 400].contains(&answer.status), "{what}: {answer:?}");
        assert_eq!(poller.status(), 400, "{what}");
        wait_for_metric(&edge, &line, before + 1);
    }
    // What stands before the bad packet is done.
    let mut web = Web::open(&edge);
    web.enter("/");
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    assert_eq!(poller.send("42[\"tell\",1]\x1eabc\x1e42[\"tell\",2]").status, 400);
    web.expect("42[\"tell\",1]");
    web.say("40/chat,");
    assert!(web.text().starts_with("40/chat,"));
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/\"}", 1);
}

/// The same of Engine.IO 3, whose payloads say how long each packet is, and of the forms of JSONP.
#[test]
fn old_payloads() {
    let edge = Edge::start(&hub_only(""));
    let text = "Content-Type: text/plain\r\n";
    let bytes = "Content-Type: application/octet-stream\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\nReferer: http://localhost/\r\n";
    let rows: &[(&str, &str, &[u8])] = &[
        ("", text, b"6"),
        ("", text, b":6"),
        ("", text, b"1:"),
        ("", text, b"2:6"),
        ("", text, b"-1:6"),
        ("", text, b"x:6"),
        ("", text, b"1:66"),
        ("", text, b"1:7"),
        ("", text, b"99999999999999999999:6"),
        ("", text, b"2:4\xff"),
        ("", bytes, b"\x00\x09\xff6"),
        ("", bytes, b"\x00\xff6"),
        ("", bytes, b"\x02\x01\xff6"),
        ("&j=0", form, b""),
        ("&j=0", form, b"x=1:6"),
        ("&j=0", form, b"d=\xff"),
        ("&j=0", form, b"d=1:7"),
        ("&j=0", form, b"d=%FF"),
    ];
    for (query, header, body) in rows {
        let mut poller = Poller::over(edge.connect(), edge.connect(), "EIO=3");
        poller.expect("40");
        let what = String::from_utf8_lossy(body);
        let head = format!("POST {}{query} HTTP/1.1\r\nHost: localhost\r\n{header}", poller.path());
        poller.post.send(format!("{head}Content-Length: {}\r\n\r\n", body.len()));
        poller.post.send(body);
        assert_eq!(poller.post.answer().status, 400, "{what}");
        assert_eq!(poller.status(), 400, "{what}");
    }
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/\"}", 0);
}

/// Packets that end the connection, all of it, as with Node.
#[test]
fn packets() {
    let edge = Edge::start(&hub_only(""));
    let one = "451-[\"echo\",{\"_placeholder\":true,\"num\":0}]";
    let rows: &[&[&str]] = &[
        // Engine.IO.
        &["abc"],
        &["7"],
        &["2"],
        // Socket.IO: kinds and counts.
        &["4"],
        &["4abc"],
        &["47"],
        &["45[\"echo\"]"],
        &["450-[\"echo\"]"],
        &["4511-[\"echo\"]"],
        &["451.5-[\"echo\"]"],
        &["45-1-[\"echo\"]"],
        &["451"],
        // Data.
        &["42{}"],
        &["42[]"],
        &["42[\"echo\""],
        &["42[\"echo\"]]"],
        &["42[null]"],
        &["42[{\"a\":1}]"],
        &["42[[\"echo\"]]"],
        &["42\"echo\""],
        &["42abc[\"echo\"]"],
        &["42/,abc[\"echo\"]"],
        &["4299999999999999999999[\"echo\"]"],
        &["42[\"connect\"]"],
        &["42[\"connect_error\"]"],
        &["42[\"disconnect\"]"],
        &["42[\"disconnecting\"]"],
        &["42[\"newListener\"]"],
        &["42[\"removeListener\"]"],
        &["42[\"conn\\u0065ct\"]"],
        &["431{}"],
        &["431\"a\""],
        &["41{}"],
        &["41[]"],
        &["40/chat,[]"],
        &["40/chat,\"a\""],
        &["40/chat,null"],
        &["40/chat,{"],
        &["44{\"message\":\"no\"}"],
        // Attachments.
        &["451-[\"echo\",{\"_placeholder\":true,\"num\":1}]", "bAQ=="],
        &["451-[\"echo\",{\"_placeholder\":true,\"num\":-1}]", "bAQ=="],
        &["451-[\"echo\",{\"_placeholder\":true,\"num\":0.5}]", "bAQ=="],
        &["451-[\"echo\",{\"_placeholder\":true,\"num\":\"0\"}]", "bAQ=="],
        &["451-[\"echo\",{\"_placeholder\":true}]", "bAQ=="],
        &["451-[\"echo\",{\"_placeholder\":true,\"num\":0}", "bAQ=="],
        &[one, "42[\"echo\"]"],
        &[one, one],
        &[one, "41"],
        &["bAQ=="],
        &[one, "bAQ==", "bAQ=="],
        // States.
        &["40"],
        &["40{}"],
        &["42/chat,[\"message\",1]"],
        &["43/chat,1[]"],
        &["41/chat,"],
        &["451-/chat,[\"message\",{\"_placeholder\":true,\"num\":0}]", "bAQ=="],
        &["42/nowhere,[\"echo\"]"],
        &["41", "42[\"echo\"]"],
        &["41", "41"],
    ];
    for row in rows {
        let mut web = Web::open(&edge);
        web.enter("/");
        for packet in *row {
            // It may be over before the last of them.
            let _sent = web.socket.send(tungstenite::Message::text(*packet));
        }
        let mut last = web.hear();
        // What was right before is answered.
        while matches!(&last, Heard::Text(text) if text.contains("\"echo\""))
            || matches!(last, Heard::Binary(_))
        {
            last = web.hear();
        }
        assert_eq!(last, Heard::Closed(None), "{row:?}");
    }
    let closes = ["parse_error", "transport_error"];
    let closes = closes
        .map(|reason| metric(&edge, &format!("vestibule_hub_closes_total{{reason=\"{reason}\"}}")));
    assert_eq!(closes, [i64::try_from(rows.len()).expect("few") - 1, 1]);
    // Before any namespace.
    for packet in ["42[\"echo\"]", "41", "431[]", "42/chat,[\"message\",1]", "bAQ=="] {
        let mut web = Web::open(&edge);
        web.say(packet);
        assert_eq!(web.hear(), Heard::Closed(None), "{packet}");
    }
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/\"}", 0);
}

/// Unusual, and right.
#[test]
fn packets_that_are_no_offence() {
    let edge = Edge::start(&hub_only(""));
    for (packet, answer) in [
        ("0", None),
        ("5", None),
        ("6", None),
        ("3", None),
        ("3probe", None),
        ("42", None),
        ("421", None),
        ("431[]", None),
        ("4399[1,2]", None),
        ("43", None),
        ("42/,[\"echo\",0]", Some("42[\"echo\",0]")),
        ("42[ \"echo\" , 1 ]", Some("42[ \"echo\" , 1 ]")),
        ("42[7,1]", None),
        ("420[7,1]", Some("430[{\"error\":{\"code\":\"unknown_event\"}}]")),
        ("420[\"\"]", Some("430[{\"error\":{\"code\":\"unknown_event\"}}]")),
        ("42[\"ech\\u006f\",2]", Some("42[\"ech\\u006f\",2]")),
        ("40/nowhere", Some("44/nowhere,{\"message\":\"Invalid namespace\"}")),
        ("40/a?b=c,", Some("44/a?b=c,{\"message\":\"Invalid namespace\"}")),
    ] {
        let mut web = Web::open(&edge);
        web.enter("/");
        web.say(packet);
        if let Some(answer) = answer {
            web.expect(answer);
        }
        web.say("42[\"echo\",\"fence\"]");
        assert_eq!(web.hear(), Heard::Text("42[\"echo\",\"fence\"]".to_owned()), "{packet}");
    }
}

/// What is so deep that parsers would break at it comes to nobody, with attachments or without.
#[test]
fn what_is_too_deep_comes_to_nothing() {
    let edge = Edge::start(&hub_only(""));
    let (mut web, mut other) = (Web::open(&edge), Web::open(&edge));
    web.enter("/");
    other.enter("/");
    let deep = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let refused = "431[{\"error\":{\"code\":\"bad_arguments\"}}]";
    let part = "{\"_placeholder\":true,\"num\":0}";
    for levels in [128, 300, 100_000] {
        web.say(&format!("421[\"tell\",{}]", deep(levels)));
        web.expect(refused);
        web.say(&format!("451-1[\"tell\",{},{part}]", deep(levels)));
        web.say_bytes(&[7]);
        web.expect(refused);
    }
    // The event's own array is one level.
    let event = format!("[\"tell\",{}]", deep(127));
    web.say(&format!("421{event}"));
    web.expect("431[{\"ok\":true}]");
    assert!(other.hear() == Heard::Text(format!("42{event}")));
    for packet in [format!("431{}", deep(129)), format!("40/chat,{{\"a\":{}}}", deep(128))] {
        let mut web = Web::open(&edge);
        web.enter("/");
        web.say(&packet);
        assert_eq!(web.hear(), Heard::Closed(None));
    }
}

/// A client that leaves before it is answered says nothing of it, and connects again: both were said
/// before the answer could be heard.
#[test]
fn two_connects_in_one_breath_are_one() {
    let edge = Edge::start(&hub_only(""));
    let connect = masked(0x81, b"40/chat,");
    let mut web = Web::open(&edge);
    web.raw(&[&connect[..], &connect].concat());
    assert!(web.text().starts_with("40/chat,{\"sid\""));
    web.say("42/chat,0[\"join\",\"a\"]");
    web.expect("43/chat,0[{\"ok\":true}]");
    let mut poller = Poller::open(&edge);
    assert_eq!(poller.send("40/chat,\u{1e}40/chat,").status, 200);
    assert!(poller.text().starts_with("40/chat,{\"sid\""));
    poller.say("42/chat,0[\"join\",\"a\"]");
    poller.expect("43/chat,0[{\"ok\":true}]");
    // Who is in already, and says so, has lost count: as with Node's server.
    web.say("40/chat,");
    assert_eq!(web.hear(), Heard::Closed(None));
    assert_eq!(poller.send("40/chat,").status, 200);
    assert_eq!(poller.hear(), Heard::Closed(None));
}

/// Leaving and coming again in one breath, in one write and in several: Node's server hangs up when
/// it reads two packets in one turn, and otherwise does what they say.
#[test]
fn who_leaves_and_comes_again_is_in() {
    let edge = Edge::start(&hub_only(""));
    let words = ["40/chat,", "41/chat,", "40/chat,", "41/chat,", "40/chat,"];
    let frames: Vec<_> = words.iter().map(|word| masked(0x81, word.as_bytes())).collect();
    let (mut together, mut apart) = (Web::open(&edge), Web::open(&edge));
    together.raw(&frames.concat());
    frames.iter().for_each(|frame| apart.raw(frame));
    let mut poller = Poller::open(&edge);
    assert_eq!(poller.send(words.join("\u{1e}")).status, 200);
    let lines: [&mut dyn Line; 3] = [&mut together, &mut apart, &mut poller];
    for line in lines {
        for _ in words.iter().step_by(2) {
            assert!(line.text().starts_with("40/chat,{\"sid\""));
        }
        line.say("42/chat,0[\"join\",\"a\"]");
        line.expect("43/chat,0[{\"ok\":true}]");
    }
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/chat\"}", 3);
}

/// A name that only JavaScript holds is a name: nobody's, or whatever a rule makes of all others.
#[test]
fn strange_names_are_names() {
    let anything = NAMESPACES.replace("forbidden: deny", r#""*": { relay: "*" }"#);
    let edge = Edge::start(&format!("{PLAIN}hub:\n  limits: {{ {GENEROUS} }}\n{anything}"));
    let (mut web, mut other) = (Web::open(&edge), Web::open(&edge));
    for line in [&mut web, &mut other] {
        line.enter("/");
        line.enter("/chat");
    }
    for name in ["\"\\ud800\"", "\"a\\udfffb\\ud83d\\ude00\""] {
        web.say(&format!("420[{name},1]"));
        web.expect("430[{\"error\":{\"code\":\"unknown_event\"}}]");
        web.say(&format!("42/chat,0[{name},1]"));
        web.expect("43/chat,0[{\"ok\":true}]");
        other.expect(&format!("42/chat,[{name},1]"));
        // With attachments, too.
        web.say(&format!("451-/chat,[{name},{{\"_placeholder\":true,\"num\":0}}]"));
        web.say_bytes(&[7]);
        other.expect(&format!("451-/chat,[{name},{{\"_placeholder\":true,\"num\":0}}]"));
        assert_eq!(other.hear(), Heard::Binary(vec![7]));
    }
    web.say("42[\"echo\",\"fence\"]");
    web.expect("42[\"echo\",\"fence\"]");
}

/// What JavaScript writes and other languages do not hold is as good beside an attachment as
/// without one.
#[test]
fn strange_texts_beside_attachments() {
    let edge = Edge::start(&hub_only("limits: { attachments: 256 }"));
    let (mut web, mut other, mut packed) = (Web::open(&edge), Web::open(&edge), Web::open(&edge));
    web.enter("/");
    other.enter("/");
    packed.say_bytes(b"\x83\xa4type\x00\xa4data\xd4\x00\x00\xa3nsp\xa1/");
    assert!(matches!(packed.hear(), Heard::Binary(_)));
    let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
    for strange in ["\"a\\ud83d\"", "{\"\\udc00\":1}", "1e999", &deep] {
        let event = format!("51-[\"tell\",{strange},{{\"_placeholder\":true,\"num\":0}}]");
        web.say(&format!("4{event}"));
        web.say_bytes(&[7]);
        other.expect(&format!("4{event}"));
        assert_eq!(other.hear(), Heard::Binary(vec![7]));
        assert!(matches!(packed.hear(), Heard::Binary(_)), "{strange}");
    }
    // As many attachments as may be, to clients of both parsers.
    let all: Vec<_> =
        (0..200).map(|number| format!("{{\"_placeholder\":true,\"num\":{number}}}")).collect();
    let event = format!("45200-[\"tell\",{}]", all.join(","));
    web.say(&event);
    (0..200u8).for_each(|number| web.say_bytes(&[number]));
    other.expect(&event);
    (0..200u8).for_each(|number| assert_eq!(other.hear(), Heard::Binary(vec![number])));
    let Heard::Binary(packet) = packed.hear() else { panic!("no packet") };
    let parts: Vec<u8> = (0..200u8).flat_map(|number| [0xc4, 1, number]).collect();
    let at = packet.windows(5).position(|window| window == b"\xa4tell").expect("the event");
    assert_eq!(packet.get(at + 5..at + 5 + parts.len()), Some(&parts[..]));
}

#[test]
fn a_closed_session_answers_its_waiting_get() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    poller.say("42[\"echo\",1]");
    poller.poll();
    poller.begin_poll();
    let mut other: Client = edge.connect();
    assert_eq!(other.ask("POST", poller.path(), &[], b"abc").status, 400);
    let answer = poller.polled();
    // Told, or too late to be told.
    let gone = answer.status == 400 && answer.text() == SESSION;
    assert!(gone || decode(4, &answer)[0] == Heard::Text("1".to_owned()), "{answer:?}");
}
