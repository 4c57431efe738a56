//! Clients that do not read: closed, never waited for.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::harness::http2::{DATA, END_HEADERS, HEADERS, Http2, block};
use crate::harness::socketio::{
    Heard, Line as _, Poller, UPGRADE, Web, connection_on, decode, hub, hub_only, masked, metric,
    wait_for_metric, web_on,
};
use crate::harness::{Authority, Client, Edge, Folder, PATIENCE, PLAIN, SECURE};

const TOO_SLOW: &str = "vestibule_hub_closes_total{reason=\"too_slow\"}";

/// A connection that takes few bytes before it must be read.
fn narrow(address: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.connect(&address.into()).expect("a connection");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    Client::over(Box::new(stream))
}

#[test]
fn who_does_not_read_is_closed_and_nobody_waits() {
    const SLOW: i64 = 20;
    let edge = Edge::start(&hub_only("limits: { queue: 64KiB }"));
    let mut sender = Web::open(&edge);
    sender.enter("/");
    let mut reader = Web::open(&edge);
    reader.enter("/");
    let mut slow: Vec<Web> = (0..SLOW).map(|_| Web::over(narrow(edge.http()), "EIO=4")).collect();
    slow.iter_mut().for_each(|web| drop(web.enter("/")));
    let before = edge.resident_kb();
    let filler = "x".repeat(8000);
    let mut worst = Duration::ZERO;
    let mut numbers = 0..20_000;
    while metric(&edge, TOO_SLOW) < SLOW {
        let begun = Instant::now();
        // Less than a queue holds, so that the reader is never too slow itself.
        let batch: Vec<String> = numbers
            .by_ref()
            .take(5)
            .map(|number| format!("42[\"tell\",{number},\"{filler}\"]"))
            .collect();
        assert!(!batch.is_empty(), "they are never closed");
        batch.iter().for_each(|event| sender.say(event));
        // However many do not read, the reader hears it all, and soon.
        batch.into_iter().for_each(|event| assert!(reader.hear() == Heard::Text(event)));
        worst = worst.max(begun.elapsed());
    }
    assert!(worst < Duration::from_secs(5), "the reader waited for {worst:?}");
    assert_eq!(metric(&edge, TOO_SLOW), SLOW);
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/\"}", 2);
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"websocket\"}", 2);
    // 64 KiB for each, frames on top, and what the allocator keeps.
    let grown = edge.resident_peak_kb().saturating_sub(before);
    assert!(grown < 12 * 1024, "{grown} kB for {SLOW} slow clients");
    // The rest of what it was sent, then the end.
    let mut last = slow.pop().expect("one");
    while let Heard::Text(_) = last.hear() {}
}

/// Over HTTP/2 a pair of sockets lies between, which takes something before the session sees it.
#[test]
fn who_gives_its_stream_no_window_is_closed() {
    let (authority, folder) = (Authority::new(), Folder::new());
    authority.issue(&folder, "localhost", &["localhost"]);
    let yaml = hub_only("limits: { queue: 64KiB }").replace(PLAIN, SECURE);
    let edge =
        Edge::start_in(folder, &format!("timeouts: {{ body_idle: 500ms, idle: 1s }}\n{yaml}"));
    let mut sender = Web::open(&edge);
    sender.enter("/");
    let path = hub("EIO=4&transport=websocket");
    let head = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", &*path),
        ("sec-websocket-version", "13"),
    ];
    const WINDOW: u16 = 4;
    let mut slow = Http2::connect(&edge, &authority, &[(WINDOW, 0)]);
    slow.send(HEADERS, END_HEADERS, 1, &block(&head));
    assert_eq!(slow.status(1), Some(200));
    slow.send(DATA, 0, 1, &masked(0x81, b"40"));
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/\"}", 2);
    let (before, filler) = (edge.resident_kb(), "x".repeat(8000));
    let mut numbers = 0..5000;
    while metric(&edge, TOO_SLOW) < 1 {
        let number = numbers.next().expect("it is never closed");
        sender.say(&format!("42{number}[\"tell\",\"{filler}\"]"));
        sender.expect(&format!("43{number}[{{\"ok\":true}}]"));
    }
    let grown = edge.resident_kb().saturating_sub(before);
    assert!(grown < 12 * 1024, "{grown} kB for one");
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/\"}", 1);
    // Nothing is left of it: the connection has nothing else to do.
    assert!(slow.is_closed());
}

