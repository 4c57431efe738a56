//! Who the clients are: identified when they connect, and looked at again while they stay.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use crate::auth::{self, Credentials, Denial, Digest, Identity, Known, Suspicion};
use crate::exchange;
use crate::limits::Counters;

use super::client::Client;
use super::clients::Clients;
use super::cluster::{Told, Uplink};
use super::connecting::{refuse, say_refused};
use super::engine::{Close, Owner, Session};
use super::journal;
use super::namespace::Namespace;

/// What one worker knows of its users.
pub struct Users {
    pub local: Rc<auth::Local>,
    /// How many connections each user has, on all nodes.
    connections: Arc<Counters>,
    /// To other nodes, which count them too.
    uplink: Option<Rc<Uplink>>,
    max: Cell<u64>,
    watched: RefCell<HashMap<Digest, Watched>>,
    /// When somebody is looked at next; `None` while nobody is to be.
    planned: Cell<Option<Instant>>,
    earlier: Notify,
}

/// One session of the application's, and the connections that it opened.
struct Watched {
    known: Rc<Known>,
    sessions: Vec<(Rc<Session>, Instant)>,
    /// When it was last found to be right.
    right: Instant,
    next: Instant,
    doubts: u8,
}

/// Somebody in one namespace of a connection.
pub struct Here {
    namespace: Arc<str>,
    pub known: Rc<Known>,
    _seat: Option<Seat>,
}

/// One of the connections that a user may have.
struct Seat {
    connections: Arc<Counters>,
    uplink: Option<Rc<Uplink>>,
    key: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.give(self.key);
        self.uplink.iter().for_each(|uplink| uplink.whisper(Told::Seat(self.key, -1)));
    }
}

/// A token is good for so long after its end, as clocks differ and the page fetches the next.
const TOKEN_GRACE: i64 = 60_000;
/// Before a store that failed is asked again.
const AGAIN: Duration = Duration::from_secs(5);
/// Before an application is asked again that says nobody is there, which may be its database.
const DOUBT: Duration = Duration::from_secs(10);
/// The shortest pause between two looks at one session.
const PAUSE: Duration = Duration::from_millis(100);

/// What a look at a session came to.
enum Fate {
    Stays,
    /// It is known that it has ended: its sockets are told.
    Ended,
    /// It may go on with another credential: the client comes back with that.
    Cut(Close),
}

