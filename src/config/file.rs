//! The YAML as written: a tree whose every node knows where it stands.
//!
//! What a configuration does not need is refused: anchors, tags, several documents. Nothing here
//! knows a key by name.

use serde_yaml::granit_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::problem::{Place, Problem};

/// Bytes of a whole file. Nobody writes more; what is larger is another file.
pub const FILE_MAX: usize = 1 << 20;

/// Lists and mappings inside each other; the language needs ten.
const DEPTH_MAX: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Stands where a problem was already reported.
    Broken,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    pub text: String,
    /// Without quotes: `true` is a boolean and `~` is nothing.
    pub plain: bool,
    /// The text in the file, if `text` was made from it by expansion.
    pub written: Option<String>,
}

/// One line of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub place: Place,
    pub name: Scalar,
    pub node: Node,
}

impl Node {
    /// What stands behind a key, if this is a mapping that has it.
    pub fn child(&self, name: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.name.text == name).map(|entry| &entry.node)
    }
}

/// What could be read of a file.
pub struct Parsed {
    /// `None` if nothing is written. After a mistake in the syntax it holds what stands before it.
    pub root: Option<Node>,
    pub problems: Vec<Problem>,
    /// The rest of the file is unknown.
    pub broken: bool,
}

pub fn parse(text: &str) -> Parsed {
    let parser = Parser::new_from_str(text);
    let mut builder = Builder { parser, problems: Vec::new(), depth: 0, broken: false };
    let mut root = None;
    while let Some((event, place)) = builder.next() {
        match event {
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            Event::StreamEnd => break,
            _ if root.is_some() => {
                builder.refuse(place, "a second document begins; one file is one document");
                break;
            }
            event => root = Some(builder.node(event, place)),
        }
    }
    Parsed { root, problems: builder.problems, broken: builder.broken }
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    problems: Vec<Problem>,
    depth: usize,
    /// After a mistake in the syntax nothing more is read.
    broken: bool,
}

impl<'a> Builder<'a> {
    /// The next event that matters; `None` at the end, or after a mistake that ends the reading.
    fn next(&mut self) -> Option<(Event<'a>, Place)> {
        while !self.broken {
            match self.parser.next_event()? {
                Ok((Event::Comment(..) | Event::Anchor(..), _)) => {}
                Ok((event, span)) => return Some((event, place(&span))),
                Err(error) => {
                    let mark = error.marker();
                    let place = Place { line: mark.line(), column: mark.col() + 1 };
                    self.refuse(place, &format!("no YAML: {}", error.info()));
                    self.broken = true;
                }
            }
        }
        None
    }

    fn refuse(&mut self, place: Place, what: &str) {
        self.problems.push(Problem::new(place, "", what));
    }

    fn node(&mut self, event: Event<'a>, place: Place) -> Node {
        self.refuse_properties(&event, place);
        let value = match event {
            Event::Scalar(text, style, ..) => Value::Scalar(Scalar {
                text: text.into_owned(),
                plain: style == ScalarStyle::Plain,
                written: None,
            }),
            Event::SequenceStart(..) => self.deeper(place, Self::list),
            Event::MappingStart(..) => self.deeper(place, Self::map),
            _ => Value::Broken,
        };
        Node { place, value }
    }

    fn refuse_properties(&mut self, event: &Event<'_>, place: Place) {
        let (anchor, tag) = match event {
            Event::Scalar(_, _, anchor, tag)
            | Event::SequenceStart(_, anchor, tag)
            | Event::MappingStart(_, anchor, tag) => (*anchor != 0, tag.is_some()),
            Event::Alias(_) => (true, false),
            _ => (false, false),
        };
        if anchor {
            self.refuse(place, "anchors and aliases are not read here; write it out");
        }
        if tag {
            self.refuse(place, "tags are not read here; leave the word with ! out");
        }
    }

    fn deeper(&mut self, place: Place, read: fn(&mut Self) -> Value) -> Value {
        self.depth += 1;
        if self.depth == DEPTH_MAX {
            self.refuse(place, "too deep; nothing in this language has so many levels");
        }
        let value = read(self);
        self.depth -= 1;
        // What is too deep is read to its end, but not kept.
        if self.depth < DEPTH_MAX { value } else { Value::Broken }
    }

    fn list(&mut self) -> Value {
        let mut items = Vec::new();
        while let Some((event, place)) = self.next() {
            if event == Event::SequenceEnd {
                break;
            }
            items.push(self.node(event, place));
        }
        Value::List(items)
    }

    fn map(&mut self) -> Value {
        let mut entries = Vec::new();
        while let Some((event, place)) = self.next() {
            if event == Event::MappingEnd {
                break;
            }
            let name = self.node(event, place).value;
            let Some((event, begin)) = self.next() else { break };
            let node = self.node(event, begin);
            match name {
                Value::Scalar(name) => entries.push(Entry { place, name, node }),
                Value::Broken => {}
                Value::List(_) | Value::Map(_) => self.refuse(place, "a key must be one word"),
            }
        }
        Value::Map(entries)
    }
}

fn place(span: &Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}
