//! The order of all nodes, kept with Redis: what is said waits for its place, what does not come is
//! looked for, and clients go on where it is known what they missed.

use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::hub::engine::Id;
use crate::hub::outbox::Notice;
use crate::observe::metrics;

use super::Said;
use super::central::{Central, probe_of};
use super::line::LineError;
use super::link::MOVED;
use super::order::{Enter, Entering, Fetched, Fetching, Next, Unread};
use super::reading::{Before, Entry, Item, Key, entries_after, entries_up_to};
use super::resp::command;
use super::speaker::Kind;
use super::unsure::{self, Named};
use super::wire::{Dialect, Session, id_of};

/// How long a client may wait until it can go on; then it begins anew.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// What Redis says it has must come back within this time, or it is looked for: a failover may have
/// lost it.
const COMES_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Of what stands before a client's last entry, so much is looked at: what repeats it, the client
/// has.
const KNOWN_MAX: usize = 1024;

impl Central {
    pub(super) async fn say_in_order(&self, key: Key, said: Said) {
        let bytes = said.bytes.to_vec();
        let named = Named { is_awaited: true, ..self.order.name(key, Arc::clone(&said.stream)) };
        let unread = Unread { said, behind: named.behind, confirmed: None };
        self.order.unread.borrow_mut().insert(key, unread);
        self.link.speaker.say(bytes, Kind::Append(named));
        if self.order.goes_ahead.get() {
            // The main thread ends last.
            let _taken = self.items.send(Item::Ahead(key)).await;
        }
    }

    pub(super) fn take_item(self: &Rc<Self>, item: Item, notices: &mut Vec<Notice>) {
        match item {
            Item::Begins(stream, before) => self.begin_behind(stream, &before),
            Item::Entry(stream, entry) => {
                self.order.read(&stream, &entry);
                self.take_entry(&stream, &entry, notices);
            }
            Item::Trimmed(stream) => {
                tracing::warn!(
                    stream = &*stream,
                    "entries of the stream are gone that were not read"
                );
                metrics::series(&metrics::REDIS_GAPS, &[]).increment();
                self.order.trim(&stream);
                notices.push(Notice::Trimmed(stream));
                self.link.gap.notify_one();
            }
            Item::Ahead(key) => self.go_ahead(key, notices),
            Item::AllAhead => {
                let keys: Vec<Key> = self.order.unread.borrow().keys().copied().collect();
                keys.into_iter().for_each(|key| self.go_ahead(key, notices));
            }
            Item::Lost(key) => self.order.lose(key),
            Item::Enter(enter) => self.take_enter(*enter, notices),
        }
    }

    fn begin_behind(&self, stream: Arc<str>, before: &Before) {
        let Before { entries, is_all } = before;
        let number = |entry: Option<&Entry>| entry.and_then(Entry::number).unwrap_or_default();
        // Nothing was there before them, if nothing has been trimmed.
        let is_whole = *is_all && !self.may_be_trimmed(entries.len());
        let since = if is_whole { 0 } else { number(entries.first()) };
        let is_ordered = self.cluster.is_ordered();
        let open = |entry: &Entry| if is_ordered { self.read_kept(entry) } else { None };
        self.order.begin(&stream, since, entries, open);
        let mut begins = self.cluster.begins.lock().unwrap_or_else(PoisonError::into_inner);
        begins.insert(stream, number(entries.last()));
    }

    /// Whether a stream with so many entries may have had others before them.
    fn may_be_trimmed(&self, entries: usize) -> bool {
        match &self.cluster.wire.dialect {
            Dialect::Streams(words) => entries as u64 >= words.length,
            _ => true,
        }
    }

    fn go_ahead(&self, key: Key, notices: &mut Vec<Notice>) {
        self.order.go_ahead(key, |said| self.read_own(&said.fields), notices);
    }

    /// Tells workers what has become of what they said.
    pub(super) async fn watch_outcomes(self: Rc<Self>) {
        loop {
            self.link.speaker.settled.notified().await;
            let outcomes = self.link.speaker.take_outcomes();
            let now = Instant::now();
            for key in &outcomes.said {
                if let Some(unread) = self.order.unread.borrow_mut().get_mut(key) {
                    unread.confirmed = Some(now);
                }
            }
            for key in &outcomes.lost {
                // The main thread ends last.
                let _taken = self.items.send(Item::Lost(*key)).await;
            }
            let (said, lost) = (outcomes.said.into(), outcomes.lost.into());
            self.tell(vec![Notice::Settled { said, lost }]).await;
        }
    }

    /// Looks whether what was said comes back, and whether it is worth waiting for.
    pub(super) async fn watch_order(self: Rc<Self>) {
        let mut away: Option<Instant> = None;
        loop {
            sleep(LOOK_EVERY).await;
            if self.cluster.is_up() {
                away = None;
                self.order.goes_ahead.set(false);
                self.say_again().await;
                continue;
            }
            let since = *away.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.link.timeout && !self.order.goes_ahead.replace(true) {
                // The main thread ends last.
                let _taken = self.items.send(Item::AllAhead).await;
            }
        }
    }

