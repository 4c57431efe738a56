//! One order for all nodes: with streams and recovery, what a node says comes back to it as it comes
//! to the others, and an entry's id is the offset that clients go on from anywhere.
//!
//! While Redis is away for long, this node's own messages go ahead: they are delivered here at once,
//! and not again when they come. Until they have come, clients have offsets that nobody goes on
//! from: what they have is more than a place in the stream says.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::hub::engine::{Delivery, Id, Message};
use crate::hub::namespace::Target;
use crate::hub::outbox::Notice;
use crate::hub::packet;
use crate::hub::recovery::{Stamp, is_for};
use crate::observe::metrics;

use super::Said;
use super::central::{Central, probe_of};
use super::line::LineError;
use super::link::MOVED;
use super::reading::{Before, Entry, Item, Key, Numbers, entries_after, entries_up_to};
use super::resp::command;
use super::speaker::Kind;
use super::unsure::{self, Named};
use super::wire::{Dialect, Session, id_of};

/// How much is kept for those who come back, and for how long.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keeps {
    pub messages: usize,
    pub bytes: usize,
    pub lasts: Duration,
    /// Bytes that one is sent at once.
    pub replay: usize,
}

/// A message for the sockets of one namespace.
pub struct Opened {
    pub namespace: Arc<str>,
    pub target: Arc<Target>,
    /// An array that begins with the event's name.
    pub data: String,
    pub parts: Vec<Bytes>,
}

/// A client that wants to go on, on this worker.
#[derive(Clone)]
pub struct Entering {
    pub worker: usize,
    /// Of the question, there.
    pub number: u64,
    pub namespace: Arc<str>,
    pub id: Id,
    pub rooms: Arc<[String]>,
    /// The last entry that it has.
    pub have: u64,
}

/// A client's question, and what of the stream was fetched for it.
pub struct Enter {
    entering: Entering,
    fetched: Option<Fetched>,
    until: Instant,
}

struct Fetched {
    /// With their places.
    messages: Vec<(u64, Arc<Message>)>,
    /// The newest entry that was looked at.
    end: u64,
}

/// How a message of this node's own came to its place.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// Nobody here has it yet.
    Waited,
    /// All here have it already.
    WentAhead,
    Unknown,
}

/// What was said and has not come back.
struct Unread {
    said: Said,
    /// The last entry that had been read when it was said.
    behind: u64,
    /// Since when Redis says that it has it.
    confirmed: Option<Instant>,
}

struct Kept {
    stream: Arc<str>,
    number: u64,
    namespace: Arc<str>,
    target: Arc<Target>,
    message: Arc<Message>,
}

#[derive(Default)]
pub struct Order {
    pub keeps: Cell<Keeps>,
    /// Something that was to be read is gone.
    pub is_trimmed: Cell<bool>,
    unread: RefCell<BTreeMap<Key, Unread>>,
    ahead: RefCell<HashSet<Key>>,
    /// Redis has been away for so long that nothing waits for it.
    goes_ahead: Cell<bool>,
    recent: RefCell<Recent>,
    /// Entries that repeat earlier ones, by their streams.
    repeats: RefCell<HashMap<Arc<str>, BTreeSet<u64>>>,
}

/// What was delivered last, in its order.
#[derive(Default)]
struct Recent {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// All that stands behind this entry of the stream is kept.
    since: HashMap<Arc<str>, u64>,
    /// The last entry of the stream that workers were told.
    told: HashMap<Arc<str>, u64>,
    /// The last of those that were read, in their order.
    seen: HashMap<Arc<str>, VecDeque<u64>>,
}

/// The stamp's origin says that its number is a place in the stream, and that clients have
/// everything before it and nothing else.
pub const PORTABLE: u8 = u8::MAX;
/// The same, but clients have more than that.
pub const AHEAD: u8 = PORTABLE - 1;

