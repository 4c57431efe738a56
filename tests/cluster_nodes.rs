//! Nodes behind a balancer without sticky sessions: requests find their session's node.

use std::time::Instant;

use serde_json::{Value, json};

use crate::cluster::UP;
use crate::harness::balancer::Balancer;
use crate::harness::node::{Script, free_port};
use crate::harness::redis::Redis;
use crate::harness::socketio::{
    Heard, Line as _, Poller, UPGRADE, Web, hub, hub_only, metric, wait_for_metric,
};
use crate::harness::{Answer, Client, Edge, eventually};

const RELAYED: &str = "vestibule_hub_relayed_total{outcome=\"answered\"}";
const BEGUN: &str = "vestibule_hub_relayed_total{outcome=\"begun\"}";
const SECRET: &str = "a secret of the nodes";

/// One that takes the others' requests.
pub fn node(redis: &Redis, adapter: &str, more: &str) -> Edge {
    node_at(redis, 0, adapter, more)
}

/// The same, where the others find it at this port.
fn node_at(redis: &Redis, port: u16, adapter: &str, more: &str) -> Edge {
    let node = format!("node: {{ listen: '127.0.0.1:{port}', secret: '{SECRET}', lease: 2s }}");
    let settings =
        format!("redis: {{ url: '{}', adapter: {adapter}, {node} }}\n{more}", redis.url());
    let edge = Edge::start(&hub_only(&settings));
    wait_for_metric(&edge, UP, 1);
    eventually("its place among the nodes", || {
        (metric(&edge, "vestibule_hub_nodes") > 0).then_some(())
    });
    edge
}

fn two(redis: &Redis) -> (Edge, Edge) {
    (node(redis, "classic", ""), node(redis, "classic", ""))
}

/// Opens on `one`, and does everything else over `two`.
fn across(one: &Edge, two: &Edge, query: &str) -> Poller {
    let mut poller = Poller::over(one.connect(), two.connect(), query);
    poller.get = two.connect();
    poller
}

fn unknown(answer: &Answer) {
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(answer.json(), json!({"code": 1, "message": "Session ID unknown"}));
}

#[test]
fn polls_find_their_node() {
    let redis = Redis::start();
    let (one, two) = two(&redis);
    for query in ["EIO=4", "EIO=4&b64=1"] {
        let mut alice = across(&one, &two, query);
        alice.enter("/");
        for number in 0..20 {
            alice.say(&format!("42[\"echo\",{number},\"žluťoučký\"]"));
            alice.expect(&format!("42[\"echo\",{number},\"žluťoučký\"]"));
        }
        alice.say("451-[\"echo\",{\"_placeholder\":true,\"num\":0}]");
        alice.say_bytes(&[1, 2, 3]);
        alice.expect("451-[\"echo\",{\"_placeholder\":true,\"num\":0}]");
        assert_eq!(alice.hear(), Heard::Binary(vec![1, 2, 3]));
        // A poll that waits is answered by what comes for it.
        alice.begin_poll();
        let mut bob = Web::open(&two);
        bob.enter("/");
        bob.say("42[\"tell\",1]");
        assert_eq!(alice.polled().text(), "42[\"tell\",1]");
        // One at a time, as on its own node: the second ends the session.
        alice.begin_poll();
        let answer = eventually("a second poll that is refused", || {
            let answer = one.connect().get(alice.path());
            (answer.status != 200).then_some(answer)
        });
        assert_eq!(answer.status, 400);
        unknown(&two.connect().get(alice.path()));
    }
    assert!(metric(&two, RELAYED) > 40, "{}", metric(&two, RELAYED));
    assert_eq!(metric(&one, RELAYED), 0);
}

