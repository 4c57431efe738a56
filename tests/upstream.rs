//! The wire between the edge and the application: framing, interim responses, reuse, early answers.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::node::free_address;
use crate::harness::origin::reply;
use crate::harness::{Edge, Origin, PATIENCE, PLAIN, eventually};

fn site(next: &str, more: &str) -> Edge {
    let plain = PLAIN.replace("workers: 2", "workers: 1");
    Edge::start(&format!("{plain}sites:\n  localhost:\n    next: {next}\n{more}"))
}

/// An application that answers each connection by `script`, once its first bytes are there.
fn raw(script: impl Fn(&mut TcpStream, usize) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let script = Arc::new(script);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.expect("a connection");
            let script = Arc::clone(&script);
            std::thread::spawn(move || script(&mut stream, number));
        }
    });
    format!("http://{address}")
}

/// Reads until `end` has come.
fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let (mut all, mut byte) = (Vec::new(), [0]);
    while !all.ends_with(end) && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        all.push(byte[0]);
    }
    all
}

#[test]
fn responses_without_a_body_keep_the_connection_in_step() {
    let origin = Origin::start(|seen, stream| {
        let answer = match seen.path() {
            "/head" => "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\netag: \"a\"\r\n\r\n",
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\n\r\n",
            "/early" => {
                "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
            }
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        };
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let edge = site(&origin.url(), "");
    let mut client = edge.connect();
    for _ in 0..3 {
        let answer = client.ask("HEAD", "/head", &[], b"");
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("1000")));
        assert_eq!(client.get("/204").status, 204);
        assert_eq!(client.get("/304").status, 304);
        assert_eq!(client.get("/early").text(), "ok");
        assert_eq!(client.get("/empty").text(), "");
    }
    let used: HashSet<_> = origin.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(used.len(), 1, "one connection carried them all");
}

#[test]
fn bodies_are_framed_anew() {
    let origin = Origin::start(|seen, stream| {
        let length = format!("{} {:?}", seen.body.len(), seen.header("transfer-encoding"));
        reply(stream, "200 OK", "", length.as_bytes())
    });
    let edge = site(&origin.url(), "");
    let mut client = edge.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n",
    );
    client.send("3;x=y\r\nabc\r\n4\r\n0123\r\n0\r\nx-t: 1\r\n\r\n");
    assert_eq!(client.answer().text(), "7 Some(\"chunked\")");
    assert_eq!(client.ask("POST", "/", &[], b"12345").text(), "5 None");
    assert_eq!(client.ask("POST", "/", &[], b"").text(), "0 None");
    let seen = origin.seen();
    assert_eq!(seen[0].all("trailer"), ["x-t"]);
    assert_eq!(seen[0].trailers, [("x-t".to_owned(), "1".to_owned())]);
    assert_eq!(seen[2].all("content-length"), ["0"]);
    assert_eq!(edge.get("/").status, 200);
    assert!(origin.seen()[3].all("content-length").is_empty());
}

