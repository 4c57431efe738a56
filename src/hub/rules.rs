//! What an event of a client comes to: who hears it, which rooms it moves its sender to; pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::auth::Identity;
use crate::config::{Audience, EventRule, Relay, Rule, Template, TemplatePart};
use crate::limits::Rate;

use super::json;
use super::packet::{self, Event};

/// The rules of one namespace by event name.
#[derive(Debug, Default)]
pub struct Rules {
    /// A handful: compared sooner than hashed.
    by_event: BTreeMap<String, Entry>,
    otherwise: Option<Entry>,
    /// Whether any of them has bounds.
    bounded: bool,
}

#[derive(Debug)]
struct Entry {
    rule: Rule,
    bounds: Bounds,
}

/// How much of an event one socket may send.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// Bytes, attachments too.
    pub max: Option<usize>,
    /// A rate, and its place among those of the namespace.
    pub rate: Option<(usize, Rate)>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<'a> {
    Relay {
        /// `None` is the whole namespace.
        rooms: Option<Vec<String>>,
        /// The event as an array, stamped.
        data: Cow<'a, str>,
        volatile: bool,
        echo: bool,
        member: bool,
    },
    Join(Vec<String>),
    Leave(Vec<String>),
    /// The application is asked, at this path.
    Forward(Arc<str>),
    /// Who is in this room?
    Presence(String),
}

impl Action<'_> {
    pub fn into_owned(self) -> Action<'static> {
        match self {
            Self::Relay { rooms, data, volatile, echo, member } => {
                let data = Cow::Owned(data.into_owned());
                Action::Relay { rooms, data, volatile, echo, member }
            }
            Self::Join(rooms) => Action::Join(rooms),
            Self::Leave(rooms) => Action::Leave(rooms),
            Self::Forward(path) => Action::Forward(path),
            Self::Presence(room) => Action::Presence(room),
        }
    }
}

/// Why nothing is done; the word is the acknowledgement's `code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    UnknownEvent,
    Denied,
    /// An argument that a rule needs is missing, or is no text, number or boolean.
    BadArguments,
    NotMember,
    TooManyRooms,
    /// Too many events wait for the application.
    Busy,
    /// More than the client, or the rule, may send.
    RateLimited,
    TooLarge,
}

impl Denial {
    pub fn code(self) -> &'static str {
        match self {
            Self::UnknownEvent => "unknown_event",
            Self::Denied => "denied",
            Self::BadArguments => "bad_arguments",
            Self::NotMember => "not_member",
            Self::TooManyRooms => "too_many_rooms",
            Self::Busy => "busy",
            Self::RateLimited => "rate_limited",
            Self::TooLarge => "too_large",
        }
    }
}

/// Bytes of a room's name that a client had a part in.
const ROOM_MAX: usize = 256;

impl Rules {
    pub fn compile(events: &[(String, EventRule)], otherwise: Option<&EventRule>) -> Self {
        let mut rates = 0..;
        let mut entry = |event: &EventRule| {
            let rate = event.rate.and_then(|rate| {
                Some((rates.next()?, Rate::new(rate.count, rate.per, rate.count)))
            });
            Entry { rule: event.rule.clone(), bounds: Bounds { max: event.max, rate } }
        };
        let bounded = |event: &EventRule| event.rate.is_some() || event.max.is_some();
        Self {
            bounded: events.iter().map(|(_, event)| event).chain(otherwise).any(bounded),
            by_event: events.iter().map(|(name, event)| (name.clone(), entry(event))).collect(),
            otherwise: otherwise.map(entry),
        }
    }

    fn find(&self, event: &Event<'_>) -> Option<&Entry> {
        self.by_event.get(event.name.as_ref()).or(self.otherwise.as_ref())
    }

    /// How much of `event` one socket may send.
    pub fn bounds(&self, event: &Event<'_>) -> Bounds {
        if !self.bounded {
            return Bounds::default();
        }
        self.find(event).map(|entry| entry.bounds).unwrap_or_default()
    }

