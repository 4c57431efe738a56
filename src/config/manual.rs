//! proxy.yaml against the catalogue: what is written there is what is read here.

use std::path::Path;

use super::field::Surroundings;
use super::file::{self, Entry, Node, Value};
use super::keys::{FILE, Key, Kind};
use super::problem::{Place, Problem};
use super::validate::validate;

/// The manual with its settings switched on.
fn manual() -> Node {
    let text: String = include_str!("../../proxy.yaml").lines().map(switched_on).collect();
    // An authority gives certificates for public names alone.
    let text = text.replacen("\n  localhost:\n", "\n  app.example.com:\n", 1);
    let parsed = file::parse(&text);
    assert_eq!(parsed.problems, []);
    parsed.root.expect("the manual has a root")
}

/// `#key: value` is a setting, `# words` is prose.
fn switched_on(line: &str) -> String {
    let rest = line.trim_start();
    let is_setting =
        rest.strip_prefix('#').is_some_and(|rest| !rest.is_empty() && !rest.starts_with(' '));
    if is_setting { format!("{}\n", line.replacen('#', "", 1)) } else { format!("{line}\n") }
}

const HASH: &str = "$2b$10$................................./...................";

fn problems(root: &Node) -> Vec<Problem> {
    let contents = |path: &Path| {
        Ok(match path.file_name().and_then(std::ffi::OsStr::to_str) {
            Some("admin-ui") => HASH.to_owned(),
            Some("htpasswd") => format!("anna:{HASH}\n"),
            _ => "secret".to_owned(),
        })
    };
    let around = Surroundings {
        folder: Path::new("."),
        contents: &contents,
        has_folder: &|_| true,
        cores: 2,
        state: None,
    };
    validate(root, &around).1
}

/// Every key that is written, with what stands behind it.
fn written<'a>(kind: &'static Kind, node: &'a Node, out: &mut Vec<(&'static Key, &'a Node)>) {
    match (kind, &node.value) {
        (Kind::Object(keys) | Kind::Short(_, keys), Value::Map(entries)) => {
            for Entry { name, node, .. } in entries {
                let key = keys.iter().find(|key| key.name == name.text);
                let key = key.unwrap_or_else(|| unreachable!("{} is in no catalogue", name.text));
                out.push((key, node));
                written(&key.kind, node, out);
            }
        }
        (Kind::Map(_, kind), Value::Map(entries)) => {
            entries.iter().for_each(|entry| written(kind, &entry.node, out));
        }
        (Kind::List(kind), Value::List(items)) => {
            items.iter().for_each(|item| written(kind, item, out));
        }
        (Kind::Or(_, kind), _) => written(kind, node, out),
        _ => {}
    }
}

/// Every key that could be written. `next` and `to` share theirs.
fn known(keys: &'static [Key], out: &mut Vec<&'static Key>) {
    for key in keys.iter().filter(|key| !matches!(key.kind, Kind::Later)) {
        out.push(key);
        known(super::section::keys_of(&key.kind).1, out);
    }
}

#[test]
fn the_manual_is_right() {
    assert_eq!(problems(&manual()), []);
}

#[test]
fn every_key_is_in_the_manual_with_its_default() {
    let (manual, mut found, mut keys) = (manual(), Vec::new(), Vec::new());
    written(&ROOT, &manual, &mut found);
    known(FILE, &mut keys);
    for key in keys {
        let values = found.iter().filter(|(other, _)| other.about == key.about);
        let values: Vec<_> = values.map(|(_, node)| text_of(node)).collect();
        assert!(!values.is_empty(), "{} ({}) is not in the manual", key.name, key.about);
        let Some(default) = key.default else { continue };
        let default = file::parse(default).root.map(|node| text_of(&node));
        let is_said = default.is_some_and(|default| values.contains(&default));
        assert!(is_said || has_examples(&key.kind), "{} is not {values:?} by default", key.name);
    }
}

static ROOT: Kind = Kind::Object(FILE);

/// Where nothing is the default, the manual rather shows something.
fn has_examples(kind: &Kind) -> bool {
    matches!(kind, Kind::List(Kind::Object(_)) | Kind::Or(_, Kind::Map(..)))
}

/// What it says, however it is quoted.
fn text_of(node: &Node) -> String {
    match &node.value {
        Value::Scalar(scalar) => scalar.text.clone(),
        Value::List(items) => format!("{:?}", items.iter().map(text_of).collect::<Vec<_>>()),
        Value::Map(entries) => format!("{} entries", entries.len()),
        Value::Broken => String::new(),
    }
}

/// Calls `visit` for each value that is no mapping, with a tree in which it is nonsense.
fn with_nonsense(root: &Node, visit: &mut dyn FnMut(&Node, Place)) {
    let count = count_leaves(root);
    for index in 0..count {
        let (mut tree, mut left, mut place) = (root.clone(), index, root.place);
        break_leaf(&mut tree, &mut left, &mut place);
        visit(&tree, place);
    }
}

fn count_leaves(node: &Node) -> usize {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            entries.iter().map(|entry| count_leaves(&entry.node)).sum()
        }
        Value::List(items) if items.iter().any(|item| matches!(item.value, Value::Map(_))) => {
            items.iter().map(count_leaves).sum()
        }
        _ => 1,
    }
}

fn break_leaf(node: &mut Node, left: &mut usize, place: &mut Place) -> bool {
    let leaves = count_leaves(node);
    if *left >= leaves {
        *left -= leaves;
        return false;
    }
    match &mut node.value {
        Value::Map(entries) if !entries.is_empty() => {
            entries.iter_mut().any(|entry| break_leaf(&mut entry.node, left, place))
        }
        Value::List(items) if items.iter().any(|item| matches!(item.value, Value::Map(_))) => {
            items.iter_mut().any(|item| break_leaf(item, left, place))
        }
        value => {
            let here = node.place;
            *value = Value::List(vec![Node { place: here, value: Value::List(Vec::new()) }]);
            *place = here;
            true
        }
    }
}

#[test]
fn every_key_is_read() {
    with_nonsense(&manual(), &mut |tree, place| {
        let found = problems(tree);
        assert!(
            found.iter().any(|problem| problem.place == Some(place)),
            "nobody reads what stands at {place:?}: {found:?}"
        );
    });
}
