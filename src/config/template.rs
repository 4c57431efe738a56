//! Texts with places that an event fills: `room:{0.room}`; pure.

use std::fmt;

/// A text with places in it.
///
/// Invariant: no two literals side by side, none of them empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub parts: Vec<TemplatePart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    Literal(String),
    /// `{user.FIELD}`: what the session's store knows of the user.
    User(String),
    /// `{0}`, `{0.field}`: what the client sent.
    Argument {
        index: usize,
        path: Vec<String>,
    },
    /// `{event}`: the event's name.
    Event,
    /// `{sid}`: the socket's id.
    Sid,
}

impl TemplatePart {
    /// True if the client chooses the value.
    pub fn is_client_data(&self) -> bool {
        matches!(self, Self::Argument { .. } | Self::Event)
    }

    fn parse(inside: &str) -> Result<Self, String> {
        match inside.split_once('.').unwrap_or((inside, "")) {
            ("event", "") => Ok(Self::Event),
            ("sid", "") => Ok(Self::Sid),
            ("user", field) if is_field(field) => Ok(Self::User(field.to_owned())),
            (index, _) if index.len() <= 2 && index.parse::<u8>().is_ok() => {
                let mut words = inside.split('.');
                let index = words.next().and_then(|index| index.parse().ok()).unwrap_or_default();
                let path: Vec<_> = words.map(str::to_owned).collect();
                if path.iter().all(|field| is_field(field)) {
                    return Ok(Self::Argument { index, path });
                }
                Err(wrong(inside))
            }
            _ => Err(wrong(inside)),
        }
    }
}

fn is_field(text: &str) -> bool {
    let letter =
        |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' || byte == b'$';
    !text.is_empty() && text.bytes().all(letter)
}

fn wrong(inside: &str) -> String {
    format!(
        "{{{inside}}} stands for nothing; {{user.id}}, {{0}}, {{0.field}}, {{event}} and {{sid}} do"
    )
}

impl Template {
    /// `{{` and `}}` stand for the braces themselves.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut letters = text.char_indices().peekable();
        while let Some((at, letter)) = letters.next() {
            let doubled = letters.peek().is_some_and(|(_, next)| *next == letter);
            match letter {
                '{' | '}' if doubled => {
                    literal.push(letter);
                    letters.next();
                }
                '{' => {
                    let after = text.get(at + 1..).unwrap_or_default();
                    let (inside, _) = after
                        .split_once('}')
                        .ok_or_else(|| format!("{text:?} has a {{ without }}"))?;
                    if !literal.is_empty() {
                        parts.push(TemplatePart::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(TemplatePart::parse(inside)?);
                    while letters.next().is_some_and(|(_, letter)| letter != '}') {}
                }
                '}' => return Err(format!("{text:?} has a }} without {{")),
                _ => literal.push(letter),
            }
        }
        if !literal.is_empty() {
            parts.push(TemplatePart::Literal(literal));
        }
        if parts.is_empty() { Err("is empty".to_owned()) } else { Ok(Self { parts }) }
    }

    /// The text before the first place, empty if it begins with one.
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(TemplatePart::Literal(literal)) => literal,
            _ => "",
        }
    }

    /// True if a client can choose a part of it.
    pub fn has_client_data(&self) -> bool {
        self.parts.iter().any(TemplatePart::is_client_data)
    }

    /// True if it is the same for everybody.
    pub fn is_literal(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, TemplatePart::Literal(_)))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                TemplatePart::Literal(text) => {
                    f.write_str(&text.replace('{', "{{").replace('}', "}}"))?;
                }
                TemplatePart::User(field) => write!(f, "{{user.{field}}}")?,
                TemplatePart::Argument { index, path } => {
                    write!(f, "{{{index}")?;
                    path.iter().try_for_each(|field| write!(f, ".{field}"))?;
                    f.write_str("}")?;
                }
                TemplatePart::Event => f.write_str("{event}")?,
                TemplatePart::Sid => f.write_str("{sid}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_found() {
        let literal = |text: &str| TemplatePart::Literal(text.to_owned());
        let argument = |index, path: &[&str]| TemplatePart::Argument {
            index,
            path: path.iter().map(|field| (*field).to_owned()).collect(),
        };
        for (text, parts) in [
            ("lobby", vec![literal("lobby")]),
            ("user:{user.id}", vec![literal("user:"), TemplatePart::User("id".to_owned())]),
            ("{0}{1.a.b}", vec![argument(0, &[]), argument(1, &["a", "b"])]),
            (
                "{event}/{sid}!",
                vec![TemplatePart::Event, literal("/"), TemplatePart::Sid, literal("!")],
            ),
            ("{{0}}", vec![literal("{0}")]),
        ] {
            assert_eq!(Template::parse(text), Ok(Template { parts }), "{text}");
        }
        for text in [
            "",
            "{",
            "}",
            "{}",
            "{0",
            "{0}}",
            "{ 0 }",
            "{-1}",
            "{100}",
            "{0.}",
            "{user}",
            "{user.}",
            "{User.id}",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_the_same(text in "([a:{}]|[{](0|1[.]a|event|sid|user[.]id)[}]){0,6}") {
            let Ok(template) = Template::parse(&text) else { return Ok(()) };
            prop_assert_eq!(Template::parse(&template.to_string()), Ok(template));
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,20}") {
            let _read = Template::parse(&text);
        }
    }
}
