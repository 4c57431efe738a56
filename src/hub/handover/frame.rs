//! What two processes say to each other while clients move from one to the other; pure.
//!
//! A frame is its length in four bytes, its kind in one, and fields: numbers little end first, texts
//! with their length in four bytes before them. A stamp is written with the node and the worker that
//! it began on, as each process numbers origins in its own way.

use bytes::Bytes;

use crate::hub::crowds::Step;
use crate::hub::engine::{Id, Node};
use crate::hub::operation::{Operation, Outcome};

/// Another version is not spoken to: clients then begin anew.
pub const VERSION: u8 = 3;
/// Bytes of a frame: an event at its largest, or what a client missed.
pub const FRAME_MAX: usize = 64 << 20;
/// Bytes of its length.
pub const HEAD: usize = 4;

/// A stamp as both processes understand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub node: Node,
    pub worker: u8,
    pub number: u64,
}

/// A message of Socket.IO: its packet's text and the attachments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    pub text: String,
    pub parts: Vec<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The first one of either side.
    Hello {
        version: u8,
        node: Node,
        /// The name under which it talks over Redis, if it does.
        name: Option<Box<str>>,
    },
    Emit {
        namespace: Box<str>,
        rooms: Option<Vec<String>>,
        except: Vec<String>,
        but: Option<Id>,
        volatile: bool,
        place: Option<Place>,
        words: Words,
    },
    /// Everything behind this is said here, of what began there.
    Baseline(Place),
    Claim(Claim),
    Answer(Answer),
    /// Whoever is still there is to come at once: another process wants to take over.
    Hurry,
    /// Channels of single rooms that are listened to there, on Redis.
    Rooms(Vec<String>),
    /// A socket has come into a watched room there, or left it.
    Moved {
        namespace: Box<str>,
        room: Box<str>,
        id: Id,
        step: Step,
    },
    /// What the operator wants, to be done in order with what is said; an event's words come by
    /// themselves.
    Operate {
        number: u64,
        operation: Box<Operation>,
    },
    /// What came of it.
    Outcome {
        number: u64,
        outcome: Box<Outcome>,
    },
}

/// A client wants to go on with what it may have left there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The worker that is asked; `None`: whichever knows.
    pub to: Option<u8>,
    pub pid: Id,
    pub namespace: Box<str>,
    pub user: Option<Box<str>>,
    pub offset: Option<Place>,
    pub from: u8,
    pub number: u64,
    /// Up to where what came over Redis is to be answered.
    pub mark: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub to: u8,
    pub number: u64,
    pub found: Result<Box<Left>, Missing>,
}

/// Why there is nothing to go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Unknown,
    Expired,
    TooMuch,
}

/// What a client left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    pub pid: Id,
    pub id: Id,
    pub namespace: Box<str>,
    pub user: Option<Box<str>>,
    pub rooms: Vec<String>,
    pub data: Option<Box<str>>,
    /// Milliseconds.
    pub lasts: u64,
    /// The highest number by origin that the client has.
    pub have: Vec<Place>,
    /// The same for all that was delivered there.
    pub heard: Vec<Place>,
    pub turned_out: Option<Place>,
    /// What came over Redis up to this is in it, and nothing later.
    pub mark: Option<u64>,
    pub missed: Vec<(Place, Words)>,
}

/// Not what this version writes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of the other process cannot be read")]
pub struct Malformed;

