//! Socket.IO packets ↔ texts and their attachments, protocol 5 and its forerunners; pure.
//!
//! Source: the Socket.IO protocol document, revision 5, and the checks of Node's socket.io-parser.
//! Arguments stay the JSON that the client wrote: what is passed on is not built again.

use std::borrow::Cow;
use std::iter::Skip;

use serde_json::Value;
use serde_json::value::RawValue;

use super::json::{self, Elements, Verdict};

/// The peer does not speak Socket.IO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
    ConnectError,
}

/// A packet whose data is not read yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'a> {
    pub kind: Kind,
    /// Binary messages that follow.
    pub attachments: usize,
    /// With its slash.
    pub namespace: &'a str,
    /// Asks for an acknowledgement, or is one.
    pub ack: Option<u64>,
    /// JSON, or nothing.
    pub data: &'a str,
}

/// Attachments of a packet that can be read at all; how many clients may send and are sent is
/// configured (CVE-2026-33151).
pub const ATTACHMENTS_MAX: usize = 256;

/// Levels of arrays and objects in one packet's data, its own array among them. The stock clients'
/// parsers look for attachments by calling themselves, and what deeper data do to them they do to
/// everybody in a room; nor can msgpack's say more.
pub const DEPTH_MAX: usize = 128;

/// Names that only the library itself may emit.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

pub fn is_reserved(event: &str) -> bool {
    RESERVED.contains(&event)
}

impl<'a> Head<'a> {
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let mut rest = text;
        let digit = take(&mut rest, 1)?;
        let (kind, binary) = match digit {
            "0" => (Kind::Connect, false),
            "1" => (Kind::Disconnect, false),
            "2" => (Kind::Event, false),
            "3" => (Kind::Ack, false),
            "4" => (Kind::ConnectError, false),
            "5" => (Kind::Event, true),
            "6" => (Kind::Ack, true),
            _ => return Err(Malformed),
        };
        let attachments = if binary { attachments(&mut rest)? } else { 0 };
        let namespace = if rest.starts_with('/') {
            let comma = rest.bytes().position(|byte| byte == b',').unwrap_or(rest.len());
            let namespace = take(&mut rest, comma)?;
            rest = rest.strip_prefix(',').unwrap_or_default();
            namespace
        } else {
            "/"
        };
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let ack = match take(&mut rest, digits)? {
            "" => None,
            digits => Some(digits.parse().map_err(|_error| Malformed)?),
        };
        Ok(Self { kind, attachments, namespace, ack, data: rest })
    }
}

fn attachments(rest: &mut &str) -> Result<usize, Malformed> {
    let (digits, after) = rest.split_once('-').ok_or(Malformed)?;
    *rest = after;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let count = digits.parse().ok().filter(|count| plain && (1..=ATTACHMENTS_MAX).contains(count));
    count.ok_or(Malformed)
}

fn take<'a>(rest: &mut &'a str, count: usize) -> Result<&'a str, Malformed> {
    let (taken, after) = rest.split_at_checked(count).ok_or(Malformed)?;
    *rest = after;
    Ok(taken)
}

/// An event: its name, and all of it as the client wrote it.
#[derive(Debug)]
pub struct Event<'a> {
    /// Half of a surrogate pair, which JavaScript has in its texts and we have not, is U+FFFD in it.
    pub name: Cow<'a, str>,
    /// The name as the client wrote it, which is how others are told.
    pub written: &'a str,
    /// An array that begins with the name.
    pub data: &'a str,
    /// It has more levels than `DEPTH_MAX`.
    pub is_deep: bool,
}

