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
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::drain::Drain;

use super::line::{Address, Line, LineError, Reader, Writer};
use super::link::{Heard, message};
use super::resp::{Decoder, Value, command};
use super::servers::Servers;
use super::slots::{Slots, slot_of};
use super::speaker::{Kind, Speaker};
use super::subscribed::Subscribed;

pub struct Shards {
    servers: Rc<Servers>,
    timeout: Duration,
    buffer: usize,
    drain: Drain,
    spread: RefCell<Spread>,
    served: RefCell<HashMap<Address, Served>>,
    /// Servers that are listened to.
    heard: RefCell<HashSet<Address>>,
    /// Told when channels or slots have changed.
    changed: watch::Sender<u64>,
    /// Slots may have moved.
    stale: Notify,
    to: mpsc::Sender<Heard>,
    /// Told when there is a connection more or fewer.
    pub moved: Notify,
    known: Cell<bool>,
}

/// A server that has slots.
struct Served {
    speaker: Rc<Speaker>,
    listening: JoinHandle<()>,
    /// What says things, and what says them again elsewhere.
    speaking: [JoinHandle<()>; 2],
}

impl Served {
    /// It has none any more. It is listened to no longer, or all would be heard twice if it comes back;
    /// what waits to be said is still said there, and once more elsewhere if it would not have it.
    fn end(self, drain: &Drain, patience: Duration) {
        self.listening.abort();
        drain.spawn_background(async move {
            sleep(patience).await;
            self.speaking.iter().for_each(JoinHandle::abort);
        });
    }
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
            spread: RefCell::default(),
            served: RefCell::default(),
            heard: RefCell::default(),
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
        let (heard, served) = (self.heard.borrow(), self.served.borrow());
        let is_linked = |server: &Address| {
            let speaks = served.get(server).is_some_and(|one| one.speaker.epoch().is_some());
            speaks && heard.contains(server)
        };
        self.known.get() && self.spread.borrow().slots.servers().iter().all(is_linked)
    }

    pub fn add(&self, channel: String) {
        self.spread.borrow_mut().add(channel);
        self.changed.send_modify(|turn| *turn += 1);
    }

    pub fn remove(&self, channel: &String) {
        self.spread.borrow_mut().remove(channel);
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
        let spread = self.spread.borrow();
        let served = self.served.borrow();
        Some(Rc::clone(&served.get(spread.slots.of(slot_of(channel))?)?.speaker))
    }

    /// Keeps the slots as the cluster has them, for as long as the process lives.
    async fn follow(self: Rc<Self>) {
        loop {
            match self.servers.slots().await {
                Ok(slots) if self.spread.borrow().slots != slots => self.take(slots),
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
        self.spread.borrow_mut().move_to(slots);
        self.known.set(!servers.is_empty());
        let mut served = self.served.borrow_mut();
        for (server, gone) in served.extract_if(|server, _| !servers.contains(server)) {
            gone.end(&self.drain, self.timeout * 2);
            self.heard.borrow_mut().remove(&server);
        }
        for server in servers {
            served.entry(server).or_insert_with_key(|server| self.serve(server));
        }
        drop(served);
        self.changed.send_modify(|turn| *turn += 1);
        self.moved.notify_one();
    }

    fn serve(self: &Rc<Self>, server: &Address) -> Served {
        let speaker = Speaker::spread(self.timeout, self.buffer);
        let speaking = Rc::clone(self).keep_speaking(server.clone(), Rc::clone(&speaker));
        let redirecting = Rc::clone(self).redirect(Rc::clone(&speaker));
        let listening = Rc::clone(self).keep_listening(server.clone());
        Served {
            speaker,
            listening: self.drain.spawn_background(listening),
            speaking: [
                self.drain.spawn_background(speaking),
                self.drain.spawn_background(redirecting),
            ],
        }
    }

    /// Until the server has no slots.
    async fn keep_speaking(self: Rc<Self>, server: Address, speaker: Rc<Speaker>) {
        loop {
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

    /// Until the server has no slots.
    async fn keep_listening(self: Rc<Self>, server: Address) {
        loop {
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
        let (alive, ending) = (Cell::new(Instant::now()), Ending::default());
        tokio::select! {
            // Nothing is lost when an arm is dropped that the break does not lose anyway.
            error = self.hear(&mut reader, server, &alive, &ending) => error,
            error = self.subscribe(&mut writer, server, &alive, &ending) => error,
        }
    }

    /// Keeps what is subscribed to as it is wanted of this server.
    async fn subscribe(
        &self,
        writer: &mut Writer,
        server: &Address,
        alive: &Cell<Instant>,
        ending: &Ending,
    ) -> LineError {
        let mut changed = self.changed.subscribe();
        self.spread.borrow_mut().begin(server);
        loop {
            let mut bytes = Vec::new();
            for (channel, is_wanted) in self.spread.borrow_mut().take(server) {
                let verb: &[u8] = if is_wanted { b"SSUBSCRIBE" } else { b"SUNSUBSCRIBE" };
                bytes.extend(command(&[verb, channel.as_bytes()]));
                if !is_wanted {
                    *ending.borrow_mut().entry(channel).or_default() += 1;
                }
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

    async fn hear(
        &self,
        reader: &mut Reader,
        server: &Address,
        alive: &Cell<Instant>,
        ending: &Ending,
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
                && !is_expected(ending, channel)
                && self.spread.borrow().wants(server, channel)
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

/// What is wanted of which server.
#[derive(Default)]
struct Spread {
    slots: Slots,
    servers: HashMap<Address, Subscribed<String>>,
    /// What no server has.
    homeless: HashSet<String>,
}

impl Spread {
    fn add(&mut self, channel: String) {
        match self.slots.of(slot_of(channel.as_bytes())) {
            Some(server) => self.servers.entry(server.clone()).or_default().add(channel),
            None => self.homeless.insert(channel),
        };
    }

    fn remove(&mut self, channel: &String) {
        match self.slots.of(slot_of(channel.as_bytes())) {
            Some(server) => self.servers.get_mut(server).is_some_and(|one| one.remove(channel)),
            None => self.homeless.remove(channel),
        };
    }

    /// Takes each channel to the server that has it now; all are looked at.
    fn move_to(&mut self, slots: Slots) {
        self.slots = slots;
        let mut moved = std::mem::take(&mut self.homeless);
        for (server, subscribed) in &mut self.servers {
            let strays =
                |channel: &&String| self.slots.of(slot_of(channel.as_bytes())) != Some(server);
            let strays: Vec<String> = subscribed.wanted().filter(strays).cloned().collect();
            strays.iter().for_each(|stray| {
                subscribed.remove(stray);
            });
            moved.extend(strays);
        }
        let servers = self.slots.servers();
        self.servers.retain(|server, _| servers.contains(server));
        moved.into_iter().for_each(|channel| self.add(channel));
    }

    fn begin(&mut self, server: &Address) {
        self.servers.entry(server.clone()).or_default().begin();
    }

    fn take(&mut self, server: &Address) -> Vec<(String, bool)> {
        self.servers.get_mut(server).map(Subscribed::take).unwrap_or_default()
    }

    fn wants(&self, server: &Address, channel: &str) -> bool {
        self.servers.get(server).is_some_and(|server| server.wants(&channel.to_owned()))
    }
}

/// Channels that a server was told to say nothing of any more, until it says that it does not; how
/// often. No more than it was told of.
type Ending = RefCell<HashMap<String, usize>>;

/// Whether the end of a subscription is what was asked for.
fn is_expected(ending: &Ending, channel: &str) -> bool {
    let mut ending = ending.borrow_mut();
    let Some(times) = ending.get_mut(channel) else { return false };
    *times -= 1;
    if *times == 0 {
        ending.remove(channel);
    }
    true
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    /// Three servers, the slots divided among them at these two.
    fn divided(first: u16, second: u16) -> Slots {
        let range = |first: u16, last: u16, port| {
            let server = vec![Value::Text(Bytes::from("h")), Value::Number(port)];
            let (first, last) = (Value::Number(first.into()), Value::Number(last.into()));
            Value::List(vec![first, last, Value::List(server)])
        };
        let (first, second) = (first.min(second), first.max(second));
        let mut ranges = vec![range(first, second, 2)];
        if first > 0 {
            ranges.push(range(0, first - 1, 1));
        }
        if second < 16000 {
            ranges.push(range(second + 1, 16000, 3));
        }
        Slots::read(&Value::List(ranges), &Address { host: "h".to_owned(), port: 1 })
    }

    proptest! {
        /// Wherever slots move, each server is told of what it has, and of nothing else.
        #[test]
        fn each_server_is_told_of_its_own(
            steps in proptest::collection::vec((0u8..4, 0u16..30, 0u16..16384, 0u16..16384), 0..120),
        ) {
            let mut spread = Spread::default();
            let mut wanted = HashSet::new();
            let mut told: HashMap<Address, HashSet<String>> = HashMap::new();
            for (kind, number, first, second) in steps {
                let channel = format!("p#/#room {number}#");
                match kind {
                    0 => {
                        spread.add(channel.clone());
                        wanted.insert(channel);
                    }
                    1 => {
                        spread.remove(&channel);
                        wanted.remove(&channel);
                    }
                    2 => {
                        spread.move_to(divided(first, second));
                        let servers = spread.slots.servers();
                        // Whoever has none any more is listened to no more.
                        told.retain(|server, _| servers.contains(server));
                        for server in servers {
                            if let std::collections::hash_map::Entry::Vacant(new) = told.entry(server) {
                                spread.begin(new.key());
                                new.insert(HashSet::new());
                            }
                        }
                    }
                    _ => {
                        for (server, told) in &mut told {
                            for (channel, is_wanted) in spread.take(server) {
                                let is_news = if is_wanted {
                                    told.insert(channel)
                                } else {
                                    told.remove(&channel)
                                };
                                prop_assert!(is_news);
                            }
                            let is_here = |channel: &&String| {
                                spread.slots.of(slot_of(channel.as_bytes())) == Some(server)
                            };
                            let due: HashSet<_> = wanted.iter().filter(is_here).cloned().collect();
                            prop_assert_eq!(&due, &*told);
                            prop_assert!(told.iter().all(|channel| spread.wants(server, channel)));
                        }
                    }
                }
            }
        }
    }
}
