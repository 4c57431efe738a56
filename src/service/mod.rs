//! The process: start, ready, reload, drain, stop.

mod cli;
mod export;
mod handover;
mod listeners;
mod memory;
mod reload;
mod shutdown;
mod signals;
mod strain;
mod systemd;
mod upgrade;
mod vitals;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::level_filters::LevelFilter;
use tracing::{info, warn};

use crate::admin::history::{History, What};
use crate::admin::{self, Admin, Ask, Readiness};
use crate::auth;
use crate::config::{self, Config, Problems};
use crate::drain::Drain;
use crate::hub::{Bridge, Central, Entrance, Hub, Nodes, Role, TrustError};
use crate::listener::Open;
use crate::observe::{events, lines, log, metrics, trace};
use crate::router::Kept;
use crate::snapshot::{CompileError, Current, Resident, Snapshot};
use crate::tls::acme::{Keeper, Proofs, Troubles, Wanted};
use crate::tls::{self, Tickets, TlsError, Watch};
use crate::upstream::{self, Registry};
use crate::worker::{Command, Shared, Worker};

use handover::Handed;
use listeners::{ListenError, Listeners};
use shutdown::Farewell;
use signals::{Event, Signals};
use upgrade::{Postponed, Upgrade};

/// Why the process ends before its time, or never began.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// `--help`, `--version` and what is wrong with the arguments.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    #[error("{0}")]
    Config(#[from] Problems),
    #[error("vestibule: {file}: {error}", file = file.display())]
    Compile { file: PathBuf, error: CompileError },
    #[error("vestibule: {0}")]
    Listen(#[from] ListenError),
    #[error("vestibule: {0}")]
    Tls(#[from] TlsError),
    #[error("vestibule: {0}")]
    Redis(#[from] TrustError),
    #[error("vestibule: {what}: {error}")]
    Io { what: &'static str, error: io::Error },
    #[error("vestibule: {0}")]
    Asked(String),
}

/// `EX_CONFIG` of sysexits.h.
const EXIT_CONFIG: u8 = 78;

impl Stop {
    /// Says why on standard error, and with which status to exit: 78 for the configuration.
    pub fn report(self) -> ExitCode {
        if let Self::Arguments(error) = &self {
            // Nobody is left to tell if the terminal is gone.
            let _printed = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
        // As above.
        let _written = writeln!(io::stderr(), "{}", self.to_string().trim_end());
        match self {
            Self::Config(_) | Self::Compile { .. } => ExitCode::from(EXIT_CONFIG),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Does what the arguments say; returns when that is done.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Stop> {
    let arguments = cli::Arguments::try_parse_from(arguments)?;
    match arguments.command {
        cli::Command::Run { file, take_over } => start(&file.config, take_over),
        cli::Command::Check { file, show } => cli::check::run(&file.config, show),
        cli::Command::Explain(words) => cli::explain::run(&words),
        cli::Command::Reload(file) => cli::reload::run(&file.config),
        cli::Command::Diff(file) => cli::diff::run(&file.config),
        cli::Command::Upgrade(file) => cli::upgrade::run(&file.config),
        cli::Command::Status(file) => cli::status::run(&file.config),
        cli::Command::Top { file, once } => cli::top::run(&file.config, once),
        cli::Command::Doctor(words) => cli::doctor::run(&words),
        cli::Command::Man => cli::man(),
        cli::Command::Reference => cli::reference::run(),
        cli::Command::Schema => cli::say(&config::schema()),
        cli::Command::Completions { shell } => cli::completions(shell),
    }
}

/// What is kept for the life of the process.
fn resident(config: &Config) -> Result<(Resident, Vec<crate::hub::Inbox>), Stop> {
    let redis = config.hub.as_ref().and_then(|hub| hub.redis.as_ref());
    let registry = Registry::new();
    let (hub, inboxes) = Hub::new(config.workers, redis.map(Nodes::new).transpose()?, &registry);
    let kept = Kept::default();
    let (tickets, proofs) = (Tickets::new()?, Proofs::default());
    let meter = Arc::default();
    Ok((Resident { hub, registry, kept, tickets, proofs, meter }, inboxes))
}

fn compile(
    config: Config,
    generation: u64,
    resident: &Resident,
    file: &Path,
) -> Result<Snapshot, Stop> {
    Snapshot::compile(config, generation, resident)
        .map_err(|error| Stop::Compile { file: file.to_owned(), error })
}

fn start(file: &Path, take_over: bool) -> Result<(), Stop> {
    let mut handed = None;
    if take_over {
        let taken = Handed::take().map_err(|error| Stop::Io { what: "nothing taken over", error });
        handed = Some(taken?);
    }
    // The path, before another binary stands there.
    let binary =
        std::env::current_exe().map_err(|error| Stop::Io { what: "no path of its own", error })?;
    let config = config::load(file)?;
    log::init(level(config.log.level), config.log.format == config::LogFormat::Json);
    let (resident, inboxes) = resident(&config)?;
    let sockets = handed.as_mut().map(|handed| std::mem::take(&mut handed.sockets));
    let listeners = Listeners::open(&config.listen, config.workers, sockets.unwrap_or_default())?;
    // Before they are read: what changes meanwhile is seen by the next look.
    let watch = Watch::new(&tls::files(&config));
    if listeners.any_https() {
        resident.tickets.keep_in(&config.state);
    }
    let snapshot = compile(config, 1, &resident, file)?;
    tls::show(snapshot.certificates());
    resident.registry.show();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| Stop::Io { what: "no runtime", error })?;
    runtime.block_on(async move {
        let drain = Drain::default();
        let service = Service {
            file: file.to_owned(),
            binary,
            before: handed,
            node_sockets: Vec::new(),
            door: None,
            admin_socket: None,
            background: Vec::new(),
            upgrade: None,
            bridge: None,
            bridge_before: None,
            postponed: None,
            current: Current::new(snapshot),
            watch,
            complaint: Rc::default(),
            troubles: Rc::default(),
            retry: Rc::default(),
            history: Rc::default(),
            listening: Rc::default(),
            resident,
            listeners,
            workers: Vec::new(),
            desk: auth::Desk::new(&drain),
            drain,
        };
        service.serve(inboxes).await
    })
}

/// The main thread's belongings.
struct Service {
    file: PathBuf,
    /// Where this program was started from.
    binary: PathBuf,
    /// What the process before handed over, until this one is ready.
    before: Option<Handed>,
    /// To which other nodes bring requests, for the next process; with the address as configured.
    node_sockets: Vec<(SocketAddr, StdListener)>,
    /// Where this one takes those that came to the other process at its address, once there is one.
    door: Option<String>,
    /// The private listener, for the next process.
    admin_socket: Option<(String, OwnedFd)>,
    /// What ends when another process has taken over.
    background: Vec<JoinHandle<()>>,
    upgrade: Option<Upgrade>,
    /// Between the hubs of this process and the next.
    bridge: Option<Bridge>,
    /// The same for the one before, which ends when its clients have come.
    bridge_before: Option<Bridge>,
    /// An upgrade that waits for that.
    postponed: Option<Postponed>,
    current: Current,
    resident: Resident,
    listeners: Listeners,
    workers: Vec<Worker>,
    drain: Drain,
    desk: Rc<auth::Desk>,
    /// Looks at the certificate files.
    watch: Watch,
    /// What is wrong with them.
    complaint: Rc<RefCell<Option<String>>>,
    /// What an authority did not give.
    troubles: Troubles,
    /// Tries again what it did not.
    retry: Rc<Notify>,
    /// What has changed, for the page of the private listener.
    history: Rc<History>,
    /// Where it listens, for whoever asks at the private listener.
    listening: Rc<RefCell<Vec<String>>>,
}

impl Service {
    async fn serve(mut self, inboxes: Vec<crate::hub::Inbox>) -> Result<(), Stop> {
        let mut signals =
            Signals::install().map_err(|error| Stop::Io { what: "no signals", error })?;
        install_lines(&self.current.load().config().log);
        metrics::series(&metrics::BUILD, &[env!("CARGO_PKG_VERSION")]).increment();
        metrics::series(&metrics::GENERATION, &[]).add(1);
        vitals::installed();
        self.drain.spawn_background(vitals::watch());
        self.start_workers(inboxes).await?;
        metrics::series(&metrics::WORKERS, &[])
            .set(i64::try_from(self.workers.len()).unwrap_or(i64::MAX));
        let (asks, mut asked) = mpsc::channel(1);
        self.start_admin(asks)?;
        self.drain.spawn_background(upstream::health::watch(Arc::clone(&self.resident.registry)));
        self.drain.spawn_background(Arc::clone(&self.resident.kept.flags).watch());
        self.drain.spawn_background(Arc::clone(&self.resident.kept.builds).watch());
        self.drain.spawn_background(memory::give_back());
        if let Some(items) = trace::open() {
            let registry = Arc::clone(&self.resident.registry);
            let exporting =
                export::export(self.current.clone(), registry, items, self.drain.clone());
            self.drain.spawn_background(exporting);
        }
        let hub = Arc::clone(&self.resident.hub);
        let address = self.open_to_nodes().await?;
        Central::start(&hub, address, &self.drain);
        hub.tell_cluster(self.current.load().hub().map(|policy| &**policy)).await;
        if self.before.is_some() {
            // The process before takes connections meanwhile. Who comes here must be found by other
            // nodes, and its clients are sent here when this one says that it is ready.
            hub.joined(JOINED_WITHIN).await;
            self.listen().await;
        }
        self.drain.spawn_background(strain::watch(self.current.clone(), hub));
        self.drain.spawn_background(tend(self.resident.tickets.clone()));
        self.start_keeper();
        let status = self.status();
        self.history.note(What::Start, true, self.generation(), std::slice::from_ref(&status));
        if let Some(before) = self.before.take() {
            before.ready().map_err(|error| Stop::Io { what: "nobody to take over from", error })?;
        }
        systemd::ready(&status);
        info!(version = env!("CARGO_PKG_VERSION"), "{status}");
        let mut watchdog = systemd::Watchdog::from_env();
        let farewell = loop {
            tokio::select! {
                // Nothing is lost when an arm is dropped: signals and requests stay queued.
                event = signals.next() => match event {
                    Event::Reload => drop(self.reload().await),
                    Event::Reopen => lines::reopen(),

                    Event::Upgrade => self.begin_upgrade(None).await,
                    Event::Stop => break Farewell::Stopped,
                },
                Some(ask) = asked.recv() => match ask {
                    Ask::Reload(answer) => self.reload_for(answer).await,
                    Ask::Upgrade(answer) => self.begin_upgrade(Some(answer)).await,
                    Ask::Diff(answer) => self.diff_for(answer),
                },
                outcome = Self::upgraded(&mut self.upgrade) => {
                    if self.end_upgrade(outcome) {
                        break Farewell::Succeeded;
                    }
                }
                () = Self::moved(&mut self.bridge_before, self.postponed.as_ref()) => {
                    self.bridge_before = None;
                    let asked = self.postponed.take().and_then(|postponed| postponed.asked);
                    self.begin_upgrade(asked).await;
                }
                () = watchdog.due() => self.show_life(&mut watchdog).await,
                () = self.watch.due() => {
                    let files = tls::files(self.current.load().config());
                    if self.watch.look(&files) {
                        self.take_certificates();
                    }
                }
            }
        };
        self.leave(signals, farewell).await;
        Ok(())
    }

    async fn start_workers(&mut self, inboxes: Vec<crate::hub::Inbox>) -> Result<(), Stop> {
        let (desk, questions) = auth::Way::open();
        let shared = Shared {
            current: self.current.clone(),
            hub: Arc::clone(&self.resident.hub),
            open: Open::default(),
            desk,
        };
        self.drain.spawn_background(Rc::clone(&self.desk).work(questions));
        self.desk.probe(self.current.load().auth().providers().to_vec());
        let door = self.before.as_mut().and_then(|before| before.door.take());
        if let Some(door) = &door {
            self.resident.hub.meet(&door.node, &door.address);
        }
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let worker = Worker::start(index, inbox, shared.clone())
                .map_err(|error| Stop::Io { what: "no thread for a worker", error })?;
            self.workers.push(worker);
        }
        if door.is_some() {
            // Before a client has a session here.
            let door = self.door().await;
            let told =
                door.and_then(|door| self.before.as_ref().map_or(Ok(()), |it| it.tell(&door)));
            told.map_err(|error| Stop::Io { what: "nobody to take over from", error })?;
        }
        let hub = &self.resident.hub;
        let before = self.before.as_mut().and_then(|before| before.hub.take());
        if let Some((before, name)) = before.filter(|_| hub.bridges()) {
            let role = (Role::New, name.as_deref());
            let bridge = hub.bridge(before, role, &self.drain).await;
            let bridge =
                bridge.map_err(|error| Stop::Io { what: "nobody to take over from", error });
            self.bridge_before = Some(bridge?);
        }
        if self.before.is_none() {
            self.listen().await;
        }
        Ok(())
    }

    /// Takes connections from now on.
    async fn listen(&mut self) {
        let first = self.listeners.take_new();
        self.hand_out(first).await;
        if self.current.load().tls().is_none() && self.listeners.any_https() {
            let certs = self.current.load().config().tls.certs.display().to_string();
            warn!(certs, "no certificate: HTTPS connections are closed until there is one");
        }
    }

    /// Has every worker take what other nodes bring; returns where they do.
    async fn open_to_nodes(&mut self) -> Result<Option<String>, Stop> {
        let snapshot = self.current.load();
        let redis = snapshot.config().hub.as_ref().and_then(|hub| hub.redis.as_ref());
        let Some(words) = redis.and_then(|redis| redis.node.as_ref()) else { return Ok(None) };
        let handed = self.before.as_mut().map(|before| std::mem::take(&mut before.nodes));
        let workers = self.workers.len();
        let opened = listeners::open_nodes(words.listen, workers, handed.unwrap_or_default())?;
        for socket in &opened.sockets {
            let kept = socket.try_clone();
            let kept = kept.map_err(|error| Stop::Io { what: "no socket for nodes", error })?;
            self.node_sockets.push((words.listen, kept));
        }
        for (worker, socket) in self.workers.iter().cycle().zip(opened.sockets) {
            worker.tell(Command::Neighbours(socket, Entrance::Nodes)).await;
        }
        let address = words.address.as_ref().map(|address| match address {
            config::Target::Tcp(host, port) | config::Target::Tls(host, port)
                if host.contains(':') =>
            {
                format!("[{host}]:{port}")
            }
            config::Target::Tcp(host, port) | config::Target::Tls(host, port) => {
                format!("{host}:{port}")
            }
            config::Target::Unix(path) => path.display().to_string(),
        });
        Ok(Some(address.unwrap_or_else(|| opened.address.to_string())))
    }

    /// Gives every worker its socket of each new listener.
    async fn hand_out(&self, opened: Vec<listeners::Opened>) {
        self.listening.replace(self.listeners.urls().collect());
        for opened in opened {
            for (worker, socket) in self.workers.iter().cycle().zip(opened.sockets) {
                worker.tell(Command::Listen(opened.scheme, socket)).await;
            }
        }
    }

    fn start_keeper(&mut self) {
        let current = self.current.clone();
        let wanted = move || {
            let snapshot = current.load();
            Wanted::of(snapshot.config(), snapshot.certificates())
        };
        let (proofs, troubles) = (self.resident.proofs.clone(), Rc::clone(&self.troubles));
        let keeper = Keeper::new(wanted, proofs, troubles, Rc::clone(&self.retry));
        self.background.push(self.drain.spawn_background(keeper.tend()));
    }

    fn start_admin(&mut self, asks: mpsc::Sender<Ask>) -> Result<(), Stop> {
        let snapshot = self.current.load();
        let Some(words) = &snapshot.config().listen.admin else { return Ok(()) };
        let handed = self.before.as_mut().and_then(|before| before.admin.take());
        let (listener, socket) = listeners::open_admin(&words.address, handed)?;
        self.admin_socket = Some((listeners::admin_name(&words.address), socket));
        let (current, drain) = (self.current.clone(), self.drain.clone());
        let hub = Arc::clone(&self.resident.hub);
        let rules = self.current.clone();
        let complaints = (Rc::clone(&self.complaint), Rc::clone(&self.troubles));
        let admin = Admin {
            readiness: Box::new(move || readiness(&current, &drain, &hub, &complaints)),
            asks,
            metrics: snapshot.config().metrics,
            hub: admin::hub::Door {
                hub: Arc::clone(&self.resident.hub),
                policy: Box::new(move || rules.load().hub().cloned()),
            },
            history: Rc::clone(&self.history),
            listening: Rc::clone(&self.listening),
            token: words.token.clone(),
            open: matches!(words.address, config::AdminAddress::Unix(_)),
        };
        let serving = admin::serve(listener, Rc::new(admin), self.drain.clone());
        self.background.push(self.drain.spawn_background(serving));
        Ok(())
    }

    /// Tells systemd that the process lives, if every worker answers in time.
    async fn show_life(&self, watchdog: &mut systemd::Watchdog) {
        for worker in &self.workers {
            let (answer, heard) = oneshot::channel();
            let asked = worker.tell(Command::Ping(answer));
            let alive = async { asked.await && heard.await.is_ok() };
            if tokio::time::timeout(WORKER_ANSWER, alive).await != Ok(true) {
                warn!("a worker does not answer; the watchdog is not told that all is well");
                watchdog.postpone();
                return;
            }
        }
        watchdog.tell();
    }

    /// One line for `systemctl status` and the log.
    fn status(&self) -> String {
        let snapshot = self.current.load();
        let config = snapshot.config();
        format!(
            "generation {}: {} sites, {} namespaces, {} workers, listening on {}",
            snapshot.generation(),
            config.sites.len(),
            config.hub.as_ref().map_or(0, |hub| hub.namespaces.len()),
            self.workers.len(),
            self.listeners
        )
    }
}

/// A process that takes over waits this long for other nodes; then it serves without them.
const JOINED_WITHIN: Duration = Duration::from_secs(3);
/// A worker that takes longer than this is stuck.
const WORKER_ANSWER: Duration = Duration::from_secs(2);

/// Makes new keys for session tickets when it is time.
async fn tend(tickets: Tickets) {
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        tickets.tend();
    }
}

fn readiness(
    current: &Current,
    drain: &Drain,
    hub: &Hub,
    (certificates, troubles): &(Rc<RefCell<Option<String>>>, Troubles),
) -> Readiness {
    let snapshot = current.load();
    let down = snapshot.router().upstreams().filter(|upstream| !upstream.is_up());
    let mut reasons: Vec<String> = down.map(ToString::to_string).collect();
    reasons.sort();
    reasons.dedup();
    if drain.is_leaving() {
        reasons.push("draining".to_owned());
    }
    let certificates = certificates.borrow().clone();
    let complaints = hub.complaint().map(str::to_owned).into_iter().chain(certificates);
    let troubles = troubles.borrow();
    let troubles = troubles.iter().map(|(name, why)| format!("no certificate for {name}: {why}"));
    let complaints = complaints.chain(troubles).collect();
    Readiness { ready: reasons.is_empty(), reasons, complaints }
}

fn level(words: config::Level) -> LevelFilter {
    match words {
        config::Level::Error => LevelFilter::ERROR,
        config::Level::Warn => LevelFilter::WARN,
        config::Level::Info => LevelFilter::INFO,
        config::Level::Debug => LevelFilter::DEBUG,
        config::Level::Trace => LevelFilter::TRACE,
    }
}

/// What gets a line, and where lines go.
fn install_lines(log: &config::Log) {
    let target = match &log.access.to {
        config::AccessTo::File(path) => lines::Target::File(path.clone()),
        config::AccessTo::Off if log.events.is_empty() => lines::Target::Off,
        // Events go somewhere also without lines of access.
        config::AccessTo::Off | config::AccessTo::Stdout => lines::Target::Stdout,
    };
    lines::install(target);
    events::set_wanted(log.events.iter().map(|kind| match kind {
        config::EventKind::Connect => events::Kind::Connect,
        config::EventKind::Disconnect => events::Kind::Disconnect,
        config::EventKind::Event => events::Kind::Event,
        config::EventKind::Deny => events::Kind::Deny,
    }));
}
