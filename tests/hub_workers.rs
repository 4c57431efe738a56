//! Two workers, one hub: requests that land on the wrong one, rooms on both, order between them.

use std::thread;

use crate::harness::socketio::{
    Heard, Line, Poller, Web, connection_on, decode, hub_only, listen, metric, wait_for_metric,
    web_on, worker_of,
};
use crate::harness::{Edge, eventually};

const WORKERS: [char; 2] = ['0', '1'];

fn other(worker: char) -> char {
    if worker == '0' { '1' } else { '0' }
}

/// A session whose every further request lands on the other worker.
fn stray(edge: &Edge, worker: char) -> Poller {
    let mut poller =
        Poller::over(connection_on(edge, worker), connection_on(edge, other(worker)), "EIO=4");
    assert_eq!(worker_of(poller.sid()), worker);
    poller.get = connection_on(edge, other(worker));
    poller
}

#[test]
fn polls_and_posts_find_their_session() {
    let edge = Edge::start(&hub_only("limits: { message: 2KB }"));
    for worker in WORKERS {
        let mut poller = stray(&edge, worker);
        poller.enter("/");
        poller.begin_poll();
        poller.say("42[\"echo\",1]\x1e42[\"echo\",2]");
        assert_eq!(poller.polled().text(), "42[\"echo\",1]\x1e42[\"echo\",2]");
        for number in 0..100 {
            poller.say(&format!("42[\"echo\",{number}]"));
            poller.expect(&format!("42[\"echo\",{number}]"));
        }
        // Now and then through its own worker.
        let away = std::mem::replace(&mut poller.get, connection_on(&edge, worker));
        poller.say("42[\"echo\",3]");
        poller.expect("42[\"echo\",3]");
        poller.get = away;
        let mut client = connection_on(&edge, other(worker));
        assert_eq!(client.ask("POST", poller.path(), &[], &[b'4'; 2001]).status, 413);
        poller.say("42[\"echo\",4]");
        poller.expect("42[\"echo\",4]");
        assert_eq!(poller.send("abc").status, 400);
        assert_eq!(poller.status(), 400);
    }
}

#[test]
fn rules_hold_across_workers() {
    let edge = Edge::start(&hub_only(""));
    for worker in WORKERS {
        let mut poller = stray(&edge, worker);
        poller.enter("/");
        poller.begin_poll();
        let path = poller.path().to_owned();
        let second = poller.post.get(&path);
        let first = poller.polled();
        let mut answers = [(first.status, first.text()), (second.status, second.text())];
        answers.sort();
        assert_eq!(answers, [(200, "1".to_owned()), (400, String::new())]);
        assert_eq!(poller.status(), 400);
    }
    let closes = "vestibule_hub_closes_total{reason=\"transport_error\"}";
    wait_for_metric(&edge, closes, 2);
    // One whose client goes away; its request may have come to nothing together with its end.
    let mut kept = None;
    eventually("the end of a session with its GET", || {
        let mut poller = stray(&edge, '0');
        poller.enter("/");
        poller.begin_poll();
        kept = Some(poller);
        (metric(&edge, closes) > 2).then_some(())
    });
}

#[test]
fn an_upgrade_finds_its_session() {
    let edge = Edge::start(&hub_only(""));
    for worker in WORKERS {
        for upgrade_on in WORKERS {
            let mut poller = stray(&edge, worker);
            poller.enter("/");
            poller.begin_poll();
            let mut socket = poller.dial(connection_on(&edge, upgrade_on)).expect("a 101");
            socket.send("2probe".into()).expect("sent");
            assert_eq!(listen(&mut socket), Heard::Text("3probe".to_owned()));
            assert_eq!(poller.polled().text(), "6");
            socket.send("5".into()).expect("sent");
            for number in 0..100 {
                let event = format!("42[\"echo\",{number}]");
                socket.send(event.as_str().into()).expect("sent");
                assert_eq!(listen(&mut socket), Heard::Text(event));
            }
            assert_eq!(poller.poll().status, 400);
            drop(socket);
            wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/\"}", 0);
        }
    }
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"polling\"}", 0);
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"websocket\"}", 0);
}

#[test]
fn a_room_is_one_on_both() {
    let edge = Edge::start(&hub_only(""));
    let mut inside: Vec<(String, Box<dyn Line>)> = Vec::new();
    for worker in WORKERS {
        let mut web = web_on(&edge, worker);
        let id = web.enter("/chat");
        inside.push((id, Box::new(web)));
        let mut poller = stray(&edge, worker);
        let id = poller.enter("/chat");
        inside.push((id, Box::new(poller)));
    }
    let mut outside = WORKERS.map(|worker| web_on(&edge, worker));
    for (_, line) in &mut inside {
        line.say("42/chat,1[\"join\",\"a\"]");
        line.expect("43/chat,1[{\"ok\":true}]");
    }
    for web in &mut outside {
        web.enter("/chat");
        web.say("42/chat,1[\"join\",\"b\"]");
        web.expect("43/chat,1[{\"ok\":true}]");
    }
    for speaker in 0..inside.len() {
        let (id, line) = &mut inside[speaker];
        let wanted =
            format!("42/chat,[\"message\",{{\"room\":\"a\",\"n\":{speaker},\"from\":\"{id}\"}}]");
        line.say(&format!("42/chat,2[\"message\",{{\"room\":\"a\",\"n\":{speaker}}}]"));
        line.expect("43/chat,2[{\"ok\":true}]");
        for (listener, (_, line)) in inside.iter_mut().enumerate() {
            if listener != speaker {
                line.expect(&wanted);
            }
        }
    }
    // Those in the other room have heard nothing of it.
    let [one, two] = &mut outside;
    one.say("42/chat,[\"message\",{\"room\":\"b\"}]");
    assert!(two.text().starts_with("42/chat,[\"message\",{\"room\":\"b\",\"from\":"));
}

