//! Which of several targets a request goes to; pure.

use std::net::IpAddr;

use crate::config::Balance;

/// What is known of one target when a request comes.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Requests in flight.
    pub load: usize,
    /// Its share, above 0; 1 is a whole one.
    pub weight: f64,
    /// A number of its own that stays the same for as long as its name does.
    pub key: u64,
    /// False if the target was tried already or is not to be tried.
    pub free: bool,
}

/// The place of the target to take.
///
/// `turn` goes up by one with each request; `from` stands for the client.
pub fn choose(
    by: Balance,
    candidates: impl Iterator<Item = Candidate> + Clone,
    turn: usize,
    from: u64,
) -> Option<usize> {
    let free = candidates.enumerate().filter(|(_, candidate)| candidate.free);
    let count = free.clone().count();
    let begin = turn.checked_rem(count)?;
    // Beginning elsewhere each time, so that equals share.
    let mut in_turn = free.clone().skip(begin).chain(free.clone().take(begin));
    let chosen = match by {
        Balance::Round => {
            let draw = draw(turn);
            in_turn.clone().find(|(_, candidate)| draw < candidate.weight).or(in_turn.next())
        }
        Balance::Least => {
            in_turn.min_by(|(_, one), (_, other)| one.cost().total_cmp(&other.cost()))
        }
        Balance::Hash => {
            free.max_by(|(_, one), (_, other)| one.score(from).total_cmp(&other.score(from)))
        }
    };
    chosen.map(|(place, _)| place)
}

impl Candidate {
    /// What one more request would make of its load, for its share.
    #[expect(clippy::cast_precision_loss, reason = "nobody has so many requests in flight")]
    fn cost(&self) -> f64 {
        (self.load as f64 + 1.0) / self.weight
    }

    /// Rendezvous hashing with weights: a target that goes moves its own clients only, and one that
    /// comes takes of each other's as its share grows.
    fn score(&self, from: u64) -> f64 {
        -self.weight / unit(mix(from ^ self.key)).ln()
    }
}

/// The client's number: an address of IPv4, or the network of one of IPv6, which is a household's.
pub fn number(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

/// A target's number (FNV-1a).
pub fn key(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Spreads every bit over all others (the last steps of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Between 0 and 1, neither of them.
#[expect(clippy::cast_precision_loss, reason = "the top 53 bits are exact")]
fn unit(number: u64) -> f64 {
    ((number >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// Numbers below 1 that fill it evenly as turns go on: multiples of the golden ratio.
fn draw(turn: usize) -> f64 {
    unit((turn as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each target is its load, or `x`; `/5` behind it is a share of a half.
    fn candidates(targets: &str) -> impl Iterator<Item = Candidate> + Clone {
        targets.split(' ').enumerate().map(|(place, target)| {
            let (load, share) = target.split_once('/').unwrap_or((target, "10"));
            let weight = share.parse::<f64>().expect("a share") / 10.0;
            let (load, free) = load.parse().map_or((0, false), |load| (load, true));
            Candidate { load, weight, key: key(&format!("http://10.0.0.{place}:3000")), free }
        })
    }

    fn check(by: Balance, targets: &str, expected: &[Option<usize>]) {
        let candidates = candidates(targets);
        let chosen: Vec<_> =
            (0..expected.len()).map(|turn| choose(by, candidates.clone(), turn, 0)).collect();
        assert_eq!(chosen, expected, "{by:?} {targets}");
    }

    /// How many of a thousand turns, or clients, come to each place.
    fn shares(by: Balance, targets: &str) -> Vec<usize> {
        let mut shares = vec![0; targets.split(' ').count()];
        for number in 0..1000_u32 {
            let from = super::number(IpAddr::from(number.to_be_bytes()));
            let chosen = choose(by, candidates(targets), number as usize, from);
            shares[chosen.expect("one is free")] += 1;
        }
        shares
    }

    fn about(count: usize, share: usize) -> bool {
        count.abs_diff(share) < 60
    }

    #[test]
    fn round_goes_around_those_that_are_free() {
        check(Balance::Round, "9 0 0", &[Some(0), Some(1), Some(2), Some(0)]);
        check(Balance::Round, "0 x 0", &[Some(0), Some(2), Some(0)]);
        check(Balance::Round, "x x", &[None, None]);
        check(Balance::Round, "0/1", &[Some(0), Some(0), Some(0)]);
    }

    #[test]
    fn least_takes_the_idlest_and_lets_equals_share() {
        check(Balance::Least, "2 1 3", &[Some(1), Some(1), Some(1)]);
        check(Balance::Least, "1 1 1", &[Some(0), Some(1), Some(2), Some(0)]);
        check(Balance::Least, "5 x 1", &[Some(2), Some(2)]);
        // One of ten shares: as busy with none as the other with nine.
        check(Balance::Least, "8 0/1", &[Some(0)]);
        check(Balance::Least, "10 0/1", &[Some(1)]);
    }

    #[test]
    fn who_has_just_come_back_gets_its_share_and_no_more() {
        let round = shares(Balance::Round, "0 0/1");
        assert!(about(round[0], 950) && about(round[1], 50), "{round:?}");
        let hash = shares(Balance::Hash, "0 0/5");
        assert!(about(hash[0], 667) && about(hash[1], 333), "{hash:?}");
    }

    #[test]
    fn the_same_client_comes_to_the_same_target() {
        let all = shares(Balance::Hash, "0 0 0 0");
        assert!(all.iter().all(|share| about(*share, 250)), "{all:?}");
        for number in 0..1000_u32 {
            let from = super::number(IpAddr::from(number.to_be_bytes()));
            let choose = |targets, turn| choose(Balance::Hash, candidates(targets), turn, from);
            let before = choose("0 0 0 0", 1);
            assert_eq!(choose("99 0 0 7", 2), before, "neither load nor turn matters");
            let after = choose("0 0 x 0", 3);
            assert!(after == before || before == Some(2), "only the clients of the gone one move");
        }
    }

    #[test]
    fn a_household_is_one_client() {
        let number = |text: &str| number(text.parse().expect("an address"));
        assert_eq!(number("2001:db8:1:2::1"), number("2001:db8:1:2:ffff::9"));
        assert_ne!(number("2001:db8:1:2::1"), number("2001:db8:1:3::1"));
        assert_ne!(number("10.0.0.1"), number("10.0.0.2"));
    }
}