/// How long a client may wait until it can go on; then it begins anew.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// What Redis says it has must come back within this time, or it is said again: a failover may have
/// lost it.
const COMES_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Entries of a stream that are known to repeat others. More: the oldest are forgotten.
const REPEATS_MAX: usize = 16 << 10;
/// Entries of a stream that are known to have been read. Who has an older one last, is looked for in
/// the stream.
const SEEN_MAX: usize = 32 << 10;
/// Of what stands before a client's last entry, so much is looked at: what repeats it, the client
/// has.
const KNOWN_MAX: usize = 1024;

impl Order {
    /// A message of this node's own has come back.
    pub fn came(&self, key: Key) -> Way {
        let waited = self.unread.borrow_mut().remove(&key).is_some();
        match (self.ahead.borrow_mut().remove(&key), waited) {
            (true, _) => Way::WentAhead,
            (false, true) => Way::Waited,
            (false, false) => Way::Unknown,
        }
    }

    /// What is about to be said.
    pub fn name(&self, key: Key, stream: Arc<str>) -> Named {
        let behind = self.recent.borrow().told.get(&stream).copied().unwrap_or_default();
        Named { key, stream, behind, is_awaited: false }
    }

    /// This entry says what an earlier one has said.
    pub fn repeated(&self, stream: &Arc<str>, number: u64) {
        let mut repeats = self.repeats.borrow_mut();
        let of_stream = repeats.entry(Arc::clone(stream)).or_default();
        of_stream.insert(number);
        if of_stream.len() > REPEATS_MAX {
            of_stream.pop_first();
        }
    }

    fn is_repeat(&self, stream: &str, number: u64) -> bool {
        let repeats = self.repeats.borrow();
        repeats.get(stream).is_some_and(|of_stream| of_stream.contains(&number))
    }

    /// Whether a place in the stream says what clients have.
    fn is_portable(&self) -> bool {
        self.ahead.borrow().is_empty()
    }

    /// Has the workers deliver it, unless they have, and keeps it for those who come back.
    pub fn deliver(
        &self,
        stream: &Arc<str>,
        number: u64,
        way: Way,
        opened: Opened,
        volatile: bool,
        notices: &mut Vec<Notice>,
    ) {
        let portable = self.is_portable();
        let message = opened.message(&id_of(number));
        let origin = if portable { PORTABLE } else { AHEAD };
        let stamp = Stamp { origin, number };
        notices.push(match way {
            Way::WentAhead => Notice::Placed { namespace: Arc::clone(&opened.namespace), stamp },
            Way::Waited | Way::Unknown => Notice::Emit {
                namespace: Arc::clone(&opened.namespace),
                target: Arc::clone(&opened.target),
                message: if portable { Arc::clone(&message) } else { opened.message(NOWHERE) },
                delivery: if volatile { Delivery::Volatile } else { Delivery::Kept },
                stamp: Some(stamp),
            },
        });
        if !volatile {
            self.keep(stream, number, opened, message);
        }
    }

    /// Keeps what stands there for those who come back.
    fn keep(&self, stream: &Arc<str>, number: u64, opened: Opened, message: Arc<Message>) {
        let Opened { namespace, target, .. } = opened;
        let kept = Kept { stream: Arc::clone(stream), number, namespace, target, message };
        self.recent.borrow_mut().push(kept, &self.keeps.get());
    }

    /// The same at once, for one that has not come back.
    fn deliver_ahead(&self, key: Key, opened: Opened, notices: &mut Vec<Notice>) {
        self.ahead.borrow_mut().insert(key);
        notices.push(Notice::Emit {
            message: opened.message(NOWHERE),
            namespace: opened.namespace,
            target: opened.target,
            delivery: Delivery::Kept,
            stamp: Some(Stamp { origin: AHEAD, number: 0 }),
        });
    }
}

impl Opened {
    /// As clients are sent it.
    fn message(&self, offset: &str) -> Arc<Message> {
        let Self { namespace, data, parts, .. } = self;
        let text = packet::event(namespace, &with_offset(data, offset), parts.len());
        Arc::new(Message::with_parts(text, parts.clone()))
    }
}

/// An offset that nobody goes on from.
pub const NOWHERE: &str = "~";

/// An event's array with the offset as its last element.
pub fn with_offset(data: &str, offset: &str) -> String {
    let data = data.trim_end();
    format!("{},\"{offset}\"]", data.strip_suffix(']').unwrap_or(data))
}

