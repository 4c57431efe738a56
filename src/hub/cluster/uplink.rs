//! A worker's end: what it says to other nodes leaves at the end of its turn, as one list.
//!
//! It does not wait for Redis, only for the main thread, which queues what it gets at once; while
//! that lags, sessions are not read, as in `Outbox`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::drain::Drain;

use super::asking::Ask;
use super::gossip::Told;
use super::reading::{Key, NUMBER};
use super::resp::command;
use super::wire::{Audience, Broadcast, Flags, Matter, Parcel, Payload};
use super::{Change, Cluster, Report, Said, bytes_of};

/// Reports that may wait before sessions are not read any more.
const WAITING_MAX: usize = 4096;

pub struct Uplink {
    cluster: Arc<Cluster>,
    waiting: RefCell<Vec<Report>>,
    filled: Notify,
    congested: Cell<bool>,
    /// This uplink among those of the process, and what it has said last of what is kept.
    line: usize,
    numbers: Cell<u64>,
    ordered: Cell<u64>,
}

impl Uplink {
    /// `relieved` is called when there is room again.
    pub fn start(cluster: Arc<Cluster>, drain: &Drain, relieved: impl Fn() + 'static) -> Rc<Self> {
        let (waiting, filled) = (RefCell::default(), Notify::new());
        let line = cluster.lines.fetch_add(1, Ordering::Relaxed);
        let (congested, numbers, ordered) = (Cell::new(false), Cell::new(0), Cell::new(0));
        let uplink = Rc::new(Self { cluster, waiting, filled, congested, line, numbers, ordered });
        drain.spawn_background(Rc::clone(&uplink).carry(relieved));
        uplink
    }

    fn put(&self, report: Report) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.push(report);
        self.congested.set(waiting.len() > WAITING_MAX);
        self.filled.notify_one();
    }

    pub fn is_congested(&self) -> bool {
        self.congested.get()
    }

    /// An event, for the members of other nodes. True if those of this one hear it the same way.
    pub fn emit(
        &self,
        namespace: &str,
        audience: Audience,
        packet: Payload,
        is_volatile: bool,
    ) -> bool {
        let flags = Flags { volatile: is_volatile, ..Flags::default() };
        let broadcast = Broadcast { audience, flags, request: None, packet };
        let matter = Matter::Broadcast(broadcast);
        if is_volatile || !self.is_ordered() {
            self.report(namespace, &matter, is_volatile);
            return false;
        }
        let Some((parcel, number)) = self.numbered(namespace, &matter) else { return false };
        let key = (self.line, number);
        let bytes = bytes_of(&parcel).into();
        if let Parcel::Append { stream, fields, .. } = parcel {
            let fields = fields
                .into_iter()
                .map(|(name, value)| (Bytes::from_static(name.as_bytes()), Bytes::from(value)));
            let said = Said { stream: stream.into(), bytes, fields: fields.collect() };
            self.ordered.set(number);
            self.put(Report::Append { key, said });
        }
        true
    }

    /// Whether all nodes hear everything in one order, that of the streams.
    pub fn is_ordered(&self) -> bool {
        self.cluster.is_ordered()
    }

    /// The last that was said in order, which may not be said yet.
    pub fn ordered(&self) -> Key {
        (self.line, self.ordered.get())
    }

    /// Has Redis do something that makes no difference when it is done twice.
    pub fn command(&self, words: &[&[u8]]) {
        self.put(Report::Command(command(words)));
    }

    /// Tells the nodes of this program.
    pub fn whisper(&self, told: Told) {
        self.put(Report::Whisper(told));
    }

    /// Sends a mark that this process and its twin hear in its place.
    pub fn mark(&self, mark: u64) {
        self.put(Report::Mark(mark));
    }

    /// Asks the main thread.
    pub async fn ask(&self, ask: Ask) {
        // The main thread ends last.
        let _asked = self.cluster.asks.send(ask).await;
    }

    /// Under which a socket is kept that may come back.
    pub fn session_key(&self, pid: &str) -> String {
        self.cluster.session_key(pid)
    }

    /// Whether Redis is spoken to and listened to.
    pub fn is_up(&self) -> bool {
        self.cluster.is_up()
    }

    /// The name under which this node talks over Redis.
    pub fn uid(&self) -> &str {
        &self.cluster.wire.uid
    }

    /// Where the namespace's messages stand, if there are streams.
    pub fn stream_of(&self, namespace: &str) -> Option<String> {
        self.cluster.wire.stream(namespace)
    }

    /// The entry behind which the namespace's stream is read, if that is known.
    pub fn begin_of(&self, namespace: &str) -> Option<u64> {
        self.cluster.begin_of(namespace)
    }

    /// Moves sockets of other nodes, or sends them away.
    pub fn change(&self, namespace: &str, audience: Audience, change: &Change<'_>) {
        self.report(namespace, &change.matter(audience), false);
    }

    /// What is written into a stream has a number.
    fn numbered(&self, namespace: &str, matter: &Matter<Payload>) -> Option<(Parcel, u64)> {
        let mut parcel = self.cluster.wire.write(namespace, matter)?;
        if let Parcel::Append { fields, .. } = &mut parcel {
            self.numbers.set(self.numbers.get() + 1);
            fields.push((NUMBER, format!("{}.{}", self.line, self.numbers.get()).into_bytes()));
        }
        Some((parcel, self.numbers.get()))
    }

    fn report(&self, namespace: &str, matter: &Matter<Payload>, is_volatile: bool) {
        let Some((parcel, number)) = self.numbered(namespace, matter) else { return };
        let entry = match &parcel {
            Parcel::Append { stream, .. } => Some(((self.line, number), stream.as_str().into())),
            _ => None,
        };
        self.put(Report::Say { bytes: bytes_of(&parcel), is_volatile, entry });
    }

    async fn carry(self: Rc<Self>, relieved: impl Fn()) {
        loop {
            self.filled.notified().await;
            // An error says that the process ends.
            let Ok(place) = self.cluster.reports.reserve().await else { return };
            let reports = mem::take(&mut *self.waiting.borrow_mut());
            if !reports.is_empty() {
                place.send(reports);
            }
            if self.congested.replace(false) {
                relieved();
            }
        }
    }
}

