//! When a certificate is asked for: first, again, and anew; pure.

/// Seconds since 1970.
pub type Time = i64;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

/// When a certificate should be replaced if its authority has no wish: a third of its life before
/// its end.
pub fn renewal(begins: Time, ends: Time) -> Time {
    ends - (ends - begins).max(0) / 3
}

/// Seconds that a certificate which replaced another is left alone, whatever the authority would
/// like: a suggestion that is always due would ask for one after the other.
pub fn rest(begins: Time, ends: Time) -> i64 {
    HOUR.min((ends - begins).max(0) / 3)
}

/// A moment in the window that the authority suggests (RFC 9773 §4.2); `chance` is in 0..=u32::MAX.
pub fn moment(start: Time, end: Time, chance: u32) -> Time {
    let width = i128::from((end - start).max(0));
    let into = width * i128::from(chance) / i128::from(u32::MAX);
    start + i64::try_from(into).unwrap_or_default()
}

/// Seconds until the next try after `failures` in a row: one minute, doubled each time, six hours
/// at most, and up to a fifth more so that many names do not come at once.
pub fn pause(failures: u32, limited: bool, chance: u32) -> i64 {
    let doubled = MINUTE << failures.saturating_sub(1).min(9);
    let base = doubled.min(6 * HOUR).max(if limited { HOUR } else { 0 });
    base + moment(0, base / 5, chance)
}

/// When the authority's wish is asked for again: as it says, within a minute and a day.
pub fn next_look(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(24 * HOUR).clamp(MINUTE, 24 * HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_its_life_is_left_at_renewal() {
        let day = 24 * HOUR;
        assert_eq!(renewal(0, 90 * day), 60 * day);
        assert_eq!(renewal(100, 160), 140);
        assert_eq!(renewal(160, 100), 100, "one that ends before it begins");
        assert_eq!((rest(0, 90 * day), rest(0, 15), rest(15, 0)), (HOUR, 5, 0));
    }

    #[test]
    fn the_moment_lies_in_the_window() {
        assert_eq!((moment(10, 20, 0), moment(10, 20, u32::MAX)), (10, 20));
        assert_eq!(moment(20, 10, u32::MAX), 20);
        assert!((10..=20).contains(&moment(10, 20, u32::MAX / 3)));
    }

    #[test]
    fn tries_become_rare() {
        let pauses: Vec<_> = (1..12).map(|failures| pause(failures, false, 0) / MINUTE).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360]);
        assert_eq!(pause(1, true, 0), HOUR);
        assert_eq!(pause(1, false, u32::MAX), 72);
        assert_eq!(pause(u32::MAX, false, 0), 6 * HOUR);
    }

    #[test]
    fn looks_are_neither_hasty_nor_rare() {
        assert_eq!((next_look(0), next_look(600), next_look(u64::MAX)), (60, 600, 24 * HOUR));
    }
}