#[test]
fn who_does_not_poll_is_told_when_it_does() {
    let edge = Edge::start(&hub_only("limits: { queue: 64KiB }"));
    let mut sender = Web::open(&edge);
    sender.enter("/");
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    let filler = "x".repeat(8000);
    for number in 0..20 {
        sender.say(&format!("421[\"tell\",{number},\"{filler}\"]"));
        sender.expect("431[{\"ok\":true}]");
    }
    wait_for_metric(&edge, TOO_SLOW, 1);
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/\"}", 1);
    let mut packets = decode(4, &poller.poll());
    assert_eq!(packets.pop_back(), Some(Heard::Text("1".to_owned())));
    assert_eq!(packets.len(), 8, "as many as the queue holds");
    assert_eq!(poller.status(), 400);
}

/// Events of 8 kB for everybody else, which one POST brings at once.
fn burst(numbers: std::ops::Range<usize>) -> Vec<String> {
    let filler = "x".repeat(8000);
    numbers.map(|number| format!("42[\"tell\",{number},\"{filler}\"]")).collect()
}

#[test]
fn who_reads_takes_more_in_one_turn_than_a_queue_holds() {
    let (authority, folder) = (Authority::new(), Folder::new());
    authority.issue(&folder, "localhost", &["localhost"]);
    let yaml = hub_only("limits: { queue: 64KiB }").replace(PLAIN, SECURE);
    let edge = Edge::start_in(folder, &yaml);
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(Arc::new(authority.client(&[b"http/1.1"])), name);
    let socket = TcpStream::connect(edge.https()).expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let stream = StreamOwned::new(session.expect("a session"), socket);
    let secret = Web::over(Client::over(Box::new(stream)), "EIO=4");
    let mut readers = [web_on(&edge, '0'), web_on(&edge, '1'), secret];
    readers.iter_mut().for_each(|reader| drop(reader.enter("/")));
    let mut poller = Poller::over(connection_on(&edge, '0'), edge.connect(), "EIO=4");
    poller.enter("/");
    let rounds = [burst(0..100), burst(100..200), burst(200..300)];
    thread::scope(|scope| {
        let rounds = &rounds;
        let listening = readers.iter_mut().map(|reader| {
            scope.spawn(move || {
                for event in rounds.iter().flatten() {
                    assert!(reader.hear() == Heard::Text(event.clone()));
                }
            })
        });
        let heard: Vec<_> = listening.collect();
        for round in rounds {
            assert_eq!(poller.send(round.join("\u{1e}")).status, 200);
        }
        heard.into_iter().for_each(|heard| heard.join().expect("all of it was heard"));
    });
    assert_eq!(metric(&edge, TOO_SLOW), 0);
}

#[test]
fn who_waits_for_an_answer_is_given_what_there_is() {
    let edge = Edge::start(&hub_only("limits: { queue: 64KiB }"));
    let on = || connection_on(&edge, '0');
    let mut sender = Poller::over(on(), on(), "EIO=4");
    let mut poller = Poller::over(on(), on(), "EIO=4");
    sender.enter("/");
    poller.enter("/");
    poller.begin_poll();
    // The same worker comes to it before it has answered all of these.
    (0..5).for_each(|_| assert_eq!(sender.status(), 200));
    let events = burst(0..12);
    assert_eq!(sender.send(events.join("\u{1e}")).status, 200);
    let mut heard = decode(4, &poller.polled());
    assert_eq!(heard.len(), 8, "as many as the queue holds");
    heard.extend(decode(4, &poller.poll()));
    assert!(heard.into_iter().eq(events.into_iter().map(Heard::Text)));
    assert_eq!(metric(&edge, TOO_SLOW), 0);
}

const DROPPED: &str = "vestibule_hub_dropped_total";

