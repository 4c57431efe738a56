//! Several nodes, and a Redis that fails.

use serde_json::json;

use crate::cluster::{UP, asked, lone, node, post};
use crate::harness::redis::Redis;
use crate::harness::socketio::{Line, Web, metric, wait_for_metric};
use crate::harness::{Authority, Edge, Folder, eventually};

const GAPS: &str = "vestibule_hub_redis_gaps_total";

/// Says something on one node that a client of the other hears.
#[track_caller]
fn meet(one: &Edge, two: &Edge) {
    let (mut alice, mut bob) = (Web::open(one), Web::open(two));
    alice.enter("/");
    bob.enter("/");
    alice.say("42[\"tell\",\"hello\"]");
    bob.expect("42[\"tell\",\"hello\"]");
}

/// A client of this node is served while there is no link.
#[track_caller]
fn serves_alone(edge: &Edge) {
    let mut web = Web::open(edge);
    web.enter("/");
    web.say("42[\"all\",\"alone\"]");
    web.expect("42[\"all\",\"alone\"]");
    let ready = edge.admin("GET", "/health/ready");
    assert_eq!(ready.status, 200, "a hub that serves gets traffic");
    let complaint = ready.json()["complaints"][0].as_str().map(str::to_owned);
    assert!(complaint.is_some_and(|words| words.starts_with("hub.redis: no link")));
}

#[test]
fn a_redis_that_comes_late_is_joined() {
    for adapter in ["classic", "sharded", "streams"] {
        let mut redis = Redis::stopped(&[]);
        let (one, two) = (lone(&redis, adapter, ""), lone(&redis, adapter, ""));
        serves_alone(&one);
        // Nobody else is asked.
        eventually("an empty namespace", || {
            (asked(&one, "count?namespace=/&here=true")["sockets"] == 0).then_some(())
        });
        redis.begin();
        for edge in [&one, &two] {
            wait_for_metric(edge, UP, 1);
            assert_eq!(
                edge.admin("GET", "/health/ready").json(),
                json!({"ready": true, "reasons": []})
            );
            assert_eq!(metric(edge, GAPS), 0, "nothing was missed that there was before");
        }
        meet(&one, &two);
        assert_eq!(one.log().matches("no link to Redis").count(), 1, "{}", one.log());
    }
}

#[test]
fn a_redis_that_dies_is_joined_again() {
    let mut redis = Redis::start();
    let (one, two) = (node(&redis, "classic"), node(&redis, "classic"));
    meet(&one, &two);
    for round in 1..=2 {
        redis.kill();
        [&one, &two].iter().for_each(|edge| wait_for_metric(edge, UP, 0));
        serves_alone(&one);
        redis.begin();
        wait_for_metric(&one, UP, 1);
        wait_for_metric(&two, UP, 1);
        wait_for_metric(&one, GAPS, round);
        meet(&one, &two);
        eventually("an empty namespace", || {
            (asked(&one, "count?namespace=/")["sockets"] == 0).then_some(())
        });
    }
}

#[test]
fn a_redis_that_stalls_holds_nobody_up() {
    let redis = Redis::start();
    let (one, two) = (lone(&redis, "classic", ", timeout: 300ms"), node(&redis, "classic"));
    wait_for_metric(&one, UP, 1);
    redis.signal("STOP");
    let mut web = Web::open(&one);
    web.enter("/");
    for number in 0..100 {
        web.say(&format!("42[\"all\",{number}]"));
        web.expect(&format!("42[\"all\",{number}]"));
    }
    wait_for_metric(&one, UP, 0);
    serves_alone(&one);
    redis.signal("CONT");
    wait_for_metric(&one, UP, 1);
    wait_for_metric(&two, UP, 1);
    meet(&one, &two);
}

#[test]
fn what_waits_is_bounded_and_what_is_dropped_is_counted() {
    let mut redis = Redis::stopped(&[]);
    let (one, two) = (lone(&redis, "classic", ", buffer: 64KiB"), lone(&redis, "classic", ""));
    let mut bob = Web::open(&two);
    bob.enter("/");
    let dropped = "vestibule_hub_redis_dropped_total{reason=\"overflow\"}";
    let text = "x".repeat(1000);
    for number in 0..200 {
        post(&one, "emit", &json!({"namespace": "/", "event": "e", "args": [number, text]}));
    }
    eventually("some are dropped", || (metric(&one, dropped) > 100).then_some(()));
    assert!(metric(&one, "vestibule_hub_redis_waiting_bytes") <= 64 << 10);
    redis.begin();
    wait_for_metric(&two, UP, 1);
    wait_for_metric(&one, UP, 1);
    let lost = metric(&one, dropped);
    assert!(lost < 200, "the newest are kept");
    wait_for_metric(&one, "vestibule_hub_redis_waiting_bytes", 0);
    // What is told from now on is heard, behind what had waited, if that came in time.
    post(&one, "emit", &json!({"namespace": "/", "event": "end"}));
    let mut before = lost - 1;
    loop {
        let heard = bob.text();
        if heard == "42[\"end\"]" {
            break;
        }
        let number =
            heard.strip_prefix("42[\"e\",").and_then(|rest| rest.split(',').next()?.parse().ok());
        let number: i64 = number.unwrap_or_else(|| panic!("{heard}"));
        assert!(number > before, "in order, and the oldest were dropped: {number}, {before}");
        before = number;
    }
}