impl Users {
    pub fn new(
        local: Rc<auth::Local>,
        connections: Arc<Counters>,
        uplink: Option<Rc<Uplink>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            local,
            connections,
            uplink,
            max: Cell::new(u64::MAX),
            watched: RefCell::default(),
            planned: Cell::new(None),
            earlier: Notify::new(),
        })
    }

    pub fn change(&self, max: u64) {
        self.max.set(max);
    }

    fn seat(&self, known: &Known) -> Option<Seat> {
        let key = known.user_number();
        let connections = Arc::clone(&self.connections);
        let uplink = self.uplink.clone();
        if !connections.take(key, self.max.get()) {
            return None;
        }
        uplink.iter().for_each(|uplink| uplink.whisper(Told::Seat(key, 1)));
        Some(Seat { connections, uplink, key })
    }

    fn watch(&self, session: &Rc<Session>, known: &Rc<Known>) {
        let now = Instant::now();
        let mut watched = self.watched.borrow_mut();
        let one = watched.entry(known.digest).or_insert_with(|| Watched {
            known: Rc::clone(known),
            sessions: Vec::new(),
            right: now,
            next: next(known, now),
            doubts: 0,
        });
        (one.right, one.known) = (now, Rc::clone(known));
        if !one.sessions.iter().any(|(one, _)| Rc::ptr_eq(one, session)) {
            one.sessions.push((Rc::clone(session), now));
        }
        self.plan(one.next);
    }

    /// Somebody is to be looked at then, which may be before anybody else.
    fn plan(&self, at: Instant) {
        if self.planned.get().is_none_or(|planned| at < planned) {
            self.planned.set(Some(at));
            self.earlier.notify_one();
        }
    }

    pub fn unwatch(&self, session: &Rc<Session>, client: &Client) {
        for here in client.here.borrow_mut().drain(..) {
            self.leave(session, &here.known.digest);
        }
    }

    /// The same user, by another credential from now on.
    fn replace(&self, session: &Rc<Session>, client: &Client, namespace: &str, known: &Rc<Known>) {
        let before = {
            let mut here = client.here.borrow_mut();
            let Some(one) = here.iter_mut().find(|one| *one.namespace == *namespace) else {
                return;
            };
            std::mem::replace(&mut one.known, Rc::clone(known)).digest
        };
        let used = client.here.borrow().iter().any(|one| one.known.digest == before);
        if !used {
            self.leave(session, &before);
        }
        self.watch(session, known);
    }

    fn leave(&self, session: &Rc<Session>, digest: &Digest) {
        let mut watched = self.watched.borrow_mut();
        if let Some(one) = watched.get_mut(digest) {
            one.sessions.retain(|(one, _)| !Rc::ptr_eq(one, session));
            if one.sessions.is_empty() {
                watched.remove(digest);
            }
        }
    }

    fn due(&self, now: Instant) -> Vec<Rc<Known>> {
        let mut watched = self.watched.borrow_mut();
        let any = watched.values().any(|one| one.next <= now);
        // Those whose turn is soon come along, so that one statement is for many.
        let due = watched.values_mut().filter(|one| {
            let stateless = one.known.provider.is_stateless();
            let soon =
                if stateless { Duration::ZERO } else { one.known.provider.words.recheck / 10 };
            any && one.next <= now + soon
        });
        let take = |one: &mut Watched| {
            // Until it is known better.
            one.next = now + one.known.provider.words.recheck;
            Rc::clone(&one.known)
        };
        due.map(take).collect()
    }

    fn next_due(&self) -> Option<Instant> {
        let next = self.watched.borrow().values().map(|one| one.next).min();
        self.planned.set(next);
        next
    }

    fn sessions_of(&self, digest: &Digest) -> Vec<(Rc<Session>, Instant)> {
        let watched = self.watched.borrow();
        watched.get(digest).map(|one| one.sessions.clone()).unwrap_or_default()
    }

    /// What the answer means for those who are here.
    fn judge(&self, known: &Rc<Known>, verdict: Result<Identity, Denial>) -> Fate {
        let now = Instant::now();
        let mut watched = self.watched.borrow_mut();
        let Some(one) = watched.get_mut(&known.digest) else { return Fate::Stays };
        let words = &known.provider.words;
        let fate = match verdict {
            Ok(identity) if identity.user == known.identity.user => {
                let known = known.renewed(identity);
                one.next = next(&known, now);
                (one.known, one.right, one.doubts) = (Rc::new(known), now, 0);
                Fate::Stays
            }
            Err(denial) if denial.is_temporary() => {
                one.next = now + AGAIN.min(words.recheck);
                let lost = now.duration_since(one.right) >= words.grace;
                if lost { Fate::Cut(Close::Unavailable) } else { Fate::Stays }
            }
            Err(Denial::EXPIRED) if known.provider.is_stateless() => {
                if known.is_over(TOKEN_GRACE) {
                    return Fate::Cut(Close::Expired);
                }
                one.next = now + Duration::from_secs(1);
                Fate::Stays
            }
            // It says the same while its own database is away.
            Err(_) if known.provider.answers_for_another() && one.doubts == 0 => {
                one.doubts = 1;
                one.next = now + DOUBT.min(words.recheck);
                Fate::Stays
            }
            _ => Fate::Ended,
        };
        self.plan(one.next);
        fate
    }
}

/// When it is looked at again: at its end, and before that now and then.
fn next(known: &Known, now: Instant) -> Instant {
    let recheck = known.provider.words.recheck;
    // Spread, so that those who came together are not all asked about together.
    let spread = u32::from(known.digest.first().copied().unwrap_or_default()) * 40 / 255;
    let recheck = recheck * (80 + spread) / 100;
    let grace = if known.provider.is_stateless() { TOKEN_GRACE } else { 0 };
    let left = known.left().map(|left| left + Duration::from_millis(grace.unsigned_abs()));
    now + left.map_or(recheck, |left| left.min(recheck)).max(PAUSE)
}

