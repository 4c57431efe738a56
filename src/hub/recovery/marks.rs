//! Where two processes that hear the same Redis agree what was heard: at a mark, which the new one
//! sends there, and both hear in its place among everything else.
//!
//! A claim leaves for the old process when its mark was heard here; there it waits until it was heard
//! there as well. So what the old one answers up to the mark, and what the new one has in its log
//! behind it, is everything, once.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::claim::Letter;

/// Marks whose place is known. More than are under way at once: one is sent when the last is heard.
const KNOWN_MAX: usize = 1024;
/// Letters that wait for a mark. Full: the oldest goes, and its client begins anew.
const WAITING_MAX: usize = 16_384;
/// A mark that was not heard for so long was lost with a connection.
const LOST_AFTER: Duration = Duration::from_secs(1);

pub struct Marks {
    /// The last one. They begin anywhere: no other worker's are the same, nor another process's, which
    /// are known here as well.
    last: u64,
    /// Where each stands among what came over Redis.
    known: VecDeque<(u64, u64)>,
    /// What waits for a mark that the other process has sent, or has answered up to.
    waiting: VecDeque<(u64, Letter)>,
    /// The mark that is under way.
    sent: Option<(u64, Instant)>,
    /// Claims that go with it, and those that came too late for it: what their clients have may be
    /// behind it.
    with: Vec<(usize, Letter)>,
    next: Vec<(usize, Letter)>,
}

impl Marks {
    pub fn new(random: [u8; 8]) -> Self {
        Self {
            last: u64::from_be_bytes(random),
            known: VecDeque::new(),
            waiting: VecDeque::new(),
            sent: None,
            with: Vec::new(),
            next: Vec::new(),
        }
    }

    /// Keeps a claim until a mark was heard; returns one that is to be sent.
    pub fn ask(&mut self, to: usize, claim: Letter, now: Instant) -> Option<u64> {
        self.next.push((to, claim));
        match self.sent {
            Some((_, at)) if now.saturating_duration_since(at) < LOST_AFTER => None,
            _ => self.send(now),
        }
    }

    fn send(&mut self, now: Instant) -> Option<u64> {
        self.with.append(&mut self.next);
        let surplus = self.with.len().saturating_sub(WAITING_MAX);
        self.with.drain(..surplus);
        self.sent = None;
        if self.with.is_empty() {
            return None;
        }
        self.last = self.last.wrapping_add(1);
        self.sent = Some((self.last, now));
        Some(self.last)
    }

    /// A mark was heard behind this number. Returns the claims that go with it, and the next mark, if
    /// there is to be one.
    pub fn heard(&mut self, mark: u64, number: u64) -> (Vec<(usize, Letter)>, Option<u64>) {
        self.known.push_back((mark, number));
        let surplus = self.known.len().saturating_sub(KNOWN_MAX);
        self.known.drain(..surplus);
        if self.sent.is_none_or(|(sent, _)| sent != mark) {
            return (Vec::new(), None);
        }
        let mut with = std::mem::take(&mut self.with);
        for (_, letter) in &mut with {
            if let Letter::Claim { claim, .. } = letter {
                claim.mark = Some(mark);
            }
        }
        (with, self.send(Instant::now()))
    }

    pub fn number(&self, mark: u64) -> Option<u64> {
        let mut known = self.known.iter().rev();
        known.find(|(known, _)| *known == mark).map(|(_, number)| *number)
    }

    /// The letter, unless it waits for a mark that was not heard here.
    pub fn pass(&mut self, letter: Letter) -> Option<Letter> {
        let mark = match &letter {
            Letter::Claim { claim, .. } => claim.mark,
            Letter::Answer { answer: Ok(returned), .. } => returned.mark,
            _ => None,
        };
        let Some(mark) = mark.filter(|mark| self.number(*mark).is_none()) else {
            return Some(letter);
        };
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back((mark, letter));
        None
    }

    /// What has waited for this one.
    pub fn take(&mut self, mark: u64) -> Vec<Letter> {
        let all = std::mem::take(&mut self.waiting);
        let (ready, waiting): (VecDeque<_>, _) =
            all.into_iter().partition(|(wanted, _)| *wanted == mark);
        self.waiting = waiting;
        ready.into_iter().map(|(_, letter)| letter).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::hub::engine::Id;
    use crate::hub::handover::FAR_ANY;

    use super::super::claim::Claim;
    use super::*;

    fn claim(number: u64, mark: Option<u64>) -> Letter {
        let pid = Id::parse("aB-1aaaaaaaaaaaaaaaa").expect("an id");
        let claim = Claim { pid, namespace: "/".into(), user: None, offset: None, mark };
        Letter::Claim { claim, from: 0, number }
    }

    fn numbers(letters: &[(usize, Letter)]) -> Vec<(u64, Option<u64>)> {
        let told = letters.iter().filter_map(|(_, letter)| match letter {
            Letter::Claim { claim, number, .. } => Some((*number, claim.mark)),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn claims_go_with_a_mark_that_was_sent_after_they_came() {
        let (mut marks, now) = (Marks::new([7; 8]), Instant::now());
        let first = marks.ask(FAR_ANY, claim(1, None), now).expect("a mark");
        assert_eq!(marks.ask(FAR_ANY, claim(2, None), now), None, "one is under way");
        assert_eq!(marks.ask(FAR_ANY, claim(3, None), now), None);
        let (sent, second) = marks.heard(first, 40);
        assert_eq!(numbers(&sent), [(1, Some(first))]);
        let second = second.expect("those that came later");
        assert_ne!(first, second);
        // Another worker's is known, too.
        assert_eq!(numbers(&marks.heard(7, 41).0), []);
        let (sent, third) = marks.heard(second, 42);
        assert_eq!(numbers(&sent), [(2, Some(second)), (3, Some(second))]);
        assert_eq!((third, marks.number(first), marks.number(7)), (None, Some(40), Some(41)));
    }

    #[test]
    fn a_mark_that_is_lost_is_sent_again_for_all() {
        let (mut marks, now) = (Marks::new([0; 8]), Instant::now());
        let lost = marks.ask(FAR_ANY, claim(1, None), now).expect("a mark");
        let again = marks.ask(FAR_ANY, claim(2, None), now + LOST_AFTER).expect("a mark");
        assert_eq!(numbers(&marks.heard(lost, 1).0), [], "too late: it may be before the second");
        assert_eq!(numbers(&marks.heard(again, 2).0), [(1, Some(again)), (2, Some(again))]);
    }

    #[test]
    fn letters_wait_for_their_mark() {
        let mut marks = Marks::new([0; 8]);
        assert!(marks.pass(claim(1, None)).is_some());
        assert!(marks.pass(claim(2, Some(9))).is_none() && marks.pass(claim(3, Some(8))).is_none());
        marks.heard(9, 5);
        assert_eq!(marks.take(9).len(), 1);
        assert!(marks.pass(claim(4, Some(9))).is_some(), "it is known now");
        assert_eq!((marks.take(9).len(), marks.take(8).len()), (0, 1));
    }
}
