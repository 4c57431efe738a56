//! Which compressed files a client takes (RFC 9110 §12.5.3); pure.

use http::header::{ACCEPT_ENCODING, HeaderMap};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Brotli,
    Zstd,
    Gzip,
}

impl Encoding {
    /// The smallest first.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    pub fn word(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// What the name of such a file ends in.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        }
    }
}

/// Those that the client takes, what it likes best first.
pub fn accepted(headers: &HeaderMap) -> Vec<Encoding> {
    let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    let mut weights = [None; 3];
    let mut rest = 0;
    for item in lines.flat_map(|line| line.split(',')) {
        let (name, weight) = weighed(item);
        if name == "*" {
            rest = weight;
        }
        for (encoding, known) in Encoding::ALL.iter().zip(&mut weights) {
            if name.eq_ignore_ascii_case(encoding.word()) {
                *known = Some(weight);
            }
        }
    }
    let mut all: Vec<_> = Encoding::ALL
        .into_iter()
        .zip(weights.map(|weight| weight.unwrap_or(rest)))
        .filter(|(_, weight)| *weight > 0)
        .collect();
    all.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    all.into_iter().map(|(encoding, _)| encoding).collect()
}

/// A name and its weight in thousandths; what is no weight is none.
fn weighed(item: &str) -> (&str, u16) {
    let mut parts = item.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let Some(weight) = parts.find_map(|part| part.strip_prefix("q=")) else { return (name, 1000) };
    let (whole, part) = weight.split_once('.').unwrap_or((weight, ""));
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    match (whole, part.parse()) {
        ("1", Ok(_)) => (name, 1000),
        ("0", Ok(part)) => (name, part),
        _ => (name, 0),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_client_chooses_and_then_the_smallest() {
        use Encoding::{Brotli, Gzip, Zstd};
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", &[Brotli, Zstd, Gzip][..]),
            ("gzip", &[Gzip]),
            ("GZIP;q=0.5, zstd;q=0.8", &[Zstd, Gzip]),
            ("br;q=0, *", &[Zstd, Gzip]),
            ("*;q=0", &[]),
            ("identity", &[]),
            ("gzip;q=x", &[]),
            ("", &[]),
        ] {
            let headers =
                HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(accept))]);
            assert_eq!(accepted(&headers), expected, "{accept}");
        }
        assert_eq!(accepted(&HeaderMap::new()), []);
    }
}
