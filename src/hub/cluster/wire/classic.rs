//! The dialect of `@socket.io/redis-adapter`, and of its emitter; pure.
//!
//! Source: @socket.io/redis-adapter 8.3 with notepack.io 3.0, @socket.io/redis-emitter 5.1.

use bytes::Bytes;

use crate::hub::msgpack::{DEPTH_MAX, Reader, encode};
use crate::hub::packet::Malformed;

use super::fields::{self, Fields};
use super::raw::Raw;
use super::text::{self, Object};
use super::{
    Answer, Audience, Broadcast, Census, Flags, Matter, Parcel, Payload, Place, Sealed,
    Subscription, Telegram, Wire, between,
};

const SOCKETS: u64 = 0;
const ALL_ROOMS: u64 = 1;
const REMOTE_JOIN: u64 = 2;
const REMOTE_LEAVE: u64 = 3;
const REMOTE_DISCONNECT: u64 = 4;
const REMOTE_FETCH: u64 = 5;
const SERVER_SIDE_EMIT: u64 = 6;
const BROADCAST: u64 = 7;
const BROADCAST_CLIENT_COUNT: u64 = 8;
const BROADCAST_ACK: u64 = 9;

pub fn subscriptions(wire: &Wire, namespace: &str) -> Vec<Subscription> {
    let response = response(wire, namespace);
    let own = format!("{response}{}#", wire.uid);
    vec![
        Subscription::Pattern(format!("{}*", escaped(&wire.channel(namespace)))),
        Subscription::Channel(request(wire, namespace)),
        Subscription::Channel(response),
        Subscription::Channel(own),
    ]
}

/// Signs that mean something in Redis' patterns.
fn escaped(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len() + 4);
    for sign in name.chars() {
        if matches!(sign, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(sign);
    }
    pattern
}

pub fn census(wire: &Wire, namespace: &str) -> Census {
    Census::Numsub(request(wire, namespace))
}

fn request(wire: &Wire, namespace: &str) -> String {
    format!("{}-request#{namespace}#", wire.prefix)
}

fn response(wire: &Wire, namespace: &str) -> String {
    format!("{}-response#{namespace}#", wire.prefix)
}

pub fn place<'a>(wire: &Wire, channel: &'a str) -> Option<Place<'a>> {
    let rest = channel.strip_prefix(wire.prefix.as_str())?;
    if let Some((namespace, _)) = rest.strip_prefix("-response").and_then(between) {
        return Some(Place::Response(namespace));
    }
    if let Some((namespace, _)) = rest.strip_prefix("-request").and_then(between) {
        return Some(Place::Request(namespace));
    }
    let (namespace, room) = between(rest)?;
    Some(match room.strip_suffix('#') {
        Some(room) => Place::Room(namespace, room),
        None => Place::Namespace(namespace),
    })
}

pub fn write(wire: &Wire, namespace: &str, matter: &Matter<Payload>) -> Option<Parcel> {
    if let Matter::Broadcast(broadcast) = matter {
        return match &broadcast.request {
            None => event(wire, namespace, broadcast),
            Some(asked) => event_with_ack(wire, namespace, broadcast, asked),
        };
    }
    if let Matter::Answer { request, answer, .. } = matter {
        // Everybody hears it: who asked long ago may not listen to a channel of its own.
        let (channel, payload) = (response(wire, namespace), said(request, answer)?);
        return Some(Parcel::Publish { channel, payload });
    }
    let payload = asked(wire, matter)?.into_bytes();
    Some(Parcel::Publish { channel: request(wire, namespace), payload })
}

fn event(wire: &Wire, namespace: &str, broadcast: &Broadcast<Payload>) -> Option<Parcel> {
    let mut channel = wire.channel(namespace);
    if let [room] = &broadcast.audience.rooms[..] {
        channel.push_str(room);
        channel.push('#');
    }
    let Payload { data, parts } = &broadcast.packet;
    let size = data.len() + parts.iter().map(Bytes::len).sum::<usize>();
    let mut payload = Vec::with_capacity(size + 80);
    payload.push(0x93);
    encode::text(&mut payload, &wire.uid);
    put_packet(&mut payload, namespace, &broadcast.packet)?;
    put_options(&mut payload, &broadcast.audience, broadcast.flags)?;
    Some(Parcel::Publish { channel, payload })
}

fn put_packet(into: &mut Vec<u8>, namespace: &str, packet: &Payload) -> Option<()> {
    into.push(0x83);
    encode::text(into, "type");
    encode::unsigned(into, 2);
    encode::text(into, "data");
    encode::json(into, &packet.data, &packet.parts, DEPTH_MAX)?;
    encode::text(into, "nsp");
    encode::text(into, namespace);
    Some(())
}

