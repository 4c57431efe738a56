//! One namespace on one worker: its sockets, its rooms, and what is delivered to them.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use crate::auth::Known;
use crate::observe::metrics::{self, Series};

use super::attendance::Attendance;
use super::cluster::{Audience, Uplink, Watch};
use super::engine::{Delivery, FETCHED_AT_ONCE, Id, Outgoing, Session};
use super::meter::Meters;
use super::operation::Heads;
use super::policy::NamespacePolicy;
use super::presence::Presence;
use super::recovery::{Log, Stamp};
use super::rooms::Rooms;
use super::rules::Denial;
use super::socket::{Socket, is_room_of};

/// Whom a message is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Everyone who is in one of these; `None` is everyone.
    pub rooms: Option<Vec<String>>,
    /// Who is in one of these is left out.
    pub except: Vec<String>,
    /// This socket is left out.
    pub but: Option<Id>,
}

impl Target {
    /// The same as other nodes say it: a socket that is left out is a room of its own.
    pub fn audience(&self) -> Audience {
        let mut except = self.except.clone();
        except.extend(self.but.map(|id| id.as_str().to_owned()));
        Audience { rooms: self.rooms.clone().unwrap_or_default(), except }
    }
}

pub struct Namespace {
    pub name: Arc<str>,
    policy: RefCell<Arc<NamespacePolicy>>,
    sockets: RefCell<Slab<Rc<Socket>>>,
    by_id: RefCell<HashMap<Id, u32>>,
    rooms: RefCell<Rooms>,
    pub(super) presence: Rc<Presence>,
    /// Shared with the other workers.
    attendance: Arc<Attendance>,
    /// For those who come back.
    pub log: Log,
    /// Where all nodes share an order: the stream that it stands in ...
    pub stream: Option<String>,
    /// ... and the entry up to which all of it was delivered here.
    pub place: Cell<Option<Stamp>>,
    /// Tells whose messages are wanted of other nodes.
    watch: Option<Watch>,
    count: Arc<Series>,
    events_out: Arc<Series>,
}

impl Namespace {
    pub fn new(
        name: &str,
        policy: Arc<NamespacePolicy>,
        presence: &Rc<Presence>,
        attendance: Arc<Attendance>,
        uplink: Option<&Rc<Uplink>>,
    ) -> Rc<Self> {
        let name: Arc<str> = name.into();
        Rc::new(Self {
            watch: uplink.map(|uplink| Watch::new(uplink, &name)),
            stream: uplink.and_then(|uplink| uplink.stream_of(&name)),
            count: metrics::series(&metrics::HUB_SOCKETS, &[&name]),
            name,
            policy: RefCell::new(policy),
            sockets: RefCell::default(),
            by_id: RefCell::default(),
            rooms: RefCell::default(),
            presence: Rc::clone(presence),
            attendance,
            log: Log::default(),
            place: Cell::default(),
            events_out: metrics::series(&metrics::HUB_EVENTS, &["out"]),
        })
    }

    pub fn policy(&self) -> Arc<NamespacePolicy> {
        Arc::clone(&self.policy.borrow())
    }

    pub fn change(&self, policy: Arc<NamespacePolicy>) {
        let before = self.policy.replace(policy);
        self.watch_anew(|room| before.watches(room));
    }

    /// A new socket, in no room but its own.
    pub fn enter(
        self: &Rc<Self>,
        session: &Rc<Session>,
        id: Id,
        user: Option<Rc<Known>>,
    ) -> Rc<Socket> {
        self.count.increment();
        let mut sockets = self.sockets.borrow_mut();
        let entry = sockets.vacant_entry();
        // 2^32 sockets would need terabytes.
        let key = u32::try_from(entry.key()).unwrap_or(u32::MAX);
        let (turn, session) = (session.turn(), Rc::clone(session));
        let namespace = Rc::clone(self);
        let socket = Rc::new(Socket {
            id,
            session,
            namespace,
            key,
            turn,
            data: RefCell::default(),
            backlog: RefCell::default(),
            gone: Cell::new(false),
            meters: Meters::default(),
            user: RefCell::new(user),
            ticket: OnceCell::new(),
        });
        entry.insert(Rc::clone(&socket));
        self.by_id.borrow_mut().insert(socket.id, key);
        self.attend(&socket, None, true);
        self.watch.as_ref().inspect(|watch| watch.entered(socket.id.as_str()));
        socket
    }

