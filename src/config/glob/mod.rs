//! What a header, a cookie or a parameter must be for a route to be meant; pure.

mod expression;

use std::fmt;

pub use expression::Expression;

/// A text with `*` for anything, or `~` and a regular expression; or `!` before it for anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    negated: bool,
    /// Between two of them stood a `*`; none where it is an expression.
    pieces: Vec<String>,
    expression: Option<Expression>,
}

impl Glob {
    pub fn parse(text: &str) -> Result<Self, String> {
        let (negated, pattern) = match text.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, text),
        };
        if let Some(expression) = pattern.strip_prefix('~') {
            let expression = Some(Expression::parse(expression)?);
            return Ok(Self { negated, pieces: Vec::new(), expression });
        }
        if pattern.is_empty() {
            return Err(format!("{text:?} is nothing; write \"*\" for any value, \"!*\" for none"));
        }
        if pattern.chars().any(char::is_control) {
            return Err(format!("{text:?} has control characters in it"));
        }
        let pieces = pattern.split('*').map(str::to_owned).collect();
        Ok(Self { negated, pieces, expression: None })
    }

    /// Whether one of the values is meant; with `!`, whether none is.
    pub fn matches<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> bool {
        values.into_iter().any(|value| self.fits(value)) != self.negated
    }

    fn fits(&self, value: &[u8]) -> bool {
        if let Some(expression) = &self.expression {
            return expression.matches(value);
        }
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
        f.write_str(if self.negated { "!" } else { "" })?;
        match &self.expression {
            Some(expression) => write!(f, "{expression}"),
            None => f.write_str(&self.pieces.join("*")),
        }
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
            ("~^[0-9]+$", "12", true),
            ("~^[0-9]+$", "12a", false),
            ("~b.t", "Googlebot/2.1", true),
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
        assert!(of("~^b$", &["a", "b"]) && !of("!~^b$", &["a", "b"]) && of("!~.", &[]));
        for text in ["", "!", "~", "!~", "~("] {
            assert!(Glob::parse(text).is_err(), "{text}");
        }
    }
}
