//! The example app in a real browser and with the stock Socket.IO client.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest;
use serde_json::Value;

use crate::harness::node::{Next, Script, free_address};
use crate::harness::{
    Answer, Authority, Client, Edge, Folder, PLAIN, SECURE, eventually, project, vestibule,
};

/// Where the example's configuration differs from the demo's: an upload of any length.
const ROUTES: &str = "    routes: [{ path: /api/upload, body: 200MB }]\n";
const UPLOAD: usize = 100 * 1024 * 1024;
/// What a body of that length may cost in memory, be it as long as it will.
const UPLOAD_KB: u64 = 16 * 1024;
const CROWD: usize = 12;

/// The demo's users and its hub, so that what `make demo` shows is what is tested.
fn demo(next: &Next) -> String {
    let demo = fs::read_to_string(project("examples/demo.yaml")).expect("the demo's file");
    let (_, rest) = demo.split_once("\nauth:\n").expect("users in it");
    let database = rest.replace("${AUTH_DB:-../demo/app.db}", &next.users().display().to_string());
    format!("auth:\n{database}")
}

/// The same hub for whoever comes, as the programs do that have no login.
fn hub() -> String {
    let demo = fs::read_to_string(project("examples/demo.yaml")).expect("the demo's file");
    let (_, hub) = demo.split_once("\nhub:\n").expect("a hub in it");
    let hub = hub.replace("auth: app", "auth: none").replace(", name: \"{user.name}\"", "");
    format!("hub:\n{}", hub.replace("join: [\"user:{user.id}\"]", "join: []"))
}

fn yaml(listen: &str, next: &Next, more: &str) -> String {
    format!("{listen}sites:\n  localhost:\n    next: {}\n{ROUTES}{more}{}", next.url(), hub())
}

/// The app behind the edge.
struct App {
    edge: Edge,
    next: Arc<Next>,
    url: String,
    /// The authority's certificate, as a file.
    ca: String,
}

impl App {
    fn plain() -> Self {
        let next = Next::shared();
        let edge = Edge::start(&yaml(PLAIN, &next, ""));
        let url = format!("http://localhost:{}", edge.http().port());
        Self { edge, next, url, ca: String::new() }
    }

    fn secure() -> Self {
        Self::over_tls(&|_| hub())
    }

    /// As `make demo` has it, with users who log in.
    fn demo() -> Self {
        Self::over_tls(&demo)
    }

    fn over_tls(hub: &dyn Fn(&Next) -> String) -> Self {
        let (folder, authority) = (Folder::new(), Authority::new());
        authority.issue(&folder, "localhost", &["localhost"]);
        let ca = folder.write("ca.crt", &authority.pem).display().to_string();
        let next = Next::shared();
        let site = format!("{SECURE}sites:\n  localhost:\n    next: {}\n{ROUTES}", next.url());
        let edge = Edge::start_in(folder, &format!("{site}{}", hub(&next)));
        let url = format!("https://localhost:{}", edge.https().port());
        Self { edge, next, url, ca }
    }

    fn script(&self, name: &str, more: &[(&str, &str)]) -> Script {
        let mut environment = vec![("URL", self.url.as_str()), ("CA", self.ca.as_str())];
        environment.extend(more);
        Script::start(name, &environment)
    }

    /// One request by curl, over HTTP/2 if there is TLS; returns what it printed.
    fn curl(&self, path: &str, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "--max-time", "60"]);
        if !self.ca.is_empty() {
            command.args(["--cacert", &self.ca]);
        }
        command.args(arguments).arg(format!("{}{path}", self.url));
        let output = command.output().expect("curl runs");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{path}: {errors}");
        output.stdout
    }

    /// The metrics of `family`, with their values.
    fn metrics(&self, family: &str) -> BTreeMap<String, f64> {
        let page = self.edge.admin("GET", "/metrics").text();
        let lines = page.lines().filter(|line| line.starts_with(family));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        pairs.map(|(name, value)| (name.to_owned(), value.parse().expect("a value"))).collect()
    }
}

