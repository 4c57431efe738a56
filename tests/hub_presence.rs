//! Members of watched rooms hear who comes and goes, and may ask who is there.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::socketio::{GENEROUS, Heard, Line, Web, metric, web_on};
use crate::harness::{Edge, PLAIN, eventually};

fn yaml(presence: &str) -> String {
    format!(
        r#"{PLAIN}hub:
  limits: {{ {GENEROUS} }}
  namespaces:
    /:
      auth: none
      presence: {presence}
      events:
        join: {{ join: "room:{{0}}" }}
        leave: {{ leave: "room:{{0}}" }}
        quiet: {{ join: "quiet:{{0}}" }}
        {WHO}
        "*": {{ relay: "*" }}
"#
    )
}

const WHO: &str = r#"who: { presence: "room:{0}" }"#;

const WATCHED: &str = "['room:*']";

/// A socket on this worker, and its id.
fn socket(edge: &Edge, worker: char) -> (Web, String) {
    let mut web = web_on(edge, worker);
    let id = web.enter("/");
    (web, id)
}

#[track_caller]
fn done(line: &mut impl Line, event: &str, room: &str) {
    line.say(&format!("421[\"{event}\",\"{room}\"]"));
    line.expect("431[{\"ok\":true}]");
}

/// The next thing that is heard must be told by the hub.
#[track_caller]
fn told(line: &mut impl Line) -> Value {
    let text = line.text();
    let told: Value = serde_json::from_str(text.strip_prefix("42").expect(&text)).expect("JSON");
    assert_eq!(told[0], "presence", "{text}");
    told[1].clone()
}

/// What was on its way to the room when the newcomer joined is heard before.
#[track_caller]
fn told_at_last(line: &mut impl Line, wanted: &Value) {
    let first = told(line);
    if first != *wanted {
        assert_eq!(told(line), *wanted, "after {first}");
    }
}

fn members(ids: &[&String]) -> Value {
    let mut ids: Vec<_> = ids.to_vec();
    ids.sort();
    ids.into_iter().map(|id| json!({ "id": id, "user": null })).collect()
}

fn change(room: &str, count: usize, joined: &[&String], left: &[&String]) -> Value {
    let (joined, left) = (members(joined), members(left));
    json!({ "room": room, "count": count, "users": null, "joined": joined, "left": left, "more": false })
}

/// As `done`; what the hub tells meanwhile is passed over.
#[track_caller]
fn done_at_last(line: &mut impl Line, event: &str, room: &str) {
    line.say(&format!("421[\"{event}\",\"{room}\"]"));
    loop {
        let text = line.text();
        if !text.starts_with("42[\"presence\"") {
            return assert_eq!(text, "431[{\"ok\":true}]");
        }
    }
}

#[track_caller]
fn asked(line: &mut impl Line, room: &str) -> Value {
    line.say(&format!("427[\"who\",\"{room}\"]"));
    let text = line.text();
    serde_json::from_str(text.strip_prefix("437").expect(&text)).expect("JSON")
}

#[test]
fn members_on_both_workers_hear_the_same() {
    let edge = Edge::start(&yaml(WATCHED));
    // Several rooms, so that both workers keep some.
    for room in ["a", "b", "c", "d"] {
        let name = format!("room:{room}");
        let [(mut one, first), (mut two, second)] = ['0', '1'].map(|worker| socket(&edge, worker));
        let (mut third, gone) = socket(&edge, '1');
        done(&mut one, "join", room);
        assert_eq!(told(&mut one), change(&name, 1, &[&first], &[]));
        done(&mut two, "join", room);
        let wanted = change(&name, 2, &[&second], &[]);
        assert_eq!(told(&mut one), wanted);
        told_at_last(&mut two, &wanted);
        done(&mut third, "join", room);
        let wanted = change(&name, 3, &[&gone], &[]);
        assert_eq!([told(&mut one), told(&mut two)], [wanted.clone(), wanted.clone()]);
        told_at_last(&mut third, &wanted);
        let answer = json!([{
            "ok": true, "room": name, "count": 3, "users": null,
            "members": members(&[&first, &second, &gone]), "more": false,
        }]);
        assert_eq!([asked(&mut one, room), asked(&mut two, room)], [answer.clone(), answer]);
        // A client that vanishes has left, too; who leaves hears no more.
        drop(third);
        for line in [&mut one, &mut two] {
            assert_eq!(told(line), change(&name, 2, &[], &[&gone]));
        }
        done(&mut one, "leave", room);
        assert_eq!(told(&mut two), change(&name, 1, &[], &[&first]));
        assert_eq!(asked(&mut one, room), json!([{ "error": { "code": "not_member" } }]));
        two.say("41");
        assert_eq!(asked(&mut one, room), json!([{ "error": { "code": "not_member" } }]));
    }
}

