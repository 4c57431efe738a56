//! What is to be subscribed to, and what of it a connection has still to be told; pure.
//!
//! Only the difference is walked: a room more costs the same whether there are ten or a million.

use std::collections::HashSet;
use std::hash::Hash;

/// Of one connection. What it was told is what is wanted, but for the difference.
#[derive(Debug)]
pub struct Subscribed<T> {
    wanted: HashSet<T>,
    /// Wanted and not told, or told and not wanted any more.
    differs: HashSet<T>,
}

impl<T> Default for Subscribed<T> {
    fn default() -> Self {
        Self { wanted: HashSet::new(), differs: HashSet::new() }
    }
}

impl<T: Clone + Eq + Hash> Subscribed<T> {
    /// True if it was not wanted before.
    pub fn add(&mut self, name: T) -> bool {
        let is_new = self.wanted.insert(name.clone());
        if is_new {
            self.turn(name);
        }
        is_new
    }

    /// True if it was wanted before.
    pub fn remove(&mut self, name: &T) -> bool {
        let was = self.wanted.take(name);
        let is_gone = was.is_some();
        was.into_iter().for_each(|name| self.turn(name));
        is_gone
    }

    pub fn wants(&self, name: &T) -> bool {
        self.wanted.contains(name)
    }

    pub fn wanted(&self) -> impl Iterator<Item = &T> {
        self.wanted.iter()
    }

    /// A new connection, which has been told nothing.
    pub fn begin(&mut self) {
        self.differs.clone_from(&self.wanted);
    }

    /// What to tell it: a name, and whether that is wanted. It counts as told.
    pub fn take(&mut self) -> Vec<(T, bool)> {
        let differs = std::mem::take(&mut self.differs);
        let tell = |name: T| {
            let is_wanted = self.wanted.contains(&name);
            (name, is_wanted)
        };
        differs.into_iter().map(tell).collect()
    }

    fn turn(&mut self, name: T) {
        if !self.differs.remove(&name) {
            self.differs.insert(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Add(u8),
        Remove(u8),
        Begin,
        Take,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0u8..20).prop_map(Step::Add),
            4 => (0u8..20).prop_map(Step::Remove),
            1 => Just(Step::Begin),
            2 => Just(Step::Take),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// As whoever walks all that is wanted and all that was told each time.
        #[test]
        fn a_connection_is_told_what_is_wanted(steps in steps()) {
            let mut subscribed = Subscribed::default();
            let (mut wanted, mut told) = (HashSet::new(), HashSet::new());
            for step in steps {
                match step {
                    Step::Add(name) => prop_assert_eq!(subscribed.add(name), wanted.insert(name)),
                    Step::Remove(name) => {
                        prop_assert_eq!(subscribed.remove(&name), wanted.remove(&name));
                    }
                    Step::Begin => {
                        subscribed.begin();
                        told.clear();
                    }
                    Step::Take => {
                        let all = subscribed.take();
                        for (name, is_wanted) in &all {
                            // Nothing is said twice.
                            let is_news =
                                if *is_wanted { told.insert(*name) } else { told.remove(name) };
                            prop_assert!(is_news, "{} {}", name, is_wanted);
                        }
                        prop_assert_eq!(&told, &wanted);
                        prop_assert!(subscribed.take().is_empty());
                    }
                }
                prop_assert!(subscribed.differs.len() <= wanted.len() + told.len());
            }
            prop_assert!(subscribed.wanted().all(|name| wanted.contains(name)));
            prop_assert_eq!(subscribed.wanted().count(), wanted.len());
        }
    }
}
