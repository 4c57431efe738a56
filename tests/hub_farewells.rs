//! What the application is asked about one client comes in order and ends with the farewell; one
//! that hangs, or is away, harms nobody else, and takes bounded memory.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::protocol::{Role, WebSocket};

use crate::harness::socketio::{
    GENEROUS, Line as _, Poller, UPGRADE, Web, connection_on, hub, metric, wait_for_metric,
};
use crate::harness::{Edge, Origin, PLAIN, eventually};
use crate::hub_hooks::{application, asked, nothing, question};

const UNAVAILABLE: &str = r#"[{"error":{"code":"unavailable","temporary":true}}]"#;
const WAITING: &str = "vestibule_hooks_left_waiting";

const NAMESPACES: &str = r#"
  namespaces:
    /chat:
      auth: none
      connect: /api/chat/connect
      disconnect: /api/chat/disconnect
      events: { message: { forward: /api/chat/message } }
    /bell:
      auth: none
      events: { ring: { forward: /api/bell } }
"#;

/// One worker, so that all clients are on the same; `settings` are keys of the hub, a line each.
fn config(sites: &str, settings: &str) -> String {
    let settings: String = settings.lines().map(|line| format!("  {line}\n")).collect();
    let plain = PLAIN.replace("workers: 2", "workers: 1");
    format!("{plain}sites:\n{sites}hub:\n  limits: {{ {GENEROUS} }}\n{settings}{NAMESPACES}")
}

fn edge(origin: &Origin, settings: &str) -> Edge {
    Edge::start(&config(&format!("  localhost: {{ next: '{}' }}\n", origin.url()), settings))
}

/// What has been asked so far about the socket: the kind, and an event's first argument.
fn about(origin: &Origin, id: &str) -> Vec<(String, Value)> {
    let all = origin.seen();
    let asked = all.iter().filter(|seen| !seen.body.is_empty()).map(question);
    let asked = asked.filter(|question| question["sid"] == id);
    asked
        .map(|question| {
            (question["type"].as_str().unwrap_or_default().to_owned(), question["args"][0].clone())
        })
        .collect()
}

/// Opened for good, or when it is dropped.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        let (open, told) = &*self.0;
        *open.lock().expect("a lock") = true;
        told.notify_all();
    }

    fn pass(&self) {
        let (open, told) = &*self.0;
        let open = open.lock().expect("a lock");
        let limit = Duration::from_secs(30);
        drop(told.wait_timeout_while(open, limit, |open| !*open).expect("a lock"));
    }
}

/// An application that keeps these questions until the gate is open.
fn behind(these: fn(&Value) -> bool) -> (Gate, Origin) {
    let gate = Gate::default();
    let kept = gate.clone();
    let origin = application(move |question| {
        if these(question) {
            kept.pass();
        }
        nothing(question)
    });
    (gate, origin)
}

/// An application that fails to answer these questions until it is told to.
fn failing(these: fn(&Value) -> bool) -> (Arc<AtomicBool>, Origin) {
    let well = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&well);
    let origin = application(move |question| {
        let fails = these(question) && !told.load(Ordering::Relaxed);
        if fails { (503, Value::Null) } else { (204, Value::Null) }
    });
    (well, origin)
}

#[test]
fn a_farewell_waits_for_events_that_are_asked_again() {
    let (well, origin) = failing(|question| question["type"] == "event");
    let edge = edge(&origin, "");
    let mut web = Web::open(&edge);
    let id = web.enter("/chat");
    web.say("42/chat,[\"message\",1]");
    web.say("42/chat,[\"message\",2]");
    eventually("the question", || asked(&origin, "event").pop());
    drop(web);
    wait_for_metric(&edge, WAITING, 2);
    let before = asked(&origin, "event").len();
    eventually("another attempt", || (asked(&origin, "event").len() > before).then_some(()));
    well.store(true, Ordering::Relaxed);
    eventually("the farewell", || asked(&origin, "disconnect").pop());
    wait_for_metric(&edge, WAITING, 0);
    let mut told = about(&origin, &id);
    told.dedup();
    let kinds: Vec<_> = told.iter().map(|(kind, first)| (kind.as_str(), first.as_i64())).collect();
    assert_eq!(
        kinds,
        [("connect", None), ("event", Some(1)), ("event", Some(2)), ("disconnect", None)]
    );
}

