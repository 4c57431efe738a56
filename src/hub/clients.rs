//! The Socket.IO clients of one worker: from a session's texts to namespaces and back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::auth::Credentials;
use crate::drain::Drain;
use crate::exchange;
use crate::observe::metrics::{self, Series};

use super::asked::Asked;
use super::attendance::Attendances;
use super::auth_data::AuthData;
use super::client::Client;
use super::engine::{Above, Close, Delivery, FrameError, Owner, Owners, Session, Version};
use super::forward::Waiting;
use super::hooks::Hooks;
use super::journal;
use super::meter::{Allowance, Verdict};
use super::msgpack;
use super::namespace::{Namespace, Target};
use super::outbox::{Notice, Outbox};
use super::owed::Owed;
use super::pace::Pace;
use super::packet::{self, Event, Head, Kind, Malformed};
use super::partial::{Filled, Partial};
use super::placeholders;
use super::policy::Policy;
use super::porter::Porter;
use super::presence::Presence;
use super::recovery::Recovery;
use super::returning::Entering;
use super::rules::{Action, Denial};
use super::socket::Socket;
use super::watched::Users;

/// What the engine tells, and what the rules make of it.
pub struct Clients {
    namespaces: RefCell<HashMap<String, Rc<Namespace>>>,
    /// By the session's place in the engine's table.
    pub(super) clients: RefCell<Vec<Option<Rc<Client>>>>,
    pub(super) outbox: Rc<Outbox>,
    pub(super) presence: Rc<Presence>,
    pub(super) hooks: Rc<Hooks>,
    pub(super) recovery: Rc<Recovery>,
    pub(super) porter: Arc<Porter>,
    pub(super) users: Rc<Users>,
    pub(super) pace: Arc<Pace>,
    attendances: Arc<Attendances>,
    pub(super) drain: Drain,
    /// By other nodes.
    pub(super) asked: Asked,
    /// Acknowledgements that wait for what they are of.
    pub(super) owed: Owed,
    /// Clients that go on when it is known what they missed.
    pub(super) entering: Entering,
    /// Itself, for tasks that outlive a call.
    pub(super) me: Weak<Self>,
    events_in: Arc<Series>,
    started: Instant,
    /// `None` while there is no hub.
    limits: Cell<Option<Limits>>,
}

/// What holds for every client.
#[derive(Clone, Copy)]
struct Limits {
    allowance: Allowance,
    message_max: usize,
    /// Of one packet.
    attachments_max: usize,
    /// How long the attachments of a packet may take.
    patience: Duration,
}

impl Limits {
    fn of(policy: &Policy) -> Self {
        let settings = &policy.settings;
        let patience = settings.ping_interval + settings.ping_timeout;
        let (allowance, message_max) = (policy.allowance, settings.message_max);
        Self { allowance, message_max, attachments_max: policy.attachments, patience }
    }
}

impl Clients {
    pub fn new(
        outbox: Rc<Outbox>,
        presence: Rc<Presence>,
        hooks: Rc<Hooks>,
        recovery: Rc<Recovery>,
        (porter, users, attendances, pace): (Arc<Porter>, Rc<Users>, Arc<Attendances>, Arc<Pace>),
        policy: Option<&Policy>,
        drain: &Drain,
    ) -> Rc<Self> {
        let clients = Rc::new_cyclic(|me| Self {
            namespaces: RefCell::default(),
            clients: RefCell::default(),
            outbox,
            presence,
            hooks,
            recovery,
            porter,
            users,
            pace,
            attendances,
            drain: drain.clone(),
            asked: Asked::default(),
            owed: Owed::default(),
            entering: Entering::default(),
            me: Weak::clone(me),
            events_in: metrics::series(&metrics::HUB_EVENTS, &["in"]),
            started: Instant::now(),
            limits: Cell::default(),
        });
        clients.install(policy);
        drain.spawn_background(Rc::clone(&clients).watch_recovery());
        drain.spawn_background(Rc::clone(&clients).watch_users());
        clients
    }

