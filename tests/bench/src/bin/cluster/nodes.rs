//! Two servers of one kind and their Redis, each a process of its own.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

const START: Duration = Duration::from_secs(20);
/// Of the servers; Redis and the load have the other one.
const CORE: &str = "0";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Node,
    Vestibule,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Node, Self::Vestibule];

    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Vestibule => "vestibule",
        }
    }
}

pub struct Nodes {
    servers: Vec<(SocketAddr, Process)>,
    _redis: Process,
    folder: PathBuf,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

impl Nodes {
    pub fn start(kind: Kind, adapter: &str, package: &Path) -> Outcome<Self> {
        let folder = env::temp_dir().join(format!("vestibule-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let redis = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"])
            .current_dir(&folder)
            .stdout(Stdio::null())
            .spawn()?;
        let redis = Process(redis);
        let begun = Instant::now();
        while TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
            if begun.elapsed() > START {
                return Err("no Redis in time".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let start = |number: usize| match kind {
            Kind::Node => node(adapter, &port, package),
            Kind::Vestibule => vestibule(adapter, &port, package, &folder.join(number.to_string())),
        };
        let servers = (0..2).map(start).collect::<Outcome<Vec<_>>>()?;
        Ok(Self { servers, _redis: redis, folder })
    }

    pub fn addresses(&self) -> [SocketAddr; 2] {
        [0, 1].map(|index: usize| self.servers[index].0)
    }

    /// Processor time of both servers and all their threads.
    pub fn cpu(&self) -> Outcome<Duration> {
        let mut total = 0;
        for (_, server) in &self.servers {
            for thread in fs::read_dir(format!("/proc/{}/task", server.0.id()))? {
                let times = fs::read_to_string(thread?.path().join("schedstat"))?;
                total += times.split(' ').next().ok_or("an empty schedstat")?.parse::<u64>()?;
            }
        }
        Ok(Duration::from_nanos(total))
    }
}

fn node(adapter: &str, redis: &str, package: &Path) -> Outcome<(SocketAddr, Process)> {
    let mut child = Command::new("taskset")
        .args(["-c", CORE, "node"])
        .arg(package.join("../node/bench.mjs"))
        .env("NODE_ENV", "production")
        .env("REDIS", redis)
        .env("ADAPTER", adapter)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("no stdout")?;
    let (process, mut line) = (Process(child), String::new());
    BufReader::new(stdout).read_line(&mut line)?;
    let address = line.trim().strip_prefix("listening ").ok_or("node did not start")?;
    Ok((address.parse()?, process))
}

fn vestibule(
    adapter: &str,
    redis: &str,
    package: &Path,
    folder: &Path,
) -> Outcome<(SocketAddr, Process)> {
    fs::create_dir_all(folder)?;
    let socket = folder.join("notify.sock");
    let _old = fs::remove_file(&socket);
    let notify = UnixDatagram::bind(&socket)?;
    notify.set_read_timeout(Some(Duration::from_millis(100)))?;
    let built = env::current_exe()?;
    let program = built.parent().ok_or("a program in a folder")?.join("vestibule");
    let log = fs::File::create(folder.join("log"))?;
    let child = Command::new("taskset")
        .args(["-c", CORE])
        .arg(program)
        .args(["run", "-c"])
        .arg(package.join("cluster.yaml"))
        .env("NOTIFY_SOCKET", &socket)
        .env("BENCH_FOLDER", folder)
        .env("BENCH_REDIS", redis)
        .env("BENCH_ADAPTER", adapter)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    let mut process = Process(child);
    let (begun, mut buffer) = (Instant::now(), [0; 4096]);
    while begun.elapsed() < START && process.0.try_wait()?.is_none() {
        let Ok(length) = notify.recv(&mut buffer) else { continue };
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let rest = message.split_once("http://").map(|(_, rest)| rest);
        if let Some(address) = rest.and_then(|rest| rest.split([',', '\n']).next()) {
            return Ok((address.trim().parse()?, process));
        }
    }
    let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
    Err(format!("vestibule did not start:\n{log}").into())
}
