//! What goes wrong while a load runs, and who notices.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::harness::node::free_port;
use crate::harness::origin::reply;
use crate::harness::socketio::wait_for_metric;
use crate::harness::{Answer, Authority, Client, Edge, Folder, Origin, PLAIN, SECURE, eventually};
use crate::upstream_hold::{application, edge};

/// Clients that ask one after the other until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Half of the clients keep their connection, half open one for each request.
    fn begin(
        address: SocketAddr,
        clients: usize,
        ask: impl Fn(&mut Client, usize) -> Answer + Send + Sync + 'static,
        is_well: impl Fn(&Answer) -> bool + Send + Sync + 'static,
    ) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (ask, is_well) = (Arc::new(ask), Arc::new(is_well));
        let clients = (0..clients).map(|client| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let (ask, is_well) = (Arc::clone(&ask), Arc::clone(&is_well));
            thread::spawn(move || {
                let mut connection = Client::connect(address);
                let mut number = client;
                while !stop.load(Ordering::Relaxed) {
                    if client % 2 == 0 {
                        connection = Client::connect(address);
                    }
                    let answer = ask(&mut connection, number);
                    assert!(is_well(&answer), "client {client}: {answer:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                    number += 1;
                }
            })
        });
        Self { clients: clients.collect(), stop, answered }
    }

    /// Waits until so many more have been answered.
    fn goes_on(&self, more: usize) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("the load", || {
            let failed = self.clients.iter().any(JoinHandle::is_finished);
            let now = self.answered.load(Ordering::Relaxed);
            (failed || now >= before + more).then_some(())
        });
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("no request failed");
        }
        self.answered.load(Ordering::Relaxed)
    }
}

const IDEMPOTENT: [&str; 4] = ["GET", "PUT", "DELETE", "OPTIONS"];

#[test]
fn an_application_that_is_killed_and_comes_back_fails_no_idempotent_request() {
    let port = free_port();
    let mut running = application(port);
    let edge = edge(&format!("http://127.0.0.1:{port}"), "");
    let ask = |client: &mut Client, number: usize| {
        // Some are under way for long enough to be cut.
        let path = ["/", "/slow/20"][number % 2];
        let method = IDEMPOTENT[number % IDEMPOTENT.len()];
        let body: &[u8] = if method == "PUT" { b"a small body" } else { b"" };
        client.ask(method, path, &[], body)
    };
    let load = Load::begin(edge.http(), 16, ask, |answer| answer.status == 200);
    for _ in 0..4 {
        load.goes_on(100);
        drop(running);
        // Some find the port closed before it opens again.
        thread::sleep(Duration::from_millis(200));
        running = application(port);
    }
    load.goes_on(100);
    assert!(load.end() >= 500);
}

#[test]
fn one_of_two_that_is_killed_is_not_missed() {
    let ports = [free_port(), free_port()];
    let mut running = ports.map(application);
    let edge = edge(&format!("[http://127.0.0.1:{}, http://127.0.0.1:{}]", ports[0], ports[1]), "");
    let ask = |client: &mut Client, _: usize| client.get("/slow/5");
    let load = Load::begin(edge.http(), 8, ask, |answer| answer.status == 200);
    for turn in 0..4 {
        load.goes_on(50);
        let port = ports[turn % 2];
        let url = format!("vestibule_target_up{{target=\"http://127.0.0.1:{port}\"}}");
        // Killed, and started again after a while.
        running[turn % 2] = {
            let scratch = free_port();
            let old = std::mem::replace(&mut running[turn % 2], application(scratch));
            drop(old);
            load.goes_on(50);
            application(port)
        };
        wait_for_metric(&edge, &url, 1);
    }
    load.end();
}

