//! The reference of the language, in Markdown, made from the catalogue.

use std::fmt::Write as _;

use super::keys::{FILE, Key, Kind};

/// Every key in the order of proxy.yaml: its path, what may stand there, its default, and a sentence.
pub fn reference() -> String {
    let mut out = "| Key | Value | Default | |\n|---|---|---|---|\n".to_owned();
    rows(FILE, "", &mut out);
    out
}

fn rows(keys: &'static [Key], before: &str, out: &mut String) {
    for key in keys.iter().filter(|key| !matches!(key.kind, Kind::Later)) {
        let path = format!("{before}{}", key.name);
        let default =
            key.default.map_or_else(String::new, |default| format!("`{}`", cell(default)));
        let about = cell(key.about);
        // Writing to a String cannot fail.
        let _written = writeln!(out, "| `{path}` | {} | {default} | {about} |", value(&key.kind));
        below(&key.kind, &path, out);
    }
}

fn below(kind: &'static Kind, path: &str, out: &mut String) {
    match kind {
        Kind::Object(keys) | Kind::Short(_, keys) => rows(keys, &format!("{path}."), out),
        Kind::List(one) => below(one, &format!("{path}[]"), out),
        Kind::Map(named, one) => {
            let named = named.to_uppercase();
            below(one, &format!("{path}.{named}"), out);
        }
        Kind::Or(_, kind) => below(kind, path, out),
        _ => {}
    }
}

/// What may stand there, in words.
fn value(kind: &'static Kind) -> String {
    match kind {
        Kind::Flag => "true or false".to_owned(),
        Kind::Count => "number".to_owned(),
        Kind::Duration => "duration".to_owned(),
        Kind::Size => "size".to_owned(),
        Kind::Rate => "rate".to_owned(),
        Kind::Text => "text".to_owned(),
        Kind::Path => "path".to_owned(),
        Kind::Secret => "secret".to_owned(),
        Kind::Address => "address".to_owned(),
        Kind::Host => "host".to_owned(),
        Kind::Cidr => "addresses".to_owned(),
        Kind::Target => "target".to_owned(),
        Kind::PathPattern => "path pattern".to_owned(),
        Kind::Template => "template".to_owned(),
        Kind::Choice(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("`{}`", cell(word))).collect();
            words.join(", ")
        }
        Kind::List(one) => format!("list of: {}", value(one)),
        Kind::Object(_) => "keys".to_owned(),
        Kind::Short(main, _) => format!("keys, or `{main}` alone"),
        Kind::Map(named, one) => format!("by {named}: {}", value(one)),
        Kind::Or(word, kind) => format!("`{word}`, or {}", value(kind)),
        Kind::Later => String::new(),
    }
}

/// What a cell of a table may hold.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
