//! The real Next.js app and the real npm clients.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Folder, eventually, project};

/// `next start` on the built example; one for all tests that run at the same time.
pub struct Next {
    pub address: SocketAddr,
    child: Child,
}

impl Next {
    pub fn shared() -> Arc<Self> {
        static RUNNING: Mutex<Weak<Next>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = running.upgrade() {
            return next;
        }
        let next = Arc::new(Self::start(&project("examples/next-chat"), "start"));
        *running = Arc::downgrade(&next);
        next
    }

    /// `next start` or `next dev` in `folder`; ready when it answers.
    pub fn start(folder: &Path, command: &str) -> Self {
        let built = folder.join(".next/BUILD_ID").exists();
        assert!(built || command == "dev", "the example app is not built: run `make app`");
        let port = free_port();
        let child = Command::new("node")
            .arg("node_modules/next/dist/bin/next")
            .args([command, "-H", "127.0.0.1", "-p", &port.to_string()])
            .current_dir(folder)
            .env("NEXT_TELEMETRY_DISABLED", "1")
            .env("PINS_FILE", Self::pins_at(port))
            .env("AUTH_DB", Self::users_at(port))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("node runs");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let next = Self { address, child };
        eventually("the app", || TcpStream::connect(address).ok());
        next
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The file in which it keeps its users and their sessions.
    pub fn users(&self) -> PathBuf {
        Self::users_at(self.address.port())
    }

    fn pins_at(port: u16) -> PathBuf {
        std::env::temp_dir().join(format!("vestibule-pins-{}-{port}", std::process::id()))
    }

    fn users_at(port: u16) -> PathBuf {
        let name = format!("vestibule-users-{}-{port}.db", std::process::id());
        std::env::temp_dir().join(name)
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        // `next dev` has children of its own, which end when it is asked to.
        let _told = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        let _ended = self.child.wait();
        let _gone = fs::remove_file(Self::pins_at(self.address.port()));
        for more in ["", "-wal", "-shm"] {
            let _gone = fs::remove_file(format!("{}{more}", self.users().display()));
        }
    }
}

/// A port that nobody has, given once.
///
/// It is below those that the kernel gives out: neither a listener nor the near end of a connection of
/// another test takes it before it is bound, or while its server is started anew. A server of a Redis
/// Cluster takes the port ten thousand above it as well.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_100;
    const COUNT: u32 = 9_000;
    const BUS: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Tests of another process begin elsewhere.
    let begin = std::process::id().wrapping_mul(97);
    eventually("a free port", || {
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + number % COUNT;
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        let [port, bus] = [port, port + BUS].map(|port| u16::try_from(port).expect("a port"));
        (is_free(port) && is_free(bus)).then_some(port)
    })
}

/// The same, of this machine.
pub fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// A script of tests/node at work.
pub struct Script {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: BufReader<std::process::ChildStdout>,
    folder: Folder,
}

impl Script {
    pub fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        let log = fs::File::create(folder.path("stderr")).expect("a file");
        let mut child = Command::new("node")
            .arg(project("tests/node").join(name))
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("node runs");
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { name: name.to_owned(), child, stdin, lines, folder }
    }

    /// Reads on until a line that contains `word`; returns that line.
    pub fn wait_for(&mut self, word: &str) -> String {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).expect("its output");
            if line.contains(word) {
                return line;
            }
            said.push_str(&line);
            assert!(read > 0, "{}: ended without {word}:\n{said}{}", self.name, self.errors());
        }
    }

    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill").success(), "no signal {name}");
    }

    pub fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        writeln!(stdin, "{line}").expect("told");
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.folder.path("stderr")).unwrap_or_default()
    }

    /// Waits for the end, which must be a success; returns what was left to read.
    pub fn finish(mut self) -> String {
        drop(self.stdin.take());
        let mut rest = String::new();
        let _read = std::io::Read::read_to_string(&mut self.lines, &mut rest);
        let status = self.child.wait().expect("its end");
        assert!(status.success(), "{}: {status}\n{rest}{}", self.name, self.errors());
        rest
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}
