//! The dialect of `@socket.io/redis-streams-adapter`, and of its emitter; pure.
//!
//! Source: @socket.io/redis-streams-adapter 0.3 with @msgpack/msgpack 2.8,
//! @socket.io/redis-streams-emitter 0.1. What clients may miss is in a stream; what is asked and
//! answered is not kept.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::hub::packet::Malformed;

use super::envelope::{self, Letter};
use super::fields::Fields;
use super::raw::Raw;
use super::text::{self, Object};
use super::{
    Census, Matter, Parcel, Payload, Place, Streams, Subscription, Telegram, Wire, between,
};

pub fn subscriptions(wire: &Wire, streams: &Streams, namespace: &str) -> Vec<Subscription> {
    let public = wire.channel(namespace);
    let private = format!("{public}{}#", wire.uid);
    let kind = if streams.sharded { Subscription::Shard } else { Subscription::Channel };
    vec![kind(public), kind(private)]
}

pub fn census(wire: &Wire, streams: &Streams, namespace: &str) -> Census {
    let kind = if streams.sharded { Census::ShardNumsub } else { Census::Numsub };
    kind(wire.channel(namespace))
}

pub fn place<'a>(wire: &Wire, channel: &'a str) -> Option<Place<'a>> {
    let (namespace, rest) = between(channel.strip_prefix(wire.prefix.as_str())?)?;
    match rest.strip_suffix('#') {
        None => Some(Place::Request(namespace)),
        Some(own) if own == wire.uid => Some(Place::Response(namespace)),
        Some(_) => None,
    }
}

/// All that are written to. Node's remainder has the hash's sign, so some names have two dashes.
pub fn names(streams: &Streams) -> Vec<String> {
    if streams.count <= 1 {
        return vec![streams.name.clone()];
    }
    let count = i64::from(streams.count);
    ((1 - count)..count).map(|number| format!("{}-{number}", streams.name)).collect()
}

/// The stream that a namespace's messages go to.
pub fn name(streams: &Streams, namespace: &str) -> String {
    if streams.count <= 1 {
        return streams.name.clone();
    }
    let step = |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit));
    let hash = namespace.encode_utf16().fold(0, step);
    format!("{}-{}", streams.name, i64::from(hash) % i64::from(streams.count))
}

pub fn write(
    wire: &Wire,
    streams: &Streams,
    namespace: &str,
    matter: &Matter<Payload>,
) -> Option<Parcel> {
    let letter = Letter::new(matter)?;
    let channel = match matter {
        Matter::Broadcast(broadcast) if broadcast.request.is_none() => {
            return entry(wire, streams, namespace, &letter);
        }
        Matter::Join { .. } | Matter::Leave { .. } | Matter::Disconnect { .. } => {
            return entry(wire, streams, namespace, &letter);
        }
        Matter::Answer { to, .. } => format!("{}{to}#", wire.channel(namespace)),
        _ => wire.channel(namespace),
    };
    let payload = letter.packed(&wire.uid, namespace)?;
    Some(match streams.sharded {
        true => Parcel::ShardPublish { channel, payload },
        false => Parcel::Publish { channel, payload },
    })
}

fn entry(wire: &Wire, streams: &Streams, namespace: &str, letter: &Letter<'_>) -> Option<Parcel> {
    let data = match letter.parts {
        [] => letter.data.clone(),
        parts => STANDARD.encode(text::pack(&letter.data, parts)?),
    };
    let kind = itoa::Buffer::new().format(letter.kind).as_bytes().to_vec();
    Some(Parcel::Append {
        stream: name(streams, namespace),
        length: streams.length,
        fields: vec![
            ("uid", wire.uid.clone().into_bytes()),
            ("nsp", namespace.as_bytes().to_vec()),
            ("type", kind),
            ("data", data.into_bytes()),
        ],
    })
}

/// What came over a channel.
pub fn read(place: Place<'_>, payload: &Bytes) -> Result<Telegram, Malformed> {
    let Fields { kind, from, namespace, data, .. } = Fields::read(Raw::Packed(payload))?;
    let namespace = namespace.ok_or(Malformed)?;
    if &*namespace != place.namespace() {
        return Err(Malformed);
    }
    let matter = envelope::matter(kind.ok_or(Malformed)?, data, payload)?;
    Ok(Telegram { from, namespace, matter })
}

/// An entry of a stream.
pub fn read_entry(fields: &[(Bytes, Bytes)]) -> Result<Telegram, Malformed> {
    let find = |name: &str| {
        let field = fields.iter().find(|(field, _)| field == name);
        field.map(|(_, value)| std::str::from_utf8(value).map_err(|_error| Malformed)).transpose()
    };
    let namespace = find("nsp")?.ok_or(Malformed)?.into();
    let kind = find("type")?.ok_or(Malformed)?.parse().map_err(|_error| Malformed)?;
    let data = fields.iter().find(|(field, _)| field == "data").map(|(_, data)| opened(data));
    let data = data.transpose()?;
    let raw = data.as_ref().map(|data| Raw::message(data)).transpose()?;
    let matter = envelope::matter(kind, raw, data.as_ref().unwrap_or(&Bytes::new()))?;
    Ok(Telegram { from: find("uid")?.map(Into::into), namespace, matter })
}

