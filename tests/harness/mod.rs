//! Starts the real binary on free ports and speaks to it from outside.

pub mod balancer;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod http2;
pub mod node;
pub mod origin;
pub mod pebble;
pub mod redis;
pub mod socketio;
pub mod sqlite;
pub mod stores;

use std::cell::RefCell;
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub use client::{Answer, Client, End};
pub use origin::Origin;

/// Longer than anything here takes, shorter than a runner's patience.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// A folder of one test's own, removed when it passed.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        keep_reasons();
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vestibule-{}-{number}", std::process::id()));
        // Left by a process that had this number before.
        let _gone = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("its folder");
        fs::write(&path, text).expect("a file of the test");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }
}

/// The running edge. Killed when dropped; its log is shown when the test fails.
pub struct Edge {
    pub folder: Folder,
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    /// From the start of the process to READY=1.
    pub started_in: Duration,
    child: Child,
    /// The process that took over from it, if one has.
    successor: Option<u32>,
    notify: UnixDatagram,
}

/// What every test's configuration begins with; ports are chosen by the kernel.
pub const PLAIN: &str = "\
listen: { http: ['127.0.0.1:0'], https: [], admin: 'unix:admin.sock' }
workers: 2
";

/// The same with HTTPS, and the certificates of `Edge::start_tls`.
pub const SECURE: &str = "\
listen: { http: ['127.0.0.1:0'], https: ['127.0.0.1:0'], admin: 'unix:admin.sock' }
tls: { certs: certs }
workers: 2
";

impl Edge {
    /// Starts with this proxy.yaml.
    pub fn start(yaml: &str) -> Self {
        Self::start_in(Folder::new(), yaml)
    }

    pub fn start_in(folder: Folder, yaml: &str) -> Self {
        folder.write("proxy.yaml", yaml);
        let command = Self::command(&folder);
        Self::spawn(folder, command)
    }

    /// Another process in the folder of one that has ended.
    pub fn start_again(ended: &Self, yaml: &str) -> Self {
        let _gone = fs::remove_file(ended.folder.path("notify.sock"));
        Self::start_in(Folder(ended.folder.0.clone()), yaml)
    }

