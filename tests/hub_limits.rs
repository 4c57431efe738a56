//! What one client, one address and the whole process may take: one under, one over.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tungstenite::protocol::Message;

use crate::auth::{HS256, SIGNING, claims, token};
use crate::harness::node::Script;
use crate::harness::socketio::{
    Heard, Line as _, NAMESPACES, Poller, UPGRADE, Web, connection_on, hub, hub_only, masked,
    metric, wait_for_metric,
};
use crate::harness::{Answer, Edge, Origin, PATIENCE, PLAIN, StopOnDrop, eventually};

const RATE_LIMITED: &str = "[{\"error\":{\"code\":\"rate_limited\"}}]";
const TOO_LARGE: &str = "[{\"error\":{\"code\":\"too_large\"}}]";
const OK: &str = "[{\"ok\":true}]";

/// With these limits and no others than the defaults.
fn limited(limits: &str) -> String {
    format!("{PLAIN}hub:\n  limits: {{ {limits} }}\n{NAMESPACES}")
}

/// One namespace with this rule for `it`.
fn ruled(rule: &str) -> String {
    let namespace = format!("{{ auth: none, events: {{ it: {rule}, other: {{ relay: '*' }} }} }}");
    format!("{PLAIN}hub:\n  namespaces: {{ /: {namespace} }}\n")
}

fn closes(edge: &Edge, reason: &str) -> i64 {
    metric(edge, &format!("vestibule_hub_closes_total{{reason=\"{reason}\"}}"))
}

fn denied(edge: &Edge, code: &str) -> i64 {
    metric(edge, &format!("vestibule_hub_denied_total{{code=\"{code}\"}}"))
}

/// A handshake from this address, as a trusted proxy tells it.
fn handshake(edge: &Edge, address: &str) -> Answer {
    let from = [("X-Forwarded-For", address)];
    edge.connect().ask("GET", &hub("EIO=4&transport=polling"), &from, b"")
}

/// Ends the polling session that `answer` opened.
fn leave(edge: &Edge, answer: &Answer) {
    let sid = &answer.text()[9..29];
    let path = hub(&format!("EIO=4&transport=polling&sid={sid}"));
    assert_eq!(edge.connect().ask("POST", &path, &[], b"1").status, 200, "{answer:?}");
}

#[test]
fn an_address_has_so_many_sessions() {
    let mut edge = Edge::start(&limited("per_ip: 3, handshakes: 1000/s"));
    // On both workers, over both transports.
    let mut first = Web::over(connection_on(&edge, '0'), "EIO=4");
    let second = Web::over(connection_on(&edge, '1'), "EIO=4");
    let third = Poller::open(&edge);
    for headers in [&[][..], &UPGRADE] {
        let transport = if headers.is_empty() { "polling" } else { "websocket" };
        let path = hub(&format!("EIO=4&transport={transport}"));
        let answer = edge.connect().ask("GET", &path, headers, b"");
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("10")));
    }
    edge.access_line(|line| line["reason"] == "sessions_per_address" && line["status"] == 429);
    wait_for_metric(&edge, "vestibule_faults_total{reason=\"sessions_per_address\"}", 2);
    // Who is here notices nothing, and a place that is free is given again.
    first.enter("/");
    drop(second);
    let fourth = eventually("a free place", || {
        let answer = edge.get(&hub("EIO=4&transport=polling"));
        (answer.status == 200).then_some(answer)
    });
    leave(&edge, &fourth);
    // A reload keeps the count.
    edge.reload_with(&limited("per_ip: 2, handshakes: 1000/s"));
    assert_eq!(edge.get(&hub("EIO=4&transport=polling")).status, 429);
    drop((first, third));
}

#[test]
fn addresses_are_told_apart_but_not_those_of_one_customer() {
    let edge = Edge::start(&format!("trust: [127.0.0.1]\n{}", limited("per_ip: 2")));
    for address in ["10.0.0.1", "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::ffff:2"] {
        assert_eq!(handshake(&edge, address).status, 200, "{address}");
    }
    for address in ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::3"] {
        assert_eq!(handshake(&edge, address).status, 429, "{address}");
    }
    for address in ["10.0.0.2", "2001:db8:0:1::1"] {
        assert_eq!(handshake(&edge, address).status, 200, "{address}");
    }
}

#[test]
fn an_address_has_so_many_that_came_for_nothing() {
    let edge = Edge::start(&limited("per_ip: 10, pending: 2"));
    let mut first = Web::open(&edge);
    let _second = Poller::open(&edge);
    assert_eq!(edge.get(&hub("EIO=4&transport=polling")).status, 429);
    edge.access_line(|line| line["reason"] == "pending_per_address");
    first.enter("/");
    // One that is refused is still pending.
    let mut third = Web::open(&edge);
    third.say("40/nowhere,");
    third.expect("44/nowhere,{\"message\":\"Invalid namespace\"}");
    assert_eq!(denied(&edge, "invalid_namespace"), 1);
    assert_eq!(edge.get(&hub("EIO=4&transport=polling")).status, 429);
    third.enter("/chat");
    first.enter("/chat");
    assert_eq!(edge.get(&hub("EIO=4&transport=polling")).status, 200);
}

