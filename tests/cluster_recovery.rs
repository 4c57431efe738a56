//! Clients that are cut from one node and go on at another, with what they missed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cluster::{UP, post};
use crate::cluster_nodes::node;
use crate::harness::cluster::{Peer, wait_for_readers};
use crate::harness::redis::Redis;
use crate::harness::socketio::{Heard, Line, Poller, Web, hub_only, metric, wait_for_metric};
use crate::harness::{Client, Edge, eventually};

/// What a client must know to come back, and who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Who {
    sid: String,
    pid: String,
}

fn start(redis: &Redis) -> Edge {
    node(redis, "streams", "recovery: 1m")
}

fn who(answer: &str) -> Who {
    let words: Value =
        serde_json::from_str(answer.strip_prefix("40/chat,").expect("in")).expect("JSON");
    let word = |name: &str| words[name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    Who { sid: word("sid"), pid: word("pid") }
}

fn enter(line: &mut impl Line) -> Who {
    line.say("40/chat,");
    who(&line.text())
}

/// Until what it would leave is in Redis: whoever is cut before that begins anew elsewhere.
fn wait_until_kept(redis: &Redis, who: &Who, words: &str) {
    let key = format!("sio:session:{}", who.pid);
    eventually("the session", || {
        let kept = STANDARD.decode(redis.ask(&["get", &key])).expect("base64");
        let kept = String::from_utf8_lossy(&kept).into_owned();
        (kept.contains(&who.sid) && kept.contains(words)).then_some(())
    });
}

fn join(line: &mut impl Line, room: &str) {
    line.say(&format!("42/chat,9[\"join\",\"{room}\"]"));
    line.expect("43/chat,9[{\"ok\":true}]");
}

/// Comes back; what was missed, and who the client is now.
fn come_back(line: &mut impl Line, pid: &str, offset: Option<&str>) -> (Vec<i64>, Who) {
    let mut auth = json!({ "pid": pid });
    if let Some(offset) = offset {
        auth["offset"] = json!(offset);
    }
    line.say(&format!("40/chat,{auth}"));
    let mut missed = Vec::new();
    loop {
        let text = line.text();
        if text.starts_with("40") {
            return (missed, who(&text));
        }
        missed.push(number(&text).0);
    }
}

/// What was said, and its offset.
fn number(text: &str) -> (i64, String) {
    let words: Value =
        serde_json::from_str(text.strip_prefix("42/chat,").unwrap_or_else(|| panic!("{text}")))
            .expect("JSON");
    let said = words[1]["n"].as_i64().or(words[1].as_i64());
    let offset = words.as_array().and_then(|words| words.last()?.as_str()).expect("an offset");
    (said.expect("a number"), offset.to_owned())
}

fn hear(line: &mut impl Line) -> (i64, String) {
    number(&line.text())
}

/// To everybody in the namespace.
fn tell(edge: &Edge, numbers: std::ops::Range<i64>) {
    for number in numbers {
        post(edge, "emit", &json!({"namespace": "/chat", "event": "n", "args": [number]}));
    }
}

/// To a room that the speaker is in; each is acknowledged.
fn say(line: &mut impl Line, room: &str, numbers: std::ops::Range<i64>) {
    for number in numbers {
        line.say(&format!("42/chat,7[\"message\",{{\"room\":\"{room}\",\"n\":{number}}}]"));
        line.expect("43/chat,7[{\"ok\":true}]");
    }
}

fn is_place(offset: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    offset.split_once('-').is_some_and(|(time, count)| digits(time) && digits(count))
}

fn recovered(edge: &Edge) -> i64 {
    metric(edge, "vestibule_hub_recoveries_total{outcome=\"recovered\"}")
}

#[test]
fn who_is_cut_from_one_node_goes_on_at_another() {
    let redis = Redis::start();
    let (one, two) = (start(&redis), start(&redis));
    let (mut alice, mut bob) = (Web::open(&one), Web::open(&two));
    let (_, before) = (enter(&mut alice), enter(&mut bob));
    join(&mut alice, "r");
    join(&mut bob, "r");
    wait_until_kept(&redis, &before, "room:r");
    say(&mut alice, "r", 0..3);
    let mut last = String::new();
    for number in 0..3 {
        let (heard, offset) = hear(&mut bob);
        assert_eq!(heard, number);
        assert!(is_place(&offset), "{offset}");
        last = offset;
    }
    drop(bob);
    wait_for_metric(&two, "vestibule_hub_sockets{namespace=\"/chat\"}", 0);
    say(&mut alice, "r", 3..6);
    let mut bob = Web::open(&one);
    let (missed, again) = come_back(&mut bob, &before.pid, Some(&last));
    assert_eq!((missed, &again), (vec![3, 4, 5], &before));
    say(&mut alice, "r", 6..8);
    assert_eq!((hear(&mut bob).0, hear(&mut bob).0), (6, 7));
    // And back again, over polling, having heard nothing of it.
    wait_until_kept(&redis, &before, "room:r");
    drop(bob);
    wait_for_metric(&one, "vestibule_hub_sockets{namespace=\"/chat\"}", 1);
    say(&mut alice, "r", 8..9);
    let mut bob = Poller::open(&two);
    let (missed, again) = come_back(&mut bob, &before.pid, Some(&last));
    assert_eq!((missed, &again), (vec![3, 4, 5, 6, 7, 8], &before));
    say(&mut alice, "r", 9..10);
    assert_eq!(hear(&mut bob).0, 9);
    assert_eq!((recovered(&one), recovered(&two)), (1, 1));
}

#[test]
fn a_crash_loses_nothing() {
    let redis = Redis::start();
    let (one, two) = (start(&redis), start(&redis));
    let mut alice = Web::open(&one);
    enter(&mut alice);
    join(&mut alice, "r");
    let mut crowd: Vec<_> = (0..8)
        .map(|_| {
            let mut web = Web::open(&two);
            let who = enter(&mut web);
            join(&mut web, "r");
            (web, who, None)
        })
        .collect();
    say(&mut alice, "r", 0..5);
    // Some have heard all of it, some a part, some nothing.
    for (index, (web, _, offset)) in (0..).zip(&mut crowd) {
        for number in 0..index.min(5) {
            let (heard, at) = hear(web);
            assert_eq!(heard, number);
            *offset = Some(at);
        }
    }
    crowd.iter().for_each(|(_, who, _)| wait_until_kept(&redis, who, "room:r"));
    two.signal("KILL");
    say(&mut alice, "r", 5..8);
    // One that was there all the time, and one that has just come.
    let three = start(&redis);
    for (index, (web, before, offset)) in (0..).zip(crowd) {
        drop(web);
        let edge = if index % 2 == 0 { &one } else { &three };
        let mut web = Web::open(edge);
        let (missed, again) = come_back(&mut web, &before.pid, offset.as_deref());
        let wanted: Vec<i64> = (index.min(5)..8 + index).collect();
        assert_eq!((missed, &again), (wanted, &before), "{index}");
        // Twice in a row, too: what it is sent then it has.
        let told = 8 + index;
        say(&mut alice, "r", told..told + 1);
        let (heard, offset) = hear(&mut web);
        assert_eq!(heard, told);
        wait_until_kept(&redis, &again, "room:r");
        drop(web);
        let mut web = Web::open(edge);
        assert_eq!(come_back(&mut web, &again.pid, Some(&offset)).0, Vec::<i64>::new());
    }
}

/// As a node does that had no answer from its Redis: the same words, later in the stream.
fn repeat_last(redis: &Redis) {
    let entry = redis.ask(&["xrevrange", "socket.io", "+", "-", "count", "1"]);
    let words: Vec<&str> = entry.lines().skip(1).collect();
    redis.ask(&[&["xadd", "socket.io", "*"], &words[..]].concat());
}

#[test]
fn what_was_said_again_comes_once() {
    let redis = Redis::start();
    let (one, two) = (start(&redis), start(&redis));
    let mut bob = Web::open(&two);
    let before = enter(&mut bob);
    tell(&one, 0..2);
    assert_eq!(hear(&mut bob).0, 0);
    let (_, offset) = hear(&mut bob);
    repeat_last(&redis);
    tell(&one, 2..3);
    assert_eq!(hear(&mut bob).0, 2, "who is there does not hear it again");
    // Nor does who missed it, neither from one that has read all of it, nor from one that is new.
    let (mut whose, new) = (before, start(&redis));
    for edge in [&one, &new] {
        wait_until_kept(&redis, &whose, "");
        drop(bob);
        bob = Web::open(edge);
        let (missed, again) = come_back(&mut bob, &whose.pid, Some(&offset));
        assert_eq!((missed, &again), (vec![2], &whose));
        whose = again;
    }
    // And what is said again only then.
    repeat_last(&redis);
    tell(&one, 3..4);
    assert_eq!(hear(&mut bob).0, 3);
}

/// Entries of a namespace in which nobody is.
fn fill(redis: &Redis, count: usize) {
    let script = format!(
        "for i = 1, {count} do \
         redis.call('xadd', 'socket.io', '*', 'nsp', '/nobody', 'type', '2', 'uid', 'x') end"
    );
    redis.ask(&["eval", &script, "0"]);
}

/// The words of the newest entries, the oldest first.
fn newest(redis: &Redis, count: usize) -> Vec<Vec<String>> {
    let entries =
        redis.ask(&["--json", "xrevrange", "socket.io", "+", "-", "count", &count.to_string()]);
    let entries: Vec<(String, Vec<String>)> = serde_json::from_str(&entries).expect("JSON");
    entries.into_iter().rev().map(|(_, words)| words).collect()
}

fn add(redis: &Redis, words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    redis.ask(&[&["xadd", "socket.io", "*"], &words[..]].concat());
}

/// Two clients of one room.
fn pair(edge: &Edge) -> (Web, Web) {
    let (mut alice, mut bob) = (Web::open(edge), Web::open(edge));
    for web in [&mut alice, &mut bob] {
        enter(web);
        join(web, "r");
    }
    (alice, bob)
}

/// Says these without waiting for what comes of it.
fn begin_to_say(line: &mut Web, numbers: std::ops::Range<i64>) {
    for number in numbers {
        line.say(&format!("42/chat,7[\"message\",{{\"room\":\"r\",\"n\":{number}}}]"));
    }
}

fn expect_said(alice: &mut Web, bob: &mut Web, numbers: std::ops::Range<i64>) {
    for number in numbers {
        alice.expect("43/chat,7[{\"ok\":true}]");
        assert_eq!(hear(bob).0, number);
    }
}

/// A stall breaks the connections, and what was on its way is done when it is over.
#[test]
fn what_redis_has_is_not_said_again() {
    for ends_its_own in [true, false] {
        let redis = Redis::start();
        if !ends_its_own {
            redis.ask(&["acl", "setuser", "default", "-client|kill", "-client|info"]);
        }
        let edge = start(&redis);
        let (mut alice, mut bob) = pair(&edge);
        for round in 0..3 {
            let numbers = round * 5..round * 5 + 5;
            redis.signal("STOP");
            begin_to_say(&mut alice, numbers.clone());
            wait_for_metric(&edge, UP, 0);
            redis.signal("CONT");
            expect_said(&mut alice, &mut bob, numbers);
            wait_for_metric(&edge, UP, 1);
        }
        let entries: i64 = redis.ask(&["xlen", "socket.io"]).parse().expect("a number");
        // For whoever reads them, Node's servers as well.
        assert!(entries == 15 || !ends_its_own, "{entries} entries");
    }
}

#[test]
fn connections_that_break_lose_and_repeat_nothing() {
    let redis = Redis::start();
    let (one, two) = (start(&redis), start(&redis));
    let (mut alice, _) = pair(&one);
    let (_, mut bob) = pair(&two);
    for round in 0..15 {
        begin_to_say(&mut alice, round * 6..round * 6 + 6);
        redis.ask(&["client", "kill", "type", "normal"]);
    }
    for number in 0..90 {
        assert_eq!(hear(&mut bob).0, number);
    }
    assert_eq!(redis.ask(&["xlen", "socket.io"]), "90");
}

/// What Redis has lost is: a failover may lose what was not copied yet.
#[test]
fn what_redis_has_lost_is_said_again() {
    let redis = Redis::start();
    let edge = start(&redis);
    let (mut alice, mut bob) = pair(&edge);
    redis.signal("STOP");
    begin_to_say(&mut alice, 1..2);
    wait_for_metric(&edge, UP, 0);
    // The connection that it was said over goes away without having been read.
    let redis = {
        let mut redis = redis;
        redis.kill();
        redis.begin();
        redis
    };
    expect_said(&mut alice, &mut bob, 1..2);
    assert_eq!(redis.ask(&["xlen", "socket.io"]), "1");
}

/// Of a node that could not know that Redis has it; long before the node that the client comes to.
#[test]
fn who_has_an_entry_is_not_sent_it_again_by_a_new_node() {
    for (between, behind) in [(0, 0), (700, 100), (100, 1200), (1200, 100)] {
        let redis = Redis::start();
        let (one, two) = (start(&redis), start(&redis));
        let mut bob = Web::open(&two);
        let before = enter(&mut bob);
        tell(&one, 0..2);
        assert_eq!(hear(&mut bob).0, 0);
        let (_, offset) = hear(&mut bob);
        wait_until_kept(&redis, &before, "");
        drop(bob);
        let words = newest(&redis, 2);
        fill(&redis, between);
        words.iter().for_each(|words| add(&redis, words));
        tell(&one, 2..3);
        fill(&redis, behind);
        let new = start(&redis);
        let mut bob = Web::open(&new);
        let (missed, again) = come_back(&mut bob, &before.pid, Some(&offset));
        assert_eq!((missed, again), (vec![2], before), "{between} between, {behind} behind");
        words.iter().for_each(|words| add(&redis, words));
        tell(&one, 3..4);
        assert_eq!(hear(&mut bob).0, 3, "{between} between, {behind} behind");
    }
}

/// A failover has lost an entry that one node had read and the other had not.
#[test]
fn who_has_an_entry_that_is_lost_begins_anew() {
    let redis = Redis::start();
    let (one, two) = (start(&redis), start(&redis));
    let mut bob = Web::open(&one);
    let before = enter(&mut bob);
    tell(&one, 0..1);
    assert_eq!(hear(&mut bob).0, 0);
    two.signal("STOP");
    // What is written while it waits would be sent to it all the same.
    let readers = || redis.ask(&["client", "list"]);
    for reader in readers().lines().filter(|line| line.contains("cmd=xread")) {
        let id = reader.split(' ').next().and_then(|id| id.strip_prefix("id=")).expect("an id");
        redis.ask(&["client", "kill", "id", id]);
    }
    eventually("one that reads", || readers().contains("cmd=xread").then_some(()));
    tell(&one, 1..2);
    let (heard, offset) = hear(&mut bob);
    assert_eq!(heard, 1);
    wait_until_kept(&redis, &before, "");
    drop(bob);
    let words = newest(&redis, 1).remove(0);
    redis.ask(&["xdel", "socket.io", &offset]);
    two.signal("CONT");
    add(&redis, &words);
    tell(&one, 2..3);
    let mut bob = Web::open(&two);
    let (missed, again) = come_back(&mut bob, &before.pid, Some(&offset));
    assert_eq!(missed, Vec::<i64>::new(), "what it has does not come again");
    assert_ne!(again, before);
}

#[test]
fn everybody_hears_everything_in_one_order() {
    let redis = Redis::start();
    let (one, two) = (start(&redis), start(&redis));
    let (mut alice, mut bob) = (Web::open(&one), Web::open(&two));
    enter(&mut alice);
    enter(&mut bob);
    for round in 0..50 {
        tell(&one, round * 10..round * 10 + 2);
        tell(&two, round * 10 + 2..round * 10 + 4);
    }
    let hear_all = |line: &mut Web| (0..200).map(|_| hear(line)).collect::<Vec<_>>();
    let (heard, other) = (hear_all(&mut alice), hear_all(&mut bob));
    assert_eq!(heard, other, "the same, with the same places");
    let numbers: Vec<i64> = heard.iter().map(|(number, _)| *number).collect();
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), 200, "each once");
    for edge in [0, 2] {
        let of_one: Vec<_> = numbers.iter().filter(|number| *number % 10 / 2 == edge / 2).collect();
        assert!(of_one.is_sorted(), "{of_one:?}");
    }
}

