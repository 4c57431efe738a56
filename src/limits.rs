//! How much in how long: token buckets on tables of fixed size, and exact counters; pure.
//!
//! Rates may be a little strict with who shares a cell, and their tables never grow. What somebody
//! holds is counted to the one, in a table that is as large as what is held.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So many in a time, and so many at once (the generic cell rate algorithm).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds that one takes.
    each: u64,
    /// How far ahead of the clock one may be: all of a burst but its first.
    ahead: u64,
}

impl Rate {
    /// `count` in each `per`, after at most `burst` at once. Neither 0 nor more than one a nanosecond.
    pub fn new(count: u32, per: Duration, burst: u32) -> Self {
        let each = (nanos(per) / u64::from(count.max(1))).max(1);
        Self::of(each, u64::from(burst.max(1)))
    }

    /// `by` times as many, at once and in the long run.
    pub fn times(self, by: u32) -> Self {
        let by = u64::from(by.max(1));
        Self::of((self.each / by).max(1), self.burst().saturating_mul(by))
    }

    /// How many may come at once.
    fn burst(self) -> u64 {
        (self.ahead / self.each).saturating_add(1)
    }

    fn of(each: u64, burst: u64) -> Self {
        Self { each, ahead: each.saturating_mul(burst - 1) }
    }

    /// How long until one more would pass.
    fn wait(self, due: u64, now: u64) -> Duration {
        Duration::from_nanos(due.saturating_sub(now.saturating_add(self.ahead)))
    }

    /// As many as this or the other gives, at once and in the long run.
    pub fn or(self, other: Self) -> Self {
        Self::of(self.each.min(other.each), self.burst().max(other.burst()))
    }

    /// How long one takes in the long run.
    pub fn each(self) -> Duration {
        Duration::from_nanos(self.each)
    }

    /// When the clock will have caught up with so many more, which are let through; and how long it
    /// takes until the next would be within. If that takes longer than `most` already, the wait alone.
    fn charge(
        self,
        due: u64,
        now: u64,
        many: u64,
        most: Duration,
    ) -> Result<(u64, Duration), Duration> {
        let before = self.wait(due, now);
        if before > most {
            return Err(before);
        }
        let due = due.max(now).saturating_add(self.each.saturating_mul(many));
        Ok((due, self.wait(due, now)))
    }

    /// When the clock will have caught up if one more is let through; `None` if that is too much.
    fn after(self, due: u64, now: u64) -> Option<u64> {
        (due <= now.saturating_add(self.ahead)).then(|| due.max(now).saturating_add(self.each))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What one of many has used of a rate: eight bytes, full at first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    due: u64,
}

impl Bucket {
    /// Takes one, if there is one; `now` is counted from any moment before the first.
    pub fn take(&mut self, rate: Rate, now: Duration) -> bool {
        let after = rate.after(self.due, nanos(now));
        self.due = after.unwrap_or(self.due);
        after.is_some()
    }

    /// Takes so many whether there are so many or not, and says how long to take no more: none, if
    /// there is another one. `Err`, and nothing is taken, if that is longer than `most` already.
    pub fn charge(
        &mut self,
        rate: Rate,
        now: Duration,
        many: u64,
        most: Duration,
    ) -> Result<Duration, Duration> {
        let (due, wait) = rate.charge(self.due, nanos(now), many, most)?;
        self.due = due;
        Ok(wait)
    }

    /// How long until there is one.
    pub fn wait(self, rate: Rate, now: Duration) -> Duration {
        rate.wait(self.due, nanos(now))
    }
}

/// Under which number an address is counted: IPv6 by the /64 that one customer gets at least.
pub fn key_of(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            [a, b, c, d].into_iter().fold(0, |key, segment| key << 16 | u64::from(segment))
        }
    }
}

/// Cells in each of a table's two rows, unless it is made with more: 128 KiB in all.
const CELLS: usize = 8192;
/// As many as the hash tells apart: 1 MiB in all.
const CELLS_MOST: usize = 1 << 16;

