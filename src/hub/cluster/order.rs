//! One order for all nodes: with streams and recovery, what a node says comes back to it as it comes
//! to the others, and an entry's id is the offset that clients go on from anywhere.
//!
//! While Redis is away for long, this node's own messages go ahead: they are delivered here at once,
//! and not again when they come. Until they have come, clients have offsets that nobody goes on
//! from: what they have is more than a place in the stream says.
//!
//! What an offset means, everywhere: its client has every message that is meant for it and stands at
//! this entry or before it, and nothing that stands behind it only. Messages are what nodes have said,
//! not entries: of those that say the same, the first counts. So whoever lets a client in must know
//! that the entry is there, what stands behind it, and which of that repeats what stands before.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::hub::engine::{Delivery, Id, Message, takes_at_once};
use crate::hub::namespace::Target;
use crate::hub::outbox::Notice;
use crate::hub::packet;
use crate::hub::recovery::{Stamp, is_for};

use super::Said;
use super::reading::{Entry, Key, Numbers};
use super::unsure::Named;
use super::wire::id_of;

/// How much is kept for those who come back, and for how long.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keeps {
    pub messages: usize,
    pub bytes: usize,
    pub lasts: Duration,
    /// Bytes that the queue of one takes.
    pub queue: usize,
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
    pub entering: Entering,
    pub fetched: Option<Fetched>,
    pub until: Instant,
}

/// What a client missed, with its places.
pub type Replay = Arc<[(u64, Arc<Message>)]>;

/// What is to be done about it.
pub enum Next {
    /// It goes on, and is sent this at once; or begins anew.
    Enters(Option<Replay>),
    /// What it has is not known here: it stands in the stream, or nowhere.
    Fetch,
    /// This node has not read what the client has, or has said more than stands in the stream.
    Wait,
}

pub struct Fetched {
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
pub struct Unread {
    pub said: Said,
    /// The last entry that had been read when it was said.
    pub behind: u64,
    /// Since when Redis says that it has it.
    pub confirmed: Option<Instant>,
}

struct Kept {
    number: u64,
    target: Arc<Target>,
    message: Arc<Message>,
}

#[derive(Default)]
pub struct Order {
    pub keeps: Cell<Keeps>,
    /// Something that was to be read is gone.
    pub is_trimmed: Cell<bool>,
    /// Clients may have what the stream has lost, and are sent away for it: until they are gone, what
    /// they are told has no place that others go on from.
    pub outruns: Cell<bool>,
    pub unread: RefCell<BTreeMap<Key, Unread>>,
    ahead: RefCell<HashSet<Key>>,
    /// Redis has been away for so long that nothing waits for it.
    pub goes_ahead: Cell<bool>,
    recent: RefCell<Recent>,
    /// What of the streams was taken.
    read: RefCell<Numbers>,
    /// Entries that repeat earlier ones, by their streams.
    repeats: RefCell<HashMap<Arc<str>, BTreeSet<u64>>>,
}

/// What was delivered last.
#[derive(Default)]
struct Recent {
    /// Of each namespace that there is here.
    shelves: HashMap<Arc<str>, Shelf>,
    /// All that stands behind this entry of the stream was looked at.
    since: HashMap<Arc<str>, u64>,
    /// The last entry of the stream that workers were told.
    told: HashMap<Arc<str>, u64>,
    /// The last one up to which they know that they were.
    placed: HashMap<Arc<str>, u64>,
    /// The last of those that were read, in their order.
    seen: HashMap<Arc<str>, VecDeque<u64>>,
}

/// The messages of one namespace, in their order.
struct Shelf {
    stream: Arc<str>,
    kept: VecDeque<Kept>,
    bytes: usize,
    /// All that stand behind this entry are kept.
    since: u64,
}

/// The stamp's origin says that its number is a place in the stream, and that clients have
/// everything before it and nothing else.
pub const PORTABLE: u8 = u8::MAX;
/// The same, but clients have more than that.
pub const AHEAD: u8 = PORTABLE - 1;

/// Entries of a stream that are known to repeat others. More: the oldest are forgotten.
const REPEATS_MAX: usize = 16 << 10;
/// Entries of a stream that are known to have been read. Who has an older one last, is looked for in
/// the stream.
const SEEN_MAX: usize = 32 << 10;
/// Entries of all namespaces that are looked at for one who comes, if its own may not have more.
const LOOKED_MAX: usize = 64 << 10;

impl Order {
    /// These are the namespaces whose messages are kept from now on, and their streams.
    pub fn serve(&self, namespaces: impl Iterator<Item = (Arc<str>, Arc<str>)>) {
        let recent = &mut *self.recent.borrow_mut();
        let mut before = std::mem::take(&mut recent.shelves);
        for (namespace, stream) in namespaces {
            let known = before.remove(&namespace);
            let since = recent.told.get(&stream).copied().unwrap_or_default();
            let shelf = known.unwrap_or_else(|| Shelf::new(stream, since));
            recent.shelves.insert(namespace, shelf);
        }
    }

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