    /// What `event`, sent by the socket called `sid`, comes to.
    pub fn decide<'a>(
        &self,
        event: &Event<'a>,
        sid: &str,
        user: Option<&Identity>,
    ) -> Result<Action<'a>, Denial> {
        let rule = self.find(event).map(|entry| &entry.rule);
        let words = Words { sid, user, event: Some(event) };
        match rule {
            // A refusal by "*" is told like the absence of a rule: the event was not declared.
            None => Err(Denial::UnknownEvent),
            Some(Rule::Deny) if !self.by_event.contains_key(event.name.as_ref()) => {
                Err(Denial::UnknownEvent)
            }
            Some(Rule::Deny) => Err(Denial::Denied),
            Some(Rule::Join(rooms)) => Ok(Action::Join(words.rooms(rooms)?)),
            Some(Rule::Presence(room)) => Ok(Action::Presence(words.room(room)?)),
            Some(Rule::Leave(rooms)) => Ok(Action::Leave(words.rooms(rooms)?)),
            Some(Rule::Relay(relay)) => words.relay(relay, event),
            Some(Rule::Forward(path)) => Ok(Action::Forward(path.as_str().into())),
        }
    }
}

/// The rooms that a socket joins at connect.
pub fn rooms_at_connect(
    templates: &[Template],
    sid: &str,
    user: Option<&Identity>,
) -> Result<Vec<String>, Denial> {
    Words { sid, user, event: None }.rooms(templates)
}

/// What templates are filled with.
struct Words<'e, 'a> {
    sid: &'e str,
    user: Option<&'e Identity>,
    event: Option<&'e Event<'a>>,
}

impl<'a> Words<'_, 'a> {
    fn rooms(&self, templates: &[Template]) -> Result<Vec<String>, Denial> {
        templates.iter().map(|template| self.room(template)).collect()
    }

    fn room(&self, template: &Template) -> Result<String, Denial> {
        let room = self.fill(template).ok_or(Denial::BadArguments)?;
        if room.len() > ROOM_MAX { Err(Denial::BadArguments) } else { Ok(room) }
    }

    fn relay(&self, relay: &Relay, event: &Event<'a>) -> Result<Action<'a>, Denial> {
        let rooms = match &relay.to {
            Audience::Everyone => None,
            Audience::Rooms(rooms) => Some(self.rooms(rooms)?),
        };
        let data = if relay.stamp.is_empty() {
            Cow::Borrowed(event.data)
        } else {
            Cow::Owned(self.stamped(&relay.stamp, event).ok_or(Denial::BadArguments)?)
        };
        let Relay { volatile, echo, member, .. } = *relay;
        Ok(Action::Relay { rooms, data, volatile, echo, member })
    }

    /// `None` if a value is missing, or is not a string, a number or a boolean.
    fn fill(&self, template: &Template) -> Option<String> {
        let mut filled = String::with_capacity(64);
        for part in &template.parts {
            match part {
                TemplatePart::Literal(text) => filled.push_str(text),
                TemplatePart::Sid => filled.push_str(self.sid),
                TemplatePart::Event => filled.push_str(&self.event?.name),
                TemplatePart::Argument { index, path } => {
                    filled.push_str(&scalar(descend(self.event?.args().nth(*index)?, path)?)?);
                }
                TemplatePart::User(field) => filled.push_str(&self.user?.field(field)?),
            }
        }
        Some(filled)
    }

    /// The event with fields of its first argument overwritten.
    fn stamped(&self, stamp: &[(String, Template)], event: &Event<'a>) -> Option<String> {
        let mut args = event.args();
        let mut fields = fields(args.next()?)?;
        fields.retain(|(name, _)| !stamp.iter().any(|(stamped, _)| stamped == name));
        let mut data = String::with_capacity(event.data.len() + 32);
        data.push('[');
        data.push_str(event.written);
        data.push_str(",{");
        for (name, value) in fields {
            push_field(&mut data, &name, value)?;
        }
        for (name, template) in stamp {
            push_field(&mut data, name, &serde_json::to_string(&self.fill(template)?).ok()?)?;
        }
        data.push('}');
        for argument in args {
            data.push(',');
            data.push_str(argument);
        }
        data.push(']');
        Some(data)
    }
}

