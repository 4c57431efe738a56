//! A Redis of the test's own: started on a port of its own, stopped by its process id.

use std::fs::File;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::node::free_port;
use super::{Folder, eventually};

/// The running server. Killed when dropped; its log is shown when the test fails.
pub struct Redis {
    pub port: u16,
    pub folder: Folder,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With these arguments besides its own, as `--requirepass word`.
    pub fn with(arguments: &[&str]) -> Self {
        let mut redis = Self::stopped(arguments);
        redis.begin();
        redis
    }

    /// Not running yet; its port is known already.
    pub fn stopped(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self { port: free_port(), folder: Folder::new(), arguments, child: None }
    }

    /// Starts it, or starts it anew with what it has written.
    pub fn begin(&mut self) {
        let folder = self.folder.path("");
        let log = File::options().append(true).create(true).open(self.folder.path("redis.log"));
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--daemonize", "no", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .args(["--port", &self.port.to_string()])
            .arg("--dir")
            .arg(&folder)
            .args(&self.arguments)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.expect("a log file"))
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server starts; tests/tools.sh installs it");
        self.child = Some(child);
        eventually("a Redis", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// SIGKILL: nobody is told.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    /// STOP stalls it, CONT lets it go on.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(pid).status();
        assert!(sent.expect("kill").success(), "no signal {name}");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What redis-cli says to a command.
    pub fn ask(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(words)
            .output()
            .expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _killed = child.kill();
            let _ended = child.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path("redis.log")).unwrap_or_default();
            eprintln!("--- log of the Redis\n{log}---");
        }
    }
}
