//! How a client that comes back finds what it left, on whichever worker that is.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use crate::hub::auth_data::AuthData;
use crate::hub::engine::{Close, Id, Message, Node, Outgoing, takes_at_once};
use crate::hub::handover::{FAR, FAR_ANY};
use crate::hub::hooks::Line;
use crate::hub::namespace::Namespace;
use crate::hub::socket::Socket;
use crate::observe::metrics;

use super::afar::Afar;
use super::log::{self, Log, Vector, vector_of};
use super::offset::{Offset, Stamp};
use super::table::{Away, Standing};
use super::{Miss, Recovery};

/// A client wants to go on.
#[derive(Debug, Clone)]
pub struct Claim {
    pub pid: Id,
    pub namespace: Arc<str>,
    /// Who says so, where the namespace knows: nobody goes on as another.
    pub user: Option<Arc<str>>,
    pub(super) offset: Option<Offset>,
    /// On its way between processes: see `marks`.
    pub(super) mark: Option<u64>,
}

/// A socket between two connections.
#[derive(Debug, Clone)]
pub struct Returned {
    pub pid: Id,
    pub id: Id,
    pub namespace: Arc<str>,
    pub user: Option<Arc<str>>,
    pub rooms: Vec<String>,
    pub data: Option<Box<str>>,
    pub due: Instant,
    pub(super) have: Vector,
    /// What was delivered before, the client has in any case.
    pub(super) since: Instant,
    /// What its old worker had delivered when it left, and what of that it does not have.
    pub(super) heard: Vector,
    pub(super) queued: Vec<Stamp>,
    /// The last of that which it turned out to have all the same.
    pub(super) turned_out: Option<Stamp>,
    /// What it missed in another process, up to what was heard there: it is not in any log here.
    pub(super) packed: Option<Arc<[Packed]>>,
    /// The mark up to which that has what came over Redis, until it is known where it stands here.
    pub(super) mark: Option<u64>,
    /// What it left in Redis, where all nodes share an order.
    pub afar: Option<Afar>,
    /// In which the application is still told about it where it comes from.
    pub(super) line: Option<Line>,
}

pub type Answer = Result<Arc<Returned>, Miss>;

/// A message that a client missed, and where it stands.
pub type Missed = (Stamp, Rc<Outgoing>);

/// The same on its way between processes.
pub type Packed = (Stamp, Arc<Message>);

/// What workers say to each other about it.
#[derive(Debug, Clone)]
pub enum Letter {
    Claim {
        claim: Claim,
        from: usize,
        number: u64,
    },
    Answer {
        answer: Answer,
        number: u64,
    },
    /// Nobody will come back with it.
    Gone(Id),
}

/// What a claim comes to on one worker.
pub enum Found {
    Answer(Answer),
    There(usize),
}

/// A claim, who made it, and its number there.
pub type Behind = (Claim, usize, u64);

/// What is on its way here.
#[derive(Default)]
pub struct Asking {
    answers: HashMap<u64, (Id, oneshot::Sender<Answer>)>,
    /// Who asked first for a secret, and the claims to it that came later.
    first: HashMap<Id, (u64, Vec<Behind>)>,
}

impl Asking {
    /// True if the claim waits behind an earlier one of the same client.
    fn wait_behind(&mut self, behind: &Behind) -> bool {
        let Some((_, line)) = self.first.get_mut(&behind.0.pid) else { return false };
        line.push(behind.clone());
        true
    }

    /// Who asked, and who waits behind that.
    fn end(&mut self, number: u64) -> Option<(oneshot::Sender<Answer>, Vec<Behind>)> {
        let (pid, answer) = self.answers.remove(&number)?;
        let is_first = self.first.get(&pid).is_some_and(|(first, _)| *first == number);
        let line = if is_first { self.first.remove(&pid) } else { None };
        Some((answer, line.map(|(_, behind)| behind).unwrap_or_default()))
    }
}

/// Another worker that takes longer is stuck; the client begins anew.
const ANSWER: Duration = Duration::from_secs(5);
/// The same for a client that begins anew in any case.
pub const OUTGROWN: Duration = Duration::from_secs(1);

impl Claim {
    /// What the client's CONNECT says of an earlier connection, taken out of `auth`: a secret is
    /// nobody else's business. An error if it says what cannot be where there are so many workers.
    pub fn read(
        namespace: &Arc<str>,
        auth: &mut AuthData,
        (node, workers): (Node, usize),
    ) -> Option<Result<Self, Miss>> {
        let shown = shown(auth, Offset::parse)?;
        // Of a process before this one: who stands for its worker knows.
        let known = |pid: &Id| pid.node() != node || pid.worker() < workers;
        let shown = shown.ok().filter(|(pid, _)| known(pid)).ok_or(Miss::Unknown);
        let namespace = Arc::clone(namespace);
        Some(shown.map(|(pid, offset)| Self { pid, namespace, user: None, offset, mark: None }))
    }
}