    /// The socket has left, and its rooms with it.
    pub fn remove(&self, socket: &Socket) {
        if socket.gone.replace(true) {
            return;
        }
        self.count.decrement();
        let rooms = self.rooms.borrow();
        rooms.of(socket.key).for_each(|room| {
            self.note(socket, room, false);
            self.attend(socket, Some(room), false);
            self.watch.as_ref().inspect(|watch| watch.moved(room, false));
        });
        drop(rooms);
        self.attend(socket, None, false);
        self.watch.as_ref().inspect(|watch| watch.left(socket.id.as_str()));
        self.rooms.borrow_mut().leave_all(socket.key);
        self.by_id.borrow_mut().remove(&socket.id);
        let mut sockets = self.sockets.borrow_mut();
        if sockets.contains(socket.key as usize) {
            let removed = sockets.remove(socket.key as usize);
            let left = sockets.len();
            if left == 0 || left.is_power_of_two() {
                // What a crowd needed goes when it has left.
                sockets.shrink_to_fit();
                self.by_id.borrow_mut().shrink_to(left * 2);
            }
            drop(sockets);
            drop(removed);
        }
    }

    pub fn sockets(&self) -> Vec<Rc<Socket>> {
        self.sockets.borrow().iter().map(|(_, socket)| Rc::clone(socket)).collect()
    }

    pub fn find(&self, id: Id) -> Option<Rc<Socket>> {
        let key = *self.by_id.borrow().get(&id)?;
        self.sockets.borrow().get(key as usize).cloned()
    }

    /// Joins all or none. The rooms that the hub itself puts the socket into are not among the `max`;
    /// nor is that of its own id, in which it is anyway.
    pub fn join(&self, socket: &Socket, names: &[String], max: usize) -> Result<(), Denial> {
        let mut rooms = self.rooms.borrow_mut();
        let is_own = |name: &str| name == socket.id.as_str();
        let is_new = |name: &&String| !is_own(name) && !rooms.is_member(socket.key, name);
        if rooms.count_of(socket.key) + names.iter().filter(is_new).count() > max {
            let known = socket.user();
            let is_counted =
                |name: &str| known.as_ref().is_none_or(|known| !is_room_of(known, name));
            let new = names.iter().filter(is_new).filter(|name| is_counted(name)).count();
            let there = rooms.of(socket.key).filter(|name| is_counted(name)).count();
            if there + new > max {
                return Err(Denial::TooManyRooms);
            }
        }
        for name in names.iter().filter(|name| !is_own(name)) {
            let joined = rooms.join(socket.key, name);
            self.moved(socket, name, joined, true);
        }
        Ok(())
    }

    pub fn leave(&self, socket: &Socket, names: &[String]) {
        for name in names {
            let left = self.rooms.borrow_mut().leave(socket.key, name);
            self.moved(socket, name, left, false);
        }
    }

    /// Tells those who keep track of it, if there was a move.
    fn moved(&self, socket: &Socket, room: &str, moved: bool, joined: bool) {
        if !moved {
            return;
        }
        self.note(socket, room, joined);
        self.attend(socket, Some(room), joined);
        self.watch.as_ref().inspect(|watch| watch.moved(room, joined));
        if let Some(ticket) = socket.ticket.get() {
            ticket.note_move(&self.log, room, joined);
        }
    }

    pub fn rooms_of(&self, socket: &Socket) -> Vec<String> {
        self.rooms.borrow().of(socket.key).map(str::to_owned).collect()
    }

    pub fn is_member(&self, socket: &Socket, names: &[String]) -> bool {
        let rooms = self.rooms.borrow();
        let own = socket.id.as_str();
        names.iter().all(|name| *name == own || rooms.is_member(socket.key, name))
    }

    /// Queues a message for every socket of this worker that it is for; returns how many.
    pub fn deliver(
        &self,
        target: &Target,
        message: &Rc<Outgoing>,
        delivery: Delivery,
        stamp: Option<Stamp>,
    ) -> usize {
        let mut delivered = 0;
        self.visit(target, |socket| {
            let sent = socket.session.send(message, delivery);
            delivered += usize::from(sent);
            if let (Some(stamp), Some(ticket)) = (stamp, socket.ticket.get()) {
                ticket.note_sent(stamp, delivery, sent);
            }
        });
        self.events_out.add(i64::try_from(delivered).unwrap_or(i64::MAX));
        delivered
    }

