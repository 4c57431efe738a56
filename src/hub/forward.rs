//! What the application decides: who connects, what an event comes to, and that somebody has left.
//!
//! The events of one socket keep their order: while one is with the application, those behind it
//! wait in the socket's backlog. Before them it is asked about the connect, after them it is told
//! that the socket has left: all of this stands in the line of the socket's id.

use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::auth::Known;
use crate::exchange::query;
use crate::observe::metrics;

use super::auth_data::AuthData;
use super::binary;
use super::client::Client;
use super::clients::Clients;
use super::connecting::say_refused;
use super::engine::{Close, Delivery, Handshake, Id, Session};
use super::hooks::{Emit, Loss, Outcome, Question, Reply, Said, Seat, uuid};
use super::journal;
use super::meter::PATIENCE;
use super::namespace::{Namespace, Target};
use super::packet::Event;
use super::recovery::Returned;
use super::returning::id_of;
use super::rules::{Action, Denial};
use super::socket::{NO_DATA, Socket};

/// From so many events, or half of their bytes, the client is not listened to until there are fewer:
/// they would have waited too long when their turn comes.
const MANY: usize = 32;
/// Events that wait behind one that is with the application, whatever other namespaces of the client
/// still bring. Full: the next are refused as busy, and their acknowledgements say so.
const BACKLOG: usize = 1024;
/// Their bytes; one event may be larger.
const BACKLOG_BYTES: usize = 1 << 20;

/// An event that waits its turn.
pub struct Waiting {
    data: String,
    ack: Option<u64>,
    parts: Vec<Bytes>,
    /// When it came.
    since: Instant,
}

impl Waiting {
    pub fn new(data: &str, ack: Option<u64>, parts: Vec<Bytes>) -> Self {
        Self { data: data.to_owned(), ack, parts, since: Instant::now() }
    }

    fn len(&self) -> usize {
        self.data.len() + self.parts.iter().map(Bytes::len).sum::<usize>()
    }
}

/// An event on its way to the application.
struct Forward {
    question: Question,
    ack: Option<u64>,
    since: Instant,
}

impl Clients {
    /// Has the application decide about a CONNECT; the client waits for its answer.
    pub(super) fn ask_to_connect(
        self: &Rc<Self>,
        session: &Rc<Session>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        path: &Arc<str>,
        auth: AuthData,
        returned: Option<Arc<Returned>>,
    ) {
        let id = id_of(returned.as_deref());
        client.arrivals.begin(&namespace.name);
        let (mut place, since) = (self.hooks.lines.stand(id), Instant::now());
        let (clients, session) = (Rc::clone(self), Rc::clone(session));
        let (client, namespace, path) = (Rc::clone(client), Rc::clone(namespace), Arc::clone(path));
        self.drain.spawn("hook", async move {
            let Some(handshake) = shown(&session) else {
                client.arrivals.end(&namespace.name);
                return session.close(Close::Forced);
            };
            let user = client.user_in(&namespace.name);
            let body = about_arrival(returned.as_deref(), user.as_deref());
            let data = returned.as_deref().and_then(|back| back.data.as_deref());
            let written = Written { data: data.unwrap_or(NO_DATA), auth: Some(&auth), args: None };
            let question = question(path, body, &namespace.name, id, &handshake, written);
            let outcome = clients.hooks.ask(&mut place, &question, since, &handshake).await;
            client.arrivals.end(&namespace.name);
            let welcome = matches!(outcome, Outcome::Answered(_));
            // Who has come back on another connection is here, and not to be taken for gone.
            let replaced = returned.as_ref().is_some_and(|back| !clients.recovery.keeps(back));
            let afar = returned.clone().filter(|back| welcome && back.afar.is_some());
            let enter = {
                let (clients, session) = (Rc::clone(&clients), Rc::clone(&session));
                let (client, namespace) = (Rc::clone(&client), Rc::clone(&namespace));
                move |back: Option<Arc<Returned>>| {
                    if !session.is_open() || !clients.may_enter(&session, back.as_ref()) {
                        return false;
                    }
                    let back = back.as_deref();
                    let is_in = clients.connected(&session, &client, &namespace, id, outcome, back);
                    clients.decided(&session, &client, &namespace.name);
                    is_in
                }
            };
            let entered = match afar {
                Some(back) => clients.catch_up(&client, &namespace, back, enter).await,
                None => enter(returned),
            };
            if welcome && !entered && !replaced {
                let user = user.map(|user| user.identity.to_json());
                let reason = if session.is_open() {
                    "server namespace disconnect"
                } else {
                    "transport close"
                };
                let body = json!({
                    "type": "disconnect", "reason": reason, "rooms": [], "user": user,
                });
                clients.part_with(&namespace, id, &handshake, body, NO_DATA);
            }
        });
    }

