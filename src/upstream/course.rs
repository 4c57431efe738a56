//! One request's way among the targets: where it has been, and whether it may go on.

use tokio::time::Instant;

use crate::observe::metrics;

use super::attempt::Outgoing;
use super::error::SendError;

/// What has become of a request so far.
#[derive(Default)]
pub struct Course {
    pub tried: Vec<usize>,
    /// A connection that was used before will do.
    pub kept: bool,
    /// How often targets closed a new connection on it, or were not believed.
    closed: usize,
    unreached: usize,
    /// A target did not answer it in time.
    late: bool,
    /// Until when it may be held, once it was.
    pub until: Option<Instant>,
    /// It went to a target that is down.
    pub hopeless: bool,
    pub last: Option<SendError>,
    /// Why it is sent again, if it is.
    again: Option<&'static str>,
}

/// A request that ends its target is not sent to all others too.
const CLOSED_MAX: usize = 2;
/// Targets whose checks and connections contradict each other are not asked for ever.
const UNREACHED_MAX: usize = 32;

impl Course {
    pub fn begin() -> Self {
        Self { kept: true, ..Self::default() }
    }

    /// Notes what happened at the target of this place; an error if it is the last word.
    pub fn went_wrong(
        &mut self,
        error: SendError,
        place: usize,
        request: &Outgoing,
    ) -> Result<(), SendError> {
        let error = if self.hopeless { error.of_a_target_that_is_down() } else { error };
        let allowed = error.retry().allows(&request.parts.method);
        if !allowed || !request.upload.is_repeatable() {
            return Err(error);
        }
        let reason = match error {
            SendError::Closed { reused: true, .. } => {
                // What else is kept is as old: the next one must be new.
                self.kept = false;
                "stale"
            }
            SendError::Closed { .. } | SendError::Tls { .. } if self.closed >= CLOSED_MAX => {
                return Err(error);
            }
            // A request that is slow by itself is not everywhere slow in turn.
            SendError::HeadDeadline { .. } if self.late => return Err(error),
            SendError::HeadDeadline { .. } => {
                self.late = true;
                self.tried.push(place);
                "late"
            }
            SendError::Closed { .. } | SendError::Tls { .. } => {
                self.closed += 1;
                self.tried.push(place);
                "closed"
            }
            _ if self.unreached >= UNREACHED_MAX => return Err(error),
            _ => {
                self.unreached += 1;
                self.tried.push(place);
                "unreached"
            }
        };
        (self.last, self.again) = (Some(error), Some(reason));
        Ok(())
    }

    /// It is sent; counted if that is not for the first time.
    pub fn goes(&mut self) {
        if let Some(reason) = self.again.take() {
            metrics::count(&metrics::RESENT, reason);
        }
    }

    /// A target that was tried may be tried again.
    pub fn may_go_on(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}
