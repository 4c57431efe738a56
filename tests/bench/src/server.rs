//! A server under test: started on its core, measured from outside, ended by its process id.

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

type Outcome<T> = Result<T, Box<dyn Error>>;

const START: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Node,
    Socketioxide,
    Vestibule,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Node, Self::Socketioxide, Self::Vestibule];

    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Socketioxide => "socketioxide",
            Self::Vestibule => "vestibule",
        }
    }
}

/// The programs to run and a folder to run them in.
pub struct Programs {
    pub node: PathBuf,
    pub socketioxide: PathBuf,
    pub vestibule: PathBuf,
    /// Of Vestibule.
    pub configuration: PathBuf,
    pub folder: PathBuf,
    /// As `taskset` takes them.
    pub cores: &'static str,
}

pub struct Server {
    pub kind: Kind,
    pub address: SocketAddr,
    /// Vestibule's HTTPS listener, and a client that trusts it.
    pub secure: Option<(SocketAddr, Arc<ClientConfig>)>,
    child: Child,
}

/// Kilobytes of a process.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub resident: f64,
    pub proportional: f64,
    pub private: f64,
}

impl Server {
    pub fn start(kind: Kind, ping: Duration, programs: &Programs) -> Outcome<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", programs.cores]).stdin(Stdio::null()).current_dir(&programs.folder);
        command.env("PING_INTERVAL_MS", ping.as_millis().to_string());
        command.env("PING_TIMEOUT_MS", ping.min(PING_TIMEOUT).as_millis().to_string());
        match kind {
            Kind::Node => {
                command.arg("node").arg("--expose-gc").arg(&programs.node);
                command.env("NODE_ENV", "production");
                Self::listening(kind, command)
            }
            Kind::Socketioxide => {
                command.arg(&programs.socketioxide);
                Self::listening(kind, command)
            }
            Kind::Vestibule => {
                let client = write_certificate(&programs.folder)?;
                command.arg(&programs.vestibule).args(["run", "-c"]).arg(&programs.configuration);
                command.env("BENCH_FOLDER", &programs.folder);
                Self::notifying(command, client, &programs.folder)
            }
        }
    }

    /// A server that prints where it listens.
    fn listening(kind: Kind, mut command: Command) -> Outcome<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let Some(address) = line.trim().strip_prefix("listening ") else {
            end(&mut child);
            return Err(format!("{} did not start", kind.name()).into());
        };
        Ok(Self { kind, address: address.parse()?, secure: None, child })
    }

    /// A server that tells its service manager.
    fn notifying(mut command: Command, client: Arc<ClientConfig>, folder: &Path) -> Outcome<Self> {
        let path = folder.join("notify.sock");
        let _old = fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path)?;
        notify.set_read_timeout(Some(Duration::from_millis(100)))?;
        let log = fs::File::create(folder.join("vestibule.log"))?;
        let mut child =
            command.env("NOTIFY_SOCKET", &path).stdout(Stdio::null()).stderr(log).spawn()?;
        let begun = Instant::now();
        let mut buffer = [0; 4096];
        while begun.elapsed() < START && child.try_wait()?.is_none() {
            let Ok(length) = notify.recv(&mut buffer) else { continue };
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let find = |scheme| {
                let (_, rest) = message.split_once(scheme)?;
                rest.split([',', '\n']).next()?.trim().parse::<SocketAddr>().ok()
            };
            if let (Some(plain), Some(secure)) = (find("http://"), find("https://")) {
                let (kind, secure) = (Kind::Vestibule, Some((secure, client)));
                return Ok(Self { kind, address: plain, secure, child });
            }
        }
        end(&mut child);
        let log = fs::read_to_string(folder.join("vestibule.log")).unwrap_or_default();
        Err(format!("vestibule did not start:\n{log}").into())
    }

    /// Processor time of all its threads, in the kernel's own nanoseconds.
    pub fn cpu(&self) -> Outcome<Duration> {
        let mut total = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let times = fs::read_to_string(thread?.path().join("schedstat"))?;
            let running = times.split(' ').next().ok_or("an empty schedstat")?;
            total += running.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(total))
    }

    pub fn memory(&self) -> Outcome<Memory> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let field = |name: &str| -> Outcome<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("no field")?;
            Ok(line.trim().trim_end_matches(" kB").parse()?)
        };
        Ok(Memory {
            resident: field("Rss:")?,
            proportional: field("Pss:")?,
            private: field("Private_Clean:")? + field("Private_Dirty:")?,
        })
    }

    /// Asks Node to collect its garbage; the others have none.
    pub fn tidy(&self) -> Outcome<()> {
        if self.kind == Kind::Node {
            let pid = self.child.id().to_string();
            let told = Command::new("kill").args(["-USR2", &pid]).status()?;
            assert!(told.success(), "a live process");
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    let _killed = child.kill();
    let _ended = child.wait();
}

/// A certificate for the hub, and a client that trusts it.
fn write_certificate(folder: &Path) -> Outcome<Arc<ClientConfig>> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    fs::create_dir_all(folder.join("certs"))?;
    fs::write(folder.join("certs/localhost.pem"), made.cert.pem())?;
    fs::write(folder.join("certs/localhost.key"), made.signing_key.serialize_pem())?;
    trusting(made.cert.der().clone())
}

fn trusting(certificate: CertificateDer<'static>) -> Outcome<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let words = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(words))
}
