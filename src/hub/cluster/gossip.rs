//! What this node knows of the others beside their events: it is told each change, notices when it
//! has missed one, and forgets a node whose lease is over; on the main thread.
//!
//! Others' connections count in the same table as this node's own, and others' members come to the
//! workers that keep the rooms.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::auth::Suspicion;
use crate::hub::crowds::{Step, User};
use crate::hub::engine::Id;
use crate::hub::outbox::Notice;
use crate::hub::presence::Move;

use super::central::Central;
use super::resp::command;
use super::speaker::Kind;
use super::wire::{Moved, Whisper, Wire};

/// What a worker has to tell the other nodes.
#[derive(Clone)]
pub enum Told {
    /// A user has one connection more, or one fewer.
    Seat(u64, i64),
    Moved(Move),
    Suspect(Suspicion),
}

/// Somebody in a room of a namespace.
type Place = (Arc<str>, Arc<str>, Id);

/// Of a room, and whose each is, where its namespace wants to know.
type Members = HashMap<Id, Option<User>>;

/// All that holds for one node.
#[derive(Default)]
struct Standing {
    seats: HashMap<u64, i64>,
    rooms: HashMap<(Arc<str>, Arc<str>), Members>,
}

struct Other {
    /// Of the last message that was taken; `None` until all is known.
    number: Option<u64>,
    /// Parts of all that there is, which are not complete.
    parts: Option<(u64, u32, Standing)>,
    known: Standing,
    since: Instant,
}

#[derive(Default)]
pub struct Gossip {
    own: RefCell<Standing>,
    number: Cell<u64>,
    changes: RefCell<Whisper>,
    changed: Notify,
    others: RefCell<HashMap<String, Other>>,
    /// On how many other nodes a socket is in a room: one that has moved is on two for a moment.
    far: RefCell<HashMap<Place, u32>>,
    /// Somebody wants to hear all again, or this node does.
    is_asked: Cell<bool>,
    asks: Cell<bool>,
}

/// How long changes are gathered.
const GATHER: Duration = Duration::from_millis(20);
/// How long at most until the others can notice that they have missed one.
const BEAT: Duration = Duration::from_secs(1);
/// Things that are said at once; a message stays below a few hundred kilobytes.
const PART: usize = 2000;
/// Connections that one user may have on one node. Nobody has so many: who says so is mistaken.
const SEATS_MAX: i64 = 1 << 20;
/// Between two tellings of everything.
const WHOLE_EVERY: Duration = Duration::from_millis(500);

/// The channel that all nodes of this program listen to.
pub fn channel(wire: &Wire) -> String {
    format!("{}-nodes#", wire.prefix)
}

impl Standing {
    /// Takes a change; what it means for those who add up.
    fn apply(&mut self, whisper: &Whisper) -> Standings {
        let mut steps = Standings::default();
        for &(user, more) in &whisper.seats {
            let seats = self.seats.entry(user).or_default();
            let before = *seats;
            *seats = before.saturating_add(more).clamp(0, SEATS_MAX);
            let more = *seats - before;
            if *seats == 0 {
                self.seats.remove(&user);
            }
            steps.seats.push((user, more));
        }
        for (namespace, room, id, is_here, user) in &whisper.moves {
            let Some(id) = Id::parse(id) else { continue };
            let key: (Arc<str>, Arc<str>) = (namespace.as_str().into(), room.as_str().into());
            let members = self.rooms.entry(key.clone()).or_default();
            let user =
                user.as_ref().map(|(number, id)| User { number: *number, id: (**id).into() });
            let (moved, step) = match is_here {
                true => (members.insert(id, user.clone()).is_none(), Step::Came(user)),
                false => (members.remove(&id).is_some(), Step::Went),
            };
            if members.is_empty() {
                self.rooms.remove(&key);
            }
            if moved {
                steps.moves.push((key.0, key.1, id, step));
            }
        }
        steps
    }

    /// What leads from this to `next`.
    fn steps_to(&self, next: &Self) -> Standings {
        let mut steps = Standings::default();
        let users: HashSet<&u64> = self.seats.keys().chain(next.seats.keys()).collect();
        for user in users {
            let count = |of: &Self| of.seats.get(user).copied().unwrap_or_default();
            let more = count(next) - count(self);
            if more != 0 {
                steps.seats.push((*user, more));
            }
        }
        let mut differ = |one: &Self, other: &Self, is_here: bool| {
            for ((namespace, room), members) in &one.rooms {
                let known = other.rooms.get(&(Arc::clone(namespace), Arc::clone(room)));
                let is_new = |id: &Id| known.is_none_or(|known| !known.contains_key(id));
                for (id, user) in members.iter().filter(|(id, _)| is_new(id)) {
                    let step = if is_here { Step::Came(user.clone()) } else { Step::Went };
                    steps.moves.push((Arc::clone(namespace), Arc::clone(room), *id, step));
                }
            }
        };
        differ(next, self, true);
        differ(self, next, false);
        steps
    }

