//! One client over any transport: its queue, its heartbeat, how it ends.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::Bucket;
use crate::observe::metrics;

use super::admission::Seat;
use super::outgoing::{Message, Outgoing, framed};
use super::packet::{Packet, Version};
use super::polling::Polling;
use super::queue::{Control, Queue};
use super::rest::Rest;
use super::sid::Id;
use super::timers::Kind;
use super::websocket::WebSocket;
use super::{Close, Engine, Handshake, Key};

/// One Engine.IO session.
///
/// In this order in memory: what a broadcast needs of each of its many sessions stands together, and
/// is fetched at once.
#[repr(C)]
pub struct Session {
    pub(super) queue: RefCell<Queue>,
    pub(super) phase: Cell<Phase>,
    /// The transport takes nothing now; volatile messages are dropped.
    pub(super) blocked: Cell<bool>,
    /// Waits for the end of the turn, when what was queued leaves.
    pub(super) touched: Cell<bool>,
    /// To be closed at the end of the turn, when nobody iterates over sessions.
    doomed: Cell<Option<Close>>,
    /// The client speaks the other language of the layer above (`Above::translate`).
    translates: Cell<bool>,
    pub version: Version,
    /// The client takes no binary.
    pub(super) base64: bool,
    pub(super) engine: Rc<Engine>,
    pub(super) transport: RefCell<Transport>,
    /// Where it stands in the engine's table; unique among the living.
    pub key: Key,
    heart: Cell<Heart>,
    /// What it says that is for nobody above: see `is_chatty`.
    chatter: Cell<Bucket>,
    /// Bytes of its messages, where those are counted.
    heard: Cell<Bucket>,
    /// While what it says is not taken as it comes.
    pub(super) rest: RefCell<Option<Box<Rest>>>,
    pub(super) seat: Seat,
    /// What is remembered of its first request, if anybody wants to know.
    pub handshake: Option<Rc<Handshake>>,
    pub id: Id,
    pub address: IpAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Nothing is taken or delivered any more; what was queued may still leave.
    Closing,
    Closed,
}

pub(super) enum Transport {
    Polling(Polling),
    WebSocket(WebSocket),
    Gone,
}

#[derive(Debug, Clone, Copy, Default)]
struct Heart {
    /// Changes whenever a deadline stops holding.
    serial: u32,
    awaiting: bool,
    extended: bool,
    /// When the last ping came (protocol 3).
    pinged: Option<Instant>,
}

/// Whether a message may be dropped for a client that cannot take it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Kept,
    Volatile,
}

impl Session {
    pub(super) fn new(
        engine: &Rc<Engine>,
        id: Id,
        key: Key,
        arrival: Arrival,
        transport: Transport,
    ) -> Self {
        Self {
            id,
            version: arrival.version,
            address: arrival.address,
            handshake: arrival.handshake,
            key,
            base64: arrival.base64,
            seat: arrival.seat,
            engine: Rc::clone(engine),
            blocked: Cell::new(matches!(transport, Transport::Polling(_))),
            transport: RefCell::new(transport),
            queue: RefCell::default(),
            phase: Cell::new(Phase::Open),
            touched: Cell::new(false),
            chatter: Cell::default(),
            heard: Cell::default(),
            rest: RefCell::default(),
            doomed: Cell::new(None),
            heart: Cell::default(),
            translates: Cell::new(false),
        }
    }

    /// The layer above has found a use for it: the session is pending no more.
    pub fn settle(&self) {
        self.seat.settle();
    }

    /// The layer above is reminded of it (`Above::remind`) after the time that silence may take.
    pub fn remind_later(&self) {
        self.engine.arm(self, Kind::Reminder);
    }

