//! What waits for one session's transport: messages, heartbeats, frames, in their order.

use std::collections::VecDeque;
use std::rc::Rc;

use super::outgoing::Outgoing;
use super::session::Delivery;

/// Bounded by whoever puts something in: see `Session::send` and `Session::queue_frame`.
#[derive(Default)]
pub(super) struct Queue {
    /// Most often the only one, and so in no memory of its own.
    first: Option<Item>,
    /// Behind the first: empty if there is none.
    rest: VecDeque<Item>,
    /// Of its messages. Heartbeats stay out of the count: a full queue must not look like a dead
    /// client.
    bytes: usize,
    /// How many of its messages may be dropped.
    volatile: usize,
}

pub(super) enum Item {
    Message(Rc<Outgoing>, Delivery),
    /// A message for nobody else, as the WebSocket frame that it leaves as.
    Said(Vec<u8>),
    Control(Control),
    /// A whole WebSocket frame that is no message.
    Frame(Vec<u8>),
}

/// What the answer to a CONNECT takes at most, which follows what its client has missed.
const ANSWER: usize = 256;

/// True if an empty queue of `max` bytes takes so many messages of so many bytes, and an answer behind
/// them: see `Queue::fits`.
pub fn takes_at_once(messages: usize, bytes: usize, max: usize) -> bool {
    messages <= 1 || bytes.saturating_add(ANSWER) <= max
}

impl Item {
    /// What the queue counts of it; `None` if it is no message.
    fn size(&self) -> Option<usize> {
        match self {
            Self::Message(message, _) => Some(message.size()),
            Self::Said(frame) => Some(frame.len()),
            Self::Control(_) | Self::Frame(_) => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    Ping,
    Pong,
}

impl Control {
    pub(super) fn digit(self) -> u8 {
        match self {
            Self::Ping => b'2',
            Self::Pong => b'3',
        }
    }

    pub(super) fn frame(self) -> &'static [u8] {
        match self {
            Self::Ping => b"\x81\x012",
            Self::Pong => b"\x81\x013",
        }
    }
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.first.iter().chain(&self.rest)
    }

    /// True if `size` bytes more are within `max`. Two messages are always taken, however large: who
    /// reads is not too slow because they came within one round trip, or between two polls.
    pub(super) fn fits(&self, size: usize, max: usize) -> bool {
        self.bytes + size <= max || self.iter().filter_map(Item::size).nth(1).is_none()
    }

    /// The same as `takes_at_once`, beside what is here.
    pub(super) fn takes_at_once(&self, messages: usize, bytes: usize, max: usize) -> bool {
        let here = self.iter().filter_map(Item::size).take(2).count();
        takes_at_once(messages + here, self.bytes.saturating_add(bytes), max)
    }

    fn push_item(&mut self, item: Item) {
        if self.first.is_none() {
            self.first = Some(item);
        } else {
            self.rest.push_back(item);
        }
    }

    fn pop_item(&mut self) -> Option<Item> {
        let next = self.rest.pop_front();
        std::mem::replace(&mut self.first, next)
    }

    pub(super) fn push(&mut self, message: Rc<Outgoing>, delivery: Delivery) {
        self.bytes += message.size();
        self.volatile += usize::from(delivery == Delivery::Volatile);
        self.push_item(Item::Message(message, delivery));
    }

    pub(super) fn push_said(&mut self, frame: Vec<u8>) {
        self.bytes += frame.len();
        self.push_item(Item::Said(frame));
    }

    /// One pong answers all pings before it, so pings alone make no queue.
    pub(super) fn push_control(&mut self, control: Control) {
        let last = self.rest.back().or(self.first.as_ref());
        if !matches!(last, Some(Item::Control(last)) if *last == control) {
            self.push_item(Item::Control(control));
        }
    }

    pub(super) fn push_frame(&mut self, frame: Vec<u8>) {
        self.push_item(Item::Frame(frame));
    }

    pub(super) fn front(&self) -> Option<&Item> {
        self.first.as_ref()
    }

    /// The first item has left.
    pub(super) fn pop(&mut self) {
        let Some(item) = self.pop_item() else { return };
        self.bytes -= item.size().unwrap_or_default();
        self.volatile -= usize::from(matches!(item, Item::Message(_, Delivery::Volatile)));
    }

