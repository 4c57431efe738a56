//! What servers of one cluster tell each other over Redis, as Node's adapters write it; pure.
//!
//! Three adapters, three dialects; above, all of them are `Telegram`s. Nothing here knows Redis:
//! channels and streams have names, messages are bytes.

mod classic;
mod envelope;
mod fields;
mod nodes;
#[cfg(test)]
mod properties;
mod raw;
mod sharded;
mod streams;
mod text;
#[cfg(test)]
mod vectors;

use bytes::Bytes;

use crate::hub::engine::ALPHABET;
use crate::hub::packet::Malformed;

use raw::Raw;

pub use nodes::{Moved, Whisper};
pub use streams::{Session, id_of, number_of};

/// How this server speaks, and who it is.
#[derive(Debug, Clone)]
pub struct Wire {
    pub dialect: Dialect,
    /// What every channel's name begins with.
    pub prefix: String,
    /// This server among the others, see `fresh_name`. Telegrams that are `from` it are its own.
    pub uid: String,
}

/// One of Node's adapters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// `@socket.io/redis-adapter`, and what its emitter writes.
    Classic,
    /// The same package, over shard pub/sub.
    Sharded(RoomChannels),
    /// `@socket.io/redis-streams-adapter`, and what its emitter writes.
    Streams(Streams),
}

/// Which rooms have a channel of their own; all servers must be of one mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomChannels {
    /// `static`.
    None,
    /// `dynamic`: all but those that are a socket's own.
    Public,
    /// `dynamic-private`.
    All,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streams {
    pub name: String,
    /// More than one: each namespace is in one of them.
    pub count: u32,
    /// Entries that a stream keeps, or some more.
    pub length: u64,
    /// What is not kept is told over shard pub/sub.
    pub sharded: bool,
}

/// What one server tells the others about a namespace.
#[derive(Debug, PartialEq)]
pub struct Telegram {
    /// Nobody knows: old emitters. An emitter of today is called `emitter`.
    pub from: Option<Box<str>>,
    pub namespace: Box<str>,
    pub matter: Matter<Sealed>,
}

/// Its packet is `Sealed` when it comes in, a `Payload` when it goes out.
#[derive(Debug, Clone, PartialEq)]
pub enum Matter<P> {
    Broadcast(Broadcast<P>),
    Join {
        audience: Audience,
        rooms: Vec<String>,
        /// Servers of long ago: who has the socket answers `Done`.
        request: Option<Box<str>>,
    },
    Leave {
        audience: Audience,
        rooms: Vec<String>,
        request: Option<Box<str>>,
    },
    Disconnect {
        audience: Audience,
        /// The transport too, not only this namespace.
        close: bool,
        request: Option<Box<str>>,
    },
    /// Every server answers `Sockets`, also if it has none.
    Fetch {
        audience: Audience,
        request: Box<str>,
        /// It is only counted: who knows the word answers `Heads`. Node's servers do not.
        counts: bool,
    },
    /// Every server answers `Ids`, also if it has none; asked by servers of long ago.
    Ids {
        audience: Audience,
        request: Box<str>,
    },
    /// Every server answers `Rooms`, also if it has none.
    Rooms {
        request: Box<str>,
    },
    /// `data` is an array that begins with the name. With a request every server answers `Value`.
    ServerSideEmit {
        payload: Payload,
        request: Option<Box<str>>,
    },
    Answer {
        /// The `from` of who asked. Empty on the way in.
        to: Box<str>,
        request: Box<str>,
        answer: Answer,
    },
    /// A heartbeat, or what nobody knows yet: to be ignored.
    Nothing,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Broadcast<P> {
    pub audience: Audience,
    pub flags: Flags,
    /// Acknowledgements are wanted: every server answers `Clients` at once, then `Ack` for each.
    pub request: Option<Box<str>>,
    /// An array that begins with the event's name.
    pub packet: P,
}

/// Who is meant; no rooms are everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    pub rooms: Vec<String>,
    pub except: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    pub volatile: bool,
    pub compress: Option<bool>,
    /// Milliseconds that acknowledgements are waited for.
    pub timeout: Option<u64>,
}

