//! What one worker delivered in one namespace, kept for those who are away.
//!
//! Every worker hears every message, those of one origin in their order; how origins interleave
//! differs from worker to worker. So what a client has is said as a `Vector`, the highest number
//! by origin, which means the same everywhere.

use std::cell::{Ref, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::hub::engine::{Id, Outgoing};

use super::offset::Stamp;
use super::shelf::{Kept, Parcel, Shelf};

/// The highest number by origin, all below it included; what is not there is 0.
pub type Vector = Arc<[u64]>;

pub fn number_of(vector: &[u64], origin: u8) -> u64 {
    vector.get(usize::from(origin)).copied().unwrap_or_default()
}

/// With this message and all before it of the same origin, and nothing else.
pub fn vector_of(stamp: Stamp) -> Vec<u64> {
    let mut vector = vec![0; usize::from(stamp.origin)];
    vector.push(stamp.number);
    vector
}

pub fn has(vector: &[u64], stamp: Stamp) -> bool {
    stamp.number <= number_of(vector, stamp.origin)
}

/// The higher number of each origin.
pub fn both(one: &[u64], other: &[u64]) -> Vector {
    let origins = one.len().max(other.len());
    let at = |vector: &[u64], index| vector.get(index).copied().unwrap_or_default();
    (0..origins).map(|index| at(one, index).max(at(other, index))).collect()
}

/// How much is kept. Full: the oldest goes, and who needed it begins anew.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub messages: usize,
    pub bytes: usize,
    pub age: Duration,
}

struct Entry {
    stamp: Stamp,
    at: Instant,
    /// Nothing for what is not sent again: it only gives clients a place in the order.
    kept: Option<Kept>,
}

/// An entry of what may be sent again.
pub struct Found<'a> {
    pub stamp: Stamp,
    kept: &'a Kept,
    shelf: &'a Shelf,
}

impl Found<'_> {
    /// Whether it is meant for the socket `id`, who is in these rooms and in its own.
    pub fn is_for(&self, id: Id, inside: impl Fn(&str) -> bool) -> bool {
        self.shelf.is_for(self.kept, id, inside)
    }

    pub fn message(&self) -> Rc<Outgoing> {
        self.shelf.message(self.kept)
    }
}

#[derive(Default)]
pub struct Log(RefCell<Entries>);

/// Invariant: an entry's position is `first` plus its index, and the positions in `origins` are
/// those of all entries.
#[derive(Default)]
struct Entries {
    entries: VecDeque<Entry>,
    shelf: Shelf,
    first: u64,
    bytes: usize,
    origins: Vec<Origin>,
    /// When the newest of those that are gone was delivered.
    gone_at: Option<Instant>,
    /// Made when asked for; many sockets that come at once share it.
    heard: Option<Vector>,
}

/// The messages that began on one worker.
#[derive(Default)]
struct Origin {
    heard: u64,
    gone: u64,
    positions: VecDeque<u64>,
}

/// Where a stamp stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    At(u64),
    Gone,
    /// Nobody here has it.
    Unheard,
}

impl Log {
    /// One past the newest.
    pub fn end(&self) -> u64 {
        self.0.borrow().end()
    }

    /// The oldest that is kept.
    pub fn first(&self) -> u64 {
        self.0.borrow().first
    }

    pub fn append(&self, stamp: Stamp, parcel: Option<Parcel>, at: Instant, bounds: &Bounds) {
        let mut log = self.0.borrow_mut();
        let kept = parcel.map(|parcel| log.shelf.put(parcel));
        log.append(Entry { stamp, at, kept });
        log.prune(at, bounds);
    }

    /// Of an origin that is met, all up to this was delivered elsewhere, and is not kept. Of one that
    /// was known before, it is a gap.
    pub fn pass(&self, stamp: Stamp, at: Instant) {
        let mut log = self.0.borrow_mut();
        let heard = log.origin(stamp.origin).heard;
        if heard == 0 {
            log.skip(stamp, at);
        } else if heard < stamp.number {
            drop(log);
            self.gap(stamp, at);
        }
    }

