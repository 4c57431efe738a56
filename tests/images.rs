//! Pictures that the application makes when they are asked for: so many at once, the same one once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::harness::origin::reply;
use crate::harness::socketio::{metric, wait_for_metric};
use crate::harness::{Answer, Client, Edge, Folder, Origin, PLAIN, eventually, vestibule};

/// Makes pictures when it is let; pages at once.
struct Optimizer {
    origin: Origin,
    open: Arc<AtomicBool>,
    at_once: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Optimizer {
    fn start(headers: &'static str, bytes: usize) -> Self {
        let open = Arc::<AtomicBool>::default();
        let (at_once, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let script = (Arc::clone(&open), Arc::clone(&at_once), Arc::clone(&most));
        let origin = Origin::start(move |seen, stream| {
            let (open, at_once, most) = &script;
            if !seen.path().starts_with("/_next/image") {
                return reply(stream, "200 OK", "", b"page");
            }
            let now = at_once.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            while !open.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(2));
            }
            at_once.fetch_sub(1, Ordering::SeqCst);
            let mut picture = seen.path().as_bytes().to_vec();
            picture.resize(bytes, b'x');
            reply(stream, "200 OK", headers, &picture)
        });
        Self { origin, open, at_once, most }
    }

    fn edge(&self, next: &str, more: &str) -> Edge {
        let plain = PLAIN.replace("workers: 2", "workers: 1");
        let next = format!("{{ targets: '{}', {next} }}", self.origin.url());
        Edge::start(&format!("{plain}sites:\n  localhost:\n    next: {next}\n{more}"))
    }

    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    fn pictures(&self) -> usize {
        let seen = self.origin.seen();
        seen.iter().filter(|seen| seen.path().starts_with("/_next/image")).count()
    }
}

const TURN: &str = "vestibule_images_waiting{for=\"turn\"}";
const SAME: &str = "vestibule_images_waiting{for=\"same\"}";

fn outcome(word: &str) -> String {
    format!("vestibule_images_total{{outcome=\"{word}\"}}")
}

fn picture(number: usize) -> String {
    format!("/_next/image?url=%2F{number}.png&w=640&q=75")
}

type Asked = thread::JoinHandle<Answer>;

fn asking(address: SocketAddr, path: String, headers: &'static [(&str, &str)]) -> Asked {
    thread::spawn(move || Client::connect(address).ask("GET", &path, headers, b""))
}

#[test]
fn the_same_picture_is_made_once_for_all_who_ask_for_it() {
    let app = Optimizer::start("content-type: image/webp\r\nvary: accept\r\n", 200_000);
    let edge = app.edge("", "");
    // Browsers say it in different words; cookies say nothing about pictures.
    let accepts: [&'static [(&str, &str)]; 4] = [
        &[("Accept", "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8")],
        &[("Accept", "image/webp,image/avif,*/*"), ("Cookie", "session=1")],
        &[("Accept", "image/avif,image/webp"), ("Authorization", "Bearer 1")],
        &[("Accept", "image/avif,image/webp,*/*"), ("X-Forwarded-For", "6.6.6.6")],
    ];
    let first = asking(edge.http(), picture(1), accepts[0]);
    wait_for_metric(&edge, &outcome("asked"), 1);
    let others: Vec<_> =
        (0..12).map(|at| asking(edge.http(), picture(1), accepts[at % accepts.len()])).collect();
    // What is another picture, or asked for in another way, is asked for by itself.
    let others_of_their_own = [
        asking(edge.http(), picture(2), accepts[0]),
        asking(edge.http(), picture(1), &[("Accept", "image/webp")]),
        asking(
            edge.http(),
            picture(1),
            &[("Accept", "image/avif,image/webp"), ("Range", "bytes=0-1")],
        ),
    ];
    wait_for_metric(&edge, SAME, 12);
    wait_for_metric(&edge, &outcome("asked"), 4);
    app.open();
    for asked in others.into_iter().chain([first]) {
        let answer = asked.join().expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (200, 200_000));
        assert!(answer.text().starts_with(&picture(1)));
        assert_eq!(answer.header("content-type"), Some("image/webp"));
    }
    for asked in others_of_their_own {
        assert_eq!(asked.join().expect("an answer").status, 200);
    }
    assert_eq!(app.pictures(), 4);
    wait_for_metric(&edge, &outcome("shared"), 12);
    wait_for_metric(&edge, SAME, 0);
    let seen = app.origin.seen();
    assert!(seen.iter().all(|seen| seen.all("cookie").is_empty()));
    assert_eq!(seen[0].header("accept"), Some("image/avif,image/webp"));
    // Nothing is kept: that is the application's own cache's affair.
    assert_eq!(edge.get(&picture(1)).status, 200);
    assert_eq!(app.pictures(), 5);
}

