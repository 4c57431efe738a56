//! The hub as written → `Hub`; pure.

use super::admin_ui;
use super::field::{Field, Named};
use super::redis;
use super::section::Section;
use super::units::{ByteRate, byte_rate, deadline, duration, rate, show_size, size};
use super::upstream;
use super::validate::{at_least_one, bytes, quota};
use super::{
    Audience, EventRule, Hooks, Hub, HubLimits, MemoryMax, Namespace, NamespaceAuth, Recovery,
    Relay, RoomPattern, Rule, Template, TemplatePart, Together,
};

pub fn read(section: &Section<'_>, providers: &[&str]) -> Hub {
    let ping = section.section("ping");
    Hub {
        path: section.value("path", path),
        origins: section.list("origins", origin),
        ping_interval: ping.value("interval", deadline),
        ping_timeout: ping.value("timeout", deadline),
        connect_timeout: section.value("connect_timeout", deadline),
        compress_above: section.written("compress").map(|_| compress(&section.section("compress"))),
        limits: limits(&section.section("limits")),
        recovery: section.written("recovery").map(|_| recovery(&section.section("recovery"))),
        drain_over: section.section("drain").value("over", duration),
        hooks: hooks(&section.section("hooks")),
        admin_ui: section
            .written("admin_ui")
            .map(|_| admin_ui::read(&section.section("admin_ui"), &section.names("namespaces"))),
        redis: section.written("redis").map(|_| redis::read(&section.section("redis"))),
        namespaces: namespaces(section, providers),
    }
}

fn path(text: &str) -> Result<String, String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    if path.is_empty() {
        return Err(format!("{text:?} would hide every site; write /socket.io"));
    }
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if !path.starts_with('/') || path.contains("//") || !path.bytes().all(letter) {
        return Err(format!("{text:?} is no path for the hub; write /socket.io"));
    }
    Ok(path.to_owned())
}

/// As browsers send it: in lower case, without the scheme's own port.
pub fn origin(text: &str) -> Result<String, String> {
    let origin = text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase();
    if origin == "*" {
        return Ok(origin);
    }
    let letter = |byte: u8| byte.is_ascii_graphic() && !b"/?#@*".contains(&byte);
    if let Some(own) = app_origin(&origin) {
        return own;
    }
    for (scheme, port) in [("https://", ":443"), ("http://", ":80")] {
        let Some(host) = origin.strip_prefix(scheme) else { continue };
        let host = host.strip_suffix(port).unwrap_or(host);
        // A star is one label, the first, of a name that has at least two more.
        let named = host.strip_prefix("*.").filter(|rest| rest.contains('.')).unwrap_or(host);
        if !named.is_empty() && named.bytes().all(letter) {
            return Ok(format!("{scheme}{host}"));
        }
    }
    Err(format!("{text:?} is no origin; write https://app.example.com, or \"*\" for any"))
}

/// What pages of apps and of browser extensions have as their origin: `capacitor://localhost`.
fn app_origin(origin: &str) -> Option<Result<String, String>> {
    let (scheme, host) = origin.split_once("://")?;
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.bytes().all(letter) || !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
    {
        return None;
    }
    // Pages come by these, and files have no origin; what is nearly one of them is a slip.
    if ["http", "https", "ws", "wss", "file"].contains(&scheme) {
        return None;
    }
    if let Some(near) = super::problem::nearest(scheme, ["http", "https"]) {
        return Some(Err(format!("{origin:?} is no origin; did you mean {near}://{host}?")));
    }
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    (!host.is_empty() && host.bytes().all(letter)).then(|| Ok(origin.to_owned()))
}

fn hooks(section: &Section<'_>) -> Hooks {
    Hooks {
        timeout: section.value("timeout", deadline),
        retry: section.value("retry", duration),
        secret: section.written("secret").and_then(Field::read_secret),
        headers: section.list("headers", header),
        to: section.written("to").map(|_| upstream::read(&section.section("to"))),
    }
}

