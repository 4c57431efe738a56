//! Engine.IO: sessions over any transport.
//!
//! Moves texts and binary data for a session and knows nothing of what they are about; the layer
//! above is told through `Above`. One engine per worker; sessions never leave the worker that
//! made them, requests for them are brought there.

mod admission;
mod counts;
mod deflate;
mod echo;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod handshake;
mod http;
mod origin;
mod outgoing;
pub mod packet;
mod polling;
mod posts;
mod probe;
mod queue;
mod reply;
mod request;
mod rest;
mod session;
mod sid;
mod timers;
mod websocket;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use ::http::header::HeaderName;
use bytes::Bytes;
use slab::Slab;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::auth::{Credentials, Wanted};
use crate::drain::Drain;
use crate::exchange::Client;
use crate::limits::Rate;
use crate::observe::metrics;

pub use admission::{Admission, Bounds};
pub use deflate::Deflate;
pub use echo::serve as echo;
pub use frame::FrameError;
pub use handshake::Handshake;
pub use http::{Answered, Ask, MAILBOX};
pub use origin::Origins;
pub use outgoing::{Message, Outgoing};
pub use packet::Version;
pub use queue::takes_at_once;
pub use reply::is_websocket;
pub use session::{Delivery, Session};
pub use sid::{ALPHABET, Id, Node, WORKERS_MAX, random};

use counts::Counts;
use http::heed;
use session::{Arrival, Transport};
use timers::{Deadline, Kind, Timers};
use websocket::WebSocket;

/// Who stands behind credentials, as a number.
pub type Owner = [u8; 32];
pub type Owners<'a> = Pin<Box<dyn Future<Output = Vec<Owner>> + 'a>>;

/// What the layer above does with its sessions.
pub trait Above {
    fn opened(&self, session: &Rc<Session>);
    fn text(&self, session: &Rc<Session>, text: &str);
    fn binary(&self, session: &Rc<Session>, data: &[u8]);
    /// Called once, however the session ends.
    fn closed(&self, session: &Rc<Session>, why: Close);
    /// Called once for each `Session::remind_later`.
    fn remind(&self, session: &Rc<Session>);
    /// A message in the other language of this layer, for sessions that speak it
    /// (`Session::translate`); `None` if it cannot be said there.
    fn translate(&self, text: &str, parts: &[Bytes]) -> Option<Vec<u8>>;
    /// False if nobody could say who it is now, so that it had better come later.
    fn may_open(&self, shown: &Credentials, client: &Client) -> bool;
    /// Whose sessions these credentials are: numbers that stay when a cookie is renewed.
    fn owners<'a>(&'a self, shown: &'a Credentials, client: &'a Client) -> Owners<'a>;
    /// True if the session is of one of these owners: it goes on with the new credentials.
    fn adopt(&self, session: &Rc<Session>, owners: &[Owner], shown: &Credentials) -> bool;
    /// True if nothing should be read for now; the waker is called when that changes.
    fn is_congested(&self, waker: &Waker) -> bool;
}

/// What the engine does differently from one configuration to the next.
#[derive(Debug, Clone)]
pub struct Settings {
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
    /// A WebSocket must have taken over by then, counted from its first byte.
    pub upgrade_timeout: Duration,
    /// By when the layer above must have found a use for the session (`Session::settle`).
    pub settle: Duration,
    /// Bytes of one message from a client (`maxPayload`).
    pub message_max: usize,
    /// Bytes queued for one client.
    pub queue_max: usize,
    /// What a client may say that is no message: see `Session::is_chatty`.
    pub chatter: Rate,
    /// Bytes of messages that a client may send in a time; who sends more is not listened to for as
    /// long as they take.
    pub bytes: Option<Rate>,
    pub origins: Origins,
    /// How messages are compressed for clients that take it; `None`: not at all.
    pub deflate: Option<Deflate>,
    pub bounds: Bounds,
    /// Headers of the handshake that are kept with the session; `None`: nothing is.
    pub remember: Option<Vec<HeaderName>>,
    /// Cookies and tokens that are kept with it; `None`: nobody is identified.
    pub credentials: Option<Wanted>,
}

