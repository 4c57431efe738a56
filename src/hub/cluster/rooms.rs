//! Rooms that have a channel of their own, on the main thread: listened to while somebody of this node
//! is there, and as long after that as somebody may come back.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::central::Central;
use super::wire::Subscription;

#[derive(Default)]
pub struct Rooms {
    /// Workers by room, and how often there were none.
    workers: RefCell<HashMap<Subscription, (usize, u64)>>,
    /// Rooms that were left, in order of when they are listened to no more.
    left: RefCell<VecDeque<(Instant, Subscription, u64)>>,
}

/// Between two looks for what is over.
const LOOK: Duration = Duration::from_secs(1);

impl Rooms {
    /// All that are listened to.
    pub fn channels(&self) -> Vec<String> {
        self.workers.borrow().keys().map(|room| room.name().to_owned()).collect()
    }

    /// True if it was not listened to before.
    fn enter(&self, room: &Subscription) -> bool {
        let mut workers = self.workers.borrow_mut();
        let is_new = !workers.contains_key(room);
        workers.entry(room.clone()).or_default().0 += 1;
        is_new
    }

    /// True if nobody is there any more.
    fn leave(&self, room: &Subscription, due: Instant) -> bool {
        let mut workers = self.workers.borrow_mut();
        let Some((count, times)) = workers.get_mut(room) else { return false };
        *count = count.saturating_sub(1);
        if *count > 0 {
            return false;
        }
        *times += 1;
        self.left.borrow_mut().push_back((due, room.clone(), *times));
        true
    }

    /// Those in which nobody has been since they were left, until now.
    fn over(&self, now: Instant) -> Vec<Subscription> {
        let (mut workers, mut left) = (self.workers.borrow_mut(), self.left.borrow_mut());
        let mut over = Vec::new();
        while let Some((_, room, times)) = left.pop_front_if(|(due, ..)| *due <= now) {
            if workers.get(&room) == Some(&(0, times)) {
                workers.remove(&room);
                over.push(room);
            }
        }
        over
    }
}

impl Central {
    pub(super) fn move_room(&self, room: Subscription, is_here: bool) {
        if is_here {
            if self.rooms.enter(&room) {
                self.tell_next(std::iter::once(room.name().to_owned()));
                self.link.add(room);
            }
            return;
        }
        let recovers = self.cluster.recovers.load(Ordering::Relaxed);
        let lasts = if recovers { self.order.keeps.get().lasts } else { Duration::ZERO };
        if self.rooms.leave(&room, Instant::now() + lasts) && lasts.is_zero() {
            self.forget_rooms();
        }
    }

    /// Listens to those no more that are over.
    fn forget_rooms(&self) {
        // Who has left may come to the next process, which asks for what was said meanwhile.
        if !self.is_followed() {
            self.rooms.over(Instant::now()).iter().for_each(|room| self.link.remove(room));
        }
    }

    pub(super) async fn watch_rooms(self: Rc<Self>) {
        loop {
            sleep(LOOK).await;
            self.forget_rooms();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_kept_for_those_who_may_come_back() {
        let (rooms, now) = (Rooms::default(), Instant::now());
        let room = Subscription::Shard("p#/#a#".to_owned());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(rooms.enter(&room) && !rooms.enter(&room));
        assert!(!rooms.leave(&room, after(5)) && rooms.leave(&room, after(5)));
        assert!(rooms.over(after(4)).is_empty());
        // Somebody comes and goes: it begins anew.
        assert!(!rooms.enter(&room) && rooms.leave(&room, after(8)));
        assert!(rooms.over(after(7)).is_empty());
        assert_eq!(rooms.channels(), ["p#/#a#"]);
        assert_eq!(rooms.over(after(8)), std::slice::from_ref(&room));
        assert!(rooms.channels().is_empty() && rooms.enter(&room), "it is new again");
        assert!(!rooms.leave(&Subscription::Shard("p#/#b#".to_owned()), now), "nobody was there");
    }
}
