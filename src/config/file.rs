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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every scalar with its place, in the order of the file.
    fn scalars(node: &Node) -> Vec<String> {
        let line = |place: Place, text: &str| format!("{}:{} {text}", place.line, place.column);
        match &node.value {
            Value::Scalar(scalar) => vec![line(node.place, &scalar.text)],
            Value::List(items) => items.iter().flat_map(scalars).collect(),
            Value::Map(entries) => {
                let entry = |entry: &Entry| {
                    [vec![line(entry.place, &entry.name.text)], scalars(&entry.node)].concat()
                };
                entries.iter().flat_map(entry).collect()
            }
            Value::Broken => vec![line(node.place, "broken")],
        }
    }

    fn check(text: &str, expected: &[&str], problems: usize) {
        let parsed = parse(text);
        let found = parsed.root.as_ref().map(scalars).unwrap_or_default();
        assert_eq!(found, expected, "{text}");
        assert_eq!(parsed.problems.len(), problems, "{text}{:?}", parsed.problems);
    }

    #[test]
    fn everything_knows_where_it_stands() {
        check(
            "a: { b: 'c d', \"e\": [f, 1] } # g\n",
            &["1:1 a", "1:6 b", "1:9 c d", "1:16 e", "1:22 f", "1:25 1"],
            0,
        );
        check(
            "ü: x\nlist:\n  - y\n  - k: |\n      z\n",
            &["1:1 ü", "1:4 x", "2:1 list", "3:5 y", "4:5 k", "5:7 z\n"],
            0,
        );
        check("a:\n", &["1:1 a", "1:2 ~"], 0);
        check("\u{feff}a: b\r\nc: d\r\n", &["1:1 a", "1:4 b", "2:1 c", "2:4 d"], 0);
        check("# nothing\n", &[], 0);
    }

    #[test]
    fn what_stands_before_a_mistake_is_kept() {
        check("a: b\nc: [d\n", &["1:1 a", "1:4 b", "2:1 c"], 1);
        check("a: b\n---\nc: d\n", &["1:1 a", "1:4 b"], 1);
        check("a: &x b\nc: *x\n", &["1:1 a", "1:7 b", "2:1 c", "2:4 broken"], 2);
    }

    #[test]
    fn what_has_no_end_of_levels_is_refused() {
        for level in ["- ", "[", "{ a: ", "{", "? ", "? - "] {
            let parsed = parse(&level.repeat(FILE_MAX / level.len()));
            assert!(!parsed.problems.is_empty(), "{level}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "([a:,#&*!|>'\"%@`?~ \n\t{}\\[\\]-]|\\PC|<<|---\n){0,40}") {
            let parsed = parse(&text);
            prop_assert!(parsed.broken || parsed.root.is_some() || parsed.problems.is_empty());
        }
    }
}