#[test]
fn ambiguous_responses_are_refused() {
    let answers = [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        "HTTP/1.1 200 OK\r\na: b\r\n c: d\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ];
    let origin = Origin::start(move |seen, stream| {
        let number: usize = seen.path()[1..].parse().expect("a number");
        stream.write_all(answers[number].as_bytes()).is_ok()
    });
    let edge = site(&origin.url(), "");
    for (number, bytes) in answers.iter().enumerate() {
        let answer = edge.get(&format!("/{number}"));
        assert_eq!(answer.status, 502, "{bytes:?}: {answer:?}");
        assert!(answer.text().contains("upstream_bad_response"), "{answer:?}");
    }
}

#[test]
fn bytes_nobody_asked_for_are_no_answer() {
    // Two answers to one request: the second must not reach anybody.
    let origin = raw(|stream, number| {
        while !read_until(stream, b"\r\n\r\n").is_empty() {
            let own = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{number:02}");
            let extra = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
            stream.write_all([own.as_bytes(), extra.as_bytes()].concat().as_slice()).expect("sent");
        }
    });
    let edge = site(&origin, "");
    let mut client = edge.connect();
    let texts: HashSet<String> = (0..5).map(|_| client.get("/").text()).collect();
    assert!(texts.iter().all(|text| text.parse::<usize>().is_ok()), "{texts:?}");
    assert_eq!(texts.len(), 5, "a connection that said too much is not used again");
}

#[test]
fn a_client_that_waits_for_the_word_gets_it_from_the_application() {
    let origin = raw(|stream, _| {
        let head = String::from_utf8(read_until(stream, b"\r\n\r\n")).expect("text");
        if head.is_empty() {
            return; // a health check that only connects
        }
        assert!(head.contains("expect: 100-continue"), "{head}");
        if head.starts_with("POST /no") {
            let _sent = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
            return;
        }
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("sent");
        let mut body = [0; 5];
        stream.read_exact(&mut body).expect("the body");
        let _sent = stream.write_all(
            &[b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\n", &body[..]]
                .concat(),
        );
    });
    let edge = site(&origin, "");
    let ask = |path: &str| {
        let mut client = edge.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"));
        client
    };
    let mut client = ask("/yes");
    assert_eq!(client.head().status, 100);
    client.send("hello");
    assert_eq!(client.answer().text(), "hello");
    // Refused: the first thing the client hears is the answer, and it never sends the body.
    let mut client = ask("/no");
    let answer = client.head();
    assert_eq!((answer.status, client.bytes(2)), (403, b"no".to_vec()));
}

#[test]
fn request_and_response_may_flow_at_the_same_time() {
    // Sends its head at once, then each byte of the body back as it comes.
    let origin = raw(|stream, _| {
        read_until(stream, b"\r\n\r\n");
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").expect("sent");
        let mut byte = [0];
        for _ in 0..5 {
            stream.read_exact(&mut byte).expect("the body");
            stream.write_all(format!("1\r\n{}\r\n", char::from(byte[0])).as_bytes()).expect("sent");
        }
        stream.write_all(b"0\r\n\r\n").expect("sent");
    });
    let edge = site(&origin, "");
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.head().status, 200);
    for letter in [b"h", b"e", b"l", b"l", b"o"] {
        client.send(letter);
        assert_eq!(client.chunk().as_deref(), Some(&letter[..]));
    }
    assert_eq!(client.chunk(), None);
}

#[test]
fn what_cannot_be_done_twice_is_sent_once() {
    // Answers the first request of a connection, then reads one more and closes without a word.
    let count = Arc::new(AtomicUsize::new(0));
    let posts = Arc::clone(&count);
    let origin = raw(move |stream, _| {
        read_until(stream, b"\r\n\r\n");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").expect("sent");
        let head = String::from_utf8(read_until(stream, b"\r\n\r\n")).expect("text");
        if head.starts_with("POST") {
            posts.fetch_add(1, Ordering::Relaxed);
        }
    });
    let edge = site(&origin, "");
    assert_eq!(edge.get("/").status, 200);
    assert_eq!(edge.get("/").status, 200, "a GET on a connection that closes is sent again");
    let answer = edge.connect().ask("POST", "/", &[], b"x");
    assert_eq!((answer.status, answer.text().contains("upstream_closed")), (502, true));
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn a_body_of_several_pieces_is_sent_again_if_it_is_not_large() {
    // Takes each request whole, and answers only the second one of a path.
    let paths = std::sync::Mutex::new(HashSet::new());
    let origin = Origin::start(move |seen, stream| {
        if paths.lock().expect("a lock").insert(seen.path().to_owned()) {
            return false;
        }
        let told = format!("{} {}", seen.body.len(), seen.trailers.len());
        reply(stream, "200 OK", "", told.as_bytes())
    });
    let edge = site(&origin.url(), "");
    for (number, size) in [100, 20_000, 60_000].into_iter().enumerate() {
        let mut client = edge.connect();
        let answer = client.ask("PUT", &format!("/{number}"), &[], &vec![b'x'; size]);
        assert_eq!((answer.status, answer.text()), (200, format!("{size} 0")));
    }
    // Chunked, in pieces that come one by one, and with what comes after them.
    let mut client = edge.connect();
    client.send("PUT /chunked HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..5 {
        client.send(format!("3e8\r\n{}\r\n", "x".repeat(1000)));
        std::thread::sleep(Duration::from_millis(10));
    }
    client.send("0\r\nx-sum: 1\r\n\r\n");
    assert_eq!(client.answer().text(), "5000 1");
    // In pieces that are as small as they can be.
    let mut client = edge.connect();
    client.send("PUT /bits HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("1\r\nx\r\n".repeat(20_000) + "0\r\n\r\n");
    assert_eq!(client.answer().text(), "20000 0");
    let before = origin.seen().len();
    let answer = edge.connect().ask("PUT", "/large", &[], &vec![b'x'; 300_000]);
    assert_eq!((answer.status, origin.seen().len()), (502, before + 1));
    let answer = edge.connect().ask("POST", "/post", &[], &vec![b'x'; 20_000]);
    assert_eq!((answer.status, origin.seen().len()), (502, before + 2));
}

#[test]
fn a_post_meets_no_connection_that_was_closed() {
    let closed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&closed);
    let origin = raw(move |stream, _| {
        let asked = !read_until(stream, b"\r\n\r\n").is_empty();
        let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let _closed = stream.shutdown(std::net::Shutdown::Both);
        count.fetch_add(usize::from(asked), Ordering::SeqCst);
    });
    let edge = site(&origin, "");
    for number in 0..20 {
        assert_eq!(edge.connect().ask("POST", "/", &[], b"").status, 200, "{number}");
        eventually("its end", || (closed.load(Ordering::SeqCst) > number).then_some(()));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_slow_client_holds_the_application_back() {
    let (told, sent) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let origin = Origin::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").expect("sent");
        stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        let piece = [b"100000\r\n".as_slice(), &vec![7; 0x10_0000], b"\r\n"].concat();
        let pieces = (0..200).take_while(|_| stream.write_all(&piece).is_ok()).count();
        told.lock().expect("a lock").send(pieces).is_err()
    });
    let edge = site(&origin.url(), "");
    edge.get("/health");
    let before = edge.resident_peak_kb();
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.head();
    let pieces = sent.recv_timeout(PATIENCE).expect("the application was held back");
    assert!(pieces < 50, "{pieces} MiB went nowhere");
    let grown = edge.resident_peak_kb().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB more");
}

#[test]
fn an_application_that_comes_back_is_used_at_once() {
    let address = free_address();
    let next =
        format!("{{ targets: ['http://{address}'], health: {{ every: 60s }}, hold: 100ms }}");
    let edge = site(&next, "");
    let answer = edge.get("/");
    assert_eq!((answer.status, answer.text().contains("upstream_down")), (503, true), "{answer:?}");
    let listener = TcpListener::bind(address).expect("the same port");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            read_until(&mut stream, b"\r\n\r\n");
            reply(&mut stream, "200 OK", "", b"back");
        }
    });
    eventually("the application", || (edge.get("/").text() == "back").then_some(()));
    eventually("ready", || (edge.admin("GET", "/health/ready").status == 200).then_some(()));
}
