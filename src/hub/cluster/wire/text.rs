//! JSON as Node writes it to other servers, piece by piece; pure.
//!
//! What is not JSON on the wire is translated from it, so that each message is spelled out once.

use std::borrow::Cow;

use bytes::Bytes;

use crate::hub::msgpack::{DEPTH_MAX, encode};
use crate::hub::placeholders;

use super::{Audience, Flags, Heads, Payload, Remote};

/// An object that is being written. Its fields stand in the order in which they are added.
pub struct Object {
    text: String,
}

impl Object {
    pub fn new() -> Self {
        Self { text: String::from("{") }
    }

    /// `json` must be JSON.
    pub fn raw(mut self, name: &str, json: &str) -> Self {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
        self.text.push_str(json);
        self
    }

    pub fn text(self, name: &str, value: &str) -> Self {
        self.raw(name, &quoted(value))
    }

    pub fn number(self, name: &str, value: u64) -> Self {
        self.raw(name, itoa::Buffer::new().format(value))
    }

    pub fn names(self, name: &str, values: &[String]) -> Self {
        self.raw(name, &list(values))
    }

    pub fn maybe(self, name: &str, json: Option<&str>) -> Self {
        match json {
            Some(json) => self.raw(name, json),
            None => self,
        }
    }

    /// How many sockets there are, and their users where they have some.
    pub fn heads(self, heads: &Heads) -> Self {
        let counted = self.number("heads", heads.sockets);
        if heads.users.is_empty() { counted } else { counted.text("users", &numbers(&heads.users)) }
    }

    /// The id of a request, if somebody waits for an answer.
    pub fn request(self, request: Option<&str>) -> Self {
        match request {
            Some(request) => self.text("requestId", request),
            None => self,
        }
    }

    pub fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// Numbers in hexadecimal, sixteen digits each: JavaScript's have not as many.
fn numbers(numbers: &[u64]) -> String {
    numbers.iter().map(|number| format!("{number:016x}")).collect()
}

fn quoted(text: &str) -> String {
    // Text is always JSON.
    serde_json::to_string(text).unwrap_or_default()
}

pub fn list(names: &[String]) -> String {
    // Lists of texts always are.
    serde_json::to_string(names).unwrap_or_default()
}

/// Who is meant, and how it is sent, if that may be said.
pub fn options(audience: &Audience, flags: Option<Flags>) -> String {
    let options = Object::new().names("rooms", &audience.rooms).names("except", &audience.except);
    options.maybe("flags", flags.map(flagged).as_deref()).end()
}

fn flagged(flags: Flags) -> String {
    let mut object = Object::new();
    if flags.volatile {
        object = object.raw("volatile", "true");
    }
    object = object
        .maybe("compress", flags.compress.map(|compress| if compress { "true" } else { "false" }));
    if let Some(timeout) = flags.timeout {
        object = object.number("timeout", timeout);
    }
    object.end()
}

pub fn sockets(sockets: &[Remote]) -> String {
    let mut text = String::from("[");
    for (index, socket) in sockets.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        let object = Object::new().text("id", &socket.id).raw("handshake", &socket.handshake);
        text.push_str(&object.names("rooms", &socket.rooms).raw("data", &socket.data).end());
    }
    text.push(']');
    text
}

/// msgpack of JSON whose placeholders are `parts`.
pub fn pack(json: &str, parts: &[Bytes]) -> Option<Vec<u8>> {
    let size = json.len() + parts.iter().map(Bytes::len).sum::<usize>();
    let mut packed = Vec::with_capacity(size + 16);
    encode::json(&mut packed, json, parts, DEPTH_MAX)?;
    Some(packed)
}

/// The JSON of a payload where nothing binary can be said, as Node writes a `Buffer` in it.
pub fn flat(payload: &Payload) -> Cow<'_, str> {
    if payload.parts.is_empty() {
        return Cow::Borrowed(&payload.data);
    }
    let written = |number: Option<u8>| {
        let part = number.and_then(|number| payload.parts.get(usize::from(number)));
        let data = part.map(Bytes::as_ref).unwrap_or_default();
        serde_json::json!({ "type": "Buffer", "data": data }).to_string()
    };
    Cow::Owned(placeholders::replace(&payload.data, written))
}