#[test]
fn who_cannot_go_on_begins_anew() {
    let redis = Redis::start();
    let (one, two) = (start(&redis), start(&redis));
    let anew = |pid: &str, offset: Option<&str>| {
        let mut web = Web::open(&one);
        let (missed, again) = come_back(&mut web, pid, offset);
        assert_eq!(missed, Vec::<i64>::new());
        assert_ne!(again.pid, pid);
    };
    let gone = |edge: &Edge| wait_for_metric(edge, "vestibule_hub_sockets{namespace=\"/chat\"}", 0);
    let leave = |number: i64| {
        let mut web = Web::open(&two);
        let who = enter(&mut web);
        tell(&one, number..number + 1);
        let (heard, offset) = hear(&mut web);
        assert_eq!(heard, number);
        wait_until_kept(&redis, &who, "");
        (web, who, offset)
    };
    // Nobody's, and places that are none.
    anew("aaaaaaaaaaaaaaaaaaaa", None);
    let (web, bob, offset) = leave(1);
    drop(web);
    gone(&two);
    for wrong in ["~", "x", "aB-1.1", "1-", ""] {
        anew(&bob.pid, Some(wrong));
    }
    // It is still there for who knows.
    let mut web = Web::open(&one);
    assert_eq!(come_back(&mut web, &bob.pid, Some(&offset)).1, bob);
    // Who says goodbye has no way back.
    web.say("41/chat,");
    drop(web);
    gone(&one);
    let key = format!("sio:session:{}", bob.pid);
    eventually("nothing", || (redis.ask(&["exists", &key]) == "0").then_some(()));
    anew(&bob.pid, Some(&offset));
    // What it missed is not there any more: no node remembers it, nor does the stream.
    let (web, carol, offset) = leave(2);
    drop(web);
    gone(&two);
    tell(&one, 3..5);
    redis.ask(&["xtrim", "socket.io", "maxlen", "1"]);
    let three = start(&redis);
    let mut web = Web::open(&three);
    let (missed, again) = come_back(&mut web, &carol.pid, Some(&offset));
    assert_eq!(missed, Vec::<i64>::new());
    assert_ne!(again, carol);
}

