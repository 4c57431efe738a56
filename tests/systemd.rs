//! The units, socket activation, the notify protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use crate::harness::node::free_port;
use crate::harness::socketio::{Line as _, Web};
use crate::harness::{Authority, Client, Edge, Folder, Origin, PLAIN, SECURE, eventually, project};

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
    let port = free_port();
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
        let stream =
            eventually("the socket", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Client::over(Box::new(stream)).get("/").text()
    });
    let mut edge = Edge::spawn(folder, command);
    assert_eq!(early.join().expect("an answer"), "activated");
    for _ in 0..20 {
        assert_eq!(edge.get("/").text(), "activated");
    }
    // And go on to the next process.
    edge.upgrade();
    edge.ended();
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
    let yaml = format!("{PLAIN}sites:\n  localhost:\n    next: {}\n", origin.url());
    // A machine that does other things too is idle for one of them.
    let took: Vec<_> = (0..60)
        .map(|_| Edge::start(&yaml).started_in)
        .scan(false, |over, took| {
            let goes_on = !*over;
            *over = took < Duration::from_millis(100);
            goes_on.then_some(took)
        })
        .collect();
    assert!(took.last() < Some(&Duration::from_millis(100)), "{took:?}");
    let edge = Edge::start(&yaml);
    assert!(edge.resident_kb() < 40 * 1024, "{} KiB", edge.resident_kb());
}

#[test]
fn a_package_has_what_an_installation_needs() {
    let folder = Folder::new();
    let output = Command::new(project("debian/build.sh"))
        .arg(env!("CARGO_BIN_EXE_vestibule"))
        .arg(folder.path("out"))
        .env("DPKG_DEB_COMPRESSOR_TYPE", "none")
        .output()
        .expect("the script runs");
    assert!(output.status.success(), "{output:?}");
    let package = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let dpkg = |arguments: &[&str]| {
        let output = Command::new("dpkg-deb").args(arguments).output().expect("dpkg-deb");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(dpkg(&["-f", &package, "Version"]).trim(), env!("CARGO_PKG_VERSION"));
    let files = dpkg(&["-c", &package]);
    for file in [
        "./usr/bin/vestibule",
        "./usr/lib/systemd/system/vestibule.service",
        "./usr/lib/systemd/system/vestibule.socket",
        "./usr/lib/sysusers.d/vestibule.conf",
        "./usr/share/bash-completion/completions/vestibule",
        "./usr/share/man/man1/vestibule.1.gz",
        "./usr/share/doc/vestibule/proxy.yaml",
    ] {
        assert!(files.lines().any(|line| line.ends_with(file)), "{file}:\n{files}");
    }
    let root = folder.path("root");
    dpkg(&["-x", &package, &root.display().to_string()]);
    let unit = root.join("usr/lib/systemd/system/vestibule.service");
    let unit = std::fs::read_to_string(unit).expect("the unit");
    assert!(unit.contains("ExecStart=/usr/bin/vestibule run "), "{unit}");
    let help = Command::new(root.join("usr/bin/vestibule")).arg("--version").output();
    assert!(help.expect("the binary runs").status.success());
    for script in ["postinst", "prerm", "postrm"] {
        let checked = Command::new("sh").arg("-n").arg(project("debian").join(script)).status();
        assert!(checked.expect("a shell").success(), "{script}");
    }
}

#[test]
fn lines_of_the_journal_begin_with_their_level() {
    use std::os::unix::fs::MetadataExt as _;
    for (format, line) in [("human", "<6>generation 1: "), ("json", "<6>{\"level\":\"INFO\"")] {
        let folder = Folder::new();
        folder.write("proxy.yaml", &format!("{PLAIN}log: {{ format: {format} }}\nhub: {{ namespaces: {{ /: {{ auth: none, events: deny }} }} }}\n"));
        let log = std::fs::metadata(folder.write("log", "")).expect("a file");
        let mut command = Edge::command(&folder);
        command.env("JOURNAL_STREAM", format!("{}:{}", log.dev(), log.ino()));
        let edge = Edge::spawn(folder, command);
        // It is ready before it says so.
        let said = eventually("a line", || Some(edge.log()).filter(|said| said.contains(line)));
        assert!(said.lines().all(|line| line.starts_with('<')), "{said}");
        // Another's journal is not ours.
        let folder = Folder::new();
        folder.write(
            "proxy.yaml",
            &std::fs::read_to_string(edge.folder.path("proxy.yaml")).expect("it"),
        );
        let mut command = Edge::command(&folder);
        command.env("JOURNAL_STREAM", "1:1");
        let edge = Edge::spawn(folder, command);
        let said =
            eventually("a line", || Some(edge.log()).filter(|said| said.contains("generation")));
        assert!(!said.contains('<'), "{said}");
    }
}

/// What the unit's filter lets through.
fn permitted() -> BTreeSet<String> {
    let said = analyze(&["syscall-filter", "--no-pager"]);
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut group = "";
    for line in said.lines() {
        if line.starts_with('@') {
            group = line.trim();
        } else if !line.trim().is_empty() && !line.trim().starts_with('#') {
            groups.entry(group).or_default().push(line.trim());
        }
    }
    let expand = |name: &str| {
        let (mut open, mut calls) = (vec![name.to_owned()], BTreeSet::new());
        while let Some(name) = open.pop() {
            match groups.get(name.as_str()) {
                Some(members) => open.extend(members.iter().map(|&one| one.to_owned())),
                None => drop(calls.insert(name)),
            }
        }
        calls
    };
    let unit = std::fs::read_to_string(project("systemd/vestibule.service")).expect("the unit");
    let mut calls = BTreeSet::new();
    for words in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        for name in words.trim_start_matches('~').split(' ') {
            let found = expand(name);
            assert!(found.len() > 5, "{name} has no calls: {found:?}");
            match words.starts_with('~') {
                true => calls.retain(|call| !found.contains(call)),
                false => calls.extend(found),
            }
        }
    }
    calls
}

