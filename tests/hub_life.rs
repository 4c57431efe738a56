//! The hub under a reload and at the end of the process.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::socketio::{
    Heard, Line as _, Poller, Web, connection_on, hub_only, listen, wait_for_metric, web_on,
};
use crate::harness::{Edge, PLAIN, eventually};

#[test]
fn a_namespace_that_is_taken_away_is_left() {
    let mut edge = Edge::start(&hub_only(""));
    let mut webs = ['0', '1'].map(|worker| Web::over(connection_on(&edge, worker), "EIO=4"));
    let mut poller = Poller::open(&edge);
    for web in &mut webs {
        web.enter("/");
        web.enter("/chat");
    }
    poller.enter("/chat");
    poller.begin_poll();
    let without = hub_only("").replace("/chat:", "/other:");
    assert!(edge.reload_with(&without).contains("generation 2"));
    assert_eq!(poller.polled().text(), "41/chat,");
    for web in &mut webs {
        web.expect("41/chat,");
        // What was on its way is no offence; a new try is refused.
        web.say("42/chat,1[\"message\",{\"room\":\"a\"}]");
        web.say("40/chat,");
        web.expect("44/chat,{\"message\":\"Invalid namespace\"}");
        // Its neighbour has noticed nothing, and the new one is open.
        web.say("427[\"undeclared\"]");
        web.expect("437[{\"error\":{\"code\":\"unknown_event\"}}]");
        web.enter("/other");
        web.say("42/other,1[\"join\",\"a\"]");
        web.expect("43/other,1[{\"ok\":true}]");
        web.say("41");
    }
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/\"}", 0);
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/chat\"}", 0);
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/other\"}", 2);
    // And back.
    edge.reload_with(&hub_only(""));
    for web in &mut webs {
        web.expect("41/other,");
        web.enter("/chat");
    }
    assert_eq!(poller.send("40/chat,").text(), "ok");
    assert!(poller.text().starts_with("40/chat,{"));
}

#[test]
fn new_rules_hold_for_who_is_here() {
    let mut edge = Edge::start(&hub_only(""));
    let mut web = Web::open(&edge);
    web.enter("/chat");
    web.say("42/chat,1[\"join\",\"a\"]");
    web.expect("43/chat,1[{\"ok\":true}]");
    web.say("42/chat,2[\"forbidden\",{\"room\":\"a\"}]");
    web.expect("43/chat,2[{\"error\":{\"code\":\"denied\"}}]");
    let allowed = hub_only("limits: { message: 2KB }")
        .replace("forbidden: deny", "forbidden: { relay: 'room:{0.room}', echo: true }");
    edge.reload_with(&allowed);
    // Still in its room.
    web.say("42/chat,[\"forbidden\",{\"room\":\"a\"}]");
    web.expect("42/chat,[\"forbidden\",{\"room\":\"a\"}]");
    web.say(&"4".repeat(2001));
    assert_eq!(web.hear(), Heard::Closed(Some(1009)));
}

#[test]
fn a_hub_that_is_taken_away_closes() {
    let mut edge = Edge::start(&hub_only(""));
    let mut web = Web::open(&edge);
    web.enter("/");
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    poller.begin_poll();
    let yaml = format!("{PLAIN}sites:\n  localhost:\n    next: http://127.0.0.1:9\n");
    edge.reload_with(&yaml);
    // There is nothing to come back to.
    web.expect("41");
    assert_eq!(web.hear(), Heard::Closed(None));
    // Unless the GET came after it, and the application has its path.
    let answer = poller.polled();
    assert!(answer.status == 503 || answer.text() == "41\u{1e}1", "{answer:?}");
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"forced\"}", 2);
}