#[test]
fn an_address_opens_so_many_in_a_time() {
    let edge =
        Edge::start(&format!("trust: [127.0.0.1]\n{}", limited("per_ip: 3, handshakes: 1/h")));
    for _ in 0..3 {
        let answer = handshake(&edge, "10.0.0.1");
        assert_eq!(answer.status, 200);
        leave(&edge, &answer);
    }
    let refused = handshake(&edge, "10.0.0.1");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    edge.access_line(|line| line["reason"] == "handshake_rate");
    assert_eq!(handshake(&edge, "10.0.0.2").status, 200);
}

#[test]
fn nobody_new_comes_in_while_memory_is_short() {
    let path = hub("EIO=4&transport=polling");
    let mut edge = Edge::start(&limited("memory: none, per_ip: 100000, pending: 100000"));
    let mut web = Web::open(&edge);
    web.enter("/");
    // What a process never fits in, though one may write it.
    let has = edge.resident_kb();
    assert!(has > 8 * 1024, "an idle process has {has} kB; the test must take more");
    edge.reload_with(&limited("memory: 8MiB, per_ip: 100000, pending: 100000"));
    let refused = eventually("a refusal", || {
        let answer = edge.get(&path);
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(refused.header("retry-after"), Some("10"));
    edge.access_line(|line| line["reason"] == "memory");
    eventually("a word about it", || {
        edge.log().contains("the hub takes no new clients").then_some(())
    });
    web.say("421[\"echo\"]");
    web.expect("42[\"echo\"]");
    web.expect(&format!("431{OK}"));
    edge.reload_with(&limited("memory: auto, per_ip: 100000, pending: 100000"));
    eventually("room again", || (edge.get(&path).status == 200).then_some(()));
    eventually("a word about it", || edge.log().contains("takes new clients again").then_some(()));
}

#[test]
fn a_client_sends_so_many_events() {
    let edge = Edge::start(&limited("events: 1/h, burst: 3"));
    let mut others = Web::open(&edge);
    others.enter("/");
    let mut web = Web::open(&edge);
    // Joining a namespace is work too.
    web.enter("/");
    for number in 1..=4 {
        web.say(&format!("42{number}[\"tell\",{number}]"));
        let answer = if number <= 2 { OK } else { RATE_LIMITED };
        web.expect(&format!("43{number}{answer}"));
    }
    for number in 1..=2 {
        others.expect(&format!("42[\"tell\",{number}]"));
    }
    assert_eq!(denied(&edge, "rate_limited"), 2);
    // Without an acknowledgement nothing is said; the session goes on.
    web.say("42[\"tell\",5]");
    // The neighbour has its own.
    others.say("421[\"tell\",6]");
    web.expect("42[\"tell\",6]");
    others.expect(&format!("431{OK}"));
}

fn held(edge: &Edge, by: &str) -> i64 {
    metric(edge, &format!("vestibule_hub_held_total{{by=\"{by}\"}}"))
}

/// Nothing is refused: what comes too early waits where it is, in its order. Clients would stay away
/// after a refusal of a CONNECT.
#[test]
fn what_comes_too_early_waits_its_turn() {
    let edge = Edge::start(&limited("events: 20/s, burst: 10"));
    let mut web = Web::open(&edge);
    let begun = Instant::now();
    web.enter("/");
    let said: Vec<u8> = (0..40)
        .flat_map(|number| masked(0x81, format!("42{number}[\"undeclared\"]").as_bytes()))
        // Said twice it is one: neither could know of the other's answer.
        .chain(
            ["40/chat,", "40/chat,", "40/nowhere,"]
                .iter()
                .flat_map(|text| masked(0x81, text.as_bytes())),
        )
        .collect();
    web.raw(&said);
    for number in 0..40 {
        web.expect(&format!("43{number}[{{\"error\":{{\"code\":\"unknown_event\"}}}}]"));
    }
    assert!(web.text().starts_with("40/chat,{\"sid\""));
    web.expect("44/nowhere,{\"message\":\"Invalid namespace\"}");
    // Forty-four in all, ten of them at once.
    assert!(begun.elapsed() >= Duration::from_millis(1600), "after {:?}", begun.elapsed());
    assert_eq!((denied(&edge, "rate_limited"), held(&edge, "events")), (0, 1));
    // In one body of a POST, which is answered when all of it was taken.
    let (mut poller, begun) = (Poller::open(&edge), Instant::now());
    poller.enter("/");
    let body: Vec<_> = (0..40).map(|number| format!("42[\"tell\",{number}]")).collect();
    assert_eq!(poller.send(body.join("\u{1e}")).status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(1500), "after {:?}", begun.elapsed());
    (0..40).for_each(|number| web.expect(&format!("42[\"tell\",{number}]")));
    assert_eq!(held(&edge, "events"), 2);
    // It goes on as before.
    assert_eq!(poller.send("42[\"tell\",40]").status, 200);
    web.expect("42[\"tell\",40]");
}

/// What was said before a client left is taken, too; by its own end, and by the connection's.
#[test]
fn who_leaves_has_said_what_waits() {
    let edge = Edge::start(&limited("events: 40/s, burst: 5"));
    let mut hearer = Web::open(&edge);
    hearer.enter("/");
    for last in [Some("41"), None] {
        let mut web = Web::open(&edge);
        web.enter("/");
        let mut said: Vec<String> =
            (0..30).map(|number| format!("42[\"tell\",{number}]")).collect();
        said.extend(last.map(str::to_owned));
        web.raw(&said.iter().flat_map(|text| masked(0x81, text.as_bytes())).collect::<Vec<_>>());
        drop(web);
        (0..30).for_each(|number| hearer.expect(&format!("42[\"tell\",{number}]")));
    }
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"websocket\"}", 1);
}

/// Pongs stand behind what is not read, and so do the pings of old clients.
#[test]
fn nobody_is_taken_for_dead_while_it_is_not_read() {
    let edge = Edge::start(
        &limited("events: 20/s, burst: 5")
            .replace("hub:\n", "hub:\n  ping: { interval: 500ms, timeout: 2s }\n"),
    );
    let tell = |number: u32| format!("42[\"tell\",{number}]");
    let mut hearer = Web::open(&edge);
    hearer.enter("/");
    for eio in [4, 3] {
        let mut web = Web::over(edge.connect(), &format!("EIO={eio}"));
        if eio == 4 {
            web.enter("/");
        } else {
            web.expect("40");
        }
        let own = if eio == 4 { "3" } else { "2" };
        let said = (0..120).map(tell).chain([own.to_owned(), tell(120)]);
        web.raw(&said.flat_map(|text| masked(0x81, text.as_bytes())).collect::<Vec<_>>());
        let (mut pings, mut next) = (0, 0);
        // More than twice as long as silence may last, in which it hears that it is heard.
        while next <= 120 {
            match hearer.hear_all() {
                Heard::Text(text) if text == "2" => hearer.say("3"),
                Heard::Text(text) => {
                    assert_eq!(text, tell(next));
                    next += 1;
                }
                other => panic!("heard {other:?}"),
            }
        }
        web.say(if eio == 4 { "3" } else { "2" });
        web.say("421[\"undeclared\"]");
        loop {
            match web.hear_all() {
                Heard::Text(text) if text == "2" || text == "3" => pings += 1,
                Heard::Text(text) if text.starts_with("431") => break,
                other => panic!("{eio}: heard {other:?}"),
            }
        }
        assert!(pings >= 2, "{eio}: {pings} in more than five seconds");
    }
    assert_eq!(closes(&edge, "ping_timeout"), 0);
    drop(hearer);
    // Whoever is silent when all is taken has gone.
    let mut web = Web::open(&edge);
    web.enter("/");
    web.raw(&(0..30).flat_map(|number| masked(0x81, tell(number).as_bytes())).collect::<Vec<_>>());
    eventually("its end", || (closes(&edge, "ping_timeout") > 0).then_some(()));
}

#[test]
fn stock_clients_lose_nothing_that_they_said_while_they_were_away() {
    let edge = Edge::start(
        &limited("events: 150/s, burst: 100")
            .replace("hub:\n", "hub:\n  ping: { interval: 1s, timeout: 2s }\n"),
    );
    let url = format!("http://{}", edge.http());
    let deadline = (PATIENCE * 4).as_millis().to_string();
    let rest =
        Script::start("buffered.mjs", &[("URL", &*url), ("DEADLINE_MS", &*deadline)]).finish();
    assert!(rest.contains("passed"), "{rest}");
    assert_eq!((denied(&edge, "rate_limited"), closes(&edge, "flood")), (0, 0), "{rest}");
    assert!(held(&edge, "events") >= 6, "{rest}");
}

#[test]
fn an_address_says_so_much_and_a_client_so_many_bytes() {
    let edge = Edge::start(&format!(
        "trust: [127.0.0.1]\n{}",
        limited("per_ip: { events: 40/s, burst: 10 }, bytes: 200KB/s")
    ));
    let from = |address: &str| {
        let mut client = edge.connect();
        let headers = [&UPGRADE[..], &[("X-Forwarded-For", address)]].concat();
        let answer = client.ask("GET", &hub("EIO=4&transport=websocket"), &headers, b"");
        assert_eq!(answer.status, 101);
        let role = tungstenite::protocol::Role::Client;
        let socket =
            tungstenite::protocol::WebSocket::from_raw_socket(client.upgraded(), role, None);
        let mut web = Web { socket, eio: 4, open: serde_json::Value::Null };
        assert!(web.text().starts_with('0'));
        web.enter("/");
        web
    };
    let mut others: Vec<Web> = (0..3).map(|_| from("10.0.0.1")).collect();
    let mut stranger = from("10.0.0.2");
    let begun = Instant::now();
    for web in &mut others {
        let said =
            (0..30).flat_map(|id| masked(0x81, format!("42{id}[\"undeclared\"]").as_bytes()));
        web.raw(&said.collect::<Vec<_>>());
    }
    // Who is elsewhere does not wait with them.
    for id in 0..5 {
        stranger.say(&format!("42{id}[\"undeclared\"]"));
        stranger.expect(&format!("43{id}[{{\"error\":{{\"code\":\"unknown_event\"}}}}]"));
    }
    for web in &mut others {
        for id in 0..30 {
            web.expect(&format!("43{id}[{{\"error\":{{\"code\":\"unknown_event\"}}}}]"));
        }
    }
    assert!(begun.elapsed() >= Duration::from_secs(2), "after {:?}", begun.elapsed());
    assert!(held(&edge, "address") > 0 && held(&edge, "bytes") == 0);
    let (begun, filler) = (Instant::now(), "x".repeat(100_000));
    for id in 0..6 {
        stranger.say(&format!("42{id}[\"undeclared\",\"{filler}\"]"));
    }
    for id in 0..6 {
        stranger.expect(&format!("43{id}[{{\"error\":{{\"code\":\"unknown_event\"}}}}]"));
    }
    assert!(begun.elapsed() >= Duration::from_millis(1500), "after {:?}", begun.elapsed());
    assert!(held(&edge, "bytes") > 0);
}

/// Over all of its connections, whoever else is at its address.
#[test]
fn a_user_says_so_much() {
    let edge = Edge::start(&format!(
        "{PLAIN}auth:\n  token: {{ jwt: {{ issuer: https://issuer.example.test, audience: realtime }}, \
         secret: {SIGNING} }}\nhub:\n  limits: {{ per_user: {{ events: 20/s, burst: 5 }} }}\n  \
         namespaces: {{ /: {{ auth: token, events: deny }} }}\n"
    ));
    let enter = |user: &str| {
        let mut web = Web::open(&edge);
        web.say(&format!("40{{\"token\":\"{}\"}}", token(HS256, &claims(user))));
        assert!(web.text().starts_with("40"));
        web
    };
    let (mut anna, mut bert) = ([enter("anna"), enter("anna")], enter("bert"));
    let denied = |id: u32| format!("43{id}[{{\"error\":{{\"code\":\"unknown_event\"}}}}]");
    let begun = Instant::now();
    for web in &mut anna {
        let said = (0..20).flat_map(|id| masked(0x81, format!("42{id}[\"it\"]").as_bytes()));
        web.raw(&said.collect::<Vec<_>>());
    }
    for id in 0..4 {
        bert.say(&format!("42{id}[\"it\"]"));
        bert.expect(&denied(id));
    }
    anna.iter_mut().for_each(|web| (0..20).for_each(|id| web.expect(&denied(id))));
    assert!(begun.elapsed() >= Duration::from_millis(1700), "after {:?}", begun.elapsed());
    assert!(held(&edge, "user") >= 2);
}

/// Whoever may say so little is told at once that it was too much, and is heard.
#[test]
fn a_user_or_an_address_that_says_little_is_not_waited_for() {
    let edge = Edge::start(&format!(
        "{PLAIN}auth:\n  token: {{ jwt: {{ issuer: https://issuer.example.test, audience: realtime }}, \
         secret: {SIGNING} }}\nhub:\n  limits: {{ per_user: {{ events: 60/h, burst: 3 }} }}\n  \
         namespaces: {{ /: {{ auth: token, events: deny }} }}\n"
    ));
    let mut web = Web::open(&edge);
    web.say(&format!("40{{\"token\":\"{}\"}}", token(HS256, &claims("anna"))));
    assert!(web.text().starts_with("40"));
    let hears = |web: &mut Web, said: u32| {
        for id in 0..6 {
            web.say(&format!("42{id}[\"it\"]"));
            let code = if id < said { "unknown_event" } else { "rate_limited" };
            web.expect(&format!("43{id}[{{\"error\":{{\"code\":\"{code}\"}}}}]"));
        }
    };
    hears(&mut web, 3);
    let edge = Edge::start(&limited("per_ip: { events: 60/h, burst: 3 }"));
    let mut web = Web::open(&edge);
    // Which is work as well.
    web.enter("/");
    hears(&mut web, 2);
    // Nor is anybody let in meanwhile, for whom it waits.
    web.say("40/chat,");
    hears(&mut web, 0);
    assert_eq!(metric(&edge, "vestibule_hub_sockets{namespace=\"/chat\"}"), 0);
    assert_eq!((denied(&edge, "rate_limited"), held(&edge, "address")), (10, 0));
}

#[test]
fn a_client_that_floods_is_closed() {
    let edge = Edge::start(&limited("events: 1/h, burst: 3"));
    let mut web = Web::open(&edge);
    web.enter("/");
    // Ten bursts, in which the CONNECT was one.
    for number in 1..30 {
        web.say(&format!("42{number}[\"undeclared\"]"));
        let code = if number < 3 { "unknown_event" } else { "rate_limited" };
        web.expect(&format!("43{number}[{{\"error\":{{\"code\":\"{code}\"}}}}]"));
    }
    assert_eq!(closes(&edge, "flood"), 0);
    web.say("4230[\"undeclared\"]");
    assert_eq!(web.hear(), Heard::Closed(None));
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"flood\"}", 1);
    // In one body of a POST; acknowledgements that nobody asked for count as well.
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    let body = vec!["431[]"; 30].join("\u{1e}");
    assert_eq!(poller.send(body).status, 200);
    assert_eq!(poller.status(), 400);
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"flood\"}", 2);
}