/// The secret that a CONNECT shows and what it says that it has, taken out of `auth`; `None` without
/// a secret. An error if either is none.
pub(super) fn shown<T>(
    auth: &mut AuthData,
    offset_of: impl FnOnce(&str) -> Option<T>,
) -> Option<Result<(Id, Option<T>), Miss>> {
    let (pid, offset) = (auth.remove("pid")?, auth.remove("offset"));
    let pid = pid.as_str().and_then(Id::parse);
    let offset = match offset {
        None => Some(None),
        Some(offset) => offset.as_str().and_then(offset_of).map(Some),
    };
    Some(pid.zip(offset).ok_or(Miss::Unknown))
}

impl Recovery {
    /// See `Claim::read`.
    pub fn read(&self, namespace: &Arc<str>, auth: &mut AuthData) -> Option<Result<Claim, Miss>> {
        Claim::read(namespace, auth, (self.node, self.workers))
    }

    /// Looks on this worker first, whose `log` it is.
    pub fn find_here(&self, claim: &Claim, log: &Log) -> Found {
        self.find(claim, log, self.worker)
    }

    /// Looks on this worker for what the worker `from` wants to know.
    fn find(&self, claim: &Claim, log: &Log, from: usize) -> Found {
        let mut table = self.table.borrow_mut();
        let standing = table
            .find(&claim.pid)
            .filter(|standing| standing.is_of(&claim.namespace, claim.user.as_ref()));
        let asks = from == self.worker;
        let maker = self.maker(&claim.pid);
        if standing.is_none() {
            if asks && maker != self.worker {
                return Found::There(maker);
            }
            // The process before may have it.
            let is_elsewhere = claim.pid.node() != self.node && from < FAR && self.is_bridged();
            if maker != self.worker || !is_elsewhere {
                return Found::Answer(Err(Miss::Unknown));
            }
            if !asks {
                table.put(claim.pid, Standing::There(from));
            }
            return Found::There(FAR_ANY);
        }
        let standing = table.take(&claim.pid);
        if !asks && maker == self.worker {
            table.put(claim.pid, Standing::There(from));
        }
        drop(table);
        let answer = match standing {
            Some(Standing::There(worker)) if worker != from => return Found::There(worker),
            Some(Standing::Here(socket)) => self.replace(claim, log, &socket),
            Some(Standing::Away(away)) if away.due > Instant::now() => {
                away.give(log, self.stamp_of(claim.offset))
            }
            Some(Standing::Returned(returned)) if returned.due > Instant::now() => {
                returned.renew(self.stamp_of(claim.offset))
            }
            Some(Standing::Away(_) | Standing::Returned(_)) => Err(Miss::Expired),
            Some(Standing::Spent { why, .. }) => Err(why),
            Some(Standing::There(_)) | None => Err(Miss::Unknown),
        };
        if answer.is_err() {
            self.drop_secret(claim.pid);
        }
        Found::Answer(if asks { answer } else { answer.map(|back| self.in_line(back)) })
    }

    /// With what the application is still to hear of it from this worker, if there is anything.
    fn in_line(&self, returned: Arc<Returned>) -> Arc<Returned> {
        let Some(line) = self.lines.find(returned.id) else { return returned };
        let mut returned = Arc::unwrap_or_clone(returned);
        returned.line = Some(line);
        Arc::new(returned)
    }

    /// The client is here again before its old connection was seen to be gone.
    fn replace(&self, claim: &Claim, log: &Log, socket: &Rc<Socket>) -> Answer {
        let (Some(ticket), Some(policy)) = (socket.ticket.get(), self.policy.get()) else {
            return Err(Miss::Unknown);
        };
        let away = self.left(socket, Rc::clone(ticket), &policy);
        let answer = away.give(log, self.stamp_of(claim.offset));
        socket.session.close(Close::Replaced);
        answer
    }

    /// Has another worker look for it. What it finds is kept here until it is redeemed.
    pub async fn ask(&self, worker: usize, claim: Claim) -> Answer {
        let pid = claim.pid;
        let (number, answered) = self.begin_to_ask(worker, claim);
        let answer = timeout(ANSWER, answered).await;
        drop(self.asking.borrow_mut().end(number));
        let answer = answer.ok().and_then(Result::ok).unwrap_or(Err(Miss::Unknown));
        if answer.is_err() && pid.node() != self.node {
            self.tell_gone(pid);
        }
        answer
    }

