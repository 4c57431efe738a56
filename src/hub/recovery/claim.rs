//! How a client that comes back finds what it left, on whichever worker that is.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use crate::hub::engine::{Close, Id, Outgoing};
use crate::hub::namespace::Namespace;
use crate::hub::socket::Socket;
use crate::observe::metrics;

use super::log::{self, Log, Vector};
use super::offset::{Offset, Stamp};
use super::table::{Away, Standing};
use super::ticket::is_for;
use super::{Miss, Recovery};

/// A client wants to go on.
#[derive(Debug, Clone)]
pub struct Claim {
    pub pid: Id,
    pub namespace: Arc<str>,
    offset: Option<Offset>,
}

/// A socket between two connections.
#[derive(Debug, Clone)]
pub struct Returned {
    pub pid: Id,
    pub id: Id,
    pub namespace: Arc<str>,
    pub rooms: Vec<String>,
    pub data: Option<Box<str>>,
    pub due: Instant,
    pub(super) have: Vector,
    /// What was delivered before, the client has in any case.
    since: Instant,
    /// What its old worker had delivered when it left, and what of that it does not have.
    heard: Vector,
    queued: Vec<Stamp>,
}

pub type Answer = Result<Box<Returned>, Miss>;

/// A message that a client missed, and where it stands.
pub type Missed = (Stamp, Rc<Outgoing>);

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

/// Another worker that takes longer is stuck; the client begins anew.
const ANSWER: Duration = Duration::from_secs(5);

impl Recovery {
    /// What the client's CONNECT says of an earlier connection, taken out of `auth`: a secret is
    /// nobody else's business. An error if it says what cannot be.
    pub fn read(
        &self,
        namespace: &Arc<str>,
        auth: &mut Map<String, Value>,
    ) -> Option<Result<Claim, Miss>> {
        let (pid, offset) = (auth.remove("pid")?, auth.remove("offset"));
        let pid = pid.as_str().and_then(Id::parse).filter(|pid| pid.node() == self.node);
        let offset = match offset {
            None => Some(None),
            Some(offset) => offset.as_str().and_then(Offset::parse).map(Some),
        };
        let (Some(pid), Some(offset)) = (pid, offset) else { return Some(Err(Miss::Unknown)) };
        let known = pid.worker() < self.workers;
        let namespace = Arc::clone(namespace);
        Some(if known { Ok(Claim { pid, namespace, offset }) } else { Err(Miss::Unknown) })
    }

    /// Looks on this worker first, whose `log` it is.
    pub fn find_here(&self, claim: &Claim, log: &Log) -> Found {
        self.find(claim, log, self.worker)
    }

    /// Looks on this worker for what the worker `from` wants to know.
    fn find(&self, claim: &Claim, log: &Log, from: usize) -> Found {
        let mut table = self.table.borrow_mut();
        let standing = table.find(&claim.pid).filter(|standing| standing.is_in(&claim.namespace));
        let asks = from == self.worker;
        if standing.is_none() {
            let maker = claim.pid.worker();
            let elsewhere = asks && maker != self.worker;
            return if elsewhere { Found::There(maker) } else { Found::Answer(Err(Miss::Unknown)) };
        }
        let standing = table.take(&claim.pid);
        if !asks && claim.pid.worker() == self.worker {
            table.put(claim.pid, Standing::There(from));
        }
        drop(table);
        let answer = match standing {
            Some(Standing::There(worker)) if worker != from => return Found::There(worker),
            Some(Standing::Here(socket)) => self.replace(claim, log, &socket),
            Some(Standing::Away(away)) if away.due > Instant::now() => self.give(claim, log, *away),
            Some(Standing::Returned(returned)) if returned.due > Instant::now() => Ok(returned),
            Some(Standing::Away(_) | Standing::Returned(_)) => Err(Miss::Expired),
            Some(Standing::Spent { why, .. }) => Err(why),
            Some(Standing::There(_)) | None => Err(Miss::Unknown),
        };
        if answer.is_err() {
            self.drop_secret(claim.pid);
        }
        Found::Answer(answer)
    }

    /// The client is here again before its old connection was seen to be gone.
    fn replace(&self, claim: &Claim, log: &Log, socket: &Rc<Socket>) -> Answer {
        let (Some(ticket), Some(policy)) = (socket.ticket.get(), self.policy.get()) else {
            return Err(Miss::Unknown);
        };
        let away = self.left(socket, Rc::clone(ticket), &policy);
        let answer = self.give(claim, log, away);
        socket.session.close(Close::Replaced);
        answer
    }