    pub fn transport(&self) -> &'static str {
        if matches!(&*self.transport.borrow(), Transport::Polling(_)) {
            "polling"
        } else {
            "websocket"
        }
    }

    /// From now on, messages are sent in the other language of the layer above.
    pub fn translate(&self) {
        self.translates.set(true);
    }

    pub fn is_translated(&self) -> bool {
        self.translates.get()
    }

    /// False if it came before a reload that has more of a handshake kept.
    pub fn has_shown_all(&self) -> bool {
        let wants = self.engine.wants.get();
        self.handshake.as_ref().is_some_and(|handshake| handshake.wants == wants)
    }

    /// The number of what is being read. Another number: what the client says now it may have said
    /// after it had what was sent under that one; the same: it was on its way before.
    pub fn turn(&self) -> u32 {
        self.turn_behind().unwrap_or(self.engine.turn.get())
    }

    pub(super) fn begin_turn(&self) {
        self.engine.turn.set(self.engine.turn.get().wrapping_add(1));
    }

    pub fn is_open(&self) -> bool {
        self.phase.get() == Phase::Open
    }

    /// Looks at what `send` will need, for nothing but that it is at hand then.
    pub fn fetch(&self) {
        black_box((self.phase.get(), self.queue.borrow().bytes()));
    }

    /// Queues a message; it leaves at the end of the turn. False if it was dropped.
    ///
    /// A client whose queue is full, although the transport has just been asked to take more and
    /// nothing in it may be dropped, is closed (`Close::TooSlow`), never waited for.
    pub fn send(self: &Rc<Self>, message: &Rc<Outgoing>, delivery: Delivery) -> bool {
        let volatile = delivery == Delivery::Volatile && self.blocked.get();
        if !self.is_open() || volatile || self.doomed.get().is_some() {
            self.engine.count_dropped(usize::from(volatile));
            return false;
        }
        let message = if self.translates.get() {
            let above = &self.engine.above;
            message.translated(&|text, parts| above.translate(text, parts))
        } else {
            Some(Rc::clone(message))
        };
        let Some(message) = message else {
            // Its language has no words for it.
            self.engine.count_dropped(1);
            return false;
        };
        if !self.has_space(message.size(), delivery) {
            return false;
        }
        self.queue.borrow_mut().push(message, delivery);
        self.engine.touch(self);
        true
    }

    /// Queues a text, given in pieces, that is for this session alone: as `send`, and kept. Most
    /// often it is put into the bytes that leave at once, and is nothing else in between.
    pub fn say(self: &Rc<Self>, pieces: &[&str]) {
        if !self.is_open() || self.doomed.get().is_some() {
            return;
        }
        if self.translates.get() || !self.takes_plain_frames() {
            let message = Outgoing::new(Arc::new(Message::text(pieces.concat())));
            self.send(&message, Delivery::Kept);
            return;
        }
        let frame = framed(pieces);
        if self.has_space(frame.len(), Delivery::Kept) {
            self.queue.borrow_mut().push_said(frame);
            self.engine.touch(self);
        }
    }

    /// True if so many messages of so many bytes, and an answer behind them, are taken beside what
    /// waits already.
    pub fn takes_at_once(self: &Rc<Self>, messages: usize, bytes: usize) -> bool {
        let max = self.engine.queue_max();
        let takes = || self.queue.borrow().takes_at_once(messages, bytes, max);
        takes() || {
            self.flush_now();
            takes()
        }
    }

    /// True if there is room for a message of so many bytes, also when it has to be made.
    fn has_space(self: &Rc<Self>, size: usize, delivery: Delivery) -> bool {
        let max = self.engine.queue_max();
        let fits = self.queue.borrow().fits(size, max);
        fits || self.make_space(size, max, delivery)
    }

    /// Makes room for a message: what the transport takes now leaves, then what may be dropped is.
    /// False if that was not enough, and the message is dropped or the session is to be closed.
    ///
    /// One turn may bring more than a queue holds to a client that reads all of it at once.
    fn make_space(self: &Rc<Self>, size: usize, max: usize, delivery: Delivery) -> bool {
        self.flush_now();
        if self.doomed.get().is_some() {
            return false;
        }
        let fits = || self.queue.borrow().fits(size, max);
        if fits() {
            return true;
        }
        if delivery == Delivery::Volatile {
            self.engine.count_dropped(1);
            return false;
        }
        let begun = self.has_begun();
        let dropped = self.queue.borrow_mut().drop_volatile(begun);
        self.engine.count_dropped(dropped);
        if !fits() {
            self.close_later(Close::TooSlow);
            return false;
        }
        true
    }

    pub(super) fn send_control(self: &Rc<Self>, control: Control) {
        self.queue.borrow_mut().push_control(control);
        self.engine.touch(self);
    }

    /// Closes at the end of the turn; for callers that iterate over sessions.
    pub fn close_later(self: &Rc<Self>, why: Close) {
        if self.doomed.get().is_none() {
            self.doomed.set(Some(why));
            self.engine.touch(self);
        }
    }

    /// Lets out what the transport takes in the middle of a turn, when nobody may leave.
    fn flush_now(self: &Rc<Self>) {
        let polling = matches!(&*self.transport.borrow(), Transport::Polling(_));
        if polling { self.flush_poll() } else { self.flush_at_once() }
    }

    /// Lets out what was queued in this turn, or ends what was doomed in it.
    pub(super) fn settle_turn(self: &Rc<Self>) {
        if let Some(why) = self.doomed.take() {
            return self.close(why);
        }
        let polling = matches!(&*self.transport.borrow(), Transport::Polling(_));
        if polling { self.flush_poll() } else { self.flush_from_outside() }
    }

    /// Ends the session. What was queued still leaves; what comes in is ignored.
    pub fn close(self: &Rc<Self>, why: Close) {
        if !self.is_open() {
            return;
        }
        self.phase.set(Phase::Closing);
        let polling = matches!(&*self.transport.borrow(), Transport::Polling(_));
        self.engine.ended(self, why);
        if polling { self.close_polling(why) } else { self.close_websocket(why.code()) }
    }

    /// The connection is gone, or must go at once.
    pub fn lose(self: &Rc<Self>, why: Close) {
        let was_open = self.is_open();
        self.phase.set(Phase::Closed);
        // While it still has the transport that it is counted under.
        if was_open {
            self.engine.ended(self, why);
        }
        *self.queue.borrow_mut() = Queue::default();
        // Its task must see the end; the socket closes with the transport.
        self.wake();
        drop(self.transport.replace(Transport::Gone));
        self.engine.forget(self);
    }

    /// One packet of the client.
    pub(super) fn receive(self: &Rc<Self>, packet: Packet<'_>) {
        if !self.is_open() {
            return;
        }
        let is_message = matches!(packet, Packet::Text(_) | Packet::Binary(_));
        // A pong that is waited for comes as often as we ask for it.
        let is_asked = matches!(packet, Packet::Pong(_)) && self.is_awaited();
        if !is_message && !is_asked && self.is_chatty() {
            return self.lose(Close::Flood);
        }
        if !is_asked {
            self.extend_patience();
        }
        match (packet, self.version) {
            (Packet::Text(text), _) => {
                self.count_heard(text.len());
                self.engine.above.text(self, text);
            }
            (Packet::Binary(data), _) => {
                self.count_heard(data.len());
                self.engine.above.binary(self, &data);
            }
            (Packet::Pong(_), Version::V4) if self.is_awaited() => {
                self.beat();
                self.engine.arm(self, Kind::Ping);
            }
            // Nobody asked, or its ping was given up for an upgrade.
            (Packet::Pong(_), Version::V4) => (),
            (Packet::Ping(_), Version::V3) => {
                self.send_control(Control::Pong);
                self.note_ping();
            }
            (Packet::Ping(_) | Packet::Pong(_), _) => self.close(Close::TransportError),
            (Packet::Close, _) => self.close(Close::TransportClose),
            // As Node: these mean something only on the way to another transport.
            (Packet::Open | Packet::Upgrade | Packet::Noop, _) => (),
        }
    }

    /// Counts what is no message, and so is not counted by the layer above: heartbeats that nobody
    /// asked for, frames of WebSocket's own, small pieces of messages. True if it is far too much.
    pub(super) fn is_chatty(&self) -> bool {
        let mut chatter = self.chatter.get();
        let (rate, now) = (self.engine.chatter_max(), self.engine.started.elapsed());
        let within = chatter.take(rate, now);
        self.chatter.set(chatter);
        !within
    }

    /// The client has pinged by itself. No deadline of its own: pings would fill the line of them.
    pub(super) fn note_ping(&self) {
        self.heart.set(Heart { pinged: Some(Instant::now()), ..self.heart.get() });
    }

    /// Counts the bytes of one message; who sends more than it may in a second rests.
    fn count_heard(self: &Rc<Self>, bytes: usize) {
        self.engine.count_in(bytes);
        let Some(rate) = self.engine.bytes_max() else { return };
        let (mut heard, now) = (self.heard.get(), self.engine.started.elapsed());
        let wait = heard.charge(rate, now, bytes as u64, Duration::MAX).unwrap_or_default();
        self.heard.set(heard);
        if !wait.is_zero() && self.rest(wait) {
            metrics::count(&metrics::HUB_HELD, "bytes");
        }
    }

    /// The number that deadlines of the heartbeat must carry to hold.
    pub(super) fn serial(&self) -> u32 {
        self.heart.get().serial
    }

    /// Begins the heartbeat anew: earlier deadlines hold no more.
    pub(super) fn beat(&self) {
        let serial = self.heart.get().serial.wrapping_add(1);
        self.heart.set(Heart { serial, awaiting: false, extended: false, ..self.heart.get() });
    }

    /// The client's silence (protocol 3) would be too long at `due`, had it not pinged since.
    pub(super) fn judge_silence(self: &Rc<Self>, due: Instant, patience: Duration) {
        match self.heart.get().pinged {
            Some(last) if last + patience > due => {
                self.engine.arm_from(self, Kind::Silence, last);
            }
            // Its ping may stand behind what is not read.
            _ if self.is_behind() => self.engine.arm(self, Kind::Silence),
            _ => self.close(Close::PingTimeout),
        }
    }

    /// The server pings (protocol 4), and waits for the pong.
    pub(super) fn ping(self: &Rc<Self>, due: Instant) {
        self.beat();
        self.heart.set(Heart { awaiting: true, ..self.heart.get() });
        self.send_control(Control::Ping);
        self.engine.arm_from(self, Kind::Pong, due);
    }

    /// The client's pong has not come in time.
    pub(super) fn judge_pong(self: &Rc<Self>) {
        if self.is_behind() {
            // It may stand behind what is not read; and the client waits for the next ping.
            return self.ping(Instant::now());
        }
        self.close(Close::PingTimeout);
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.heart.get().awaiting
    }

    /// The first packet while a pong is awaited shows life: the wait begins anew, once.
    fn extend_patience(self: &Rc<Self>) {
        let heart = self.heart.get();
        if heart.awaiting && !heart.extended {
            let serial = heart.serial.wrapping_add(1);
            self.heart.set(Heart { serial, extended: true, ..heart });
            self.engine.arm(self, Kind::Pong);
        }
    }
}

/// What the request that opens a session tells of it.
pub(super) struct Arrival {
    pub version: Version,
    pub address: IpAddr,
    pub base64: bool,
    pub handshake: Option<Rc<Handshake>>,
    pub seat: Seat,
}
