//! Clients that come back: who they were, what they missed, and when they begin anew.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::cluster_nodes::node;
use crate::harness::node::Script;
use crate::harness::origin::reply;
use crate::harness::redis::Redis;
use crate::harness::socketio::{
    Heard, Line, Poller, Web, connection_on, hub_only, metric, wait_for_metric, worker_of,
};
use crate::harness::{Edge, Origin, PATIENCE, eventually};

pub const WORKERS: [char; 2] = ['0', '1'];

pub fn other(worker: char) -> char {
    if worker == '0' { '1' } else { '0' }
}

fn edge(recovery: &str) -> Edge {
    Edge::start(&hub_only(&format!("recovery: {recovery}")))
}

/// Who connects now finds on any worker what has been said.
pub fn web_on(edge: &Edge, worker: char) -> Web {
    wait_for_metric(edge, "vestibule_hub_notices_waiting", 0);
    Web::over(connection_on(edge, worker), "EIO=4")
}

/// What a client must know to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    pub sid: String,
    pub pid: String,
}

fn who(answer: &str, namespace: &str) -> Who {
    let words = answer.strip_prefix(&prefix(namespace)).unwrap_or_else(|| panic!("{answer}"));
    let words: Value = serde_json::from_str(words).expect("JSON");
    let word = |name: &str| words[name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    Who { sid: word("sid"), pid: word("pid") }
}

fn prefix(namespace: &str) -> String {
    if namespace == "/" { "40".to_owned() } else { format!("40{namespace},") }
}

pub fn enter(line: &mut impl Line, namespace: &str) -> Who {
    line.say(&prefix(namespace));
    who(&line.text(), namespace)
}

/// Comes back; what was missed, and who the client is now.
pub fn come_back(line: &mut impl Line, pid: &str, offset: Option<&str>) -> (Vec<String>, Who) {
    let mut auth = json!({ "pid": pid, "token": "x" });
    if let Some(offset) = offset {
        auth["offset"] = json!(offset);
    }
    line.say(&format!("40{auth}"));
    let mut missed = Vec::new();
    loop {
        match line.hear() {
            Heard::Text(text) if text.starts_with("40") => return (missed, who(&text, "/")),
            Heard::Text(text) => missed.push(text),
            Heard::Binary(data) => missed.push(format!("{data:?}")),
            other => panic!("heard {other:?}"),
        }
    }
}

/// An event as it came, without its offset.
fn split(text: &str) -> (String, String) {
    let (event, offset) = text.rsplit_once(',').expect("an offset");
    let offset = offset.strip_prefix('"').and_then(|rest| rest.strip_suffix("\"]"));
    (format!("{event}]"), offset.unwrap_or_else(|| panic!("no offset: {text}")).to_owned())
}

/// The next event, which must be this one; returns its offset.
#[track_caller]
pub fn offset_of(line: &mut impl Line, event: &str) -> String {
    let (heard, offset) = split(&line.text());
    assert_eq!(heard, event);
    offset
}

pub fn events(missed: &[String]) -> Vec<String> {
    missed.iter().map(|text| split(text).0).collect()
}

pub fn numbers(count: std::ops::Range<usize>) -> Vec<String> {
    count.map(|number| format!("42[\"tell\",{number}]")).collect()
}

/// Sends `tell` to everybody else; returns when all have it, as far as the sender's worker goes.
pub fn tell(line: &mut impl Line, count: std::ops::Range<usize>) {
    for number in count {
        line.say(&format!("421[\"tell\",{number}]"));
        line.expect("431[{\"ok\":true}]");
    }
}

pub fn outcomes(edge: &Edge, outcome: &str) -> i64 {
    metric(edge, &format!("vestibule_hub_recoveries_total{{outcome=\"{outcome}\"}}"))
}

fn wait_until_gone(edge: &Edge, sockets: i64) {
    wait_for_metric(edge, "vestibule_hub_sockets{namespace=\"/\"}", sockets);
}

#[test]
fn off_unless_configured() {
    let edge = Edge::start(&hub_only(""));
    let mut web = Web::open(&edge);
    // It asserts that there is a sid and nothing else.
    web.enter("/");
    web.say("42[\"all\",1]");
    web.expect("42[\"all\",1]");
    let mut again = Web::open(&edge);
    again.say("40{\"pid\":\"aaaaaaaaaaaaaaaaaaaa\",\"offset\":\"x\"}");
    assert!(!again.text().contains("pid"));
}

#[test]
fn events_carry_their_offset_and_the_same_one_to_all() {
    let edge = edge("2m");
    let (mut one, mut two) = (web_on(&edge, '0'), web_on(&edge, '1'));
    let (first, second) = (enter(&mut one, "/"), enter(&mut two, "/"));
    assert_ne!(first.pid, second.pid);
    one.say("42[\"all\",1]");
    assert_eq!(offset_of(&mut one, "42[\"all\",1]"), offset_of(&mut two, "42[\"all\",1]"));
    let mut last = String::new();
    for number in 0..200 {
        two.say(&format!("42[\"all\",{number}]"));
        let offset = offset_of(&mut one, &format!("42[\"all\",{number}]"));
        assert_eq!(offset_of(&mut two, &format!("42[\"all\",{number}]")), offset);
        assert_ne!(offset, last);
        last = offset;
    }
    assert!(last.len() <= 8, "{last} is long");
    // An acknowledgement has none.
    one.say("427[\"tell\",1]");
    one.expect("437[{\"ok\":true}]");
    offset_of(&mut two, "42[\"tell\",1]");
    // What may be dropped has one only if clients would read another out of it.
    let mut chat = (web_on(&edge, '0'), web_on(&edge, '1'));
    enter(&mut chat.0, "/chat");
    enter(&mut chat.1, "/chat");
    for line in [&mut chat.0, &mut chat.1] {
        line.say("42/chat,1[\"join\",\"a\"]");
        line.expect("43/chat,1[{\"ok\":true}]");
    }
    chat.0.say("42/chat,[\"typing\",{\"room\":\"a\"}]");
    chat.1.expect("42/chat,[\"typing\",{\"room\":\"a\"}]");
    chat.0.say("42/chat,[\"typing\",{\"room\":\"a\"},\"text\"]");
    offset_of(&mut chat.1, "42/chat,[\"typing\",{\"room\":\"a\"},\"text\"]");
}

#[test]
fn one_message_is_built_once_all_the_same() {
    let edge = edge("2m");
    let mut lines: Vec<Web> = (0..20).map(|_| Web::open(&edge)).collect();
    lines.iter_mut().for_each(|line| drop(enter(line, "/")));
    let built = metric(&edge, "vestibule_hub_messages_built_total");
    lines[0].say("42[\"all\",1]");
    lines.iter_mut().for_each(|line| drop(offset_of(line, "42[\"all\",1]")));
    assert_eq!(metric(&edge, "vestibule_hub_messages_built_total"), built + 1);
}

#[test]
fn what_was_missed_comes_before_the_answer_on_either_worker() {
    for (home, new) in WORKERS.into_iter().flat_map(|home| WORKERS.map(|new| (home, new))) {
        let edge = edge("2m");
        let mut sender = web_on(&edge, '0');
        enter(&mut sender, "/");
        let mut web = web_on(&edge, home);
        let me = enter(&mut web, "/");
        assert_eq!(worker_of(&me.pid), home);
        tell(&mut sender, 0..3);
        let offsets: Vec<_> =
            numbers(0..3).iter().map(|event| offset_of(&mut web, event)).collect();
        drop(web);
        wait_until_gone(&edge, 1);
        wait_for_metric(&edge, "vestibule_hub_away", 1);
        tell(&mut sender, 3..5);
        let binary = "51-[\"tell\",{\"_placeholder\":true,\"num\":0}]";
        sender.say(&format!("4{}", binary.replace("51-", "51-9")));
        sender.say_bytes(&[1, 2]);
        sender.expect("439[{\"ok\":true}]");

        // It has not even seen the last one that was sent to it.
        let mut web = web_on(&edge, new);
        let (missed, same) = come_back(&mut web, &me.pid, Some(&offsets[1]));
        assert_eq!(same, me);
        let (bytes, texts) = missed.split_last().expect("something");
        assert_eq!(bytes, "[1, 2]");
        let mut wanted = numbers(2..5);
        wanted.push(format!("4{binary}"));
        assert_eq!(events(texts), wanted);
        assert_eq!(metric(&edge, "vestibule_hub_away"), 0);
        assert_eq!(outcomes(&edge, "recovered"), 1);

        // It hears, speaks, and can do so again, back where it was.
        sender.say("421[\"tell\",5]");
        sender.expect("431[{\"ok\":true}]");
        let offset = offset_of(&mut web, "42[\"tell\",5]");
        drop(web);
        wait_until_gone(&edge, 1);
        tell(&mut sender, 6..8);
        let mut web = web_on(&edge, home);
        let (missed, same) = come_back(&mut web, &me.pid, Some(&offset));
        assert_eq!((events(&missed), same), (numbers(6..8), me.clone()));
        web.say("42[\"echo\",1]");
        offset_of(&mut web, "42[\"echo\",1]");
        assert_eq!(outcomes(&edge, "recovered"), 2);
    }
}

#[test]
fn over_polling_too() {
    let edge = edge("2m");
    let mut sender = Web::open(&edge);
    enter(&mut sender, "/");
    let mut poller = Poller::open(&edge);
    let me = enter(&mut poller, "/");
    assert_eq!(poller.send("1").status, 200);
    wait_until_gone(&edge, 1);
    tell(&mut sender, 0..3);
    wait_for_metric(&edge, "vestibule_hub_notices_waiting", 0);
    let mut poller = Poller::open(&edge);
    let (missed, same) = come_back(&mut poller, &me.pid, None);
    assert_eq!((events(&missed), same), (numbers(0..3), me));
}

#[test]
fn without_an_offset_all_since_its_connect_comes() {
    let edge = edge("2m");
    let mut sender = web_on(&edge, '0');
    enter(&mut sender, "/");
    tell(&mut sender, 0..2);
    let mut web = web_on(&edge, '1');
    let me = enter(&mut web, "/");
    drop(web);
    wait_until_gone(&edge, 1);
    tell(&mut sender, 2..4);
    let mut web = web_on(&edge, '0');
    let (missed, same) = come_back(&mut web, &me.pid, None);
    assert_eq!((events(&missed), &same), (numbers(2..4), &me));
    // The cut came before it had read any of that.
    drop(web);
    wait_until_gone(&edge, 1);
    tell(&mut sender, 4..5);
    let mut web = web_on(&edge, '1');
    let (missed, same) = come_back(&mut web, &me.pid, None);
    assert_eq!((events(&missed), &same), (numbers(2..5), &me));
    // And now in the middle of it.
    let (_, offset) = split(&missed[1]);
    drop(web);
    wait_until_gone(&edge, 1);
    tell(&mut sender, 5..6);
    for worker in WORKERS {
        let mut web = web_on(&edge, worker);
        let (missed, same) = come_back(&mut web, &me.pid, Some(&offset));
        assert_eq!((events(&missed), &same), (numbers(4..6), &me));
        drop(web);
        wait_until_gone(&edge, 1);
    }
}

#[test]
fn an_offset_of_an_earlier_session_brings_nothing_of_it() {
    let edge = edge("2m");
    let mut sender = web_on(&edge, '0');
    enter(&mut sender, "/");
    let mut web = web_on(&edge, '0');
    enter(&mut web, "/");
    tell(&mut sender, 0..2);
    let old = offset_of(&mut web, "42[\"tell\",0]");
    drop(web);
    for worker in WORKERS {
        let mut web = web_on(&edge, worker);
        let me = enter(&mut web, "/");
        drop(web);
        wait_until_gone(&edge, 1);
        sender.say("421[\"tell\",\"new\"]");
        sender.expect("431[{\"ok\":true}]");
        let mut web = web_on(&edge, other(worker));
        let (missed, same) = come_back(&mut web, &me.pid, Some(&old));
        assert_eq!((events(&missed), same), (vec!["42[\"tell\",\"new\"]".to_owned()], me));
        drop(web);
        wait_until_gone(&edge, 1);
    }
}

#[test]
fn a_connection_that_is_only_half_gone_is_replaced() {
    let edge = edge("2m");
    let mut sender = web_on(&edge, '0');
    enter(&mut sender, "/");
    for (home, new) in WORKERS.into_iter().flat_map(|home| WORKERS.map(|new| (home, new))) {
        let mut old = web_on(&edge, home);
        let me = enter(&mut old, "/");
        let neighbour = enter(&mut old, "/chat");
        sender.say("421[\"tell\",\"lost\"]");
        sender.expect("431[{\"ok\":true}]");
        let mut web = web_on(&edge, new);
        let (missed, same) = come_back(&mut web, &me.pid, None);
        assert_eq!((events(&missed), &same), (vec!["42[\"tell\",\"lost\"]".to_owned()], &me));
        offset_of(&mut old, "42[\"tell\",\"lost\"]");
        assert_eq!(old.hear(), Heard::Closed(None));
        // Its other namespaces were not taken from it.
        web.say(&format!("40/chat,{}", json!({ "pid": neighbour.pid })));
        assert_eq!(who(&web.text(), "/chat"), neighbour);
        // What is left of the old one takes nothing with it when it ends.
        drop(old);
        sender.say("421[\"tell\",\"found\"]");
        sender.expect("431[{\"ok\":true}]");
        offset_of(&mut web, "42[\"tell\",\"found\"]");
        drop(web);
        wait_until_gone(&edge, 1);
    }
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"replaced\"}", 4);
    assert_eq!(outcomes(&edge, "recovered"), 8);
}

