//! Reads one mapping by the catalogue; every problem is noted and the reading goes on.
//!
//! What has a problem reads as nothing, and a configuration with a problem is never used.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use super::file::{self, Entry, Node, Scalar, Value};
use super::keys::{Key, Kind};
use super::problem::{Place, Problem, join, nearest};
use super::units::Secret;

/// What a file refers to besides itself.
pub struct Surroundings<'a> {
    /// The file's folder: paths in it begin there.
    pub folder: &'a Path,
    /// The text of a secret's file.
    pub contents: &'a dyn Fn(&Path) -> io::Result<String>,
    /// What `workers: auto` means.
    pub cores: usize,
}

/// Where problems are noted.
pub struct Reader<'a> {
    pub around: &'a Surroundings<'a>,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Reader<'a> {
    pub fn new(around: &'a Surroundings<'a>) -> Self {
        Self { around, problems: RefCell::default() }
    }

    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    fn refuse(&self, place: Place, path: &str, what: impl Into<String>) {
        self.problems.borrow_mut().push(Problem::new(place, path, what));
    }

    pub fn root(&'a self, node: &'a Node, keys: &'static [Key]) -> Section<'a> {
        Field { reader: self, path: String::new(), place: node.place, node }.section(keys)
    }
}

/// One written value, where it stands and what it is called.
#[derive(Clone)]
pub struct Field<'a> {
    reader: &'a Reader<'a>,
    pub path: String,
    /// Of the key, for what is wrong with the value as a whole.
    place: Place,
    node: &'a Node,
}

/// A field under a name of the operator's.
pub struct Named<'a> {
    pub name: &'a str,
    pub field: Field<'a>,
}

impl<'a> Field<'a> {
    pub fn refuse(&self, what: impl Into<String>) {
        self.reader.refuse(self.node.place, &self.path, what);
    }

    /// About the key, not its value.
    pub fn refuse_key(&self, what: impl Into<String>) {
        self.reader.refuse(self.place, &self.path, what);
    }

    fn is_broken(&self) -> bool {
        self.node.value == Value::Broken
    }

    /// Whether it is exactly this word.
    pub fn is_word(&self, word: &str) -> bool {
        matches!(&self.node.value, Value::Scalar(scalar) if scalar.text == word)
    }

    pub fn is_empty_list(&self) -> bool {
        matches!(&self.node.value, Value::List(items) if items.is_empty())
    }

