//! The link to Redis: spoken over one connection, listened to on another, both opened again when
//! they break, and proved: what is said must come back over a subscribed channel.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::drain::Drain;
use crate::observe::metrics::{self, Series};

use super::line::{Line, LineError, Reader, Writer};
use super::resp::{Value, command};
use super::servers::Servers;
use super::shards::{Shards, channel_of};
use super::speaker::{Kind, Speaker};
use super::subscribed::Subscribed;
use super::wire::Subscription;

/// What came over a channel.
pub struct Heard {
    pub channel: Bytes,
    pub payload: Bytes,
}

/// What a node tells another one alone: the client with this secret is here now.
pub const MOVED: &[u8] = b"moved ";

/// Messages that are not looked at yet. Full: Redis is not read, which keeps them.
pub const HEARD: usize = 1024;

pub struct Link {
    pub speaker: Rc<Speaker>,
    pub servers: Rc<Servers>,
    pub timeout: Duration,
    /// Streams of which it is not known yet where reading begins.
    unread: Cell<usize>,
    wanted: RefCell<Subscribed<Subscription>>,
    changed: Notify,
    probe: Subscription,
    /// The last number that was said, and the last of those that came back.
    proof: Cell<u64>,
    echoed: Cell<u64>,
    echo: Notify,
    to: mpsc::Sender<Heard>,
    /// Of a Redis Cluster, if its shards are used.
    shards: OnceCell<Rc<Shards>>,
    hears: Cell<bool>,
    /// Has been up, so that what was missed since is a gap.
    was_up: Cell<bool>,
    /// Said once for each change.
    complained: Cell<bool>,
    up: Arc<AtomicBool>,
    gauge: Arc<Series>,
    pub gap: Notify,
    /// Told each time it comes up.
    pub joined: Notify,
}