fn put_options(into: &mut Vec<u8>, audience: &Audience, flags: Flags) -> Option<()> {
    encode::json(into, &text::options(audience, Some(flags)), &[], DEPTH_MAX)
}

fn event_with_ack(
    wire: &Wire,
    namespace: &str,
    broadcast: &Broadcast<Payload>,
    asked: &str,
) -> Option<Parcel> {
    let mut payload = vec![0x85];
    encode::text(&mut payload, "uid");
    encode::text(&mut payload, &wire.uid);
    encode::text(&mut payload, "requestId");
    encode::text(&mut payload, asked);
    encode::text(&mut payload, "type");
    encode::unsigned(&mut payload, BROADCAST);
    encode::text(&mut payload, "packet");
    put_packet(&mut payload, namespace, &broadcast.packet)?;
    encode::text(&mut payload, "opts");
    put_options(&mut payload, &broadcast.audience, broadcast.flags)?;
    Some(Parcel::Publish { channel: request(wire, namespace), payload })
}

/// What servers are asked or told, but for events.
fn asked(wire: &Wire, matter: &Matter<Payload>) -> Option<String> {
    let start = Object::new().text("uid", &wire.uid);
    let to = |audience| text::options(audience, None);
    Some(match matter {
        Matter::Join { audience, rooms, .. } => {
            start.number("type", REMOTE_JOIN).raw("opts", &to(audience)).names("rooms", rooms).end()
        }
        Matter::Leave { audience, rooms, .. } => {
            let start = start.number("type", REMOTE_LEAVE).raw("opts", &to(audience));
            start.names("rooms", rooms).end()
        }
        Matter::Disconnect { audience, close, .. } => {
            let close = if *close { "true" } else { "false" };
            let start = start.number("type", REMOTE_DISCONNECT).raw("opts", &to(audience));
            start.raw("close", close).end()
        }
        Matter::Fetch { audience, request, counts } => {
            let start = start.text("requestId", request).number("type", REMOTE_FETCH);
            let start = start.raw("opts", &to(audience));
            start.maybe("counts", counts.then_some("true")).end()
        }
        Matter::Rooms { request } => {
            start.text("requestId", request).number("type", ALL_ROOMS).end()
        }
        Matter::Ids { audience, request } => {
            let start = start.text("requestId", request).number("type", SOCKETS);
            start.names("rooms", &audience.rooms).end()
        }
        Matter::ServerSideEmit { payload, request } => {
            let start = start.request(request.as_deref()).number("type", SERVER_SIDE_EMIT);
            start.raw("data", &text::flat(payload)).end()
        }
        Matter::Broadcast(_) | Matter::Answer { .. } | Matter::Nothing => return None,
    })
}

fn said(request: &str, answer: &Answer) -> Option<Vec<u8>> {
    let start = Object::new();
    let json = match answer {
        Answer::Sockets(sockets) => {
            start.text("requestId", request).raw("sockets", &text::sockets(sockets))
        }
        Answer::Heads(heads) => start.text("requestId", request).raw("sockets", "[]").heads(heads),
        Answer::Ids(ids) => start.text("requestId", request).names("sockets", ids),
        Answer::Rooms(rooms) => start.text("requestId", request).names("rooms", rooms),
        Answer::Clients(count) => {
            let start = start.number("type", BROADCAST_CLIENT_COUNT).text("requestId", request);
            start.number("clientCount", *count)
        }
        Answer::Value(value) => {
            let start = start.number("type", SERVER_SIDE_EMIT).text("requestId", request);
            start.maybe("data", value.as_ref().map(text::flat).as_deref())
        }
        Answer::Ack(value) => {
            let start = start.number("type", BROADCAST_ACK).text("requestId", request);
            let json = value.as_ref().map(|value| &*value.data);
            let parts = value.as_ref().map(|value| &value.parts[..]).unwrap_or_default();
            return text::pack(&start.maybe("packet", json).end(), parts);
        }
        Answer::Done => start.text("requestId", request),
    };
    Some(json.end().into_bytes())
}