impl Recent {
    fn push(&mut self, kept: Kept, keeps: &Keeps) {
        self.bytes += kept.size();
        self.kept.push_back(kept);
        while self.kept.len() > keeps.messages || self.bytes > keeps.bytes {
            let Some(gone) = self.kept.pop_front() else { return };
            self.bytes -= gone.size();
            self.since.insert(gone.stream, gone.number);
        }
    }

    /// This entry, and all before it, have been looked at.
    fn tell(&mut self, stream: &Arc<str>, number: u64) {
        self.told.insert(Arc::clone(stream), number);
        let seen = self.seen.entry(Arc::clone(stream)).or_default();
        // What is read stands behind what was read.
        if seen.back().is_none_or(|last| *last < number) {
            seen.push_back(number);
        }
        if seen.len() > SEEN_MAX {
            seen.pop_front();
        }
    }

    /// Whether the entry was there when the stream was read. Redis may have lost what another node
    /// has read: then nobody knows what stands behind that.
    fn has_seen(&self, stream: &str, number: u64) -> bool {
        let seen = self.seen.get(stream).is_some_and(|seen| seen.binary_search(&number).is_ok());
        seen || self.since.get(stream) == Some(&number)
    }

    /// Nothing is known of the stream but what comes from now on.
    fn forget(&mut self, stream: &Arc<str>) {
        self.kept.retain(|kept| kept.stream != *stream);
        self.bytes = self.kept.iter().map(Kept::size).sum();
        self.since.insert(Arc::clone(stream), u64::MAX);
    }

    /// What the client is to be sent of all that stands behind `have`; `None` if not all of it is
    /// kept.
    fn behind(&self, stream: &str, have: u64, entering: &Entering) -> Option<Vec<Arc<Message>>> {
        if self.since.get(stream).is_none_or(|since| *since > have) {
            return None;
        }
        let behind = self.kept.iter().filter(|kept| {
            kept.number > have
                && *kept.stream == *stream
                && kept.namespace == entering.namespace
                && entering.is_meant(&kept.target)
        });
        Some(behind.map(|kept| Arc::clone(&kept.message)).collect())
    }
}

impl Kept {
    fn size(&self) -> usize {
        self.message.size() + 256
    }
}

impl Entering {
    fn is_meant(&self, target: &Target) -> bool {
        is_for(target, self.id, |room| self.rooms.iter().any(|known| known == room))
    }
}

impl Central {
    pub(super) async fn say_in_order(&self, key: Key, said: Said) {
        let bytes = said.bytes.to_vec();
        let named = Named { is_awaited: true, ..self.order.name(key, Arc::clone(&said.stream)) };
        let unread = Unread { said, behind: named.behind, confirmed: None };
        self.order.unread.borrow_mut().insert(key, unread);
        self.link.speaker.say(bytes, Kind::Append(named));
        if self.order.goes_ahead.get() {
            // The main thread ends last.
            let _taken = self.items.send(Item::Ahead(key)).await;
        }
    }

    pub(super) fn take_item(self: &Rc<Self>, item: Item, notices: &mut Vec<Notice>) {
        match item {
            Item::Begins(stream, before) => self.begin_behind(stream, &before),
            Item::Entry(stream, entry) => {
                let number = entry.number().unwrap_or_default();
                let mut recent = self.order.recent.borrow_mut();
                if recent.since.get(&stream) == Some(&u64::MAX) {
                    recent.since.insert(Arc::clone(&stream), number.saturating_sub(1));
                }
                recent.tell(&stream, number);
                drop(recent);
                self.take_entry(&stream, &entry, notices);
            }
            Item::Trimmed(stream) => {
                tracing::warn!(
                    stream = &*stream,
                    "entries of the stream are gone that were not read"
                );
                metrics::series(&metrics::REDIS_GAPS, &[]).increment();
                self.order.recent.borrow_mut().forget(&stream);
                self.order.is_trimmed.set(true);
                self.link.gap.notify_one();
            }
            Item::Ahead(key) => self.go_ahead(key, notices),
            Item::AllAhead => {
                let keys: Vec<Key> = self.order.unread.borrow().keys().copied().collect();
                keys.into_iter().for_each(|key| self.go_ahead(key, notices));
            }
            Item::Lost(key) => {
                self.order.unread.borrow_mut().remove(&key);
                self.order.ahead.borrow_mut().remove(&key);
            }
            Item::Enter(enter) => self.take_enter(*enter, notices),
        }
    }

