//! Packets of `socket.io-msgpack-parser` ↔ the same as text and attachments; pure.
//!
//! Source: socket.io-msgpack-parser 3, with notepack.io 2.2 inside. Everything above sees only
//! texts, so what a rule, a room or a limit means does not depend on how a client writes.
//! On the way through, a Date becomes its ISO string and what is undefined becomes null or nothing,
//! as in JSON.

mod date;
mod decode;
pub mod encode;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;

use bytes::Bytes;

use super::packet::{Head, Kind, Malformed};
use super::{packet, placeholders};

pub use decode::Reader;

pub use super::packet::DEPTH_MAX;

/// Whether a client's first message is this parser's: a map, where JSON's is a text.
pub fn is_packet(data: &[u8]) -> bool {
    matches!(data.first(), Some(0x80..=0x8f | 0xde | 0xdf))
}

/// A client's packet as text and attachments.
pub fn read(data: &[u8]) -> Result<(String, Vec<Bytes>), Malformed> {
    let Fields { kind, namespace, id, json, parts } = Fields::read(data)?;
    // A comma would end the name early.
    let named = namespace.filter(|name| name.starts_with('/') && !name.contains(','));
    let (namespace, digit) = (named.ok_or(Malformed)?, kind.ok_or(Malformed)?);
    let mut text = String::with_capacity(namespace.len() + json.len() + 24);
    match (digit, parts.len()) {
        (0..=4, 0) => text.push(char::from(b'0' + digit)),
        (2 | 3, count) => {
            placeholders::check(&json, count)?;
            text.push(char::from(b'0' + digit + 3));
            text.push_str(itoa::Buffer::new().format(count));
            text.push('-');
        }
        _ => return Err(Malformed),
    }
    // Digits would be read as a part of the id.
    if json.is_empty() && matches!(digit, 2..=4)
        || json.starts_with(|sign: char| sign.is_ascii_digit())
    {
        return Err(Malformed);
    }
    text.push_str(namespace);
    text.push(',');
    if let Some(id) = id {
        text.push_str(itoa::Buffer::new().format(id));
    }
    text.push_str(&json);
    Ok((text, parts))
}

/// The values of a packet's map, in whatever order they came.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<u8>,
    namespace: Option<&'a str>,
    id: Option<u64>,
    json: String,
    parts: Vec<Bytes>,
}

impl<'a> Fields<'a> {
    fn read(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        let mut reader = Reader::new(data);
        for _ in 0..reader.map()? {
            match reader.text()? {
                "type" => {
                    fields.kind = Some(reader.unsigned()?.try_into().map_err(|_error| Malformed)?);
                }
                "nsp" => fields.namespace = Some(reader.text()?),
                // An id that is undefined is none; nil is not an id.
                "id" if reader.skip_undefined() => fields.id = None,
                "id" => fields.id = Some(reader.unsigned()?),
                "data" if reader.skip_undefined() => fields.json.clear(),
                "data" => (fields.json, fields.parts) = reader.json(DEPTH_MAX)?,
                // Clients add `options`, which are for themselves.
                _ => drop(reader.json(DEPTH_MAX)?),
            }
        }
        reader.end()?;
        Ok(fields)
    }
}

