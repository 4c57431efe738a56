//! Another binary takes over: no connection refused, no request failed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cluster::UP;
use crate::harness::redis::Redis;
use crate::harness::socketio::{Heard, Line as _, Web, connection_on, hub_only, wait_for_metric};
use crate::harness::{Edge, Folder, Origin, PATIENCE, PLAIN, eventually, is_gone, vestibule};

fn site(origin: &Origin) -> String {
    format!("{PLAIN}sites:\n  localhost:\n    next: {}\n", origin.url())
}

/// What one request came to.
enum Outcome {
    /// Whether the connection stays.
    Answered(bool),
    /// It was closed before a byte of the answer; on a connection that was idle a client asks again.
    Closed,
}

/// One GET, on a connection that may have been idle.
fn get(stream: &mut TcpStream) -> Outcome {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    if stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").is_err() {
        return Outcome::Closed;
    }
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !answer.ends_with(b"\r\n\r\nanswer") {
        match stream.read(&mut piece) {
            Ok(read) if read > 0 => answer.extend_from_slice(&piece[..read]),
            _ if answer.is_empty() => return Outcome::Closed,
            ended => panic!("cut after {:?}: {ended:?}", String::from_utf8_lossy(&answer)),
        }
    }
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    Outcome::Answered(!answer.contains("connection: close"))
}

/// Asks until told to stop: each time on a new connection, or on one that is kept.
pub fn load(address: SocketAddr, keep: bool, stop: &AtomicBool, count: &AtomicUsize) {
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let fresh = kept.is_none();
        let mut stream = kept.take().unwrap_or_else(|| {
            TcpStream::connect(address).unwrap_or_else(|error| panic!("refused: {error}"))
        });
        match get(&mut stream) {
            Outcome::Answered(stays) => kept = (stays && keep).then_some(stream),
            Outcome::Closed => assert!(!fresh, "a new connection was closed without an answer"),
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn twenty_upgrades_under_load_fail_no_request() {
    let origin = Origin::text("answer");
    let mut edge = Edge::start(&site(&origin));
    let address = edge.http();
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            std::thread::spawn(move || load(address, number % 2 == 0, &stop, &count))
        })
        .collect();
    let mut pids = vec![edge.pid()];
    for _ in 0..20 {
        let before = count.load(Ordering::Relaxed);
        let pid = edge.upgrade();
        assert!(!pids.contains(&pid), "{pids:?}");
        assert_eq!(edge.http(), address, "the port is the same");
        let last = pids.last().copied().expect("one");
        pids.push(pid);
        eventually("requests in between", || {
            (count.load(Ordering::Relaxed) > before + 20).then_some(())
        });
        // What has no work left does not stay.
        eventually("the end of the process before", || is_gone(last).then_some(()));
        assert_eq!(edge.admin("GET", "/health/ready").status, 200, "the next one can be asked");
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("no request failed");
    }
    eprintln!("{} requests over 20 upgrades", count.load(Ordering::Relaxed));
}

#[test]
fn what_is_under_way_is_finished_by_the_process_that_began_it() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |seen, stream| {
        if seen.path() != "/slow" {
            return stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew").is_ok();
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
            .expect("sent");
        wait.lock().expect("a lock").recv_timeout(PATIENCE).expect("told");
        stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").is_ok()
    });
    let mut edge = Edge::start(&site(&origin));
    let mut client = edge.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.head();
    assert_eq!(client.chunk().as_deref(), Some(&b"one"[..]));
    edge.upgrade();
    assert_eq!(edge.get("/").text(), "new");
    go.send(()).expect("the application waits");
    assert_eq!(client.chunk().as_deref(), Some(&b"two"[..]));
    assert_eq!(client.chunk(), None);
    assert_eq!(edge.ended().code(), Some(0));
    assert_eq!(edge.get("/").text(), "new");
}

#[test]
fn who_has_connected_and_not_asked_yet_is_answered() {
    let origin = Origin::text("answer");
    let mut edge = Edge::start(&site(&origin));
    let mut silent = TcpStream::connect(edge.http()).expect("connected");
    let mut halfway = TcpStream::connect(edge.http()).expect("connected");
    halfway.write_all(b"GET / HTTP/1.1\r\n").expect("sent");
    let open = "vestibule_connections_open{listener=\"http\"} 2";
    eventually("both to be accepted", || {
        edge.admin("GET", "/metrics").text().contains(open).then_some(())
    });
    edge.upgrade();
    // And told that it closes, unless it asked before the worker knew.
    assert!(matches!(get(&mut silent), Outcome::Answered(_)), "it is answered");
    halfway.write_all(b"Host: localhost\r\n\r\n").expect("sent");
    let mut answer = String::new();
    halfway.read_to_string(&mut answer).expect("an answer, and the end");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("answer"), "{answer}");
    assert_eq!(edge.ended().code(), Some(0));
}

