//! Who is connected by which of the application's sessions, and when each is looked at again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::auth::{self, Denial, Digest, Identity, Known};
use crate::config::OnExpiry;
use crate::limits::Counters;

use super::client::Client;
use super::cluster::{Told, Uplink};
use super::engine::{Close, Session};

/// What one worker knows of its users.
pub struct Users {
    pub local: Rc<auth::Local>,
    /// How many connections each user has, on all nodes.
    connections: Arc<Counters>,
    /// To other nodes, which count them too.
    uplink: Option<Rc<Uplink>>,
    max: Cell<u64>,
    waiting: Rc<Cell<usize>>,
    watched: RefCell<HashMap<Digest, Watched>>,
    /// Tokens of one session: what they have in common, and each of them.
    threads: RefCell<HashMap<Digest, Vec<Digest>>>,
    /// When somebody is looked at next; `None` while nobody is to be.
    planned: Cell<Option<Instant>>,
    earlier: Notify,
}

/// One session of the application's, and the connections that it opened.
struct Watched {
    known: Rc<Known>,
    /// Each with the moment since when it is known who it is.
    sessions: Vec<(Rc<Session>, Instant)>,
    /// When it was last found to be right.
    right: Instant,
    next: Instant,
    /// When the connections of a token are cut. Nobody sets this clock: if the time of day jumps, who
    /// is here stays as long as was meant.
    ends: Option<Instant>,
    doubts: u8,
}

impl Watched {
    /// When it is looked at next: when that is due, and when the first of its connections is as old as
    /// one may be. Those that are, are closed by the look that is under way.
    fn plan(&self, now: Instant) -> Instant {
        let max_age = self.known.provider.words.max_age;
        let ages = self.sessions.iter().filter_map(|(_, since)| since.checked_add(max_age));
        let oldest = ages.filter(|age| *age > now).min();
        let due = next(&self.known, self.ends, now);
        oldest.map_or(due, |oldest| oldest.min(due).max(now + PAUSE))
    }
}

/// Somebody in one namespace of a connection.
pub struct Here {
    pub namespace: Arc<str>,
    pub known: Rc<Known>,
    pub seat: Option<Seat>,
    /// Its connection has no seat yet: an old one, which it comes to go on with, may have it still.
    pub waits: Option<Waits>,
}

