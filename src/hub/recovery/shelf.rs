//! Messages that are kept for those who are away, one behind the other in few large pieces of
//! memory.
//!
//! They leave in the order in which they came. Kept each by itself, in memory of their own, they
//! would leave holes between what lives longer, and the process would grow although it holds no
//! more than before.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::hub::engine::{Id, Message, Outgoing};
use crate::hub::namespace::Target;

use super::ticket::{is_for, is_meant};

/// Pieces double from the first size to the last, so that few messages take little.
const PIECE_MIN: usize = 1024;
const PIECE_MAX: usize = 64 * 1024;
/// What is longer, or has binary parts, is shared with the other workers instead.
const PACKED_MAX: usize = 2048;

/// A message, and who was meant.
pub struct Parcel {
    pub target: Arc<Target>,
    pub message: Rc<Outgoing>,
}

/// Where a parcel stands.
pub enum Kept {
    Packed {
        /// Bytes that stood on the shelf before it, ever.
        at: u64,
        length: usize,
        /// The message, while somebody is still sent it again: a crowd that returns shares it.
        sent: RefCell<Weak<Outgoing>>,
    },
    Whole(Parcel),
}

#[derive(Default)]
pub struct Shelf {
    pieces: VecDeque<Piece>,
}

struct Piece {
    start: u64,
    /// Never more than there was room for at first.
    bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl Kept {
    /// Bytes, roughly: the text, its frame, and what surrounds them.
    pub fn size(&self) -> usize {
        match self {
            Self::Packed { length, .. } => length + 64,
            Self::Whole(parcel) => parcel.message.size() * 2 + 256,
        }
    }
}

impl Shelf {
    pub fn put(&mut self, parcel: Parcel) -> Kept {
        let message = parcel.message.message();
        let (Some(text), []) = message.words() else { return Kept::Whole(parcel) };
        let Some(length) = packed_len(&parcel.target, text).filter(|len| *len <= PACKED_MAX) else {
            return Kept::Whole(parcel);
        };
        let piece = self.room(length);
        let at = piece.end();
        pack(&parcel.target, text, &mut piece.bytes);
        Kept::Packed { at, length, sent: RefCell::default() }
    }

    /// The piece that has room for so much.
    fn room(&mut self, length: usize) -> &mut Piece {
        let last = self.pieces.back();
        if last.is_none_or(|piece| piece.bytes.capacity() - piece.bytes.len() < length) {
            let start = last.map_or(0, Piece::end);
            let size = last.map_or(PIECE_MIN, |piece| piece.bytes.capacity() * 2);
            let size = size.clamp(length, PIECE_MAX);
            self.pieces.push_back(Piece { start, bytes: Vec::with_capacity(size) });
        }
        self.pieces.back_mut().expect("one was put there")
    }

    /// The oldest is not needed any more.
    pub fn take_off(&mut self, oldest: &Kept) {
        let Kept::Packed { at, length, .. } = oldest else { return };
        let end = at + *length as u64;
        while self.pieces.len() > 1 && self.pieces.front().is_some_and(|piece| piece.end() <= end) {
            self.pieces.pop_front();
        }
        // The last one is used again.
        if let Some(last) = self.pieces.front_mut().filter(|piece| piece.end() <= end) {
            last.start = last.end();
            last.bytes.clear();
        }
    }

    /// Whether a message is meant for the socket `id`, who is in these rooms and in its own.
    pub fn is_for(&self, kept: &Kept, id: Id, inside: impl Fn(&str) -> bool) -> bool {
        match kept {
            Kept::Whole(parcel) => is_for(&parcel.target, id, inside),
            Kept::Packed { at, length, .. } => {
                let Unpacked { but, rooms, except, .. } = unpack(self.bytes(*at, *length));
                is_meant(but == Some(id.as_str()), rooms, except, id, inside)
            }
        }
    }