/// JSON as it is, msgpack out of its base64.
fn opened(data: &Bytes) -> Result<Bytes, Malformed> {
    if data.first() == Some(&b'{') {
        return Ok(data.clone());
    }
    STANDARD.decode(data).map(Bytes::from).map_err(|_error| Malformed)
}

/// A socket that may come back, as Node keeps it under `sio:session:` and its `pid`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    pub id: Box<str>,
    pub pid: Box<str>,
    /// The one of its own id is among them.
    pub rooms: Vec<String>,
    /// JSON.
    pub data: Box<str>,
    /// What Node does not keep: where the socket is, whose it is, ...
    pub namespace: Option<Box<str>>,
    pub user: Option<Box<str>>,
    /// ... the name under which its node talks over Redis ...
    pub node: Option<Box<str>>,
    /// ... the last entry that was delivered before it came ...
    pub floor: Option<u64>,
    /// ... an offset that its client showed when it came, and that is not its any more ...
    pub outgrown: Option<u64>,
    /// ... the last entry that it was sent since ...
    pub last: Option<u64>,
    /// ... and the one up to which it was sent everything: who has the last, has all that stands there.
    pub upto: Option<u64>,
}

impl Session {
    pub fn write(&self) -> Option<String> {
        let session = Object::new().text("sid", &self.id).text("pid", &self.pid);
        let mut session = session.names("rooms", &self.rooms).raw("data", &self.data);
        let own = [("nsp", &self.namespace), ("user", &self.user), ("node", &self.node)];
        for (name, value) in own {
            if let Some(value) = value {
                session = session.text(name, value);
            }
        }
        let Self { floor, outgrown, last, upto, .. } = *self;
        let places = [("floor", floor), ("outgrown", outgrown), ("last", last), ("upto", upto)];
        for (name, place) in places {
            if let Some(place) = place {
                session = session.text(name, &id_of(place));
            }
        }
        Some(STANDARD.encode(text::pack(&session.end(), &[])?))
    }

    pub fn read(stored: &[u8]) -> Result<Self, Malformed> {
        let packed = STANDARD.decode(stored).map_err(|_error| Malformed)?;
        let (mut read, mut id, mut pid) = (Self::default(), None, None);
        read.data = "{}".into();
        Raw::Packed(&packed).fields(|name, value| {
            match name {
                "sid" => id = Some(value.text()?.into()),
                "pid" => pid = Some(value.text()?.into()),
                "rooms" => read.rooms = value.names()?,
                "data" => read.data = value.json()?.into(),
                "nsp" => read.namespace = Some(value.text()?.into()),
                "user" => read.user = Some(value.text()?.into()),
                "node" => read.node = Some(value.text()?.into()),
                "floor" => read.floor = number_of(&value.text()?),
                "outgrown" => read.outgrown = number_of(&value.text()?),
                "last" => read.last = number_of(&value.text()?),
                "upto" => read.upto = number_of(&value.text()?),
                _ => (),
            }
            Ok(())
        })?;
        Ok(Self { id: id.ok_or(Malformed)?, pid: pid.ok_or(Malformed)?, ..read })
    }
}

/// Bits of an entry's number that count within a millisecond.
const COUNTED: u32 = 20;

/// An entry's id as one number, which rises with it; `None` if it is none, or does not fit.
pub fn number_of(id: &str) -> Option<u64> {
    let (time, count) = id.split_once('-')?;
    let digits = |text: &str| -> Option<u64> {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse().ok())?
    };
    let (time, count) = (digits(time)?, digits(count)?);
    let fits = time < 1 << (64 - COUNTED) && count < 1 << COUNTED;
    fits.then_some(time << COUNTED | count)
}

pub fn id_of(number: u64) -> String {
    format!("{}-{}", number >> COUNTED, number & ((1 << COUNTED) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_for_ids_and_rise_with_them() {
        let ids = ["0-0", "0-1", "1-0", "1700000000000-0", "1700000000000-1048575"];
        let numbers = ids.map(|id| number_of(id).expect(id));
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert_eq!(numbers.map(id_of), ids);
        for text in ["", "-", "1", "1-", "-1", "1-1048576", "17592186044416-0", "~1-0", "+1-0"] {
            assert_eq!(number_of(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_kept_of_a_session_is_read_again() {
        let session = Session {
            id: "id".into(),
            pid: "pid".into(),
            rooms: vec!["id".to_owned(), "a".to_owned()],
            data: r#"{"a":1}"#.into(),
            namespace: Some("/chat".into()),
            user: Some("app:1".into()),
            node: Some("me".into()),
            floor: number_of("1700000000000-3"),
            outgrown: number_of("1700000000000-4"),
            last: number_of("1700000000000-5"),
            upto: number_of("1700000000000-6"),
        };
        let stored = session.write().expect("written");
        assert_eq!(Session::read(stored.as_bytes()), Ok(session));
    }
}
