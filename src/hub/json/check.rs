//! Whether a text is JSON (RFC 8259), and how deep.
//!
//! What clients write is passed on to others as it is, so it is read once, strictly, and in one pass;
//! a library that keeps where each value stands takes four times as long for a short event.

use super::special;

/// What a text turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// One value, and nothing but space around it.
    Json,
    /// More levels of arrays and objects than asked for. It was not read to its end.
    TooDeep,
    Wrong,
}

/// Levels that can be told apart: a bit each.
const LEVELS: u32 = u128::BITS;

/// Reads `text` with `max` levels of arrays and objects in each other at the most, of which there
/// are no more than 128. Half of a surrogate pair, which JavaScript can write, is taken.
pub fn check(text: &str, max: usize) -> Verdict {
    let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
    match reader.read(max.min(LEVELS as usize)) {
        Some(verdict) => verdict,
        None => Verdict::Wrong,
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// `None` if it is not JSON.
    fn read(&mut self, max: usize) -> Option<Verdict> {
        // The innermost is the lowest bit: one for an object.
        let (mut objects, mut depth) = (0_u128, 0_usize);
        loop {
            self.space();
            match self.next()? {
                b'"' => self.string()?,
                b'-' => self.number()?,
                b'0'..=b'9' => {
                    self.at -= 1;
                    self.number()?;
                }
                b't' => self.word(b"rue")?,
                b'f' => self.word(b"alse")?,
                b'n' => self.word(b"ull")?,
                opening @ (b'[' | b'{') => {
                    if depth == max {
                        return Some(Verdict::TooDeep);
                    }
                    let is_object = opening == b'{';
                    self.space();
                    if !self.passes(if is_object { b'}' } else { b']' }) {
                        (objects, depth) = (objects << 1 | u128::from(is_object), depth + 1);
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                _ => return None,
            }
            // Behind a value.
            loop {
                self.space();
                if depth == 0 {
                    return (self.at == self.bytes.len()).then_some(Verdict::Json);
                }
                let is_object = objects & 1 == 1;
                match self.next()? {
                    b',' => {
                        if is_object {
                            self.space();
                            self.key()?;
                        }
                        break;
                    }
                    b']' if !is_object => (),
                    b'}' if is_object => (),
                    _ => return None,
                }
                (objects, depth) = (objects >> 1, depth - 1);
            }
        }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at)?;
        self.at += 1;
        Some(*byte)
    }

    fn passes(&mut self, wanted: u8) -> bool {
        let comes = self.bytes.get(self.at) == Some(&wanted);
        self.at += usize::from(comes);
        comes
    }

    fn space(&mut self) {
        self.at = super::past_space(self.bytes, self.at);
    }

    /// A name and its colon.
    fn key(&mut self) -> Option<()> {
        self.passes(b'"').then_some(())?;
        self.string()?;
        self.space();
        self.passes(b':').then_some(())
    }

    /// Behind its first quote.
    fn string(&mut self) -> Option<()> {
        loop {
            self.at = special(self.bytes, self.at);
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => (),
                    b'u' => {
                        let digits = self.bytes.get(self.at..self.at + 4)?;
                        digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                        self.at += 4;
                    }
                    _ => return None,
                },
                // A control character.
                _ => return None,
            }
        }
    }

    /// Behind its sign.
    fn number(&mut self) -> Option<()> {
        if !self.passes(b'0') {
            self.digits()?;
        }
        if self.passes(b'.') {
            self.digits()?;
        }
        if self.passes(b'e') || self.passes(b'E') {
            let _signed = self.passes(b'+') || self.passes(b'-');
            self.digits()?;
        }
        Some(())
    }

    /// At least one.
    fn digits(&mut self) -> Option<()> {
        let before = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        (self.at > before).then_some(())
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        self.bytes.get(self.at..)?.starts_with(rest).then_some(())?;
        self.at += rest.len();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use crate::hub::arbitrary::{json, written};

    use super::*;

    fn is_json(text: &str) -> bool {
        serde_json::from_str::<&RawValue>(text).is_ok()
    }

    #[test]
    fn what_is_json_and_what_is_not() {
        for text in [
            "0",
            "-0",
            "10",
            "-1.5",
            "1e5",
            "1E+05",
            "0.0e-1",
            "null",
            "true",
            "false",
            r#""""#,
            r#""\u00e9\"\\\/\b\f\n\r\t""#,
            r#""\ud800""#,
            "\"\u{7f}é\u{2028}\"",
            "[]",
            "{}",
            " [ 1 , [ ] , { } ] ",
            "\t{\"a\":{\"b\":[1,\"x\"]},\"\":null}\r\n",
            r#""0123456789abcdef0123456789abcdef""#,
        ] {
            assert_eq!((check(text, 8), is_json(text)), (Verdict::Json, true), "{text}");
        }
        for text in [
            "",
            " ",
            "00",
            "01",
            "-",
            "+1",
            ".5",
            "1.",
            "1.e5",
            "1e",
            "1e+",
            "0x1",
            "nul",
            "nulls",
            "True",
            "'a'",
            "\"",
            r#""\""#,
            r#""\x""#,
            r#""\u12""#,
            r#""\u12g4""#,
            "\"\n\"",
            "\"0123456789abcd\u{1f}f\"",
            "[",
            "]",
            "[1",
            "[1,",
            "[1,]",
            "[,]",
            "[1 2]",
            "[1}",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{a:1}",
            "{1:1}",
            "{\"a\":1]",
            "[]]",
            "{}{}",
            "1 2",
            "\u{a0}1",
            "\u{feff}1",
            "[1]\0",
        ] {
            assert_eq!((check(text, 8), is_json(text)), (Verdict::Wrong, false), "{text:?}");
        }
    }

    #[test]
    fn levels_are_counted() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for max in [0, 1, 2, 127, 128] {
            assert_eq!(
                check(&nested(max), max),
                if max == 0 { Verdict::Wrong } else { Verdict::Json }
            );
            assert_eq!(check(&nested(max + 1), max), Verdict::TooDeep);
        }
        // There are no bits for more.
        assert_eq!(check(&nested(129), 1000), Verdict::TooDeep);
        assert_eq!(check("[[[[[ and whatever", 4), Verdict::TooDeep);
        assert_eq!(check(&format!("[{}{{}}]", "[],{\"a\":[]},".repeat(100)), 3), Verdict::Json);
    }

    proptest! {
        #[test]
        fn values_are_json(value in json(Value::Null, &["a", "ab"]), pretty: bool) {
            let text = written(&value, pretty);
            prop_assert_eq!(check(&text, 128), Verdict::Json);
            // A part of it is what a library says.
            for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
                let part = &text[..end];
                prop_assert_eq!(check(part, 128) == Verdict::Json, is_json(part), "{}", part);
            }
        }

        #[test]
        fn a_library_says_the_same(text in "[\\[\\]{}:,\"\\\\/ \t\n\u{1}0-2.eE+tru-é]{0,12}") {
            prop_assert_eq!(check(&text, 128) == Verdict::Json, is_json(&text), "{}", text);
        }

        #[test]
        fn a_library_says_the_same_of_strings(text in "(\\\\[\"/bux\\\\]|[0-9a-f]|[\"\t é]){0,24}") {
            let text = format!("\"{text}\"");
            prop_assert_eq!(check(&text, 128) == Verdict::Json, is_json(&text), "{}", text);
        }
    }
}
