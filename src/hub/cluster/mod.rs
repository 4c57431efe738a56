//! Many nodes, Node's servers among them, as one.
//!
//! Workers say what others must hear, already in the wire's words, and never wait for Redis; the
//! main thread carries it there (`link`), and what comes back to them (`central`).

mod asking;
mod badge;
mod central;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gossip;
mod incoming;
mod interest;
mod line;
mod link;
mod order;
mod ordered;
mod peers;
mod questions;
mod reading;
mod registry;
mod relay;
mod resp;
mod rooms;
mod servers;
mod shards;
#[cfg(test)]
mod simulation;
mod slots;
mod speaker;
mod subscribed;
mod tls;
mod twins;
mod unsure;
mod uplink;
mod wire;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::config::{self, Adapter, Secret};

use crate::upstream::Registry as Targets;

use super::engine::{Node, random};
use super::handover::Role;

use badge::Seal;
use interest::Interest;
use reading::Key;
use registry::{Neighbours, Sibling};
use resp::command;
use servers::Servers;
use wire::{Dialect, Matter, Parcel, RoomChannels, Streams, Subscription, fresh_name};

pub use asking::{Absent, Ask, Elsewhere};
pub use central::Central;
pub use gossip::Told;
pub use order::{AHEAD, Entering, Keeps, NOWHERE, PORTABLE, Replay, with_offset};
pub use peers::{Neighbourhood, neighbourhood};
pub use reading::Key as Numbered;
pub use relay::{Entrance, Relay};
pub use tls::TrustError;
pub use uplink::{Uplink, Watch};
pub use wire::{Audience, Heads as Counted, Payload, Remote, Session, id_of, number_of};

/// What all threads know of the other nodes.
pub struct Cluster {
    wire: wire::Wire,
    interest: Interest,
    /// Other nodes are told and heard now.
    up: Arc<AtomicBool>,
    /// Others find this one in Redis.
    listed: AtomicBool,
    /// Messages get a place in the order of what clients were sent.
    recovers: AtomicBool,
    /// Of one packet that clients are sent.
    attachments: AtomicUsize,
    /// Where the reading of each stream began.
    begins: Mutex<HashMap<Arc<str>, u64>>,
    /// Over the servers of a Redis Cluster.
    is_spread: bool,
    reports: mpsc::Sender<Vec<Report>>,
    /// Uplinks that there were.
    lines: AtomicUsize,
    asks: mpsc::Sender<Ask>,
    /// For the process that takes over.
    rooms: MovedRooms,
    /// By which nodes know each other that bring each other requests.
    secret: Option<Secret>,
    neighbours: watch::Sender<Neighbours>,
    /// The other process at this address, while one takes over from the other.
    sibling: Arc<Mutex<Option<Sibling>>>,
    /// Kept until `Central` begins.
    ends: Mutex<Option<Ends>>,
}

/// Channels that another process has not been told of. As many as there are rooms, and empty but
/// while there is one.
#[derive(Default)]
struct MovedRooms {
    channels: Mutex<Vec<String>>,
    told: Notify,
}

impl MovedRooms {
    fn channels(&self) -> MutexGuard<'_, Vec<String>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, more: impl Iterator<Item = String>) {
        self.channels().extend(more);
        self.told.notify_one();
    }
}

struct Ends {
    servers: Servers,
    words: config::Redis,
    reports: mpsc::Receiver<Vec<Report>>,
    asks: mpsc::Receiver<Ask>,
}

/// What a worker has for the main thread.
enum Report {
    Say {
        bytes: Vec<u8>,
        is_volatile: bool,
        /// In a stream: which one it is, and where.
        entry: Option<(Key, Arc<str>)>,
    },
    /// Said in order, to this node too.
    Append { key: Key, said: Said },
    /// Done again after a break.
    Command(Vec<u8>),
    /// For the nodes of this program.
    Whisper(Told),
    /// To be heard by this process and its twin, in its place.
    Mark(u64),
    /// Somebody of this worker is in the room now, or nobody any more.
    Room { subscription: Subscription, is_here: bool },
}