#[test]
fn what_is_no_event_is_counted_too() {
    let edge = Edge::start(&limited("events: 1/h, burst: 1, per_ip: 1000, pending: 1000"));
    let text = |packet: &str| masked(0x81, packet.as_bytes());
    let (begun, whole) = (masked(0x01, b"40/nowhere"), text("40/nowhere,"));
    let noises = [
        ("noop", 4, Vec::new(), text("6"), whole.clone()),
        ("a pong", 4, Vec::new(), text("3"), whole.clone()),
        ("an upgrade", 4, Vec::new(), text("5"), whole.clone()),
        ("an old client's ping", 3, Vec::new(), text("2"), whole.clone()),
        ("a ping of WebSocket's own", 4, Vec::new(), masked(0x89, b""), whole.clone()),
        ("a pong of WebSocket's own", 4, Vec::new(), masked(0x8a, b"x"), whole),
        ("a piece of nothing", 4, begun.clone(), masked(0x00, b""), masked(0x80, b",")),
        ("a small piece", 4, begun, masked(0x00, b"x"), masked(0x80, b",")),
    ];
    for (number, (what, eio, first, noise, last)) in (1..).zip(&noises) {
        let mut web = Web::over(edge.connect(), &format!("EIO={eio}"));
        if *eio == 3 {
            web.expect("40");
        }
        // A hundred at once are no harm.
        web.raw(&[first.clone(), noise.repeat(90), last.clone()].concat());
        loop {
            match web.hear() {
                Heard::Text(text) if text.starts_with("44/nowhere") => break,
                Heard::Text(pong) if pong == "3" => (),
                Heard::Pong(_) => (),
                other => panic!("{what}: heard {other:?}"),
            }
        }
        assert_eq!(closes(&edge, "flood"), number - 1, "{what}");
        web.raw(first);
        // Reset, or told so at the next write.
        let mut rounds = 0..10_000;
        while web.socket.get_mut().write_all(&noise.repeat(100)).is_ok() {
            if closes(&edge, "flood") == number {
                break;
            }
            assert!(rounds.next().is_some(), "{what}: it is never closed");
        }
        wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"flood\"}", number);
    }
    // In one body of a POST.
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    assert_eq!(poller.send(vec!["6"; 90].join("\u{1e}")).status, 200);
    assert_eq!(poller.status(), 200);
    assert_eq!(poller.send(vec!["6"; 1000].join("\u{1e}")).status, 200);
    assert_eq!(poller.status(), 400);
    // Large messages may come in pieces.
    let mut web = Web::open(&edge);
    let piece = "x".repeat(2000);
    web.raw(&masked(0x01, format!("40/nowhere,{{\"auth\":\"{piece}").as_bytes()));
    web.raw(&masked(0x00, piece.as_bytes()).repeat(300));
    web.raw(&masked(0x80, b"\"}"));
    web.expect("44/nowhere,{\"message\":\"Invalid namespace\"}");
}

