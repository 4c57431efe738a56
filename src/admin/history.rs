//! What has become of the process since it started: its reloads, upgrades and certificates.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// Something that changed what is in force, or did not.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// Seconds since 1970.
    at: u64,
    what: What,
    installed: bool,
    /// The generation in force after it.
    generation: u64,
    lines: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Start,
    Reload,
    Certificates,
    Upgrade,
}

/// The last events, the newest first; older ones are in the log.
#[derive(Debug, Default)]
pub struct History(RefCell<VecDeque<Event>>);

const KEPT: usize = 50;
/// Of one event.
const LINES: usize = 20;

impl History {
    pub fn note(&self, what: What, installed: bool, generation: u64, lines: &[String]) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut told: Vec<_> = lines.iter().take(LINES).cloned().collect();
        if lines.len() > LINES {
            told.push(format!("and {} more", lines.len() - LINES));
        }
        let event = Event { at: since.as_secs(), what, installed, generation, lines: told };
        let mut events = self.0.borrow_mut();
        events.truncate(KEPT - 1);
        events.push_front(event);
    }

    pub fn told(&self) -> Vec<Event> {
        self.0.borrow().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_long_ones_cut() {
        let history = History::default();
        for generation in 1..=60 {
            history.note(What::Reload, true, generation, &vec!["x".to_owned(); 25]);
        }
        let told = history.told();
        assert_eq!(told.len(), KEPT);
        assert_eq!(told.first().map(|event| event.generation), Some(60));
        let last = told.last().and_then(|event| event.lines.last().cloned());
        assert_eq!(last.as_deref(), Some("and 5 more"));
    }
}
