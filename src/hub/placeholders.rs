//! Placeholders of attachments, in JSON that has been read before; pure.
//!
//! Found in the text as it stands: what JavaScript writes and our numbers and texts do not hold
//! (half a surrogate pair, 1e999, any depth) is passed on beside an attachment as it is without.

use std::ops::Range;

use memchr::memchr3;
use serde_json::value::RawValue;

use super::json::{expect, is_called, past_string};
use super::packet::Malformed;

/// An object whose `_placeholder` is true.
#[derive(Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// Where it stands.
    pub at: Range<usize>,
    /// The attachment that it names; `None` if that is none that there may be.
    pub number: Option<u8>,
}

/// An object that has not ended.
struct Open {
    at: usize,
    /// How many were found before it.
    before: usize,
    is_placeholder: bool,
    number: Option<u8>,
}

/// All of them, in their order. What is within one is not looked at, as clients do not.
///
/// `json` is right JSON; in anything else some may be found or none. The work grows with its length
/// alone.
pub fn find(json: &str) -> Vec<Placeholder> {
    let bytes = json.as_bytes();
    let (mut open, mut found) = (Vec::<Open>::new(), Vec::new());
    let mut at = 0;
    while let Some(next) = bytes.get(at..).and_then(|rest| memchr3(b'"', b'{', b'}', rest)) {
        at += next;
        match bytes.get(at) {
            Some(b'{') => {
                let before = found.len();
                open.push(Open { at, before, is_placeholder: false, number: None });
                at += 1;
            }
            Some(b'}') => {
                at += 1;
                if let Some(object) = open.pop().filter(|object| object.is_placeholder) {
                    found.truncate(object.before);
                    found.push(Placeholder { at: object.at..at, number: object.number });
                }
            }
            _ => {
                let end = past_string(bytes, at);
                // Only names are followed by it. Of one that stands twice the last counts.
                if let (Some(value), Some(object)) = (expect(bytes, end, b':'), open.last_mut()) {
                    let (key, value) = (json.get(at..end), json.get(value..));
                    let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
                    if is_called(key, "_placeholder") {
                        object.is_placeholder = value.starts_with("true");
                    } else if is_called(key, "num") {
                        object.number = number(value);
                    }
                }
                at = end;
            }
        }
    }
    found
}