    /// What stands before is kept for those who come back, and known when it is repeated.
    fn begin_behind(&self, stream: Arc<str>, before: &Before) {
        let Before { entries, is_all } = before;
        let number = |entry: Option<&Entry>| entry.and_then(Entry::number).unwrap_or_default();
        let (first, last) = (number(entries.first()), number(entries.last()));
        // Nothing was there before them, if nothing has been trimmed.
        let since = if *is_all && !self.may_be_trimmed(entries.len()) { 0 } else { first };
        self.order.recent.borrow_mut().since.insert(Arc::clone(&stream), since);
        for entry in entries {
            let Some(number) = entry.number() else { continue };
            self.order.recent.borrow_mut().tell(&stream, number);
            let repeats = self.is_repeated(&stream, entry);
            if repeats || !self.cluster.is_ordered() {
                continue;
            }
            if let Some(opened) = self.read_kept(entry, None) {
                let message = opened.message(&id_of(number));
                self.order.keep(&stream, number, opened, message);
            }
        }
        self.order.recent.borrow_mut().told.insert(Arc::clone(&stream), last);
        let mut begins = self.cluster.begins.lock().unwrap_or_else(PoisonError::into_inner);
        begins.insert(stream, last);
    }

    /// Whether a stream with so many entries may have had others before them.
    fn may_be_trimmed(&self, entries: usize) -> bool {
        match &self.cluster.wire.dialect {
            Dialect::Streams(words) => entries as u64 >= words.length,
            _ => true,
        }
    }

    fn go_ahead(&self, key: Key, notices: &mut Vec<Notice>) {
        if self.order.ahead.borrow().contains(&key) {
            return;
        }
        let unread = self.order.unread.borrow();
        // Otherwise it has come meanwhile.
        let Some(unread) = unread.get(&key) else { return };
        let opened = self.read_own(&unread.said.fields);
        opened.into_iter().for_each(|opened| self.order.deliver_ahead(key, opened, notices));
    }

    /// Tells workers what has become of what they said.
    pub(super) async fn watch_outcomes(self: Rc<Self>) {
        loop {
            self.link.speaker.settled.notified().await;
            let outcomes = self.link.speaker.take_outcomes();
            let now = Instant::now();
            for key in &outcomes.said {
                if let Some(unread) = self.order.unread.borrow_mut().get_mut(key) {
                    unread.confirmed = Some(now);
                }
            }
            for key in &outcomes.lost {
                // The main thread ends last.
                let _taken = self.items.send(Item::Lost(*key)).await;
            }
            let (said, lost) = (outcomes.said.into(), outcomes.lost.into());
            self.tell(vec![Notice::Settled { said, lost }]).await;
        }
    }

    /// Looks whether what was said comes back, and whether it is worth waiting for.
    pub(super) async fn watch_order(self: Rc<Self>) {
        let mut away: Option<Instant> = None;
        loop {
            sleep(LOOK_EVERY).await;
            if self.cluster.is_up() {
                away = None;
                self.order.goes_ahead.set(false);
                self.say_again().await;
                continue;
            }
            let since = *away.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.link.timeout && !self.order.goes_ahead.replace(true) {
                // The main thread ends last.
                let _taken = self.items.send(Item::AllAhead).await;
            }
        }
    }

