//! A CONNECT: who is let into a namespace, and what the client is told.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use tokio::time::sleep;

use crate::auth::{Identity, Known};

use super::auth_data::AuthData;
use super::client::Client;
use super::clients::Clients;
use super::engine::{Close, Id, Session, Version};
use super::journal;
use super::namespace::Namespace;
use super::pace::Turn;
use super::packet::{self, Malformed};
use super::recovery::Returned;
use super::returning::id_of;
use super::rules::{self, Denial};
use super::socket::{SESSION_ROOM, Socket, USER_ROOM, user_room_of};

impl Clients {
    pub(super) fn connect(
        &self,
        session: &Rc<Session>,
        client: &Rc<Client>,
        name: &str,
        auth: AuthData,
    ) -> Result<(), Malformed> {
        // A client that left before it was answered, and comes again, waits for the same answer,
        // if it has said nothing of that.
        if client.arrivals.is_waiting(name) {
            client.arrivals.come_again(name, auth);
            return Ok(());
        }
        if let Some(socket) = client.find(name) {
            // The same where it was answered at once: both were said before it could hear of that.
            let is_one = socket.turn == session.turn();
            return if is_one { Ok(()) } else { Err(Malformed) };
        }
        let namespace = self.namespace(name);
        let Some(namespace) = namespace else {
            journal::refused(session, name, "invalid_namespace");
            // An object for old clients as well, as from Node.
            session.say(&[&packet::connect_error(name, "Invalid namespace", None)]);
            return Ok(());
        };
        let Some(me) = self.me.upgrade() else { return Ok(()) };
        if namespace.policy().admin_ui.is_some() {
            me.ask_porter(session, client, &namespace, &auth);
            return Ok(());
        }
        if namespace.policy().users.is_some() {
            me.identify(session, client, &namespace, auth);
        } else {
            me.welcome(session, client, &namespace, auth);
        }
        Ok(())
    }

    /// The same for one who has said much already: its CONNECT waits for its turn, since clients do
    /// not come again after a refusal.
    pub(super) fn connect_later(
        &self,
        session: &Rc<Session>,
        client: &Rc<Client>,
        name: &str,
        auth: AuthData,
    ) -> Result<(), Malformed> {
        let waits = client.arrivals.is_waiting(name);
        let namespace = self.namespace(name).filter(|_| !waits && client.find(name).is_none());
        let (Some(me), Some(namespace)) = (self.me.upgrade(), namespace) else {
            // What is no work.
            return self.connect(session, client, name, auth);
        };
        client.arrivals.begin(&namespace.name);
        let (session, client) = (Rc::clone(session), Rc::clone(client));
        self.drain.spawn_background(async move {
            let mut turn = Turn::default();
            let from = (&session, &*client);
            while let Err(wait) = me.take_turn(from, &namespace.name, &mut turn) {
                sleep(wait.min(TURN_LOOK)).await;
                if !session.is_open() {
                    return;
                }
            }
            client.arrivals.end(&namespace.name);
            if session.is_open() && me.connect(&session, &client, &namespace.name, auth).is_err() {
                session.close(Close::ParseError);
            }
            // It may have left meanwhile.
            me.decided(&session, &client, &namespace.name);
        });
        Ok(())
    }

    /// Lets a client in that may come, as who it was before or as somebody new.
    pub(super) fn welcome(
        self: &Rc<Self>,
        session: &Rc<Session>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        mut auth: AuthData,
    ) {
        let user = client.user_in(&namespace.name).map(|user| user.user_key().into());
        if self.welcome_back(session, client, namespace, &mut auth, user.clone()) {
            return;
        }
        match self.claim(session, namespace, &mut auth, user) {
            Some(claim) => self.take_back(session, client, namespace, claim, auth),
            None => self.admit(session, client, namespace, auth, None),
        }
    }

    /// Lets a client in, if the application has nothing against it.
    pub(super) fn admit(
        self: &Rc<Self>,
        session: &Rc<Session>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        auth: AuthData,
        returned: Option<Arc<Returned>>,
    ) {
        if !self.sit_down(client, &namespace.name) {
            // Not a refusal, after which the client would stay away: its old connection is soon seen
            // to be gone.
            journal::refused(session, &namespace.name, "too_many_connections");
            return session.close(Close::Unavailable);
        }
        if let Some((id, line)) = returned.as_deref().and_then(Returned::line) {
            self.hooks.adopt(id, line);
        }
        if let Some(path) = &namespace.policy().connect {
            return self.ask_to_connect(session, client, namespace, path, auth, returned);
        }
        if let Some(back) = returned.clone().filter(|back| back.afar.is_some()) {
            let (clients, session) = (Rc::clone(self), Rc::clone(session));
            let (client, namespace) = (Rc::clone(client), Rc::clone(namespace));
            // From now on, not when the task has its first turn: it must not come in twice.
            client.arrivals.begin(&namespace.name);
            self.drain.spawn("recovery", async move {
                let (me, known) = (Rc::clone(&clients), Rc::clone(&client));
                let there = Rc::clone(&namespace);
                let enter = move |back: Option<Arc<Returned>>| {
                    let is_open = session.is_open();
                    if is_open {
                        me.come_in(&session, &known, &there, back);
                    }
                    is_open
                };
                clients.catch_up(&client, &namespace, back, enter).await;
            });
            return;
        }
        self.come_in(session, client, namespace, returned);
    }

