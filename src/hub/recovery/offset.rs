//! Where a message stands in what clients were sent: the last argument of an event; pure.
//!
//! Written `NODEw.NUMBER`: the process, the worker on which the message began, and its number there.

use crate::hub::engine::{ALPHABET, Node};

/// One message among all of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The worker on which it began.
    pub origin: u8,
    /// From 1, and rising.
    pub number: u64,
}

/// A stamp as a client has it, who may have been another process's before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    pub node: Node,
    pub stamp: Stamp,
}

/// Digits of a number: 6 bits each.
const DIGITS_MAX: usize = 10;

impl Offset {
    /// `None` for what no process of ours has written.
    pub fn parse(text: &str) -> Option<Self> {
        let (place, digits) = text.split_once('.')?;
        let (node, origin) = place.split_at_checked(3)?;
        let &[origin] = origin.as_bytes() else { return None };
        if digits.is_empty() || digits.len() > DIGITS_MAX || digits.starts_with('0') {
            return None;
        }
        let number = digits.bytes().try_fold(0, |sum, digit| Some(sum << 6 | value(digit)?))?;
        let origin = u8::try_from(value(origin)?).ok()?;
        Some(Self { node: Node::parse(node)?, stamp: Stamp { origin, number } })
    }

    fn write(self, to: &mut String) {
        let Stamp { origin, number } = self.stamp;
        to.push_str(self.node.as_str());
        to.push(letter(u64::from(origin)));
        to.push('.');
        let digits = number.checked_ilog2().map_or(1, |bits| bits / 6 + 1);
        (0..digits).rev().for_each(|digit| to.push(letter(number >> (6 * digit))));
    }

    /// An event's array with the offset as its last element.
    pub fn append(self, data: &str) -> String {
        let mut longer = String::with_capacity(data.len() + 24);
        longer.push_str(data.trim_end().strip_suffix(']').unwrap_or(data));
        longer.push_str(",\"");
        self.write(&mut longer);
        longer.push_str("\"]");
        longer
    }
}

fn letter(number: u64) -> char {
    let index = usize::try_from(number & 63).unwrap_or_default();
    ALPHABET.get(index).copied().map_or('0', char::from)
}

fn value(letter: u8) -> Option<u64> {
    ALPHABET.iter().position(|known| *known == letter).map(|index| index as u64)
}

/// Whether clients would take the event's last element for an offset: they do so with any text.
pub fn ends_in_text(data: &str) -> bool {
    let data = data.trim_end();
    data.strip_suffix(']').unwrap_or(data).trim_end().ends_with('"')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node() -> Node {
        Node::parse("aB-").expect("a node")
    }

    #[test]
    fn it_is_appended_as_the_last_element() {
        let offset = Offset { node: node(), stamp: Stamp { origin: 1, number: 64 } };
        assert_eq!(offset.append(r#"["hi",1]"#), r#"["hi",1,"aB-1.10"]"#);
        assert_eq!(offset.append("[\"hi\" ]\n"), r#"["hi" ,"aB-1.10"]"#);
    }

    #[test]
    fn what_clients_would_take_for_one() {
        for data in [r#"["hi"]"#, r#"["hi",1,"x"]"#, "[\"hi\" ] "] {
            assert!(ends_in_text(data), "{data}");
        }
        for data in [r#"["hi",1]"#, r#"["hi",["x"]]"#, r#"["hi",{"a":"b"}]"#, r#"["hi",null]"#] {
            assert!(!ends_in_text(data), "{data}");
        }
    }

    #[test]
    fn other_texts_are_none() {
        for text in [
            "",
            "abc",
            "aB-1",
            "aB-1.",
            "aB-.1",
            "aB-11.1",
            "aB-1.01",
            "aB-1.0",
            "aB-1. ",
            "a.1",
            "aB-1.1.1",
            "\u{e9}B1.1",
            "aB-1.zzzzzzzzzzz",
            "Q85yHZ_",
            "1700000000000-0",
        ] {
            assert_eq!(Offset::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_reads_what_it_writes(origin in 0u8..64, number in 1u64..1 << 60) {
            let offset = Offset { node: node(), stamp: Stamp { origin, number } };
            let data = offset.append("[1]");
            let text = data.strip_prefix("[1,\"").and_then(|rest| rest.strip_suffix("\"]"));
            prop_assert_eq!(Offset::parse(text.expect("quoted")), Some(offset));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,20}|[0-9A-Za-z_-]{4}\\.[0-9A-Za-z_-]{0,12}") {
            let _read = Offset::parse(&text);
        }
    }
}