    /// The message never comes.
    pub fn lose(&self, key: Key) {
        self.unread.borrow_mut().remove(&key);
        self.ahead.borrow_mut().remove(&key);
    }

    /// Reading begins behind these, which are kept for those who come back; all that stood behind
    /// `since` is among them.
    pub fn begin(
        &self,
        stream: &Arc<str>,
        since: u64,
        before: &[Entry],
        open: impl Fn(&Entry) -> Option<Opened>,
    ) {
        let last = before.last().and_then(Entry::number).unwrap_or_default();
        self.recent.borrow_mut().since.insert(Arc::clone(stream), since);
        for entry in before {
            self.read(stream, entry);
            let number = entry.number().filter(|_| !self.repeats(stream, entry, None));
            if let (Some(number), Some(opened)) = (number, open(entry)) {
                let message = opened.message(&id_of(number));
                self.keep(number, opened, message);
            }
        }
        self.recent.borrow_mut().told.insert(Arc::clone(stream), last);
    }

    /// Takes note of an entry, whatever it says.
    pub fn read(&self, stream: &Arc<str>, entry: &Entry) {
        let Some(number) = entry.number() else { return };
        let mut recent = self.recent.borrow_mut();
        if recent.since.get(stream) == Some(&u64::MAX) {
            // What stood before this is gone: a client that has it has what nobody else knows of.
            recent.since.insert(Arc::clone(stream), number);
        }
        recent.tell(stream, number);
    }

    /// What was to be read is gone.
    pub fn trim(&self, stream: &Arc<str>) {
        self.recent.borrow_mut().forget(stream);
        self.is_trimmed.set(true);
        self.outruns.set(true);
    }

    /// Whether an earlier entry has said the same, which is remembered. `own`: what this node calls
    /// it, if it has said it.
    pub fn repeats(&self, stream: &Arc<str>, entry: &Entry, own: Option<Key>) -> bool {
        // What it still waits for has never come.
        let is_awaited = own.is_some_and(|key| self.unread.borrow().contains_key(&key));
        let repeats = self.read.borrow_mut().repeats(entry) && !is_awaited;
        if let (true, Some(number)) = (repeats, entry.number()) {
            self.repeated(stream, number);
        }
        repeats
    }