#[test]
fn who_asks_may_leave_and_the_others_have_their_picture() {
    let app = Optimizer::start("", 1000);
    let edge = app.edge("", "");
    let mut leaves = edge.connect();
    leaves.send(format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", picture(1)));
    wait_for_metric(&edge, &outcome("asked"), 1);
    let others: Vec<_> = (0..3).map(|_| asking(edge.http(), picture(1), &[])).collect();
    wait_for_metric(&edge, SAME, 3);
    drop(leaves);
    wait_for_metric(&edge, &outcome("asked"), 2);
    app.open();
    for asked in others {
        assert_eq!(asked.join().expect("an answer").status, 200);
    }
    wait_for_metric(&edge, &outcome("shared"), 2);
}

#[test]
fn what_is_for_one_or_too_large_goes_to_one() {
    for (headers, bytes) in [("set-cookie: a=1\r\n", 1000), ("", 9 << 20)] {
        let app = Optimizer::start(headers, bytes);
        let edge = app.edge("", "");
        let asked: Vec<_> = (0..4).map(|_| asking(edge.http(), picture(1), &[])).collect();
        wait_for_metric(&edge, SAME, 3);
        app.open();
        for asked in asked {
            assert_eq!(asked.join().expect("an answer").body.len(), bytes);
        }
        assert_eq!((app.pictures(), metric(&edge, &outcome("shared"))), (4, 0), "{headers}");
    }
    // One that does not come to be is asked for again by each.
    let (open, gate) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let script = (Arc::clone(&open), Arc::clone(&gate));
    let origin = Origin::start(move |_, stream| {
        let (open, first) = &script;
        while !open.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(2));
        }
        let failed = !first.swap(true, Ordering::SeqCst);
        reply(stream, if failed { "403 Forbidden" } else { "200 OK" }, "", b"picture")
    });
    let plain = PLAIN.replace("workers: 2", "workers: 1");
    let edge = Edge::start(&format!("{plain}sites:\n  localhost:\n    next: {}\n", origin.url()));
    let first = asking(edge.http(), picture(1), &[]);
    wait_for_metric(&edge, &outcome("asked"), 1);
    let others: Vec<_> = (0..3).map(|_| asking(edge.http(), picture(1), &[])).collect();
    wait_for_metric(&edge, SAME, 3);
    open.store(true, Ordering::SeqCst);
    assert_eq!(first.join().expect("an answer").status, 403);
    for asked in others {
        assert_eq!(asked.join().expect("an answer").status, 200);
    }
    // Nor is a picture everybody's where the application looks at who asks.
    let app = Optimizer::start("", 1000);
    let folder = Folder::new();
    folder.write("app/.next/server/middleware-manifest.json", "{ \"middleware\": { \"/\": {} } }");
    let build = folder.path("app/.next");
    let edge = app.edge(&format!("build: '{}'", build.display()), "");
    let asked: Vec<_> =
        (0..3).map(|_| asking(edge.http(), picture(1), &[("Cookie", "a=1")])).collect();
    wait_for_metric(&edge, &outcome("asked"), 3);
    app.open();
    asked.into_iter().for_each(|asked| assert_eq!(asked.join().expect("an answer").status, 200));
    assert!(app.origin.seen().iter().all(|seen| seen.all("cookie") == ["a=1"]));
}

#[test]
fn an_application_makes_so_many_pictures_at_once() {
    let app = Optimizer::start("", 1000);
    let edge = app.edge("images: { at_once: 2, queue: 3 }", "");
    let asked: Vec<_> = (0..5).map(|at| asking(edge.http(), picture(at), &[])).collect();
    wait_for_metric(&edge, TURN, 3);
    // More do not wait, and pages pass them by.
    let answer = edge.get(&picture(9));
    assert_eq!((answer.status, answer.text().contains("image_busy")), (503, true), "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert_eq!(edge.get("/page").text(), "page");
    eventually("two at once", || (app.at_once.load(Ordering::SeqCst) == 2).then_some(()));
    app.open();
    for asked in asked {
        assert_eq!(asked.join().expect("an answer").status, 200);
    }
    assert_eq!(app.most.load(Ordering::SeqCst), 2);
    wait_for_metric(&edge, TURN, 0);
    wait_for_metric(&edge, &outcome("busy"), 1);
}

#[test]
fn who_waits_too_long_is_told_so_and_who_leaves_gives_its_turn_back() {
    let app = Optimizer::start("", 1000);
    let edge = app.edge("images: { at_once: 1, wait: 3s, share: false }", "");
    let first = asking(edge.http(), picture(1), &[]);
    wait_for_metric(&edge, &outcome("asked"), 1);
    let mut leaves = edge.connect();
    leaves.send(format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", picture(1)));
    wait_for_metric(&edge, TURN, 1);
    drop(leaves);
    wait_for_metric(&edge, TURN, 0);
    let answer = edge.get(&picture(1));
    assert_eq!((answer.status, answer.text().contains("image_busy")), (503, true), "{answer:?}");
    app.open();
    assert_eq!(first.join().expect("an answer").status, 200);
    assert_eq!(edge.get(&picture(1)).status, 200);
}

#[test]
fn explain_says_how_pictures_are_asked_for() {
    let folder = Folder::new();
    folder.write(
        "proxy.yaml",
        "sites:\n  a.example:\n    next: { targets: 'http://127.0.0.1:3000', images: 3 }\n",
    );
    let limit = |path: &str| {
        let url = format!("http://a.example{path}");
        let output = vestibule(&["explain", "--json", "GET", &url], &folder);
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        told["limits"]["images"].as_str().map(str::to_owned)
    };
    let words = limit(&picture(1)).expect("a limit");
    assert!(words.starts_with("3 at once"), "{words}");
    assert_eq!(limit("/"), None);
}
