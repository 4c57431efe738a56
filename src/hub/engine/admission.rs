//! Who may open another session: how many an address has, how fast they come, how full we are.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{Buckets, Counters, Rate, key_of};

use super::request::Refusal;

/// What one address may take; nothing is refused by default.
#[derive(Debug, Clone)]
pub struct Bounds {
    pub sessions: u64,
    /// Sessions that the layer above has not settled yet.
    pub pending: u64,
    pub handshakes: Rate,
}

impl Default for Bounds {
    fn default() -> Self {
        let handshakes = Rate::new(u32::MAX, Duration::from_secs(1), u32::MAX);
        Self { sessions: u64::MAX, pending: u64::MAX, handshakes }
    }
}

/// What all addresses have, in the whole process.
pub struct Admission {
    started: Instant,
    open: Counters,
    pending: Counters,
    came: Buckets,
    strained: AtomicBool,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            open: Counters::default(),
            pending: Counters::default(),
            came: Buckets::default(),
            strained: AtomicBool::new(false),
        }
    }
}

impl Admission {
    /// While it is so, nobody new comes in.
    pub fn set_strained(&self, strained: bool) {
        self.strained.store(strained, Ordering::Relaxed);
    }

    /// A place for one more session of `address`.
    pub fn admit(self: &Arc<Self>, address: IpAddr, bounds: &Bounds) -> Result<Seat, Refusal> {
        if self.strained.load(Ordering::Relaxed) {
            return Err(Refusal::Strained);
        }
        let key = key_of(address);
        if !self.came.take(key, bounds.handshakes, self.started.elapsed()) {
            return Err(Refusal::TooManyHandshakes);
        }
        if !self.open.take(key, bounds.sessions) {
            return Err(Refusal::TooManySessions);
        }
        if !self.pending.take(key, bounds.pending) {
            self.open.give(key);
            return Err(Refusal::TooManyPending);
        }
        let admission = Arc::clone(self);
        Ok(Seat { admission, key, open: Cell::new(true), pending: Cell::new(true) })
    }
}

/// One session's place; given back when it is over, or never began.
pub struct Seat {
    admission: Arc<Admission>,
    key: u64,
    open: Cell<bool>,
    pending: Cell<bool>,
}

impl Seat {
    /// The session is over, though its memory may be needed for a moment more.
    pub fn leave(&self) {
        self.settle();
        if self.open.replace(false) {
            self.admission.open.give(self.key);
        }
    }

    /// The session is not over, and nobody has found a use for it yet.
    pub fn is_pending(&self) -> bool {
        self.pending.get()
    }

    /// The layer above has found a use for the session.
    pub fn settle(&self) {
        if self.pending.replace(false) {
            self.admission.pending.give(self.key);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let admission = Arc::new(Admission::default());
        let address = IpAddr::from([10, 0, 0, 1]);
        let bounds = Bounds { sessions: 3, pending: 2, ..Bounds::default() };
        let admit = || admission.admit(address, &bounds);
        let (first, second) = (admit().ok().unwrap(), admit().ok().unwrap());
        assert_eq!(admit().err(), Some(Refusal::TooManyPending));
        first.settle();
        first.settle();
        let third = admit().ok().unwrap();
        third.settle();
        assert_eq!(admit().err(), Some(Refusal::TooManySessions));
        assert!(admission.admit([10, 0, 0, 2].into(), &bounds).is_ok());
        third.leave();
        drop((first, second, third));
        let again: Vec<_> = (0..2).map(|_| admit().ok().unwrap()).collect();
        assert_eq!(admit().err(), Some(Refusal::TooManyPending));
        drop(again);
        admission.set_strained(true);
        assert_eq!(admit().err(), Some(Refusal::Strained));
    }

    #[test]
    fn they_come_at_their_rate() {
        let admission = Arc::new(Admission::default());
        let handshakes = Rate::new(1, Duration::from_secs(3600), 5);
        let bounds = Bounds { handshakes, ..Bounds::default() };
        let admitted = (0..9).filter(|_| admission.admit([10, 0, 0, 1].into(), &bounds).is_ok());
        assert_eq!(admitted.count(), 5);
        let refused = admission.admit([10, 0, 0, 1].into(), &bounds).err();
        assert_eq!(refused, Some(Refusal::TooManyHandshakes));
        assert!(admission.admit([10, 0, 0, 2].into(), &bounds).is_ok());
    }
}
