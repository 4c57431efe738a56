//! The hub API's words → operations of the hub; pure.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::hub::{
    Deed, Operation, Page, Target, check_parts, detach, is_id, is_reserved, user_room_of,
};

use super::fields::{Fields, Wrong};

/// What can be asked, by the last word of its path, which is `op` in a batch.
pub const POSTED: [&str; 4] = ["emit", "join", "leave", "disconnect"];
pub const ASKED: [&str; 3] = ["sockets", "rooms", "count"];

/// Operations of one batch.
const BATCH_MAX: usize = 1000;
/// Bytes of a room's name, as for clients.
const ROOM_MAX: usize = 256;
/// Entries of one list.
const PAGE_MAX: usize = 10_000;
const PAGE: usize = 1000;

/// What holds for every operation.
pub struct Known<'a> {
    /// Those that there are.
    pub namespaces: &'a [&'a str],
    /// Whose sessions open each of them, in their order.
    pub providers: &'a [Vec<&'a str>],
    /// Attachments of one event.
    pub attachments: usize,
}

/// The operation called `op`.
pub fn read(op: &str, mut fields: Fields<'_>, known: &Known<'_>) -> Result<Operation, Wrong> {
    let namespace = namespace(&mut fields, known.namespaces)?;
    let place = known.namespaces.iter().position(|known| *known == namespace);
    let providers =
        place.and_then(|place| known.providers.get(place)).map_or(&[][..], Vec::as_slice);
    let operation = match op {
        "emit" => emit(&namespace, &mut fields, known.attachments, providers)?,
        "join" => {
            let target = somebody(&mut fields, providers)?;
            Operation::new(&namespace, Deed::Join { target, rooms: rooms(&mut fields)? })
        }
        "leave" => {
            let target = somebody(&mut fields, providers)?;
            Operation::new(&namespace, Deed::Leave { target, rooms: rooms(&mut fields)? })
        }
        "disconnect" => {
            let (target, close) = (somebody(&mut fields, providers)?, fields.flag("close")?);
            Operation::new(&namespace, Deed::Disconnect { target, close })
        }
        "sockets" => {
            let rooms = fields.text("room")?.map(|room| vec![room]);
            let target = Target { rooms, ..Target::default() };
            Operation::new(&namespace, Deed::Sockets { target, page: page(&mut fields)? })
        }
        "rooms" => Operation::new(&namespace, Deed::Rooms { page: page(&mut fields)? }),
        _ => Operation::new(&namespace, Deed::Count { room: fields.text("room")? }),
    };
    fields.finish()?;
    Ok(operation)
}

/// A list of operations, each with its `op`.
pub fn read_batch(json: &RawValue, known: &Known<'_>) -> Result<Vec<Operation>, Wrong> {
    let items = super::fields::list(json, "")?;
    if items.is_empty() || items.len() > BATCH_MAX {
        let message = format!("has {} operations; a batch has 1 to {BATCH_MAX}", items.len());
        return Err(Wrong::new("", message));
    }
    let one = |(index, item): (usize, &&RawValue)| {
        let mut fields = Fields::of(item, format!("[{index}]"))?;
        let op = fields.must("op", "emit")?;
        if !POSTED.iter().chain(&ASKED).any(|known| *known == op) {
            let known = [&POSTED[..], &ASKED].concat().join(", ");
            return Err(fields.wrong("op", format!("{op:?} is no operation; {known} are")));
        }
        read(&op, fields, known)
    };
    items.iter().enumerate().map(one).collect()
}

fn namespace(fields: &mut Fields<'_>, known: &[&str]) -> Result<String, Wrong> {
    let name = fields.must("namespace", known.first().unwrap_or(&"/"))?;
    if known.contains(&name.as_str()) {
        return Ok(name);
    }
    let known = known.join(", ");
    Err(fields.wrong("namespace", format!("{name:?} is not configured; known are {known}")))
}

fn emit(
    namespace: &str,
    fields: &mut Fields<'_>,
    most: usize,
    providers: &[&str],
) -> Result<Operation, Wrong> {
    let target = whom(fields, providers)?;
    let event = fields.must("event", "news")?;
    if is_reserved(&event) {
        return Err(fields.wrong("event", format!("{event:?} is kept by Socket.IO for itself")));
    }
    // A text is always JSON.
    let mut data = format!("[{}", serde_json::to_string(&event).unwrap_or_default());
    let mut parts: Vec<Bytes> = Vec::new();
    for (index, value) in fields.values("args")?.into_iter().enumerate() {
        data.push(',');
        detach(value.get(), &mut data, (&mut parts, most))
            .map_err(|unfit| fields.wrong(&format!("args[{index}]"), unfit.to_string()))?;
    }
    data.push(']');
    check_parts(&data, &parts).map_err(|unfit| fields.wrong("args", unfit.to_string()))?;
    let volatile = fields.flag("volatile")?;
    Ok(Operation::emit(namespace, target, &data, parts, volatile))
}

