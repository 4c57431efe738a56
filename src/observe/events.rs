//! One JSON line for what happens in the hub, by kind; nothing is made of a kind nobody wants.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use serde::Serialize;

use super::lines;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Connect,
    Disconnect,
    Event,
    Deny,
}

/// One bit for each kind.
static WANTED: AtomicU8 = AtomicU8::new(0);

impl Kind {
    fn bit(self) -> u8 {
        1 << self as u8
    }

    pub fn is_wanted(self) -> bool {
        WANTED.load(Ordering::Relaxed) & self.bit() != 0
    }
}

/// From now on these kinds are written, and no others.
pub fn set_wanted(kinds: impl IntoIterator<Item = Kind>) {
    let bits = kinds.into_iter().fold(0, |bits, kind| bits | kind.bit());
    WANTED.store(bits, Ordering::Relaxed);
}

/// What is told. Names that a client chose are cut to `NAME_MAX`.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    pub time: String,
    pub kind: Kind,
    pub namespace: &'a str,
    /// The socket's public id; the session's is a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<&'a str>,
    pub client: IpAddr,
    pub transport: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// Bytes of a name in a line.
const NAME_MAX: usize = 128;

impl<'a> Line<'a> {
    pub fn new(kind: Kind, namespace: &'a str, client: IpAddr, transport: &'static str) -> Self {
        let time = lines::time(SystemTime::now());
        Self { time, kind, namespace, sid: None, client, transport, event: None, reason: None }
    }

    pub fn write(mut self) {
        self.namespace = cut(self.namespace);
        self.event = self.event.map(cut);
        lines::write(&self);
    }
}

fn cut(name: &str) -> &str {
    name.get(..name.floor_char_boundary(NAME_MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(cut("/chat"), "/chat");
        let long = "\u{20ac}".repeat(100);
        assert_eq!(cut(&long), "\u{20ac}".repeat(42));
    }

    #[test]
    fn a_line_has_what_is_known() {
        let mut line = Line::new(Kind::Deny, "/chat", [127, 0, 0, 1].into(), "polling");
        line.time = "now".to_owned();
        line.reason = Some("denied");
        let text = serde_json::to_string(&line).expect("JSON");
        let expected = r#"{"time":"now","kind":"deny","namespace":"/chat","client":"127.0.0.1","transport":"polling","reason":"denied"}"#;
        assert_eq!(text, expected);
    }
}