#[test]
fn an_event_without_an_answer_is_the_last_of_who_has_left() {
    let gate = Gate::default();
    let kept = gate.clone();
    let origin = application(move |question| match question["type"].as_str() {
        Some("event") => {
            kept.pass();
            (503, Value::Null)
        }
        _ => (204, Value::Null),
    });
    let edge = edge(&origin, "hooks: { retry: 0s, timeout: 60s }");
    let mut web = Web::open(&edge);
    let id = web.enter("/chat");
    for number in 1..4 {
        web.say(&format!("42/chat,[\"message\",{number}]"));
    }
    eventually("the question", || asked(&origin, "event").pop());
    drop(web);
    wait_for_metric(&edge, WAITING, 2);
    gate.open();
    eventually("the farewell", || asked(&origin, "disconnect").pop());
    let kinds: Vec<_> = about(&origin, &id).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["connect", "event", "disconnect"]);
    wait_for_metric(&edge, "vestibule_hooks_lost_total{reason=\"unanswered\"}", 2);
}

#[test]
fn who_comes_back_is_asked_about_after_the_farewell() {
    // On the worker where it was, and on the other.
    for (from, to) in [('0', '0'), ('0', '1'), ('1', '0')] {
        let (well, origin) = failing(|question| question["type"] == "disconnect");
        let site = format!("  localhost: {{ next: '{}' }}\n", origin.url());
        let yaml = config(&site, "recovery: 2m").replace("workers: 1", "workers: 2");
        let edge = Edge::start(&yaml);
        let mut web = Web::over(connection_on(&edge, from), "EIO=4");
        web.say("40/chat,");
        let answer = web.text();
        let words: Value =
            serde_json::from_str(answer.strip_prefix("40/chat,").expect("in")).expect("JSON");
        let id = words["sid"].as_str().expect("an id");
        drop(web);
        eventually("the farewell", || asked(&origin, "disconnect").pop());
        let mut web = Web::over(connection_on(&edge, to), "EIO=4");
        web.say(&format!("40/chat,{}", json!({ "pid": words["pid"] })));
        let before = asked(&origin, "disconnect").len();
        eventually("two attempts", || {
            (asked(&origin, "disconnect").len() > before + 1).then_some(())
        });
        well.store(true, Ordering::Relaxed);
        assert_eq!(web.text(), answer, "it is the same socket");
        let mut kinds: Vec<_> = about(&origin, id).into_iter().map(|(kind, _)| kind).collect();
        kinds.dedup();
        assert_eq!(kinds, ["connect", "disconnect", "connect"], "from {from} to {to}");
        // The line goes on where the socket is now.
        web.say("42/chat,1[\"message\"]");
        web.expect("43/chat,1[]");
    }
}

/// Its client, that is: the farewell is told on.
#[test]
fn a_farewell_that_fails_for_long_holds_up_nobody_who_comes_back() {
    let well = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&well);
    // Only its handler fails; nobody else notices.
    let origin = application(move |question| {
        let fails = question["type"] == "disconnect" && !told.load(Ordering::Relaxed);
        (if fails { 500 } else { 204 }, Value::Null)
    });
    let edge = edge(&origin, "recovery: 2m\nhooks: { retry: 1s }");
    let mut web = Web::open(&edge);
    web.say("40/chat,");
    let answer = web.text();
    let words: Value =
        serde_json::from_str(answer.strip_prefix("40/chat,").expect("in")).expect("JSON");
    drop(web);
    eventually("attempts for longer than retry", || {
        (asked(&origin, "disconnect").len() >= 6).then_some(())
    });
    let mut web = Web::open(&edge);
    web.say(&format!("40/chat,{}", json!({ "pid": words["pid"] })));
    assert_eq!(web.text(), answer, "it is the same socket");
    web.say("42/chat,1[\"message\"]");
    web.expect("43/chat,1[]");
    well.store(true, Ordering::Relaxed);
    wait_for_metric(&edge, WAITING, 0);
}

