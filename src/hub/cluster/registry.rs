//! Which nodes there are: each has an entry in Redis that lasts for its lease, and looks for those
//! of the others; on the main thread.
//!
//! While Redis is away, what was known last is what is known: who is really gone takes no
//! connections.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::error;

use crate::config;
use crate::hub::engine::Node;
use crate::observe::metrics::{self, Series};
use crate::upstream::{Registry as Targets, Upstream};

use super::badge::{Seal, uid_of};
use super::central::Central;
use super::line::LineError;
use super::speaker::Speaker;

/// Another node, as far as a request can be brought to it.
pub struct Neighbour {
    pub upstream: Upstream,
    pub badge: HeaderValue,
    /// It is reached by its own door: what it was brought to may be this process.
    pub is_sibling: bool,
}

/// The other process at this one's address.
pub struct Sibling {
    pub node: Node,
    pub neighbour: Arc<Neighbour>,
    /// It has had an entry; without one it is gone.
    pub was_listed: bool,
}

pub fn lock(sibling: &Mutex<Option<Sibling>>) -> MutexGuard<'_, Option<Sibling>> {
    sibling.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All other nodes that can be reached, by name.
pub type Neighbours = Arc<HashMap<Node, Arc<Neighbour>>>;

/// This node's entry, and what it has seen of the others.
pub struct Registry {
    node: Node,
    seal: Option<Seal>,
    /// What stands in Redis for this node.
    entry: String,
    /// Of the set of names; what each name's entry is called begins with it.
    key: String,
    lease: Duration,
    targets: Arc<Targets>,
    known: RefCell<HashMap<Node, (String, Arc<Neighbour>)>>,
    told: watch::Sender<Neighbours>,
    sibling: Arc<Mutex<Option<Sibling>>>,
    /// Who waits for the next look. Full: they are told at once, and know what is known.
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
    asked: Notify,
    gauge: Arc<Series>,
    complained: Cell<bool>,
    /// Names under which other nodes talk over Redis, of the last look.
    pub uids: RefCell<HashSet<String>>,
}

/// Where other nodes are targets, who is told of them, and the one that needs no look.
type Others = (Arc<Targets>, watch::Sender<Neighbours>, Arc<Mutex<Option<Sibling>>>);

/// Those who wait for a look at once.
const WAITING_MAX: usize = 4096;
/// Between two looks, however many ask: names that nobody has cost Redis no more than that.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Entries that are looked at. More nodes than that share no Redis.
const NODES_MAX: usize = 1024;
/// A node that takes no connection for so long is gone, as far as requests go.
const CONNECT: Duration = Duration::from_secs(1);
/// How often a node is asked for a connection, so that one that is gone is known before it is needed.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Idle connections to each node, and how long they are kept: less than the far end keeps them.
const KEEP: config::Keep = config::Keep { idle: 256, lasts: Duration::from_secs(30) };
/// A poll is answered by the next ping; a POST by when the other workers have caught up.
const ANSWER: Duration = Duration::from_secs(120);

impl Registry {
    /// `address` is where the other nodes' requests are taken, if they are.
    pub fn new(
        node: Node,
        uid: &str,
        words: &config::Redis,
        address: Option<String>,
        (targets, told, sibling): Others,
    ) -> Rc<Self> {
        let seal = words.node.as_ref().map(|words| Seal::new(&words.secret));
        let entry = match (&seal, address) {
            (Some(seal), Some(address)) => seal.entry(node, uid, &address),
            _ => format!("{uid} - -"),
        };
        Rc::new(Self {
            node,
            seal,
            entry,
            // One slot of a cluster, that of the stream: they are asked for together.
            key: format!("{{{}}}-nodes", words.wire.key),
            lease: words.lease,
            targets,
            known: RefCell::default(),
            told,
            sibling,
            waiting: RefCell::default(),
            asked: Notify::new(),
            gauge: metrics::series(&metrics::HUB_NODES, &[]),
            complained: Cell::new(false),
            uids: RefCell::default(),
        })
    }

