//! Who waits for a store: while it is asked for some, the others gather, and are asked for together.
//!
//! So a crowd that comes at once costs a few statements, and whoever comes alone does not wait.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::identity::{Cause, Denial};
use super::inquiry::Inquiry;
use super::statement::KEYS_MAX;

/// The questions about one provider's sessions. Bounded by the desk's queue and by `PATIENCE`.
#[derive(Default)]
pub struct Line {
    waiting: RefCell<VecDeque<(Inquiry, Instant)>>,
    /// How many work them off.
    at_work: Cell<usize>,
}

/// One that works a line off.
pub struct Place(Rc<Line>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.at_work.set(self.0.at_work.get() - 1);
    }
}

/// Statements under way at once, if the configuration does not want fewer.
const AT_WORK: usize = 8;
/// How many of them are enough until `MANY` wait.
const AT_REST: usize = 2;
const MANY: usize = 32;
/// Questions that wait. Full: the next is answered as temporary at once.
const WAITING: usize = 16_384;
/// How long one waits before it is answered as temporary.
const PATIENCE: Duration = Duration::from_secs(1);

impl Line {
    /// Takes a question; true if somebody more should begin to work.
    pub fn push(&self, inquiry: Inquiry) -> bool {
        let most = AT_WORK.min(inquiry.provider.words.lookups);
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= WAITING {
            inquiry.answer(Err(Denial::Temporary(Cause::Edge, "busy")));
            return false;
        }
        waiting.push_back((inquiry, Instant::now()));
        // Those at work come back soon: more of them would only ask for fewer at once.
        let many = waiting.len() >= MANY;
        let more = self.at_work.get() < if many { most } else { most.min(AT_REST) };
        if more {
            self.at_work.set(self.at_work.get() + 1);
        }
        more
    }

    /// For whoever was wanted by `push`.
    pub fn begin(self: &Rc<Self>) -> Place {
        Place(Rc::clone(self))
    }

    /// Those who have waited longest, of one provider; `None` if nobody waits.
    pub fn next(&self) -> Option<Vec<Inquiry>> {
        let now = Instant::now();
        let mut waiting = self.waiting.borrow_mut();
        while let Some((late, _)) =
            waiting.pop_front_if(|(_, since)| now.duration_since(*since) > PATIENCE)
        {
            late.answer(Err(Denial::Temporary(Cause::Store, "store_slow")));
        }
        let mut batch: Vec<Inquiry> = Vec::new();
        while batch.len() < KEYS_MAX {
            // After a reload there may be questions by the old configuration.
            let same = |(one, _): &mut (Inquiry, Instant)| {
                batch.first().is_none_or(|first| Arc::ptr_eq(&first.provider, &one.provider))
            };
            let Some((one, _)) = waiting.pop_front_if(same) else { break };
            batch.push(one);
        }
        (!batch.is_empty()).then_some(batch)
    }
}