/// JSON, and the binary data that its placeholders name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    pub data: Box<str>,
    pub parts: Vec<Bytes>,
}

/// A packet that nobody has looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealed {
    Json(Bytes),
    Packed(Bytes),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Sockets(Vec<Remote>),
    /// No sockets, but how many there are.
    Heads(Heads),
    Ids(Vec<String>),
    Rooms(Vec<String>),
    /// What was said to a server-side emit: one value.
    Value(Option<Payload>),
    /// How many clients a broadcast went to.
    Clients(u64),
    /// The first argument of one client's acknowledgement.
    Ack(Option<Payload>),
    Done,
}

/// How many sockets a server has, and whose they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads {
    pub sockets: u64,
    /// Users by their numbers, each once.
    pub users: Vec<u64>,
}

/// A socket of another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    pub id: Box<str>,
    pub rooms: Vec<String>,
    /// A JSON object: headers, time, address, xdomain, secure, issued, url, query, auth.
    pub handshake: Box<str>,
    /// JSON; binary data as the application writes it.
    pub data: Box<str>,
}

/// What a server listens to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subscription {
    Channel(String),
    /// Of `PSUBSCRIBE`, escaped.
    Pattern(String),
    Shard(String),
}

/// How many servers there are, this one included: of how many the answer is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Census {
    /// `PUBSUB NUMSUB`; in a Redis cluster the sum of all nodes.
    Numsub(String),
    /// `PUBSUB SHARDNUMSUB`.
    ShardNumsub(String),
}

/// What goes to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parcel {
    Publish {
        channel: String,
        payload: Vec<u8>,
    },
    ShardPublish {
        channel: String,
        payload: Vec<u8>,
    },
    /// `XADD stream MAXLEN ~ length * FIELD VALUE …`; the answer is the entry's id, its offset.
    Append {
        stream: String,
        length: u64,
        fields: Vec<(&'static str, Vec<u8>)>,
    },
}

