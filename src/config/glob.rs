//! What a header, a cookie or a parameter must be for a route to be meant; pure.

use std::fmt;

/// A text with `*` for anything, or `!` before it for anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    negated: bool,
    /// Invariant: at least one; between two of them stood a `*`.
    pieces: Vec<String>,
}

impl Glob {
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('~') {
            return Err("regular expressions are not read; write a text with * in it".to_owned());
        }
        let (negated, pattern) = match text.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, text),
        };
        if pattern.is_empty() {
            return Err(format!("{text:?} is nothing; write \"*\" for any value, \"!*\" for none"));
        }
        if pattern.chars().any(char::is_control) {
            return Err(format!("{text:?} has control characters in it"));
        }
        Ok(Self { negated, pieces: pattern.split('*').map(str::to_owned).collect() })
    }

    /// Whether one of the values is meant; with `!`, whether none is.
    pub fn matches<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> bool {
        values.into_iter().any(|value| self.fits(value)) != self.negated
    }

    fn fits(&self, value: &[u8]) -> bool {
        let Some((first, rest)) = self.pieces.split_first() else { return false };
        let Some((last, middle)) = rest.split_last() else { return value == first.as_bytes() };
        let Some(mut value) = value.strip_prefix(first.as_bytes()) else { return false };
        for piece in middle.iter().filter(|piece| !piece.is_empty()) {
            let Some(at) = memchr::memmem::find(value, piece.as_bytes()) else { return false };
            value = value.get(at + piece.len()..).unwrap_or_default();
        }
        value.ends_with(last.as_bytes())
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.negated { "!" } else { "" }, self.pieces.join("*"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (glob, value, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("ab*ba", "aba", false),
            ("*bot*", "Googlebot/2.1", true),
            ("**", "x", true),
        ] {
            let glob = Glob::parse(glob).expect("a glob");
            assert_eq!(glob.matches([value.as_bytes()]), expected, "{glob} on {value}");
            let none = Glob::parse(&format!("!{glob}")).expect("a glob");
            assert_eq!(none.matches([value.as_bytes()]), !expected, "{none} on {value}");
        }
    }

    #[test]
    fn several_values_and_none() {
        let of = |glob: &str, values: &[&str]| {
            let glob = Glob::parse(glob).expect("a glob");
            glob.matches(values.iter().map(|value| value.as_bytes()))
        };
        assert!(of("b", &["a", "b"]) && !of("!b", &["a", "b"]));
        assert!(!of("*", &[]) && of("!*", &[]) && of("!a", &[]));
        assert!(
            Glob::parse("").is_err() && Glob::parse("!").is_err() && Glob::parse("~a").is_err()
        );
    }
}