#[test]
fn only_watched_rooms_are_told_of_and_nobody_pretends() {
    let edge = Edge::start(&yaml(WATCHED));
    let [(mut one, first), (mut two, _)] = ['0', '1'].map(|worker| socket(&edge, worker));
    done(&mut one, "quiet", "a");
    done(&mut two, "quiet", "a");
    done(&mut one, "join", "a");
    assert_eq!(told(&mut one), change("room:a", 1, &[&first], &[]));
    two.say("423[\"presence\",{\"room\":\"room:a\",\"count\":0}]");
    two.expect("433[{\"error\":{\"code\":\"denied\"}}]");
    done(&mut two, "anything", "x");
    one.expect("42[\"anything\",\"x\"]");
    // The operator's moves are told as well.
    let body = json!({ "namespace": "/", "sid": first, "rooms": "room:a" }).to_string();
    assert_eq!(edge.admin_with("POST", "/hub/join", body.as_bytes()).status, 200);
    let body = json!({ "namespace": "/", "to": "*", "rooms": "room:b" }).to_string();
    assert_eq!(edge.admin_with("POST", "/hub/join", body.as_bytes()).status, 200);
    let both = [told(&mut one), told(&mut two)];
    assert!(both.iter().all(|told| told["room"] == "room:b" && told["count"] == 2), "{both:?}");
}

#[test]
fn a_crowd_that_comes_at_once_is_told_in_few_words() {
    const CROWD: usize = 300;
    let edge = Edge::start(&yaml(WATCHED));
    let mut webs: Vec<Web> = (0..CROWD).map(|_| Web::open(&edge)).collect();
    webs.iter_mut().for_each(|web| drop(web.enter("/")));
    let built = "vestibule_hub_messages_built_total";
    let before = metric(&edge, built);
    webs.iter_mut().for_each(|web| web.say("421[\"join\",\"a\"]"));
    let mut batches = 0;
    for web in &mut webs {
        let mut heard = 0;
        loop {
            let text = web.text();
            if text.starts_with("431") {
                continue;
            }
            heard += 1;
            let told: Value = serde_json::from_str(&text[2..]).expect("JSON");
            assert!(
                told[1]["joined"].as_array().is_some_and(|joined| joined.len() <= 50),
                "{text}"
            );
            if told[1]["count"] == CROWD {
                break;
            }
        }
        batches = batches.max(heard);
    }
    assert!(batches < CROWD / 10, "{batches} messages for {CROWD} members");
    let built = metric(&edge, built) - before;
    let most = i64::try_from(CROWD + batches).expect("few");
    assert!(built <= most, "{built} built: one for each answer and one for each batch");
    let answer = asked(&mut webs[0], "a");
    assert_eq!((&answer[0]["count"], &answer[0]["more"]), (&json!(CROWD), &json!(true)));
    assert_eq!(answer[0]["members"].as_array().map(Vec::len), Some(100));
}