#[test]
fn who_comes_elsewhere_is_not_here_any_more() {
    let redis = Redis::start();
    let (one, two) = (start(&redis), start(&redis));
    let mut left = Web::open(&two);
    let bob = enter(&mut left);
    join(&mut left, "r");
    wait_until_kept(&redis, &bob, "room:r");
    // Its old connection is not seen to be gone.
    let mut web = Web::open(&one);
    assert_eq!(come_back(&mut web, &bob.pid, None), (Vec::new(), bob.clone()));
    assert!(matches!(left.hear(), Heard::Closed(_)));
    wait_until_kept(&redis, &bob, "room:r");
    // And on the same node.
    let mut again = Web::open(&one);
    assert_eq!(come_back(&mut again, &bob.pid, None), (Vec::new(), bob));
    assert!(matches!(web.hear(), Heard::Closed(_)));
    wait_for_metric(&one, "vestibule_hub_sockets{namespace=\"/chat\"}", 1);
    say(&mut again, "r", 0..1);
}

#[test]
fn an_event_is_acknowledged_when_redis_has_it() {
    let redis = Redis::start();
    let edge = start(&redis);
    let (mut alice, mut bob) = (Web::open(&edge), Web::open(&edge));
    enter(&mut alice);
    enter(&mut bob);
    join(&mut alice, "r");
    join(&mut bob, "r");
    say(&mut alice, "r", 0..1);
    let (_, before) = hear(&mut bob);
    redis.signal("STOP");
    alice.say("42/chat,1[\"message\",{\"room\":\"r\",\"n\":1}]");
    // Delivery goes on without it, when it has been away for long.
    let (heard, offset) = hear(&mut bob);
    assert_eq!((heard, &*offset), (1, "~"), "{before}");
    alice.say("42/chat,2[\"typing\",{\"room\":\"r\",\"n\":2}]");
    alice.expect("43/chat,2[{\"ok\":true}]");
    assert!(bob.text().starts_with("42/chat,[\"typing\""));
    redis.signal("CONT");
    alice.expect("43/chat,1[{\"ok\":true}]");
    wait_for_metric(&edge, UP, 1);
    // It came once, and what follows has a place again.
    eventually("a place", || {
        say(&mut alice, "r", 3..4);
        let (heard, offset) = hear(&mut bob);
        assert_eq!(heard, 3);
        is_place(&offset).then_some(())
    });
}

