//! The targets of all upstreams: one state per target, shared by workers, kept over reloads.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;
use tracing::info;

use crate::config;
use crate::observe::metrics::{self, Series};

/// One server of the application, as all workers see it.
#[derive(Debug)]
pub struct Target {
    /// Never given twice in a process.
    pub id: u64,
    pub address: Address,
    /// As the configuration writes it: `http://127.0.0.1:3000`.
    pub name: Arc<str>,
    pub health: config::Health,
    /// Requests in flight, of all workers.
    pub load: AtomicUsize,
    pub connects: Arc<Series>,
    words: config::Target,
    /// What is not known to be down is up.
    up: AtomicBool,
    gauge: Arc<Series>,
    /// Told when a worker found it down, so that it is asked soon.
    pub found_down: Arc<Notify>,
}

/// Where a target listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Socket(SocketAddr),
    /// Looked up at each connection.
    Name(String, u16),
    Unix(PathBuf),
}

impl Target {
    fn new(id: u64, words: config::Target, health: config::Health) -> Self {
        let (address, name) = match &words {
            config::Target::Unix(path) => {
                (Address::Unix(path.clone()), format!("unix:{}", path.display()))
            }
            config::Target::Tcp(host, port) => match host.parse::<IpAddr>() {
                Ok(ip) => {
                    let socket = SocketAddr::new(ip, *port);
                    (Address::Socket(socket), format!("http://{socket}"))
                }
                Err(_) => (Address::Name(host.clone(), *port), format!("http://{host}:{port}")),
            },
        };
        let gauge = metrics::series(&metrics::TARGET_UP, &[&name]);
        let connects = metrics::series(&metrics::TARGET_CONNECTS, &[&name]);
        gauge.increment();
        Self {
            id,
            address,
            name: name.into(),
            health,
            load: AtomicUsize::new(0),
            connects,
            words,
            up: AtomicBool::new(true),
            gauge,
            found_down: Arc::default(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    pub fn set_up(&self, up: bool) {
        if self.up.swap(up, Ordering::Relaxed) == up {
            return;
        }
        self.gauge.add(if up { 1 } else { -1 });
        if up {
            info!(target = %self.name, "target is up");
        } else {
            info!(target = %self.name, "target is down");
        }
    }

    /// A worker could not connect: no more requests until a check succeeds.
    pub fn mark_down(&self) {
        self.set_up(false);
        self.found_down.notify_one();
    }

    /// The authority of requests that the edge itself makes.
    pub fn authority(&self) -> &str {
        self.name.strip_prefix("http://").unwrap_or("localhost")
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.is_up() {
            self.gauge.decrement();
        }
    }
}

/// All targets that some snapshot uses, by identity and health check.
#[derive(Debug, Default)]
pub struct Registry {
    targets: Mutex<Vec<Weak<Target>>>,
    next_id: AtomicU64,
    /// Told when there is a new target.
    pub added: Notify,
}

impl Registry {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The one target for these words, new or known.
    pub fn target(&self, words: &config::Target, health: &config::Health) -> Arc<Target> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.retain(|target| target.strong_count() > 0);
        let known = targets.iter().filter_map(Weak::upgrade);
        let mut same = known.filter(|target| target.words == *words && target.health == *health);
        if let Some(target) = same.next() {
            return target;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let target = Arc::new(Target::new(id, words.clone(), health.clone()));
        targets.push(Arc::downgrade(&target));
        self.added.notify_one();
        target
    }

    /// Targets with ids from `id` on.
    pub fn since(&self, id: u64) -> Vec<Arc<Target>> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.iter().filter_map(Weak::upgrade).filter(|target| target.id >= id).collect()
    }
}

/// One request in flight at a target.
#[derive(Debug)]
pub struct Load(Arc<Target>);

impl Load {
    pub fn begin(target: &Arc<Target>) -> Self {
        target.load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(target))
    }

    pub fn target(&self) -> &Arc<Target> {
        &self.0
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
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
        let health = config::Health { path: None, every: second, timeout: second };
        let other = config::Health { path: Some("/".to_owned()), ..health.clone() };
        let words = config::Target::Tcp("::1".to_owned(), 3000);
        let one = registry.target(&words, &health);
        assert_eq!(&*one.name, "http://[::1]:3000");
        assert_eq!(registry.target(&words, &health).id, one.id);
        assert_ne!(registry.target(&words, &other).id, one.id);
        assert_eq!(registry.since(0).len(), 1, "the other one is not used");
        let id = one.id;
        drop(one);
        assert_ne!(registry.target(&words, &health).id, id);
    }
}
