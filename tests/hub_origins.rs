//! Whose pages may use the hub.

use crate::harness::socketio::{NAMESPACES, Poller, UPGRADE, hub, hub_only};
use crate::harness::{Answer, Edge, Origin, PLAIN};

const FORBIDDEN: &str = r#"{"code":4,"message":"Forbidden"}"#;

fn edge(origin: &Origin) -> Edge {
    let hub = format!("hub:\n  origins: [https://friend.example]\n{NAMESPACES}");
    Edge::start(&format!("{PLAIN}{hub}sites:\n  localhost:\n    next: {}\n", origin.url()))
}

fn ask(edge: &Edge, method: &str, query: &str, origin: &str) -> Answer {
    let asked = ("Access-Control-Request-Headers", "x-a, x-b");
    edge.connect().ask(method, &hub(query), &[("Origin", origin), asked], b"")
}

const CORS: [&str; 3] = ["access-control-allow-origin", "access-control-allow-credentials", "vary"];

fn cors(answer: &Answer) -> [Option<&str>; 3] {
    CORS.map(|name| answer.header(name))
}

#[test]
fn the_sites_own_pages_need_no_permission() {
    let app = Origin::text("the app");
    let edge = edge(&app);
    for origin in ["http://localhost", "https://localhost", "HTTP://LOCALHOST"] {
        let answer = ask(&edge, "GET", "EIO=4&transport=polling", origin);
        assert_eq!((answer.status, cors(&answer)), (200, [None; 3]), "{origin}");
    }
    let answer = edge.get(&hub("EIO=4&transport=polling"));
    assert_eq!((answer.status, cors(&answer)), (200, [None; 3]), "no browser");
    // The port is part of it.
    let port = edge.http().port();
    let (host, own) = (format!("localhost:{port}"), format!("http://localhost:{port}"));
    let path = hub("EIO=4&transport=polling");
    let mut client = edge.connect();
    assert_eq!(client.ask("GET", &path, &[("Host", &host), ("Origin", &own)], b"").status, 200);
    let answer =
        client.ask("GET", &path, &[("Host", &host), ("Origin", "http://localhost:1")], b"");
    assert_eq!(answer.status, 403);
    // The hub's neighbours are the application's.
    assert_eq!(edge.get("/socket.io.js").text(), "the app");
    assert_eq!(edge.get("/").text(), "the app");
}

#[test]
fn those_of_others_need_it() {
    let app = Origin::text("the app");
    let edge = edge(&app);
    let poller = Poller::open(&edge);
    let own = format!("EIO=4&transport=polling&sid={}", poller.sid());
    for origin in [
        "https://foe.example",
        "http://friend.example",
        "https://friend.example:8443",
        "https://friend.example.foe.example",
        "https://localhost.foe.example",
        "null",
        "",
        "friend.example",
        "\u{ff}",
    ] {
        for (method, query) in [
            ("GET", "EIO=4&transport=polling"),
            ("GET", own.as_str()),
            ("POST", own.as_str()),
            ("OPTIONS", own.as_str()),
            ("GET", "EIO=4&transport=abc"),
        ] {
            let answer = ask(&edge, method, query, origin);
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (403, FORBIDDEN),
                "{origin} {query}"
            );
            assert_eq!(cors(&answer), [None; 3]);
        }
        // A page of another's could speak for its visitor, whose cookies the browser adds; neither
        // a new session nor the way up of one whose id it knows is open to it.
        let cookie = ("Cookie", "session=of-the-visitor");
        let headers = [&UPGRADE[..], &[("Origin", origin), cookie]].concat();
        for query in ["", &format!("&sid={}", poller.sid())] {
            let path = hub(&format!("EIO=4&transport=websocket{query}"));
            let answer = edge.connect().ask("GET", &path, &headers, b"");
            assert_eq!((answer.status, answer.text().as_str()), (403, "Forbidden"), "{origin}");
        }
    }
    edge.access_line(|line| line["reason"] == "foreign_origin" && line["status"] == 403);
}

/// Apps and extensions have origins of their own, which are let in by name, cookies and all.
#[test]
fn those_of_apps_may_be_allowed() {
    let own = "capacitor://localhost";
    let edge = Edge::start(&hub_only(&format!("origins: [\"{own}\"]")));
    let cookie = ("Cookie", "session=of-the-visitor");
    for (origin, status) in [(own, 101), ("capacitor://other", 403), ("tauri://localhost", 403)] {
        let headers = [&UPGRADE[..], &[("Origin", origin), cookie]].concat();
        let answer = edge.connect().ask("GET", &hub("EIO=4&transport=websocket"), &headers, b"");
        assert_eq!(answer.status, status, "{origin}");
    }
}

