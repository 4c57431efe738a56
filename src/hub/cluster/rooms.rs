//! Rooms that have a channel of their own, on the main thread: listened to while somebody of this node
//! is there, and as long after that as somebody may come back.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::hub::outbox::Notice;
use crate::hub::recovery::Stamp;

use super::central::Central;
use super::origin;
use super::wire::{Place, Subscription};

#[derive(Default)]
pub struct Rooms {
    rooms: RefCell<HashMap<Subscription, Room>>,
    /// Rooms that were left, in order of when they are listened to no more.
    left: RefCell<BTreeMap<u64, (Instant, Subscription)>>,
    /// How often a room was left.
    times: Cell<u64>,
}

enum Room {
    /// So many workers have somebody there.
    Here(usize),
    /// Nobody is there since it was left: under which number.
    Left(u64),
}

/// Between two looks for what is over.
const LOOK: Duration = Duration::from_secs(1);

/// Rooms that are listened to although they were left, with recovery. More: the oldest go, and who was
/// in one of them and is away begins anew, as everybody of the namespace who is.
const LEFT_MAX: usize = 40_000;

impl Rooms {
    /// All that are listened to.
    pub fn channels(&self) -> Vec<String> {
        self.rooms.borrow().keys().map(|room| room.name().to_owned()).collect()
    }

    /// True if it was not listened to before.
    fn enter(&self, room: &Subscription) -> bool {
        let mut rooms = self.rooms.borrow_mut();
        match rooms.get_mut(room) {
            Some(Room::Here(workers)) => *workers += 1,
            Some(known) => {
                if let Room::Left(number) = std::mem::replace(known, Room::Here(1)) {
                    self.left.borrow_mut().remove(&number);
                }
            }
            None => {
                rooms.insert(room.clone(), Room::Here(1));
                return true;
            }
        }
        false
    }

    /// True if nobody is there any more.
    fn leave(&self, room: &Subscription, due: Instant) -> bool {
        let mut rooms = self.rooms.borrow_mut();
        let Some(known) = rooms.get_mut(room) else { return false };
        match known {
            Room::Here(1) => {
                self.times.set(self.times.get() + 1);
                *known = Room::Left(self.times.get());
                self.left.borrow_mut().insert(self.times.get(), (due, room.clone()));
                true
            }
            Room::Here(workers) => {
                *workers -= 1;
                false
            }
            Room::Left(_) => false,
        }
    }

    /// Those in which nobody has been since they were left, until now.
    fn over(&self, now: Instant) -> Vec<Subscription> {
        self.let_go(|_, due| due <= now)
    }

    /// The oldest of those that were left, but for so many.
    fn beyond(&self, max: usize) -> Vec<Subscription> {
        self.let_go(|count, _| count > max)
    }

    fn let_go(&self, is_over: impl Fn(usize, Instant) -> bool) -> Vec<Subscription> {
        let (mut rooms, mut left) = (self.rooms.borrow_mut(), self.left.borrow_mut());
        let mut over = Vec::new();
        loop {
            let count = left.len();
            let Some(first) = left.first_entry().filter(|first| is_over(count, first.get().0))
            else {
                return over;
            };
            let (_, room) = first.remove();
            rooms.remove(&room);
            over.push(room);
        }
    }

    fn is_known(&self, room: &Subscription) -> bool {
        self.rooms.borrow().contains_key(room)
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

    /// Listens no more to the oldest of too many that were left. Workers are told first: what is said
    /// there is missed from now on.
    pub(super) async fn spare_rooms(&self) {
        if self.is_followed() {
            return;
        }
        let gone = self.rooms.beyond(LEFT_MAX);
        if gone.is_empty() {
            return;
        }
        let namespace = |room: &Subscription| match self.cluster.wire.place(room.name()) {
            Some(Place::Room(namespace, _)) => Some(namespace.to_owned()),
            _ => None,
        };
        let namespaces: HashSet<String> = gone.iter().filter_map(namespace).collect();
        let origin = origin(self.hub.letters.len()).unwrap_or_default();
        let gap = |namespace: String| {
            self.numbers.set(self.numbers.get() + 1);
            let stamp = Stamp { origin, number: self.numbers.get() };
            Notice::Gap { namespace: namespace.into(), stamp }
        };
        self.tell(namespaces.into_iter().map(gap).collect()).await;
        // Somebody may have come meanwhile.
        let gone = gone.iter().filter(|room| !self.rooms.is_known(room));
        gone.for_each(|room| self.link.remove(room));
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
    use proptest::prelude::*;

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

    proptest! {
        /// As whoever writes down each room's workers, and when it was left.
        #[test]
        fn rooms_are_kept_as_a_list_would(
            steps in proptest::collection::vec((0u8..6, 0usize..8), 0..300),
            max in 0usize..6,
        ) {
            let (rooms, begun) = (Rooms::default(), Instant::now());
            let name = |room: usize| Subscription::Shard(format!("p#/#{room}#"));
            let mut here = [0; 8];
            // The oldest first.
            let mut left: Vec<(usize, u64)> = Vec::new();
            let mut seconds = 0;
            for (kind, room) in steps {
                let now = begun + Duration::from_secs(seconds);
                match kind {
                    0 | 1 => {
                        let is_new = here[room] == 0 && !left.iter().any(|(one, _)| *one == room);
                        prop_assert_eq!(rooms.enter(&name(room)), is_new);
                        left.retain(|(one, _)| *one != room);
                        here[room] += 1;
                    }
                    2 | 3 => {
                        let is_last = here[room] == 1;
                        here[room] -= usize::from(here[room] > 0);
                        let due = now + Duration::from_secs(5);
                        prop_assert_eq!(rooms.leave(&name(room), due), is_last);
                        if is_last {
                            left.push((room, seconds + 5));
                        }
                    }
                    4 => {
                        seconds += 1;
                        let now = begun + Duration::from_secs(seconds);
                        let (over, rest): (Vec<_>, Vec<_>) =
                            left.iter().copied().partition(|(_, due)| *due <= seconds);
                        let over: Vec<_> = over.into_iter().map(|(room, _)| name(room)).collect();
                        prop_assert_eq!(rooms.over(now), over);
                        left = rest;
                    }
                    _ => {
                        let more = left.len().saturating_sub(max);
                        let over: Vec<_> = left.drain(..more).map(|(room, _)| name(room)).collect();
                        prop_assert_eq!(rooms.beyond(max), over);
                    }
                }
                let known = (0..8).filter(|room| {
                    here[*room] > 0 || left.iter().any(|(one, _)| one == room)
                });
                prop_assert_eq!(rooms.channels().len(), known.count());
                prop_assert_eq!(rooms.left.borrow().len(), left.len());
            }
        }
    }
}
