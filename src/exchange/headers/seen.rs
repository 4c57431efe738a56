//! What names a head may have, found in one look at all of them; pure.
//!
//! A request has a dozen headers, and there are a hundred that would have to go if they were there:
//! what cannot be there is not asked for.

use http::HeaderMap;

/// Never says that a name is missing which is there; may say that one is there which is missing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Letters that names begin with, as bits.
    firsts: u32,
    /// First letter, last letter and length together, as bits.
    shapes: u128,
    odd: bool,
}

impl Seen {
    pub fn of(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for name in headers.keys() {
            let name = name.as_str().as_bytes();
            seen.firsts |= letter(name);
            seen.shapes |= shape(name);
            seen.odd |= has_underscore(name);
        }
        seen
    }

    /// False if there is no header of this name, written in lower case.
    pub fn may_have(&self, name: &str) -> bool {
        self.shapes & shape(name.as_bytes()) != 0
    }

    /// False if no header's name begins with one of these letters, which are lower case.
    pub fn may_begin(&self, letters: &str) -> bool {
        letters.bytes().any(|first| self.firsts & letter(&[first]) != 0)
    }

    /// True if there is an underscore in a name.
    pub fn is_odd(&self) -> bool {
        self.odd
    }
}

/// What does not begin with a letter falls on the bits of one that does.
fn letter(name: &[u8]) -> u32 {
    1 << (name.first().copied().unwrap_or_default() & 31)
}

/// Eight bytes at a time, the last ones perhaps twice: names are short.
fn has_underscore(name: &[u8]) -> bool {
    let Some(last) = name.last_chunk::<8>() else { return name.contains(&b'_') };
    let (chunks, _rest) = name.as_chunks::<8>();
    chunks.iter().chain([last]).any(|eight| {
        let left = u64::from_ne_bytes(*eight) ^ u64::from_ne_bytes([b'_'; 8]);
        // True if a byte is 0.
        left.wrapping_sub(0x0101_0101_0101_0101) & !left & 0x8080_8080_8080_8080 != 0
    })
}

/// The factors are such that nothing that browsers send falls on what would have to go.
fn shape(name: &[u8]) -> u128 {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return 0 };
    1 << ((usize::from(*first) * 2 + usize::from(*last) * 15 + name.len()) & 127)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_that_is_there_is_overlooked(
            names in prop::collection::vec("[a-z0-9!_-]{1,30}", 0..20),
        ) {
            let mut headers = HeaderMap::new();
            for name in &names {
                let name = HeaderName::try_from(name).expect("a name");
                headers.append(name, HeaderValue::from_static("x"));
            }
            let seen = Seen::of(&headers);
            for name in &names {
                prop_assert!(seen.may_have(name), "{name}");
                prop_assert!(seen.may_begin(&name[..1]), "{name}");
            }
            prop_assert_eq!(seen.is_odd(), names.iter().any(|name| name.contains('_')));
        }
    }

    #[test]
    fn what_a_browser_sends_rules_out_most_of_what_would_have_to_go() {
        let sent = "host user-agent accept accept-language accept-encoding cookie connection referer \
            upgrade-insecure-requests sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user \
            cache-control if-none-match if-modified-since priority sec-ch-ua sec-ch-ua-mobile \
            sec-ch-ua-platform origin content-type content-length dnt pragma";
        let mut headers = HeaderMap::new();
        for name in sent.split_whitespace() {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        let seen = Seen::of(&headers);
        let barred = "te transfer-encoding upgrade keep-alive proxy-connection proxy-authenticate \
            proxy-authorization http2-settings location content-security-policy \
            content-security-policy-report-only x-vestibule-user x-vestibule-provider rsc \
            cdn-loop";
        for name in barred.split_whitespace() {
            assert!(!seen.may_have(name), "{name}");
        }
        assert!(!seen.may_begin("xnl") && !seen.is_odd());
        assert!(!Seen::of(&HeaderMap::new()).may_have("host"));
    }
}