#[test]
fn clients_of_node_go_on_here() {
    let redis = Redis::start();
    let edge = start(&redis);
    let mut peer = Peer::with(&redis, &[("ADAPTER", "streams"), ("RECOVERY", "1")]);
    eventually("two servers", || {
        let counted = peer.told(&json!({ "do": "count", "namespace": "/chat" }));
        (counted["count"] == 2).then_some(())
    });
    wait_for_readers(&redis, 2);
    let mut web = Web::over(Client::connect(peer.address.expect("an address")), "EIO=4");
    let bob = enter(&mut web);
    join(&mut web, "r");
    tell(&edge, 0..1);
    let (_, offset) = hear(&mut web);
    drop(web);
    let key = format!("sio:session:{}", bob.pid);
    eventually("the session", || (redis.ask(&["exists", &key]) == "1").then_some(()));
    let entries = || redis.ask(&["xlen", "socket.io"]);
    let before = entries();
    peer.told(
        &json!({"do": "emit", "namespace": "/chat", "to": ["room:r"], "name": "n", "args": [1]}),
    );
    // It says that it is done when it has begun.
    eventually("its entry", || (entries() != before).then_some(()));
    tell(&edge, 2..3);
    let mut web = Web::open(&edge);
    let (missed, again) = come_back(&mut web, &bob.pid, Some(&offset));
    assert_eq!((missed, again), (vec![1, 2], bob));
    say(&mut web, "r", 3..4);
}

