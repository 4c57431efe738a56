//! Stops asking an application that does not answer, and looks now and then whether it does.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row before the circuit opens.
const FAILURES: u32 = 20;
/// How long nobody asks then; after it one question shows whether to go on.
const OPEN_FOR: Duration = Duration::from_secs(2);

/// The circuit to one application.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// True if a question may be asked now.
    pub fn admits(&mut self, now: Instant) -> bool {
        match self.open_until {
            Some(until) if now < until => false,
            Some(_) => {
                // This one tries; the others wait for what comes of it.
                self.open_until = Some(now + OPEN_FOR);
                true
            }
            None => true,
        }
    }

    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// True if the circuit opens by this.
    pub fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES {
            return false;
        }
        let opens = self.open_until.is_none();
        self.open_until = Some(now + OPEN_FOR);
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_tries_and_closes() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        for _ in 1..FAILURES {
            assert!(breaker.admits(start));
            assert!(!breaker.failed(start));
        }
        assert!(breaker.failed(start));
        assert!(!breaker.admits(start + OPEN_FOR - Duration::from_millis(1)));
        assert!(breaker.admits(start + OPEN_FOR));
        assert!(!breaker.admits(start + OPEN_FOR), "one at a time");
        breaker.succeeded();
        assert!(breaker.admits(start));
        assert!(!breaker.failed(start), "it counts anew");
    }
}
