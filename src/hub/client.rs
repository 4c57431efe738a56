//! What the hub knows of one session: its sockets, and what is on its way.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use crate::auth::{Digest, Known};

use super::arrivals::Arrivals;
use super::clients::Clients;
use super::engine::{Session, Version};
use super::meter::Meter;
use super::partial::Partial;
use super::socket::Socket;
use super::watched::Here;

/// One session's sockets.
#[derive(Default)]
pub struct Client {
    pub(super) arrivals: Arrivals,
    pub(super) sockets: RefCell<Vec<Rc<Socket>>>,
    /// Who it is, in the namespaces that want to know.
    pub(super) here: RefCell<Vec<Here>>,
    /// Since it was first known who it is.
    pub(super) since: Cell<Option<Instant>>,
    /// Left by the server's will: what the client still sends there is ignored.
    pub(super) left: RefCell<Vec<Arc<str>>>,
    /// Where it says it is, by namespace, until it is let in: see `recovery::Wish`.
    pub(super) shown: RefCell<Vec<(Arc<str>, u64)>>,
    pub(super) partial: RefCell<Option<Box<Partial>>>,
    /// Whether the engine will remind of the partial packet.
    pub(super) watched: Cell<bool>,
    /// Has said something, which showed how it writes.
    pub(super) spoke: Cell<bool>,
    pub(super) meter: Meter,
    /// Was on its way into a namespace when others began to be let in there.
    pub(super) outdated: Cell<bool>,
}

impl Client {
    /// Whether the client writes msgpack, which its first message shows for good.
    pub(super) fn is_packed(&self, session: &Session, shown: bool) -> bool {
        // Old clients are spoken to before they have shown anything.
        if !self.spoke.replace(true) && shown && session.version == Version::V4 {
            session.translate();
        }
        session.is_translated()
    }

    pub(super) fn find(&self, namespace: &str) -> Option<Rc<Socket>> {
        let sockets = self.sockets.borrow();
        sockets.iter().find(|socket| socket.namespace.name.as_ref() == namespace).cloned()
    }

    pub(super) fn take_shown(&self, namespace: &str) -> Option<u64> {
        let mut shown = self.shown.borrow_mut();
        let index = shown.iter().position(|(name, _)| **name == *namespace)?;
        Some(shown.swap_remove(index).1)
    }

    /// What is known of its user in this namespace, from now on; what was known before. It is the same
    /// user: rooms and counts stay.
    pub(super) fn is_now(&self, namespace: &str, known: &Rc<Known>) -> Option<Rc<Known>> {
        let mut here = self.here.borrow_mut();
        let one = here.iter_mut().find(|one| *one.namespace == *namespace)?;
        let before = std::mem::replace(&mut one.known, Rc::clone(known));
        if let Some(socket) = self.find(namespace) {
            socket.user.replace(Some(Rc::clone(known)));
        }
        Some(before)
    }

    /// The namespaces that this credential has opened.
    pub(super) fn places_of(&self, digest: &Digest) -> Vec<Arc<str>> {
        let here = self.here.borrow();
        let those = here.iter().filter(|one| one.known.digest == *digest);
        those.map(|one| Arc::clone(&one.namespace)).collect()
    }

    pub(super) fn remove(&self, socket: &Socket) {
        self.sockets.borrow_mut().retain(|known| known.id != socket.id);
    }
}

impl Clients {
    /// The sockets of one session, in all namespaces.
    pub fn sockets_of(&self, session: &Session) -> Vec<Rc<Socket>> {
        self.client(session).map(|client| client.sockets.borrow().clone()).unwrap_or_default()
    }
}
