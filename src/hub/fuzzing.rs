//! What must hold for anything that clients, or the application, say to the hub.
//!
//! Each function panics where something does not hold; see `crate::fuzzing`.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::config::{Audience, EventRule, Relay, Rule, Template, TemplatePart};

use super::admin_ui;
use super::auth_data::AuthData;
use super::binary;
use super::hooks::Outcome;
use super::hooks::reply;
use super::json::{self, Verdict};
use super::packet::{self, ATTACHMENTS_MAX, DEPTH_MAX, Event, Head, Kind};
use super::partial::{Filled, Partial};
use super::paths;
use super::placeholders;
use super::rules::{Action, Rules};

pub use super::cluster::fuzzing::{resp, wire};
pub use super::engine::fuzzing::{deflate, frames, origins, packets, payload, query};
pub use super::handover::fuzzing::handover;
pub use super::msgpack::fuzzing::msgpack;
pub use super::recovery::fuzzing::{claim, offset};

/// A packet's text: its head, its data, its event.
pub fn packet(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(head) = Head::parse(text) else { return };
    assert!(head.namespace.starts_with('/') && head.attachments <= ATTACHMENTS_MAX);
    assert!(text.ends_with(head.data));
    if packet::check_data(&head).is_err() {
        return;
    }
    let Head { kind, attachments, namespace, ack, data } = head;
    if kind == Kind::Connect {
        auth_data(AuthData::new(data));
        auth_data(AuthData::of_query(namespace));
    }
    let again = match (kind, ack) {
        (Kind::Connect, None) => packet::connect(namespace, data),
        (Kind::Disconnect, None) => packet::disconnect(namespace),
        (Kind::Event, None) => packet::event(namespace, data, attachments),
        (Kind::Ack, Some(id)) => packet::ack(namespace, id, data, attachments),
        // The server writes no other.
        _ => return event(data),
    };
    assert!(again.len() <= text.len() + ",".len(), "it grew when written again");
    assert_eq!(Head::parse(&again), Ok(head));
    event(data);
}

/// What is beside a CONNECT: what is taken out of it is gone, and all else stays.
fn auth_data(mut auth: AuthData) {
    let fields = |auth: &AuthData| serde_json::from_str::<Map<String, Value>>(auth.as_str()).ok();
    assert!(serde_json::from_str::<&RawValue>(auth.as_str()).is_ok());
    // Whatever it says of who somebody is, it is a pass or none.
    let _pass = admin_ui::pass(auth.as_str());
    for name in ["pid", "token"] {
        let (mut before, taken) = (fields(&auth), auth.remove(name));
        assert_eq!(auth.remove(name), None);
        assert!(serde_json::from_str::<&RawValue>(auth.as_str()).is_ok());
        if let Some(before) = &mut before {
            assert_eq!((before.remove(name), Some(&*before)), (taken, fields(&auth).as_ref()));
        }
    }
}

/// An event's array.
fn event(data: &str) {
    let read: Result<&RawValue, _> = serde_json::from_str(data);
    match json::check(data, DEPTH_MAX) {
        Verdict::Json => assert!(read.is_ok() && json::is_within(data, DEPTH_MAX), "{data}"),
        Verdict::TooDeep => assert!(read.is_err() || !json::is_within(data, DEPTH_MAX), "{data}"),
        Verdict::Wrong => assert!(read.is_err(), "{data}"),
    }
    let Ok(event) = Event::parse(data) else { return };
    let all: Vec<&RawValue> = serde_json::from_str(data).expect("an array");
    assert!(all.iter().skip(1).map(|arg| arg.get()).eq(event.args()));
    let name = serde_json::to_string(&event.name).expect("a text is JSON");
    let args: Vec<_> = event.args().collect();
    let again = format!("[{}]", [&[name.as_str()], args.as_slice()].concat().join(","));
    let read = Event::parse(&again).expect("what was an event is one");
    if let Some(operation) = admin_ui::operation(&event, Vec::new()) {
        let asked = event.args().next().and_then(packet::text);
        assert_eq!(asked.as_deref(), Some(&*operation.namespace));
    }
    assert_eq!(read.name, event.name);
    assert!(read.args().eq(args.iter().copied()));
    for arg in &args {
        let fields: Option<Map<String, Value>> = serde_json::from_str(arg).ok();
        for (name, value) in fields.iter().flatten() {
            let found = json::field(arg, name).map(serde_json::from_str::<Value>);
            assert!(
                found.is_some_and(|found| found.ok().as_ref() == Some(value)),
                "{name} in {arg}"
            );
        }
    }
    for attachments in [1, ATTACHMENTS_MAX] {
        let named = placeholders::check(data, attachments).is_ok();
        let parts = vec![Bytes::from_static(b"part"); attachments];
        let whole = binary::inline(data, &parts);
        assert!(!named || serde_json::from_str::<Vec<&RawValue>>(&whole).is_ok(), "{whole}");
    }
}