#[test]
fn rooms_come_back_and_only_what_was_said_in_them_meanwhile() {
    let edge = edge("2m");
    let mut sender = web_on(&edge, '0');
    enter(&mut sender, "/chat");
    let ask = |line: &mut Web, event: &str| {
        line.say(&format!("42/chat,1{event}"));
        line.expect("43/chat,1[{\"ok\":true}]");
    };
    for room in ["a", "b", "c"] {
        ask(&mut sender, &format!("[\"join\",\"{room}\"]"));
    }
    for (home, new) in WORKERS.into_iter().flat_map(|home| WORKERS.map(|new| (home, new))) {
        let mut web = web_on(&edge, home);
        let me = enter(&mut web, "/chat");
        let mut say = |room: &str, text: &str| {
            ask(&mut sender, &format!("[\"message\",{{\"room\":\"{room}\",\"text\":\"{text}\"}}]"));
        };
        say("a", "before it came in");
        say("b", "never in");
        wait_for_metric(&edge, "vestibule_hub_notices_waiting", 0);
        ask(&mut web, "[\"join\",\"a\"]");
        ask(&mut web, "[\"join\",\"c\"]");
        // Heard before the next steps, on whichever worker.
        say("c", "in");
        let fence = web.text();
        assert!(fence.contains("in"), "{fence}");
        ask(&mut web, "[\"leave\",\"c\"]");
        say("c", "after it left");
        say("a", "in");
        drop(web);
        wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/chat\"}", 1);
        say("a", "away");
        say("b", "away");
        say("c", "away");
        // It has read nothing at all.
        let mut web = web_on(&edge, new);
        web.say(&format!("40/chat,{}", json!({ "pid": me.pid })));
        let mut missed = Vec::new();
        let same = loop {
            let text = web.text();
            if text.starts_with("40") {
                break who(&text, "/chat");
            }
            let event: Value = serde_json::from_str(&split(&text).0[8..]).expect("an event");
            missed.push(format!("{} {}", event[1]["room"], event[1]["text"]).replace('"', ""));
        };
        assert_eq!(same, me);
        assert_eq!(missed, ["c in", "a in", "a away"]);
        say("c", "now");
        say("a", "now");
        assert!(web.text().contains("\"a\",\"text\":\"now\""));
    }
}

