//! The page of the private listener: what it shows, to whom, and what it lets nobody do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::node::{Script, free_port};
use crate::harness::socketio::{Line as _, NAMESPACES, Web, hub_only};
use crate::harness::{Answer, Authority, Client, Edge, Folder, Origin, PATIENCE};

const TOKEN: &str = "a token of the night watch";

/// Asks until it is told to stop, so that there is something to see.
struct Traffic(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Traffic {
    fn begin(edge: &Edge) -> Self {
        let (go_on, address) = (Arc::new(AtomicBool::new(true)), edge.http());
        let asked = Arc::clone(&go_on);
        let asking = std::thread::spawn(move || {
            let mut client = Client::connect(address);
            while asked.load(Ordering::Relaxed) {
                client.get("/");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self(go_on, Some(asking))
    }

    fn end(mut self) {
        self.0.store(false, Ordering::Relaxed);
        self.1.take().expect("begun").join().expect("all were answered");
    }
}

#[test]
fn a_person_sees_what_goes_on() {
    let origin = Origin::text("ok");
    let (folder, authority) = (Folder::new(), Authority::new());
    authority.issue(&folder, "secure", &["secure.example"]);
    let port = free_port();
    let listen = format!(
        "listen: {{ http: ['127.0.0.1:0'], https: ['127.0.0.1:0'], admin: {{ address: '127.0.0.1:{port}', token: {TOKEN} }} }}\n"
    );
    let yaml = format!(
        "{listen}sites:\n  localhost:\n    next: {0}\n  secure.example:\n    next: {0}\nhub:\n{NAMESPACES}",
        origin.url()
    );
    let mut edge = Edge::start_in(folder, &yaml);
    edge.reload_with(&yaml.replacen("    next: ", "    compress: [gzip]\n    next: ", 1));
    edge.reload_with(&format!("{yaml}workrs: 3\n"));
    edge.connect().ask("GET", "/", &[("Host", "nowhere.example")], b"");
    let mut webs: Vec<_> = (0..3).map(|_| Web::open(&edge)).collect();
    for (index, web) in webs.iter_mut().enumerate() {
        web.enter("/chat");
        for room in ["lobby", "kitchen"].iter().take(if index == 0 { 1 } else { 2 }) {
            web.say(&format!("42/chat,0[\"join\",\"{room}\"]"));
            assert!(web.text().contains("ok"));
        }
    }
    let traffic = Traffic::begin(&edge);
    let url = format!("http://127.0.0.1:{port}/");
    let mut page = Script::start("dashboard.mjs", &[("URL", &url), ("TOKEN", TOKEN)]);
    page.wait_for("\"event\":\"shown\"");
    traffic.end();
    drop(edge);
    page.tell("it is gone");
    page.finish();
}

fn asked(edge: &Edge, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let socket = edge.folder.path("admin.sock");
    let stream = std::os::unix::net::UnixStream::connect(socket).expect("the private listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    Client::over(Box::new(stream)).ask(method, path, headers, b"")
}

#[test]
fn pages_of_strangers_ask_in_vain() {
    let edge = Edge::start(&hub_only(""));
    let page = asked(&edge, "GET", "/", &[]);
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    let overview = asked(&edge, "GET", "/overview", &[]).json();
    assert_eq!(overview["readiness"]["ready"], true, "{overview}");
    assert_eq!(overview["namespaces"], serde_json::json!(["/", "/chat"]));
    assert_eq!(overview["history"][0]["what"], "start");
    assert!(
        overview["metrics"].as_str().is_some_and(|page| page.contains("vestibule_generation 1"))
    );
    // A name that was made to resolve to this machine; a form on another page.
    let name = ("Host", "evil.example");
    for (method, path) in
        [("GET", "/overview"), ("GET", "/hub/count?namespace=/"), ("POST", "/reload")]
    {
        assert_eq!(asked(&edge, method, path, &[name]).status, 403, "{path}");
        let other = [("Host", "localhost"), ("Origin", "http://evil.example")];
        assert_eq!(asked(&edge, method, path, &other).status, 403, "{path}");
        let own = [("Host", "localhost:9180"), ("Origin", "http://localhost:9180")];
        assert_eq!(asked(&edge, method, path, &own).status, 200, "{path}");
    }
    assert_eq!(asked(&edge, "GET", "/health/ready", &[name]).status, 200, "a prober's name");
    // What changes something is no GET.
    for path in ["/reload", "/upgrade", "/diff"] {
        assert_eq!(asked(&edge, "GET", path, &[]).status, 404, "{path}");
    }
}

#[test]
fn over_tcp_the_page_shows_nothing_without_the_token() {
    let (origin, port) = (Origin::text("ok"), free_port());
    let yaml = format!(
        "listen: {{ http: ['127.0.0.1:0'], https: [], admin: {{ address: '127.0.0.1:{port}', token: s3cret }} }}\nsites:\n  localhost:\n    next: {}\n",
        origin.url()
    );
    let _edge = Edge::start(&yaml);
    let address = ([127, 0, 0, 1], port).into();
    let ask = |path: &str, headers: &[(&str, &str)]| {
        Client::connect(address).ask("GET", path, headers, b"")
    };
    assert_eq!(ask("/", &[]).status, 200);
    let locked = ask("/overview", &[]);
    assert_eq!((locked.status, locked.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(ask("/overview", &[("Authorization", "Bearer s3cret")]).status, 200);
}
