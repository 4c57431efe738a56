//! What must hold for any offset that a client says it has.
//!
//! Panics where something does not hold; see `crate::fuzzing`.

use serde_json::value::RawValue;

use crate::hub::auth_data::AuthData;
use crate::hub::cluster::number_of;
use crate::hub::engine::Node;
use crate::hub::packet::Event;

use super::Stamp;
use super::afar::Wish;
use super::offset::{Offset, ends_in_text};

/// The offset's text; the same as an event's array, to which an offset is appended.
pub fn offset(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    wish(text);
    let read = Offset::parse(text);
    if let Some(offset) = read {
        assert_eq!(offset.append("[1]"), format!("[1,\"{text}\"]"), "it is written in one way");
    }
    let Ok(event) = Event::parse(text) else { return };
    let all: Vec<&RawValue> = serde_json::from_str(event.data).expect("an array");
    assert_eq!(Some(ends_in_text(event.data)), all.last().map(|last| last.get().ends_with('"')));
    let bytes = data.last_chunk::<8>().copied().unwrap_or_default();
    let number = (u64::from_be_bytes(bytes) >> 4).max(1);
    let stamp = Stamp { origin: data.len().to_le_bytes()[0] & 63, number };
    let node = Node::parse("n0-").expect("a node");
    let offset = Offset { node, stamp };
    let longer = offset.append(event.data);
    let appended = Event::parse(&longer).expect("an event stays one");
    assert_eq!(appended.name, event.name);
    let (last, before) = appended.args.split_last().expect("the offset");
    assert!(before.iter().map(|arg| arg.get()).eq(event.args.iter().map(|arg| arg.get())));
    assert_eq!(Offset::parse(last.get().trim_matches('"')), Some(offset));
}

/// What a client says that it has heard of other nodes, by itself and beside a secret.
fn wish(text: &str) {
    let number = number_of(text);
    let pid = "AAAAAAAAAAAAAAAAAAAA";
    let words = serde_json::json!({ "pid": pid, "offset": text }).to_string();
    let mut auth = AuthData::new(&words);
    match Wish::read(&mut auth).expect("there is a pid") {
        Ok(wish) => assert_eq!((wish.pid.as_str(), wish.offset), (pid, number)),
        Err(_miss) => assert_eq!(number, None),
    }
    assert_eq!(auth.as_str(), "{}", "it is taken out");
}