/// Over channels of their own, rooms that were left are listened to for those who are away; but not
/// for any number of them, or clients would choose how much this node listens to.
#[test]
fn rooms_that_were_left_are_listened_to_for_those_who_are_away_but_not_without_end() {
    const MOST: usize = 40_000;
    let redis = Redis::start();
    let (one, two) = (node(&redis, "sharded", "recovery: 1m"), node(&redis, "sharded", ""));
    let outcome =
        |word: &str| metric(&one, &format!("vestibule_hub_recoveries_total{{outcome=\"{word}\"}}"));
    let away = || {
        let mut web = Web::open(&one);
        let me = enter(&mut web);
        join(&mut web, "away");
        drop(web);
        wait_for_metric(&one, "vestibule_hub_away", 1);
        me
    };
    let listened = || -> usize {
        redis.ask(&["pubsub", "shardchannels", "socket.io#/chat#room:*"]).lines().count()
    };
    let mut restless = Web::open(&one);
    enter(&mut restless);
    let mut churn = |rooms: std::ops::Range<usize>| {
        for number in rooms {
            restless.say(&format!("42/chat,[\"join\",\"{number}\"]"));
            restless.say(&format!("42/chat,[\"leave\",\"{number}\"]"));
        }
        join(&mut restless, "last");
    };
    // Some are no harm, and what is said to the room meanwhile is not missed.
    let me = away();
    churn(0..100);
    let words = json!({"namespace": "/chat", "to": ["room:away"], "event": "n", "args": [7]});
    post(&two, "emit", &words);
    eventually("what is said", || {
        (metric(&one, "vestibule_hub_redis_heard_total{fate=\"taken\"}") > 0).then_some(())
    });
    let mut web = Web::open(&one);
    let (missed, _) = come_back(&mut web, &me.pid, None);
    assert_eq!((missed, outcome("recovered")), (vec![7], 1));
    drop(web);
    eventually("nobody away but that one", || {
        (metric(&one, "vestibule_hub_away") == 1).then_some(())
    });
    // The oldest go, and whoever may have missed something begins anew.
    churn(100..MOST + 200);
    eventually("the end of the oldest", || {
        let count = redis.ask(&["pubsub", "shardnumsub", "socket.io#/chat#room:away#"]);
        count.ends_with('0').then_some(())
    });
    eventually("no more than that", || (MOST..MOST + 3).contains(&listened()).then_some(()));
    let mut web = Web::open(&one);
    let (missed, again) = come_back(&mut web, &me.pid, None);
    assert_eq!((missed, outcome("too_much")), (Vec::new(), 1));
    assert_ne!(again.sid, me.sid);
}

