//! A message on its way out, encoded once for each wire that some session of this worker speaks.

use std::cell::OnceCell;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::observe::metrics::{self, Series};

use super::deflate::{self, Deflate};
use super::frame::{self, HEAD_MAX, Opcode};
use super::packet::{self, Form, Version};

/// What one or many sessions are sent: a text, and the binary parts that must follow it at once.
///
/// Shared by the workers; the frames that nearly every session takes are built by whoever is first.
pub struct Message {
    text: Option<String>,
    parts: Vec<Bytes>,
    frames: OnceLock<Bytes>,
    deflated: OnceLock<Bytes>,
    translated: OnceLock<Option<Arc<Self>>>,
}

impl Message {
    pub fn text(text: String) -> Self {
        Self::with_parts(text, Vec::new())
    }

    pub fn with_parts(text: String, parts: Vec<Bytes>) -> Self {
        Self { text: Some(text), ..Self::of_parts(parts) }
    }

    pub fn binary(data: Bytes) -> Self {
        Self::of_parts(vec![data])
    }

    fn of_parts(parts: Vec<Bytes>) -> Self {
        Self {
            text: None,
            parts,
            frames: OnceLock::new(),
            deflated: OnceLock::new(),
            translated: OnceLock::new(),
        }
    }

    /// Bytes it takes, roughly: what a queue counts.
    pub fn size(&self) -> usize {
        self.text.as_ref().map_or(0, String::len) + self.parts.iter().map(Bytes::len).sum::<usize>()
    }

    pub fn has_binary(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Its text, if it has one, and what goes with that.
    pub fn words(&self) -> (Option<&str>, &[Bytes]) {
        (self.text.as_deref(), &self.parts)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a message of {} bytes", self.size())
    }
}

/// What a session's transport takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Frames(Version),
    /// WebSocket of a client that cannot take binary frames.
    Base64Frames(Version),
    Payload(Form),
    /// Frames of which the larger ones are compressed.
    Deflated(Version, Deflate),
}

impl Wire {
    fn index(self) -> usize {
        match self {
            Self::Frames(Version::V4) => 0,
            Self::Frames(Version::V3) => 1,
            Self::Base64Frames(Version::V4) => 2,
            Self::Base64Frames(Version::V3) => 3,
            Self::Payload(Form::V4) => 4,
            Self::Payload(Form::V3Text) => 5,
            Self::Payload(Form::V3Binary) => 6,
            Self::Deflated(Version::V4, _) => 7,
            Self::Deflated(Version::V3, _) => 8,
        }
    }
}

/// A message as this worker sends it.
pub struct Outgoing {
    message: Arc<Message>,
    others: OnceCell<Box<[OnceCell<Bytes>; 9]>>,
    translated: OnceCell<Option<Rc<Self>>>,
}

/// How the layer above says a text and its parts in its other language; `None` if it cannot.
pub type Translate<'a> = &'a dyn Fn(&str, &[Bytes]) -> Option<Vec<u8>>;

impl Outgoing {
    pub fn new(message: Arc<Message>) -> Rc<Self> {
        Rc::new(Self { message, others: OnceCell::new(), translated: OnceCell::new() })
    }

    /// The same for sessions that speak the other language, translated at its first use.
    pub fn translated(self: &Rc<Self>, translate: Translate<'_>) -> Option<Rc<Self>> {
        let Some(text) = &self.message.text else { return Some(Rc::clone(self)) };
        let translated = self.translated.get_or_init(|| {
            let message = self.message.translated.get_or_init(|| {
                let data = translate(text, &self.message.parts)?;
                Some(Arc::new(Message::binary(data.into())))
            });
            message.clone().map(Self::new)
        });
        translated.clone()
    }

    pub fn size(&self) -> usize {
        self.message.size()
    }

    /// For other threads.
    pub fn message(&self) -> Arc<Message> {
        Arc::clone(&self.message)
    }

    pub fn has_binary(&self) -> bool {
        self.message.has_binary()
    }