impl Default for Settings {
    /// Node's.
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            settle: Duration::from_secs(45),
            message_max: 1_000_000,
            queue_max: 1024 * 1024,
            chatter: Rate::new(u32::MAX, Duration::from_secs(1), u32::MAX),
            bytes: None,
            origins: Origins::default(),
            deflate: None,
            bounds: Bounds::default(),
            remember: None,
            credentials: None,
        }
    }
}

/// Why a session ended.
#[expect(clippy::enum_variant_names, reason = "the protocol's own words")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    TransportClose,
    TransportError,
    /// Its client has come back on another connection.
    Replaced,
    PingTimeout,
    ParseError,
    BadFrame(FrameError),
    /// The layer above wanted it.
    Forced,
    /// It never became anything (`Settings::settle`).
    Unsettled,
    /// Its queue was full.
    TooSlow,
    /// It sent far more than it may.
    Flood,
    /// It began what it did not end.
    Unfinished,
    ShuttingDown,
    /// Who it is cannot be told now.
    Unavailable,
    /// What said who it is has ended.
    Expired,
}

impl Close {
    /// The metric's label.
    pub fn word(self) -> &'static str {
        match self {
            Self::TransportClose => "transport_close",
            Self::TransportError => "transport_error",
            Self::Replaced => "replaced",
            Self::PingTimeout => "ping_timeout",
            Self::ParseError => "parse_error",
            Self::BadFrame(FrameError::TooLarge) => "message_too_large",
            Self::BadFrame(_) => "bad_frame",
            Self::Forced => "forced",
            Self::Unsettled => "connect_timeout",
            Self::TooSlow => "too_slow",
            Self::Flood => "flood",
            Self::Unfinished => "unfinished_packet",
            Self::ShuttingDown => "shutting_down",
            Self::Unavailable => "auth_unavailable",
            Self::Expired => "auth_expired",
        }
    }

    /// The word of Node's `disconnect` event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TransportClose | Self::TooSlow | Self::Replaced => "transport close",
            Self::Unavailable | Self::Expired => "transport close",
            Self::TransportError | Self::BadFrame(_) => "transport error",
            Self::PingTimeout => "ping timeout",
            Self::ParseError | Self::Unfinished => "parse error",
            Self::Forced | Self::Unsettled | Self::Flood => "forced server close",
            Self::ShuttingDown => "server shutting down",
        }
    }

    /// The WebSocket close code; Node sends none but for bad frames.
    fn code(self) -> Option<u16> {
        match self {
            Self::BadFrame(error) => Some(error.code()),
            // Try again later (RFC 6455's registry).
            Self::Unavailable | Self::Expired => Some(1013),
            _ => None,
        }
    }

    /// True if a polling client still asks and is to hear of it: it has done nothing wrong, or has
    /// closed the session while its GET was on the way, over another connection.
    fn is_told(self) -> bool {
        let ours =
            matches!(self, Self::Forced | Self::Unsettled | Self::TooSlow | Self::ShuttingDown);
        let comes_back = matches!(self, Self::Unavailable | Self::Expired);
        ours || comes_back || self == Self::TransportClose
    }
}

/// Where a session stands in the table. A place is used again, but never with the same birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Key {
    pub index: u32,
    birth: u32,
}

#[derive(Default)]
struct Table {
    sessions: Slab<Rc<Session>>,
    by_id: HashMap<Id, u32>,
    births: u32,
}

impl Table {
    /// What a crowd needed goes when it has left; looked at rarely, since it takes time.
    fn give_back(&mut self, timers: &mut Timers) {
        let left = self.sessions.len();
        if left == 0 || left.is_power_of_two() {
            self.sessions.shrink_to_fit();
            self.by_id.shrink_to(left * 2);
            timers.retain(|key| self.known(key).is_some());
        }
    }