/// A message for all nodes: as it is said, and what the entry has.
struct Said {
    stream: Arc<str>,
    bytes: Bytes,
    fields: Vec<(Bytes, Bytes)>,
}

/// Lists of reports that wait for the main thread, which only queues them.
const REPORTS: usize = 64;
/// Questions that wait. Full: whoever asks waits.
const ASKS: usize = 64;

impl Cluster {
    pub fn new(words: &config::Redis) -> Result<Arc<Self>, TrustError> {
        let (to_reports, reports) = mpsc::channel(REPORTS);
        let (to_asks, asks) = mpsc::channel(ASKS);
        let dialect = dialect(&words.wire);
        let uid = fresh_name(&dialect, random());
        let servers = Servers::new(words)?;
        let ends = Ends { servers, words: words.clone(), reports, asks };
        Ok(Arc::new(Self {
            wire: wire::Wire { dialect, prefix: words.wire.key.clone(), uid },
            interest: Interest::default(),
            up: Arc::default(),
            listed: AtomicBool::new(false),
            recovers: AtomicBool::new(false),
            attachments: AtomicUsize::new(0),
            begins: Mutex::default(),
            is_spread: words.servers == config::RedisServers::Cluster,
            reports: to_reports,
            lines: AtomicUsize::new(0),
            asks: to_asks,
            rooms: MovedRooms::default(),
            secret: words.node.as_ref().map(|node| node.secret.clone()),
            neighbours: watch::Sender::default(),
            sibling: Arc::default(),
            ends: Mutex::new(Some(ends)),
        }))
    }

    /// The name under which this node talks.
    pub fn name(&self) -> &str {
        &self.wire.uid
    }

    /// Whether two processes, one of which takes over from the other, can agree what they heard: they
    /// listen to all of it on one connection each. Streams do not need it.
    pub fn bridges(&self) -> bool {
        match self.wire.dialect {
            Dialect::Classic => true,
            Dialect::Sharded(_) => !self.is_spread,
            Dialect::Streams(_) => false,
        }
    }

    /// What is for that node is brought to this door, whatever Redis says of it.
    pub fn meet(&self, node: Node, door: &str, targets: &Arc<Targets>) {
        let Some(seal) = self.secret.as_ref().map(Seal::new) else { return };
        let Some(neighbour) = registry::reach(&seal, node, door, targets, true) else { return };
        let (neighbour, mut sibling) = (Arc::new(neighbour), registry::lock(&self.sibling));
        *sibling = Some(Sibling { node, neighbour: Arc::clone(&neighbour), was_listed: false });
        self.neighbours.send_modify(|known| {
            let mut more = HashMap::clone(known);
            more.insert(node, neighbour);
            *known = Arc::new(more);
        });
    }

    /// The process of this name takes over from this one, or the other way round.
    pub async fn pair(&self, attempt: u64, name: Box<str>, role: Role) {
        // The main thread ends last.
        let _told = self.asks.send(Ask::Pair { attempt, name, role }).await;
    }

    /// Also these are listened to, as the process before this one does.
    pub async fn listen_to(&self, channels: Vec<String>) {
        // As above.
        let _told = self.asks.send(Ask::Rooms(channels)).await;
    }

    /// Channels of rooms that the process which takes over is to listen to; waits for some.
    pub async fn moved_rooms(&self) -> Vec<String> {
        loop {
            let told = self.rooms.told.notified();
            let rooms = std::mem::take(&mut *self.rooms.channels());
            if !rooms.is_empty() {
                return rooms;
            }
            told.await;
        }
    }

