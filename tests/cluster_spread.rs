//! Nodes over a Redis Cluster of three servers.

use serde_json::json;

use crate::cluster::{UP, asked, post};
use crate::harness::redis::{Redis, redis_cluster};
use crate::harness::socketio::{Line as _, Web, hub_only, wait_for_metric};
use crate::harness::{Edge, eventually};

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
                eventually("two that listen", || {
                    let channel = here.lines().next().expect("a channel");
                    let counted = server.ask(&["pubsub", "shardnumsub", channel]);
                    counted.ends_with('2').then_some(())
                });
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
