//! Binary arguments in JSON: `{"$binary": BASE64}` for the application, placeholders for clients;
//! pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::packet::{self, ATTACHMENTS_MAX, Event};

/// Why values cannot be sent to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("\"$binary\" is no base64")]
    Base64,
    #[error("more than {ATTACHMENTS_MAX} binary parts; clients hang up at that")]
    TooMany,
    #[error("\"_placeholder\" beside binary parts; clients would take it for one")]
    Placeholder,
}

/// An event's arguments as the application reads them: the client's own words, with its attachments
/// written into them.
pub fn arguments(event: &Event<'_>, parts: &[Bytes]) -> String {
    let argument = |json: &str| match parts {
        // JavaScript writes what our numbers and texts do not hold: half a surrogate pair, 1e999.
        [] => json.to_owned(),
        parts => inline(json, parts).to_string(),
    };
    let arguments: Vec<_> = event.args.iter().map(|json| argument(json.get())).collect();
    format!("[{}]", arguments.join(","))
}

/// A packet's data with its attachments written into it.
pub fn inline(data: &str, parts: &[Bytes]) -> Value {
    // Data that names attachments was read when it came.
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

/// The text of `values` as a packet's data, and the attachments that it names.
pub fn extract(mut values: Vec<Value>) -> Result<(String, Vec<Bytes>), Unfit> {
    let mut parts = Vec::new();
    for value in &mut values {
        take(value, &mut parts)?;
    }
    // Values of JSON are JSON.
    let text = serde_json::to_string(&values).unwrap_or_default();
    if !parts.is_empty() {
        packet::check_placeholders(&text, parts.len()).map_err(|_error| Unfit::Placeholder)?;
    }
    Ok((text, parts))
}

fn take(value: &mut Value, parts: &mut Vec<Bytes>) -> Result<(), Unfit> {
    match value {
        Value::Array(values) => values.iter_mut().try_for_each(|value| take(value, parts)),
        Value::Object(fields) => {
            let Some(Value::String(text)) = fields.get("$binary").filter(|_| fields.len() == 1)
            else {
                return fields.values_mut().try_for_each(|value| take(value, parts));
            };
            if parts.len() == ATTACHMENTS_MAX {
                return Err(Unfit::TooMany);
            }
            parts.push(STANDARD.decode(text).map_err(|_error| Unfit::Base64)?.into());
            *value = json!({ "_placeholder": true, "num": parts.len() - 1 });
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_goes_in_and_comes_out() {
        let data =
            r#"["x",{"a":[{"_placeholder":true,"num":1}],"b":{"_placeholder":true,"num":0}}]"#;
        let parts = [Bytes::from_static(b"\x01"), Bytes::from_static(b"")];
        let value = inline(data, &parts);
        assert_eq!(value, json!(["x", { "a": [{ "$binary": "" }], "b": { "$binary": "AQ==" } }]));
        let Value::Array(values) = value else { panic!("an array") };
        let (text, back) = extract(values).expect("fit");
        assert_eq!(inline(&text, &back), inline(data, &parts));
        assert_eq!(back.len(), 2);
    }

    #[test]
    fn what_clients_could_not_take_is_refused() {
        assert_eq!(extract(vec![json!({ "$binary": "!" })]), Err(Unfit::Base64));
        let many = (0..=ATTACHMENTS_MAX).map(|_| json!({ "$binary": "" })).collect();
        assert_eq!(extract(many), Err(Unfit::TooMany));
        let plain = extract(vec![json!({ "$binary": 1 }), json!({ "$binary": "AQ==", "x": 1 })]);
        assert_eq!(plain.expect("fit").1.len(), 0);
    }

    #[test]
    fn a_placeholder_of_somebody_else_is_none() {
        let foreign = || json!({ "_placeholder": true, "num": 0 });
        assert_eq!(extract(vec![json!({ "$binary": "AQ==" }), foreign()]), Err(Unfit::Placeholder));
        let alone = extract(vec![foreign()]).expect("without attachments it means nothing");
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
}