fn push_field(data: &mut String, name: &str, value: &str) -> Option<()> {
    if !data.ends_with('{') {
        data.push(',');
    }
    data.push_str(&serde_json::to_string(name).ok()?);
    data.push(':');
    data.push_str(value);
    Some(())
}

/// The fields of an object in their order, also those whose name stands twice.
fn fields(json: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    let fields = json.starts_with('{').then(|| json::fields(json))?;
    fields.map(|field| Some((packet::text(field.key)?, field.value))).collect()
}

/// The value at `path` inside `json`; array elements are named by their index.
fn descend<'a>(json: &'a str, path: &[String]) -> Option<&'a str> {
    path.iter().try_fold(json, |json, step| {
        if json.starts_with('[') {
            json::elements(json).nth(step.parse().ok()?)
        } else {
            json::field(json, step)
        }
    })
}

fn scalar(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'"' => packet::text(json),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(json)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(parts: Vec<TemplatePart>) -> Template {
        Template { parts }
    }

    fn room() -> Template {
        let argument = TemplatePart::Argument { index: 0, path: vec!["room".to_owned()] };
        template(vec![TemplatePart::Literal("room:".to_owned()), argument])
    }

    fn relay(stamp: &[(&str, TemplatePart)]) -> Rule {
        let stamp =
            stamp.iter().map(|(name, part)| ((*name).to_owned(), template(vec![part.clone()])));
        let (stamp, to) = (stamp.collect(), Audience::Rooms(vec![room()]));
        Rule::Relay(Relay { to, stamp, volatile: false, echo: false, member: true })
    }

    fn decided(rule: Rule, data: &str) -> Result<String, Denial> {
        let rules =
            Rules::compile(&[("message".to_owned(), rule.into())], Some(&Rule::Deny.into()));
        let event = Event::parse(data).expect("an event");
        rules.decide(&event, "me", None).map(|action| match action {
            Action::Relay { rooms, data, .. } => {
                format!("{} {data}", rooms.unwrap_or_default().join(" "))
            }
            Action::Join(rooms) | Action::Leave(rooms) => rooms.join(" "),
            Action::Forward(path) => path.to_string(),
            Action::Presence(room) => room,
        })
    }

    #[test]
    fn rooms_are_named_by_arguments() {
        let join = || Rule::Join(vec![room()]);
        for (data, room) in [
            (r#"["message",{"room":"a"}]"#, Ok("room:a")),
            (r#"["message",{"room":7,"x":{}}]"#, Ok("room:7")),
            (r#"["message",{"room":true}]"#, Ok("room:true")),
            (r#"["message",{"room":"a","room":"b\u00e9"}]"#, Ok("room:b\u{e9}")),
            (r#"["message",{"room":null}]"#, Err(Denial::BadArguments)),
            (r#"["message",{"room":["a"]}]"#, Err(Denial::BadArguments)),
            (r#"["message",{}]"#, Err(Denial::BadArguments)),
            (r#"["message","a"]"#, Err(Denial::BadArguments)),
            (r#"["message"]"#, Err(Denial::BadArguments)),
            (r#"["other"]"#, Err(Denial::UnknownEvent)),
        ] {
            assert_eq!(decided(join(), data), room.map(str::to_owned), "{data}");
        }
        let long = format!(r#"["message",{{"room":"{}"}}]"#, "x".repeat(ROOM_MAX));
        assert_eq!(decided(join(), &long), Err(Denial::BadArguments));
        assert_eq!(decided(Rule::Deny, r#"["message"]"#), Err(Denial::Denied));
    }

    #[test]
    fn what_is_passed_on_is_as_it_was_written_but_for_the_stamp() {
        let plain = r#"["message",{"room": "a", "n":1e2},[1 ,2]]"#;
        assert_eq!(decided(relay(&[]), plain), Ok(format!("room:a {plain}")));
        let stamped = decided(
            relay(&[("from", TemplatePart::Sid)]),
            r#"["message",{"room":"a","from":"you","from":1},2]"#,
        );
        assert_eq!(stamped.as_deref(), Ok(r#"room:a ["message",{"room":"a","from":"me"},2]"#));
        let refused = decided(relay(&[("from", TemplatePart::User("id".to_owned()))]), plain);
        assert_eq!(refused, Err(Denial::BadArguments));
    }
}
