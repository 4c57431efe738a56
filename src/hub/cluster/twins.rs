//! The process that takes over from this one, or that this one takes over from: both hear the same
//! Redis meanwhile, on the main thread.
//!
//! What either says reaches the other directly, so that here it is dropped. A mark that the new one
//! sends is heard by both, in its place among all that comes; see `recovery::marks`. Where rooms have
//! channels of their own, the new one listens to those of the old one before its clients come.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::hub::handover::Role;
use crate::hub::outbox::Notice;
use crate::hub::recovery::Stamp;

use super::central::Central;
use super::link::Heard;
use super::origin;
use super::resp::command;
use super::speaker::Kind;
use super::wire::Subscription;

/// How long a mark waits for Redis; whoever waits for it gives up then.
const MARKED_WITHIN: Duration = Duration::from_secs(4);
/// What was said before the end comes within this. One that goes on without us is heard after it.
const LINGERS: Duration = Duration::from_secs(5);
/// Between two looks whether it is there.
const LOOK: Duration = Duration::from_millis(10);

/// The one, and the one before, of which something may still come.
#[derive(Default)]
pub struct Twins {
    now: Option<Twin>,
    gone: Option<(Box<str>, Instant)>,
}

struct Twin {
    attempt: u64,
    /// Under which it talks.
    name: Box<str>,
    /// For marks; named after the new one.
    channel: String,
    role: Role,
    /// What is listened to because the one before does.
    rooms: Vec<Subscription>,
}

impl Central {
    pub(super) fn pair(&self, attempt: u64, name: Box<str>, role: Role) {
        let mut twins = self.twins.borrow_mut();
        if twins.now.as_ref().is_some_and(|now| (now.attempt, &now.name) == (attempt, &name)) {
            return;
        }
        let wire = &self.cluster.wire;
        let new = match role {
            Role::New => wire.uid.as_str(),
            Role::Old => &name,
        };
        let channel = format!("{}-marks#{new}", wire.prefix);
        self.link.add(Subscription::Channel(channel.clone()));
        twins.now = Some(Twin { attempt, name, channel, role, rooms: Vec::new() });
        drop(twins);
        self.tell_next(self.rooms.channels().into_iter());
    }

    /// True if another process takes over from this one.
    pub(super) fn is_followed(&self) -> bool {
        self.twins.borrow().now.as_ref().is_some_and(|twin| twin.role == Role::Old)
    }

    /// What the next process is to listen to, if there is one.
    pub(super) fn tell_next(&self, channels: impl Iterator<Item = String>) {
        if self.is_followed() {
            self.cluster.rooms.tell(channels);
        }
    }

    /// As long as the one before is there, whose clients may come.
    pub(super) fn listen_to(&self, channels: Vec<String>) {
        let rooms: Vec<_> = channels.into_iter().map(Subscription::Shard).collect();
        rooms.iter().for_each(|room| self.move_room(room.clone(), true));
        let gone = match &mut self.twins.borrow_mut().now {
            Some(twin) if twin.role == Role::New => {
                twin.rooms.extend(rooms);
                return;
            }
            _ => rooms,
        };
        gone.into_iter().for_each(|room| self.move_room(room, false));
    }

    pub(super) fn unpair(&self, attempt: u64) {
        let mut twins = self.twins.borrow_mut();
        let Some(ended) = twins.now.take_if(|now| now.attempt == attempt) else { return };
        self.link.remove(&Subscription::Channel(ended.channel));
        // What it said last was heard, and is still to come over Redis.
        twins.gone = Some((ended.name, Instant::now()));
        drop(twins);
        self.cluster.rooms.channels().clear();
        ended.rooms.into_iter().for_each(|room| self.move_room(room, false));
    }

    /// Says a mark as soon as this process hears all that it is to hear.
    pub(super) async fn mark(self: Rc<Self>, mark: u64) {
        let until = Instant::now() + MARKED_WITHIN;
        while !self.cluster.is_up() || self.twins.borrow().now.is_none() {
            if Instant::now() > until {
                return;
            }
            sleep(LOOK).await;
        }
        if let Some(twin) = &self.twins.borrow().now {
            let words = [&b"PUBLISH"[..], twin.channel.as_bytes(), &mark.to_be_bytes()];
            self.link.say(command(&words), Kind::Once);
        }
    }

    /// True for a mark; workers are told of it behind all that came before.
    pub(super) fn take_mark(&self, heard: &Heard, notices: &mut Vec<Notice>) -> bool {
        let twins = self.twins.borrow();
        if twins.now.as_ref().is_none_or(|twin| heard.channel != twin.channel.as_bytes()) {
            return false;
        }
        let mark = heard.payload.first_chunk().map(|mark| u64::from_be_bytes(*mark));
        if let (Some(mark), Some(origin)) = (mark, origin(self.hub.letters.len())) {
            let stamp = Stamp { origin, number: self.numbers.get() };
            notices.push(Notice::Mark { mark, stamp });
        }
        true
    }

    /// True for what this process hears in another way.
    pub(super) fn is_twins(&self, from: Option<&str>) -> bool {
        let Twins { now, gone } = &*self.twins.borrow();
        let is_it = |name: &str| from == Some(name);
        now.as_ref().is_some_and(|now| is_it(&now.name))
            || gone.as_ref().is_some_and(|(name, at)| is_it(name) && at.elapsed() < LINGERS)
    }
}