#[test]
fn answers_to_pings_are_never_too_many() {
    let limits = "events: 1/h, burst: 1";
    let edge = Edge::start(
        &limited(limits).replace("hub:\n", "hub:\n  ping: { interval: 20ms, timeout: 5s }\n"),
    );
    let mut web = Web::open(&edge);
    web.enter("/");
    for _ in 0..250 {
        assert_eq!(web.hear_all(), Heard::Text("2".to_owned()));
        web.say("3");
    }
    assert_eq!(closes(&edge, "flood"), 0);
}

#[test]
fn a_rule_has_its_rate_for_each_socket() {
    let edge = Edge::start(&ruled("{ relay: '*', rate: 2/h }"));
    let (mut web, mut other) = (Web::open(&edge), Web::open(&edge));
    web.enter("/");
    other.enter("/");
    for (number, answer) in [(1, OK), (2, OK), (3, RATE_LIMITED)] {
        web.say(&format!("42{number}[\"it\",{number}]"));
        web.expect(&format!("43{number}{answer}"));
    }
    web.say("424[\"other\"]");
    web.expect(&format!("434{OK}"));
    for event in ["[\"it\",1]", "[\"it\",2]", "[\"other\"]"] {
        other.expect(&format!("42{event}"));
    }
    other.say("421[\"it\",4]");
    other.expect(&format!("431{OK}"));
    web.expect("42[\"it\",4]");
    // Another socket of the same session would be another; one that comes back is.
    web.say("41");
    web.enter("/");
    web.say("425[\"it\",5]");
    web.expect(&format!("435{OK}"));
}

