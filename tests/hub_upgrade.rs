//! From long polling to WebSocket: nothing is lost, and a failed try harms nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tungstenite::WebSocket;

use crate::harness::client::Upgraded;
use crate::harness::socketio::{
    Heard, Line as _, NAMESPACES, Poller, Web, decode, hub_only, listen, metric, wait_for_metric,
};
use crate::harness::{Edge, PLAIN, eventually};

fn say(socket: &mut WebSocket<Upgraded>, packet: &str) {
    socket.send(packet.into()).expect("sent");
}

fn hear(socket: &mut WebSocket<Upgraded>, packet: &str) {
    assert_eq!(listen(socket), Heard::Text(packet.to_owned()));
}

/// A WebSocket for the session that has been probed.
fn probe(edge: &Edge, poller: &Poller) -> WebSocket<Upgraded> {
    let mut socket = poller.dial(edge.connect()).expect("a 101");
    say(&mut socket, "2probe");
    hear(&mut socket, "3probe");
    socket
}

#[test]
fn a_session_moves() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    poller.begin_poll();
    let mut socket = probe(&edge, &poller);
    // The waiting GET is let go, so that the client can end its polling.
    assert_eq!(poller.polled().text(), "6");
    say(&mut socket, "5");
    say(&mut socket, "42[\"echo\",1]");
    hear(&mut socket, "42[\"echo\",1]");
    assert_eq!(metric(&edge, "vestibule_hub_sessions{transport=\"polling\"}"), 0);
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"websocket\"}", 1);
    let refused = r#"{"code":3,"message":"Bad request"}"#;
    let answer = poller.poll();
    assert_eq!((answer.status, answer.text().as_str()), (400, refused));
    let answer = poller.send("42[\"echo\",2]");
    assert_eq!((answer.status, answer.text().as_str()), (400, refused));
    // Nor can another WebSocket take it.
    let mut second = poller.dial(edge.connect()).expect("a 101");
    assert_eq!(listen(&mut second), Heard::Closed(None));
    say(&mut socket, "42[\"echo\",3]");
    hear(&mut socket, "42[\"echo\",3]");
    drop(socket);
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/\"}", 0);
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"websocket\"}", 0);
}

#[test]
fn a_get_that_waits_when_the_upgrade_comes_is_refused() {
    let edge = Edge::start(&hub_only(""));
    for _ in 0..20 {
        let mut poller = Poller::open(&edge);
        poller.enter("/");
        let mut socket = probe(&edge, &poller);
        // On two connections, so either may come first.
        say(&mut socket, "5");
        let answer = poller.poll();
        assert!(
            matches!((answer.status, answer.text().as_str()), (400, _) | (200, "6")),
            "{answer:?}"
        );
        say(&mut socket, "42[\"echo\",1]");
        hear(&mut socket, "42[\"echo\",1]");
    }
    // One that comes between the probe and the upgrade is let go soon.
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    let mut socket = probe(&edge, &poller);
    for _ in 0..3 {
        assert_eq!(poller.poll().text(), "6");
    }
    say(&mut socket, "5");
    say(&mut socket, "42[\"echo\",1]");
    hear(&mut socket, "42[\"echo\",1]");
}

/// The number in `42["tell",N]`.
fn number(text: &str) -> Option<u32> {
    text.strip_prefix("42[\"tell\",")?.strip_suffix(']')?.parse().ok()
}

