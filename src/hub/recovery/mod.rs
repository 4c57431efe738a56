//! A client that comes back after its connection was cut is the same socket, and gets what it
//! missed.
//!
//! A socket's secret (`pid`) names the worker that made it, and that one knows on which worker the
//! socket is or was. There it is said what the client has, as a vector that means the same on all
//! workers; then its new worker lets it in with what its own log has beyond that.

mod afar;
mod claim;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod log;
mod marks;
mod offset;
mod portable;
mod shelf;
#[cfg(test)]
mod simulation;
mod table;
mod ticket;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config;

use super::cluster::Keeps;
use super::engine::{Close, Delivery, FrameError, Id, Node, Outgoing, Version, random};
use super::handover::{FAR, Origins, Role, Way};
use super::hooks::Lines;
use super::namespace::{Namespace, Target};
use super::outbox::{Notice, Outbox};
use super::socket::Socket;

use claim::Asking;
use marks::Marks;
use shelf::Parcel;
use table::{Away, Room, Standing, Table};
use ticket::Leave;

pub use afar::Wish;
#[cfg(test)]
pub use afar::noted;
pub use claim::{Answer, Claim, Found, Letter, Missed, Returned, count_recovered};
pub use log::Log;
pub use offset::{Offset, Stamp};
pub use portable::{read_answer, read_claim, write_letter};
pub use ticket::{Ticket, is_for};

/// What holds for those who are away.
#[derive(Debug, Clone, Copy)]
pub struct RecoveryPolicy {
    lasts: Duration,
    messages: usize,
    bytes: usize,
    sessions: usize,
    /// How long a client may be gone unnoticed: whatever it says gives a late pong more time once.
    patience: Duration,
    /// Bytes that the queue of one takes.
    queue: usize,
}

impl RecoveryPolicy {
    pub fn compile(hub: &config::Hub) -> Option<Self> {
        hub.recovery.as_ref().map(|recovery| Self {
            lasts: recovery.lasts,
            messages: recovery.messages,
            bytes: recovery.bytes,
            sessions: recovery.sessions,
            patience: hub.ping_interval + hub.ping_timeout * 2,
            queue: hub.limits.queue,
        })
    }

    /// How much the node keeps, for all of its workers.
    pub fn keeps(&self) -> Keeps {
        let Self { messages, bytes, lasts, queue, .. } = *self;
        // Longer than anybody may be away: a cut is noticed late.
        Keeps { messages, bytes, lasts: lasts + self.patience, queue }
    }

    fn bounds(&self) -> log::Bounds {
        // Longer than anybody may be away: a cut is noticed late.
        let age = self.lasts + self.patience + ticket::LAG * 2;
        log::Bounds { messages: self.messages, bytes: self.bytes, age }
    }

    /// Who was sent something at `time` and is still here then has it: a ping that was sent after it
    /// was answered.
    fn proved_from(&self, time: Instant) -> Instant {
        time + self.patience * 2 + ticket::LAG
    }

    /// How often what is over is looked for.
    fn pause(&self) -> Duration {
        (self.lasts / 4).clamp(Duration::from_millis(20), Duration::from_secs(5))
    }
}

/// Why a client that wanted to go on begins anew; the word is the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    Unknown,
    Expired,
    /// What it missed, or what it left behind, is not kept any more, or too much to send at once.
    TooMuch,
}

impl Miss {
    fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::TooMuch => "too_much",
        }
    }
}

