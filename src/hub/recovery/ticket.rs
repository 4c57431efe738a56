//! What lets one socket come back: its secret, where it began, how its rooms changed.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::hub::cluster::AHEAD;
use crate::hub::engine::{Delivery, Id};
use crate::hub::namespace::Target;

use super::Miss;
use super::afar::Begun;
use super::claim::{Missed, Returned};
use super::log::{self, Log, Place, Vector};
use super::offset::Stamp;

/// Kept by the socket while it is here, and by its worker while it is away.
pub struct Ticket {
    /// The client's secret; names the worker that made it.
    pub pid: Id,
    before: RefCell<Before>,
    /// Where it came, in the log of its worker, and what had been delivered there by then.
    start: u64,
    heard: Vector,
    /// From then on the client is known to have what it was sent at once when it came back.
    pub proved_at: Instant,
    /// What the client had, and beyond the floor, when it came.
    pub turned_out: Option<Stamp>,
    /// The last that was queued for it since it came.
    last: Cell<Option<Stamp>>,
    moves: RefCell<Moves>,
    /// Where all nodes share an order.
    pub begun_afar: Begun,
    /// When what its socket would leave was kept in Redis last.
    pub kept_at: Cell<Instant>,
}

/// Of what was delivered before it came.
struct Before {
    /// What the client had.
    floor: Vector,
    /// What it was sent at once; `None` if that is not kept any more.
    resent: Option<Box<[Stamp]>>,
}

#[derive(Default)]
struct Moves {
    /// In order; those that all entries come after are forgotten.
    kept: Vec<Move>,
    /// Before this entry nobody knows any more which rooms it was in.
    blurred: u64,
}

/// It came into a room, or left it.
struct Move {
    /// The first entry that was delivered after it.
    position: u64,
    room: Box<str>,
    joined: bool,
}

/// Changes of rooms that are remembered of a socket. More: it can come back only if it missed
/// nothing before the oldest of them.
const MOVES_MAX: usize = 64;

/// Workers may hear the same message this far apart.
pub const LAG: Duration = Duration::from_secs(5);

impl Ticket {
    /// For a client that is new where `log` is kept.
    pub fn new(pid: Id, log: &Log) -> Self {
        Self::with(pid, log.heard(), log, Box::default(), None, Instant::now())
    }

    /// Where all nodes share an order; `last` is what its client had been sent last when it came.
    pub fn with_begun(self, begun: Begun, last: Option<Stamp>) -> Self {
        Self { begun_afar: begun, last: Cell::new(last), ..self }
    }

    /// For one that comes back and is sent `missed`, which it has at the latest at `proved_at`.
    pub fn renewed(returned: &Returned, missed: &[Missed], log: &Log, proved_at: Instant) -> Self {
        let resent = missed.iter().map(|(stamp, _)| *stamp).collect();
        let floor = Vector::clone(&returned.have);
        Self::with(returned.pid, floor, log, resent, returned.turned_out, proved_at)
    }

    fn with(
        pid: Id,
        floor: Vector,
        log: &Log,
        resent: Box<[Stamp]>,
        turned_out: Option<Stamp>,
        proved_at: Instant,
    ) -> Self {
        let (start, heard) = (log.end(), log.heard());
        let (last, moves) = (Cell::new(resent.last().copied()), RefCell::default());
        let before = RefCell::new(Before { floor, resent: Some(resent) });
        let (begun_afar, kept_at) = (Begun::default(), Cell::new(Instant::now()));
        Self { pid, before, start, heard, proved_at, turned_out, last, moves, begun_afar, kept_at }
    }

    /// Bytes of what it was sent at once, as long as that is kept.
    pub fn resent_size(&self) -> usize {
        let before = self.before.borrow();
        before.resent.as_ref().map_or(0, |resent| size_of_val(&**resent))
    }

    /// Bytes, roughly, beside itself.
    pub fn size(&self) -> usize {
        let moves = self.moves.borrow();
        let moves = moves.kept.iter().map(|step| size_of::<Move>() + step.room.len());
        self.resent_size() + moves.sum::<usize>()
    }

    /// The client has all that it was sent at once, and so everything before it came.
    pub fn prove(&self) {
        let mut before = self.before.borrow_mut();
        let last = before.resent.as_ref().and_then(|resent| resent.last().copied());
        if last.is_some() && self.last.get() == last {
            self.last.set(None);
        }
        *before = Before { floor: Vector::clone(&self.heard), resent: Some(Box::default()) };
    }

    /// Keeps no longer what it was sent at once: until it has shown that it has something newer, the
    /// client can go on only if it lacks nothing.
    pub fn lose_track(&self) {
        self.before.borrow_mut().resent = None;
    }

    /// Also what was not sent after all: its client misses it.
    pub fn note_sent(&self, stamp: Stamp, delivery: Delivery, sent: bool) {
        if sent || delivery == Delivery::Kept {
            self.last.set(Some(stamp));
        }
    }

    /// What it was sent last.
    pub fn last(&self) -> Option<Stamp> {
        self.last.get()
    }