/// Where something came in, as its channel's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// For the whole namespace, or for several rooms of it.
    Namespace(&'a str),
    /// For one room: if nobody here is in it, what is in it need not be read.
    Room(&'a str, &'a str),
    Request(&'a str),
    /// Answers.
    Response(&'a str),
}

impl Place<'_> {
    pub fn namespace(&self) -> &str {
        match self {
            Self::Namespace(namespace)
            | Self::Room(namespace, _)
            | Self::Request(namespace)
            | Self::Response(namespace) => namespace,
        }
    }
}

impl Wire {
    /// All that a server listens to for a namespace, each exactly once in the whole process: who
    /// asks counts the subscriptions, and waits for as many answers.
    pub fn subscriptions(&self, namespace: &str) -> Vec<Subscription> {
        match &self.dialect {
            Dialect::Classic => classic::subscriptions(self, namespace),
            Dialect::Sharded(_) => sharded::subscriptions(self, namespace),
            Dialect::Streams(streams) => streams::subscriptions(self, streams, namespace),
        }
    }

    /// What is to be listened to as long as somebody here is in the room.
    pub fn room(&self, namespace: &str, room: &str) -> Option<Subscription> {
        let Dialect::Sharded(channels) = &self.dialect else { return None };
        sharded::room(self, *channels, namespace, room).map(Subscription::Shard)
    }

    pub fn census(&self, namespace: &str) -> Census {
        match &self.dialect {
            Dialect::Classic => classic::census(self, namespace),
            Dialect::Sharded(_) => sharded::census(self, namespace),
            Dialect::Streams(streams) => streams::census(self, streams, namespace),
        }
    }

    /// Streams to read, all of them.
    pub fn streams(&self) -> Vec<String> {
        match &self.dialect {
            Dialect::Streams(streams) => streams::names(streams),
            _ => Vec::new(),
        }
    }

    /// The one that a namespace's messages go to.
    pub fn stream(&self, namespace: &str) -> Option<String> {
        match &self.dialect {
            Dialect::Streams(words) => Some(streams::name(words, namespace)),
            _ => None,
        }
    }

    /// What a channel is for; `None` if it is none of ours.
    ///
    /// A namespace ends at the first `#`, so one with a `#` in its name gets nothing.
    pub fn place<'a>(&self, channel: &'a str) -> Option<Place<'a>> {
        match &self.dialect {
            Dialect::Classic => classic::place(self, channel),
            Dialect::Sharded(_) => sharded::place(self, channel),
            Dialect::Streams(_) => streams::place(self, channel),
        }
    }

    /// `None` if this dialect has no word for it, or if it cannot be said (see `msgpack::write`).
    pub fn write(&self, namespace: &str, matter: &Matter<Payload>) -> Option<Parcel> {
        match &self.dialect {
            Dialect::Classic => classic::write(self, namespace, matter),
            Dialect::Sharded(channels) => sharded::write(self, *channels, namespace, matter),
            Dialect::Streams(streams) => streams::write(self, streams, namespace, matter),
        }
    }

    /// What came over a channel.
    pub fn read(&self, place: Place<'_>, payload: &Bytes) -> Result<Telegram, Malformed> {
        match &self.dialect {
            Dialect::Classic => classic::read(place, payload),
            Dialect::Sharded(_) => sharded::read(place, payload),
            Dialect::Streams(_) => streams::read(place, payload),
        }
    }

    /// What came over a stream: an entry's fields and their values.
    pub fn read_entry(&self, fields: &[(Bytes, Bytes)]) -> Result<Telegram, Malformed> {
        match &self.dialect {
            Dialect::Streams(_) => streams::read_entry(fields),
            _ => Err(Malformed),
        }
    }

    /// The beginning of the names of most channels, and the name of one.
    fn channel(&self, namespace: &str) -> String {
        format!("{}#{namespace}#", self.prefix)
    }
}

/// A name for a server or a request, of random bytes, as long as Node's.
pub fn fresh_name(dialect: &Dialect, random: [u8; 8]) -> String {
    let hexadecimal = format!("{:016x}", u64::from_be_bytes(random));
    match dialect {
        Dialect::Classic => {
            let signs =
                random.iter().take(6).filter_map(|byte| ALPHABET.get(usize::from(byte % 64)));
            signs.map(|sign| char::from(*sign)).collect()
        }
        _ => hexadecimal,
    }
}

/// What stands between a `#` and the next one, which is what follows.
fn between(rest: &str) -> Option<(&str, &str)> {
    rest.strip_prefix('#')?.split_once('#')
}

impl Sealed {
    /// Reads the packet, whose parts share the memory of the message.
    ///
    /// `None` if it is for another namespace: channels of one may be mistaken for another's.
    pub fn open(&self, namespace: &str) -> Result<Option<Payload>, Malformed> {
        match self {
            Self::Json(text) => {
                let json = std::str::from_utf8(text).map_err(|_error| Malformed)?;
                fields::event(Raw::Json(json), namespace, text)
            }
            Self::Packed(data) => fields::event(Raw::Packed(data), namespace, data),
        }
    }
}

impl Payload {
    /// The first element of an array: of an acknowledgement's data, what Node passes on.
    pub fn first_of(array: &str, parts: &[Bytes]) -> Option<Self> {
        let mut first = None;
        let kept = Raw::Json(array).elements(|value| {
            if let (None, Raw::Json(text)) = (&first, value) {
                first = Some(Self { data: text.into(), parts: parts.to_vec() });
            }
            Ok(())
        });
        kept.ok().and(first)
    }
}