    /// All of it, in messages of a bearable size.
    fn whispers(&self, from: &str, number: u64) -> Vec<Whisper> {
        let empty = || Whisper { from: from.to_owned(), number, ..Whisper::default() };
        let (mut list, mut last) = (Vec::new(), empty());
        let mut put = |last: &mut Whisper| {
            if last.len() >= PART {
                list.push(std::mem::replace(last, empty()));
            }
        };
        for (user, count) in &self.seats {
            last.seats.push((*user, *count));
            put(&mut last);
        }
        for ((namespace, room), members) in &self.rooms {
            for (id, user) in members {
                let step = Step::Came(user.clone());
                last.moves.push(moved(namespace, room, *id, &step));
                put(&mut last);
            }
        }
        list.push(last);
        let parts = u32::try_from(list.len()).unwrap_or(u32::MAX);
        (0..).zip(&mut list).for_each(|(part, whisper)| whisper.part = Some((part, parts)));
        list
    }
}

/// What has changed.
#[derive(Default)]
struct Standings {
    seats: Vec<(u64, i64)>,
    moves: Vec<(Arc<str>, Arc<str>, Id, Step)>,
}

/// A step in the words of nodes.
fn moved(namespace: &str, room: &str, id: Id, step: &Step) -> Moved {
    let (is_here, user) = match step {
        Step::Came(user) => (true, user.as_ref().map(|user| (user.number, (*user.id).into()))),
        Step::Went => (false, None),
    };
    (namespace.into(), room.into(), id.as_str().to_owned(), is_here, user)
}

impl Central {
    /// A worker has something to tell.
    pub(super) fn whisper(&self, told: Told) {
        let gossip = &self.gossip;
        let mut changes = gossip.changes.borrow_mut();
        match told {
            Told::Seat(user, more) => changes.seats.push((user, more)),
            Told::Moved(Move { namespace, room, id, step, .. }) => {
                changes.moves.push(moved(&namespace, &room, id, &step));
            }
            Told::Suspect(Suspicion { digest, replaced, stateless, until }) => {
                changes.suspects.push((digest, replaced, stateless));
                changes.until.push(until);
            }
        }
        if changes.len() >= PART {
            drop(changes);
            self.tell_changes();
        } else {
            gossip.changed.notify_one();
        }
    }

    /// Tells the others what has changed, and now and then that nothing has.
    pub(super) async fn keep_telling(self: Rc<Self>) {
        let mut whole: Option<Instant> = None;
        loop {
            if timeout(BEAT, self.gossip.changed.notified()).await.is_ok() {
                sleep(GATHER).await;
            }
            self.tell_changes();
            let is_due = whole.is_none_or(|whole| whole.elapsed() >= WHOLE_EVERY);
            if self.gossip.is_asked.get() && is_due {
                self.gossip.is_asked.set(false);
                whole = Some(Instant::now());
                let (own, number) = (self.gossip.own.borrow(), self.gossip.number.get());
                let whispers = own.whispers(&self.cluster.wire.uid, number);
                whispers.iter().for_each(|whisper| self.publish(whisper));
            }
        }
    }

    /// The link was away: what was said meanwhile is not known, on neither side.
    pub(super) fn ask_for_all(&self) {
        self.gossip.is_asked.set(true);
        self.gossip.asks.set(true);
        self.gossip.changed.notify_one();
    }

    fn tell_changes(&self) {
        let gossip = &self.gossip;
        let mut changes = gossip.changes.take();
        if !changes.is_empty() {
            gossip.own.borrow_mut().apply(&changes);
            gossip.number.set(gossip.number.get() + 1);
        }
        changes.from.clone_from(&self.cluster.wire.uid);
        changes.number = gossip.number.get();
        changes.asks = gossip.asks.replace(false);
        self.publish(&changes);
    }

    /// What is not heard is missed, and noticed by its number.
    fn publish(&self, whisper: &Whisper) {
        let channel = channel(&self.cluster.wire);
        let words: [&[u8]; 3] = [b"PUBLISH", channel.as_bytes(), &whisper.write()];
        self.link.speaker.say(command(&words), Kind::Volatile);
    }

    /// Takes what another node tells.
    pub(super) fn take_whisper(&self, whisper: &Whisper, notices: &mut Vec<Notice>) {
        let gossip = &self.gossip;
        if whisper.from == self.cluster.wire.uid {
            return;
        }
        if whisper.asks {
            gossip.is_asked.set(true);
            gossip.changed.notify_one();
        }
        let mut others = gossip.others.borrow_mut();
        let other = others.entry(whisper.from.clone()).or_insert_with(|| Other {
            number: None,
            parts: None,
            known: Standing::default(),
            since: Instant::now(),
        });
        if let Some((part, parts)) = whisper.part {
            if part == 0 {
                other.parts = Some((whisper.number, 0, Standing::default()));
            }
            let Some((number, next, standing)) = &mut other.parts else { return };
            if *number != whisper.number || *next != part {
                other.parts = None;
                return;
            }
            standing.apply(whisper);
            *next += 1;
            if *next < parts {
                return;
            }
            let Some((number, _, standing)) = other.parts.take() else { return };
            let steps = other.known.steps_to(&standing);
            (other.known, other.number) = (standing, Some(number));
            drop(others);
            return self.follow(&steps, notices);
        }
        for (place, &(digest, replaced, stateless)) in whisper.suspects.iter().enumerate() {
            let until = whisper.until.get(place).copied().unwrap_or_default();
            notices.push(Notice::Suspect(Suspicion { digest, replaced, stateless, until }));
        }
        let changes = u64::from(!whisper.is_empty());
        match other.number {
            Some(number) if Some(whisper.number) == number.checked_add(changes) => {
                other.number = Some(whisper.number);
                let steps = other.known.apply(whisper);
                drop(others);
                self.follow(&steps, notices);
            }
            // Said before what is known.
            Some(number) if whisper.number <= number => (),
            _ => {
                other.number = None;
                gossip.asks.set(true);
                gossip.changed.notify_one();
            }
        }
    }