/// Two rows of cells; each key has one in each, found by a hash that nobody outside can guess.
///
/// Who shares a cell with others is still told apart by the other one: only a key that meets
/// company in both is taken for more than it is, and never for less.
struct Table {
    hash: RandomState,
    rows: [Box<[AtomicU64]>; 2],
}

impl Table {
    fn new(cells: usize) -> Self {
        let row = || (0..cells).map(|_| AtomicU64::new(0)).collect();
        Self { hash: RandomState::new(), rows: [row(), row()] }
    }

    fn cells(&self, key: u64) -> [&AtomicU64; 2] {
        let hash = self.hash.hash_one(key).to_ne_bytes();
        let [a, b, c, d, ..] = hash;
        let [first, second] = &self.rows;
        let at = |low, high| usize::from(u16::from_ne_bytes([low, high])) % first.len();
        [
            first.get(at(a, b)).expect("a place in the row"),
            second.get(at(c, d)).expect("a place in the row, which is as long"),
        ]
    }
}

/// How many of something each key has: nobody is taken for another, however many there are.
///
/// A key is held for as long as it has any, so what it takes grows with what there is alone.
#[derive(Default)]
pub struct Counters {
    hash: RandomState,
    /// By the key's hash, so that workers seldom wait for each other.
    parts: [Mutex<Counts>; PARTS],
}

type Counts = HashMap<u64, i64>;

const PARTS: usize = 32;

impl Counters {
    /// Counts one more, unless that would be more than `max`.
    pub fn take(&self, key: u64, max: u64) -> bool {
        let mut part = self.part(key);
        let has = part.get(&key).copied().unwrap_or_default();
        let free = u64::try_from(has).unwrap_or_default() < max;
        if free {
            part.insert(key, has.saturating_add(1));
        }
        free
    }

    /// One that was taken is over.
    pub fn give(&self, key: u64) {
        self.adjust(key, -1);
    }

    /// Counts so many more, however many there are, or fewer, which were counted before.
    pub fn adjust(&self, key: u64, by: i64) {
        let mut part = self.part(key);
        let has = part.entry(key).or_default();
        *has = has.saturating_add(by);
        if *has == 0 {
            part.remove(&key);
            let left = part.len();
            if left == 0 || left.is_power_of_two() {
                // What a crowd needed goes when it has left.
                part.shrink_to(left * 2);
            }
        }
    }

    fn part(&self, key: u64) -> MutexGuard<'_, Counts> {
        let [first, ..] = self.hash.hash_one(key).to_ne_bytes();
        let [zeroth, ..] = &self.parts;
        let part = self.parts.get(usize::from(first) % PARTS).unwrap_or(zeroth);
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bucket for each key.
pub struct Buckets(Table);

impl Default for Buckets {
    fn default() -> Self {
        Self(Table::new(CELLS))
    }
}

impl Buckets {
    /// For many keys at once, whose cells stay taken for long. All of them should be counted by one
    /// rate: a cell that a slow one has taken is taken for the others too.
    pub fn large() -> Self {
        Self(Table::new(CELLS_MOST))
    }

    /// True if one of the key's could be taken now.
    pub fn has(&self, key: u64, rate: Rate, now: Duration) -> bool {
        let due = self.0.cells(key).map(|cell| cell.load(Ordering::Relaxed)).into_iter().min();
        rate.after(due.unwrap_or_default(), nanos(now)).is_some()
    }

    /// Takes one of the key's, if there is one. Two that come at the very same time may pass as one.
    pub fn take(&self, key: u64, rate: Rate, now: Duration) -> bool {
        self.ask(key, rate, now).is_ok()
    }

    /// Takes one of the key's as `Bucket::charge` does.
    pub fn charge(
        &self,
        key: u64,
        rate: Rate,
        now: Duration,
        most: Duration,
    ) -> Result<Duration, Duration> {
        let cells = self.0.cells(key);
        let due = cells.map(|cell| cell.load(Ordering::Relaxed)).into_iter().min();
        let (due, wait) = rate.charge(due.unwrap_or_default(), nanos(now), 1, most)?;
        for cell in cells {
            cell.fetch_max(due, Ordering::Relaxed);
        }
        Ok(wait)
    }

