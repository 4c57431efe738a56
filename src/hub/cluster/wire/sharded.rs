//! The dialect of `createShardedAdapter` of `@socket.io/redis-adapter`; pure.
//!
//! Source: @socket.io/redis-adapter 8.3. Its channels are named as the classic ones, in another space.

use bytes::Bytes;

use crate::hub::packet::Malformed;

use super::envelope::{self, Letter};
use super::fields::Fields;
use super::raw::Raw;
use super::{
    Census, Matter, Parcel, Payload, Place, RoomChannels, Subscription, Telegram, Wire, between,
};

pub fn subscriptions(wire: &Wire, namespace: &str) -> Vec<Subscription> {
    let main = wire.channel(namespace);
    let own = format!("{main}{}#", wire.uid);
    vec![Subscription::Shard(main), Subscription::Shard(own)]
}

pub fn census(wire: &Wire, namespace: &str) -> Census {
    Census::ShardNumsub(wire.channel(namespace))
}

/// The channel of a room that has one.
pub fn room(wire: &Wire, channels: RoomChannels, namespace: &str, room: &str) -> Option<String> {
    let has_one = match channels {
        RoomChannels::None => false,
        // Node counts UTF-16 units.
        RoomChannels::Public => room.encode_utf16().count() != 20,
        RoomChannels::All => true,
    };
    has_one.then(|| format!("{}{room}#", wire.channel(namespace)))
}

pub fn place<'a>(wire: &Wire, channel: &'a str) -> Option<Place<'a>> {
    let (namespace, rest) = between(channel.strip_prefix(wire.prefix.as_str())?)?;
    Some(match rest.strip_suffix('#') {
        Some(own) if own == wire.uid => Place::Response(namespace),
        Some(room) => Place::Room(namespace, room),
        None => Place::Namespace(namespace),
    })
}

pub fn write(
    wire: &Wire,
    channels: RoomChannels,
    namespace: &str,
    matter: &Matter<Payload>,
) -> Option<Parcel> {
    let letter = Letter::new(matter)?;
    let payload = match letter.parts {
        [] => letter.json(&wire.uid, namespace).into_bytes(),
        _ => letter.packed(&wire.uid, namespace)?,
    };
    let channel = match matter {
        Matter::Answer { to, .. } => format!("{}{to}#", wire.channel(namespace)),
        Matter::Broadcast(broadcast) => match &broadcast.audience.rooms[..] {
            [only] if broadcast.request.is_none() => {
                room(wire, channels, namespace, only).unwrap_or_else(|| wire.channel(namespace))
            }
            _ => wire.channel(namespace),
        },
        _ => wire.channel(namespace),
    };
    Some(Parcel::ShardPublish { channel, payload })
}

pub fn read(place: Place<'_>, payload: &Bytes) -> Result<Telegram, Malformed> {
    let Fields { kind, from, namespace, data, .. } = Fields::read(Raw::message(payload)?)?;
    let namespace = namespace.ok_or(Malformed)?;
    if &*namespace != place.namespace() {
        return Err(Malformed);
    }
    let matter = envelope::matter(kind.ok_or(Malformed)?, data, payload)?;
    Ok(Telegram { from, namespace, matter })
}