#[test]
fn bad_wishes_begin_anew() {
    let edge = edge("2m");
    let mut web = web_on(&edge, '0');
    let me = enter(&mut web, "/");
    web.say("42[\"all\",1]");
    let offset = offset_of(&mut web, "42[\"all\",1]");
    drop(web);
    wait_until_gone(&edge, 0);
    let foreign = format!("~~~{}", &me.pid[3..]);
    let mut forged = me.pid.clone();
    forged.replace_range(19.., if me.pid.ends_with('A') { "B" } else { "A" });
    let wrong_worker = format!("{}z{}", &me.pid[..3], &me.pid[4..]);
    let beyond = format!("{}zzzzz", &offset[..5]);
    let wishes = [
        json!({ "pid": forged }),
        json!({ "pid": foreign }),
        json!({ "pid": wrong_worker }),
        json!({ "pid": "short" }),
        json!({ "pid": 7 }),
        json!({ "pid": null }),
        json!({ "pid": me.pid, "offset": "abc" }),
        json!({ "pid": me.pid, "offset": 7 }),
        json!({ "pid": me.pid, "offset": "" }),
        // The last of these is well-formed, and so its secret is used up.
        json!({ "pid": me.pid, "offset": beyond }),
        json!({ "pid": me.pid, "offset": offset }),
    ];
    for (number, wish) in wishes.iter().enumerate() {
        let mut web = web_on(&edge, WORKERS[number % 2]);
        web.say(&format!("40{wish}"));
        let new = who(&web.text(), "/");
        assert!(new.sid != me.sid && new.pid != me.pid, "{wish}");
    }
    assert_eq!(outcomes(&edge, "unknown"), wishes.len() as i64);
    assert_eq!(outcomes(&edge, "recovered"), 0);
}

