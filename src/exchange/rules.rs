//! Changes to the headers of a message that the operator has written down.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// What is removed, then set, then added.
#[derive(Debug, Clone, Default)]
pub struct HeaderRules {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderRules {
    /// What is no name, or no value, is left out: the words are checked before.
    pub fn new(remove: &[String], set: &[(String, String)], add: &[(String, String)]) -> Self {
        let pairs = |pairs: &[(String, String)]| {
            let pair = |(name, value): &(String, String)| {
                Some((name.parse().ok()?, HeaderValue::from_str(value).ok()?))
            };
            pairs.iter().filter_map(pair).collect()
        };
        let remove = remove.iter().filter_map(|name| name.parse().ok()).collect();
        Self { remove, set: pairs(set), add: pairs(add) }
    }

    /// True if nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Each change in words.
    pub fn words(&self) -> Vec<String> {
        let value = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let pairs = |word: &str, pairs: &[(HeaderName, HeaderValue)]| {
            let words = pairs.iter().map(|(name, text)| format!("{word} {name}: {}", value(text)));
            words.collect::<Vec<_>>()
        };
        let removed = self.remove.iter().map(|name| format!("remove {name}"));
        removed.chain(pairs("set", &self.set)).chain(pairs("add", &self.add)).collect()
    }

    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}
