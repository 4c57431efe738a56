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
