//! Who the clients are: identified when they connect, and looked at again while they stay.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::auth::{self, Credentials, Denial, Digest, Known, Suspicion};
use crate::exchange;

use super::auth_data::AuthData;
use super::client::Client;
use super::clients::Clients;
use super::connecting::{refuse, say_refused};
use super::engine::{Close, Owner, Session, Version};
use super::journal;
use super::namespace::Namespace;
use super::policy::Policy;
use super::watched::{Fate, Here};

impl Clients {
    /// Finds out who wants to connect; the client waits meanwhile.
    pub(super) fn identify(
        self: &Rc<Self>,
        session: &Rc<Session>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        mut auth: AuthData,
    ) {
        let policy = namespace.policy();
        let providers = policy.users.as_deref().unwrap_or_default();
        let reads = |provider: &Arc<auth::Provider>| provider.reads(crate::config::Source::Connect);
        // What opens a session goes no further.
        let token = if providers.iter().any(reads) { auth.remove("token") } else { None };
        let found = match &session.handshake {
            None => Some(Err(Denial::Missing)),
            // Mostly somebody who was here a moment ago.
            Some(handshake) if token.is_none() => handshake.with_credentials(|shown| {
                self.users.local.recognize(shown, &handshake.client, providers)
            }),
            Some(_) => None,
        };
        if let Some(found) = found {
            return self.identified(session, client, namespace, auth, found);
        }
        client.arrivals.begin(&namespace.name);
        let (clients, session) = (Rc::clone(self), Rc::clone(session));
        let (client, namespace) = (Rc::clone(client), Rc::clone(namespace));
        self.drain.spawn("identify", async move {
            let policy = namespace.policy();
            let providers = policy.users.as_deref().unwrap_or_default();
            let token = token.as_ref().and_then(Value::as_str);
            let found = match &session.handshake {
                None => Err(Denial::Missing),
                Some(handshake) => {
                    let shown: Credentials = handshake.credentials().with_token(token);
                    clients.users.local.identify(&shown, &handshake.client, providers).await
                }
            };
            client.arrivals.end(&namespace.name);
            if session.is_open() {
                clients.identified(&session, &client, &namespace, auth, found);
                clients.decided(&session, &client, &namespace.name);
            }
        });
    }

    fn identified(
        self: &Rc<Self>,
        session: &Rc<Session>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        auth: AuthData,
        found: Result<Rc<Known>, Denial>,
    ) {
        let known = match found {
            Ok(known) => known,
            // Not a refusal, after which the client would stay away: it is to come back.
            Err(Denial::Temporary(_, reason)) => {
                journal::refused(session, &namespace.name, reason);
                return session.close(Close::Unavailable);
            }
            // What opened other namespaces has ended since, and the client may have the next: it is to
            // come back with that.
            Err(Denial::EXPIRED) if client.has_token() => return session.close(Close::Expired),
            // What would say so was not kept when it came: when it comes again, it is.
            Err(Denial::Missing) if !session.has_shown_all() => {
                return session.close(Close::Forced);
            }
            Err(denial) => {
                debug!(reason = denial.reason(), "nobody is identified");
                return unauthorized(session, &namespace.name, denial.reason());
            }
        };
        let mut here = client.here.borrow_mut();
        let same = |one: &&Here| same_provider(&one.known, &known);
        let before = here.iter().find(same);
        // Nobody becomes another on one connection.
        if before.is_some_and(|one| one.known.identity.user != known.identity.user) {
            drop(here);
            return unauthorized(session, &namespace.name, "another_user");
        }
        // Who waits for a seat speaks for nobody: others of the connection wait as well.
        let is_seated = here.iter().any(|one| same(&one) && one.seat.is_some());
        let seat = if is_seated { None } else { self.users.seat(&known) };
        let mut waits = None;
        let returns = self.recovery.is_on() && session.version != Version::V3 && auth.has("pid");
        let may_wait = returns || before.is_some();
        if !is_seated && seat.is_none() {
            waits = may_wait.then(|| self.users.wait_for_seat()).flatten();
            if waits.is_none() {
                drop(here);
                if may_wait {
                    return session.close(Close::Unavailable);
                }
                return refuse(session, &namespace.name, "too_many_connections");
            }
        }
        let index = here.iter().position(|one| one.namespace == namespace.name);
        let before = index.map(|index| here.swap_remove(index));
        // The seat is the connection's, whoever sat down first: it goes on with the same user's other
        // namespaces, if this one is another's now.
        let (seat, left) = match before {
            Some(Here { known: was, seat: before, waits: still, .. })
                if same_provider(&was, &known) =>
            {
                waits = waits.or(still);
                (seat.or(before), Some(was.digest))
            }
            Some(Here { known: was, seat: before, .. }) => {
                if let Some(other) = here.iter_mut().find(|one| same_provider(&one.known, &was)) {
                    other.seat = other.seat.take().or(before);
                }
                (seat, Some(was.digest))
            }
            None => (seat, None),
        };
        // Who comes back is asked about first; whom it was before may leave the seat.
        let only_waits = waits.is_some() && !returns;
        let name = Arc::clone(&namespace.name);
        here.push(Here { namespace: name, known: Rc::clone(&known), seat, waits });
        drop(here);
        client.since.set(client.since.get().or(Some(Instant::now())));
        self.users.watch(session, client, &known);
        left.inspect(|left| self.users.forsake(session, client, left));
        self.spread(&known);
        if only_waits {
            self.welcome_later(session, client, namespace, auth);
        } else {
            self.welcome(session, client, namespace, auth);
        }
    }