#[test]
fn a_secret_is_good_for_its_own_namespace() {
    let edge = edge("2m");
    let mut web = web_on(&edge, '0');
    let me = enter(&mut web, "/chat");
    let mut thief = web_on(&edge, '1');
    let (missed, new) = come_back(&mut thief, &me.pid, None);
    assert!(missed.is_empty() && new.sid != me.sid);
    web.say("42/chat,1[\"join\",\"a\"]");
    web.expect("43/chat,1[{\"ok\":true}]");
}

#[test]
fn who_was_sent_away_or_broke_the_rules_begins_anew() {
    let edge = edge("2m");
    let leaves: [fn(&mut Web); 3] =
        [|web| web.say("41"), |web| web.say("4x"), |web| web.raw(b"\x81\x01x")];
    for leave in leaves {
        let mut web = web_on(&edge, '0');
        let me = enter(&mut web, "/");
        leave(&mut web);
        wait_until_gone(&edge, 0);
        let mut web = web_on(&edge, '1');
        let (_, new) = come_back(&mut web, &me.pid, None);
        assert_ne!(new.sid, me.sid);
        drop(web);
        wait_until_gone(&edge, 0);
    }
    assert_eq!(outcomes(&edge, "unknown"), 3);
    // By the server: the namespace is gone, and comes again.
    let mut edge = edge;
    let with = hub_only("recovery: 2m");
    let without = with.replace("    /:\n      auth: none\n", "    /gone:\n      auth: none\n");
    let mut web = web_on(&edge, '0');
    let me = enter(&mut web, "/");
    edge.reload_with(&without);
    web.expect("41");
    edge.reload_with(&with);
    drop(web);
    let mut web = web_on(&edge, '1');
    let (_, new) = come_back(&mut web, &me.pid, None);
    assert_ne!(new.sid, me.sid);
}

