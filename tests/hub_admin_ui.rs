//! The page of Socket.IO's Admin UI: who gets in, what it sees and does.

use std::collections::HashSet;

use serde_json::Value;

use crate::harness::node::Script;
use crate::harness::redis::Redis;
use crate::harness::socketio::{GENEROUS, Heard, Line, Web, masked, wait_for_metric, web_on};
use crate::harness::{Edge, PLAIN};

/// bcrypt of "s3cret" and of "changed", made by libxcrypt.
const HASH: &str = "$2b$10$abcdefghijklmnopqrstuu3KWNuWLhBnmgYfnzONPueahDuedC/lu";
const CHANGED: &str = "$2b$10$abcdefghijklmnopqrstuu9DJYso2UGqoUAPDo.a93nDJJctUHmN.";

fn yaml(password: &str, more: &str) -> String {
    format!(
        "{PLAIN}hub:
  limits: {{ {GENEROUS} }}
  admin_ui: {{ username: admin, password: '{password}'{more} }}
  namespaces:
    /: {{ auth: none, events: {{ hello: {{ relay: '*' }} }} }}
    /other: {{ auth: none }}
"
    )
}

const CONNECT: &str = r#"40/admin,{"username":"admin","password":"s3cret"}"#;

/// A page that was let in; the session that it was given.
fn page(edge: &Edge, worker: char) -> (Web, String) {
    let mut web = web_on(edge, worker);
    web.say(CONNECT);
    let session = web.text();
    let session: Value = serde_json::from_str(&session["42/admin,".len()..]).expect("JSON");
    assert_eq!(session[0], "session");
    assert!(web.text().starts_with("40/admin,{\"sid\":"));
    assert!(web.text().starts_with("42/admin,[\"config\","));
    (web, session[1].as_str().expect("an id").to_owned())
}

#[test]
fn the_stock_client_does_what_the_page_does() {
    let edge = Edge::start(&yaml(HASH, ""));
    for transports in ["websocket", "polling,websocket"] {
        let url = format!("http://{}", edge.http());
        let environment = [
            ("URL", url.as_str()),
            ("USERNAME", "admin"),
            ("PASSWORD", "s3cret"),
            ("TRANSPORTS", transports),
        ];
        let mut script = Script::start("admin_ui.mjs", &environment);
        script.wait_for("passed");
        script.finish();
    }
}

/// The page itself, opened in a browser; of two nodes it must show both, though nobody watches the
/// other one.
#[test]
fn the_page_in_chromium() {
    let redis = Redis::start();
    let alone = Edge::start(&yaml(HASH, ""));
    let settings = format!("hub:\n  redis: redis://127.0.0.1:{}\n", redis.port);
    let both = yaml(HASH, "").replace("hub:\n", &settings);
    let (one, two) = (Edge::start(&both), Edge::start(&both));
    for edge in [&one, &two] {
        wait_for_metric(edge, "vestibule_hub_redis_up", 1);
    }
    for (edge, servers) in [(&alone, "1"), (&one, "2")] {
        let url = format!("http://{}", edge.http());
        let environment = [
            ("URL", url.as_str()),
            ("USERNAME", "admin"),
            ("PASSWORD", "s3cret"),
            ("SERVERS", servers),
        ];
        Script::start("admin_page.mjs", &environment).finish();
    }
}

/// Two processes on one machine are two servers to a page.
#[test]
fn a_page_hears_of_all_nodes() {
    let redis = Redis::start();
    let settings = format!("hub:\n  redis: redis://127.0.0.1:{}\n", redis.port);
    let both = yaml(HASH, "").replace("hub:\n", &settings);
    let (one, two) = (Edge::start(&both), Edge::start(&both));
    for edge in [&one, &two] {
        wait_for_metric(edge, "vestibule_hub_redis_up", 1);
    }
    let (mut web, _) = page(&one, '0');
    let mut servers = HashSet::new();
    for _ in 0..12 {
        let text = web.text();
        let stats = text.strip_prefix("42/admin,").expect("an event");
        let stats: Value = serde_json::from_str(stats).expect("JSON");
        assert_eq!(stats[0], "server_stats");
        servers.insert(stats[1]["serverId"].as_str().expect("a name").to_owned());
        if servers.len() == 2 {
            return;
        }
    }
    panic!("only {servers:?} were heard of");
}

#[test]
fn nobody_waits_for_a_password() {
    let edge = Edge::start(&yaml(HASH, ""));
    let mut web = web_on(&edge, '0');
    let mut twice = web_on(&edge, '0');
    let mut early = web_on(&edge, '1');
    web.enter("/");
    // Each in one piece: what comes behind the password is there while that is looked at.
    let at_once = |web: &mut Web, packets: &[&str]| {
        let frames: Vec<_> = packets.iter().map(|text| masked(0x81, text.as_bytes())).collect();
        web.raw(&frames.concat());
    };
    at_once(&mut web, &[CONNECT, "427[\"hello\"]"]);
    web.expect("437[{\"ok\":true}]");
    assert!(web.text().starts_with("42/admin,[\"session\","));
    // Not again while one is looked at, and nothing before it is in.
    at_once(&mut twice, &[CONNECT, CONNECT]);
    assert!(twice.text().starts_with("42/admin,[\"session\","));
    assert!(twice.text().starts_with("40/admin,"));
    at_once(&mut early, &[CONNECT, "42/admin,[\"emit\",\"/\",null,\"x\"]"]);
    assert_eq!(early.hear(), Heard::Closed(None));
    // Who has gone by then is not let in.
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/admin\"}", 2);
}

