//! Nodes over a Redis Cluster of three servers.

use serde_json::json;

use crate::cluster::{UP, asked, post};
use crate::harness::cluster::{Peer, wait_for_readers};
use crate::harness::redis::{Redis, redis_cluster};
use crate::harness::socketio::{Line as _, Web, hub_only, wait_for_metric};
use crate::harness::{Client, Edge, eventually};

fn node(servers: &[Redis], adapter: &str, more: &str) -> Edge {
    let urls: Vec<String> = servers.iter().map(|server| format!("'{}'", server.url())).collect();
    let settings = format!(
        "redis: {{ url: [{}], cluster: true, adapter: {adapter} }}\n{more}",
        urls.join(", ")
    );
    let edge = Edge::start(&hub_only(&settings));
    wait_for_metric(&edge, UP, 1);
    edge
}

/// Rooms enough that all servers have some.
const ROOMS: usize = 12;

#[test]
fn rooms_of_all_slots_are_heard() {
    for adapter in ["classic", "sharded", "streams"] {
        eprintln!("over {adapter}");
        let servers = redis_cluster();
        let (one, two) = (node(&servers, adapter, ""), node(&servers, adapter, ""));
        let (mut alice, mut bob) = (Web::open(&one), Web::open(&two));
        for line in [&mut alice, &mut bob] {
            line.enter("/chat");
            for room in 0..ROOMS {
                line.say(&format!("42/chat,1[\"join\",\"r{room}\"]"));
                line.expect("43/chat,1[{\"ok\":true}]");
            }
        }
        // A channel is subscribed to a moment after its room is joined.
        for room in 0..ROOMS {
            eventually("both", || {
                let count = asked(&two, &format!("count?namespace=/chat&room=room:r{room}"));
                (count["sockets"] == 2).then_some(())
            });
        }
        if adapter == "sharded" {
            eventually("all channels", || {
                let listed = servers.iter().map(|server| {
                    server.ask(&["pubsub", "shardchannels", "*room:r*"]).lines().count()
                });
                (listed.sum::<usize>() == ROOMS).then_some(())
            });
            for server in &servers {
                let here = server.ask(&["pubsub", "shardchannels", "*room:r*"]);
                assert_ne!(here, "", "each server has some");
                for channel in here.lines() {
                    eventually("two that listen", || {
                        let counted = server.ask(&["pubsub", "shardnumsub", channel]);
                        counted.ends_with('2').then_some(())
                    });
                }
            }
        }
        for room in 0..ROOMS {
            let event = json!({"namespace": "/chat", "to": format!("room:r{room}"), "event": "n", "args": [room]});
            post(&one, "emit", &event);
            let wanted = format!("42/chat,[\"n\",{room}]");
            alice.expect(&wanted);
            bob.expect(&wanted);
        }
        assert_eq!(asked(&one, "count?namespace=/chat")["sockets"], 2);
    }
}

#[test]
fn a_slot_that_moves_is_followed() {
    let servers = redis_cluster();
    let (one, two) = (node(&servers, "sharded", ""), node(&servers, "sharded", ""));
    let mut bob = Web::open(&two);
    bob.enter("/chat");
    let channel = "socket.io#/chat#";
    let slot = servers[0].ask(&["cluster", "keyslot", channel]);
    let has = |server: &Redis| server.ask(&["pubsub", "shardchannels", channel]).contains(channel);
    let from = eventually("its server", || servers.iter().position(has));
    let to = (from + 1) % servers.len();
    let id = servers[to].ask(&["cluster", "myid"]);
    for server in [to, from, 3 - from - to] {
        assert_eq!(servers[server].ask(&["cluster", "setslot", &slot, "node", &id]), "OK");
    }
    eventually("both, where it is now", || {
        let counted = servers[to].ask(&["pubsub", "shardnumsub", channel]);
        counted.ends_with('2').then_some(())
    });
    eventually("what is said there", || {
        post(&one, "emit", &json!({"namespace": "/chat", "event": "moved"}));
        (bob.text() == "42/chat,[\"moved\"]").then_some(())
    });
}

/// All slots of one server, to another, whose replica it becomes.
fn hand_over(from: &Redis, to: &Redis) {
    let [old, new] = [from, to].map(|server| server.ask(&["cluster", "myid"]));
    let ranges = from.ask(&["cluster", "nodes"]);
    let own = ranges.lines().find(|line| line.starts_with(&old)).expect("its line");
    let size = |range: &str| match range.split_once('-') {
        Some((first, last)) => {
            let [first, last] = [first, last].map(|slot| slot.parse::<u32>().expect("a slot"));
            last - first + 1
        }
        None => 1,
    };
    let count: u32 = own.split_whitespace().skip(8).map(size).sum();
    let moved = std::process::Command::new("redis-cli")
        .args(["--cluster", "reshard", &format!("127.0.0.1:{}", from.port)])
        .args(["--cluster-from", &old, "--cluster-to", &new])
        .args(["--cluster-slots", &count.to_string(), "--cluster-yes"])
        .output()
        .expect("redis-cli runs");
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
}

