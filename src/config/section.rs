//! Reads one mapping by the catalogue of keys.

use std::path::Path;

use super::field::{Field, Named, Reader};
use super::file;
use super::keys::{Key, Kind};
use super::problem::{Place, join, nearest};

/// A mapping whose keys the catalogue knows; the keys that are not written read as their defaults.
pub struct Section<'a> {
    reader: &'a Reader<'a>,
    keys: &'static [Key],
    path: String,
    place: Place,
    entries: Vec<Named<'a>>,
    /// Something of it was refused already, which may be what it lacks.
    muddled: bool,
}

impl<'a> Section<'a> {
    pub fn of(field: &Field<'a>, keys: &'static [Key]) -> Self {
        let mut entries = field.entries();
        let written = entries.len();
        entries.retain(|named| is_known(named, keys));
        let muddled = entries.len() < written || !field.is_map();
        Self { entries, muddled, ..Self::empty(field, keys) }
    }

    /// As `of`; what is no mapping is the value of `main`.
    fn short(field: &Field<'a>, main: &'static str, keys: &'static [Key]) -> Self {
        if field.is_map() || field.is_broken() {
            return Self::of(field, keys);
        }
        let entries = vec![Named { name: main, field: field.clone() }];
        Self { entries, ..Self::empty(field, keys) }
    }

    fn empty(field: &Field<'a>, keys: &'static [Key]) -> Self {
        let Field { reader, place, .. } = *field;
        Self { reader, keys, path: field.path.clone(), place, entries: Vec::new(), muddled: false }
    }

    fn key(&self, name: &str) -> &'static Key {
        let found = self.keys.iter().find(|key| key.name == name);
        found.expect("every key that is read is in the catalogue")
    }

    /// Where relative paths begin.
    pub fn folder(&self) -> &'a Path {
        self.reader.around.folder
    }

    /// True if the folder is there.
    pub fn has_folder(&self, path: &Path) -> bool {
        (self.reader.around.has_folder)(path)
    }

    pub fn written(&self, name: &str) -> Option<&Field<'a>> {
        debug_assert!(self.keys.iter().any(|key| key.name == name), "{name} is in no catalogue");
        self.entries.iter().find(|named| named.name == name).map(|named| &named.field)
    }

    /// About the section as a whole.
    pub fn refuse(&self, what: impl Into<String>) {
        self.reader.refuse(self.place, &self.path, what);
    }

    /// As `refuse` for what is not there, and not misspelt either.
    pub fn refuse_lack(&self, what: impl Into<String>) {
        if !self.muddled {
            self.refuse(what);
        }
    }

    /// Reads what is written, or the default.
    pub fn field<T>(&self, name: &str, read: impl Fn(&Field<'_>) -> T) -> Option<T> {
        if let Some(field) = self.written(name) {
            return Some(read(field));
        }
        let node = file::parse(self.key(name).default?).root;
        let path = join(&self.path, name);
        let field = Field { reader: self.reader, path, place: self.place, node: &node? };
        Some(read(&field))
    }

    pub fn get<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.field(name, |field| field.read(&parse)).flatten()
    }

    /// As `get` for what has a default.
    pub fn value<T: Default>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        self.get(name, parse).unwrap_or_default()
    }

    pub fn flag(&self, name: &str) -> bool {
        self.field(name, |field| field.read_flag()).flatten().unwrap_or_default()
    }

    pub fn list<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let read =
            |field: &Field<'_>| field.items().iter().filter_map(|item| item.read(&parse)).collect();
        self.field(name, read).unwrap_or_default()
    }

    /// One of the words that the catalogue gives, as the value beside it.
    pub fn choice<T: Copy>(&self, name: &str, values: &[(&str, T)]) -> Option<T> {
        self.get(name, |text| choose(text, values))
    }

    /// The section below a key; without it, one of defaults only.
    pub fn section(&self, name: &str) -> Self {
        let (main, keys) = keys_of(&self.key(name).kind);
        match (self.written(name), main) {
            (Some(field), Some(main)) => Self::short(field, main, keys),
            (Some(field), None) => Self::of(field, keys),
            (None, _) => Self {
                reader: self.reader,
                keys,
                path: join(&self.path, name),
                place: self.place,
                entries: Vec::new(),
                muddled: false,
            },
        }
    }

    /// The objects of a list.
    pub fn sections(&self, name: &str) -> Vec<Self> {
        let (_, keys) = keys_of(&self.key(name).kind);
        let items = self.written(name).map(Field::items).unwrap_or_default();
        items.iter().map(|item| Self::of(item, keys)).collect()
    }

    /// The operator's names in a mapping.
    pub fn names(&self, name: &str) -> Vec<Named<'a>> {
        self.written(name).map(Field::entries).unwrap_or_default()
    }

    /// The keys of the objects in a mapping or a list.
    pub fn keys(&self, name: &str) -> &'static [Key] {
        keys_of(&self.key(name).kind).1
    }
}

fn is_known(named: &Named<'_>, keys: &'static [Key]) -> bool {
    let built = || keys.iter().filter(|key| !matches!(key.kind, Kind::Later)).map(|key| key.name);
    let what = match keys.iter().find(|key| key.name == named.name) {
        Some(Key { kind: Kind::Later, .. }) => "is not built yet; remove it".to_owned(),
        Some(_) => return true,
        None => match nearest(named.name, built()) {
            Some(word) => format!("unknown key; did you mean {word:?}?"),
            None => format!("unknown key; known here: {}", built().collect::<Vec<_>>().join(", ")),
        },
    };
    named.field.refuse_key(what);
    false
}

/// The main field, if there is a short form, and the keys of an object.
pub fn keys_of(kind: &'static Kind) -> (Option<&'static str>, &'static [Key]) {
    match kind {
        Kind::Object(keys) => (None, keys),
        Kind::Short(main, keys) => (Some(main), keys),
        Kind::Or(_, kind) | Kind::Map(_, kind) | Kind::List(kind) => keys_of(kind),
        _ => (None, &[]),
    }
}

pub fn choose<T: Copy>(text: &str, values: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = values.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let words: Vec<_> = values.iter().map(|(word, _)| *word).collect();
    let is_word = text.starts_with(|first: char| first.is_ascii_alphabetic());
    Err(match nearest(text, words.iter().copied()).filter(|_| is_word) {
        Some(word) => format!("{text:?} is not known here; did you mean {word:?}?"),
        None => format!("{text:?} is not known here; {} can be written", words.join(", ")),
    })
}