#[test]
fn the_rule_for_the_rest_has_one_rate_for_all_of_it() {
    let rules = "{ '*': { relay: '*', rate: 2/h }, free: { relay: '*' } }";
    let edge = Edge::start(&format!(
        "{PLAIN}hub:\n  namespaces: {{ /: {{ auth: none, events: {rules} }} }}\n"
    ));
    let mut web = Web::open(&edge);
    web.enter("/");
    for (event, answer) in
        [("a", OK), ("b", OK), ("c", RATE_LIMITED), ("a", RATE_LIMITED), ("free", OK)]
    {
        web.say(&format!("421[\"{event}\"]"));
        web.expect(&format!("431{answer}"));
    }
}

#[test]
fn a_rule_has_its_size() {
    let edge = Edge::start(&ruled("{ relay: '*', max: 64B, rate: 3/h }"));
    let mut web = Web::open(&edge);
    web.enter("/");
    let event = |bytes: usize| format!("[\"it\",\"{}\"]", "x".repeat(bytes - 9));
    for (bytes, answer) in [(64, OK), (65, TOO_LARGE)] {
        web.say(&format!("421{}", event(bytes)));
        web.expect(&format!("431{answer}"));
    }
    // The data is 37 bytes; with attachments of 27 it fits.
    let data = "[\"it\",{\"_placeholder\":true,\"num\":0}]";
    for (more, answer) in [(64 - data.len(), OK), (65 - data.len(), TOO_LARGE)] {
        web.say(&format!("451-1{data}"));
        web.say_bytes(&vec![7; more]);
        web.expect(&format!("431{answer}"));
    }
    // What was too large took nothing from the rate.
    for answer in [OK, RATE_LIMITED] {
        web.say("421[\"it\"]");
        web.expect(&format!("431{answer}"));
    }
    assert_eq!(denied(&edge, "too_large"), 2);
}