    /// Applies new rules to everybody who is here; who is in a namespace that is gone, leaves it.
    pub fn install(&self, policy: Option<&Policy>) {
        self.hooks.change(policy.and_then(|policy| policy.hooks.clone()));
        self.limits.set(policy.map(Limits::of));
        self.users.change(policy.map_or(u64::MAX, |policy| policy.per_user));
        let recovery = policy.and_then(|policy| policy.recovery);
        self.recovery.change(recovery, self.namespaces().into_iter());
        let mut namespaces = self.namespaces.borrow_mut();
        let mut before = std::mem::take(&mut *namespaces);
        let mut others_come = Vec::new();
        for (name, rules) in policy.into_iter().flat_map(|policy| &policy.namespaces) {
            // Pages that were let in with another password are expelled.
            let is_same = |known: &Rc<Namespace>| known.policy().has_same_pages(rules);
            let kept = before.get(name).is_some_and(is_same).then(|| before.remove(name));
            let namespace = match kept.flatten() {
                Some(kept) => {
                    if !kept.policy().has_same_door(rules) {
                        others_come.push(Rc::clone(&kept));
                    }
                    kept.change(Arc::clone(rules));
                    kept
                }
                None => {
                    let uplink = self.outbox.uplink.as_ref();
                    let attendance = self.attendances.of(name);
                    Namespace::new(name, Arc::clone(rules), &self.presence, attendance, uplink)
                }
            };
            namespaces.insert(name.clone(), namespace);
        }
        drop(namespaces);
        for gone in before.into_values() {
            for socket in gone.sockets() {
                self.expel(&socket);
            }
        }
        others_come.iter().for_each(|namespace| self.cut_off(namespace));
        policy.iter().for_each(|policy| self.adopt_providers(policy));
    }

    /// Does what another worker has told.
    pub fn hear(&self, notice: Notice) {
        match notice {
            Notice::Emit { namespace, target, message, delivery, stamp } => {
                if let Some(namespace) = self.namespace(&namespace) {
                    self.deliver(&namespace, target, message, delivery, stamp);
                }
            }
            Notice::Operation(task) => self.follow(&task),
            Notice::Question(question) => self.question(*question),
            Notice::Command(operation) => self.command(operation),
            Notice::Moved(moved) => self.presence.hear(&moved),
            Notice::Inquiry(inquiry) => self.answer(&inquiry),
            Notice::Answer { namespace, id, ack, data } => {
                self.acknowledge(&namespace, id, ack, &data);
            }
            Notice::Suspect(found) => self.suspect(found),
            Notice::Renewed(renewal) => self.renewed(&renewal),
            Notice::Recovery(letter) => {
                self.recovery.receive(*letter, &|name| self.namespace(name));
            }
            Notice::Mark { mark, stamp } => {
                let namespaces = self.namespaces().into_iter();
                self.recovery.marked(mark, stamp, &|name| self.namespace(name), namespaces);
            }
            // To other processes.
            Notice::Far { .. } | Notice::Outcome { .. } => {}
            Notice::Baseline { stamp, attempt } => {
                self.recovery.level(stamp, attempt, self.namespaces().into_iter());
            }
            Notice::Placed { stream, stamp } => {
                self.in_stream(&stream).for_each(|known| known.place.set(Some(stamp)));
            }
            Notice::Trimmed(stream) => self.in_stream(&stream).for_each(|known| known.miss()),
            Notice::Gap { namespace, stamp } => {
                let known = self.namespace(&namespace);
                known.inspect(|known| self.recovery.note_gap(&known.log, stamp));
            }
            Notice::Settled { said, lost } => self.owed.settle(&said, &lost),
            Notice::Taken(pid) => self.recovery.taken(pid),
            Notice::Entered { worker, number, missed } => {
                if worker == self.worker() {
                    self.entered(number, missed);
                }
            }
        }
    }

