//! What clients may do in a namespace.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::socketio::{Heard, Line as _, Poller, Web, hub_only, metric, wait_for_metric};
use crate::harness::{Edge, PLAIN, StopOnDrop};

const OK: &str = "[{\"ok\":true}]";

fn refused(code: &str) -> String {
    format!("[{{\"error\":{{\"code\":\"{code}\"}}}}]")
}

/// Sends an event of `/chat` that asks for its acknowledgement, and expects this.
#[track_caller]
fn ask(web: &mut Web, event: &str, answer: &str) {
    web.say(&format!("42/chat,5{event}"));
    web.expect(&format!("43/chat,5{answer}"));
}

fn chatter(edge: &Edge) -> (Web, String) {
    let mut web = Web::open(edge);
    let id = web.enter("/chat");
    (web, id)
}

#[test]
fn rooms_are_joined_left_and_spoken_to() {
    let edge = Edge::start(&hub_only(""));
    let ((mut a, a_id), (mut b, _), (mut c, _)) = (chatter(&edge), chatter(&edge), chatter(&edge));
    ask(&mut a, "[\"message\",{\"room\":\"x\"}]", &refused("not_member"));
    for web in [&mut a, &mut b] {
        ask(web, "[\"join\",\"x\"]", OK);
        // Twice is once.
        ask(web, "[\"join\",\"x\"]", OK);
    }
    ask(&mut c, "[\"join\",\"y\"]", OK);
    // What a client says of itself is overwritten with the truth.
    let event = "[\"message\",{\"room\":\"x\",\"from\":\"somebody else\",\"n\":[1,2.50]},null]";
    ask(&mut a, event, OK);
    b.expect(&format!(
        "42/chat,[\"message\",{{\"room\":\"x\",\"n\":[1,2.50],\"from\":\"{a_id}\"}},null]"
    ));
    ask(&mut c, "[\"message\",{\"room\":\"x\"}]", &refused("not_member"));
    ask(&mut b, "[\"leave\",\"x\"]", OK);
    ask(&mut b, "[\"leave\",\"x\"]", OK);
    ask(&mut a, event, OK);
    // Nobody of this heard the second one.
    for web in [&mut a, &mut b, &mut c] {
        ask(web, "[\"forbidden\"]", &refused("denied"));
    }
}

#[test]
fn what_is_not_allowed_is_said() {
    let edge = Edge::start(&hub_only("limits: { rooms: 3 }"));
    let (mut web, id) = chatter(&edge);
    ask(&mut web, "[\"forbidden\"]", &refused("denied"));
    ask(&mut web, "[\"undeclared\",1]", &refused("unknown_event"));
    ask(&mut web, "[\"*\"]", &refused("unknown_event"));
    ask(&mut web, "[7]", &refused("unknown_event"));
    for argument in ["", ",null", ",{}", ",[]", ",[\"a\"]"] {
        ask(&mut web, &format!("[\"join\"{argument}]"), &refused("bad_arguments"));
        ask(&mut web, &format!("[\"message\"{argument}]"), &refused("bad_arguments"));
    }
    ask(&mut web, &format!("[\"join\",\"{}\"]", "x".repeat(300)), &refused("bad_arguments"));
    for room in ["\"a\"", "7", "true"] {
        ask(&mut web, &format!("[\"join\",{room}]"), OK);
    }
    ask(&mut web, "[\"join\",\"d\"]", &refused("too_many_rooms"));
    ask(&mut web, "[\"join\",\"a\"]", OK);
    ask(&mut web, "[\"leave\",\"a\"]", OK);
    ask(&mut web, "[\"join\",\"d\"]", OK);
    // The room is the prefix and the name, so nobody comes into another's own.
    ask(&mut web, &format!("[\"message\",{{\"room\":\"{id}\"}}]"), &refused("not_member"));
    // With attachments too, and without an answer if none is asked for.
    web.say("451-/chat,9[\"undeclared\",{\"_placeholder\":true,\"num\":0}]");
    web.say_bytes(&[1]);
    web.expect(&format!("43/chat,9{}", refused("unknown_event")));
    web.say("42/chat,[\"undeclared\"]");
    ask(&mut web, "[\"forbidden\"]", &refused("denied"));
    assert!(metric(&edge, "vestibule_hub_events_total{direction=\"in\"}") > 20);
}

const MORE: &str = r#"
hub:
  namespaces:
    /:
      auth: none
      join: ["everyone", "own:{sid}"]
      events:
        shout: { relay: everyone }
        both: { relay: ["room:{0}", "room:{1}"], echo: true }
        foreign: { relay: "room:{0}", member: false }
        enter: { join: ["room:{0}", "room:{1}"] }
        stamped: { relay: everyone, stamp: { who: "{sid}", what: "{event}", was: "{0.text}" } }
        "*": { relay: everyone }
    /listen: { auth: none, events: deny }
    /quiet: { auth: none }
"#;