    pub fn message(&self, kept: &Kept) -> Rc<Outgoing> {
        match kept {
            Kept::Whole(parcel) => Rc::clone(&parcel.message),
            Kept::Packed { at, length, sent } => {
                let shared = sent.borrow().upgrade();
                shared.unwrap_or_else(|| {
                    let text = unpack(self.bytes(*at, *length)).text.to_owned();
                    let message = Outgoing::new(Arc::new(Message::text(text)));
                    sent.replace(Rc::downgrade(&message));
                    message
                })
            }
        }
    }

    fn bytes(&self, at: u64, length: usize) -> &[u8] {
        let after = self.pieces.partition_point(|piece| piece.start <= at);
        let piece = after.checked_sub(1).and_then(|index| self.pieces.get(index));
        let start = piece.and_then(|piece| usize::try_from(at - piece.start).ok());
        let bytes = piece.zip(start).and_then(|(piece, at)| piece.bytes.get(at..at + length));
        bytes.unwrap_or_default()
    }
}

/// A packed parcel: who is left out, how many rooms (one more than there are; 0 is everyone), the
/// rooms, how many exceptions, those, and the text. A name is its length in two bytes, and itself.
struct Unpacked<'a> {
    but: Option<&'a str>,
    rooms: Option<Names<'a>>,
    except: Names<'a>,
    text: &'a str,
}

/// `None` if it cannot be written so.
fn packed_len(target: &Target, text: &str) -> Option<usize> {
    let rooms = target.rooms.as_deref().unwrap_or_default();
    let fits = |names: &[String]| {
        names.len() < usize::from(u8::MAX)
            && names.iter().all(|name| u16::try_from(name.len()).is_ok())
    };
    let names = rooms.iter().chain(&target.except);
    let but = target.but.map_or(0, |id| id.as_str().len());
    let length = 3 + but + names.map(|name| 2 + name.len()).sum::<usize>() + text.len();
    (fits(rooms) && fits(&target.except)).then_some(length)
}

fn pack(target: &Target, text: &str, into: &mut Vec<u8>) {
    let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    let but = target.but.as_ref().map(Id::as_str).unwrap_or_default();
    into.push(byte(but.len()));
    into.extend_from_slice(but.as_bytes());
    into.push(target.rooms.as_ref().map_or(0, |rooms| byte(rooms.len() + 1)));
    put_names(target.rooms.as_deref().unwrap_or_default(), into);
    into.push(byte(target.except.len()));
    put_names(&target.except, into);
    into.extend_from_slice(text.as_bytes());
}

fn put_names(names: &[String], into: &mut Vec<u8>) {
    for name in names {
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        into.extend_from_slice(&length.to_be_bytes());
        into.extend_from_slice(name.as_bytes());
    }
}

fn unpack(mut bytes: &[u8]) -> Unpacked<'_> {
    let bytes = &mut bytes;
    let but = usize::from(take_byte(bytes));
    let but = (but > 0).then(|| take_text(bytes, but));
    let rooms = take_byte(bytes).checked_sub(1).map(|count| Names::take(bytes, count));
    let count = take_byte(bytes);
    let except = Names::take(bytes, count);
    let length = bytes.len();
    Unpacked { but, rooms, except, text: take_text(bytes, length) }
}

fn take_byte(bytes: &mut &[u8]) -> u8 {
    bytes.split_off_first().copied().unwrap_or_default()
}

fn take_text<'a>(bytes: &mut &'a [u8], length: usize) -> &'a str {
    let text = bytes.split_off(..length).unwrap_or_default();
    std::str::from_utf8(text).unwrap_or_default()
}

/// Names that stand one behind the other.
#[derive(Debug, Clone, Copy)]
struct Names<'a> {
    bytes: &'a [u8],
    left: u8,
}

