//! Regular expressions, where a value begins with `~`; pure.
//!
//! Whatever is written and whatever is asked for, matching takes time linear in what is looked at, as
//! far as it is bounded here what an expression may become.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// Bytes of an expression.
const TEXT_MAX: usize = 1024;
/// Bytes that it may become.
const COMPILED_MAX: usize = 256 * 1024;
/// Bytes that each worker may remember of it while it looks.
const CACHE_MAX: usize = 256 * 1024;
/// Groups inside of groups.
const NEST_MAX: u32 = 32;

/// A regular expression of bytes; `\w`, `\d` and `(?i)` are about ASCII.
///
/// Nothing is anchored: `^` and `$` are written where they are meant.
#[derive(Clone)]
pub struct Expression {
    text: String,
    /// Shared by the workers; what one of them needs for a moment is taken without waiting.
    regex: Regex,
}

impl Expression {
    /// Reads what stands behind the `~`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("\"~\" is no regular expression; write ~^/old/[0-9]+$".to_owned());
        }
        if text.len() > TEXT_MAX {
            return Err(format!("a regular expression has at most {TEXT_MAX} bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(format!("{text:?} has control characters in it"));
        }
        let regex = RegexBuilder::new(text)
            .unicode(false)
            .size_limit(COMPILED_MAX)
            .dfa_size_limit(CACHE_MAX)
            .nest_limit(NEST_MAX)
            .build();
        match regex {
            Ok(regex) => Ok(Self { text: text.to_owned(), regex }),
            Err(regex::Error::CompiledTooBig(_)) => {
                Err(format!("~{text} becomes larger than {} KiB; repeat less", COMPILED_MAX / 1024))
            }
            Err(error) => Err(format!("~{text} is no regular expression: {}", wrong(&error))),
        }
    }

    pub fn matches(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }

    /// The names of its groups.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.regex.capture_names().flatten()
    }

    /// What its named groups have found in a text that is meant. A group that took no part has none,
    /// nor one whose part is no text.
    pub fn captures(&self, value: &str) -> Option<Vec<(String, String)>> {
        if self.names().next().is_none() {
            return self.matches(value.as_bytes()).then(Vec::new);
        }
        let found = self.regex.captures(value.as_bytes())?;
        let named = self.names().filter_map(|name| {
            let text = std::str::from_utf8(found.name(name)?.as_bytes()).ok()?;
            Some((name.to_owned(), text.to_owned()))
        });
        Some(named.collect())
    }
}

/// What is wrong in one line, and where: the library draws it on several.
fn wrong(error: &regex::Error) -> String {
    let text = error.to_string();
    let what = text.lines().find_map(|line| line.strip_prefix("error: "));
    let what = what.or_else(|| text.lines().next()).unwrap_or_default();
    let signs = text
        .lines()
        .find(|line| line.contains('^') && line.bytes().all(|byte| byte == b' ' || byte == b'^'));
    // What is drawn is four spaces in.
    match signs.and_then(|line| line.find('^')?.checked_sub(3)) {
        Some(place) => format!("{what}, at its character {place}"),
        None => what.to_owned(),
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As it is written in the file.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "~{}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, value: &str, expected: Option<&[(&str, &str)]>) {
        let found = Expression::parse(text).expect("an expression").captures(value);
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let expected = expected.map(|all| all.iter().map(owned).collect::<Vec<_>>());
        assert_eq!(found, expected, "{text} on {value}");
    }

    #[test]
    fn what_is_named_is_kept() {
        check("^/a$", "/a", Some(&[]));
        check("^/a$", "/a/b", None);
        check("/a", "/b/a/c", Some(&[]));
        check("(?i)^/ADMIN", "/admin", Some(&[]));
        check(
            r"^/(?<year>\d{4})/(\w+)/(?P<slug>.*)$",
            "/2024/x/a/b",
            Some(&[("year", "2024"), ("slug", "a/b")]),
        );
        check("^/(?<a>x)?(?<b>y)?$", "/y", Some(&[("b", "y")]));
        check("^.$", "ä", None);
    }

    #[test]
    fn what_is_none_says_where() {
        for (text, what) in [
            ("", "\"~\" is no regular expression; write ~^/old/[0-9]+$"),
            ("^/(a", "~^/(a is no regular expression: unclosed group, at its character 3"),
            ("a**)", "~a**) is no regular expression: unopened group, at its character 4"),
            (
                r"(a)\1",
                r"~(a)\1 is no regular expression: backreferences are not supported, at its character 4",
            ),
            ("\u{1}", "\"\\u{1}\" has control characters in it"),
            ("(a{500}){500}", "~(a{500}){500} becomes larger than 256 KiB; repeat less"),
        ] {
            assert_eq!(Expression::parse(text).expect_err(text), what);
        }
        assert!(Expression::parse("(?=a)").is_err_and(|what| what.contains("look-around")));
        assert!(Expression::parse(&"(".repeat(600)).is_err());
        assert!(Expression::parse(&"a".repeat(TEXT_MAX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[a-c().*+?|\\[\\]{}0-9^$\\\\<>P:-]{0,24}|\\PC{0,12}", value in "\\PC{0,16}") {
            let Ok(expression) = Expression::parse(&text) else { return Ok(()) };
            let captured = expression.captures(&value);
            prop_assert_eq!(captured.is_some(), expression.matches(value.as_bytes()));
            for (_, part) in captured.into_iter().flatten() {
                prop_assert!(value.contains(&part));
            }
        }
    }
}
