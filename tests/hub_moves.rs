//! Another binary takes over while clients talk: they move one by one, and lose nothing.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use crate::cluster::UP;
use crate::harness::node::Script;
use crate::harness::redis::Redis;
use crate::harness::socketio::{Heard, Line as _, Web, hub_only, wait_for_metric};
use crate::harness::{Edge, Origin, PLAIN, eventually, is_gone};
use crate::hub_recovery::{
    WORKERS, Who, come_back, enter, events, numbers, offset_of, other, outcomes, tell, web_on,
};
use crate::takeover::load;

/// The first session of each worker is closed at once, the second in the middle of the time.
fn edge(over: &str) -> Edge {
    Edge::start(&hub_only(&format!("recovery: 20s\ndrain: {{ over: {over} }}")))
}

/// A client, who it is, and the offset of the last event that it has.
struct Member {
    web: Web,
    who: Who,
    has: Option<String>,
}

impl Member {
    fn on(edge: &Edge, worker: char) -> Self {
        let mut web = web_on(edge, worker);
        let who = enter(&mut web, "/");
        Self { web, who, has: None }
    }

    #[track_caller]
    fn hears(&mut self, count: std::ops::Range<usize>) {
        for event in numbers(count) {
            self.has = Some(offset_of(&mut self.web, &event));
        }
    }

    /// Its connection ends, and it comes back on another worker, as who it was, with what it missed.
    #[track_caller]
    fn moves(&mut self, edge: &Edge, worker: char, missed: std::ops::Range<usize>) {
        assert_eq!(self.web.hear(), Heard::Closed(None));
        self.comes_back(edge, worker, missed);
    }

    #[track_caller]
    fn comes_back(&mut self, edge: &Edge, worker: char, missed: std::ops::Range<usize>) {
        let mut web = web_on(edge, worker);
        let (sent, who) = come_back(&mut web, &self.who.pid, self.has.as_deref());
        assert_eq!((events(&sent), &who), (numbers(missed), &self.who));
        self.has = sent.last().map(|text| offset(text)).or(self.has.take());
        self.web = web;
    }
}

fn offset(event: &str) -> String {
    event.rsplit('"').nth(1).expect("an offset").to_owned()
}

#[test]
fn while_clients_move_both_processes_are_one_audience() {
    let mut edge = edge("16s");
    let mut firsts = WORKERS.map(|worker| Member::on(&edge, worker));
    let mut lasts = WORKERS.map(|worker| Member::on(&edge, worker));
    tell(&mut lasts[0].web, 0..3);
    firsts.iter_mut().chain(&mut lasts[1..]).for_each(|member| member.hears(0..3));
    edge.upgrade();
    for member in &mut firsts {
        assert_eq!(member.web.hear(), Heard::Closed(None));
    }
    // Said in the old process while they are nowhere.
    tell(&mut lasts[1].web, 3..6);
    lasts[0].hears(3..6);
    for (member, worker) in firsts.iter_mut().zip(WORKERS) {
        member.comes_back(&edge, other(worker), 3..6);
    }
    assert_eq!(outcomes(&edge, "recovered"), 2);
    // From the new one to the old one, and the other way.
    tell(&mut firsts[0].web, 6..8);
    firsts[1..].iter_mut().chain(&mut lasts).for_each(|member| member.hears(6..8));
    tell(&mut lasts[0].web, 8..10);
    firsts.iter_mut().chain(&mut lasts[1..]).for_each(|member| member.hears(8..10));
    // What the last of them heard last began in the new process.
    tell(&mut firsts[1].web, 10..11);
    firsts[..1].iter_mut().chain(&mut lasts).for_each(|member| member.hears(10..11));
    for (member, worker) in lasts.iter_mut().zip(WORKERS) {
        member.moves(&edge, worker, 0..0);
    }
    assert_eq!(edge.ended().code(), Some(0), "nobody is left to move");
    // Whoever was moved can be cut off again, also where nobody knows the old process any more.
    for (member, worker) in firsts.iter_mut().chain(&mut lasts).zip(WORKERS.repeat(2)) {
        member.comes_back(&edge, other(worker), 0..0);
    }
    tell(&mut lasts[0].web, 11..13);
    firsts.iter_mut().chain(&mut lasts[1..]).for_each(|member| member.hears(11..13));
    assert_eq!(outcomes(&edge, "recovered"), 8);
}

