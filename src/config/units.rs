//! The small words of a configuration and how each is written; pure.
//!
//! Every reader takes the text as written and gives the value, or what is wrong and what instead.

use std::fmt;
use std::hint::black_box;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

/// A block of addresses: `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cidr(IpNet);

impl Cidr {
    pub fn parse(text: &str) -> Result<Self, String> {
        let block = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let block: IpNet = block.map_err(|_error| {
            format!("{text:?} is no block of addresses; write 10.0.0.0/8 or fd00::/8")
        })?;
        if block.addr() != block.network() {
            return Err(format!("{text} has bits beyond its prefix; write {}", block.trunc()));
        }
        Ok(Self(block))
    }

    /// An IPv4 address that came mapped into IPv6 must be made canonical by the caller.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

/// A word that never prints.
#[derive(Clone)]
pub struct Secret {
    text: String,
    written: Option<String>,
}

impl Secret {
    /// `written` is where it came from (`file:…`, `${…}`), if that is no secret itself.
    pub fn new(text: String, written: Option<String>) -> Self {
        Self { text, written }
    }

    /// Compares in a time that tells the length at most.
    pub fn matches(&self, given: &[u8]) -> bool {
        let text = self.text.as_bytes();
        let different = text.iter().zip(given).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
        text.len() == given.len() && different == 0
    }

    /// The word itself, for the one who must send it.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What a shown configuration says in its place.
    pub fn written(&self) -> &str {
        self.written.as_deref().unwrap_or("***")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

const DURATIONS: [(&str, u64); 6] = [
    ("y", 365 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Nothing is waited for longer; a larger number is a slip.
const DURATION_MAX: u64 = 3650 * 86_400_000;

/// `250ms`, `4s`, `10m`, `1h`, `30d`, `1y` (of 365 days).
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = measure(text, "10s")?;
    let factor = DURATIONS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let factor =
        factor.ok_or_else(|| format!("{unit:?} is no unit of time; ms, s, m, h, d and y are"))?;
    let milliseconds = number.checked_mul(factor).filter(|all| *all <= DURATION_MAX);
    milliseconds
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text} is longer than ten years"))
}

/// The same as `duration`, but not nothing: a deadline of `0s` would refuse everybody.
pub fn deadline(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() {
        Err(format!("{text} leaves no time at all; write 10s"))
    } else {
        Ok(duration)
    }
}

/// As `duration` reads it, in the largest unit that is exact.
pub fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let exact =
        DURATIONS.iter().find(|(_, factor)| milliseconds.is_multiple_of(u128::from(*factor)));
    match exact {
        Some((unit, factor)) if milliseconds > 0 => {
            format!("{}{unit}", milliseconds / u128::from(*factor))
        }
        _ => "0s".to_owned(),
    }
}

const SIZES: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1000),
    ("kB", 1000),
    ("B", 1),
];

/// `512B`, `16KiB`, `10MB`, `2GB`.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = measure(text, "10MB")?;
    let factor = SIZES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let factor = factor.ok_or_else(|| {
        format!("{unit:?} is no unit of size; B, KB, KiB, MB, MiB, GB and GiB are")
    })?;
    let bytes = number.checked_mul(factor).filter(|bytes| i64::try_from(*bytes).is_ok());
    bytes.ok_or_else(|| format!("{text} is more than can be counted"))
}

/// As `size` reads it, in the largest unit that is exact.
pub fn show_size(bytes: u64) -> String {
    let exact = SIZES.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    exact.map_or_else(|| "0B".to_owned(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// So many in each second, minute or hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    pub count: u32,
    pub per: Duration,
}

const RATES: [(&str, Duration); 3] = [
    ("s", Duration::from_secs(1)),
    ("m", Duration::from_secs(60)),
    ("h", Duration::from_secs(3600)),
];

/// More is no limit.
const RATE_MAX: u32 = 1_000_000;

/// `50/s`, `600/m`, `10/h`.
pub fn rate(text: &str) -> Result<Rate, String> {
    let Some((number, unit)) = text.split_once('/') else {
        return Err(format!("{text:?} is no rate; write 50/s"));
    };
    let per = RATES.iter().find(|(name, _)| *name == unit).map(|(_, per)| *per);
    let per = per.ok_or_else(|| format!("{unit:?} is no time of a rate; s, m and h are"))?;
    let count = count(number).ok().and_then(|count| u32::try_from(count).ok());
    match count {
        Some(count @ 1..=RATE_MAX) => Ok(Rate { count, per }),
        _ => Err(format!("{number:?} is no number for a rate; write 1 to {RATE_MAX}")),
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = RATES.iter().find(|(_, per)| *per == self.per).map_or("s", |(unit, _)| unit);
        write!(f, "{}/{unit}", self.count)
    }
}

/// Bytes a second at least; 0 is any, which is written `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByteRate(pub u64);

/// `240B/s`, `10KB/s`, `none`.
pub fn byte_rate(text: &str) -> Result<ByteRate, String> {
    if text == "none" {
        return Ok(ByteRate(0));
    }
    let Some(bytes) = text.strip_suffix("/s") else {
        return Err(format!("{text:?} is no rate of bytes; write 240B/s, or none"));
    };
    match size(bytes)? {
        0 => Err(format!("{text} is no rate; write none")),
        bytes => Ok(ByteRate(bytes)),
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("none"),
            bytes => write!(f, "{}/s", show_size(bytes)),
        }
    }
}

/// A size that something may have, or `none` for no bound.
pub fn size_or_none(text: &str) -> Result<Option<u64>, String> {
    if text == "none" { Ok(None) } else { size(text).map(Some) }
}

/// As `size_or_none` reads it.
pub fn show_size_or_none(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "none".to_owned(), show_size)
}

