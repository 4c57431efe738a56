//! What we say we read again, in every dialect; what nobody would say harms nothing.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::vectors::{opened, read};
use super::*;

fn dialects() -> [Dialect; 4] {
    let streams = |count, sharded| {
        let name = "s".to_owned();
        Dialect::Streams(Streams { name, count, length: 9, sharded })
    };
    [Dialect::Classic, Dialect::Sharded(RoomChannels::All), streams(1, false), streams(4, true)]
}

fn wire(dialect: Dialect) -> Wire {
    let uid = fresh_name(&dialect, *b"\x00\x3f\x7f\xffabcd");
    Wire { dialect, prefix: "p".to_owned(), uid }
}

fn names() -> impl Strategy<Value = Vec<String>> {
    vec("[a-z#:é]{0,12}", 0..4)
}

fn payload(array: bool) -> impl Strategy<Value = Payload> {
    let word = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        vec(any::<bool>(), 0..3).prop_map(|list| json!({ "a": list })),
    ];
    (word, vec(vec(any::<u8>(), 0..40), 0..4)).prop_map(move |(word, parts)| {
        let place = |number| json!({ "_placeholder": true, "num": number });
        let places: Vec<Value> = (0..parts.len()).map(place).collect();
        let value = if array { json!(["name", word, places]) } else { json!([word, places]) };
        let parts = parts.into_iter().map(Bytes::from).collect();
        Payload { data: value.to_string().into(), parts }
    })
}

fn flags() -> impl Strategy<Value = Flags> {
    let any = any::<(bool, Option<bool>, Option<u64>)>();
    any.prop_map(|(volatile, compress, timeout)| Flags { volatile, compress, timeout })
}

