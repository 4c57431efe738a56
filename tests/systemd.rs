//! The units, socket activation, the notify protocol.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Client, Edge, Folder, Origin, PLAIN, project};

fn analyze(arguments: &[&str]) -> String {
    let output = Command::new("systemd-analyze").args(arguments).output().expect("systemd-analyze");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_units_are_right() {
    // The binary stands where the unit looks for it only when it is installed.
    let folder = Folder::new();
    for unit in ["vestibule.service", "vestibule.socket"] {
        let text = std::fs::read_to_string(project("systemd").join(unit)).expect("a unit");
        folder.write(
            unit,
            &text.replace("/usr/local/bin/vestibule", env!("CARGO_BIN_EXE_vestibule")),
        );
    }
    let (service, socket) = (folder.path("vestibule.service"), folder.path("vestibule.socket"));
    let said = analyze(&["verify", &service.display().to_string(), &socket.display().to_string()]);
    let about_us: Vec<_> = said.lines().filter(|line| line.contains("vestibule")).collect();
    assert!(about_us.is_empty(), "{about_us:?}");
}

#[test]
fn the_service_is_exposed_to_little() {
    let unit = project("systemd/vestibule.service").display().to_string();
    let said = analyze(&["security", "--offline=yes", "--no-pager", &unit]);
    let (_, level) = said.split_once("Overall exposure level for").expect("a verdict");
    let level = level.split(": ").nth(1).and_then(|rest| rest.split(' ').next());
    let level: f64 = level.and_then(|level| level.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    assert!(level <= 1.6, "{level}");
}

#[test]
fn sockets_are_taken_from_systemd() {
    let origin = Origin::text("activated");
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let folder = Folder::new();
    let listen = PLAIN.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    folder.write(
        "proxy.yaml",
        &format!("{listen}sites:\n  localhost:\n    next: {}\n", origin.url()),
    );
    let mut command = Command::new("systemd-socket-activate");
    command
        .args(["-l", &format!("127.0.0.1:{port}")])
        .args(["-E", &format!("NOTIFY_SOCKET={}", folder.path("notify.sock").display())])
        .arg(env!("CARGO_BIN_EXE_vestibule"))
        .args(["run", "-c"])
        .arg(folder.path("proxy.yaml"))
        .current_dir(folder.path(""));
    // It starts the process when the first connection comes, which waits meanwhile.
    let early = std::thread::spawn(move || {
        let stream = crate::harness::eventually("the socket", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Client::over(Box::new(stream)).get("/").text()
    });
    let edge = Edge::spawn(folder, command);
    assert_eq!(early.join().expect("an answer"), "activated");
    for _ in 0..20 {
        assert_eq!(edge.get("/").text(), "activated");
    }
}

#[test]
fn the_watchdog_is_told() {
    let folder = Folder::new();
    folder.write(
        "proxy.yaml",
        &format!("{PLAIN}sites:\n  localhost:\n    next: http://127.0.0.1:9\n"),
    );
    let mut command = Edge::command(&folder);
    command.env("WATCHDOG_USEC", "400000");
    let mut edge = Edge::spawn(folder, command);
    for _ in 0..3 {
        edge.wait_for_notify("WATCHDOG=1");
    }
}

#[test]
fn it_starts_in_a_moment_and_rests_in_little_memory() {
    let origin = Origin::text("ok");
    let edge = Edge::start(&format!("{PLAIN}sites:\n  localhost:\n    next: {}\n", origin.url()));
    // Twice and more of what it takes, on a machine that does other things too.
    assert!(edge.started_in < Duration::from_millis(1000), "{:?}", edge.started_in);
    assert!(edge.resident_kb() < 40 * 1024, "{} KiB", edge.resident_kb());
}
