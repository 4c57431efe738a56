//! Spans as OTLP has them in JSON: the body of a POST to `/v1/traces`.
//!
//! Source: OTLP 1.x, "JSON Protobuf Encoding": ids in hexadecimal, 64-bit numbers as texts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use super::trace::{Context, Kind, Span, Value};

/// `service` and `instance` say who tells.
pub fn request(spans: &[Span], service: &str, instance: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [
        text("service.name", service),
        text("service.version", version),
        text("service.instance.id", instance),
    ];
    let spans: Vec<Json> = spans.iter().map(span).collect();
    let scope = json!({ "name": "vestibule", "version": version });
    json!({
        "resourceSpans": [{
            "resource": { "attributes": resource },
            "scopeSpans": [{ "scope": scope, "spans": spans }],
        }],
    })
    .to_string()
}

fn span(span: &Span) -> Json {
    let mut told = json!({
        "traceId": format!("{:032x}", span.context.trace),
        "spanId": format!("{:016x}", span.context.span),
        // The lowest bit is that of the header.
        "flags": 1,
        "name": span.name,
        "kind": match span.kind {
            Kind::Server => 2,
            Kind::Client => 3,
        },
        "startTimeUnixNano": nanoseconds(span.began),
        "endTimeUnixNano": nanoseconds(span.began + span.took),
        "attributes": span.attributes.iter().map(|(key, value)| attribute(key, value)).collect::<Vec<_>>(),
    });
    let parent = span.parent.map(|parent| ("parentSpanId", json!(format!("{parent:016x}"))));
    let links = span.link.map(|Context { trace, span, .. }| {
        let link = json!({ "traceId": format!("{trace:032x}"), "spanId": format!("{span:016x}") });
        ("links", json!([link]))
    });
    let status =
        span.error.as_ref().map(|error| ("status", json!({ "code": 2, "message": error })));
    if let Json::Object(fields) = &mut told {
        let more = [parent, links, status].into_iter().flatten();
        fields.extend(more.map(|(key, value)| (key.to_owned(), value)));
    }
    told
}

fn attribute(key: &str, value: &Value) -> Json {
    match value {
        Value::Text(value) => text(key, value),
        Value::Number(value) => json!({ "key": key, "value": { "intValue": value.to_string() } }),
    }
}

fn text(key: &str, value: &str) -> Json {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn nanoseconds(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_as_the_protocol_has_it() {
        let context = |span| Context { trace: 0xabc, span, is_sampled: true };
        let span = Span {
            name: "GET next".to_owned(),
            kind: Kind::Server,
            context: context(5),
            parent: Some(6),
            link: Some(context(7)),
            began: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_001),
            took: Duration::from_millis(2),
            attributes: vec![
                ("url.path", Value::Text("/\"".to_owned())),
                ("http.response.status_code", Value::Number(502)),
            ],
            error: Some("upstream_down".to_owned()),
        };
        let told: Json = serde_json::from_str(&request(&[span], "edge", "one")).expect("JSON");
        let all = &told["resourceSpans"][0];
        assert_eq!(all["resource"]["attributes"][0]["value"]["stringValue"], "edge");
        let span = &all["scopeSpans"][0]["spans"][0];
        for (key, value) in [
            ("traceId", "00000000000000000000000000000abc"),
            ("spanId", "0000000000000005"),
            ("parentSpanId", "0000000000000006"),
            ("startTimeUnixNano", "1700000000000000001"),
            ("endTimeUnixNano", "1700000000002000001"),
        ] {
            assert_eq!(span[key], value);
        }
        assert_eq!((&span["kind"], &span["status"]["code"]), (&json!(2), &json!(2)));
        assert_eq!(span["links"][0]["spanId"], "0000000000000007");
        assert_eq!(span["attributes"][0]["value"]["stringValue"], "/\"");
        assert_eq!(span["attributes"][1]["value"]["intValue"], "502");
    }
}