#[test]
fn clients_come_back_after_a_gap_if_that_is_wanted() {
    let mut redis = Redis::start();
    let one = lone(&redis, "classic", ", resume: 100ms");
    wait_for_metric(&one, UP, 1);
    let mut web = Web::open(&one);
    web.enter("/");
    redis.kill();
    wait_for_metric(&one, UP, 0);
    redis.begin();
    wait_for_metric(&one, "vestibule_hub_closes_total{reason=\"shutting_down\"}", 1);
    assert!(!matches!(web.hear(), crate::harness::socketio::Heard::Text(_)));
    // And stay.
    for _ in 0..3 {
        let mut web = Web::open(&one);
        web.enter("/");
        web.say("42[\"echo\",1]");
        web.expect("42[\"echo\",1]");
    }
}

#[test]
fn passwords_users_versions_and_tls() {
    let redis = Redis::with(&[
        "--requirepass",
        "word",
        "--user",
        "hub",
        "on",
        ">s3cret",
        "~*",
        "&*",
        "+@all",
    ]);
    for more in [
        ", password: word",
        ", password: word, protocol: 2",
        ", username: hub, password: s3cret, protocol: 3",
        ", username: hub, password: s3cret, protocol: 2",
    ] {
        let edge = lone(&redis, "classic", more);
        wait_for_metric(&edge, UP, 1);
    }
    let wrong = lone(&redis, "classic", ", password: s3cret");
    eventually("a refusal", || wrong.log().contains("WRONGPASS").then_some(()));
    assert!(!wrong.log().contains("s3cret"));

    let (folder, authority) = (Folder::new(), Authority::new());
    authority.issue(&folder, "redis", &["localhost"]);
    let ca = folder.write("ca.pem", &authority.pem);
    let path = |name: &str| folder.path(name).to_str().expect("a path").to_owned();
    let port = crate::harness::node::free_port().to_string();
    let (certificate, key) = (path("certs/redis.pem"), path("certs/redis.key"));
    let arguments = ["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let arguments =
        [&arguments[..], &["--tls-ca-cert-file", ca.to_str().expect("a path")]].concat();
    let arguments = [&arguments[..], &["--tls-auth-clients", "no"]].concat();
    let _secure = Redis::with(&arguments);
    let settings = |ca: &str| {
        crate::harness::socketio::hub_only(&format!(
            "redis: {{ url: 'rediss://localhost:{port}'{ca} }}"
        ))
    };
    let edge = Edge::start(&settings(&format!(", ca: '{}'", ca.display())));
    wait_for_metric(&edge, UP, 1);
    // Nobody else's certificates are believed.
    let edge = Edge::start(&settings(""));
    eventually("a refusal", || edge.log().contains("UnknownIssuer").then_some(()));
    assert_eq!(metric(&edge, UP), 0);
}

#[test]
fn over_a_stream_nothing_is_lost_and_nothing_comes_twice() {
    let mut redis = Redis::start();
    let (one, two) = (node(&redis, "streams"), node(&redis, "streams"));
    let mut bob = Web::open(&two);
    bob.enter("/");
    let tell = |number: u32| {
        post(&one, "emit", &json!({"namespace": "/", "event": "n", "args": [number]}));
    };
    (0..50).for_each(tell);
    redis.kill();
    (50..100).for_each(tell);
    wait_for_metric(&one, UP, 0);
    (100..150).for_each(tell);
    redis.begin();
    (150..200).for_each(tell);
    redis.signal("STOP");
    (200..250).for_each(tell);
    wait_for_metric(&one, UP, 0);
    redis.signal("CONT");
    (250..300).for_each(tell);
    for number in 0..300 {
        bob.expect(&format!("42[\"n\",{number}]"));
    }
    post(&one, "emit", &json!({"namespace": "/", "event": "end"}));
    bob.expect("42[\"end\"]");
}

#[test]
fn a_failover_is_followed() {
    let mut master = Redis::start();
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    let sentinel = Redis::sentinel(&master);
    eventually("a Sentinel that knows both", || {
        let known = sentinel.ask(&["SENTINEL", "REPLICAS", "mymaster"]);
        let online = replica.ask(&["INFO", "replication"]).contains("master_link_status:up");
        (online && known.contains(&replica.port.to_string())).then_some(())
    });
    let start = || lone(&sentinel, "classic", ", sentinel: mymaster, timeout: 500ms");
    let (one, two) = (start(), start());
    wait_for_metric(&one, UP, 1);
    wait_for_metric(&two, UP, 1);
    assert_eq!(
        replica.ask(&["PUBSUB", "NUMSUB", "socket.io-request#/#"]),
        "socket.io-request#/#\n0"
    );
    meet(&one, &two);
    master.kill();
    wait_for_metric(&one, GAPS, 1);
    wait_for_metric(&two, GAPS, 1);
    assert_eq!(
        replica.ask(&["PUBSUB", "NUMSUB", "socket.io-request#/#"]),
        "socket.io-request#/#\n2"
    );
    meet(&one, &two);
}
