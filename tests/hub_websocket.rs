//! Engine.IO and Socket.IO over WebSocket.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::harness::socketio::{
    Heard, Line as _, Poller, Web, hub_only, listen, metric, wait_for_metric,
};
use crate::harness::{Authority, Client, Edge, Folder, PATIENCE, PLAIN, SECURE};

#[test]
fn a_session_begins_with_the_open_packet() {
    let edge = Edge::start(&hub_only(""));
    let web = Web::open(&edge);
    let mut keys: Vec<_> = web.open.as_object().expect("an object").keys().collect();
    keys.sort();
    assert_eq!(keys, ["maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"]);
    assert_eq!(web.open["upgrades"], serde_json::json!([]));
    assert_eq!(web.sid().len(), 20);
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"websocket\"}", 1);
    drop(web);
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"websocket\"}", 0);
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"transport_close\"}", 1);
}

#[test]
fn texts_and_binary_parts_of_every_length() {
    let edge = Edge::start(&hub_only(""));
    let mut web = Web::open(&edge);
    web.enter("/");
    let binary = "451-[\"echo\",{\"_placeholder\":true,\"num\":0}]";
    // Around the lengths at which a frame's head grows.
    for length in [0, 1, 109, 110, 125, 126, 127, 65_535, 65_536, 900_000] {
        let event = format!("42[\"echo\",\"{}\"]", "x".repeat(length));
        web.say(&event);
        assert!(web.hear() == Heard::Text(event), "a text of {length}");
        let data: Vec<u8> = (0..=255).cycle().take(length).collect();
        web.say(binary);
        web.say_bytes(&data);
        web.expect(binary);
        assert!(web.hear() == Heard::Binary(data), "data of {length}");
    }
    web.say("42[\"echo\",\"\u{20ac}\u{1f600}\\u0000\"]");
    web.expect("42[\"echo\",\"\u{20ac}\u{1f600}\\u0000\"]");
    let mut parts = Vec::new();
    for number in 0..10 {
        parts.push(format!("{{\"_placeholder\":true,\"num\":{number}}}"));
    }
    let ten = format!("4510-7[\"echo\",{}]", parts.join(","));
    web.say(&ten);
    (0..10).for_each(|number| web.say_bytes(&[number]));
    web.expect(&ten.replace("-7[", "-["));
    for number in 0..10 {
        assert_eq!(web.hear(), Heard::Binary(vec![number]));
    }
    web.expect("437[{\"ok\":true}]");
}

#[test]
fn the_server_pings_and_wants_an_answer() {
    let edge = Edge::start(&hub_only("ping: { interval: 300ms, timeout: 2s }"));
    let begun = Instant::now();
    let mut web = Web::open(&edge);
    for count in 1..=3 {
        assert_eq!(web.hear_all(), Heard::Text("2".to_owned()));
        let due = Duration::from_millis(300) * count;
        assert!(begun.elapsed() >= due - Duration::from_millis(5), "{:?}", begun.elapsed());
        web.say("3");
    }
    assert_eq!(web.hear_all(), Heard::Text("2".to_owned()));
    let pinged = Instant::now();
    assert_eq!(web.hear_all(), Heard::Closed(None));
    assert!(pinged.elapsed() >= Duration::from_millis(1900), "{:?}", pinged.elapsed());
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"ping_timeout\"}", 1);
}

#[test]
fn any_packet_gives_a_late_pong_more_time_once() {
    let edge = Edge::start(&hub_only("ping: { interval: 400ms, timeout: 400ms }"));
    let mut web = Web::open(&edge);
    assert_eq!(web.hear_all(), Heard::Text("2".to_owned()));
    let pinged = Instant::now();
    // However often it speaks, only a pong keeps it.
    while web.socket.send(tungstenite::Message::text("6")).is_ok() {
        if metric(&edge, "vestibule_hub_closes_total{reason=\"ping_timeout\"}") == 1 {
            break;
        }
        assert!(pinged.elapsed() < PATIENCE, "it lives on");
    }
    assert!(pinged.elapsed() >= Duration::from_millis(390), "{:?}", pinged.elapsed());
}

#[test]
fn who_joins_nothing_is_closed() {
    let edge = Edge::start(&hub_only("connect_timeout: 2s"));
    let mut inside = Web::open(&edge);
    inside.enter("/chat");
    let mut outside = Web::open(&edge);
    outside.say("40/nowhere,");
    outside.expect("44/nowhere,{\"message\":\"Invalid namespace\"}");
    assert_eq!(outside.hear(), Heard::Closed(None));
    let mut polling = Poller::open(&edge);
    assert_eq!(polling.poll().text(), "1");
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"connect_timeout\"}", 2);
    inside.say("42/chat,1[\"join\",\"a\"]");
    inside.expect("43/chat,1[{\"ok\":true}]");
}

#[test]
fn who_joined_once_may_have_left_again() {
    let edge = Edge::start(&hub_only("connect_timeout: 2s"));
    let (mut web, mut poller) = (Web::open(&edge), Poller::open(&edge));
    web.enter("/chat");
    poller.enter("/chat");
    web.say("41/chat,");
    poller.say("41/chat,");
    // Whoever came after them and joined nothing is gone.
    let mut last = Web::open(&edge);
    assert_eq!(last.hear(), Heard::Closed(None));
    web.enter("/");
    poller.enter("/");
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"connect_timeout\"}", 1);
}

