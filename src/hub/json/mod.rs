//! JSON as clients write it: `check` says whether it is any, the rest finds values in what was
//! checked before; pure.
//!
//! A packet is checked as a whole when it is taken apart. Rooms are named by one field of it, and
//! what is skipped on the way there need not be read a second time.

mod check;

use super::packet;

pub use check::{Verdict, check};

/// The field of an object that is called `name`; of a name that stands twice JavaScript takes the
/// last. `None` also for what is no object.
///
/// `json` is right JSON; in anything else some field may be found or none.
pub fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    fields(json).filter(|field| is_called(field.key, name)).last().map(|field| field.value)
}

/// One of an object's fields.
pub struct Field<'a> {
    /// As it is written, with its quotes.
    pub key: &'a str,
    pub value: &'a str,
}

/// An object's fields, as they are written; none of what is no object.
pub fn fields(json: &str) -> Fields<'_> {
    Fields { json, at: expect(json.as_bytes(), 0, b'{') }
}

pub struct Fields<'a> {
    json: &'a str,
    /// Where the next one is, if there may be one.
    at: Option<usize>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let bytes = self.json.as_bytes();
        let start = self.at.take().filter(|at| bytes.get(*at) == Some(&b'"'))?;
        let end = past_string(bytes, start);
        let key = self.json.get(start..end)?;
        let start = expect(bytes, end, b':')?;
        let end = past_value(bytes, start);
        self.at = expect(bytes, end, b',');
        Some(Field { key, value: self.json.get(start..end)? })
    }
}

/// An array's elements, as they are written; none of what is no array.
pub fn elements(json: &str) -> Elements<'_> {
    Elements { json, at: expect(json.as_bytes(), 0, b'[') }
}

pub struct Elements<'a> {
    json: &'a str,
    /// Where the next one is, if there may be one.
    at: Option<usize>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let bytes = self.json.as_bytes();
        let start = self.at.take().filter(|at| bytes.get(*at) != Some(&b']'))?;
        let end = past_value(bytes, start);
        self.at = expect(bytes, end, b',');
        self.json.get(start..end).filter(|value| !value.is_empty())
    }
}

/// Whether this is how `name` is written.
pub fn is_called(key: &str, name: &str) -> bool {
    let inner = key.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner == Some(name) && !name.contains('\\')
        || key.contains('\\') && packet::text(key).is_some_and(|text| text == name)
}

/// True if there are `max` levels of arrays and objects in each other at the most.
///
/// `json` is right JSON. Nothing is looked at in what is too short to have so many.
pub fn is_within(json: &str, max: usize) -> bool {
    let bytes = json.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while bytes.len() > max * 2 {
        match bytes.get(at) {
            Some(b'"') => {
                at = past_string(bytes, at);
                continue;
            }
            Some(b'[' | b'{') => depth += 1,
            Some(b']' | b'}') => depth = depth.saturating_sub(1),
            Some(_) => (),
            None => return true,
        }
        if depth > max {
            return false;
        }
        at += 1;
    }
    true
}

/// Behind `wanted` and the space around it, if it comes next.
pub fn expect(bytes: &[u8], at: usize, wanted: u8) -> Option<usize> {
    let at = past_space(bytes, at);
    (bytes.get(at) == Some(&wanted)).then(|| past_space(bytes, at + 1))
}

fn past_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Behind the string that begins at `at`.
pub fn past_string(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        at = special(bytes, at);
        at += match bytes.get(at) {
            Some(b'"') => return at + 1,
            // And what is escaped.
            Some(b'\\') => 2,
            Some(_) => 1,
            None => return bytes.len(),
        };
    }
}

/// Where the next quote, backslash or control character stands, at `at` or behind it; eight bytes
/// are looked at at once.
fn special(bytes: &[u8], mut at: usize) -> usize {
    const EACH: u64 = u64::MAX / 0xff;
    // The highest bit of a byte says that it is one, in the first of them for certain.
    let has_zero = |word: u64| word.wrapping_sub(EACH) & !word;
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*eight);
        let control = word.wrapping_sub(EACH * 0x20) & !word;
        let quote = has_zero(word ^ (EACH * u64::from(b'"')));
        let backslash = has_zero(word ^ (EACH * u64::from(b'\\')));
        let found = (control | quote | backslash) & (EACH << 7);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
    while bytes.get(at).is_some_and(is_plain) {
        at += 1;
    }
    at
}