#[test]
fn what_is_said_meanwhile_arrives_once_and_in_order() {
    const EACH: u32 = 200;
    for round in 0..5 {
        // What the last round said may still be on its way to the other worker.
        let edge = Edge::start(&hub_only(""));
        let mut moving = Poller::open(&edge);
        moving.enter("/");
        let mut other = Web::open(&edge);
        other.enter("/");
        let mut said = 0..EACH * 5;
        let mut tell = |count: u32| {
            for number in said.by_ref().take(count as usize) {
                other.say(&format!("42[\"tell\",{number}]"));
            }
        };
        let mut heard = Vec::new();
        let mut take = |packets: VecDeque<Heard>| {
            let texts = packets.into_iter().filter_map(|packet| match packet {
                Heard::Text(text) => number(&text),
                other => panic!("{other:?}"),
            });
            heard.extend(texts);
        };
        tell(EACH);
        moving.say("42[\"tell\",0]\x1e42[\"tell\",1]");
        take(decode(4, &moving.poll()));
        let mut socket = probe(&edge, &moving);
        tell(EACH);
        moving.say("42[\"tell\",2]");
        if round % 2 == 0 {
            take(decode(4, &moving.poll()));
        }
        tell(EACH);
        // The upgrade and what follows it in one go.
        say(&mut socket, "5");
        say(&mut socket, "42[\"tell\",3]");
        tell(EACH);
        (4..100).for_each(|number| say(&mut socket, &format!("42[\"tell\",{number}]")));
        tell(EACH);
        while heard.last() != Some(&(EACH * 5 - 1)) {
            match listen(&mut socket) {
                Heard::Text(text) => heard.extend(number(&text)),
                other => panic!("{other:?} after {heard:?}"),
            }
        }
        assert!(heard.iter().copied().eq(0..EACH * 5), "{heard:?}");
        (0..100).for_each(|number| other.expect(&format!("42[\"tell\",{number}]")));
    }
}

#[test]
fn a_try_that_fails_leaves_the_session_polling() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    let works = |poller: &mut Poller, what: &str| {
        poller.say("42[\"echo\",1]");
        assert_eq!(poller.poll().text(), "42[\"echo\",1]", "{what}");
    };
    for wrong in ["3probe", "2", "2abc", "5", "42[\"echo\",2]", "", "abc"] {
        let mut socket = poller.dial(edge.connect()).expect("a 101");
        say(&mut socket, wrong);
        assert_eq!(listen(&mut socket), Heard::Closed(None), "{wrong:?}");
        works(&mut poller, wrong);
    }
    for bytes in [
        &b"\x81\x00"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x82\x82\0\0\0\0\x01\x02",
        b"\x88\x80\0\0\0\0",
    ] {
        let mut socket = poller.dial(edge.connect()).expect("a 101");
        std::io::Write::write_all(socket.get_mut(), bytes).expect("sent");
        assert_eq!(listen(&mut socket), Heard::Closed(None), "{bytes:?}");
        works(&mut poller, "raw");
    }
    // Gone before its time, whatever it had said.
    drop(poller.dial(edge.connect()).expect("a 101"));
    works(&mut poller, "gone at once");
    drop(probe(&edge, &poller));
    works(&mut poller, "gone after the probe");
    let mut socket = probe_again(&edge, &poller);
    say(&mut socket, "42[\"echo\",2]");
    assert_eq!(listen(&mut socket), Heard::Closed(None));
    works(&mut poller, "another packet than the upgrade");
    // While one is at it, no other is.
    let mut first = probe_again(&edge, &poller);
    let mut second = poller.dial(edge.connect()).expect("a 101");
    assert_eq!(listen(&mut second), Heard::Closed(None));
    say(&mut first, "5");
    say(&mut first, "42[\"echo\",3]");
    hear(&mut first, "42[\"echo\",3]");
}

/// As `probe`, once the one before has been noticed to be gone.
fn probe_again(edge: &Edge, poller: &Poller) -> WebSocket<Upgraded> {
    eventually("a probe", || {
        let mut socket = poller.dial(edge.connect()).expect("a 101");
        let _sent = socket.send("2probe".into());
        (listen(&mut socket) == Heard::Text("3probe".to_owned())).then_some(socket)
    })
}

#[test]
fn heartbeats_go_on_over_the_new_transport() {
    let edge = Edge::start(&hub_only("ping: { interval: 300ms, timeout: 2s }"));
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    // A ping that went over polling is not waited for.
    assert_eq!(poller.poll().text(), "2");
    let mut socket = probe(&edge, &poller);
    say(&mut socket, "5");
    for _ in 0..3 {
        hear(&mut socket, "2");
        say(&mut socket, "3");
    }
    hear(&mut socket, "2");
    assert_eq!(listen(&mut socket), Heard::Closed(None));
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"ping_timeout\"}", 1);
}