/// To everybody in the other namespace, as many as this.
fn tell_elsewhere(edge: &Edge, count: usize) {
    for number in 0..count {
        post(edge, "emit", &json!({"namespace": "/", "event": "n", "args": [number]}));
    }
}

/// Until its node has noted that it left: it may come back for a minute, not for longer.
fn wait_until_left(redis: &Redis, who: &Who) {
    let key = format!("sio:session:{}", who.pid);
    eventually("the end of the session", || {
        let left: i64 = redis.ask(&["pttl", &key]).parse().expect("a number");
        (0..=60_000).contains(&left).then_some(())
    });
}

/// Of everybody at once there is more to say than what may wait.
#[test]
fn what_everybody_would_leave_is_kept_and_nothing_is_dropped_for_it() {
    let redis = Redis::start();
    let words = format!("{{ url: '{}', adapter: streams, buffer: 64KiB }}", redis.url());
    let edge = Edge::start(&hub_only(&format!("redis: {words}\nrecovery: 1m")));
    wait_for_metric(&edge, UP, 1);
    let mut crowd: Vec<_> = (0..400).map(|_| Web::open(&edge)).collect();
    let crowd: Vec<_> = crowd.iter_mut().map(enter).collect();
    let room = "r".repeat(200);
    for verb in ["join", "leave", "join"] {
        post(&edge, verb, &json!({"namespace": "/chat", "to": "*", "rooms": [room]}));
    }
    crowd.iter().for_each(|who| wait_until_kept(&redis, who, &room));
    assert_eq!(metric(&edge, "vestibule_hub_redis_dropped_total{reason=\"overflow\"}"), 0);
}

