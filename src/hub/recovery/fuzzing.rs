//! What must hold for whatever a client says that it had before.
//!
//! Panics where something does not hold; see `crate::fuzzing`.

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::hub::auth_data::AuthData;
use crate::hub::cluster::number_of;
use crate::hub::engine::{Id, Node};
use crate::hub::packet::{self, Event, Head};

use super::Stamp;
use super::afar::Wish;
use super::claim::Claim;
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
    let offset = Offset { node: here(), stamp };
    let longer = offset.append(event.data);
    let appended = Event::parse(&longer).expect("an event stays one");
    assert_eq!(appended.name, event.name);
    let args: Vec<&str> = appended.args().collect();
    let (last, before) = args.split_last().expect("the offset");
    assert!(before.iter().copied().eq(event.args()));
    assert_eq!(Offset::parse(last.trim_matches('"')), Some(offset));
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

/// A CONNECT, which may say what its client had before: whatever else it says, it is a claim of this
/// process or of one before it, of one that shares an order with others, an error, or none.
pub fn claim(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(head) = Head::parse(text) else { return };
    if packet::check_data(&head).is_err() || !(head.data.is_empty() || head.data.starts_with('{')) {
        return;
    }
    let (namespace, node, workers) = (Arc::from(head.namespace), here(), 2);
    let auth = AuthData::new(head.data);
    let (mut ours, mut afar) = (auth.clone(), auth.clone());
    let claim = Claim::read(&namespace, &mut ours, (node, workers));
    let wish = Wish::read(&mut afar);
    assert_eq!(ours, afar, "the same is taken out for both");
    assert_eq!((claim.is_some(), wish.is_some()), (auth.has("pid"), auth.has("pid")));
    if claim.is_none() {
        assert_eq!(ours, auth, "who claims nothing is let be");
        return;
    }
    assert!(!ours.has("pid") && !ours.has("offset") && ours.as_str().len() <= head.data.len());
    let fields = |auth: &AuthData| serde_json::from_str::<Map<String, Value>>(auth.as_str()).ok();
    let Some(mut said) = fields(&auth) else { return };
    let (pid, offset) = (said.remove("pid"), said.remove("offset"));
    assert_eq!(fields(&ours), Some(said), "all else stays");
    let pid = pid.as_ref().and_then(Value::as_str).and_then(Id::parse);
    let word = |offset: &Option<Value>| match offset {
        None => Some(None),
        Some(offset) => offset.as_str().map(|text| Some(text.to_owned())),
    };
    let word = word(&offset);
    let is_made = |pid: &Id| pid.node() != node || pid.worker() < workers;
    let offset = |word: &Option<String>| word.as_deref().and_then(Offset::parse);
    let is_right = |word: &Option<String>| word.is_none() || offset(word).is_some();
    let right = pid.filter(is_made).zip(word.clone().filter(is_right));
    let claim = claim.and_then(Result::ok);
    assert_eq!(claim.as_ref().map(|claim| claim.pid), right.as_ref().map(|(pid, _)| *pid));
    if let (Some(claim), Some((_, word))) = (claim, &right) {
        assert_eq!((&claim.namespace, claim.offset), (&namespace, offset(word)));
        assert_eq!((claim.user, claim.mark), (None, None), "that is for others to say");
    }
    if let Some(Ok(wish)) = wish {
        assert_eq!(Some(wish.pid), pid);
        assert_eq!(wish.offset, word.flatten().as_deref().and_then(number_of));
    }
}

/// The process that is claimed from.
fn here() -> Node {
    Node::parse("n0-").expect("a node")
}