#[test]
fn a_polling_session_is_upgraded_over_another_node() {
    let redis = Redis::start();
    let (one, two) = two(&redis);
    let mut alice = across(&one, &two, "EIO=4");
    alice.enter("/");
    let mut socket = alice.dial(two.connect()).expect("a 101");
    let say = |socket: &mut tungstenite::WebSocket<_>, text: &str| {
        socket.send(tungstenite::Message::text(text)).expect("sent");
    };
    say(&mut socket, "2probe");
    let listen = crate::harness::socketio::listen;
    assert_eq!(listen(&mut socket), Heard::Text("3probe".to_owned()));
    // The poll under way is let go, so that nothing is lost in between.
    let polled = alice.poll();
    assert_eq!(polled.text(), "6");
    say(&mut socket, "5");
    say(&mut socket, "42[\"echo\",\"over the other\"]");
    assert_eq!(listen(&mut socket), Heard::Text("42[\"echo\",\"over the other\"]".to_owned()));
    let big = "x".repeat(300_000);
    say(&mut socket, &format!("42[\"echo\",\"{big}\"]"));
    assert_eq!(listen(&mut socket), Heard::Text(format!("42[\"echo\",\"{big}\"]")));
    // Who hangs up here hangs up there.
    drop(socket);
    wait_for_metric(&one, "vestibule_hub_sessions{transport=\"websocket\"}", 0);
}

#[test]
fn who_hangs_up_is_gone_on_the_sessions_node() {
    let redis = Redis::start();
    let (one, two) = two(&redis);
    let mut alice = across(&one, &two, "EIO=4");
    alice.enter("/");
    let before = metric(&two, BEGUN);
    alice.begin_poll();
    eventually("the poll is there", || (metric(&two, BEGUN) > before).then_some(()));
    drop(alice);
    wait_for_metric(&one, "vestibule_hub_sessions{transport=\"polling\"}", 0);
}

#[test]
fn what_is_too_large_is_refused_there() {
    let redis = Redis::start();
    let (one, two) =
        (node(&redis, "classic", "limits: { message: 10KiB }"), node(&redis, "classic", ""));
    let mut alice = across(&one, &two, "EIO=4");
    alice.enter("/");
    assert_eq!(alice.send("x".repeat(20_000)).status, 413);
}

#[test]
fn sessions_of_a_node_that_has_died_are_unknown_at_once() {
    let redis = Redis::start();
    let (one, two) = two(&redis);
    let mut alice = across(&one, &two, "EIO=4");
    alice.enter("/");
    let before = metric(&two, BEGUN);
    alice.begin_poll();
    eventually("the poll is there", || (metric(&two, BEGUN) > before).then_some(()));
    one.signal("KILL");
    let begun = Instant::now();
    // The poll under way, and all that follow.
    unknown(&alice.polled());
    for _ in 0..10 {
        unknown(&two.connect().get(alice.path()));
        unknown(&alice.send("42[\"echo\"]"));
    }
    assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
    // Nobody is looked for who was never there.
    let stranger = hub("EIO=4&transport=polling&sid=zzz0aaaaaaaaaaaaaaaa");
    unknown(&two.get(&stranger));
    // Its entry ends with its lease, and what listed it forgets it.
    let names = || redis.ask(&["scard", "{socket.io}-nodes"]);
    eventually("one node is left", || (names() == "1").then_some(()));
    let three = node(&redis, "classic", "");
    let mut bob = across(&three, &two, "EIO=4");
    bob.enter("/");
    bob.say("42[\"echo\",1]");
    bob.expect("42[\"echo\",1]");
}

/// Where this node takes the others' requests, as Redis says.
fn door(redis: &Redis, node: &str) -> std::net::SocketAddr {
    let entry = redis.ask(&["get", &format!("{{socket.io}}-nodes#{node}")]);
    entry.split(' ').nth(1).expect("an address").parse().expect("an address")
}