/// One of those who wait for a seat.
pub struct Waits(Rc<Cell<usize>>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One of the connections that a user may have.
pub struct Seat {
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
const TOKEN_GRACE: Duration = Duration::from_secs(60);
/// Before a store that failed is asked again.
const AGAIN: Duration = Duration::from_secs(5);
/// Before an application is asked again that says nobody is there, which may be its database.
const DOUBT: Duration = Duration::from_secs(10);
/// Connections of one worker that wait for a seat. Full: the next is to come again.
const WAITING: usize = 4096;
/// The shortest pause between two looks at one session.
const PAUSE: Duration = Duration::from_millis(100);

/// What a look at a session came to.
pub enum Fate {
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
            waiting: Rc::default(),
            watched: RefCell::default(),
            threads: RefCell::default(),
            planned: Cell::new(None),
            earlier: Notify::new(),
        })
    }

    pub fn change(&self, max: u64) {
        self.max.set(max);
    }

    pub fn seat(&self, known: &Known) -> Option<Seat> {
        let key = known.user_number();
        let connections = Arc::clone(&self.connections);
        let uplink = self.uplink.clone();
        if !connections.take(key, self.max.get()) {
            return None;
        }
        uplink.iter().for_each(|uplink| uplink.whisper(Told::Seat(key, 1)));
        Some(Seat { connections, uplink, key })
    }

    /// Somebody goes on without a seat until it is known whom it was before. `None` if too many do.
    pub fn wait_for_seat(&self) -> Option<Waits> {
        let count = self.waiting.get() + 1;
        (count <= WAITING).then(|| {
            self.waiting.set(count);
            Waits(Rc::clone(&self.waiting))
        })
    }

    pub fn watch(&self, session: &Rc<Session>, client: &Client, known: &Rc<Known>) {
        let now = Instant::now();
        let mut watched = self.watched.borrow_mut();
        let one = watched.entry(known.digest).or_insert_with(|| {
            self.begin(known);
            let ends = ends(known, now);
            let (known, next) = (Rc::clone(known), next(known, ends, now));
            Watched { known, sessions: Vec::new(), right: now, next, ends, doubts: 0 }
        });
        (one.right, one.known) = (now, Rc::clone(known));
        if !one.sessions.iter().any(|(one, _)| Rc::ptr_eq(one, session)) {
            one.sessions.push((Rc::clone(session), client.since.get().unwrap_or(now)));
        }
        one.next = one.next.min(one.plan(now));
        self.plan(one.next);
    }

    /// Somebody is connected by this token, and was not before.
    fn begin(&self, known: &Known) {
        if known.provider.is_stateless() {
            self.local.count_token(true);
        }
        if let Some(thread) = known.thread() {
            self.threads.borrow_mut().entry(thread).or_default().push(known.digest);
        }
    }

    /// Nobody is, any more.
    fn end(&self, known: &Known) {
        if known.provider.is_stateless() {
            self.local.count_token(false);
        }
        let Some(thread) = known.thread() else { return };
        let mut threads = self.threads.borrow_mut();
        if let Some(tokens) = threads.get_mut(&thread) {
            tokens.retain(|token| *token != known.digest);
            if tokens.is_empty() {
                threads.remove(&thread);
                shrink(&mut threads);
            }
        }
    }

    /// Tokens of the same session that end before this one.
    pub fn older(&self, known: &Known) -> Vec<Digest> {
        let Some(thread) = known.thread() else { return Vec::new() };
        let mut tokens = self.tokens_of(&thread);
        let watched = self.watched.borrow();
        let ends = |known: &Known| known.identity.expires_at;
        tokens.retain(|token| watched.get(token).is_some_and(|one| ends(&one.known) < ends(known)));
        tokens
    }

    /// Those by which somebody is connected, of all that have this in common.
    pub fn tokens_of(&self, thread: &Digest) -> Vec<Digest> {
        self.threads.borrow().get(thread).cloned().unwrap_or_default()
    }

    pub fn known(&self, digest: &Digest) -> Option<Rc<Known>> {
        self.watched.borrow().get(digest).map(|one| Rc::clone(&one.known))
    }

    /// Until somebody is due, or may be.
    pub async fn wait(&self) {
        let earlier = self.earlier.notified();
        match self.next_due() {
            None => earlier.await,
            Some(due) => {
                // Too early is as good as in time: what is due is looked for either way.
                let _woken = timeout_at(due, earlier).await;
                sleep_until(due.min(Instant::now() + PAUSE)).await;
            }
        }
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
    pub fn replace(
        &self,
        session: &Rc<Session>,
        client: &Client,
        namespace: &str,
        known: &Rc<Known>,
    ) {
        let Some(before) = client.is_now(namespace, known) else { return };
        let before = before.digest;
        // Before the other is left, whose places these are.
        self.watch(session, client, known);
        self.forsake(session, client, &before);
    }

    /// A credential that may open no namespace any more.
    pub fn forsake(&self, session: &Rc<Session>, client: &Client, digest: &Digest) {
        if !client.here.borrow().iter().any(|one| one.known.digest == *digest) {
            self.leave(session, digest);
        }
    }

    fn leave(&self, session: &Rc<Session>, digest: &Digest) {
        let mut watched = self.watched.borrow_mut();
        let Some(one) = watched.get_mut(digest) else { return };
        one.sessions.retain(|(one, _)| !Rc::ptr_eq(one, session));
        if one.sessions.is_empty()
            && let Some(gone) = watched.remove(digest)
        {
            shrink(&mut watched);
            self.end(&gone.known);
        }
    }

    pub fn due(&self, now: Instant) -> Vec<Rc<Known>> {
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

    /// By other words of the same providers: when each is looked at next, and cut, is said anew. Who is
    /// watched by one of them.
    pub fn adopt(&self, providers: &HashMap<&str, &Arc<auth::Provider>>) -> Vec<Digest> {
        let now = Instant::now();
        let mut watched = self.watched.borrow_mut();
        let mut adopted = Vec::new();
        for (digest, one) in watched.iter_mut() {
            let Some(provider) = providers.get(&*one.known.provider.name) else { continue };
            if provider.words != one.known.provider.words {
                one.known = Rc::new(one.known.under(provider));
                one.ends = ends(&one.known, now);
                one.next = one.next.min(one.plan(now));
                self.plan(one.next);
            } else {
                one.known = Rc::new(one.known.under(provider));
            }
            adopted.push(*digest);
        }
        adopted
    }

    pub fn sessions_of(&self, digest: &Digest) -> Vec<Rc<Session>> {
        let watched = self.watched.borrow();
        let sessions = watched.get(digest).map(|one| one.sessions.iter());
        sessions.into_iter().flatten().map(|(session, _)| Rc::clone(session)).collect()
    }

    /// What the answer means for those who are here.
    pub fn judge(&self, known: &Rc<Known>, verdict: Result<Identity, Denial>) -> Fate {
        let now = Instant::now();
        let mut watched = self.watched.borrow_mut();
        let Some(one) = watched.get_mut(&known.digest) else { return Fate::Stays };
        let words = &known.provider.words;
        if one.ends.is_some_and(|ends| ends <= now) {
            return Fate::Cut(Close::Expired);
        }
        let fate = match verdict {
            Ok(identity) if identity.user == known.identity.user => {
                let known = Rc::new(known.renewed(identity));
                (one.known, one.right, one.doubts) = (known, now, 0);
                one.next = one.plan(now);
                Fate::Stays
            }
            // It was right, and stays so for who is here: until its grace is over, or for good. But
            // not after a logout.
            Err(denial)
                if known.provider.is_stateless()
                    && (denial.is_untimely() || known.is_over() && denial != Denial::REVOKED) =>
            {
                one.next = one.plan(now);
                Fate::Stays
            }
            Err(denial) if denial.is_temporary() => {
                one.next = now + AGAIN.min(words.recheck);
                let lost = now.duration_since(one.right) >= words.grace;
                if lost { Fate::Cut(Close::Unavailable) } else { Fate::Stays }
            }
            // It says the same while its own database is away.
            Err(_) if known.provider.answers_for_another() && one.doubts == 0 => {
                one.doubts = 1;
                one.next = now + DOUBT;
                Fate::Stays
            }
            _ => Fate::Ended,
        };
        self.plan(one.next);
        fate
    }
}

/// What a crowd needed goes when it has left.
fn shrink<T>(map: &mut HashMap<Digest, T>) {
    let left = map.len();
    if left == 0 || left.is_power_of_two() {
        map.shrink_to(left * 2);
    }
}

/// When a token's connections are cut, if they are.
fn ends(known: &Known, now: Instant) -> Option<Instant> {
    let words = &known.provider.words;
    let cut = known.provider.is_stateless() && words.on_expiry == OnExpiry::Close;
    Some(now + known.left().filter(|_| cut)? + TOKEN_GRACE)
}

/// When it is looked at again: at its end, and before that now and then.
fn next(known: &Known, ends: Option<Instant>, now: Instant) -> Instant {
    let words = &known.provider.words;
    let recheck = words.recheck.min(words.max_age);
    // Spread, so that those who came together are not all asked about together.
    let spread = u32::from(known.digest.first().copied().unwrap_or_default()) * 40 / 255;
    let recheck = recheck * (80 + spread) / 100;
    let left = known.left().filter(|_| !known.provider.is_stateless());
    let next = now + left.map_or(recheck, |left| left.min(recheck));
    ends.map_or(next, |ends| ends.min(next)).max(now + PAUSE)
}

impl Drop for Users {
    fn drop(&mut self) {
        self.watched.take().values().for_each(|one| self.end(&one.known));
    }
}
