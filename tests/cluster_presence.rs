//! Who is in a room, whose connections there are, and who is sent away, on all nodes.

use serde_json::{Value, json};

use crate::auth::{
    HS256, SIGNING, answer_of, claims, refused, seconds, session, token, with_cookie,
};
use crate::cluster::{UP, asked, post};
use crate::harness::origin::{Origin, reply};
use crate::harness::redis::Redis;
use crate::harness::socketio::{GENEROUS, Heard, Line as _, Web, metric, wait_for_metric};
use crate::harness::sqlite::Sqlite;
use crate::harness::{Edge, Folder, PLAIN, eventually};

fn node(redis: &Redis, more: &str, namespace: &str) -> Edge {
    let edge = Edge::start(&format!(
        r#"{PLAIN}{more}hub:
  redis: {{ url: '{}', node: {{ lease: 2s }} }}
  limits: {{ {GENEROUS} per_user: 2 }}
  namespaces:
    /:
{namespace}
"#,
        redis.url()
    ));
    wait_for_metric(&edge, UP, 1);
    edge
}

const WATCHED: &str = r#"      auth: none
      presence: ["room:*"]
      events:
        join: { join: "room:{0}" }
        leave: { leave: "room:{0}" }
        who: { presence: "room:{0}" }"#;

fn join(edge: &Edge) -> (Web, String) {
    let mut web = Web::open(edge);
    let id = web.enter("/");
    web.say("421[\"join\",\"a\"]");
    // What is told of others meanwhile may come first.
    while web.text() != "431[{\"ok\":true}]" {}
    (web, id)
}

/// Hears of comings and goings until so many are there.
fn hear_until(web: &mut Web, count: usize) {
    loop {
        let text = web.text();
        let told: Value = serde_json::from_str(&text[2..]).expect("JSON");
        assert_eq!(told[0], "presence", "{text}");
        if told[1]["count"] == count {
            return;
        }
    }
}

fn who(web: &mut Web) -> Value {
    web.say("422[\"who\",\"a\"]");
    loop {
        let text = web.text();
        if let Some(answer) = text.strip_prefix("432") {
            return serde_json::from_str::<Value>(answer).expect("JSON")[0].clone();
        }
    }
}

#[test]
fn members_of_all_nodes_are_there() {
    let mut redis = Redis::start();
    let (one, two) = (node(&redis, "", WATCHED), node(&redis, "", WATCHED));
    let (mut alice, a) = join(&one);
    let (mut bob, b) = join(&two);
    hear_until(&mut alice, 2);
    eventually("both", || (who(&mut bob)["count"] == 2).then_some(()));
    let mut ids: Vec<String> = who(&mut bob)["members"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|member| member["id"].as_str().expect("an id").to_owned())
        .collect();
    ids.sort();
    let mut wanted = [a, b];
    wanted.sort();
    assert_eq!(ids, wanted);
    // One that comes later knows who is there.
    let three = node(&redis, "", WATCHED);
    let (mut carol, _) = join(&three);
    eventually("all three", || (who(&mut carol)["count"] == 3).then_some(()));
    hear_until(&mut alice, 3);
    bob.say("421[\"leave\",\"a\"]");
    while bob.text() != "431[{\"ok\":true}]" {}
    hear_until(&mut alice, 2);
    // What happens while Redis is away is known afterwards.
    redis.kill();
    wait_for_metric(&one, UP, 0);
    let (_dave, _) = join(&two);
    drop(carol);
    redis.begin();
    eventually("who has come and who has gone", || (who(&mut alice)["count"] == 2).then_some(()));
    wait_for_metric(&one, UP, 1);
    eventually("the same figures", || {
        (asked(&one, "count?namespace=/&room=room:a")["sockets"] == 2).then_some(())
    });
}