    fn connected(
        self: &Rc<Self>,
        session: &Rc<Session>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        id: Id,
        outcome: Outcome,
        back: Option<&Returned>,
    ) -> bool {
        let refusal = match outcome {
            Outcome::Answered(reply) => {
                match self.enter(session, client, namespace, id, &reply.join, back) {
                    Ok(socket) => {
                        self.apply(&socket, *reply, None);
                        return true;
                    }
                    Err(denial) => json!({ "code": denial.code() }),
                }
            }
            Outcome::Denied(Value::Null) => json!({ "code": Denial::Denied.code() }),
            Outcome::Denied(error) | Outcome::Failed(error) => error,
            // Not a refusal, after which the client would stay away: it is to come back.
            Outcome::Unavailable => {
                session.close(Close::Forced);
                return false;
            }
        };
        if let Some(back) = back {
            self.recovery.drop_secret(back.pid);
        }
        journal::refused(session, &namespace.name, Denial::Denied.code());
        let message = match refusal.get("message").or(refusal.get("code")).unwrap_or(&refusal) {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        say_refused(session, &namespace.name, &message, Some(&refusal));
        false
    }

    /// Asks about an event, and goes on with the socket's next ones when it is answered.
    pub(super) fn forward(self: &Rc<Self>, socket: &Rc<Socket>, path: Arc<str>, event: &Waiting) {
        let first = forward_of(socket, path, event);
        *socket.backlog.borrow_mut() = Some(Box::default());
        let mut place = self.hooks.lines.stand(socket.id);
        let (clients, socket) = (Rc::clone(self), Rc::clone(socket));
        self.drain.spawn("hook", async move {
            let mut next = Some(first);
            while let Some(forward) = next.take() {
                let shown = shown(&socket.session);
                let outcome = match &shown {
                    Some(handshake) => {
                        let Forward { question, since, .. } = &forward;
                        clients.hooks.ask(&mut place, question, *since, handshake).await
                    }
                    None => Outcome::Unavailable,
                };
                if outcome == Outcome::Unavailable && !socket.is_here() {
                    // Nobody waits for the rest, which would take as long for each.
                    clients.drop_backlog(&socket, Loss::Unanswered);
                }
                clients.answered(&socket, outcome, forward.ack);
                if shown.is_none() {
                    // Nor is what came behind it asked about, in its place.
                    clients.drop_backlog(&socket, Loss::Unanswered);
                    socket.session.close(Close::Forced);
                }
                next = clients.work_off(&socket);
            }
        });
    }

    fn answered(&self, socket: &Rc<Socket>, outcome: Outcome, ack: Option<u64>) {
        // Who has left is not answered.
        let ack = ack.filter(|_| socket.is_here());
        let error = match outcome {
            Outcome::Answered(reply) => return self.apply(socket, *reply, ack),
            Outcome::Denied(_) => return socket.deny(None, ack, Denial::Denied),
            Outcome::Failed(error) => {
                metrics::count(&metrics::HUB_DENIED, "hook_failed");
                error
            }
            Outcome::Unavailable => {
                metrics::count(&metrics::HUB_DENIED, "unavailable");
                json!({ "code": "unavailable", "temporary": true })
            }
        };
        socket.acknowledge(ack, &json!([{ "error": error }]).to_string());
    }

    /// Does what the application said. Rooms come before emits: who joins must hear them. What it
    /// says to others is said even if the sender has left meanwhile, whose place may be another's.
    fn apply(&self, socket: &Rc<Socket>, reply: Reply, ack: Option<u64>) {
        let namespace = &socket.namespace;
        if !socket.is_here() {
            return reply.emit.into_iter().for_each(|emit| self.emit_for(namespace, emit));
        }
        let joined = namespace.join(socket, &reply.join, namespace.policy().rooms_max);
        namespace.leave(socket, &reply.leave);
        let changes = !reply.join.is_empty() || !reply.leave.is_empty() || reply.data.is_some();
        if let Some(data) = reply.data {
            *socket.data.borrow_mut() = Some(data.as_str().into());
        }
        if changes {
            self.recovery.keep_afar(socket);
        }
        let before = self.ordered();
        for emit in reply.emit {
            self.emit_for(namespace, emit);
        }
        let Said { data, parts } = reply.ack;
        match joined {
            // The rest is done: the application counts on it.
            Err(denial) => socket.deny(None, ack, denial),
            // Who is sent away would be gone by then.
            Ok(()) if reply.disconnect => socket.acknowledge_with(ack, &data, parts),
            Ok(()) => self.answer_when_said(before, socket, ack, &data, parts),
        }
        if reply.disconnect {
            self.expel(socket);
        }
    }

    fn emit_for(&self, namespace: &Namespace, emit: Emit) {
        let Emit { to, except, said: Said { data, parts }, volatile } = emit;
        let delivery = if volatile { Delivery::Volatile } else { Delivery::Kept };
        let target = Target { rooms: to, except, but: None };
        self.emit(namespace, target, &data, parts, delivery);
    }

    /// Takes what waited behind an answered event, up to the next that must be asked about. What
    /// was received of somebody who has left since is still forwarded, or relayed to everyone.
    fn work_off(self: &Rc<Self>, socket: &Rc<Socket>) -> Option<Forward> {
        loop {
            let waiting = socket.backlog.borrow_mut().as_mut().and_then(|backlog| backlog.pop());
            let is_much =
                socket.backlog.borrow().as_ref().is_some_and(|rest| rest.is_much(MANY / 2));
            if !is_much {
                socket.session.release();
            }
            let Some(waiting) = waiting else {
                *socket.backlog.borrow_mut() = None;
                return None;
            };
            // It was read when it came.
            let Ok(event) = Event::parse(&waiting.data) else { continue };
            let policy = socket.namespace.policy();
            let known = socket.user();
            let user = known.as_deref().map(|known| &known.identity);
            match policy.rules.decide(&event, socket.id.as_str(), user) {
                Ok(Action::Forward(path)) => return Some(forward_of(socket, path, &waiting)),
                // Rooms are not asked about or joined in the place of somebody who has left.
                Ok(Action::Relay { rooms: Some(_), member: true, .. }) if !socket.is_here() => {}
                Ok(Action::Join(_) | Action::Leave(_) | Action::Presence(_)) | Err(_)
                    if !socket.is_here() => {}
                decided => {
                    let decided = decided.map(Action::into_owned);
                    let name = event.name.into_owned();
                    let Waiting { ack, parts, .. } = waiting;
                    let ack = ack.filter(|_| socket.is_here());
                    self.settle_event(socket, &name, decided, ack, parts, policy.rooms_max);
                }
            }
        }
    }

    /// True if the event must wait behind another; refused if too many do.
    pub(super) fn queue_behind(
        &self,
        socket: &Socket,
        event: Waiting,
    ) -> Option<Result<(), Denial>> {
        let mut backlog = socket.backlog.borrow_mut();
        let backlog = backlog.as_mut()?;
        let queued = backlog.push(event);
        if backlog.is_much(MANY) && socket.session.hold(PATIENCE) {
            metrics::count(&metrics::HUB_HELD, "hooks");
        }
        Some(queued)
    }

    /// What somebody who has left said before still comes to the application, in bounded memory.
    pub(super) fn keep_backlog(&self, socket: &Socket) {
        let waiting = socket.backlog.borrow().as_ref().map(|backlog| backlog.size());
        let Some((count @ 1.., bytes)) = waiting else { return };
        // Nothing waits without one.
        let Some(handshake) = &socket.session.handshake else { return };
        let seat = self.hooks.seat(handshake, bytes, count);
        if let Some(backlog) = socket.backlog.borrow_mut().as_mut() {
            match seat {
                Some(seat) => backlog.seat = Some(seat),
                None => **backlog = Backlog::default(),
            }
        }
    }

    fn drop_backlog(&self, socket: &Socket, loss: Loss) {
        if let Some(backlog) = socket.backlog.borrow_mut().as_mut() {
            let (count, _) = std::mem::take(&mut **backlog).size();
            self.hooks.lose(loss, count);
        }
    }

    /// The application hears that the socket has left, if it wants to.
    pub(super) fn farewell(&self, socket: &Socket, reason: &str) {
        if socket.namespace.policy().disconnect.is_none() {
            return;
        }
        let Some(handshake) = &socket.session.handshake else { return };
        let body = json!({
            "type": "disconnect", "reason": reason, "rooms": socket.rooms(),
            "user": socket.user_as_json(),
        });
        self.part_with(&socket.namespace, socket.id, handshake, body, &socket.data());
    }

    fn part_with(
        &self,
        namespace: &Rc<Namespace>,
        id: Id,
        handshake: &Rc<Handshake>,
        body: Value,
        data: &str,
    ) {
        let Some(path) = namespace.policy().disconnect.clone() else { return };
        let written = Written { data, auth: None, args: None };
        let question = question(path, body, &namespace.name, id, handshake, written);
        let (clients, namespace) = (Weak::clone(&self.me), Rc::clone(namespace));
        // Of what the application says only what is for others can be done.
        let heard = move |outcome| {
            if let (Outcome::Answered(reply), Some(clients)) = (outcome, clients.upgrade()) {
                reply.emit.into_iter().for_each(|emit| clients.emit_for(&namespace, emit));
            }
        };
        self.hooks.tell(id, question, Rc::clone(handshake), heard);
    }
}

/// Events in the order in which they came.
#[derive(Default)]
pub struct Backlog {
    events: VecDeque<Waiting>,
    bytes: usize,
    /// Held for those of somebody who has left.
    seat: Option<Seat>,
}

impl Backlog {
    fn push(&mut self, event: Waiting) -> Result<(), Denial> {
        let bytes = self.bytes + event.len();
        let full = self.events.len() >= BACKLOG || bytes > BACKLOG_BYTES;
        if full && !self.events.is_empty() {
            return Err(Denial::Busy);
        }
        self.bytes = bytes;
        self.events.push_back(event);
        Ok(())
    }

