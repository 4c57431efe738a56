//! JSON and attachments → msgpack, as notepack.io 2.2 reads it; pure.

use bytes::Bytes;

/// Appends the value that `json` is, its placeholders filled with `parts`; `None` as in `write`.
pub fn json(into: &mut Vec<u8>, json: &str, parts: &[Bytes], depth: usize) -> Option<()> {
    let mut translator = Translator { rest: json, parts, used: [0; 4], is_wrong: false, into };
    translator.value(depth)?;
    translator.skip_blanks();
    (translator.rest.is_empty() && !translator.is_wrong).then_some(())
}

pub fn text(into: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(short @ ..32) => into.push(0xa0 | short),
        Ok(short) => into.extend([0xd9, short]),
        _ => long_head(into, 0xda, text.len()),
    }
    into.extend_from_slice(text.as_bytes());
}

/// A length that needs two bytes or four; the form with four is the next one.
fn long_head(into: &mut Vec<u8>, form: u8, length: usize) {
    if let Ok(medium) = u16::try_from(length) {
        into.push(form);
        return into.extend(medium.to_be_bytes());
    }
    into.push(form + 1);
    // No message is that long: the limit of one is far below.
    into.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn binary(into: &mut Vec<u8>, data: &[u8]) {
    match u8::try_from(data.len()) {
        Ok(short) => into.extend([0xc4, short]),
        _ => long_head(into, 0xc5, data.len()),
    }
    into.extend_from_slice(data);
}

pub fn unsigned(into: &mut Vec<u8>, number: u64) {
    if let Ok(tiny @ ..0x80) = u8::try_from(number) {
        into.push(tiny);
    } else if let Ok(number) = u8::try_from(number) {
        into.extend([0xcc, number]);
    } else if let Ok(number) = u16::try_from(number) {
        into.push(0xcd);
        into.extend(number.to_be_bytes());
    } else if let Ok(number) = u32::try_from(number) {
        into.push(0xce);
        into.extend(number.to_be_bytes());
    } else {
        into.push(0xcf);
        into.extend(number.to_be_bytes());
    }
}

fn negative(into: &mut Vec<u8>, number: i64) {
    if let Ok(number) = i8::try_from(number) {
        if number < -0x20 {
            into.push(0xd0);
        }
        into.push(number.cast_unsigned());
    } else if let Ok(number) = i16::try_from(number) {
        into.push(0xd1);
        into.extend(number.to_be_bytes());
    } else if let Ok(number) = i32::try_from(number) {
        into.push(0xd2);
        into.extend(number.to_be_bytes());
    } else {
        into.push(0xd3);
        into.extend(number.to_be_bytes());
    }
}

struct Translator<'a> {
    rest: &'a str,
    parts: &'a [Bytes],
    /// Bits of the parts that stand in it already. Twice would let few bytes become very many.
    used: [u64; 4],
    /// One is named that is not there, or twice.
    is_wrong: bool,
    into: &'a mut Vec<u8>,
}