#[test]
fn a_session_may_end_while_it_is_probed() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    let mut socket = probe(&edge, &poller);
    assert_eq!(poller.send("1").text(), "ok");
    say(&mut socket, "5");
    assert_eq!(listen(&mut socket), Heard::Closed(None));
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/\"}", 0);
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"websocket\"}", 0);
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"polling\"}", 0);
}

/// A POST whose answer is not waited for.
fn post(poller: &Poller, body: &str) -> String {
    let (path, length) = (poller.path(), body.len());
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn an_upgrade_waits_for_the_post_that_is_not_all_taken() {
    let mut edge = Edge::start(&format!(
        "{PLAIN}shutdown: {{ grace: 30s }}\nhub:\n  \
         limits: {{ events: 80/s, burst: 20 }}\n{NAMESPACES}"
    ));
    let mut hearer = Web::open(&edge);
    hearer.enter("/");
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    let tell = |number: u32| format!("42[\"tell\",{number}]");
    let body = (0..300).map(tell).collect::<Vec<_>>().join("\x1e");
    let request = post(&poller, &body);
    poller.post.send(request);
    eventually("a rest", || {
        (metric(&edge, "vestibule_hub_held_total{by=\"events\"}") > 0).then_some(())
    });
    let mut socket = probe(&edge, &poller);
    say(&mut socket, "5");
    say(&mut socket, &tell(300));
    (0..=300).for_each(|number| hearer.expect(&tell(number)));
    let answer = poller.post.answer();
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    say(&mut socket, "421[\"undeclared\"]");
    hear(&mut socket, "431[{\"error\":{\"code\":\"unknown_event\"}}]");
    // Nothing is left that the end would wait for.
    let begun = Instant::now();
    edge.signal("TERM");
    assert_eq!(edge.ended().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// However long it would have rested, which is more than eight seconds, and whatever waits for it.
#[test]
fn a_post_that_rests_is_answered_when_its_session_ends() {
    let limits = "limits: { bytes: 100KB/s }";
    let mut edge =
        Edge::start(&format!("{PLAIN}shutdown: {{ grace: 30s }}\nhub:\n  {limits}\n{NAMESPACES}"));
    let rests = |edge: &Edge, count: i64| {
        let mut poller = Poller::open(edge);
        poller.enter("/");
        let large = format!("42[\"tell\",\"{}\"]\x1e42[\"tell\"]", "x".repeat(950_000));
        let request = post(&poller, &large);
        poller.post.send(request);
        wait_for_metric(edge, "vestibule_hub_held_total{by=\"bytes\"}", count);
        poller
    };
    // By a second POST, which is none of a client that means well; by the process's end, also when it
    // was answered before, for an upgrade.
    let (mut overlapped, mut stopped) = (rests(&edge, 1), rests(&edge, 2));
    let mut upgraded = rests(&edge, 3);
    let mut socket = probe(&edge, &upgraded);
    assert_eq!(upgraded.post.answer().status, 200);
    say(&mut socket, "5");
    let second = edge.connect().ask("POST", overlapped.path(), &[], b"42[\"tell\"]");
    let begun = Instant::now();
    assert_eq!((second.status, overlapped.post.answer().status), (400, 400));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    edge.signal("TERM");
    assert_eq!(stopped.post.answer().status, 400);
    assert_eq!(listen(&mut socket), Heard::Closed(None));
    assert_eq!(edge.ended().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// Not as long as it rests, which is more than eight seconds.
#[test]
fn a_client_that_has_gone_is_noticed_while_its_post_rests() {
    let edge = Edge::start(&format!(
        "{PLAIN}hub:\n  ping: {{ interval: 400ms, timeout: 1s }}\n  \
         limits: {{ bytes: 100KB/s }}\n{NAMESPACES}"
    ));
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    let large = format!("42[\"tell\",\"{}\"]\x1e42[\"tell\"]", "x".repeat(950_000));
    let request = post(&poller, &large);
    poller.post.send(request);
    wait_for_metric(&edge, "vestibule_hub_held_total{by=\"bytes\"}", 1);
    let begun = Instant::now();
    drop(poller);
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"ping_timeout\"}", 1);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"polling\"}", 0);
}

/// Its client asks for nothing more until it is answered, and gives up without a ping.
#[test]
fn a_post_that_rests_holds_up_no_upgrade() {
    let edge = Edge::start(&format!(
        "{PLAIN}hub:\n  ping: {{ interval: 400ms, timeout: 1s }}\n  \
         limits: {{ events: 40/s, burst: 20 }}\n{NAMESPACES}"
    ));
    let tell = |number: u32| format!("42[\"tell\",{number}]");
    let mut hearer = Web::open(&edge);
    hearer.enter("/");
    let hearer = std::thread::spawn(move || {
        let mut heard = 0;
        while heard < 402 {
            match hearer.hear_all() {
                Heard::Text(text) if text == "2" => hearer.say("3"),
                Heard::Text(text) => {
                    assert_eq!(text, tell(heard));
                    heard += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    });
    // It came before the WebSocket, and while that is probed.
    for (first, early) in [(0, true), (201, false)] {
        let mut poller = Poller::open(&edge);
        poller.enter("/");
        let body = (0..200).map(|at| tell(first + at)).collect::<Vec<_>>().join("\x1e");
        let request = post(&poller, &format!("421[\"undeclared\"]\x1e{body}"));
        let mut socket = if early {
            poller.post.send(request);
            wait_for_metric(&edge, "vestibule_hub_held_total{by=\"events\"}", 1);
            probe(&edge, &poller)
        } else {
            let socket = probe(&edge, &poller);
            poller.post.send(request);
            socket
        };
        let (answered, begun) = (poller.post.answer(), Instant::now());
        assert_eq!((answered.status, answered.text().as_str()), (200, "ok"));
        say(&mut socket, "5");
        say(&mut socket, &tell(first + 200));
        say(&mut socket, "422[\"undeclared\"]");
        let (mut pings, mut acknowledged) = (0, Vec::new());
        while acknowledged != ["431", "432"] {
            match listen(&mut socket) {
                Heard::Text(text) if text == "2" => {
                    pings += 1;
                    say(&mut socket, "3");
                    // It has left that transport, and nothing waits there.
                    assert_eq!(poller.send("42[\"late\"]").status, 400);
                }
                Heard::Text(text) => {
                    acknowledged.extend(text.split_once('[').map(|(id, _)| id.to_owned()));
                }
                other => panic!("{other:?} after {:?}", begun.elapsed()),
            }
        }
        assert!(pings > 2 && begun.elapsed() > Duration::from_secs(3), "{pings} {early}");
    }
    hearer.join().expect("all of it, in its order");
}

/// The next POST, then, waits for what is left of the one before.
#[test]
fn what_was_answered_for_an_upgrade_that_never_came_is_taken_first() {
    let edge =
        Edge::start(&format!("{PLAIN}hub:\n  limits: {{ events: 40/s, burst: 20 }}\n{NAMESPACES}"));
    let tell = |number: u32| format!("42[\"tell\",{number}]");
    let mut hearer = Web::open(&edge);
    hearer.enter("/");
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    let socket = probe(&edge, &poller);
    let body = (0..100).map(tell).collect::<Vec<_>>().join("\x1e");
    assert_eq!(poller.send(body).text(), "ok");
    drop(socket);
    assert_eq!(poller.send([tell(100), tell(101)].join("\x1e")).text(), "ok");
    assert_eq!(poller.send(tell(102)).text(), "ok");
    (0..=102).for_each(|number| hearer.expect(&tell(number)));
}