const ATTACHED: &str =
    "452-[\"echo\",{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}]";

#[test]
fn a_packet_and_its_attachments_are_one_message() {
    let edge = Edge::start(&hub_only("limits: { message: 1KiB }"));
    let room = 1024 - (ATTACHED.len() - 1) - 512;
    let mut web = Web::open(&edge);
    web.enter("/");
    web.say(ATTACHED);
    web.say_bytes(&[1; 512]);
    web.say_bytes(&vec![2; room]);
    web.expect(ATTACHED);
    assert_eq!(web.hear(), Heard::Binary(vec![1; 512]));
    assert_eq!(web.hear(), Heard::Binary(vec![2; room]));
    web.say(ATTACHED);
    web.say_bytes(&[1; 512]);
    web.say_bytes(&vec![2; room + 1]);
    assert_eq!(web.hear(), Heard::Closed(Some(1009)));
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"message_too_large\"}", 1);
}

#[test]
fn an_event_has_as_many_attachments_as_the_file_says() {
    let event = |count: usize| {
        let names: Vec<_> = (0..count).map(|n| json!({ "_placeholder": true, "num": n })).collect();
        format!("45{count}-[\"echo\",{}]", json!(names))
    };
    for (limits, count) in [("", 10), ("limits: { attachments: 12 }", 12)] {
        let edge = Edge::start(&hub_only(limits));
        let mut web = Web::open(&edge);
        web.enter("/");
        web.say(&event(count));
        (0..count).for_each(|_| web.say_bytes(&[7]));
        web.expect(&event(count));
        (0..count).for_each(|_| assert_eq!(web.hear(), Heard::Binary(vec![7])));
        // The operator's side sends no more either.
        let emit = |count: usize| {
            let args: Vec<_> = (0..count).map(|_| json!({ "$binary": "Bw==" })).collect();
            let body = json!({ "namespace": "/", "event": "echo", "args": [args] }).to_string();
            edge.admin_with("POST", "/hub/emit", body.as_bytes()).status
        };
        assert_eq!((emit(count + 1), emit(count)), (400, 200));
        web.expect(&event(count));
        (0..count).for_each(|_| assert_eq!(web.hear(), Heard::Binary(vec![7])));
        web.say(&event(count + 1));
        assert!(matches!(web.hear(), Heard::Closed(_)));
        wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"parse_error\"}", 1);
    }
}

#[test]
fn attachments_come_in_time() {
    let edge = Edge::start(&hub_only("ping: { interval: 300ms, timeout: 3s }"));
    let mut web = Web::open(&edge);
    web.enter("/");
    let begun = Instant::now();
    web.say(ATTACHED);
    web.say_bytes(&[1]);
    // Pings are answered all the while, by whoever hears.
    assert_eq!(web.hear(), Heard::Closed(None));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(3290), "closed after {took:?}");
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"unfinished_packet\"}", 1);
    // Whose packet was whole stays.
    let mut web = Web::open(&edge);
    web.enter("/");
    web.say(ATTACHED);
    web.say_bytes(&[1]);
    web.say_bytes(&[2]);
    web.expect(ATTACHED);
    assert_eq!([web.hear(), web.hear()], [1, 2].map(|byte| Heard::Binary(vec![byte])));
    for _ in 0..4 {
        assert_eq!(web.hear_all(), Heard::Text("2".to_owned()));
        web.say("3");
    }
    web.say("42[\"echo\"]");
    web.expect("42[\"echo\"]");
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"unfinished_packet\"}", 1);
}