impl<'a> Translator<'a> {
    fn value(&mut self, depth: usize) -> Option<()> {
        self.skip_blanks();
        match self.rest.as_bytes().first()? {
            b'{' => self.map(depth.checked_sub(1)?),
            b'[' => self.list(depth.checked_sub(1)?),
            b'"' => self.text(),
            b'n' => self.word("null", 0xc0),
            b'f' => self.word("false", 0xc2),
            b't' => self.word("true", 0xc3),
            _ => self.number(),
        }
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Takes `sign` if it is next.
    fn take(&mut self, sign: char) -> bool {
        self.skip_blanks();
        let after = self.rest.strip_prefix(sign);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn word(&mut self, word: &str, byte: u8) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        self.into.push(byte);
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let end =
            self.rest.find(|sign: char| !matches!(sign, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'));
        let (digits, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        if let Ok(number) = digits.parse() {
            unsigned(self.into, number);
        } else if let Ok(number @ ..0) = digits.parse::<i64>() {
            negative(self.into, number);
        } else {
            let number: f64 = digits.parse().ok()?;
            self.into.push(0xcb);
            self.into.extend(number.to_be_bytes());
        }
        Some(())
    }

    fn text(&mut self) -> Option<()> {
        let after = self.rest.strip_prefix('"')?;
        let mut end = 0;
        loop {
            let sign =
                after.as_bytes().get(end..)?.iter().position(|byte| b"\"\\".contains(byte))?;
            end += sign;
            if after.as_bytes().get(end) == Some(&b'"') {
                break;
            }
            // An escape, whose second sign ends nothing.
            end += 2;
        }
        let (written, rest) = after.split_at_checked(end)?;
        self.rest = rest.strip_prefix('"')?;
        if written.contains('\\') {
            text(self.into, &unescape(written)?);
        } else {
            text(self.into, written);
        }
        Some(())
    }

    fn list(&mut self, depth: usize) -> Option<()> {
        let start = self.begin('[');
        let mut count = 0;
        if !self.take(']') {
            loop {
                self.value(depth)?;
                count += 1;
                match (self.take(','), self.take(']')) {
                    (true, false) => (),
                    (false, true) => break,
                    _ => return None,
                }
            }
        }
        self.count(start, 0x90, 0xdc, count);
        Some(())
    }

    fn map(&mut self, depth: usize) -> Option<()> {
        let start = self.begin('{');
        let (mut count, mut placeholder, mut number) = (0, false, None);
        let (used, is_wrong) = (self.used, self.is_wrong);
        if !self.take('}') {
            loop {
                self.skip_blanks();
                let key = self.into.len();
                self.text()?;
                let value = self.into.len();
                if !self.take(':') {
                    return None;
                }
                self.value(depth)?;
                count += 1;
                let written = self.into.get(value..);
                match self.into.get(key..value) {
                    Some(b"\xac_placeholder") => placeholder = written == Some(&[0xc3]),
                    Some(b"\xa3num") => {
                        number = match written {
                            Some([number @ ..0x80] | [0xcc, number]) => Some(*number),
                            _ => None,
                        };
                    }
                    _ => (),
                }
                match (self.take(','), self.take('}')) {
                    (true, false) => (),
                    (false, true) => break,
                    _ => return None,
                }
            }
        }
        if placeholder && !self.parts.is_empty() {
            // What is within it is nobody's.
            self.into.truncate(start);
            (self.used, self.is_wrong) = (used, is_wrong);
            match number.and_then(|number| self.part(number)) {
                Some(part) => binary(self.into, part),
                None => self.is_wrong = true,
            }
            return Some(());
        }
        self.count(start, 0x80, 0xde, count);
        Some(())
    }

    /// The part of this number, which stands nowhere yet.
    fn part(&mut self, number: u8) -> Option<&'a Bytes> {
        let part = self.parts.get(usize::from(number))?;
        let used = self.used.get_mut(usize::from(number / 64))?;
        let bit = 1 << (number % 64);
        if *used & bit != 0 {
            return None;
        }
        *used |= bit;
        Some(part)
    }

    /// Leaves a byte for the count of what follows.
    fn begin(&mut self, sign: char) -> usize {
        self.take(sign);
        self.into.push(0);
        self.into.len() - 1
    }

    fn count(&mut self, start: usize, few: u8, many: u8, count: usize) {
        let mut head = Vec::with_capacity(5);
        match u8::try_from(count) {
            Ok(count @ ..16) => head.push(few | count),
            _ => long_head(&mut head, many, count),
        }
        self.into.splice(start..=start, head);
    }
}

/// What stands between a JSON string's quotes; half of a pair becomes the sign for what is unknown.
fn unescape(written: &str) -> Option<String> {
    let mut text = String::with_capacity(written.len());
    let mut rest = written;
    while let Some((plain, after)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut signs = after.chars();
        let sign = signs.next()?;
        rest = signs.as_str();
        text.push(match sign {
            '"' | '\\' | '/' => sign,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => escaped(&mut rest)?,
            _ => return None,
        });
    }
    text.push_str(rest);
    Some(text)
}

fn escaped(rest: &mut &str) -> Option<char> {
    let first = unit(rest)?;
    if let Some(whole) = char::from_u32(u32::from(first)) {
        return Some(whole);
    }
    if let Some(mut after) = rest.strip_prefix("\\u") {
        let pair = [first, unit(&mut after)?];
        if let Some(Ok(whole)) = char::decode_utf16(pair).next() {
            *rest = after;
            return Some(whole);
        }
    }
    Some(char::REPLACEMENT_CHARACTER)
}

/// Four hexadecimal digits.
fn unit(rest: &mut &str) -> Option<u16> {
    let (digits, after) = rest.split_at_checked(4)?;
    *rest = after;
    u16::from_str_radix(digits, 16).ok()
}