/// Behind the value that begins at `at`.
fn past_value(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = past_string(bytes, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return at + 1,
            // The end of what a number or a word stands in.
            b'}' | b']' | b',' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            b'}' | b']' => depth -= 1,
            _ => (),
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use crate::hub::arbitrary::{json, written};

    use super::*;

    #[test]
    fn the_last_of_a_name_is_taken() {
        for (json, wanted) in [
            (r#"{"room":"a"}"#, Some(r#""a""#)),
            (r#"{"room":"a","room":7}"#, Some("7")),
            (" { \"x\" : [1,{\"room\":2}] ,\n\"room\"\t: -1.5e3 }", Some("-1.5e3")),
            (r#"{"x":"\"room\":1,\\","room":{"a":"}"}}"#, Some(r#"{"a":"}"}"#)),
            (r#"{"\u0072oom":true}"#, Some("true")),
            (r#"{"room\\":true}"#, None),
            (r#"{"x":{"room":1}}"#, None),
            (r#"["room",1]"#, None),
            (r#""room""#, None),
            ("{}", None),
            ("7", None),
        ] {
            assert_eq!(field(json, "room"), wanted, "{json}");
        }
        assert_eq!(field(r#"{"a\\b":1}"#, "a\\b"), Some("1"));
        assert_eq!(field(r#"{"":1}"#, ""), Some("1"));
    }

    #[test]
    fn levels_are_counted() {
        for (json, depth) in [
            ("7", 0),
            ("[]", 1),
            (r#"{"a":[]}"#, 2),
            (r#"[[],{"a":1},[[[]]],"[[[[[[\"[[[["]"#, 4),
            (r#"["]]]]",{"{":{"\\":{}}}]"#, 4),
        ] {
            assert!(is_within(json, depth), "{json}");
            assert!(depth == 0 || !is_within(json, depth - 1), "{json}");
        }
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_within(&nested(128), 128) && !is_within(&nested(129), 128));
        assert!(is_within(&format!("[{}]", "[],".repeat(1000)), 2));
    }

    proptest! {
        #[test]
        fn what_a_library_finds_is_found(value in json(Value::Null, &["a", "ab"]), pretty: bool) {
            let text = written(&value, pretty);
            // Numbers are what their text says.
            let value: Value = serde_json::from_str(&text).expect("its own words");
            let fields = value.as_object().cloned().unwrap_or_default();
            for name in ["", "a", "b", "ab", "\"", "\\", "é", "a:"].iter().copied()
                .chain(fields.keys().map(String::as_str))
            {
                let found = field(&text, name).map(|found| serde_json::from_str(found).ok());
                prop_assert_eq!(found, fields.get(name).cloned().map(Some), "{} in {}", name, text);
            }
        }

        #[test]
        fn levels_are_those_that_a_library_finds(value in json(Value::Null, &["a", "ab"]), max in 0usize..6) {
            fn depth(value: &Value) -> usize {
                match value {
                    Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
                    Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
                    _ => 0,
                }
            }
            prop_assert_eq!(is_within(&value.to_string(), max), depth(&value) <= max);
        }

        #[test]
        fn elements_are_those_that_a_library_finds(value in json(Value::Null, &["a", "ab"]), pretty: bool) {
            let text = written(&value, pretty);
            let value: Value = serde_json::from_str(&text).expect("its own words");
            let found: Vec<Value> = elements(&text)
                .map(|element| serde_json::from_str(element).expect("a value"))
                .collect();
            prop_assert_eq!(found, value.as_array().cloned().unwrap_or_default());
        }

        #[test]
        fn special_bytes_are_found(bytes: Vec<u8>, at in 0usize..40) {
            let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
            let rest = bytes.get(at..).unwrap_or_default();
            let wanted = rest.iter().position(is_special).map_or(bytes.len().max(at), |found| at + found);
            prop_assert_eq!(special(&bytes, at), wanted);
        }

        #[test]
        fn nothing_panics(text in "[{}\\[\\]:,\"\\\\a 1é]{0,30}") {
            let _found = field(&text, "a");
            let _within = is_within(&text, 3);
            let _elements = elements(&text).count();
        }
    }
}
