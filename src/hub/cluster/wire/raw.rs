//! A value of JSON or msgpack that is looked into only as far as one asks; pure.
//!
//! Nothing here recurses, and what is skipped is not copied: a message for rooms that nobody is in
//! costs a walk over its heads.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::hub::binary;
use crate::hub::msgpack::{DEPTH_MAX, Reader};
use crate::hub::packet::{self, Malformed};
use crate::hub::placeholders;

use super::{Payload, Sealed};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raw<'a> {
    Json(&'a str),
    Packed(&'a [u8]),
}

impl<'a> Raw<'a> {
    /// A message, which is JSON if it looks like an object of it.
    pub fn message(data: &'a [u8]) -> Result<Self, Malformed> {
        if data.first() != Some(&b'{') {
            return Ok(Self::Packed(data));
        }
        std::str::from_utf8(data).map(Self::Json).map_err(|_error| Malformed)
    }

    /// Every field of an object, in order; a later one of the same name counts.
    pub fn fields<F>(self, mut each: F) -> Result<(), Malformed>
    where
        F: FnMut(&str, Self) -> Result<(), Malformed>,
    {
        match self {
            Self::Json(text) => {
                let mut outcome = Ok(());
                let mut keep = |name: &str, value: &'a RawValue| {
                    if outcome.is_ok() {
                        outcome = each(name, Self::Json(value.get()));
                    }
                };
                let mut reader = serde_json::Deserializer::from_str(text);
                let read = reader.deserialize_map(Each(&mut keep)).and_then(|()| reader.end());
                read.map_err(|_error| Malformed)?;
                outcome
            }
            Self::Packed(data) => {
                let mut reader = Reader::new(data);
                for _ in 0..reader.map()? {
                    let name = reader.text()?;
                    if reader.skip_undefined() {
                        continue;
                    }
                    each(name, Self::Packed(reader.skip()?))?;
                }
                reader.end()
            }
        }
    }

    /// Every element of an array, in order.
    pub fn elements<F>(self, mut each: F) -> Result<(), Malformed>
    where
        F: FnMut(Self) -> Result<(), Malformed>,
    {
        match self {
            Self::Json(text) => {
                let mut outcome = Ok(());
                let mut keep = |_: &str, value: &'a RawValue| {
                    if outcome.is_ok() {
                        outcome = each(Self::Json(value.get()));
                    }
                };
                let mut reader = serde_json::Deserializer::from_str(text);
                let read = reader.deserialize_seq(Each(&mut keep)).and_then(|()| reader.end());
                read.map_err(|_error| Malformed)?;
                outcome
            }
            Self::Packed(data) => {
                let mut reader = Reader::new(data);
                for _ in 0..reader.list()? {
                    each(Self::Packed(reader.skip()?))?;
                }
                reader.end()
            }
        }
    }

    /// `null`; what is undefined becomes it on the way.
    pub fn is_nil(self) -> bool {
        match self {
            Self::Json(text) => text == "null",
            Self::Packed(data) => data == [0xc0],
        }
    }

    pub fn is_true(self) -> bool {
        match self {
            Self::Json(text) => text == "true",
            Self::Packed(data) => data == [0xc3],
        }
    }

    pub fn text(self) -> Result<Cow<'a, str>, Malformed> {
        match self {
            Self::Json(text) => packet::text(text).ok_or(Malformed),
            Self::Packed(data) => {
                let mut reader = Reader::new(data);
                let text = reader.text()?;
                reader.end()?;
                Ok(Cow::Borrowed(text))
            }
        }
    }

    /// A room's name, which may be a number in Node.
    pub fn name(self) -> Result<String, Malformed> {
        if let Ok(text) = self.text() {
            return Ok(text.into_owned());
        }
        let json = self.json()?;
        json.parse::<f64>().map(|_number| json.into_owned()).map_err(|_error| Malformed)
    }

    pub fn names(self) -> Result<Vec<String>, Malformed> {
        let mut names = Vec::new();
        if !self.is_nil() {
            self.elements(|element| {
                names.push(element.name()?);
                Ok(())
            })?;
        }
        Ok(names)
    }

    /// A whole number that is not negative.
    pub fn unsigned(self) -> Result<u64, Malformed> {
        match self {
            Self::Json(text) => text.parse().map_err(|_error| Malformed),
            Self::Packed(data) => Reader::new(data).unsigned(),
        }
    }

    /// As JSON; binary data as the application writes it.
    pub fn json(self) -> Result<Cow<'a, str>, Malformed> {
        match self {
            Self::Json(text) => Ok(Cow::Borrowed(text)),
            Self::Packed(data) => {
                let (json, parts) = Reader::of_servers(data, None).json(DEPTH_MAX)?;
                if parts.is_empty() {
                    return Ok(Cow::Owned(json));
                }
                Ok(Cow::Owned(binary::inline(&json, &parts).into_owned()))
            }
        }
    }

    /// As JSON and parts. `whole` is what this is a part of, and shares its memory.
    pub fn payload(self, whole: &Bytes) -> Result<Payload, Malformed> {
        match self {
            Self::Json(text) => Ok(Payload { data: text.into(), parts: Vec::new() }),
            Self::Packed(data) => {
                let (json, parts) = Reader::of_servers(data, Some(whole)).json(DEPTH_MAX)?;
                if !parts.is_empty() {
                    placeholders::check(&json, parts.len())?;
                }
                Ok(Payload { data: json.into(), parts })
            }
        }
    }

    pub fn seal(self, whole: &Bytes) -> Sealed {
        match self {
            Self::Json(text) => Sealed::Json(whole.slice_ref(text.as_bytes())),
            Self::Packed(data) => Sealed::Packed(whole.slice_ref(data)),
        }
    }
}

/// Hands on what serde finds, without keeping any of it.
struct Each<'f, F>(&'f mut F);

#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, F: FnMut(&str, &'de RawValue)> Visitor<'de> for Each<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((Key(name), value)) = map.next_entry()? {
            (self.0)(&name, value);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(value) = elements.next_element()? {
            (self.0)("", value);
        }
        Ok(())
    }
}