    /// Welcomes a client that waits for another of its namespaces to have a seat.
    fn welcome_later(
        self: &Rc<Self>,
        session: &Rc<Session>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        auth: AuthData,
    ) {
        client.arrivals.begin(&namespace.name);
        let (clients, session) = (Rc::clone(self), Rc::clone(session));
        let (client, namespace) = (Rc::clone(client), Rc::clone(namespace));
        self.drain.spawn("identify", async move {
            clients.wait_to_sit_down(&client, &namespace.name).await;
            client.arrivals.end(&namespace.name);
            if session.is_open() {
                clients.welcome(&session, &client, &namespace, auth);
                clients.decided(&session, &client, &namespace.name);
            }
        });
    }

    /// Takes the seat that a client has waited for, which its old connection may have left since; or
    /// shares the one that its connection has by now. False if there is none.
    pub(super) fn sit_down(&self, client: &Client, namespace: &str) -> bool {
        let mut here = client.here.borrow_mut();
        let waits = |one: &Here| *one.namespace == *namespace && one.waits.is_some();
        let Some(index) = here.iter().position(waits) else { return true };
        let mut one = here.swap_remove(index);
        let is_seated = one.seat.is_some()
            || here
                .iter()
                .any(|other| other.seat.is_some() && same_provider(&other.known, &one.known));
        if !is_seated {
            one.seat = self.users.seat(&one.known);
        }
        let sits = is_seated || one.seat.is_some();
        if sits {
            one.waits = None;
        }
        here.push(one);
        sits
    }

    /// The same where the old connection is another node's, which is told of this one, or another
    /// namespace comes back: waits for it to go.
    pub(super) async fn wait_to_sit_down(&self, client: &Client, namespace: &str) {
        let until = Instant::now() + SEAT_LEFT;
        while !self.sit_down(client, namespace) && Instant::now() < until {
            sleep(SEAT_LOOK).await;
        }
    }

    /// Looks at sessions again when that is due, for as long as the worker lives.
    pub(super) async fn watch_users(self: Rc<Self>) {
        loop {
            self.users.wait().await;
            for known in self.users.due(Instant::now()) {
                let clients = Rc::clone(&self);
                self.drain.spawn_background(async move { clients.look_again(&known, false).await });
            }
        }
    }

    /// The application has taken a session's cookie away, or given another for it.
    pub(super) fn suspect(&self, found: Suspicion) {
        let Suspicion { digest, replaced, stateless, until } = found;
        self.users.local.forget(&digest);
        let is_over = stateless && !replaced;
        if is_over && until > 0 {
            self.users.local.revoke(digest, until);
        }
        let Some(me) = self.me.upgrade() else { return };
        let others = if is_over { self.users.tokens_of(&digest) } else { Vec::new() };
        for known in std::iter::once(digest).chain(others).flat_map(|one| self.users.known(&one)) {
            if is_over {
                me.end(&known, &Fate::Ended);
                continue;
            }
            let me = Rc::clone(&me);
            self.drain.spawn_background(async move { me.look_again(&known, replaced).await });
        }
    }

    async fn look_again(&self, known: &Rc<Known>, replaced: bool) {
        let verdict = self.users.local.recheck(known).await;
        let fate = match self.users.judge(known, verdict) {
            Fate::Ended if replaced => Fate::Cut(Close::Expired),
            fate => fate,
        };
        self.end(known, &fate);
        self.tell_known(&known.digest);
        for session in self.users.sessions_of(&known.digest) {
            let since = self.client(&session).and_then(|client| client.since.get());
            if since.is_some_and(|since| since.elapsed() >= known.provider.words.max_age) {
                session.close(Close::Expired);
            }
        }
    }

    /// What a look has found holds for all that the session has opened: rules, stamps and hooks go by
    /// it.
    fn tell_known(&self, digest: &Digest) {
        let Some(known) = self.users.known(digest) else { return };
        for session in self.users.sessions_of(digest) {
            let Some(client) = self.client(&session) else { continue };
            for namespace in client.places_of(digest) {
                client.is_now(&namespace, &known);
            }
        }
    }

    /// Others are let in there now: who is in, or on the way, comes back and is judged anew.
    pub(super) fn cut_off(&self, namespace: &Namespace) {
        for client in self.clients.borrow().iter().flatten() {
            if client.arrivals.is_waiting(&namespace.name) {
                client.outdated.set(true);
            }
        }
        namespace.sockets().iter().for_each(|socket| socket.session.close(Close::Forced));
    }

