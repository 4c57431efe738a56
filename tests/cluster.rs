//! Several nodes over one Redis: whatever happens on one reaches all.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::redis::Redis;
use crate::harness::socketio::{
    Heard, Line, Poller, Web, hub_only, metric, wait_for_metric, web_on,
};
use crate::harness::{Answer, Edge, PLAIN, eventually};
use crate::hub_hooks::{application, asked as asked_of, nothing};

pub const UP: &str = "vestibule_hub_redis_up";

/// A node that is reached by the others.
pub fn node(redis: &Redis, adapter: &str) -> Edge {
    let edge = lone(redis, adapter, "");
    wait_for_metric(&edge, UP, 1);
    edge
}

/// One that may not have found its Redis yet.
pub fn lone(redis: &Redis, adapter: &str, more: &str) -> Edge {
    let settings = format!("redis: {{ url: '{}', adapter: {adapter}{more} }}", redis.url());
    Edge::start(&hub_only(&settings))
}

const ADAPTERS: [&str; 3] = ["classic", "sharded", "streams"];

/// The same on each wire.
fn on_each(check: impl Fn(&Edge, &Edge)) {
    on_each_wire(|_, one, two| check(one, two));
}

/// The same, with the wire: a Redis, and the adapter that speaks to it.
fn on_each_wire(check: impl Fn((&Redis, &str), &Edge, &Edge)) {
    for adapter in ADAPTERS {
        let redis = Redis::start();
        let (one, two) = (node(&redis, adapter), node(&redis, adapter));
        eprintln!("over {adapter}");
        check((&redis, adapter), &one, &two);
    }
}

/// Until both nodes listen to a room, where it has a channel of its own: that is a moment after it was
/// joined.
fn wait_for_room((redis, adapter): (&Redis, &str), room: &str) {
    let channel = format!("socket.io#/chat#{room}#");
    eventually("both to listen", || {
        let counted = redis.ask(&["pubsub", "shardnumsub", &channel]);
        (adapter != "sharded" || counted.ends_with('2')).then_some(())
    });
}