impl<'a> Event<'a> {
    /// From an array whose first element is the name.
    pub fn parse(data: &'a str) -> Result<Self, Malformed> {
        let is_deep = match json::check(data, DEPTH_MAX) {
            Verdict::Json => false,
            // Whatever is right is at least answered.
            Verdict::TooDeep if serde_json::from_str::<&RawValue>(data).is_ok() => true,
            Verdict::TooDeep | Verdict::Wrong => return Err(Malformed),
        };
        let first = json::elements(data).next().ok_or(Malformed)?;
        let name = if first.starts_with('"') {
            text(first).or_else(|| well_formed(first).map(Cow::Owned)).ok_or(Malformed)?
        } else {
            first.parse::<f64>().map_err(|_error| Malformed)?;
            Cow::Borrowed(first)
        };
        if is_reserved(&name) {
            return Err(Malformed);
        }
        Ok(Self { name, written: first, data: data.trim(), is_deep })
    }

    /// Its arguments, as they are written.
    pub fn args(&self) -> Skip<Elements<'a>> {
        json::elements(self.data).skip(1)
    }
}

/// A JSON string's text.
pub fn text(json: &str) -> Option<Cow<'_, str>> {
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(plain) if !plain.contains(['\\', '"']) => Some(Cow::Borrowed(plain)),
        _ => serde_json::from_str(json).ok().map(Cow::Owned),
    }
}

/// The same with U+FFFD for each half of a surrogate pair that stands alone, as JavaScript's
/// `toWellFormed` has it.
fn well_formed(json: &str) -> Option<String> {
    let (mut whole, mut rest) = (String::with_capacity(json.len()), json);
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        whole.push_str(plain);
        // Two are a pair, or one; what else is escaped has no half in it.
        let (length, said) = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => (12, escape.get(..12)?),
            (Some(0xd800..0xe000), _) => (6, "\u{fffd}"),
            (Some(_), _) => (6, escape.get(..6)?),
            (None, _) => (2, escape.get(..2)?),
        };
        whole.push_str(said);
        rest = escape.get(length..)?;
    }
    whole.push_str(rest);
    serde_json::from_str(&whole).ok()
}

/// The UTF-16 code unit that `json` begins with, escaped.
fn unit(json: &str) -> Option<u16> {
    let digits = json.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// CONNECT's and CONNECT_ERROR's data must be objects, DISCONNECT has none, an ACK's is an array; and
/// none is too deep.
pub fn check_data(head: &Head<'_>) -> Result<(), Malformed> {
    if head.data.is_empty() {
        return Ok(());
    }
    if json::check(head.data, DEPTH_MAX) != Verdict::Json {
        return Err(Malformed);
    }
    let json = head.data.trim_start();
    let right = match head.kind {
        Kind::Connect => json.starts_with('{'),
        Kind::Disconnect => false,
        Kind::Event | Kind::Ack => json.starts_with('['),
        Kind::ConnectError => json.starts_with(['{', '"']),
    };
    if right { Ok(()) } else { Err(Malformed) }
}

/// A packet's text, in pieces.
pub type Pieces<'a> = [&'a str; 5];

/// A packet; `kind` is its digit, and how many attachments it has.
fn pieces<'a>(kind: &'a str, namespace: &'a str, ack: &'a str, data: &'a str) -> Pieces<'a> {
    let (namespace, comma) = if namespace == "/" { ("", "") } else { (namespace, ",") };
    [kind, namespace, comma, ack, data]
}

fn packet(kind: &str, namespace: &str, ack: Option<u64>, data: &str) -> String {
    let mut digits = itoa::Buffer::new();
    let ack = ack.map_or("", |ack| digits.format(ack));
    pieces(kind, namespace, ack, data).concat()
}

pub fn connect(namespace: &str, data: &str) -> String {
    packet("0", namespace, None, data)
}