    /// Something was said that is not kept, or was not heard: all goes that stands before it, and who
    /// is away begins anew.
    pub fn gap(&self, stamp: Stamp, at: Instant) {
        self.clear();
        self.0.borrow_mut().skip(stamp, at);
    }

    /// All of this origin up to this one was delivered, whichever of it was for this namespace.
    pub fn reach(&self, stamp: Stamp) {
        let mut log = self.0.borrow_mut();
        let origin = log.origin(stamp.origin);
        origin.heard = origin.heard.max(stamp.number);
        log.heard = None;
    }

    /// Lets go what is too old or too much.
    pub fn prune(&self, now: Instant, bounds: &Bounds) {
        let mut log = self.0.borrow_mut();
        log.prune(now, bounds);
        if log.entries.is_empty() {
            log.give_back();
        }
    }

    pub fn clear(&self) {
        let mut log = self.0.borrow_mut();
        while log.drop_oldest() {}
        log.give_back();
    }

    /// All that was ever delivered here.
    pub fn heard(&self) -> Vector {
        let mut log = self.0.borrow_mut();
        let Entries { heard, origins, .. } = &mut *log;
        let heard = heard.get_or_insert_with(|| origins.iter().map(|line| line.heard).collect());
        Arc::clone(heard)
    }

    pub fn has_heard(&self, vector: &[u64]) -> bool {
        let log = self.0.borrow();
        let heard = |index: usize| log.origins.get(index).map_or(0, |origin| origin.heard);
        vector.iter().enumerate().all(|(index, number)| *number <= heard(index))
    }

    /// What was delivered before `position`, which is still here.
    pub fn before(&self, position: u64) -> Vector {
        let log = self.0.borrow();
        log.origins.iter().map(|origin| log.number_before(origin, position)).collect()
    }

    /// What is not here any more.
    pub fn gone(&self) -> Vector {
        self.0.borrow().origins.iter().map(|origin| origin.gone).collect()
    }

    /// True if nothing that was delivered after `since` is gone.
    pub fn reaches_back_to(&self, since: Instant) -> bool {
        self.0.borrow().gone_at.is_none_or(|gone_at| gone_at <= since)
    }

    /// True if everything that `vector` lacks is here, or was delivered before `since`.
    pub fn covers(&self, vector: &[u64], since: Instant) -> bool {
        let log = self.0.borrow();
        let mut origins = (0..).zip(&log.origins);
        origins.all(|(index, origin)| origin.gone <= number_of(vector, index))
            || log.gone_at.is_none_or(|gone_at| gone_at <= since)
    }

    /// True if everything that `vector` lacks is here.
    pub fn has_all_after(&self, vector: &[u64]) -> bool {
        let log = self.0.borrow();
        (0..).zip(&log.origins).all(|(index, origin)| origin.gone <= number_of(vector, index))
    }

    pub fn place(&self, stamp: Stamp) -> Place {
        let log = self.0.borrow();
        let Some(origin) = log.origins.get(usize::from(stamp.origin)) else {
            return Place::Unheard;
        };
        if stamp.number > origin.heard {
            return Place::Unheard;
        }
        if stamp.number <= origin.gone {
            return Place::Gone;
        }
        // Several that are not sent again stand together, under the last one's number.
        let index = origin.positions.partition_point(|at| log.number_at(*at) < stamp.number);
        origin.positions.get(index).map_or(Place::Gone, |at| Place::At(*at))
    }

    /// The entries that `vector` lacks and that may be sent again, with their positions, in the
    /// order of this worker.
    pub fn after<'a>(&'a self, vector: &'a [u64]) -> After<'a> {
        let log = self.0.borrow();
        let firsts = (0..).zip(&log.origins).filter_map(|(index, origin)| {
            let number = number_of(vector, index);
            let next = origin.positions.partition_point(|at| log.number_at(*at) <= number);
            origin.positions.get(next).copied()
        });
        let next = firsts.min().unwrap_or(log.end());
        After { log, vector, next }
    }
}

