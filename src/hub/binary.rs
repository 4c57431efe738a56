//! Binary arguments in JSON: `{"$binary": BASE64}` for the application, placeholders for clients;
//! pure.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::json::{self, expect, is_called, past_string};
use super::packet::{self, DEPTH_MAX, Event};
use super::placeholders;

/// Why values cannot be sent to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("\"$binary\" is no base64")]
    Base64,
    #[error("more than {0} binary parts (hub.limits.attachments); clients hang up at that")]
    TooMany(usize),
    #[error("\"_placeholder\" beside binary parts; clients would take it for one")]
    Placeholder,
    #[error("more than {DEPTH_MAX} levels of arrays and objects; clients hang up at many more")]
    Deep,
}

/// An event's arguments as the application reads them: the client's own words, with its attachments
/// written into them.
pub fn arguments(event: &Event<'_>, parts: &[Bytes]) -> String {
    let arguments: Vec<_> = event.args().map(|json| inline(json, parts)).collect();
    format!("[{}]", arguments.join(","))
}

/// JSON with its attachments written into it. A placeholder that names none of `parts` becomes an
/// empty one.
pub fn inline<'a>(data: &'a str, parts: &[Bytes]) -> Cow<'a, str> {
    if parts.is_empty() {
        return Cow::Borrowed(data);
    }
    let written = |number: Option<u8>| {
        let part = number.and_then(|number| parts.get(usize::from(number)));
        format!(
            "{{\"{KEY}\":\"{}\"}}",
            STANDARD.encode(part.map(Bytes::as_ref).unwrap_or_default())
        )
    };
    Cow::Owned(placeholders::replace(data, written))
}

/// The text of an array of values as a packet's data, and the attachments that it names, `most` of
/// them.
pub fn extract(values: &str, most: usize) -> Result<(String, Vec<Bytes>), Unfit> {
    let (mut text, mut parts) = (String::with_capacity(values.len()), Vec::new());
    detach(values, &mut text, (&mut parts, most))?;
    check_parts(&text, &parts)?;
    Ok((text, parts))
}

/// Refuses data whose placeholders name attachments that are not there, or one of them twice, and
/// what is too deep; who receives it would hang up. One that is named by none is no fault.
pub fn check_parts(data: &str, parts: &[Bytes]) -> Result<(), Unfit> {
    if !json::is_within(data, DEPTH_MAX) {
        return Err(Unfit::Deep);
    }
    if parts.is_empty() {
        return Ok(());
    }
    placeholders::check(data, parts.len()).map_err(|_error| Unfit::Placeholder)
}

const KEY: &str = "$binary";

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
        if let Some((written, after)) = attachment(from) {
            if parts.len() >= most {
                return Err(Unfit::TooMany(most));
            }
            // Many languages escape the slash, and some the plus.
            let base64 = packet::text(written).ok_or(Unfit::Base64)?;
            let part = STANDARD.decode(&*base64);
            out.push_str(&format!("{{\"_placeholder\":true,\"num\":{}}}", parts.len()));
            parts.push(part.map_err(|_error| Unfit::Base64)?.into());
            rest = after;
        } else {
            let end = if from.starts_with('"') { past_string(from.as_bytes(), 0) } else { 1 };
            let (token, after) = from.split_at_checked(end).unwrap_or((from, ""));
            out.push_str(token);
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(())
}

/// The string, as it is written, of an object that holds `$binary` and nothing else, and what follows
/// the object.
fn attachment(json: &str) -> Option<(&str, &str)> {
    let bytes = json.as_bytes();
    let start = expect(bytes, 0, b'{').filter(|at| bytes.get(*at) == Some(&b'"'))?;
    let end = past_string(bytes, start);
    if !is_called(json.get(start..end)?, KEY) {
        return None;
    }
    let start = expect(bytes, end, b':').filter(|at| bytes.get(*at) == Some(&b'"'))?;
    let end = past_string(bytes, start);
    let rest = json.get(end..)?.trim_start().strip_prefix('}')?;
    Some((json.get(start..end)?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn extract(values: &[Value]) -> Result<(String, Vec<Bytes>), Unfit> {
        super::extract(&Value::from(values).to_string(), 10)
    }

    #[test]
    fn binary_goes_in_and_comes_out() {
        let data =
            r#"["x",{"a":[{"_placeholder":true,"num":0}], "b":{"num":1,"_placeholder":true}}]"#;
        let parts = [Bytes::from_static(b""), Bytes::from_static(b"\x01")];
        let text = inline(data, &parts);
        assert_eq!(text, r#"["x",{"a":[{"$binary":""}], "b":{"$binary":"AQ=="}}]"#);
        let (again, back) = super::extract(&text, 10).expect("fit");
        assert_eq!((inline(&again, &back), &back[..]), (text, &parts[..]));
    }

    #[test]
    fn what_clients_could_not_take_is_refused() {
        assert_eq!(extract(&[json!({ "$binary": "!" })]), Err(Unfit::Base64));
        let many: Vec<_> = (0..=10).map(|_| json!({ "$binary": "" })).collect();
        assert_eq!(extract(&many), Err(Unfit::TooMany(10)));
        let plain = extract(&[json!({ "$binary": 1 }), json!({ "$binary": "AQ==", "x": 1 })]);
        assert_eq!(plain.expect("fit").1.len(), 0);
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(super::extract(&nested(DEPTH_MAX + 1), 10), Err(Unfit::Deep));
        assert!(super::extract(&nested(DEPTH_MAX), 10).is_ok());
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
        let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
        for args in [r#""\ud83d""#, "1e999", &deep, "31.245270191439438"] {
            let data = format!(r#"["x",{args}, 1.0]"#);
            let event = Event::parse(&data).expect("an event");
            assert_eq!(arguments(&event, &[]), format!("[{args},1.0]"));
            let data = format!(r#"["x",{args}, {{"_placeholder":true,"num":0}}]"#);
            let event = Event::parse(&data).expect("an event");
            let wanted = format!(r#"[{args},{{"$binary":"AQ=="}}]"#);
            assert_eq!(arguments(&event, &[Bytes::from_static(b"\x01")]), wanted);
            assert_eq!(super::extract(&wanted, 10).expect("fit").1.len(), 1);
        }
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
            // As PHP and .NET write it.
            (r#"{"$binary":"+\/8="}"#, r#"{"_placeholder":true,"num":0}"#, vec![&[251, 255]]),
            (
                r#"{"\u0024binary":"\u002B/8="}"#,
                r#"{"_placeholder":true,"num":0}"#,
                vec![&[251, 255]],
            ),
            (r#"{"$binary\u0000":""}"#, r#"{"$binary\u0000":""}"#, vec![]),
        ] {
            let (out, found) = detached(json).expect(json);
            assert_eq!((out.as_str(), found.iter().map(|part| &part[..]).collect()), (text, parts));
        }
        for json in [r#"{"$binary":"A"}"#, r#"{"$binary":"\ud83d"}"#, r#"{"$binary":"\\AQ=="}"#] {
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
