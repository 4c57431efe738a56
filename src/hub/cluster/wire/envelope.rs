//! The messages of Node's `ClusterAdapter`, on which the sharded and the streams adapter are built;
//! pure.
//!
//! Source: socket.io-adapter 2.5. An envelope says type, uid and nsp; its data says the rest.

use bytes::Bytes;

use crate::hub::packet::Malformed;

use super::fields::{self, Fields};
use super::raw::Raw;
use super::text::{self, Object};
use super::{Answer, Broadcast, Flags, Matter, Payload, Sealed};

const BROADCAST: u64 = 3;
const SOCKETS_JOIN: u64 = 4;
const SOCKETS_LEAVE: u64 = 5;
const DISCONNECT_SOCKETS: u64 = 6;
const FETCH_SOCKETS: u64 = 7;
const FETCH_SOCKETS_RESPONSE: u64 = 8;
const SERVER_SIDE_EMIT: u64 = 9;
const SERVER_SIDE_EMIT_RESPONSE: u64 = 10;
const BROADCAST_CLIENT_COUNT: u64 = 11;
const BROADCAST_ACK: u64 = 12;

/// A message before it is JSON or msgpack.
pub struct Letter<'a> {
    pub kind: u64,
    /// JSON with placeholders.
    pub data: String,
    pub parts: &'a [Bytes],
}

impl<'a> Letter<'a> {
    /// `None` if these adapters have no word for it.
    pub fn new(matter: &'a Matter<Payload>) -> Option<Self> {
        let plain = |kind, data: Object| Self { kind, data: data.end(), parts: &[] };
        let moved = |kind, audience, rooms: &[String]| {
            let options = text::options(audience, Some(Flags::default()));
            plain(kind, Object::new().raw("opts", &options).names("rooms", rooms))
        };
        Some(match matter {
            Matter::Broadcast(broadcast) => Self::broadcast(broadcast),
            Matter::Join { audience, rooms, .. } => moved(SOCKETS_JOIN, audience, rooms),
            Matter::Leave { audience, rooms, .. } => moved(SOCKETS_LEAVE, audience, rooms),
            Matter::Disconnect { audience, close, .. } => {
                let options = text::options(audience, Some(Flags::default()));
                let close = if *close { "true" } else { "false" };
                plain(DISCONNECT_SOCKETS, Object::new().raw("opts", &options).raw("close", close))
            }
            Matter::Fetch { audience, request, counts } => {
                let options = text::options(audience, Some(Flags::default()));
                let data = Object::new().raw("opts", &options).text("requestId", request);
                let data = data.maybe("counts", counts.then_some("true"));
                plain(FETCH_SOCKETS, data)
            }
            Matter::ServerSideEmit { payload, request } => {
                let data = Object::new().request(request.as_deref()).raw("packet", &payload.data);
                Self { kind: SERVER_SIDE_EMIT, data: data.end(), parts: &payload.parts }
            }
            Matter::Answer { request, answer, .. } => Self::answer(request, answer)?,
            Matter::Ids { .. } | Matter::Rooms { .. } | Matter::Nothing => return None,
        })
    }

    fn broadcast(broadcast: &'a Broadcast<Payload>) -> Self {
        let packet = Object::new().number("type", 2).raw("data", &broadcast.packet.data).end();
        let data = Object::new().raw("packet", &packet).request(broadcast.request.as_deref());
        let options = text::options(&broadcast.audience, Some(broadcast.flags));
        let data = data.raw("opts", &options).end();
        Self { kind: BROADCAST, data, parts: &broadcast.packet.parts }
    }

    fn answer(request: &str, answer: &'a Answer) -> Option<Self> {
        let data = Object::new().text("requestId", request);
        let spoken = |kind, data: Object, value: &'a Option<Payload>| {
            let json = value.as_ref().map(|value| &*value.data);
            let parts = value.as_ref().map(|value| &value.parts[..]).unwrap_or_default();
            Self { kind, data: data.maybe("packet", json).end(), parts }
        };
        Some(match answer {
            Answer::Sockets(sockets) => {
                let data = data.raw("sockets", &text::sockets(sockets)).end();
                Self { kind: FETCH_SOCKETS_RESPONSE, data, parts: &[] }
            }
            Answer::Heads(heads) => {
                let data = data.raw("sockets", "[]").heads(heads).end();
                Self { kind: FETCH_SOCKETS_RESPONSE, data, parts: &[] }
            }
            Answer::Clients(count) => {
                let data = data.number("clientCount", *count).end();
                Self { kind: BROADCAST_CLIENT_COUNT, data, parts: &[] }
            }
            Answer::Value(value) => spoken(SERVER_SIDE_EMIT_RESPONSE, data, value),
            Answer::Ack(value) => spoken(BROADCAST_ACK, data, value),
            Answer::Ids(_) | Answer::Rooms(_) | Answer::Done => return None,
        })
    }

    /// The whole envelope as JSON; `Some` placeholders stand in it if there are parts.
    pub fn json(&self, from: &str, namespace: &str) -> String {
        let envelope = Object::new().number("type", self.kind).raw("data", &self.data);
        envelope.text("uid", from).text("nsp", namespace).end()
    }

    /// The same as msgpack; `None` as in `msgpack::write`.
    pub fn packed(&self, from: &str, namespace: &str) -> Option<Vec<u8>> {
        text::pack(&self.json(from, namespace), self.parts)
    }
}

/// What an envelope's data says. `whole` is the message that `data` is a part of.
pub fn matter(
    kind: u64,
    data: Option<Raw<'_>>,
    whole: &Bytes,
) -> Result<Matter<Sealed>, Malformed> {
    if !(BROADCAST..=BROADCAST_ACK).contains(&kind) {
        return Ok(Matter::Nothing);
    }
    let mut fields = Fields::read(data.ok_or(Malformed)?)?;
    let audience = fields.audience.take().unwrap_or_default();
    let rooms = fields.rooms.take().unwrap_or_default();
    let packet = fields.packet;
    Ok(match kind {
        BROADCAST => Matter::Broadcast(Broadcast {
            audience,
            flags: fields.flags,
            request: fields.request,
            packet: packet.ok_or(Malformed)?.seal(whole),
        }),
        SOCKETS_JOIN => Matter::Join { audience, rooms, request: None },
        SOCKETS_LEAVE => Matter::Leave { audience, rooms, request: None },
        DISCONNECT_SOCKETS => Matter::Disconnect { audience, close: fields.close, request: None },
        FETCH_SOCKETS => {
            Matter::Fetch { audience, request: fields.request()?, counts: fields.counts }
        }
        SERVER_SIDE_EMIT => {
            let payload = packet.ok_or(Malformed)?.payload(whole)?;
            Matter::ServerSideEmit { payload, request: fields.request }
        }
        _ => {
            let request = fields.request()?;
            let answer = match kind {
                FETCH_SOCKETS_RESPONSE if fields.heads.is_some() => Answer::Heads(fields.heads()),
                FETCH_SOCKETS_RESPONSE => {
                    Answer::Sockets(fields::sockets(fields.sockets.ok_or(Malformed)?)?)
                }
                SERVER_SIDE_EMIT_RESPONSE => Answer::Value(fields::value(packet, whole)?),
                BROADCAST_CLIENT_COUNT => Answer::Clients(fields.clients.ok_or(Malformed)?),
                _ => Answer::Ack(fields::value(packet, whole)?),
            };
            Matter::Answer { to: "".into(), request, answer }
        }
    })
}