    pub fn worker(&self) -> usize {
        self.presence.worker
    }

    pub fn namespace(&self, name: &str) -> Option<Rc<Namespace>> {
        self.namespaces.borrow().get(name).cloned()
    }

    pub(super) fn namespaces(&self) -> Vec<Rc<Namespace>> {
        self.namespaces.borrow().values().cloned().collect()
    }

    fn forget(&self, session: &Session) -> Option<Rc<Client>> {
        let mut clients = self.clients.borrow_mut();
        let client = clients.get_mut(session.key.index as usize).and_then(Option::take);
        while clients.pop_if(|last| last.is_none()).is_some() {}
        if clients.is_empty() || clients.len().is_power_of_two() {
            // What a crowd needed goes when it has left.
            let left = clients.len();
            clients.shrink_to(left * 2);
        }
        client
    }

    pub(super) fn client(&self, session: &Session) -> Option<Rc<Client>> {
        self.clients.borrow().get(session.key.index as usize).cloned().flatten()
    }

    fn take_text(&self, session: &Rc<Session>, text: &str) -> Result<(), Malformed> {
        let Some(client) = self.client(session) else { return Ok(()) };
        if client.partial.borrow().is_some() || client.is_packed(session, false) {
            return Err(Malformed);
        }
        let head = Head::parse(text)?;
        if head.attachments == 0 {
            return self.take_packet(session, &client, &head, Vec::new());
        }
        if head.attachments > self.attachments_max() {
            return Err(Malformed);
        }
        placeholders::check(head.data, head.attachments)?;
        let partial = Partial::begin(text, head.attachments, self.now());
        *client.partial.borrow_mut() = Some(partial);
        if !client.watched.replace(true) {
            session.remind_later();
        }
        Ok(())
    }

    fn take_part(&self, session: &Rc<Session>, data: &[u8]) -> Result<(), Malformed> {
        let Some(client) = self.client(session) else { return Ok(()) };
        if client.is_packed(session, msgpack::is_packet(data)) {
            let (text, parts) = msgpack::read(data)?;
            if parts.len() > self.attachments_max() {
                return Err(Malformed);
            }
            return self.take_packet(session, &client, &Head::parse(&text)?, parts);
        }
        let partial = client.partial.take().ok_or(Malformed)?;
        let max = self.limits.get().map_or(0, |limits| limits.message_max);
        match partial.fill(data, max) {
            Filled::Wanting(partial) => *client.partial.borrow_mut() = Some(partial),
            Filled::TooLarge => session.close(Close::BadFrame(FrameError::TooLarge)),
            Filled::Whole(text, parts) => {
                return self.take_packet(session, &client, &Head::parse(&text)?, parts);
            }
        }
        Ok(())
    }

    /// Attachments of one packet, from clients and to them.
    pub(super) fn attachments_max(&self) -> usize {
        self.limits.get().map_or(0, |limits| limits.attachments_max)
    }

    /// What a client may say; `None` before there is a hub.
    pub(super) fn allowance(&self) -> Option<Allowance> {
        self.limits.get().map(|limits| limits.allowance)
    }

