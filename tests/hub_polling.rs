//! Engine.IO and Socket.IO over long polling.

use std::time::{Duration, Instant};

use crate::harness::socketio::{
    Heard, Line as _, Poller, decode, hub, hub_only, metric, wait_for_metric, worker_of,
};
use crate::harness::{Edge, eventually};

#[test]
fn a_handshake_tells_five_things() {
    let edge =
        Edge::start(&hub_only("ping: { interval: 7s, timeout: 3s }\nlimits: { message: 2MB }"));
    let answer = edge.get(&hub("EIO=4&transport=polling&t=abc"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    let text = answer.text();
    let open: serde_json::Value = serde_json::from_str(&text[1..]).expect("JSON");
    let mut keys: Vec<_> = open.as_object().expect("an object").keys().collect();
    keys.sort();
    assert_eq!(keys, ["maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"]);
    assert_eq!(open["upgrades"], serde_json::json!(["websocket"]));
    assert_eq!(
        (open["pingInterval"].as_u64(), open["pingTimeout"].as_u64()),
        (Some(7000), Some(3000))
    );
    assert_eq!(open["maxPayload"], 2_000_000);
    let sid = open["sid"].as_str().expect("an id");
    assert_eq!(sid.len(), 20);
    assert!(sid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{sid}");
}

#[test]
fn an_id_names_node_and_worker_and_nothing_else() {
    let edge = Edge::start(&hub_only(""));
    let sids: Vec<String> = (0..40).map(|_| Poller::open(&edge).sid().to_owned()).collect();
    for sid in &sids {
        assert_eq!(sid[..3], sids[0][..3], "one node");
        assert!(['0', '1'].contains(&worker_of(sid)), "{sid}");
        let same = sids.iter().filter(|other| other[4..] == sid[4..]).count();
        assert_eq!(same, 1, "the rest is a secret of each");
    }
    // What one connection opens is one worker's.
    let mut client = edge.connect();
    let path = hub("EIO=4&transport=polling");
    let [one, two] = [0, 1].map(|_| client.get(&path).text()[9..29].to_owned());
    assert_eq!(one[..4], two[..4]);
    assert_ne!(one, two);
}

#[test]
fn messages_go_both_ways_and_wait_together() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = Poller::open(&edge);
    let answer = poller.send("40");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!(answer.header("content-type"), Some("text/html"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(matches!(poller.hear(), Heard::Text(text) if text.starts_with("40{\"sid\":\"")));
    // A GET waits for something to say.
    poller.begin_poll();
    poller.say("42[\"echo\",1]");
    assert_eq!(poller.polled().text(), "42[\"echo\",1]");
    // What one POST brought goes out in one answer.
    poller.begin_poll();
    poller.say("42[\"echo\",\"a\"]\x1e420[\"echo\",\"\u{20ac}\u{1f600}\"]\x1e42[\"echo\",{}]");
    let wanted = "42[\"echo\",\"a\"]\x1e42[\"echo\",\"\u{20ac}\u{1f600}\"]\x1e430[{\"ok\":true}]\x1e42[\"echo\",{}]";
    assert_eq!(poller.polled().text(), wanted);
    // Without a GET it waits as well.
    poller.say("42[\"echo\",1]");
    poller.say("42[\"echo\",2]");
    assert_eq!(poller.poll().text(), "42[\"echo\",1]\x1e42[\"echo\",2]");
}

#[test]
fn binary_parts_travel_in_base64() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    let event = "451-[\"echo\",{\"_placeholder\":true,\"num\":0}]";
    poller.begin_poll();
    poller.say(&format!("{event}\x1ebAQIDBA=="));
    let answer = poller.polled();
    assert_eq!(answer.text(), format!("{event}\x1ebAQIDBA=="));
    assert_eq!(decode(4, &answer)[1], Heard::Binary(vec![1, 2, 3, 4]));
    // Parts may come in requests of their own.
    poller.say(event);
    poller.say_bytes(&[255; 3000]);
    poller.expect(event);
    assert_eq!(poller.hear(), Heard::Binary(vec![255; 3000]));
}

#[test]
fn one_get_at_a_time() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    poller.begin_poll();
    // The second may overtake the first, so either is the one that is refused.
    let path = poller.path().to_owned();
    let second = poller.post.get(&path);
    let first = poller.polled();
    let mut answers = [(first.status, first.text()), (second.status, second.text())];
    answers.sort();
    assert_eq!(answers, [(200, "1".to_owned()), (400, String::new())]);
    assert_eq!(poller.status(), 400);
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"transport_error\"}", 1);
}

#[test]
fn one_post_at_a_time() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = Poller::open(&edge);
    let head =
        format!("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n", poller.path());
    let mut slow = edge.connect();
    slow.send(format!("{head}4"));
    // Whether the first has arrived shows in what the second is answered.
    let status = eventually("a refusal", || {
        let status = poller.send("6").status;
        (status != 200).then_some(status)
    });
    assert_eq!(status, 400);
    slow.send("0");
    assert_eq!(slow.answer().status, 400);
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"transport_error\"}", 1);
}