    fn begin_to_ask(&self, worker: usize, claim: Claim) -> (u64, oneshot::Receiver<Answer>) {
        let number = self.asked.get() + 1;
        self.asked.set(number);
        let (answer, answered) = oneshot::channel();
        let mut asking = self.asking.borrow_mut();
        asking.answers.insert(number, (claim.pid, answer));
        let behind = (claim, self.worker, number);
        if !asking.wait_behind(&behind) {
            let (claim, from, number) = behind;
            asking.first.insert(claim.pid, (number, Vec::new()));
            self.tell(worker, Letter::Claim { claim, from, number });
        }
        (number, answered)
    }

    pub fn receive(&self, letter: Letter, namespace: &dyn Fn(&str) -> Option<Rc<Namespace>>) {
        let Some(letter) = self.marks.borrow_mut().pass(letter) else { return };
        match letter {
            Letter::Claim { claim, from, number } => {
                let is_here = self.table.borrow().find(&claim.pid).is_some();
                let behind = (claim, from, number);
                let waits = !is_here && from != self.worker;
                if !waits || !self.asking.borrow_mut().wait_behind(&behind) {
                    self.take_claim(behind, namespace);
                }
            }
            Letter::Answer { answer, number } => {
                let answer = answer.map(|returned| self.at_mark(returned));
                for behind in self.take_answer(number, answer) {
                    self.take_claim(behind, namespace);
                }
            }
            Letter::Gone(pid) => {
                let mut table = self.table.borrow_mut();
                if matches!(table.find(&pid), Some(Standing::There(_))) {
                    table.take(&pid);
                }
            }
        }
    }

    fn take_claim(
        &self,
        (claim, from, number): Behind,
        namespace: &dyn Fn(&str) -> Option<Rc<Namespace>>,
    ) {
        let (there, mark) = (namespace(&claim.namespace), claim.mark);
        let found = there.as_ref().map(|namespace| self.find(&claim, &namespace.log, from));
        match found.unwrap_or(Found::Answer(Err(Miss::Unknown))) {
            Found::Answer(answer) if from == self.worker => drop(self.take_answer(number, answer)),
            Found::Answer(answer) => {
                let answer = match (answer, there) {
                    (Ok(returned), Some(there)) if from >= FAR => {
                        self.pack(returned, &there.log, mark)
                    }
                    (answer, _) => answer,
                };
                self.tell(from, Letter::Answer { answer, number });
            }
            Found::There(worker) => self.tell(worker, Letter::Claim { claim, from, number }),
        }
    }

    /// Keeps what was found; returns the claims that waited for it.
    fn take_answer(&self, number: u64, answer: Answer) -> Vec<Behind> {
        if let Ok(returned) = &answer {
            self.keep(returned);
        }
        let Some((asking, behind)) = self.asking.borrow_mut().end(number) else {
            return Vec::new();
        };
        // Who asked may have stopped waiting.
        let _told = asking.send(answer);
        behind
    }

    /// The client may go on with it, or come again.
    pub fn keep(&self, returned: &Arc<Returned>) {
        let Some(policy) = self.policy.get() else { return };
        let standing = Standing::Returned(Arc::clone(returned));
        self.table.borrow_mut().put(returned.pid, standing);
        self.make_room(Instant::now(), &policy);
    }

    /// True if nobody has claimed it again in the meantime.
    pub fn keeps(&self, returned: &Arc<Returned>) -> bool {
        if returned.afar.is_some() {
            return true;
        }
        let table = self.table.borrow();
        let standing = table.find(&returned.pid);
        matches!(standing, Some(Standing::Returned(kept)) if Arc::ptr_eq(kept, returned))
    }

    /// Nobody will come back with it, wherever it is remembered.
    pub fn drop_secret(&self, pid: Id) {
        self.table.borrow_mut().take(&pid);
        self.tell_gone(pid);
    }

    /// Waits until this worker has heard what the other had: only then is it known what the client
    /// missed, and nothing of it comes again.
    pub async fn catch_up(&self, log: &Log, returned: &Arc<Returned>) -> Result<(), Miss> {
        if self.wait_for(log, &returned.heard, ANSWER).await {
            return Ok(());
        }
        if self.keeps(returned) {
            self.drop_secret(returned.pid);
        }
        Err(Miss::TooMuch)
    }

    /// The client begins anew, and goes on to show its old offset: that must not look like news.
    pub async fn outgrow(&self, log: &Log, claim: &Claim) {
        let Some(stamp) = self.stamp_of(claim.offset) else { return };
        if usize::from(stamp.origin) < self.workers {
            self.wait_for(log, &vector_of(stamp), OUTGROWN).await;
        }
    }

    async fn wait_for(&self, log: &Log, vector: &[u64], limit: Duration) -> bool {
        let until = Instant::now() + limit;
        self.behind.set(self.behind.get() + 1);
        let mut caught_up = log.has_heard(vector);
        while !caught_up {
            let heard = self.heard.notified();
            // Lost with a drop: nothing, it only looks.
            let in_time = timeout_at(until, heard).await.is_ok();
            caught_up = log.has_heard(vector);
            if !in_time {
                break;
            }
        }
        self.behind.set(self.behind.get() - 1);
        caught_up
    }

