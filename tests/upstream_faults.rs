//! What goes wrong while a load runs, and who notices.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::harness::http2::{Http2, Outcome};
use crate::harness::node::free_port;
use crate::harness::origin::reply;
use crate::harness::socketio::wait_for_metric;
use crate::harness::{
    Answer, Authority, Client, Edge, End, Folder, Origin, PLAIN, SECURE, StopOnDrop, eventually,
};
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

const IDEMPOTENT: [&str; 5] = ["GET", "PUT", "HEAD", "DELETE", "OPTIONS"];

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
fn nor_does_it_fail_one_over_http2() {
    let port = free_port();
    let mut running = Some(application(port));
    let (folder, authority) = (Folder::new(), Authority::new());
    authority.issue(&folder, "a", &["localhost"]);
    let site = format!("{SECURE}sites:\n  localhost:\n    next: http://127.0.0.1:{port}\n");
    let edge = Edge::start_in(folder, &site);
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let stopped = StopOnDrop(&stop);
        for worker in 0..4_usize {
            let (edge, authority, stop, answered) = (&edge, &authority, &stop, &answered);
            scope.spawn(move || {
                // One is opened anew for each request, the others are kept.
                let mut client = Http2::connect(edge, authority, &[]);
                for (number, turn) in (worker..).zip(0_u32..) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let stream = if worker == 0 {
                        client = Http2::connect(edge, authority, &[]);
                        1
                    } else {
                        turn * 2 + 1
                    };
                    let path = ["/", "/slow/20"][number % 2];
                    client.request(stream, ["GET", "DELETE"][number % 2], path, &[], true);
                    let outcome = client.outcome(stream);
                    assert!(matches!(outcome, Outcome::Status(200, _)), "{path}: {outcome:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let goes_on = |more: usize| {
            let before = answered.load(Ordering::Relaxed);
            eventually("the load", || {
                (answered.load(Ordering::Relaxed) >= before + more).then_some(())
            });
        };
        for _ in 0..3 {
            goes_on(50);
            drop(running.take());
            thread::sleep(Duration::from_millis(200));
            running = Some(application(port));
        }
        goes_on(50);
        drop(stopped);
    });
}

#[test]
fn a_target_that_hangs_fails_nobody_who_may_ask_again() {
    let hung = Origin::start(|_, stream| {
        // Until the edge gives up.
        let _read = stream.read(&mut [0]);
        false
    });
    let well = Origin::text("ok");
    let targets =
        format!("{{ targets: ['{}', '{}'], balance: round, eject: none }}", hung.url(), well.url());
    let edge = edge(&targets, "timeouts: { first_byte: 800ms }\n");
    let mut client = edge.connect();
    for method in ["GET", "HEAD", "PUT", "DELETE"].repeat(3) {
        let body: &[u8] = if method == "PUT" { b"a small body" } else { b"" };
        assert_eq!(client.ask(method, "/", &[], body).status, 200, "{method}");
    }
    assert!(hung.seen().len() >= 4, "{} came to the one that hangs", hung.seen().len());
    // What may have been done is never done again.
    let (before, mut late) = (hung.seen().len() + well.seen().len(), 0);
    for number in 0..6 {
        let answer = client.ask("POST", &format!("/{number}"), &[], b"once");
        assert!([200, 504].contains(&answer.status), "{answer:?}");
        late += usize::from(answer.status == 504);
    }
    assert!(late > 0);
    assert_eq!(hung.seen().len() + well.seen().len(), before + 6);
}

#[test]
fn all_targets_that_hang_are_not_asked_in_turn() {
    let hung = || {
        Origin::start(|_, stream| {
            let _read = stream.read(&mut [0]);
            false
        })
    };
    let hung = [hung(), hung(), hung()];
    let urls: Vec<_> = hung.iter().map(|origin| format!("'{}'", origin.url())).collect();
    let next = format!("{{ targets: [{}], eject: none }}", urls.join(", "));
    let edge = edge(&next, "timeouts: { first_byte: 200ms }\n");
    let answer = edge.get("/");
    assert!(answer.status == 504 && answer.text().contains("upstream_slow"), "{answer:?}");
    assert_eq!(hung.iter().map(|origin| origin.seen().len()).sum::<usize>(), 2);
    let late = "vestibule_upstream_resent_total{reason=\"late\"}";
    let counted = |edge: &Edge| edge.admin("GET", "/metrics").text().contains(late);
    assert!(counted(&edge));
    // What is not sent again is not counted.
    let edge = self::edge(&hung[0].url(), "timeouts: { first_byte: 200ms }\n");
    assert_eq!(edge.get("/").status, 504);
    assert!(!counted(&edge));
}

/// Half of the load meets a process that was stopped: it takes connections and says nothing.
#[test]
fn half_of_the_targets_may_stop_amid_a_load() {
    let ports = [free_port(), free_port()];
    let running = ports.map(application);
    let edge = edge(
        &format!("[http://127.0.0.1:{}, http://127.0.0.1:{}]", ports[0], ports[1]),
        "timeouts: { first_byte: 1500ms }\n",
    );
    let ask = |client: &mut Client, number: usize| {
        client.ask(IDEMPOTENT[number % IDEMPOTENT.len()], "/slow/2", &[], b"")
    };
    let load = Load::begin(edge.http(), 8, ask, |answer| answer.status == 200);
    load.goes_on(100);
    running[0].signal("STOP");
    let late = "vestibule_upstream_resent_total{reason=\"late\"}";
    eventually("one that was too late", || {
        load.goes_on(50);
        edge.admin("GET", "/metrics").text().contains(late).then_some(())
    });
    running[0].signal("CONT");
    load.goes_on(100);
    load.end();
}

/// Takes connections, or not, as it is told; those that it has taken it goes on with.
#[test]
fn a_target_that_is_too_busy_to_accept_is_not_one_that_is_gone() {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).expect("bound");
    socket.listen(1).expect("listening");
    let address = socket.local_addr().expect("an address").as_socket().expect("of TCP");
    let (busy, begun) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let (accepts, slowly) = (Arc::clone(&busy), Arc::clone(&begun));
    thread::spawn(move || {
        while let Ok((mut stream, _)) = socket.accept() {
            let slowly = Arc::clone(&slowly);
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    if buffer[..read].starts_with(b"GET /slow") {
                        slowly.store(true, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(4000));
                    }
                    let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                }
            });
            while accepts.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let edge = Edge::start(&format!(
        "{}sites:\n  localhost:\n    next: {{ targets: http://{address}, keep: {{ for: 1m }}, health: {{ every: 1h }}, hold: {{ for: 400ms }} }}\ntimeouts: {{ connect: 200ms }}\n",
        PLAIN.replace("workers: 2", "workers: 1")
    ));
    assert_eq!(edge.get("/").status, 200);
    busy.store(true, Ordering::Relaxed);
    // Until the queue is full, and nobody takes one out of it any more.
    let (mut queued, mut full) = (Vec::new(), 0);
    while full < 3 {
        match TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            Ok(stream) => queued.push(stream),
            Err(_) => full += 1,
        }
        assert!(queued.len() < 100, "no queue is full");
    }
    let mut slow = edge.connect();
    slow.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
    eventually("the slow one", || begun.load(Ordering::Relaxed).then_some(()));
    // This one would need a new connection, and waits for as long as it may.
    let answer = edge.get("/second");
    assert!(answer.status == 503 && answer.header("retry-after").is_some(), "{answer:?}");
    assert_eq!(slow.answer().status, 200);
    // The connection that is there is used, and nothing is held against its target.
    for _ in 0..3 {
        assert_eq!(edge.get("/third").status, 200);
    }
    assert!(!edge.log().contains("target is down"), "{}", edge.log());
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
        // What was under way is.
        eventually("the one that is gone to be asked no more", || {
            let before = one.seen().len();
            load.goes_on(40);
            (one.seen().len() == before).then_some(())
        });
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
    let (folder, authority) = (Folder::new(), Authority::new());
    authority.issue(&folder, "a", &["localhost"]);
    // The site's name is another one where plain HTTP is not to be redirected.
    let next = origin.url();
    let sites = format!("sites:\n  localhost:\n    next: {next}\n  plain:\n    next: {next}\n");
    let edge = Edge::start_in(folder, &format!("{SECURE}{sites}"));
    let address = edge.http();
    let clients: Vec<_> = (0..8)
        .map(|client| {
            thread::spawn(move || {
                for number in client..client + 40 {
                    let mut connection = Client::connect(address);
                    let version = if number % 8 < 4 { "1.1" } else { "1.0" };
                    let request = format!("GET /{number} HTTP/{version}\r\nHost: plain\r\n\r\n");
                    connection.send(request);
                    match number % 4 {
                        0 => assert_eq!(connection.answer().text(), "0123456789"),
                        1 => {
                            let answer = connection.answer();
                            assert_eq!(answer.status, 502, "{answer:?}");
                        }
                        _ => {
                            let head = connection.head();
                            assert_eq!(head.status, 200);
                            let (rest, end) = connection.end();
                            let rest = String::from_utf8_lossy(&rest);
                            // One that says how long it is, or is chunked, is seen to be short.
                            let is_told = head.header("content-length").is_some()
                                || head.header("transfer-encoding").is_some();
                            assert!(is_told || end == End::Cut, "{number}: a clean end: {rest:?}");
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
    let mut client = Http2::connect(&edge, &authority, &[]);
    for number in 0..40 {
        let outcome = client.get(number * 2 + 1, &format!("/{number}"));
        let expected = match (number % 4, &outcome) {
            (0, Outcome::Status(200, body)) => body == b"0123456789",
            (1, Outcome::Status(502, _)) => true,
            (2 | 3, Outcome::Reset(_)) => true,
            _ => false,
        };
        assert!(expected, "{number}: {outcome:?}");
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
    // Also if it has said more than it had to.
    for (asked, more) in (1..).zip(["", "G", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"]) {
        let mut client = edge.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n{more}"));
        eventually("the request", || (origin.seen().len() == asked).then_some(()));
        drop(client);
        assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(true), "{more:?}");
    }
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
    // Each is answered once, whole, or waits still; whoever was answered makes room for another.
    let (mut well, mut refused, mut waiting) = (0, 0, crowd);
    eventually("an answer for everybody", || {
        waiting.retain_mut(|client| {
            let mut answer = [0; 2048];
            match client.read(&mut answer) {
                Ok(read) if answer.starts_with(b"HTTP/1.1 200") => {
                    assert!(answer[..read].ends_with(b"\r\n\r\nok"), "half an answer");
                    well += 1;
                }
                Ok(_) if answer.starts_with(b"HTTP/1.1 503") => {
                    let text = String::from_utf8_lossy(&answer);
                    assert!(text.contains("out_of_sockets"), "{text}");
                    refused += 1;
                }
                Ok(read) => panic!("{:?}", String::from_utf8_lossy(&answer[..read])),
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
                    return true;
                }
            }
            false
        });
        waiting.is_empty().then_some(())
    });
    assert!(well > 0 && well + refused == 120, "{well} answered, {refused} refused");
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

/// Files need descriptors as sockets do.
#[test]
fn a_file_that_cannot_be_opened_just_now_is_no_broken_one() {
    let folder = Folder::new();
    folder.write("site/a.txt", "a file");
    folder.write(
        "proxy.yaml",
        &format!(
            "{PLAIN}sites:\n  localhost:\n    routes: [{{ path: /*, files: {{ root: site }} }}]\n"
        )
        .replace("workers: 2", "workers: 1"),
    );
    let run = Edge::command(&folder);
    let mut limited = std::process::Command::new("sh");
    limited.current_dir(folder.path("")).args(["-c", "ulimit -n 80; exec \"$0\" \"$@\""]);
    limited.arg(run.get_program()).args(run.get_args());
    let edge = Edge::spawn(folder, limited);
    let mut client = edge.connect();
    assert_eq!(client.get("/a.txt").text(), "a file");
    let crowd: Vec<_> =
        (0..120).map(|_| TcpStream::connect(edge.http()).expect("a place in the queue")).collect();
    eventually("the end of descriptors", || edge.log().contains("cannot accept").then_some(()));
    let answer = eventually("an answer without a descriptor", || {
        let answer = client.get("/a.txt");
        (answer.status != 200).then_some(answer)
    });
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    assert!(answer.text().contains("out_of_files"), "{answer:?}");
    drop(crowd);
    eventually("the file", || (client.get("/a.txt").text() == "a file").then_some(()));
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
