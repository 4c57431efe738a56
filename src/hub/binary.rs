//! Binary arguments in JSON: `{"$binary": BASE64}` for the application, placeholders for clients;
//! pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::packet::{self, Event};

/// Why values cannot be sent to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("\"$binary\" is no base64")]
    Base64,
    #[error("more than {0} binary parts (hub.limits.attachments); clients hang up at that")]
    TooMany(usize),
    #[error("\"_placeholder\" beside binary parts; clients would take it for one")]
    Placeholder,
}

/// An event's arguments as the application reads them. Without attachments they are the client's own
/// words; attachments are written into the values, which are written anew for it.
pub fn arguments(event: &Event<'_>, parts: &[Bytes]) -> String {
    let argument = |json: &str| match parts {
        // Not read: JavaScript writes what our numbers and texts do not hold, half a surrogate pair
        // or 1e999. Beside attachments that was refused when it came.
        [] => json.to_owned(),
        parts => inline(json, parts).to_string(),
    };
    let arguments: Vec<_> = event.args.iter().map(|json| argument(json.get())).collect();
    format!("[{}]", arguments.join(","))
}

/// JSON with its attachments written into it. A placeholder that names none of `parts` becomes an
/// empty one; null if it is no JSON, or holds a number or text that a `Value` does not.
pub fn inline(data: &str, parts: &[Bytes]) -> Value {
    // Clients' data was read when it came, other servers' is what our own reader wrote.
    let mut value = serde_json::from_str(data).unwrap_or_default();
    if !parts.is_empty() {
        fill(&mut value, parts);
    }
    value
}

fn fill(value: &mut Value, parts: &[Bytes]) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| fill(value, parts)),
        Value::Object(fields) if fields.get("_placeholder") == Some(&Value::Bool(true)) => {
            let number = fields.get("num").and_then(Value::as_u64);
            let part = number.and_then(|number| parts.get(usize::try_from(number).ok()?));
            *value =
                json!({ "$binary": STANDARD.encode(part.map(Bytes::as_ref).unwrap_or_default()) });
        }
        Value::Object(fields) => fields.values_mut().for_each(|value| fill(value, parts)),
        _ => {}
    }
}

/// The text of `values` as a packet's data, and the attachments that it names, `most` of them.
pub fn extract(values: &[Value], most: usize) -> Result<(String, Vec<Bytes>), Unfit> {
    let (mut text, mut parts) = (String::new(), Vec::new());
    // Values of JSON are JSON.
    detach(&serde_json::to_string(values).unwrap_or_default(), &mut text, (&mut parts, most))?;
    check_parts(&text, &parts)?;
    Ok((text, parts))
}

/// Refuses data whose placeholders name attachments that are not there, or one of them twice; who
/// receives it would hang up. One that is named by none is no fault.
pub fn check_parts(data: &str, parts: &[Bytes]) -> Result<(), Unfit> {
    if parts.is_empty() {
        return Ok(());
    }
    packet::check_placeholders(data, parts.len()).map_err(|_error| Unfit::Placeholder)
}

const KEY: &str = "\"$binary\"";

/// Appends `json`, which must be JSON, to `out`, with a placeholder for every attachment; `most` are
/// taken. What is around them stays as it was written: the order of keys, the digits of numbers.
pub fn detach(
    json: &str,
    out: &mut String,
    (parts, most): (&mut Vec<Bytes>, usize),
) -> Result<(), Unfit> {
    let mut rest = json;
    while let Some(at) = rest.find(['"', '{']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some((base64, after)) = attachment(from) {
            if parts.len() >= most {
                return Err(Unfit::TooMany(most));
            }
            let part = STANDARD.decode(base64);
            out.push_str(&format!("{{\"_placeholder\":true,\"num\":{}}}", parts.len()));
            parts.push(part.map_err(|_error| Unfit::Base64)?.into());
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

    fn extract(values: &[Value]) -> Result<(String, Vec<Bytes>), Unfit> {
        super::extract(values, 10)
    }

    #[test]
    fn binary_goes_in_and_comes_out() {
        let data =
            r#"["x",{"a":[{"_placeholder":true,"num":1}],"b":{"_placeholder":true,"num":0}}]"#;
        let parts = [Bytes::from_static(b"\x01"), Bytes::from_static(b"")];
        let value = inline(data, &parts);
        assert_eq!(value, json!(["x", { "a": [{ "$binary": "" }], "b": { "$binary": "AQ==" } }]));
        let Value::Array(values) = value else { panic!("an array") };
        let (text, back) = extract(&values).expect("fit");
        assert_eq!(inline(&text, &back), inline(data, &parts));
        assert_eq!(back.len(), 2);
    }

    #[test]
    fn what_clients_could_not_take_is_refused() {
        assert_eq!(extract(&[json!({ "$binary": "!" })]), Err(Unfit::Base64));
        let many: Vec<_> = (0..=10).map(|_| json!({ "$binary": "" })).collect();
        assert_eq!(extract(&many), Err(Unfit::TooMany(10)));
        let plain = extract(&[json!({ "$binary": 1 }), json!({ "$binary": "AQ==", "x": 1 })]);
        assert_eq!(plain.expect("fit").1.len(), 0);
    }

    #[test]
    fn a_placeholder_of_somebody_else_is_none() {
        let foreign = || json!({ "_placeholder": true, "num": 0 });
        assert_eq!(extract(&[json!({ "$binary": "AQ==" }), foreign()]), Err(Unfit::Placeholder));
        let alone = extract(&[foreign()]).expect("without attachments it means nothing");
        assert_eq!(alone.1.len(), 0);
    }

    #[test]
    fn arguments_stay_as_they_were_written() {
        for args in [r#""\ud83d""#, "1e999", &format!("{}{}", "[".repeat(200), "]".repeat(200))] {
            let data = format!(r#"["x",{args}, 1.0]"#);
            let event = Event::parse(&data).expect("an event");
            assert_eq!(arguments(&event, &[]), format!("[{args},1.0]"));
        }
    }

    #[test]
    fn numbers_keep_their_last_digit() {
        let data = r#"[31.245270191439438,{"_placeholder":true,"num":0}]"#;
        let value = inline(data, &[Bytes::new()]);
        assert_eq!(value.to_string(), r#"[31.245270191439438,{"$binary":""}]"#);
    }

    fn detached(json: &str) -> Result<(String, Vec<Bytes>), Unfit> {
        let (mut out, mut parts) = (String::new(), Vec::new());
        detach(json, &mut out, (&mut parts, 10)).map(|()| (out, parts))
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