fn header(text: &str) -> Result<String, String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if text.is_empty() || !text.bytes().all(letter) {
        return Err(format!("{text:?} is no header; write cookie"));
    }
    Ok(text.to_ascii_lowercase())
}

/// A path of the application, asked by POST.
fn hook(text: &str) -> Result<String, String> {
    let letter = |byte: u8| byte.is_ascii_graphic() && !b"?#\\\"<>".contains(&byte);
    if !text.starts_with('/') || text.contains("//") || !text.bytes().all(letter) {
        return Err(format!("{text:?} is no path of the application; write /api/chat/message"));
    }
    Ok(text.to_owned())
}

fn limits(section: &Section<'_>) -> HubLimits {
    let message = section.value("message", |text| bytes(text, 1 << 10, MEMORY_MAX));
    HubLimits {
        message,
        rooms: section.value("rooms", at_least_one),
        queue: queue(section, message),
        events: section.value("events", rate),
        burst: section.value("burst", at_least_one),
        bytes: section.value("bytes", |text| heard(text, message)),
        per_ip: together(&section.section("per_ip")),
        pending: section.value("pending", at_least_one),
        handshakes: section.value("handshakes", rate),
        per_user: together(&section.section("per_user")),
        attachments: section.value("attachments", attachments),
        memory: section.value("memory", memory),
    }
}

fn together(section: &Section<'_>) -> Together {
    let events = |text: &str| if text == "none" { Ok(None) } else { rate(text).map(Some) };
    Together {
        connections: section.value("connections", at_least_one),
        events: quota(section, section.value("events", events)),
    }
}

/// The largest message may be waited for, but not for ever.
fn heard(text: &str, message: usize) -> Result<ByteRate, String> {
    let rate = byte_rate(text)?;
    let least = (message as u64).div_ceil(MESSAGE_TAKES);
    if (1..least).contains(&rate.0) {
        let (least, message) = (show_size(least), show_size(message as u64));
        return Err(format!(
            "{text} is too slow for a message of {message}; write {least}/s at least"
        ));
    }
    Ok(rate)
}

/// Seconds.
const MESSAGE_TAKES: u64 = 10;

/// Left out, it has room for two of the largest messages, which may come within one round trip, or
/// between two polls.
fn queue(section: &Section<'_>, message: usize) -> usize {
    let queue = section.value("queue", |text| bytes(text, 4 << 10, MEMORY_MAX));
    match section.written("queue") {
        Some(_) => queue,
        None => queue.max(message.saturating_mul(2)),
    }
}

fn attachments(text: &str) -> Result<usize, String> {
    match at_least_one(text)? {
        count if count > ATTACHMENTS_MAX => {
            Err(format!("{count} is more than can be read of one event; write {ATTACHMENTS_MAX}"))
        }
        count => Ok(count),
    }
}

/// Of one packet; see `hub::packet`.
const ATTACHMENTS_MAX: usize = 256;

fn recovery(section: &Section<'_>) -> Recovery {
    Recovery {
        lasts: section.value("for", deadline),
        messages: section.value("messages", at_least_one),
        bytes: section.value("bytes", |text| bytes(text, 4 << 10, MEMORY_MAX)),
        sessions: section.value("sessions", at_least_one),
    }
}

fn compress(section: &Section<'_>) -> usize {
    section.value("above", |text| bytes(text, 1, MEMORY_MAX))
}

fn memory(text: &str) -> Result<MemoryMax, String> {
    match text {
        "auto" => Ok(MemoryMax::Auto),
        "none" => Ok(MemoryMax::Off),
        text => match size(text)? {
            bytes if bytes < PROCESS_MIN => {
                Err(format!("{text} is less than the process itself takes; write 256MB"))
            }
            bytes => Ok(MemoryMax::Bytes(bytes)),
        },
    }
}

/// An idle process takes about as much.
const PROCESS_MIN: u64 = 8 << 20;

/// Held in memory for each client.
const MEMORY_MAX: usize = 1 << 30;