#[test]
fn who_was_on_a_node_that_died_goes_with_its_lease() {
    let redis = Redis::start();
    let (one, two) = (node(&redis, "", WATCHED), node(&redis, "", WATCHED));
    let (mut alice, _) = join(&one);
    let crowd: Vec<_> = (0..5).map(|_| join(&two)).collect();
    eventually("all", || (who(&mut alice)["count"] == 6).then_some(()));
    assert_eq!(asked(&one, "count?namespace=/")["sockets"], 6);
    two.signal("KILL");
    eventually("one", || (who(&mut alice)["count"] == 1).then_some(()));
    assert_eq!(asked(&one, "count?namespace=/")["sockets"], 1);
    drop(crowd);
}

/// Whether this user gets in.
fn knock(edge: &Edge, user: &str) -> Result<Web, String> {
    let mut web = Web::open(edge);
    let token = token(HS256, &claims(user));
    web.say(&format!("40{{\"token\":\"{token}\"}}"));
    let answer = web.text();
    if answer.starts_with("40") { Ok(web) } else { Err(answer) }
}

#[test]
fn a_user_has_so_many_connections_on_all_nodes() {
    let redis = Redis::start();
    let auth = format!(
        "auth:\n  app: {{ jwt: {{ issuer: https://issuer.example.test, audience: realtime }}, \
         secret: {SIGNING} }}\n"
    );
    let namespace = "      auth: app\n      events: deny";
    let (one, two) = (node(&redis, &auth, namespace), node(&redis, &auth, namespace));
    let first = knock(&one, "anna").expect("the first");
    let _second = knock(&two, "anna").expect("the second");
    let refused = |edge: &Edge| {
        eventually("a refusal", || {
            let answer = knock(edge, "anna").err()?;
            assert!(answer.contains("too_many_connections"), "{answer}");
            Some(())
        });
    };
    refused(&one);
    refused(&two);
    let _another = knock(&one, "bert").expect("somebody else");
    // Who leaves makes room everywhere.
    drop(first);
    let mut third = eventually("room on the other node", || knock(&two, "anna").ok());
    refused(&one);
    // And so does a node that dies.
    two.signal("KILL");
    let _fourth = eventually("room when its lease is over", || knock(&one, "anna").ok());
    assert!(matches!(third.hear(), Heard::Closed(_)));
    assert!(metric(&one, "vestibule_hub_redis_heard_total{fate=\"malformed\"}") == 0);
    assert_eq!(asked(&one, "count?namespace=/")["sockets"], json!(2));
}

/// Users, however many sockets they have, wherever those are.
#[test]
fn users_are_counted_on_all_nodes() {
    let redis = Redis::start();
    let auth = format!(
        "auth:\n  app: {{ jwt: {{ issuer: https://issuer.example.test, audience: realtime }}, \
         secret: {SIGNING} }}\n"
    );
    let namespace = WATCHED.replace("auth: none", "auth: app");
    let (one, two) = (node(&redis, &auth, &namespace), node(&redis, &auth, &namespace));
    let join = |edge: &Edge, user: &str| {
        let mut web = knock(edge, user).expect("let in");
        web.say("421[\"join\",\"a\"]");
        while web.text() != "431[{\"ok\":true}]" {}
        web
    };
    let mut anna = join(&one, "anna");
    // The first that it hears is of itself.
    let told: Value = serde_json::from_str(&anna.text()[2..]).expect("JSON");
    assert_eq!((&told[1]["users"], &told[1]["joined"][0]["user"]), (&json!(1), &json!("anna")));
    let (again, bert) = (join(&one, "anna"), join(&two, "bert"));
    let _third = join(&two, "anna");
    hear_until(&mut anna, 4);
    for edge in [&one, &two] {
        eventually("both users", || {
            // Until the last try is seen to have gone, there may be too many.
            let mut web = knock(edge, "carl").ok()?;
            web.say("421[\"join\",\"a\"]");
            let list = who(&mut web);
            (list["count"] == 5 && list["users"] == 3).then_some(())
        });
        let here = || asked(edge, "count?namespace=/&room=room:a");
        eventually("who only looked has gone", || (here()["sockets"] == 4).then_some(()));
        assert_eq!(here()["users"], 2);
        eventually("the same of the namespace", || {
            let all = asked(edge, "count?namespace=/");
            (all == json!({ "sockets": 4, "users": 2 })).then_some(())
        });
        // Behind it are those of their sessions.
        let rooms = asked(edge, "rooms?namespace=/&limit=1");
        let wanted = json!([{ "room": "room:a", "sockets": 4, "users": 2 }]);
        assert_eq!(rooms, json!({ "rooms": wanted, "more": true }));
        let sockets = asked(edge, "sockets?namespace=/")["sockets"].clone();
        let users = sockets.as_array().expect("a list").iter();
        let mut users: Vec<_> = users.map(|one| one["user"].as_str().expect("a user")).collect();
        users.sort_unstable();
        assert_eq!(users, ["anna", "anna", "anna", "bert"]);
    }
    // Who leaves on the other node is named.
    drop(bert);
    let gone = eventually("the word of it", || {
        let told: Value = serde_json::from_str(&anna.text()[2..]).expect("JSON");
        let left = told[1]["left"].as_array().expect("a list").clone();
        left.into_iter().find(|one| one["user"] == "bert").map(|_| told[1].clone())
    });
    assert_eq!(gone["users"], 1, "{gone}");
    drop(again);
    hear_until(&mut anna, 2);
    eventually("one user", || (who(&mut anna)["users"] == 1).then_some(()));
}

