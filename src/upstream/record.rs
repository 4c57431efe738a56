//! What a target did to the requests that it got: passed over while it fails, longer each time;
//! and how much of its share one that has come back gets; pure.
//!
//! Times are milliseconds on one clock that all workers share; 0 is never.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::config::Eject;

/// Shared by all workers. Two that count at once may lose one count, which does no harm.
#[derive(Debug, Default)]
pub struct Record {
    /// In a row.
    failures: AtomicUsize,
    /// Connections in a row that it was too slow to take.
    unreached: AtomicUsize,
    /// How often it was passed over without having recovered in between.
    times: AtomicUsize,
    until: AtomicU64,
    /// Since when it gets requests again.
    since: AtomicU64,
}

/// The least share of a target that comes back: enough to show what it is worth.
const LEAST: f64 = 0.1;

impl Record {
    /// A request failed; returns for how long the target is passed over now.
    pub fn failed(&self, rule: &Eject, now: u64) -> Option<Duration> {
        let failures = self.failures.load(Ordering::Relaxed).saturating_add(1);
        self.failures.store(failures, Ordering::Relaxed);
        if failures < rule.after || self.is_out(now) {
            return None;
        }
        let times = self.times.load(Ordering::Relaxed);
        self.times.store(times.saturating_add(1), Ordering::Relaxed);
        let doubled = 1_u32.checked_shl(u32::try_from(times).unwrap_or(u32::MAX));
        let lasts = rule.lasts.saturating_mul(doubled.unwrap_or(u32::MAX)).min(rule.most);
        let until = now.saturating_add(millis(lasts));
        self.until.store(until, Ordering::Relaxed);
        self.since.store(until, Ordering::Relaxed);
        // The first failure after that is one too many.
        self.failures.store(rule.after.saturating_sub(1), Ordering::Relaxed);
        Some(lasts)
    }

    /// A request was answered. Long enough after the last failure all is forgiven.
    pub fn succeeded(&self, now: impl Fn() -> u64) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.times.load(Ordering::Relaxed) > 0 {
            let until = self.until.load(Ordering::Relaxed);
            if now() > until.saturating_add(FORGIVEN_AFTER) {
                self.times.store(0, Ordering::Relaxed);
            }
        }
    }

    /// It took a connection.
    pub fn reached(&self) {
        self.unreached.store(0, Ordering::Relaxed);
    }

    /// It was too slow to take one; returns how often in a row.
    pub fn unreached(&self) -> usize {
        self.unreached.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// It was down and is up.
    pub fn returned(&self, now: u64) {
        self.failures.store(0, Ordering::Relaxed);
        self.unreached.store(0, Ordering::Relaxed);
        self.until.store(0, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
    }

    pub fn is_out(&self, now: u64) -> bool {
        now < self.until.load(Ordering::Relaxed)
    }

    /// Which part of its share it gets, above 0 and up to 1.
    #[expect(clippy::cast_precision_loss, reason = "no process runs for so long")]
    pub fn weight(&self, over: Duration, now: u64) -> f64 {
        let since = self.since.load(Ordering::Relaxed);
        if since == 0 || over.is_zero() {
            return 1.0;
        }
        (now.saturating_sub(since) as f64 / millis(over) as f64).clamp(LEAST, 1.0)
    }
}

/// Milliseconds of good answers after which the next time is a first one.
const FORGIVEN_AFTER: u64 = 60_000;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Eject = Eject {
        after: 3,
        lasts: Duration::from_secs(1),
        most: Duration::from_secs(5),
        statuses: Vec::new(),
    };

    #[test]
    fn failures_in_a_row_take_it_out_and_longer_each_time() {
        let record = Record::default();
        let fail = |now| record.failed(&RULE, now).map(|lasts| lasts.as_secs());
        assert_eq!((fail(10), fail(10)), (None, None));
        record.succeeded(|| 10);
        assert_eq!((fail(10), fail(10), fail(10)), (None, None, Some(1)));
        // What was under way when it went out says nothing new.
        assert_eq!((record.is_out(1009), fail(500), record.is_out(1010)), (true, None, false));
        // Back again, it has one chance.
        assert_eq!((fail(1010), fail(3010), fail(7010)), (Some(2), Some(4), Some(5)));
        // A good answer gives it all chances, but it is remembered for a while.
        record.succeeded(|| 12_500);
        assert_eq!((fail(12_500), fail(12_500), fail(12_500)), (None, None, Some(5)));
        record.succeeded(|| 17_500 + FORGIVEN_AFTER + 1);
        let late = 17_500 + FORGIVEN_AFTER + 1;
        assert_eq!((fail(late), fail(late), fail(late)), (None, None, Some(1)));
    }

    #[test]
    fn a_share_grows_from_a_tenth_to_a_whole() {
        let record = Record::default();
        let over = Duration::from_secs(10);
        let check = |now, share: f64| {
            let weight = record.weight(over, now);
            assert!((weight - share).abs() < 0.001, "{now}: {weight}");
        };
        check(5, 1.0);
        record.returned(1000);
        check(1000, 0.1);
        check(6000, 0.5);
        check(11_000, 1.0);
        assert!((record.weight(Duration::ZERO, 1000) - 1.0).abs() < 0.001);
        // After a time out it begins anew.
        assert_eq!((0..3).filter_map(|_| record.failed(&RULE, 20_000)).count(), 1);
        check(21_000, 0.1);
        check(26_000, 0.5);
        record.returned(30_000);
        assert!(!record.is_out(30_000));
    }
}
