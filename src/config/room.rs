//! Rooms by name or by the beginning of it: `lobby`, `room:*`; pure.

use std::fmt;

use super::Template;

/// One room, or all whose names begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomPattern {
    Exact(String),
    Prefix(String),
}

impl RoomPattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, pattern) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, Self::Prefix(prefix.to_owned())),
            None => (text, Self::Exact(text.to_owned())),
        };
        if text.is_empty() || name.contains('*') {
            return Err(format!(
                "{text:?} names no rooms; write lobby, or room:* for all of a kind"
            ));
        }
        Ok(pattern)
    }

    pub fn matches(&self, room: &str) -> bool {
        match self {
            Self::Exact(name) => name == room,
            Self::Prefix(prefix) => room.starts_with(prefix),
        }
    }

    /// True if it matches every room that the template can name.
    pub fn covers(&self, template: &Template) -> bool {
        match self {
            Self::Exact(name) => template.is_literal() && template.prefix() == name,
            Self::Prefix(prefix) => template.prefix().starts_with(prefix),
        }
    }
}

impl fmt::Display for RoomPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_the_rest_of_a_name() {
        for (pattern, room, matches) in [
            ("lobby", "lobby", true),
            ("lobby", "lobby2", false),
            ("room:*", "room:", true),
            ("room:*", "room:a", true),
            ("room:*", "roo", false),
            ("*", "anything", true),
        ] {
            let parsed = RoomPattern::parse(pattern).expect(pattern);
            assert_eq!(parsed.matches(room), matches, "{pattern} {room}");
            assert_eq!(parsed.to_string(), pattern);
        }
        for text in ["", "a*b", "**", "*a"] {
            assert!(RoomPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_template_is_covered_whatever_fills_it() {
        for (pattern, template, covers) in [
            ("room:*", "room:{0}", true),
            ("room:*", "room:x:{0}", true),
            ("room:*", "{0}", false),
            ("room:*", "r{0}", false),
            ("lobby", "lobby", true),
            ("lobby", "lobby{0}", false),
        ] {
            let template = Template::parse(template).expect("a template");
            let pattern = RoomPattern::parse(pattern).expect("a pattern");
            assert_eq!(pattern.covers(&template), covers, "{pattern} {template}");
        }
    }
}
