//! Whether anybody here is in a room: asked of each message that comes in, before it is read.
//!
//! A table of counters that all workers count in, without a lock: a room that has a counter of zero
//! has no member. Two rooms may share a counter; then now and then something is read for nobody.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Interest(Box<[AtomicU32]>);

/// 256 KiB; with as many rooms two of three messages for nobody are read.
const COUNTERS: usize = 1 << 16;

impl Default for Interest {
    fn default() -> Self {
        Self((0..COUNTERS).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Interest {
    fn counter(&self, namespace: &str, room: Option<&str>) -> Option<&AtomicU32> {
        let mut hasher = DefaultHasher::new();
        (namespace, room).hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % COUNTERS as u64).unwrap_or_default();
        self.0.get(index)
    }

    /// Somebody is in the room now, or, without one, in the namespace.
    pub fn begin(&self, namespace: &str, room: Option<&str>) {
        self.counter(namespace, room).inspect(|count| {
            count.fetch_add(1, Ordering::Release);
        });
    }

    /// As often as `begin`.
    pub fn end(&self, namespace: &str, room: Option<&str>) {
        self.counter(namespace, room).inspect(|count| {
            count.fetch_sub(1, Ordering::Release);
        });
    }

    /// False if certainly nobody is there.
    pub fn is_any(&self, namespace: &str, room: Option<&str>) -> bool {
        self.counter(namespace, room).is_none_or(|count| count.load(Ordering::Acquire) > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_counted() {
        let interest = Interest::default();
        assert!(!interest.is_any("/", Some("a")) && !interest.is_any("/", None));
        interest.begin("/", Some("a"));
        interest.begin("/", Some("a"));
        interest.begin("/", None);
        assert!(interest.is_any("/", Some("a")) && interest.is_any("/", None));
        assert!(!interest.is_any("/chat", Some("a")) && !interest.is_any("/", Some("b")));
        interest.end("/", Some("a"));
        assert!(interest.is_any("/", Some("a")));
        interest.end("/", Some("a"));
        assert!(!interest.is_any("/", Some("a")) && interest.is_any("/", None));
    }
}