#[test]
fn a_client_that_breaks_off_is_gone() {
    let edge = Edge::start(&hub_only(""));
    let closes = "vestibule_hub_closes_total{reason=\"transport_error\"}";
    // A request whose end comes with it was never begun, so some tries may leave no trace.
    let mut kept = None;
    eventually("the end of a session with its GET", || {
        let mut poller = Poller::open(&edge);
        poller.enter("/");
        poller.begin_poll();
        kept = Some(poller);
        (metric(&edge, closes) > 0).then_some(())
    });
    drop(kept);
    // The same of a body that is cut off.
    let edge = Edge::start(&hub_only(""));
    let mut kept = None;
    eventually("the end of a session with its POST", || {
        let mut poller = Poller::open(&edge);
        let path = poller.path().to_owned();
        poller.post.send(format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n42"
        ));
        kept = Some(poller);
        (metric(&edge, closes) > 0).then_some(())
    });
}

#[test]
fn too_large_a_body_is_refused_and_the_session_stays() {
    let edge = Edge::start(&hub_only("limits: { message: 2KB }"));
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    for length in [2001, 9000] {
        let mut client = edge.connect();
        let answer = client.ask("POST", poller.path(), &[], &vec![b'4'; length]);
        assert_eq!((answer.status, answer.text().as_str()), (413, ""));
    }
    // Also when its length is not told before.
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        poller.path()
    );
    let mut client = edge.connect();
    client.send(format!("{head}7d1\r\n{}\r\n", "4".repeat(2001)));
    assert_eq!(client.answer().status, 413);
    let event = format!("42[\"echo\",\"{}\"]", "x".repeat(2000 - 13));
    assert_eq!(event.len(), 2000);
    poller.say(&event);
    poller.expect(&event);
}

#[test]
fn the_server_pings_and_wants_an_answer() {
    let edge = Edge::start(&hub_only("ping: { interval: 300ms, timeout: 2s }"));
    let begun = Instant::now();
    let mut poller = Poller::open(&edge);
    for count in 1..=3 {
        assert_eq!(poller.poll().text(), "2");
        let due = Duration::from_millis(300) * count;
        assert!(begun.elapsed() >= due - Duration::from_millis(5), "{:?}", begun.elapsed());
        poller.say("3");
    }
    assert_eq!(poller.poll().text(), "2");
    // No pong: the waiting GET hears of the end.
    let answer = poller.poll();
    assert_eq!((answer.status, answer.text().as_str()), (200, "1"));
    assert_eq!(poller.status(), 400);
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"ping_timeout\"}", 1);
    // Nor does a session live on that never asks.
    let mut silent = Poller::open(&edge);
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"ping_timeout\"}", 2);
    assert_eq!(silent.status(), 400);
}

#[test]
fn a_client_may_say_goodbye() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    // Answered, so the next one waits.
    poller.say("42[\"echo\"]");
    poller.poll();
    poller.begin_poll();
    poller.say("42[\"echo\"]");
    assert_eq!(poller.polled().text(), "42[\"echo\"]");
    poller.begin_poll();
    assert_eq!(poller.send("1").text(), "ok");
    let answer = poller.polled();
    assert_eq!((answer.status, answer.text().as_str()), (200, "6"));
    assert_eq!(poller.status(), 400);
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"transport_close\"}", 1);
}

#[test]
fn a_get_that_was_overtaken_by_the_goodbye_is_answered() {
    let edge = Edge::start(&hub_only(""));
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    assert_eq!(poller.send("1").text(), "ok");
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"polling\"}", 0);
    let answer = poller.poll();
    assert_eq!((answer.status, answer.text().as_str()), (200, "6"));
    assert_eq!(poller.status(), 400);
}