#[test]
fn at_the_end_transports_close_and_nobody_is_disconnected() {
    let mut edge = Edge::start(&hub_only(""));
    let mut webs: Vec<Web> = (0..10).map(|_| Web::open(&edge)).collect();
    webs.iter_mut().for_each(|web| drop(web.enter("/")));
    let mut pollers: Vec<Poller> = (0..10).map(|_| Poller::open(&edge)).collect();
    for poller in &mut pollers {
        poller.enter("/");
        poller.begin_poll();
    }
    let mut probing = Poller::open(&edge);
    probing.enter("/");
    let mut socket = probing.dial(edge.connect()).expect("a 101");
    socket.send("2probe".into()).expect("sent");
    assert_eq!(listen(&mut socket), Heard::Text("3probe".to_owned()));
    // What was said before is heard before the end.
    webs[0].say("42[\"tell\",\"last\"]");
    webs[1].expect("42[\"tell\",\"last\"]");
    let yaml = format!("{}\nshutdown: {{ grace: 10s }}\n", hub_only("drain: { over: 100ms }"));
    edge.reload_with(&yaml);
    let begun = Instant::now();
    edge.signal("TERM");
    for web in &mut webs[2..] {
        web.expect("42[\"tell\",\"last\"]");
        // No 41: that would make the client give up for good.
        assert_eq!(web.hear(), Heard::Closed(None));
    }
    for poller in &mut pollers {
        let answer = poller.polled();
        assert_eq!(answer.status, 200);
        assert!(
            ["1", "42[\"tell\",\"last\"]", "42[\"tell\",\"last\"]\x1e1"]
                .contains(&answer.text().as_str()),
            "{answer:?}"
        );
    }
    assert_eq!(listen(&mut socket), Heard::Closed(None));
    drop(webs);
    assert_eq!(edge.ended().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn clients_are_closed_over_the_time_that_the_file_says() {
    let yaml = format!("{}\nshutdown: {{ grace: 30s }}\n", hub_only("drain: { over: 4s }"));
    let mut edge = Edge::start(&yaml);
    let mut webs: Vec<Web> = (0..40).map(|_| Web::open(&edge)).collect();
    webs.iter_mut().for_each(|web| drop(web.enter("/")));
    let begun = Instant::now();
    edge.signal("TERM");
    let ends: Vec<Duration> = std::thread::scope(|scope| {
        let waits: Vec<_> = webs
            .into_iter()
            .map(|mut web| {
                scope.spawn(move || {
                    assert_eq!(web.hear(), Heard::Closed(None));
                    begun.elapsed()
                })
            })
            .collect();
        waits.into_iter().map(|wait| wait.join().expect("an end")).collect()
    });
    // The signal takes its time as well.
    let first = *ends.iter().min().expect("some");
    let ends: Vec<Duration> = ends.iter().map(|end| *end - first).collect();
    assert!(first < Duration::from_secs(3), "at once: {first:?}");
    let last = *ends.iter().max().expect("some");
    assert!(last > Duration::from_secs(3) && last < Duration::from_secs(7), "{ends:?}");
    let early = ends.iter().filter(|end| **end < Duration::from_secs(2)).count();
    assert!((8..=32).contains(&early), "half of them in half of the time: {ends:?}");
    assert_eq!(edge.ended().code(), Some(0));
}

#[test]
fn nobody_new_comes_in_while_it_ends() {
    let yaml = format!("{}\nshutdown: {{ grace: 10s }}\n", hub_only("drain: { over: 5s }"));
    let mut edge = Edge::start(&yaml);
    let mut firsts = ['0', '1'].map(|worker| Web::over(connection_on(&edge, worker), "EIO=4"));
    let mut pollers: Vec<Poller> = (0..10).map(|_| Poller::open(&edge)).collect();
    edge.signal("TERM");
    // The first on each worker is closed at once, the others over the time.
    for web in &mut firsts {
        assert_eq!(web.hear(), Heard::Closed(None));
    }
    let address = edge.http();
    eventually("a closed listener", || TcpStream::connect(address).is_err().then_some(()));
    assert!(pollers.iter_mut().all(|poller| poller.get.is_closed()), "idle connections are closed");
    edge.signal("TERM");
    assert_eq!(edge.ended().code(), Some(0));
}

/// The workers close their own clients, each over the whole time: one has nobody left at once, and
/// still has its part in what the others hear.
#[test]
fn who_is_closed_last_hears_until_then() {
    // No more than a part of the grace is used for it.
    let yaml = format!("{}\nshutdown: {{ grace: 100s }}\n", hub_only("drain: { over: 60s }"));
    let mut edge = Edge::start(&yaml);
    let [mut alone, mut first, mut last] = ['0', '1', '1'].map(|worker| web_on(&edge, worker));
    for web in [&mut alone, &mut first, &mut last] {
        web.enter("/");
    }
    edge.signal("TERM");
    edge.wait_for_notify("STOPPING=1");
    for web in [&mut alone, &mut first] {
        assert_eq!(web.hear(), Heard::Closed(None));
    }
    // Nothing holds the first worker, but that it has its part.
    drop((alone, first));
    // More than would wait for a worker that does not hear.
    for number in 0..5000 {
        last.say(&format!("42[\"all\",{number}]"));
    }
    for number in 0..5000 {
        last.expect(&format!("42[\"all\",{number}]"));
    }
    let emit = br#"{"namespace":"/","event":"news"}"#;
    let answer = edge.admin_with("POST", "/hub/emit", emit);
    assert_eq!((answer.status, answer.json()), (200, json!({ "sockets": 1 })));
    last.expect("42[\"news\"]");
    let count = edge.admin("GET", "/hub/count?namespace=/").json();
    assert_eq!(count["sockets"], 1);
}