/// Between two proofs.
const PROVE_EVERY: Duration = Duration::from_secs(1);
/// Between two attempts to connect: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Link {
    /// `probe` is subscribed to by nobody else; `up` says to other threads how it is.
    pub fn new(
        servers: Servers,
        speaker: Rc<Speaker>,
        limit: Duration,
        probe: Subscription,
        up: Arc<AtomicBool>,
    ) -> (Rc<Self>, mpsc::Receiver<Heard>) {
        let (to, heard) = mpsc::channel(HEARD);
        let mut wanted = Subscribed::default();
        wanted.add(probe.clone());
        let link = Self {
            speaker,
            servers: Rc::new(servers),
            timeout: limit,
            unread: Cell::new(0),
            wanted: RefCell::new(wanted),
            changed: Notify::new(),
            probe,
            proof: Cell::new(0),
            echoed: Cell::new(0),
            echo: Notify::new(),
            to,
            shards: OnceCell::new(),
            hears: Cell::new(false),
            was_up: Cell::new(false),
            complained: Cell::new(false),
            up,
            gauge: metrics::series(&metrics::REDIS_UP, &[]),
            gap: Notify::new(),
            joined: Notify::new(),
        };
        (Rc::new(link), heard)
    }

    pub fn start(self: &Rc<Self>, drain: &Drain) {
        drain.spawn_background(Rc::clone(self).keep_speaking());
        drain.spawn_background(Rc::clone(self).keep_listening());
    }

    /// Speaks and listens to each of a cluster's servers about its own channels, from now on.
    pub fn spread(self: &Rc<Self>, buffer: usize, drain: &Drain) {
        let shards = Shards::start(&self.servers, (self.timeout, buffer), self.to.clone(), drain);
        // It is said once, at the start.
        let _set = self.shards.set(Rc::clone(&shards));
        let link = Rc::clone(self);
        drain.spawn_background(async move {
            loop {
                shards.moved.notified().await;
                link.mark(link.hears.get(), None);
            }
        });
    }

    /// Says something, at the server that takes it.
    pub fn say(&self, bytes: Vec<u8>, kind: Kind) {
        if let Some(shards) = self.shards.get()
            && let Some(channel) = channel_of(&bytes)
        {
            return shards.say(&channel, bytes, kind);
        }
        self.speaker.say(bytes, kind);
    }

    /// The one who is asked about a channel.
    pub fn speaker_of(&self, channel: &str) -> Option<Rc<Speaker>> {
        match self.shards.get() {
            Some(shards) => shards.speaker_of(channel.as_bytes()),
            None => Some(Rc::clone(&self.speaker)),
        }
    }

    /// It is not up before so many streams are read.
    pub fn wait_for(&self, streams: usize) {
        self.unread.set(streams);
    }

    pub fn is_waited_for_no_more(&self) {
        self.unread.set(self.unread.get().saturating_sub(1));
        self.mark(self.hears.get(), None);
    }

    /// Listens to it from now on.
    pub fn add(&self, subscription: Subscription) {
        if let (Some(shards), Subscription::Shard(channel)) = (self.shards.get(), &subscription) {
            return shards.add(channel.clone());
        }
        self.wanted.borrow_mut().add(subscription);
        self.changed.notify_one();
    }

    pub fn remove(&self, subscription: &Subscription) {
        if let (Some(shards), Subscription::Shard(channel)) = (self.shards.get(), subscription) {
            return shards.remove(channel);
        }
        self.wanted.borrow_mut().remove(subscription);
        self.changed.notify_one();
    }

    async fn keep_speaking(self: Rc<Self>) {
        let mut pause = PAUSE;
        loop {
            let error = match self.servers.open().await {
                Ok(line) => {
                    pause = PAUSE;
                    self.speaker.speak(line).await
                }
                Err(error) => error,
            };
            self.mark(self.hears.get(), Some(&error));
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn keep_listening(self: Rc<Self>) {
        let mut pause = PAUSE;
        loop {
            let error = match self.servers.open().await {
                Ok(line) => {
                    let error = self.listen(line).await;
                    if self.hears.get() {
                        pause = PAUSE;
                    }
                    error
                }
                Err(error) => error,
            };
            self.mark(false, Some(&error));
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn listen(&self, line: Line) -> LineError {
        let Line { mut reader, mut writer } = line;
        tokio::select! {
            // Nothing is lost when an arm is dropped that the break does not lose anyway.
            error = self.hear(&mut reader) => error,
            error = self.subscribe(&mut writer) => error,
            error = self.prove() => error,
        }
    }

    /// Keeps what is subscribed to as it is wanted.
    async fn subscribe(&self, writer: &mut Writer) -> LineError {
        self.wanted.borrow_mut().begin();
        loop {
            let mut bytes = Vec::new();
            let mut is_proved = false;
            for (name, is_wanted) in self.wanted.borrow_mut().take() {
                if name == self.probe {
                    is_proved = is_wanted;
                } else {
                    bytes.extend(words(&name, is_wanted));
                }
            }
            if is_proved {
                // The last: once it is heard, the others are.
                bytes.extend(words(&self.probe, true));
            }
            if let Err(error) = writer.send(&bytes).await {
                return error;
            }
            self.changed.notified().await;
        }
    }

    async fn hear(&self, reader: &mut Reader) -> LineError {
        loop {
            let value = match reader.next().await {
                Ok(Value::Error(words)) => {
                    let words = String::from_utf8_lossy(&words).into_owned();
                    return LineError::Refused(words);
                }
                Ok(value) => value,
                Err(error) => return error,
            };
            let Some((channel, payload)) = message(value) else { continue };
            let is_own = channel == self.probe.name().as_bytes();
            if is_own && !payload.starts_with(MOVED) {
                let number = std::str::from_utf8(&payload).ok();
                let number = number.and_then(|number| number.parse().ok());
                // What nobody has said proves nothing.
                if let Some(number) = number.filter(|number| *number <= self.proof.get()) {
                    self.echoed.set(number);
                    self.echo.notify_one();
                }
                continue;
            }
            if self.to.send(Heard { channel, payload }).await.is_err() {
                return LineError::Closed;
            }
        }
    }

    /// Says something again and again, and waits for it to come back.
    async fn prove(&self) -> LineError {
        loop {
            let Some(epoch) = self.speaker.epoch() else {
                sleep(PAUSE).await;
                continue;
            };
            let number = self.proof.get() + 1;
            self.proof.set(number);
            let verb: &[u8] = match self.probe {
                Subscription::Shard(_) => b"SPUBLISH",
                _ => b"PUBLISH",
            };
            let words = [verb, self.probe.name().as_bytes(), number.to_string().as_bytes()]
                .map(<[u8]>::to_vec);
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            self.speaker.say(command(&words), Kind::Once);
            let echoed = async {
                while self.echoed.get() < number {
                    self.echo.notified().await;
                }
            };
            // Its way there and back, each of which has a deadline.
            let in_time = timeout(self.timeout * 2, echoed).await.is_ok();
            if in_time {
                self.mark(true, None);
                sleep(PROVE_EVERY).await;
            } else if self.speaker.epoch() == Some(epoch) {
                return LineError::Deaf(self.timeout * 2);
            }
        }
    }

    /// Notes how it is now; says so if that has changed.
    fn mark(&self, hears: bool, why: Option<&LineError>) {
        self.hears.set(hears);
        let is_whole = self.shards.get().is_none_or(|shards| shards.is_whole());
        let is_spoken = self.speaker.epoch().is_some() && is_whole;
        let is_up = hears && self.unread.get() == 0 && is_spoken;
        let before = self.up.swap(is_up, Ordering::Relaxed);
        self.gauge.add(i64::from(is_up) - i64::from(before));
        if is_up && !before {
            self.complained.set(false);
            info!("other nodes are reached over Redis");
            self.joined.notify_one();
            if self.was_up.replace(true) {
                metrics::series(&metrics::REDIS_GAPS, &[]).increment();
                self.gap.notify_one();
            }
        }
        let Some(error) = why else { return };
        if self.complained.replace(true) {
            debug!(reason = %error, "no link to Redis yet");
        } else {
            warn!(reason = %error, "no link to Redis; clients are served by this node alone");
        }
    }
}

fn words(subscription: &Subscription, begins: bool) -> Vec<u8> {
    let verb: &[u8] = match (subscription, begins) {
        (Subscription::Channel(_), true) => b"SUBSCRIBE",
        (Subscription::Channel(_), false) => b"UNSUBSCRIBE",
        (Subscription::Pattern(_), true) => b"PSUBSCRIBE",
        (Subscription::Pattern(_), false) => b"PUNSUBSCRIBE",
        (Subscription::Shard(_), true) => b"SSUBSCRIBE",
        (Subscription::Shard(_), false) => b"SUNSUBSCRIBE",
    };
    command(&[verb, subscription.name().as_bytes()])
}

impl Subscription {
    pub fn name(&self) -> &str {
        match self {
            Self::Channel(name) | Self::Pattern(name) | Self::Shard(name) => name,
        }
    }
}

/// A message's channel and its payload; `None` for what only confirms.
pub fn message(value: Value) -> Option<(Bytes, Bytes)> {
    let (Value::List(items) | Value::Push(items)) = value else { return None };
    match (items.first()?.text()?, items.as_slice()) {
        ("message" | "smessage", [_, Value::Text(channel), Value::Text(payload)])
        | ("pmessage", [_, _, Value::Text(channel), Value::Text(payload)]) => {
            Some((channel.clone(), payload.clone()))
        }
        _ => None,
    }
}
