//! What checks in a row say about a target; pure.

use crate::config::Health;

/// What one check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    Good,
    Bad,
    /// Nobody listens: one is enough.
    Gone,
    /// The check could not be made: nothing that the target did.
    Unknown,
}

/// The last checks of one target.
#[derive(Debug, Default)]
pub struct Streak {
    good: usize,
    bad: usize,
    /// False until the first finding, which decides alone.
    begun: bool,
    /// What was said last.
    up: bool,
}

impl Streak {
    /// Of a target that was found up before: no single finding decides about it.
    pub fn known() -> Self {
        Self { begun: true, up: true, ..Self::default() }
    }

    /// Whether the target is up now; `up` is whether it was until now, by whatever judge.
    pub fn judge(&mut self, finding: Finding, up: bool, health: &Health) -> bool {
        if self.up && !up {
            // A request found it down: what was good before counts no more.
            self.good = 0;
        }
        (self.good, self.bad) = match finding {
            Finding::Good => (self.good.saturating_add(1), 0),
            Finding::Bad => (0, self.bad.saturating_add(1)),
            Finding::Gone => (0, health.fall),
            Finding::Unknown => return up,
        };
        let first = !std::mem::replace(&mut self.begun, true);
        self.up = match up {
            true => self.bad == 0 || (self.bad < health.fall && !first),
            false => self.good > 0 && (self.good >= health.rise || first),
        };
        self.up
    }

    /// The next check may change the verdict.
    pub fn is_unsure(&self, up: bool) -> bool {
        !up || self.bad > 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HEALTH: Health = Health {
        path: None,
        statuses: Vec::new(),
        every: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
    };

    /// `+` good, `-` bad, `x` gone, `?` unknown, `!` found down by a request.
    fn check(findings: &str, expected: &str) {
        let (mut streak, mut up) = (Streak::default(), true);
        let verdicts = findings.chars().map(|letter| {
            let finding = match letter {
                '+' => Finding::Good,
                '-' => Finding::Bad,
                'x' => Finding::Gone,
                '?' => Finding::Unknown,
                _ => {
                    up = false;
                    return 'd';
                }
            };
            up = streak.judge(finding, up, &HEALTH);
            if up { 'u' } else { 'd' }
        });
        assert_eq!(verdicts.collect::<String>(), expected, "{findings}");
    }

    #[test]
    fn it_takes_some_in_a_row() {
        check("++--+---++", "uuuuuuuddu");
        check("+--+--+---", "uuuuuuuuud");
        check("+---+-++", "uuuddddu");
    }

    #[test]
    fn the_first_one_decides_alone() {
        check("-+", "dd");
        check("-++", "ddu");
        check("!+", "du");
    }

    #[test]
    fn one_refusal_is_enough_and_what_is_unknown_counts_for_nothing() {
        check("++x+?+", "uudddu");
        check("+??-?-", "uuuuuu");
    }

    #[test]
    fn good_checks_from_before_a_fall_do_not_count() {
        check("++++!++", "uuuuddu");
    }
}