    /// The bytes for `wire`, built at its first use.
    pub fn bytes(&self, wire: Wire) -> &Bytes {
        if let Wire::Deflated(version, deflate) = wire
            && self.size() < deflate.above
        {
            return self.bytes(Wire::Frames(version));
        }
        if wire == Wire::Frames(Version::V4) {
            // Another worker's frames are taken, not built again.
            return self.message.frames.get_or_init(|| build(&self.message, wire));
        }
        let others = self.others.get_or_init(Box::default);
        let [first, ..] = &**others;
        let cell = others.get(wire.index()).unwrap_or(first);
        if let Wire::Deflated(Version::V4, _) = wire {
            let deflated = &self.message.deflated;
            return cell
                .get_or_init(|| deflated.get_or_init(|| build(&self.message, wire)).clone());
        }
        cell.get_or_init(|| build(&self.message, wire))
    }
}

thread_local! {
    static BUILT: Arc<Series> = metrics::series(&metrics::HUB_BUILT, &[]);
}

/// A text that one session alone is sent, of which the `pieces` are: its bytes for
/// `Wire::Frames(Version::V4)`.
pub fn framed(pieces: &[&str]) -> Vec<u8> {
    BUILT.with(|built| built.increment());
    let length = 1 + pieces.iter().map(|piece| piece.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(frame::head_len(length) + length);
    frame::write_head(&mut bytes, Opcode::Text, length);
    bytes.push(b'4');
    pieces.iter().for_each(|piece| bytes.extend_from_slice(piece.as_bytes()));
    bytes
}

fn build(message: &Message, wire: Wire) -> Bytes {
    BUILT.with(|built| built.increment());
    let text = message.text.as_deref();
    // For most messages exactly what it takes.
    let heads = match (text, message.parts.len()) {
        (Some(text), 0) => 1 + frame::head_len(text.len() + 1),
        (_, parts) => (HEAD_MAX + 2) * (1 + parts),
    };
    let mut bytes = Vec::with_capacity(message.size() + heads);
    if let Some(text) = text {
        match wire {
            Wire::Frames(_) | Wire::Base64Frames(_) => {
                frame::write(&mut bytes, Opcode::Text, &[b"4", text.as_bytes()]);
            }
            Wire::Payload(form) => packet::write_text(&mut bytes, form, b'4', text),
            Wire::Deflated(_, deflate) => {
                deflated(&mut bytes, Opcode::Text, &[b"4", text.as_bytes()], deflate);
            }
        }
    }
    for part in &message.parts {
        match wire {
            Wire::Frames(Version::V4) => frame::write(&mut bytes, Opcode::Binary, &[part]),
            Wire::Frames(Version::V3) => frame::write(&mut bytes, Opcode::Binary, &[&[4], part]),
            Wire::Base64Frames(version) => {
                let mut encoded = match version {
                    Version::V4 => b"b".to_vec(),
                    Version::V3 => b"b4".to_vec(),
                };
                packet::append_base64(&mut encoded, part);
                frame::write(&mut bytes, Opcode::Text, &[&encoded]);
            }
            Wire::Payload(form) => packet::write_binary(&mut bytes, form, part),
            Wire::Deflated(Version::V4, deflate) => {
                deflated(&mut bytes, Opcode::Binary, &[part], deflate);
            }
            Wire::Deflated(Version::V3, deflate) => {
                deflated(&mut bytes, Opcode::Binary, &[&[4], part], deflate);
            }
        }
    }
    bytes.into()
}

/// A frame that is compressed, if it is large enough to be and becomes smaller by it.
fn deflated(into: &mut Vec<u8>, opcode: Opcode, parts: &[&[u8]], deflate: Deflate) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let compressed = if length < deflate.above { None } else { deflate::compress(parts) };
    match compressed {
        Some(payload) => frame::write_compressed(into, opcode, &payload),
        None => frame::write(into, opcode, parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wire_has_its_bytes() {
        let message =
            Message::with_parts("51-[1]".to_owned(), vec![Bytes::from_static(&[1, 2, 3, 4])]);
        let outgoing = Outgoing::new(Arc::new(message));
        for (wire, bytes) in [
            (Wire::Frames(Version::V4), &b"\x81\x07451-[1]\x82\x04\x01\x02\x03\x04"[..]),
            (Wire::Frames(Version::V3), b"\x81\x07451-[1]\x82\x05\x04\x01\x02\x03\x04"),
            (Wire::Base64Frames(Version::V4), b"\x81\x07451-[1]\x81\x09bAQIDBA=="),
            (Wire::Base64Frames(Version::V3), b"\x81\x07451-[1]\x81\x0ab4AQIDBA=="),
            (Wire::Payload(Form::V4), b"451-[1]\x1ebAQIDBA=="),
            (Wire::Payload(Form::V3Text), b"7:451-[1]10:b4AQIDBA=="),
            (Wire::Payload(Form::V3Binary), b"\x00\x07\xff451-[1]\x01\x05\xff\x04\x01\x02\x03\x04"),
        ] {
            assert_eq!(outgoing.bytes(wire), bytes, "{wire:?}");
            assert!(std::ptr::eq(outgoing.bytes(wire), outgoing.bytes(wire)), "built once");
        }
    }

    #[test]
    fn what_is_said_to_one_is_as_what_is_said_to_many() {
        for length in [0, 1, 123, 124, 125, 65_533, 65_534, 65_535] {
            let text = "x".repeat(length);
            let (first, second) = text.split_at(length / 3);
            let message = Outgoing::new(Arc::new(Message::text(text.clone())));
            let frame = framed(&[first, "", second]);
            assert_eq!(message.bytes(Wire::Frames(Version::V4)), &frame, "{length}");
            assert_eq!(frame.capacity(), frame.len());
        }
    }

    #[test]
    fn only_what_is_large_is_compressed() {
        let deflate = Deflate { above: 10 };
        let sent = |version, text: &str, part: &'static [u8]| {
            let parts = vec![Bytes::from_static(part)];
            let message = Outgoing::new(Arc::new(Message::with_parts(text.to_owned(), parts)));
            assert_eq!(message.size(), text.len() + part.len());
            message.bytes(Wire::Deflated(version, deflate)).clone()
        };
        let short = b"\x81\x05451-a\x82\x01b";
        assert_eq!(sent(Version::V4, "51-a", b"b"), &short[..]);
        let text = sent(Version::V4, &"a".repeat(100), b"b");
        assert!(text.starts_with(b"\xc1") && text.len() < 40, "{text:x?}");
        assert!(text.ends_with(b"\x82\x01b"), "{text:x?}");
        let data = sent(Version::V3, "51-a", &[b'b'; 100]);
        assert!(data.starts_with(b"\x81\x05451-a\xc2") && data.len() < 30, "{data:x?}");
        // What does not become smaller goes as it is.
        let noise = sent(Version::V4, "51-a", b"\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98");
        assert!(noise.starts_with(b"\x81\x05451-a\x82\x0c\x01\x23"), "{noise:x?}");
    }

    #[test]
    fn a_message_is_translated_once_for_all_workers() {
        let times = std::cell::Cell::new(0);
        let translate = |text: &str, _parts: &[Bytes]| {
            times.set(times.get() + 1);
            (text != "untold").then(|| text.to_uppercase().into_bytes())
        };
        let message = Arc::new(Message::text("hello".to_owned()));
        for _worker in 0..2 {
            let outgoing = Outgoing::new(Arc::clone(&message));
            for _session in 0..2 {
                let translated = outgoing.translated(&translate).expect("translated");
                assert_eq!(translated.bytes(Wire::Frames(Version::V4)), &b"\x82\x05HELLO"[..]);
                assert_eq!(translated.size(), 5);
            }
        }
        assert_eq!(times.get(), 1);
        let untold = Outgoing::new(Arc::new(Message::text("untold".to_owned())));
        assert!(untold.translated(&translate).is_none());
    }
}