    fn known(&self, key: Key) -> Option<&Rc<Session>> {
        self.sessions.get(key.index as usize).filter(|session| session.key == key)
    }
}

/// How long a closed WebSocket may take to go, and a closed polling session to be heard.
const LINGER: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(30)];
/// How long a GET, and a POST that rests, is held while an upgrade may come; and how long a GET may
/// come after the client's own close.
const NOOP_AFTER: Duration = Duration::from_millis(90);
/// Sessions whose queues are written before others have their turn.
const FLUSHES_PER_TURN: usize = 256;
/// Sessions whose memory is fetched together. Each is somewhere else, and the kernel's part of a
/// write drives out what was at hand: one after the other, every one would be waited for.
pub const FETCHED_AT_ONCE: usize = 8;

/// The sessions of one worker.
pub struct Engine {
    pub node: Node,
    pub worker: usize,
    settings: RefCell<Rc<Settings>>,
    table: RefCell<Table>,
    timers: RefCell<Timers>,
    earlier: Notify,
    touched: RefCell<VecDeque<Rc<Session>>>,
    flusher: RefCell<Option<Waker>>,
    above: Rc<dyn Above>,
    /// The mailboxes of all workers, this one's too.
    workers: Arc<[mpsc::Sender<Ask>]>,
    admission: Arc<Admission>,
    tickets: Cell<u64>,
    /// How often more is kept of a handshake than before.
    wants: Cell<u32>,
    /// See `Session::turn`.
    turn: Cell<u32>,
    started: Instant,
    drain: Drain,
    /// All sessions are being closed: one that still opens is closed as well.
    leaves: Cell<bool>,
    counts: Counts,
}

/// One worker's place among those of its process.
pub struct Place {
    pub node: Node,
    pub worker: usize,
    pub workers: Arc<[mpsc::Sender<Ask>]>,
    pub mailbox: mpsc::Receiver<Ask>,
    pub admission: Arc<Admission>,
}

impl Engine {
    /// Starts the engine's few tasks on this worker.
    pub fn start(
        place: Place,
        settings: Settings,
        above: Rc<dyn Above>,
        drain: &Drain,
    ) -> Rc<Self> {
        let engine = Rc::new(Self {
            node: place.node,
            worker: place.worker,
            settings: RefCell::new(Rc::new(settings)),
            table: RefCell::default(),
            timers: RefCell::default(),
            earlier: Notify::new(),
            touched: RefCell::default(),
            flusher: RefCell::default(),
            above,
            workers: place.workers,
            admission: place.admission,
            tickets: Cell::new(0),
            wants: Cell::new(0),
            turn: Cell::new(0),
            started: Instant::now(),
            drain: drain.clone(),
            leaves: Cell::new(false),
            counts: Counts::new(),
        });
        drain.spawn_background(Rc::clone(&engine).keep_time());
        drain.spawn_background(Rc::clone(&engine).flush_turns());
        drain.spawn_background(heed(Rc::clone(&engine), place.mailbox));
        engine
    }

    /// Takes effect with the next deadline, request or message of each session.
    pub fn change(&self, settings: Settings) {
        let before = self.settings();
        let remembered = before.remember.as_deref();
        let is_new = |name| remembered.is_none_or(|known| !known.contains(name));
        let remembers_more = match settings.remember.as_deref() {
            Some([]) => remembered.is_none(),
            names => names.unwrap_or_default().iter().any(is_new),
        };
        if settings.credentials != before.credentials || remembers_more {
            self.wants.set(self.wants.get().wrapping_add(1));
        }
        *self.settings.borrow_mut() = Rc::new(settings);
    }

    /// Every session, for those who close them.
    pub fn sessions(&self) -> Vec<Rc<Session>> {
        self.table.borrow().sessions.iter().map(|(_, session)| Rc::clone(session)).collect()
    }