    /// Since this worker began.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn take_packet(
        &self,
        session: &Rc<Session>,
        client: &Rc<Client>,
        head: &Head<'_>,
        parts: Vec<Bytes>,
    ) -> Result<(), Malformed> {
        let (name, query) = match session.version {
            Version::V4 => (head.namespace, None),
            // Old clients write into the name what others send as `auth`.
            Version::V3 => match head.namespace.split_once('?') {
                Some((name, query)) => (name, Some(query)),
                None => (head.namespace, None),
            },
        };
        let verdict = self.count(session, client, name, head.kind);
        if verdict == Verdict::Flood {
            // At once: nothing more of it is worth reading.
            session.lose(Close::Flood);
            return Ok(());
        }
        if head.kind == Kind::Connect {
            packet::check_data(head)?;
            let auth = match query {
                Some(query) => AuthData::of_query(query),
                None => AuthData::new(head.data),
            };
            return match verdict {
                Verdict::Over => self.connect_later(session, client, name, auth),
                _ => self.connect(session, client, name, auth),
            };
        }
        let Some(socket) = client.find(name) else {
            if head.kind == Kind::Disconnect {
                packet::check_data(head)?;
                if client.arrivals.leave(name) {
                    return Ok(());
                }
            }
            // What was on its way when the server closed the namespace is no offence.
            let left = client.left.borrow().iter().any(|left| left.as_ref() == name);
            return if left { Ok(()) } else { Err(Malformed) };
        };
        match head.kind {
            Kind::Event if head.data.is_empty() => Ok(()),
            Kind::Event => {
                self.events_in.increment();
                if verdict == Verdict::Over {
                    socket.deny(None, head.ack, Denial::RateLimited);
                    return Ok(());
                }
                self.take_event(&socket, head, parts)
            }
            Kind::Ack => {
                packet::check_data(head)?;
                self.take_ack(&socket, head, &parts);
                Ok(())
            }
            Kind::Disconnect => {
                packet::check_data(head)?;
                self.leave(client, &socket);
                Ok(())
            }
            Kind::Connect | Kind::ConnectError => Err(Malformed),
        }
    }

    fn take_event(
        &self,
        socket: &Rc<Socket>,
        head: &Head<'_>,
        parts: Vec<Bytes>,
    ) -> Result<(), Malformed> {
        let event = Event::parse(head.data)?;
        if event.is_deep {
            // It could not be said to everybody, and would take some of them down.
            socket.deny(Some(&event.name), head.ack, Denial::BadArguments);
            return Ok(());
        }
        let policy = socket.namespace.policy();
        if let Some(words) = &policy.admin_ui {
            self.obey(socket, words, &event, head.ack, parts);
            return Ok(());
        }
        let size = head.data.len() + parts.iter().map(Bytes::len).sum::<usize>();
        if let Err(denial) = socket.meters.count(policy.rules.bounds(&event), size, || self.now()) {
            socket.deny(Some(&event.name), head.ack, denial);
            return Ok(());
        }
        if socket.backlog.borrow().is_some() {
            let waiting = Waiting::new(head.data, head.ack, parts);
            if let Some(Err(denial)) = self.queue_behind(socket, waiting) {
                socket.deny(Some(&event.name), head.ack, denial);
            }
            return Ok(());
        }
        let known = socket.user();
        let user = known.as_deref().map(|known| &known.identity);
        match (policy.rules.decide(&event, socket.id.as_str(), user), self.me.upgrade()) {
            (Ok(Action::Forward(path)), Some(me)) => {
                let waiting = Waiting::new(head.data, head.ack, parts);
                me.forward(socket, path, &waiting);
            }
            (decided, _) => {
                let name = &event.name;
                self.settle_event(socket, name, decided, head.ack, parts, policy.rooms_max);
            }
        }
        Ok(())
    }

    /// Does what the rules say, and acknowledges.
    pub(super) fn settle_event(
        &self,
        socket: &Rc<Socket>,
        event: &str,
        decided: Result<Action<'_>, Denial>,
        ack: Option<u64>,
        parts: Vec<Bytes>,
        rooms_max: usize,
    ) {
        if let (Ok(Action::Presence(room)), Some(ack)) = (&decided, ack) {
            if let Err(denial) = self.inquire(socket, room, ack) {
                socket.deny(Some(event), Some(ack), denial);
            }
            return;
        }
        let before = self.ordered();
        let done = decided.and_then(|action| self.act(socket, action, parts, rooms_max));
        match done {
            Ok(()) => {
                journal::taken(socket, event);
                self.answer_when_said(before, socket, ack, r#"[{"ok":true}]"#, Vec::new());
            }
            Err(denial) => socket.deny(Some(event), ack, denial),
        }
    }

    fn act(
        &self,
        socket: &Socket,
        action: Action<'_>,
        parts: Vec<Bytes>,
        rooms_max: usize,
    ) -> Result<(), Denial> {
        let namespace = &socket.namespace;
        match action {
            Action::Join(rooms) => {
                namespace.join(socket, &rooms, rooms_max)?;
                self.recovery.keep_afar(socket);
                Ok(())
            }
            Action::Leave(rooms) => {
                namespace.leave(socket, &rooms);
                self.recovery.keep_afar(socket);
                Ok(())
            }
            // Asked about before it comes here.
            Action::Forward(_) => Err(Denial::Busy),
            // Nobody waits for the answer.
            Action::Presence(_) => Ok(()),
            Action::Relay { rooms, data, volatile, echo, member } => {
                let inside = |rooms: &Vec<String>| namespace.is_member(socket, rooms);
                if member && !rooms.as_ref().is_none_or(inside) {
                    return Err(Denial::NotMember);
                }
                let but = (!echo).then_some(socket.id);
                let delivery = if volatile { Delivery::Volatile } else { Delivery::Kept };
                let target = Target { rooms, except: Vec::new(), but };
                self.emit(namespace, target, &data, parts, delivery);
                Ok(())
            }
        }
    }
}