/// A whole number and the letters behind it.
fn measure<'a>(text: &'a str, example: &str) -> Result<(u64, &'a str), String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() || unit.starts_with(['.', ',']) {
        return Err(format!("{text:?} is no whole number with a unit; write {example}"));
    }
    if unit.is_empty() {
        return Err(format!("{text} has no unit; write one, as in {example}"));
    }
    let number = number.parse().map_err(|_error| format!("{text} is more than can be counted"))?;
    Ok((number, unit))
}

pub fn count(text: &str) -> Result<usize, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let count = text.parse::<u32>().ok().filter(|_| is_number);
    let count = count.and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| format!("{text:?} is no whole number"))
}

/// Where to listen: `:80` is every address, IPv4 too.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || {
        if text.parse::<u16>().is_ok() {
            return format!("{text} is a port only; write \":{text}\" or 127.0.0.1:{text}");
        }
        format!("{text:?} is no address with a port; write \":80\", 127.0.0.1:80 or \"[::1]:80\"")
    };
    match text.strip_prefix(':') {
        Some(port) => port
            .parse()
            .map(|port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
            .map_err(|_error| wrong()),
        None => text.parse().map_err(|_error| wrong()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_carry_units() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("4s", 4000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("0s", 0),
            ("1d", 86_400_000),
            ("1y", 31_536_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "10",
            "",
            "s",
            "1.5s",
            "-1s",
            " 1s",
            "1 s",
            "1w",
            "4000d",
            "99999999999999999999s",
            "１s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(duration("10").is_err_and(|what| what.contains("10s")));
        assert!(deadline("0ms").is_err());
    }

    #[test]
    fn sizes_carry_units() {
        for (text, bytes) in [
            ("512B", 512),
            ("16KiB", 16_384),
            ("10MB", 10_000_000),
            ("2GB", 2_000_000_000),
            ("1kB", 1000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["10", "10mb", "1.5MB", "-1B", "9999999999GB", "KB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_carry_times() {
        for (text, count, seconds) in [("50/s", 50, 1), ("600/m", 600, 60), ("1/h", 1, 3600)] {
            let read = Rate { count, per: Duration::from_secs(seconds) };
            assert_eq!(rate(text), Ok(read));
            assert_eq!(read.to_string(), text);
        }
        for text in
            ["50", "", "/", "/s", "0/s", "50/", "50/d", "50/ s", "-1/s", "1.5/s", "1000001/s"]
        {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_a_second() {
        for (text, bytes) in [("240B/s", 240), ("10KB/s", 10_000), ("1MiB/s", 1 << 20), ("none", 0)]
        {
            assert_eq!(byte_rate(text), Ok(ByteRate(bytes)), "{text}");
            assert_eq!(ByteRate(bytes).to_string(), text);
        }
        for text in ["", "240", "240B", "240/s", "0B/s", "1B/m", "-1B/s", "B/s", "None"] {
            assert!(byte_rate(text).is_err(), "{text}");
        }
        assert_eq!((size_or_none("none"), size_or_none("1B")), (Ok(None), Ok(Some(1))));
        assert!(size_or_none("all").is_err());
    }

    #[test]
    fn addresses_and_blocks() {
        assert_eq!(address(":80").map(|a| a.to_string()), Ok("[::]:80".to_owned()));
        assert_eq!(address("127.0.0.1:0").map(|a| a.to_string()), Ok("127.0.0.1:0".to_owned()));
        assert_eq!(address("[::1]:443").map(|a| a.to_string()), Ok("[::1]:443".to_owned()));
        assert!(address("80").is_err_and(|what| what.contains("\":80\"")));
        for text in ["", ":", ":x", ":65536", "localhost:80", "127.0.0.1"] {
            assert!(address(text).is_err(), "{text}");
        }
        let block = Cidr::parse("10.0.0.0/8").expect("a block");
        assert!(block.contains([10, 1, 2, 3].into()) && !block.contains([11, 0, 0, 1].into()));
        assert!(Cidr::parse("10.0.0.1/8").is_err_and(|what| what.contains("10.0.0.0/8")));
        assert_eq!(Cidr::parse("::1").map(|block| block.to_string()), Ok("::1".to_owned()));
        assert!(Cidr::parse("10.0.0.0/33").is_err() && Cidr::parse("local").is_err());
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret::new("s3cret".to_owned(), None);
        assert_eq!(format!("{secret:?} {}", secret.written()), "*** ***");
        assert!(secret.matches(b"s3cret"));
        for wrong in [&b""[..], b"s3cre", b"s3cret ", b"S3cret"] {
            assert!(!secret.matches(wrong));
        }
        assert!(!Secret::new("a".to_owned(), None).matches(b""));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_the_same(milliseconds in 0..DURATION_MAX, bytes in 0..=i64::MAX as u64) {
            let time = Duration::from_millis(milliseconds);
            prop_assert_eq!(duration(&show_duration(time)), Ok(time));
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,12}") {
            let _read = (duration(&text), size(&text), rate(&text), count(&text), address(&text), Cidr::parse(&text));
        }
    }
}