#[test]
fn who_comes_before_its_old_connection_is_closed_is_let_in() {
    let mut edge = edge("60s");
    let _firsts = WORKERS.map(|worker| web_on(&edge, worker));
    let mut talker = Member::on(&edge, '0');
    let mut member = Member::on(&edge, '1');
    tell(&mut talker.web, 0..4);
    // It has read two of four when its network changes.
    member.hears(0..2);
    edge.upgrade();
    let mut old = std::mem::replace(&mut member.web, web_on(&edge, '0'));
    member.comes_back(&edge, '0', 2..4);
    old.expect(&format!("42[\"tell\",2,\"{}\"]", old_offset(&member, 2)));
    old.text();
    assert_eq!(old.hear(), Heard::Closed(None), "there is one of it");
    tell(&mut talker.web, 4..5);
    member.hears(4..5);
}

/// The offset of the event `number`, as all of them rise by one.
fn old_offset(member: &Member, number: usize) -> String {
    let last = member.has.as_deref().expect("an offset");
    let (head, digit) = last.split_at(last.len() - 1);
    let digit: usize = digit.parse().expect("a small number");
    format!("{head}{}", digit + number - 3)
}

#[test]
fn if_the_old_process_dies_its_clients_begin_anew_and_nobody_else_notices() {
    let mut edge = edge("60s");
    let mut first = Member::on(&edge, '0');
    let mut last = Member::on(&edge, '0');
    let old = edge.pid();
    edge.upgrade();
    first.moves(&edge, '1', 0..0);
    let killed = Command::new("kill").arg("-KILL").arg(old.to_string()).status();
    assert!(killed.expect("kill").success());
    eventually("its end", || is_gone(old).then_some(()));
    assert_eq!(last.web.hear(), Heard::Closed(None));
    let mut web = web_on(&edge, '1');
    let (missed, who) = come_back(&mut web, &last.who.pid, None);
    assert!(missed.is_empty() && who.sid != last.who.sid && who.pid != last.who.pid);
    tell(&mut web, 0..2);
    first.hears(0..2);
}

#[test]
fn a_second_upgrade_hurries_those_who_have_not_moved_yet() {
    let mut edge = edge("60s");
    let _firsts = WORKERS.map(|worker| web_on(&edge, worker));
    let mut member = Member::on(&edge, '0');
    let mut talker = Member::on(&edge, '1');
    tell(&mut talker.web, 0..2);
    member.hears(0..2);
    edge.upgrade();
    let begun = Instant::now();
    edge.signal("USR2");
    member.moves(&edge, '1', 0..0);
    talker.moves(&edge, '0', 0..0);
    edge.upgraded();
    assert!(begun.elapsed().as_secs() < 30, "it did not wait for a minute");
    member.moves(&edge, '1', 0..0);
    talker.moves(&edge, '0', 0..0);
    tell(&mut talker.web, 2..4);
    member.hears(2..4);
}

/// The same hub over a Redis that other nodes share.
fn shared(redis: &Redis, adapter: &str, over: &str) -> String {
    let redis = format!("redis: {{ url: '{}', adapter: {adapter} }}", redis.url());
    hub_only(&format!("{redis}\nrecovery: 20s\ndrain: {{ over: {over} }}"))
}

/// Pub/sub has no order that all nodes share; streams have, and go another way.
const PUBSUB: [&str; 2] = ["classic", "sharded"];