#[test]
fn two_windows_of_a_browser_chat_over_tls_and_http2() {
    let app = App::demo();
    let said = app.script("browser.mjs", &[]).finish();
    let stream = said.lines().find(|line| line.contains("\"event\":\"stream\""));
    assert!(stream.is_some(), "{said}");
    app.edge.access_line(|line| line["path"] == "/chat" && line["protocol"] == "HTTP/2");
    app.edge.access_line(|line| line["path"] == "/action" && line["method"] == "POST");
}

#[test]
fn the_stock_client_over_plain_http() {
    stock_client(&App::plain());
}

#[test]
fn the_stock_client_over_tls() {
    stock_client(&App::secure());
}

const TRANSPORTS: [&str; 3] = ["websocket", "polling", "polling,websocket"];

fn stock_client(app: &App) {
    for transports in TRANSPORTS {
        app.script("socketio.mjs", &[("TRANSPORTS", transports)]).finish();
    }
    for family in ["vestibule_hub_sessions", "vestibule_hub_sockets"] {
        let left = || app.metrics(family).into_iter().filter(|(_, count)| *count != 0.0).count();
        eventually(&format!("no {family} left"), || (left() == 0).then_some(()));
    }
}

/// The programs must not ask of the edge what the original would not do.
#[test]
fn the_stock_server_satisfies_the_same_programs() {
    let mut reference = Script::start("reference.mjs", &[]);
    let ready: Value = serde_json::from_str(&reference.wait_for("ready")).expect("JSON");
    let url = format!("http://localhost:{}", ready["port"]);
    for transports in TRANSPORTS {
        Script::start("socketio.mjs", &[("URL", &url), ("TRANSPORTS", transports)]).finish();
    }
    let crowd = [("URL", url.as_str()), ("CLIENTS", "4"), ("SECONDS", "1")];
    summary(&Script::start("hold.mjs", &crowd).finish()).expect_whole(4);
    reference.finish();
}

