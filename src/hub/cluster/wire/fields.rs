//! The fields that messages between servers have, in whatever order they come; pure.

use bytes::Bytes;

use crate::hub::packet::Malformed;

use super::raw::Raw;
use super::{Audience, Flags, Heads, Payload, Remote};

#[derive(Default)]
pub struct Fields<'a> {
    pub kind: Option<u64>,
    pub from: Option<Box<str>>,
    pub namespace: Option<Box<str>>,
    pub request: Option<Box<str>>,
    /// Absent where servers of long ago name one socket.
    pub audience: Option<Audience>,
    pub flags: Flags,
    pub rooms: Option<Vec<String>>,
    pub room: Option<String>,
    pub socket: Option<String>,
    pub close: bool,
    pub packet: Option<Raw<'a>>,
    pub data: Option<Raw<'a>>,
    pub sockets: Option<Raw<'a>>,
    pub clients: Option<u64>,
    /// Only numbers are wanted.
    pub counts: bool,
    pub heads: Option<u64>,
    pub users: Vec<u64>,
}

impl<'a> Fields<'a> {
    pub fn read(message: Raw<'a>) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        message.fields(|name, value| fields.take(name, value))?;
        Ok(fields)
    }

    fn take(&mut self, name: &str, value: Raw<'a>) -> Result<(), Malformed> {
        // `null` is a value in these alone.
        if value.is_nil() && !matches!(name, "packet" | "data") {
            return Ok(());
        }
        match name {
            "type" => self.kind = Some(value.unsigned()?),
            "uid" => self.from = Some(value.text()?.into()),
            "nsp" => self.namespace = Some(value.text()?.into()),
            "requestId" => self.request = Some(value.text()?.into()),
            "opts" => {
                let (audience, flags) = options(value)?;
                (self.audience, self.flags) = (Some(audience), flags);
            }
            "rooms" => self.rooms = Some(value.names()?),
            "room" => self.room = Some(value.name()?),
            "sid" => self.socket = Some(value.name()?),
            "close" => self.close = value.is_true(),
            "packet" => self.packet = Some(value),
            "data" => self.data = Some(value),
            "sockets" => self.sockets = Some(value),
            "clientCount" => self.clients = Some(value.unsigned()?),
            "counts" => self.counts = value.is_true(),
            "heads" => self.heads = Some(value.unsigned()?),
            "users" => self.users = numbers(&value.text()?)?,
            // Later versions may say more.
            _ => (),
        }
        Ok(())
    }

    /// How many sockets there are, if it says so.
    pub fn heads(&mut self) -> Heads {
        let users = std::mem::take(&mut self.users);
        Heads { sockets: self.heads.unwrap_or_default(), users }
    }

    /// The id without which a request cannot be answered, and an answer is to nothing.
    pub fn request(&mut self) -> Result<Box<str>, Malformed> {
        self.request.take().ok_or(Malformed)
    }
}

/// As `text::numbers` writes them.
fn numbers(text: &str) -> Result<Vec<u64>, Malformed> {
    let (digits, rest) = text.as_bytes().as_chunks::<16>();
    if !rest.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Malformed);
    }
    let number = |digits: &[u8; 16]| {
        let text = std::str::from_utf8(digits).map_err(|_error| Malformed)?;
        u64::from_str_radix(text, 16).map_err(|_error| Malformed)
    };
    digits.iter().map(number).collect()
}

/// Whom a message is for, and how it is sent.
pub fn options(value: Raw<'_>) -> Result<(Audience, Flags), Malformed> {
    let (mut audience, mut flags) = (Audience::default(), Flags::default());
    value.fields(|name, value| {
        match name {
            "rooms" => audience.rooms = value.names()?,
            "except" => audience.except = value.names()?,
            "flags" if !value.is_nil() => value.fields(|name, value| {
                flags.take(name, value);
                Ok(())
            })?,
            _ => (),
        }
        Ok(())
    })?;
    Ok((audience, flags))
}

impl Flags {
    fn take(&mut self, name: &str, value: Raw<'_>) {
        match name {
            "volatile" => self.volatile = value.is_true(),
            "compress" if !value.is_nil() => self.compress = Some(value.is_true()),
            "timeout" => self.timeout = value.unsigned().ok(),
            _ => (),
        }
    }
}

/// A value that may be undefined.
pub fn value(raw: Option<Raw<'_>>, whole: &Bytes) -> Result<Option<Payload>, Malformed> {
    raw.map(|raw| raw.payload(whole)).transpose()
}

/// What a broadcast's packet says: an event; `None` if it is for another namespace.
pub fn event(
    packet: Raw<'_>,
    namespace: &str,
    whole: &Bytes,
) -> Result<Option<Payload>, Malformed> {
    let (mut is_event, mut is_ours, mut data) = (false, true, None);
    packet.fields(|name, value| {
        match name {
            // Servers of long ago say which events are binary.
            "type" => is_event = matches!(value.unsigned()?, 2 | 5),
            "nsp" if !value.is_nil() => is_ours = value.text()? == namespace,
            "data" => data = Some(value),
            _ => (),
        }
        Ok(())
    })?;
    if !is_ours {
        return Ok(None);
    }
    let payload = data.filter(|_| is_event).ok_or(Malformed)?.payload(whole)?;
    crate::hub::packet::Event::parse(&payload.data)?;
    Ok(Some(payload))
}

pub fn sockets(list: Raw<'_>) -> Result<Vec<Remote>, Malformed> {
    let mut sockets = Vec::new();
    list.elements(|socket| {
        sockets.push(remote(socket)?);
        Ok(())
    })?;
    Ok(sockets)
}

pub fn remote(socket: Raw<'_>) -> Result<Remote, Malformed> {
    let (mut id, mut rooms) = (None, Vec::new());
    let (mut handshake, mut data) = ("{}".into(), "{}".into());
    socket.fields(|name, value| {
        match name {
            "id" => id = Some(value.text()?.into()),
            "rooms" => rooms = value.names()?,
            "handshake" => handshake = value.json()?.into(),
            "data" => data = value.json()?.into(),
            _ => (),
        }
        Ok(())
    })?;
    Ok(Remote { id: id.ok_or(Malformed)?, rooms, handshake, data })
}