#[test]
fn over_redis_clients_move_with_what_other_nodes_say() {
    for adapter in PUBSUB {
        let redis = Redis::start();
        let yaml = shared(&redis, adapter, "16s");
        let (mut edge, far) = (Edge::start(&yaml), Edge::start(&yaml));
        wait_for_metric(&edge, UP, 1);
        wait_for_metric(&far, UP, 1);
        let mut firsts = WORKERS.map(|worker| Member::on(&edge, worker));
        let mut lasts = WORKERS.map(|worker| Member::on(&edge, worker));
        let mut afar = Member::on(&far, '0');
        tell(&mut afar.web, 0..3);
        firsts.iter_mut().chain(&mut lasts).for_each(|member| member.hears(0..3));
        tell(&mut lasts[0].web, 3..5);
        firsts.iter_mut().chain(&mut lasts[1..]).for_each(|member| member.hears(3..5));
        afar.hears(3..5);
        edge.upgrade();
        for member in &mut firsts {
            assert_eq!(member.web.hear(), Heard::Closed(None));
        }
        wait_for_metric(&edge, UP, 1);
        // Said on another node and in the old process while they are nowhere.
        tell(&mut afar.web, 5..8);
        lasts.iter_mut().for_each(|member| member.hears(5..8));
        tell(&mut lasts[1].web, 8..10);
        lasts[0].hears(8..10);
        afar.hears(8..10);
        for (member, worker) in firsts.iter_mut().zip(WORKERS) {
            member.comes_back(&edge, other(worker), 5..10);
        }
        // Each hears each other once, whichever way there is.
        tell(&mut firsts[0].web, 10..12);
        firsts[1..].iter_mut().chain(&mut lasts).for_each(|member| member.hears(10..12));
        afar.hears(10..12);
        tell(&mut lasts[0].web, 12..14);
        firsts.iter_mut().chain(&mut lasts[1..]).for_each(|member| member.hears(12..14));
        afar.hears(12..14);
        tell(&mut afar.web, 14..17);
        firsts.iter_mut().chain(&mut lasts).for_each(|member| member.hears(14..17));
        for (member, worker) in lasts.iter_mut().zip(WORKERS) {
            member.moves(&edge, worker, 0..0);
        }
        assert_eq!(edge.ended().code(), Some(0), "nobody is left to move");
        for (member, worker) in firsts.iter_mut().chain(&mut lasts).zip(WORKERS.repeat(2)) {
            member.comes_back(&edge, other(worker), 0..0);
        }
        tell(&mut afar.web, 17..19);
        firsts.iter_mut().chain(&mut lasts).for_each(|member| member.hears(17..19));
        assert_eq!(outcomes(&edge, "recovered"), 8, "{adapter}");
    }
}

#[test]
fn without_redis_at_the_moment_clients_move_and_begin_anew() {
    let mut redis = Redis::start();
    let mut edge = Edge::start(&shared(&redis, "classic", "10s"));
    wait_for_metric(&edge, UP, 1);
    let mut members = WORKERS.map(|worker| Member::on(&edge, worker));
    redis.kill();
    edge.upgrade();
    for (member, worker) in members.iter_mut().zip(WORKERS) {
        assert_eq!(member.web.hear(), Heard::Closed(None));
        let mut web = web_on(&edge, worker);
        let (missed, who) = come_back(&mut web, &member.who.pid, None);
        assert!(missed.is_empty() && who.pid != member.who.pid, "{missed:?}");
        member.web = web;
    }
    tell(&mut members[0].web, 0..2);
    members[1].hears(0..2);
}

const CLIENTS: i64 = 12;

#[test]
fn twenty_upgrades_and_a_hundred_reloads_lose_stock_clients_nothing() {
    let origin = Origin::text("answer");
    let yaml = hub_only("recovery: 30s\ndrain: { over: 400ms }");
    upgrades(&yaml, &origin, None, 20);
}

/// Half of the crowd is on a node that stays as it is.
#[test]
fn over_redis_upgrades_lose_stock_clients_nothing() {
    for adapter in PUBSUB {
        let (origin, redis) = (Origin::text("answer"), Redis::start());
        let yaml = shared(&redis, adapter, "400ms");
        let far = Edge::start(&yaml);
        wait_for_metric(&far, UP, 1);
        upgrades(&yaml, &origin, Some(&far), 8);
    }
}

