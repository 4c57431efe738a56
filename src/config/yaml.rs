//! Prints a tree as YAML that our own reader, and any other, reads the same.

use std::fmt::{Display, Write as _};

/// What is printed.
#[derive(Clone)]
pub enum Yaml {
    Map(Vec<(String, Self)>),
    List(Vec<Self>),
    /// One value, quotes and all.
    Scalar(String),
}

impl Yaml {
    /// A text, quoted where it could be read as something else.
    pub fn text(text: impl Display) -> Self {
        Self::raw(text.to_string().replace("${", "$${"))
    }

    /// As `text`, but `${NAME}` in it means the variable.
    pub fn raw(text: impl Display) -> Self {
        Self::Scalar(quoted(&text.to_string()))
    }

    /// A number or a boolean.
    pub fn word(word: impl Display) -> Self {
        Self::Scalar(word.to_string())
    }

    pub fn texts(texts: impl IntoIterator<Item = impl Display>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }

    pub fn map<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Map(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// A mapping whose names are the operator's.
    pub fn named(entries: impl Iterator<Item = (String, Self)>) -> Self {
        Self::Map(
            entries.map(|(name, value)| (quoted(&name.replace("${", "$${")), value)).collect(),
        )
    }

    /// With one more entry, if there is one.
    pub fn with(mut self, name: &str, value: Option<Self>) -> Self {
        if let (Self::Map(entries), Some(value)) = (&mut self, value) {
            entries.push((name.to_owned(), value));
        }
        self
    }

    pub fn print(&self) -> String {
        let mut out = String::new();
        self.write(0, &mut out);
        out.trim_start().to_owned()
    }

    /// Writes the value behind its key, or behind nothing, up to the end of its last line.
    fn write(&self, indent: usize, out: &mut String) {
        match self {
            Self::Scalar(text) => out.extend([" ", text, "\n"]),
            Self::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
            Self::Map(entries) => {
                for (index, (name, value)) in entries.iter().enumerate() {
                    // The first line of a list's item stands behind its dash.
                    let behind_dash = index == 0 && out.ends_with('-');
                    let start = if behind_dash {
                        " ".to_owned()
                    } else {
                        let line = if out.ends_with('\n') { "" } else { "\n" };
                        format!("{line}{:indent$}", "")
                    };
                    out.extend([&start, name.as_str(), ":"]);
                    value.write(indent + 2, out);
                }
            }
            Self::List(items) => Self::write_list(items, indent, out),
        }
    }

    fn write_list(items: &[Self], indent: usize, out: &mut String) {
        let scalars: Vec<_> = items.iter().filter_map(Self::scalar).collect();
        if scalars.len() == items.len() {
            out.extend([" [", &scalars.join(", "), "]\n"]);
            return;
        }
        out.push('\n');
        for item in items {
            out.extend([&" ".repeat(indent), "-"]);
            item.write(indent + 2, out);
        }
    }

    fn scalar(&self) -> Option<&str> {
        match self {
            Self::Scalar(text) => Some(text),
            _ => None,
        }
    }
}

/// Plain only where no reader could take it for anything but this text.
fn quoted(text: &str) -> String {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let is_plain = text.bytes().all(letter)
        && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    // Durations and sizes begin with a digit and are words all the same.
    let is_measure = text.ends_with(|last: char| last.is_ascii_alphabetic())
        && text.starts_with(|first: char| first.is_ascii_digit())
        && text
            .trim_start_matches(|digit: char| digit.is_ascii_digit())
            .bytes()
            .all(|b| b"msdhKMGiB".contains(&b))
        && text.len() < 24;
    if is_plain || is_measure {
        return text.to_owned();
    }
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter
                if letter.is_control()
                    || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{feff}') =>
            {
                // The escape takes four hex digits; control characters have no more.
                let _written = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// Read as booleans or null by one version of YAML or another.
const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