    /// Nobody knows what should have been delivered here: what its sockets were sent is not all.
    pub fn miss(&self) {
        for (_, socket) in &*self.sockets.borrow() {
            socket.ticket.get().inspect(|ticket| ticket.miss());
        }
    }

    /// False if no socket of this worker is in what is meant, whoever is taken out of it.
    pub fn has_any(&self, target: &Target) -> bool {
        match target.rooms.as_deref() {
            None => !self.sockets.borrow().is_empty(),
            Some(rooms) => {
                let inside = self.rooms.borrow();
                rooms.iter().any(|room| self.inside(room, &inside).next().is_some())
            }
        }
    }

    /// The sockets of this worker that are meant.
    pub fn those(&self, target: &Target) -> Vec<Rc<Socket>> {
        let mut those = Vec::new();
        self.visit(target, |socket| those.push(Rc::clone(socket)));
        those
    }

    /// How many those are.
    pub fn count_of(&self, target: &Target) -> usize {
        let mut count = 0;
        self.visit(target, |_| count += 1);
        count
    }

    /// Goes through the sockets that are meant, each once. They must not join, leave or go in it.
    fn visit(&self, target: &Target, mut visit: impl FnMut(&Rc<Socket>)) {
        let (sockets, rooms_of) = (self.sockets.borrow(), self.rooms.borrow());
        let but = target.but.and_then(|id| self.by_id.borrow().get(&id).copied());
        let out = |key: u32| {
            let inside =
                |room: &String| rooms_of.is_member(key, room) || self.own(room) == Some(key);
            Some(key) == but || target.except.iter().any(inside)
        };
        // Several at a time: their memory is somewhere else each, and is fetched together.
        let mut near: [Option<&Rc<Socket>>; FETCHED_AT_ONCE] = [None; FETCHED_AT_ONCE];
        let mut meet = |keys: &mut dyn Iterator<Item = u32>| loop {
            let mut count = 0;
            for (place, key) in near.iter_mut().zip(&mut *keys) {
                *place = sockets.get(key as usize);
                place.inspect(|socket| socket.session.fetch());
                count += 1;
            }
            let met = near.iter().take(count).flatten();
            met.filter(|socket| !out(socket.key)).for_each(|socket| visit(socket));
            if count < FETCHED_AT_ONCE {
                break;
            }
        };
        match target.rooms.as_deref() {
            None => meet(&mut sockets.iter().map(|(_, socket)| socket.key)),
            Some([room]) => meet(&mut self.inside(room, &rooms_of)),
            Some(rooms) => {
                // Who is in several rooms is met once.
                let all = rooms.iter().flat_map(|room| self.inside(room, &rooms_of));
                let mut keys: Vec<u32> = all.collect();
                keys.sort_unstable();
                keys.dedup();
                meet(&mut keys.into_iter());
            }
        }
    }

    /// Counts users, where it is known whose the socket is.
    fn attend(&self, socket: &Socket, room: Option<&str>, is_here: bool) {
        if let Some(user) = &*socket.user.borrow() {
            self.attendance.note(room, user.user_number(), is_here);
        }
    }

    /// How many are in the room, or here; and how many users are so in a room that is not counted,
    /// a socket's own, where it is known who they are.
    pub fn heads(&self, room: Option<&str>) -> Heads {
        let users = self.policy().users.is_some().then(|| {
            let own = room.and_then(|room| self.own(room));
            let sockets = self.sockets.borrow();
            let socket = own.and_then(|key| sockets.get(key as usize));
            usize::from(socket.is_some_and(|socket| socket.user.borrow().is_some()))
        });
        Heads { sockets: self.count(room), users, ..Heads::default() }
    }

    /// Every room that somebody of this worker is in, and how many are.
    pub fn rooms(&self) -> Vec<(String, usize)> {
        self.rooms.borrow().all().map(|(name, size)| (name.to_owned(), size)).collect()
    }

    /// How many are in the room, or here.
    pub fn count(&self, room: Option<&str>) -> usize {
        match room {
            Some(room) => self.rooms.borrow().size(room) + usize::from(self.own(room).is_some()),
            None => self.sockets.borrow().len(),
        }
    }

    fn inside<'a>(&self, room: &'a str, rooms: &'a Rooms) -> impl Iterator<Item = u32> {
        rooms.members(room).chain(self.own(room))
    }

    /// Every socket is alone in the room of its own id.
    fn own(&self, room: &str) -> Option<u32> {
        Id::parse(room).and_then(|id| self.by_id.borrow().get(&id).copied())
    }
}