/// The unit's sandbox is systemd's to set up, which no test may start here. But without any capability
/// it is started, and of everything that it does the kernel tells whether the unit would let it.
#[test]
fn it_does_nothing_that_its_unit_forbids() {
    use std::os::unix::fs::MetadataExt as _;
    let (folder, authority, origin) = (Folder::new(), Authority::new(), Origin::text("ok"));
    authority.issue(&folder, "a", &["a.example"]);
    let namespace = "hub: { recovery: 10s, namespaces: { /: { auth: none, events: { a: { relay: '*', echo: true } } } } }\n";
    let sites =
        format!("sites:\n  localhost:\n    next: {0}\n  a.example:\n    next: {0}\n", origin.url());
    folder.write("proxy.yaml", &format!("{SECURE}state: state\n{namespace}{sites}"));
    let trace = folder.path("trace");
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", "--inh-caps=-all"]);
    // Nobody else has any to lose.
    if std::fs::metadata("/proc/self").expect("this process").uid() == 0 {
        command.arg("--bounding-set=-all");
    }
    command
        .args(["strace", "-D", "-f", "-q", "-s", "4096", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_vestibule"))
        .args(["run", "-c"])
        .arg(folder.path("proxy.yaml"))
        .current_dir(folder.path(""));
    let mut edge = Edge::spawn(folder, command);
    let mut web = Web::open(&edge);
    crate::hub_recovery::enter(&mut web, "/");
    web.say("42[\"a\"]");
    assert!(web.text().starts_with("42[\"a\""));
    drop(web);
    let secure = crate::tls::connect(&edge, authority.client(&[b"http/1.1"]), "a.example");
    let mut secure = Client::over(Box::new(secure.expect("a handshake")));
    assert_eq!(secure.ask("GET", "/", &[("Host", "a.example")], b"").text(), "ok");
    drop(secure);
    edge.reload();
    let next = edge.upgrade();
    assert_eq!(edge.get("/").text(), "ok");
    edge.signal("TERM");
    assert_eq!(edge.ended().code(), Some(0));
    let told = eventually("the end of both", || {
        let told = std::fs::read_to_string(&trace).unwrap_or_default();
        let is_end = |line: &str| {
            line.starts_with(&next.to_string()) && line.ends_with("+++ exited with 0 +++")
        };
        told.lines().any(is_end).then_some(told)
    });
    let (permitted, own) = (permitted(), edge.folder.path("").display().to_string());
    let mut calls = 0;
    for line in told.lines() {
        let Some((_, what)) = line.split_once(' ') else { continue };
        let what = what.trim_start();
        if !what.starts_with(|first: char| first.is_ascii_lowercase()) {
            // A signal, an end, or the rest of a call.
            continue;
        }
        let Some((call, arguments)) = what.split_once('(') else { continue };
        calls += 1;
        assert!(permitted.contains(call), "not in SystemCallFilter: {line}");
        let failed = line.contains(" = -1 ");
        match call {
            "socket" => {
                let families = ["AF_INET,", "AF_INET6,", "AF_UNIX,"];
                let is_known = families.iter().any(|family| arguments.starts_with(family));
                assert!(is_known, "not in RestrictAddressFamilies: {line}");
            }
            "mmap" | "mprotect" => {
                let both = arguments.contains("PROT_WRITE") && arguments.contains("PROT_EXEC");
                assert!(!both, "MemoryDenyWriteExecute: {line}");
            }
            "clone" | "clone3" | "unshare" | "setns" => {
                assert!(!arguments.contains("CLONE_NEW"), "RestrictNamespaces: {line}");
            }
            "open" | "openat" if !failed => {
                let writes =
                    ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|flag| arguments.contains(flag));
                let path = arguments.split('"').nth(1).unwrap_or_default();
                assert!(!writes || path.starts_with(&own) || path == "/dev/null", "{line}");
            }
            _ => (),
        }
    }
    assert!(calls > 1000, "{calls} calls were seen");
}
