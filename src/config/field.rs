//! Reads one written value; every problem is noted and the reading goes on.
//!
//! What has a problem reads as nothing, and a configuration with a problem is never used.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::file::{Entry, Node, Scalar, Value};
use super::problem::{Place, Problem, join};
use super::units::Secret;

/// What a file refers to besides itself.
pub struct Surroundings<'a> {
    /// The file's folder: paths in it begin there.
    pub folder: &'a Path,
    /// The text of a secret's file.
    pub contents: &'a dyn Fn(&Path) -> io::Result<String>,
    /// True if the folder is there.
    pub has_folder: &'a dyn Fn(&Path) -> bool,
    /// What `workers: auto` means.
    pub cores: usize,
    /// The service manager's place for `state`.
    pub state: Option<&'a Path>,
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

    pub fn refuse(&self, place: Place, path: &str, what: impl Into<String>) {
        self.problems.borrow_mut().push(Problem::new(place, path, what));
    }

    /// The whole file as one field.
    pub fn root(&'a self, node: &'a Node) -> Field<'a> {
        Field { reader: self, path: String::new(), place: node.place, node }
    }
}

/// One written value, where it stands and what it is called.
#[derive(Clone)]
pub struct Field<'a> {
    pub reader: &'a Reader<'a>,
    pub path: String,
    /// Of the key, for what is wrong with the value as a whole.
    pub place: Place,
    pub node: &'a Node,
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

    pub fn is_broken(&self) -> bool {
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
        let text = self.contents_of(&self.reader.around.folder.join(path))?;
        Some(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text))
    }

    /// The text of a file that this field names.
    pub fn contents_of(&self, path: &Path) -> Option<String> {
        match (self.reader.around.contents)(path) {
            Ok(text) => Some(text),
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
        let (mut named, mut places) = (Vec::new(), HashMap::new());
        for entry in entries {
            let path = join(&self.path, &entry.name.text);
            match places.get(entry.name.text.as_str()) {
                Some(Place { line, column }) => {
                    let what = format!("is written twice, first at {line}:{column}");
                    self.reader.refuse(entry.place, &path, what);
                }
                None => {
                    places.insert(entry.name.text.as_str(), entry.place);
                    named.push(self.named(entry, path));
                }
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
}

impl Scalar {
    /// What YAML reads as null.
    fn is_nothing(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null")
    }
}
