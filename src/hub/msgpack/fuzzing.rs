//! What must hold for any bytes of a client that writes msgpack.
//!
//! Panics where something does not hold; see `crate::fuzzing`.

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::packet::{self, ATTACHMENTS_MAX, Head};
use super::{DEPTH_MAX, is_packet, placeholders, read, write};

/// A packet as its bytes; and as a text, with the rest of the lines for its attachments.
pub fn msgpack(data: &[u8]) {
    if let Ok((text, parts)) = read(data) {
        assert!(is_packet(data));
        check_read(data, &text, &parts);
    }
    let mut lines = data.split(|byte| *byte == b'\n');
    let text = std::str::from_utf8(lines.next().unwrap_or_default());
    let Ok(text) = text else { return };
    let parts: Vec<_> = lines.take(ATTACHMENTS_MAX).map(Bytes::copy_from_slice).collect();
    check_written(text, &parts);
}

fn check_read(data: &[u8], text: &str, parts: &[Bytes]) {
    let head = Head::parse(text).expect("what was read is a packet's text");
    assert_eq!(head.attachments, parts.len());
    assert!(head.data.is_empty() || serde_json::from_str::<&RawValue>(head.data).is_ok());
    if !parts.is_empty() {
        assert_eq!(placeholders::check(head.data, parts.len()), Ok(()), "clients hang up");
    }
    assert!(parts.iter().map(Bytes::len).sum::<usize>() <= data.len());
    // A control character is six signs, a placeholder stands for two bytes.
    let max = 6 * data.len() + 32 * ATTACHMENTS_MAX + 64;
    assert!(text.len() <= max, "{} signs of {} bytes", text.len(), data.len());
    let again = write(text, parts).expect("what was read is written");
    // A placeholder of the client's own making takes what is within it along.
    if parts.is_empty() || text.matches("_placeholder").count() == parts.len() {
        assert_eq!(read(&again), Ok((text.to_owned(), parts.to_vec())));
    }
}

fn check_written(text: &str, parts: &[Bytes]) {
    let Ok(head) = Head::parse(text) else { return };
    let written = write(text, parts);
    let size = text.len() + parts.iter().map(Bytes::len).sum::<usize>();
    let written_len = written.as_ref().map_or(0, Vec::len);
    // A digit may become a number of nine bytes.
    assert!(written_len <= 9 * size + 64, "{written_len} bytes of {size}");
    if packet::check_data(&head).is_err() || !parts.is_empty() || head.attachments > 0 {
        return;
    }
    let Ok(value) = serde_json::from_str::<Value>(head.data) else { return };
    // What is too deep for others is too deep here.
    let Some(written) = written else { return assert!(depth(&value) > DEPTH_MAX) };
    // An event without its name is none.
    let Ok((again, none)) = read(&written) else { return assert!(head.data.is_empty()) };
    assert!(none.is_empty());
    let same = Head::parse(&again).expect("what was read is a packet's text");
    assert_eq!((same.kind, same.namespace, same.ack), (head.kind, head.namespace, head.ack));
    let again: Value = serde_json::from_str(same.data).expect("JSON");
    assert_eq!(again, value);
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}
