//! Events of other nodes that clients are to acknowledge, and the acknowledgements that come.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::clients::Clients;
use super::cluster::Payload;
use super::engine::{Delivery, Id, Message, Outgoing};
use super::namespace::Target;
use super::packet::Head;
use super::socket::Socket;

/// What workers are told of such an event.
#[derive(Clone)]
pub struct Question {
    pub namespace: Arc<str>,
    pub target: Arc<Target>,
    pub message: Arc<Message>,
    /// As the message says it; no other message of this process does.
    pub ack: u64,
    /// Later nobody waits.
    pub due: Instant,
    /// How many clients of each worker are asked. Never full: each worker says so once.
    pub counts: mpsc::Sender<usize>,
    /// Full: whoever asks is not told of this one.
    pub replies: mpsc::Sender<Option<Payload>>,
}

/// Questions whose answers are waited for on one worker.
#[derive(Default)]
pub struct Asked(RefCell<HashMap<u64, Pending>>);

struct Pending {
    from: HashSet<Id>,
    due: Instant,
    replies: mpsc::Sender<Option<Payload>>,
}

/// Questions that wait at once. Full: the one that is due first is given up.
const QUESTIONS_MAX: usize = 1024;

impl Asked {
    fn begin(&self, ack: u64, pending: Pending) {
        let mut all = self.0.borrow_mut();
        let now = Instant::now();
        all.retain(|_, pending| pending.due > now);
        if all.len() >= QUESTIONS_MAX {
            let first = all.iter().min_by_key(|(_, pending)| pending.due).map(|(ack, _)| *ack);
            first.inspect(|first| drop(all.remove(first)));
        }
        all.insert(ack, pending);
    }

    /// Takes a client's answer, if it was asked and has not answered before.
    fn take(&self, ack: u64, id: Id, answer: impl FnOnce() -> Option<Payload>) {
        let mut all = self.0.borrow_mut();
        let Some(pending) = all.get_mut(&ack) else { return };
        if pending.from.remove(&id) {
            // See `Question::replies`.
            let _told = pending.replies.try_send(answer());
        }
        if pending.from.is_empty() {
            all.remove(&ack);
        }
    }
}

impl Clients {
    /// Asks those of this worker who are meant.
    pub(super) fn question(&self, question: Question) {
        let Question { namespace, target, message, ack, due, counts, replies } = question;
        let namespace = self.namespace(&namespace);
        let those = namespace.map(|namespace| namespace.those(&target)).unwrap_or_default();
        // Whoever asks may have stopped waiting.
        let _told = counts.try_send(those.len());
        if those.is_empty() {
            return;
        }
        let from = those.iter().map(|socket| socket.id).collect();
        self.asked.begin(ack, Pending { from, due, replies });
        let message = Outgoing::new(message);
        those.iter().for_each(|socket| {
            socket.session.send(&message, Delivery::Kept);
        });
    }

    /// A client acknowledges something.
    pub(super) fn take_ack(&self, socket: &Rc<Socket>, head: &Head<'_>, parts: &[Bytes]) {
        let Some(ack) = head.ack else { return };
        self.asked.take(ack, socket.id, || Payload::first_of(head.data, parts));
    }
}