    pub fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    fn scalar(&self) -> Option<&'a Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) if scalar.is_nothing() => {
                self.refuse_key("is empty; write a value, or remove the line");
                None
            }
            Value::Scalar(scalar) => Some(scalar),
            Value::List(_) => {
                self.refuse("must be one value, not a list");
                None
            }
            Value::Map(_) => {
                self.refuse("must be one value, not a mapping");
                None
            }
            Value::Broken => None,
        }
    }

    pub fn read<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = parse(&self.scalar()?.text);
        value.map_err(|what| self.refuse(what)).ok()
    }

    pub fn read_flag(&self) -> Option<bool> {
        let scalar = self.scalar()?;
        match scalar.text.as_str() {
            "true" if scalar.plain => Some(true),
            "false" if scalar.plain => Some(false),
            text => {
                self.refuse(format!("{text:?} is no boolean; true and false are, without quotes"));
                None
            }
        }
    }

    /// A path, from the file's folder.
    pub fn read_path(&self) -> Option<PathBuf> {
        self.read(|text| Ok(self.reader.around.folder.join(text)))
    }

    pub fn read_secret(&self) -> Option<Secret> {
        let scalar = self.scalar()?;
        let (text, written) = match scalar.text.strip_prefix("file:") {
            Some(path) => (self.contents(path)?, Some(scalar.text.clone())),
            None => (scalar.text.clone(), None),
        };
        if text.is_empty() {
            self.refuse("is an empty secret");
            return None;
        }
        Some(Secret::new(text, scalar.written.clone().or(written)))
    }

    fn contents(&self, path: &str) -> Option<String> {
        let path = self.reader.around.folder.join(path);
        match (self.reader.around.contents)(&path) {
            Ok(text) => Some(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)),
            Err(error) => {
                self.refuse(format!("{} cannot be read: {error}", path.display()));
                None
            }
        }
    }

    /// The items of a list; one value alone is a list of one.
    pub fn items(&self) -> Vec<Self> {
        match &self.node.value {
            Value::List(items) => {
                items.iter().enumerate().map(|(index, node)| self.item(index, node)).collect()
            }
            Value::Scalar(scalar) if scalar.is_nothing() => {
                self.refuse_key("is empty; write [] for none");
                Vec::new()
            }
            Value::Broken => Vec::new(),
            Value::Scalar(_) | Value::Map(_) => vec![self.clone()],
        }
    }

    fn item(&self, index: usize, node: &'a Node) -> Self {
        let path = format!("{}[{index}]", self.path);
        Self { reader: self.reader, path, place: node.place, node }
    }

    /// The lines of a mapping, each name once.
    pub fn entries(&self) -> Vec<Named<'a>> {
        let Value::Map(entries) = &self.node.value else {
            if !self.is_broken() {
                self.refuse(format!("must be a mapping, not {}", self.noun()));
            }
            return Vec::new();
        };
        let mut named: Vec<Named<'a>> = Vec::new();
        for entry in entries {
            let path = join(&self.path, &entry.name.text);
            match named.iter().find(|before| before.name == entry.name.text) {
                Some(before) => {
                    let first = before.field.place;
                    let what =
                        format!("is written twice, first at {}:{}", first.line, first.column);
                    self.reader.refuse(entry.place, &path, what);
                }
                None => named.push(self.named(entry, path)),
            }
        }
        named
    }

    fn named(&self, entry: &'a Entry, path: String) -> Named<'a> {
        let field = Self { reader: self.reader, path, place: entry.place, node: &entry.node };
        Named { name: &entry.name.text, field }
    }

    fn noun(&self) -> &'static str {
        match &self.node.value {
            Value::Scalar(scalar) if scalar.is_nothing() => "empty",
            Value::Scalar(_) => "one value",
            Value::List(_) => "a list",
            Value::Map(_) | Value::Broken => "a mapping",
        }
    }

    pub fn section(&self, keys: &'static [Key]) -> Section<'a> {
        let mut entries = self.entries();
        let written = entries.len();
        entries.retain(|named| is_known(named, keys));
        let muddled = entries.len() < written || !self.is_map();
        self.of(keys, entries, muddled)
    }

    /// As `section`; what is no mapping is the value of `main`.
    fn short(&self, main: &'static str, keys: &'static [Key]) -> Section<'a> {
        if self.is_map() || self.is_broken() {
            return self.section(keys);
        }
        self.of(keys, vec![Named { name: main, field: self.clone() }], false)
    }

    fn of(&self, keys: &'static [Key], entries: Vec<Named<'a>>, muddled: bool) -> Section<'a> {
        let Self { reader, place, .. } = *self;
        Section { reader, keys, path: self.path.clone(), place, entries, muddled }
    }
}

impl Scalar {
    /// What YAML reads as null.
    fn is_nothing(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null")
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
    fn key(&self, name: &str) -> &'static Key {
        let found = self.keys.iter().find(|key| key.name == name);
        found.expect("every key that is read is in the catalogue")
    }

    /// Where relative paths begin.
    pub fn folder(&self) -> &'a Path {
        self.reader.around.folder
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
    pub fn section(&self, name: &str) -> Section<'a> {
        let (main, keys) = keys_of(&self.key(name).kind);
        match (self.written(name), main) {
            (Some(field), Some(main)) => field.short(main, keys),
            (Some(field), None) => field.section(keys),
            (None, _) => Section {
                reader: self.reader,
                keys,
                path: join(&self.path, name),
                place: self.place,
                entries: Vec::new(),
                muddled: false,
            },
        }
    }
}

impl<'a> Section<'a> {
    /// The objects of a list.
    pub fn sections(&self, name: &str) -> Vec<Section<'a>> {
        let (_, keys) = keys_of(&self.key(name).kind);
        let items = self.written(name).map(Field::items).unwrap_or_default();
        items.iter().map(|item| item.section(keys)).collect()
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