impl Clients {
    /// Finds out who wants to connect; the client waits meanwhile.
    pub(super) fn identify(
        self: &Rc<Self>,
        session: &Rc<Session>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        mut auth: Map<String, Value>,
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
        client.connecting.borrow_mut().push(Arc::clone(&namespace.name));
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
            client.connecting.borrow_mut().retain(|name| *name != namespace.name);
            if session.is_open() {
                clients.identified(&session, &client, &namespace, auth, found);
            }
        });
    }

    fn identified(
        self: &Rc<Self>,
        session: &Rc<Session>,
        client: &Rc<Client>,
        namespace: &Rc<Namespace>,
        auth: Map<String, Value>,
        found: Result<Rc<Known>, Denial>,
    ) {
        let known = match found {
            Ok(known) => known,
            // Not a refusal, after which the client would stay away: it is to come back.
            Err(Denial::Temporary(reason)) => {
                journal::refused(session, &namespace.name, reason);
                return session.close(Close::Unavailable);
            }
            Err(denial) => {
                debug!(reason = denial.reason(), "nobody is identified");
                return unauthorized(session, &namespace.name, denial.reason());
            }
        };
        let mut here = client.here.borrow_mut();
        let same = |one: &&Here| one.known.provider.name == known.provider.name;
        let before = here.iter().find(same);
        // Nobody becomes another on one connection.
        if before.is_some_and(|one| one.known.identity.user != known.identity.user) {
            drop(here);
            return unauthorized(session, &namespace.name, "another_user");
        }
        let seat = match before {
            Some(_) => None,
            None => match self.users.seat(&known) {
                Some(seat) => Some(seat),
                None => {
                    drop(here);
                    return refuse(session, &namespace.name, "too_many_connections");
                }
            },
        };
        here.retain(|one| one.namespace != namespace.name);
        let name = Arc::clone(&namespace.name);
        here.push(Here { namespace: name, known: Rc::clone(&known), _seat: seat });
        drop(here);
        self.users.watch(session, &known);
        self.welcome(session, client, namespace, auth);
    }

    /// Looks at sessions again when that is due, for as long as the worker lives.
    pub(super) async fn watch_users(self: Rc<Self>) {
        loop {
            match self.users.next_due() {
                None => self.users.earlier.notified().await,
                Some(due) => {
                    let earlier = self.users.earlier.notified();
                    // Too early is as good as in time: what is due is looked for either way.
                    let _woken = timeout_at(due, earlier).await;
                    sleep_until(due.min(Instant::now() + PAUSE)).await;
                }
            }
            for known in self.users.due(Instant::now()) {
                let clients = Rc::clone(&self);
                self.drain.spawn_background(async move { clients.look_again(&known, false).await });
            }
        }
    }

    /// The application has taken a session's cookie away, or given another for it.
    pub(super) fn suspect(&self, found: Suspicion) {
        let Suspicion { digest, replaced, stateless } = found;
        self.users.local.forget(&digest);
        if stateless && !replaced {
            self.users.local.revoke(digest);
        }
        let Some(me) = self.me.upgrade() else { return };
        let known = me.users.watched.borrow().get(&digest).map(|one| Rc::clone(&one.known));
        let Some(known) = known else { return };
        if stateless && !replaced {
            return me.end(&known, &Fate::Ended);
        }
        self.drain.spawn_background(async move { me.look_again(&known, replaced).await });
    }

    async fn look_again(&self, known: &Rc<Known>, replaced: bool) {
        let verdict = self.users.local.recheck(known).await;
        let fate = match self.users.judge(known, verdict) {
            Fate::Ended if replaced => Fate::Cut(Close::Expired),
            fate => fate,
        };
        self.end(known, &fate);
        let now = Instant::now();
        for (session, since) in self.users.sessions_of(&known.digest) {
            if now.duration_since(since) >= known.provider.words.max_age {
                session.close(Close::Expired);
            }
        }
    }

    fn end(&self, known: &Known, fate: &Fate) {
        for (session, _) in self.users.sessions_of(&known.digest) {
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
    /// Who is let into this namespace.
    pub(super) fn user_in(&self, namespace: &str) -> Option<Rc<Known>> {
        let here = self.here.borrow();
        let found = here.iter().find(|one| *one.namespace == *namespace);
        found.map(|one| Rc::clone(&one.known))
    }
}

/// One word for whatever was wrong; which it was is for the log.
fn unauthorized(session: &Rc<Session>, namespace: &str, reason: &'static str) {
    journal::refused(session, namespace, reason);
    say_refused(session, namespace, "unauthorized", None);
}
