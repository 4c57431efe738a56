//! Clients that do not read: closed, never waited for.

use std::net::{SocketAddr, TcpStream};
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
    assert!(worst < Duration::from_secs(2), "the reader waited for {worst:?}");
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
    let big = format!("42[\"all\",\"{}\"]", "x".repeat(500_000));
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
