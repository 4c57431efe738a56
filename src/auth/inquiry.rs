//! What a worker asks the desk, and what it is answered.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::exchange::Client;
use crate::observe::metrics;

use super::identity::{Denial, Identity};
use super::passwords::Attempt;
use super::provider::{Provider, Question};

/// A question of a worker's.
pub enum Ask {
    Session(Box<Inquiry>),
    Password(Box<Attempt>),
}

/// About what somebody has shown.
pub struct Inquiry {
    pub provider: Arc<Provider>,
    pub question: Question,
    /// Whom the application is told of, where it is asked.
    pub client: Client,
    pub reply: oneshot::Sender<Verdict>,
}

pub type Verdict = Result<Identity, Denial>;

impl Inquiry {
    pub fn answer(self, verdict: Verdict) {
        metrics::count(&metrics::AUTH_LOOKUPS, word(&verdict));
        // Its client may have gone.
        let _told = self.reply.send(verdict);
    }

    /// The row's key, if it is about one.
    pub fn row_id(&self) -> Option<String> {
        match &self.question {
            Question::Row(key) => Some(key.id.clone()),
            _ => None,
        }
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Ok(_) => "valid",
        Err(Denial::Missing | Denial::Refused(_)) => "refused",
        Err(Denial::Temporary(..)) => "temporary",
        Err(Denial::Misconfigured(_)) => "misconfigured",
    }
}