/// The number that `json` begins with, if it is written in digits alone.
fn number(json: &str) -> Option<u8> {
    let digits = json.split([',', '}', ' ', '\t', '\n', '\r']).next()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Refuses placeholders that name an attachment which is not there: a receiver would hang up.
///
/// None may be named twice. Nobody writes that, and a small packet would become a large one.
pub fn check(data: &str, attachments: usize) -> Result<(), Malformed> {
    let _json: &RawValue = serde_json::from_str(data).map_err(|_error| Malformed)?;
    let mut free = vec![true; attachments];
    let mut is_right = |one: &Placeholder| {
        let named = one.number.and_then(|number| free.get_mut(usize::from(number)));
        named.is_some_and(std::mem::take)
    };
    if find(data).iter().all(&mut is_right) { Ok(()) } else { Err(Malformed) }
}

/// The same JSON with what `instead` gives in the place of each.
pub fn replace(json: &str, instead: impl Fn(Option<u8>) -> String) -> String {
    let (mut text, mut from) = (String::with_capacity(json.len()), 0);
    for Placeholder { at, number } in find(json) {
        text.push_str(json.get(from..at.start).unwrap_or_default());
        text.push_str(&instead(number));
        from = at.end;
    }
    text.push_str(json.get(from..).unwrap_or_default());
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use crate::hub::arbitrary;

    use super::*;

    fn numbers(json: &str) -> Vec<Option<u8>> {
        find(json).into_iter().map(|one| one.number).collect()
    }

    #[test]
    fn they_are_found_where_clients_find_them() {
        for (json, wanted) in [
            (r#"{"_placeholder":true,"num":0}"#, &[Some(0)][..]),
            (
                r#"[{"num" : 1 , "_placeholder" :true},[{"a":{"_placeholder":true,"num":255}}]]"#,
                &[Some(1), Some(255)],
            ),
            (r#"{"\u005fplaceholder":true,"n\u0075m":3}"#, &[Some(3)]),
            // The last of a name counts.
            (r#"{"_placeholder":true,"_placeholder":1,"num":0}"#, &[]),
            (r#"{"num":0,"_placeholder":false,"num":7,"_placeholder":true}"#, &[Some(7)]),
            (r#"{"num":0,"num":"0","_placeholder":true}"#, &[None]),
            // What is within one is nobody's.
            (r#"[{"x":{"_placeholder":true,"num":1},"_placeholder":true,"num":0}]"#, &[Some(0)]),
            (r#"[{"num":{"num":2},"_placeholder":true}]"#, &[None]),
            (r#"{"_placeholder":true}"#, &[None]),
            (r#"{"_placeholder":true,"num":256}"#, &[None]),
            (r#"{"_placeholder":true,"num":-0}"#, &[None]),
            (r#"{"_placeholder":true,"num":1.0}"#, &[None]),
            (r#"{"_placeholder":true,"num":1e0}"#, &[None]),
            (r#"["_placeholder",true,"{\"_placeholder\":true,\"num\":0}"]"#, &[]),
            (r#"["\"",{"\\":"}{","_placeholder":true,"num":4}]"#, &[Some(4)]),
            (r#"{"_placeholder\ud83d":true,"_placeholder":true,"num":0}"#, &[Some(0)]),
        ] {
            assert_eq!(numbers(json), wanted, "{json}");
        }
    }

    #[test]
    fn what_no_client_could_take_is_refused() {
        for data in [
            r#"["x",{"_placeholder":true,"num":1}]"#,
            r#"["x",{"_placeholder":true}]"#,
            r#"["x",[{"a":{"_placeholder":true,"num":-1}}]]"#,
            r#"["x",{"_placeholder":true,"num":"0"}]"#,
            r#"["x",{"_placeholder":true,"num":0}"#,
        ] {
            assert_eq!(check(data, 1), Err(Malformed), "{data}");
        }
        // An attachment that stands twice would be written out twice.
        let twice = r#"["x",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":0}]]"#;
        assert_eq!(check(twice, 2), Err(Malformed));
        let once = r#"["x",{"_placeholder":true,"num":0},{"_placeholder":1}]"#;
        assert_eq!(check(once, 1), Ok(()));
    }

    #[test]
    fn what_javascript_writes_may_stand_beside_one() {
        let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
        let deeper = format!("{}1{}", r#"{"a":"#.repeat(300), "}".repeat(300));
        for strange in [r#""a\ud83d""#, r#"{"\udc00":1}"#, "1e999", &deep, &deeper] {
            let data = format!(r#"["x",{strange},{{"_placeholder":true,"num":0}}, 1.0]"#);
            assert_eq!(check(&data, 1), Ok(()), "{data}");
            let filled = replace(&data, |number| format!("<{number:?}>"));
            assert_eq!(filled, format!(r#"["x",{strange},<Some(0)>, 1.0]"#));
        }
    }

    /// The same by what a library has read.
    fn read(value: &Value, found: &mut Vec<Option<u8>>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| read(value, found)),
            Value::Object(fields) if fields.get("_placeholder") == Some(&Value::Bool(true)) => {
                let number = fields.get("num").and_then(Value::as_u64);
                found.push(number.and_then(|number| u8::try_from(number).ok()));
            }
            Value::Object(fields) => fields.values().for_each(|value| read(value, found)),
            _ => (),
        }
    }

    proptest! {
        #[test]
        fn what_a_library_finds_is_found(value in arbitrary::json(json!({ "_placeholder": true, "num": 0 }), &["_placeholder", "num"]), pretty: bool) {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let mut wanted = Vec::new();
            read(&serde_json::from_str(&text).expect("JSON"), &mut wanted);
            prop_assert_eq!(numbers(&text), wanted, "{}", text);
            // All else stays.
            let nulls: Value = serde_json::from_str(&replace(&text, |_| "null".to_owned())).expect("JSON");
            let mut none = Vec::new();
            read(&nulls, &mut none);
            prop_assert!(none.is_empty());
        }

        #[test]
        fn nothing_panics(text in "([{}\\[\\]:,\"\\\\1é]|\"_placeholder\":true|\"num\":){0,20}") {
            let _checked = check(&text, 2);
            let _filled = replace(&text, |_| String::new());
        }
    }
}
