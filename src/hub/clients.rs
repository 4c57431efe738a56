//! The Socket.IO clients of one worker: from a session's texts to namespaces and back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;

use crate::observe::metrics::{self, Series};

use super::engine::{Above, Close, Delivery, Message, Outgoing, Session, Version};
use super::namespace::{Namespace, Target};
use super::outbox::{Notice, Outbox};
use super::packet::{self, Event, Head, Kind, Malformed};
use super::policy::Policy;
use super::rules::{self, Action, Denial};
use super::socket::{Socket, say};

/// What the engine tells, and what the rules make of it.
pub struct Clients {
    namespaces: RefCell<HashMap<String, Rc<Namespace>>>,
    /// By the session's place in the engine's table.
    clients: RefCell<Vec<Option<Rc<Client>>>>,
    outbox: Rc<Outbox>,
    events_in: Arc<Series>,
}

/// One session's sockets.
#[derive(Default)]
struct Client {
    sockets: RefCell<Vec<Rc<Socket>>>,
    /// Left by the server's will: what the client still sends there is ignored.
    left: RefCell<Vec<Arc<str>>>,
    partial: RefCell<Option<Box<Partial>>>,
}

/// A packet whose attachments have not all come.
struct Partial {
    text: String,
    missing: usize,
    parts: Vec<Bytes>,
}

impl Clients {
    pub fn new(outbox: Rc<Outbox>, policy: Option<&Policy>) -> Rc<Self> {
        let clients = Self {
            namespaces: RefCell::default(),
            clients: RefCell::default(),
            outbox,
            events_in: metrics::series(&metrics::HUB_EVENTS, &["in"]),
        };
        clients.install(policy);
        Rc::new(clients)
    }

    /// Applies new rules to everybody who is here; who is in a namespace that is gone, leaves it.
    pub fn install(&self, policy: Option<&Policy>) {
        let mut namespaces = self.namespaces.borrow_mut();
        let mut before = std::mem::take(&mut *namespaces);
        for (name, rules) in policy.into_iter().flat_map(|policy| &policy.namespaces) {
            let namespace = match before.remove(name) {
                Some(kept) => {
                    kept.change(Arc::clone(rules));
                    kept
                }
                None => Namespace::new(name, Arc::clone(rules)),
            };
            namespaces.insert(name.clone(), namespace);
        }
        drop(namespaces);
        for gone in before.into_values() {
            for socket in gone.sockets() {
                self.expel(&socket);
            }
        }
    }

    /// The server's own disconnect of one socket; its client does not come back by itself.
    pub fn expel(&self, socket: &Rc<Socket>) {
        say(&socket.session, packet::disconnect(&socket.namespace.name));
        if let Some(client) = self.client(&socket.session) {
            client.left.borrow_mut().push(Arc::clone(&socket.namespace.name));
            client.remove(socket);
        }
        socket.namespace.remove(socket);
    }

    /// Delivers what another worker's client sent.
    pub fn hear(&self, notice: Notice) {
        let Notice::Emit { namespace, target, message, delivery } = notice;
        let namespace = self.namespaces.borrow().get(namespace.as_ref()).cloned();
        if let Some(namespace) = namespace {
            namespace.deliver(&target, &Outgoing::new(message), delivery);
        }
    }

    fn emit(&self, namespace: &Namespace, target: Target, message: Message, delivery: Delivery) {
        let message = Arc::new(message);
        namespace.deliver(&target, &Outgoing::new(Arc::clone(&message)), delivery);
        let (namespace, target) = (Arc::clone(&namespace.name), Arc::new(target));
        self.outbox.tell_all(&Notice::Emit { namespace, target, message, delivery });
    }

    pub fn namespace(&self, name: &str) -> Option<Rc<Namespace>> {
        self.namespaces.borrow().get(name).cloned()
    }

    /// The sockets of one session, in all namespaces.
    pub fn sockets_of(&self, session: &Session) -> Vec<Rc<Socket>> {
        self.client(session).map(|client| client.sockets.borrow().clone()).unwrap_or_default()
    }

    fn client(&self, session: &Session) -> Option<Rc<Client>> {
        self.clients.borrow().get(session.key.index as usize).cloned().flatten()
    }

    fn take_text(&self, session: &Rc<Session>, text: &str) -> Result<(), Malformed> {
        let Some(client) = self.client(session) else { return Ok(()) };
        if client.partial.borrow().is_some() {
            return Err(Malformed);
        }
        let head = Head::parse(text)?;
        if head.attachments == 0 {
            return self.take_packet(session, &client, &head, Vec::new());
        }
        packet::check_placeholders(head.data, head.attachments)?;
        let partial =
            Partial { text: text.to_owned(), missing: head.attachments, parts: Vec::new() };
        *client.partial.borrow_mut() = Some(Box::new(partial));
        Ok(())
    }

    fn take_part(&self, session: &Rc<Session>, data: &[u8]) -> Result<(), Malformed> {
        let Some(client) = self.client(session) else { return Ok(()) };
        let mut partial = client.partial.take().ok_or(Malformed)?;
        partial.parts.push(Bytes::copy_from_slice(data));
        partial.missing -= 1;
        if partial.missing > 0 {
            *client.partial.borrow_mut() = Some(partial);
            return Ok(());
        }
        let Partial { text, parts, .. } = *partial;
        self.take_packet(session, &client, &Head::parse(&text)?, parts)
    }

