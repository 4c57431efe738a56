//! Moments as databases and JSON write them → milliseconds since 1970; pure.

/// `2027-01-16T08:00:00.000Z`, also with an offset, a space for the T, or no zone, which is UTC.
pub fn parse(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-').map(digits);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let at = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at_checked(at)?;
    let (whole, fraction) = clock.trim_end().split_once('.').unwrap_or((clock.trim_end(), "0"));
    let mut clock = whole.splitn(3, ':').map(digits);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !valid || hour > 23 || minute > 59 || second > 60 || !(1970..=9999).contains(&year) {
        return None;
    }
    let padded = format!("{fraction:0<3}");
    digits(fraction)?;
    let milliseconds = digits(padded.get(..3)?)?;
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some((seconds - offset(zone)?) * 1000 + milliseconds)
}

/// `Thu, 01 Jan 1970 00:00:00 GMT`, with spaces or dashes in the date (RFC 6265 §5.1.1).
pub fn parse_http(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let (_, rest) = text.split_once(' ')?;
    let mut words = rest.split([' ', '-']).filter(|word| !word.is_empty());
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let month = month.to_ascii_lowercase();
    let month = MONTHS.iter().position(|known| *known == month)? + 1;
    parse(&format!("{year}-{month:02}-{day}T{}", words.next()?))
}

fn digits(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    let (sign, rest) = match zone.split_at_checked(1) {
        None => return Some(0),
        Some(("Z" | "z", "")) => return Some(0),
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        Some(_) => return None,
    };
    let (hours, minutes) = match rest.split_once(':') {
        Some(pair) => pair,
        None if rest.len() == 2 => (rest, "0"),
        None => rest.split_at_checked(2)?,
    };
    Some(sign * (digits(hours)? * 3600 + digits(minutes)? * 60))
}

/// Days from 1970 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_every_writing() {
        for (text, milliseconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2027-01-15T08:00:00.000Z", Some(1_800_000_000_000)),
            ("2027-01-15T08:00:00.000+00:00", Some(1_800_000_000_000)),
            ("2027-01-15 08:00:00", Some(1_800_000_000_000)),
            ("2027-01-15 10:00:00.123456+02", Some(1_800_000_000_123)),
            ("2027-01-15T03:30:00.5-0430", Some(1_800_000_000_500)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000)),
            ("2027-13-15T08:00:00Z", None),
            ("2027-01-15", None),
            ("2027-01-15T08:00", None),
            ("2027-01-15T08:00:00X", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(parse(text), milliseconds, "{text}");
        }
    }
}
