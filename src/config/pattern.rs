//! Patterns of hosts and paths; pure.
//!
//! Paths are matched byte for byte: nothing is decoded and no dot is resolved here. What a client
//! sends is made canonical before.

use std::fmt;

use super::glob::Expression;
use super::path::canonical;

/// A host without port: a name, `*` for any, `*.example.com` for one label more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(String);

impl HostPattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let name = host.strip_prefix("*.").unwrap_or(&host);
        if host == "*" || is_host(name) || is_bracketed(&host) {
            return Ok(Self(host));
        }
        Err(wrong_host(text))
    }

    /// Whether `host`, in lower case and without port, is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some("") => true,
            Some(suffix) => host
                .strip_suffix(suffix)
                .is_some_and(|label| !label.is_empty() && !label.contains('.')),
            None => self.0 == host,
        }
    }

    /// Who of these is meant by a host: whose exact name it is, else the first whose pattern fits.
    ///
    /// Everything that is chosen by a host is chosen so, or one site's clients are another's there.
    pub fn choose<'a, T, P>(
        all: &'a [T],
        patterns: impl Fn(&'a T) -> P,
        host: &str,
    ) -> Option<&'a T>
    where
        P: IntoIterator<Item = &'a Self>,
    {
        let exact = |one: &&'a T| patterns(*one).into_iter().any(|pattern| pattern.0 == host);
        let fits = |one: &&'a T| patterns(*one).into_iter().any(|pattern| pattern.matches(host));
        all.iter().find(exact).or_else(|| all.iter().find(fits))
    }

    /// As written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Every host.
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// True if it stands for one host only.
    pub fn is_exact(&self) -> bool {
        !self.0.starts_with('*')
    }
}

