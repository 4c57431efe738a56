//! The targets of all upstreams: one state per target, shared by workers, kept over reloads.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::info;

use crate::config;
use crate::observe::metrics::{self, Series};

use super::balance;
use super::hold::Waiting;
use super::names::Names;
use super::record::Record;
use super::tls::{self, CompileError};

/// One server of the application, as all workers see it.
#[derive(Debug)]
pub struct Target {
    /// Never given twice in a process.
    pub id: u64,
    /// For hashing; the same in every process.
    pub key: u64,
    pub address: Address,
    /// How it is spoken to if that is not in plain.
    pub tls: Option<tls::Client>,
    /// As the configuration writes it: `http://127.0.0.1:3000`.
    pub name: Arc<str>,
    pub health: config::Health,
    /// Requests in flight, of all workers.
    load: AtomicUsize,
    /// How often a target was chosen for those that this one is the first of, by all workers.
    turn: AtomicUsize,
    /// What requests tell of it.
    pub record: Record,
    words: config::Target,
    /// What is not known to be down is up, unless others can do without it until it was asked.
    up: AtomicBool,
    pub begins: Begins,
    /// Made once it is used, or what only was looked at would be counted.
    figures: OnceLock<Figures>,
    /// Requests that wait for this target among others.
    wanted: AtomicUsize,
    /// Told when it is up, and when it has a place for one more request.
    pub freed: Notify,
    /// Told when it should be asked soon: it was found down, or is waited for.
    pub hurry: Arc<Notify>,
}

/// What is shown of a target, together with others of its name.
#[derive(Debug)]
struct Figures {
    up: Arc<Series>,
    connects: Arc<Series>,
    ejections: Arc<Series>,
}

/// How a new target begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// It gets nothing before a check of it was good.
    Down,
    /// It gets requests, and the first check decides.
    Up,
    /// It was up by other words: only as many checks as take any other down do so.
    Known,
}

/// Where a target listens.
#[derive(Debug)]
pub enum Address {
    Socket(SocketAddr),
    /// Looked up at each connection.
    Name(String, u16, Names),
    Unix(PathBuf),
}