/// As `whom`, but nobody is moved or sent away because a field was forgotten.
fn somebody(fields: &mut Fields<'_>, providers: &[&str]) -> Result<Target, Wrong> {
    let named = ["to", "sid", "user", "session"].iter().any(|name| fields.has(name));
    if !named {
        let message =
            "is missing; name rooms, a sid, a user or a session; \"*\" is the whole namespace";
        return Err(fields.wrong("to", message));
    }
    whom(fields, providers)
}

/// The rooms of `to`, the socket `sid`, the user's sockets and those of one of the application's
/// sessions together; without them, everyone.
fn whom(fields: &mut Fields<'_>, providers: &[&str]) -> Result<Target, Wrong> {
    let to = fields.texts("to")?;
    let everyone = to.as_ref().is_none_or(|rooms| rooms.iter().any(|room| room == "*"));
    let mut rooms = to.unwrap_or_default();
    if everyone && rooms.len() > 1 {
        return Err(fields.wrong("to", "has \"*\" beside rooms; it stands alone"));
    }
    let all = rooms.pop_if(|room| room == "*").is_some();
    if !all && !everyone && rooms.is_empty() {
        let message = "is empty, which is nobody; \"*\" is the whole namespace";
        return Err(fields.wrong("to", message));
    }
    if let Some(sid) = fields.text("sid")? {
        if !is_id(&sid) {
            return Err(fields.wrong("sid", format!("{sid:?} is no id of a socket")));
        }
        rooms.push(sid);
    }
    match (fields.name("user")?, fields.text("provider")?) {
        (Some(user), None) => rooms.push(format!("user:{user}")),
        (Some(user), Some(provider)) => rooms.push(user_of(fields, &provider, &user, providers)?),
        (None, Some(_)) => {
            return Err(fields.wrong("provider", "says whose a user is; name the user"));
        }
        (None, None) => (),
    }
    if let Some(session) = fields.name("session")? {
        rooms.push(format!("session:{session}"));
    }
    let except = fields.texts("except")?.unwrap_or_default();
    let rooms = (!all && !rooms.is_empty()).then_some(rooms);
    Ok(Target { rooms, except, but: None })
}

/// The room of a user of this provider's: another's may have the same id.
fn user_of(
    fields: &Fields<'_>,
    provider: &str,
    user: &str,
    providers: &[&str],
) -> Result<String, Wrong> {
    match providers {
        [one] if *one == provider => Ok(format!("user:{user}")),
        several if several.contains(&provider) => Ok(user_room_of(provider, user)),
        _ => {
            let message = match providers {
                [] => "says nothing here: with auth: none nobody is a user".to_owned(),
                known => {
                    format!("{provider:?} lets nobody in there; known are {}", known.join(", "))
                }
            };
            Err(fields.wrong("provider", message))
        }
    }
}

fn rooms(fields: &mut Fields<'_>) -> Result<Vec<String>, Wrong> {
    let rooms = fields.texts("rooms")?.unwrap_or_default();
    if rooms.is_empty() {
        return Err(fields.wrong("rooms", "is missing; write \"rooms\": [\"room:a\"]"));
    }
    let wrong = |room: &String| room.is_empty() || room.len() > ROOM_MAX || is_id(room);
    match rooms.iter().position(wrong) {
        Some(index) => Err(fields.wrong(
            &format!("rooms[{index}]"),
            format!("is no room's name: 1 to {ROOM_MAX} bytes, and no socket's id"),
        )),
        None => Ok(rooms),
    }
}

