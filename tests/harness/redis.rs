//! A Redis of the test's own: started on a port of its own, stopped by its process id.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::node::free_port;
use super::{Folder, PATIENCE, eventually, show_end};

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
            // It is written before it is answered, so that SIGKILL loses nothing; no disk is waited for,
            // which could take longer than nodes of a cluster wait for each other.
            .args(["--appendonly", "yes", "--appendfsync", "no"])
            // A replica is not kept waiting for others that could be served at once.
            .args(["--repl-diskless-sync-delay", "0"])
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
        eventually("a Redis", || {
            let ended = self.child.as_mut()?.try_wait().expect("a child");
            assert_eq!(ended, None, "the Redis at port {} ended", self.port);
            self.answers().then_some(())
        });
    }

    /// Whether it does, and has read what it kept.
    fn answers(&self) -> bool {
        let ask = || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"PING\r\n")?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok::<_, std::io::Error>(line)
        };
        ask().is_ok_and(|line| line.ends_with('\n') && !line.starts_with("-LOADING"))
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

    /// A Sentinel that watches `master` under the name of `mymaster`, alone and impatient.
    pub fn sentinel(master: &Self) -> Self {
        let mut sentinel = Self::stopped(&[]);
        let words = format!(
            "sentinel monitor mymaster 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds mymaster 300\n\
             sentinel failover-timeout mymaster 2000\n",
            master.port
        );
        let file = sentinel.folder.write("sentinel.conf", &words);
        let log = File::create(sentinel.folder.path("redis.log")).expect("a log file");
        let child = Command::new("redis-server")
            .arg(file)
            .args(["--sentinel", "--bind", "127.0.0.1", "--port", &sentinel.port.to_string()])
            .current_dir(sentinel.folder.path(""))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        sentinel.child = Some(child);
        eventually("a Sentinel", || TcpStream::connect(("127.0.0.1", sentinel.port)).ok());
        sentinel
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

/// A connection that is subscribed to one channel.
pub struct Ear(BufReader<TcpStream>);

impl Redis {
    /// Listens to a channel of shard pub/sub.
    pub fn listen(&self, channel: &str) -> Ear {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let words = format!("*2\r\n$10\r\nSSUBSCRIBE\r\n${}\r\n{channel}\r\n", channel.len());
        stream.write_all(words.as_bytes()).expect("sent");
        let mut ear = Ear(BufReader::new(stream));
        assert_eq!(ear.value().first().map(String::as_str), Some("ssubscribe"));
        ear
    }
}

impl Ear {
    /// The next message, which is JSON.
    pub fn hear(&mut self) -> serde_json::Value {
        let message = self.value();
        serde_json::from_str(&message[2]).unwrap_or_else(|_| panic!("{message:?}"))
    }

    /// A list of texts and numbers.
    fn value(&mut self) -> Vec<String> {
        let count: usize = self.line()[1..].parse().expect("a list");
        (0..count)
            .map(|_| {
                let line = self.line();
                let Some(length) = line.strip_prefix('$') else { return line };
                let mut text = vec![0; length.parse::<usize>().expect("a length") + 2];
                self.0.read_exact(&mut text).expect("a text");
                String::from_utf8_lossy(&text[..text.len() - 2]).into_owned()
            })
            .collect()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line in time");
        line.trim_end().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _killed = child.kill();
            let _ended = child.wait();
        }
        if std::thread::panicking() {
            show_end(&self.folder.path("redis.log"), 8);
        }
    }
}

/// Three servers of one Redis Cluster, without replicas.
pub fn redis_cluster() -> Vec<Redis> {
    let arguments = ["--cluster-enabled", "yes", "--cluster-node-timeout", "3000"];
    let servers: Vec<Redis> = (0..3).map(|_| Redis::with(&arguments)).collect();
    let addresses = servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
    let created = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(addresses)
        .args(["--cluster-replicas", "0", "--cluster-yes"])
        .output()
        .expect("redis-cli runs");
    let said = String::from_utf8_lossy(&created.stdout).into_owned();
    assert!(created.status.success(), "{said}");
    for server in &servers {
        eventually("a cluster", || {
            server.ask(&["cluster", "info"]).contains("cluster_state:ok").then_some(())
        });
    }
    servers
}