    fn take_packet(
        &self,
        session: &Rc<Session>,
        client: &Rc<Client>,
        head: &Head<'_>,
        parts: Vec<Bytes>,
    ) -> Result<(), Malformed> {
        let name = match session.version {
            Version::V4 => head.namespace,
            // Old clients write their query into the name.
            Version::V3 => head.namespace.split('?').next().unwrap_or_default(),
        };
        if head.kind == Kind::Connect {
            packet::check_data(head)?;
            return self.connect(session, client, name);
        }
        let Some(socket) = client.find(name) else {
            // What was on its way when the server closed the namespace is no offence.
            let left = client.left.borrow().iter().any(|left| left.as_ref() == name);
            return if left { Ok(()) } else { Err(Malformed) };
        };
        match head.kind {
            Kind::Event if head.data.is_empty() => Ok(()),
            Kind::Event => {
                self.events_in.increment();
                self.take_event(&socket, head, parts)
            }
            // Nobody here asks clients for acknowledgements.
            Kind::Ack => packet::check_data(head),
            Kind::Disconnect => {
                packet::check_data(head)?;
                client.remove(&socket);
                socket.namespace.remove(&socket);
                Ok(())
            }
            Kind::Connect | Kind::ConnectError => Err(Malformed),
        }
    }

    fn connect(&self, session: &Rc<Session>, client: &Client, name: &str) -> Result<(), Malformed> {
        if client.find(name).is_some() {
            return Err(Malformed);
        }
        let namespace = self.namespaces.borrow().get(name).cloned();
        let Some(namespace) = namespace else {
            say(session, packet::connect_error(name, "Invalid namespace"));
            return Ok(());
        };
        let socket = namespace.enter(session);
        let policy = namespace.policy();
        let joined = rules::rooms_at_connect(&policy.join, socket.id.as_str());
        if joined.and_then(|rooms| namespace.join(&socket, &rooms, policy.rooms_max)).is_err() {
            namespace.remove(&socket);
            say(session, packet::connect_error(name, "unauthorized"));
            return Ok(());
        }
        client.left.borrow_mut().retain(|left| left.as_ref() != name);
        client.sockets.borrow_mut().push(Rc::clone(&socket));
        let words = match session.version {
            Version::V4 => format!(r#"{{"sid":"{}"}}"#, socket.id),
            Version::V3 => String::new(),
        };
        say(session, packet::connect(name, &words));
        Ok(())
    }

    fn take_event(
        &self,
        socket: &Socket,
        head: &Head<'_>,
        parts: Vec<Bytes>,
    ) -> Result<(), Malformed> {
        let event = Event::parse(head.data)?;
        let policy = socket.namespace.policy();
        let done = policy.rules.decide(&event, socket.id.as_str());
        let done = done.and_then(|action| self.act(socket, action, parts, policy.rooms_max));
        match done {
            Ok(()) => socket.acknowledge(head.ack, r#"[{"ok":true}]"#),
            Err(denial) => {
                let data = format!(r#"[{{"error":{{"code":"{}"}}}}]"#, denial.code());
                socket.acknowledge(head.ack, &data);
            }
        }
        Ok(())
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
            Action::Join(rooms) => namespace.join(socket, &rooms, rooms_max),
            Action::Leave(rooms) => {
                namespace.leave(socket, &rooms);
                Ok(())
            }
            Action::Relay { rooms, data, volatile, echo, member } => {
                let inside = |rooms: &Vec<String>| namespace.is_member(socket, rooms);
                if member && !rooms.as_ref().is_none_or(inside) {
                    return Err(Denial::NotMember);
                }
                let text = packet::event(&namespace.name, &data, parts.len());
                let but = (!echo).then_some(socket.id);
                let delivery = if volatile { Delivery::Volatile } else { Delivery::Kept };
                self.emit(
                    namespace,
                    Target { rooms, but, ..Target::default() },
                    Message::with_parts(text, parts),
                    delivery,
                );
                Ok(())
            }
        }
    }
}

impl Client {
    fn find(&self, namespace: &str) -> Option<Rc<Socket>> {
        let sockets = self.sockets.borrow();
        sockets.iter().find(|socket| socket.namespace.name.as_ref() == namespace).cloned()
    }

    fn remove(&self, socket: &Socket) {
        self.sockets.borrow_mut().retain(|known| known.id != socket.id);
    }
}

impl Above for Clients {
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
        if session.version == Version::V3 && self.connect(session, &client, "/").is_err() {
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

    fn closed(&self, session: &Rc<Session>, _why: Close) {
        let client =
            self.clients.borrow_mut().get_mut(session.key.index as usize).and_then(Option::take);
        for socket in client.iter().flat_map(|client| client.sockets.take()) {
            socket.namespace.remove(&socket);
        }
    }

    /// Who has joined no namespace by now has come for nothing.
    fn settle(&self, session: &Rc<Session>) {
        let idle = self.client(session).is_none_or(|client| client.sockets.borrow().is_empty());
        if idle {
            session.close(Close::Unsettled);
        }
    }

    fn is_congested(&self, waker: &Waker) -> bool {
        self.outbox.is_congested(waker)
    }
}
