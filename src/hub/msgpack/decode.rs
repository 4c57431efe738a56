//! msgpack → JSON and attachments, as notepack.io means it: 2.2 from clients, 3 from servers; pure.

use bytes::Bytes;

use super::Malformed;
use super::date;
use super::packet::ATTACHMENTS_MAX;

/// What is left of a packet. Takes nothing that is not there, however long it is said to be.
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Servers know msgpack's own timestamps; the stock client does not.
    has_timestamps: bool,
    /// What `rest` is a part of: attachments share its memory, where they are copied otherwise.
    whole: Option<&'a Bytes>,
}

/// How a value begins; texts, data and elements follow.
enum Head {
    Nil,
    Boolean(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(u64),
    Binary(u64),
    Array(u64),
    Map(u64),
    /// In one of the five forms that have a length of their own.
    Fixed(u64),
    /// In one of the three that tell their length.
    Extension(u64),
}

impl<'a> Reader<'a> {
    pub fn new(rest: &'a [u8]) -> Self {
        Self { rest, has_timestamps: false, whole: None }
    }

    /// Of what Node's servers write to each other.
    pub fn of_servers(rest: &'a [u8], whole: Option<&'a Bytes>) -> Self {
        Self { rest, has_timestamps: true, whole }
    }

    /// Nothing may follow.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    /// The number of entries of a map, which follow.
    pub fn map(&mut self) -> Result<u64, Malformed> {
        if let Head::Map(count) = self.head()? { Ok(count) } else { Err(Malformed) }
    }

    /// The number of elements of an array, which follow.
    pub fn list(&mut self) -> Result<u64, Malformed> {
        if let Head::Array(count) = self.head()? { Ok(count) } else { Err(Malformed) }
    }

    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        let Head::Text(length) = self.head()? else { return Err(Malformed) };
        std::str::from_utf8(self.take(length)?).map_err(|_error| Malformed)
    }

    /// A whole number that is not negative.
    pub fn unsigned(&mut self) -> Result<u64, Malformed> {
        if let Head::Unsigned(number) = self.head()? { Ok(number) } else { Err(Malformed) }
    }

    /// True if the next value was undefined: extension 0 of one byte.
    pub fn skip_undefined(&mut self) -> bool {
        let after = self.rest.strip_prefix(&[0xd4, 0]).and_then(<[u8]>::split_first);
        self.rest = after.map_or(self.rest, |(_, after)| after);
        after.is_some()
    }