impl Frame {
    /// With its length before it; `None` if it is longer than a frame may be.
    pub fn write(&self) -> Option<Vec<u8>> {
        let mut to = Pen(vec![0; HEAD]);
        match self {
            Self::Hello { version, node, name } => {
                to.byte(0);
                to.byte(*version);
                to.text(node.as_str());
                to.option(name.as_ref(), |to, name| to.text(name));
            }
            Self::Emit { namespace, rooms, except, but, volatile, place, words } => {
                to.byte(1);
                to.text(namespace);
                to.option(rooms.as_ref(), |to, rooms| to.texts(rooms));
                to.texts(except);
                to.option(but.as_ref(), |to, id| to.text(id.as_str()));
                to.byte(u8::from(*volatile));
                to.option(place.as_ref(), Pen::place);
                to.words(words);
            }
            Self::Baseline(place) => {
                to.byte(2);
                to.place(place);
            }
            Self::Claim(claim) => {
                to.byte(3);
                to.option(claim.to.as_ref(), |to, worker| to.byte(*worker));
                to.text(claim.pid.as_str());
                to.text(&claim.namespace);
                to.option(claim.user.as_ref(), |to, user| to.text(user));
                to.option(claim.offset.as_ref(), Pen::place);
                to.byte(claim.from);
                to.number(claim.number);
                to.option(claim.mark.as_ref(), |to, mark| to.number(*mark));
            }
            Self::Hurry => to.byte(5),
            Self::Rooms(channels) => {
                to.byte(6);
                to.texts(channels);
            }
            Self::Moved { namespace, room, id, step } => {
                to.byte(7);
                to.text(namespace);
                to.text(room);
                to.text(id.as_str());
                to.step(step);
            }
            Self::Operate { number, operation } => {
                to.byte(8);
                to.number(*number);
                to.operation(operation);
            }
            Self::Outcome { number, outcome } => {
                to.byte(9);
                to.number(*number);
                to.outcome(outcome);
            }
            Self::Answer(answer) => {
                to.byte(4);
                to.byte(answer.to);
                to.number(answer.number);
                match &answer.found {
                    Ok(left) => {
                        to.byte(0);
                        to.left(left);
                    }
                    Err(missing) => to.byte(match missing {
                        Missing::Unknown => 1,
                        Missing::Expired => 2,
                        Missing::TooMuch => 3,
                    }),
                }
            }
        }
        let Pen(mut frame) = to;
        let length = frame.len() - HEAD;
        if length > FRAME_MAX {
            return None;
        }
        let length = u32::try_from(length).ok()?.to_le_bytes();
        frame.get_mut(..HEAD)?.copy_from_slice(&length);
        Some(frame)
    }

    /// Without the length before it.
    pub fn read(frame: Bytes) -> Result<Self, Malformed> {
        let mut from = Eye(frame);
        let read = match from.byte()? {
            0 => Self::Hello {
                version: from.byte()?,
                node: from.node()?,
                name: from.option(|from| Ok(from.text()?.into()))?,
            },
            1 => Self::Emit {
                namespace: from.text()?.into(),
                rooms: from.option(Eye::texts)?,
                except: from.texts()?,
                but: from.option(Eye::id)?,
                volatile: from.flag()?,
                place: from.option(Eye::place)?,
                words: from.words()?,
            },
            2 => Self::Baseline(from.place()?),
            3 => Self::Claim(Claim {
                to: from.option(Eye::byte)?,
                pid: from.id()?,
                namespace: from.text()?.into(),
                user: from.option(|from| Ok(from.text()?.into()))?,
                offset: from.option(Eye::place)?,
                from: from.byte()?,
                number: from.number()?,
                mark: from.option(Eye::number)?,
            }),
            4 => Self::Answer(Answer {
                to: from.byte()?,
                number: from.number()?,
                found: match from.byte()? {
                    0 => Ok(Box::new(from.left()?)),
                    1 => Err(Missing::Unknown),
                    2 => Err(Missing::Expired),
                    3 => Err(Missing::TooMuch),
                    _ => return Err(Malformed),
                },
            }),
            5 => Self::Hurry,
            6 => Self::Rooms(from.texts()?),
            7 => Self::Moved {
                namespace: from.text()?.into(),
                room: from.text()?.into(),
                id: from.id()?,
                step: from.step()?,
            },
            8 => {
                let number = from.number()?;
                Self::Operate { number, operation: Box::new(from.operation()?) }
            }
            9 => {
                let number = from.number()?;
                Self::Outcome { number, outcome: Box::new(from.outcome()?) }
            }
            _ => return Err(Malformed),
        };
        if from.0.is_empty() { Ok(read) } else { Err(Malformed) }
    }
}

/// Writes fields.
pub struct Pen(Vec<u8>);

impl Pen {
    pub fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        // What is longer than that is no frame, either.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub fn many<T>(&mut self, many: &[T], one: impl Fn(&mut Self, &T)) {
        let count = u32::try_from(many.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&count.to_le_bytes());
        many.iter().for_each(|item| one(self, item));
    }

    pub fn texts(&mut self, texts: &[String]) {
        self.many(texts, |to, text| to.text(text));
    }

    pub fn option<T>(&mut self, option: Option<&T>, one: impl Fn(&mut Self, &T)) {
        self.byte(u8::from(option.is_some()));
        option.into_iter().for_each(|item| one(self, item));
    }

    fn place(&mut self, place: &Place) {
        self.text(place.node.as_str());
        self.byte(place.worker);
        self.number(place.number);
    }

    fn words(&mut self, words: &Words) {
        self.text(&words.text);
        self.many(&words.parts, |to, part| to.bytes(part));
    }

    fn left(&mut self, left: &Left) {
        self.text(left.pid.as_str());
        self.text(left.id.as_str());
        self.text(&left.namespace);
        self.option(left.user.as_ref(), |to, user| to.text(user));
        self.texts(&left.rooms);
        self.option(left.data.as_ref(), |to, data| to.text(data));
        self.number(left.lasts);
        self.many(&left.have, Self::place);
        self.many(&left.heard, Self::place);
        self.option(left.turned_out.as_ref(), Self::place);
        self.option(left.mark.as_ref(), |to, mark| to.number(*mark));
        self.many(&left.missed, |to, (place, words)| {
            to.place(place);
            to.words(words);
        });
    }
}