#[test]
fn an_application_that_fails_closes_no_other_s_door() {
    const FAILURES: usize = 20;
    let (_, broken) = failing(|_| true);
    let origin = application(nothing);
    let sites = format!(
        "  localhost: {{ next: '{}' }}\n  broken.test: {{ next: '{}' }}\n",
        origin.url(),
        broken.url()
    );
    let edge = Edge::start(&config(&sites, "hooks: { retry: 0s }"));
    let mut client = edge.connect();
    let headers = [&UPGRADE[..], &[("Host", "broken.test")]].concat();
    let answer = client.ask("GET", &hub("EIO=4&transport=websocket"), &headers, b"");
    assert_eq!(answer.status, 101, "{answer:?}");
    let socket = WebSocket::from_raw_socket(client.upgraded(), Role::Client, None);
    let mut unlucky = Web { socket, eio: 4, open: Value::Null };
    assert!(unlucky.text().starts_with('0'));
    let mut lucky = Web::open(&edge);
    for web in [&mut unlucky, &mut lucky] {
        web.enter("/bell");
    }
    for number in 0..=FAILURES {
        unlucky.say(&format!("42/bell,{number}[\"ring\"]"));
        unlucky.expect(&format!("43/bell,{number}{UNAVAILABLE}"));
    }
    assert_eq!(broken.seen().len(), FAILURES, "then it is left alone");
    lucky.say("42/bell,1[\"ring\"]");
    lucky.expect("43/bell,1[]");
}

/// What one worker asks an application at once.
const UNDER_WAY: usize = 256;

/// As many clients as can be asked about at once, and each is.
fn crowd(edge: &Edge, origin: &Origin) -> Vec<Web> {
    let mut crowd: Vec<_> = (0..UNDER_WAY).map(|_| Web::open(edge)).collect();
    for web in &mut crowd {
        web.enter("/bell");
        web.say("42/bell,1[\"ring\",\"slow\"]");
    }
    eventually("all questions", || (asked(origin, "event").len() == UNDER_WAY).then_some(()));
    crowd
}

#[test]
fn the_time_for_an_event_runs_while_it_waits_for_a_place() {
    let (gate, origin) = behind(|question| question["args"][0] == "slow");
    let edge = edge(&origin, "hooks: { retry: 500ms, timeout: 60s }");
    let mut late = Web::open(&edge);
    late.enter("/bell");
    let crowd = crowd(&edge, &origin);
    late.say("42/bell,1[\"ring\",\"late\"]");
    // The others have their places still.
    late.expect(&format!("43/bell,1{UNAVAILABLE}"));
    assert_eq!(asked(&origin, "event").len(), UNDER_WAY, "it was not asked about");
    gate.open();
    for mut web in crowd {
        web.expect("43/bell,1[]");
    }
    late.say("42/bell,2[\"ring\",\"later\"]");
    late.expect("43/bell,2[]");
}

#[test]
fn farewells_have_places_of_their_own() {
    let (gate, origin) = behind(|question| {
        question["args"][0] == "slow" || question["handshake"]["query"]["slow"] == "1"
    });
    let edge = edge(&origin, "hooks: { timeout: 60s }");
    let mut web = Web::open(&edge);
    let id = web.enter("/chat");
    let crowd = crowd(&edge, &origin);
    drop(web);
    let told = eventually("the farewell", || asked(&origin, "disconnect").pop());
    assert_eq!(told["sid"], id);
    assert_eq!(asked(&origin, "event").len(), UNDER_WAY);
    gate.open();
    drop(crowd);
}