/// As with Node, for whose clients it is a transport that failed.
#[test]
fn who_said_too_much_at_once_goes_on() {
    let edge = edge("2m");
    let mut web = web_on(&edge, '0');
    let me = enter(&mut web, "/");
    web.say(&format!("42[\"tell\",\"{}\"]", "x".repeat(1_200_000)));
    wait_until_gone(&edge, 0);
    let (_, same) = come_back(&mut web_on(&edge, '1'), &me.pid, None);
    assert_eq!(same, me);
}

#[test]
fn too_late_is_too_late() {
    let edge = edge("300ms");
    for worker in WORKERS {
        let mut web = web_on(&edge, '0');
        let me = enter(&mut web, "/");
        drop(web);
        wait_until_gone(&edge, 0);
        wait_for_metric(&edge, "vestibule_hub_away", 0);
        let mut web = web_on(&edge, worker);
        let (_, new) = come_back(&mut web, &me.pid, None);
        assert_ne!(new, me);
        drop(web);
        wait_until_gone(&edge, 0);
    }
    assert_eq!(outcomes(&edge, "expired"), 2);
}

#[test]
fn what_is_kept_is_bounded() {
    let edge = edge("{ for: 2m, messages: 10, sessions: 4 }");
    let mut sender = web_on(&edge, '0');
    enter(&mut sender, "/");
    for (count, home, new) in [(10, '0', '1'), (11, '1', '0'), (10, '1', '1'), (11, '0', '0')] {
        let mut web = web_on(&edge, home);
        let me = enter(&mut web, "/");
        drop(web);
        wait_until_gone(&edge, 1);
        tell(&mut sender, 0..count);
        let mut web = web_on(&edge, new);
        let (missed, same) = come_back(&mut web, &me.pid, None);
        let kept = count == 10;
        assert_eq!((events(&missed), same == me), (numbers(0..if kept { 10 } else { 0 }), kept));
        drop(web);
        wait_until_gone(&edge, 1);
    }
    assert_eq!((outcomes(&edge, "recovered"), outcomes(&edge, "too_much")), (2, 2));

    // Who has all that it was sent misses nothing, however much the others had.
    for home in WORKERS {
        let mut web = web_on(&edge, home);
        let me = enter(&mut web, "/");
        tell(&mut sender, 0..1);
        let offset = offset_of(&mut web, "42[\"tell\",0]");
        for number in 0..20 {
            sender.say(&format!("42[\"echo\",{number}]"));
            offset_of(&mut sender, &format!("42[\"echo\",{number}]"));
        }
        // What its worker hears only after it has left may be too much.
        wait_for_metric(&edge, "vestibule_hub_notices_waiting", 0);
        drop(web);
        wait_until_gone(&edge, 1);
        let mut web = web_on(&edge, other(home));
        let (missed, same) = come_back(&mut web, &me.pid, Some(&offset));
        assert_eq!((missed.len(), same), (0, me));
        drop(web);
        wait_until_gone(&edge, 1);
    }

    // Four may be away, two of each worker; the others were forgotten first.
    let mut crowd: Vec<(Web, Who)> = Vec::new();
    for _ in 0..4 {
        let mut web = web_on(&edge, '0');
        let me = enter(&mut web, "/");
        crowd.push((web, me));
    }
    let mut left = Vec::new();
    for (number, (web, me)) in crowd.into_iter().enumerate() {
        drop(web);
        wait_until_gone(&edge, 4 - i64::try_from(number).expect("few"));
        left.push(me);
    }
    let before = outcomes(&edge, "too_much");
    for (number, me) in left.iter().enumerate() {
        let mut web = web_on(&edge, '0');
        let (_, same) = come_back(&mut web, &me.pid, None);
        assert_eq!(same == *me, number >= 2, "{number}");
        std::mem::forget(web);
    }
    assert_eq!(outcomes(&edge, "too_much"), before + 2);
}

#[test]
fn the_log_is_bounded_in_bytes_too() {
    let edge = edge("{ bytes: 64KiB }");
    let mut sender = web_on(&edge, '0');
    enter(&mut sender, "/");
    for (length, kept) in [(20_000, true), (40_000, false)] {
        let mut web = web_on(&edge, '1');
        let me = enter(&mut web, "/");
        drop(web);
        wait_until_gone(&edge, 1);
        sender.say(&format!("421[\"tell\",\"{}\"]", "x".repeat(length)));
        sender.expect("431[{\"ok\":true}]");
        let mut web = web_on(&edge, '1');
        let (missed, same) = come_back(&mut web, &me.pid, None);
        assert_eq!((missed.len(), same == me), (usize::from(kept), kept));
        drop(web);
        wait_until_gone(&edge, 1);
    }
}