    /// What Redis said that it has and does not come, it may have lost.
    async fn say_again(&self) {
        let now = Instant::now();
        let is_late = |since: &Instant| now.duration_since(*since) > COMES_WITHIN;
        let late: Vec<Named> = {
            let unread = self.order.unread.borrow();
            let late =
                unread.iter().filter(|(_, unread)| unread.confirmed.as_ref().is_some_and(is_late));
            let name = |(key, unread): (&Key, &Unread)| {
                let (stream, behind) = (Arc::clone(&unread.said.stream), unread.behind);
                Named { key: *key, stream, behind, is_awaited: true }
            };
            late.map(name).collect()
        };
        if late.is_empty() {
            return;
        }
        let ask = async |words: &[&[u8]]| self.link.speaker.ask(words).await;
        let found = unsure::find(&self.cluster.wire.uid, &late, ask).await;
        for named in late {
            let mut unread = self.order.unread.borrow_mut();
            // Otherwise it has come meanwhile.
            let Some(unread) = unread.get_mut(&named.key) else { continue };
            // What is there is only read late.
            let is_lost = found.as_ref().is_ok_and(|found| !found.contains(&named.key));
            unread.confirmed = (!is_lost).then_some(now);
            if is_lost {
                self.link.speaker.say(unread.said.bytes.to_vec(), Kind::Append(named));
            }
        }
    }

    /// What is kept under a client's secret: from now on it is this node's, and no other's.
    pub(super) async fn recall(
        self: Rc<Self>,
        pid: Id,
        namespace: &str,
        user: Option<&str>,
    ) -> Option<Session> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.try_to_recall(pid, namespace, user).await {
                Ok(found) => return found,
                // Redis may be back in time.
                Err(_away) if Instant::now() < until => sleep(LOOK_EVERY).await,
                Err(_away) => return None,
            }
        }
    }

    async fn try_to_recall(
        &self,
        pid: Id,
        namespace: &str,
        user: Option<&str>,
    ) -> Result<Option<Session>, LineError> {
        let key = self.cluster.session_key(pid.as_str());
        let fits = |session: &Session| {
            let is_here = session.namespace.as_deref().is_none_or(|known| known == namespace);
            is_here && session.user.as_deref() == user && *session.pid == *pid.as_str()
        };
        let read = |value: super::resp::Value| Session::read(value.text()?.as_bytes()).ok();
        let seen = read(self.link.speaker.ask(&[b"GET", key.as_bytes()]).await?);
        if !seen.as_ref().is_some_and(fits) {
            return Ok(None);
        }
        // Whoever is second finds what the first has put back.
        let mut taken = read(self.link.speaker.ask(&[b"GETDEL", key.as_bytes()]).await?);
        if taken.is_none() {
            sleep(PAUSE * 2).await;
            taken = read(self.link.speaker.ask(&[b"GETDEL", key.as_bytes()]).await?);
        }
        let Some(mut session) = taken.filter(fits) else { return Ok(None) };
        let uid = &self.cluster.wire.uid;
        let before = session.node.replace(uid.as_str().into());
        let lasts = (self.order.keeps.get().lasts * 2).as_millis().to_string();
        if let Some(kept) = session.write() {
            let words: [&[u8]; 5] =
                [b"SET", key.as_bytes(), kept.as_bytes(), b"PX", lasts.as_bytes()];
            self.link.speaker.say(command(&words), Kind::Again);
        }
        match before.as_deref() {
            Some(own) if own == uid.as_str() => self.tell(vec![Notice::Taken(pid)]).await,
            Some(other) => {
                let channel = probe_of(&self.cluster.wire, other);
                let moved = [MOVED, pid.as_str().as_bytes()].concat();
                let words: [&[u8]; 3] = [b"PUBLISH", channel.as_bytes(), &moved];
                self.link.speaker.say(command(&words), Kind::Once);
            }
            None => (),
        }
        Ok(Some(session))
    }

    /// Finds out what the client has missed, and has its worker told in order.
    pub(super) async fn enter(&self, entering: Entering) {
        let until = Instant::now() + PATIENCE;
        let enter = Enter { entering, fetched: None, until };
        // The main thread ends last.
        let _taken = self.items.send(Item::Enter(Box::new(enter))).await;
    }

    fn take_enter(self: &Rc<Self>, enter: Enter, notices: &mut Vec<Notice>) {
        let Some(stream) = self.cluster.wire.stream(&enter.entering.namespace) else { return };
        let next = self.order.enter(&stream, &enter);
        let Enter { entering, until, .. } = enter;
        if let Next::Enters(missed) = next {
            let (worker, number) = (entering.worker, entering.number);
            notices.push(Notice::Entered { worker, number, missed });
            return;
        }
        let central = Rc::clone(self);
        self.drain.spawn_background(async move {
            let fetched = match next {
                Next::Fetch => central.fetch(&stream, &entering).await.map(Some),
                _ => Ok(None),
            };
            let (fetched, until) = match fetched {
                Ok(Some(Some(fetched))) => (Some(fetched), until),
                // Not all of it is there any more.
                Ok(Some(None)) => (None, Instant::now()),
                Ok(None) | Err(_) => {
                    sleep(PAUSE).await;
                    (None, until)
                }
            };
            let enter = Enter { entering, fetched, until };
            // The main thread ends last.
            let _taken = central.items.send(Item::Enter(Box::new(enter))).await;
        });
    }

    /// Reads what stands behind the last entry that the client has; `None` if that is not there.
    async fn fetch(&self, stream: &str, entering: &Entering) -> Result<Option<Fetched>, LineError> {
        let mut fetching = Fetching::new(entering, self.order.keeps.get());
        let mut ask = async |words: &[&[u8]]| self.link.speaker.ask(words).await;
        if entering.have != 0 {
            let have = id_of(entering.have);
            let before = entries_up_to(stream, have.as_bytes(), KNOWN_MAX, &mut ask).await?;
            if !fetching.know(&before.entries) {
                return Ok(None);
            }
        }
        loop {
            let entries = entries_after(stream, fetching.end(), &mut ask).await?;
            if entries.is_empty() {
                let is_whole = entering.have != 0 || !self.may_be_trimmed(fetching.looked);
                return Ok(is_whole.then(|| fetching.done()));
            }
            if !fetching.take(&entries, |entry| self.read_kept(entry)) {
                return Ok(None);
            }
        }
    }
}