/// One worker's part in it.
pub struct Recovery {
    node: Node,
    worker: usize,
    workers: usize,
    /// `None` while it is off.
    policy: Cell<Option<RecoveryPolicy>>,
    changed: Notify,
    numbers: Cell<u64>,
    table: RefCell<Table>,
    outbox: Rc<Outbox>,
    lines: Rc<Lines>,
    asking: RefCell<Asking>,
    asked: Cell<u64>,
    marks: RefCell<Marks>,
    /// Somebody waits for this worker to hear what another has.
    behind: Cell<usize>,
    heard: Notify,
    origins: Arc<Origins>,
    /// Which workers have nobody left who may still come.
    left: Arc<[AtomicBool]>,
    bridge: Cell<Option<Bridged>>,
    /// All sessions of this worker were closed, as its process leaves.
    is_closed: Cell<bool>,
    /// Since when those who are still here are to go at once.
    hurried_at: Cell<Option<Instant>>,
    hurry: Notify,
}

/// Another process is spoken to.
#[derive(Debug, Clone, Copy)]
struct Bridged {
    /// Until it is known: what is said first may be heard before that.
    role: Option<Role>,
    attempt: u64,
    /// The workers of this process of which everything was heard that they said before it, as bits.
    level: u64,
}

/// How often a worker that is to end looks whether all its clients have been taken.
const LOOK: Duration = Duration::from_millis(50);
/// How long clients that were hurried have to come to the other process.
const HURRIED: Duration = Duration::from_secs(3);

impl Recovery {
    pub fn new(
        (node, worker, workers): (Node, usize, usize),
        outbox: Rc<Outbox>,
        lines: Rc<Lines>,
        (origins, left): (Arc<Origins>, Arc<[AtomicBool]>),
    ) -> Rc<Self> {
        Rc::new(Self {
            node,
            worker,
            workers,
            policy: Cell::default(),
            changed: Notify::new(),
            numbers: Cell::new(0),
            table: RefCell::default(),
            outbox,
            lines,
            asking: RefCell::default(),
            asked: Cell::new(0),
            marks: RefCell::new(Marks::new(random())),
            behind: Cell::new(0),
            heard: Notify::new(),
            origins,
            left,
            bridge: Cell::default(),
            is_closed: Cell::default(),
            hurried_at: Cell::default(),
            hurry: Notify::new(),
        })
    }

    pub fn change(
        &self,
        policy: Option<RecoveryPolicy>,
        namespaces: impl Iterator<Item = Rc<Namespace>>,
    ) {
        self.policy.set(policy);
        if policy.is_none() {
            self.table.borrow_mut().clear();
            // What is sent from now on is noted nowhere.
            namespaces.for_each(|namespace| namespace.miss());
        }
        self.changed.notify_one();
    }

    pub fn is_on(&self) -> bool {
        self.policy.get().is_some()
    }

    /// Returns when it is time to look for what is over.
    pub async fn rest(&self) {
        match self.policy.get() {
            // An earlier end only waits a little longer.
            Some(policy) => tokio::time::sleep(policy.pause()).await,
            None => self.changed.notified().await,
        }
    }

    pub fn sweep(&self, namespaces: impl Iterator<Item = Rc<Namespace>>) {
        let Some(policy) = self.policy.get() else {
            return namespaces.for_each(|namespace| namespace.log.clear());
        };
        let (now, bounds) = (Instant::now(), policy.bounds());
        namespaces.for_each(|namespace| namespace.log.prune(now, &bounds));
        self.make_room(now, &policy);
        self.renew_afar(now, &policy);
    }

    fn make_room(&self, now: Instant, policy: &RecoveryPolicy) {
        let sessions = policy.sessions.div_ceil(self.workers);
        let bytes = policy.bytes.div_ceil(self.workers);
        let room = Room { sessions, bytes, lasts: policy.lasts };
        let forgotten = self.table.borrow_mut().sweep(now, &room);
        forgotten.into_iter().for_each(|pid| self.tell_gone(pid));
    }

