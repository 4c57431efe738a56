//! What must hold for any body and query of the hub API.
//!
//! Panics where something does not hold; see `crate::fuzzing`.

use std::slice;

use http::{HeaderMap, HeaderValue, header};
use serde_json::value::RawValue;

use crate::hub::{Deed, Operation, check_parts};

use super::fields::{Fields, Wrong};
use super::guard::judge;
use super::operations::{ASKED, Known, POSTED, read, read_batch};

const NAMESPACES: [&str; 2] = ["/", "/chat"];
const KNOWN: Known<'_> = Known { namespaces: &NAMESPACES, providers: &[], attachments: 10 };

/// A body, read as an operation of each kind and as a batch; the same as a query.
pub fn operations(data: &[u8]) {
    check_guard(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    for op in ASKED {
        check_one(text, &read(op, Fields::of_query(text), &KNOWN));
    }
    let Ok(json) = serde_json::from_str::<&RawValue>(text) else { return };
    for op in POSTED.into_iter().chain(ASKED) {
        let read = Fields::of(json, "").and_then(|fields| read(op, fields, &KNOWN));
        check_one(text, &read);
    }
    check(text, read_batch(json, &KNOWN).as_deref());
}

fn check_one(text: &str, read: &Result<Operation, Wrong>) {
    check(text, read.as_ref().map(slice::from_ref));
}

fn check(text: &str, read: Result<&[Operation], &Wrong>) {
    match read {
        Ok(operations) => operations.iter().for_each(|operation| check_operation(text, operation)),
        // What is quoted in it is escaped.
        Err(Wrong { field, message }) => {
            assert!(field.len() <= text.len() + 64 && message.len() <= 10 * text.len() + 512);
        }
    }
}

fn check_operation(text: &str, operation: &Operation) {
    assert!(NAMESPACES.contains(&&*operation.namespace));
    if let Deed::Emit { data, parts, .. } = &operation.deed {
        let all: Result<Vec<&RawValue>, _> = serde_json::from_str(data);
        assert!(all.is_ok_and(|all| all.first().is_some_and(|name| name.get().starts_with('"'))));
        assert!(check_parts(data, parts).is_ok(), "clients hang up at {data}");
        assert!(data.len() <= 8 * text.len() + 64);
    }
}

/// No name with a dot at a place of the internet is let in, and no origin but the host's.
fn check_guard(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let host = HeaderMap::from_iter([(header::HOST, value.clone())]);
    assert!(
        judge(&host).is_err() || !data.ends_with(b".example"),
        "anybody may have registered it"
    );
    let near = (header::HOST, HeaderValue::from_static("localhost"));
    let origin = HeaderMap::from_iter([near, (header::ORIGIN, value)]);
    assert!(judge(&origin).is_err() || data.to_ascii_lowercase().ends_with(b"://localhost"));
}