    /// Goes on by these providers, by which those who are here would have been let in as well.
    pub(super) fn adopt_providers(&self, policy: &Policy) {
        let namespaces = policy.namespaces.values();
        let providers = namespaces.filter_map(|one| one.users.as_ref()).flatten();
        let by_name: HashMap<&str, &Arc<auth::Provider>> =
            providers.map(|provider| (&*provider.name, provider)).collect();
        for digest in self.users.adopt(&by_name) {
            self.tell_known(&digest);
        }
    }

    fn end(&self, known: &Known, fate: &Fate) {
        for session in self.users.sessions_of(&known.digest) {
            match fate {
                Fate::Stays => return,
                Fate::Cut(why) => session.close(*why),
                Fate::Ended => {
                    let sockets = self.sockets_of(&session);
                    let client = self.client(&session);
                    let theirs = |socket: &Rc<super::socket::Socket>| {
                        let user = client
                            .as_ref()
                            .and_then(|client| client.user_in(&socket.namespace.name));
                        user.is_some_and(|user| user.digest == known.digest)
                    };
                    for socket in sockets.iter().filter(|socket| theirs(socket)) {
                        self.expel(socket);
                    }
                    session.close_later(Close::Forced);
                }
            }
        }
    }
}

impl Clients {
    /// False if all who want to know who it is could not be told.
    pub(super) fn may_identify(&self, shown: &Credentials, client: &exchange::Client) -> bool {
        if self.users.local.is_well() {
            return true;
        }
        let namespaces = self.namespaces();
        let mut wanting =
            namespaces.iter().filter(|one| one.policy().admin_ui.is_none()).peekable();
        let nobody = wanting.peek().is_none();
        nobody
            || wanting.any(|namespace| match namespace.policy().users.as_deref() {
                None => true,
                Some(providers) => !self.users.local.is_away(shown, client, providers),
            })
    }

    /// Whose sessions these credentials are, by any provider that is asked here.
    pub(super) async fn owners_of(
        &self,
        shown: &Credentials,
        client: &exchange::Client,
    ) -> Vec<Owner> {
        let mut owners: Vec<Owner> = Vec::new();
        for namespace in self.namespaces() {
            let policy = namespace.policy();
            let Some(providers) = policy.users.as_deref() else { continue };
            if let Ok(known) = self.users.local.identify(shown, client, providers).await
                && !owners.contains(&known.owner())
            {
                owners.push(known.owner());
            }
        }
        owners
    }

    /// The session goes on with another credential of the same user's, if it is one.
    pub(super) fn renew(
        &self,
        session: &Rc<Session>,
        owners: &[Owner],
        shown: &Credentials,
    ) -> bool {
        let (Some(client), Some(handshake)) = (self.client(session), &session.handshake) else {
            return false;
        };
        let here: Vec<_> = {
            let here = client.here.borrow();
            here.iter().map(|one| (Arc::clone(&one.namespace), Rc::clone(&one.known))).collect()
        };
        if !here.iter().any(|(_, known)| owners.contains(&known.owner())) {
            return false;
        }
        handshake.renew(shown);
        let Some(me) = self.me.upgrade() else { return true };
        let (session, handshake) = (Rc::clone(session), Rc::clone(handshake));
        self.drain.spawn("identify", async move {
            for (namespace, known) in here.iter().filter(|(_, known)| known.is_ambient()) {
                let by = [Arc::clone(&known.provider)];
                let shown = handshake.credentials();
                let found = me.users.local.identify(&shown, &handshake.client, &by).await;
                // What cannot be told now is looked at again later, by what was shown first.
                let Ok(found) = found else { continue };
                if found.identity.user == known.identity.user {
                    me.users.replace(&session, &client, namespace, &found);
                }
            }
        });
        true
    }
}

impl Client {
    /// True if it has shown, as a cookie or a header, what says by itself when it ends.
    fn has_token(&self) -> bool {
        let by_token = |one: &Here| one.known.is_ambient() && one.known.provider.is_stateless();
        self.here.borrow().iter().any(by_token)
    }

    /// Who is let into this namespace.
    pub(super) fn user_in(&self, namespace: &str) -> Option<Rc<Known>> {
        let here = self.here.borrow();
        let found = here.iter().find(|one| *one.namespace == *namespace);
        found.map(|one| Rc::clone(&one.known))
    }
}

fn same_provider(one: &Known, other: &Known) -> bool {
    one.provider.name == other.provider.name
}

/// How long another node may take to close a connection whose client has come here.
const SEAT_LEFT: Duration = Duration::from_secs(2);
const SEAT_LOOK: Duration = Duration::from_millis(20);

/// One word for whatever was wrong; which it was is for the log.
fn unauthorized(session: &Rc<Session>, namespace: &str, reason: &'static str) {
    journal::refused(session, namespace, reason);
    say_refused(session, namespace, "unauthorized", None);
}
