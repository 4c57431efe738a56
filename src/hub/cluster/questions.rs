//! Another node's event that clients acknowledge: how many are asked, and what each of them says.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::hub::asked::Question;
use crate::hub::engine::Message;
use crate::hub::outbox::Notice;
use crate::hub::packet;

use super::central::Central;
use super::incoming::target;
use super::wire::{Answer, Audience, Payload};

/// Who asks whom.
pub struct Asked<'a> {
    pub namespace: &'a str,
    pub to: &'a str,
    pub request: Box<str>,
    pub audience: Audience,
    /// Milliseconds that whoever asks waits.
    pub within: Option<u64>,
}

/// Replies that wait to be passed on.
const REPLIES: usize = 4096;
/// Nobody waits longer, whatever is said.
const LONGEST: Duration = Duration::from_secs(600);

impl Central {
    /// Has the workers ask; the answers are passed on as they come.
    pub(super) fn question(self: &Rc<Self>, asked: Asked<'_>, packet: &Payload) -> Notice {
        let Asked { namespace, to, request, audience, within } = asked;
        let ack = self.acks.get() + 1;
        self.acks.set(ack);
        let workers = self.hub.letters.len().max(1);
        let (counts, counted) = mpsc::channel(workers);
        let (replies, replied) = mpsc::channel(REPLIES);
        let within = within.map_or(self.answer_within, Duration::from_millis).min(LONGEST);
        let due = Instant::now() + within;
        let text = packet::question(namespace, ack, &packet.data, packet.parts.len());
        let answering = Rc::clone(self).pass_on(
            (namespace.to_owned(), to.to_owned(), request),
            due,
            counted,
            replied,
        );
        self.drain.spawn_background(answering);
        Notice::Question(Box::new(Question {
            namespace: namespace.into(),
            target: Arc::new(target(audience)),
            message: Arc::new(Message::with_parts(text, packet.parts.clone())),
            ack,
            due,
            counts,
            replies,
        }))
    }

    async fn pass_on(
        self: Rc<Self>,
        (namespace, to, request): (String, String, Box<str>),
        due: Instant,
        mut counted: mpsc::Receiver<usize>,
        mut replied: mpsc::Receiver<Option<Payload>>,
    ) {
        let mut clients = 0;
        let counting = async {
            while let Some(count) = counted.recv().await {
                clients += count as u64;
            }
        };
        // A worker that is late is left out.
        let _in_time = timeout_at(due, counting).await;
        self.answer(&namespace, &to, request.clone(), Answer::Clients(clients));
        let passing = async {
            for _ in 0..clients {
                let Some(reply) = replied.recv().await else { break };
                self.answer(&namespace, &to, request.clone(), Answer::Ack(reply));
            }
        };
        let _in_time = timeout_at(due, passing).await;
    }
}