fn is_host(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn is_bracketed(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

fn wrong_host(text: &str) -> String {
    if let Some((_, rest)) = text.split_once("://") {
        return format!("{text:?} is a URL; write the host alone: {}", rest.trim_end_matches('/'));
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return format!("{text} needs brackets; write \"[{text}]\"");
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        return format!("{text:?} has a port; a site answers on every listener, write {host}");
    }
    if !text.is_ascii() {
        return format!("{text:?} is not ASCII; write it as it is sent, xn--…");
    }
    format!("{text:?} is no host; write app.example.com, *.example.com or \"*\"")
}

/// A path: `/exact`, `/prefix/*` with all below it, `/old/:slug` with one segment of any name; or
/// `~` and a regular expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    /// None where it is an expression.
    segments: Vec<Segment>,
    /// Ends in `/*`: whatever follows, nothing too.
    rest: bool,
    expression: Option<Expression>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Named(String),
}

/// What the named parts of a pattern stood for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures(Vec<(String, String)>);

impl Captures {
    /// What the named parts are called, and stood for.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The segment of `:slug` by `slug`, the rest of the path by `*`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl PathPattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(expression) = text.strip_prefix('~') {
            return Self::expression(expression);
        }
        let Some(inside) = text.strip_prefix('/') else {
            return Err(format!("{text:?} is no path; write /{text}"));
        };
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "{text:?} is not as it is sent; write spaces and letters beyond ASCII as %20"
            ));
        }
        if text.contains(['?', '#']) {
            return Err(format!("{text:?} has a query; only the path decides"));
        }
        let (inside, rest) = match inside.strip_suffix("/*") {
            Some(inside) => (Some(inside), true),
            None if inside == "*" => (None, true),
            None => (Some(inside), false),
        };
        let segments: Result<Vec<_>, String> =
            inside.into_iter().flat_map(|inside| inside.split('/')).map(Segment::parse).collect();
        let pattern = Self { segments: segments?, rest, expression: None };
        pattern.check(text)?;
        Ok(pattern)
    }

    fn expression(text: &str) -> Result<Self, String> {
        if !text.is_ascii() {
            return Err(format!("~{text} can mean no path: write letters beyond ASCII as %C3%A4"));
        }
        let expression = Some(Expression::parse(text)?);
        Ok(Self { segments: Vec::new(), rest: false, expression })
    }

    /// Every path.
    pub fn any() -> Self {
        Self { segments: Vec::new(), rest: true, expression: None }
    }

    fn check(&self, text: &str) -> Result<(), String> {
        for segment in &self.segments {
            let Segment::Literal(literal) = segment else { continue };
            match canonical(literal) {
                Ok(same) if same == *literal => (),
                Ok(other) => {
                    return Err(format!("{text:?} is compared unescaped; write {other} in it"));
                }
                Err(_) => return Err(format!("{text:?} can be no request's path")),
            }
        }
        // A slash at the end leaves an empty segment behind it, and is a path of its own.
        let inner = match self.segments.split_last() {
            Some((_, before)) if !self.rest => before,
            _ => &self.segments,
        };
        if inner.contains(&Segment::Literal(String::new())) {
            return Err(format!("{text:?} has two slashes side by side"));
        }
        let mut names: Vec<_> = self.names().collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[a, b]| a == b) {
            return Err(format!("{text:?} names :{name} twice"));
        }
        Ok(())
    }

    /// The names that captures will have.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let named = self.segments.iter().filter_map(|segment| match segment {
            Segment::Named(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        });
        let groups = self.expression.iter().flat_map(Expression::names);
        named.chain(groups).chain(self.rest.then_some("*"))
    }

    /// The captures if `path` is meant: a request's canonical path, without query.
    pub fn matches(&self, path: &str) -> Option<Captures> {
        if let Some(expression) = &self.expression {
            return expression.captures(path).map(Captures);
        }
        let mut rest = Some(path.strip_prefix('/')?);
        let mut captures = Captures::default();
        for segment in &self.segments {
            let (given, after) = match rest?.split_once('/') {
                Some((given, after)) => (given, Some(after)),
                None => (rest?, None),
            };
            match segment {
                Segment::Literal(literal) if literal == given => {}
                Segment::Named(name) if !given.is_empty() => {
                    captures.0.push((name.clone(), given.to_owned()));
                }
                _ => return None,
            }
            rest = after;
        }
        if self.rest {
            captures.0.push(("*".to_owned(), rest.unwrap_or_default().to_owned()));
        } else if rest.is_some() {
            return None;
        }
        Some(captures)
    }

    /// True if every path that `other` means is meant here too, as far as that can be told of regular
    /// expressions.
    pub fn covers(&self, other: &Self) -> bool {
        if self.expression.is_some() || other.expression.is_some() {
            return *self == Self::any() || self.expression == other.expression;
        }
        let long_enough = if self.rest {
            other.segments.len() >= self.segments.len()
        } else {
            other.segments.len() == self.segments.len() && !other.rest
        };
        long_enough
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::Literal(here), Segment::Literal(there)) => here == there,
                (Segment::Literal(_), Segment::Named(_)) => false,
                (Segment::Named(_), Segment::Literal(there)) => !there.is_empty(),
                (Segment::Named(_), Segment::Named(_)) => true,
            })
    }

    /// The path up to its first named part, without a slash at its end: `/docs` of `/docs/*`.
    pub fn literal(&self) -> String {
        let literals = self.segments.iter().map_while(|segment| match segment {
            Segment::Literal(literal) => Some(literal.as_str()),
            Segment::Named(_) => None,
        });
        literals.flat_map(|literal| ["/", literal]).collect()
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, String> {
        let is_name = |name: &str| {
            name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        match text.strip_prefix(':') {
            Some(name) if is_name(name) => Ok(Self::Named(name.to_owned())),
            Some(name) => Err(format!("\":{name}\" is no name; write :slug, letters and digits")),
            None if text.contains('*') => {
                Err("* stands for a whole rest and only at the end; write /prefix/*".to_owned())
            }
            None => Ok(Self::Literal(text.to_owned())),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => write!(f, "/{literal}")?,
                Segment::Named(name) => write!(f, "/:{name}")?,
            }
        }
        match &self.expression {
            Some(expression) => write!(f, "{expression}"),
            None => f.write_str(if self.rest { "/*" } else { "" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn captures(pattern: &str, path: &str) -> Option<Vec<(String, String)>> {
        PathPattern::parse(pattern).expect("a pattern").matches(path).map(|captures| captures.0)
    }

    fn check(pattern: &str, path: &str, expected: Option<&[(&str, &str)]>) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let expected = expected.map(|all| all.iter().map(owned).collect::<Vec<_>>());
        assert_eq!(captures(pattern, path), expected, "{pattern} on {path}");
    }

    #[test]
    fn exact_names_are_chosen_first_and_then_patterns_in_their_order() {
        let parse = |text: &&str| HostPattern::parse(text).expect("a host");
        let all: Vec<_> =
            ["*.a.example", "*", "b.a.example", "c.example"].iter().map(parse).collect();
        for (host, chosen) in [
            ("b.a.example", "b.a.example"),
            ("x.a.example", "*.a.example"),
            ("c.example", "c.example"),
            ("d.example", "*"),
        ] {
            let found = HostPattern::choose(&all, |pattern| [pattern], host);
            assert_eq!(found.map(HostPattern::as_str), Some(chosen), "{host}");
        }
        assert_eq!(HostPattern::choose(&all[2..], |pattern| [pattern], "d.example"), None);
    }

    #[test]
    fn paths_are_compared_as_they_came() {
        check("/", "/", Some(&[]));
        check("/a", "/a", Some(&[]));
        check("/a", "/a/", None);
        check("/a", "/A", None);
        check("/a", "/%61", None);
        check("/a/", "/a/", Some(&[]));
        check("/a/b", "/a/./b", None);
        check("/*", "/", Some(&[("*", "")]));
        check("/*", "*", None);
        check("/docs/*", "/docs", Some(&[("*", "")]));
        check("/docs/*", "/docs/", Some(&[("*", "")]));
        check("/docs/*", "/docs//a/../b", Some(&[("*", "/a/../b")]));
        check("/docs/*", "/docsx", None);
        check("/old/:slug", "/old/a%20b", Some(&[("slug", "a%20b")]));
        check("/old/:slug", "/old/", None);
        check("/old/:slug", "/old/a/b", None);
        check("/:a/x/:b/*", "/1/x/2/3/4", Some(&[("a", "1"), ("b", "2"), ("*", "3/4")]));
        check("/a", "", None);
    }

    #[test]
    fn regular_expressions_are_not_anchored_and_cover_themselves() {
        check("~^/old/(?<slug>[a-z]+)$", "/old/a", Some(&[("slug", "a")]));
        check("~^/old/(?<slug>[a-z]+)$", "/old/1", None);
        check("~a", "/b/a/c", Some(&[]));
        let parse = |text: &str| PathPattern::parse(text).expect("a pattern");
        assert!(parse("/*").covers(&parse("~^/a")) && parse("~^/a").covers(&parse("~^/a")));
        assert!(!parse("~^/a").covers(&parse("/a")) && !parse("/a").covers(&parse("~^/a$")));
        assert_eq!(parse("~^/a").literal(), "");
        assert!(PathPattern::parse("~ä").is_err());
    }

    #[test]
    fn hosts_are_exact_or_one_label_more() {
        for (pattern, host, expected) in [
            ("App.Example.com.", "app.example.com", true),
            ("app.example.com", "www.app.example.com", false),
            ("*", "anything.at.all", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "aexample.com", false),
            ("[::1]", "[::1]", true),
            ("127.0.0.1", "127.0.0.1", true),
        ] {
            let pattern = HostPattern::parse(pattern).expect("a host");
            assert_eq!(pattern.matches(host), expected, "{} on {host}", pattern.as_str());
        }
    }

    fn pattern() -> impl Strategy<Value = String> {
        let segment = prop_oneof!["[ab]", ":[xyz]", Just("b.c".to_owned())];
        let rest = prop_oneof![Just(""), Just("/"), Just("/*")];
        let segments = (prop::collection::vec(segment, 1..4), rest)
            .prop_map(|(all, rest)| format!("/{}{rest}", all.join("/")));
        prop_oneof![8 => segments, 1 => "~[/ab.]{1,3}", 1 => Just("/*".to_owned())]
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_shown(text in pattern()) {
            let Ok(pattern) = PathPattern::parse(&text) else { return Ok(()) };
            prop_assert_eq!(&pattern.to_string(), &text);
            prop_assert_eq!(PathPattern::parse(&pattern.to_string()), Ok(pattern));
        }

        #[test]
        fn a_covered_pattern_is_never_reached(one in pattern(), other in pattern(), path in "/([ab]|b[.]c)?(/[abc]?){0,3}") {
            let (Ok(one), Ok(other)) = (PathPattern::parse(&one), PathPattern::parse(&other)) else {
                return Ok(());
            };
            if one.covers(&other) && other.matches(&path).is_some() {
                prop_assert!(one.matches(&path).is_some(), "{} before {} on {}", one, other, path);
            }
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,20}", path in "\\PC{0,20}") {
            if let Ok(pattern) = PathPattern::parse(&text) {
                let _matched = pattern.matches(&path);
            }
            if let Ok(host) = HostPattern::parse(&text) {
                prop_assert_eq!(HostPattern::parse(host.as_str()), Ok(host));
            }
        }
    }
}