#[test]
fn each_senders_order_is_kept() {
    const EACH: u32 = 5000;
    let edge = Edge::start(&hub_only(""));
    let mut listeners: Vec<Web> = WORKERS
        .iter()
        .flat_map(|worker| [web_on(&edge, *worker), web_on(&edge, *worker)])
        .collect();
    listeners.iter_mut().for_each(|web| drop(web.enter("/")));
    let senders = WORKERS.map(|worker| web_on(&edge, worker));
    thread::scope(|scope| {
        for (sender, mut web) in senders.into_iter().enumerate() {
            scope.spawn(move || {
                web.enter("/chat");
                web.say("40");
                for number in 0..EACH {
                    web.say(&format!("42[\"tell\",{sender},{number}]"));
                }
                // Until its last words have been taken; what others said is passed over.
                web.say("429[\"unknown\"]");
                while !web.text().starts_with("439") {}
            });
        }
        for mut web in listeners {
            scope.spawn(move || {
                let mut next = [0; 2];
                while next != [EACH; 2] {
                    let text = web.text();
                    let words: serde_json::Value = serde_json::from_str(&text[2..]).expect("JSON");
                    let sender =
                        usize::try_from(words[1].as_u64().expect("a sender")).expect("few");
                    assert_eq!(words[2], next[sender], "of {sender}");
                    next[sender] += 1;
                }
            });
        }
    });
}

#[test]
fn a_flood_of_posts_is_slowed_and_nothing_is_lost() {
    const EACH: u32 = 50_000;
    let edge = Edge::start(&hub_only("limits: { queue: 64MiB }"));
    let mut listener = web_on(&edge, '1');
    listener.enter("/");
    let mut poller = Poller::over(connection_on(&edge, '0'), edge.connect(), "EIO=4");
    poller.enter("/");
    thread::scope(|scope| {
        scope.spawn(move || {
            for round in 0..3 {
                // More at once than one worker lets wait for another.
                let numbers = (round * EACH..(round + 1) * EACH)
                    .map(|number| format!("42[\"tell\",{number}]"));
                poller.say(&numbers.collect::<Vec<_>>().join("\x1e"));
            }
        });
        (0..3 * EACH).for_each(|number| listener.expect(&format!("42[\"tell\",{number}]")));
    });
}

#[test]
fn a_broadcast_is_built_once_for_everybody() {
    let edge = Edge::start(&hub_only(""));
    let built = "vestibule_hub_messages_built_total";
    let mut webs: Vec<Web> = (0..200).map(|_| Web::open(&edge)).collect();
    webs.iter_mut().for_each(|web| drop(web.enter("/")));
    for worker in WORKERS {
        assert!(webs.iter().any(|web| worker_of(web.sid()) == worker), "both have some");
    }
    let before = metric(&edge, built);
    for number in 0..10 {
        webs[number].say(&format!("42[\"all\",{number}]"));
        webs.iter_mut().for_each(|web| web.expect(&format!("42[\"all\",{number}]")));
    }
    assert_eq!(metric(&edge, built) - before, 10);
    // An acknowledgement is a message of its own.
    webs[0].say("427[\"tell\",{\"a\":[]}]");
    webs[0].expect("437[{\"ok\":true}]");
    webs[1..].iter_mut().for_each(|web| web.expect("42[\"tell\",{\"a\":[]}]"));
    assert_eq!(metric(&edge, built) - before, 12);
    // A polling client takes another form, built once on each worker that has some.
    let mut pollers: Vec<Poller> =
        (0..10).map(|number| stray(&edge, WORKERS[number % 2])).collect();
    pollers.iter_mut().for_each(|poller| drop(poller.enter("/")));
    let before = metric(&edge, built);
    webs[0].say("42[\"all\",{\"b\":1}]");
    webs.iter_mut().for_each(|web| web.expect("42[\"all\",{\"b\":1}]"));
    for poller in &mut pollers {
        assert_eq!(decode(4, &poller.poll()), [Heard::Text("42[\"all\",{\"b\":1}]".to_owned())]);
    }
    assert_eq!(metric(&edge, built) - before, 3);
    drop((webs, pollers));
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"websocket\"}", 0);
}