#[test]
fn what_is_volatile_and_was_dropped_is_counted() {
    let edge = Edge::start(&hub_only(""));
    let mut web = Web::open(&edge);
    let mut poller = Poller::open(&edge);
    web.enter("/chat");
    poller.enter("/chat");
    for line in [&mut web as &mut dyn crate::harness::socketio::Line, &mut poller] {
        line.say("42/chat,1[\"join\",\"a\"]");
        line.expect(&format!("43/chat,1{OK}"));
    }
    web.say("42/chat,2[\"typing\",{\"room\":\"a\"}]");
    web.expect(&format!("43/chat,2{OK}"));
    wait_for_metric(&edge, "vestibule_hub_dropped_total", 1);
}

#[test]
fn open_websockets_count_as_connections() {
    let origin = Origin::start(|seen, stream| {
        use std::io::{Read as _, Write as _};
        if seen.header("upgrade").is_none() {
            return crate::harness::origin::reply(stream, "200 OK", "", b"plain");
        }
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("sent");
        let _ended = stream.read_to_end(&mut Vec::new());
        false
    });
    let site = format!("next: {}, routes: [{{ path: /ws/*, upgrade: true }}]", origin.url());
    let edge = Edge::start(&format!(
        "{}sites: {{ localhost: {{ {site} }} }}\nlimits: {{ connections: 4 }}\n",
        hub_only("")
    ));
    const OPEN: &str = "vestibule_connections_open{listener=\"http\"}";
    let mut web = Web::open(&edge);
    web.enter("/");
    let poller = Poller::open(&edge);
    // Polling has its two connections; the third of its session is the WebSocket's.
    let mut tunnel = edge.connect();
    assert_eq!(tunnel.ask("GET", "/ws/a", &UPGRADE, b"").status, 101);
    wait_for_metric(&edge, OPEN, 4);
    assert!(edge.connect().is_closed(), "there is no place for a fifth");
    let Poller { get, post, .. } = poller;
    drop((get, post));
    wait_for_metric(&edge, OPEN, 2);
    // Much later they still have their places.
    web.say("421[\"echo\"]");
    web.expect("42[\"echo\"]");
    wait_for_metric(&edge, OPEN, 2);
    drop(tunnel);
    wait_for_metric(&edge, OPEN, 1);
    drop(web);
    wait_for_metric(&edge, OPEN, 0);
    assert_eq!(edge.get("/").text(), "plain");
}

#[test]
fn the_place_of_a_websocket_moves_with_it_to_another_worker() {
    let edge = Edge::start(&hub_only(""));
    const OPEN: &str = "vestibule_connections_open{listener=\"http\"}";
    let poller = Poller::over(connection_on(&edge, '0'), connection_on(&edge, '0'), "EIO=4");
    let mut socket = poller.dial(connection_on(&edge, '1')).expect("a 101");
    socket.send(Message::text("2probe")).expect("sent");
    assert_eq!(socket.read().expect("heard"), Message::text("3probe"));
    wait_for_metric(&edge, OPEN, 3);
    drop(poller);
    wait_for_metric(&edge, OPEN, 1);
    drop(socket);
    wait_for_metric(&edge, OPEN, 0);
}

