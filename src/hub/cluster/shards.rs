//! Shard pub/sub of a Redis Cluster: each channel is spoken and listened to at the server that has
//! its slot, over connections of its own.
//!
//! Which server that is, is asked again and again, and at once when one of them says that it is
//! another.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::drain::Drain;

use super::line::{Address, Line, LineError, Reader, Writer};
use super::link::{Heard, message};
use super::resp::{Decoder, Value, command};
use super::servers::Servers;
use super::slots::{Slots, slot_of};
use super::speaker::{Kind, Speaker};

pub struct Shards {
    servers: Rc<Servers>,
    timeout: Duration,
    buffer: usize,
    drain: Drain,
    slots: RefCell<Slots>,
    speakers: RefCell<HashMap<Address, Rc<Speaker>>>,
    /// Servers that are listened to.
    heard: RefCell<HashSet<Address>>,
    wanted: RefCell<HashSet<String>>,
    /// Told when channels or slots have changed.
    changed: watch::Sender<u64>,
    /// Slots may have moved.
    stale: Notify,
    to: mpsc::Sender<Heard>,
    /// Told when there is a connection more or fewer.
    pub moved: Notify,
    known: Cell<bool>,
}

/// Between two looks at which server has what.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const LOOK_SOON: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(100);
/// How often a server that says nothing is asked for a sign of life.
const BEAT: Duration = Duration::from_secs(1);

impl Shards {
    pub fn start(
        servers: &Rc<Servers>,
        (limit, buffer): (Duration, usize),
        to: mpsc::Sender<Heard>,
        drain: &Drain,
    ) -> Rc<Self> {
        let shards = Rc::new(Self {
            servers: Rc::clone(servers),
            timeout: limit,
            buffer,
            drain: drain.clone(),
            slots: RefCell::default(),
            speakers: RefCell::default(),
            heard: RefCell::default(),
            wanted: RefCell::default(),
            changed: watch::Sender::new(0),
            stale: Notify::new(),
            to,
            moved: Notify::new(),
            known: Cell::new(false),
        });
        drain.spawn_background(Rc::clone(&shards).follow());
        shards
    }

    /// Whether all servers are spoken to and listened to.
    pub fn is_whole(&self) -> bool {
        let (heard, speakers) = (self.heard.borrow(), self.speakers.borrow());
        let is_linked = |server: &Address| {
            let speaks = speakers.get(server).is_some_and(|speaker| speaker.epoch().is_some());
            speaks && heard.contains(server)
        };
        self.known.get() && self.slots.borrow().servers().iter().all(is_linked)
    }

    pub fn add(&self, channel: String) {
        self.wanted.borrow_mut().insert(channel);
        self.changed.send_modify(|turn| *turn += 1);
    }

    pub fn remove(&self, channel: &str) {
        self.wanted.borrow_mut().remove(channel);
        self.changed.send_modify(|turn| *turn += 1);
    }

    /// At the server that has the channel; lost, and counted, while there is none.
    pub fn say(&self, channel: &[u8], bytes: Vec<u8>, kind: Kind) {
        match self.speaker_of(channel) {
            Some(speaker) => speaker.say(bytes, kind),
            None => super::speaker::dropped("unsure", 1),
        }
    }

    pub fn speaker_of(&self, channel: &[u8]) -> Option<Rc<Speaker>> {
        let slots = self.slots.borrow();
        self.speakers.borrow().get(slots.of(slot_of(channel))?).cloned()
    }

    /// Keeps the slots as the cluster has them, for as long as the process lives.
    async fn follow(self: Rc<Self>) {
        loop {
            match self.servers.slots().await {
                Ok(slots) if *self.slots.borrow() != slots => self.take(slots),
                Ok(_) => (),
                Err(error) => debug!(reason = %error, "the cluster does not say who has what"),
            }
            sleep(LOOK_SOON).await;
            // Lost with a drop: nothing, it only looks earlier.
            let _stale = timeout(LOOK_EVERY, self.stale.notified()).await;
        }
    }

    fn take(self: &Rc<Self>, slots: Slots) {
        let servers = slots.servers();
        self.slots.replace(slots);
        self.known.set(!servers.is_empty());
        let new = |server: &&Address| !self.speakers.borrow().contains_key(*server);
        let new: Vec<Address> = servers.iter().filter(new).cloned().collect();
        for server in new {
            let speaker = Speaker::spread(self.timeout, self.buffer);
            self.speakers.borrow_mut().insert(server.clone(), Rc::clone(&speaker));
            let speaking = Rc::clone(self).keep_speaking(server.clone(), Rc::clone(&speaker));
            self.drain.spawn_background(speaking);
            self.drain.spawn_background(Rc::clone(self).keep_listening(server));
            self.drain.spawn_background(Rc::clone(self).redirect(speaker));
        }
        // Those that are none any more end by themselves.
        self.speakers.borrow_mut().retain(|server, _| servers.contains(server));
        self.changed.send_modify(|turn| *turn += 1);
        self.moved.notify_one();
    }