    /// As `take`; if there is none it says how long to wait for one.
    pub fn ask(&self, key: u64, rate: Rate, now: Duration) -> Result<(), Duration> {
        let cells = self.0.cells(key);
        let due = cells.map(|cell| cell.load(Ordering::Relaxed)).into_iter().min();
        let (due, now) = (due.unwrap_or_default(), nanos(now));
        let after = rate.after(due, now).ok_or_else(|| rate.wait(due, now))?;
        for cell in cells {
            cell.fetch_max(after, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let rate = Rate::new(10, Duration::from_secs(1), 3);
        let mut bucket = Bucket::default();
        for (at, passes) in [
            (1000, true),
            (1000, true),
            (1000, true),
            (1000, false),
            (1099, false),
            (1100, true),
            (1100, false),
            // What was refused costs nothing.
            (1200, true),
            // A long rest saves up no more than a burst.
            (9000, true),
            (9000, true),
            (9000, true),
            (9000, false),
        ] {
            assert_eq!(bucket.take(rate, ms(at)), passes, "at {at} ms");
        }
    }

    #[test]
    fn extreme_rates() {
        let second = Duration::from_secs(1);
        let mut bucket = Bucket::default();
        let slow = Rate::new(1, Duration::from_secs(3600), u32::MAX);
        assert!((0..1000).all(|_| bucket.take(slow, Duration::ZERO)));
        let never = Rate::new(0, second, 0);
        let mut bucket = Bucket::default();
        assert!(bucket.take(never, Duration::ZERO) && !bucket.take(never, ms(999)));
        let fast = Rate::new(u32::MAX, second, 1);
        let mut bucket = Bucket::default();
        assert!(bucket.take(fast, Duration::ZERO) && bucket.take(fast, Duration::from_nanos(1)));
        assert!(bucket.take(fast, Duration::MAX));
    }

    #[test]
    fn ten_times_as_many() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(50, Duration::from_secs(1), 100));
        let flood = rate.times(10);
        let burst = (0..2000).filter(|_| bucket.take(flood, Duration::ZERO)).count();
        assert_eq!(burst, 1000);
        assert!(bucket.take(flood, ms(2)) && !bucket.take(flood, ms(2)));
    }

    #[test]
    fn the_more_generous_of_two() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        let rate = Rate::new(1, hour, 30).or(Rate::new(10, second, 5));
        let mut bucket = Bucket::default();
        assert!((0..30).all(|_| bucket.take(rate, Duration::ZERO)));
        assert!(!bucket.take(rate, Duration::ZERO));
        assert!(bucket.take(rate, ms(100)));
        assert_eq!(Rate::new(50, second, 9).or(Rate::new(10, second, 5)), Rate::new(50, second, 9));
    }

    #[test]
    fn what_is_taken_in_advance_is_waited_for() {
        let rate = Rate::new(10, Duration::from_secs(1), 3);
        let (mut bucket, shared) = (Bucket::default(), Buckets::default());
        let mut charge = |at, many| bucket.charge(rate, ms(at), many, ms(250));
        assert_eq!([charge(0, 1), charge(0, 1)], [Ok(ms(0)), Ok(ms(0))]);
        // The last one there is, and one and two more than there are.
        assert_eq!([charge(0, 1), charge(0, 1)], [Ok(ms(100)), Ok(ms(200))]);
        assert_eq!(charge(0, 2), Ok(ms(400)));
        // What would have to wait for too long costs nothing.
        assert_eq!([charge(0, 1), charge(100, 1)], [Err(ms(400)), Err(ms(300))]);
        assert_eq!([charge(150, 1), charge(600, 1)], [Ok(ms(350)), Ok(ms(0))]);
        let waits = [0, 0, 0, 0].map(|at| shared.charge(7, rate, ms(at), ms(100)));
        assert_eq!(waits, [Ok(ms(0)), Ok(ms(0)), Ok(ms(100)), Ok(ms(200))]);
        assert_eq!(shared.charge(7, rate, ms(0), ms(100)), Err(ms(200)));
        assert_eq!(shared.charge(8, rate, ms(0), ms(100)), Ok(ms(0)));
    }

