//! A crowd of stock clients on three nodes, while nodes are killed and their Redis fails.
//!
//! `CHAOS_SECONDS` and `CHAOS_CLIENTS` make it longer and larger: `make chaos`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::cluster::UP;
use crate::harness::balancer::Balancer;
use crate::harness::node::Script;
use crate::harness::redis::Redis;
use crate::harness::socketio::{hub_only, metric};
use crate::harness::{Edge, eventually, eventually_within};

fn option(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Three nodes, what they share, and who is on them.
struct Chaos {
    settings: String,
    nodes: Vec<Edge>,
    balancer: Balancer,
    clients: Script,
    until: Instant,
    /// Gaps that nodes which are no more have noticed.
    gaps: i64,
    /// When Redis or a node was away, in milliseconds since 1970.
    failures: Vec<(u64, u64)>,
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("a time")
}

impl Chaos {
    fn begin(redis: &str, adapter: &str) -> Self {
        let node = "node: { listen: '127.0.0.1:0', secret: 'a secret of the nodes', lease: 2s }";
        let settings = format!(
            "redis: {{ {redis}, adapter: {adapter}, timeout: 1s, {node} }}\n\
             recovery: 2m\n\
             drain: {{ over: 1s }}\n\
             ping: {{ interval: 5s, timeout: 4s }}"
        );
        let settings = hub_only(&settings);
        let nodes: Vec<_> = (0..3).map(|_| start(&settings)).collect();
        let balancer = Balancer::start(nodes.iter().map(Edge::http).collect());
        let (count, seconds) = (option("CHAOS_CLIENTS", 120), option("CHAOS_SECONDS", 20));
        let rate = if count >= 1000 { 200 } else { 100 };
        let mut clients = Script::start(
            "chaos.mjs",
            &[
                ("URL", &balancer.url()),
                ("CLIENTS", &count.to_string()),
                ("RATE", &rate.to_string()),
            ],
        );
        clients.wait_for("\"talking\"");
        let until = Instant::now() + Duration::from_secs(seconds);
        Self { settings, nodes, balancer, clients, until, gaps: 0, failures: Vec::new() }
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    /// They talk in peace.
    fn rest(&self, time: Duration) {
        std::thread::sleep(time.min(self.until.saturating_duration_since(Instant::now())));
    }

    /// Notes the time that it takes.
    fn fail<T>(&mut self, failure: impl FnOnce(&mut Self) -> T) -> T {
        let begun = now();
        let outcome = failure(self);
        self.failures.push((begun, now()));
        outcome
    }

    /// SIGKILL for one, and another in its place a moment later.
    fn kill_node(&mut self) {
        let killed = self.nodes.remove(0);
        self.gaps += gaps(&killed);
        drop(killed);
        self.balancer.set(self.nodes.iter().map(Edge::http).collect());
        self.rest(Duration::from_millis(700));
        self.nodes.push(start(&self.settings));
        self.balancer.set(self.nodes.iter().map(Edge::http).collect());
    }

    fn wait_for_link(&self) {
        for node in &self.nodes {
            eventually("a link", || (metric(node, UP) == 1).then_some(()));
        }
    }

    /// What the judge says, and how many gaps were noticed.
    fn end(mut self) -> (Value, i64) {
        self.wait_for_link();
        self.clients.tell("stop");
        let said = self.clients.finish();
        let summary = said.lines().find(|line| line.contains("\"summary\"")).expect("a summary");
        eprintln!("{summary}");
        let gaps = self.gaps + self.nodes.iter().map(gaps).sum::<i64>();
        (serde_json::from_str(summary).expect("JSON"), gaps)
    }
}

/// Milliseconds that an acknowledged message may take to the others on a busy machine.
const UNSENT: u64 = 500;

fn gaps(node: &Edge) -> i64 {
    metric(node, "vestibule_hub_redis_gaps_total")
}

fn start(settings: &str) -> Edge {
    let edge = Edge::start(settings);
    eventually("its place among the nodes", || {
        (metric(&edge, "vestibule_hub_nodes") > 0).then_some(())
    });
    edge
}

fn number(summary: &Value, name: &str) -> i64 {
    summary[name].as_i64().unwrap_or_else(|| panic!("{name} in {summary}"))
}

#[track_caller]
fn expect_whole(summary: &Value) {
    for fault in ["lost", "twice", "disordered", "waiting", "refused"] {
        assert_eq!(number(summary, fault), 0, "{fault}: {summary}");
    }
    assert!(number(summary, "acked") > number(summary, "events") / 2, "{summary}");
    assert!(number(summary, "recovered") > 0, "{summary}");
}

/// Over streams: whoever comes back has everything once and in order.
#[test]
fn streams_lose_nothing() {
    let mut redis = Redis::start();
    let mut chaos = Chaos::begin(&format!("url: '{}'", redis.url()), "streams");
    while chaos.goes_on() {
        chaos.rest(Duration::from_secs(2));
        chaos.kill_node();
        chaos.rest(Duration::from_secs(2));
        redis.kill();
        chaos.rest(Duration::from_millis(500));
        redis.begin();
        chaos.wait_for_link();
        chaos.rest(Duration::from_secs(2));
        redis.signal("STOP");
        chaos.rest(Duration::from_millis(1500));
        redis.signal("CONT");
        chaos.wait_for_link();
    }
    let (summary, _) = chaos.end();
    expect_whole(&summary);
}

/// The same when another Redis takes over.
#[test]
fn streams_survive_a_failover() {
    let mut first = Redis::start();
    let mut second = Redis::with(&["--replicaof", "127.0.0.1", &first.port.to_string()]);
    let sentinel = Redis::sentinel(&first);
    let online = |of: &Redis| of.ask(&["INFO", "replication"]).contains("master_link_status:up");
    eventually("a Sentinel that knows both", || {
        let known = sentinel.ask(&["SENTINEL", "REPLICAS", "mymaster"]);
        (online(&second) && known.contains(&second.port.to_string())).then_some(())
    });
    let redis = format!("url: '{}', sentinel: mymaster", sentinel.url());
    let mut chaos = Chaos::begin(&redis, "streams");
    while chaos.goes_on() {
        chaos.rest(Duration::from_secs(3));
        let role = first.ask(&["ROLE"]);
        let master = if role.starts_with("master") { &mut first } else { &mut second };
        master.kill();
        chaos.rest(Duration::from_secs(2));
        master.begin();
        chaos.wait_for_link();
        // A Sentinel makes a master that has come back a replica after looking at it for a while.
        let again = || (online(&first) || online(&second)).then_some(());
        eventually_within(Duration::from_secs(60), "a replica again", again);
        chaos.kill_node();
    }
    let (summary, _) = chaos.end();
    expect_whole(&summary);
}

/// Over pub/sub what is said while a node has no link is lost to it; it knows that it was so.
#[test]
fn classic_counts_what_it_loses() {
    let mut redis = Redis::start();
    let mut chaos = Chaos::begin(&format!("url: '{}'", redis.url()), "classic");
    let mut outages = 0;
    while chaos.goes_on() {
        chaos.rest(Duration::from_secs(2));
        chaos.fail(|chaos| {
            redis.kill();
            chaos.rest(Duration::from_millis(500));
            redis.begin();
            chaos.wait_for_link();
        });
        outages += 1;
        chaos.rest(Duration::from_secs(2));
        chaos.fail(Chaos::kill_node);
    }
    let failures = chaos.failures.clone();
    let (summary, gaps) = chaos.end();
    for fault in ["twice", "disordered", "waiting"] {
        assert_eq!(number(&summary, fault), 0, "{fault}: {summary}");
    }
    // Nothing is lost at any other time: it was on its way while something failed.
    for lost in summary["lostAt"].as_array().expect("a list") {
        let time = |index: usize| lost[index].as_u64().expect("a time");
        let (said, passed_on) = (time(0), time(1) + UNSENT);
        let is_within = |(begun, ended): &(u64, u64)| *begun <= passed_on && said <= ended + UNSENT;
        assert!(failures.iter().any(is_within), "{lost} lost, but {failures:?}: {summary}");
    }
    // Each of three nodes notices each outage, if it lived to see its end.
    assert!(gaps >= outages * 2, "{gaps} gaps of {outages} outages");
    assert!(gaps <= outages * 3, "{gaps} gaps of {outages} outages");
}
