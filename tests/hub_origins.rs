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
            assert_eq!((answer.status, answer.text().as_str()), (403, FORBIDDEN), "{origin}");
        }
    }
    edge.access_line(|line| line["reason"] == "foreign_origin" && line["status"] == 403);
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
