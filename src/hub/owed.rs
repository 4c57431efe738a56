//! Acknowledgements of events that have a place in an order: said when Redis has the event, so that
//! what is acknowledged is not lost.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;

use super::clients::Clients;
use super::cluster::Numbered;
use super::socket::Socket;

/// In the order in which the events were said. No more than what may wait for Redis.
#[derive(Default)]
pub struct Owed(RefCell<VecDeque<Answer>>);

struct Answer {
    of: Numbered,
    socket: Rc<Socket>,
    ack: u64,
    data: Box<str>,
    parts: Vec<Bytes>,
}

/// To an event that nobody else has heard and nobody will.
const LOST: &str = r#"[{"error":{"code":"unavailable","temporary":true}}]"#;

impl Owed {
    /// These have come to their places, and these never do.
    pub fn settle(&self, said: &[Numbered], lost: &[Numbered]) {
        loop {
            let mut owed = self.0.borrow_mut();
            let Some(first) = owed.front() else { return };
            // Those of one line are settled in their order.
            let newest = |keys: &[Numbered]| {
                let own = keys.iter().filter(|(line, _)| *line == first.of.0);
                own.map(|(_, number)| *number).max()
            };
            if newest(said).max(newest(lost)).is_none_or(|newest| newest < first.of.1) {
                return;
            }
            let is_lost = lost.contains(&first.of);
            let Some(answer) = owed.pop_front() else { return };
            drop(owed);
            let Answer { socket, ack, data, parts, .. } = answer;
            if !socket.is_here() {
                continue;
            }
            if is_lost {
                socket.acknowledge(Some(ack), LOST);
            } else {
                socket.acknowledge_with(Some(ack), &data, parts);
            }
        }
    }
}

impl Clients {
    /// The last that was said in order.
    pub(super) fn ordered(&self) -> Option<Numbered> {
        self.outbox.uplink.as_ref().map(|uplink| uplink.ordered())
    }

    /// Acknowledges an event: at once, or when Redis has what was said because of it, since
    /// `before`.
    pub(super) fn answer_when_said(
        &self,
        before: Option<Numbered>,
        socket: &Rc<Socket>,
        ack: Option<u64>,
        data: &str,
        parts: Vec<Bytes>,
    ) {
        let now = self.ordered();
        match (now.filter(|_| now != before), ack) {
            (Some(of), Some(ack)) => {
                let (socket, data) = (Rc::clone(socket), data.into());
                self.owed.0.borrow_mut().push_back(Answer { of, socket, ack, data, parts });
            }
            _ => socket.acknowledge_with(ack, data, parts),
        }
    }
}