#[test]
fn a_configuration_that_is_wrong_now_upgrades_nothing() {
    let origin = Origin::text("ok");
    let mut edge = Edge::start(&site(&origin));
    let pid = edge.pid();
    edge.folder.write("proxy.yaml", &site(&origin).replace("workers: 2", "worker: 2"));
    let output = vestibule(&["upgrade"], &edge.folder);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("not upgraded"), "{said}");
    assert!(said.contains("did you mean \"workers\"?"), "{said}");
    assert_eq!((edge.pid(), edge.get("/").text().as_str()), (pid, "ok"));
    assert_eq!(edge.admin("GET", "/health/ready").status, 200);
    // Mended, it goes, with another number of workers.
    for workers in ["workers: 3", "workers: 1"] {
        edge.folder.write("proxy.yaml", &site(&origin).replace("workers: 2", workers));
        let output = vestibule(&["upgrade"], &edge.folder);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let next = edge.upgraded();
        assert_eq!(said.trim(), format!("process {next} has taken over"));
        for _ in 0..20 {
            assert_eq!(edge.get("/").text(), "ok");
        }
    }
    assert_eq!(edge.ended().code(), Some(0));
}

#[test]
fn a_binary_that_does_not_work_upgrades_nothing() {
    let origin = Origin::text("ok");
    let folder = Folder::new();
    folder.write("proxy.yaml", &site(&origin));
    let binary = folder.write("bin/vestibule", "");
    let install = |contents: Option<&str>| {
        let (mut written, fresh) = (binary.with_extension("text"), binary.with_extension("new"));
        match contents {
            Some(text) => fs::write(&written, text).expect("written"),
            None => written = env!("CARGO_BIN_EXE_vestibule").into(),
        }
        // By another process: what this one writes to may stay open for a moment in a child of another
        // test, and no such file can be run.
        let words = [written.as_os_str(), fresh.as_os_str()];
        let copied = Command::new("install").args(["-m", "755"]).args(words).status();
        assert!(copied.expect("install").success());
        fs::rename(&fresh, &binary).expect("renamed");
    };
    install(None);
    let mut command = Command::new(&binary);
    command.args(["run", "-c"]).arg(folder.path("proxy.yaml")).current_dir(folder.path(""));
    let mut edge = Edge::spawn(folder, command);
    let pid = edge.pid();
    let why = |edge: &Edge| {
        let output = vestibule(&["upgrade"], &edge.folder);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    install(Some("#!/bin/sh\n[ \"$1\" = check ] && exit 0\nexit 3\n"));
    let said = why(&edge);
    assert!(said.contains("the new process ended, exit status: 3"), "{said}");
    install(Some("#!/bin/sh\necho it is for another machine >&2\nexit 1\n"));
    let said = why(&edge);
    assert!(said.contains("it is for another machine"), "{said}");
    fs::remove_file(&binary).expect("removed");
    let said = why(&edge);
    assert!(said.contains("does not start"), "{said}");
    assert_eq!((edge.pid(), edge.get("/").text().as_str()), (pid, "ok"));
    install(None);
    assert_ne!(edge.upgrade(), pid);
    assert_eq!(edge.get("/").text(), "ok");
    assert_eq!(edge.ended().code(), Some(0));
}

#[test]
fn clients_of_the_hub_are_sent_to_the_next_process_one_after_the_other() {
    let mut edge = Edge::start(&hub_only("drain: { over: 300ms }"));
    let mut webs: Vec<Web> = (0..10).map(|_| Web::open(&edge)).collect();
    webs.iter_mut().for_each(|web| drop(web.enter("/")));
    edge.upgrade();
    for web in &mut webs {
        // No 41: that would make the client give up for good.
        assert_eq!(web.hear(), Heard::Closed(None));
    }
    let mut again: Vec<Web> = (0..10).map(|_| Web::open(&edge)).collect();
    again.iter_mut().for_each(|web| drop(web.enter("/")));
    again[0].say("42[\"tell\",1]");
    for web in &mut again[1..] {
        web.expect("42[\"tell\",1]");
    }
    drop(webs);
    assert_eq!(edge.ended().code(), Some(0));
}

#[test]
fn over_redis_both_processes_are_one_audience() {
    let redis = Redis::start();
    let settings = format!("redis: '{}'\ndrain: {{ over: 20s }}", redis.url());
    let mut edge = Edge::start(&hub_only(&settings));
    wait_for_metric(&edge, UP, 1);
    // The first on each worker is closed at once, the rest over the time.
    let mut firsts = ['0', '1'].map(|worker| Web::over(connection_on(&edge, worker), "EIO=4"));
    let mut stays: Vec<Web> = (0..8).map(|_| Web::open(&edge)).collect();
    stays.iter_mut().for_each(|web| drop(web.enter("/")));
    edge.upgrade();
    for web in &mut firsts {
        assert_eq!(web.hear(), Heard::Closed(None));
    }
    wait_for_metric(&edge, UP, 1);
    let mut moved = Web::open(&edge);
    moved.enter("/");
    moved.say("42[\"tell\",\"from the new\"]");
    let mut old = stays.pop().expect("one that stays longest");
    old.expect("42[\"tell\",\"from the new\"]");
    old.say("42[\"tell\",\"from the old\"]");
    moved.expect("42[\"tell\",\"from the old\"]");
    drop((stays, old));
    assert_eq!(edge.ended().code(), Some(0));
}

#[test]
fn what_is_told_to_stop_while_it_makes_room_hurries() {
    let mut edge = Edge::start(&hub_only("drain: { over: 60s }"));
    let mut web = Web::open(&edge);
    web.enter("/");
    let mut other = Web::open(&edge);
    other.enter("/");
    let old = edge.pid();
    edge.upgrade();
    let sent = Command::new("kill").arg("-TERM").arg(old.to_string()).status();
    assert!(sent.expect("kill").success());
    assert_eq!(edge.ended().code(), Some(0));
    assert!(Duration::from_secs(60) > PATIENCE, "it did not wait");
}