#[test]
fn nobody_else_comes_in_by_the_nodes_door() {
    let redis = Redis::start();
    let (one, two) = two(&redis);
    let alice = across(&one, &two, "EIO=4");
    let node = alice.sid()[..3].to_owned();
    let door = door(&redis, &node);
    let ask =
        |headers: &[(&str, &str)]| Client::connect(door).ask("GET", alice.path(), headers, b"");
    for headers in [
        &[][..],
        &[("x-vestibule-node", "")],
        &[("x-vestibule-node", SECRET)],
        &[("x-vestibule-node", &"0".repeat(64))],
        &[("authorization", &format!("Bearer {SECRET}"))],
    ] {
        let answer = ask(headers);
        assert_eq!((answer.status, answer.body.len()), (404, 0), "{headers:?}");
        let handshake =
            Client::connect(door).ask("GET", &hub("EIO=4&transport=polling"), headers, b"");
        assert_eq!(handshake.status, 404);
        let headers = [headers, &UPGRADE].concat();
        let upgrade = hub("EIO=4&transport=websocket");
        assert_eq!(Client::connect(door).ask("GET", &upgrade, &headers, b"").status, 404);
    }
    // An entry that nobody with the secret has written leads nowhere.
    let entry = format!("uid 127.0.0.1:{} {}", door.port(), "0".repeat(64));
    redis.ask(&["set", "{socket.io}-nodes#zzz", &entry]);
    redis.ask(&["sadd", "{socket.io}-nodes", "zzz"]);
    unknown(&two.get(&hub("EIO=4&transport=polling&sid=zzz0aaaaaaaaaaaaaaaa")));
    let way_up = hub("EIO=4&transport=websocket&sid=zzz0aaaaaaaaaaaaaaaa");
    let answer = two.connect().ask("GET", &way_up, &UPGRADE, b"");
    assert_eq!((answer.status, answer.text().as_str()), (400, "Session ID unknown"));
}

#[test]
fn requests_find_their_node_while_redis_is_away() {
    let mut redis = Redis::start();
    let (one, two) = two(&redis);
    let mut alice = across(&one, &two, "EIO=4");
    alice.enter("/");
    redis.kill();
    wait_for_metric(&two, UP, 0);
    alice.say("42[\"echo\",1]");
    alice.expect("42[\"echo\",1]");
    // Nobody can be asked who this is, so nobody is waited for.
    unknown(&two.get(&hub("EIO=4&transport=polling&sid=zzz0aaaaaaaaaaaaaaaa")));
}

/// A node that is not known is looked for; who asks waits no longer than a moment.
#[test]
fn a_redis_that_stalls_holds_no_request_up() {
    let redis = Redis::start();
    let node = format!("node: {{ listen: '127.0.0.1:0', secret: '{SECRET}' }}");
    let settings = format!("redis: {{ url: '{}', timeout: 1m, {node} }}", redis.url());
    let edge = Edge::start(&hub_only(&settings));
    wait_for_metric(&edge, UP, 1);
    redis.signal("STOP");
    let begun = Instant::now();
    let query = "EIO=4&transport=polling&sid=zzz0AAAAAAAAAAAAAAAA";
    unknown(&edge.connect().get(&format!("/socket.io/?{query}")));
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
    redis.signal("CONT");
}

#[test]
fn origins_are_judged_for_the_page_that_asked() {
    let redis = Redis::start();
    let more = "origins: ['https://page.example']";
    let (one, two) = (node(&redis, "classic", more), node(&redis, "classic", more));
    let alice = across(&one, &two, "EIO=4");
    for (origin, status) in [("https://page.example", 200), ("https://other.example", 403)] {
        let answer = two.connect().ask("POST", alice.path(), &[("origin", origin)], b"40");
        assert_eq!(answer.status, status);
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, (status == 200).then_some(origin));
    }
    one.signal("KILL");
    let answer = eventually("an answer that says so", || {
        let origin = [("origin", "https://page.example")];
        let answer = two.connect().ask("POST", alice.path(), &origin, b"40");
        (answer.status == 400).then_some(answer)
    });
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://page.example"));
}

