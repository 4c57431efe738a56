//! Clients that come back: let in as who they were, with what they missed, or as somebody new.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::auth_data::AuthData;
use super::client::Client;
use super::clients::Clients;
use super::cluster::{self, Ask, Replay};
use super::engine::{Close, Delivery, Id, Session, Version};
use super::namespace::Namespace;
use super::packet;
use super::recovery::{Answer, Claim, Found, Miss, Missed, Returned, Wish, count_recovered};
use super::socket::Socket;

/// What is done when it is known what a client missed, by the number of the question.
#[derive(Default)]
pub struct Entering {
    next: Cell<u64>,
    waiting: RefCell<HashMap<u64, GoOn>>,
}

type GoOn = Box<dyn FnOnce(Option<Replay>)>;

impl Clients {
    /// The earlier connection that a CONNECT wants to go on with; a bad wish is none.
    pub(super) fn claim(
        &self,
        session: &Session,
        namespace: &Namespace,
        auth: &mut AuthData,
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

    /// The same where all nodes share an order: asks Redis, and lets the client in as who it was or
    /// as somebody new. False if it wishes nothing.
    pub(super) fn welcome_back(
        self: &Rc<Self>,
        session: &Rc<Session>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        auth: &mut AuthData,
        user: Option<Arc<str>>,
    ) -> bool {
        let Some(uplink) = self.recovery.ordered().filter(|_| session.version != Version::V3)
        else {
            return false;
        };
        let Some(wish) = Wish::read(auth) else { return false };
        let Ok(wish) = wish.inspect_err(|miss| miss.count()) else { return false };
        client.take_shown(&namespace.name);
        let shown = wish.offset.map(|offset| (Arc::clone(&namespace.name), offset));
        client.shown.borrow_mut().extend(shown);
        client.arrivals.begin(&namespace.name);
        let (clients, session, uplink) = (Rc::clone(self), Rc::clone(session), Rc::clone(uplink));
        let (client, namespace) = (Rc::clone(client), Rc::clone(namespace));
        let auth = auth.clone();
        self.drain.spawn("recovery", async move {
            let (answer, answered) = oneshot::channel();
            let (name, user_key) = (Arc::clone(&namespace.name), user.clone());
            uplink
                .ask(Ask::Recall { pid: wish.pid, namespace: name, user: user_key, answer })
                .await;
            let kept = answered.await.ok().flatten().ok_or(Miss::Unknown);
            let returned = kept.and_then(|kept| wish.returned(kept, &namespace.name, user));
            if let (Err(_), Some(shown)) = (&returned, wish.offset) {
                clients.recovery.outgrow_afar(&namespace, shown).await;
            }
            if returned.is_ok() {
                clients.wait_to_sit_down(&client, &namespace.name).await;
            }
            client.arrivals.end(&namespace.name);
            if session.is_open() {
                let returned = returned.inspect_err(|miss| miss.count()).ok().map(Arc::new);
                clients.admit(&session, &client, &namespace, auth, returned);
            }
        });
        true
    }

    /// Has `enter` called with what the client left, or with nothing, in the turn in which all is
    /// delivered here that it is sent at once: nothing is lost or comes twice in between.
    pub(super) async fn catch_up(
        self: &Rc<Self>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        back: Arc<Returned>,
        enter: impl FnOnce(Option<Arc<Returned>>) -> bool + 'static,
    ) -> bool {
        let (Some(uplink), Some(afar)) = (self.recovery.ordered().cloned(), back.afar.clone())
        else {
            client.arrivals.end(&namespace.name);
            return enter(None);
        };
        client.arrivals.begin(&namespace.name);
        let number = self.entering.next.get() + 1;
        self.entering.next.set(number);
        let (done, entered) = oneshot::channel();
        let question = cluster::Entering {
            worker: self.worker(),
            number,
            namespace: Arc::clone(&namespace.name),
            id: back.id,
            rooms: back.rooms.clone().into(),
            have: afar.have,
        };
        let (client, namespace) = (Rc::clone(client), Rc::clone(namespace));
        let clients = Rc::clone(self);
        let go_on = move |missed: Option<Replay>| {
            client.arrivals.end(&namespace.name);
            let is_known = missed.is_some();
            afar.set_missed(missed);
            if !is_known {
                Miss::TooMuch.count();
                clients.recovery.drop_secret(back.pid);
            }
            // Nobody waits if the process ends.
            let _told = done.send(enter(Some(back).filter(|_| is_known)));
        };
        self.entering.waiting.borrow_mut().insert(number, Box::new(go_on));
        uplink.ask(Ask::Enter(question)).await;
        entered.await.unwrap_or_default()
    }

    /// The namespaces whose messages stand there.
    pub(super) fn in_stream(&self, stream: &str) -> impl Iterator<Item = Rc<Namespace>> {
        let namespaces = self.namespaces().into_iter();
        namespaces.filter(move |namespace| namespace.stream.as_deref() == Some(stream))
    }

    /// All is delivered here that came before what is `missed`.
    pub(super) fn entered(&self, number: u64, missed: Option<Replay>) {
        let waiting = self.entering.waiting.borrow_mut().remove(&number);
        if let Some(go_on) = waiting {
            go_on(missed);
        }
    }

    /// Looks for what the client left, and lets it in with it; the client waits meanwhile.
    pub(super) fn take_back(
        self: &Rc<Self>,
        session: &Rc<Session>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        claim: Claim,
        auth: AuthData,
    ) {
        client.arrivals.begin(&namespace.name);
        let (clients, session) = (Rc::clone(self), Rc::clone(session));
        let (client, namespace) = (Rc::clone(client), Rc::clone(namespace));
        self.drain.spawn("recovery", async move {
            let answer = clients.recall(&namespace, claim).await;
            client.arrivals.end(&namespace.name);
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
    pub(super) fn missed(
        &self,
        session: &Rc<Session>,
        namespace: &Namespace,
        returned: &Returned,
    ) -> Option<Vec<Missed>> {
        let missed = self.recovery.missed(&namespace.log, returned);
        // What another namespace has to say may be waiting in the same queue.
        let fits = |missed: &[Missed]| {
            let bytes = missed.iter().map(|(_, message)| message.size()).sum();
            missed.is_empty() || session.takes_at_once(missed.len(), bytes)
        };
        missed
            .and_then(|missed| if fits(&missed) { Ok(missed) } else { Err(Miss::TooMuch) })
            .inspect_err(|miss: &Miss| {
                miss.count();
                self.recovery.drop_secret(returned.pid);
            })
            .ok()
    }

    /// Tells the client that it is in; first what it missed, if it was here before.
    pub(super) fn greet(&self, socket: &Rc<Socket>, back: Option<(&Returned, Vec<Missed>)>) {
        let (session, id) = (&socket.session, socket.id);
        let shown = self.client(session).and_then(|client| {
            let shown = client.take_shown(&socket.namespace.name);
            shown.filter(|_| back.is_none())
        });
        let returned = back.as_ref().map(|(back, missed)| (*back, &**missed));
        let pid = self.recovery.admit(socket, returned, shown);
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
        session.say(&[&packet::connect(&socket.namespace.name, &words)]);
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
