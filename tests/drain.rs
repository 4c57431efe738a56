//! SIGTERM: requests finish, transports close, nothing hangs.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::harness::{Edge, Origin, PLAIN, eventually};

#[test]
fn running_requests_finish_and_new_connections_are_refused() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
            .expect("sent");
        wait.lock().expect("a lock").recv_timeout(Duration::from_secs(10)).expect("told");
        stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").is_ok()
    });
    let mut edge =
        Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {}\n", origin.url()));
    let mut idle = edge.connect();
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.head();
    assert_eq!(client.chunk().as_deref(), Some(&b"one"[..]));
    edge.signal("TERM");
    edge.wait_for_notify("STOPPING=1");
    let address = edge.http();
    eventually("a closed listener", || TcpStream::connect(address).is_err().then_some(()));
    assert!(idle.is_closed(), "an idle connection is closed at once");
    go.send(()).expect("the application waits");
    assert_eq!(client.chunk().as_deref(), Some(&b"two"[..]));
    assert_eq!(client.chunk(), None);
    assert_eq!(edge.ended().code(), Some(0));
    edge.access_line(|line| line["path"] == "/" && line["status"] == 200 && line["bytes"] == 6);
}

#[test]
fn what_never_ends_is_cut_after_the_grace() {
    let origin = Origin::start(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
            .expect("sent");
        std::thread::sleep(Duration::from_secs(30));
        false
    });
    let yaml = format!(
        "{PLAIN}shutdown: {{ grace: 1s }}\nsites:\n  localhost:\n    next: {}\n",
        origin.url()
    );
    let mut edge = Edge::start(&yaml);
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.head();
    let begun = Instant::now();
    edge.signal("TERM");
    assert_eq!(edge.ended().code(), Some(0));
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_second_signal_hurries() {
    let origin = Origin::start(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
            .expect("sent");
        std::thread::sleep(Duration::from_secs(30));
        false
    });
    let mut edge =
        Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {}\n", origin.url()));
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.head();
    let begun = Instant::now();
    edge.signal("TERM");
    edge.wait_for_notify("STOPPING=1");
    edge.signal("TERM");
    assert_eq!(edge.ended().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}