/// A rule on an event: the room's template, the template of the stamp, the event, a line each.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let mut template = || Template::parse(lines.next().unwrap_or_default());
    let (Ok(room), Ok(stamp)) = (template(), template()) else { return };
    let Ok(event) = Event::parse(lines.next().unwrap_or_default()) else { return };
    for template in [&room, &stamp] {
        assert_eq!(Template::parse(&template.to_string()).as_ref(), Ok(template));
    }
    let join = decide(&event, Rule::Join(vec![room.clone()]));
    if let Some(Action::Join(rooms)) = &join {
        assert!(rooms.iter().all(|room| room.len() <= 256));
    }
    let plain = decide(&event, relay(Audience::Rooms(vec![room]), Vec::new()));
    assert_eq!(plain.is_some(), join.is_some());
    if let Some(Action::Relay { data, .. }) = plain {
        assert!(matches!(data, Cow::Borrowed(same) if same == event.data));
    }
    // What an operator wrote is added, however little a client did.
    let places = stamp.parts.len();
    let written = stamp.to_string().len();
    let stamps = vec![
        ("from".to_owned(), Template { parts: vec![TemplatePart::Sid] }),
        ("as".to_owned(), stamp),
    ];
    if let Some(Action::Relay { data, .. }) = decide(&event, relay(Audience::Everyone, stamps)) {
        check_stamped(&event, &data);
        let max = (1 + places) * event.data.len() + 6 * written + 512;
        assert!(data.len() <= max, "{} bytes of {}", data.len(), event.data.len());
    }
}

const SID: &str = "the-server's-own-sid";

fn relay(to: Audience, stamp: Vec<(String, Template)>) -> Rule {
    Rule::Relay(Relay { to, stamp, volatile: false, echo: false, member: true })
}

fn decide<'a>(event: &Event<'a>, rule: Rule) -> Option<Action<'a>> {
    let rule = EventRule { rule, rate: None, max: None };
    Rules::compile(&[], Some(&rule)).decide(event, SID, None).ok()
}

fn check_stamped(event: &Event<'_>, data: &str) {
    let stamped = Event::parse(data).expect("a stamped event is one");
    assert_eq!(stamped.name, event.name);
    let rest = |event: &Event<'_>| event.args().skip(1).collect::<Vec<_>>().concat();
    assert_eq!(rest(&stamped), rest(event));
    let first =
        |event: &Event<'_>| serde_json::from_str::<Map<String, Value>>(event.args().next()?).ok();
    // What JavaScript can read and we cannot is passed on all the same.
    let (Some(mut now), Some(mut before)) = (first(&stamped), first(event)) else { return };
    assert_eq!(now.remove("from"), Some(Value::from(SID)));
    assert!(now.remove("as").is_some_and(|value| value.is_string()));
    before.retain(|name, _| name != "from" && name != "as");
    assert_eq!(now, before);
}

