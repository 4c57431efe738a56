//! Clients that do not read: closed, never waited for.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::harness::socketio::{
    Heard, Line as _, Poller, UPGRADE, Web, decode, hub, hub_only, metric, wait_for_metric,
};
use crate::harness::{Client, Edge, PATIENCE};

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
    // What the reader hears is never behind for long, however many do not read.
    let worst = thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut next = 0;
            loop {
                let text = reader.text();
                if text.starts_with("42[\"tell\",\"end\"") {
                    return next;
                }
                assert!(
                    text.starts_with(&format!("42[\"tell\",{next},")),
                    "{next}: {}",
                    &text[..20]
                );
                next += 1;
            }
        });
        let (mut worst, mut number) = (Duration::ZERO, 0);
        while metric(&edge, TOO_SLOW) < SLOW {
            assert!(number < 20_000, "they are never closed");
            for _ in 0..20 {
                let begun = Instant::now();
                sender.say(&format!("421[\"tell\",{number},\"{filler}\"]"));
                sender.expect("431[{\"ok\":true}]");
                worst = worst.max(begun.elapsed());
                number += 1;
            }
        }
        sender.say("42[\"tell\",\"end\"]");
        assert_eq!(reading.join().expect("a reader"), number);
        worst
    });
    assert!(worst < Duration::from_secs(2), "the sender waited for {worst:?}");
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

#[test]
fn one_message_may_be_larger_than_the_queue() {
    let edge = Edge::start(&hub_only("limits: { queue: 4KiB }"));
    let mut web = Web::open(&edge);
    web.enter("/");
    let mut poller = Poller::open(&edge);
    poller.enter("/");
    let big = format!("42[\"echo\",\"{}\"]", "x".repeat(500_000));
    web.say(&big);
    assert!(web.hear() == Heard::Text(big.clone()));
    assert!(poller.hear() == Heard::Text(big));
    assert_eq!(metric(&edge, TOO_SLOW), 0);
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
