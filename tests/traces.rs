//! Spans of OpenTelemetry, as a collector gets them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::harness::origin::{Seen, reply};
use crate::harness::socketio::{Line as _, Web, wait_for_metric};
use crate::harness::{Edge, Origin, PLAIN, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPANS: &str = "vestibule_trace_spans_total";

/// All spans that a collector has got, with the attributes of who told them.
fn spans(collector: &Origin) -> Vec<(Value, Value)> {
    let told = |seen: &Seen| {
        assert_eq!(seen.line, "POST /v1/traces HTTP/1.1");
        assert_eq!(seen.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
        let all = &body["resourceSpans"][0];
        let spans = all["scopeSpans"][0]["spans"].as_array().expect("spans").clone();
        let resource = all["resource"]["attributes"].clone();
        spans.into_iter().map(move |span| (span, resource.clone())).collect::<Vec<_>>()
    };
    collector.seen().iter().flat_map(told).collect()
}

/// The span of this name.
fn span(collector: &Origin, name: &str) -> (Value, Value) {
    let wanted = |(span, _): &(Value, Value)| span["name"] == name;
    eventually(&format!("a span {name}"), || spans(collector).into_iter().find(wanted))
}

fn attribute(attributes: &Value, key: &str) -> String {
    let all = attributes.as_array().expect("attributes");
    let found = all.iter().find(|one| one["key"] == key).unwrap_or_else(|| panic!("no {key}"));
    let value = &found["value"];
    let text = value["stringValue"].as_str().or(value["intValue"].as_str());
    text.unwrap_or_else(|| panic!("{key} is {value}")).to_owned()
}

#[test]
fn an_exchange_is_a_span_and_the_application_goes_on_below_it() {
    let (collector, origin) = (Origin::text("{}"), Origin::text("ok"));
    let edge = Edge::start(&format!(
        "{PLAIN}traces: {{ to: {}, service: front }}\nsites:\n  localhost:\n    next: {}\n",
        collector.url(),
        origin.url()
    ));
    let came = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let fields = [("Host", "localhost"), ("traceparent", came.as_str()), ("tracestate", "a=1")];
    assert_eq!(edge.connect().ask("GET", "/page?secret=1", &fields, b"").status, 200);
    let (span, resource) = span(&collector, "GET next");
    assert_eq!(
        (&span["traceId"], &span["parentSpanId"]),
        (&TRACE.into(), &"00f067aa0ba902b7".into())
    );
    let told = origin.seen().remove(0);
    let own = span["spanId"].as_str().expect("an id");
    assert_eq!(told.all("traceparent"), [format!("00-{TRACE}-{own}-01")]);
    assert_eq!(told.all("tracestate"), ["a=1"]);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/page"),
        ("url.scheme", "http"),
        ("server.address", "localhost"),
        ("http.response.status_code", "200"),
        ("http.route", "next"),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(attribute(&span["attributes"], key), value, "{key}");
    }
    assert_eq!(attribute(&resource, "service.name"), "front");
    let time =
        |key: &str| span[key].as_str().and_then(|text| text.parse::<u128>().ok()).expect(key);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos();
    assert!(time("startTimeUnixNano") <= time("endTimeUnixNano") && time("endTimeUnixNano") <= now);
    assert!(now - time("startTimeUnixNano") < 60_000_000_000);
    // Without one a trace begins here.
    edge.get("/other");
    let (_, fresh) = eventually("another", || {
        let told = spans(&collector).into_iter();
        told.map(|(span, _)| (attribute(&span["attributes"], "url.path"), span))
            .find(|(path, _)| path == "/other")
    });
    assert!(fresh["parentSpanId"].is_null() && fresh["traceId"] != TRACE);
    wait_for_metric(&edge, &format!("{SPANS}{{outcome=\"exported\"}}"), 2);
}

#[test]
fn what_is_not_kept_passes_as_it_came() {
    let (collector, origin) = (Origin::text("{}"), Origin::text("ok"));
    let site = format!("sites:\n  localhost:\n    next: {}\n", origin.url());
    let mut edge =
        Edge::start(&format!("{PLAIN}traces: {{ to: {}, share: 0% }}\n{site}", collector.url()));
    let came = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let ask = |edge: &Edge| {
        let fields = [("Host", "localhost"), ("traceparent", came.as_str())];
        assert_eq!(edge.connect().ask("GET", "/", &fields, b"").status, 200);
        origin.seen().last().expect("asked").all("traceparent").join(",")
    };
    assert_eq!(ask(&edge), came);
    edge.get("/");
    assert!(origin.seen().last().expect("asked").all("traceparent").is_empty());
    // A reload begins to keep them, another ends it.
    edge.reload_with(&format!("{PLAIN}traces: {}/v1/traces\n{site}", collector.url()));
    assert_ne!(ask(&edge), came);
    let kept = || spans(&collector).len();
    eventually("a span", || (kept() == 1).then_some(()));
    edge.reload_with(&format!("{PLAIN}{site}"));
    assert_eq!(ask(&edge), came);
    assert_eq!(kept(), 1);
}

#[test]
fn hooks_are_spans_linked_to_the_handshake() {
    let collector = Origin::text("{}");
    let app = Origin::start(|_, stream| reply(stream, "200 OK", "", b"{\"ack\":[\"done\"]}"));
    let edge = Edge::start(&format!(
        "{PLAIN}traces: {}\nsites:\n  localhost:\n    next: {}\nhub:\n  namespaces: {{ /: {{ auth: none, events: {{ order: {{ forward: /api/order }} }} }} }}\n",
        collector.url(),
        app.url()
    ));
    let mut web = Web::open(&edge);
    web.enter("/");
    web.say("421[\"order\",1]");
    web.expect("431[\"done\"]");
    let (span, _) = span(&collector, "hook /api/order");
    let told = app.seen().remove(0);
    let (trace, own) = (span["traceId"].as_str(), span["spanId"].as_str());
    let (trace, own) = (trace.expect("an id"), own.expect("an id"));
    assert_eq!(told.all("traceparent"), [format!("00-{trace}-{own}-01")]);
    assert_eq!(span["kind"], 3);
    // The handshake's own span ends with its connection.
    drop(web);
    let link = span["links"][0]["spanId"].clone();
    eventually("the handshake", || {
        spans(&collector).into_iter().find(|(span, _)| span["spanId"] == link)
    });
}

#[test]
fn a_collector_that_fails_costs_nobody_anything() {
    let fails = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&fails);
    let collector = Origin::start(move |_, stream| match failing.load(Ordering::Relaxed) {
        true => reply(stream, "400 Bad Request", "", b""),
        false => reply(stream, "200 OK", "", b"{}"),
    });
    let origin = Origin::text("ok");
    let yaml = format!(
        "{PLAIN}traces: {{ to: {}, header: 'authorization: Bearer word' }}\nsites:\n  localhost:\n    next: {}\n",
        collector.url(),
        origin.url()
    );
    let mut edge = Edge::start(&yaml);
    assert_eq!(edge.get("/").status, 200);
    wait_for_metric(&edge, &format!("{SPANS}{{outcome=\"lost\"}}"), 1);
    let said = |edge: &Edge| edge.log().contains("the collector takes no traces");
    eventually("a word about it", || said(&edge).then_some(()));
    assert_eq!(collector.seen()[0].all("authorization"), ["Bearer word"]);
    assert!(!edge.log().contains("Bearer word"));
    fails.store(false, Ordering::Relaxed);
    assert_eq!(edge.get("/").status, 200);
    wait_for_metric(&edge, &format!("{SPANS}{{outcome=\"exported\"}}"), 1);
    // What was done last is told before the process ends.
    assert_eq!(edge.get("/last").status, 200);
    edge.signal("TERM");
    assert_eq!(edge.ended().code(), Some(0));
    let paths = spans(&collector);
    let last = |(span, _): &(Value, Value)| attribute(&span["attributes"], "url.path") == "/last";
    assert!(paths.iter().any(last), "{paths:?}");
    // One that does not answer at all is not waited for.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let mut edge = Edge::start(&yaml.replace(&collector.url(), &url));
    assert_eq!(edge.get("/").status, 200);
    let begun = std::time::Instant::now();
    edge.signal("TERM");
    assert_eq!(edge.ended().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(15));
}