/// A logout passes one node; the sockets of the session are on both.
#[test]
fn a_session_ends_on_all_nodes() {
    let (redis, folder) = (Redis::start(), Folder::new());
    let database = Sqlite(folder.path("app.db"));
    let (ids, ends) = (["a".repeat(40), "b".repeat(40), "c".repeat(40)], seconds() + 86_400);
    database.run(&format!(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE session (id TEXT PRIMARY KEY, user_id TEXT, expires_at INTEGER);
         INSERT INTO session VALUES
           ('{}', 'anna', {ends}), ('{}', 'bert', {ends}), ('{}', 'carl', {ends});",
        ids[0], ids[1], ids[2]
    ));
    let answer = "set-cookie: auth_session=; Max-Age=0; Path=/\r\n";
    let origin = Origin::start(move |_, stream| reply(stream, "200 OK", answer, b"bye"));
    // Sessions are looked at again long after this test has ended.
    let more = format!(
        "sites: {{ localhost: {{ next: '{}' }} }}\n\
         auth:\n  app: {{ lucia: v3, database: 'sqlite:{}', failures: 1000/s, recheck: 10m }}\n",
        origin.url(),
        database.0.display()
    );
    let namespace = "      auth: app\n      join: ['user:{user.id}']\n      events: deny";
    let nodes = [node(&redis, &more, namespace), node(&redis, &more, namespace)];
    let mut sockets: Vec<Vec<Web>> = ids
        .iter()
        .map(|id| {
            let sockets = nodes.iter().map(|node| {
                let mut web = with_cookie(node, &session(id));
                web.enter("/");
                web
            });
            sockets.collect()
        })
        .collect();
    database.run(&format!("DELETE FROM session WHERE id = '{}';", ids[0]));
    let logout = nodes[0].connect().ask("POST", "/logout", &[("Cookie", &session(&ids[0]))], b"");
    assert_eq!(logout.status, 200);
    for web in &mut sockets[0] {
        web.expect("41");
    }
    for node in &nodes {
        assert_eq!(answer_of(with_cookie(node, &session(&ids[0]))), refused());
    }
    // The operator, by the user and by the session.
    post(&nodes[0], "disconnect", &json!({"namespace": "/", "user": "bert"}));
    let rooms =
        asked(&nodes[1], "sockets?namespace=/&room=user:carl")["sockets"][0]["rooms"].clone();
    let rooms = rooms.as_array().expect("a list");
    let name = rooms.iter().find_map(|room| room.as_str()?.strip_prefix("session:"));
    post(&nodes[1], "disconnect", &json!({"namespace": "/", "session": name.expect("a room")}));
    for web in sockets[1..].iter_mut().flatten() {
        web.expect("41");
    }
    eventually("nobody is left", || {
        (asked(&nodes[0], "count?namespace=/")["sockets"] == 0).then_some(())
    });
}
