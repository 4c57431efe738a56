//! Tells the members of watched rooms who comes and goes.
//!
//! Each room has one worker that keeps its crowd, members of other workers too: so there is one
//! count, one order of things, and one message for everybody.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::clients::Clients;
use super::cluster::Told;
use super::crowds::{Crowds, Side, Step};
use super::engine::{Delivery, Id};
use super::namespace::{Namespace, Target};
use super::outbox::{Notice, Outbox};
use super::rules::Denial;
use super::socket::Socket;

/// How long changes of a room are gathered before its members hear of them.
const GATHER: Duration = Duration::from_millis(100);
/// Rooms that are told before others have their turn.
const ROOMS_PER_TURN: usize = 64;

/// One worker's part.
pub struct Presence {
    pub worker: usize,
    workers: usize,
    outbox: Rc<Outbox>,
    crowds: RefCell<Crowds>,
    changed: Notify,
}

/// A socket that has come into a watched room or left it.
#[derive(Clone)]
pub struct Move {
    pub namespace: Arc<str>,
    pub room: Arc<str>,
    pub id: Id,
    pub step: Step,
    /// Of another node.
    pub is_far: bool,
}

/// A client that wants to know who is in a room.
#[derive(Clone)]
pub struct Inquiry {
    pub namespace: Arc<str>,
    pub room: Arc<str>,
    /// Where the client is.
    pub worker: usize,
    pub id: Id,
    pub ack: u64,
}

impl Presence {
    pub fn new(worker: usize, workers: usize, outbox: Rc<Outbox>) -> Rc<Self> {
        let (crowds, changed) = (RefCell::default(), Notify::new());
        Rc::new(Self { worker, workers, outbox, crowds, changed })
    }

    /// The worker that keeps the room's crowd.
    fn keeper(&self, namespace: &str, room: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        (namespace, room).hash(&mut hasher);
        usize::try_from(hasher.finish() % self.workers.max(1) as u64).unwrap_or_default()
    }

    /// A socket of this worker has come or gone.
    pub fn note(&self, moved: Move) {
        if let Some(uplink) = &self.outbox.uplink {
            uplink.whisper(Told::Moved(moved.clone()));
        } else if self.outbox.bridges() {
            self.outbox.tell_far(Notice::Moved(moved.clone()));
        }
        let keeper = self.keeper(&moved.namespace, &moved.room);
        if keeper == self.worker {
            self.hear(&moved);
        } else {
            self.outbox.tell(keeper, Notice::Moved(moved));
        }
    }

    pub fn hear(&self, moved: &Move) {
        let Move { namespace, room, id, step, is_far } = moved;
        // What other nodes tell, all workers hear.
        if *is_far && self.keeper(namespace, room) != self.worker {
            return;
        }
        let side = if *is_far { Side::Far } else { Side::Here };
        if self.crowds.borrow_mut().take(namespace, room, *id, step.clone(), side) {
            self.changed.notify_one();
        }
    }
}

impl Clients {
    /// Who is in the room? Answered by the worker that keeps it.
    pub(super) fn inquire(&self, socket: &Socket, room: &str, ack: u64) -> Result<(), Denial> {
        let namespace = &socket.namespace;
        if !namespace.is_member(socket, &[room.to_owned()]) {
            return Err(Denial::NotMember);
        }
        let keeper = self.presence.keeper(&namespace.name, room);
        let (namespace, worker) = (Arc::clone(&namespace.name), self.presence.worker);
        let inquiry = Inquiry { namespace, room: room.into(), worker, id: socket.id, ack };
        if keeper == worker {
            self.answer(&inquiry);
        } else {
            self.outbox.tell(keeper, Notice::Inquiry(inquiry));
        }
        Ok(())
    }

    pub(super) fn answer(&self, inquiry: &Inquiry) {
        let Inquiry { namespace, room, worker, id, ack } = inquiry;
        let data = self.presence.crowds.borrow().list(namespace, room);
        if *worker == self.presence.worker {
            self.acknowledge(namespace, *id, *ack, &data);
        } else {
            let (namespace, data) = (Arc::clone(namespace), data.into());
            self.outbox.tell(*worker, Notice::Answer { namespace, id: *id, ack: *ack, data });
        }
    }

    /// Passes on another worker's answer; its client may have gone.
    pub(super) fn acknowledge(&self, namespace: &str, id: Id, ack: u64, data: &str) {
        let socket = self.namespace(namespace).and_then(|namespace| namespace.find(id));
        socket.inspect(|socket| socket.acknowledge(Some(ack), data));
    }

    /// Tells the members of rooms what has happened, for as long as the worker lives.
    pub(super) async fn tell_presence(self: Rc<Self>) {
        loop {
            self.presence.changed.notified().await;
            sleep(GATHER).await;
            let mut told = 0;
            loop {
                let change = self.presence.crowds.borrow_mut().next_change();
                let Some(change) = change else { break };
                let rooms = Some(vec![change.room.to_string()]);
                let target = Target { rooms, ..Target::default() };
                if let Some(namespace) = self.namespace(&change.namespace) {
                    self.emit_here(&namespace, target, &change.data, Vec::new(), Delivery::Kept);
                }
                told += 1;
                if told % ROOMS_PER_TURN == 0 {
                    yield_now().await;
                }
            }
        }
    }
}

impl Namespace {
    /// Tells of a socket that has come into a room or left it, if the room is watched.
    pub(super) fn note(&self, socket: &Socket, room: &str, is_here: bool) {
        if self.policy().watches(room) {
            self.presence.note(self.step(socket, room, is_here));
        }
    }

    /// Tells another process who is in watched rooms here.
    pub(super) fn show(&self, outbox: &Outbox) {
        let policy = self.policy();
        for socket in self.sockets() {
            for room in self.rooms_of(&socket).iter().filter(|room| policy.watches(room)) {
                outbox.tell_far(Notice::Moved(self.step(&socket, room, true)));
            }
        }
    }

    fn step(&self, socket: &Socket, room: &str, is_here: bool) -> Move {
        let (namespace, room, id) = (Arc::clone(&self.name), room.into(), socket.id);
        let step = if is_here { Step::Came(socket.whose()) } else { Step::Went };
        Move { namespace, room, id, step, is_far: false }
    }

    /// What new rules watch is told from now on, and what they do not is forgotten.
    pub(super) fn watch_anew(&self, watched: impl Fn(&str) -> bool) {
        let policy = self.policy();
        for socket in self.sockets() {
            for room in self.rooms_of(&socket) {
                let is_here = policy.watches(&room);
                if is_here != watched(&room) {
                    self.presence.note(self.step(&socket, &room, is_here));
                }
            }
        }
    }
}