    /// The event's array with its offset, if it is to have one, and where it stands then.
    pub fn stamp<'a>(
        &self,
        namespace: &Namespace,
        data: &'a str,
        delivery: Delivery,
    ) -> (Cow<'a, str>, Option<Stamp>) {
        if self.ordered().is_some() {
            return (self.placed(namespace, data), None);
        }
        // What may be dropped has a place only if clients would read another one out of it.
        let stamped = delivery == Delivery::Kept || offset::ends_in_text(data);
        let (true, Ok(origin)) = (stamped && self.is_on(), u8::try_from(self.worker)) else {
            return (Cow::Borrowed(data), None);
        };
        self.numbers.set(self.numbers.get() + 1);
        let stamp = Stamp { origin, number: self.numbers.get() };
        (Offset { node: self.node, stamp }.append(data).into(), Some(stamp))
    }

    /// Keeps what was just delivered.
    pub fn note(
        &self,
        log: &Log,
        stamp: Option<Stamp>,
        target: Arc<Target>,
        message: &Rc<Outgoing>,
        delivery: Delivery,
    ) {
        let Some(stamp) = stamp else { return };
        // Workers do not change their rules at once.
        let Some(policy) = self.policy.get() else { return self.note_gap(log, stamp) };
        let parcel = Parcel { target, message: Rc::clone(message) };
        let parcel = (delivery == Delivery::Kept).then_some(parcel);
        log.append(stamp, parcel, Instant::now(), &policy.bounds());
        self.wake_behind();
    }

    /// Something is missed here from now on, or was delivered and is not kept.
    pub fn note_gap(&self, log: &Log, stamp: Stamp) {
        log.gap(stamp, Instant::now());
        self.wake_behind();
    }

    fn wake_behind(&self) {
        if self.behind.get() > 0 {
            self.heard.notify_waiters();
        }
    }

    /// Lets a socket come back from now on; returns its secret. Old clients do not know how. `shown`
    /// is the place where one that begins anew was when it was another.
    pub fn admit(
        &self,
        socket: &Rc<Socket>,
        returned: Option<(&Returned, &[Missed])>,
        shown: Option<u64>,
    ) -> Option<Id> {
        let policy = self.policy.get().filter(|_| socket.session.version == Version::V4)?;
        if self.ordered().is_some() {
            let afar = returned.and_then(|(returned, _)| returned.afar.as_ref());
            let pid = returned.map(|(returned, _)| returned.pid);
            let last = returned.and_then(|(_, missed)| missed.last()).map(|(stamp, _)| *stamp);
            return Some(self.admit_afar(socket, pid, afar.map(|afar| (afar, last)), shown));
        }
        let log = &socket.namespace.log;
        let ticket = match returned {
            Some((returned, missed)) => {
                Ticket::renewed(returned, missed, log, policy.proved_from(Instant::now()))
            }
            None => Ticket::new(Id::of_session(self.node, self.worker), log),
        };
        let pid = ticket.pid;
        // It was made a moment ago.
        let _set = socket.ticket.set(Rc::new(ticket));
        self.table.borrow_mut().put(pid, Standing::Here(Rc::clone(socket)));
        if returned.is_some() {
            self.make_room(Instant::now(), &policy);
        }
        Some(pid)
    }

    /// The socket has left; its client may come back.
    pub fn leave(&self, socket: &Rc<Socket>, why: Close) {
        let Some(ticket) = self.take_here(socket) else { return };
        let Some(policy) = self.policy.get() else { return };
        if self.ordered().is_some() && (may_return(why) || why == Close::ShuttingDown) {
            return self.leave_afar(socket, why);
        }
        let moves = why == Close::ShuttingDown && self.moves_away();
        if !may_return(why) && !moves {
            return self.tell_gone(ticket.pid);
        }
        let away = self.left(socket, ticket, &policy);
        let pid = away.ticket.pid;
        self.table.borrow_mut().put(pid, Standing::Away(Box::new(away)));
        self.make_room(Instant::now(), &policy);
    }

    /// The socket has left for good, if it is not known to be away.
    pub fn forget(&self, socket: &Socket) {
        if let Some(ticket) = self.take_here(socket) {
            self.tell_gone(ticket.pid);
        }
    }

    /// The ticket of a socket that is here; not of one whose place another has taken.
    fn take_here(&self, socket: &Socket) -> Option<Rc<Ticket>> {
        let ticket = socket.ticket.get()?;
        let mut table = self.table.borrow_mut();
        match table.find(&ticket.pid)? {
            Standing::Here(known) if std::ptr::eq(Rc::as_ptr(known), socket) => {
                drop(table.take(&ticket.pid));
                Some(Rc::clone(ticket))
            }
            _ => None,
        }
    }

    fn left(&self, socket: &Socket, ticket: Rc<Ticket>, policy: &RecoveryPolicy) -> Away {
        let (at, log) = (Instant::now(), &socket.namespace.log);
        Away {
            id: socket.id,
            namespace: Arc::clone(&socket.namespace.name),
            user: socket.user_key(),
            rooms: socket.rooms(),
            data: socket.data.borrow().clone(),
            ticket,
            leave: Leave { at, heard: log.heard(), end: log.end(), patience: policy.patience },
            due: at + policy.lasts,
        }
    }

    /// Its maker need not remember where it is.
    fn tell_gone(&self, pid: Id) {
        if self.ordered().is_some() {
            return self.forget_afar(pid);
        }
        let maker = self.maker(&pid);
        if maker != self.worker {
            self.tell(maker, Letter::Gone(pid));
        }
    }

    fn maker(&self, pid: &Id) -> usize {
        pid.maker(self.node, self.workers)
    }

    fn stamp_of(&self, offset: Option<Offset>) -> Option<Stamp> {
        offset.and_then(|offset| self.origins.of_offset(offset))
    }

    /// Another process is spoken to from now on. Returns where what this worker says to it begins.
    pub fn begin_bridge(&self, way: &Way) -> Stamp {
        self.left.get(self.worker).inspect(|left| left.store(false, Ordering::Relaxed));
        self.level_with(way.attempt, Some(way.role), self.worker);
        let origin = u8::try_from(self.worker).unwrap_or(u8::MAX);
        Stamp { origin, number: self.numbers.get() }
    }

    pub fn end_bridge(&self, attempt: u64) {
        self.bridge.set(self.bridge.get().filter(|bridged| bridged.attempt != attempt));
    }

    /// All that began there up to this is heard, or will never be.
    pub fn level(
        &self,
        stamp: Stamp,
        attempt: u64,
        namespaces: impl Iterator<Item = Rc<Namespace>>,
    ) {
        let origin = usize::from(stamp.origin);
        if origin < self.workers {
            namespaces.for_each(|namespace| namespace.log.reach(stamp));
            self.level_with(attempt, None, origin);
        } else if stamp.number > 0 {
            let now = Instant::now();
            namespaces.for_each(|namespace| namespace.log.pass(stamp, now));
        }
        self.wake_behind();
    }

    /// A mark came over Redis, behind this of what came there: all before it is heard.
    pub fn marked(
        &self,
        mark: u64,
        stamp: Stamp,
        namespace: &dyn Fn(&str) -> Option<Rc<Namespace>>,
        namespaces: impl Iterator<Item = Rc<Namespace>>,
    ) {
        namespaces.for_each(|namespace| namespace.log.reach(stamp));
        self.heard.notify_waiters();
        let (asked, next) = self.marks.borrow_mut().heard(mark, stamp.number);
        self.send_mark(next);
        for (to, letter) in asked {
            self.outbox.tell_far(Notice::Far { to, letter: Box::new(letter) });
        }
        let waiting = self.marks.borrow_mut().take(mark);
        waiting.into_iter().for_each(|letter| self.receive(letter, namespace));
    }

    fn send_mark(&self, mark: Option<u64>) {
        if let (Some(mark), Some(uplink)) = (mark, &self.outbox.uplink) {
            uplink.mark(mark);
        }
    }

    /// With the mark turned into a number of this process.
    fn at_mark(&self, returned: Arc<Returned>) -> Arc<Returned> {
        let number = returned.mark.and_then(|mark| self.marks.borrow().number(mark));
        let (Some(number), Ok(origin)) = (number, u8::try_from(self.workers)) else {
            return returned;
        };
        let mark = log::vector_of(Stamp { origin, number });
        let mut placed = Arc::unwrap_or_clone(returned);
        placed.mark = None;
        placed.have = log::both(&placed.have, &mark);
        placed.heard = log::both(&placed.heard, &mark);
        Arc::new(placed)
    }

    /// True if other nodes are heard over Redis, and there is no order in it for all.
    fn is_shared(&self) -> bool {
        self.outbox.uplink.is_some() && self.ordered().is_none()
    }

    fn level_with(&self, attempt: u64, role: Option<Role>, worker: usize) {
        let known = self.bridge.get().filter(|bridged| bridged.attempt == attempt);
        let mut bridged = known.unwrap_or(Bridged { role: None, attempt, level: 0 });
        bridged.role = role.or(bridged.role);
        bridged.level |= 1 << (worker % 64);
        self.bridge.set(Some(bridged));
    }

    /// True if everything was heard that began before the other process was spoken to.
    fn is_level(&self) -> bool {
        let all = u64::MAX >> (64 - self.workers.clamp(1, 64));
        self.bridge.get().is_some_and(|bridged| bridged.level == all)
    }

    fn is_bridged(&self) -> bool {
        self.bridge.get().is_some_and(|bridged| bridged.role.is_some())
    }

    /// True if clients that are closed go on in another process, which asks this one for them.
    fn moves_away(&self) -> bool {
        self.bridge.get().is_some_and(|bridged| bridged.role == Some(Role::Old))
    }

    pub fn closed(&self) {
        self.is_closed.set(true);
    }

    /// Returns when the other process has asked for every client that may still come, or is gone.
    ///
    /// All workers do so together: a secret's maker is asked first, wherever the client was.
    pub async fn linger(&self) {
        while self.moves_away() {
            let has_left = self.is_closed.get() && self.table.borrow().away() == 0;
            let (done, here) = (has_left && self.outbox.has_told_far(), self.worker);
            self.left.get(here).inspect(|left| left.store(done, Ordering::Relaxed));
            if self.left.iter().all(|left| left.load(Ordering::Relaxed)) {
                return;
            }
            if self.hurried_at.get().is_some_and(|since| since.elapsed() > HURRIED) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub fn hurry(&self) {
        self.hurried_at.set(Some(Instant::now()));
        self.hurry.notify_waiters();
    }

    /// Resolves when all is to go at once.
    pub async fn hurried(&self) {
        while self.hurried_at.get().is_none() {
            self.hurry.notified().await;
        }
    }

    fn tell(&self, worker: usize, letter: Letter) {
        if worker >= FAR && self.is_shared() && matches!(letter, Letter::Claim { .. }) {
            let mark = self.marks.borrow_mut().ask(worker, letter, Instant::now());
            return self.send_mark(mark);
        }
        let letter = Box::new(letter);
        if worker >= FAR {
            return self.outbox.tell_far(Notice::Far { to: worker, letter });
        }
        self.outbox.tell(worker, Notice::Recovery(letter));
    }
}

/// The event's array with the offset of what did not begin on a worker.
pub fn stamped(node: Node, stamp: Stamp, data: &str) -> String {
    Offset { node, stamp }.append(data)
}

/// Not who was sent away, broke the rules, or was closed by a process that ends.
fn may_return(why: Close) -> bool {
    matches!(
        why,
        Close::TransportClose
            | Close::TransportError
            | Close::PingTimeout
            | Close::Forced
            | Close::TooSlow
            | Close::Replaced
            // Who it is, is asked anew when it comes back.
            | Close::Expired
            | Close::Unavailable
            // Cut off at a size, which Node's clients take for a transport that failed.
            | Close::BadFrame(FrameError::TooLarge)
    )
}
