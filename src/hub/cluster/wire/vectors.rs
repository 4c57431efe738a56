//! What Node's packages have written (tests/vectors, by tests/node/vectors.mjs) is read as it was
//! meant, and said by us in the same bytes.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;

const FILE: &str = include_str!("../../../../tests/vectors/cluster.json");

fn file() -> Value {
    serde_json::from_str(FILE).expect("JSON")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn names(value: &Value) -> Vec<String> {
    value.as_array().expect("a list").iter().map(text).collect()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let digits = hex.as_str().expect("a text").as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.map(|pair| byte(pair).expect("two digits")).collect()
}

fn wire(dialect: &str, uid: &str) -> Wire {
    let dialect = match dialect {
        "classic" => Dialect::Classic,
        "sharded static" => Dialect::Sharded(RoomChannels::None),
        "sharded dynamic" => Dialect::Sharded(RoomChannels::Public),
        "sharded dynamic-private" => Dialect::Sharded(RoomChannels::All),
        "streams" => {
            let name = "socket.io".to_owned();
            Dialect::Streams(Streams { name, count: 1, length: 10_000, sharded: false })
        }
        other => panic!("{other}"),
    };
    Wire { dialect, prefix: "socket.io".to_owned(), uid: uid.to_owned() }
}

fn payload(matter: &Value) -> Option<Payload> {
    let data = matter["data"].as_str()?.into();
    let parts = matter["parts"].as_array().expect("a list").iter();
    Some(Payload { data, parts: parts.map(|part| Bytes::from(bytes(part))).collect() })
}

fn flags(value: &Value) -> Flags {
    Flags {
        volatile: value["volatile"] == true,
        compress: value["compress"].as_bool(),
        timeout: value["timeout"].as_u64(),
    }
}

fn remote(value: &Value) -> Remote {
    Remote {
        id: text(&value["id"]).into(),
        rooms: names(&value["rooms"]),
        handshake: text(&value["handshake"]).into(),
        data: text(&value["data"]).into(),
    }
}

fn answer(matter: &Value) -> Answer {
    match matter["answer"].as_str().expect("a kind") {
        "sockets" => {
            let sockets = matter["sockets"].as_array().expect("a list");
            Answer::Sockets(sockets.iter().map(remote).collect())
        }
        "ids" => Answer::Ids(names(&matter["ids"])),
        "rooms" => Answer::Rooms(names(&matter["rooms"])),
        "value" => Answer::Value(payload(matter)),
        "clients" => Answer::Clients(matter["count"].as_u64().expect("a number")),
        "ack" => Answer::Ack(payload(matter)),
        "done" => Answer::Done,
        other => panic!("{other}"),
    }
}

fn matter(matter: &Value) -> Matter<Payload> {
    let list = |name: &str| matter.get(name).map(names).unwrap_or_default();
    let request: Option<Box<str>> = matter["request"].as_str().map(Into::into);
    let asked = || request.clone().expect("a request");
    let audience = Audience { rooms: list("rooms"), except: list("except") };
    match matter["kind"].as_str().expect("a kind") {
        "broadcast" => {
            let (flags, packet) = (flags(&matter["flags"]), payload(matter).expect("a packet"));
            Matter::Broadcast(Broadcast { audience, flags, request, packet })
        }
        "join" => Matter::Join { audience, rooms: list("names"), request },
        "leave" => Matter::Leave { audience, rooms: list("names"), request },
        "disconnect" => Matter::Disconnect { audience, close: matter["close"] == true, request },
        "fetch" => Matter::Fetch { audience, request: asked(), counts: false },
        "rooms" => Matter::Rooms { request: asked() },
        "serverSideEmit" => {
            Matter::ServerSideEmit { payload: payload(matter).expect("an event"), request }
        }
        "answer" => {
            let to = text(&matter["to"]).into();
            Matter::Answer { to, request: asked(), answer: answer(matter) }
        }
        other => panic!("{other}"),
    }
}

fn parcel(wire: &Value) -> Parcel {
    let channel = || text(&wire["channel"]);
    match wire["how"].as_str().expect("a way") {
        "publish" => Parcel::Publish { channel: channel(), payload: bytes(&wire["payload"]) },
        "shard" => Parcel::ShardPublish { channel: channel(), payload: bytes(&wire["payload"]) },
        "append" => {
            let field = |pair: &Value| {
                let names = ["uid", "nsp", "type", "data"].into_iter();
                let name = names.into_iter().find(|name| pair[0] == *name).expect("a field");
                (name, text(&pair[1]).into_bytes())
            };
            let fields = wire["fields"].as_array().expect("a list").iter().map(field).collect();
            let length = wire["length"].as_u64().expect("a number");
            Parcel::Append { stream: text(&wire["stream"]), length, fields }
        }
        other => panic!("{other}"),
    }
}

/// As whoever it is for reads it.
pub fn read(wire: &Wire, parcel: &Parcel, to: &str) -> Result<Telegram, Malformed> {
    match parcel {
        Parcel::Publish { channel, payload } | Parcel::ShardPublish { channel, payload } => {
            let reader = Wire { uid: to.to_owned(), ..wire.clone() };
            let place = reader.place(channel).expect("one of ours");
            reader.read(place, &Bytes::copy_from_slice(payload))
        }
        Parcel::Append { fields, .. } => {
            let fields = fields.iter().map(|(name, value)| {
                (Bytes::from_static(name.as_bytes()), Bytes::copy_from_slice(value))
            });
            wire.read_entry(&fields.collect::<Vec<_>>())
        }
    }
}

/// With its packet read, and who an answer is to, which only its channel says.
pub fn opened(telegram: Telegram, to: &str) -> Matter<Payload> {
    match telegram.matter {
        Matter::Broadcast(Broadcast { audience, flags, request, packet }) => {
            let packet = packet.open(&telegram.namespace).expect("a packet").expect("ours");
            Matter::Broadcast(Broadcast { audience, flags, request, packet })
        }
        Matter::Answer { request, answer, .. } => Matter::Answer { to: to.into(), request, answer },
        Matter::Join { audience, rooms, request } => Matter::Join { audience, rooms, request },
        Matter::Leave { audience, rooms, request } => Matter::Leave { audience, rooms, request },
        Matter::Disconnect { audience, close, request } => {
            Matter::Disconnect { audience, close, request }
        }
        Matter::Fetch { audience, request, counts } => Matter::Fetch { audience, request, counts },
        Matter::Ids { audience, request } => Matter::Ids { audience, request },
        Matter::Rooms { request } => Matter::Rooms { request },
        Matter::ServerSideEmit { payload, request } => Matter::ServerSideEmit { payload, request },
        Matter::Nothing => Matter::Nothing,
    }
}

/// As text, since bytes of hundreds of kilobytes are no help.
fn shown(parcel: &Parcel) -> String {
    match parcel {
        Parcel::Publish { channel, payload } | Parcel::ShardPublish { channel, payload } => {
            format!("{channel} {}", payload.escape_ascii())
        }
        Parcel::Append { stream, length, fields } => {
            let fields =
                fields.iter().map(|(name, value)| format!("{name}={}", value.escape_ascii()));
            format!("{stream} {length} {}", fields.collect::<Vec<_>>().join(" "))
        }
    }
}

#[test]
fn what_node_says_is_read_and_said_again() {
    let file = file();
    let vectors = file["vectors"].as_array().expect("a list");
    assert!(vectors.len() > 150, "{} vectors", vectors.len());
    let (mut wrong, mut exact) = (Vec::new(), 0);
    for vector in vectors.iter().filter(|vector| vector["dialect"] != "session") {
        let name = text(&vector["name"]);
        let from = vector["from"].as_str();
        let wire = wire(&text(&vector["dialect"]), from.unwrap_or("AbCdEf"));
        let (parcel, wanted) = (parcel(&vector["wire"]), matter(&vector["matter"]));
        let to = vector["matter"]["to"].as_str().unwrap_or_default();
        let telegram = match read(&wire, &parcel, to) {
            Ok(telegram) => telegram,
            Err(Malformed) => {
                wrong.push(format!("{name}: unread {}", shown(&parcel)));
                continue;
            }
        };
        assert_eq!(telegram.from.as_deref(), from, "{name}");
        assert_eq!(*telegram.namespace, text(&vector["namespace"]), "{name}");
        let meant = opened(telegram, to);
        if meant != wanted {
            wrong.push(format!("{name}: read\n{meant:?}\nwanted\n{wanted:?}"));
        }
        let said = wire.write(&text(&vector["namespace"]), &wanted).expect("a word for it");
        if vector["exact"] == true {
            exact += 1;
            if said != parcel {
                wrong.push(format!("{name}: said\n{}\nwanted\n{}", shown(&said), shown(&parcel)));
            }
        } else if vector["from"] != "emitter" {
            let again = read(&wire, &said, to).map(|telegram| opened(telegram, to));
            assert_eq!(again.as_ref(), Ok(&wanted), "{name}");
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
    assert!(exact > 100, "{exact} in the same bytes");
}

#[test]
fn sessions_are_kept_as_node_keeps_them() {
    let file = file();
    let mut vectors = file["vectors"].as_array().expect("a list").iter();
    let vector = vectors.find(|vector| vector["dialect"] == "session").expect("one");
    let stored = text(&vector["wire"]["value"]);
    let (session, matter) = (Session::read(stored.as_bytes()).expect("read"), &vector["matter"]);
    let wanted = Session {
        id: text(&matter["sid"]).into(),
        pid: text(&matter["pid"]).into(),
        rooms: names(&matter["rooms"]),
        data: text(&matter["data"]).into(),
        ..Session::default()
    };
    assert_eq!(session, wanted);
    assert_eq!(session.write(), Some(stored));
    for stored in ["", "!", "gA==", "kA=="] {
        assert_eq!(Session::read(stored.as_bytes()), Err(Malformed), "{stored}");
    }
}

#[test]
fn node_listens_where_we_listen_and_counts_what_we_count() {
    for (dialect, heard) in file()["listened"].as_object().expect("an object") {
        let wire = wire(dialect, &text(&heard["uid"]));
        let subscriptions: HashSet<_> = wire.subscriptions("/chat").into_iter().collect();
        let wanted = heard["heard"].as_array().expect("a list").iter().map(|name| {
            match name.as_object().and_then(|name| name.iter().next()).expect("one") {
                (kind, name) if kind == "pattern" => Subscription::Pattern(text(name)),
                (kind, name) if kind == "shard" => Subscription::Shard(text(name)),
                (_, name) => Subscription::Channel(text(name)),
            }
        });
        assert_eq!(subscriptions, wanted.collect(), "{dialect}");
        let census = match wire.census("/") {
            Census::Numsub(channel) => json!({ "NUMSUB": channel }),
            Census::ShardNumsub(channel) => json!({ "SHARDNUMSUB": channel }),
        };
        assert_eq!(census, heard["counted"], "{dialect}");
    }
}