fn page(fields: &mut Fields<'_>) -> Result<Page, Wrong> {
    let after = fields.text("after")?.unwrap_or_default();
    Ok(Page { after, most: fields.count("limit", PAGE_MAX)?.unwrap_or(PAGE) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known<'a>(namespaces: &'a [&'a str]) -> Known<'a> {
        Known { namespaces, providers: &[], attachments: 10 }
    }

    #[test]
    fn a_user_is_one_of_a_providers() {
        let providers = [vec![], vec!["app"], vec!["app", "to:ken"]];
        let known = Known {
            namespaces: &["/open", "/one", "/two"],
            providers: &providers,
            attachments: 10,
        };
        let rooms = |namespace: &str, whose: &str| {
            let body = format!(r#"{{"namespace":"{namespace}",{whose}}}"#);
            let json: &RawValue = serde_json::from_str(&body).expect("JSON");
            let read = Fields::of(json, "").and_then(|fields| read("disconnect", fields, &known));
            match read.map(|operation| operation.deed) {
                Ok(Deed::Disconnect { target, .. }) => target.rooms.unwrap_or_default().join(" "),
                Ok(other) => panic!("{other:?}"),
                Err(wrong) => format!("{}: {}", wrong.field, wrong.message),
            }
        };
        for (namespace, whose, wanted) in [
            ("/two", r#""user":"1""#, "user:1"),
            ("/one", r#""user":"1","provider":"app""#, "user:1"),
            ("/two", r#""user":1,"provider":"app""#, "user@app:1"),
            ("/two", r#""user":"a:1","provider":"to:ken""#, "user@to%3Aken:a:1"),
            (
                "/two",
                r#""user":"1","provider":"other""#,
                "provider: \"other\" lets nobody in there; known are app, to:ken",
            ),
            (
                "/open",
                r#""user":"1","provider":"app""#,
                "provider: says nothing here: with auth: none nobody is a user",
            ),
            (
                "/two",
                r#""sid":"aaaaaaaaaaaaaaaaaaaa","provider":"app""#,
                "provider: says whose a user is; name the user",
            ),
        ] {
            assert_eq!(rooms(namespace, whose), wanted, "{namespace} {whose}");
        }
    }

    fn refused(op: &str, body: &str) -> String {
        let json: &RawValue = serde_json::from_str(body).expect("JSON");
        let read =
            Fields::of(json, "").and_then(|fields| read(op, fields, &known(&["/", "/chat"])));
        match read {
            Ok(_) => "nothing".to_owned(),
            Err(Wrong { field, message }) => format!("{field}: {message}"),
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (op, body, said) in [
            ("emit", "[]", ": must be an object"),
            ("emit", "{}", "namespace: is missing"),
            ("emit", r#"{"namespace":1}"#, "namespace: must be a text, not a number"),
            (
                "emit",
                r#"{"namespace":"/no"}"#,
                "namespace: \"/no\" is not configured; known are /, /chat",
            ),
            ("emit", r#"{"namespace":"/"}"#, "event: is missing"),
            ("emit", r#"{"namespace":"/","event":"connect"}"#, "event: \"connect\" is kept"),
            (
                "emit",
                r#"{"namespace":"/","event":"x","args":{}}"#,
                "args: must be a list, not an object",
            ),
            (
                "emit",
                r#"{"namespace":"/","event":"x","args":[1,{"$binary":"%"}]}"#,
                "args[1]: \"$binary\" is no base64",
            ),
            (
                "emit",
                r#"{"namespace":"/","event":"x","args":[{"$binary":""},{"_placeholder":true,"num":0}]}"#,
                "args: \"_placeholder\" beside binary parts",
            ),
            ("emit", r#"{"namespace":"/","event":"x","to":[]}"#, "to: is empty, which is nobody"),
            ("emit", r#"{"namespace":"/","event":"x","to":["a",1]}"#, "to[1]: must be a text"),
            ("emit", r#"{"namespace":"/","event":"x","to":["a","*"]}"#, "to: has \"*\" beside"),
            (
                "emit",
                r#"{"namespace":"/","event":"x","to":null}"#,
                "to: must be a text, not null; leave",
            ),
            (
                "emit",
                r#"{"namespace":"/","event":"x","volatile":1}"#,
                "volatile: must be true or false",
            ),
            (
                "emit",
                r#"{"namespace":"/","event":"x","tp":"a"}"#,
                "tp: is not known here; known are namespace, to, sid",
            ),
            ("emit", r#"{"namespace":"/","event":"x","sid":"a"}"#, "sid: \"a\" is no id"),
            ("join", r#"{"namespace":"/","rooms":"a"}"#, "to: is missing; name rooms"),
            ("join", r#"{"namespace":"/","to":"*"}"#, "rooms: is missing"),
            (
                "leave",
                r#"{"namespace":"/","to":"*","rooms":["a",""]}"#,
                "rooms[1]: is no room's name",
            ),
            ("disconnect", r#"{"namespace":"/"}"#, "to: is missing"),
            ("sockets", r#"{"namespace":"/","limit":0}"#, "limit: must be a whole number"),
        ] {
            let refused = refused(op, body);
            assert!(refused.starts_with(said), "{body}: {refused}");
        }
        for (op, body) in [
            ("emit", r#"{"namespace":"/","event":"x"}"#),
            ("emit", r#"{"namespace":"/","event":"x","to":"*","except":"a","args":[{"a":1}]}"#),
            ("emit", r#"{"namespace":"/chat","event":"x","user":7,"sid":"aaaaaaaaaaaaaaaaaaaa"}"#),
            ("disconnect", r#"{"namespace":"/","user":"a","close":true}"#),
            ("count", r#"{"namespace":"/"}"#),
        ] {
            assert_eq!(refused(op, body), "nothing", "{body}");
        }
    }

    #[test]
    fn a_batch_says_which() {
        let wrong = |body: &str| {
            let json: &RawValue = serde_json::from_str(body).expect("JSON");
            read_batch(json, &known(&["/"])).err().map(|wrong| wrong.field)
        };
        assert_eq!(
            wrong(r#"[{"op":"count","namespace":"/"},{"op":"x"}]"#).as_deref(),
            Some("[1].op")
        );
        assert_eq!(wrong(r#"[{"op":"count"}]"#).as_deref(), Some("[0].namespace"));
        assert_eq!(wrong(r#"[1]"#).as_deref(), Some("[0]"));
        assert_eq!(wrong(r#"[]"#).as_deref(), Some(""));
        assert_eq!(wrong(r#"[{"op":"count","namespace":"/"}]"#), None);
    }
}