/// A crowd of stock clients talks, and an application is asked, while one process after the other
/// takes over; half of the crowd is on `far`, if there is one.
fn upgrades(yaml: &str, origin: &Origin, far: Option<&Edge>, rounds: i64) {
    let site = format!("{PLAIN}sites:\n  localhost:\n    next: {}\n", origin.url());
    let mut edge = Edge::start(&yaml.replace(PLAIN, &site));
    if far.is_some() {
        wait_for_metric(&edge, UP, 1);
    }
    let here = if far.is_some() { CLIENTS / 2 } else { CLIENTS };
    let address = edge.http();
    let other = far.map_or(address, Edge::http);
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let asking: Vec<_> = [true, false]
        .map(|keep| {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            std::thread::spawn(move || load(address, keep, &stop, &count))
        })
        .into();
    let url = format!("http://localhost:{}", address.port());
    let (clients, other) = (CLIENTS.to_string(), format!("http://localhost:{}", other.port()));
    let options = [
        ("URL", url.as_str()),
        ("OTHER", &other),
        ("CLIENTS", &clients),
        ("TRANSPORTS", "websocket"),
    ];
    let mut crowd = Script::start("moving.mjs", &options);
    crowd.wait_for("\"event\":\"ready\"");
    for round in 0..rounds {
        for _ in 0..5 {
            edge.reload();
        }
        let before = edge.pid();
        edge.upgrade();
        eventually("the end of the process before", || is_gone(before).then_some(()));
        let all = || (outcomes(&edge, "recovered") == here).then_some(());
        eventually(&format!("all recovered, {round}"), all);
    }
    crowd.tell("stop");
    let said = crowd.finish();
    stop.store(true, Ordering::Relaxed);
    asking.into_iter().for_each(|asking| asking.join().expect("no request failed"));
    let summary = said.lines().find(|line| line.contains("\"event\":\"summary\"")).expect(&said);
    let summary: Value = serde_json::from_str(summary).expect("JSON");
    eprintln!("{summary}, {} requests", count.load(Ordering::Relaxed));
    for (word, wanted) in [
        ("recovered", rounds * here),
        ("anew", 0),
        ("connect_errors", 0),
        ("out_of_order", 0),
        ("refused", 0),
        ("gaps", 0),
        ("duplicates", 0),
    ] {
        assert_eq!(summary[word], wanted, "{word}\n{said}");
    }
    assert_eq!(summary["sent"], summary["acked"], "{said}");
}

/// A room whose members are told who comes and goes.
const WATCHED: &str = r#"hub:
  recovery: 20s
  drain: { over: 20m }
  namespaces:
    /:
      auth: none
      presence: ['room:*']
      events:
        join: { join: "room:{0}" }
        who: { presence: "room:{0}" }
        "*": { relay: "*" }
"#;

/// A member of the room, and its id.
fn in_room(edge: &Edge, worker: char) -> (Web, String) {
    let mut web = web_on(edge, worker);
    let who = enter(&mut web, "/");
    web.say("421[\"join\",\"a\"]");
    web.expect("431[{\"ok\":true}]");
    (web, who.sid)
}

/// What comes until the hub tells that so many are in the room since this one came or went; what else
/// it told is passed over.
#[track_caller]
fn hears_of(web: &mut Web, count: u64, who: &str) {
    loop {
        let text = web.text();
        let told: Value = serde_json::from_str(text.strip_prefix("42").expect(&text)).expect("it");
        assert_eq!(told[0], "presence", "{text}");
        if told[1]["count"] == count && text.contains(who) {
            return;
        }
    }
}

/// The next that begins so; before it comes nothing but what the hub tells of the room.
#[track_caller]
fn next_of(web: &mut Web, start: &str) -> String {
    loop {
        let text = web.text();
        if text.starts_with(start) {
            return text;
        }
        assert!(text.starts_with("42[\"presence\""), "{text}");
    }
}