    fn come_in(
        self: &Rc<Self>,
        session: &Rc<Session>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        returned: Option<Arc<Returned>>,
    ) {
        if !self.may_enter(session, returned.as_ref()) {
            return;
        }
        let id = id_of(returned.as_deref());
        if let Err(denial) = self.enter(session, client, namespace, id, &[], returned.as_deref()) {
            if let Some(back) = returned {
                self.recovery.drop_secret(back.pid);
            }
            refuse(session, &namespace.name, denial.code());
        }
        self.decided(session, client, &namespace.name);
    }

    /// Does what the client has said of the namespace while it was not known whether it may come in:
    /// it has left, and may have come again. Node's server would have hung up.
    pub(super) fn decided(&self, session: &Rc<Session>, client: &Rc<Client>, namespace: &str) {
        let Some(left) = client.arrivals.take_left(namespace).filter(|_| session.is_open()) else {
            return;
        };
        if let Some(socket) = client.find(namespace) {
            self.leave(client, &socket);
        }
        if let Some(auth) = left.again {
            // It is not in.
            let _right = self.connect(session, client, namespace, auth);
        }
    }

    /// A socket in its namespace and its first rooms; its client is told.
    pub(super) fn enter(
        &self,
        session: &Rc<Session>,
        client: &Client,
        namespace: &Rc<Namespace>,
        id: Id,
        more: &[String],
        returned: Option<&Returned>,
    ) -> Result<Rc<Socket>, Denial> {
        if client.outdated.get() {
            // It comes back, and is judged by what holds now.
            session.close(Close::Forced);
            return Err(Denial::Denied);
        }
        // A reload may have taken it away while somebody else decided.
        if !self.namespace(&namespace.name).is_some_and(|now| Rc::ptr_eq(&now, namespace)) {
            return Err(Denial::Denied);
        }
        let policy = namespace.policy();
        let back = returned.and_then(|back| Some((back, self.missed(session, namespace, back)?)));
        let user = client.user_in(&namespace.name);
        let identity = user.as_ref().map(|user| &user.identity);
        let mut rooms = rules::rooms_at_connect(&policy.join, id.as_str(), identity)?;
        rooms.extend_from_slice(more);
        rooms.extend(identity.and_then(session_room));
        let own = identity.map(user_room).filter(|own| !rooms.contains(own));
        rooms.extend(own);
        if policy.users.as_ref().is_some_and(|providers| providers.len() > 1) {
            let name = |user: &Rc<Known>| user_room_of(&user.provider.name, &user.identity.user);
            rooms.extend(user.as_ref().map(name));
        }
        let kept = back.iter().flat_map(|(back, _)| back.rooms.iter());
        rooms.extend(kept.filter(|room| !room.starts_with(SESSION_ROOM)).cloned());
        let socket = namespace.enter(session, id, user);
        // Who comes back had its rooms by rights.
        let rooms_max = if back.is_some() { rooms.len() } else { policy.rooms_max };
        if let Err(denial) = namespace.join(&socket, &rooms, rooms_max) {
            namespace.remove(&socket);
            return Err(denial);
        }
        client.left.borrow_mut().retain(|left| *left != namespace.name);
        client.sockets.borrow_mut().push(Rc::clone(&socket));
        if let Some((back, _)) = &back {
            (*socket.data.borrow_mut()).clone_from(&back.data);
        }
        self.greet(&socket, back);
        session.settle();
        journal::connected(&socket);
        Ok(socket)
    }
}

/// Who waits for a turn to connect may have gone: looked at as often.
const TURN_LOOK: Duration = Duration::from_secs(1);

/// Where the sockets of one session are, so that they can be sent away on all nodes.
fn session_room(identity: &Identity) -> Option<String> {
    let session = identity.session.as_str();
    (!session.is_empty()).then(|| format!("{SESSION_ROOM}{session}"))
}

/// Where the sockets of one user are, for whoever speaks to the user by name.
fn user_room(identity: &Identity) -> String {
    format!("{USER_ROOM}{}", identity.user)
}

/// Answers a CONNECT that comes to nothing.
pub fn refuse(session: &Rc<Session>, namespace: &str, code: &'static str) {
    refuse_with(session, namespace, code, code);
}

/// The same with a message for people.
pub fn refuse_with(session: &Rc<Session>, namespace: &str, code: &'static str, message: &str) {
    journal::refused(session, namespace, code);
    say_refused(session, namespace, message, None);
}

/// To clients of Socket.IO 2 Node says the data alone or, without any, the message alone.
pub fn say_refused(session: &Rc<Session>, namespace: &str, message: &str, data: Option<&Value>) {
    let text = match session.version {
        Version::V4 => packet::connect_error(namespace, message, data),
        Version::V3 => packet::error(namespace, data.unwrap_or(&Value::from(message))),
    };
    session.say(&[&text]);
}