#[test]
fn more_than_its_queue_takes_is_not_sent() {
    let edge = Edge::start(&hub_only("recovery: 2m\nlimits: { message: 8KiB, queue: 16KiB }"));
    let mut sender = web_on(&edge, '0');
    enter(&mut sender, "/");
    let mut web = web_on(&edge, '1');
    let me = enter(&mut web, "/");
    drop(web);
    wait_until_gone(&edge, 1);
    for _ in 0..20 {
        sender.say(&format!("421[\"tell\",\"{}\"]", "x".repeat(1000)));
        sender.expect("431[{\"ok\":true}]");
    }
    let mut web = web_on(&edge, '0');
    let (missed, new) = come_back(&mut web, &me.pid, None);
    assert!(missed.is_empty() && new != me);
    assert_eq!(outcomes(&edge, "too_much"), 1);
}

/// A queue may be smaller than a message: it takes one, and then less than two.
#[test]
fn nobody_is_sent_at_once_what_makes_it_too_slow() {
    let limits = "limits: { message: 16KiB, queue: 8KiB }";
    let edge = Edge::start(&hub_only(&format!("recovery: 2m\n{limits}")));
    let mut sender = web_on(&edge, '0');
    enter(&mut sender, "/");
    // The last leaves no room for the answer.
    for (sizes, goes_on) in [
        (vec![1000; 3], true),
        (vec![12_000], true),
        (vec![1000; 12], false),
        (vec![6000; 2], false),
        (vec![4050; 2], false),
    ] {
        let mut poller = Poller::open(&edge);
        let me = enter(&mut poller, "/");
        assert_eq!(poller.send("1").status, 200);
        wait_until_gone(&edge, 1);
        for size in &sizes {
            sender.say(&format!("421[\"tell\",\"{}\"]", "x".repeat(*size)));
            sender.expect("431[{\"ok\":true}]");
        }
        wait_for_metric(&edge, "vestibule_hub_notices_waiting", 0);
        let mut poller = Poller::open(&edge);
        let (missed, who) = come_back(&mut poller, &me.pid, None);
        let came = if goes_on { sizes.len() } else { 0 };
        assert_eq!((missed.len(), who == me), (came, goes_on), "{sizes:?}");
        poller.say("1");
        wait_until_gone(&edge, 1);
    }
    assert_eq!((outcomes(&edge, "recovered"), outcomes(&edge, "too_much")), (2, 3));
    assert_eq!(metric(&edge, "vestibule_hub_closes_total{reason=\"too_slow\"}"), 0);
}

/// Two namespaces share a queue: what the second missed must fit beside what the first did.
#[test]
fn namespaces_that_come_back_together_share_their_queue() {
    let (limits, redis) = ("limits: { message: 8KiB, queue: 16KiB }", Redis::start());
    let words = format!("recovery: 2m\n{limits}");
    for edge in [Edge::start(&hub_only(&words)), node(&redis, "streams", &words)] {
        let mut poller = Poller::open(&edge);
        let (one, other) = (enter(&mut poller, "/"), enter(&mut poller, "/chat"));
        assert_eq!(poller.send("1").status, 200);
        wait_until_gone(&edge, 0);
        for namespace in ["/", "/chat"].repeat(9) {
            let args = ["x".repeat(1000)];
            let words = json!({"namespace": namespace, "event": "n", "args": args});
            edge.admin_with("POST", "/hub/emit", words.to_string().as_bytes());
        }
        wait_for_metric(&edge, "vestibule_hub_notices_waiting", 0);
        let mut poller = Poller::open(&edge);
        let [back, too] = [&one, &other].map(|who| json!({ "pid": who.pid }));
        assert_eq!(poller.send(format!("40{back}\u{1e}40/chat,{too}")).status, 200);
        eventually("both decided", || {
            let decided = outcomes(&edge, "recovered") + outcomes(&edge, "too_much");
            (decided == 2).then_some(())
        });
        let heard: Vec<String> = (0..11).map(|_| poller.text()).collect();
        let is_in = |who: &Who| heard.iter().any(|text| text.contains(&who.pid));
        assert_ne!(is_in(&one), is_in(&other), "one of them goes on");
        assert_eq!(heard.iter().filter(|text| text.starts_with("40")).count(), 2);
        assert_eq!((outcomes(&edge, "recovered"), outcomes(&edge, "too_much")), (1, 1));
    }
}