impl<'a> Names<'a> {
    /// So many, off the front of `bytes`.
    fn take(bytes: &mut &'a [u8], left: u8) -> Self {
        let names = Self { bytes, left };
        let mut passed = names;
        while passed.next().is_some() {}
        *bytes = passed.bytes;
        names
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        let [high, low] = [take_byte(&mut self.bytes), take_byte(&mut self.bytes)];
        Some(take_text(&mut self.bytes, usize::from(u16::from_be_bytes([high, low]))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn names() -> impl Strategy<Value = Vec<String>> {
        let name = prop_oneof!["[a-cé]{0,3}", Just("x".repeat(700)), Just(id(1).as_str().into())];
        prop::collection::vec(name, 0..4)
    }

    fn id(number: u8) -> Id {
        let text = format!("{:A<20}", char::from(b'a' + number));
        Id::parse(&text).expect("an id")
    }

    type Words = (Option<Vec<String>>, Vec<String>, Option<u8>, String, bool);

    fn parcels() -> impl Strategy<Value = Vec<Words>> {
        let text = prop_oneof!["[a-cß]{0,9}", Just("y".repeat(900)), Just("z".repeat(5000))];
        let one = (
            prop::option::of(names()),
            names(),
            prop::option::of(0..3_u8),
            text,
            prop::bool::weighted(0.1),
        );
        prop::collection::vec(one, 1..200)
    }

    proptest! {
        /// Whoever is meant by what was put there is meant by what stands there, and is sent the
        /// same, whatever was taken off before.
        #[test]
        fn what_is_kept_is_what_came(words in parcels(), window in 1..40_usize) {
            let (mut shelf, mut kept) = (Shelf::default(), VecDeque::new());
            for (rooms, except, but, text, binary) in words {
                let target = Arc::new(Target { rooms, except, but: but.map(id) });
                let parts = if binary { vec![Bytes::from_static(b"b")] } else { Vec::new() };
                let message = Outgoing::new(Arc::new(Message::with_parts(text.clone(), parts)));
                let parcel = Parcel { target: Arc::clone(&target), message };
                kept.push_back((shelf.put(parcel), target, text));
                if kept.len() > window {
                    let (oldest, ..) = kept.pop_front().expect("one");
                    shelf.take_off(&oldest);
                }
                for (kept, target, text) in &kept {
                    for (who, room) in [(id(0), "a"), (id(1), "bé"), (id(2), "")] {
                        let inside = |name: &str| name == room;
                        let meant = is_for(target, who, inside);
                        prop_assert_eq!(shelf.is_for(kept, who, inside), meant);
                    }
                    let message = shelf.message(kept).message();
                    prop_assert_eq!(message.words().0, Some(&**text));
                }
            }
            while let Some((oldest, ..)) = kept.pop_front() {
                shelf.take_off(&oldest);
            }
            prop_assert!(shelf.pieces.len() <= 1 && shelf.pieces.iter().all(|p| p.bytes.is_empty()));
        }
    }

    #[test]
    fn who_returns_in_a_crowd_shares_one_message() {
        let mut shelf = Shelf::default();
        let target = Arc::new(Target { rooms: None, except: Vec::new(), but: None });
        let message = || Outgoing::new(Arc::new(Message::text("2[]".to_owned())));
        let kept = shelf.put(Parcel { target, message: message() });
        let (one, other) = (shelf.message(&kept), shelf.message(&kept));
        assert!(Rc::ptr_eq(&one, &other));
    }

    #[test]
    fn few_messages_take_little_and_many_take_few_pieces() {
        let mut shelf = Shelf::default();
        let target = Arc::new(Target { rooms: None, except: Vec::new(), but: None });
        let message = Outgoing::new(Arc::new(Message::text("x".repeat(97))));
        let mut put = || {
            shelf.put(Parcel { target: Arc::clone(&target), message: Rc::clone(&message) });
            shelf.pieces.iter().map(|piece| piece.bytes.capacity()).collect::<Vec<_>>()
        };
        assert_eq!(put(), [1024]);
        let pieces = (0..10_000).map(|_| put()).last().expect("pieces");
        assert_eq!(pieces.iter().sum::<usize>() / 65_536, 15, "{pieces:?}");
        assert!(pieces.len() < 25, "{pieces:?}");
    }
}
