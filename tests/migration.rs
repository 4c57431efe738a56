//! The guides in `docs/`, run as they stand: the servers of before, and the configuration of after.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use crate::harness::node::{Next, Script, free_port};
use crate::harness::redis::Redis;
use crate::harness::{Edge, Folder, PLAIN, eventually, project};

const CUSTOM_SERVER: &str = "docs/from-custom-server.md";
const SOCKET_SERVER: &str = "docs/from-socket-server.md";
/// What the example app checks signatures with.
const SECRET: &str = "insecure demo secret";

/// The blocks of this language, in order.
fn blocks(guide: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(project(guide)).expect("the guide");
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1).map(|rest| rest.split("```").next().expect("its end"));
    let blocks: Vec<_> = blocks.map(str::to_owned).collect();
    assert!(!blocks.is_empty(), "{guide}: no block of {language}");
    blocks
}

/// A server of Node from a guide; ended when dropped.
struct Before {
    child: Child,
    url: String,
    _folder: Folder,
}

impl Before {
    fn start(guide: &str, environment: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        let [code] = &blocks(guide, "js")[..] else { panic!("{guide}: more than one server") };
        let file = folder.write("server.cjs", code);
        let port = free_port();
        let modules = ["examples/next-chat/node_modules", "tests/node/node_modules"];
        let modules = modules.map(|place| project(place).display().to_string()).join(":");
        let child = Command::new("node")
            .arg(file)
            .current_dir(project("examples/next-chat"))
            .env("NODE_PATH", modules)
            .env("NODE_ENV", "production")
            .env("NEXT_TELEMETRY_DISABLED", "1")
            .env("PORT", port.to_string())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("node runs");
        let before = Self { child, url: format!("http://127.0.0.1:{port}"), _folder: folder };
        eventually("the server of before", || TcpStream::connect(("127.0.0.1", port)).ok());
        before
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A guide's configuration, on ports of the test's own.
fn after(guide: &str, next: &str, environment: &[(&str, &str)]) -> Edge {
    let yaml = blocks(guide, "yaml").swap_remove(0);
    let yaml = yaml.replace("app.example.com", "localhost").replace("http://127.0.0.1:3000", next);
    let folder = Folder::new();
    folder.write("proxy.yaml", &format!("{PLAIN}{yaml}"));
    let mut command = Edge::command(&folder);
    command.envs(environment.iter().copied());
    Edge::spawn(folder, command)
}

fn url(edge: &Edge) -> String {
    format!("http://localhost:{}", edge.http().port())
}

#[test]
fn every_configuration_is_right() {
    for guide in [CUSTOM_SERVER, SOCKET_SERVER] {
        for yaml in blocks(guide, "yaml") {
            let folder = Folder::new();
            folder.write("proxy.yaml", &yaml);
            let output = Command::new(env!("CARGO_BIN_EXE_vestibule"))
                .args(["check", "-c"])
                .arg(folder.path("proxy.yaml"))
                .env("HOOK_SECRET", SECRET)
                .env("REDIS_URL", "redis://127.0.0.1:6379")
                .output()
                .expect("the binary runs");
            assert!(output.status.success(), "{guide}: {output:?}\n{yaml}");
        }
    }
}

#[test]
fn from_a_custom_server() {
    let client = |url: &str| {
        Script::start("migration.mjs", &[("URL", url), ("PIN", "1"), ("PAGE", "1")]).finish();
    };
    let before = Before::start(CUSTOM_SERVER, &[]);
    client(&before.url);
    drop(before);
    let next = Next::shared();
    let edge = after(CUSTOM_SERVER, &next.url(), &[("HOOK_SECRET", SECRET)]);
    client(&url(&edge));
}

#[test]
fn from_a_socket_server() {
    let server = Redis::start();
    let redis = format!("redis://127.0.0.1:{}", server.port);
    let before = Before::start(SOCKET_SERVER, &[("REDIS_URL", &redis)]);
    Script::start("migration.mjs", &[("URL", &before.url)]).finish();
    // One machine has moved, the other has not: one audience.
    let edge = after(SOCKET_SERVER, "http://127.0.0.1:3000", &[("REDIS_URL", &redis)]);
    let both = [(&before.url, url(&edge)), (&url(&edge), before.url.clone())];
    for (from, to) in both {
        Script::start("migration.mjs", &[("URL", from), ("OTHER", &to)]).finish();
    }
    drop(before);
    Script::start("migration.mjs", &[("URL", &url(&edge))]).finish();
}
