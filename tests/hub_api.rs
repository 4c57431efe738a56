//! What the operator's side tells, moves, sends away and lists.

use serde_json::{Value, json};

use crate::harness::socketio::{
    Heard, Line, Poller, Web, hub_only, metric, wait_for_metric, web_on,
};
use crate::harness::{Answer, Client, Edge, Origin, PLAIN};

fn post(edge: &Edge, operation: &str, body: &Value) -> Answer {
    edge.admin_with("POST", &format!("/hub/{operation}"), body.to_string().as_bytes())
}

/// The same for what must go well; how many sockets were meant.
#[track_caller]
fn done(edge: &Edge, operation: &str, body: &Value) -> u64 {
    let answer = post(edge, operation, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["sockets"].as_u64().expect("a number")
}

#[track_caller]
fn asked(edge: &Edge, path: &str) -> Value {
    let answer = edge.admin("GET", &format!("/hub/{path}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Nothing was queued before this.
#[track_caller]
fn expect_silence(line: &mut impl Line) {
    line.say("42/chat,7[\"unknown\"]");
    line.expect("43/chat,7[{\"error\":{\"code\":\"unknown_event\"}}]");
}

/// Two sockets in `/chat`, one on each worker, and their ids.
fn two(edge: &Edge) -> [(Web, String); 2] {
    ['0', '1'].map(|worker| {
        let mut web = web_on(edge, worker);
        let id = web.enter("/chat");
        (web, id)
    })
}

#[test]
fn an_event_reaches_whom_it_is_for() {
    let edge = Edge::start(&hub_only(""));
    let [(mut one, first), (mut two, second)] = two(&edge);
    one.say("42/chat,1[\"join\",\"a\"]");
    one.expect("43/chat,1[{\"ok\":true}]");
    let built = "vestibule_hub_messages_built_total";
    let before = metric(&edge, built);
    let mut emit =
        json!({"namespace": "/chat", "event": "news", "args": [1.50, {"z": "é", "a": []}]});
    assert_eq!(done(&edge, "emit", &emit), 2);
    for line in [&mut one, &mut two] {
        line.expect("42/chat,[\"news\",1.5,{\"a\":[],\"z\":\"é\"}]");
    }
    assert_eq!(metric(&edge, built) - before, 1, "built once for both workers");
    for (whom, meant) in [
        (json!({"to": "room:a"}), [true, false]),
        (json!({"to": ["room:a", "room:b"]}), [true, false]),
        (json!({"to": "*"}), [true, true]),
        (json!({"to": "*", "except": ["room:a"]}), [false, true]),
        (json!({"except": second}), [true, false]),
        (json!({"to": ["room:a", second], "except": [first]}), [false, true]),
        (json!({"sid": second}), [false, true]),
        (json!({"sid": second, "to": "room:a"}), [true, true]),
        (json!({"user": 7}), [false, false]),
    ] {
        emit = json!({"namespace": "/chat", "event": "x", "volatile": true});
        emit.as_object_mut().expect("fields").extend(whom.as_object().expect("fields").clone());
        let count = meant.iter().filter(|meant| **meant).count();
        assert_eq!(done(&edge, "emit", &emit), count as u64, "{emit}");
        for (line, meant) in [&mut one, &mut two].into_iter().zip(meant) {
            if meant {
                line.expect("42/chat,[\"x\"]");
            }
            expect_silence(line);
        }
    }
    // A user is the room that the server has its sockets join.
    assert_eq!(
        done(&edge, "join", &json!({"namespace": "/chat", "sid": first, "rooms": "user:7"})),
        1
    );
    assert_eq!(done(&edge, "emit", &json!({"namespace": "/chat", "event": "x", "user": 7})), 1);
    one.expect("42/chat,[\"x\"]");
}

#[test]
fn arguments_stay_as_they_were_written() {
    let edge = Edge::start(&hub_only(""));
    let (mut web, mut poller) = (Web::open(&edge), Poller::open(&edge));
    web.enter("/");
    poller.enter("/");
    let body = r#"{"namespace":"/","event":"blob","args":[{"z":1e2,"a":{"$binary":"AQID"}}, "{\"$binary\":\"AQ==\"}",{ "$binary": "" }]}"#;
    let answer = edge.admin_with("POST", "/hub/emit", body.as_bytes());
    assert_eq!((answer.status, answer.json()), (200, json!({"sockets": 2})));
    let text = r#"452-["blob",{"z":1e2,"a":{"_placeholder":true,"num":0}},"{\"$binary\":\"AQ==\"}",{"_placeholder":true,"num":1}]"#;
    for line in [&mut web as &mut dyn Line, &mut poller] {
        assert_eq!(line.hear(), Heard::Text(text.to_owned()));
        assert_eq!(line.hear(), Heard::Binary(vec![1, 2, 3]));
        assert_eq!(line.hear(), Heard::Binary(Vec::new()));
    }
}

#[test]
fn sockets_are_moved_and_sent_away() {
    let edge = Edge::start(&hub_only(""));
    let [(mut one, first), (mut two, second)] = two(&edge);
    two.enter("/");
    let everyone = json!({"namespace": "/chat", "to": "*", "rooms": ["a", "b"]});
    assert_eq!(done(&edge, "join", &everyone), 2);
    assert_eq!(asked(&edge, "count?namespace=/chat&room=a")["sockets"], 2);
    assert_eq!(done(&edge, "leave", &json!({"namespace": "/chat", "sid": first, "rooms": "a"})), 1);
    assert_eq!(asked(&edge, "count?namespace=%2Fchat&room=a")["sockets"], 1);
    assert_eq!(asked(&edge, "count?namespace=/chat&room=b")["sockets"], 2);
    assert_eq!(done(&edge, "disconnect", &json!({"namespace": "/chat", "to": "a"})), 1);
    two.expect("41/chat,");
    two.say("42[\"echo\",1]");
    two.expect("42[\"echo\",1]");
    assert_eq!(asked(&edge, "count?namespace=/chat")["sockets"], 1);
    let second_again = two.enter("/chat");
    assert_ne!(second, second_again);
    let close = json!({"namespace": "/chat", "sid": second_again, "close": true});
    assert_eq!(done(&edge, "disconnect", &close), 1);
    let told = [two.text(), two.text()];
    assert!(told.contains(&"41".to_owned()) && told.contains(&"41/chat,".to_owned()), "{told:?}");
    assert_eq!(two.hear(), Heard::Closed(None));
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"forced\"}", 1);
    expect_silence(&mut one);
    // A polling client is told when it asks next.
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    assert_eq!(done(&edge, "disconnect", &json!({"namespace": "/", "to": "*", "close": true})), 1);
    poller.expect("41");
    assert_eq!(poller.hear(), Heard::Text("1".to_owned()));
}

/// Every socket is in the room of its own id: to join it is nothing, and nothing is done twice for it.
#[test]
fn the_room_of_its_own_id_cannot_be_joined() {
    let origin = Origin::text("");
    let edge = Edge::start(&format!(
        "{PLAIN}sites:\n  localhost: {{ next: '{}' }}\nhub:\n  namespaces:\n    /own:\n      \
         auth: none\n      join: ['{{sid}}', all]\n      disconnect: /api/left\n    /chat:\n      auth: none\n      \
         events: deny\n",
        origin.url()
    ));
    let [mut one, mut two] = ['0', '0'].map(|worker| web_on(&edge, worker));
    let [first, _] = [&mut one, &mut two].map(|web| {
        web.enter("/chat");
        web.enter("/own")
    });
    let news = json!({"namespace": "/own", "event": "news", "sid": first});
    assert_eq!(done(&edge, "emit", &news), 1);
    one.expect("42/own,[\"news\"]");
    expect_silence(&mut one);
    assert_eq!(asked(&edge, &format!("count?namespace=/own&room={first}"))["sockets"], 1);
    assert_eq!(done(&edge, "disconnect", &json!({"namespace": "/own", "sid": first})), 1);
    one.expect("41/own,");
    expect_silence(&mut one);
    assert_eq!(metric(&edge, "vestibule_hub_sockets{namespace=\"/own\"}"), 1);
    assert_eq!(asked(&edge, "count?namespace=/own&room=all")["sockets"], 1);
    wait_for_metric(&edge, "vestibule_hooks_left_waiting", 0);
    assert_eq!(origin.seen().len(), 1, "one farewell");
}

#[test]
fn lists_are_whole_and_in_pages() {
    let edge = Edge::start(&hub_only(""));
    let mut webs: Vec<(Web, String)> = Vec::new();
    for number in 0..7 {
        let mut web = web_on(&edge, ['0', '1'][number % 2]);
        let id = web.enter("/chat");
        let rooms =
            json!({"namespace": "/chat", "sid": id, "rooms": ["all", format!("r{number}")]});
        assert_eq!(done(&edge, "join", &rooms), 1);
        webs.push((web, id));
    }
    let all = asked(&edge, "rooms?namespace=/chat");
    assert_eq!(all["rooms"][0], json!({"room": "all", "sockets": 7, "users": null}));
    assert_eq!((all["rooms"].as_array().map(Vec::len), &all["more"]), (Some(8), &json!(false)));
    let page = asked(&edge, "rooms?namespace=/chat&limit=3&after=all");
    let rooms = page["rooms"].as_array().expect("rooms").iter();
    let names: Vec<Option<&str>> = rooms.map(|room| room["room"].as_str()).collect();
    assert_eq!((names, &page["more"]), (vec![Some("r0"), Some("r1"), Some("r2")], &json!(true)));
    let mut ids: Vec<String> = webs.iter().map(|(_, id)| id.clone()).collect();
    ids.sort();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = asked(&edge, &format!("sockets?namespace=/chat&room=all&limit=2&after={after}"));
        for socket in page["sockets"].as_array().expect("sockets") {
            assert_eq!(
                (&socket["address"], &socket["transport"]),
                (&json!("127.0.0.1"), &json!("websocket"))
            );
            assert_eq!(
                (socket["rooms"].as_array().map(Vec::len), &socket["user"]),
                (Some(2), &Value::Null)
            );
            seen.push(socket["id"].as_str().expect("an id").to_owned());
        }
        after.clone_from(seen.last().expect("some"));
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(seen, ids);
    assert_eq!(asked(&edge, "sockets?namespace=/chat&room=r3")["sockets"][0]["id"], webs[3].1);
    assert_eq!(asked(&edge, "sockets?namespace=/")["sockets"], json!([]));
}

#[test]
fn a_batch_is_done_in_order_or_not_at_all() {
    let edge = Edge::start(&hub_only(""));
    let [(mut one, _), (mut two, second)] = two(&edge);
    let batch = json!([
        {"op": "join", "namespace": "/chat", "sid": second, "rooms": "vip"},
        {"op": "emit", "namespace": "/chat", "to": "vip", "event": "in"},
        {"op": "count", "namespace": "/chat", "room": "vip"},
        {"op": "leave", "namespace": "/chat", "to": "vip", "rooms": "vip"},
        {"op": "rooms", "namespace": "/chat"},
        {"op": "emit", "namespace": "/chat", "to": "vip", "event": "out"},
    ]);
    let answer = post(&edge, "batch", &batch);
    let wanted = json!([
        {"sockets": 1}, {"sockets": 1}, {"sockets": 1, "users": null}, {"sockets": 1},
        {"rooms": [], "more": false}, {"sockets": 0},
    ]);
    assert_eq!((answer.status, answer.json()), (200, wanted));
    two.expect("42/chat,[\"in\"]");
    let broken = json!([
        {"op": "emit", "namespace": "/chat", "event": "x"},
        {"op": "emit", "namespace": "/chat", "event": "x", "args": [1, {"$binary": "-"}]},
    ]);
    let answer = post(&edge, "batch", &broken);
    assert_eq!((answer.status, &answer.json()["error"]["field"]), (400, &json!("[1].args[1]")));
    expect_silence(&mut one);
    expect_silence(&mut two);
}

#[test]
fn every_worker_keeps_the_order_of_a_batch() {
    const ROUNDS: usize = 50;
    for recovery in ["", "recovery: { for: 1m }"] {
        let edge = Edge::start(&hub_only(recovery));
        let mut webs = ['0', '1', '0', '1'].map(|worker| web_on(&edge, worker));
        for web in &mut webs {
            web.say("40/chat,");
            assert!(web.text().starts_with("40/chat,{\"sid\":"));
        }
        let operation = |op: &str, to: &str, more: Value| {
            let mut operation = json!({ "op": op, "namespace": "/chat", "to": to });
            let more = more.as_object().expect("fields").clone();
            operation.as_object_mut().expect("fields").extend(more);
            operation
        };
        let batch: Vec<Value> = (0..ROUNDS)
            .flat_map(|round| {
                [
                    operation("join", "*", json!({ "rooms": "vip" })),
                    operation("emit", "vip", json!({ "event": "in", "args": [round] })),
                    operation("leave", "*", json!({ "rooms": "vip" })),
                    operation("emit", "vip", json!({ "event": "out" })),
                ]
            })
            .collect();
        let answer = post(&edge, "batch", &Value::Array(batch));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        let meant = answer.as_array().expect("a list").iter().map(|done| &done["sockets"]);
        let wanted = (0..ROUNDS).flat_map(|_| [4, 4, 4, 0]);
        assert!(meant.eq(wanted), "{answer}");
        for web in &mut webs {
            for round in 0..ROUNDS {
                let text = web.text();
                assert!(text.starts_with(&format!("42/chat,[\"in\",{round}")), "{text}");
            }
            expect_silence(web);
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let edge = Edge::start(&hub_only(""));
    for (method, path, body, status, code) in [
        ("POST", "/hub/emit", "", 400, "bad_json"),
        ("POST", "/hub/emit", "{\"namespace\":\"/\"", 400, "bad_json"),
        ("POST", "/hub/emit", "[]", 400, "bad_request"),
        ("POST", "/hub/emit", "{\"namespace\":\"/no\",\"event\":\"x\"}", 400, "bad_request"),
        ("POST", "/hub/disconnect", "{\"namespace\":\"/\"}", 400, "bad_request"),
        ("GET", "/hub/emit", "", 405, "method"),
        ("POST", "/hub/count", "{}", 405, "method"),
        ("GET", "/hub/count", "", 400, "bad_request"),
        ("GET", "/hub/count?namespace=/&x=1", "", 400, "bad_request"),
        ("GET", "/hub/count?namespace=/&here=1", "", 400, "bad_request"),
        ("GET", "/hub/rooms?namespace=/&limit=10001", "", 400, "bad_request"),
        ("GET", "/hub/nothing", "", 404, "not_found"),
    ] {
        let answer = edge.admin_with(method, path, body.as_bytes());
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let error = &answer.json()["error"];
        assert_eq!(error["code"], code, "{method} {path} {body}");
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 5), "{error}");
    }
    let mut body = br#"{"namespace":"/","event":"x","args":[""#.to_vec();
    body.resize((1 << 20) - 3, b'x');
    body.extend(b"\"]}");
    assert_eq!(edge.admin_with("POST", "/hub/emit", &body).status, 200);
    body.extend(b" ");
    assert_eq!(edge.admin_with("POST", "/hub/emit", &body).status, 413);
}

#[test]
fn over_tcp_it_takes_the_token() {
    let port = crate::harness::node::free_address();
    let admin = format!("admin: {{ address: '{port}', token: s3cret }}");
    let edge = Edge::start(&hub_only("").replace("admin: 'unix:admin.sock'", &admin));
    let ask = |method: &str, path: &str, token: &str| {
        let headers = [("Authorization", token)];
        Client::connect(port).ask(method, path, &headers[..usize::from(!token.is_empty())], b"{}")
    };
    for (method, path) in [("POST", "/hub/emit"), ("GET", "/hub/count?namespace=/")] {
        for token in ["", "Bearer wrong", "Bearer s3cret0", "Basic s3cret"] {
            let answer = ask(method, path, token);
            assert_eq!(
                (answer.status, &answer.json()["error"]["code"]),
                (401, &json!("unauthorized"))
            );
        }
    }
    assert_eq!(ask("GET", "/hub/count?namespace=/", "Bearer s3cret").status, 200);
    assert_eq!(ask("POST", "/hub/emit", "Bearer s3cret").status, 400);
    drop(edge);
}

#[test]
fn without_a_hub_there_is_nothing_to_ask() {
    let site = "sites: { localhost: { next: 'http://127.0.0.1:1' } }\n";
    let edge = Edge::start(&format!("{PLAIN}{site}"));
    let answer = edge.admin("GET", "/hub/count?namespace=/");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!("no_hub")));
}
