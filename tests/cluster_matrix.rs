//! This program's nodes and servers of Node with the packages of npm, as one: every adapter, every
//! direction, every operation.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cluster::{node, post};
use crate::harness::cluster::{Cluster, Origin, Peer, event, wait_for_readers};
use crate::harness::redis::Redis;
use crate::harness::socketio::{Heard, Line as _, Web};
use crate::harness::{Client, eventually};

const ADAPTERS: [&str; 3] = ["classic", "sharded", "streams"];
const ALL: [usize; 4] = [0, 1, 2, 3];

fn on_each(check: impl Fn(&mut Cluster)) {
    ADAPTERS.into_iter().for_each(|adapter| check(&mut Cluster::start(adapter)));
}

/// The same by every server and the emitter.
fn by_each(check: impl Fn(&mut Cluster, Origin)) {
    on_each(|cluster| {
        for origin in cluster.origins() {
            check(cluster, origin);
        }
    });
}

#[test]
fn events_reach_everybody() {
    by_each(|cluster, origin| {
        let args =
            json!(["é😀\"\n", 1.5, -3, 5_000_000_000_u64, null, true, {}, [], {"a": {"b": [1]}}]);
        cluster.say(origin, &json!({ "do": "emit", "name": "x", "args": args }));
        let data = r#"["x","é😀\"\n",1.5,-3,5000000000,null,true,{},[],{"a":{"b":[1]}}]"#;
        cluster.expect(origin, &ALL, &[event(data)]);
        cluster.say(origin, &json!({ "do": "emit", "name": "x", "volatile": true }));
        cluster.expect(origin, &ALL, &[event(r#"["x"]"#)]);
        // What is binary comes after its event, in the order in which it is named.
        let args = json!([{ "a": [{ "$binary": "AQI=" }] }, { "$binary": "" }, "t"]);
        cluster.say(origin, &json!({ "do": "emit", "name": "x", "args": args }));
        let place = |number| json!({ "_placeholder": true, "num": number });
        let data = json!(["x", { "a": [place(0)] }, place(1), "t"]);
        let head = Heard::Text(format!("452-/chat,{data}"));
        cluster.expect(origin, &ALL, &[head, Heard::Binary(vec![1, 2]), Heard::Binary(vec![])]);
    });
}

#[test]
fn dates_arrive_as_their_texts() {
    by_each(|cluster, origin| {
        if matches!(origin, Origin::Edge(_)) {
            return;
        }
        let args =
            json!([{ "$date": 1_700_000_000_123_u64 }, { "$date": -1 }, { "d": { "$date": 0 } }]);
        cluster.say(origin, &json!({ "do": "emit", "name": "x", "args": args }));
        let texts = r#"["x","2023-11-14T22:13:20.123Z","1969-12-31T23:59:59.999Z",{"d":"1970-01-01T00:00:00.000Z"}]"#;
        cluster.expect(origin, &ALL, &[event(texts)]);
        let args = json!([{ "$date": 0 }, { "$binary": "AQI=" }, { "$undefined": 1 }]);
        cluster.say(origin, &json!({ "do": "emit", "name": "x", "args": args }));
        let head =
            r#"451-/chat,["x","1970-01-01T00:00:00.000Z",{"_placeholder":true,"num":0},null]"#;
        let packets = [Heard::Text(head.to_owned()), Heard::Binary(vec![1, 2])];
        cluster.expect(origin, &ALL, &packets);
    });
}

#[test]
fn events_reach_rooms_sockets_and_no_others() {
    on_each(check_rooms);
}

#[test]
fn rooms_may_have_channels_or_none() {
    for rooms in ["static", "dynamic-private"] {
        check_rooms(&mut Cluster::with_rooms("sharded", rooms));
    }
}

fn check_rooms(cluster: &mut Cluster) {
    // On one server of each kind: 1 and 2 are in `a`, 2 and 3 in `b`.
    cluster.members[1].join("a");
    cluster.members[2].join("a");
    cluster.members[2].join("b");
    cluster.members[3].join("b");
    for room in ["room:a", "room:b"] {
        cluster.wait_for_room(room, 2);
    }
    for member in &cluster.members {
        cluster.wait_for_room(&member.id, 1);
    }
    for origin in cluster.origins() {
        let x = [event(r#"["x"]"#)];
        let ids: Vec<_> = cluster.members.iter().map(|member| member.id.clone()).collect();
        let (first, last) = (&ids[0], &ids[3]);
        for (to, except, who) in [
            (json!(["room:a"]), json!([]), &[1, 2][..]),
            (json!(["room:a", "room:b"]), json!([]), &[1, 2, 3]),
            (json!(["room:a", "room:b"]), json!(["room:a"]), &[3]),
            (json!(["room:nobody"]), json!([]), &[]),
            (json!([first]), json!([]), &[0]),
            (json!([last]), json!([]), &[3]),
            (json!([first, "room:b"]), json!([last]), &[0, 2]),
        ] {
            let words = json!({ "do": "emit", "name": "x", "to": to, "except": except });
            cluster.say(origin, &words);
            cluster.expect(origin, who, &x);
        }
        let words = json!({ "do": "emit", "name": "x", "except": ["room:a", first] });
        cluster.say(origin, &words);
        cluster.expect(origin, &[3], &x);
    }
    for (node, member) in [(0, 2), (1, 3)] {
        let words = json!({ "do": "emit", "name": "x", "local": true });
        cluster.say(Origin::Node(node), &words);
        cluster.expect(Origin::Node(node), &[member], &[event(r#"["x"]"#)]);
    }
}

#[test]
fn clients_speak_across_servers() {
    on_each(|cluster| {
        for member in &mut cluster.members {
            member.join("a");
        }
        cluster.wait_for_room("room:a", 4);
        let id = cluster.members[0].id.clone();
        let web = &mut cluster.members[0].web;
        web.say("42/chat,7[\"message\",{\"room\":\"a\",\"text\":\"t\"}]");
        web.expect("43/chat,7[{\"ok\":true}]");
        let data = json!(["message", { "room": "a", "text": "t", "from": id }]);
        for member in &mut cluster.members[1..] {
            let Heard::Text(heard) = member.web.hear() else { panic!("a text") };
            let heard = heard.strip_prefix("42/chat,").expect("an event");
            assert_eq!(serde_json::from_str::<Value>(heard).expect("JSON"), data);
        }
    });
}

#[test]
fn sockets_are_moved() {
    by_each(|cluster, origin| {
        let x = [event(r#"["x"]"#)];
        let ids: Vec<_> = cluster.members.iter().map(|member| member.id.clone()).collect();
        let to_room = json!({ "do": "emit", "name": "x", "to": ["moved"] });
        let steps: [(Value, &[usize]); 6] = [
            (json!({ "do": "join", "to": [ids[0], ids[2]], "rooms": ["moved"] }), &[0, 2]),
            (json!({ "do": "join", "to": [ids[1]], "rooms": ["other", "moved"] }), &[0, 1, 2]),
            (json!({ "do": "leave", "to": ["other"], "rooms": ["moved"] }), &[0, 2]),
            (json!({ "do": "join", "rooms": ["moved"], "except": [ids[3]] }), &[0, 1, 2]),
            (json!({ "do": "leave", "to": [ids[2]], "rooms": ["moved"] }), &[0, 1]),
            (json!({ "do": "leave", "rooms": ["moved", "other"] }), &[]),
        ];
        for (move_, who) in steps {
            cluster.say(origin, &move_);
            if let (Origin::Node(node), "classic") = (origin, cluster.adapter) {
                // It moves its own sockets when Redis tells it so, before this is answered.
                cluster.nodes[node].told(&json!({ "do": "fetch", "namespace": "/chat" }));
            }
            if cluster.adapter == "sharded" {
                // The room's channel is listened to a moment later; all rooms are the main one's.
                let rooms = json!({ "do": "emit", "name": "x", "to": ["moved", "nobody"] });
                cluster.say(origin, &rooms);
            } else {
                cluster.say(origin, &to_room);
            }
            cluster.expect(origin, who, &x);
        }
    });
}

#[test]
fn sockets_are_sent_away() {
    by_each(|cluster, origin| {
        for close in [false, true] {
            let away = [1, 3];
            let ids = away.map(|index| cluster.members[index].id.clone());
            cluster.say(origin, &json!({ "do": "disconnect", "to": ids, "close": close }));
            for index in away {
                let web = &mut cluster.members[index].web;
                web.expect("41/chat,");
                if close {
                    assert!(matches!(web.hear(), Heard::Closed(_)), "{origin:?}");
                }
                cluster.replace(index);
            }
            cluster.expect(origin, &[], &[]);
        }
    });
}

#[test]
fn sockets_are_found() {
    on_each(|cluster| {
        cluster.members[1].join("a");
        cluster.members[2].join("a");
        let ids: BTreeSet<_> = cluster.members.iter().map(|member| member.id.clone()).collect();
        for node in 0..2 {
            let mut fetch = |more: Value| {
                let mut words = json!({ "do": "fetch", "namespace": "/chat" });
                words
                    .as_object_mut()
                    .expect("fields")
                    .extend(more.as_object().expect("fields").clone());
                let done = cluster.nodes[node].told(&words);
                done["list"].as_array().unwrap_or_else(|| panic!("{done}")).clone()
            };
            let all = fetch(json!({}));
            let found: BTreeSet<_> =
                all.iter().filter_map(|socket| Some(socket["id"].as_str()?.to_owned())).collect();
            assert_eq!((found, all.len()), (ids.clone(), 4));
            for socket in &all {
                let handshake = &socket["handshake"];
                assert_eq!(handshake["auth"], json!({}), "{socket}");
                assert!(handshake["query"].is_object(), "{socket}");
                let address = handshake["address"].as_str().expect("an address");
                assert!(address.contains("127.0.0.1"), "{address}");
                assert!(handshake["issued"].as_u64() > Some(1_700_000_000_000), "{socket}");
                for field in ["headers", "time", "xdomain", "secure", "url"] {
                    assert_ne!(handshake[field], Value::Null, "{field} of {socket}");
                }
            }
            let inside = fetch(json!({ "to": ["room:a"], "except": ["room:b"] }));
            assert_eq!(inside.len(), 2);
            for socket in &inside {
                let rooms: BTreeSet<_> = socket["rooms"]
                    .as_array()
                    .expect("rooms")
                    .iter()
                    .filter_map(Value::as_str)
                    .collect();
                let id = socket["id"].as_str().expect("an id");
                assert_eq!(rooms, BTreeSet::from([id, "room:a"]));
            }
            assert_eq!(fetch(json!({ "to": ["nobody"] })), Vec::<Value>::new());
            if cluster.adapter == "classic" {
                let rooms =
                    cluster.nodes[node].told(&json!({ "do": "rooms", "namespace": "/chat" }));
                let rooms: BTreeSet<_> = rooms["list"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .filter_map(Value::as_str)
                    .collect();
                let wanted = ids.iter().map(String::as_str).chain(["room:a"]).collect();
                assert_eq!(rooms, wanted);
            }
        }
        for edge in &cluster.edges {
            let asked = |path: &str| edge.admin("GET", &format!("/hub/{path}")).json();
            assert_eq!(asked("count?namespace=/chat")["sockets"], 4);
            assert_eq!(asked("count?namespace=/chat&room=room:a")["sockets"], 2);
            let listed = asked("sockets?namespace=/chat");
            let listed = listed["sockets"].as_array().expect("a list").iter();
            let listed: BTreeSet<_> =
                listed.filter_map(|socket| Some(socket["id"].as_str()?.to_owned())).collect();
            assert_eq!(listed, ids);
        }
    });
}

#[test]
fn servers_tell_each_other() {
    on_each(|cluster| {
        let heard = |cluster: &mut Cluster, node: usize, wanted: Value| {
            eventually("a server-side emit", || {
                let told = cluster.nodes[node].told(&json!({ "do": "told" }));
                let list = told["list"].as_array().expect("a list").clone();
                (!list.is_empty()).then(|| assert_eq!(Value::from(list), wanted))
            });
        };
        for (from, to) in [(0, 1), (1, 0)] {
            let args = json!(["w", 1, { "a": [null] }]);
            let words = json!({ "do": "tell", "namespace": "/chat", "args": args });
            assert_eq!(cluster.nodes[from].told(&words)["error"], Value::Null);
            heard(cluster, to, json!([args]));
            // Every server answers, those without any handlers too, so that nobody waits in vain.
            let words = json!({ "do": "tellAll", "namespace": "/chat", "args": ["w"] });
            let begun = std::time::Instant::now();
            let done = cluster.nodes[from].told(&words);
            assert_eq!(done["error"], Value::Null, "{done}");
            let list = done["list"].as_array().expect("a list");
            let said = list.iter().filter(|answer| answer["from"] == "node").count();
            assert_eq!((list.len(), said), (3, 1), "{done}");
            assert!(begun.elapsed() < std::time::Duration::from_secs(4), "{:?}", begun.elapsed());
            heard(cluster, to, json!([["w"]]));
        }
        if let Some(emitter) = &mut cluster.emitter {
            emitter.told(&json!({ "do": "tell", "namespace": "/chat", "args": ["e"] }));
            heard(cluster, 0, json!([["e"]]));
            heard(cluster, 1, json!([["e"]]));
        }
    });
}

#[test]
fn everybody_is_asked_and_answers() {
    on_each(|cluster| {
        cluster.members[1].join("a");
        cluster.members[2].join("a");
        for node in 0..2 {
            for (to, who) in
                [(json!([]), &ALL[..]), (json!(["room:a"]), &[1, 2]), (json!(["no"]), &[])]
            {
                let words = json!({ "do": "ask", "namespace": "/chat", "to": to, "name": "q", "timeout": 5000, "args": ["p"] });
                cluster.nodes[node].begin(&words);
                let mut wanted = BTreeSet::new();
                for &index in who {
                    let web = &mut cluster.members[index].web;
                    let asked = web.text();
                    let (id, data) = asked
                        .strip_prefix("42/chat,")
                        .and_then(|rest| rest.split_once('['))
                        .unwrap_or_else(|| panic!("{asked}"));
                    assert_eq!(data, "\"q\",\"p\"]", "{asked}");
                    match index {
                        // With data, an object, nothing, and a text.
                        0 => {
                            web.say(&format!(
                                "461-/chat,{id}[{{\"_placeholder\":true,\"num\":0}},1]"
                            ));
                            web.say_bytes(&[1, 2]);
                            wanted.insert(r#"{"$binary":"AQI="}"#.to_owned());
                        }
                        1 => {
                            web.say(&format!("43/chat,{id}[{{\"a\":[1]}},2]"));
                            wanted.insert(r#"{"a":[1]}"#.to_owned());
                        }
                        2 => {
                            web.say(&format!("43/chat,{id}[null]"));
                            wanted.insert("null".to_owned());
                        }
                        _ => {
                            web.say(&format!("43/chat,{id}[\"t\"]"));
                            wanted.insert("\"t\"".to_owned());
                        }
                    }
                }
                let done = cluster.nodes[node].done();
                assert_eq!(done["error"], Value::Null, "{done}");
                let list = done["list"].as_array().expect("a list");
                let said: BTreeSet<_> = list.iter().map(Value::to_string).collect();
                assert_eq!((said, list.len()), (wanted, who.len()), "{node} to {to}");
            }
            // Who does not answer is missed, and the others are heard.
            let words = json!({ "do": "ask", "namespace": "/chat", "name": "q", "timeout": 1500 });
            cluster.nodes[node].begin(&words);
            for index in ALL {
                let asked = cluster.members[index].web.text();
                let id = asked
                    .strip_prefix("42/chat,")
                    .expect("an event")
                    .split_once('[')
                    .expect("data")
                    .0;
                if index != 1 {
                    cluster.members[index].web.say(&format!("43/chat,{id}[{index}]"));
                }
            }
            let done = cluster.nodes[node].done();
            assert_eq!(done["error"], "operation has timed out", "{done}");
            let list = done["list"].as_array().expect("a list");
            let said: BTreeSet<_> = list.iter().filter_map(Value::as_u64).collect();
            assert_eq!(said, BTreeSet::from([0, 2, 3]), "{done}");
        }
    });
}

#[test]
fn who_has_gone_is_not_waited_for() {
    on_each(|cluster| {
        let begun = std::time::Instant::now();
        // A process that just ends, one that leaves, and one more that just ends.
        drop(cluster.nodes.remove(1));
        for edge in &cluster.edges {
            eventually("three sockets", || {
                let count = edge.admin("GET", "/hub/count?namespace=/chat").json();
                (count["sockets"] == 3).then_some(())
            });
        }
        let fetched = |cluster: &mut Cluster| {
            let done = cluster.nodes[0].told(&json!({ "do": "fetch", "namespace": "/chat" }));
            assert_eq!(done["error"], Value::Null, "{done}");
            done["list"].as_array().expect("a list").len()
        };
        assert_eq!(fetched(cluster), 3);
        cluster.edges[0].signal("TERM");
        assert!(cluster.edges[0].ended().success());
        assert_eq!(fetched(cluster), 2);
        cluster.edges[1].signal("KILL");
        cluster.edges[1].ended();
        assert_eq!(fetched(cluster), 1);
        let told = json!({ "do": "tellAll", "namespace": "/chat", "args": [] });
        let done = cluster.nodes[0].told(&told);
        assert_eq!((&done["error"], &done["list"]), (&Value::Null, &json!([])));
        // None was waited for until the deadline of five seconds, which each question has.
        assert!(begun.elapsed() < std::time::Duration::from_secs(12), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_client_of_node_gets_what_this_program_said_meanwhile() {
    let redis = Redis::start();
    let edge = node(&redis, "streams");
    let mut peer = Peer::with(&redis, &[("ADAPTER", "streams"), ("RECOVERY", "1")]);
    eventually("two servers", || {
        let counted = peer.told(&json!({ "do": "count", "namespace": "/chat" }));
        (counted["count"] == 2).then_some(())
    });
    wait_for_readers(&redis, 2);
    let address = peer.address.expect("an address");
    let open = |words: &str| {
        let mut web = Web::over(Client::connect(address), "EIO=4");
        web.say(&format!("40/chat,{words}"));
        web
    };
    let mut web = open("");
    let words = web.text();
    let words: Value = serde_json::from_str(&words["40/chat,".len()..]).expect("JSON");
    let pid = words["pid"].as_str().expect("a secret");
    post(&edge, "emit", &json!({ "namespace": "/chat", "event": "one" }));
    let one: Value = serde_json::from_str(&web.text()["42/chat,".len()..]).expect("JSON");
    let offset = one[1].as_str().expect("where it stands in the stream");
    drop(web);
    let key = format!("sio:session:{pid}");
    eventually("the session", || (redis.ask(&["exists", &key]) == "1").then_some(()));
    let emit = |more: Value| {
        let mut body = json!({ "namespace": "/chat" });
        body.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
        post(&edge, "emit", &body);
    };
    emit(json!({ "event": "two", "args": ["é"] }));
    emit(json!({ "event": "not", "to": "elsewhere" }));
    emit(json!({ "event": "three", "sid": words["sid"], "args": [{ "$binary": "AQI=" }] }));
    let mut web = open(&json!({ "pid": pid, "offset": offset }).to_string());
    let two = web.text();
    assert!(two.starts_with(r#"42/chat,["two","é",""#), "{two}");
    let three = web.text();
    assert!(three.starts_with(r#"451-/chat,["three",{"_placeholder":true,"num":0},""#), "{three}");
    assert_eq!(web.hear(), Heard::Binary(vec![1, 2]));
    let again = web.text();
    let again: Value = serde_json::from_str(&again["40/chat,".len()..]).expect("JSON");
    assert_eq!(again, words);
}
