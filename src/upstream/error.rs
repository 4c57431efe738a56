//! Why a request got no response, and whether it may be sent again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::exchange::BodyError;

use super::http1::BadResponse;

/// What happened, with which target.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("there is no target")]
    NoTarget,
    #[error("{target} is down")]
    Down { target: Arc<str>, source: io::Error },
    #[error("no target has room for one more request")]
    Busy,
    #[error("no target was up within {after:?}")]
    HeldDown { after: Duration },
    #[error("no target had room for one more request within {after:?}")]
    HeldBusy { after: Duration },
    #[error("too many requests wait for a target already")]
    HoldFull,
    #[error("{target} refused the connection")]
    Refused { target: Arc<str>, source: io::Error },
    #[error("{target} took no connection within {after:?}")]
    ConnectDeadline { target: Arc<str>, after: Duration },
    #[error("{target} is not believed, or does not believe us: {source}")]
    Tls { target: Arc<str>, source: io::Error },
    #[error("no socket could be had for {target}")]
    NoSocket { target: Arc<str>, source: io::Error },
    /// `unsent` is true when not a byte of the request was taken.
    #[error("{target} closed the connection before it answered")]
    Closed { target: Arc<str>, reused: bool, unsent: bool },
    #[error("{target} closed the connection within its answer's head")]
    Cut { target: Arc<str> },
    #[error("{target} sent no response: {what}")]
    BadResponse { target: Arc<str>, what: BadResponse },
    /// `silent` is true when not even an interim response came.
    #[error("{target} did not answer within {after:?}")]
    HeadDeadline { target: Arc<str>, after: Duration, silent: bool },
    #[error("{target} took nothing of the body for {after:?}")]
    UploadDeadline { target: Arc<str>, after: Duration },
    #[error("the request's body: {source}")]
    Body { source: BodyError },
}

/// Whether a failed request may be sent a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    Never,
    /// The target may have begun to act on it.
    IfIdempotent,
    /// The target never had it.
    Always,
}

impl SendError {
    pub fn retry(&self) -> Retry {
        match self {
            Self::Refused { .. } | Self::ConnectDeadline { .. } | Self::Down { .. } => {
                Retry::Always
            }
            Self::Tls { .. } | Self::Closed { unsent: true, .. } => Retry::Always,
            Self::Closed { .. } | Self::HeadDeadline { silent: true, .. } => Retry::IfIdempotent,
            _ => Retry::Never,
        }
    }

    /// What happened has something to do with the target's health, but does not prove it down.
    pub(super) fn is_failure(&self) -> bool {
        match self {
            Self::Closed { reused, .. } => !reused,
            Self::Cut { .. } | Self::BadResponse { .. } | Self::Tls { .. } => true,
            Self::HeadDeadline { .. } | Self::UploadDeadline { .. } => true,
            _ => false,
        }
    }

    /// The same from a target that was known to be down before it was asked.
    pub(super) fn of_a_target_that_is_down(self) -> Self {
        match self {
            Self::Refused { target, source } => Self::Down { target, source },
            Self::ConnectDeadline { target, .. } => {
                Self::Down { target, source: io::ErrorKind::TimedOut.into() }
            }
            other => other,
        }
    }
}

impl Retry {
    /// True if a request with this method may be sent again (RFC 9110 §9.2.2).
    pub fn allows(self, method: &Method) -> bool {
        match self {
            Self::Never => false,
            Self::IfIdempotent => method.is_idempotent(),
            Self::Always => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_done_twice_is_sent_twice() {
        let target: Arc<str> = "http://a".into();
        let closed =
            |reused, unsent| SendError::Closed { target: Arc::clone(&target), reused, unsent };
        let refused =
            SendError::Refused { target: Arc::clone(&target), source: io::Error::other("x") };
        let after = Duration::ZERO;
        let late = |silent| SendError::HeadDeadline { target: Arc::clone(&target), after, silent };
        for (error, get, post) in [
            (refused, true, true),
            (closed(true, true), true, true),
            (closed(true, false), true, false),
            (closed(false, true), true, true),
            (closed(false, false), true, false),
            (SendError::Cut { target: Arc::clone(&target) }, false, false),
            (late(true), true, false),
            (late(false), false, false),
            (SendError::UploadDeadline { target: Arc::clone(&target), after }, false, false),
        ] {
            let allowed = (error.retry().allows(&Method::GET), error.retry().allows(&Method::POST));
            assert_eq!(allowed, (get, post), "{error:?}");
        }
    }
}