/// Reads fields; takes no more memory than there are bytes.
pub struct Eye(Bytes);

impl Eye {
    fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if length > self.0.len() {
            return Err(Malformed);
        }
        Ok(self.0.split_to(length))
    }

    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1)?.first().copied().ok_or(Malformed)
    }

    pub fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    pub fn number(&mut self) -> Result<u64, Malformed> {
        let bytes = self.take(8)?;
        bytes.first_chunk().copied().map(u64::from_le_bytes).ok_or(Malformed)
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        let bytes = self.take(4)?;
        let length = bytes.first_chunk().copied().map(u32::from_le_bytes);
        length.and_then(|length| usize::try_from(length).ok()).ok_or(Malformed)
    }

    fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.length()?;
        self.take(length)
    }

    pub fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.bytes()?.into()).map_err(|_error| Malformed)
    }

    pub fn many<T>(
        &mut self,
        one: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.length()?;
        // Each takes a few bytes, so a count that lies ends soon.
        let mut many = Vec::with_capacity(count.min(self.0.len() / 4));
        for _ in 0..count {
            many.push(one(self)?);
        }
        Ok(many)
    }

    pub fn texts(&mut self) -> Result<Vec<String>, Malformed> {
        self.many(Self::text)
    }

    pub fn option<T>(
        &mut self,
        one: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.flag()? { one(self).map(Some) } else { Ok(None) }
    }

    pub fn id(&mut self) -> Result<Id, Malformed> {
        Id::parse(&self.text()?).ok_or(Malformed)
    }

    fn node(&mut self) -> Result<Node, Malformed> {
        Node::parse(&self.text()?).ok_or(Malformed)
    }

    fn place(&mut self) -> Result<Place, Malformed> {
        Ok(Place { node: self.node()?, worker: self.byte()?, number: self.number()? })
    }

    fn words(&mut self) -> Result<Words, Malformed> {
        Ok(Words { text: self.text()?, parts: self.many(Self::bytes)? })
    }

    fn left(&mut self) -> Result<Left, Malformed> {
        Ok(Left {
            pid: self.id()?,
            id: self.id()?,
            namespace: self.text()?.into(),
            user: self.option(|from| Ok(from.text()?.into()))?,
            rooms: self.texts()?,
            data: self.option(|from| Ok(from.text()?.into()))?,
            lasts: self.number()?,
            have: self.many(Self::place)?,
            heard: self.many(Self::place)?,
            turned_out: self.option(Self::place)?,
            mark: self.option(Self::number)?,
            missed: self.many(|from| Ok((from.place()?, from.words()?)))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::hub::crowds::User;
    use crate::hub::engine::Delivery;
    use crate::hub::namespace::Target;
    use crate::hub::operation::{Deed, Heads, Listed, Page, Seen};

    use super::*;

    fn node() -> Node {
        Node::parse("aB-").expect("a node")
    }

    fn place(number: u64) -> Place {
        Place { node: node(), worker: 3, number }
    }

    fn words() -> Words {
        Words {
            text: "42[\"ž\",1]".to_owned(),
            parts: vec![Bytes::from_static(&[0, 255]), Bytes::new()],
        }
    }

    fn all() -> Vec<Frame> {
        let id = Id::parse("aB-1aaaaaaaaaaaaaaaa").expect("an id");
        let left = Left {
            pid: id,
            id,
            namespace: "/chat".into(),
            user: Some("u".into()),
            rooms: vec!["room:a".to_owned(), String::new()],
            data: None,
            lasts: 120_000,
            have: vec![place(1)],
            heard: vec![place(2), place(u64::MAX)],
            turned_out: Some(place(0)),
            mark: Some(11),
            missed: vec![(place(2), words())],
        };
        let answer = |found| Frame::Answer(Answer { to: 1, number: 7, found });
        let emit = |rooms, but, place| Frame::Emit {
            namespace: "/".into(),
            rooms,
            except: vec!["b".to_owned()],
            but,
            volatile: true,
            place,
            words: words(),
        };
        let claim = Claim {
            to: None,
            pid: id,
            namespace: "/".into(),
            user: None,
            offset: Some(place(9)),
            from: 2,
            number: 3,
            mark: None,
        };
        vec![
            Frame::Hello { version: VERSION, node: node(), name: None },
            Frame::Hello { version: VERSION, node: node(), name: Some("ab".into()) },
            emit(Some(vec!["a".to_owned()]), Some(id), Some(place(5))),
            emit(None, None, None),
            Frame::Baseline(place(12)),
            Frame::Claim(Claim { to: Some(1), mark: Some(7), ..claim.clone() }),
            Frame::Claim(claim),
            answer(Ok(Box::new(left))),
            answer(Err(Missing::Unknown)),
            answer(Err(Missing::Expired)),
            answer(Err(Missing::TooMuch)),
            Frame::Hurry,
            Frame::Rooms(vec!["socket.io#/#a#".to_owned()]),
        ]
        .into_iter()
        .chain(operators())
        .collect()
    }

    fn operators() -> Vec<Frame> {
        let id = Id::parse("aB-1aaaaaaaaaaaaaaaa").expect("an id");
        let moved = |step| Frame::Moved { namespace: "/".into(), room: "a".into(), id, step };
        let user = User { number: 7, id: "ž".into() };
        let rooms = || vec!["a".to_owned(), "b".to_owned()];
        let target =
            || Target { rooms: Some(rooms()), except: vec!["c".to_owned()], but: Some(id) };
        let page = || Page { after: "a".to_owned(), most: 100 };
        let emit = Deed::Emit {
            target: Target::default(),
            data: "".into(),
            parts: Vec::new(),
            delivery: Delivery::Kept,
        };
        let deeds = [
            emit,
            Deed::Join { target: target(), rooms: rooms() },
            Deed::Leave { target: target(), rooms: rooms() },
            Deed::Disconnect { target: target(), close: true },
            Deed::Sockets { target: target(), page: page() },
            Deed::Rooms { page: page() },
            Deed::Count { room: None },
            Deed::Count { room: Some("a".to_owned()) },
            Deed::Describe { target: target() },
        ];
        let operate = |deed| {
            let operation = Box::new(Operation::new("/chat", deed));
            Frame::Operate { number: 3, operation }
        };
        let heads = |users: &[u64]| {
            let elsewhere = users.iter().copied().collect();
            Heads { sockets: 9, users: Some(1), elsewhere }
        };
        let seen = |address: Option<&str>, transport| Seen {
            rooms: rooms(),
            user: Some("u".to_owned()),
            address: address.map(|text| text.parse().expect("an address")),
            transport,
        };
        let sockets = [
            ("x".to_owned(), seen(Some("::1"), Some("websocket"))),
            ("y".to_owned(), seen(None, None)),
        ];
        let named = [("a".to_owned(), heads(&[])), ("b".to_owned(), Heads::default())];
        let outcomes = [
            Outcome::Described(Vec::new()),
            Outcome::Count(5),
            Outcome::Heads(heads(&[1, 9, 3])),
            Outcome::Sockets(Listed { items: sockets.into(), more: true }),
            Outcome::Rooms(Listed { items: named.into(), more: false }),
        ];
        let outcome = |outcome| Frame::Outcome { number: 4, outcome: Box::new(outcome) };
        let moves = [Step::Went, Step::Came(None), Step::Came(Some(user))].map(moved);
        let deeds = deeds.into_iter().map(operate);
        moves.into_iter().chain(deeds).chain(outcomes.into_iter().map(outcome)).collect()
    }

    #[test]
    fn what_is_written_is_read_the_same_and_nothing_shorter_is() {
        for frame in all() {
            let written = frame.write().expect("short enough");
            let (head, body) = written.split_at(HEAD);
            assert_eq!(head, u32::try_from(body.len()).expect("short").to_le_bytes());
            let body = Bytes::copy_from_slice(body);
            assert_eq!(Frame::read(body.clone()).as_ref(), Ok(&frame));
            for length in 0..body.len() {
                assert_eq!(Frame::read(body.slice(..length)), Err(Malformed), "{frame:?}");
            }
            let longer = [&body[..], &[0]].concat();
            assert_eq!(Frame::read(longer.into()), Err(Malformed), "{frame:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_frame_or_is_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(frame) = Frame::read(bytes.clone().into()) {
                let written = frame.write().expect("short enough");
                prop_assert_eq!(&written[HEAD..], &bytes[..]);
            }
        }
    }
}
