//! All deadlines of a worker's sessions, without a timer for each.
//!
//! The deadlines of one kind last equally long, so each kind is a line: new ones join at its end,
//! due ones leave at its front. A deadline that no longer holds stays, and is passed over.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::Key;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The server's next ping (protocol 4).
    Ping,
    /// The client's pong to it.
    Pong,
    /// The client's next ping (protocol 3).
    Silence,
    /// The answers to the requests that hold up an upgrade.
    Noop,
    /// The layer above must have settled what the session is for.
    Settle,
    /// The end of a session that is closing.
    Linger,
    /// The layer above wants to look at the session again.
    Reminder,
}

const KINDS: [Kind; 7] =
    [Kind::Ping, Kind::Pong, Kind::Silence, Kind::Noop, Kind::Settle, Kind::Linger, Kind::Reminder];

/// One deadline. It holds only while the session's number for it is still `serial`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    pub due: Instant,
    pub key: Key,
    pub serial: u32,
}

#[derive(Default)]
pub struct Timers {
    lines: [VecDeque<Deadline>; KINDS.len()],
}

impl Timers {
    /// True if it is due before all others.
    pub fn add(&mut self, kind: Kind, deadline: Deadline) -> bool {
        let earliest = self.next_due(Duration::ZERO).is_none_or(|next| deadline.due < next);
        let Some(line) = self.lines.get_mut(kind as usize) else { return false };
        // After a reload new deadlines may be shorter than those that wait.
        let after = line.iter().rev().take_while(|waiting| waiting.due > deadline.due).count();
        line.insert(line.len() - after, deadline);
        earliest
    }

    /// When the next is to be met. Pings wait for company, `grain` at most: a crowd's are sent,
    /// and its pongs read, many at a time.
    pub fn next_due(&self, grain: Duration) -> Option<Instant> {
        let first = KINDS.iter().zip(&self.lines).filter_map(|(kind, line)| {
            let due = line.front()?.due;
            Some(if *kind == Kind::Ping { due + grain } else { due })
        });
        first.min()
    }

    /// Forgets the deadlines of whom `holds` does not know.
    pub fn retain(&mut self, holds: impl Fn(Key) -> bool) {
        for line in &mut self.lines {
            line.retain(|deadline| holds(deadline.key));
            line.shrink_to(line.len() * 2);
        }
    }

    /// Takes one that is due.
    pub fn take_due(&mut self, now: Instant) -> Option<(Kind, Deadline)> {
        for (kind, line) in KINDS.iter().zip(&mut self.lines) {
            if line.front().is_some_and(|deadline| deadline.due <= now) {
                let deadline = line.pop_front()?;
                // What a crowd needed is given back when it has gone.
                if line.capacity() > 64 && line.len() < line.capacity() / 4 {
                    line.shrink_to(line.len() * 2);
                }
                return Some((*kind, deadline));
            }
        }
        None
    }
}

/// How late a ping may be.
pub fn grain(ping_interval: Duration) -> Duration {
    ping_interval / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_out_in_order_also_when_they_get_shorter() {
        let mut timers = Timers::default();
        let start = Instant::now();
        let at = |ms| Deadline {
            due: start + Duration::from_millis(ms),
            key: Key::default(),
            serial: 0,
        };
        assert!(timers.add(Kind::Ping, at(100)));
        assert!(!timers.add(Kind::Ping, at(200)));
        assert!(!timers.add(Kind::Ping, at(150)));
        assert!(timers.add(Kind::Noop, at(50)));
        let mut out = Vec::new();
        while let Some(due) = timers.next_due(Duration::ZERO) {
            assert_eq!(timers.take_due(due - Duration::from_millis(1)), None);
            let (kind, deadline) = timers.take_due(due).expect("one is due");
            out.push((kind, (deadline.due - start).as_millis()));
        }
        assert_eq!(
            out,
            [(Kind::Noop, 50), (Kind::Ping, 100), (Kind::Ping, 150), (Kind::Ping, 200)]
        );
    }
}
