//! What the application will not hear of those who have left: counted, and told to the log.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::observe::metrics;

/// At most one line of the log in this time.
const PAUSE: Duration = Duration::from_secs(10);

/// Why something is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Too much waits already.
    Full,
    /// An event of somebody who has left, behind another that was not answered.
    Unanswered,
    /// The process ends.
    Stopped,
    /// Nobody is asked any more.
    Unconfigured,
}

impl Loss {
    fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Unanswered => "unanswered",
            Self::Stopped => "stopped",
            Self::Unconfigured => "unconfigured",
        }
    }
}

#[derive(Default)]
pub struct Losses {
    said: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

impl Losses {
    pub fn add(&self, loss: Loss) {
        metrics::count(&metrics::HOOKS_LOST, loss.word());
        let (now, lost) = (Instant::now(), self.unsaid.get() + 1);
        if self.said.get().is_some_and(|said| now.duration_since(said) < PAUSE) {
            return self.unsaid.set(lost);
        }
        self.unsaid.set(0);
        self.said.set(Some(now));
        let reason = loss.word();
        warn!(reason, lost, "the application will not hear of somebody who has left");
    }
}
