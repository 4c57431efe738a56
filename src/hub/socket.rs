//! One session in one namespace.

use std::rc::Rc;
use std::sync::Arc;

use super::engine::{Delivery, Id, Message, Outgoing, Session};
use super::namespace::Namespace;
use super::packet;

/// What `socket` is in a Socket.IO handler: an id, a session to speak through, and rooms.
pub struct Socket {
    /// Public; not the session's id, which is a secret.
    pub id: Id,
    pub session: Rc<Session>,
    pub namespace: Rc<Namespace>,
    /// Its place in the namespace, and its number in the rooms.
    pub key: u32,
}

impl Socket {
    /// Answers an event that asked for it.
    pub fn acknowledge(&self, ack: Option<u64>, data: &str) {
        if let Some(id) = ack {
            say(&self.session, packet::ack(&self.namespace.name, id, data));
        }
    }
}

/// Sends one session one packet.
pub fn say(session: &Rc<Session>, text: String) {
    let message = Outgoing::new(Arc::new(Message::text(text)));
    session.send(&message, Delivery::Kept);
}