    fn settings(&self) -> Rc<Settings> {
        Rc::clone(&self.settings.borrow())
    }

    fn queue_max(&self) -> usize {
        self.settings.borrow().queue_max
    }

    fn chatter_max(&self) -> Rate {
        self.settings.borrow().chatter
    }

    fn message_max(&self) -> usize {
        self.settings.borrow().message_max
    }

    fn upgrade_timeout(&self) -> Duration {
        self.settings.borrow().upgrade_timeout
    }

    /// Enters a new session and tells the layer above.
    fn open(self: &Rc<Self>, arrival: Arrival, transport: Transport) -> Rc<Session> {
        self.count_transport(&transport, 1);
        let id = Id::of_session(self.node, self.worker);
        let session = {
            let mut table = self.table.borrow_mut();
            table.births = table.births.wrapping_add(1);
            let birth = table.births;
            let entry = table.sessions.vacant_entry();
            // 2^32 sessions would need terabytes.
            let index = u32::try_from(entry.key()).unwrap_or(u32::MAX);
            let key = Key { index, birth };
            let session = Rc::new(Session::new(self, id, key, arrival, transport));
            entry.insert(Rc::clone(&session));
            table.by_id.insert(id, index);
            session
        };
        let beat = if session.version == Version::V4 { Kind::Ping } else { Kind::Silence };
        self.arm(&session, beat);
        self.arm(&session, Kind::Settle);
        if self.leaves.get() {
            session.close_later(Close::ShuttingDown);
        }
        session
    }

    /// The sessions there are, for whoever closes them one after the other; those that were on
    /// their way when it began are closed as they come.
    pub fn leave(&self) -> Vec<Rc<Session>> {
        self.leaves.set(true);
        self.sessions()
    }

    /// The JSON of an open packet: exactly these five keys.
    fn open_words(&self, id: Id, upgrades: &str) -> String {
        let settings = self.settings.borrow();
        format!(
            r#"{{"sid":"{id}","upgrades":[{upgrades}],"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
            settings.ping_interval.as_millis(),
            settings.ping_timeout.as_millis(),
            settings.message_max,
        )
    }

    /// The session takes a WebSocket in place of polling.
    fn upgrade(self: &Rc<Self>, session: &Rc<Session>, websocket: WebSocket) {
        session.leave_polling();
        let transport = Transport::WebSocket(websocket);
        self.count_transport(&transport, 1);
        let before = session.transport.replace(transport);
        self.count_transport(&before, -1);
        session.blocked.set(false);
        if session.is_awaited() {
            // A ping that went over polling is not waited for.
            session.beat();
            self.arm(session, Kind::Ping);
        }
        self.run(Rc::clone(session));
    }

    fn find(&self, id: &Id) -> Option<Rc<Session>> {
        let table = self.table.borrow();
        let index = *table.by_id.get(id)?;
        table.sessions.get(index as usize).cloned()
    }

    /// The session has ended for everybody but its transport.
    fn ended(&self, session: &Rc<Session>, why: Close) {
        self.count_transport(&session.transport.borrow(), -1);
        metrics::count(&metrics::HUB_CLOSES, why.word());
        debug!(peer = %session.address, reason = why.word(), "session ended");
        session.seat.leave();
        session.end_rest();
        session.wake_upgrade();
        self.table.borrow_mut().by_id.remove(&session.id);
        if why.is_told() && matches!(&*session.transport.borrow(), Transport::Polling(_)) {
            // Its client is told when it asks next.
            self.table.borrow_mut().by_id.insert(session.id, session.key.index);
        }
        self.above.closed(session, why);
    }

    /// Nothing is left of the session.
    fn forget(&self, session: &Rc<Session>) {
        let mut table = self.table.borrow_mut();
        let index = session.key.index as usize;
        if table.known(session.key).is_some() {
            let known = table.sessions.remove(index);
            table.by_id.remove(&session.id);
            table.give_back(&mut self.timers.borrow_mut());
            drop(table);
            drop(known);
        }
    }