impl Target {
    fn new(
        id: u64,
        words: config::Target,
        health: config::Health,
        tls: Option<tls::Client>,
        begins: Begins,
    ) -> Self {
        let address = match &words {
            config::Target::Unix(path) => Address::Unix(path.clone()),
            config::Target::Tcp(host, port) | config::Target::Tls(host, port) => {
                match host.parse::<IpAddr>() {
                    Ok(ip) => Address::Socket(SocketAddr::new(ip, *port)),
                    Err(_) => Address::Name(host.clone(), *port, Names::default()),
                }
            }
        };
        let name = words.to_string();
        Self {
            id,
            key: balance::key(&name),
            address,
            tls,
            name: name.into(),
            health,
            load: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            record: Record::default(),
            words,
            up: AtomicBool::new(begins != Begins::Down),
            begins,
            figures: OnceLock::new(),
            wanted: AtomicUsize::new(0),
            freed: Notify::new(),
            hurry: Arc::default(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    fn figures(&self) -> &Figures {
        self.figures.get_or_init(|| {
            let up = metrics::series(&metrics::TARGET_UP, &[&self.name]);
            up.add(i64::from(self.is_up()));
            let connects = metrics::series(&metrics::TARGET_CONNECTS, &[&self.name]);
            let ejections = metrics::series(&metrics::TARGET_EJECTIONS, &[&self.name]);
            Figures { up, connects, ejections }
        })
    }

    /// A connection to it is tried.
    pub fn connecting(&self) {
        self.figures().connects.increment();
    }

    /// Says whether it gets requests, and why not.
    pub fn set_up(&self, up: bool, why: &dyn fmt::Display) {
        // Made before the change, so that it is counted once.
        let figures = self.figures();
        if self.up.swap(up, Ordering::SeqCst) == up {
            return;
        }
        figures.up.add(if up { 1 } else { -1 });
        if up {
            self.record.returned(now());
            info!(target = %self.name, "target is up");
            self.freed.notify_waiters();
        } else {
            info!(target = %self.name, reason = %why, "target is down");
        }
    }

    /// A worker could not connect: no more requests until checks succeed.
    pub fn mark_down(&self, why: &dyn fmt::Display) {
        self.set_up(false, why);
        self.hurry.notify_one();
    }

    /// Goes up by one with each call.
    pub fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    pub fn load(&self) -> usize {
        self.load.load(Ordering::SeqCst)
    }

    /// It is up and takes one more request.
    pub fn has_room(&self, max: Option<usize>) -> bool {
        self.is_up() && max.is_none_or(|max| self.load() < max)
    }

    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) > 0
    }

    /// Counts one more, or one less, that waits for it.
    pub fn want(&self, more: bool) {
        if more {
            self.wanted.fetch_add(1, Ordering::SeqCst);
            if !self.is_up() {
                self.hurry.notify_one();
            }
        } else {
            self.wanted.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// `None` for a unix socket.
    pub fn port(&self) -> Option<u16> {
        match &self.address {
            Address::Socket(socket) => Some(socket.port()),
            Address::Name(_, port, _) => Some(*port),
            Address::Unix(_) => None,
        }
    }

    /// The authority of requests that the edge itself makes.
    pub fn authority(&self) -> &str {
        self.name.split_once("://").map_or("localhost", |(_, authority)| authority)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let is_up = self.is_up();
        let Some(Figures { up, connects, ejections }) = self.figures.take() else { return };
        up.add(-i64::from(is_up));
        drop((up, connects, ejections));
        // Another target of this name goes on with them.
        for metric in [&metrics::TARGET_UP, &metrics::TARGET_CONNECTS, &metrics::TARGET_EJECTIONS] {
            metrics::forget(metric, &[&self.name]);
        }
    }
}

/// All targets that some snapshot uses, by identity and health check.
#[derive(Debug, Default)]
pub struct Registry {
    targets: Mutex<Vec<Weak<Target>>>,
    /// What is known of TLS.
    secrets: Mutex<Vec<Weak<tls::Settings>>>,
    /// By what is waited for.
    waiting: Mutex<Vec<(Vec<config::Target>, Weak<Waiting>)>>,
    next_id: AtomicU64,
    /// Told when there is a new target.
    pub added: Notify,
}

impl Registry {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What the words say of TLS, read anew; the same as before if nothing has changed.
    pub fn tls(&self, words: &config::UpstreamTls) -> Result<Arc<tls::Settings>, CompileError> {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.retain(|known| known.strong_count() > 0);
        let known: Vec<_> = secrets.iter().filter_map(Weak::upgrade).collect();
        let settings = tls::Settings::compile(words, known.iter())?;
        if !known.iter().any(|known| Arc::ptr_eq(known, &settings)) {
            secrets.push(Arc::downgrade(&settings));
        }
        Ok(settings)
    }

    /// True if one of these is used already, and up.
    pub fn has_up(&self, words: &[config::Target]) -> bool {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = targets.iter().filter_map(Weak::upgrade);
        known.any(|target| target.is_up() && words.contains(&target.words))
    }

    /// The one target for these words, old or new; a new one `begins` so.
    pub fn target(
        &self,
        words: &config::Target,
        health: &config::Health,
        tls: Option<&Arc<tls::Settings>>,
        begins: Begins,
    ) -> Result<Arc<Target>, CompileError> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.retain(|target| target.strong_count() > 0);
        let known = targets.iter().filter_map(Weak::upgrade);
        let tls = tls.filter(|_| matches!(words, config::Target::Tls(..)));
        let mut same = known.filter(|target| {
            let known = target.tls.as_ref().map(|client| Arc::as_ptr(&client.settings));
            target.words == *words && target.health == *health && known == tls.map(Arc::as_ptr)
        });
        if let Some(target) = same.next() {
            return Ok(target);
        }
        let client = match (words, tls) {
            (config::Target::Tls(host, _), Some(tls)) => {
                Some(tls::Client::new(Arc::clone(tls), host)?)
            }
            _ => None,
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let target = Arc::new(Target::new(id, words.clone(), health.clone(), client, begins));
        targets.push(Arc::downgrade(&target));
        self.added.notify_one();
        Ok(target)
    }

    /// Who waits for these targets, on whichever route.
    pub fn waiting(&self, words: &[config::Target]) -> Arc<Waiting> {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, waiting)| waiting.strong_count() > 0);
        let known = all.iter().find(|(known, _)| known == words);
        if let Some(waiting) = known.and_then(|(_, waiting)| waiting.upgrade()) {
            return waiting;
        }
        let names: Vec<_> = words.iter().map(ToString::to_string).collect();
        let waiting = Arc::new(Waiting::new(&names.join(" ")));
        all.push((words.to_vec(), Arc::downgrade(&waiting)));
        waiting
    }

    /// Shows the figures of all that is used now.
    pub fn show(&self) {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let targets: Vec<_> = targets.iter().filter_map(Weak::upgrade).collect();
        for target in &targets {
            let _made = target.figures();
        }
    }

    /// Targets with ids from `id` on.
    pub fn since(&self, id: u64) -> Vec<Arc<Target>> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.iter().filter_map(Weak::upgrade).filter(|target| target.id >= id).collect()
    }
}