impl Above for Clients {
    fn may_open(&self, shown: &Credentials, client: &exchange::Client) -> bool {
        self.may_identify(shown, client)
    }

    fn owners<'a>(&'a self, shown: &'a Credentials, client: &'a exchange::Client) -> Owners<'a> {
        Box::pin(self.owners_of(shown, client))
    }

    fn adopt(&self, session: &Rc<Session>, owners: &[Owner], shown: &Credentials) -> bool {
        self.renew(session, owners, shown)
    }

    fn opened(&self, session: &Rc<Session>) {
        let index = session.key.index as usize;
        let client = Rc::new(Client::default());
        {
            let mut clients = self.clients.borrow_mut();
            if clients.len() <= index {
                clients.resize_with(index + 1, || None);
            }
            if let Some(place) = clients.get_mut(index) {
                *place = Some(Rc::clone(&client));
            }
        }
        // Old clients are in `/` without asking, and were told nothing if there is none.
        let entered = session.version == Version::V3 && self.namespace("/").is_some();
        if entered && self.connect(session, &client, "/", AuthData::default()).is_err() {
            session.close_later(Close::ParseError);
        }
    }

    fn text(&self, session: &Rc<Session>, text: &str) {
        if self.take_text(session, text).is_err() {
            session.close(Close::ParseError);
        }
    }

    fn binary(&self, session: &Rc<Session>, data: &[u8]) {
        if self.take_part(session, data).is_err() {
            session.close(Close::ParseError);
        }
    }

    fn closed(&self, session: &Rc<Session>, why: Close) {
        let client = self.forget(session);
        client.iter().for_each(|client| self.users.unwatch(session, client));
        for socket in client.iter().flat_map(|client| client.sockets.take()) {
            journal::disconnected(&socket, why.word());
            self.recovery.leave(&socket, why);
            self.part(&socket, why.as_str());
        }
    }

    /// Looks whether a packet waits too long for its attachments.
    fn remind(&self, session: &Rc<Session>) {
        let Some(client) = self.client(session) else { return };
        let age = client.partial.borrow().as_ref().map(|partial| partial.age(self.now()));
        let patience = self.limits.get().map_or(Duration::ZERO, |limits| limits.patience);
        match age {
            None => client.watched.set(false),
            Some(age) if age >= patience && !session.is_behind() => {
                session.close(Close::Unfinished);
            }
            // Another one since, which has its time.
            Some(_) => session.remind_later(),
        }
    }

    fn translate(&self, text: &str, parts: &[Bytes]) -> Option<Vec<u8>> {
        msgpack::write(text, parts)
    }

    fn is_congested(&self, waker: &Waker) -> bool {
        self.outbox.is_congested(waker)
    }
}