/// What clients were sent again is remembered until they have shown that they have it; that, too,
/// has its bytes, and the oldest goes first.
#[test]
fn what_was_sent_again_is_remembered_only_so_far() {
    const CLIENTS: usize = 40;
    let edge = edge("{ bytes: 64KiB }");
    let mut sender = web_on(&edge, '0');
    enter(&mut sender, "/");
    let mut webs: Vec<Web> = (0..CLIENTS).map(|_| web_on(&edge, '1')).collect();
    let who: Vec<Who> = webs.iter_mut().map(|web| enter(web, "/")).collect();
    drop(webs);
    wait_until_gone(&edge, 1);
    tell(&mut sender, 0..100);
    let mut webs: Vec<Web> = (0..CLIENTS).map(|_| web_on(&edge, '1')).collect();
    let mut offsets = Vec::new();
    for (web, me) in webs.iter_mut().zip(&who) {
        let (missed, same) = come_back(web, &me.pid, None);
        assert_eq!((events(&missed), &same), (numbers(0..100), me));
        offsets.push(split(&missed[49]).1);
    }
    // Two are cut again in the middle of what they missed.
    drop((webs.remove(0), webs.pop()));
    wait_until_gone(&edge, i64::try_from(CLIENTS - 1).expect("few"));
    let mut last = web_on(&edge, '1');
    let at = CLIENTS - 1;
    let (missed, same) = come_back(&mut last, &who[at].pid, Some(&offsets[at]));
    assert_eq!((events(&missed), &same), (numbers(50..100), &who[at]));
    let mut first = web_on(&edge, '1');
    let (missed, new) = come_back(&mut first, &who[0].pid, Some(&offsets[0]));
    assert!(missed.is_empty() && new != who[0], "{missed:?}");
    assert_eq!(outcomes(&edge, "too_much"), 1);
}

#[test]
fn old_clients_know_nothing_of_it() {
    let edge = edge("2m");
    let mut web = Web::over(edge.connect(), "EIO=3");
    web.expect("40");
    web.say("42[\"echo\",1]");
    offset_of(&mut web, "42[\"echo\",1]");
    drop(web);
    wait_until_gone(&edge, 0);
    assert_eq!(metric(&edge, "vestibule_hub_away"), 0);
}

#[test]
fn rooms_are_remembered_only_so_far() {
    let edge = edge("2m");
    let mut sender = web_on(&edge, '0');
    enter(&mut sender, "/");
    for (moves, early, kept) in [(32, true, true), (33, true, false), (33, false, true)] {
        let mut web = web_on(&edge, '1');
        let me = enter(&mut web, "/");
        let mut walk = web_on(&edge, '0');
        enter(&mut walk, "/chat");
        // Its rooms are those of /chat, where it misses a message before it moves about.
        web.say("40/chat,");
        let chat = who(&web.text(), "/chat");
        let ask = |line: &mut Web, event: &str| {
            line.say(&format!("42/chat,1{event}"));
            line.expect("43/chat,1[{\"ok\":true}]");
        };
        ask(&mut walk, "[\"join\",\"a\"]");
        ask(&mut web, "[\"join\",\"a\"]");
        let say = |walk: &mut Web| ask(walk, "[\"message\",{\"room\":\"a\"}]");
        say(&mut walk);
        let first = split(&web.text()).1;
        say(&mut walk);
        let second = split(&web.text()).1;
        for number in 0..moves {
            ask(&mut web, &format!("[\"join\",\"{number}\"]"));
            ask(&mut web, &format!("[\"leave\",\"{number}\"]"));
        }
        drop(web);
        wait_until_gone(&edge, 1);
        let mut web = web_on(&edge, '0');
        let offset = if early { first } else { second };
        web.say(&format!("40/chat,{}", json!({ "pid": chat.pid, "offset": offset })));
        let mut heard = web.text();
        if kept && early {
            assert!(heard.contains("message"), "{heard}");
            heard = web.text();
        }
        assert_eq!(who(&heard, "/chat") == chat, kept, "{moves} {early}");
        drop((web, walk, me));
        wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/chat\"}", 0);
    }
}