#[test]
fn new_rules_watch_what_is_there() {
    let plain = yaml("[]").replace(WHO, "");
    let mut edge = Edge::start(&plain);
    let [(mut one, first), (mut two, second)] = ['0', '1'].map(|worker| socket(&edge, worker));
    done(&mut one, "join", "a");
    done(&mut two, "join", "a");
    edge.reload_with(&yaml(WATCHED));
    let mut known = Vec::new();
    while known.len() < 2 {
        let told = told(&mut one);
        assert_eq!((&told["room"], &told["left"]), (&json!("room:a"), &json!([])));
        known.extend(told["joined"].as_array().expect("a list").clone());
    }
    assert_eq!(asked(&mut one, "a")[0]["members"], members(&[&first, &second]));
    edge.reload_with(&plain);
    done_at_last(&mut two, "leave", "a");
    done_at_last(&mut two, "join", "b");
    done_at_last(&mut one, "anything", "x");
    // Until that comes, the other may still hear what was told under the old rules.
    loop {
        match two.hear() {
            Heard::Text(text) if text == "42[\"anything\",\"x\"]" => break,
            Heard::Text(text) => assert!(!text.contains("room:b"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

/// Comes to the namespace, or back to it; returns who it is, and the secret to come back with.
fn arrive(web: &mut Web, secret: Option<&str>) -> [String; 2] {
    web.say(&match secret {
        Some(secret) => format!("40{{\"pid\":\"{secret}\"}}"),
        None => "40".to_owned(),
    });
    loop {
        // What it missed comes before.
        if let Some(words) = web.text().strip_prefix("40") {
            let words: Value = serde_json::from_str(words).expect("JSON");
            return ["sid", "pid"].map(|word| words[word].as_str().expect(word).to_owned());
        }
    }
}

/// Takes note of what a member is told; nobody comes who was here, or goes who was not.
fn note(known: &mut BTreeSet<String>, text: &str) {
    let told: Value = serde_json::from_str(&text[2..]).expect("JSON");
    let ids = |field: &str| -> Vec<String> {
        let ids = told[1][field].as_array().expect("a list").iter();
        ids.map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
    };
    ids("left").iter().for_each(|id| assert!(known.remove(id), "{id} left: {text}"));
    ids("joined").into_iter().for_each(|id| assert!(known.insert(id), "joined: {text}"));
    assert_eq!(told[1]["count"], known.len(), "{text}");
}

#[test]
fn who_goes_on_on_another_worker_has_never_left() {
    const HOPS: usize = 25;
    let yaml = yaml(WATCHED).replace("workers: 2", "workers: 4");
    let edge = Edge::start(&yaml.replace("hub:\n", "hub:\n  recovery: 2m\n"));
    // Several rooms, which different workers keep.
    for room in ["a", "b", "c"] {
        let (mut member, mut known) = (web_on(&edge, '0'), BTreeSet::new());
        let [first, _] = arrive(&mut member, None);
        done_noting(&mut member, room, &mut known);
        let mut others: Vec<_> = ['1', '2', '3']
            .map(|worker| {
                let mut web = web_on(&edge, worker);
                let [id, secret] = arrive(&mut web, None);
                done_at_last(&mut web, "join", room);
                (web, id, secret)
            })
            .into();
        for hop in 0..HOPS {
            for (number, (web, id, secret)) in others.iter_mut().enumerate() {
                let worker = ['0', '1', '2', '3'][(hop + number) % 4];
                // The old connection is still open then.
                let mut next = web_on(&edge, worker);
                let [same, again] = arrive(&mut next, Some(secret));
                assert_eq!(same, *id, "it has begun anew");
                (*web, *secret) = (next, again);
            }
        }
        let mut all: BTreeSet<String> = others.iter().map(|(_, id, _)| id.clone()).collect();
        all.insert(first);
        eventually("everybody is here", || {
            member.say(&format!("427[\"who\",\"{room}\"]"));
            let list = loop {
                let text = member.text();
                match text.strip_prefix("437") {
                    Some(list) => break serde_json::from_str::<Value>(list).expect("JSON"),
                    None => note(&mut known, &text),
                }
            };
            (list[0]["count"] == all.len() && known == all).then_some(())
        });
    }
}

fn done_noting(line: &mut Web, room: &str, known: &mut BTreeSet<String>) {
    line.say(&format!("421[\"join\",\"{room}\"]"));
    loop {
        let text = line.text();
        if text.starts_with("431") {
            return;
        }
        note(known, &text);
    }
}