/// As often as they come: only time brings the ping, and only its own answer counts.
#[test]
fn pongs_that_nobody_asked_for_neither_bring_the_ping_nor_answer_it() {
    let edge = Edge::start(&hub_only("ping: { interval: 600ms, timeout: 2s }"));
    let begun = Instant::now();
    let mut poller = Poller::open(&edge);
    let path = poller.path().to_owned();
    poller.begin_poll();
    let (post, pinged) = (&mut poller.post, &AtomicBool::new(false));
    let ping = thread::scope(|scope| {
        let get = &mut poller.get;
        let ping = scope.spawn(move || {
            let answer = get.answer();
            pinged.store(true, Ordering::Relaxed);
            (answer.text(), begun.elapsed())
        });
        while !pinged.load(Ordering::Relaxed) {
            assert_eq!(post.ask("POST", &path, &[], b"3").status, 200);
        }
        ping.join().expect("a ping")
    });
    assert_eq!(ping.0, "2");
    assert!(ping.1 >= Duration::from_millis(595), "after {:?}", ping.1);
    // Those that came before it are no answer to it.
    let mut web = Web::open(&edge);
    (0..100).for_each(|_| web.say("3"));
    assert_eq!(web.hear_all(), Heard::Text("2".to_owned()));
    let pinged = Instant::now();
    assert_eq!(web.hear_all(), Heard::Closed(None));
    assert!(pinged.elapsed() >= Duration::from_millis(1900), "{:?}", pinged.elapsed());
    let timeouts = "vestibule_hub_closes_total{reason=\"ping_timeout\"}";
    assert!(metric(&edge, timeouts) >= 1);
    // Many of them bring no more pings than time does.
    let mut web = Web::open(&edge);
    let begun = Instant::now();
    for count in 1..=3 {
        (0..100).for_each(|_| web.say("3"));
        assert_eq!(web.hear_all(), Heard::Text("2".to_owned()));
        let due = Duration::from_millis(600) * count;
        assert!(begun.elapsed() >= due - Duration::from_millis(10), "{:?}", begun.elapsed());
        web.say("3");
    }
}

#[test]
fn a_client_may_say_goodbye_in_three_ways() {
    let edge = Edge::start(&hub_only(""));
    let sockets = "vestibule_hub_sockets{namespace=\"/\"}";
    let mut packet = Web::open(&edge);
    packet.enter("/");
    wait_for_metric(&edge, sockets, 1);
    packet.say("1");
    assert_eq!(packet.hear(), Heard::Closed(None));
    wait_for_metric(&edge, sockets, 0);
    let mut frame = Web::open(&edge);
    frame.enter("/");
    let words = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
    frame.socket.close(Some(words)).expect("sent");
    assert!(matches!(frame.hear(), Heard::Closed(_)));
    wait_for_metric(&edge, sockets, 0);
    let mut none = Web::open(&edge);
    none.enter("/");
    drop(none);
    wait_for_metric(&edge, sockets, 0);
    wait_for_metric(&edge, "vestibule_hub_closes_total{reason=\"transport_close\"}", 3);
}

#[test]
fn a_client_without_binary_is_sent_base64() {
    let edge = Edge::start(&hub_only(""));
    let mut web = Web::over(edge.connect(), "EIO=4&b64=1");
    web.enter("/");
    let event = "451-[\"echo\",{\"_placeholder\":true,\"num\":0}]";
    web.say(event);
    web.say("bAQIDBA==");
    web.expect(event);
    web.expect("bAQIDBA==");
}

#[test]
fn a_path_of_its_own() {
    let edge = Edge::start(&hub_only("path: /live/io"));
    assert_eq!(edge.get("/socket.io/?EIO=4&transport=polling").status, 421);
    let open = edge.get("/live/io/?EIO=4&transport=polling");
    assert_eq!(open.status, 200);
    assert_eq!(edge.get("/live/io?EIO=4&transport=polling").status, 200);
}

#[test]
fn everything_over_tls() {
    let (authority, folder) = (Authority::new(), Folder::new());
    authority.issue(&folder, "localhost", &["localhost"]);
    let edge = Edge::start_in(folder, &hub_only("").replace(PLAIN, SECURE));
    let connect = || {
        let name = ServerName::try_from("localhost").expect("a name");
        let words = Arc::new(authority.client(&[b"http/1.1"]));
        let session = ClientConnection::new(words, name).expect("a session");
        let socket = TcpStream::connect(edge.https()).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client::over(Box::new(StreamOwned::new(session, socket)))
    };
    let mut web = Web::over(connect(), "EIO=4");
    let mut poller = Poller::over(connect(), connect(), "EIO=4");
    web.enter("/");
    poller.enter("/");
    for number in 0..20 {
        let big = format!("42[\"tell\",{number},\"{}\"]", "x".repeat(number * 10_000));
        poller.say(&big);
        web.expect(&big);
        web.say(&big);
        poller.expect(&big);
    }
    // The upgrade may come over a connection that another worker accepted.
    let mut sockets: Vec<_> = (0..8).map(|_| poller.dial(connect()).expect("a 101")).collect();
    let mut socket = sockets.pop().expect("one");
    socket.send("2probe".into()).expect("sent");
    assert_eq!(listen(&mut socket), Heard::Text("3probe".to_owned()));
    socket.send("5".into()).expect("sent");
    web.say("42[\"tell\",\"after\"]");
    assert_eq!(listen(&mut socket), Heard::Text("42[\"tell\",\"after\"]".to_owned()));
}
