//! The JSON Schema of the language and its reference, made from the catalogue.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value, json};

use super::keys::{FILE, Key, Kind};

/// JSON Schema, draft 2020-12: editors complete and check by it.
pub fn schema() -> String {
    let mut schema = object(FILE);
    if let Value::Object(fields) = &mut schema {
        fields.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        fields.insert("title".to_owned(), json!("proxy.yaml of Vestibule"));
    }
    format!("{schema:#}")
}

fn object(keys: &'static [Key]) -> Value {
    let built = keys.iter().filter(|key| !matches!(key.kind, Kind::Later));
    let properties: Map<_, _> = built.map(|key| (key.name.to_owned(), property(key))).collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn property(key: &'static Key) -> Value {
    let mut schema = kind(&key.kind);
    if let Value::Object(fields) = &mut schema {
        fields.insert("description".to_owned(), json!(key.about));
        if let Some(default) = key.default {
            fields.insert("default".to_owned(), written(&key.kind, default));
        }
    }
    schema
}

fn kind(kind: &'static Kind) -> Value {
    match kind {
        Kind::Flag => or_variable(&json!({ "type": "boolean" })),
        Kind::Count => or_variable(&json!({ "type": "integer", "minimum": 0 })),
        Kind::Duration => pattern(r"^[0-9]+(ms|s|m|h|d|y)$", &["10s", "250ms", "1m"]),
        Kind::Size => pattern(r"^[0-9]+(B|kB|KB|KiB|MB|MiB|GB|GiB)$", &["10MB", "64KiB"]),
        Kind::ByteRate => pattern(r"^[0-9]+(B|kB|KB|KiB|MB|MiB|GB|GiB)/s$", &["240B/s", "10KB/s"]),
        Kind::Rate => pattern(r"^[0-9]+/(s|m|h)$", &["50/s", "600/m"]),
        Kind::Address => pattern(r"^(\S+)?:[0-9]+$", &[":80", "127.0.0.1:8080"]),
        Kind::Target => pattern(r"^(http://|unix:)\S+$", &["http://127.0.0.1:3000"]),
        Kind::PathPattern => {
            pattern(r"^(/\S*|~.+)$", &["/prefix/*", "/old/:slug", "~^/old/[0-9]+$"])
        }
        Kind::Cidr => json!({ "type": "string", "examples": ["10.0.0.0/8"] }),
        Kind::Template => json!({ "type": "string", "examples": ["room:{0}"] }),
        Kind::Text | Kind::Path | Kind::Secret | Kind::Host => {
            json!({ "type": ["string", "number"] })
        }
        Kind::Choice(words) => choice(words),
        Kind::List(one) => {
            let one = self::kind(one);
            json!({ "anyOf": [{ "type": "array", "items": one }, one] })
        }
        Kind::Object(keys) => object(keys),
        Kind::Short(main, keys) => {
            let main = keys.iter().find(|key| key.name == *main).map(|key| self::kind(&key.kind));
            json!({ "anyOf": [object(keys), main] })
        }
        Kind::Map(named, value) => json!({
            "type": "object",
            "propertyNames": { "title": named },
            "additionalProperties": self::kind(value),
        }),
        Kind::Or(word, kind) => json!({ "anyOf": [{ "const": word }, self::kind(kind)] }),
        Kind::Later => Value::Bool(false),
    }
}

/// Words, and the numbers that some of them are to other readers of YAML.
fn choice(words: &[&str]) -> Value {
    let numbers = words.iter().filter_map(|word| serde_json::from_str::<Number>(word).ok());
    let words = words.iter().map(|word| Value::from(*word));
    or_variable(&json!({ "enum": words.chain(numbers.map(Value::Number)).collect::<Vec<_>>() }))
}

fn pattern(pattern: &str, examples: &[&str]) -> Value {
    or_variable(&json!({ "type": "string", "pattern": pattern, "examples": examples }))
}

/// Any scalar may be taken from the environment.
fn or_variable(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "type": "string", "pattern": r"\$\{" }] })
}

/// A default as JSON.
fn written(kind: &Kind, default: &str) -> Value {
    match (kind, default) {
        (Kind::List(_), list) => {
            serde_json::from_str(&list.replace('\'', "\"")).unwrap_or_default()
        }
        (_, "{}") => json!({}),
        (Kind::Flag, flag) => json!(flag == "true"),
        (Kind::Count, count) => count.parse::<u64>().map_or(Value::Null, Value::from),
        _ => json!(default),
    }
}

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
        Kind::ByteRate => "bytes a second".to_owned(),
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