#[test]
fn a_target_that_a_reload_removes_ends_no_request() {
    let slow = || {
        Origin::start(|_, stream| {
            thread::sleep(Duration::from_millis(20));
            reply(stream, "200 OK", "", b"ok")
        })
    };
    let (one, two) = (slow(), slow());
    let site = |targets: &str| format!("{PLAIN}sites:\n  localhost:\n    next: {targets}\n");
    let both = site(&format!("['{}', '{}']", one.url(), two.url()));
    let mut edge = Edge::start(&both);
    let ask = |client: &mut Client, number: usize| {
        if number.is_multiple_of(2) {
            client.get("/")
        } else {
            client.ask("POST", "/", &[], b"once")
        }
    };
    let load = Load::begin(edge.http(), 8, ask, |answer| answer.status == 200);
    for _ in 0..3 {
        load.goes_on(20);
        edge.reload_with(&site(&two.url()));
        load.goes_on(20);
        let before = one.seen().len();
        load.goes_on(40);
        assert_eq!(one.seen().len(), before, "the one that is gone is asked no more");
        edge.reload_with(&both);
    }
    load.end();
}

#[test]
fn an_application_that_closes_amid_its_answer_never_makes_a_short_one() {
    // Whole, cut within the head, within a body with a length, within a chunked one.
    let origin = Origin::start(|seen, stream| {
        use std::io::Write as _;
        let number: usize = seen.path()[1..].parse().expect("a number");
        let (answer, goes_on): (&[u8], bool) = match number % 4 {
            0 => (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789", true),
            1 => (b"HTTP/1.1 200 OK\r\ncontent-le", false),
            2 => (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234", false),
            _ => (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n01234\r\n", false),
        };
        stream.write_all(answer).is_ok() && goes_on
    });
    let edge = edge(&origin.url(), "");
    let address = edge.http();
    let clients: Vec<_> = (0..8)
        .map(|client| {
            thread::spawn(move || {
                for number in client..client + 40 {
                    let mut connection = Client::connect(address);
                    connection.send(format!("GET /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
                    match number % 4 {
                        0 => assert_eq!(connection.answer().text(), "0123456789"),
                        1 => {
                            let answer = connection.answer();
                            assert_eq!(answer.status, 502, "{answer:?}");
                        }
                        _ => {
                            assert_eq!(connection.head().status, 200);
                            let rest = connection.rest();
                            let rest = String::from_utf8_lossy(&rest);
                            assert!(!rest.contains("\r\n0\r\n") && rest.len() < 15, "{rest:?}");
                        }
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("no answer was wrong");
    }
}

#[test]
fn a_client_that_leaves_before_the_answer_takes_its_request_with_it() {
    let (told, heard) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let origin = Origin::start(move |_, stream| {
        use std::io::Read as _;
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let read = stream.read(&mut [0]);
        let _told = told.lock().expect("a lock").send(matches!(read, Ok(0) | Err(_)));
        false
    });
    let edge = edge(&origin.url(), "");
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    eventually("the request", || (!origin.seen().is_empty()).then_some(()));
    drop(client);
    assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(true));
}

/// One frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn a_stream_that_is_reset_takes_its_request_with_it_and_no_other() {
    use std::io::{Read as _, Write as _};
    let (told, heard) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let origin = Origin::start(move |seen, stream| {
        if seen.path() != "/" {
            return reply(stream, "200 OK", "", b"whole");
        }
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let read = stream.read(&mut [0]);
        let _told = told.lock().expect("a lock").send(matches!(read, Ok(0) | Err(_)));
        false
    });
    let (folder, authority) = (Folder::new(), Authority::new());
    authority.issue(&folder, "a", &["localhost"]);
    let site = format!("{SECURE}sites:\n  localhost:\n    next: {}\n", origin.url());
    let edge = Edge::start_in(folder, &site);
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let session = rustls::ClientConnection::new(Arc::new(authority.client(&[b"h2"])), name)
        .expect("a session");
    let socket = TcpStream::connect(edge.https()).expect("a connection");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut stream = rustls::StreamOwned::new(session, socket);
    // GET over https, the path as it is, for localhost.
    let head = |path: &str| {
        let path = [&[0x44, u8::try_from(path.len()).expect("short")], path.as_bytes()].concat();
        [&[0x82, 0x87, 0x41, 9][..], b"localhost", &path].concat()
    };
    let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    begin.extend(frame(4, 0, 0, &[]));
    begin.extend(frame(1, 5, 1, &head("/")));
    stream.write_all(&begin).expect("sent");
    eventually("the request", || (!origin.seen().is_empty()).then_some(()));
    let cancel = frame(3, 0, 1, &8_u32.to_be_bytes());
    stream.write_all(&[cancel, frame(1, 5, 3, &head("/x"))].concat()).expect("sent");
    assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(true));
    let mut got = Vec::new();
    while !got.windows(5).any(|window| window == b"whole") {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).expect("an answer");
        assert!(read > 0, "the connection was closed: {got:?}");
        got.extend_from_slice(&piece[..read]);
    }
}

const OPEN: &str = "vestibule_connections_open{listener=\"http\"}";

#[test]
fn an_edge_without_descriptors_recovers_by_itself() {
    let origin = Origin::text("ok");
    let folder = Folder::new();
    folder.write(
        "proxy.yaml",
        &format!(
            "{PLAIN}sites:\n  localhost:\n    next: {{ targets: {}, keep: {{ idle: 2 }} }}\n",
            origin.url()
        ),
    );
    let run = Edge::command(&folder);
    let mut limited = std::process::Command::new("sh");
    limited.current_dir(folder.path("")).args(["-c", "ulimit -n 80; exec \"$0\" \"$@\""]);
    limited.arg(run.get_program()).args(run.get_args());
    let edge = Edge::spawn(folder, limited);
    assert_eq!(edge.get("/").status, 200);
    // More than it can have; those beyond wait in the kernel's queue.
    let mut crowd: Vec<_> =
        (0..120).map(|_| TcpStream::connect(edge.http()).expect("a place in the queue")).collect();
    eventually("the end of descriptors", || edge.log().contains("cannot accept").then_some(()));
    // Those that are in go on; what cannot be done is told, and takes nobody down.
    use std::io::{Read as _, Write as _};
    for client in &mut crowd {
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        client.set_nonblocking(true).expect("not waiting");
    }
    let mut answers = 0;
    eventually("answers", || {
        for client in &mut crowd {
            let mut answer = [0; 12];
            if let Ok(12) = client.read(&mut answer) {
                let answer = String::from_utf8_lossy(&answer).into_owned();
                if answer.starts_with("HTTP/1.1 ") {
                    assert!(
                        ["HTTP/1.1 200", "HTTP/1.1 503"].contains(&answer.as_str()),
                        "{answer}"
                    );
                    answers += 1;
                }
            }
        }
        (answers >= 20).then_some(())
    });
    drop(crowd);
    eventually("an answer", || {
        let mut stream = TcpStream::connect(edge.http()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).ok()?;
        (answer == *b"HTTP/1.1 200").then_some(())
    });
    assert!(!edge.log().contains("target is down"), "the target was blamed: {}", edge.log());
    // The crowd is gone, but the edge has not come to all of its connections yet.
    eventually("the end of the crowd", || {
        let page = edge.admin("GET", "/metrics").text();
        let open = page.lines().find_map(|line| line.strip_prefix(OPEN))?.trim().parse::<u32>();
        open.is_ok_and(|open| open <= 1).then_some(())
    });
    let load =
        Load::begin(edge.http(), 8, |client, _| client.get("/"), |answer| answer.status == 200);
    load.goes_on(100);
    load.end();
}

#[test]
fn a_unix_socket_that_is_busy_is_not_one_that_is_gone() {
    let folder = Folder::new();
    let path = folder.path("app.sock");
    let socket =
        socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&socket2::SockAddr::unix(&path).expect("an address")).expect("bound");
    // One connection waits; the kernel refuses more at once.
    socket.listen(0).expect("listening");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = socket.accept() {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                    let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                }
            });
            // Busy with other things.
            thread::sleep(Duration::from_millis(50));
        }
    });
    let url = format!("unix:{}", path.display());
    let edge = edge(&format!("{{ targets: '{url}', hold: none, health: {{ every: 1h }} }}"), "");
    let address = edge.http();
    let asked: Vec<_> =
        (0..12).map(|_| thread::spawn(move || Client::connect(address).get("/").status)).collect();
    for asked in asked {
        assert_eq!(asked.join().expect("an answer"), 200);
    }
    assert!(!edge.log().contains("target is down"), "{}", edge.log());
}