    /// Something should have been sent to it that nobody knows.
    pub fn miss(&self) {
        self.last.set(Some(Stamp { origin: AHEAD, number: 0 }));
    }

    pub fn note_move(&self, log: &Log, room: &str, joined: bool) {
        let (position, first) = (log.end(), log.first());
        let Moves { kept, blurred } = &mut *self.moves.borrow_mut();
        kept.retain(|known| known.position > first);
        if kept.len() == MOVES_MAX {
            *blurred = kept.remove(0).position;
        }
        kept.push(Move { position, room: room.into(), joined });
    }

    /// What the client has, by the last offset that it saw; and what is older than the time
    /// returned it has in any case.
    pub fn resolve(
        &self,
        log: &Log,
        leave: &Leave,
        offset: Option<Stamp>,
    ) -> Result<(Vector, Instant), Miss> {
        // A client that has come has answered a ping since, and so has what was sent before it.
        let since = leave.at.checked_sub(leave.patience + LAG).unwrap_or(leave.at);
        // What it had before it came says nothing of what it was sent since.
        let Before { floor, resent } = &*self.before.borrow();
        let news = offset.filter(|stamp| !log::has(floor, *stamp));
        let news = news.filter(|stamp| self.turned_out != Some(*stamp));
        let have = match (self.last.get(), news) {
            (last, news) if last == news => Vector::clone(&leave.heard),
            (_, None) => Vector::clone(floor),
            (_, Some(stamp)) => match log.place(stamp) {
                // Of an earlier connection: of this one it has nothing.
                Place::At(_) if log::has(&self.heard, stamp) && !was_resent(resent, stamp) => {
                    Vector::clone(floor)
                }
                Place::At(position) => log::both(floor, &log.before(position + 1)),
                Place::Gone if log.reaches_back_to(since) => log::both(floor, &log.gone()),
                Place::Gone => return Err(Miss::TooMuch),
                Place::Unheard => return Err(Miss::Unknown),
            },
        };
        if log.covers(&have, since) { Ok((have, since)) } else { Err(Miss::TooMuch) }
    }

    /// What was queued for the socket and it does not have, by the rooms that it was in at each;
    /// `rooms` are those that it was in at the end.
    pub fn queued(
        &self,
        log: &Log,
        id: Id,
        rooms: &[String],
        have: &[u64],
        end: u64,
    ) -> Result<Vec<Stamp>, Miss> {
        let Moves { kept, blurred } = &*self.moves.borrow();
        let mut inside: HashSet<&str> = rooms.iter().map(String::as_str).collect();
        for step in kept.iter().rev() {
            step.turn(&mut inside, !step.joined);
        }
        let before = self.before.borrow();
        let resent = before.resent.as_ref().map(|resent| resent.iter().collect::<HashSet<_>>());
        let (mut steps, mut queued, mut unsure) = (kept.iter().peekable(), Vec::new(), false);
        log.after(have).for_each(|position, entry| {
            if position >= end {
                return;
            }
            while let Some(step) = steps.next_if(|step| step.position <= position) {
                step.turn(&mut inside, step.joined);
            }
            let meant = if position < self.start {
                unsure |= resent.is_none();
                resent.as_ref().is_some_and(|resent| resent.contains(&entry.stamp))
            } else {
                unsure |= position < *blurred;
                entry.is_for(id, |room| inside.contains(room))
            };
            if meant {
                queued.push(entry.stamp);
            }
        });
        if unsure { Err(Miss::TooMuch) } else { Ok(queued) }
    }
}

fn was_resent(resent: &Option<Box<[Stamp]>>, stamp: Stamp) -> bool {
    resent.as_ref().is_some_and(|resent| resent.contains(&stamp))
}

impl Move {
    fn turn<'a>(&'a self, inside: &mut HashSet<&'a str>, joined: bool) {
        if joined {
            inside.insert(&self.room);
        } else {
            inside.remove(&*self.room);
        }
    }
}

/// When and where a socket left the order of its worker.
#[derive(Debug, Clone)]
pub struct Leave {
    pub at: Instant,
    pub heard: Vector,
    pub end: u64,
    /// How long a client could be gone without anybody noticing.
    pub patience: Duration,
}

/// Whether a message is meant for the socket `id`, who is in these rooms and in its own.
pub fn is_for(target: &Target, id: Id, inside: impl Fn(&str) -> bool) -> bool {
    let rooms = target.rooms.as_ref().map(|rooms| rooms.iter().map(String::as_str));
    let except = target.except.iter().map(String::as_str);
    is_meant(target.but == Some(id), rooms, except, id, inside)
}

/// The same of the parts of a target: whether it leaves the socket out, its rooms, its exceptions.
pub fn is_meant<'a>(
    left_out: bool,
    rooms: Option<impl Iterator<Item = &'a str>>,
    mut except: impl Iterator<Item = &'a str>,
    id: Id,
    inside: impl Fn(&str) -> bool,
) -> bool {
    let within = |room: &str| inside(room) || room == id.as_str();
    !left_out && rooms.is_none_or(|mut rooms| rooms.any(within)) && !except.any(within)
}