    /// The session has something to say, or to hear, at the end of this turn.
    fn touch(&self, session: &Rc<Session>) {
        if session.touched.replace(true) {
            return;
        }
        self.touched.borrow_mut().push_back(Rc::clone(session));
        if let Some(flusher) = self.flusher.borrow_mut().take() {
            flusher.wake();
        }
    }

    /// Writes, once per turn of the loop, what sessions were sent in it.
    async fn flush_turns(self: Rc<Self>) {
        poll_fn::<(), _>(|cx| {
            for count in 0..FLUSHES_PER_TURN {
                if count % FETCHED_AT_ONCE == 0 {
                    self.touched
                        .borrow()
                        .iter()
                        .take(FETCHED_AT_ONCE)
                        .for_each(|next| next.fetch_transport());
                }
                let Some(session) = self.touched.borrow_mut().pop_front() else {
                    // What a crowd needed is given back.
                    self.touched.borrow_mut().shrink_to(FLUSHES_PER_TURN);
                    *self.flusher.borrow_mut() = Some(cx.waker().clone());
                    return Poll::Pending;
                };
                session.touched.set(false);
                session.settle_turn();
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    fn arm(&self, session: &Session, kind: Kind) {
        self.arm_from(session, kind, Instant::now());
    }

    /// Counts from when something was due, not from when it was noticed.
    fn arm_from(&self, session: &Session, kind: Kind, start: Instant) {
        let after = {
            let settings = self.settings.borrow();
            match kind {
                Kind::Ping => settings.ping_interval,
                Kind::Pong => settings.ping_timeout,
                Kind::Silence | Kind::Reminder => settings.ping_interval + settings.ping_timeout,
                Kind::Settle => settings.settle,
                Kind::Noop => NOOP_AFTER,
                Kind::Linger => {
                    let [websocket, polling] = LINGER;
                    let polls = matches!(&*session.transport.borrow(), Transport::Polling(_));
                    if polls { polling } else { websocket }
                }
            }
        };
        let due = start + after;
        let deadline = Deadline { due, key: session.key, serial: session.serial() };
        if self.timers.borrow_mut().add(kind, deadline) {
            self.earlier.notify_one();
        }
    }

    async fn keep_time(self: Rc<Self>) {
        loop {
            let grain = timers::grain(self.settings.borrow().ping_interval);
            let next = self.timers.borrow().next_due(grain);
            let wait = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Nothing is lost when an arm is dropped: deadlines stay in their lines.
                () = wait => (),
                () = self.earlier.notified() => continue,
            }
            let now = Instant::now();
            loop {
                let due = self.timers.borrow_mut().take_due(now);
                let Some((kind, deadline)) = due else { break };
                self.meet(kind, deadline);
            }
        }
    }

    fn meet(&self, kind: Kind, deadline: Deadline) {
        let session = {
            let table = self.table.borrow();
            table.known(deadline.key).cloned()
        };
        let Some(session) = session else { return };
        let holds = session.serial() == deadline.serial;
        match kind {
            Kind::Ping if holds && session.is_open() => session.ping(deadline.due),
            Kind::Pong if holds => session.judge_pong(),
            Kind::Silence if holds => {
                let settings = self.settings();
                let patience = settings.ping_interval + settings.ping_timeout;
                session.judge_silence(deadline.due, patience);
            }
            Kind::Noop if session.lingers_for_its_get() => session.lose(Close::TransportClose),
            Kind::Noop if session.is_probed() => {
                session.release_poll();
                session.release_post();
            }
            Kind::Settle if session.seat.is_pending() => session.close(Close::Unsettled),
            Kind::Reminder if session.is_open() => self.above.remind(&session),
            Kind::Linger if !session.is_open() => session.lose(Close::Forced),
            _ => (),
        }
    }
}
