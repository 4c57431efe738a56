//! One session in one namespace.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::auth::Known;

use super::crowds::User;
use super::engine::{Delivery, Id, Message, Outgoing, Session};
use super::forward::Backlog;
use super::journal;
use super::meter::Meters;
use super::namespace::Namespace;
use super::packet;
use super::recovery::Ticket;
use super::rules::Denial;

/// What `socket` is in a Socket.IO handler: an id, a session to speak through, and rooms.
pub struct Socket {
    /// Public; not the session's id, which is a secret.
    pub id: Id,
    pub session: Rc<Session>,
    pub namespace: Rc<Namespace>,
    /// Its place in the namespace, and its number in the rooms.
    pub key: u32,
    /// In which it was let in: see `Session::turn`.
    pub turn: u32,
    /// What the application has attached to it, as JSON.
    pub data: RefCell<Option<Box<str>>>,
    /// Events behind one that is with the application, while there is one.
    pub backlog: RefCell<Option<Box<Backlog>>>,
    /// Set when it has left the namespace.
    pub gone: Cell<bool>,
    pub meters: Meters,
    /// Who it is, where the namespace wants to know, as was found when it was last looked at.
    pub user: RefCell<Option<Rc<Known>>>,
    /// With which it can come back.
    pub ticket: OnceCell<Rc<Ticket>>,
}

impl Socket {
    pub fn user(&self) -> Option<Rc<Known>> {
        self.user.borrow().clone()
    }

    /// As the application is told; `null` of nobody in particular.
    pub fn user_as_json(&self) -> Option<Value> {
        self.user.borrow().as_ref().map(|user| user.identity.to_json())
    }

    /// Whose it is, among the users of all providers.
    pub fn user_key(&self) -> Option<Arc<str>> {
        self.user.borrow().as_ref().map(|user| user.user_key().into())
    }

    /// The same as others are told.
    pub fn whose(&self) -> Option<User> {
        let user = self.user.borrow();
        let user = user.as_ref()?;
        Some(User { number: user.user_number(), id: user.identity.user.as_str().into() })
    }

    pub fn is_here(&self) -> bool {
        !self.gone.get()
    }

    /// As JSON.
    pub fn data(&self) -> Box<str> {
        self.data.borrow().clone().unwrap_or_else(|| NO_DATA.into())
    }

    pub fn rooms(&self) -> Vec<String> {
        self.namespace.rooms_of(self)
    }

    /// Answers that an event came to nothing; its name is known if it was read.
    pub fn deny(&self, event: Option<&str>, ack: Option<u64>, denial: Denial) {
        journal::denied(self, event, denial);
        self.acknowledge(ack, &format!(r#"[{{"error":{{"code":"{}"}}}}]"#, denial.code()));
    }

    /// Answers an event that asked for it.
    pub fn acknowledge(&self, ack: Option<u64>, data: &str) {
        self.acknowledge_with(ack, data, Vec::new());
    }

    /// The same with binary parts.
    pub fn acknowledge_with(&self, ack: Option<u64>, data: &str, parts: Vec<Bytes>) {
        let Some(id) = ack else { return };
        let name = &self.namespace.name;
        if parts.is_empty() {
            return self.session.say(&packet::answer(&mut packet::Digits::new(), name, id, data));
        }
        let text = packet::ack(name, id, data, parts.len());
        let message = Outgoing::new(Arc::new(Message::with_parts(text, parts)));
        self.session.send(&message, Delivery::Kept);
    }
}

/// What is attached to a socket of which the application has said nothing.
pub const NO_DATA: &str = "null";

/// What the room of one of the application's sessions begins with, and that of one of its users.
pub const SESSION_ROOM: &str = "session:";
pub const USER_ROOM: &str = "user:";
const USER_OF_ROOM: &str = "user@";

/// Where the sockets of a provider's user are, in namespaces that several provide for: another's may
/// have the same id. Nobody else's room is called so, whatever either is called.
pub fn user_room_of(provider: &str, user: &str) -> String {
    let provider = provider.replace('%', "%25").replace(':', "%3A");
    format!("{USER_OF_ROOM}{provider}:{user}")
}

/// Whether the hub itself puts this one's sockets into the room.
pub fn is_room_of(known: &Known, room: &str) -> bool {
    let identity = &known.identity;
    room.strip_prefix(USER_ROOM) == Some(identity.user.as_str())
        || room.strip_prefix(SESSION_ROOM) == Some(identity.session.as_str())
        || room.starts_with(USER_OF_ROOM)
            && room == user_room_of(&known.provider.name, &identity.user)
}