#[test]
fn guessing_takes_long() {
    let edge = Edge::start(&yaml(HASH, ""));
    let mut web = web_on(&edge, '0');
    let wrong = r#"40/admin,{"username":"admin","password":"guess"}"#;
    let later = r#"44/admin,{"message":"too many attempts; try again in a minute"}"#;
    // One more is looked at for every six seconds that this takes.
    let mut looked_at = 0;
    loop {
        web.say(wrong);
        let answer = web.text();
        if answer == later {
            break;
        }
        assert_eq!(answer, r#"44/admin,{"message":"invalid credentials"}"#);
        looked_at += 1;
    }
    assert!((10..20).contains(&looked_at), "{looked_at}");
    web.say(CONNECT);
    web.expect(later);
}

#[test]
fn a_reload_with_another_password_sends_pages_away() {
    let mut edge = Edge::start(&yaml(HASH, ""));
    let (mut one, session) = page(&edge, '0');
    let (mut two, _) = page(&edge, '1');
    // Another setting changes nothing for those who are in.
    edge.reload_with(&yaml(HASH, ", readonly: true"));
    let mut client = web_on(&edge, '0');
    client.enter("/");
    one.say("42/admin,7[\"emit\",\"/\",null,\"news\"]");
    until(&mut one, "43/admin,7[]");
    client.say("427[\"hello\"]");
    client.expect("437[{\"ok\":true}]");
    edge.reload_with(&yaml(CHANGED, ""));
    until(&mut one, "41/admin,");
    until(&mut two, "41/admin,");
    one.say(&format!(r#"40/admin,{{"sessionId":"{session}"}}"#));
    one.expect(r#"44/admin,{"message":"invalid credentials"}"#);
    one.say(CONNECT);
    one.expect(r#"44/admin,{"message":"invalid credentials"}"#);
    one.say(&CONNECT.replace("s3cret", "changed"));
    assert!(one.text().starts_with("42/admin,[\"session\","));
}

/// A page shows its session when it comes again, which may be at another process: a node of the same
/// secret, or the one after an upgrade. Where no secret is shared each process has its own.
#[test]
fn a_page_goes_on_at_every_process_of_one_secret() {
    let again = |edge: &Edge, session: &str| {
        let mut web = web_on(edge, '0');
        web.say(&format!(r#"40/admin,{{"sessionId":"{session}"}}"#));
        let answer = web.text();
        assert!(
            answer.starts_with("40/admin,{\"sid\":") || answer.contains("invalid credentials"),
            "{answer}"
        );
        answer.starts_with("40/admin,")
    };
    let shared = yaml(HASH, ", secret: 0123456789abcdef");
    let (mut one, two) = (Edge::start(&shared), Edge::start(&shared));
    let (_, session) = page(&one, '0');
    assert!(again(&one, &session) && again(&two, &session));
    one.upgrade();
    assert!(again(&one, &session), "the next process has not seen the password");
    let (alone, other) =
        (Edge::start(&yaml(HASH, "")), Edge::start(&yaml(HASH, ", secret: other")));
    let (_, own) = page(&alone, '0');
    assert!(again(&alone, &own) && !again(&alone, &session) && !again(&other, &session));
    assert!(!again(&two, &own));
    // That of the nodes will do.
    let redis = Redis::start();
    let node = "node: { listen: '127.0.0.1:0', secret: 0123456789abcdef0123456789abcdef }";
    let settings = format!("hub:\n  redis: {{ url: '{}', {node} }}\n", redis.url());
    let both = yaml(HASH, "").replace("hub:\n", &settings);
    let (one, two) = (Edge::start(&both), Edge::start(&both));
    let (_, session) = page(&one, '0');
    assert!(again(&two, &session));
}

#[test]
fn who_may_only_read_is_told_so() {
    let edge = Edge::start(&yaml(HASH, ", readonly: true, namespace: /watch"));
    let mut web = web_on(&edge, '0');
    web.say(CONNECT);
    web.expect(r#"44/admin,{"message":"Invalid namespace"}"#);
    web.say(&CONNECT.replace("/admin", "/watch"));
    assert!(web.text().starts_with("42/watch,[\"session\","));
    assert!(web.text().starts_with("40/watch,{"));
    web.expect(r#"42/watch,["config",{"supportedFeatures":["AGGREGATED_EVENTS"]}]"#);
}

/// Figures that come meanwhile are passed over.
#[track_caller]
fn until(line: &mut impl Line, packet: &str) {
    loop {
        let text = line.text();
        if text == packet {
            return;
        }
        assert!(text.starts_with("42/admin,[\"server_stats\""), "{text} in place of {packet}");
    }
}