/// A packet's data, and after the first line its attachments, a line each; then the same as values
/// of the application's.
pub fn binary(data: &[u8]) {
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    let (text, rest) = data.split_at(end);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let lines = rest.split(|byte| *byte == b'\n').skip(1).take(ATTACHMENTS_MAX);
    let parts: Vec<_> = lines.map(Bytes::copy_from_slice).collect();
    if !parts.is_empty() && placeholders::check(text, parts.len()).is_ok() {
        let whole = binary::inline(text, &parts);
        let size = parts.iter().map(|part| 2 * part.len() + 32).sum::<usize>();
        assert!(whole.len() <= text.len() + size, "{} bytes of {}", whole.len(), data.len());
    }
    if serde_json::from_str::<Vec<&RawValue>>(text).is_err() {
        return;
    }
    let Ok((again, parts)) = binary::extract(text, ATTACHMENTS_MAX) else { return };
    assert!(parts.len() <= ATTACHMENTS_MAX);
    if parts.is_empty() {
        return assert_eq!(again, text);
    }
    assert_eq!(placeholders::check(&again, parts.len()), Ok(()), "clients hang up");
    let whole = binary::inline(&again, &parts);
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        assert_eq!(serde_json::from_str::<Value>(&whole).ok(), Some(value));
    }
}

/// The application's answer to a hook: three digits of the status, then the body.
pub fn reply(data: &[u8]) {
    let Some((digits, body)) = data.split_first_chunk::<3>() else { return };
    let status = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    let Some(status) = status else { return };
    match (reply::read(status, body, ATTACHMENTS_MAX), status) {
        (Ok(Outcome::Answered(reply)), 200..=299) => {
            let texts = reply.join.len() + reply.leave.len() + reply.emit.len();
            assert!(texts <= body.len());
            let said = reply.emit.iter().map(|emit| &emit.said);
            for said in said.clone().chain([&reply.ack]) {
                assert!(binary::check_parts(&said.data, &said.parts).is_ok());
            }
            assert!(said.clone().all(|said| Event::parse(&said.data).is_ok()));
        }
        (Ok(Outcome::Denied(_)), 401 | 403) | (Ok(Outcome::Failed(_)), 200..=499) => {}
        (Err(error), 0..=199 | 500..) => assert_eq!(error.0, status),
        (other, status) => unreachable!("{status} came to {other:?}"),
    }
}

/// A packet's attachments as they come: how many, how much of all may come, then the text and the
/// parts, a line each.
pub fn partial(data: &[u8]) {
    let Some(([missing, max], rest)) = data.split_first_chunk::<2>() else { return };
    let (missing, max) = (1 + usize::from(*missing) % ATTACHMENTS_MAX, usize::from(*max));
    let mut lines = rest.split(|byte| *byte == b'\n');
    let Ok(text) = std::str::from_utf8(lines.next().unwrap_or_default()) else { return };
    let mut partial = Partial::begin(text, missing, Duration::ZERO);
    let mut given: Vec<&[u8]> = Vec::new();
    for part in lines {
        given.push(part);
        let size = text.len() + given.iter().map(|part| part.len()).sum::<usize>();
        partial = match partial.fill(part, max) {
            Filled::TooLarge => return assert!(size > max),
            Filled::Wanting(partial) => {
                assert!(size <= max && given.len() < missing);
                partial
            }
            Filled::Whole(same, parts) => {
                assert!(size <= max && given.len() == missing && same == text);
                return assert_eq!(parts, given);
            }
        };
    }
}

/// The path of a request: nobody may reach what is private by writing it in another way.
pub fn private_paths(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    let plain = paths::plain(path);
    assert!(plain.starts_with('/') && plain.len() <= path.len() + 1);
    let mut segments = plain.split('/').skip(1);
    assert!(plain == "/" || segments.all(|segment| !["", ".", ".."].contains(&segment)));
    assert!(!plain.contains('\\'));
    let encoded: String = plain.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for same in [format!("/{path}/"), format!("/./{path}//"), format!("/x/../{path}"), encoded] {
        assert_eq!(paths::plain(&same), plain, "{same}");
    }
    if !path.contains('%') {
        // Every letter but those that divide stands for itself.
        let written: String = path.bytes().map(|byte| format!("%{byte:02x}")).collect();
        assert_eq!(paths::plain(&written), plain, "{path}");
    }
}