/// Who misses nothing goes on, however much is said elsewhere before and meanwhile, and however long
/// ago it was told something; and who misses something gets it.
#[test]
fn who_is_idle_goes_on() {
    let redis = Redis::start();
    let start = || node(&redis, "streams", "recovery: { for: 1m, messages: 50 }");
    let (one, two) = (start(), start());
    let mut heard = Web::open(&two);
    let who_heard = enter(&mut heard);
    tell(&one, 1..2);
    let (_, mut offset) = hear(&mut heard);
    // And one that has never been told anything.
    let mut new = Web::open(&two);
    let who_new = enter(&mut new);
    let new_node = start();
    for (round, edge) in (1..).zip([&one, &two, &new_node]) {
        tell_elsewhere(&one, 60);
        // What is gone was for neither of them.
        redis.ask(&["xtrim", "socket.io", "maxlen", "5"]);
        drop(new);
        wait_until_left(&redis, &who_new);
        tell_elsewhere(&two, 1);
        new = Web::open(edge);
        assert_eq!(
            come_back(&mut new, &who_new.pid, None),
            (Vec::new(), who_new.clone()),
            "{round}"
        );
        drop(heard);
        wait_until_left(&redis, &who_heard);
        tell_elsewhere(&two, 1);
        heard = Web::open(edge);
        let (missed, who) = come_back(&mut heard, &who_heard.pid, Some(&offset));
        assert_eq!((missed, &who), (Vec::new(), &who_heard), "{round}");
        // It says that it has not got what it was told last.
        tell_to(&one, &who_heard, round * 10);
        assert_eq!(hear(&mut heard).0, round * 10);
        drop(heard);
        wait_until_left(&redis, &who_heard);
        tell_to(&one, &who_heard, round * 10 + 1);
        heard = Web::open(edge);
        let (missed, who) = come_back(&mut heard, &who_heard.pid, Some(&offset));
        assert_eq!((missed, &who), (vec![round * 10, round * 10 + 1], &who_heard), "{round}");
        tell_to(&one, &who_heard, round * 10 + 2);
        (_, offset) = hear(&mut heard);
    }
}

