//! `Accept-Encoding` → the coding to answer with; pure (RFC 9110 §12.5.3).

use http::HeaderValue;

use crate::config::Coding;

/// Weights are thousandths, from 0 (never) to 1000.
type Weight = u16;

/// What a client says of the codings that can be offered, and of the rest.
#[derive(Default)]
struct Wishes {
    zstd: Option<Weight>,
    brotli: Option<Weight>,
    gzip: Option<Weight>,
    identity: Option<Weight>,
    any: Option<Weight>,
}

/// The coding of `offered` that the client likes best, the first of them if it likes several the
/// same; `None` if it takes none, or prefers the body as it is.
pub fn choose<'a>(
    lines: impl IntoIterator<Item = &'a HeaderValue>,
    offered: &[Coding],
) -> Option<Coding> {
    let mut wishes = Wishes::default();
    for line in lines {
        for item in line.as_bytes().split(|byte| *byte == b',') {
            wishes.note(item);
        }
    }
    let mut best = None;
    for coding in offered {
        let weight = wishes.of(*coding);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((*coding, weight));
        }
    }
    let (coding, weight) = best?;
    (wishes.identity.unwrap_or_default() <= weight).then_some(coding)
}

impl Wishes {
    /// Notes one item: `br`, `gzip;q=0.5`, `*;q=0`. What is malformed is no wish.
    fn note(&mut self, item: &[u8]) {
        let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let Some(weight) = parts.next().map_or(Some(1000), weight) else { return };
        if parts.next().is_some() {
            return;
        }
        let wish = match name.to_ascii_lowercase().as_slice() {
            b"zstd" => &mut self.zstd,
            b"br" => &mut self.brotli,
            b"gzip" | b"x-gzip" => &mut self.gzip,
            b"identity" => &mut self.identity,
            b"*" => &mut self.any,
            _ => return,
        };
        *wish = Some(weight);
    }

    fn of(&self, coding: Coding) -> Weight {
        let named = match coding {
            Coding::Zstd => self.zstd,
            Coding::Brotli => self.brotli,
            Coding::Gzip => self.gzip,
        };
        named.or(self.any).unwrap_or_default()
    }
}

/// `q=0.5`: at most three digits after the point, at most 1 (RFC 9110 §12.4.2).
fn weight(parameter: &[u8]) -> Option<Weight> {
    let (name, value) = parameter.split_first_chunk::<2>()?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let (whole, rest) = value.split_first()?;
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut weight = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    for (digit, worth) in digits.iter().zip([100, 10, 1]) {
        if !digit.is_ascii_digit() {
            return None;
        }
        weight += Weight::from(digit - b'0') * worth;
    }
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    use Coding::{Brotli, Gzip, Zstd};

    fn check(lines: &[&str], expected: Option<Coding>) {
        let lines: Vec<_> =
            lines.iter().map(|line| HeaderValue::from_str(line).expect("a value")).collect();
        assert_eq!(choose(&lines, &[Zstd, Brotli, Gzip]), expected, "{lines:?}");
    }

    #[test]
    fn the_client_chooses_and_then_the_order() {
        for (lines, expected) in [
            (&[][..], None),
            (&[""], None),
            (&["gzip, deflate, br, zstd"], Some(Zstd)),
            (&["gzip, deflate, br"], Some(Brotli)),
            (&["gzip", "br"], Some(Brotli)),
            (&["GZIP"], Some(Gzip)),
            (&["x-gzip"], Some(Gzip)),
            (&["deflate"], None),
            (&["*"], Some(Zstd)),
            (&["*;q=0"], None),
            (&["zstd;q=0, *"], Some(Brotli)),
            (&["gzip;q=1.0, br;q=0.5"], Some(Gzip)),
            (&["gzip;q=0.5;x=1"], None),
            (&["gzip ; Q=0.001"], Some(Gzip)),
            (&["gzip;q=0"], None),
            (&["gzip;q=0.000"], None),
            (&["identity"], None),
            (&["identity, gzip"], Some(Gzip)),
            (&["identity, gzip;q=0.5"], None),
            (&["identity;q=0, gzip;q=0.1"], Some(Gzip)),
        ] {
            check(lines, expected);
        }
    }

    #[test]
    fn a_malformed_weight_is_no_wish() {
        for bad in ["2", "1.001", "0.1234", ".5", "-1", "", "a", "0,5", "0.x"] {
            check(&[&format!("gzip;q={bad}")], None);
        }
    }

    #[test]
    fn only_what_is_offered() {
        let line = [HeaderValue::from_static("gzip, br, zstd")];
        assert_eq!(choose(&line, &[Gzip]), Some(Gzip));
        assert_eq!(choose(&line, &[Gzip, Zstd]), Some(Gzip));
        assert_eq!(choose(&line, &[]), None);
    }
}