    /// The next value's bytes, whatever it is.
    pub fn skip(&mut self) -> Result<&'a [u8], Malformed> {
        let (start, mut values) = (self.rest, 1u64);
        while values > 0 {
            values -= 1;
            match self.head()? {
                Head::Text(length) | Head::Binary(length) => drop(self.take(length)?),
                Head::Fixed(length) | Head::Extension(length) => {
                    let [_kind] = self.array()?;
                    self.take(length)?;
                }
                Head::Array(count) => values = values.saturating_add(count),
                Head::Map(count) => values = values.saturating_add(count.saturating_mul(2)),
                _ => (),
            }
        }
        start.get(..start.len() - self.rest.len()).ok_or(Malformed)
    }

    /// The next value as JSON, and the binary data in it.
    pub fn json(&mut self, depth: usize) -> Result<(String, Vec<Bytes>), Malformed> {
        let mut writer = Writer { json: Vec::new(), parts: Vec::new() };
        writer.value(self, depth)?;
        let json = String::from_utf8(writer.json).map_err(|_error| Malformed)?;
        Ok((json, writer.parts))
    }

    fn head(&mut self) -> Result<Head, Malformed> {
        let [first] = self.array()?;
        Ok(match first {
            ..0x80 => Head::Unsigned(u64::from(first)),
            0x80..0x90 => Head::Map(u64::from(first & 0x0f)),
            0x90..0xa0 => Head::Array(u64::from(first & 0x0f)),
            0xa0..0xc0 => Head::Text(u64::from(first & 0x1f)),
            0xc0 => Head::Nil,
            0xc1 => return Err(Malformed),
            0xc2 | 0xc3 => Head::Boolean(first == 0xc3),
            0xc4 => Head::Binary(self.number::<1>()?),
            0xc5 => Head::Binary(self.number::<2>()?),
            0xc6 => Head::Binary(self.number::<4>()?),
            0xc7 => Head::Extension(self.number::<1>()?),
            0xc8 => Head::Extension(self.number::<2>()?),
            0xc9 => Head::Extension(self.number::<4>()?),
            0xca => Head::Float(f64::from(f32::from_be_bytes(self.array()?))),
            0xcb => Head::Float(f64::from_be_bytes(self.array()?)),
            0xcc => Head::Unsigned(self.number::<1>()?),
            0xcd => Head::Unsigned(self.number::<2>()?),
            0xce => Head::Unsigned(self.number::<4>()?),
            0xcf => Head::Unsigned(self.number::<8>()?),
            0xd0 => Head::Signed(i64::from(i8::from_be_bytes(self.array()?))),
            0xd1 => Head::Signed(i64::from(i16::from_be_bytes(self.array()?))),
            0xd2 => Head::Signed(i64::from(i32::from_be_bytes(self.array()?))),
            0xd3 => Head::Signed(i64::from_be_bytes(self.array()?)),
            0xd4..0xd9 => Head::Fixed(1 << (first - 0xd4)),
            0xd9 => Head::Text(self.number::<1>()?),
            0xda => Head::Text(self.number::<2>()?),
            0xdb => Head::Text(self.number::<4>()?),
            0xdc => Head::Array(self.number::<2>()?),
            0xdd => Head::Array(self.number::<4>()?),
            0xde => Head::Map(self.number::<2>()?),
            0xdf => Head::Map(self.number::<4>()?),
            0xe0.. => Head::Signed(i64::from(first.cast_signed())),
        })
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_error| Malformed)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// `N` bytes, the highest first.
    fn number<const N: usize>(&mut self) -> Result<u64, Malformed> {
        let bytes = self.array::<N>()?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

struct Writer {
    json: Vec<u8>,
    parts: Vec<Bytes>,
}

impl Writer {
    fn value(&mut self, from: &mut Reader<'_>, depth: usize) -> Result<(), Malformed> {
        match from.head()? {
            Head::Nil => self.word("null"),
            Head::Boolean(true) => self.word("true"),
            Head::Boolean(false) => self.word("false"),
            Head::Unsigned(number) => self.word(itoa::Buffer::new().format(number)),
            Head::Signed(number) => self.word(itoa::Buffer::new().format(number)),
            Head::Float(number) => self.float(number)?,
            Head::Text(length) => self.text(from.take(length)?)?,
            Head::Binary(length) => self.part(from, length)?,
            Head::Array(count) => self.list(from, count, deeper(depth)?)?,
            Head::Map(count) => self.map(from, count, deeper(depth)?)?,
            Head::Fixed(length) => self.fixed(from, length)?,
            Head::Extension(length) => match from.array()? {
                // An ArrayBuffer, or a view of one.
                [0] => self.part(from, length)?,
                [kind] => self.extension(from, kind, length)?,
            },
        }
        Ok(())
    }

    fn word(&mut self, word: &str) {
        self.json.extend_from_slice(word.as_bytes());
    }

    /// What is no number to JSON is null to it.
    fn float(&mut self, number: f64) -> Result<(), Malformed> {
        serde_json::to_writer(&mut self.json, &number).map_err(|_error| Malformed)
    }

    fn quote(&mut self, text: &str) -> Result<(), Malformed> {
        serde_json::to_writer(&mut self.json, text).map_err(|_error| Malformed)
    }

    fn text(&mut self, text: &[u8]) -> Result<(), Malformed> {
        self.quote(std::str::from_utf8(text).map_err(|_error| Malformed)?)
    }

    fn part(&mut self, from: &mut Reader<'_>, length: u64) -> Result<(), Malformed> {
        let data = from.take(length)?;
        if self.parts.len() == ATTACHMENTS_MAX {
            return Err(Malformed);
        }
        self.word(r#"{"_placeholder":true,"num":"#);
        self.word(itoa::Buffer::new().format(self.parts.len()));
        self.word("}");
        let part =
            from.whole.map_or_else(|| Bytes::copy_from_slice(data), |whole| whole.slice_ref(data));
        self.parts.push(part);
        Ok(())
    }

    fn fixed(&mut self, from: &mut Reader<'_>, length: u64) -> Result<(), Malformed> {
        match (from.array()?, length) {
            // Undefined: within an object it would be left out, which `map` does.
            ([0], 1) => {
                from.take(1)?;
                self.word("null");
                Ok(())
            }
            ([0], 8) => self.moment(date::iso(i64::from_be_bytes(from.array()?))),
            ([kind], length) => self.extension(from, kind, length),
        }
    }

    /// What is no date is null, as in JSON.
    fn moment(&mut self, text: Option<String>) -> Result<(), Malformed> {
        match text {
            Some(text) => self.quote(&text),
            None => {
                self.word("null");
                Ok(())
            }
        }
    }

    /// What notepack does not know becomes its number and its data.
    fn extension(&mut self, from: &mut Reader<'_>, kind: u8, length: u64) -> Result<(), Malformed> {
        if from.has_timestamps && kind == 0xff && matches!(length, 4 | 8 | 12) {
            return self.moment(timestamp(from, length)?);
        }
        self.word("[");
        self.word(itoa::Buffer::new().format(kind.cast_signed()));
        self.word(",");
        self.part(from, length)?;
        self.word("]");
        Ok(())
    }

    fn list(&mut self, from: &mut Reader<'_>, count: u64, depth: usize) -> Result<(), Malformed> {
        self.word("[");
        for index in 0..count {
            if index > 0 {
                self.word(",");
            }
            self.value(from, depth)?;
        }
        self.word("]");
        Ok(())
    }

    fn map(&mut self, from: &mut Reader<'_>, count: u64, depth: usize) -> Result<(), Malformed> {
        self.word("{");
        for _ in 0..count {
            let start = self.json.len();
            if !self.json.ends_with(b"{") {
                self.word(",");
            }
            match from.head()? {
                Head::Text(length) => self.text(from.take(length)?)?,
                Head::Unsigned(number) => self.quote(&number.to_string())?,
                Head::Signed(number) => self.quote(&number.to_string())?,
                _ => return Err(Malformed),
            }
            if from.skip_undefined() {
                self.json.truncate(start);
                continue;
            }
            self.word(":");
            self.value(from, depth)?;
        }
        self.word("}");
        Ok(())
    }
}

/// A moment in one of msgpack's three forms; parts of a millisecond are dropped, as Node does.
fn timestamp(from: &mut Reader<'_>, length: u64) -> Result<Option<String>, Malformed> {
    let (seconds, nanoseconds) = match length {
        4 => (i64::from(u32::from_be_bytes(from.array()?)), 0),
        8 => {
            let both = u64::from_be_bytes(from.array()?);
            ((both & 0x3_ffff_ffff).cast_signed(), both >> 34)
        }
        _ => {
            let nanoseconds = u64::from(u32::from_be_bytes(from.array()?));
            (i64::from_be_bytes(from.array()?), nanoseconds)
        }
    };
    let milliseconds = seconds.checked_mul(1000);
    let milliseconds =
        milliseconds.and_then(|whole| whole.checked_add_unsigned(nanoseconds / 1_000_000));
    Ok(milliseconds.and_then(date::iso))
}

fn deeper(depth: usize) -> Result<usize, Malformed> {
    depth.checked_sub(1).ok_or(Malformed)
}