fn asked(edge: &Edge, path: &str) -> Value {
    edge.admin("GET", &format!("/hub/{path}")).json()
}

fn done(edge: &Edge, operation: &str, words: &Value) -> Value {
    edge.admin_with("POST", &format!("/hub/{operation}"), words.to_string().as_bytes()).json()
}

/// Who is in the room, as the operator is told.
fn listed(edge: &Edge) -> Vec<String> {
    let listed = asked(edge, "sockets?namespace=/&room=room:a");
    let sockets = listed["sockets"].as_array().unwrap_or_else(|| panic!("{listed}")).iter();
    sockets.map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn while_clients_move_the_operator_and_rooms_see_both_processes() {
    let mut edge = Edge::start(&format!("{PLAIN}{WATCHED}"));
    let mut stay: Vec<_> = ['0', '0', '1', '1'].map(|worker| in_room(&edge, worker)).into();
    stay.iter_mut().for_each(|(web, _)| hears_of(web, 4, ""));
    edge.upgrade();
    eventually("clients to be sent away", || edge.log().contains("stopping").then_some(()));
    let (mut carol, c) = in_room(&edge, '0');
    // The first session of each worker is closed at once, which may be one of these, and the next
    // only minutes later.
    let all = listed(&edge);
    stay.retain(|(_, id)| all.contains(id));
    let [(alice, a), (bob, b), ..] = &mut stay[..] else { panic!("two stay") };
    let count = all.len() as u64;
    assert!((3..=5).contains(&count) && all.contains(&c), "{all:?}");
    for web in [&mut *alice, &mut *bob, &mut carol] {
        hears_of(web, count, &c);
    }
    for web in [&mut *alice, &mut carol] {
        web.say("422[\"who\",\"a\"]");
        let text = next_of(web, "43");
        let answer: Value = serde_json::from_str(&text[3..]).expect("JSON");
        let ids = answer[0]["members"].as_array().expect("a list").iter();
        assert!(ids.map(|one| &one["id"]).eq(&all), "{text}");
    }
    // The operator asks the new process.
    assert_eq!(listed(&edge), all);
    assert_eq!(asked(&edge, "count?namespace=/&room=room:a")["sockets"], count);
    assert_eq!(asked(&edge, "rooms?namespace=/")["rooms"][0]["sockets"], count);
    // In one line: whoever has joined hears what is said next, and who has left does not.
    let batch = json!([
        {"op": "join", "namespace": "/", "to": "room:a", "rooms": "b"},
        {"op": "emit", "namespace": "/", "to": "b", "event": "one"},
        {"op": "leave", "namespace": "/", "sid": b, "rooms": "b"},
        {"op": "emit", "namespace": "/", "to": "b", "event": "two"},
        {"op": "emit", "namespace": "/", "to": "room:a", "event": "three"},
    ]);
    let counts = done(&edge, "batch", &batch);
    let counts = counts.as_array().unwrap_or_else(|| panic!("{counts}")).iter();
    assert!(counts.map(|one| &one["sockets"]).eq(&[count, count, 1, count - 1, count]));
    let every = &["one", "two", "three"][..];
    for (web, events) in [(&mut *alice, every), (&mut *bob, &["one", "three"]), (&mut carol, every)]
    {
        for event in events {
            next_of(web, &format!("42[\"{event}\""));
        }
    }
    let sent_away = json!({"namespace": "/", "sid": a});
    assert_eq!(done(&edge, "disconnect", &sent_away)["sockets"], 1);
    alice.expect("41");
    for web in [&mut *bob, &mut carol] {
        hears_of(web, count - 1, a);
    }
    // Whoever is cut off with the old process is in no room any more.
    let new = std::fs::read_to_string(format!("/proc/{}/stat", edge.pid())).expect("a process");
    let old = new.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
    let killed = Command::new("kill").args(["-KILL", old.expect("its parent")]).status();
    assert!(killed.expect("kill").success());
    hears_of(&mut carol, 1, b);
    assert_eq!(asked(&edge, "count?namespace=/")["sockets"], 1);
}