    fn repeated(&self, stream: &Arc<str>, number: u64) {
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

    /// The same of what clients are told now.
    fn is_placed(&self) -> bool {
        self.is_portable() && !self.outruns.get()
    }

    /// Tells workers up to where they have been told everything, whatever it was.
    pub fn place(&self, notices: &mut Vec<Notice>) {
        if !self.is_placed() {
            return;
        }
        let Recent { told, placed, .. } = &mut *self.recent.borrow_mut();
        for (stream, &number) in &*told {
            if placed.insert(Arc::clone(stream), number) != Some(number) {
                let (stream, stamp) = (Arc::clone(stream), Stamp { origin: PORTABLE, number });
                notices.push(Notice::Placed { stream, stamp });
            }
        }
    }

    /// Has the workers deliver it, unless they have, and keeps it for those who come back.
    pub fn deliver(
        &self,
        number: u64,
        way: Way,
        opened: Opened,
        volatile: bool,
        notices: &mut Vec<Notice>,
    ) {
        let portable = self.is_placed();
        let message = opened.message(&id_of(number));
        let origin = if portable { PORTABLE } else { AHEAD };
        let stamp = Stamp { origin, number };
        match way {
            Way::WentAhead => {}
            Way::Waited | Way::Unknown => notices.push(Notice::Emit {
                namespace: Arc::clone(&opened.namespace),
                target: Arc::clone(&opened.target),
                message: if portable { Arc::clone(&message) } else { opened.message(NOWHERE) },
                delivery: if volatile { Delivery::Volatile } else { Delivery::Kept },
                stamp: Some(stamp),
            }),
        }
        if !volatile {
            self.keep(number, opened, message);
        }
    }

    /// Keeps what stands there for those who come back.
    fn keep(&self, number: u64, opened: Opened, message: Arc<Message>) {
        let Opened { namespace, target, .. } = opened;
        if let Some(shelf) = self.recent.borrow_mut().shelves.get_mut(&namespace) {
            shelf.push(Kept { number, target, message }, &self.keeps.get());
        }
    }

    /// The same at once, for one that has not come back.
    pub fn go_ahead(
        &self,
        key: Key,
        open: impl Fn(&Said) -> Option<Opened>,
        notices: &mut Vec<Notice>,
    ) {
        if self.ahead.borrow().contains(&key) {
            return;
        }
        // Otherwise it has come meanwhile.
        let opened = self.unread.borrow().get(&key).and_then(|unread| open(&unread.said));
        let Some(opened) = opened else { return };
        self.ahead.borrow_mut().insert(key);
        notices.push(Notice::Emit {
            message: opened.message(NOWHERE),
            namespace: opened.namespace,
            target: opened.target,
            delivery: Delivery::Kept,
            stamp: Some(Stamp { origin: AHEAD, number: 0 }),
        });
    }

    /// In order: what is told before this, the client is sent now; what comes after it, then.
    pub fn enter(&self, stream: &str, enter: &Enter) -> Next {
        let Enter { entering, fetched, until } = enter;
        let recent = self.recent.borrow();
        let told = recent.told.get(stream).copied();
        // What it has heard elsewhere and nobody here has would come twice; and so would what went
        // ahead.
        let told = told.filter(|told| *told >= entering.have && self.is_portable());
        let behind = told.and_then(|_| match fetched {
            // What was lost since it was fetched may come again.
            Some(fetched) if recent.confirms(stream, fetched) => {
                recent.behind(stream, fetched.end, entering)
            }
            Some(_) => None,
            None if recent.has_seen(stream, entering.have) => {
                recent.behind(stream, entering.have, entering)
            }
            // Nobody knows what stands behind an entry that is not there.
            None => None,
        });
        let (Some(told), Some(behind)) = (told, behind) else {
            return match told {
                _ if Instant::now() >= *until => Next::Enters(None),
                Some(_) => Next::Fetch,
                None => Next::Wait,
            };
        };
        // What comes later, comes by itself; what repeats an entry, the client has or is sent.
        let fetched = fetched.iter().flat_map(|fetched| &fetched.messages);
        let fetched = fetched.filter(|(at, _)| *at <= told && !self.is_repeat(stream, *at));
        let missed: Vec<_> = fetched.cloned().chain(behind).collect();
        let bytes: usize = missed.iter().map(|(_, message)| message.size()).sum();
        let fits = takes_at_once(missed.len(), bytes, self.keeps.get().queue);
        Next::Enters(fits.then(|| missed.into()))
    }
}

/// What stands behind a client's last entry, as it is read.
pub struct Fetching<'a> {
    entering: &'a Entering,
    keeps: Keeps,
    numbers: Numbers,
    fetched: Fetched,
    /// Of its namespace.
    messages: usize,
    bytes: usize,
    pub looked: usize,
}

impl<'a> Fetching<'a> {
    pub fn new(entering: &'a Entering, keeps: Keeps) -> Self {
        let fetched = Fetched { messages: Vec::new(), end: entering.have };
        let (numbers, messages, bytes, looked) = Default::default();
        Self { entering, keeps, numbers, fetched, messages, bytes, looked }
    }