#[test]
fn those_that_are_allowed_are_told() {
    let app = Origin::text("the app");
    let edge = edge(&app);
    let friend = "https://friend.example";
    let told = [Some(friend), Some("true"), Some("Origin")];
    let answer = ask(&edge, "GET", "EIO=4&transport=polling", friend);
    assert_eq!((answer.status, cors(&answer)), (200, told));
    let sid = answer.text()[9..29].to_owned();
    let own = format!("EIO=4&transport=polling&sid={sid}");
    let answer = edge.connect().ask("POST", &hub(&own), &[("Origin", friend)], b"40");
    assert_eq!((answer.status, cors(&answer)), (200, told));
    // Errors too, or the page could not read them.
    let answer = ask(&edge, "GET", "EIO=4&transport=abc", friend);
    assert_eq!((answer.status, cors(&answer)), (400, told));
    let headers = [&UPGRADE[..], &[("Origin", friend)]].concat();
    let answer = edge.connect().ask("GET", &hub("EIO=4&transport=websocket"), &headers, b"");
    assert_eq!((answer.status, cors(&answer)), (101, told));
    for query in ["EIO=4&transport=polling", own.as_str(), ""] {
        let answer = ask(&edge, "OPTIONS", query, friend);
        assert_eq!(answer.status, 204, "{query}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(friend));
        assert_eq!(answer.header("access-control-allow-headers"), Some("x-a, x-b"));
        assert_eq!(
            answer.header("access-control-allow-methods"),
            Some("GET,HEAD,PUT,PATCH,POST,DELETE")
        );
        let vary: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "vary").collect();
        assert_eq!(vary.len(), 2, "{vary:?}");
    }
}

#[test]
fn any_page_may_where_the_file_says_so() {
    let edge = Edge::start(&hub_only("origins: ['*']"));
    let anybody = "https://anybody.example";
    let answer = ask(&edge, "GET", "EIO=4&transport=polling", anybody);
    assert_eq!(
        (answer.status, cors(&answer)),
        (200, [Some(anybody), Some("true"), Some("Origin")])
    );
    assert_eq!(ask(&edge, "GET", "EIO=4&transport=polling", "null").status, 200);
}

/// A hub whose hooks are told of the cookies that a client comes with.
fn with_hooks(settings: &str, origin: &Origin) -> Edge {
    let hub = "  namespaces:\n    /: { auth: none, connect: /api/connect, events: deny }\n";
    let site = format!("sites:\n  localhost:\n    next: {}\n", origin.url());
    Edge::start(&format!("{PLAIN}{site}hub:\n  {settings}\n{hub}"))
}

const COOKIE: (&str, &str) = ("Cookie", "session=of-the-visitor");

#[test]
fn what_hooks_are_told_of_a_visitor_no_other_page_sends() {
    let app = Origin::text("the app");
    let edge = with_hooks("origins: ['*', 'https://friend.example']", &app);
    let (friend, foe) = (("Origin", "https://friend.example"), ("Origin", "https://foe.example"));
    let page = ("Referer", "http://localhost/chat");
    let poll = hub("EIO=3&transport=polling");
    let web = hub("EIO=4&transport=websocket");
    let dialogue = ("Authorization", "Basic YTpi");
    for (path, headers, status) in [
        // As an image or a script of any page.
        (&poll, &[COOKIE][..], 403),
        (&poll, &[dialogue], 403),
        (&poll, &[COOKIE, ("Sec-Fetch-Site", "cross-site")], 403),
        (&poll, &[COOKIE, ("Referer", "https://foe.example/localhost")], 403),
        (&poll, &[COOKIE, foe], 403),
        (&poll, &[COOKIE, ("Sec-Fetch-Site", "same-origin")], 200),
        // Over plain HTTP browsers do not say more.
        (&poll, &[COOKIE, page], 200),
        (&poll, &[COOKIE, friend], 200),
        // What a page has to write itself is its own.
        (&poll, &[("Authorization", "Bearer abc"), foe], 200),
        (&poll, &[foe], 200),
        (&web, &[COOKIE, foe], 403),
        (&web, &[COOKIE], 403),
        (&web, &[COOKIE, friend], 101),
        (&web, &[COOKIE, ("Origin", "http://localhost")], 101),
        (&web, &[foe], 101),
    ] {
        let upgrade = if status == 101 || path == &web { &UPGRADE[..] } else { &[] };
        let answer = edge.connect().ask("GET", path, &[upgrade, headers].concat(), b"");
        assert_eq!(answer.status, status, "{path} {headers:?}");
    }
    edge.access_line(|line| line["reason"] == "foreign_origin" && line["status"] == 403);
    // Where hooks are told of no cookies, they mean nothing.
    let edge = with_hooks("hooks: { headers: [user-agent] }", &app);
    assert_eq!(edge.connect().ask("GET", &poll, &[COOKIE], b"").status, 200);
}

/// A script is read by whatever page has it, without asking: only pages that may are given one.
#[test]
fn scripts_are_for_the_pages_that_may() {
    let edge = Edge::start(&hub_only("origins: ['https://friend.example']"));
    let path = hub("EIO=3&transport=polling&j=0");
    for (header, status) in [
        (None, 403),
        (Some(("Referer", "https://foe.example/")), 403),
        (Some(("Sec-Fetch-Site", "cross-site")), 403),
        (Some(("Origin", "https://foe.example")), 403),
        (Some(("Origin", "https://friend.example")), 200),
        (Some(("Referer", "https://friend.example/")), 200),
        (Some(("Referer", "http://localhost/")), 200),
        (Some(("Sec-Fetch-Site", "same-origin")), 200),
    ] {
        let headers: Vec<_> = header.into_iter().collect();
        let answer = edge.connect().ask("GET", &path, &headers, b"");
        assert_eq!(answer.status, status, "{header:?}");
        // Nor may it speak, or hear what comes next.
        let poller = Poller::open(&edge);
        let path = hub(&format!("EIO=4&transport=polling&j=0&sid={}", poller.sid()));
        let answer = edge.connect().ask("POST", &path, &headers, b"d=40");
        assert_eq!(answer.status, status, "{header:?}");
    }
    let edge = Edge::start(&hub_only("origins: ['*']"));
    assert_eq!(edge.get(&path).status, 200, "any page may");
}
