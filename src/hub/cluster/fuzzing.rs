//! What must hold for any bytes that come from Redis, or from a peer through it.
//!
//! Each function panics where something does not hold; see `crate::fuzzing`.

use bytes::{Bytes, BytesMut};

use crate::config::Secret;
use crate::hub::engine::Node;

use super::badge::{Seal, uid_of};
use super::resp::Decoder;
use super::wire::{Dialect, Matter, Place, RoomChannels, Streams, Telegram, Wire};

/// What Redis says.
pub fn resp(data: &[u8]) {
    let (mut decoder, mut whole) = (Decoder::default(), BytesMut::from(data));
    let mut values = Vec::new();
    while let Ok(Some(value)) = decoder.next(&mut whole) {
        values.push(value);
        assert!(values.len() <= data.len());
    }
    // It makes no difference how the bytes come.
    let (mut decoder, mut buffer, mut again) = (Decoder::default(), BytesMut::new(), Vec::new());
    'bytes: for piece in data.chunks(3) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(value)) => again.push(value),
                Ok(None) => break,
                Err(_) => break 'bytes,
            }
        }
    }
    assert_eq!(again, values);
}

/// What a peer says, in every dialect.
pub fn wire(data: &[u8]) {
    let streams = Streams { name: "s".to_owned(), count: 1, length: 9, sharded: false };
    let dialects =
        [Dialect::Classic, Dialect::Sharded(RoomChannels::All), Dialect::Streams(streams)];
    let data = Bytes::copy_from_slice(data);
    for dialect in dialects {
        let wire = Wire { dialect, prefix: "p".to_owned(), uid: "me".to_owned() };
        let places = [
            Place::Namespace("/"),
            Place::Room("/", "a"),
            Place::Request("/"),
            Place::Response("/"),
        ];
        for place in places {
            wire.read(place, &data).into_iter().for_each(open);
        }
        let word = |name: &str, value: &str| {
            (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
        };
        if let Ok(text) = std::str::from_utf8(&data) {
            // Nobody guesses the secret.
            let seal = Seal::new(&Secret::new("0123456789abcdef".to_owned(), None));
            assert_eq!(seal.read_entry(Node::random(), text), None);
            let _uid = uid_of(text);
        }
        for kind in ["3", "9", "10", "12"] {
            let mut fields = vec![word("uid", "you"), word("nsp", "/"), word("type", kind)];
            fields.push((Bytes::from_static(b"data"), data.clone()));
            wire.read_entry(&fields).into_iter().for_each(open);
        }
    }
}

fn open(telegram: Telegram) {
    if let Matter::Broadcast(broadcast) = telegram.matter {
        let _opened = broadcast.packet.open(&telegram.namespace);
    }
}