    /// What Redis said that it has and does not come, it may have lost.
    async fn say_again(&self) {
        let now = Instant::now();
        let is_late = |since: &Instant| now.duration_since(*since) > COMES_WITHIN;
        let late: Vec<Named> = {
            let unread = self.order.unread.borrow();
            let late =
                unread.iter().filter(|(_, unread)| unread.confirmed.as_ref().is_some_and(is_late));
            let name = |(key, unread): (&Key, &Unread)| {
                let (stream, behind) = (Arc::clone(&unread.said.stream), unread.behind);
                Named { key: *key, stream, behind, is_awaited: true }
            };
            late.map(name).collect()
        };
        if late.is_empty() {
            return;
        }
        let ask = async |words: &[&[u8]]| self.link.speaker.ask(words).await;
        let found = unsure::find(&self.cluster.wire.uid, &late, ask).await;
        for named in late {
            let mut unread = self.order.unread.borrow_mut();
            // Otherwise it has come meanwhile.
            let Some(unread) = unread.get_mut(&named.key) else { continue };
            // What is there is only read late.
            let is_lost = found.as_ref().is_ok_and(|found| !found.contains(&named.key));
            unread.confirmed = (!is_lost).then_some(now);
            if is_lost {
                self.link.speaker.say(unread.said.bytes.to_vec(), Kind::Append(named));
            }
        }
    }