    /// Nodes whose leases are over, and what there was of them, are no more.
    pub(super) async fn forget_others(&self, there: &HashSet<String>, lease: Duration) {
        let gone: Vec<Other> = {
            let mut others = self.gossip.others.borrow_mut();
            let is_gone =
                |uid: &String, other: &Other| !there.contains(uid) && other.since.elapsed() > lease;
            others.extract_if(|uid, other| is_gone(uid, other)).map(|(_, other)| other).collect()
        };
        let mut notices = Vec::new();
        for other in gone {
            self.follow(&other.known.steps_to(&Standing::default()), &mut notices);
        }
        self.tell(notices).await;
    }

    fn follow(&self, steps: &Standings, notices: &mut Vec<Notice>) {
        for &(user, more) in &steps.seats {
            // Whoever let them in has looked whether there was room.
            self.hub.connections.adjust(user, more);
        }
        let mut far = self.gossip.far.borrow_mut();
        for (namespace, room, id, step) in &steps.moves {
            let key = (Arc::clone(namespace), Arc::clone(room), *id);
            let count = far.entry(key.clone()).or_default();
            let before = *count;
            let is_here = matches!(step, Step::Came(_));
            *count = if is_here { before + 1 } else { before.saturating_sub(1) };
            let changed = (before == 0) != (*count == 0);
            if *count == 0 {
                far.remove(&key);
            }
            if changed {
                let (namespace, room) = (Arc::clone(namespace), Arc::clone(room));
                let (id, step) = (*id, step.clone());
                notices.push(Notice::Moved(Move { namespace, room, id, step, is_far: true }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> String {
        format!("{number:020}")
    }

    #[test]
    fn nobody_has_fewer_seats_than_none_or_more_than_there_can_be() {
        let mut standing = Standing::default();
        let mut tell = |more: i64| {
            let whisper = Whisper { seats: vec![(7, more)], ..Whisper::default() };
            let steps = standing.apply(&whisper).seats;
            (steps, standing.seats.get(&7).copied())
        };
        assert_eq!(tell(-5), (vec![(7, 0)], None));
        assert_eq!(tell(i64::MAX), (vec![(7, SEATS_MAX)], Some(SEATS_MAX)));
        assert_eq!(tell(i64::MAX), (vec![(7, 0)], Some(SEATS_MAX)));
        assert_eq!(tell(-1), (vec![(7, -1)], Some(SEATS_MAX - 1)));
        assert_eq!(tell(i64::MIN), (vec![(7, 1 - SEATS_MAX)], None));
    }

    #[test]
    fn what_is_told_whole_is_what_was_told_in_steps() {
        let mut standing = Standing::default();
        let mut whisper = Whisper::default();
        for number in 0..5000 {
            let user = (number % 2 == 0).then(|| (number as u64, format!("u{number}")));
            let room = format!("r{}", number % 7);
            whisper.moves.push(("/".to_owned(), room, id(number), true, user));
            whisper.seats.push((number as u64 % 11, 1));
        }
        standing.apply(&whisper);
        let whispers = standing.whispers("me", 3);
        assert!(whispers.len() > 2 && whispers.iter().all(|whisper| whisper.len() <= PART));
        let mut again = Standing::default();
        whispers.iter().for_each(|whisper| drop(again.apply(whisper)));
        assert_eq!((&again.seats, &again.rooms), (&standing.seats, &standing.rooms));
        // And what leads from one to another leads there.
        let mut other = Standing::default();
        let gone = ("/".to_owned(), "r1".to_owned(), id(1), true, None);
        other.apply(&Whisper { moves: vec![gone], seats: vec![(99, 2)], ..Whisper::default() });
        let steps = other.steps_to(&standing);
        let moves = steps.moves.iter();
        let moves = moves.map(|(namespace, room, id, step)| moved(namespace, room, *id, step));
        let moves = moves.collect();
        other.apply(&Whisper { moves, seats: steps.seats, ..Whisper::default() });
        assert_eq!((&other.seats, &other.rooms), (&standing.seats, &standing.rooms));
        assert_eq!(standing.steps_to(&standing).moves.len(), 0);
    }
}