#[test]
fn a_page_streams_as_it_is_rendered() {
    let app = App::plain();
    let mut client = app.edge.connect();
    client.send("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().status, 200);
    let mut page = Vec::new();
    let mut until = |word: &str| {
        while !String::from_utf8_lossy(&page).contains(word) {
            let chunk = client.chunk().unwrap_or_else(|| panic!("the page ended before {word}"));
            page.extend(chunk);
        }
        Instant::now()
    };
    let (shell, last) = (until("This shell comes at once"), until("Here after <!-- -->2000"));
    // The app renders it two seconds later than the shell.
    assert!(last - shell > Duration::from_millis(1000), "{:?}", last - shell);
    while client.chunk().is_some() {}
}

#[test]
fn each_server_sent_event_arrives_before_the_next_is_sent() {
    let app = App::plain();
    let mut client = app.edge.connect();
    client.send("GET /api/events?count=4&every=1500 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = client.head();
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let now =
        || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_millis();
    let (mut text, mut seen) = (String::new(), Vec::new());
    while let Some(chunk) = client.chunk() {
        text.push_str(&String::from_utf8_lossy(&chunk));
        let came = now();
        while let Some((event, rest)) = text.split_once("\n\n") {
            let data = event.lines().find_map(|line| line.strip_prefix("data: "));
            let data: Value = serde_json::from_str(data.expect("data")).expect("JSON");
            seen.push((data["at"].as_u64().expect("a time"), came));
            text = rest.to_owned();
        }
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    for pair in seen.windows(2) {
        assert!(pair[0].1 < u128::from(pair[1].0), "held back: {seen:?}");
    }
}

#[test]
fn a_static_page_is_made_anew() {
    let app = App::plain();
    let rendered = |answer: Answer| {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.header("cache-control").is_some_and(|words| words.contains("s-maxage=5")));
        let text = answer.text();
        let (_, rest) = text.split_once("data-testid=\"rendered\">").expect("the time");
        rest.split('<').next().expect("its end").to_owned()
    };
    let mut client = app.edge.connect();
    let first = rendered(client.get("/isr"));
    eventually("a newer page", || {
        // Often enough for a page that changes every five seconds.
        std::thread::sleep(Duration::from_millis(200));
        (rendered(client.get("/isr")) > first).then_some(())
    });
}

#[test]
fn files_keep_their_caching() {
    let app = App::plain();
    let mut client = app.edge.connect();
    let page = client.get("/").text();
    let (_, script) = page.split_once("src=\"/_next/static/").expect("a script of the page");
    let script = format!("/_next/static/{}", script.split('"').next().expect("its end"));
    let answer = client.get(&script);
    assert_eq!(answer.status, 200, "{script}");
    let caching = answer.header("cache-control").unwrap_or_default();
    assert!(caching.contains("immutable"), "{caching}");
    let picture = client.get("/doorway.png");
    assert_eq!(picture.header("content-type"), Some("image/png"));
    let on_disk = fs::read(project("examples/next-chat/public/doorway.png")).expect("the picture");
    assert!(picture.body == on_disk, "the picture was changed");
    let tag = picture.header("etag").expect("a tag").to_owned();
    let again = client.ask("GET", "/doorway.png", &[("If-None-Match", &tag)], b"");
    assert_eq!((again.status, again.body.len()), (304, 0));
    let part = client.ask("GET", "/doorway.png", &[("Range", "bytes=0-7")], b"");
    assert_eq!((part.status, part.body.as_slice()), (206, &on_disk[..8]));
}

#[test]
fn a_large_upload_passes_through_without_being_kept() {
    let app = App::secure();
    let body = vec![b'v'; 64 * 1024];
    let mut hash = digest::Context::new(&digest::SHA256);
    let file = app.edge.folder.path("upload");
    let mut writer = fs::File::create(&file).expect("a file");
    for _ in 0..UPLOAD / body.len() {
        hash.update(&body);
        std::io::Write::write_all(&mut writer, &body).expect("written");
    }
    let hash: String = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let file = format!("@{}", file.display());
    // What the first connection, the handshake and the pool cost is not the body's.
    app.curl("/api/upload", &["--data-binary", "warm", "--output", "/dev/null"]);
    for protocol in ["--http1.1", "--http2"] {
        let before = app.edge.resident_peak_kb();
        let kind = "content-type: application/octet-stream";
        let answer = app.curl("/api/upload", &[protocol, "--header", kind, "--data-binary", &file]);
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(answer["bytes"], UPLOAD, "{protocol}");
        assert_eq!(answer["sha256"], hash, "{protocol}");
        // The kernel adds it up from counters of each thread, so it may even shrink a little.
        let grown = app.edge.resident_peak_kb().saturating_sub(before);
        assert!(grown < UPLOAD_KB, "{protocol}: {grown} KiB more at the peak");
    }
    for protocol in ["HTTP/1.1", "HTTP/2"] {
        let line = app.edge.access_line(|line| line["protocol"] == protocol);
        assert_eq!(
            (&line["path"], &line["status"]),
            (&"/api/upload".into(), &200.into()),
            "{line}"
        );
    }
}

#[test]
fn a_body_above_the_limit_never_reaches_the_app() {
    let app = App::plain();
    let mut client = app.edge.connect();
    let head = "POST /api/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104857600\r\n\r\n";
    client.send(head);
    assert_eq!(client.head().status, 413);
}

#[test]
fn a_picture_passes_through_the_image_optimizer() {
    let app = App::secure();
    let path = "/_next/image?url=%2Fdoorway.png&w=640&q=75";
    let picture = app.curl(path, &["--header", "accept: image/webp,*/*"]);
    assert_eq!((&picture[..4], &picture[8..12]), (&b"RIFF"[..], &b"WEBP"[..]));
    let heads = app.curl(path, &["--head", "--header", "accept: image/webp,*/*"]);
    let heads = String::from_utf8_lossy(&heads).to_lowercase();
    assert!(heads.contains("content-type: image/webp"), "{heads}");
    assert!(heads.contains("vary: accept"), "{heads}");
}

#[test]
fn a_redirect_leads_to_the_public_name() {
    for app in [App::plain(), App::secure()] {
        let arguments = ["--output", "/dev/null", "--write-out", "%{http_code} %{redirect_url}"];
        for path in ["/api/redirect", "/chat/"] {
            let said = app.curl(path, &arguments);
            let said = String::from_utf8_lossy(&said).into_owned();
            let (status, location) = said.split_once(' ').expect("both");
            assert!(["307", "308"].contains(&status), "{path}: {said}");
            assert_eq!(location, format!("{}/chat", app.url), "{path}");
        }
    }
}

#[test]
fn the_app_sees_who_asks_and_by_which_name() {
    let app = App::secure();
    let forged =
        ["--header", "x-forwarded-for: 203.0.113.9", "--header", "x-forwarded-host: evil.example"];
    let seen: Value = serde_json::from_slice(&app.curl("/api/echo", &forged)).expect("JSON");
    let port = app.edge.https().port().to_string();
    let headers = &seen["headers"];
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1", "{seen}");
    assert_eq!(headers["x-forwarded-proto"], "https", "{seen}");
    assert_eq!(headers["x-forwarded-host"], format!("localhost:{port}"), "{seen}");
    assert_eq!(headers["x-forwarded-port"], port.as_str(), "{seen}");
}

#[test]
fn hot_reload_reaches_the_page_under_next_dev() {
    // A copy, since a file of it is edited; its modules are links, since nobody edits those.
    let copy = Folder::new();
    let root = copy.path("");
    for (how, names) in [
        ("-r", &["app", "lib", "public", "next.config.ts", "package.json", "tsconfig.json"][..]),
        ("-al", &["node_modules"][..]),
    ] {
        let from = names.iter().map(|name| project("examples/next-chat").join(name));
        let copied = Command::new("cp").arg(how).args(from).arg(&root).status();
        assert!(copied.expect("cp runs").success(), "no copy of {names:?}: run `make app`");
    }
    let next = Next::start(&root, "dev");
    let site = format!("sites:\n  localhost:\n    next: {}\n    dev: true\n", next.url());
    let edge = Edge::start(&format!("{PLAIN}{site}{}", hub()));
    let url = format!("http://localhost:{}", edge.http().port());
    let file = copy.path("app/page.tsx").display().to_string();
    Script::start("hmr.mjs", &[("URL", &url), ("FILE", &file)]).finish();
    let told = doctor(&edge, "/stream");
    assert!(told.contains("hot reload comes through the edge"), "{told}");
}

fn doctor(edge: &Edge, page: &str) -> String {
    let output = vestibule(&["doctor", "--stream", page], &edge.folder);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn the_doctor_sees_how_next_js_does() {
    let app = App::secure();
    let told = doctor(&app.edge, "/stream");
    let origin = app.url.as_str();
    for word in [
        "keeps idle connections for 5s",
        "takes a head of 16384 bytes",
        "write next.head: 64KiB",
        "would compress; the edge asks it not to",
        "/stream streams through the edge: ",
        "/stream streams through the edge, compressed: ",
        "takes Server Actions from pages of localhost",
        &format!("Server Actions from {origin} come to it with Origin and Host alike"),
    ] {
        assert!(told.contains(word), "no {word} in\n{told}");
    }
    assert!(!told.contains("development server"), "{told}");
}

/// What a crowd says at its end.
struct Summary(BTreeMap<String, Value>);

fn summary(said: &str) -> Summary {
    let line = said.lines().find(|line| line.contains("\"event\":\"summary\""));
    let line = line.unwrap_or_else(|| panic!("no summary:\n{said}"));
    Summary(serde_json::from_str(line).expect("JSON"))
}

impl Summary {
    fn count(&self, name: &str) -> u64 {
        let count = self.0.get(name).and_then(Value::as_u64);
        count.unwrap_or_else(|| panic!("no {name} in {:?}", self.0))
    }

    /// Nobody was disconnected, nothing was lost, doubled or refused.
    fn expect_whole(&self, clients: usize) {
        for none in ["refused", "unanswered", "gaps", "duplicates", "disconnects", "connect_errors"]
        {
            assert_eq!(self.count(none), 0, "{none}: {:?}", self.0);
        }
        assert_eq!(self.count("connects"), clients as u64, "{:?}", self.0);
        assert_eq!(self.count("acked"), self.count("sent"), "{:?}", self.0);
        assert_eq!(
            self.count("received"),
            self.count("sent") * (clients as u64 - 1),
            "{:?}",
            self.0
        );
        assert!(self.count("sent") > 0, "{:?}", self.0);
    }
}

/// A crowd on WebSockets, another that polls, and requests of every kind, until it is told to stop.
struct Load {
    crowds: Vec<Script>,
    requests: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    fn on(app: &App) -> Self {
        let clients = CROWD.to_string();
        let crowds = ["websocket", "polling"].map(|transports| {
            // Two crowds in one room would count each other's messages.
            app.script(
                "hold.mjs",
                &[
                    ("TRANSPORTS", transports),
                    ("CLIENTS", &clients),
                    ("EVERY_MS", "100"),
                    ("ROOM", transports),
                ],
            )
        });
        let (stop, answered) = (Arc::default(), Arc::default());
        let requests =
            (0..3).map(|kind| request_on(app.edge.http(), kind, &stop, &answered)).collect();
        let mut load = Self { crowds: crowds.into(), requests, stop, answered };
        for crowd in &mut load.crowds {
            crowd.wait_for("\"ready\"");
        }
        load
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until requests were answered that were sent after this call.
    fn goes_on(&self) {
        // Each of the threads may have had one on the way.
        let enough = self.answered() + self.requests.len() + 1;
        eventually("answers", || (self.answered() >= enough).then_some(()));
    }

    fn expect_whole(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.requests {
            thread.join().expect("no request failed");
        }
        for mut crowd in self.crowds {
            crowd.tell("stop");
            summary(&crowd.finish()).expect_whole(CROWD);
        }
    }
}

/// Kind 0: on one connection; 1: each on its own; 2: server-sent events, read to their end.
fn request_on(
    address: SocketAddr,
    kind: usize,
    stop: &Arc<AtomicBool>,
    answered: &Arc<AtomicUsize>,
) -> JoinHandle<()> {
    let (stop, answered) = (Arc::clone(stop), Arc::clone(answered));
    std::thread::spawn(move || {
        let mut kept = Client::connect(address);
        while !stop.load(Ordering::Relaxed) {
            let answer = match kind {
                0 => kept.get("/api/health"),
                1 => Client::connect(address).get("/isr"),
                _ => kept.get("/api/events?count=20&every=10"),
            };
            assert_eq!(answer.status, 200, "{}", answer.text());
            match kind {
                0 => assert_eq!(answer.text(), "ok"),
                1 => assert!(answer.text().ends_with("</html>"), "{}", answer.text()),
                _ => assert_eq!(answer.text().matches("data: ").count(), 20, "{}", answer.text()),
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
    })
}

#[test]
fn a_hundred_reloads_disturb_nobody() {
    let mut app = App::plain();
    let load = Load::on(&app);
    for generation in 2..102 {
        // Each file differs from the one before it.
        let more = format!("limits: {{ headers: {}KiB }}\n", 64 + generation % 2);
        let (listen, next) = (format!("{PLAIN}{more}"), Arc::clone(&app.next));
        let status = app.edge.reload_with(&yaml(&listen, &next, ""));
        assert!(status.contains(&format!("generation {generation}")), "{status}");
        load.goes_on();
    }
    load.expect_whole();
}

#[test]
fn a_broken_file_under_load_changes_nothing() {
    let mut app = App::plain();
    let load = Load::on(&app);
    let good = yaml(PLAIN, &app.next, "");
    let broken = [
        "sites: [\n".to_owned(),
        good.replace("relay", "rleay"),
        good.replace("/chat:", "chat:"),
        format!("{good}tls: {{ certs: nowhere, min: \"1.1\" }}\n"),
        String::new(),
    ];
    for file in &broken {
        let status = app.edge.reload_with(file);
        assert!(status.contains("not reloaded, generation 1 stays"), "{status}\n{file}");
        load.goes_on();
    }
    let _removed = fs::remove_file(app.edge.folder.path("proxy.yaml"));
    let status = app.edge.reload();
    assert!(status.contains("not reloaded, generation 1 stays"), "{status}");
    let status = app.edge.reload_with(&good);
    assert!(status.contains("generation 2"), "{status}");
    load.goes_on();
    load.expect_whole();
}

#[test]
fn a_stop_closes_transports_and_clients_come_back_to_the_next_process() {
    const GRACE: Duration = Duration::from_secs(6);
    // The next process must be found where the first one was.
    let free = free_address();
    let next = Next::shared();
    let listen = format!(
        "{}shutdown: {{ grace: {}s }}\n",
        PLAIN.replace("127.0.0.1:0", &free.to_string()),
        GRACE.as_secs()
    );
    let file = yaml(&listen, &next, "");
    let mut edge = Edge::start(&file);
    let url = format!("http://localhost:{}", free.port());
    let clients = CROWD.to_string();
    let mut crowds = TRANSPORTS.map(|transports| {
        let more = [
            ("URL", url.as_str()),
            ("TRANSPORTS", transports),
            ("CLIENTS", &clients),
            ("EVERY_MS", "100"),
            ("ROOM", transports),
        ];
        Script::start("hold.mjs", &more)
    });
    for crowd in &mut crowds {
        crowd.wait_for("\"ready\"");
    }
    let mut streaming = edge.connect();
    streaming.send("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(streaming.head().status, 200);
    let begun = Instant::now();
    edge.signal("TERM");
    for (crowd, transports) in crowds.iter_mut().zip(TRANSPORTS) {
        for _ in 0..CROWD {
            let line: Value =
                serde_json::from_str(&crowd.wait_for("\"disconnect\"")).expect("JSON");
            // After "io server disconnect" the client would stay away. One that polls may find
            // nobody to ask before it hears that its transport was closed.
            let reason = line["reason"].as_str().unwrap_or_default();
            let polls = transports != "websocket" && reason == "transport error";
            assert!(polls || reason == "transport close", "{transports}: {line}");
        }
    }
    let mut page = Vec::new();
    while let Some(chunk) = streaming.chunk() {
        page.extend(chunk);
    }
    assert!(String::from_utf8_lossy(&page).ends_with("</html>"), "the page was cut");
    assert_eq!(edge.ended().code(), Some(0));
    let took = begun.elapsed();
    assert!(took < GRACE + Duration::from_secs(5), "{took:?}");
    let second = Edge::start(&file);
    for mut crowd in crowds {
        for _ in 0..CROWD {
            crowd.wait_for("\"returned\"");
        }
        crowd.tell("stop");
        let summary = summary(&crowd.finish());
        let back = [summary.count("disconnects"), summary.count("reconnects")];
        assert_eq!(back, [CROWD as u64; 2], "{:?}", summary.0);
        assert_eq!(
            (summary.count("refused"), summary.count("duplicates")),
            (0, 0),
            "{:?}",
            summary.0
        );
    }
    drop(second);
}