fn remote() -> impl Strategy<Value = Remote> {
    ("[a-z]{20}", names(), ".{0,8}").prop_map(|(id, rooms, word)| Remote {
        id: id.into(),
        rooms,
        handshake: json!({ "headers": { "x": word } }).to_string().into(),
        data: json!({ "user": word }).to_string().into(),
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    let value = || proptest::option::of(payload(false));
    prop_oneof![
        vec(remote(), 0..3).prop_map(Answer::Sockets),
        (any::<u64>(), vec(any::<u64>(), 0..4))
            .prop_map(|(sockets, users)| Answer::Heads(Heads { sockets, users })),
        value().prop_map(Answer::Value),
        any::<u64>().prop_map(Answer::Clients),
        value().prop_map(Answer::Ack),
    ]
}

fn matter() -> impl Strategy<Value = Matter<Payload>> {
    let audience = || (names(), names()).prop_map(|(rooms, except)| Audience { rooms, except });
    let name = || "[A-Za-z0-9_-]{6,16}".prop_map(Box::<str>::from);
    let request = || proptest::option::of(name());
    prop_oneof![
        (audience(), flags(), request(), payload(true)).prop_map(
            |(audience, flags, request, packet)| {
                Matter::Broadcast(Broadcast { audience, flags, request, packet })
            }
        ),
        (audience(), names()).prop_map(|(audience, rooms)| Matter::Join {
            audience,
            rooms,
            request: None
        }),
        (audience(), names()).prop_map(|(audience, rooms)| Matter::Leave {
            audience,
            rooms,
            request: None
        }),
        (audience(), any::<bool>()).prop_map(|(audience, close)| Matter::Disconnect {
            audience,
            close,
            request: None
        }),
        (audience(), name(), any::<bool>()).prop_map(|(audience, request, counts)| {
            Matter::Fetch { audience, request, counts }
        }),
        (payload(true), request())
            .prop_map(|(payload, request)| Matter::ServerSideEmit { payload, request }),
        (name(), name(), answer()).prop_map(|(to, request, answer)| Matter::Answer {
            to,
            request,
            answer
        }),
    ]
}

/// What the classic dialect cannot say: binary in JSON becomes what Node makes of it.
fn is_flattened(dialect: &Dialect, matter: &Matter<Payload>) -> bool {
    let payload = match matter {
        Matter::ServerSideEmit { payload, .. } => Some(payload),
        Matter::Answer { answer: Answer::Value(payload), .. } => payload.as_ref(),
        _ => None,
    };
    *dialect == Dialect::Classic && payload.is_some_and(|payload| !payload.parts.is_empty())
}

proptest! {
    #[test]
    fn what_is_said_is_read(matter in matter(), namespace in "/[a-z/]{0,8}") {
        for dialect in dialects() {
            let wire = wire(dialect);
            let parcel = wire.write(&namespace, &matter).expect("a word for it");
            let to = match &matter {
                Matter::Answer { to, .. } => to.clone(),
                _ => "another".into(),
            };
            let telegram = read(&wire, &parcel, &to).expect("read");
            prop_assert_eq!(&*telegram.namespace, &*namespace);
            let anonymous = wire.dialect == Dialect::Classic && matches!(matter, Matter::Answer { .. });
            prop_assert_eq!(telegram.from.as_deref(), (!anonymous).then_some(&*wire.uid));
            let read = opened(telegram, &to);
            if is_flattened(&wire.dialect, &matter) {
                let text = format!("{read:?}");
                prop_assert!(text.contains("Buffer"), "{}", text);
            } else {
                prop_assert_eq!(&read, &matter);
            }
        }
    }

    #[test]
    fn no_bytes_harm(mut data in vec(any::<u8>(), 0..60), at in any::<usize>(), matter in matter()) {
        for dialect in dialects() {
            let wire = wire(dialect);
            // Bytes of nobody, and bytes that were right but for one.
            taken(&wire, &data);
            let parcel = wire.write("/", &matter).expect("a word for it");
            let right = match parcel {
                Parcel::Publish { payload, .. } | Parcel::ShardPublish { payload, .. } => payload,
                Parcel::Append { fields, .. } => fields.into_iter().last().expect("fields").1,
            };
            data = right;
            let place = at % data.len().max(1);
            if let Some(byte) = data.get_mut(place) {
                *byte = at.to_be_bytes()[0];
            }
            taken(&wire, &data);
        }
    }

    #[test]
    fn no_channel_panics(channel in "p?(-request|-response)?[#/a-z]{0,12}") {
        for dialect in dialects() {
            let _place = wire(dialect).place(&channel);
        }
    }
}

/// Reads it every way; an answer is as good as a refusal.
fn taken(wire: &Wire, data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let places =
        [Place::Namespace("/"), Place::Room("/", "a"), Place::Request("/"), Place::Response("/")];
    let mut telegrams: Vec<_> = places.into_iter().map(|place| wire.read(place, &data)).collect();
    for kind in ["3", "9", "12", "x"] {
        let field = |name: &'static str, value: &'static str| (name.into(), value.into());
        let entry = [field("nsp", "/"), field("type", kind), ("data".into(), data.clone())];
        telegrams.push(wire.read_entry(&entry));
    }
    for telegram in telegrams.into_iter().flatten() {
        if let Matter::Broadcast(broadcast) = telegram.matter {
            let _payload = broadcast.packet.open(&telegram.namespace);
        }
    }
    let _session = Session::read(&data);
}

/// Of a request to the classic dialect.
fn asked(request: &Value) -> Result<Matter<Payload>, Malformed> {
    let payload = Bytes::from(request.to_string());
    let telegram = wire(Dialect::Classic).read(Place::Request("/"), &payload)?;
    Ok(opened(telegram, ""))
}

#[test]
fn servers_of_long_ago_are_understood() {
    let of = |socket: &str| Audience { rooms: vec![socket.to_owned()], except: Vec::new() };
    for (request, wanted) in [
        (
            json!({ "type": 0, "requestId": "q", "rooms": ["a", 7] }),
            Matter::Ids {
                audience: Audience { rooms: vec!["a".into(), "7".into()], except: Vec::new() },
                request: "q".into(),
            },
        ),
        (
            json!({ "type": 2, "requestId": "q", "sid": "s", "room": "a" }),
            Matter::Join { audience: of("s"), rooms: vec!["a".into()], request: Some("q".into()) },
        ),
        (
            json!({ "type": 3, "requestId": "q", "sid": "s", "room": "a" }),
            Matter::Leave { audience: of("s"), rooms: vec!["a".into()], request: Some("q".into()) },
        ),
        (
            json!({ "type": 4, "requestId": "q", "sid": "s", "close": true }),
            Matter::Disconnect { audience: of("s"), close: true, request: Some("q".into()) },
        ),
        (json!({ "type": 1, "uid": "u", "requestId": "q" }), Matter::Rooms { request: "q".into() }),
        (json!({ "type": 99 }), Matter::Nothing),
    ] {
        assert_eq!(asked(&request), Ok(wanted), "{request}");
    }
    for request in [
        json!({}),
        json!({ "type": "2" }),
        // An answer that nobody could match.
        json!({ "type": 5, "opts": { "rooms": [], "except": [] } }),
        json!({ "type": 2, "rooms": ["a"] }),
        json!({ "type": 2, "opts": { "rooms": "a" }, "rooms": ["a"] }),
        json!({ "type": 2, "opts": { "rooms": [null] }, "rooms": ["a"] }),
        json!({ "type": 6 }),
    ] {
        assert_eq!(asked(&request), Err(Malformed), "{request}");
    }
    let beats = [("nsp", "/"), ("uid", "u"), ("type", "2")];
    let beats = beats.map(|(name, value)| (Bytes::from(name), Bytes::from(value)));
    let telegram = wire(dialects()[2].clone()).read_entry(&beats).expect("a heartbeat");
    assert_eq!(telegram.matter, Matter::Nothing);
}

#[test]
fn an_event_for_another_namespace_or_of_a_reserved_name_is_none() {
    let open = |packet: Value| {
        let json = Bytes::from(packet.to_string());
        Sealed::Json(json).open("/a")
    };
    let packet = |kind: u8, data: Value, namespace: &str| json!({ "type": kind, "data": data, "nsp": namespace });
    assert_eq!(open(packet(2, json!(["x"]), "/b")), Ok(None));
    for packet in [
        packet(2, json!(["disconnect"]), "/a"),
        packet(2, json!([]), "/a"),
        packet(2, json!({}), "/a"),
        packet(3, json!(["x"]), "/a"),
        json!({ "type": 2, "nsp": "/a" }),
        json!([]),
    ] {
        assert_eq!(open(packet.clone()), Err(Malformed), "{packet}");
    }
    for kind in [2, 5] {
        let payload = open(packet(kind, json!(["x"]), "/a")).expect("an event").expect("ours");
        assert_eq!(&*payload.data, r#"["x"]"#);
    }
}

#[test]
fn lengths_that_are_not_there_and_depths_are_refused() {
    let wire = wire(Dialect::Classic);
    let deep = [b"\x93\xa1u".to_vec(), vec![0x91; 100_000], vec![0x90, 0x80]].concat();
    let telegram = wire.read(Place::Namespace("/"), &Bytes::from(deep)).expect("not looked into");
    let Matter::Broadcast(broadcast) = telegram.matter else { panic!("a broadcast") };
    assert_eq!(broadcast.packet.open("/"), Err(Malformed));
    for data in [
        &b"\x93\xa1u\xdd\xff\xff\xff\xff"[..],
        b"\x93\xa1u\xdf\xff\xff\xff\xff",
        b"\x93\xa1u\xc6\xff\xff\xff\xff",
        b"\x93\xa1u\x80\x81\xa5rooms\xdd\xff\xff\xff\xff",
        b"\x93\xa1u\x80\x80\x00",
        b"\x91\xa1u",
        b"\x93\xc0\x80\x80",
        b"",
    ] {
        let read = wire.read(Place::Namespace("/"), &Bytes::from_static(data));
        assert_eq!(read, Err(Malformed), "{data:x?}");
    }
}

#[test]
fn namespaces_are_spread_over_streams_as_node_does() {
    let Dialect::Streams(four) = &dialects()[3] else { panic!("streams") };
    for (namespace, number) in
        [("/", 3), ("/admin", 0), ("/chat", 3), ("/foo", 3), ("/users", 1), ("/notifications", -3)]
    {
        let name = streams::name(four, namespace);
        assert_eq!(name, format!("s-{number}"));
        assert!(streams::names(four).contains(&name));
    }
    assert_eq!(streams::names(four).len(), 7);
}

#[test]
fn channels_have_places() {
    for (dialect, channel, place) in [
        (Dialect::Classic, "p#/#", Some(Place::Namespace("/"))),
        (Dialect::Classic, "p#/a#b#", Some(Place::Room("/a", "b"))),
        (Dialect::Classic, "p#/#b#c#", Some(Place::Room("/", "b#c"))),
        (Dialect::Classic, "p-request#/a#", Some(Place::Request("/a"))),
        (Dialect::Classic, "p-response#/a#", Some(Place::Response("/a"))),
        (Dialect::Classic, "p-response#/a#abcdef#", Some(Place::Response("/a"))),
        (Dialect::Classic, "pp#/#", None),
        (Dialect::Classic, "q#/#", None),
        (dialects()[1].clone(), "p#/#", Some(Place::Namespace("/"))),
        (dialects()[1].clone(), "p#/#003f7fff61626364#", Some(Place::Response("/"))),
        (dialects()[1].clone(), "p#/#b#", Some(Place::Room("/", "b"))),
        (dialects()[2].clone(), "p#/#", Some(Place::Request("/"))),
        (dialects()[2].clone(), "p#/#003f7fff61626364#", Some(Place::Response("/"))),
        (dialects()[2].clone(), "p#/#b#", None),
    ] {
        assert_eq!(wire(dialect).place(channel), place, "{channel}");
    }
    let odd = Wire { prefix: "a*b".to_owned(), ..wire(Dialect::Classic) };
    let pattern = Subscription::Pattern(r"a\*b#/\[x\]\?#*".to_owned());
    assert_eq!(odd.subscriptions("/[x]?").first(), Some(&pattern));
}