/// A packet to a client, from its text and attachments.
///
/// `None` if it cannot be said, because it is deeper than anybody's events are, or because one
/// attachment stands in it twice, where a text only names it.
pub fn write(text: &str, parts: &[Bytes]) -> Option<Vec<u8>> {
    let head = Head::parse(text).ok()?;
    let size = text.len() + parts.iter().map(Bytes::len).sum::<usize>();
    let mut packet = Vec::with_capacity(size + 32);
    // A field that is not there must be absent: clients refuse nil.
    let fields = 2 + u8::from(!head.data.is_empty()) + u8::from(head.ack.is_some());
    packet.push(0x80 | fields);
    encode::text(&mut packet, "type");
    packet.push(match head.kind {
        Kind::Connect => 0,
        Kind::Disconnect => 1,
        Kind::Event => 2,
        Kind::Ack => 3,
        Kind::ConnectError => 4,
    });
    if !head.data.is_empty() {
        encode::text(&mut packet, "data");
        encode::json(&mut packet, head.data, parts, DEPTH_MAX)?;
    }
    encode::text(&mut packet, "nsp");
    encode::text(&mut packet, head.namespace);
    if let Some(id) = head.ack {
        encode::text(&mut packet, "id");
        encode::unsigned(&mut packet, id);
    }
    Some(packet)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Bytes, text, attachments.
    type Written = (&'static [u8], &'static str, &'static [&'static [u8]]);

    /// What `socket.io-msgpack-parser` 3.0.2 has written, and what it comes to.
    const WRITTEN: [Written; 5] = [
        (b"\x83\xa4type\x00\xa4data\xd4\x00\x00\xa3nsp\xa1/", "0/,", &[]),
        (b"\x82\xa4type\x01\xa3nsp\xa1/", "1/,", &[]),
        (
            b"\x85\xa4type\x02\xa4data\x94\xa1a\xd7\x00\x00\x00\x01\x8b\xcf\xe5\x68\x7b\
              \xd4\x00\x00\x82\xa1u\xd4\x00\x00\xa1n\xc0\xa7options\x81\xa8compress\xc3\
              \xa3nsp\xa5/chat\xa2id\xcd\x01\x2c",
            r#"2/chat,300["a","2023-11-14T22:13:20.123Z",null,{"n":null}]"#,
            &[],
        ),
        (
            b"\x83\xa4type\x02\xa4data\x93\xa1b\xc4\x02\x01\x02\xc7\x01\x00\x03\xa3nsp\xa1/",
            r#"52-/,["b",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
            &[&[1, 2], &[3]],
        ),
        (
            b"\x84\xa4type\x03\xa4data\x9c\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\xff\xd0\xdf\
              \xd1\xff\x7f\xd2\xff\xff\x63\xc0\xd3\xff\xff\xff\xff\x4d\x2f\xa2\x00\xcc\xc8\
              \xcd\x9c\x40\xce\xb2\xd0\x5e\x00\xcf\x00\x00\x00\x01\x2a\x05\xf2\x00\xc3\xc2\
              \xa3nsp\xa1/\xa2id\x00",
            "3/,0[1.5,-1,-33,-129,-40000,-3000000000,200,40000,3000000000,5000000000,true,false]",
            &[],
        ),
    ];

    #[test]
    fn packets_of_the_stock_parser() {
        for (data, text, parts) in WRITTEN {
            let (read, attachments) = read(data).expect(text);
            assert_eq!(read, text);
            assert_eq!(attachments, parts);
        }
        // What holds neither an undefined field nor a Date nor an ArrayBuffer comes back as it was.
        for index in [1, 4] {
            let (data, text, _) = WRITTEN[index];
            assert_eq!(write(text, &[]).as_deref(), Some(data));
        }
    }

    #[test]
    fn packets_to_the_stock_parser() {
        let parts = [Bytes::from_static(&[7]), Bytes::from_static(&[8, 9])];
        for (text, parts, data) in [
            (
                r#"0{"sid":"x"}"#,
                &[][..],
                &b"\x83\xa4type\x00\xa4data\x81\xa3sid\xa1x\xa3nsp\xa1/"[..],
            ),
            ("1/chat,", &[], b"\x82\xa4type\x01\xa3nsp\xa5/chat"),
            (r#"31[]"#, &[], b"\x84\xa4type\x03\xa4data\x90\xa3nsp\xa1/\xa2id\x01"),
            (
                r#"52-["b", {"num":1,"_placeholder":true} ,[{"_placeholder":true,"num":0}]]"#,
                &parts,
                b"\x83\xa4type\x02\xa4data\x93\xa1b\xc4\x02\x08\x09\x91\xc4\x01\x07\xa3nsp\xa1/",
            ),
            // Without attachments it is an object like any other.
            (
                r#"2[{"_placeholder":true,"num":0}]"#,
                &[],
                b"\x83\xa4type\x02\xa4data\x91\x82\xac_placeholder\xc3\xa3num\x00\xa3nsp\xa1/",
            ),
        ] {
            let written = write(text, parts).expect(text);
            assert_eq!(written, data, "{text}");
        }
        for (text, parts) in [
            // Twice the same attachment, and one that is not there.
            (r#"51-[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#, &parts[..]),
            (r#"51-[{"_placeholder":true,"num":2}]"#, &parts),
            (r#"51-[{"_placeholder":true}]"#, &parts),
            ("2[1", &[]),
            ("2[1,]", &[]),
            ("2[\"a]", &[]),
            ("2[]x", &[]),
            ("2{\"a\"}", &[]),
            (&format!("2{}{}", "[".repeat(129), "]".repeat(129)), &[]),
        ] {
            assert_eq!(write(text, parts), None, "{text}");
        }
        let deep = format!("2{}{}", "[".repeat(128), "]".repeat(128));
        let deep = write(&deep, &[]).expect("just not too deep");
        assert!(read(&deep).is_ok());
    }

    #[test]
    fn as_many_attachments_as_a_packet_may_have() {
        let all: Vec<Bytes> = (0..=255u8).map(|byte| Bytes::from(vec![byte])).collect();
        for count in [16, 17, 64, 65, 128, 129, 256] {
            let parts = &all[..count];
            let place = |number| format!(r#"{{"_placeholder":true,"num":{number}}}"#);
            let places: Vec<_> = (0..count).map(place).collect();
            let text = format!("5{count}-/,[\"x\",{}]", places.join(","));
            let written = write(&text, parts).expect("written");
            assert_eq!(read(&written), Ok((text, parts.to_vec())));
            let twice = format!("5{count}-/,[\"x\",{},{}]", place(count - 1), place(count - 1));
            assert_eq!(write(&twice, parts), None, "{twice}");
        }
        // What is within one is nobody's, and may be named again.
        let inner = r#"51-/,["x",{"y":{"_placeholder":true,"num":0},"num":0,"_placeholder":true}]"#;
        assert!(write(inner, &all[..1]).is_some());
        let inner = r#"51-/,["x",{"y":{"_placeholder":true,"num":9},"num":0,"_placeholder":true}]"#;
        assert!(write(inner, &all[..1]).is_some());
        for number in ["-1", "1.0", "\"0\"", "203"] {
            let text = format!(r#"51-/,["x",{{"_placeholder":true,"num":{number}}}]"#);
            assert_eq!(write(&text, &all[..203]), None, "{text}");
        }
    }

    #[test]
    fn escapes_become_what_they_stand_for() {
        let text = r#"2["\ud83d\ude00\n\/\"\ud83dx\u00e9\ud83d\u0041\udc00"]"#;
        let (text, _) = read(&write(text, &[]).expect("written")).expect("read");
        let text = text.strip_prefix("2/,").expect("an event");
        let texts: Vec<String> = serde_json::from_str(text).expect("JSON");
        // Half of a pair is nothing that could be written.
        assert_eq!(texts, ["\u{1f600}\n/\"\u{fffd}x\u{e9}\u{fffd}A\u{fffd}"]);
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        let mut parts = b"\x83\xa4type\x02\xa4data\xdc\x01\x01".to_vec();
        (0..257).for_each(|_| parts.extend(b"\xc4\x00"));
        parts.extend(b"\xa3nsp\xa1/");
        let mut deep = b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data".to_vec();
        deep.extend([0x91; 129]);
        deep.push(0x90);
        for data in [
            &b""[..],
            b"\x80",
            b"\x90",
            b"\xa1/",
            b"\x81\xa4type\x00",
            b"\x82\xa4type\x05\xa3nsp\xa1/",
            b"\x82\xa4type\xff\xa3nsp\xa1/",
            b"\x82\xa4type\xa1\x30\xa3nsp\xa1/",
            b"\x82\xa4type\x00\xa3nsp\xa1a",
            b"\x82\xa4type\x00\xa3nsp\xa3/,0",
            b"\x82\xa4type\x00\xa3nsp\xa1\xff",
            b"\x82\xa4type\x00\xa3nsp\xa1/\x00",
            b"\x82\xa4type\x02\xa3nsp\xa1/",
            b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\xd4\x00\x00",
            // A number, with an id before it or without.
            b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x05",
            b"\x84\xa4type\x03\xa3nsp\xa1/\xa2id\x01\xa4data\x05",
            // Binary data in what cannot carry any.
            b"\x83\xa4type\x00\xa3nsp\xa1/\xa4data\x81\xa1a\xc4\x00",
            // Nil is neither an id nor a key.
            b"\x84\xa4type\x02\xa3nsp\xa1/\xa4data\x91\xa1a\xa2id\xc0",
            b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x92\xa1a\x81\xc0\x00",
            // A placeholder of its own making that names nothing.
            b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x93\xa1a\xc4\x00\x82\xac_placeholder\xc3\xa3num\x01",
            b"\xdf\xff\xff\xff\xff\xa4type\x00",
            b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\xdd\xff\xff\xff\xff",
            b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x91\xdb\xff\xff\xff\xff",
            b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x91\xc1",
            &parts,
            &deep,
        ] {
            assert_eq!(read(data), Err(Malformed), "{data:x?}");
        }
    }

    #[test]
    fn what_javascript_makes_of_strange_values() {
        for (value, json) in [
            (&b"\xca\x3f\xc0\x00\x00"[..], "1.5"),
            (b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", "null"),
            (b"\xcb\x40\x00\x00\x00\x00\x00\x00\x00", "2.0"),
            (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
            (b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", "-9223372036854775808"),
            (b"\xd7\x00\x7f\xff\xff\xff\xff\xff\xff\xff", "null"),
            (b"\x82\x05\x01\xe0\x02", r#"{"5":1,"-32":2}"#),
            (b"\x82\xa1a\xd4\x00\x00\xa1b\x01", r#"{"b":1}"#),
            (b"\xa4\x00\"\\\n", "\"\\u0000\\\"\\\\\\n\""),
            (b"\xd9\x01x", "\"x\""),
        ] {
            let data = [b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x91", value].concat();
            assert_eq!(read(&data).expect(json).0, format!("2/,[{json}]"));
        }
        let data = b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x91\xd6\xff\x01\x02\x03\x04";
        let (text, parts) = read(data).expect("a timestamp, which notepack does not know");
        assert_eq!(text, r#"51-/,[[-1,{"_placeholder":true,"num":0}]]"#);
        assert_eq!(parts, [&[1, 2, 3, 4][..]]);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            prop_oneof![-70_000i64..70_000, -5_000_000_000i64..5_000_000_000].prop_map(Value::from),
            any::<f64>()
                .prop_filter("JSON knows no other", |number| number.is_finite())
                .prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
            Just(Value::from("long ".repeat(60))),
        ];
        leaf.prop_recursive(4, 40, 20, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
                proptest::collection::btree_map(".{0,8}", inner, 0..20)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            value in values(),
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..40),
            id: Option<u64>,
        ) {
            let parts: Vec<Bytes> = parts.into_iter().map(Bytes::from).collect();
            let places: Vec<Value> = (0..parts.len())
                .map(|number| json!({ "_placeholder": true, "num": number })).collect();
            let data = json!(["name", value, places]).to_string();
            let kind = if parts.is_empty() { "2".to_owned() } else { format!("5{}-", parts.len()) };
            let id = id.map(|id| id.to_string()).unwrap_or_default();
            let packed = write(&format!("{kind}/a,{id}{data}"), &parts).expect("no deeper than it may be");
            prop_assert!(is_packet(&packed));
            let (text, attachments) = read(&packed).expect("a packet");
            let (head, json) = text.split_once('[').expect("an array");
            prop_assert_eq!(head, format!("{kind}/a,{id}"));
            let read: Value = serde_json::from_str(&format!("[{json}")).expect("JSON");
            let wanted: Value = serde_json::from_str(&data).expect("JSON");
            prop_assert_eq!(read, wanted);
            prop_assert_eq!(attachments, parts);
        }

        #[test]
        fn no_bytes_panic(mut data in proptest::collection::vec(any::<u8>(), 0..60), text in "\\PC{0,40}") {
            let _read = read(&data);
            let start = b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data";
            data.splice(0..0, start.iter().copied());
            if let Ok((text, parts)) = read(&data) {
                let json = text.strip_prefix("2/,").unwrap_or("null");
                prop_assert!(serde_json::from_str::<Value>(json).is_ok(), "{}", text);
                prop_assert!(write(&text, &parts).is_some() || text.contains("_placeholder"));
            }
            let _written = write(&text, &[]);
            let _written = write(&format!("2{text}"), &[]);
        }
    }
}