    /// What the client is to be sent before it goes on.
    pub fn missed(&self, log: &Log, returned: &Returned) -> Result<Vec<Missed>, Miss> {
        let policy = self.policy.get().ok_or(Miss::Unknown)?;
        if let Some(afar) = &returned.afar {
            return afar.missed();
        }
        let missed = returned.missed(log)?;
        let bytes: usize = missed.iter().map(|(_, message)| message.size()).sum();
        if takes_at_once(missed.len(), bytes, policy.queue) {
            Ok(missed)
        } else {
            Err(Miss::TooMuch)
        }
    }
}

impl Away {
    /// What another worker must know to let the client in, who has the message at `offset`.
    pub(super) fn give(self, log: &Log, offset: Option<Stamp>) -> Answer {
        let Self { id, namespace, user, rooms, data, ticket, leave, due } = self;
        let (have, since) = ticket.resolve(log, &leave, offset)?;
        let queued = ticket.queued(log, id, &rooms, &have, leave.end)?;
        let (pid, heard, turned_out) = (ticket.pid, leave.heard, ticket.turned_out);
        Ok(Arc::new(Returned {
            pid,
            id,
            namespace,
            user,
            rooms,
            data,
            due,
            have,
            since,
            heard,
            queued,
            turned_out,
            packed: None,
            mark: None,
            afar: None,
            line: None,
        }))
    }
}

impl Returned {
    /// What Redis kept of it.
    pub(super) fn from_afar(
        (pid, id): (Id, Id),
        namespace: Arc<str>,
        user: Option<Arc<str>>,
        (rooms, data): (Vec<String>, Option<Box<str>>),
        afar: Afar,
    ) -> Self {
        let (now, nothing) = (Instant::now(), Vector::default());
        Self {
            pid,
            id,
            namespace,
            user,
            rooms,
            data,
            due: now,
            have: Arc::clone(&nothing),
            since: now,
            heard: nothing,
            queued: Vec::new(),
            turned_out: None,
            packed: None,
            mark: None,
            afar: Some(afar),
            line: None,
        }
    }

    /// The line that it stands in on another worker, by its id.
    pub fn line(&self) -> Option<(Id, Line)> {
        Some((self.id, self.line.clone()?))
    }

    /// Bytes of what waits for it, without the messages themselves.
    pub(super) fn queued_size(&self) -> usize {
        size_of_val(&*self.queued) + self.packed_size()
    }

    /// It is claimed again by the same client, which may have heard some of it in between.
    pub(super) fn renew(self: Arc<Self>, offset: Option<Stamp>) -> Answer {
        let news = offset.filter(|stamp| !log::has(&self.have, *stamp));
        let Some(stamp) = news else { return Ok(self) };
        if self.turned_out == Some(stamp) {
            return Ok(self);
        }
        if let Some(packed) = &self.packed {
            let last = packed.iter().position(|(known, _)| *known == stamp);
            let rest = packed.get(last.ok_or(Miss::TooMuch)? + 1..).unwrap_or_default().into();
            let mut renewed = Self::clone(&self);
            (renewed.packed, renewed.turned_out) = (Some(rest), Some(stamp));
            return Ok(Arc::new(renewed));
        }
        let last = self.queued.iter().position(|known| *known == stamp);
        let last = last.ok_or(Miss::TooMuch)?;
        let mut renewed = Self::clone(&self);
        renewed.queued.drain(..=last);
        renewed.turned_out = Some(stamp);
        Ok(Arc::new(renewed))
    }

    /// What of this worker's log it has not got.
    pub(super) fn missed(&self, log: &Log) -> Result<Vec<Missed>, Miss> {
        let have = match &self.packed {
            Some(_) if log.has_all_after(&self.heard) => &self.heard,
            None if log.covers(&self.have, self.since) => &self.have,
            _ => return Err(Miss::TooMuch),
        };
        let queued: HashSet<&Stamp> = self.queued.iter().collect();
        let rooms: HashSet<&str> = self.rooms.iter().map(String::as_str).collect();
        let mut missed: Vec<Missed> = self.unpacked().collect();
        log.after(have).for_each(|_position, entry| {
            let meant = if log::has(&self.heard, entry.stamp) {
                queued.contains(&entry.stamp)
            } else {
                entry.is_for(self.id, |room| rooms.contains(room))
            };
            if meant {
                missed.push((entry.stamp, entry.message()));
            }
        });
        Ok(missed)
    }
}

impl Miss {
    pub fn count(self) {
        metrics::count(&metrics::HUB_RECOVERIES, self.word());
    }
}

/// A client has gone on.
pub fn count_recovered() {
    metrics::count(&metrics::HUB_RECOVERIES, "recovered");
}
