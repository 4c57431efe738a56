//! Reads the fields of a JSON object one by one; what is wrong is said with the field's name; pure.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::exchange::query::decode;

/// What is wrong with a field, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// As `to[1]`, or `[3].to[1]` in a list; empty for the whole body.
    pub field: String,
    pub message: String,
}

impl Wrong {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// An object's fields that were not read yet.
pub struct Fields<'a> {
    place: String,
    values: BTreeMap<String, Written<'a>>,
    known: Vec<&'static str>,
}

/// A value as it stands in a body, or the text of a query.
enum Written<'a> {
    Json(&'a RawValue),
    Text(String),
}

impl<'a> Fields<'a> {
    /// `place` is where the object stands: empty, or `[3]`.
    pub fn of(json: &'a RawValue, place: impl Into<String>) -> Result<Self, Wrong> {
        let place = place.into();
        if !json.get().starts_with('{') {
            return Err(Wrong::new(place, "must be an object, as {\"namespace\": \"/\"}"));
        }
        let values: BTreeMap<String, &RawValue> = serde_json::from_str(json.get())
            .map_err(|error| Wrong::new(&place, format!("is no object: {error}")))?;
        let values = values.into_iter().map(|(name, value)| (name, Written::Json(value)));
        Ok(Self { place, values: values.collect(), known: Vec::new() })
    }

    /// The pairs of a URL's query.
    pub fn of_query(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name).into_owned(), Written::Text(decode(value).into_owned()))
        });
        Self { place: String::new(), values: pairs.collect(), known: Vec::new() }
    }

    /// The field's name with the place before it.
    fn path(&self, name: &str) -> String {
        if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) }
    }

    pub fn wrong(&self, name: &str, message: impl Into<String>) -> Wrong {
        Wrong::new(self.path(name), message)
    }

    fn take(&mut self, name: &'static str) -> Option<Written<'a>> {
        self.known.push(name);
        self.values.remove(name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, Wrong> {
        match self.take(name) {
            None => Ok(None),
            Some(Written::Text(text)) => Ok(Some(text)),
            Some(Written::Json(json)) => text(json, &self.path(name)).map(Some),
        }
    }

    /// As `text` for what must be there.
    pub fn must(&mut self, name: &'static str, example: &str) -> Result<String, Wrong> {
        let text = self.text(name)?;
        text.ok_or_else(|| self.wrong(name, format!("is missing; write {name:?}: {example:?}")))
    }

    /// Texts; one alone is a list of one.
    pub fn texts(&mut self, name: &'static str) -> Result<Option<Vec<String>>, Wrong> {
        let path = self.path(name);
        match self.take(name) {
            None => Ok(None),
            Some(Written::Text(text)) => Ok(Some(vec![text])),
            Some(Written::Json(json)) if json.get().starts_with('[') => {
                let items = list(json, &path)?;
                let items = items.iter().enumerate();
                items
                    .map(|(index, item)| text(item, &format!("{path}[{index}]")))
                    .collect::<Result<_, _>>()
                    .map(Some)
            }
            Some(Written::Json(json)) => Ok(Some(vec![text(json, &path)?])),
        }
    }

    /// A text, or a number as it is written.
    pub fn name(&mut self, name: &'static str) -> Result<Option<String>, Wrong> {
        let digits =
            |json: &RawValue| json.get().bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        match self.values.get(name) {
            Some(Written::Json(json)) if digits(json) => {
                let number = json.get().to_owned();
                self.take(name);
                Ok(Some(number))
            }
            _ => self.text(name),
        }
    }

    pub fn flag(&mut self, name: &'static str) -> Result<bool, Wrong> {
        match self.take(name) {
            None => Ok(false),
            Some(Written::Json(json)) if json.get() == "true" => Ok(true),
            Some(Written::Json(json)) if json.get() == "false" => Ok(false),
            // As a query has it.
            Some(Written::Text(text)) if text == "true" => Ok(true),
            Some(Written::Text(text)) if text == "false" => Ok(false),
            Some(_) => Err(self.wrong(name, "must be true or false")),
        }
    }

    /// A whole number from 1 to `max`.
    pub fn count(&mut self, name: &'static str, max: usize) -> Result<Option<usize>, Wrong> {
        let Some(written) = self.take(name) else { return Ok(None) };
        let digits = match &written {
            Written::Text(text) => text.as_str(),
            Written::Json(json) => json.get(),
        };
        let count = digits.parse().ok().filter(|count| (1..=max).contains(count));
        let wrong = || self.wrong(name, format!("must be a whole number from 1 to {max}"));
        count.ok_or_else(wrong).map(Some)
    }

    /// The items of a list as they are written.
    pub fn values(&mut self, name: &'static str) -> Result<Vec<&'a RawValue>, Wrong> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Written::Json(json)) => list(json, &self.path(name)),
            Some(Written::Text(_)) => Err(self.wrong(name, "must be a list")),
        }
    }

    /// Refuses what nobody has read.
    pub fn finish(self) -> Result<(), Wrong> {
        let Some(name) = self.values.keys().next() else { return Ok(()) };
        let known = self.known.join(", ");
        Err(self.wrong(name, format!("is not known here; known are {known}")))
    }
}

fn text(json: &RawValue, path: &str) -> Result<String, Wrong> {
    let text = serde_json::from_str::<String>(json.get());
    text.map_err(|_error| Wrong::new(path, format!("must be a text, not {}", noun(json))))
}

/// The items of a list.
pub fn list<'a>(json: &'a RawValue, path: &str) -> Result<Vec<&'a RawValue>, Wrong> {
    let items = serde_json::from_str(json.get());
    items.map_err(|_error| Wrong::new(path, format!("must be a list, not {}", noun(json))))
}

fn noun(json: &RawValue) -> &'static str {
    match json.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a text",
        Some(b'n') => "null; leave the field out",
        Some(b't' | b'f') => "a boolean",
        _ => "a number",
    }
}