    /// It is spoken to no more.
    pub async fn unpair(&self, attempt: u64) {
        // As above.
        let _told = self.asks.send(Ask::Unpair(attempt)).await;
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Whether others can bring requests here, once they have come to know of it.
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// Whether all nodes hear everything in one order, so that clients can go on anywhere.
    pub fn is_ordered(&self) -> bool {
        matches!(self.wire.dialect, Dialect::Streams(_)) && self.recovers.load(Ordering::Relaxed)
    }

    /// The entry behind which the namespace's stream is read, if that is known.
    fn begin_of(&self, namespace: &str) -> Option<u64> {
        let stream = self.wire.stream(namespace)?;
        self.begins.lock().unwrap_or_else(PoisonError::into_inner).get(&*stream).copied()
    }

    /// As Node's adapter calls it; in a cluster, where all of it must be on one server, otherwise.
    fn session_key(&self, pid: &str) -> String {
        match self.is_spread {
            true => format!("{{{}}}sio:session:{pid}", self.wire.prefix),
            false => format!("sio:session:{pid}"),
        }
    }

    fn take_ends(&self) -> Option<Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// New rules hold: which namespaces there are, whether clients may come back, and how many
    /// attachments they take.
    pub async fn change(&self, names: Vec<String>, keeps: Option<Keeps>, attachments: usize) {
        self.attachments.store(attachments, Ordering::Relaxed);
        self.recovers.store(keeps.is_some(), Ordering::Relaxed);
        // The main thread ends last.
        let _told = self.asks.send(Ask::Serve(names, keeps)).await;
    }

    /// Asks the other nodes who is meant; those of this node are not among them.
    ///
    /// Where it is only to be counted, nodes of this program say numbers, and Node's servers all.
    pub async fn ask(
        &self,
        namespace: &str,
        audience: Audience,
        counts: bool,
    ) -> Result<Elsewhere, Absent> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask::Remotes { namespace: namespace.into(), audience, counts, answer };
        // The main thread ends last.
        if self.asks.send(ask).await.is_err() {
            return Ok(Elsewhere::default());
        }
        answered.await.unwrap_or_else(|_gone| Ok(Elsewhere::default()))
    }
}

fn dialect(words: &config::Wire) -> Dialect {
    match words.adapter {
        Adapter::Classic => Dialect::Classic,
        Adapter::Sharded => Dialect::Sharded(match words.rooms {
            config::RoomChannels::Dynamic => RoomChannels::Public,
            config::RoomChannels::DynamicPrivate => RoomChannels::All,
            config::RoomChannels::Static => RoomChannels::None,
        }),
        Adapter::Streams => Dialect::Streams(Streams {
            name: words.key.clone(),
            count: u32::try_from(words.count).unwrap_or(1),
            length: words.length as u64,
            sharded: false,
        }),
    }
}

fn bytes_of(parcel: &Parcel) -> Vec<u8> {
    match parcel {
        Parcel::Publish { channel, payload } => command(&[b"PUBLISH", channel.as_bytes(), payload]),
        Parcel::ShardPublish { channel, payload } => {
            command(&[b"SPUBLISH", channel.as_bytes(), payload])
        }
        Parcel::Append { stream, length, fields } => {
            let length = length.to_string();
            let mut words: Vec<&[u8]> =
                vec![b"XADD", stream.as_bytes(), b"MAXLEN", b"~", length.as_bytes(), b"*"];
            for (name, value) in fields {
                words.extend([name.as_bytes(), value.as_slice()]);
            }
            command(&words)
        }
    }
}

/// What a node tells the others besides events.
pub enum Change<'a> {
    Join(&'a [String]),
    Leave(&'a [String]),
    Disconnect { close: bool },
}

impl Change<'_> {
    fn matter(&self, audience: Audience) -> Matter<Payload> {
        match *self {
            Self::Join(rooms) => Matter::Join { audience, rooms: rooms.to_vec(), request: None },
            Self::Leave(rooms) => Matter::Leave { audience, rooms: rooms.to_vec(), request: None },
            Self::Disconnect { close } => Matter::Disconnect { audience, close, request: None },
        }
    }
}

/// A name for offsets of what came from other nodes.
pub fn origin(workers: usize) -> Option<u8> {
    // One more than there are workers: the numbers of this one are the main thread's.
    u8::try_from(workers).ok().filter(|origin| *origin < 64)
}