/// Says something and hears it again, all of it over another node; false if its session has ended.
fn echoes(poller: &mut Poller, number: usize) -> bool {
    let packet = format!("42[\"echo\",{number}]");
    let answer = poller.send(&packet);
    if answer.status == 400 {
        // Its last words may still wait for a poll.
        let code = answer.json()["code"].clone();
        assert!(code == 1 || code == 3, "{}", answer.text());
        return false;
    }
    assert_eq!(answer.status, 200, "{}", answer.text());
    match poller.hear() {
        Heard::Closed(_) => false,
        heard => {
            assert_eq!(heard, Heard::Text(packet));
            true
        }
    }
}

/// While one process takes over from another, both are at one address, and what other nodes bring may
/// come to either, over connections that were there before and over new ones.
#[test]
fn while_a_node_is_upgraded_the_others_reach_both_of_its_processes() {
    let port = free_port();
    for adapter in ["classic", "streams"] {
        let redis = Redis::start();
        let mut one = node_at(&redis, port, adapter, "drain: { over: 10m }");
        let two = node(&redis, adapter, "");
        let open = |one: &Edge| {
            let mut poller = across(one, &two, "EIO=4");
            poller.enter("/");
            poller
        };
        let mut old: Vec<_> = (0..12).map(|_| open(&one)).collect();
        assert!(old.iter_mut().enumerate().all(|(number, alice)| echoes(alice, number)));
        one.upgrade();
        let before = old[0].sid()[..3].to_owned();
        let path = hub("EIO=4&transport=polling");
        eventually("the old process to take nobody new", || {
            let answers = (0..8).map(|_| one.connect().get(&path));
            let sids = answers.map(|answer| answer.text().get(8..11).map(str::to_owned));
            sids.flatten().all(|node| node != before).then_some(())
        });
        let mut new: Vec<_> = (0..12).map(|_| open(&one)).collect();
        assert!(new.iter().all(|bob| !bob.sid().starts_with(&before)));
        for number in 0..20 {
            old.retain_mut(|alice| echoes(alice, number));
            assert!(new.iter_mut().all(|bob| echoes(bob, number)));
        }
        // The first of each worker ends at once, the next only after more than a minute.
        assert!(old.len() >= 8, "{} of 12 are left", old.len());
        let mut socket = new[0].dial(two.connect()).expect("a 101");
        socket.send(tungstenite::Message::text("2probe")).expect("sent");
        let heard = crate::harness::socketio::listen(&mut socket);
        assert_eq!(heard, Heard::Text("3probe".to_owned()));
    }
}

#[test]
fn stock_clients_need_no_sticky_sessions() {
    let redis = Redis::start();
    let leaving = "drain: { over: 500ms }";
    let mut nodes: Vec<_> = (0..3).map(|_| node(&redis, "classic", leaving)).collect();
    let addresses = |nodes: &[Edge]| nodes.iter().map(Edge::http).collect::<Vec<_>>();
    let balancer = Balancer::start(addresses(&nodes));
    let mut clients = Script::start("nodes.mjs", &[("URL", &balancer.url()), ("CLIENTS", "12")]);
    clients.wait_for("\"kill\"");
    // One dies, another ends as it should, and one more comes.
    drop(nodes.remove(0));
    balancer.set(addresses(&nodes));
    clients.tell("killed");
    clients.wait_for("\"end\"");
    let mut last = nodes.remove(0);
    last.signal("TERM");
    nodes.push(node(&redis, "classic", leaving));
    balancer.set(addresses(&nodes));
    assert!(last.ended().success());
    clients.tell("ended");
    let summary = clients.finish();
    let summary: Value =
        serde_json::from_str(summary.lines().last().expect("a line")).expect("JSON");
    eprintln!("{summary}");
    let relayed: i64 = nodes.iter().map(|node| metric(node, RELAYED)).sum();
    assert!(relayed > 0, "nothing was brought from node to node");
}