    fn is_much(&self, many: usize) -> bool {
        self.events.len() >= many || self.bytes > BACKLOG_BYTES / 2
    }

    /// How many, and their bytes.
    fn size(&self) -> (usize, usize) {
        (self.events.len(), self.bytes)
    }

    fn pop(&mut self) -> Option<Waiting> {
        let event = self.events.pop_front()?;
        self.bytes -= event.len();
        Some(event)
    }
}

/// What the client has shown; `None` if it came before a reload that has more kept than was kept then:
/// when it comes again, it is.
fn shown(session: &Session) -> Option<Rc<Handshake>> {
    let counts = session.has_shown_all() || !session.is_open();
    session.handshake.clone().filter(|_| counts)
}

fn forward_of(socket: &Socket, path: Arc<str>, waiting: &Waiting) -> Forward {
    let (mut name, mut args) = (Value::Null, "[]".to_owned());
    // It was read when it came.
    if let Ok(event) = Event::parse(&waiting.data) {
        journal::taken(socket, &event.name);
        args = binary::arguments(&event, &waiting.parts);
        name = Value::from(event.name);
    }
    // The place of who has left may be another's.
    let rooms = if socket.is_here() { socket.rooms() } else { Vec::new() };
    let body = json!({
        "type": "event", "event": name, "ack": waiting.ack.is_some(),
        "rooms": rooms, "user": socket.user_as_json(),
    });
    let question = match &socket.session.handshake {
        Some(handshake) => {
            let written = Written { data: &socket.data(), auth: None, args: Some(&args) };
            question(path, body, &socket.namespace.name, socket.id, handshake, written)
        }
        None => Question { path, body: Bytes::new() },
    };
    Forward { question, ack: waiting.ack, since: waiting.since }
}

/// Who wants to connect: somebody new, or who was here before and has rooms and data already.
fn about_arrival(returned: Option<&Returned>, user: Option<&Known>) -> Value {
    let user = user.map(|user| user.identity.to_json());
    let Some(returned) = returned else {
        return json!({ "type": "connect", "rooms": [], "user": user });
    };
    json!({ "type": "connect", "rooms": returned.rooms, "user": user, "recovered": true })
}

/// Parts of a question that are JSON already, written by the client or by the application: they may
/// hold what our own values do not.
#[derive(Clone, Copy)]
struct Written<'a> {
    data: &'a str,
    auth: Option<&'a AuthData>,
    args: Option<&'a str>,
}