    /// Has somebody told when there has been another look.
    pub fn look(&self, looked: oneshot::Sender<()>) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < WAITING_MAX {
            waiting.push(looked);
            self.asked.notify_one();
        }
    }

    /// Renews the lease and looks for the others, for as long as the process lives.
    pub async fn keep(self: Rc<Self>, central: Rc<Central>) {
        let (link, speaker) = (&central.link, &central.link.speaker);
        let mut was_away = true;
        loop {
            if speaker.epoch().is_none() {
                was_away = true;
                // Nothing changes meanwhile.
                link.joined.notified().await;
            }
            if std::mem::take(&mut was_away) {
                central.ask_for_all();
            }
            let begun = Instant::now();
            let waiting = self.waiting.take();
            let pause = match self.renew(speaker).await {
                Ok(()) => {
                    central.cluster.listed.store(true, Ordering::Relaxed);
                    self.lease / 3
                }
                Err(_away) => LOOK_EVERY,
            };
            if link.speaker.epoch().is_some() {
                let there = self.uids.borrow().clone();
                central.forget_others(&there, self.lease).await;
            }
            for looked in waiting {
                // Whoever asked may have stopped waiting.
                let _told = looked.send(());
            }
            sleep_until(begun + LOOK_EVERY).await;
            // Lost with a drop: nothing, who waits is in the list.
            let _asked = timeout_at(begun + pause, self.asked.notified()).await;
        }
    }

    async fn renew(&self, speaker: &Speaker) -> Result<(), LineError> {
        let set = self.key.as_bytes();
        let names = speaker.ask(&[b"SMEMBERS", set]).await?;
        let names = names.items().iter().filter_map(|name| Node::parse(name.text()?));
        let mut names: Vec<Node> = names.filter(|name| *name != self.node).collect();
        names.truncate(NODES_MAX);
        names.push(self.node);
        let keys: Vec<String> = names.iter().map(|name| self.key_of(*name)).collect();
        let words: Vec<&[u8]> =
            std::iter::once(&b"MGET"[..]).chain(keys.iter().map(String::as_bytes)).collect();
        let entries = speaker.ask(&words).await?;
        let entries: Vec<Option<&str>> = entries.items().iter().map(|entry| entry.text()).collect();
        let own = entries.last().copied().flatten();
        if own.is_some_and(|own| own != self.entry) {
            if !self.complained.replace(true) {
                error!(
                    node = self.node.as_str(),
                    "another node has the same name; start this one again"
                );
            }
        } else {
            let (key, lease) = (self.key_of(self.node), self.lease.as_millis().to_string());
            let words: [&[u8]; 5] =
                [b"SET", key.as_bytes(), self.entry.as_bytes(), b"PX", lease.as_bytes()];
            speaker.ask(&words).await?;
            speaker.ask(&[b"SADD", set, self.node.as_str().as_bytes()]).await?;
        }
        let found = names.iter().zip(entries).filter(|(name, _)| **name != self.node);
        let (there, gone): (Vec<_>, Vec<_>) = found.partition(|(_, entry)| entry.is_some());
        if !gone.is_empty() {
            let gone = gone.iter().map(|(name, _)| name.as_str().as_bytes());
            let words: Vec<&[u8]> = [&b"SREM"[..], set].into_iter().chain(gone).collect();
            speaker.ask(&words).await?;
        }
        self.take(there.into_iter().filter_map(|(name, entry)| Some((*name, entry?))));
        Ok(())
    }

    fn key_of(&self, name: Node) -> String {
        format!("{}#{}", self.key, name.as_str())
    }

    /// These are the others from now on.
    fn take<'a>(&self, there: impl Iterator<Item = (Node, &'a str)>) {
        let (mut known, mut uids) = (self.known.borrow_mut(), HashSet::new());
        let (mut now, mut changed) = (HashMap::new(), false);
        for (name, entry) in there {
            uids.extend(uid_of(entry).map(str::to_owned));
            let kept = known.remove(&name).filter(|(before, _)| before == entry);
            changed |= kept.is_none();
            let neighbour = match kept {
                Some((_, neighbour)) => Some(neighbour),
                None => self.neighbour(name, entry).map(Arc::new),
            };
            if let Some(neighbour) = neighbour {
                now.insert(name, (entry.to_owned(), neighbour));
            }
        }
        changed |= !known.is_empty();
        let mut sibling = lock(&self.sibling);
        if let Some(sibling) = &mut *sibling {
            sibling.was_listed |= now.contains_key(&sibling.node);
        }
        let is_gone = |it: &mut Sibling| it.was_listed && !now.contains_key(&it.node);
        changed |= sibling.take_if(is_gone).is_some();
        if changed {
            let reached = now.iter().map(|(name, (_, neighbour))| (*name, Arc::clone(neighbour)));
            let near = sibling.iter().map(|it| (it.node, Arc::clone(&it.neighbour)));
            // Workers look when they need it. The last one for a name counts.
            self.told.send_replace(Arc::new(reached.chain(near).collect()));
        }
        *known = now;
        // This one is there, too.
        self.gauge.add(uids.len() as i64 + 1 - self.gauge.value());
        self.uids.replace(uids);
    }

    fn neighbour(&self, name: Node, entry: &str) -> Option<Neighbour> {
        let seal = self.seal.as_ref()?;
        reach(seal, name, seal.read_entry(name, entry)?, &self.targets, false)
    }
}

/// The node as it is reached at this address.
pub fn reach(
    seal: &Seal,
    name: Node,
    address: &str,
    targets: &Arc<Targets>,
    is_sibling: bool,
) -> Option<Neighbour> {
    let target = config::Target::parse(&format!("http://{address}"), Path::new("")).ok()?;
    let words = config::Upstream {
        targets: vec![target],
        balance: config::Balance::Least,
        health: config::Health {
            path: None,
            statuses: Vec::new(),
            every: ASK_EVERY,
            timeout: CONNECT,
            rise: 1,
            fall: 1,
        },
        // A session has one home: there is nothing else to try, and nothing to wait for.
        hold: None,
        eject: None,
        slow_start: Duration::ZERO,
        max: None,
        head: usize::MAX,
        keep: KEEP,
        tls: config::UpstreamTls::default(),
    };
    let timeouts = config::Timeouts {
        handshake: CONNECT,
        head: CONNECT,
        body_idle: ANSWER,
        idle: ANSWER,
        connect: CONNECT,
        first_byte: ANSWER,
    };
    let upstream = Upstream::compile(&words, &timeouts, None, targets).ok()?;
    let badge = HeaderValue::try_from(seal.badge(name)).ok()?;
    Some(Neighbour { upstream, badge, is_sibling })
}