fn namespaces(section: &Section<'_>, providers: &[&str]) -> Vec<Namespace> {
    let named = section.names("namespaces");
    if named.is_empty() && section.written("namespaces").is_none_or(Field::is_map) {
        section.refuse_lack(
            "has no namespaces, so nobody could connect; write namespaces: { /: { auth: none } }",
        );
    }
    let keys = section.keys("namespaces");
    let one = |named: &Named<'_>| namespace(named, &Section::of(&named.field, keys), providers);
    named.iter().map(one).collect()
}

fn namespace(named: &Named<'_>, section: &Section<'_>, providers: &[&str]) -> Namespace {
    if let Err(what) = namespace_name(named.name) {
        named.field.refuse_key(what);
    }
    if section.written("auth").is_none() {
        section.refuse_lack("has no auth; write auth: none to let everybody in");
    }
    let auth = auth(section, "auth", providers);
    let users = auth != NamespaceAuth::Anyone;
    let join = section.list("join", |text| {
        let template = template(text, When::Connect, users)?;
        guard_users(&template)?;
        Ok(template)
    });
    let presence = section.list("presence", RoomPattern::parse);
    let (events, otherwise) = events(section, &join, &presence, users);
    Namespace {
        name: named.name.to_owned(),
        auth,
        join,
        presence,
        connect: section.get("connect", hook),
        disconnect: section.get("disconnect", hook),
        events,
        otherwise,
    }
}

/// Providers by name, or everybody.
pub fn auth(section: &Section<'_>, key: &str, providers: &[&str]) -> NamespaceAuth {
    let items = section.written(key).map(Field::items).unwrap_or_default();
    let known =
        items.iter().filter_map(|item| item.read(|text| Ok(text.to_owned())).zip(Some(item)));
    let known: Vec<_> = known.collect();
    if let [(only, _)] = known.as_slice()
        && only == "none"
    {
        return NamespaceAuth::Anyone;
    }
    for (name, item) in &known {
        if name == "none" {
            item.refuse("stands alone: it is everybody, also whom no provider knows");
        } else if !providers.contains(&name.as_str()) {
            let near = super::problem::nearest(name, providers.iter().copied());
            let instead = near.map_or_else(
                || "write it below auth, or none".to_owned(),
                |near| format!("did you mean {near:?}?"),
            );
            item.refuse(format!("no session provider is called {name:?}; {instead}"));
        }
    }
    if let Some(field) = section.written(key).filter(|field| field.is_empty_list()) {
        field.refuse("is nobody; write a provider's name, or none for everybody");
    }
    if known.is_empty() {
        return NamespaceAuth::Anyone;
    }
    NamespaceAuth::Users(known.into_iter().map(|(name, _)| name).collect())
}

pub fn namespace_name(name: &str) -> Result<(), String> {
    if !name.starts_with('/') {
        return Err(format!("a namespace begins with a slash; write /{name}"));
    }
    // A comma ends the namespace in a packet, a question mark its name in a URL.
    if name.contains([',', '?']) || name.chars().any(char::is_control) {
        return Err("a namespace has no comma and no question mark in it".to_owned());
    }
    Ok(())
}

type Events = (Vec<(String, EventRule)>, Option<EventRule>);

fn events(
    section: &Section<'_>,
    joined: &[Template],
    presence: &[RoomPattern],
    users: bool,
) -> Events {
    let Some(field) = section.written("events") else { return (Vec::new(), None) };
    if field.is_word("deny") {
        return (Vec::new(), Some(Rule::Deny.into()));
    }
    let (mut events, mut otherwise) = (Vec::new(), None);
    for Named { name, field } in section.names("events") {
        if RESERVED.contains(&name) {
            field.refuse_key("is a name that Socket.IO keeps for itself; no client can send it");
        }
        let Some(rule) = rule(&field, section, joined, presence, users) else { continue };
        if name == "presence" && !presence.is_empty() && matches!(rule.rule, Rule::Relay(_)) {
            field.refuse_key("is what the hub itself tells here; a client could pretend");
        }
        if name == "*" {
            otherwise = Some(rule);
        } else {
            events.push((name.to_owned(), rule));
        }
    }
    (events, otherwise)
}