#[test]
fn the_application_is_asked_again() {
    let refuses = Arc::new(AtomicBool::new(false));
    let (origin, questions) = application(Arc::clone(&refuses));
    let hub = hub_only("recovery: 2m").replace("auth: none", "auth: none\n      connect: /connect");
    let site = format!("sites: {{ localhost: {{ next: 'http://{}' }} }}\n", origin.address);
    let edge = Edge::start(&format!("{hub}{site}"));
    let mut web = web_on(&edge, '0');
    let me = enter(&mut web, "/");
    drop(web);
    wait_until_gone(&edge, 0);
    let mut web = web_on(&edge, '1');
    assert_eq!(come_back(&mut web, &me.pid, None).1, me);
    let asked = questions.lock().expect("a lock").clone();
    let [first, again] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(first["recovered"], Value::Null);
    assert_eq!(again["recovered"], json!(true));
    assert_eq!((&again["sid"], &again["data"]), (&json!(me.sid), &json!({ "seat": 7 })));
    let own = format!("own:{}", me.sid);
    let rooms = again["rooms"].as_array().expect("rooms");
    assert!(rooms.contains(&json!("vip")) && rooms.contains(&json!(own)), "{rooms:?}");
    // What lets a client go on is nobody else's business.
    assert_eq!(again["handshake"]["auth"], json!({ "token": "x" }));
    drop(web);
    wait_until_gone(&edge, 0);
    refuses.store(true, Ordering::Relaxed);
    let mut web = web_on(&edge, '0');
    web.say(&format!("40{}", json!({ "pid": me.pid })));
    assert!(web.text().starts_with("44{\"message\":\"denied\""));
    refuses.store(false, Ordering::Relaxed);
    let mut web = web_on(&edge, '1');
    assert_ne!(come_back(&mut web, &me.pid, None).1, me);
}

/// Lets everybody in, with a room and data, unless it refuses.
fn application(refuses: Arc<AtomicBool>) -> (Origin, Arc<Mutex<Vec<Value>>>) {
    let questions = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&questions);
    let origin = Origin::start(move |seen, stream| {
        if seen.body.is_empty() {
            return reply(stream, "200 OK", "", b"");
        }
        kept.lock().expect("a lock").push(serde_json::from_slice(&seen.body).expect("JSON"));
        if refuses.load(Ordering::Relaxed) {
            return reply(stream, "403 Forbidden", "", b"");
        }
        let answer = br#"{"join":["vip"],"data":{"seat":7}}"#;
        reply(stream, "200 OK", "content-type: application/json\r\n", answer)
    });
    (origin, questions)
}

#[test]
fn many_workers_find_each_other() {
    let yaml = hub_only("recovery: 2m").replace("workers: 2", "workers: 4");
    let edge = Edge::start(&yaml);
    let mut sender = web_on(&edge, '3');
    enter(&mut sender, "/");
    let mut web = web_on(&edge, '0');
    let me = enter(&mut web, "/");
    let (mut count, mut offset) = (0, None);
    for worker in "12301320213".chars() {
        drop(web);
        wait_until_gone(&edge, 1);
        tell(&mut sender, count..count + 2);
        web = web_on(&edge, worker);
        let (missed, same) = come_back(&mut web, &me.pid, offset.as_deref());
        assert_eq!((events(&missed), &same), (numbers(count..count + 2), &me));
        count += 2;
        offset = missed.last().map(|text| split(text).1);
    }
    // Nobody remembers a client that is gone for good.
    web.say("41");
    wait_until_gone(&edge, 1);
    for worker in "0123".chars() {
        let mut web = web_on(&edge, worker);
        assert_ne!(come_back(&mut web, &me.pid, None).1, me);
    }
}

#[test]
fn a_reload_changes_it_for_everybody() {
    let mut edge = edge("2m");
    let mut web = web_on(&edge, '0');
    let me = enter(&mut web, "/");
    edge.reload();
    drop(web);
    wait_until_gone(&edge, 0);
    let mut web = web_on(&edge, '1');
    assert_eq!(come_back(&mut web, &me.pid, None).1, me);
    edge.reload_with(&hub_only(""));
    web.say("42[\"echo\",1]");
    web.expect("42[\"echo\",1]");
    drop(web);
    wait_until_gone(&edge, 0);
    assert_eq!(metric(&edge, "vestibule_hub_away"), 0);
    edge.reload_with(&hub_only("recovery: 2m"));
    let mut web = web_on(&edge, '1');
    let (_, new) = come_back(&mut web, &me.pid, None);
    assert_ne!(new, me);
}

/// Clients that are cut in the middle of an upgrade notice it only by missing pings.
const SOAK: &str = "recovery: { for: 1m, messages: 100000 }\nping: { interval: 1s, timeout: 2s }";

#[test]
fn stock_clients_recover_from_cuts() {
    let mut edge = Edge::start(&hub_only(SOAK));
    let url = format!("http://{}", edge.http());
    let deadline = (PATIENCE * 6).as_millis().to_string();
    let mut script = Script::start("recovery.mjs", &[("URL", &url), ("DEADLINE_MS", &deadline)]);
    for _ in 0..3 {
        script.wait_for("\"reload\"");
        edge.reload();
        script.tell("reloaded");
    }
    let rest = script.finish();
    assert!(rest.contains("passed"), "{rest}");
    // Three clients had disconnected themselves, and showed their secret all the same.
    let missed = ["unknown", "expired", "too_much"].map(|outcome| outcomes(&edge, outcome));
    assert_eq!(missed, [3, 0, 0], "{rest}");
}