/// See `Log::after`.
pub struct After<'a> {
    log: Ref<'a, Entries>,
    vector: &'a [u64],
    next: u64,
}

impl After<'_> {
    /// Calls `visit` with each.
    pub fn for_each(self, mut visit: impl FnMut(u64, &Found<'_>)) {
        let Entries { entries, shelf, first, .. } = &*self.log;
        let skip = usize::try_from(self.next - first).unwrap_or(usize::MAX);
        for (position, Entry { stamp, kept, .. }) in (self.next..).zip(entries.iter().skip(skip)) {
            if let Some(kept) = kept.as_ref().filter(|_| !has(self.vector, *stamp)) {
                visit(position, &Found { stamp: *stamp, kept, shelf });
            }
        }
    }
}

impl Entries {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn at(&self, position: u64) -> Option<&Entry> {
        let index = position.checked_sub(self.first)?;
        self.entries.get(usize::try_from(index).ok()?)
    }

    fn number_at(&self, position: u64) -> u64 {
        self.at(position).map_or(0, |entry| entry.stamp.number)
    }

    fn number_before(&self, origin: &Origin, position: u64) -> u64 {
        let count = origin.positions.partition_point(|at| *at < position);
        let last = count.checked_sub(1).and_then(|last| origin.positions.get(last));
        last.map_or(origin.gone, |at| self.number_at(*at))
    }

    fn origin(&mut self, origin: u8) -> &mut Origin {
        let index = usize::from(origin);
        if self.origins.len() <= index {
            self.origins.resize_with(index + 1, Origin::default);
        }
        self.origins.get_mut(index).expect("there are as many as were made")
    }

    /// Only where nothing is kept of its origin.
    fn skip(&mut self, stamp: Stamp, at: Instant) {
        let origin = self.origin(stamp.origin);
        origin.heard = origin.heard.max(stamp.number);
        origin.gone = origin.heard;
        (self.heard, self.gone_at) = (None, self.gone_at.max(Some(at)));
    }

    fn append(&mut self, entry: Entry) {
        let position = self.end();
        self.origin(entry.stamp.origin).heard = entry.stamp.number;
        self.heard = None;
        let last = self.entries.back_mut();
        let stands_with = |last: &Entry| {
            entry.kept.is_none() && last.kept.is_none() && last.stamp.origin == entry.stamp.origin
        };
        if let Some(last) = last.filter(|last| stands_with(last)) {
            (last.stamp, last.at) = (entry.stamp, entry.at);
            return;
        }
        self.origin(entry.stamp.origin).positions.push_back(position);
        self.bytes += entry.kept.as_ref().map_or(0, Kept::size);
        self.entries.push_back(entry);
    }

    fn prune(&mut self, now: Instant, bounds: &Bounds) {
        let is_due = |log: &Self| {
            let old = |entry: &Entry| now.saturating_duration_since(entry.at) > bounds.age;
            log.entries.len() > bounds.messages
                || log.bytes > bounds.bytes
                || log.entries.front().is_some_and(old)
        };
        while is_due(self) && self.drop_oldest() {}
    }

    /// Nothing is kept, nor is memory for it.
    fn give_back(&mut self) {
        (self.entries, self.shelf) = (VecDeque::new(), Shelf::default());
        self.origins.iter_mut().for_each(|origin| origin.positions = VecDeque::new());
    }

    /// False if there was none.
    fn drop_oldest(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else { return false };
        self.first += 1;
        self.bytes -= entry.kept.as_ref().map_or(0, Kept::size);
        if let Some(kept) = &entry.kept {
            self.shelf.take_off(kept);
        }
        self.gone_at = self.gone_at.max(Some(entry.at));
        if let Some(origin) = self.origins.get_mut(usize::from(entry.stamp.origin)) {
            origin.gone = origin.gone.max(entry.stamp.number);
            origin.positions.pop_front();
        }
        true
    }
}