/// The parts that every question has, around its own.
fn question(
    path: Arc<str>,
    mut body: Value,
    namespace: &str,
    id: Id,
    handshake: &Handshake,
    written: Written<'_>,
) -> Question {
    let about = json!({ "address": handshake.client.address, "query": query(handshake.query()) });
    if let Some(body) = body.as_object_mut() {
        body.insert("v".to_owned(), json!(1));
        body.insert("id".to_owned(), json!(uuid()));
        body.insert("namespace".to_owned(), json!(namespace));
        body.insert("sid".to_owned(), json!(id.as_str()));
    }
    let auth = written.auth.map(|auth| ("auth", auth.as_str()));
    let about = with(&about, auth.as_slice());
    let args = written.args.map(|args| ("args", args));
    let more = [("data", written.data), ("handshake", &about)];
    Question { path, body: with(&body, &[args.as_slice(), &more].concat()).into() }
}

/// An object that has fields, with more of them.
fn with(object: &Value, more: &[(&str, &str)]) -> String {
    let own = object.to_string();
    let mut text = String::with_capacity(own.len() + 256);
    for (name, json) in more {
        text.push_str(if text.is_empty() { "{\"" } else { ",\"" });
        text.extend([*name, "\":", *json]);
    }
    if text.is_empty() {
        return own;
    }
    text.push(',');
    text.push_str(own.strip_prefix('{').unwrap_or_default());
    text
}

