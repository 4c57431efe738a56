//! Which number the messages of which worker have here, also those of other processes.

use std::sync::{Mutex, PoisonError};

use crate::hub::engine::Node;
use crate::hub::recovery::{Offset, Stamp};

use super::frame::Place;

/// Workers of this process have their own numbers; those of others come behind them, in the order in
/// which they were met.
pub struct Origins {
    node: Node,
    workers: usize,
    /// Full at 256 in all: who needs more begins anew.
    others: Mutex<Vec<(Node, u8)>>,
}

impl Origins {
    pub fn new(node: Node, workers: usize) -> Self {
        Self { node, workers, others: Mutex::default() }
    }

    /// The one between is that of what comes over Redis, which each process numbers for itself.
    fn first(&self) -> usize {
        self.workers + 1
    }

    /// True for what came over Redis, to this process.
    pub fn is_shared(&self, stamp: Stamp) -> bool {
        usize::from(stamp.origin) == self.workers
    }

    /// The stamp as this process says it, if it has met its origin.
    pub fn known(&self, place: Place) -> Option<Stamp> {
        let Place { node, worker, number } = place;
        let index = if node == self.node {
            usize::from(worker)
        } else {
            let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            let found = others.iter().position(|other| *other == (node, worker));
            self.first() + found?
        };
        Some(Stamp { origin: u8::try_from(index).ok()?, number })
    }

    /// The same for one that it meets now; `None` if there are too many.
    pub fn meet(&self, place: Place) -> Option<Stamp> {
        if let Some(stamp) = self.known(place) {
            return Some(stamp);
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = u8::try_from(self.first() + others.len()).ok()?;
        others.push((place.node, place.worker));
        Some(Stamp { origin, number: place.number })
    }

    /// The other way.
    pub fn place(&self, stamp: Stamp) -> Option<Place> {
        let Stamp { origin, number } = stamp;
        if usize::from(origin) <= self.workers {
            return Some(Place { node: self.node, worker: origin, number });
        }
        let index = usize::from(origin).checked_sub(self.first())?;
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let (node, worker) = *others.get(index)?;
        Some(Place { node, worker, number })
    }

    /// What a client says it has.
    pub fn of_offset(&self, offset: Offset) -> Option<Stamp> {
        let Offset { node, stamp: Stamp { origin: worker, number } } = offset;
        self.known(Place { node, worker, number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_numbered_as_they_are_met() {
        let node = |text| Node::parse(text).expect("a node");
        let origins = Origins::new(node("own"), 2);
        let at = |text, worker, number| Place { node: node(text), worker, number };
        assert_eq!(origins.known(at("own", 1, 5)), Some(Stamp { origin: 1, number: 5 }));
        assert_eq!(origins.known(at("old", 0, 5)), None);
        assert_eq!(origins.meet(at("old", 1, 5)), Some(Stamp { origin: 3, number: 5 }));
        assert_eq!(origins.meet(at("old", 0, 6)), Some(Stamp { origin: 4, number: 6 }));
        assert_eq!(origins.meet(at("old", 1, 9)), Some(Stamp { origin: 3, number: 9 }));
        assert_eq!(origins.place(Stamp { origin: 4, number: 6 }), Some(at("old", 0, 6)));
        assert_eq!(origins.place(Stamp { origin: 0, number: 1 }), Some(at("own", 0, 1)));
        let shared = Stamp { origin: 2, number: 1 };
        assert_eq!(origins.place(shared), Some(at("own", 2, 1)), "what comes over Redis");
        assert!(origins.is_shared(shared) && !origins.is_shared(Stamp { origin: 3, number: 1 }));
        for worker in 0..=255 {
            origins.meet(at("oth", worker, 1));
        }
        assert_eq!(origins.meet(at("new", 0, 1)), None, "full");
    }
}
