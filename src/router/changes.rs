//! What becomes of a request's headers on its way, and why.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::exchange::headers::Witness;

/// Looks on while a request is made the one that is sent.
#[derive(Debug)]
pub struct Changes {
    first: HeaderMap,
    last: HeaderMap,
    /// For each that was changed, the last reason.
    why: Vec<(HeaderName, &'static str)>,
}

/// A header that an upstream gets and the client has not sent, or not so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Added {
    pub name: String,
    pub value: String,
    pub why: &'static str,
}

/// A header of the client's that the upstream does not get.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Removed {
    pub name: String,
    pub why: &'static str,
}

impl Witness for Changes {
    fn see(&mut self, why: &'static str, headers: &HeaderMap) {
        let all = self.last.keys().chain(headers.keys());
        let changed = all.filter(|name| !same(&self.last, headers, name)).cloned();
        for name in changed.collect::<Vec<_>>() {
            self.why.retain(|(known, _)| *known != name);
            self.why.push((name, why));
        }
        self.last.clone_from(headers);
    }
}

impl Changes {
    /// These are the client's.
    pub fn of(headers: &HeaderMap) -> Self {
        Self { first: headers.clone(), last: headers.clone(), why: Vec::new() }
    }

    /// What the client has sent of this name.
    pub fn first(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.first.get(name)
    }

    /// All of them in the order of their names. What was taken away and came back as it was is none.
    pub fn told(&self) -> (Vec<Added>, Vec<Removed>) {
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for (name, why) in &self.why {
            if same(&self.first, &self.last, name) {
                continue;
            }
            if !self.last.contains_key(name) {
                removed.push(Removed { name: name.to_string(), why });
            }
            let values = self.last.get_all(name).iter();
            added.extend(values.map(|value| Added {
                name: name.to_string(),
                value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
                why,
            }));
        }
        added.sort();
        removed.sort();
        (added, removed)
    }
}

fn same(one: &HeaderMap, other: &HeaderMap, name: &HeaderName) -> bool {
    one.get_all(name).iter().eq(other.get_all(name).iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reason_counts_and_what_came_back_is_no_change() {
        let value = HeaderValue::from_static;
        let mut headers = HeaderMap::new();
        headers.insert("te", value("trailers"));
        headers.insert("cookie", value("a=1"));
        headers.append("cookie", value("b=2"));
        headers.insert("x-gone", value("1"));
        headers.insert("x-stays", value("1"));
        let mut changes = Changes::of(&headers);
        headers.remove("te");
        headers.remove("x-gone");
        changes.see("one hop", &headers);
        headers.insert("cookie", value("a=1; b=2"));
        changes.see("one line", &headers);
        headers.insert("te", value("trailers"));
        headers.insert("x-new", value("1"));
        changes.see("trailers", &headers);
        headers.insert("x-new", value("2"));
        changes.see("rules", &headers);
        let (added, removed) = changes.told();
        let added: Vec<_> = added.iter().map(|one| (&*one.name, &*one.value, one.why)).collect();
        assert_eq!(added, [("cookie", "a=1; b=2", "one line"), ("x-new", "2", "rules")]);
        let removed: Vec<_> = removed.iter().map(|one| (&*one.name, one.why)).collect();
        assert_eq!(removed, [("x-gone", "one hop")]);
    }
}