    /// `vestibule run` on the folder's proxy.yaml, for tests that add to it.
    pub fn command(folder: &Folder) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
        command.arg("run").arg("-c").arg(folder.path("proxy.yaml")).current_dir(&folder.0);
        command
    }

    pub fn spawn(folder: Folder, mut command: Command) -> Self {
        let socket = folder.path("notify.sock");
        let notify = UnixDatagram::bind(&socket).expect("a notify socket");
        notify.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let log = fs::File::create(folder.path("log")).expect("a log file");
        let access = fs::File::create(folder.path("access")).expect("an access log");
        let begun = Instant::now();
        let child = command
            .env("NOTIFY_SOCKET", &socket)
            .stdin(Stdio::null())
            .stdout(access)
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let started_in = Duration::ZERO;
        let mut edge =
            Self { folder, http: None, https: None, started_in, child, successor: None, notify };
        let status = edge.wait_for_notify("READY=1");
        edge.started_in = begun.elapsed();
        edge.take_addresses(&status);
        edge
    }

    /// Waits until the process told its service manager `word`; returns that whole message.
    pub fn wait_for_notify(&mut self, word: &str) -> String {
        self.wait_for_line(word, |line| line == word)
    }

    fn wait_for_line(&mut self, word: &str, wanted: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        let mut buffer = [0; 4096];
        loop {
            let ended = self.child.try_wait().expect("a child");
            if let Some(status) = ended.filter(|_| self.successor.is_none()) {
                panic!("ended with {status} before {word}\n{}", self.log());
            }
            let step = Duration::from_millis(100);
            self.notify.set_read_timeout(Some(step)).expect("a timeout");
            if let Ok(length) = self.notify.recv(&mut buffer) {
                let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if message.lines().any(&wanted) {
                    return message;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "no {word} in time\n{}", self.log());
        }
    }

    fn take_addresses(&mut self, message: &str) {
        let find = |scheme: &str| {
            let (_, rest) = message.split_once(scheme)?;
            rest.split([',', '\n']).next()?.parse().ok()
        };
        self.http = find("http://");
        self.https = find("https://");
    }

    pub fn http(&self) -> SocketAddr {
        self.http.expect("an http listener")
    }

    pub fn https(&self) -> SocketAddr {
        self.https.expect("an https listener")
    }

    /// A new plain connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.http())
    }

    /// One GET on a connection of its own.
    pub fn get(&self, path: &str) -> Answer {
        self.connect().get(path)
    }

    /// The process that serves now.
    pub fn pid(&self) -> u32 {
        self.successor.unwrap_or_else(|| self.child.id())
    }

    /// SIGUSR2, and the process that serves after it.
    pub fn upgrade(&mut self) -> u32 {
        self.signal("USR2");
        self.upgraded()
    }

    /// Waits until another process has taken over.
    pub fn upgraded(&mut self) -> u32 {
        let main = "MAINPID=";
        let told = self.wait_for_line(main, |line| line.starts_with(main));
        let next = told.lines().find_map(|line| line.strip_prefix(main)).expect("the line");
        self.successor = Some(next.parse().expect("a process"));
        let status = self.wait_for_notify("READY=1");
        self.take_addresses(&status);
        self.pid()
    }

    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.expect("kill").success(), "no signal {name}");
    }

    /// SIGHUP, and the status that the service manager is told with READY=1.
    pub fn reload(&mut self) -> String {
        self.signal("HUP");
        self.wait_for_notify("READY=1")
    }

    pub fn reload_with(&mut self, yaml: &str) -> String {
        self.folder.write("proxy.yaml", yaml);
        self.reload()
    }

    /// Waits for the end of the process.
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the end of the process", || self.child.try_wait().expect("a child"))
    }

    pub fn log(&self) -> String {
        let mut text = String::new();
        let file = fs::File::open(self.folder.path("log"));
        let _read = file.and_then(|mut file| file.read_to_string(&mut text));
        text
    }

    /// The access lines so far.
    pub fn access(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.folder.path("access")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The first access line that `wanted` accepts.
    pub fn access_line(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        eventually("an access line", || self.access().into_iter().find(|line| wanted(line)))
    }

    /// One request on the admin listener.
    pub fn admin(&self, method: &str, path: &str) -> Answer {
        self.admin_with(method, path, b"")
    }

    /// The same with a body.
    pub fn admin_with(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let socket = self.folder.path("admin.sock");
        let stream = std::os::unix::net::UnixStream::connect(socket).expect("the admin listener");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client::over(Box::new(stream)).ask(method, path, &[], body)
    }

    /// Kilobytes of memory the process has resident.
    pub fn resident_kb(&self) -> u64 {
        status_kb(self.pid(), "VmRSS:")
    }

    pub fn resident_peak_kb(&self) -> u64 {
        status_kb(self.pid(), "VmHWM:")
    }
}

fn status_kb(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a live process");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
        if let Some(successor) = self.successor {
            let _killed = Command::new("kill").arg("-KILL").arg(successor.to_string()).output();
            // Whoever comes next may want its port.
            let begun = Instant::now();
            while !is_gone(successor) && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if std::thread::panicking() {
            show_end(&self.folder.path("access"), 8);
            show_end(&self.folder.path("log"), 20);
        }
    }
}

/// True for a process that has ended, also if nobody has asked how.
pub fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.trim_start().starts_with('Z'))
}

thread_local! {
    /// Why the test on this thread fails.
    static REASON: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Has each thread remember why it panicked first.
fn keep_reasons() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let _none = REASON.try_with(|reason| {
                let mut reason = reason.borrow_mut();
                if reason.is_empty() {
                    *reason = shortened(&info.to_string());
                }
            });
            usual(info);
        }));
    });
}

/// The begin and the end of a text that is long, in one line.
fn shortened(text: &str) -> String {
    const HALF: usize = 600;
    let text = text.replace('\n', " | ");
    let begin = text.floor_char_boundary(HALF);
    let end = text.ceil_char_boundary(text.len().saturating_sub(HALF));
    if begin >= end { text } else { format!("{} […] {}", &text[..begin], &text[end..]) }
}

