//! How much one client has sent, against what it may.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::limits::{Bucket, Rate};

use super::rules::{Bounds, Denial};

/// What clients may send.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Events of one, and connects to namespaces: what makes work.
    pub events: Rate,
    /// Packets of any kind. Nobody who means well sends so many.
    pub flood: Rate,
    /// Events of all clients of one user and of one address, in this process.
    pub of_user: Option<Rate>,
    pub of_address: Option<Rate>,
}

/// How long what a client sends too early may have to wait where it is, unread. What comes so much
/// earlier is refused: nobody would wait for its acknowledgement.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Who sends this many times as much as it may is closed: what is read and comes to nothing, since
/// events beyond the rate are not read.
const FLOOD: u32 = 10;
/// What is no packet of ours comes this often in a second from clients that mean well, however few
/// events they may send; and so much of it at once.
const CHATTER: [u32; 2] = [10, 100];

impl Allowance {
    pub fn new(events: Rate) -> Self {
        Self { events, flood: events.times(FLOOD), of_user: None, of_address: None }
    }

    /// Heartbeats that nobody asked for, and what else the engine alone sees.
    pub fn chatter(&self) -> Rate {
        let [count, burst] = CHATTER;
        self.flood.or(Rate::new(count, Duration::from_secs(1), burst))
    }
}

/// What a packet comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Within,
    /// The last for so long: what comes behind it is not to be read before.
    Rest(Duration),
    Over,
    Flood,
}

/// One client's packets.
#[derive(Default)]
pub struct Meter {
    events: Cell<Bucket>,
    packets: Cell<Bucket>,
}

impl Meter {
    /// Counts one packet; `works` if it is one that makes work.
    pub fn count(&self, allowance: &Allowance, now: Duration, works: bool) -> Verdict {
        if !take(&self.packets, allowance.flood, now) {
            return Verdict::Flood;
        }
        if !works {
            return Verdict::Within;
        }
        let rate = allowance.events;
        if rate.each() > PATIENCE {
            return if take(&self.events, rate, now) { Verdict::Within } else { Verdict::Over };
        }
        let mut bucket = self.events.get();
        let charged = bucket.charge(rate, now, 1, PATIENCE);
        self.events.set(bucket);
        match charged {
            Ok(Duration::ZERO) => Verdict::Within,
            Ok(wait) => Verdict::Rest(wait),
            Err(_) => Verdict::Over,
        }
    }

    /// Takes one event that was counted as a packet already, or says how long to wait for it.
    pub fn take_turn(&self, allowance: &Allowance, now: Duration) -> Result<(), Duration> {
        if take(&self.events, allowance.events, now) {
            return Ok(());
        }
        Err(self.events.get().wait(allowance.events, now))
    }
}

fn take(cell: &Cell<Bucket>, rate: Rate, now: Duration) -> bool {
    let mut bucket = cell.get();
    let taken = bucket.take(rate, now);
    cell.set(bucket);
    taken
}

/// One socket's events by rule; empty until a rule with a rate is met.
#[derive(Default)]
pub struct Meters(RefCell<Vec<Bucket>>);

impl Meters {
    /// Counts an event of `size` bytes, unless its rule has enough; the time is asked for if there
    /// is a rate.
    pub fn count(
        &self,
        bounds: Bounds,
        size: usize,
        now: impl FnOnce() -> Duration,
    ) -> Result<(), Denial> {
        if bounds.max.is_some_and(|max| size > max) {
            return Err(Denial::TooLarge);
        }
        let Some((place, rate)) = bounds.rate else { return Ok(()) };
        let mut buckets = self.0.borrow_mut();
        if buckets.len() <= place {
            buckets.resize_with(place + 1, Bucket::default);
        }
        let taken = buckets.get_mut(place).is_some_and(|bucket| bucket.take(rate, now()));
        if taken { Ok(()) } else { Err(Denial::RateLimited) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_too_early_is_waited_for() {
        let allowance = Allowance::new(Rate::new(5, Duration::from_secs(1), 2));
        let (meter, now) = (Meter::default(), Duration::from_secs(1));
        let count = |now, works| meter.count(&allowance, now, works);
        let wait = Verdict::Rest(Duration::from_millis(200));
        assert_eq!([count(now, true), count(now, false)], [Verdict::Within, Verdict::Within]);
        assert_eq!([count(now, true), count(now, false)], [wait, Verdict::Within]);
        // Who rests may go on for ever.
        for step in 1..1000 {
            assert_eq!(count(now + Duration::from_millis(200) * step, true), wait);
        }
    }

    #[test]
    fn over_is_refused_and_far_over_is_a_flood() {
        let second = Duration::from_secs(1);
        let allowance = Allowance::new(Rate::new(1, PATIENCE + second, 2));
        let meter = Meter::default();
        let now = Duration::from_secs(1);
        let count = |works| meter.count(&allowance, now, works);
        assert_eq!(
            [count(true), count(true), count(true)],
            [Verdict::Within, Verdict::Within, Verdict::Over]
        );
        // Twenty packets at once are no flood yet.
        assert!((3..20).all(|_| count(false) == Verdict::Within));
        assert_eq!(count(false), Verdict::Flood);
        assert_eq!(meter.take_turn(&allowance, now), Err(second * 6));
        assert_eq!(meter.take_turn(&allowance, second * 7), Ok(()));
        assert_eq!(meter.count(&allowance, second * 13, true), Verdict::Within);
    }

    #[test]
    fn each_rule_has_its_own() {
        let rate = Rate::new(1, Duration::from_secs(1), 1);
        let bounds = |place, max| Bounds { max, rate: Some((place, rate)) };
        let meters = Meters::default();
        let now = || Duration::from_secs(1);
        assert_eq!(meters.count(Bounds::default(), usize::MAX, now), Ok(()));
        assert_eq!(meters.count(bounds(1, Some(10)), 11, now), Err(Denial::TooLarge));
        assert_eq!(meters.count(bounds(1, Some(10)), 10, now), Ok(()));
        assert_eq!(meters.count(bounds(1, None), 1, now), Err(Denial::RateLimited));
        assert_eq!(meters.count(bounds(0, None), 1, now), Ok(()));
        assert_eq!(meters.count(bounds(1, None), 1, || Duration::from_secs(2)), Ok(()));
    }
}
