//! Clients that come back: let in as who they were, with what they missed, or as somebody new.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::client::Client;
use super::clients::Clients;
use super::engine::{Close, Delivery, Id, Session, Version};
use super::namespace::Namespace;
use super::packet;
use super::recovery::{Answer, Claim, Found, Miss, Missed, Returned, count_recovered};
use super::socket::{Socket, say};

impl Clients {
    /// The earlier connection that a CONNECT wants to go on with; a bad wish is none.
    pub(super) fn claim(
        &self,
        session: &Session,
        namespace: &Namespace,
        auth: &mut Map<String, Value>,
        user: Option<Arc<str>>,
    ) -> Option<Claim> {
        if !self.recovery.is_on() || session.version == Version::V3 {
            return None;
        }
        let claim = self.recovery.read(&namespace.name, auth)?;
        let mut claim = claim.inspect_err(|miss| miss.count()).ok()?;
        claim.user = user;
        Some(claim)
    }

    /// Looks for what the client left, and lets it in with it; the client waits meanwhile.
    pub(super) fn take_back(
        self: &Rc<Self>,
        session: &Rc<Session>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        claim: Claim,
        auth: Value,
    ) {
        client.connecting.borrow_mut().push(Rc::clone(namespace).name.clone());
        let (clients, session) = (Rc::clone(self), Rc::clone(session));
        let (client, namespace) = (Rc::clone(client), Rc::clone(namespace));
        self.drain.spawn("recovery", async move {
            let answer = clients.recall(&namespace, claim).await;
            client.connecting.borrow_mut().retain(|name| *name != namespace.name);
            if session.is_open() {
                let returned = answer.inspect_err(|miss| miss.count()).ok();
                clients.admit(&session, &client, &namespace, auth, returned);
            }
        });
    }

    async fn recall(&self, namespace: &Namespace, claim: Claim) -> Answer {
        let (recovery, log) = (&self.recovery, &namespace.log);
        let answer = match recovery.find_here(&claim, log) {
            Found::Answer(answer) => answer.inspect(|returned| recovery.keep(returned)),
            Found::There(worker) => recovery.ask(worker, claim.clone()).await,
        };
        let answer = match answer {
            Ok(returned) => recovery.catch_up(log, &returned).await.map(|()| returned),
            miss => miss,
        };
        if answer.is_err() {
            recovery.outgrow(log, &claim).await;
        }
        answer
    }

    /// False, and the connection is closed, if its client has come back on yet another.
    pub(super) fn may_enter(
        &self,
        session: &Rc<Session>,
        returned: Option<&Arc<Returned>>,
    ) -> bool {
        let may = returned.is_none_or(|returned| self.recovery.keeps(returned));
        if !may {
            session.close(Close::Replaced);
        }
        may
    }

    /// What the client missed; `None` if it must begin anew after all.
    pub(super) fn missed(&self, namespace: &Namespace, returned: &Returned) -> Option<Vec<Missed>> {
        let missed = self.recovery.missed(&namespace.log, returned);
        missed
            .inspect_err(|miss: &Miss| {
                miss.count();
                self.recovery.drop_secret(returned.pid);
            })
            .ok()
    }

    /// Tells the client that it is in; first what it missed, if it was here before.
    pub(super) fn greet(&self, socket: &Rc<Socket>, back: Option<(&Returned, Vec<Missed>)>) {
        let (session, id) = (&socket.session, socket.id);
        let pid =
            self.recovery.admit(socket, back.as_ref().map(|(back, missed)| (*back, &**missed)));
        if let Some((_, missed)) = back {
            count_recovered();
            for (_, message) in missed {
                session.send(&message, Delivery::Kept);
            }
        }
        let words = match (session.version, pid) {
            (Version::V3, _) => String::new(),
            (Version::V4, Some(pid)) => format!(r#"{{"sid":"{id}","pid":"{pid}"}}"#),
            (Version::V4, None) => format!(r#"{{"sid":"{id}"}}"#),
        };
        say(session, packet::connect(&socket.namespace.name, &words));
    }

    /// Looks now and then for what is over.
    pub(super) async fn watch_recovery(self: Rc<Self>) {
        loop {
            self.recovery.rest().await;
            self.recovery.sweep(self.namespaces().into_iter());
        }
    }
}

/// The id of a socket that is on its way in.
pub fn id_of(returned: Option<&Returned>) -> Id {
    returned.map_or_else(Id::random, |returned| returned.id)
}
