//! `{"$binary":"BASE64"}` in JSON → the attachments of an event; pure.
//!
//! The text around them stays as it was written: order of keys, digits of numbers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// More than this the stock client takes for an attack, and hangs up.
pub const ATTACHMENTS_MAX: usize = 10;

const KEY: &str = "\"$binary\"";

/// Appends `json`, which must be JSON, to `out` with a placeholder for every attachment.
pub fn detach(json: &str, out: &mut String, parts: &mut Vec<Bytes>) -> Result<(), &'static str> {
    let mut rest = json;
    while let Some(at) = rest.find(['"', '{']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some((base64, after)) = attachment(from) {
            if parts.len() == ATTACHMENTS_MAX {
                return Err("has more than 10 attachments, which the stock client refuses");
            }
            let part = STANDARD.decode(base64);
            out.push_str(&format!("{{\"_placeholder\":true,\"num\":{}}}", parts.len()));
            parts.push(part.map_err(|_error| "has a $binary that is no base64")?.into());
            rest = after;
        } else {
            let (token, after) =
                from.split_at(if from.starts_with('"') { string(from) } else { 1 });
            out.push_str(token);
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(())
}

/// The text of an object that holds `$binary` and nothing else, and what follows the object.
fn attachment(json: &str) -> Option<(&str, &str)> {
    let inside = json.strip_prefix('{')?.trim_start().strip_prefix(KEY)?;
    let value = inside.trim_start().strip_prefix(':')?.trim_start();
    if !value.starts_with('"') {
        return None;
    }
    let (value, after) = value.split_at(string(value));
    let after = after.trim_start().strip_prefix('}')?;
    Some((value.trim_matches('"'), after))
}

/// How long the JSON string is that `json` begins with, its quotes included.
fn string(json: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in json.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => (),
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn detached(json: &str) -> Result<(String, Vec<Bytes>), &'static str> {
        let (mut out, mut parts) = (String::new(), Vec::new());
        detach(json, &mut out, &mut parts).map(|()| (out, parts))
    }

    #[test]
    fn attachments_are_taken_out_and_the_rest_stays() {
        for (json, text, parts) in [
            (r#"{"b": 1e2, "a":"x\"{"}"#, r#"{"b": 1e2, "a":"x\"{"}"#, vec![]),
            (r#"{"$binary":"AQI="}"#, r#"{"_placeholder":true,"num":0}"#, vec![&[1, 2][..]]),
            (
                r#"[{ "$binary" : "" }, {"x":{"$binary":"/w=="}} ]"#,
                r#"[{"_placeholder":true,"num":0}, {"x":{"_placeholder":true,"num":1}} ]"#,
                vec![&[], &[255]],
            ),
            (r#"{"$binary":1}"#, r#"{"$binary":1}"#, vec![]),
            (r#"{"$binary":"AQ==","x":1}"#, r#"{"$binary":"AQ==","x":1}"#, vec![]),
            (r#""{\"$binary\":\"AQ==\"}""#, r#""{\"$binary\":\"AQ==\"}""#, vec![]),
        ] {
            let (out, found) = detached(json).expect(json);
            assert_eq!((out.as_str(), found.iter().map(|part| &part[..]).collect()), (text, parts));
        }
        for json in [r#"{"$binary":"A"}"#, r#"{"$binary":"\u0041Q=="}"#] {
            assert!(detached(json).is_err(), "{json}");
        }
        let many = |count| format!("[{}]", vec![r#"{"$binary":""}"#; count].join(","));
        assert!(detached(&many(10)).is_ok() && detached(&many(11)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(json in "[{}\"\\\\$binary:AQ=, é]{0,40}") {
            let _detached = detached(&json);
        }

        #[test]
        fn what_has_no_attachment_is_kept(json in "[{}\"\\\\:a, é]{0,40}") {
            prop_assert_eq!(detached(&json), Ok((json, Vec::new())));
        }
    }
}
