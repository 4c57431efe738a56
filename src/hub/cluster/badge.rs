//! What nodes know each other by: words that only who has the cluster's secret can write.
//!
//! The secret itself never leaves a node. What opens one process's door opens no other's, and
//! nothing once that process has ended: its name is another at each start.

use std::fmt::Write as _;

use aws_lc_rs::{constant_time, hmac};

use crate::config::Secret;
use crate::hub::engine::Node;

/// Made from the secret; signs words.
pub struct Seal(hmac::Key);

impl Seal {
    pub fn new(secret: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()))
    }

    /// What requests to this node show.
    pub fn badge(&self, node: Node) -> String {
        self.sign(&["vestibule request", node.as_str()])
    }

    /// What a node says of itself in Redis: under which name it talks there, and where it is
    /// reached.
    pub fn entry(&self, node: Node, uid: &str, address: &str) -> String {
        let signed = self.sign(&["vestibule node", node.as_str(), uid, address]);
        format!("{uid} {address} {signed}")
    }

    /// The address of an entry that somebody with the secret has written.
    pub fn read_entry<'a>(&self, node: Node, entry: &'a str) -> Option<&'a str> {
        let (rest, signed) = entry.rsplit_once(' ')?;
        let (uid, address) = rest.split_once(' ')?;
        let wanted = self.sign(&["vestibule node", node.as_str(), uid, address]);
        is_same(&wanted, signed.as_bytes()).then_some(address)
    }

    fn sign(&self, words: &[&str]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        for word in words {
            context.update(word.as_bytes());
            context.update(b"\n");
        }
        context.sign().as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _written = write!(text, "{byte:02x}");
            text
        })
    }
}

/// Compares in a time that says nothing of how much is the same.
pub fn is_same(wanted: &str, shown: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(wanted.as_bytes(), shown).is_ok()
}

/// The name under which an entry's node talks over Redis, whoever wrote it.
pub fn uid_of(entry: &str) -> Option<&str> {
    entry.split(' ').next().filter(|uid| !uid.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(secret: &str) -> Seal {
        Seal::new(&Secret::new(secret.to_owned(), None))
    }

    #[test]
    fn only_who_has_the_secret_names_an_address() {
        let (ours, theirs) = (seal("0123456789abcdef"), seal("0123456789abcdeg"));
        let (node, other) = (Node::random(), Node::random());
        let entry = ours.entry(node, "uid", "10.0.0.1:7420");
        assert_eq!(ours.read_entry(node, &entry), Some("10.0.0.1:7420"));
        assert_eq!(uid_of(&entry), Some("uid"));
        assert_eq!(theirs.read_entry(node, &entry), None);
        assert_eq!(ours.read_entry(other, &entry), None);
        for text in ["", " ", "uid", "uid -", "uid 10.0.0.1:7420 ", "uid 10.0.0.1:7420 00"] {
            assert_eq!(ours.read_entry(node, text), None, "{text:?}");
        }
        let moved = entry.replace("10.0.0.1", "10.0.0.2");
        assert_eq!(ours.read_entry(node, &moved), None);
    }

    #[test]
    fn what_opens_one_door_opens_no_other() {
        let seal = seal("0123456789abcdef");
        let (node, other) = (Node::random(), Node::random());
        assert!(is_same(&seal.badge(node), seal.badge(node).as_bytes()));
        assert!(!is_same(&seal.badge(node), seal.badge(other).as_bytes()));
        assert!(!is_same(&seal.badge(node), b""));
    }
}