    fn give(&self, claim: &Claim, log: &Log, away: Away) -> Answer {
        let Away { id, namespace, rooms, data, ticket, leave, due } = away;
        let (have, since) = ticket.resolve(log, &leave, claim.offset, self.node)?;
        let queued = ticket.queued(log, id, &rooms, &have, leave.end)?;
        let (pid, heard) = (ticket.pid, leave.heard);
        Ok(Box::new(Returned { pid, id, namespace, rooms, data, due, have, since, heard, queued }))
    }

    /// Has another worker look for it.
    pub async fn ask(&self, worker: usize, claim: Claim) -> Answer {
        let number = self.asked.get() + 1;
        self.asked.set(number);
        let (answer, answered) = oneshot::channel();
        self.asking.borrow_mut().insert(number, answer);
        self.tell(worker, Letter::Claim { claim, from: self.worker, number });
        let answer = timeout(ANSWER, answered).await;
        self.asking.borrow_mut().remove(&number);
        answer.ok().and_then(Result::ok).unwrap_or(Err(Miss::Unknown))
    }

    pub fn receive(&self, letter: Letter, namespace: impl Fn(&str) -> Option<Rc<Namespace>>) {
        match letter {
            Letter::Claim { claim, from, number } => {
                let namespace = namespace(&claim.namespace);
                let found = namespace.map(|namespace| self.find(&claim, &namespace.log, from));
                match found.unwrap_or(Found::Answer(Err(Miss::Unknown))) {
                    Found::Answer(answer) => self.tell(from, Letter::Answer { answer, number }),
                    Found::There(worker) => {
                        self.tell(worker, Letter::Claim { claim, from, number });
                    }
                }
            }
            Letter::Answer { answer, number } => {
                let asking = self.asking.borrow_mut().remove(&number);
                let unheard = match asking {
                    Some(asking) => asking.send(answer).err(),
                    None => Some(answer),
                };
                if let Some(Ok(returned)) = unheard {
                    self.drop_secret(returned.pid);
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

    /// Nobody will come back with it, wherever it is remembered.
    pub fn drop_secret(&self, pid: Id) {
        if pid.worker() == self.worker {
            self.table.borrow_mut().take(&pid);
        }
        self.tell_gone(pid);
    }

    /// Waits until this worker has heard what the other had: only then is it known what the client
    /// missed, and nothing of it comes again.
    pub async fn catch_up(&self, log: &Log, returned: &Returned) -> Result<(), Miss> {
        let until = Instant::now() + ANSWER;
        self.behind.set(self.behind.get() + 1);
        let mut caught_up = log.has_heard(&returned.heard);
        while !caught_up {
            let heard = self.heard.notified();
            let in_time = timeout_at(until, heard).await.is_ok();
            caught_up = log.has_heard(&returned.heard);
            if !in_time {
                break;
            }
        }
        self.behind.set(self.behind.get() - 1);
        if caught_up { Ok(()) } else { Err(Miss::TooMuch) }
    }

    /// What the client is to be sent before it goes on.
    pub fn missed(&self, log: &Log, returned: &Returned) -> Result<Vec<Missed>, Miss> {
        let policy = self.policy.get().ok_or(Miss::Unknown)?;
        if !log.covers(&returned.have, returned.since) {
            return Err(Miss::TooMuch);
        }
        let queued: HashSet<&Stamp> = returned.queued.iter().collect();
        let rooms: HashSet<&str> = returned.rooms.iter().map(String::as_str).collect();
        let (mut missed, mut bytes) = (Vec::new(), 0);
        log.after(&returned.have).for_each(|_position, entry| {
            let Some(parcel) = &entry.parcel else { return };
            let meant = if log::has(&returned.heard, entry.stamp) {
                queued.contains(&entry.stamp)
            } else {
                is_for(&parcel.target, returned.id, |room| rooms.contains(room))
            };
            if meant {
                bytes += parcel.message.size();
                missed.push((entry.stamp, Rc::clone(&parcel.message)));
            }
        });
        if bytes > policy.replay_max { Err(Miss::TooMuch) } else { Ok(missed) }
    }

    /// The client left before it was let in; it may come again.
    pub fn keep(&self, returned: Box<Returned>) {
        let Some(policy) = self.policy.get() else { return };
        self.table.borrow_mut().put(returned.pid, Standing::Returned(returned));
        self.make_room(Instant::now(), &policy);
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
