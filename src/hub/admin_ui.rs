//! What the page of Socket.IO's Admin UI says and hears, in its production mode.
//!
//! Source: @socket.io/admin-ui 0.5. The page is static; it connects to a namespace of its own.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::AdminDoor;

use super::auth_data::AuthData;
use super::client::Client;
use super::clients::Clients;
use super::connecting::refuse_with;
use super::engine::{Id, Session};
use super::namespace::{Namespace, Target};
use super::operation::{Deed, Operation};
use super::packet::{self, Event};
use super::porter::{Pass, Verdict};
use super::socket::Socket;

/// What the page sends with its CONNECT: either a session or a name and a password.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Auth {
    session_id: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

/// What the page may do.
const COMMANDS: [&str; 7] =
    ["EMIT", "JOIN", "LEAVE", "DISCONNECT", "MJOIN", "MLEAVE", "MDISCONNECT"];

/// What the words of a CONNECT show; `None` if that is nothing.
pub(super) fn pass(auth: &str) -> Option<Pass> {
    match serde_json::from_str(auth).ok()? {
        Auth { session_id: Some(id), .. } => Some(Pass::Session(id)),
        Auth { username: Some(username), password: Some(password), .. } => {
            Some(Pass::Password { username, password })
        }
        _ => None,
    }
}

impl Clients {
    /// Has the porter look at who connects; the client waits for his answer.
    pub(super) fn ask_porter(
        self: &Rc<Self>,
        session: &Rc<Session>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        auth: &AuthData,
    ) {
        let (pass, wanted) = (pass(auth.as_str()), namespace.policy().admin_ui.clone());
        let (Some(pass), Some(wanted)) = (pass, wanted) else {
            return refuse_with(session, &namespace.name, "invalid_credentials", WRONG);
        };
        client.arrivals.begin(&namespace.name);
        let (clients, session) = (Rc::clone(self), Rc::clone(session));
        let (client, namespace) = (Rc::clone(client), Rc::clone(namespace));
        self.drain.spawn("porter", async move {
            let verdict = clients.porter.ask(pass, wanted, session.address).await;
            client.arrivals.end(&namespace.name);
            if session.is_open() {
                clients.let_in(&session, &client, &namespace, verdict);
                clients.decided(&session, &client, &namespace.name);
            }
        });
    }

    fn let_in(
        &self,
        session: &Rc<Session>,
        client: &Client,
        namespace: &Rc<Namespace>,
        verdict: Verdict,
    ) {
        let name = &namespace.name;
        let id = match verdict {
            Verdict::Welcome(id) => id,
            Verdict::Wrong => return refuse_with(session, name, "invalid_credentials", WRONG),
            Verdict::Later => return refuse_with(session, name, "rate_limited", LATER),
        };
        // A reload meanwhile may have taken the namespace away.
        let is_here = self.namespace(name).is_some_and(|here| Rc::ptr_eq(&here, namespace));
        let Some(words) = namespace.policy().admin_ui.clone().filter(|_| is_here) else {
            return refuse_with(session, name, "invalid_namespace", "Invalid namespace");
        };
        if let Some(id) = id {
            // The page waits for it before the answer to its CONNECT.
            tell(session, name, &json!(["session", id]));
        }
        let features = COMMANDS.iter().filter(|_| !words.readonly).chain(&["AGGREGATED_EVENTS"]);
        let features: Vec<_> = features.collect();
        if self.enter(session, client, namespace, Id::random(), &[], None).is_ok() {
            tell(session, name, &json!(["config", { "supportedFeatures": features }]));
        }
    }

    /// Does what the page asks. It expects no answer; who wants one is told nothing by it.
    pub(super) fn obey(
        &self,
        socket: &Socket,
        words: &AdminDoor,
        event: &Event<'_>,
        ack: Option<u64>,
        parts: Vec<Bytes>,
    ) {
        socket.acknowledge(ack, "[]");
        let Some(operation) = operation(event, parts).filter(|_| !words.readonly) else { return };
        self.command(Arc::new(operation));
    }
}

const WRONG: &str = "invalid credentials";
const LATER: &str = "too many attempts; try again in a minute";

fn tell(session: &Rc<Session>, namespace: &str, event: &Value) {
    session.say(&[&packet::event(namespace, &event.to_string(), 0)]);
}

/// The operation that an event of the page asks for.
pub(super) fn operation(event: &Event<'_>, parts: Vec<Bytes>) -> Option<Operation> {
    let text = |index: usize| event.args().nth(index).and_then(packet::text);
    let namespace = text(0)?;
    // A room or a socket; without one everybody is meant.
    let target = |index: usize| {
        let rooms = text(index).filter(|room| !room.is_empty()).map(|room| vec![room.into_owned()]);
        Target { rooms, ..Target::default() }
    };
    let rooms = || Some(vec![text(1).filter(|room| !room.is_empty())?.into_owned()]);
    let deed = match event.name.as_ref() {
        "emit" => {
            let name = text(2).filter(|name| !packet::is_reserved(name))?;
            let mut data = format!("[{}", Value::from(name.as_ref()));
            for argument in event.args().skip(3) {
                data.push(',');
                data.push_str(argument);
            }
            data.push(']');
            return Some(Operation::emit(&namespace, target(1), &data, parts, false));
        }
        "join" => Deed::Join { target: target(2), rooms: rooms()? },
        "leave" => Deed::Leave { target: target(2), rooms: rooms()? },
        "_disconnect" => {
            let close = event.args().nth(1) == Some("true");
            Deed::Disconnect { target: target(2), close }
        }
        _ => return None,
    };
    Some(Operation::new(&namespace, deed))
}