#[test]
fn the_other_words_of_a_rule() {
    let edge = Edge::start(&format!("{PLAIN}{MORE}"));
    let (mut a, mut b) = (Web::open(&edge), Web::open(&edge));
    let a_id = a.enter("/");
    b.enter("/");
    let ack = |web: &mut Web, event: &str, answer: &str| {
        web.say(&format!("420{event}"));
        web.expect(&format!("430{answer}"));
    };
    // Joined by the server.
    ack(&mut a, "[\"shout\",1]", OK);
    b.expect("42[\"shout\",1]");
    // Every other event.
    ack(&mut a, "[\"whatever\",{\"a\":1}]", OK);
    b.expect("42[\"whatever\",{\"a\":1}]");
    ack(&mut a, "[\"stamped\",{\"who\":1,\"text\":\"x\\\"\"}]", OK);
    b.expect(&format!("42[\"stamped\",{{\"text\":\"x\\\"\",\"who\":\"{a_id}\",\"what\":\"stamped\",\"was\":\"x\\\"\"}}]"));
    ack(&mut a, "[\"stamped\",{}]", &refused("bad_arguments"));
    ack(&mut a, "[\"stamped\",1]", &refused("bad_arguments"));
    // Not being there is no hindrance.
    ack(&mut b, "[\"enter\",1,2]", OK);
    ack(&mut a, "[\"foreign\",1]", OK);
    b.expect("42[\"foreign\",1]");
    // Of several rooms one must be in all; who is in both hears it once, the sender too.
    ack(&mut a, "[\"enter\",1,1]", OK);
    ack(&mut a, "[\"both\",1,2]", &refused("not_member"));
    ack(&mut a, "[\"enter\",2,2]", OK);
    a.say("420[\"both\",1,2]");
    let mut heard = [a.text(), a.text()];
    heard.sort();
    assert_eq!(heard, ["42[\"both\",1,2]".to_owned(), format!("430{OK}")]);
    b.expect("42[\"both\",1,2]");
    for namespace in ["/listen", "/quiet"] {
        a.enter(namespace);
        a.say(&format!("42{namespace},1[\"shout\",1]"));
        a.expect(&format!("43{namespace},1{}", refused("unknown_event")));
    }
}

#[test]
fn namespaces_live_apart_on_one_connection() {
    let edge = Edge::start(&hub_only(""));
    let mut web = Web::open(&edge);
    let ids = [web.enter("/"), web.enter("/chat")];
    assert_ne!(ids[0], ids[1]);
    assert!(!ids.contains(&web.sid().to_owned()), "the session's id is a secret");
    web.say("40/nowhere,{\"token\":\"x\"}");
    web.expect("44/nowhere,{\"message\":\"Invalid namespace\"}");
    let count = |namespace: &str| format!("vestibule_hub_sockets{{namespace=\"{namespace}\"}}");
    assert_eq!((metric(&edge, &count("/")), metric(&edge, &count("/chat"))), (1, 1));
    ask(&mut web, "[\"join\",\"a\"]", OK);
    web.say("41/chat,");
    web.say("42[\"echo\",1]");
    web.expect("42[\"echo\",1]");
    assert_eq!(metric(&edge, &count("/chat")), 0);
    // Back again: another socket, in no room.
    web.say("40/chat,{}");
    let answer = web.text();
    assert!(answer.starts_with("40/chat,{\"sid\":\"") && !answer.contains(&ids[1]), "{answer}");
    ask(&mut web, "[\"message\",{\"room\":\"a\"}]", &refused("not_member"));
    web.say("1");
    assert_eq!(web.hear(), Heard::Closed(None));
    wait_for_metric(&edge, &count("/"), 0);
    wait_for_metric(&edge, &count("/chat"), 0);
}

#[test]
fn what_is_volatile_does_not_wait() {
    let edge = Edge::start(&hub_only(""));
    let (mut sender, _) = chatter(&edge);
    let (mut web, _) = chatter(&edge);
    let mut poller = Poller::open(&edge);
    poller.enter("/chat");
    poller.say("42/chat,5[\"join\",\"x\"]");
    poller.expect(&format!("43/chat,5{OK}"));
    for web in [&mut sender, &mut web] {
        ask(web, "[\"join\",\"x\"]", OK);
    }
    // Nobody waits at the poller's end, so it is not for it.
    ask(&mut sender, "[\"typing\",{\"room\":\"x\",\"n\":1}]", OK);
    web.expect("42/chat,[\"typing\",{\"room\":\"x\",\"n\":1}]");
    ask(&mut sender, "[\"message\",{\"room\":\"x\",\"n\":2}]", OK);
    assert!(web.text().contains("\"n\":2"));
    let heard = poller.poll().text();
    assert!(heard.contains("\"n\":2") && !heard.contains("typing"), "{heard}");
    // It hears one that comes while it waits.
    poller.begin_poll();
    let answered = AtomicBool::new(false);
    let heard = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !answered.load(Ordering::Relaxed) {
                ask(&mut sender, "[\"typing\",{\"room\":\"x\",\"n\":3}]", OK);
            }
        });
        let _stop = StopOnDrop(&answered);
        poller.polled().text()
    });
    assert!(heard.starts_with("42/chat,[\"typing\",{\"room\":\"x\",\"n\":3}]"), "{heard}");
}
