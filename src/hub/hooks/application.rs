//! What a worker knows of one application that is asked: how much waits for it, and its circuit.
//!
//! Each has its own, so that one which hangs, or is away, is felt by its own site alone.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::observe::metrics::{self, Series};

use super::breaker::Breaker;

/// Questions under way at once. More wait; each waits in its own socket's line.
const UNDER_WAY: usize = 256;
/// The same for farewells, for which nobody waits: they take no place from those who do.
const PARTING: usize = 32;
/// What of those who have left waits to be told, and its bytes. Full: the newest is dropped and
/// counted.
const LEFT: usize = 16_384;
const LEFT_BYTES: usize = 16 << 20;
/// What each takes beside its text.
const ITSELF: usize = 512;

pub struct Application {
    pub under_way: Semaphore,
    pub parting: Semaphore,
    pub breaker: RefCell<Breaker>,
    left: Cell<usize>,
    left_bytes: Cell<usize>,
    waiting: Arc<Series>,
}

impl Default for Application {
    fn default() -> Self {
        Self {
            under_way: Semaphore::new(UNDER_WAY),
            parting: Semaphore::new(PARTING),
            breaker: RefCell::default(),
            left: Cell::new(0),
            left_bytes: Cell::new(0),
            waiting: metrics::series(&metrics::HOOKS_WAITING, &[]),
        }
    }
}

impl Application {
    /// Room for what somebody has left behind, unless too much waits already. One thing alone may
    /// have any size.
    pub fn seat(self: &Rc<Self>, bytes: usize) -> Option<Seat> {
        let bytes = bytes + ITSELF;
        let (count, sum) = (self.left.get() + 1, self.left_bytes.get() + bytes);
        if count > 1 && (count > LEFT || sum > LEFT_BYTES) {
            return None;
        }
        self.left.set(count);
        self.left_bytes.set(sum);
        self.waiting.increment();
        Some(Seat { application: Rc::clone(self), bytes })
    }
}

/// Room that is given back with a drop.
pub struct Seat {
    application: Rc<Application>,
    bytes: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Self { application, bytes } = self;
        application.left.set(application.left.get() - 1);
        application.left_bytes.set(application.left_bytes.get() - *bytes);
        application.waiting.decrement();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_by_count_and_by_bytes() {
        let application = Rc::new(Application::default());
        let seats: Vec<_> = (0..LEFT).map_while(|_| application.seat(0)).collect();
        assert_eq!(seats.len(), LEFT);
        assert!(application.seat(0).is_none(), "one too many");
        drop(seats);
        let large = application.seat(LEFT_BYTES * 2).expect("alone it may have any size");
        assert!(application.seat(0).is_none(), "a byte too many");
        drop(large);
        let most = application.seat(LEFT_BYTES - 2 * ITSELF).expect("room");
        assert!(application.seat(1).is_none(), "a byte too many");
        let last = application.seat(0).expect("no byte too many");
        drop((most, last));
        assert_eq!((application.left.get(), application.left_bytes.get()), (0, 0));
    }
}