/// Keeps the others' messages coming for one namespace's rooms on this worker.
pub struct Watch {
    pub uplink: Rc<Uplink>,
    namespace: Arc<str>,
    /// Members by room, where each room is subscribed to for itself.
    rooms: RefCell<HashMap<Box<str>, usize>>,
    by_room: bool,
}

impl Watch {
    pub fn new(uplink: &Rc<Uplink>, namespace: &Arc<str>) -> Self {
        let by_room = uplink.cluster.wire.room(namespace, "room").is_some();
        let (uplink, namespace) = (Rc::clone(uplink), Arc::clone(namespace));
        Self { uplink, namespace, rooms: RefCell::default(), by_room }
    }

    /// A socket is here now, in its own room.
    pub fn entered(&self, id: &str) {
        let interest = &self.uplink.cluster.interest;
        interest.begin(&self.namespace, None);
        self.moved(id, true);
    }

    pub fn left(&self, id: &str) {
        let interest = &self.uplink.cluster.interest;
        interest.end(&self.namespace, None);
        self.moved(id, false);
    }

    /// A socket has come into a room, or left it.
    pub fn moved(&self, room: &str, is_here: bool) {
        let interest = &self.uplink.cluster.interest;
        if is_here {
            interest.begin(&self.namespace, Some(room));
        } else {
            interest.end(&self.namespace, Some(room));
        }
        if !self.by_room {
            return;
        }
        // Not every room has a channel of its own.
        let Some(subscription) = self.uplink.cluster.wire.room(&self.namespace, room) else {
            return;
        };
        if self.has_changed(room, is_here) {
            self.uplink.put(Report::Room { subscription, is_here });
        }
    }

    /// Whether it is the first who comes or the last who goes.
    fn has_changed(&self, room: &str, is_here: bool) -> bool {
        let mut rooms = self.rooms.borrow_mut();
        if is_here {
            if let Some(members) = rooms.get_mut(room) {
                *members += 1;
                return false;
            }
            rooms.insert(room.into(), 1);
            return true;
        }
        let Some(members) = rooms.get_mut(room) else { return false };
        *members -= 1;
        let is_last = *members == 0;
        if is_last {
            rooms.remove(room);
        }
        is_last
    }
}