#[test]
fn who_came_and_left_and_what_was_refused_has_a_line() {
    let mut edge = Edge::start(&format!(
        "{}log: {{ access: none, events: [connect, disconnect, event, deny] }}\n",
        hub_only("")
    ));
    let mut web = Web::open(&edge);
    let chat = web.enter("/chat");
    web.say("42/chat,1[\"join\",\"a\"]");
    web.expect(&format!("43/chat,1{OK}"));
    web.say("42/chat,2[\"undeclared\",1]");
    web.expect("43/chat,2[{\"error\":{\"code\":\"unknown_event\"}}]");
    web.say("40/nowhere,");
    web.expect("44/nowhere,{\"message\":\"Invalid namespace\"}");
    web.say("41/chat,");
    let mut poller = Poller::open(&edge);
    let root = poller.enter("/");
    assert_eq!(poller.send("1").status, 200);
    let last = edge.access_line(|line| line["reason"] == "transport_close");
    let mut lines = eventually("the other worker's lines as well", || {
        Some(edge.access()).filter(|lines| lines.len() >= 7)
    });
    for line in &mut lines {
        let time = line["time"].take();
        assert!(time.as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    }
    let line = |kind: &str, more: serde_json::Value| {
        let mut line = json!({ "time": null, "kind": kind, "client": "127.0.0.1" });
        let fields = line.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        line
    };
    let of = |sid: &str, namespace: &str, transport: &str, more: serde_json::Value| {
        let mut of = json!({ "sid": sid, "namespace": namespace, "transport": transport });
        of.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
        of
    };
    let chat = |more| of(&chat, "/chat", "websocket", more);
    let expected = [
        line("connect", chat(json!({}))),
        line("event", chat(json!({ "event": "join" }))),
        line("deny", chat(json!({ "event": "undeclared", "reason": "unknown_event" }))),
        line(
            "deny",
            json!({ "namespace": "/nowhere", "transport": "websocket", "reason": "invalid_namespace" }),
        ),
        line("disconnect", chat(json!({ "reason": "client_namespace_disconnect" }))),
        line("connect", of(&root, "/", "polling", json!({}))),
        line("disconnect", of(&root, "/", "polling", json!({ "reason": "transport_close" }))),
    ];
    // Workers hand over their lines one after the other, each in its own order.
    for line in &expected {
        assert!(lines.contains(line), "no {line} in {lines:#?}");
    }
    assert_eq!(lines.len(), expected.len(), "{last} {lines:#?}");
    // Nothing more is written once nobody wants it.
    edge.reload_with(&hub_only(""));
    web.enter("/chat");
    edge.get("/marker");
    edge.access_line(|line| line["path"] == "/marker");
    assert_eq!(edge.access().iter().filter(|line| line["kind"] == "connect").count(), 2);
}

/// Says this as fast as it can, and comes back whenever it is closed.
fn flood(edge: &Edge, stop: &AtomicBool, packet: &str) -> usize {
    let mut closed = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut client = edge.connect();
        let answer = client.ask("GET", &hub("EIO=4&transport=websocket"), &UPGRADE, b"");
        if answer.status != 101 {
            thread::sleep(Duration::from_millis(5));
            continue;
        }
        let mut socket = tungstenite::protocol::WebSocket::from_raw_socket(
            client.upgraded(),
            tungstenite::protocol::Role::Client,
            None,
        );
        let mut say = |text: String| socket.send(Message::text(text)).is_ok();
        let mut alive = say("40".to_owned());
        while alive && !stop.load(Ordering::Relaxed) {
            alive = say(packet.to_owned());
        }
        closed += 1;
    }
    closed
}

#[test]
fn who_means_well_is_not_harmed_by_a_flood() {
    const ROUNDS: u32 = 60;
    let edge = Edge::start(&limited("per_ip: 20, handshakes: 50/s"));
    let (mut speaker, mut hearer) = (Web::open(&edge), Web::open(&edge));
    speaker.enter("/");
    hearer.enter("/chat");
    hearer.say("42/chat,1[\"join\",\"a\"]");
    hearer.expect(&format!("43/chat,1{OK}"));
    speaker.enter("/chat");
    speaker.say("42/chat,1[\"join\",\"a\"]");
    let mut answered = |number: u32| loop {
        match speaker.hear() {
            // What the flood may say.
            Heard::Text(text) if text.starts_with("42[\"tell\"") => (),
            heard => {
                assert_eq!(heard, Heard::Text(format!("43/chat,{number}{OK}")));
                return speaker.say(&format!(
                    "42/chat,{}[\"message\",{{\"room\":\"a\",\"number\":{number}}}]",
                    number + 1
                ));
            }
        }
    };
    answered(1);
    let stop = AtomicBool::new(false);
    let (worst, before) = thread::scope(|scope| {
        let guard = StopOnDrop(&stop);
        let filler = "x".repeat(2000);
        let (events, acks) = (format!("42[\"tell\",\"{filler}\"]"), format!("431[\"{filler}\"]"));
        let (edge, stop) = (&edge, &stop);
        // Two are made to wait, and two are closed.
        let waits = [(); 2].map(|()| {
            scope.spawn({
                let packet = events.clone();
                move || flood(edge, stop, &packet)
            })
        });
        let floods = [(); 2].map(|()| {
            scope.spawn({
                let packet = acks.clone();
                move || flood(edge, stop, &packet)
            })
        });
        let begun = Instant::now();
        while closes(edge, "flood") < 4 || held(edge, "events") < 2 {
            assert!(begun.elapsed() < PATIENCE, "nobody is closed");
        }
        let before = edge.resident_kb();
        let mut worst = Duration::ZERO;
        for number in 2..ROUNDS {
            let asked = Instant::now();
            answered(number);
            let text = hearer.text();
            assert!(text.contains(&format!("\"number\":{}", number - 1)), "{number}: {text}");
            worst = worst.max(asked.elapsed());
            // Well below what it may: fifty in a second.
            thread::sleep(Duration::from_millis(25));
        }
        drop(guard);
        let closed: usize = floods.into_iter().map(|flood| flood.join().expect("a flood")).sum();
        for flood in waits {
            flood.join().expect("a flood");
        }
        assert!(closed > 4, "{closed} sessions of the flood ended");
        (worst, before)
    });
    assert!(worst < Duration::from_secs(5), "a message took {worst:?}");
    let grown = edge.resident_kb().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} kB more than when the flood began");
    assert_eq!(closes(&edge, "too_slow"), 0);
}