/// What the client wrote into the query itself.
fn query(text: &str) -> Value {
    const ENGINE: [&str; 6] = ["EIO", "transport", "sid", "t", "b64", "j"];
    let own = query::fields(text).filter(|(name, _)| !ENGINE.contains(&name.as_ref()));
    Value::Object(own.map(|(name, value)| (name.into_owned(), json!(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded() {
        let event = |size: usize| Waiting::new(&"x".repeat(size), None, Vec::new());
        let mut backlog = Backlog::default();
        // One may be larger than all may be together.
        assert_eq!(backlog.push(event(BACKLOG_BYTES + 1)), Ok(()));
        assert_eq!((backlog.is_much(MANY), backlog.push(event(1))), (true, Err(Denial::Busy)));
        assert!(backlog.pop().is_some());
        for count in 0..BACKLOG {
            assert_eq!(backlog.is_much(MANY), count >= MANY);
            assert_eq!(backlog.push(event(1)), Ok(()));
        }
        assert_eq!(backlog.push(event(1)), Err(Denial::Busy));
        while backlog.pop().is_some() {}
        assert_eq!(backlog.size(), (0, 0));
        assert_eq!(backlog.push(event(BACKLOG_BYTES / 2 + 1)), Ok(()));
        assert!(backlog.is_much(MANY));
    }
}
