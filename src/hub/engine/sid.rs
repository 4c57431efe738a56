//! Session ids: where a session lives, and a secret.

use std::fmt;

use aws_lc_rs::{constant_time, rand};

use super::request::Query;

pub const ALPHABET: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";

/// Workers that an id can name.
pub const WORKERS_MAX: usize = ALPHABET.len();

/// 20 characters `[A-Za-z0-9_-]`, as the tools of Node's Socket.IO expect them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 20]);

/// One process among those that share an audience: three characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Node([u8; 3]);

impl Node {
    /// Another one each time; 262,144 of them.
    pub fn random() -> Self {
        let mut node = [0; 3];
        fill(&mut node);
        Self(node)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 3] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|byte| ALPHABET.contains(byte)).then_some(Self(bytes))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The one that the session lives on which the query of a request names.
    pub fn of_query(query: &str) -> Option<Self> {
        Query::parse(query).id?.ok().map(|id| id.node())
    }
}

impl Id {
    /// A public name: 120 random bits.
    pub fn random() -> Self {
        let mut id = [0; 20];
        fill(&mut id);
        Self(id)
    }

    /// A session's secret name: three characters for the node, one for the worker, 96 random bits.
    pub fn of_session(node: Node, worker: usize) -> Self {
        let mut id = Self::random();
        let place = node.0.iter().chain(ALPHABET.get(worker % WORKERS_MAX));
        for (byte, named) in id.0.iter_mut().zip(place) {
            *byte = *named;
        }
        id
    }

    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 20] = text.as_bytes().try_into().ok()?;
        let valid = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        bytes.iter().all(valid).then_some(Self(bytes))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The part that a secret id is found by; the rest is to be compared with `is_same_secret`.
    pub fn locator(&self) -> [u8; 12] {
        self.0.first_chunk().copied().unwrap_or_default()
    }

    /// Compares in a time that says nothing of how much is the same.
    pub fn is_same_secret(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }

    /// The node that made a session's id.
    pub fn node(&self) -> Node {
        let [a, b, c, ..] = self.0;
        Node([a, b, c])
    }

    /// The worker of its node on which a session lives.
    pub fn worker(&self) -> usize {
        let [_, _, _, worker, ..] = self.0;
        ALPHABET.iter().position(|byte| *byte == worker).unwrap_or_default()
    }
}

impl Id {
    /// Which worker of this node knows where a socket is: the one that made its secret, or one that
    /// stands for the worker of a process before this one.
    pub fn maker(&self, node: Node, workers: usize) -> usize {
        if self.node() == node { self.worker() } else { self.worker() % workers.max(1) }
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // As below.
    rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// Six random bits a character.
fn fill(characters: &mut [u8]) {
    // The generator is seeded by the kernel at start; there is nothing sensible to do without it.
    rand::fill(characters).expect("the system gives random bytes");
    for byte in characters {
        *byte = ALPHABET.get(usize::from(*byte & 63)).copied().unwrap_or(b'0');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_names_its_place() {
        let node = Node::random();
        for worker in [0, 1, 9, 63] {
            let id = Id::of_session(node, worker);
            assert_eq!((id.node(), id.worker()), (node, worker));
            assert_eq!(Id::parse(id.as_str()), Some(id));
        }
        assert_ne!(Id::of_session(node, 0), Id::of_session(node, 0));
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in [
            "",
            "short",
            "exactly twenty chars",
            "aaaaaaaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaaaaa\u{e9}",
        ] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }
}
