//! Which of several targets is asked, and for how long one that fails is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::harness::node::free_port;
use crate::harness::origin::reply;
use crate::harness::socketio::{metric, wait_for_metric};
use crate::harness::{Edge, Origin, PLAIN, eventually};
use crate::upstream_hold::{application, edge};

fn next(targets: &[&str], more: &str) -> String {
    format!("{{ targets: ['{}'], {more} }}", targets.join("', '"))
}

fn up(url: &str) -> String {
    format!("vestibule_target_up{{target=\"{url}\"}}")
}

fn ejections(url: &str) -> String {
    format!("vestibule_target_ejections_total{{target=\"{url}\"}}")
}

/// Closes every connection without an answer for as long as it is told to.
fn moody(text: &'static str) -> (Origin, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let origin = Origin::start(move |_, stream| {
        !is_broken.load(Ordering::Relaxed) && reply(stream, "200 OK", "", text.as_bytes())
    });
    (origin, broken)
}

#[test]
fn a_target_that_fails_is_passed_over_and_nobody_notices() {
    let (bad, broken) = moody("bad");
    let good = Origin::text("good");
    let edge = edge(
        &next(
            &[&bad.url(), &good.url()],
            "balance: round, eject: { after: 3, for: 4s }, slow_start: 0s",
        ),
        "",
    );
    for number in 0..30 {
        assert_eq!(edge.get("/").text(), "good", "request {number}");
    }
    wait_for_metric(&edge, &ejections(&bad.url()), 1);
    assert!(bad.seen().len() <= 5, "{}", bad.seen().len());
    assert_eq!(metric(&edge, &up(&bad.url())), 1, "its port still listens");
    assert!(edge.log().contains("target fails and is passed over"), "{}", edge.log());
    // After a while it gets its chance, and takes it.
    broken.store(false, Ordering::Relaxed);
    eventually("the other one", || (edge.get("/").text() == "bad").then_some(()));
}

#[test]
fn turns_are_kept_however_seldom_somebody_asks() {
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let edge = edge(&next(&[&one.url(), &two.url()], "balance: round"), "");
    for _ in 0..4 {
        assert_eq!(edge.get("/").status, 200);
        // By now a worker has looked through what it keeps.
        std::thread::sleep(std::time::Duration::from_millis(1500));
    }
    assert_eq!((one.seen().len(), two.seen().len()), (2, 2));
}

/// Answers with a status of its own for as long as it is told to.
fn failing(status: &'static str) -> (Origin, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let origin = Origin::start(move |_, stream| {
        let status = if is_broken.load(Ordering::Relaxed) { status } else { "200 OK" };
        reply(stream, status, "", b"bad")
    });
    (origin, broken)
}

#[test]
fn answers_are_failures_where_the_operator_says_so() {
    let (bad, broken) = failing("503 Service Unavailable");
    let good = Origin::text("good");
    let rule = |statuses: &str| {
        format!(
            "balance: round, eject: {{ after: 3, for: 4s, statuses: {statuses} }}, slow_start: 0s"
        )
    };
    let targets = [bad.url(), good.url()];
    let targets = [targets[0].as_str(), targets[1].as_str()];
    // They are answers like any other unless it does.
    for statuses in ["[]", "500"] {
        let edge = edge(&next(&targets, &rule(statuses)), "");
        let failed = (0..20).filter(|_| edge.get("/").status == 503).count();
        assert!(failed >= 5, "{failed} with {statuses}");
        assert_eq!(metric(&edge, &ejections(&bad.url())), 0, "{statuses}");
    }
    let edge = edge(&next(&targets, &rule("[502, 5xx]")), "");
    let statuses: Vec<_> = (0..20).map(|_| edge.get("/").status).collect();
    // Nothing is sent twice for it: the client has the answer.
    let failed = statuses.iter().filter(|status| **status == 503).count();
    assert!((3..=6).contains(&failed), "{statuses:?}");
    assert!(metric(&edge, &ejections(&bad.url())) >= 1);
    broken.store(false, Ordering::Relaxed);
    eventually("the other one", || (edge.get("/").text() == "bad").then_some(()));
}

#[test]
fn the_only_target_is_never_passed_over() {
    let (origin, broken) = moody("ok");
    let edge = edge(&next(&[&origin.url()], "eject: 2"), "");
    for _ in 0..5 {
        let answer = edge.get("/");
        assert_eq!(
            (answer.status, answer.text().contains("upstream_closed")),
            (502, true),
            "{answer:?}"
        );
    }
    broken.store(false, Ordering::Relaxed);
    assert_eq!(edge.get("/").text(), "ok");
}

#[test]
fn a_request_that_ends_its_target_is_not_sent_to_all() {
    let origins: Vec<_> = (0..6).map(|_| moody("").0).collect();
    let urls: Vec<_> = origins.iter().map(Origin::url).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let edge = edge(&next(&urls, "eject: none"), "");
    assert_eq!(edge.get("/").status, 502);
    let seen = || origins.iter().map(|origin| origin.seen().len()).sum::<usize>();
    assert_eq!(seen(), 3);
    // And what may be done only once is sent once.
    assert_eq!(edge.connect().ask("POST", "/", &[], b"x").status, 502);
    assert_eq!(seen(), 4);
}