    /// What is kept under a client's secret: from now on it is this node's, and no other's.
    pub(super) async fn recall(
        self: Rc<Self>,
        pid: Id,
        namespace: &str,
        user: Option<&str>,
    ) -> Option<Session> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.try_to_recall(pid, namespace, user).await {
                Ok(found) => return found,
                // Redis may be back in time.
                Err(_away) if Instant::now() < until => sleep(LOOK_EVERY).await,
                Err(_away) => return None,
            }
        }
    }

    async fn try_to_recall(
        &self,
        pid: Id,
        namespace: &str,
        user: Option<&str>,
    ) -> Result<Option<Session>, LineError> {
        let key = self.cluster.session_key(pid.as_str());
        let fits = |session: &Session| {
            let is_here = session.namespace.as_deref().is_none_or(|known| known == namespace);
            is_here && session.user.as_deref() == user && *session.pid == *pid.as_str()
        };
        let read = |value: super::resp::Value| Session::read(value.text()?.as_bytes()).ok();
        let seen = read(self.link.speaker.ask(&[b"GET", key.as_bytes()]).await?);
        if !seen.as_ref().is_some_and(fits) {
            return Ok(None);
        }
        // Whoever is second finds what the first has put back.
        let mut taken = read(self.link.speaker.ask(&[b"GETDEL", key.as_bytes()]).await?);
        if taken.is_none() {
            sleep(PAUSE * 2).await;
            taken = read(self.link.speaker.ask(&[b"GETDEL", key.as_bytes()]).await?);
        }
        let Some(mut session) = taken.filter(fits) else { return Ok(None) };
        let uid = &self.cluster.wire.uid;
        let before = session.node.replace(uid.as_str().into());
        let lasts = (self.order.keeps.get().lasts * 2).as_millis().to_string();
        if let Some(kept) = session.write() {
            let words: [&[u8]; 5] =
                [b"SET", key.as_bytes(), kept.as_bytes(), b"PX", lasts.as_bytes()];
            self.link.speaker.say(command(&words), Kind::Again);
        }
        match before.as_deref() {
            Some(own) if own == uid.as_str() => self.tell(vec![Notice::Taken(pid)]).await,
            Some(other) => {
                let channel = probe_of(&self.cluster.wire, other);
                let moved = [MOVED, pid.as_str().as_bytes()].concat();
                let words: [&[u8]; 3] = [b"PUBLISH", channel.as_bytes(), &moved];
                self.link.speaker.say(command(&words), Kind::Once);
            }
            None => (),
        }
        Ok(Some(session))
    }

    /// Finds out what the client has missed, and has its worker told in order.
    pub(super) async fn enter(&self, entering: Entering) {
        let until = Instant::now() + PATIENCE;
        let enter = Enter { entering, fetched: None, until };
        // The main thread ends last.
        let _taken = self.items.send(Item::Enter(Box::new(enter))).await;
    }

    /// In order: what is told before this notice, the client is sent now; what comes after it, then.
    fn take_enter(self: &Rc<Self>, enter: Enter, notices: &mut Vec<Notice>) {
        let Enter { entering, fetched, until } = enter;
        let Some(stream) = self.cluster.wire.stream(&entering.namespace) else { return };
        let recent = self.order.recent.borrow();
        let told = recent.told.get(stream.as_str()).copied();
        // What it has heard elsewhere and nobody here has would come twice; and so would what went
        // ahead.
        let is_ready = told.is_some_and(|told| told >= entering.have) && self.order.is_portable();
        // What was fetched has been looked for.
        let begins_here = fetched.is_some();
        let (begun, fetched) = match fetched {
            Some(Fetched { messages, end }) => (messages, end.max(entering.have)),
            None => (Vec::new(), entering.have),
        };
        let is_known = begins_here || recent.has_seen(&stream, entering.have);
        let behind = recent.behind(&stream, fetched, &entering).filter(|_| is_ready && is_known);
        let (worker, number) = (entering.worker, entering.number);
        if let Some(behind) = behind {
            // What comes later, comes by itself; what repeats an entry, the client has or is sent.
            let begun = begun.into_iter().filter(|(at, _)| {
                told.is_some_and(|told| *at <= told) && !self.order.is_repeat(&stream, *at)
            });
            let begun = begun.map(|(_, message)| message);
            let missed: Vec<_> = begun.chain(behind).collect();
            let bytes: usize = missed.iter().map(|message| message.size()).sum();
            let fits = bytes <= self.order.keeps.get().replay;
            let missed = fits.then(|| missed.into());
            notices.push(Notice::Entered { worker, number, missed });
            return;
        }
        if Instant::now() >= until {
            notices.push(Notice::Entered { worker, number, missed: None });
            return;
        }
        drop(recent);
        let central = Rc::clone(self);
        self.drain.spawn_background(async move {
            let fetched = if is_ready { central.fetch(&stream, &entering).await } else { Ok(None) };
            let item = match fetched {
                Ok(None) if is_ready => {
                    // Not all of it is there any more.
                    let gone = Enter { entering, fetched: None, until: Instant::now() };
                    Item::Enter(Box::new(gone))
                }
                Ok(Some(fetched)) => {
                    Item::Enter(Box::new(Enter { entering, fetched: Some(fetched), until }))
                }
                Ok(None) | Err(_) => {
                    sleep(PAUSE).await;
                    Item::Enter(Box::new(Enter { entering, fetched: None, until }))
                }
            };
            // The main thread ends last.
            let _taken = central.items.send(item).await;
        });
    }

    /// Reads what stands behind the last entry that the client has; `None` if that is not there.
    async fn fetch(&self, stream: &str, entering: &Entering) -> Result<Option<Fetched>, LineError> {
        let keeps = self.order.keeps.get();
        let (mut messages, mut bytes, mut looked) = (Vec::new(), 0, 0);
        let (mut end, mut numbers) = (entering.have, Numbers::default());
        let mut ask = async |words: &[&[u8]]| self.link.speaker.ask(words).await;
        if end != 0 {
            let have = id_of(end);
            let before = entries_up_to(stream, have.as_bytes(), KNOWN_MAX, &mut ask).await?;
            if before.entries.last().and_then(Entry::number) != Some(end) {
                return Ok(None);
            }
            for entry in &before.entries {
                numbers.repeats(entry);
            }
        }
        loop {
            let entries = entries_after(stream, end, &mut ask).await?;
            if entries.is_empty() {
                let is_whole = entering.have != 0 || !self.may_be_trimmed(looked);
                return Ok(is_whole.then_some(Fetched { messages, end }));
            }
            for entry in &entries {
                let Some(number) = entry.number() else { continue };
                end = number;
                looked += 1;
                if numbers.repeats(entry) {
                    continue;
                }
                let opened = self.read_kept(entry, Some(&entering.namespace));
                let Some(opened) = opened.filter(|opened| entering.is_meant(&opened.target)) else {
                    continue;
                };
                let message = opened.message(&id_of(number));
                bytes += message.size();
                messages.push((number, message));
            }
            if looked > keeps.messages || bytes > keeps.replay {
                return Ok(None);
            }
        }
    }
}