pub fn read(place: Place<'_>, payload: &Bytes) -> Result<Telegram, Malformed> {
    match place {
        Place::Namespace(namespace) | Place::Room(namespace, _) => heard(namespace, payload),
        Place::Request(namespace) => {
            let fields = Fields::read(Raw::message(payload)?)?;
            let (from, namespace) = (fields.from.clone(), namespace.into());
            Ok(Telegram { from, namespace, matter: demanded(fields, payload)? })
        }
        Place::Response(namespace) => {
            let fields = Fields::read(Raw::message(payload)?)?;
            let matter = answered(fields, payload)?;
            Ok(Telegram { from: None, namespace: namespace.into(), matter })
        }
    }
}

/// `[uid, packet, options]`.
fn heard(namespace: &str, payload: &Bytes) -> Result<Telegram, Malformed> {
    let mut reader = Reader::new(payload);
    if !matches!(reader.list()?, 2 | 3) {
        return Err(Malformed);
    }
    let from = Some(reader.text()?.into());
    let packet = Raw::Packed(reader.skip()?).seal(payload);
    let (audience, flags) = match reader.end() {
        Ok(()) => Default::default(),
        Err(Malformed) => fields::options(Raw::Packed(reader.skip()?))?,
    };
    reader.end()?;
    let broadcast = Broadcast { audience, flags, request: None, packet };
    Ok(Telegram { from, namespace: namespace.into(), matter: Matter::Broadcast(broadcast) })
}

fn demanded(mut fields: Fields<'_>, whole: &Bytes) -> Result<Matter<Sealed>, Malformed> {
    let Some(kind) = fields.kind else { return Err(Malformed) };
    let mut rooms = fields.rooms.take().unwrap_or_default();
    Ok(match kind {
        SOCKETS => {
            let audience = Audience { rooms, ..Audience::default() };
            Matter::Ids { audience, request: fields.request()? }
        }
        ALL_ROOMS => Matter::Rooms { request: fields.request()? },
        REMOTE_JOIN | REMOTE_LEAVE => {
            let (audience, request) = moved(&mut fields)?;
            rooms.extend(fields.room);
            match kind {
                REMOTE_JOIN => Matter::Join { audience, rooms, request },
                _ => Matter::Leave { audience, rooms, request },
            }
        }
        REMOTE_DISCONNECT => {
            let (audience, request) = moved(&mut fields)?;
            Matter::Disconnect { audience, close: fields.close, request }
        }
        REMOTE_FETCH => {
            let audience = fields.audience.take().unwrap_or_default();
            Matter::Fetch { audience, request: fields.request()?, counts: fields.counts }
        }
        SERVER_SIDE_EMIT => {
            let payload = fields.data.ok_or(Malformed)?.payload(whole)?;
            Matter::ServerSideEmit { payload, request: fields.request }
        }
        BROADCAST => {
            let audience = fields.audience.take().unwrap_or_default();
            let (request, packet) = (Some(fields.request()?), fields.packet.ok_or(Malformed)?);
            let packet = packet.seal(whole);
            Matter::Broadcast(Broadcast { audience, flags: fields.flags, request, packet })
        }
        _ => Matter::Nothing,
    })
}

/// Who is to move: an audience, or as long ago one socket, whose server answers.
fn moved(fields: &mut Fields<'_>) -> Result<(Audience, Option<Box<str>>), Malformed> {
    if let Some(audience) = fields.audience.take() {
        return Ok((audience, None));
    }
    let socket = fields.socket.take().ok_or(Malformed)?;
    Ok((Audience { rooms: vec![socket], ..Audience::default() }, Some(fields.request()?)))
}

fn answered(mut fields: Fields<'_>, whole: &Bytes) -> Result<Matter<Sealed>, Malformed> {
    let request = fields.request()?;
    if fields.kind.is_none() && fields.heads.is_some() {
        let answer = Answer::Heads(fields.heads());
        return Ok(Matter::Answer { to: "".into(), request, answer });
    }
    let answer = match (fields.kind, fields.sockets, fields.rooms) {
        (Some(SERVER_SIDE_EMIT), ..) => Answer::Value(fields::value(fields.data, whole)?),
        (Some(BROADCAST_CLIENT_COUNT), ..) => Answer::Clients(fields.clients.ok_or(Malformed)?),
        (Some(BROADCAST_ACK), ..) => Answer::Ack(fields::value(fields.packet, whole)?),
        (_, Some(sockets), _) => match sockets.names() {
            // An empty list of either is the same to who asked.
            Ok(ids) if !ids.is_empty() => Answer::Ids(ids),
            _ => Answer::Sockets(fields::sockets(sockets)?),
        },
        (_, None, Some(rooms)) => Answer::Rooms(rooms),
        (_, None, None) => Answer::Done,
    };
    Ok(Matter::Answer { to: "".into(), request, answer })
}
