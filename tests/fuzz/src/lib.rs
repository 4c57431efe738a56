//! JSON as hostile clients write it: right in its syntax, odd in everything else.

use std::fmt::{self, Display, Formatter};

use arbitrary::Arbitrary;

/// One value.
#[derive(Debug, Arbitrary)]
pub enum Json {
    Null,
    Flag(bool),
    Number(f64),
    /// No number of ours, but one of JSON's.
    Huge,
    Text(String),
    /// Half a surrogate pair, which JavaScript writes.
    Half,
    List(Vec<Self>),
    Map(Vec<(Name, Self)>),
    Placeholder(u8),
    Binary(Vec<u8>),
    /// A value in so many lists.
    Deep(u8, Box<Self>),
}

/// A field's name: one that means something, or another.
#[derive(Debug, Arbitrary)]
pub enum Name {
    From,
    /// The same, but for who only looks.
    FromEscaped,
    As,
    Room,
    Placeholder,
    Number,
    Binary,
    Other(String),
}

impl Display for Json {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => out.write_str("null"),
            Self::Flag(flag) => flag.fmt(out),
            Self::Number(number) if number.is_finite() => number.fmt(out),
            Self::Number(_) | Self::Huge => out.write_str("1e999"),
            Self::Text(text) => write_text(text, out),
            Self::Half => out.write_str(r#""\ud83d""#),
            Self::List(values) => write_all(values, ["[", "]"], out, Json::fmt),
            Self::Map(fields) => write_all(fields, ["{", "}"], out, |(name, value), out| {
                write!(out, "{name}: {value}")
            }),
            Self::Placeholder(number) => write!(out, r#"{{"_placeholder":true,"num":{number}}}"#),
            Self::Binary(data) => {
                // Three zero bits at the end at most: always right base64.
                let letters = data.iter().map(|byte| char::from(b'A' + byte % 26));
                let letters: String = letters.take(data.len() / 4 * 4).collect();
                write!(out, r#"{{"$binary":"{letters}"}}"#)
            }
            Self::Deep(depth, inside) => {
                let depth = usize::from(*depth);
                write!(out, "{}{inside}{}", "[".repeat(depth), "]".repeat(depth))
            }
        }
    }
}

impl Display for Name {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::From => r#""from""#,
            Self::FromEscaped => r#""\u0066rom""#,
            Self::As => r#""as""#,
            Self::Room => r#""room""#,
            Self::Placeholder => r#""_placeholder""#,
            Self::Number => r#""num""#,
            Self::Binary => r#""$binary""#,
            Self::Other(text) => return write_text(text, out),
        })
    }
}

fn write_text(text: &str, out: &mut Formatter<'_>) -> fmt::Result {
    out.write_str("\"")?;
    for letter in text.chars() {
        match letter {
            '"' | '\\' => write!(out, "\\{letter}")?,
            '\0'..'\x20' => write!(out, "\\u{:04x}", u32::from(letter))?,
            letter => write!(out, "{letter}")?,
        }
    }
    out.write_str("\"")
}

fn write_all<T>(
    items: &[T],
    [begin, end]: [&str; 2],
    out: &mut Formatter<'_>,
    write: impl Fn(&T, &mut Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    out.write_str(begin)?;
    for (place, item) in items.iter().enumerate() {
        out.write_str(if place > 0 { "," } else { "" })?;
        write(item, out)?;
    }
    out.write_str(end)
}