#[test]
fn farewells_take_no_places_from_events() {
    let (gate, origin) = behind(|question| question["type"] == "disconnect");
    let edge = edge(&origin, "hooks: { timeout: 60s }");
    let leaving: Vec<_> = (0..UNDER_WAY + 1).map(|_| Web::open(&edge)).collect();
    for mut web in leaving {
        web.enter("/chat");
    }
    wait_for_metric(&edge, WAITING, UNDER_WAY as i64 + 1);
    let mut web = Web::open(&edge);
    web.enter("/bell");
    web.say("42/bell,1[\"ring\"]");
    web.expect("43/bell,1[]");
    gate.open();
    wait_for_metric(&edge, WAITING, 0);
    assert_eq!(asked(&origin, "disconnect").len(), UNDER_WAY + 1);
}

#[test]
fn farewells_take_bounded_memory_and_what_is_lost_is_counted() {
    const CLIENTS: usize = 20;
    const FULL: &str = "vestibule_hooks_lost_total{reason=\"full\"}";
    let well = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&well);
    // What is attached to a socket comes with its farewell.
    let large = "x".repeat(1_000_000);
    let origin = application(move |question| match question["type"].as_str() {
        Some("connect") => (200, json!({ "data": large })),
        _ if told.load(Ordering::Relaxed) => (204, Value::Null),
        _ => (503, Value::Null),
    });
    let edge = edge(&origin, "");
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Web::open(&edge)).collect();
    let ids: HashSet<_> = clients.iter_mut().map(|web| web.enter("/chat")).collect();
    drop(clients);
    let lost = eventually("all to have left", || {
        let lost = metric(&edge, FULL);
        (lost + metric(&edge, WAITING) == CLIENTS as i64).then_some(lost)
    });
    // 16 MiB of them wait.
    assert_eq!(lost, CLIENTS as i64 - 16);
    let log = edge.log();
    assert_eq!(log.matches("will not hear").count(), 1, "one line for all of them: {log}");
    well.store(true, Ordering::Relaxed);
    wait_for_metric(&edge, WAITING, 0);
    let told: HashSet<_> = asked(&origin, "disconnect")
        .iter()
        .map(|told| told["sid"].as_str().expect("an id").to_owned())
        .collect();
    assert!(told.is_subset(&ids) && told.len() == 16, "{told:?}");
}

/// They hold no connection between two polls, so their worker has nothing else to wait for.
#[test]
fn a_process_that_stops_tells_of_everybody_who_polls() {
    let origin = application(nothing);
    let sites = format!("  localhost: {{ next: '{}' }}\n", origin.url());
    let yaml = config(&sites, "").replace("workers: 1", "workers: 2");
    let mut edge = Edge::start(&yaml);
    let mut ids = HashSet::new();
    for _ in 0..24 {
        ids.insert(Poller::open(&edge).enter("/chat"));
    }
    wait_for_metric(&edge, "vestibule_connections_open{listener=\"http\"}", 0);
    edge.signal("TERM");
    assert!(edge.ended().success());
    let told: HashSet<_> = asked(&origin, "disconnect")
        .iter()
        .map(|told| told["sid"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(told, ids);
}

#[test]
fn a_process_that_stops_tells_of_everybody() {
    for answers in [true, false] {
        let (well, origin) = failing(|question| question["type"] == "disconnect");
        well.store(answers, Ordering::Relaxed);
        let mut edge = edge(&origin, "hooks: { retry: 200ms }");
        let mut web = Web::open(&edge);
        let id = web.enter("/chat");
        edge.signal("TERM");
        // Before the grace is over, which is longer than anybody here waits.
        assert!(edge.ended().success());
        let told = asked(&origin, "disconnect");
        assert!(told.iter().all(|told| told["sid"] == id), "{told:?}");
        assert_eq!(told.first().expect("a farewell")["reason"], "server shutting down");
        let log = edge.log();
        assert_eq!(log.contains("will not hear"), !answers, "{log}");
        assert!(!log.contains("unfinished"), "{log}");
    }
}