    fn serves(&self, server: &Address) -> bool {
        self.speakers.borrow().contains_key(server)
    }

    async fn keep_speaking(self: Rc<Self>, server: Address, speaker: Rc<Speaker>) {
        while self.serves(&server) {
            let error = match self.servers.open_at(&server).await {
                Ok(line) => {
                    self.moved.notify_one();
                    speaker.speak(line).await
                }
                Err(error) => error,
            };
            debug!(server = server.host, port = server.port, reason = %error, "no shard is spoken to");
            self.moved.notify_one();
            self.stale.notify_one();
            sleep(PAUSE).await;
        }
    }

    /// Says again, where it is taken, what a server would not have.
    async fn redirect(self: Rc<Self>, speaker: Rc<Speaker>) {
        loop {
            speaker.strayed.notified().await;
            self.stale.notify_one();
            sleep(LOOK_SOON * 2).await;
            for (bytes, kind) in speaker.take_strays() {
                if let Some(channel) = channel_of(&bytes) {
                    self.say(&channel, bytes, kind);
                }
            }
        }
    }

    async fn keep_listening(self: Rc<Self>, server: Address) {
        while self.serves(&server) {
            let error = match self.servers.open_at(&server).await {
                Ok(line) => {
                    self.heard.borrow_mut().insert(server.clone());
                    self.moved.notify_one();
                    self.listen(line, &server).await
                }
                Err(error) => error,
            };
            self.heard.borrow_mut().remove(&server);
            debug!(server = server.host, port = server.port, reason = %error, "no shard is heard");
            self.moved.notify_one();
            self.stale.notify_one();
            sleep(PAUSE).await;
        }
    }

    async fn listen(&self, line: Line, server: &Address) -> LineError {
        let Line { mut reader, mut writer } = line;
        let alive = Cell::new(Instant::now());
        tokio::select! {
            // Nothing is lost when an arm is dropped that the break does not lose anyway.
            error = self.hear(&mut reader, server, &alive) => error,
            error = self.subscribe(&mut writer, server, &alive) => error,
        }
    }

    /// Keeps what is subscribed to as it is wanted of this server.
    async fn subscribe(
        &self,
        writer: &mut Writer,
        server: &Address,
        alive: &Cell<Instant>,
    ) -> LineError {
        let (mut told, mut changed) = (HashSet::new(), self.changed.subscribe());
        loop {
            let mut bytes = Vec::new();
            {
                let wanted: HashSet<String> = {
                    let wanted = self.wanted.borrow();
                    wanted.iter().filter(|channel| self.is_at(channel, server)).cloned().collect()
                };
                for gone in told.difference(&wanted) {
                    bytes.extend(command(&[b"SUNSUBSCRIBE", gone.as_bytes()]));
                }
                for new in wanted.difference(&told) {
                    bytes.extend(command(&[b"SSUBSCRIBE", new.as_bytes()]));
                }
                told = wanted;
            }
            if let Err(error) = writer.send(&bytes).await {
                return error;
            }
            if timeout(BEAT, changed.changed()).await.is_ok() {
                continue;
            }
            if alive.get().elapsed() > self.timeout * 2 + BEAT {
                return LineError::Late(self.timeout * 2);
            }
            if let Err(error) = writer.send(&command(&[b"PING"])).await {
                return error;
            }
        }
    }

    fn is_at(&self, channel: &str, server: &Address) -> bool {
        self.slots.borrow().of(slot_of(channel.as_bytes())) == Some(server)
    }

    async fn hear(
        &self,
        reader: &mut Reader,
        server: &Address,
        alive: &Cell<Instant>,
    ) -> LineError {
        loop {
            let value = match reader.next().await {
                Ok(Value::Error(words)) => {
                    return LineError::Refused(String::from_utf8_lossy(&words).into_owned());
                }
                Ok(value) => value,
                Err(error) => return error,
            };
            alive.set(Instant::now());
            if let Some(channel) = ended(&value)
                && self.is_at(channel, server)
                && self.wanted.borrow().contains(channel)
            {
                // Its slot has moved away: it is subscribed to anew where that is now.
                return LineError::Closed;
            }
            let Some((channel, payload)) = message(value) else { continue };
            if self.to.send(Heard { channel, payload }).await.is_err() {
                return LineError::Closed;
            }
        }
    }
}

/// The channel that is not subscribed to any more.
fn ended(value: &Value) -> Option<&str> {
    match value.items() {
        [word, channel, ..] if word.text() == Some("sunsubscribe") => channel.text(),
        _ => None,
    }
}

/// The channel that a command to publish names.
pub fn channel_of(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.starts_with(b"*3\r\n$8\r\nSPUBLISH\r\n") {
        return None;
    }
    let value = Decoder::default().next(&mut BytesMut::from(bytes)).ok()??;
    let [_, Value::Text(channel), _] = value.items() else { return None };
    Some(channel.to_vec())
}
