//! The namespaces that a client has asked for and has had no answer about; pure.
//!
//! Who comes in may take others a while to say. A client that leaves meanwhile, and may come again,
//! is taken at its last word when they have.

use std::cell::RefCell;
use std::sync::Arc;

use super::auth_data::AuthData;

/// Of one client: few, so they are looked through.
#[derive(Default)]
pub struct Arrivals(RefCell<Vec<(Arc<str>, Word)>>);

enum Word {
    /// With whoever decides.
    Waits,
    Leaves,
    ComesAgain(AuthData),
}

/// What is to be done when it is decided.
#[derive(Debug, PartialEq, Eq)]
pub struct Left {
    /// And has come again since, with this.
    pub again: Option<AuthData>,
}

impl Arrivals {
    /// From now on somebody decides whether it may come in.
    pub fn begin(&self, namespace: &Arc<str>) {
        self.0.borrow_mut().push((Arc::clone(namespace), Word::Waits));
    }

    /// That is decided, or the next one is asked.
    pub fn end(&self, namespace: &str) {
        self.0
            .borrow_mut()
            .retain(|(known, word)| known.as_ref() != namespace || !matches!(word, Word::Waits));
    }

    pub fn is_waiting(&self, namespace: &str) -> bool {
        let all = self.0.borrow();
        all.iter().any(|(known, word)| known.as_ref() == namespace && matches!(word, Word::Waits))
    }

    /// The client leaves. False if it is not on its way in, or has left.
    pub fn leave(&self, namespace: &str) -> bool {
        if !self.is_waiting(namespace) {
            return false;
        }
        let mut all = self.0.borrow_mut();
        let last = all.iter_mut().find_map(|(known, word)| {
            (known.as_ref() == namespace && !matches!(word, Word::Waits)).then_some(word)
        });
        match last {
            None => all.push((namespace.into(), Word::Leaves)),
            Some(Word::Leaves) => return false,
            Some(word) => *word = Word::Leaves,
        }
        true
    }

    /// The client connects again; no news from one that has not left.
    pub fn come_again(&self, namespace: &str, auth: AuthData) {
        let mut all = self.0.borrow_mut();
        let left = all
            .iter_mut()
            .find(|(known, word)| known.as_ref() == namespace && matches!(word, Word::Leaves));
        if let Some((_, word)) = left {
            *word = Word::ComesAgain(auth);
        }
    }

    /// What it has said since it asked, if that is decided and it has left.
    pub fn take_left(&self, namespace: &str) -> Option<Left> {
        if self.is_waiting(namespace) {
            return None;
        }
        let mut all = self.0.borrow_mut();
        let index = all.iter().position(|(known, _)| known.as_ref() == namespace)?;
        let again = match all.swap_remove(index).1 {
            Word::ComesAgain(auth) => Some(auth),
            Word::Waits | Word::Leaves => None,
        };
        Some(Left { again })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `0` is a CONNECT with the number of those so far, `1` a DISCONNECT that may be, `x` one that
    /// may not, `.` an answer after which the next is asked.
    fn said(words: &str) -> Option<Left> {
        let (arrivals, name) = (Arrivals::default(), Arc::from("/a"));
        arrivals.begin(&name);
        arrivals.begin(&Arc::from("/b"));
        for (number, word) in words.chars().enumerate() {
            match word {
                '0' => arrivals.come_again("/a", AuthData::new(&format!(r#"{{"n":{number}}}"#))),
                '.' => {
                    arrivals.end("/a");
                    arrivals.begin(&name);
                }
                word => assert_eq!(arrivals.leave("/a"), word == '1', "{words}"),
            }
            assert_eq!(arrivals.take_left("/a"), None, "it is not decided");
        }
        arrivals.end("/a");
        let left = arrivals.take_left("/a");
        assert!(!arrivals.is_waiting("/a") && arrivals.is_waiting("/b"));
        assert_eq!((arrivals.take_left("/a"), arrivals.leave("/a")), (None, false), "once");
        left
    }

    #[test]
    fn the_last_word_counts() {
        let left = |again: Option<&str>| Some(Left { again: again.map(AuthData::new) });
        for (words, wanted) in [
            ("", None),
            ("0", None),
            ("0.0", None),
            ("1", left(None)),
            ("1x", left(None)),
            ("1.x", left(None)),
            ("10", left(Some(r#"{"n":1}"#))),
            ("1.0", left(Some(r#"{"n":2}"#))),
            ("100", left(Some(r#"{"n":1}"#))),
            ("101", left(None)),
            ("101x0.0", left(Some(r#"{"n":4}"#))),
        ] {
            assert_eq!(said(words), wanted, "{words}");
        }
        assert!(!Arrivals::default().leave("/a"), "nobody has asked");
    }
}
