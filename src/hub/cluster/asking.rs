//! Questions to the other nodes: how many answers are expected, and which have come.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::speaker::Speaker;
use super::wire::{Answer, Audience, Census, Remote};

/// What other threads want of the main thread.
pub enum Ask {
    /// Who is meant, on other nodes?
    Remotes {
        namespace: Box<str>,
        audience: Audience,
        answer: oneshot::Sender<Result<Vec<Remote>, Absent>>,
    },
    /// These are the namespaces from now on.
    Serve(Vec<String>),
    /// Look again which nodes there are.
    Look(oneshot::Sender<()>),
}

/// Other nodes that did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("{missing} of {of} other nodes did not answer in {within:?}")]
pub struct Absent {
    pub missing: usize,
    pub of: usize,
    pub within: Duration,
}

/// Questions that are not answered yet, by their names.
#[derive(Default)]
pub struct Asking(RefCell<HashMap<Box<str>, Asked>>);

struct Asked {
    expected: usize,
    heard: usize,
    remotes: Vec<Remote>,
    complete: Rc<Notify>,
}

impl Asking {
    /// Notes that the question called `request` is asked of so many.
    pub fn begin(&self, request: &str, expected: usize) -> Rc<Notify> {
        let complete = Rc::new(Notify::new());
        let asked =
            Asked { expected, heard: 0, remotes: Vec::new(), complete: Rc::clone(&complete) };
        self.0.borrow_mut().insert(request.into(), asked);
        complete
    }

    /// Takes one node's answer; what nobody waits for is dropped.
    pub fn take(&self, request: &str, answer: Answer) {
        let mut all = self.0.borrow_mut();
        let Some(asked) = all.get_mut(request) else { return };
        if let Answer::Sockets(remotes) = answer {
            asked.heard += 1;
            asked.remotes.extend(remotes);
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
    ) -> Result<Vec<Remote>, Absent> {
        let in_time = timeout(within, complete.notified()).await.is_ok();
        let Some(asked) = self.0.borrow_mut().remove(request) else { return Ok(Vec::new()) };
        if in_time {
            return Ok(asked.remotes);
        }
        let missing = asked.expected.saturating_sub(asked.heard);
        Err(Absent { missing, of: asked.expected, within })
    }
}

/// How many nodes there are besides this one; 0 if Redis does not say.
pub async fn others(speaker: &Speaker, census: &Census) -> usize {
    let (verb, channel): (&[u8], _) = match census {
        Census::Numsub(channel) => (b"NUMSUB", channel),
        Census::ShardNumsub(channel) => (b"SHARDNUMSUB", channel),
    };
    let answer = speaker.ask(&[b"PUBSUB", verb, channel.as_bytes()]).await;
    let count = answer.ok().and_then(|answer| answer.items().get(1)?.number());
    usize::try_from(count.unwrap_or_default().saturating_sub(1)).unwrap_or_default()
}