const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

fn rule(
    field: &Field<'_>,
    namespace: &Section<'_>,
    joined: &[Template],
    presence: &[RoomPattern],
    users: bool,
) -> Option<EventRule> {
    if field.is_word("deny") {
        return Some(Rule::Deny.into());
    }
    if !field.is_map() {
        field.refuse(
            "is no rule; write deny, { relay: ROOM }, { join: ROOM }, { leave: ROOM }, \
             { presence: ROOM } or { forward: PATH }",
        );
        return None;
    }
    let section = Section::of(field, namespace.keys("events"));
    let verbs: Vec<_> = ["relay", "join", "leave", "presence", "forward"]
        .into_iter()
        .filter(|verb| section.written(verb).is_some())
        .collect();
    if !verbs.contains(&"relay") {
        for key in ["stamp", "volatile", "echo", "member"] {
            section.written(key).inspect(|field| field.refuse_key("goes only with relay"));
        }
    }
    let (rate, max) = (section.get("rate", rate), section.get("max", bytes_of_event));
    let rule = match verbs.as_slice() {
        ["relay"] => Some(Rule::Relay(relay(&section, joined, users))),
        ["join"] => Some(Rule::Join(rooms(&section, "join", Some(joined), users))),
        ["leave"] => Some(Rule::Leave(rooms(&section, "leave", None, users))),
        ["presence"] => {
            section.get("presence", |text| watched(text, presence, users)).map(Rule::Presence)
        }
        ["forward"] => section.get("forward", hook).map(Rule::Forward),
        [] => {
            section.refuse_lack(
                "has no rule; write relay, join, leave, presence or forward, or deny alone",
            );
            None
        }
        _ => {
            section.refuse(format!("has {}; an event has one rule", verbs.join(" and ")));
            None
        }
    };
    rule.map(|rule| EventRule { rule, rate, max })
}

/// The room of a `presence` rule.
fn watched(text: &str, presence: &[RoomPattern], users: bool) -> Result<Template, String> {
    let template = template(text, When::Event, users)?;
    if presence.iter().any(|pattern| pattern.covers(&template)) {
        return Ok(template);
    }
    Err(format!("{text:?} is not watched; write its rooms into the namespace's presence: room:*"))
}

fn bytes_of_event(text: &str) -> Result<usize, String> {
    bytes(text, 1, MEMORY_MAX)
}

fn relay(section: &Section<'_>, joined: &[Template], users: bool) -> Relay {
    let member = section.flag("member");
    let everyone = section.written("relay").is_some_and(|field| field.is_word("*"));
    let to = if everyone {
        Audience::Everyone
    } else {
        // A member of a room may speak to it, however it came in.
        Audience::Rooms(rooms(section, "relay", (!member).then_some(joined), users))
    };
    let stamp = section.names("stamp").into_iter().filter_map(|Named { name, field }| {
        Some((name.to_owned(), field.read(|text| template(text, When::Event, users))?))
    });
    let stamp = stamp.collect();
    Relay { to, stamp, volatile: section.flag("volatile"), echo: section.flag("echo"), member }
}

/// Rooms that an event names. Where `joined` is given, a client must not come into those: they are
/// the ones that the server chooses for it.
fn rooms(
    section: &Section<'_>,
    verb: &str,
    joined: Option<&[Template]>,
    users: bool,
) -> Vec<Template> {
    if let Some(field) = section.written(verb).filter(|field| field.is_empty_list()) {
        field.refuse("is no room, so nothing would come of it; name one: room:{0}");
    }
    section.list(verb, |text| {
        if text == "*" {
            return Err("\"*\" stands alone, and only with relay".to_owned());
        }
        let template = template(text, When::Event, users)?;
        if template.has_client_data() {
            guard(&template, joined)?;
        } else if joined.is_some() {
            guard_users(&template)?;
        }
        Ok(template)
    })
}