/// Milliseconds since some moment before the first target; never 0.
pub fn now() -> u64 {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGUN.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// One request in flight at a target.
#[derive(Debug)]
pub struct Load {
    target: Arc<Target>,
    bounded: bool,
}

impl Load {
    /// `None` if `max` are in flight already.
    pub fn begin(target: &Arc<Target>, max: Option<usize>) -> Option<Self> {
        let more = |load: usize| max.is_none_or(|max| load < max).then(|| load.saturating_add(1));
        target.load.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Self { target: Arc::clone(target), bounded: max.is_some() })
    }

    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// The target has answered.
    pub fn succeeded(&self) {
        self.target.record.succeeded(now);
    }

    /// The target has not answered, or nothing that is an answer.
    pub fn failed(&self, rule: &config::Eject) {
        if let Some(lasts) = self.target.record.failed(rule, now()) {
            self.target.figures().ejections.increment();
            info!(target = %self.target.name, ?lasts, "target fails and is passed over");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.target.load.fetch_sub(1, Ordering::SeqCst);
        if self.bounded && self.target.is_wanted() {
            self.target.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_target_is_known_by_its_words_for_as_long_as_it_is_used() {
        let registry = Registry::new();
        let second = Duration::from_secs(1);
        let health = config::Health {
            path: None,
            statuses: Vec::new(),
            every: second,
            timeout: second,
            rise: 1,
            fall: 1,
        };
        let other = config::Health { path: Some("/".to_owned()), ..health.clone() };
        let words = config::Target::Tcp("::1".to_owned(), 3000);
        let target =
            |words, health| registry.target(words, health, None, Begins::Up).expect("plain");
        let one = target(&words, &health);
        assert_eq!(&*one.name, "http://[::1]:3000");
        assert_eq!(target(&words, &health).id, one.id);
        assert_ne!(target(&words, &other).id, one.id);
        assert_eq!(registry.since(0).len(), 1, "the other one is not used");
        let places: Vec<_> = (0..3).map_while(|_| Load::begin(&one, Some(2))).collect();
        assert_eq!((places.len(), one.load()), (2, 2));
        drop(places);
        assert_eq!(one.load(), 0);
        let waiting = registry.waiting(std::slice::from_ref(&words));
        assert!(Arc::ptr_eq(&waiting, &registry.waiting(std::slice::from_ref(&words))));
        assert!(registry.has_up(&[config::Target::Unix("/a".into()), words.clone()]));
        one.set_up(false, &"gone");
        assert!(!registry.has_up(std::slice::from_ref(&words)));
        let id = one.id;
        drop(one);
        assert_ne!(target(&words, &health).id, id);
    }
}