    #[test]
    fn addresses_are_counted_by_customer() {
        let key = |text: &str| key_of(text.parse().expect("an address"));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
    }

    #[test]
    fn nobody_is_refused_for_another() {
        // Many more than any table of fixed size tells apart.
        const USERS: u64 = 100_000;
        let counters = Counters::default();
        for user in 0..USERS {
            assert!(counters.take(user, 1), "{user}");
        }
        for user in 0..USERS {
            assert!(!counters.take(user, 1), "{user}");
        }
        (0..USERS).for_each(|user| counters.give(user));
        let held = counters.parts.iter().map(|part| part.lock().unwrap().capacity());
        assert_eq!(held.sum::<usize>(), 0);
        counters.adjust(7, 2);
        assert!(!counters.take(7, 2) && counters.take(7, 3));
        counters.adjust(7, -3);
        assert!(counters.take(7, 1) && !counters.take(7, 1));
    }

    proptest! {
        #[test]
        fn a_bucket_gives_no_more_than_its_rate(
            steps in proptest::collection::vec(0u64..200, 1..200),
            (count, burst) in (1u32..50, 1u32..20),
        ) {
            let rate = Rate::new(count, Duration::from_secs(1), burst);
            let (mut bucket, shared) = (Bucket::default(), Buckets::default());
            // The same in tokens: filled by time up to the burst.
            let (mut now, mut tokens) = (0, f64::from(burst));
            for step in steps {
                now += step;
                let filled = tokens + step as f64 / 1000.0 * f64::from(count);
                tokens = filled.min(f64::from(burst));
                let passes = bucket.take(rate, ms(now));
                let asked = shared.ask(7, rate, ms(now));
                let wait = if passes { None } else { Some(bucket.wait(rate, ms(now))) };
                prop_assert_eq!(asked.err(), wait);
                prop_assert_eq!(passes, asked.is_ok());
                if let Err(wait) = asked {
                    // The next moment is the first one that passes.
                    prop_assert!(bucket.clone().take(rate, ms(now) + wait));
                    let before = ms(now) + wait - Duration::from_nanos(1);
                    prop_assert!(!bucket.clone().take(rate, before));
                }
                // At the very edge the two round differently.
                if (tokens - 1.0).abs() > 1e-6 {
                    prop_assert_eq!(passes, tokens >= 1.0, "{} tokens at {}", tokens, now);
                }
                if passes {
                    tokens -= 1.0;
                }
            }
        }

        /// Whoever rests for as long as it is told sends no more than the rate in the long run.
        #[test]
        fn who_rests_as_told_is_within_its_rate(
            steps in proptest::collection::vec((0u64..60, 1u64..40), 1..200),
            (count, burst) in (1u32..50, 1u32..20),
        ) {
            let rate = Rate::new(count, Duration::from_secs(1), burst);
            let (mut bucket, mut now, mut taken) = (Bucket::default(), Duration::ZERO, 0);
            for (pause, many) in steps {
                let fits = f64::from(burst) + now.as_secs_f64() * f64::from(count);
                prop_assert!((taken as f64) < fits + 1e-3, "{} at {:?}", taken, now);
                let wait = bucket.charge(rate, now, many, Duration::ZERO);
                prop_assert!(wait.is_ok());
                taken += many;
                now += wait.unwrap_or_default() + ms(pause);
            }
        }

        #[test]
        fn counters_count_as_a_map_does(steps in proptest::collection::vec((0u64..40, any::<bool>()), 0..400)) {
            const MAX: u64 = 3;
            let counters = Counters::default();
            let mut model: HashMap<u64, u64> = HashMap::new();
            for (key, more) in steps {
                let has = model.entry(key).or_default();
                if more {
                    prop_assert_eq!(counters.take(key, MAX), *has < MAX);
                    *has = (*has + 1).min(MAX);
                } else if *has > 0 {
                    counters.give(key);
                    *has -= 1;
                }
            }
            for (key, has) in model {
                (0..has).for_each(|_| counters.give(key));
            }
            prop_assert!(counters.parts.iter().all(|part| part.lock().unwrap().is_empty()));
        }
    }
}