    /// The last entry that was looked at.
    pub fn end(&self) -> u64 {
        self.fetched.end
    }

    /// Takes note of what stands up to the client's last entry; false if that is not there.
    pub fn know(&mut self, before: &[Entry]) -> bool {
        for entry in before {
            self.numbers.repeats(entry);
        }
        before.last().and_then(Entry::number) == Some(self.entering.have)
    }

    /// Takes the next; false if it is too much.
    pub fn take(&mut self, entries: &[Entry], open: impl Fn(&Entry) -> Option<Opened>) -> bool {
        for entry in entries {
            let Some(number) = entry.number() else { continue };
            self.fetched.end = number;
            self.looked += 1;
            if self.numbers.repeats(entry) {
                continue;
            }
            let opened = open(entry);
            let opened = opened.filter(|opened| opened.namespace == self.entering.namespace);
            self.messages += usize::from(opened.is_some());
            if let Some(opened) = opened.filter(|opened| self.entering.is_meant(&opened.target)) {
                let message = opened.message(&id_of(number));
                self.bytes += message.size();
                self.fetched.messages.push((number, message));
            }
        }
        self.messages <= self.keeps.messages
            && self.looked <= self.keeps.messages.max(LOOKED_MAX)
            && takes_at_once(self.fetched.messages.len(), self.bytes, self.keeps.queue)
    }

    pub fn done(self) -> Fetched {
        self.fetched
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

impl Shelf {
    fn new(stream: Arc<str>, since: u64) -> Self {
        Self { stream, kept: VecDeque::new(), bytes: 0, since }
    }

    fn push(&mut self, kept: Kept, keeps: &Keeps) {
        self.bytes += kept.size();
        self.kept.push_back(kept);
        while self.kept.len() > keeps.messages || self.bytes > keeps.bytes {
            let Some(gone) = self.kept.pop_front() else { return };
            self.bytes -= gone.size();
            self.since = gone.number;
        }
    }
}

impl Recent {
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

    /// Whether all that was fetched stood there when this node came by.
    fn confirms(&self, stream: &str, fetched: &Fetched) -> bool {
        let Some(seen) = self.seen.get(stream) else { return true };
        let (first, last) = (seen.front().copied(), seen.back().copied());
        fetched.messages.iter().map(|(at, _)| *at).all(|at| {
            let has_come_by = first.is_some_and(|first| first <= at) && Some(at) <= last;
            !has_come_by || seen.binary_search(&at).is_ok()
        })
    }

    /// Nothing is known of the stream but what comes from now on.
    fn forget(&mut self, stream: &Arc<str>) {
        let shelves = self.shelves.values_mut().filter(|shelf| shelf.stream == *stream);
        shelves.for_each(|shelf| *shelf = Shelf::new(Arc::clone(stream), shelf.since));
        self.since.insert(Arc::clone(stream), u64::MAX);
    }

    /// What the client is to be sent of all that stands behind `have`; `None` if not all of it is
    /// kept.
    fn behind(
        &self,
        stream: &str,
        have: u64,
        entering: &Entering,
    ) -> Option<Vec<(u64, Arc<Message>)>> {
        let shelf = self.shelves.get(&entering.namespace)?;
        let since = self.since.get(stream)?;
        if have < shelf.since.max(*since) {
            return None;
        }
        let is_behind = |kept: &&Kept| kept.number > have && entering.is_meant(&kept.target);
        let behind = shelf.kept.iter().filter(is_behind);
        Some(behind.map(|kept| (kept.number, Arc::clone(&kept.message))).collect())
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