/// A client in a room whose connection takes no more, though volatile messages wait for it; and how
/// many there were.
fn choked(edge: &Edge, sender: &mut Poller) -> (Web, usize) {
    let mut slow = Web::over(narrow(edge.http()), "EIO=4");
    slow.enter("/chat");
    slow.say("42/chat,1[\"join\",\"a\"]");
    slow.expect("43/chat,1[{\"ok\":true}]");
    let filler = "x".repeat(20_000);
    let event = format!("42/chat,[\"typing\",{{\"room\":\"a\",\"filler\":\"{filler}\"}}]");
    let (mut said, before) = (0, metric(edge, DROPPED));
    while metric(edge, DROPPED) == before {
        said += 40;
        assert!(said < 10_000, "it takes all there is");
        assert_eq!(sender.send(vec![&*event; 40].join("\u{1e}")).status, 200);
        wait_for_metric(edge, "vestibule_hub_notices_waiting", 0);
    }
    (slow, said)
}

#[test]
fn what_is_volatile_makes_room_for_what_is_not() {
    let edge = Edge::start(&hub_only("limits: { queue: 64KiB }"));
    let mut sender = Poller::over(connection_on(&edge, '0'), edge.connect(), "EIO=4");
    sender.enter("/chat");
    sender.say("42/chat,[\"join\",\"a\"]");
    let filler = "x".repeat(8000);
    let all: Vec<String> = (0..5)
        .map(|number| {
            format!(
                "42/chat,[\"message\",{{\"room\":\"a\",\"n\":{number},\"filler\":\"{filler}\"}}]"
            )
        })
        .collect();
    let all = all.join("\u{1e}");
    // Now and then only the message waits that is half way out, and then there is room anyway.
    let (mut slow, said) = (0..20)
        .find_map(|_| {
            let (slow, said) = choked(&edge, &mut sender);
            let before = metric(&edge, DROPPED);
            assert_eq!(sender.send(&all).status, 200);
            wait_for_metric(&edge, "vestibule_hub_notices_waiting", 0);
            assert_eq!(metric(&edge, TOO_SLOW), 0);
            (metric(&edge, DROPPED) > before).then_some((slow, said))
        })
        .expect("one for which something had to go");
    let (mut next, mut passed) = (0, 0);
    while next < 5 {
        let text = slow.text();
        if text.contains("\"typing\"") {
            passed += 1;
        } else {
            assert!(text.contains(&format!("\"n\":{next},")), "not {next}: {}", &text[..60]);
            next += 1;
        }
    }
    assert!(passed < said, "{passed} of {said}");
    // What is not volatile is never dropped: who does not take it is closed.
    let mut rounds = 0..10_000;
    while metric(&edge, TOO_SLOW) == 0 {
        assert!(rounds.next().is_some(), "it is never closed");
        assert_eq!(sender.send(&all).status, 200);
    }
}

/// Two of the largest messages at once are no reason to close who reads, between two polls either.
#[test]
fn two_messages_are_within_every_queue() {
    let small = "limits: { queue: 4KiB }";
    for (limits, size) in [("", 999_900), ("limits: { message: 3MB }", 2_999_900), (small, 500_000)]
    {
        let edge = Edge::start(&hub_only(limits));
        let mut web = Web::open(&edge);
        web.enter("/");
        let mut poller = Poller::open(&edge);
        poller.enter("/");
        let big = format!("421[\"tell\",\"{}\"]", "x".repeat(size));
        for _ in 0..2 {
            web.say(&big);
            web.expect("431[{\"ok\":true}]");
        }
        let told = big.replacen("421", "42", 1);
        (0..2).for_each(|_| assert!(poller.hear() == Heard::Text(told.clone())));
        assert_eq!(metric(&edge, TOO_SLOW), 0);
    }
}

#[test]
fn who_pings_without_reading_is_closed_too() {
    let edge = Edge::start(&hub_only(""));
    let mut client = narrow(edge.http());
    let answer = client.ask("GET", &hub("EIO=4&transport=websocket"), &UPGRADE, b"");
    assert_eq!(answer.status, 101);
    let mut ping = b"\x89\xfd\0\0\0\0".to_vec();
    ping.resize(6 + 125, 7);
    let pings = ping.repeat(100);
    // Until the other side resets the connection, or does not take more.
    for _ in 0..100_000 {
        if client.try_send(&pings).is_err() || metric(&edge, TOO_SLOW) == 1 {
            break;
        }
    }
    wait_for_metric(&edge, TOO_SLOW, 1);
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"websocket\"}", 0);
}