/// Refuses a room whose name the client could make into another's.
fn guard(template: &Template, joined: Option<&[Template]>) -> Result<(), String> {
    let prefix = template.prefix();
    if prefix.is_empty() {
        return Err(format!(
            "{template:?} lets a client name any room; begin with a word: room:{template}",
            template = template.to_string()
        ));
    }
    let Some(joined) = joined else { return Ok(()) };
    let clashes = |reserved: &str| reserved.starts_with(prefix) || prefix.starts_with(reserved);
    let reserved = joined.iter().find(|room| match room.parts.first() {
        Some(TemplatePart::Literal(known)) if room.is_literal() => known.starts_with(prefix),
        Some(TemplatePart::Literal(known)) => clashes(known),
        // Whatever the store knows of a user may begin with the prefix.
        Some(TemplatePart::User(_)) => true,
        Some(TemplatePart::Sid) => prefix.bytes().take(ID).all(is_of_ids),
        _ => false,
    });
    let reserved = match reserved {
        Some(room) => Some(room.to_string()),
        None => [USER, SESSION, USER_OF]
            .into_iter()
            .find(|start| clashes(start))
            .map(|start| format!("{start}…")),
    };
    if let Some(room) = reserved {
        return Err(format!(
            "{:?} lets a client name {room} rooms, which the server chooses; begin with another word",
            template.to_string()
        ));
    }
    if may_be_id(template) {
        return Err(format!(
            "{:?} lets a client name the room of another's socket, which is its id; begin with a \
             word and a colon: room:…",
            template.to_string()
        ));
    }
    Ok(())
}

/// Refuses a room that a user could make into another's, by what the store knows of it: many may
/// choose their own name.
fn guard_users(template: &Template) -> Result<(), String> {
    let text = template.to_string();
    let user = |part: &TemplatePart| match part {
        TemplatePart::User(field) => Some(field.clone()),
        _ => None,
    };
    let Some(field) = template.parts.iter().find_map(user) else { return Ok(()) };
    // One that begins with an id is none, and no user's.
    if template.parts.first() == Some(&TemplatePart::Sid) || text == "user:{user.id}" {
        return Ok(());
    }
    let prefix = template.prefix();
    if prefix.is_empty() {
        return Err(format!(
            "{text:?} may be any room, as users may choose what stands there; begin with a word \
             and a colon: {field}:{text}",
        ));
    }
    let clashes = |start: &&str| start.starts_with(prefix) || prefix.starts_with(*start);
    if let Some(start) = [USER, SESSION, USER_OF].iter().find(|start| clashes(start)) {
        return Err(format!(
            "{text:?} may be another's {start}… room; write user:{{user.id}}, or begin with another \
             word"
        ));
    }
    if may_be_id(template) {
        return Err(format!(
            "{text:?} may be the room of another's socket, which is its id; begin with a word and a \
             colon: {field}:{{user.{field}}}"
        ));
    }
    Ok(())
}

/// Whether the room may be that of a socket's own, which has the name of its id.
fn may_be_id(template: &Template) -> bool {
    template.parts.iter().all(|part| match part {
        TemplatePart::Literal(text) => text.bytes().all(is_of_ids),
        _ => true,
    })
}

fn is_of_ids(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
}

/// Letters of a socket's id.
const ID: usize = 20;

/// Rooms of one user each, by convention of this language.
const USER: &str = "user:";
/// Rooms of one session each, which sockets join by themselves.
const SESSION: &str = "session:";
/// Rooms of one user each, among those of several providers.
const USER_OF: &str = "user@";

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Connect,
    Event,
}

fn template(text: &str, when: When, users: bool) -> Result<Template, String> {
    let template = Template::parse(text)?;
    for part in &template.parts {
        match part {
            TemplatePart::User(field) if !users => {
                return Err(format!(
                    "{{user.{field}}} is never known: with auth: none nobody is a user"
                ));
            }
            part if when == When::Connect && part.is_client_data() => {
                return Err(format!(
                    "{text:?} names what an event brings, and there is none at connect"
                ));
            }
            _ => {}
        }
    }
    Ok(template)
}
