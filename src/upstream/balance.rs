//! Which of several targets a request goes to; pure.

use crate::config::Balance;

/// What is known of one target when a request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Requests in flight.
    pub load: usize,
    /// False if the target was tried already or is not to be tried.
    pub free: bool,
}

/// The place of the target to take; `turn` goes up by one with each request.
pub fn choose(
    by: Balance,
    candidates: impl Iterator<Item = Candidate> + Clone,
    turn: usize,
) -> Option<usize> {
    let free = candidates.enumerate().filter(|(_, candidate)| candidate.free);
    let count = free.clone().count();
    let turn = turn.checked_rem(count)?;
    // Beginning elsewhere each time, so that equals share.
    let mut in_turn = free.clone().skip(turn).chain(free.take(turn));
    let chosen = match by {
        Balance::Round => in_turn.next(),
        Balance::Least => in_turn.min_by_key(|(_, candidate)| candidate.load),
    };
    chosen.map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each target is its load, or `x`.
    fn check(by: Balance, targets: &str, expected: &[Option<usize>]) {
        let candidates = targets.split(' ').map(|target| match target.parse() {
            Ok(load) => Candidate { load, free: true },
            Err(_) => Candidate { load: 0, free: false },
        });
        let chosen: Vec<_> =
            (0..expected.len()).map(|turn| choose(by, candidates.clone(), turn)).collect();
        assert_eq!(chosen, expected, "{by:?} {targets}");
    }

    #[test]
    fn round_goes_around_those_that_are_free() {
        check(Balance::Round, "9 0 0", &[Some(0), Some(1), Some(2), Some(0)]);
        check(Balance::Round, "0 x 0", &[Some(0), Some(2), Some(0)]);
        check(Balance::Round, "x x", &[None, None]);
    }

    #[test]
    fn least_takes_the_idlest_and_lets_equals_share() {
        check(Balance::Least, "2 1 3", &[Some(1), Some(1), Some(1)]);
        check(Balance::Least, "1 1 1", &[Some(0), Some(1), Some(2), Some(0)]);
        check(Balance::Least, "5 x 1", &[Some(2), Some(2)]);
    }
}