/// Where a test fails: the last lines of a server's log, and below it why the test failed, once more.
/// Who reads no more than the end of a long output sees that.
pub fn show_end(file: &Path, lines: usize) {
    const LINE: usize = 500;
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let end = &all[all.len().saturating_sub(lines)..];
    if end.is_empty() {
        return;
    }
    eprintln!("--- the last {} of {} lines of {}", end.len(), all.len(), file.display());
    end.iter().for_each(|line| eprintln!("{}", &line[..line.floor_char_boundary(LINE)]));
    REASON.with_borrow(|reason| eprintln!("--- why it is shown: {reason}"));
}

/// Tells threads to stop when it is dropped: a scope waits for its threads, also if an assertion in
/// it fails.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks again until there is an answer, or patience ends.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, ask)
}

/// The same for what takes others longer by their own rules.
pub fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < patience, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A folder of the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs `vestibule` with these arguments to its end.
pub fn vestibule(arguments: &[&str], folder: &Folder) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_vestibule"))
        .args(arguments)
        .current_dir(&folder.0)
        .output()
        .expect("the binary runs")
}

/// A CA of the test's own: `certs/NAME.pem` and `.key` for each name, and the CA itself.
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut words = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        words.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        words.distinguished_name.push(rcgen::DnType::CommonName, "Vestibule test CA");
        let pem = words.self_signed(&key).expect("a CA").pem();
        Self { issuer: rcgen::Issuer::new(words, key), pem }
    }

    /// Writes a certificate for `names` as `certs/FILE.pem` with its key.
    pub fn issue(&self, folder: &Folder, file: &str, names: &[&str]) {
        self.issue_with(folder, file, names, &rcgen::KeyPair::generate().expect("a key"));
    }

    /// The same for a key of RSA.
    pub fn issue_rsa(&self, folder: &Folder, file: &str, names: &[&str]) {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
        self.issue_with(folder, file, names, &key);
    }

    /// A client that trusts what comes from `root`.
    pub fn trusting(root: &str) -> rustls::ClientConfig {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots(root))
            .with_no_client_auth()
    }

    /// Serves TLS as `localhost`.
    pub fn server(&self) -> rustls::ServerConfig {
        let key = rcgen::KeyPair::generate().expect("a key");
        let words = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
        let certificate = words.signed_by(&key, &self.issuer).expect("a certificate");
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        rustls::ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("they fit")
    }

    fn issue_with(&self, folder: &Folder, file: &str, names: &[&str], key: &rcgen::KeyPair) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let words = rcgen::CertificateParams::new(names).expect("names");
        let certificate = words.signed_by(key, &self.issuer).expect("a certificate");
        folder.write(&format!("certs/{file}.pem"), &certificate.pem());
        folder.write(&format!("certs/{file}.key"), &key.serialize_pem());
    }

    /// A rustls client that trusts this CA alone.
    pub fn client(&self, alpn: &[&[u8]]) -> rustls::ClientConfig {
        self.client_showing(alpn, None)
    }

    /// The same, which shows the certificate of `shown`, if it is asked.
    pub fn client_showing(&self, alpn: &[&[u8]], shown: Option<&Self>) -> rustls::ClientConfig {
        let roots = roots(&self.pem);
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let words = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut words = match shown {
            None => words.with_no_client_auth(),
            Some(authority) => {
                let key = rcgen::KeyPair::generate().expect("a key");
                let names = rcgen::CertificateParams::new(vec!["a client".to_owned()]);
                let certificate = names.expect("names").signed_by(&key, &authority.issuer);
                let chain = vec![certificate.expect("a certificate").der().clone()];
                let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der());
                words.with_client_auth_cert(chain, key.expect("a key")).expect("they fit")
            }
        };
        words.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        words
    }
}

fn roots(pem: &str) -> rustls::RootCertStore {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    roots.add(ca).expect("a CA");
    roots
}
