//! Who may come back to this worker: sockets that are here, and what those left who are away.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::hub::engine::Id;
use crate::hub::socket::Socket;
use crate::observe::metrics::{self, Series};

use super::ticket::{Leave, Ticket};
use super::{Miss, Returned};

/// What a socket left behind.
pub struct Away {
    pub id: Id,
    pub namespace: Arc<str>,
    pub user: Option<Arc<str>>,
    pub rooms: Vec<String>,
    pub data: Option<Box<str>>,
    pub ticket: Rc<Ticket>,
    pub leave: Leave,
    pub due: Instant,
}

/// Where the socket of a secret is.
pub enum Standing {
    Here(Rc<Socket>),
    Away(Box<Away>),
    /// Its client came, and left before it was let in.
    Returned(Arc<Returned>),
    /// On this worker, to which it went from here. Whoever forgets it there says so.
    There(usize),
    /// It came too late, or would.
    Spent {
        why: Miss,
        due: Instant,
    },
}

impl Standing {
    /// Whether it is of this namespace and user, as far as is known here.
    pub fn is_of(&self, namespace: &str, user: Option<&Arc<str>>) -> bool {
        match self {
            Self::Here(socket) => {
                *socket.namespace.name == *namespace && socket.user_key().as_ref() == user
            }
            Self::Away(away) => *away.namespace == *namespace && away.user.as_ref() == user,
            Self::Returned(returned) => {
                *returned.namespace == *namespace && returned.user.as_ref() == user
            }
            Self::There(_) | Self::Spent { .. } => true,
        }
    }

    fn due(&self) -> Option<Instant> {
        match self {
            Self::Here(_) | Self::There(_) => None,
            Self::Away(away) => Some(away.due),
            Self::Returned(returned) => Some(returned.due),
            Self::Spent { due, .. } => Some(*due),
        }
    }

    fn is_away(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Returned(_))
    }

    /// Bytes that wait for its client, roughly.
    fn size(&self) -> usize {
        const ITSELF: usize = 512;
        let size = |rooms: &[String], data: Option<&str>| {
            ITSELF
                + rooms.iter().map(|room| room.len() + 32).sum::<usize>()
                + data.map_or(0, str::len)
        };
        match self {
            Self::Here(socket) => socket.ticket.get().map_or(0, |ticket| ticket.resent_size()),
            Self::Away(away) => size(&away.rooms, away.data.as_deref()) + away.ticket.size(),
            Self::Returned(returned) => {
                size(&returned.rooms, returned.data.as_deref()) + returned.queued_size()
            }
            Self::There(_) | Self::Spent { .. } => 0,
        }
    }
}

/// How many may be away. Full: what clients were sent when they came back is forgotten, the oldest
/// first; then who has been away for the longest begins anew.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub sessions: usize,
    pub bytes: usize,
    pub lasts: Duration,
}

/// Invariant: `away` counts the standings of those who are, and `bytes` is the size of all.
pub struct Table {
    /// By the part of a secret that is no secret: finding it must not tell how much was right.
    standings: HashMap<[u8; 12], (Id, Standing)>,
    /// Those with an end, by that; some have changed since.
    ends: VecDeque<(Instant, Id)>,
    /// Sockets that were sent something when they came back, and when they have it for sure.
    resent: VecDeque<(Instant, Id)>,
    away: usize,
    bytes: usize,
    gauge: Arc<Series>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            standings: HashMap::new(),
            ends: VecDeque::new(),
            resent: VecDeque::new(),
            away: 0,
            bytes: 0,
            gauge: metrics::series(&metrics::HUB_AWAY, &[]),
        }
    }
}

impl Table {
    pub fn find(&self, pid: &Id) -> Option<&Standing> {
        let (known, standing) = self.standings.get(&pid.locator())?;
        known.is_same_secret(pid).then_some(standing)
    }

    pub fn take(&mut self, pid: &Id) -> Option<Standing> {
        self.find(pid)?;
        let (_, standing) = self.standings.remove(&pid.locator())?;
        self.count(&standing, -1);
        Some(standing)
    }

    pub fn put(&mut self, pid: Id, standing: Standing) {
        self.count(&standing, 1);
        if let Some(due) = standing.due() {
            self.ends.push_back((due, pid));
        }
        if let Standing::Here(socket) = &standing {
            let ticket = socket.ticket.get().filter(|ticket| ticket.resent_size() > 0);
            self.resent.extend(ticket.map(|ticket| (ticket.proved_at, pid)));
        }
        if let Some((_, before)) = self.standings.insert(pid.locator(), (pid, standing)) {
            self.count(&before, -1);
        }
    }

    /// Who is here.
    pub fn here(&self) -> Vec<Rc<Socket>> {
        let here = self.standings.values().filter_map(|(_, standing)| match standing {
            Standing::Here(socket) => Some(Rc::clone(socket)),
            _ => None,
        });
        here.collect()
    }

    /// How many are away.
    pub fn away(&self) -> usize {
        self.away
    }

    fn count(&mut self, standing: &Standing, by: isize) {
        self.bytes = self.bytes.saturating_add_signed(by * standing.size().cast_signed());
        if standing.is_away() {
            self.away = self.away.saturating_add_signed(by);
            self.gauge.add(by as i64);
        }
    }

    /// Forgets what was sent to those who came back, if they have it or it is too much.
    fn sweep_resent(&mut self, now: Instant, room: &Room) {
        while let Some(&(due, pid)) = self.resent.front() {
            let full = self.bytes > room.bytes || self.resent.len() > 4 * room.sessions;
            if due > now && !full {
                return;
            }
            self.resent.pop_front();
            let Some(Standing::Here(socket)) = self.find(&pid) else { continue };
            // It may have come back again since.
            let ticket = socket.ticket.get().filter(|ticket| ticket.proved_at == due);
            let Some(ticket) = ticket else { continue };
            let size = ticket.resent_size();
            if due <= now {
                ticket.prove();
            } else {
                ticket.lose_track();
            }
            self.bytes -= size;
        }
        self.resent = VecDeque::new();
    }

    /// Ends what is over or too much; returns the secrets that are forgotten for good.
    pub fn sweep(&mut self, now: Instant, room: &Room) -> Vec<Id> {
        self.sweep_resent(now, room);
        let mut forgotten = Vec::new();
        loop {
            // What is spent is remembered for a while, so that its client is told apart.
            let full = self.away > room.sessions || self.bytes > room.bytes;
            let crowded = self.ends.len() > 4 * room.sessions;
            let Some(&(due, pid)) = self.ends.front() else { break };
            if due > now && !full && !crowded {
                break;
            }
            self.ends.pop_front();
            let standing = self.find(&pid).filter(|standing| standing.due() == Some(due));
            let Some(is_spent) =
                standing.map(|standing| matches!(standing, Standing::Spent { .. }))
            else {
                continue;
            };
            drop(self.take(&pid));
            if is_spent || crowded {
                forgotten.push(pid);
            } else {
                let why = if due <= now { Miss::Expired } else { Miss::TooMuch };
                self.put(pid, Standing::Spent { why, due: now + room.lasts });
            }
        }
        if self.ends.is_empty() {
            self.ends = VecDeque::new();
        }
        if self.standings.len() < self.standings.capacity() / 4 {
            self.standings.shrink_to(self.standings.len() * 2);
        }
        forgotten
    }

    pub fn clear(&mut self) {
        self.gauge.add(-(i64::try_from(self.away).unwrap_or_default()));
        (self.away, self.bytes) = (0, 0);
        self.standings = HashMap::new();
        self.ends = VecDeque::new();
        self.resent = VecDeque::new();
    }
}
