//! What nodes of this program tell each other beside events: whose connections there are, who is in
//! watched rooms, which sessions have ended; pure. Node's servers do not listen to it.

use serde::{Deserialize, Serialize};

/// One message: what has changed since the one before, or a part of all that there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Whisper {
    pub from: String,
    /// Rises by one with each message that changes something.
    pub number: u64,
    /// Which part of all, and of how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<(u32, u32)>,
    /// Everybody is to say all again: something was missed.
    #[serde(skip_serializing_if = "is_false")]
    pub asks: bool,
    /// Users, and how many connections more (or fewer) each has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seats: Vec<(u64, i64)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Moved>,
    /// A session's digest; whether it has been replaced; whether nobody can be asked about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suspects: Vec<([u8; 32], bool, bool)>,
    /// Until when each of them is refused, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub until: Vec<i64>,
}

/// Namespace, room, socket, whether it is there, and whose it is: the user's number and id.
pub type Moved = (String, String, String, bool, Option<(u64, String)>);

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's own form")]
fn is_false(asks: &bool) -> bool {
    !asks
}

impl Whisper {
    pub fn read(data: &[u8]) -> Option<Self> {
        serde_json::from_slice(data).ok()
    }

    pub fn write(&self) -> Vec<u8> {
        // It has no map keys or floats that JSON could refuse.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.seats.is_empty() && self.moves.is_empty() && self.suspects.is_empty()
    }

    pub fn len(&self) -> usize {
        self.seats.len() + self.moves.len() + self.suspects.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let user = Some((u64::MAX, "anna".to_owned()));
        let moved = ("/".to_owned(), "a".to_owned(), "id".to_owned(), true, user);
        let whisper = Whisper {
            from: "me".to_owned(),
            number: 7,
            part: Some((0, 2)),
            asks: true,
            seats: vec![(u64::MAX, -1)],
            moves: vec![moved],
            suspects: vec![([255; 32], true, false)],
            until: vec![1_800_000_000_000],
        };
        assert_eq!(Whisper::read(&whisper.write()), Some(whisper));
        let beat = Whisper { from: "me".to_owned(), number: 1, ..Whisper::default() };
        assert_eq!(beat.write(), br#"{"from":"me","number":1}"#);
        for text in ["", "[]x", "1", r#"{"from":1}"#, r#"{"seats":[[1]]}"#] {
            assert_eq!(Whisper::read(text.as_bytes()), None, "{text}");
        }
    }
}