/// To one socket.
fn tell_to(edge: &Edge, who: &Who, number: i64) {
    let words = json!({"namespace": "/chat", "to": [who.sid], "event": "n", "args": [number]});
    post(edge, "emit", &words);
}

/// What clients are sent while it is off is noted nowhere: who may not have it is sent it.
#[test]
fn what_was_sent_while_it_was_off_is_not_taken_for_heard() {
    let redis = Redis::start();
    let words = |recovery: &str| {
        hub_only(&format!("redis: {{ url: '{}', adapter: streams }}\n{recovery}", redis.url()))
    };
    let mut edge = Edge::start(&words("recovery: 1m"));
    wait_for_metric(&edge, UP, 1);
    let mut web = Web::open(&edge);
    let me = enter(&mut web);
    web.say("40");
    assert!(web.text().starts_with("40{"));
    tell(&edge, 1..2);
    let (_, offset) = hear(&mut web);
    edge.reload_with(&words(""));
    tell(&edge, 2..3);
    web.expect("42/chat,[\"n\",2]");
    edge.reload_with(&words("recovery: 1m"));
    // From now on it is known up to where everything was told.
    tell_elsewhere(&edge, 1);
    assert!(web.text().starts_with("42[\"n\",0,"));
    join(&mut web, "r");
    wait_until_kept(&redis, &me, "room:r");
    drop(web);
    let mut web = Web::open(&edge);
    assert_eq!(come_back(&mut web, &me.pid, Some(&offset)), (vec![2], me));
}

/// What is said in one namespace takes no place from what is kept of another.
#[test]
fn messages_are_kept_of_each_namespace() {
    let redis = Redis::start();
    let start = || node(&redis, "streams", "recovery: { for: 1m, messages: 50 }");
    let (one, two) = (start(), start());
    let away = || {
        let mut web = Web::open(&two);
        let who = enter(&mut web);
        drop(web);
        wait_until_left(&redis, &who);
        who
    };
    let come = |edge: &Edge, who: &Who| {
        let mut web = Web::open(edge);
        let (missed, again) = come_back(&mut web, &who.pid, None);
        assert_eq!(again == *who, !missed.is_empty());
        missed
    };
    let crowd: Vec<Who> = (0..3).map(|_| away()).collect();
    tell(&one, 0..3);
    tell_elsewhere(&one, 60);
    assert_eq!(come(&one, &crowd[0]), [0, 1, 2]);
    // Nor in what is read of the stream for one who comes.
    fill(&redis, 4200);
    assert_eq!(come(&start(), &crowd[1]), [0, 1, 2]);
    // But no more than that.
    tell(&one, 3..60);
    assert_eq!(come(&one, &crowd[2]), Vec::<i64>::new());
}