pub fn post(edge: &Edge, operation: &str, body: &Value) -> Answer {
    let answer = edge.admin_with("POST", &format!("/hub/{operation}"), body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

pub fn asked(edge: &Edge, path: &str) -> Value {
    let answer = edge.admin("GET", &format!("/hub/{path}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Nothing but this is on its way to the client from its own node.
#[track_caller]
fn expect_silence(line: &mut impl Line) {
    line.say("42/chat,7[\"unknown\"]");
    line.expect("43/chat,7[{\"error\":{\"code\":\"unknown_event\"}}]");
}

/// What was sent to other nodes before has come when this has.
#[track_caller]
fn settle(from: &Edge, lines: &mut [&mut Web]) {
    post(from, "emit", &json!({"namespace": "/chat", "event": "settled"}));
    lines.iter_mut().for_each(|line| line.expect("42/chat,[\"settled\"]"));
}

#[test]
fn clients_of_all_nodes_hear_each_other() {
    on_each(|one, two| {
        let (mut alice, mut bob, mut carol) = (Web::open(one), web_on(two, '0'), web_on(two, '1'));
        for line in [&mut alice, &mut bob, &mut carol] {
            line.enter("/");
        }
        let mut dave = Poller::open(two);
        dave.enter("/");
        alice.say("420[\"tell\",{\"a\":\"é\",\"n\":1.5},[null,true],\"x\"]");
        alice.expect("430[{\"ok\":true}]");
        for line in [&mut bob as &mut dyn Line, &mut carol, &mut dave] {
            assert_eq!(
                line.hear(),
                Heard::Text("42[\"tell\",{\"a\":\"é\",\"n\":1.5},[null,true],\"x\"]".to_owned())
            );
        }
        bob.say("42[\"all\",1]");
        for line in [&mut alice as &mut dyn Line, &mut bob, &mut carol, &mut dave] {
            assert_eq!(line.hear(), Heard::Text("42[\"all\",1]".to_owned()));
        }
        // Binary, and to rooms that only one of the nodes knows.
        carol.say(
            "452-[\"tell\",{\"_placeholder\":true,\"num\":1},{\"_placeholder\":true,\"num\":0}]",
        );
        carol.say_bytes(&[1]);
        carol.say_bytes(&[2, 3]);
        for line in [&mut alice as &mut dyn Line, &mut bob, &mut dave] {
            let Heard::Text(text) = line.hear() else { panic!("a text first") };
            assert!(text.starts_with("452-[\"tell\",{\"_placeholder\":true"), "{text}");
            let parts: BTreeSet<_> = [line.hear(), line.hear()]
                .into_iter()
                .map(|part| match part {
                    Heard::Binary(data) => data,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(parts, BTreeSet::from([vec![1], vec![2, 3]]));
        }
    });
}

/// Clients hang up at more parts than they were told of, and at very deep data: what other servers say
/// so is not told, while the rest is.
#[test]
fn what_clients_would_hang_up_at_is_not_told() {
    const UNFIT: &str = "vestibule_hub_redis_heard_total{fate=\"unfit\"}";
    let redis = Redis::start();
    let settings = |limits: &str| {
        hub_only(&format!("{limits}\nredis: {{ url: '{}', adapter: classic }}", redis.url()))
    };
    let one = Edge::start(&settings("limits: { attachments: 256 }"));
    let two = Edge::start(&settings(""));
    [&one, &two].iter().for_each(|edge| wait_for_metric(edge, UP, 1));
    let (mut alice, mut bob) = (Web::open(&one), Web::open(&two));
    alice.enter("/");
    bob.enter("/");
    let parts: Vec<_> =
        (0..11).map(|number| format!("{{\"_placeholder\":true,\"num\":{number}}}")).collect();
    alice.say(&format!("4511-1[\"tell\",{}]", parts.join(",")));
    (0..11u8).for_each(|number| alice.say_bytes(&[number]));
    alice.expect("431[{\"ok\":true}]");
    wait_for_metric(&two, UNFIT, 1);
    alice.say("42[\"tell\",1]");
    bob.expect("42[\"tell\",1]");
    eventually("a word about it", || {
        two.log().contains("another server's event is not told").then_some(())
    });
}

/// An empty list of rooms is nobody, on every node.
#[test]
fn what_is_for_nobody_is_heard_by_nobody() {
    let origin = application(|question| match question["args"][0].as_str() {
        Some("nobody") => {
            let to = |to: Value, event: &str| json!({ "to": to, "event": event });
            (
                200,
                json!({ "ack": [1], "emit": [to(json!([]), "private"), to(json!(["room:a"]), "told")] }),
            )
        }
        _ => nothing(question),
    });
    for adapter in ADAPTERS {
        let redis = Redis::start();
        let yaml = format!(
            "{PLAIN}sites: {{ localhost: {{ next: \"{}\" }} }}\nhub:\n  redis: {{ url: '{}', adapter: {adapter} }}\n  \
             namespaces:\n    /chat:\n      auth: none\n      events: {{ ask: {{ forward: /api/ask }}, join: {{ join: \"room:{{0}}\" }} }}\n",
            origin.url(),
            redis.url()
        );
        let (one, two) = (Edge::start(&yaml), Edge::start(&yaml));
        [&one, &two].iter().for_each(|edge| wait_for_metric(edge, UP, 1));
        let (mut alice, mut bob) = (Web::open(&one), Web::open(&two));
        for line in [&mut alice, &mut bob] {
            line.enter("/chat");
            line.say("42/chat,1[\"join\",\"a\"]");
            line.expect("43/chat,1[{\"ok\":true}]");
        }
        wait_for_room((&redis, adapter), "room:a");
        settle(&one, &mut [&mut alice, &mut bob]);
        alice.say("42/chat,2[\"ask\",\"nobody\"]");
        bob.expect("42/chat,[\"told\"]");
        let mut heard = [alice.text(), alice.text()];
        heard.sort_unstable();
        assert_eq!(heard, ["42/chat,[\"told\"]", "43/chat,2[1]"], "{adapter}");
    }
}

#[test]
fn rooms_are_of_all_nodes() {
    on_each_wire(|wire, one, two| {
        let (mut alice, mut bob, mut carol) = (Web::open(one), Web::open(two), Web::open(two));
        for line in [&mut alice, &mut bob, &mut carol] {
            line.enter("/chat");
        }
        for line in [&mut alice, &mut bob] {
            line.say("42/chat,1[\"join\",\"r\"]");
            line.expect("43/chat,1[{\"ok\":true}]");
        }
        wait_for_room(wire, "room:r");
        settle(one, &mut [&mut alice, &mut bob, &mut carol]);
        alice.say("42/chat,[\"message\",{\"room\":\"r\"}]");
        let heard = bob.text();
        assert!(heard.starts_with("42/chat,[\"message\",{\"room\":\"r\",\"from\":"), "{heard}");
        expect_silence(&mut alice);
        expect_silence(&mut carol);
        // Nobody there is in the room any more.
        bob.say("42/chat,1[\"leave\",\"r\"]");
        bob.expect("43/chat,1[{\"ok\":true}]");
        alice.say("42/chat,[\"typing\",{\"room\":\"r\"}]");
        settle(one, &mut [&mut alice, &mut bob, &mut carol]);
    });
}

#[test]
fn the_operator_reaches_all_nodes() {
    on_each_wire(|wire, one, two| {
        let (mut alice, mut bob, mut carol) = (Web::open(one), web_on(two, '0'), web_on(two, '1'));
        let mut ids = Vec::new();
        for line in [&mut alice, &mut bob, &mut carol] {
            ids.push(line.enter("/chat"));
        }
        assert_eq!(asked(one, "count?namespace=/chat")["sockets"], 3);
        assert_eq!(asked(two, "count?namespace=/chat")["sockets"], 3);
        assert_eq!(asked(two, "count?namespace=/")["sockets"], 0);
        // To a room, but for one; to a socket by its id.
        post(one, "join", &json!({"namespace": "/chat", "to": "*", "rooms": ["a", "b"]}));
        post(one, "leave", &json!({"namespace": "/chat", "sid": ids[2], "rooms": "b"}));
        let count = |room: &str| asked(two, &format!("count?namespace=/chat&room={room}"));
        eventually("everybody moved", || {
            (count("a")["sockets"] == 3 && count("b")["sockets"] == 2).then_some(())
        });
        let rooms = asked(one, "rooms?namespace=/chat");
        let wanted = json!([
            {"room": "a", "sockets": 3, "users": null},
            {"room": "b", "sockets": 2, "users": null},
        ]);
        assert_eq!((&rooms["rooms"], &rooms["more"]), (&wanted, &json!(false)));
        let listed = asked(one, "sockets?namespace=/chat&room=b");
        let listed: BTreeSet<&str> = listed["sockets"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|socket| socket["id"].as_str())
            .collect();
        assert_eq!(listed, BTreeSet::from([&*ids[0], &*ids[1]]));
        let emit = |to: Value| {
            let mut body = json!({"namespace": "/chat", "event": "x"});
            body.as_object_mut().expect("fields").extend(to.as_object().expect("fields").clone());
            post(one, "emit", &body);
        };
        wait_for_room(wire, "a");
        emit(json!({"to": "a", "except": ["b"]}));
        carol.expect("42/chat,[\"x\"]");
        emit(json!({"sid": ids[1]}));
        bob.expect("42/chat,[\"x\"]");
        settle(one, &mut [&mut alice, &mut bob, &mut carol]);
        // Away with one, and with another's connection.
        post(one, "disconnect", &json!({"namespace": "/chat", "sid": ids[1]}));
        bob.expect("41/chat,");
        post(one, "disconnect", &json!({"namespace": "/chat", "sid": ids[2], "close": true}));
        carol.expect("41/chat,");
        assert!(matches!(carol.hear(), Heard::Closed(_)));
        eventually("two are gone", || {
            (asked(one, "count?namespace=/chat")["sockets"] == 1).then_some(())
        });
    });
}

#[test]
fn what_concerns_nobody_is_not_read() {
    let redis = Redis::start();
    let (one, two) = (node(&redis, "classic"), node(&redis, "classic"));
    let (mut alice, mut bob) = (Web::open(&one), Web::open(&two));
    alice.enter("/chat");
    bob.enter("/");
    alice.say("42/chat,1[\"join\",\"r\"]");
    alice.expect("43/chat,1[{\"ok\":true}]");
    let fate =
        |fate: &str| metric(&two, &format!("vestibule_hub_redis_heard_total{{fate=\"{fate}\"}}"));
    let taken = fate("taken");
    for _ in 0..10 {
        alice.say("42/chat,1[\"message\",{\"room\":\"r\"}]");
        alice.expect("43/chat,1[{\"ok\":true}]");
    }
    eventually("all of it", || (fate("for_nobody") >= 10).then_some(()));
    assert_eq!(fate("taken"), taken);
    assert_eq!(fate("malformed"), 0);
}

#[test]
fn nobody_hears_anything_twice() {
    on_each(|one, two| {
        let (mut alice, mut bob) = (Web::open(one), Web::open(two));
        alice.enter("/");
        bob.enter("/");
        for number in 0..200 {
            alice.say(&format!("42[\"all\",{number}]"));
        }
        for number in 0..200 {
            alice.expect(&format!("42[\"all\",{number}]"));
            bob.expect(&format!("42[\"all\",{number}]"));
        }
        bob.say("42[\"all\",\"end\"]");
        alice.expect("42[\"all\",\"end\"]");
        bob.expect("42[\"all\",\"end\"]");
    });
}

/// What another node says on the channel of `/chat`.
fn say(redis: &Redis, kind: u8, data: &Value) {
    let words = json!({"type": kind, "data": data, "uid": "peer", "nsp": "/chat"}).to_string();
    assert_ne!(redis.ask(&["SPUBLISH", "socket.io#/chat#", &words]), "0", "somebody listens");
}

/// What is kept of a handshake is told as Node tells it, but for what may open a session.
#[test]
fn other_nodes_hear_how_a_client_came() {
    let redis = Redis::start();
    let origin = application(nothing);
    let edge = Edge::start(&format!(
        "{PLAIN}sites:\n  localhost: {{ next: '{}' }}\nhub:\n  path: /live\n  origins: [http://page.example]\n  \
         redis: {{ url: '{}', adapter: sharded }}\n  namespaces:\n    \
         /chat: {{ auth: none, connect: /api/connect, events: deny }}\n",
        origin.url(),
        redis.url()
    ));
    wait_for_metric(&edge, UP, 1);
    let mut peer = redis.listen("socket.io#/chat#peer#");
    let url = "/live/?EIO=4&transport=polling&room=a%20b";
    let head = [
        ("Origin", "http://page.example"),
        ("User-Agent", "test/1"),
        ("X-Private", "no"),
        ("Cookie", "session=s3cret"),
        ("Authorization", "Bearer s3cret"),
    ];
    let mut client = edge.connect();
    let open = client.ask("GET", url, &head, b"").text();
    let open: Value = serde_json::from_str(&open[1..]).expect("JSON");
    let path =
        format!("/live/?EIO=4&transport=polling&sid={}", open["sid"].as_str().expect("an id"));
    assert_eq!(client.ask("POST", &path, &[], b"40/chat,{\"token\":\"s3cret\"}").status, 200);
    assert!(client.get(&path).text().starts_with("40/chat,{\"sid\""));
    let asked = eventually("the question", || asked_of(&origin, "connect").pop());
    assert_eq!(asked["handshake"]["auth"], json!({ "token": "s3cret" }));
    say(&redis, 7, &json!({"opts": {"rooms": [], "except": []}, "requestId": "a"}));
    let heard = peer.hear();
    let handshake = &heard["data"]["sockets"][0]["handshake"];
    assert_eq!((&handshake["url"], &handshake["xdomain"]), (&json!(url), &json!(true)), "{heard}");
    assert_eq!(handshake["query"], json!({"EIO": "4", "transport": "polling", "room": "a b"}));
    assert_eq!(handshake["headers"], json!({"user-agent": "test/1"}));
    assert_eq!(handshake["auth"], json!({}), "it may open a session");
    assert!(!heard.to_string().contains("s3cret"), "{heard}");
}

#[test]
fn what_other_nodes_ask_is_answered() {
    let redis = Redis::start();
    let edge = node(&redis, "sharded");
    let mut peer = redis.listen("socket.io#/chat#peer#");
    let everyone = json!({"rooms": [], "except": [], "flags": {"timeout": 5000}});
    let question = |request: &str, rooms: &[&str]| {
        json!({
            "packet": {"type": 2, "data": ["q", 1]},
            "opts": {"rooms": rooms, "except": [], "flags": {"timeout": 5000}},
            "requestId": request,
        })
    };
    // Also while nobody is here.
    say(&redis, 7, &json!({"opts": everyone, "requestId": "a"}));
    assert_eq!(peer.hear()["data"], json!({"requestId": "a", "sockets": []}));
    say(&redis, 3, &question("b", &[]));
    assert_eq!(peer.hear()["data"], json!({"requestId": "b", "clientCount": 0}));
    say(&redis, 9, &json!({"packet": ["hello"], "requestId": "c"}));
    assert_eq!(peer.hear()["data"]["requestId"], "c");

    let (mut alice, mut bob) = (web_on(&edge, '0'), web_on(&edge, '1'));
    let ids = [alice.enter("/chat"), bob.enter("/chat")];
    bob.say("42/chat,1[\"join\",\"r\"]");
    bob.expect("43/chat,1[{\"ok\":true}]");
    say(&redis, 7, &json!({"opts": {"rooms": ["room:r"], "except": []}, "requestId": "d"}));
    let heard = peer.hear();
    let socket = &heard["data"]["sockets"][0];
    assert_eq!((&heard["type"], &heard["data"]["requestId"]), (&json!(8), &json!("d")));
    assert_eq!((&socket["id"], &socket["data"]), (&json!(ids[1]), &json!({})), "{heard}");
    assert_eq!(socket["rooms"], json!([ids[1], "room:r"]));
    assert_eq!(socket["handshake"]["address"], "127.0.0.1");

    // Each client's acknowledgement is passed on, once.
    say(&redis, 3, &question("e", &[]));
    let count = peer.hear();
    assert_eq!((&count["type"], &count["data"]["clientCount"]), (&json!(11), &json!(2)));
    for (line, answer) in [(&mut alice, "\"a\""), (&mut bob, "{\"b\":1}")] {
        let asked = line.text();
        let ack = asked.strip_prefix("42/chat,").and_then(|rest| rest.strip_suffix("[\"q\",1]"));
        let ack = ack.unwrap_or_else(|| panic!("{asked}"));
        for _ in 0..2 {
            line.say(&format!("43/chat,{ack}[{answer},2]"));
        }
        let heard = peer.hear();
        let wanted: Value = serde_json::from_str(answer).expect("JSON");
        assert_eq!((&heard["type"], &heard["data"]["packet"]), (&json!(12), &wanted));
    }
    // Nothing came twice, or this would not be the next.
    say(&redis, 3, &question("f", &["room:nobody"]));
    assert_eq!(peer.hear()["data"], json!({"requestId": "f", "clientCount": 0}));

    // What would take clients down is asked of nobody, and whoever asks does not wait for them.
    let deep = (0..200).fold(json!(1), |inside, _| json!([inside]));
    let mut unfit = question("g", &[]);
    unfit["packet"]["data"] = json!(["q", deep]);
    say(&redis, 3, &unfit);
    assert_eq!(peer.hear()["data"], json!({"requestId": "g", "clientCount": 0}));
    wait_for_metric(&edge, "vestibule_hub_redis_heard_total{fate=\"unfit\"}", 1);
    say(&redis, 3, &question("h", &["room:r"]));
    assert_eq!(peer.hear()["data"], json!({"requestId": "h", "clientCount": 1}));
    assert!(bob.text().ends_with("[\"q\",1]"));

    // Who only counts is told numbers.
    for (request, rooms, heads) in [("i", json!([]), 2), ("j", json!(["room:r"]), 1)] {
        let options = json!({"rooms": rooms, "except": []});
        say(&redis, 7, &json!({"opts": options, "requestId": request, "counts": true}));
        let wanted = json!({"requestId": request, "sockets": [], "heads": heads});
        assert_eq!(peer.hear()["data"], wanted);
    }
    let options = json!({"rooms": ["room:r"], "except": ["room:x"]});
    say(&redis, 7, &json!({"opts": options, "requestId": "k", "counts": true}));
    assert_eq!(peer.hear()["data"]["sockets"].as_array().expect("a list").len(), 1);
}

#[test]
fn who_comes_back_has_missed_nothing_of_other_nodes() {
    for adapter in ADAPTERS {
        let redis = Redis::start();
        let start = || {
            let settings =
                format!("redis: {{ url: '{}', adapter: {adapter} }}\nrecovery: 1m", redis.url());
            let edge = Edge::start(&hub_only(&settings));
            wait_for_metric(&edge, UP, 1);
            edge
        };
        let (one, two) = (start(), start());
        let tell = |number: u32| {
            post(&one, "emit", &json!({"namespace": "/", "event": "n", "args": [number]}));
        };
        let mut bob = Web::open(&two);
        bob.say("40");
        let words: Value = serde_json::from_str(&bob.text()[2..]).expect("JSON");
        tell(0);
        let first: Value = serde_json::from_str(&bob.text()[2..]).expect("JSON");
        assert_eq!(first[1], 0);
        drop(bob);
        wait_for_metric(&two, "vestibule_hub_sockets{namespace=\"/\"}", 0);
        (1..4).for_each(tell);
        // On whichever worker: all of them have heard it.
        let taken = "vestibule_hub_redis_heard_total{fate=\"taken\"}";
        wait_for_metric(&two, taken, 4);
        wait_for_metric(&two, "vestibule_hub_notices_waiting", 0);
        let mut bob = Web::open(&two);
        bob.say(&format!("40{}", json!({"pid": words["pid"], "offset": first[2]})));
        for number in 1..4 {
            let missed: Value = serde_json::from_str(&bob.text()[2..]).expect("JSON");
            assert_eq!((&missed[0], &missed[1]), (&json!("n"), &json!(number)));
        }
        let again: Value = serde_json::from_str(&bob.text()[2..]).expect("JSON");
        assert_eq!(again, words, "the same as before");
        tell(4);
        let next: Value = serde_json::from_str(&bob.text()[2..]).expect("JSON");
        assert_eq!(next[1], 4);
    }
}
