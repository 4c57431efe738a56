//! SIGHUP: installed or refused, and nobody notices.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::harness::socketio::{Heard, Line as _, Web, hub_only};
use crate::harness::{Client, Edge, Origin, PLAIN, eventually, vestibule};

fn site(origin: &Origin, more: &str) -> String {
    format!("{PLAIN}sites:\n  localhost:\n    next: {}\n{more}", origin.url())
}

#[test]
fn a_new_file_is_installed_for_the_next_request_of_an_old_connection() {
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let mut edge = Edge::start(&site(&one, ""));
    let mut client = edge.connect();
    assert_eq!(client.get("/").text(), "one");
    let status = edge.reload_with(&site(&two, ""));
    assert!(status.contains("generation 2"), "{status}");
    assert_eq!(client.get("/").text(), "two");
}

#[test]
fn a_broken_file_changes_nothing_and_says_why() {
    let origin = Origin::text("ok");
    let mut edge = Edge::start(&site(&origin, ""));
    let status = edge.reload_with("sites: [\n");
    assert!(
        status.contains("not reloaded, generation 1 stays") && status.contains("proxy.yaml:"),
        "{status}"
    );
    assert!(edge.log().contains("not reloaded"), "{}", edge.log());
    assert_eq!(edge.get("/").text(), "ok");
    // Nor does one that cannot be compiled or bound.
    edge.folder.write("half/x.pem", "no certificate");
    let status = edge.reload_with(&site(&origin, "tls: { certs: half }\n"));
    assert!(status.contains("not reloaded") && status.contains("x.key"), "{status}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let both = format!("['127.0.0.1:0', '{address}']");
    let status = edge.reload_with(&site(&origin, "").replace("['127.0.0.1:0']", &both));
    assert!(status.contains("not reloaded") && status.contains(&address.to_string()), "{status}");
    assert_eq!(edge.get("/").text(), "ok");
    assert!(edge.reload_with(&site(&origin, "")).contains("generation 2"));
}

#[test]
fn the_service_manager_hears_of_a_reload() {
    let origin = Origin::text("ok");
    let mut edge = Edge::start(&site(&origin, ""));
    edge.signal("HUP");
    let begun = edge.wait_for_notify("RELOADING=1");
    assert!(begun.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{begun}");
    edge.wait_for_notify("READY=1");
}

#[test]
fn listeners_come_and_go_by_address() {
    let origin = Origin::text("ok");
    let mut edge = Edge::start(&site(&origin, ""));
    let free = crate::harness::node::free_address();
    let both = format!("['127.0.0.1:0', '{free}']");
    edge.reload_with(&site(&origin, "").replace("['127.0.0.1:0']", &both));
    let mut kept = Client::connect(free);
    assert_eq!(kept.get("/").text(), "ok");
    edge.reload_with(&site(&origin, ""));
    eventually("a closed listener", || std::net::TcpStream::connect(free).is_err().then_some(()));
    assert_eq!(kept.get("/").text(), "ok", "what was accepted goes on");
    assert_eq!(edge.get("/").text(), "ok", "the other listener never closed");
}

#[test]
fn a_hundred_reloads_under_load_fail_no_request() {
    let origin = Origin::start(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).is_ok()
            && stream.write_all(b"2\r\nab\r\n").is_ok()
            && stream.write_all(b"2\r\ncd\r\n0\r\n\r\n").is_ok()
    });
    let mut edge = Edge::start(&site(&origin, ""));
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let address = edge.http();
    let load: Vec<_> = (0..4)
        .map(|number| {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut kept = Client::connect(address);
                while !stop.load(Ordering::Relaxed) {
                    // Half of the load on a connection of its own each time.
                    let answer = if number % 2 == 0 {
                        kept.get("/")
                    } else {
                        Client::connect(address).get("/")
                    };
                    assert_eq!((answer.status, answer.text().as_str()), (200, "abcd"));
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let other =
        Origin::start(|_, stream| crate::harness::origin::reply(stream, "200 OK", "", b"abcd"));
    let port = crate::harness::node::free_port();
    for generation in 2..102 {
        let before = count.load(Ordering::Relaxed);
        // Routes, targets and a listener come and go.
        let targets = match generation % 3 {
            0 => format!("['{}', '{}']", origin.url(), other.url()),
            1 => format!("['{}']", other.url()),
            _ => format!("{{ targets: ['{}'], balance: round, max: 50 }}", origin.url()),
        };
        let to = if generation % 2 == 0 { &origin } else { &other };
        let routes: String = (0..generation % 5)
            .map(|number| format!("      - {{ path: /{number}, rate: 5/s, to: '{}' }}\n", to.url()))
            .collect();
        let routes = if routes.is_empty() { routes } else { format!("    routes:\n{routes}") };
        let plain = match generation % 4 {
            0 => PLAIN.replace("'127.0.0.1:0'", &format!("'127.0.0.1:0', '127.0.0.1:{port}'")),
            _ => PLAIN.to_owned(),
        };
        let status = edge
            .reload_with(&format!("{plain}sites:\n  localhost:\n    next: {targets}\n{routes}"));
        assert!(status.contains(&format!("generation {generation}")), "{status}");
        eventually("load between reloads", || {
            (count.load(Ordering::Relaxed) > before).then_some(())
        });
    }
    stop.store(true, Ordering::Relaxed);
    for thread in load {
        thread.join().expect("no request failed");
    }
    assert!(count.load(Ordering::Relaxed) > 100);
    assert!(!origin.seen().is_empty() && !other.seen().is_empty());
}

/// The same target by other words is not asked for proof that it is there.
#[test]
fn a_target_whose_checks_change_goes_on_being_asked() {
    let origin = Origin::start(|seen, stream| {
        // Too busy to answer checks in time.
        if seen.path() == "/check" {
            std::thread::sleep(std::time::Duration::from_secs(2));
        }
        crate::harness::origin::reply(stream, "200 OK", "", b"ok")
    });
    let next = |health: &str| {
        let next = format!("{{ targets: '{}', hold: 1s, health: {health} }}", origin.url());
        format!("{PLAIN}sites:\n  localhost:\n    next: {next}\n")
    };
    let mut edge = Edge::start(&next("{ every: 1h }"));
    assert_eq!(edge.get("/").status, 200);
    edge.reload_with(&next("{ path: /check, every: 1s, timeout: 300ms, fall: 50 }"));
    assert_eq!(edge.get("/").status, 200);
    eventually("a check", || {
        origin.seen().iter().any(|seen| seen.path() == "/check").then_some(())
    });
    // The first check that fails decides nothing by itself.
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_secs(2) {
        assert_eq!(edge.get("/").status, 200, "{}", edge.log());
    }
}

#[test]
fn what_takes_a_restart_is_said() {
    let origin = Origin::text("ok");
    let mut edge = Edge::start(&site(&origin, ""));
    edge.reload_with(&site(&origin, "").replace("workers: 2", "workers: 1"));
    assert!(edge.log().contains("workers takes effect at the next restart"), "{}", edge.log());
}

#[test]
fn what_a_reload_changes_is_told_before_and_after() {
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let edge = Edge::start(&site(&one, ""));
    let said = |command: &str| {
        let output = vestibule(&[command], &edge.folder);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(said("diff"), (true, "nothing would change\n".to_owned()));
    let changed = site(&two, "trust: 10.0.0.0/8\n").replace("workers: 2", "workers: 1");
    edge.folder.write("proxy.yaml", &changed);
    let line = format!("~ sites.localhost.next.targets: [\"{}\"] → [\"{}\"]", one.url(), two.url());
    let (_, told) = said("diff");
    assert!(told.contains(&line) && told.contains("~ trust: [] → [\"10.0.0.0/8\"]"), "{told}");
    assert!(told.contains("workers takes effect at the next restart"), "{told}");
    assert_eq!(edge.get("/").text(), "one", "nothing is installed");
    let (_, told) = said("reload");
    assert!(told.starts_with("installed as generation 2\n") && told.contains(&line), "{told}");
    assert!(edge.log().contains("~ sites.localhost.next.targets"), "{}", edge.log());
    edge.folder.write("proxy.yaml", &format!("{PLAIN}site: {{}}\n"));
    let output = vestibule(&["diff"], &edge.folder);
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && why.contains("did you mean \"sites\"?"), "{why}");
}

#[test]
fn sockets_that_a_reload_sends_away_are_told_before_and_after() {
    let edge = Edge::start(&hub_only(""));
    let mut webs = [Web::open(&edge), Web::open(&edge)];
    webs.iter_mut().for_each(|web| drop(web.enter("/chat")));
    webs[0].enter("/");
    let file = hub_only("").replace("/chat:", "/talk:");
    edge.folder.write("proxy.yaml", &file);
    let line = "! 2 sockets are sent away from /chat: there is no such namespace any more";
    let diff = vestibule(&["diff"], &edge.folder);
    let told = String::from_utf8_lossy(&diff.stdout).into_owned();
    assert!(told.contains(line) && !told.contains("from /:"), "{told}");
    let told = vestibule(&["reload"], &edge.folder);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains(line), "{told}");
    for web in &mut webs {
        web.expect("41/chat,");
    }
    // Whoever comes in by other words now.
    let jwt = "auth:\n  token: { jwt: { issuer: https://issuer.example.test, audience: realtime }, secret: 0123456789abcdef0123456789abcdef }\n";
    let file = format!("{jwt}{}", file.replacen("auth: none", "auth: token", 1));
    edge.folder.write("proxy.yaml", &file);
    assert!(vestibule(&["reload"], &edge.folder).status.success(), "{}", edge.log());
    let line = "! 1 socket is cut off from /, and may come back: others are let in there";
    assert!(edge.log().contains(line), "{}", edge.log());
    assert_eq!(webs[0].hear(), Heard::Closed(None));
}