/// Who answered each of `clients`, as a trusted peer tells them.
fn answers(edge: &Edge, clients: impl Iterator<Item = u8>) -> Vec<String> {
    let mut connection = edge.connect();
    let ask = |client: u8| {
        let address = format!("10.0.0.{client}");
        connection.ask("GET", "/", &[("X-Forwarded-For", &address)], b"").text()
    };
    clients.map(ask).collect()
}

#[test]
fn the_same_client_comes_to_the_same_target_also_after_a_restart_of_the_edge() {
    let origins = [Origin::text("a"), Origin::text("b"), Origin::text("c")];
    let urls: Vec<_> = origins.iter().map(Origin::url).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let trust = "trust: [127.0.0.1]\n";
    let first = edge(&next(&urls, "balance: hash"), trust);
    let before = answers(&first, 0..60);
    assert_eq!(answers(&first, 0..60), before);
    for text in ["a", "b", "c"] {
        let share = before.iter().filter(|answer| *answer == text).count();
        assert!((8..=34).contains(&share), "{text}: {share}");
    }
    // In another order and with one less, only the clients of that one move.
    let second = edge(&next(&[urls[2], urls[0]], "balance: hash"), trust);
    for (client, (now, then)) in answers(&second, 0..60).iter().zip(&before).enumerate() {
        assert!(now == then || then == "b", "client {client} went from {then} to {now}");
    }
}

#[test]
fn who_comes_back_begins_with_a_small_share() {
    let stays = Origin::text("stays");
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let edge = edge(
        &next(
            &[&stays.url(), &url],
            "balance: round, slow_start: 1h, health: { every: 100ms, timeout: 100ms }",
        ),
        "",
    );
    wait_for_metric(&edge, &up(&url), 0);
    assert_eq!(edge.get("/").text(), "stays");
    let _comes = application(port);
    wait_for_metric(&edge, &up(&url), 1);
    let mut client = edge.connect();
    let count = (0..200).filter(|_| client.get("/").text() != "stays").count();
    assert!((1..=30).contains(&count), "{count} of 200 are about a tenth of a half");
}

#[test]
fn slow_targets_get_less_and_hold_up_nobody_else() {
    let (slow_seen, fast_seen) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let target = |seen: &Arc<AtomicUsize>, pause: u64| {
        let seen = Arc::clone(seen);
        Origin::start(move |_, stream| {
            seen.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(pause));
            reply(stream, "200 OK", "", b"ok")
        })
    };
    let origins = [
        target(&slow_seen, 400),
        target(&fast_seen, 1),
        target(&slow_seen, 400),
        target(&fast_seen, 1),
    ];
    let urls: Vec<_> = origins.iter().map(Origin::url).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let edge = edge(&next(&urls, "balance: least"), "");
    let address = edge.http();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = crate::harness::Client::connect(address);
                for _ in 0..50 {
                    assert_eq!(client.get("/").status, 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("no request failed");
    }
    let (slow, fast) = (slow_seen.load(Ordering::Relaxed), fast_seen.load(Ordering::Relaxed));
    assert!(fast > 3 * slow, "{slow} to those that are slow, {fast} to those that are not");
}

#[test]
fn a_target_that_a_reload_adds_shows_first_that_it_answers() {
    let well = Origin::text("well");
    // It starts: its port is open, and nothing is there yet.
    let starting = Origin::start(|seen, stream| {
        if seen.path() == "/healthy" {
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        reply(stream, "503 Service Unavailable", "", b"starting")
    });
    let health = "balance: round, health: { path: /healthy, every: 1s, timeout: 900ms }";
    let (one, two) = (well.url(), starting.url());
    let site =
        |urls: &[&str]| format!("{PLAIN}sites:\n  localhost:\n    next: {}\n", next(urls, health));
    let mut edge = Edge::start(&site(&[&one]));
    edge.reload_with(&site(&[&one, &two]));
    let mut client = edge.connect();
    for _ in 0..50 {
        assert_eq!(client.get("/").text(), "well");
    }
    wait_for_metric(&edge, &up(&two), 0);
    // One that answers is asked as soon as it has.
    let third = Origin::text("third");
    edge.reload_with(&site(&[&one, &third.url()]));
    wait_for_metric(&edge, &up(&third.url()), 1);
    eventually("its share", || (client.get("/").text() == "third").then_some(()));
}

/// What only was looked at, and what is gone, is not shown.
#[test]
fn a_target_is_shown_for_as_long_as_it_is_used() {
    let (one, two) = (Origin::text("1"), Origin::text("2"));
    let yaml = |to: &str| format!("{PLAIN}sites:\n  localhost:\n    next: \"{to}\"\n");
    let mut edge = Edge::start(&yaml(&one.url()));
    let is_shown = |edge: &Edge, url: &str| {
        edge.admin("GET", "/metrics").text().contains(&format!("target=\"{url}\""))
    };
    assert_eq!(edge.get("/").text(), "1");
    assert!(is_shown(&edge, &one.url()));
    edge.folder.write("proxy.yaml", &yaml(&two.url()));
    assert_eq!(edge.admin("POST", "/diff").status, 200);
    assert!(!is_shown(&edge, &two.url()));
    edge.reload();
    assert_eq!(edge.get("/").text(), "2");
    assert!(is_shown(&edge, &two.url()));
    eventually("the end of the first", || (!is_shown(&edge, &one.url())).then_some(()));
}
