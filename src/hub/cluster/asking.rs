//! Questions to the other nodes: how many answers are expected, and which have come.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::hub::engine::Id;
use crate::hub::handover::Role;

use super::link::Link;
use super::order::{Entering, Keeps};
use super::resp::Value;
use super::wire::{Answer, Audience, Census, Heads, Remote, Session};

/// What other threads want of the main thread.
pub enum Ask {
    /// Who is meant, on other nodes? Or only how many, where they can say that.
    Remotes {
        namespace: Box<str>,
        audience: Audience,
        counts: bool,
        answer: oneshot::Sender<Result<Elsewhere, Absent>>,
    },
    /// These are the namespaces from now on, and so much is kept for those who come back.
    Serve(Vec<String>, Option<Keeps>),
    /// What is kept under a client's secret, if it is of that namespace and user.
    Recall {
        pid: Id,
        namespace: Arc<str>,
        user: Option<Arc<str>>,
        answer: oneshot::Sender<Option<Session>>,
    },
    /// What a client has missed; answered by a notice, in order with all others.
    Enter(Entering),
    /// Look again which nodes there are.
    Look(oneshot::Sender<()>),
    /// The process of this name takes over from this one, or the other way round.
    Pair { attempt: u64, name: Box<str>, role: Role },
    /// The one before this one listens to these channels of rooms; until it is gone, so does this one.
    Rooms(Vec<String>),
    /// It is gone, or cannot be spoken to.
    Unpair(u64),
}

/// Other nodes that did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("{missing} of {of} other nodes did not answer in {within:?}")]
pub struct Absent {
    pub missing: usize,
    pub of: usize,
    pub within: Duration,
}

/// Who is on other nodes.
#[derive(Debug, Default)]
pub struct Elsewhere {
    pub remotes: Vec<Remote>,
    /// Of nodes that have only said how many they have.
    pub heads: Vec<Heads>,
}

/// Questions that are not answered yet, by their names.
#[derive(Default)]
pub struct Asking(RefCell<HashMap<Box<str>, Asked>>);

struct Asked {
    expected: usize,
    heard: usize,
    found: Elsewhere,
    complete: Rc<Notify>,
}

impl Asking {
    /// Notes that the question called `request` is asked of so many.
    pub fn begin(&self, request: &str, expected: usize) -> Rc<Notify> {
        let complete = Rc::new(Notify::new());
        let asked = Asked {
            expected,
            heard: 0,
            found: Elsewhere::default(),
            complete: Rc::clone(&complete),
        };
        self.0.borrow_mut().insert(request.into(), asked);
        complete
    }

    /// Takes one node's answer; what nobody waits for is dropped.
    pub fn take(&self, request: &str, answer: Answer) {
        let mut all = self.0.borrow_mut();
        let Some(asked) = all.get_mut(request) else { return };
        match answer {
            Answer::Sockets(remotes) => {
                asked.heard += 1;
                asked.found.remotes.extend(remotes);
            }
            Answer::Heads(heads) => {
                asked.heard += 1;
                asked.found.heads.push(heads);
            }
            _ => (),
        }
        if asked.heard >= asked.expected {
            asked.complete.notify_one();
        }
    }

    /// What has come until it was complete, or until there is no more time.
    pub async fn end(
        &self,
        request: &str,
        complete: &Notify,
        within: Duration,
    ) -> Result<Elsewhere, Absent> {
        let in_time = timeout(within, complete.notified()).await.is_ok();
        let Some(asked) = self.0.borrow_mut().remove(request) else {
            return Ok(Elsewhere::default());
        };
        if in_time {
            return Ok(asked.found);
        }
        let missing = asked.expected.saturating_sub(asked.heard);
        Err(Absent { missing, of: asked.expected, within })
    }
}

/// How many nodes there are besides this one; 0 if Redis does not say.
pub async fn others(link: &Link, census: &Census) -> usize {
    let (verb, channel): (&[u8], _) = match census {
        Census::Numsub(channel) => (b"NUMSUB", channel),
        Census::ShardNumsub(channel) => (b"SHARDNUMSUB", channel),
    };
    let words: [&[u8]; 3] = [b"PUBSUB", verb, channel.as_bytes()];
    let number = |answer: Value| answer.items().get(1)?.number();
    let count = match census {
        Census::Numsub(_) if link.servers.is_cluster() => {
            // Each server knows those that listen to it.
            let mut count = None;
            for server in link.servers.slots().await.unwrap_or_default().servers() {
                let Ok(mut line) = link.servers.open_at(&server).await else { continue };
                let answer = timeout(link.timeout, line.ask(&words)).await;
                let heard = answer.ok().and_then(Result::ok).and_then(number);
                count = Some(count.unwrap_or_default() + heard.unwrap_or_default());
            }
            count
        }
        _ => match link.speaker_of(channel) {
            Some(speaker) => speaker.ask(&words).await.ok().and_then(number),
            None => None,
        },
    };
    usize::try_from(count.unwrap_or_default().saturating_sub(1)).unwrap_or_default()
}