/// Nobody listens twice to a server that had no slots for a while.
#[test]
fn a_server_that_comes_back_is_heard_once() {
    let servers = redis_cluster();
    let (one, two) = (node(&servers, "sharded", ""), node(&servers, "sharded", ""));
    let mut bob = Web::open(&two);
    bob.enter("/chat");
    let channel = "socket.io#/chat#";
    let count = |server: &Redis| {
        let counted = server.ask(&["pubsub", "shardnumsub", channel]);
        counted.split_whitespace().last().and_then(|count| count.parse::<u32>().ok())
    };
    let owner =
        eventually("its server", || servers.iter().position(|server| count(server) == Some(2)));
    let (home, other) = (&servers[owner], &servers[(owner + 1) % servers.len()]);
    hand_over(home, other);
    eventually("both, where it is now", || (count(other) == Some(2)).then_some(()));
    eventually("its way back", || {
        // Refused until it knows whose replica it is, and given up if the two do not agree in time.
        let _begun = home.ask(&["cluster", "failover"]);
        home.ask(&["role"]).starts_with("master").then_some(())
    });
    eventually("both, where it was", || (count(home)? >= 2).then_some(()));
    let say = |event: &str| post(&one, "emit", &json!({"namespace": "/chat", "event": event}));
    // What was said while they were about to listen may come late, or not at all.
    eventually("what is said there", || {
        say("first");
        (bob.text() == "42/chat,[\"first\"]").then_some(())
    });
    say("second");
    while bob.text() != "42/chat,[\"second\"]" {}
    for event in ["third", "fourth", "fifth"] {
        say(event);
        bob.expect(&format!("42/chat,[\"{event}\"]"));
    }
    assert_eq!(count(home), Some(2), "each node once");
}

#[test]
fn clients_go_on_at_another_node() {
    let servers = redis_cluster();
    let (one, two) =
        (node(&servers, "streams", "recovery: 1m"), node(&servers, "streams", "recovery: 1m"));
    let mut bob = Web::open(&two);
    bob.say("40/chat,");
    let words = bob.text();
    let words: serde_json::Value = serde_json::from_str(&words["40/chat,".len()..]).expect("JSON");
    let key = format!("{{socket.io}}sio:session:{}", words["pid"].as_str().expect("a secret"));
    eventually("what it would leave", || {
        servers.iter().any(|server| server.ask(&["exists", &key]) == "1").then_some(())
    });
    two.signal("KILL");
    post(&one, "emit", &json!({"namespace": "/chat", "event": "missed"}));
    let mut bob = Web::open(&one);
    bob.say(&format!("40/chat,{}", json!({ "pid": words["pid"] })));
    assert!(bob.text().starts_with("42/chat,[\"missed\",\""));
    let again = bob.text();
    let again: serde_json::Value = serde_json::from_str(&again["40/chat,".len()..]).expect("JSON");
    assert_eq!(again, words);
}

/// Each adapter with the client library that its documentation has for a Redis Cluster.
#[test]
fn servers_of_node_are_one_with_us() {
    for (adapter, library) in [("classic", "ioredis"), ("sharded", "redis"), ("streams", "ioredis")]
    {
        eprintln!("over {adapter}, with {library}");
        let servers = redis_cluster();
        let words =
            [("ADAPTER", adapter), ("LIBRARY", library), ("MODE", "dynamic"), ("CLUSTER", "1")];
        let mut peer = Peer::with(&servers[0], &words);
        let edge = node(&servers, adapter, "");
        eventually("two servers", || {
            let counted = peer.told(&json!({ "do": "count", "namespace": "/chat" }));
            (counted["count"] == 2).then_some(())
        });
        if adapter == "streams" {
            let key = servers[0].ask(&["cluster", "keyslot", "socket.io"]);
            let owner = servers.iter().find(|server| {
                let mine = server.ask(&["cluster", "countkeysinslot", &key]);
                mine != "0"
            });
            wait_for_readers(owner.expect("the stream's server"), 2);
        }
        let (mut alice, mut bob) =
            (Web::open(&edge), Web::over(Client::connect(peer.address.expect("a port")), "EIO=4"));
        for line in [&mut alice, &mut bob] {
            line.enter("/chat");
            line.say("42/chat,1[\"join\",\"lobby\"]");
            line.expect("43/chat,1[{\"ok\":true}]");
        }
        // A channel is subscribed to a moment after its room is joined.
        for place in [&json!(["room:lobby"]), &json!([])] {
            eventually("both, as Node sees them", || {
                let found = peer.told(&json!({ "do": "fetch", "namespace": "/chat", "to": place }));
                (found["list"].as_array().map(Vec::len) == Some(2)).then_some(())
            });
        }
        if adapter == "sharded" {
            eventually("two that listen", || {
                let channel = "socket.io#/chat#room:lobby#";
                let counted = servers
                    .iter()
                    .map(|server| server.ask(&["pubsub", "shardnumsub", channel]).ends_with('2'));
                counted.into_iter().any(|both| both).then_some(())
            });
        }
        for (number, by_node) in [(1, false), (2, true), (3, false), (4, true)] {
            let to = if number < 3 { json!(["room:lobby"]) } else { json!("*") };
            if by_node {
                let to = if number < 3 { to } else { json!([]) };
                let words = json!({ "do": "emit", "namespace": "/chat", "to": to, "name": "n", "args": [number] });
                assert_eq!(peer.told(&words)["error"], json!(null));
            } else {
                post(
                    &edge,
                    "emit",
                    &json!({ "namespace": "/chat", "to": to, "event": "n", "args": [number] }),
                );
            }
            for line in [&mut alice, &mut bob] {
                line.expect(&format!("42/chat,[\"n\",{number}]"));
            }
        }
        assert_eq!(asked(&edge, "count?namespace=/chat")["sockets"], 2);
        let told = peer.told(&json!({ "do": "tellAll", "namespace": "/chat" }));
        assert_eq!(
            (&told["error"], told["list"].as_array().map(Vec::len)),
            (&json!(null), Some(1))
        );
    }
}