    /// Drops the messages that may be dropped, but not the first item if it has `begun` to leave;
    /// returns how many.
    pub(super) fn drop_volatile(&mut self, begun: bool) -> usize {
        if self.volatile == 0 {
            return 0;
        }
        let (mut bytes, mut dropped, mut is_first) = (0, 0, true);
        let mut stays = |item: &Item| match item {
            Item::Message(message, Delivery::Volatile) if !(begun && is_first) => {
                is_first = false;
                bytes += message.size();
                dropped += 1;
                false
            }
            _ => {
                is_first = false;
                true
            }
        };
        let first = self.first.take_if(|first| !stays(first));
        self.rest.retain(|item| stays(item));
        if first.is_some() {
            self.first = self.rest.pop_front();
        }
        self.bytes -= bytes;
        self.volatile -= dropped;
        dropped
    }

    /// An idle session holds no memory for what it once had to say.
    pub(super) fn give_back(&mut self) {
        if self.rest.is_empty() {
            self.rest = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::hub::engine::Message;

    fn message(size: usize) -> Rc<Outgoing> {
        Outgoing::new(Arc::new(Message::text("x".repeat(size))))
    }

    #[test]
    fn two_messages_are_always_taken() {
        let mut queue = Queue::default();
        assert!(queue.fits(1000, 10));
        queue.push(message(10), Delivery::Kept);
        // Something else between them counts as none.
        queue.push_control(Control::Ping);
        assert!(queue.fits(1000, 10));
        queue.push(message(10), Delivery::Kept);
        assert!(queue.fits(0, 20) && !queue.fits(1, 20) && queue.fits(1, 21));
        queue.pop();
        assert!(queue.fits(1000, 10));
    }

    #[test]
    fn pings_in_a_row_are_one() {
        let mut queue = Queue::default();
        for control in [Control::Pong, Control::Pong, Control::Ping, Control::Pong] {
            queue.push_control(control);
        }
        assert_eq!((queue.len(), queue.bytes()), (3, 0));
    }

    #[test]
    fn only_what_may_be_dropped_is() {
        let mut queue = Queue::default();
        for (size, delivery) in [
            (1, Delivery::Volatile),
            (2, Delivery::Kept),
            (4, Delivery::Volatile),
            (8, Delivery::Kept),
        ] {
            queue.push(message(size), delivery);
        }
        queue.push_control(Control::Ping);
        // The first is half way out.
        assert_eq!((queue.drop_volatile(true), queue.bytes(), queue.len()), (1, 11, 4));
        assert_eq!((queue.drop_volatile(true), queue.bytes(), queue.len()), (0, 11, 4));
        assert_eq!((queue.drop_volatile(false), queue.bytes(), queue.len()), (1, 10, 3));
        assert_eq!((queue.drop_volatile(false), queue.bytes()), (0, 10));
    }

    proptest! {
        #[test]
        fn what_is_sent_at_once_is_taken(
            before in prop::collection::vec(0usize..3000, 0..4),
            sizes in prop::collection::vec(0usize..3000, 0..6),
            max in 0usize..8000,
        ) {
            let (mut queue, bytes) = (Queue::default(), sizes.iter().sum());
            let takes_all = before.is_empty() && takes_at_once(sizes.len(), bytes, max);
            before.into_iter().for_each(|size| queue.push(message(size), Delivery::Kept));
            let takes = queue.takes_at_once(sizes.len(), bytes, max);
            prop_assert!(takes || !takes_all);
            if takes {
                for size in sizes {
                    prop_assert!(queue.fits(size, max));
                    queue.push(message(size), Delivery::Kept);
                }
                prop_assert!(queue.fits(ANSWER, max));
            }
        }

        #[test]
        fn it_counts_what_it_holds(steps in prop::collection::vec((0u8..7, 0usize..5), 0..100)) {
            let mut queue = Queue::default();
            for (step, size) in steps {
                match step {
                    0 => queue.push(message(size), Delivery::Kept),
                    1 => queue.push(message(size), Delivery::Volatile),
                    2 => queue.push_control(Control::Ping),
                    3 => queue.push_frame(vec![0; size]),
                    4 => queue.pop(),
                    5 => queue.push_said(vec![0; size]),
                    _ => drop(queue.drop_volatile(size > 2)),
                }
                let sizes = queue.iter().filter_map(|item| match item {
                    Item::Message(message, delivery) => Some((message.size(), *delivery)),
                    Item::Said(frame) => Some((frame.len(), Delivery::Kept)),
                    Item::Control(_) | Item::Frame(_) => None,
                });
                let all: Vec<_> = sizes.collect();
                prop_assert_eq!(queue.bytes(), all.iter().map(|(size, _)| size).sum::<usize>());
                let volatile = all.iter().filter(|(_, delivery)| *delivery == Delivery::Volatile);
                prop_assert_eq!(queue.volatile, volatile.count());
            }
        }
    }
}