pub fn connect_error(namespace: &str, message: &str, data: Option<&Value>) -> String {
    let message = Value::from(message);
    let data = data.map(|data| format!(r#","data":{data}"#)).unwrap_or_default();
    packet("4", namespace, None, &format!(r#"{{"message":{message}{data}}}"#))
}

/// The same for clients of Socket.IO 2, to whom any value is an error.
pub fn error(namespace: &str, data: &Value) -> String {
    packet("4", namespace, None, &data.to_string())
}

pub fn disconnect(namespace: &str) -> String {
    packet("1", namespace, None, "")
}

/// An event to clients; `data` is an array that begins with the name.
pub fn event(namespace: &str, data: &str, attachments: usize) -> String {
    match attachments {
        0 => packet("2", namespace, None, data),
        count => packet(&format!("5{count}-"), namespace, None, data),
    }
}

/// The same for clients that are to acknowledge it.
pub fn question(namespace: &str, id: u64, data: &str, attachments: usize) -> String {
    match attachments {
        0 => packet("2", namespace, Some(id), data),
        count => packet(&format!("5{count}-"), namespace, Some(id), data),
    }
}

/// An answer to a client's event, without attachments; `data` is an array.
pub fn answer<'a>(
    digits: &'a mut Digits,
    namespace: &'a str,
    id: u64,
    data: &'a str,
) -> Pieces<'a> {
    pieces("3", namespace, digits.format(id), data)
}

/// Where the number of an answer is written.
pub type Digits = itoa::Buffer;

/// The same as one text, and with attachments.
pub fn ack(namespace: &str, id: u64, data: &str, attachments: usize) -> String {
    match attachments {
        0 => packet("3", namespace, Some(id), data),
        count => packet(&format!("6{count}-"), namespace, Some(id), data),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(
        kind: Kind,
        attachments: usize,
        namespace: &str,
        ack: Option<u64>,
        data: &str,
    ) -> String {
        format!("{:?}", Head { kind, attachments, namespace, ack, data })
    }

    #[test]
    fn the_examples_of_the_protocol_document() {
        for (text, wanted) in [
            ("0", head(Kind::Connect, 0, "/", None, "")),
            ("0/chat", head(Kind::Connect, 0, "/chat", None, "")),
            ("0/chat,{\"a\":1}", head(Kind::Connect, 0, "/chat", None, "{\"a\":1}")),
            ("1/chat,", head(Kind::Disconnect, 0, "/chat", None, "")),
            ("2[\"hello\",1]", head(Kind::Event, 0, "/", None, "[\"hello\",1]")),
            ("2/chat,12[\"q\"]", head(Kind::Event, 0, "/chat", Some(12), "[\"q\"]")),
            ("312[\"ok\"]", head(Kind::Ack, 0, "/", Some(12), "[\"ok\"]")),
            ("52-[\"x\"]", head(Kind::Event, 2, "/", None, "[\"x\"]")),
            ("61-7[1]", head(Kind::Ack, 1, "/", Some(7), "[1]")),
        ] {
            assert_eq!(format!("{:?}", Head::parse(text).expect(text)), wanted, "{text}");
        }
    }

    #[test]
    fn what_node_refuses_is_refused() {
        for text in [
            "",
            "7",
            "a",
            "5[\"x\"]",
            "50-[\"x\"]",
            "5257-[\"x\"]",
            "5-1-[\"x\"]",
            "51.5-[]",
            "5+1-[]",
        ] {
            assert_eq!(Head::parse(text).err(), Some(Malformed), "{text}");
        }
        for data in [
            "{}",
            "[]",
            "[{}]",
            "[null]",
            "[\"connect\"]",
            "[\"disconnect\"]",
            "[\"a\"",
            "[\"a\",]",
            "x",
        ] {
            assert!(Event::parse(data).is_err(), "{data}");
        }
        let deep = format!("3{}{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
        for text in ["0\"a\"", "0[]", "1{}", "3{}", "4[]", "2{", &deep] {
            let head = Head::parse(text).expect(text);
            assert_eq!(check_data(&head), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn events_keep_what_was_written() {
        let event = Event::parse("[\"a\\u00e9\", {\"b\": 1} ,2.50]").expect("an event");
        assert_eq!(event.name, "a\u{e9}");
        assert_eq!(event.args().collect::<Vec<_>>(), ["{\"b\": 1}", "2.50"]);
        assert_eq!(Event::parse("[7,\"x\"]").expect("a number is a name").name, "7");
    }

    #[test]
    fn names_that_only_javascript_holds_are_names() {
        for (written, name) in [
            (r#""\ud800""#, "\u{fffd}"),
            (r#""a\uDC00b""#, "a\u{fffd}b"),
            (r#""\ud83d\ude00\ud83d""#, "\u{1f600}\u{fffd}"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\\ud800\ud800\"\n\u00e9""#, "\\ud800\u{fffd}\"\n\u{e9}"),
            (r#""\ud800é\\""#, "\u{fffd}é\\"),
        ] {
            let data = format!("[{written},1]");
            let event = Event::parse(&data).expect(written);
            assert_eq!((event.name.as_ref(), event.written), (name, written));
        }
        for name in [r#""\ud80""#, r#""\ud8""#, r#""\ud800"#, r#""\ud800\x""#, "\"\\ud800\n\""] {
            assert!(Event::parse(&format!("[{name}]")).is_err(), "{name}");
        }
        // No way around what nobody may send.
        assert!(Event::parse(r#"["conn\u0065ct"]"#).is_err());
    }

    #[test]
    fn packets_are_written_as_node_writes_them() {
        assert_eq!(connect("/", r#"{"sid":"x"}"#), r#"0{"sid":"x"}"#);
        assert_eq!(connect_error("/no", "bad \"x\"", None), r#"4/no,{"message":"bad \"x\""}"#);
        assert_eq!(disconnect("/chat"), "1/chat,");
        assert_eq!(event("/chat", "[\"x\"]", 0), "2/chat,[\"x\"]");
        assert_eq!(event("/", "[\"x\"]", 2), "52-[\"x\"]");
        assert_eq!(ack("/", 0, "[]", 0), "30[]");
        assert_eq!(ack("/c", 7, "[1]", 1), "61-/c,7[1]");
        for namespace in ["/", "/c"] {
            let pieces = answer(&mut Digits::new(), namespace, u64::MAX, "[]").concat();
            assert_eq!(pieces, ack(namespace, u64::MAX, "[]", 0));
        }
    }

    proptest! {
        /// Of any sixteen-bit units, as JavaScript has them, the name is what Unicode makes of them.
        #[test]
        fn any_text_of_javascript_is_a_name(
            units in prop::collection::vec(prop_oneof![0xd7f0u16..0xe010, 0u16..0x80, any::<u16>()], 0..12),
            escaped in prop::collection::vec(any::<bool>(), 12),
        ) {
            let mut written = String::from("[\"");
            let whole = char::decode_utf16(units.iter().copied());
            let mut name = String::new();
            for (one, escaped) in whole.zip(escaped) {
                match one {
                    Ok(one) if !escaped && one >= ' ' && !['"', '\\'].contains(&one) => written.push(one),
                    Ok(one) => {
                        let units = &mut [0; 2];
                        for unit in one.encode_utf16(units) {
                            written.push_str(&format!("\\u{unit:04x}"));
                        }
                    }
                    Err(ref half) => {
                        written.push_str(&format!("\\u{:04X}", half.unpaired_surrogate()));
                    }
                }
                name.push(one.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            written.push_str("\"]");
            let event = Event::parse(&written).expect("an event");
            prop_assert_eq!(event.name.as_ref(), name);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}|[0-6]{0,2}[0-9]{0,3}-?(/[a-z]{0,3},?)?[0-9]{0,3}\\[?\"?[a-z]{0,3}\"?\\]?") {
            if let Ok(head) = Head::parse(&text) {
                let _checked = check_data(&head);
                let _event = Event::parse(head.data);
            }
        }
    }
}
