//! Holds `src/` to the tables in `src/ARCHITECTURE.md`.
//!
//! A failure here is a design question: move the boundary in the map, or the code back inside it.

#![expect(clippy::indexing_slicing, reason = "a test may stop")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

/// Lines of code in one file, without comments, blank lines and tests.
const LINES: usize = 500;

/// What a pure file may not name: these reach out, know the time, or wait.
const IMPURE: &[&str] = &[
    "aws_lc_rs",
    "hyper",
    "std::env",
    "std::fs",
    "std::io",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
    "tracing",
];

/// Wrong anywhere but in the one file named, and what to write instead.
const BANNED_PATHS: &[(&str, &str, &str)] = &[
    ("http::header::FORWARDED", "exchange/headers/forwarded.rs", "a function of exchange::headers"),
    ("std::time::Instant", "", "tokio::time::Instant, so tests can stop the clock"),
    ("tokio::spawn", "drain.rs", "Drain::spawn, so the stop waits for the task"),
    ("tokio::task::spawn", "drain.rs", "Drain::spawn, so the stop waits for the task"),
];
const BANNED_NAMES: &[(&str, &str, &str)] = &[
    ("JoinSet", "drain.rs", "Drain::spawn, so the stop waits for the task"),
    ("LocalSet", "drain.rs", "Drain::spawn, so the stop waits for the task"),
    ("spawn_blocking", "drain.rs", "a method of Drain, so the stop waits for it"),
    ("spawn_local", "drain.rs", "Drain::spawn, so the stop waits for the task"),
    ("unbounded_channel", "", "a bounded channel; say what happens when it is full"),
];
const BANNED_TEXT: &[(&str, &str, &str)] = &[
    ("x-forwarded-for", "exchange/headers/forwarded.rs", "a function of exchange::headers"),
    ("x-forwarded-host", "exchange/headers/forwarded.rs", "a function of exchange::headers"),
    ("x-forwarded-port", "exchange/headers/forwarded.rs", "a function of exchange::headers"),
    ("x-forwarded-proto", "exchange/headers/forwarded.rs", "a function of exchange::headers"),
    ("x-real-ip", "exchange/headers/forwarded.rs", "a function of exchange::headers"),
];

#[test]
fn modules_import_only_lower_floors() {
    hold(floors);
}

#[test]
fn imports_make_no_circle() {
    hold(|_, sources| circle(&edges(sources)));
}

#[test]
fn outside_crates_stay_home() {
    hold(homes);
}

#[test]
fn boundaries_keep_their_language() {
    hold(foreign_words);
}

#[test]
fn pure_files_stay_pure() {
    hold(purity);
}

#[test]
fn pure_files_are_fuzzed() {
    hold(|map, _| fuzzed(map, &targets()));
}

#[test]
fn nothing_banned() {
    hold(|_, sources| banned(sources));
}

#[test]
fn every_file_says_what_it_is() {
    hold(|_, sources| first_lines(sources));
}

#[test]
fn files_stay_short() {
    hold(lengths);
}

/// Runs `check` on the real map and the real sources.
fn hold(check: impl Fn(&Map, &[Source]) -> Vec<String>) {
    let map = fs::read_to_string(src().join("ARCHITECTURE.md")).expect("src/ARCHITECTURE.md");
    let breaches = check(&Map::parse(&map), &sources());
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

fn floors(map: &Map, sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (at, row) in map.floors.iter().enumerate() {
        let lower: Vec<_> = map.floors[at + 1..].iter().map(|row| &row.name).collect();
        for name in row.list.iter().filter(|name| !lower.contains(name)) {
            breaches.push(format!("Floors: `{}` lists `{name}`, which is not below it", row.name));
        }
        if !sources.iter().any(|file| file.module == row.name) {
            breaches.push(format!("Floors: there is no module `{}`", row.name));
        }
    }
    let known: Vec<_> = map.floors.iter().map(|row| row.name.as_str()).collect();
    for file in sources.iter().filter(|file| !file.is_root()) {
        let Some(row) = map.floors.iter().find(|row| row.name == file.module) else {
            breaches.push(format!("{}: `{}` is on no floor", file.path, file.module));
            continue;
        };
        for import in file.imports(&known) {
            if import != file.module && !row.list.contains(&import) {
                let module = &file.module;
                breaches.push(format!("{}: `{module}` may not import `{import}`", file.path));
            }
        }
    }
    breaches
}

/// Who imports whom, by what stands in the code.
fn edges(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let modules: Vec<_> = sources.iter().map(|file| file.module.as_str()).collect();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sources.iter().filter(|file| !file.is_root()) {
        let imports = file.imports(&modules).into_iter().filter(|name| *name != file.module);
        edges.entry(file.module.clone()).or_default().extend(imports);
    }
    edges
}

/// What is left once every module that imports nothing that is left has been taken away.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut left = edges.clone();
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, imports| !imports.is_disjoint(&names));
        if left.len() == before {
            break;
        }
    }
    let names: Vec<_> = left.into_keys().collect();
    if names.is_empty() { Vec::new() } else { vec![format!("a circle among {names:?}")] }
}

fn homes(map: &Map, sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for row in &map.homes {
        breaches.extend(missing("Homes", row.list.iter(), sources));
        for file in sources.iter().filter(|file| !file.is_in(&row.list)) {
            if file.names(&row.name) {
                let home = row.list.join(" ");
                breaches.push(format!("{}: `{}` is at home in [{home}]", file.path, row.name));
            }
        }
    }
    breaches
}

fn foreign_words(map: &Map, sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for row in &map.foreign {
        breaches.extend(missing("Foreign words", [&row.name].into_iter(), sources));
        for file in sources.iter().filter(|file| file.path.starts_with(&row.name)) {
            let said = row.list.iter().filter(|word| file.says(word));
            breaches.extend(said.map(|word| format!("{}: `{word}` is foreign here", file.path)));
        }
    }
    breaches
}

fn purity(map: &Map, sources: &[Source]) -> Vec<String> {
    let listed = map.pure.iter().map(|row| &row.name);
    let mut breaches = missing("Pure files", listed, sources);
    let is_pure = |file: &&Source| map.pure.iter().any(|row| file.is_below(&row.name));
    for file in sources.iter().filter(|file| file.first.ends_with("; pure.") && !is_pure(file)) {
        breaches.push(format!("{}: says that it is pure, and is not listed", file.path));
    }
    for file in sources.iter().filter(is_pure) {
        let named = IMPURE.iter().filter(|word| file.names(word));
        breaches.extend(named.map(|word| format!("{}: `{word}` in a pure file", file.path)));
        if file.has_name("async") {
            breaches.push(format!("{}: `async` in a pure file", file.path));
        }
    }
    breaches
}

/// Every pure file has its targets or says that it needs none, and every target has its file.
fn fuzzed(map: &Map, targets: &[String]) -> Vec<String> {
    let mut breaches = Vec::new();
    for row in &map.pure {
        let file = &row.name;
        match row.list.as_slice() {
            [] => breaches.push(format!("Pure files: `{file}` has neither a target nor a `-`")),
            [none] if none == "-" => (),
            list => {
                let absent = list.iter().filter(|name| !targets.contains(name));
                breaches.extend(absent.map(|name| format!("{file}: there is no target `{name}`")));
            }
        }
    }
    let idle = targets.iter().filter(|name| !map.pure.iter().any(|row| row.list.contains(name)));
    breaches.extend(idle.map(|name| format!("Pure files: no file needs the target `{name}`")));
    breaches
}

/// The targets of `tests/fuzz`; each has a file and is listed in the manifest.
fn targets() -> Vec<String> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("the manifest");
    let mut listed: Vec<_> = manifest
        .split("[[bin]]")
        .skip(1)
        .map(|bin| bin.split('"').nth(1).expect("a target's name").to_owned())
        .collect();
    listed.sort();
    let files = fs::read_dir(fuzz.join("targets")).expect("the targets");
    let stem = |path: PathBuf| path.file_stem().expect("a name").display().to_string();
    let mut found: Vec<_> = files.map(|file| stem(file.expect("a target").path())).collect();
    found.sort();
    assert_eq!(listed, found, "tests/fuzz/Cargo.toml and tests/fuzz/targets");
    listed
}

fn banned(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in sources {
        let text = file.code.to_lowercase();
        let paths = BANNED_PATHS.iter().filter(|(word, ..)| file.names(word));
        let names = BANNED_NAMES.iter().filter(|(word, ..)| file.has_name(word));
        let texts = BANNED_TEXT.iter().filter(|(word, ..)| text.contains(word));
        for (word, home, instead) in paths.chain(names).chain(texts) {
            if file.path != *home {
                breaches.push(format!("{}: `{word}`: write {instead}", file.path));
            }
        }
    }
    breaches
}

fn first_lines(sources: &[Source]) -> Vec<String> {
    let says = |file: &Source| {
        file.first.starts_with("//! ") || file.first.starts_with("#![doc = include_str!")
    };
    let silent = sources.iter().filter(|file| !says(file));
    silent.map(|file| format!("{}: the first line must be `//! what this is`", file.path)).collect()
}

fn lengths(map: &Map, sources: &[Source]) -> Vec<String> {
    let listed = |file: &Source| map.long.iter().any(|row| row.name == file.path);
    let mut breaches = missing("Long files", map.long.iter().map(|row| &row.name), sources);
    for file in sources {
        let lines = file.code.lines().filter(|line| !line.trim().is_empty()).count();
        match (lines > LINES, listed(file)) {
            (true, false) => breaches.push(format!("{}: {lines} lines of code", file.path)),
            (false, true) => breaches.push(format!("Long files: {} is not long", file.path)),
            _ => (),
        }
    }
    for row in map.long.iter().filter(|row| row.list.is_empty()) {
        breaches.push(format!("Long files: {} without a reason", row.name));
    }
    breaches
}

/// Rows of a table that speak of files which are not there.
fn missing<'a>(
    table: &str,
    paths: impl Iterator<Item = &'a String>,
    sources: &[Source],
) -> Vec<String> {
    let absent = paths.filter(|path| !sources.iter().any(|file| file.is_below(path)));
    absent.map(|path| format!("{table}: there is no `{path}`")).collect()
}

/// The tables of ARCHITECTURE.md.
struct Map {
    floors: Vec<Row>,
    homes: Vec<Row>,
    foreign: Vec<Row>,
    pure: Vec<Row>,
    long: Vec<Row>,
}

/// `name: item item` from a block of the map.
struct Row {
    name: String,
    list: Vec<String>,
}

impl Map {
    fn parse(text: &str) -> Self {
        let map = Self {
            floors: table(text, "Floors"),
            homes: table(text, "Homes"),
            foreign: table(text, "Foreign words"),
            pure: table(text, "Pure files"),
            long: table(text, "Long files"),
        };
        assert!(!map.floors.is_empty() && !map.pure.is_empty(), "an empty table");
        map
    }
}

/// The rows of the first fenced block under `## heading`; `#` lines are remarks.
fn table(text: &str, heading: &str) -> Vec<Row> {
    let section = text.split(&format!("\n## {heading}\n")).nth(1).expect("the heading");
    let section = section.split("\n## ").next().expect("the section");
    let block = section.split("```").nth(1).expect("a fenced block");
    let lines = block.lines().skip(1).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let row = |line: &str| {
        let (name, list) = line.split_once(':').unwrap_or((line, ""));
        let list = list.split_whitespace().map(str::to_owned).collect();
        Row { name: name.trim().to_owned(), list }
    };
    lines.map(row).collect()
}

/// One file of `src/` without its tests.
struct Source {
    path: String,
    module: String,
    /// Where it stands in the tree of modules.
    place: Vec<String>,
    first: String,
    /// Without comments.
    code: String,
    /// Names and signs, without strings.
    tokens: Vec<String>,
    /// Every path in the code, groups spelled out, as far as `use` tells from its root.
    paths: Vec<Vec<String>>,
}

impl Source {
    fn parse(path: &str, text: &str) -> Self {
        let place: Vec<String> =
            path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        let module = place[0].clone();
        let place =
            place.into_iter().filter(|name| !["mod", "lib", "main"].contains(&name.as_str()));
        let (code, bare) = strip(&without_tests(text));
        let tokens = tokens(&bare);
        let paths = paths(tokens.clone());
        let first = text.lines().next().unwrap_or_default().to_owned();
        Self { path: path.to_owned(), module, place: place.collect(), first, code, tokens, paths }
    }

    fn is_root(&self) -> bool {
        ["main.rs", "lib.rs"].contains(&self.path.as_str())
    }

    fn is_in(&self, homes: &[String]) -> bool {
        homes.iter().any(|home| self.is_below(home))
    }

    /// `home` is this file, or a folder it is in.
    fn is_below(&self, home: &str) -> bool {
        self.path == home || (home.ends_with('/') && self.path.starts_with(home))
    }

    /// True if a path of the code is `path` or goes on from it.
    fn names(&self, path: &str) -> bool {
        let wanted: Vec<_> = path.split("::").collect();
        self.paths.iter().any(|path| {
            let glob = path.last().is_some_and(|last| last == "*");
            let path = if glob { &path[..path.len() - 1] } else { path };
            path.starts_with(&wanted.iter().map(ToString::to_string).collect::<Vec<_>>())
                || (glob && wanted[..wanted.len() - 1] == *path)
        })
    }

    fn has_name(&self, name: &str) -> bool {
        self.tokens.iter().any(|token| token == name)
    }

    /// True if `word` is a part of a name or a text: `room` of `RoomTable`, `the_room`, `"ROOM"`.
    fn says(&self, word: &str) -> bool {
        let mut parts = String::new();
        let mut before = ' ';
        for c in self.code.chars() {
            parts.extend((before.is_lowercase() && c.is_uppercase()).then_some(' '));
            parts.extend(c.to_lowercase());
            before = c;
        }
        parts.split(|c: char| !c.is_alphanumeric()).any(|part| part == word)
    }

    /// The modules at the root of the crate that this file names.
    ///
    /// `super` counts only if it leads to one of `known`: inside an inline module it means less.
    fn imports(&self, known: &[&str]) -> BTreeSet<String> {
        let mut imports = BTreeSet::new();
        for path in &self.paths {
            let up = path.iter().take_while(|name| *name == "super").count();
            match path.as_slice() {
                [root, name, ..] if root == "crate" => _ = imports.insert(name.clone()),
                _ if up > 0 && up == self.place.len() => {
                    let name = path.get(up).filter(|name| known.contains(&name.as_str()));
                    imports.extend(name.cloned());
                }
                _ => (),
            }
        }
        imports
    }
}

/// Cuts out `#[cfg(test)] mod … { … }`, which rustfmt closes at the left margin.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, tests)) = rest.split_once("\n#[cfg(test)]\n") {
        kept.push_str(before);
        kept.push('\n');
        let mut lines = tests.lines().skip_while(|line| line.starts_with(['#', ' ', ')']));
        let is_module =
            lines.next().is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'));
        let end = tests.find("\n}\n").filter(|_| is_module);
        rest = end.map_or(tests, |end| &tests[end + 2..]);
    }
    kept + rest
}

/// The code without comments, and the same without the insides of strings.
fn strip(text: &str) -> (String, String) {
    let (mut code, mut bare) = (String::new(), String::new());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if rest.starts_with("/*") {
            rest = &rest[comment(rest)..];
        } else if let Some(length) = string(rest, code.ends_with(is_word)) {
            code.push_str(&rest[..length]);
            bare.push_str("\"\"");
            rest = &rest[length..];
        } else {
            code.push(c);
            bare.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    (code, bare)
}

/// The length of the block comment that `text` begins with; they nest.
fn comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while let Some(found) = text[at..].find(['/', '*']) {
        at += found;
        match text[at..].get(..2) {
            Some("/*") => (at, depth) = (at + 2, depth + 1),
            Some("*/") if depth == 1 => return at + 2,
            Some("*/") => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of the string or character that `text` begins with, if it does.
fn string(text: &str, after_word: bool) -> Option<usize> {
    let quoted = if after_word { text } else { text.trim_start_matches(['b', 'c', 'r']) };
    let prefix = text.len() - quoted.len();
    let hashes = quoted.len() - quoted.trim_start_matches('#').len();
    if prefix > 0 && text[..prefix].ends_with('r') && quoted[hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let inside = &quoted[hashes + 1..];
        return Some(prefix + hashes + 1 + inside.find(&end)? + end.len());
    }
    let quote = quoted.chars().next().filter(|c| ['"', '\''].contains(c) && prefix < 3)?;
    let mut inside = quoted.char_indices().skip(1);
    let first = inside.next()?;
    if quote == '\'' && first.1 != '\\' {
        // A lifetime has no second quote.
        let (at, second) = inside.next()?;
        return (second == '\'').then_some(prefix + at + 1);
    }
    let mut next = Some(first);
    while let Some((at, c)) = next {
        if c == quote {
            return Some(prefix + at + 1);
        }
        if c == '\\' {
            inside.next();
        }
        next = inside.next();
    }
    None
}

fn tokens(bare: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = bare.trim_start();
    while let Some(c) = rest.chars().next() {
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let length = match word {
            0 if rest.starts_with("::") => 2,
            0 => c.len_utf8(),
            _ => word,
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

type Tokens = Peekable<IntoIter<String>>;

fn paths(tokens: Vec<String>) -> Vec<Vec<String>> {
    let mut tokens = tokens.into_iter().peekable();
    let (mut used, mut inline) = (Vec::new(), Vec::new());
    while let Some(token) = tokens.next() {
        if token == "use" {
            use_tree(&mut tokens, &[], &mut used);
        } else if token.starts_with(is_word) && tokens.peek().is_some_and(|next| next == "::") {
            let mut path = vec![token];
            while tokens.next_if(|next| next == "::").is_some() {
                path.extend(tokens.next_if(|next| next.starts_with(is_word)));
            }
            inline.push(path);
        }
    }
    for path in &mut inline {
        if let Some((_, root)) = used.iter().find(|(name, _)| *name == path[0]) {
            path.splice(..1, root.iter().cloned());
        }
    }
    used.into_iter().map(|(_, path)| path).chain(inline).collect()
}

/// Each name that a `use` brings in, with its whole path.
fn use_tree(tokens: &mut Tokens, prefix: &[String], used: &mut Vec<(String, Vec<String>)>) {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.next_if(|token| ![";", ",", "}"].contains(&token.as_str())) {
        match token.as_str() {
            "::" => (),
            "{" => {
                while tokens.peek().is_some_and(|token| token != "}") {
                    use_tree(tokens, &path, used);
                    tokens.next_if(|token| token == ",");
                }
                tokens.next();
                return;
            }
            "as" => {
                used.push((tokens.next().unwrap_or_default(), path));
                return;
            }
            "self" if !path.is_empty() => (),
            _ => path.push(token),
        }
    }
    used.push((path.last().cloned().unwrap_or_default(), path));
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![src()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a folder entry").path();
            // Tests that outgrew the file they belong to.
            let tests = path.file_stem().is_some_and(|name| name == "tests");
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") && !tests {
                let text = fs::read_to_string(&path).expect("a readable source file");
                let path = path.strip_prefix(src()).expect("a path in src");
                found.push(Source::parse(&path.display().to_string(), &text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources");
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The checks themselves: each sees its breach, and nothing where there is none.
mod checks {
    use super::*;

    const MAP: &str = "
## Floors
```text
# the answers
proxy:  words
hub:    words
# words
words:
```
## Homes
```text
redis:        hub/link.rs
tungstenite:
```
## Foreign words
```text
hub/engine/:  room
```
## Pure files
```text
words.rs:  words
```
## Long files
```text
```
";

    /// A tree without a breach.
    const TREE: &[(&str, &str)] = &[
        ("hub/engine/mod.rs", "//! Bytes.\nuse crate::words;\n"),
        ("hub/link.rs", "//! A link.\nuse redis::Client;\n"),
        ("hub/mod.rs", "//! A hub.\nuse crate::words::Word;\n"),
        (
            "lib.rs",
            "#![doc = include_str!(\"ARCHITECTURE.md\")]\nmod hub;\nmod proxy;\nmod words;\n",
        ),
        ("proxy.rs", "//! A proxy.\nuse super::words;\n"),
        ("words.rs", "//! Words.\nuse std::net::IpAddr;\n"),
    ];

    fn all(map: &str, tree: &[(&str, &str)]) -> Vec<String> {
        let map = Map::parse(map);
        let sources: Vec<_> = tree.iter().map(|(path, text)| Source::parse(path, text)).collect();
        let mut breaches = floors(&map, &sources);
        breaches.extend(circle(&edges(&sources)));
        breaches.extend(homes(&map, &sources));
        breaches.extend(foreign_words(&map, &sources));
        breaches.extend(purity(&map, &sources));
        breaches.extend(banned(&sources));
        breaches.extend(first_lines(&sources));
        breaches.extend(lengths(&map, &sources));
        breaches
    }

    /// What is said when `code` stands at the end of the file `path`.
    fn with(path: &str, code: &str) -> Vec<String> {
        let mut tree: Vec<_> =
            TREE.iter().map(|(path, text)| (*path, (*text).to_owned())).collect();
        match tree.iter_mut().find(|(name, _)| *name == path) {
            Some((_, text)) => text.push_str(code),
            None => tree.push((path, code.to_owned())),
        }
        let tree: Vec<_> = tree.iter().map(|(path, text)| (*path, text.as_str())).collect();
        all(MAP, &tree)
    }

    fn check(path: &str, code: &str, expected: &[&str]) {
        assert_eq!(with(path, code), expected, "{path}: {code}");
    }

    #[test]
    fn a_sound_tree_passes() {
        assert_eq!(all(MAP, TREE), [""; 0]);
    }

    #[test]
    fn sideways_and_upward_imports_are_seen() {
        let breach = ["proxy.rs: `proxy` may not import `hub`"];
        for code in [
            "use crate::hub::Hub;",
            "use crate::{hub, words};",
            "use {crate::{words::{Word, Other}, hub::{self, Hub}}};",
            "use super::hub;",
            "fn f(_: crate::hub::Hub) {}",
            "fn f() { crate :: hub :: run() }",
            "use crate::hub as words;",
            "const X: char = '\"'; use crate::hub; const Y: char = '\"';",
            "fn f<'a>(_: &'a str) {} use crate::hub; fn g<'a>() {}",
            "const X: &str = \"//\"; use crate::hub;",
            "#[cfg(test)]\nuse x::y;\nuse crate::hub;\nfn f() {\n}\n",
            "\n#[cfg(test)]\nmod tests {\n}\n\nuse crate::hub;\n",
        ] {
            check("proxy.rs", code, &breach);
        }
        let glob = ["proxy.rs: `proxy` may not import `*`"];
        check("proxy.rs", "use crate::*;", &glob);
        let root = ["proxy.rs: `proxy` may not import `Stop`"];
        check("proxy.rs", "use crate::Stop;", &root);
        check(
            "hub/link.rs",
            "use super::super::proxy;",
            &["hub/link.rs: `hub` may not import `proxy`"],
        );
        let circle =
            ["words.rs: `words` may not import `hub`", "a circle among [\"hub\", \"words\"]"];
        // `proxy` imports what is in the circle, but is not in it.
        assert_eq!(with("words.rs", "use crate::hub;")[..1], circle[..1]);
        assert!(with("words.rs", "use crate::hub;")[1].starts_with("a circle among"));
    }

    #[test]
    fn what_only_looks_like_an_import_is_not_seen() {
        for code in [
            "// use crate::hub;",
            "/* use /* crate::hub */ crate::hub; */",
            "const X: &str = \"crate::hub::\\\"\"; const Y: &str = r#\"crate::hub\"\"#;",
            "mod inner { use super::Thing; }",
            "\n#[cfg(test)]\n#[expect(lint, reason = \"…\")]\nmod tests {\n    use crate::hub;\n}\n",
            "use self::inner::hub;",
        ] {
            check("proxy.rs", code, &[]);
        }
    }

    #[test]
    fn a_table_that_is_not_true_is_seen() {
        let upward = MAP.replace("words:\n```", "words: hub\n```");
        assert_eq!(all(&upward, TREE), ["Floors: `words` lists `hub`, which is not below it"]);
        let absent = MAP.replace("words:\n```", "words:\nghost:\n```");
        assert_eq!(all(&absent, TREE), ["Floors: there is no module `ghost`"]);
        check("new.rs", "//! New.\n", &["new.rs: `new` is on no floor"]);
        let gone = MAP.replace("hub/link.rs", "hub/gone.rs hub/link.rs");
        assert_eq!(all(&gone, TREE), ["Homes: there is no `hub/gone.rs`"]);
        let gone = MAP.replace("hub/engine/", "hub/motor/");
        assert_eq!(all(&gone, TREE), ["Foreign words: there is no `hub/motor/`"]);
        let gone = MAP.replace("words.rs:  words", "words.rs: words\nmore.rs: -");
        assert_eq!(all(&gone, TREE), ["Pure files: there is no `more.rs`"]);
    }

    #[test]
    fn homes_languages_and_purity_are_kept() {
        let away = ["hub/mod.rs: `redis` is at home in [hub/link.rs]"];
        for code in [
            "use redis::Client;",
            "use redis;",
            "use {redis::Client as C};",
            "type X = ::redis::X;",
        ] {
            check("hub/mod.rs", code, &away);
        }
        check("hub/mod.rs", "mod redis_like; use redis_like::X;", &[]);
        check(
            "hub/link.rs",
            "use tungstenite::X;",
            &["hub/link.rs: `tungstenite` is at home in []"],
        );
        for code in ["struct RoomTable;", "fn the_room() {}", "const X: &str = \"in a ROOM\";"] {
            check("hub/engine/mod.rs", code, &["hub/engine/mod.rs: `room` is foreign here"]);
        }
        check("hub/engine/mod.rs", "struct Roomy; // no room here", &[]);
        for (code, word) in [
            ("use std::{fs, net::IpAddr};", "std::fs"),
            ("use std::net; fn f() { net::TcpStream::connect(()) }", "std::net::TcpStream"),
            ("use std::net::*;", "std::net::TcpListener"),
            ("use tokio::time::Duration;", "tokio"),
            ("async fn f() {}", "async"),
        ] {
            let said = with("words.rs", code);
            let breach = format!("words.rs: `{word}` in a pure file");
            assert!(said.contains(&breach), "{code}: {said:?}");
        }
        let folder = MAP.replace("words.rs:", "hub/engine/:");
        let tree = [TREE, &[("hub/engine/late.rs", "//! Late.\nuse tokio::time;\n")]].concat();
        assert_eq!(all(&folder, &tree), ["hub/engine/late.rs: `tokio` in a pure file"]);
        let tree = [TREE, &[("hub/engine/new.rs", "//! New; pure.\n")]].concat();
        assert_eq!(all(MAP, &tree), ["hub/engine/new.rs: says that it is pure, and is not listed"]);
    }

    #[test]
    fn what_is_not_fuzzed_is_seen() {
        let said = |pure: &str, targets: &[&str]| {
            let map = Map::parse(&MAP.replace("words.rs:  words", pure));
            fuzzed(&map, &targets.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(said("words.rs: words", &["words"]), [""; 0]);
        assert_eq!(said("words.rs: -", &[]), [""; 0]);
        let neither = ["Pure files: `words.rs` has neither a target nor a `-`"];
        assert_eq!(said("words.rs:", &[]), neither);
        assert_eq!(said("words.rs: words", &[]), ["words.rs: there is no target `words`"]);
        let idle = ["Pure files: no file needs the target `words`"];
        assert_eq!(said("words.rs: -", &["words"]), idle);
    }

    #[test]
    fn what_is_banned_is_seen() {
        for (code, word) in [
            ("fn f() { tokio::spawn(x) }", "tokio::spawn"),
            ("use tokio::task; fn f() { task::spawn(x) }", "tokio::task::spawn"),
            ("use tokio::task::{JoinHandle, spawn_local};", "spawn_local"),
            ("fn f() { runtime.spawn_local(x) }", "spawn_local"),
            ("use std::time::{Duration, Instant};", "std::time::Instant"),
            ("use std::time::Instant as Clock;", "std::time::Instant"),
            ("use std::time as t; fn f() { t::Instant::now() }", "std::time::Instant"),
            ("fn f() { mpsc::unbounded_channel() }", "unbounded_channel"),
            ("const X: &str = \"X-Forwarded-For\";", "x-forwarded-for"),
            ("use http::header; fn f() { header::FORWARDED }", "http::header::FORWARDED"),
        ] {
            let said = with("proxy.rs", code);
            assert!(said.len() == 1 && said[0].contains(&format!("`{word}`")), "{code}: {said:?}");
        }
        check("proxy.rs", "use tokio::time::Instant; // not x-forwarded-for", &[]);
    }

    #[test]
    fn silent_and_long_files_are_seen() {
        let silent = "use crate::words;\n";
        let said = with("hub/silent.rs", silent);
        assert_eq!(said, ["hub/silent.rs: the first line must be `//! what this is`"]);
        let long = "fn f() {}\n".repeat(LINES);
        let said = with("hub/mod.rs", &long);
        assert_eq!(said, [format!("hub/mod.rs: {} lines of code", LINES + 1)]);
        check("hub/mod.rs", &"// A comment.\n\n".repeat(LINES), &[]);
        let listed = MAP.replace(
            "## Long files\n```text\n",
            "## Long files\n```text\nhub/mod.rs: a table\nproxy.rs:\n",
        );
        let said = all(&listed, TREE);
        let expected = [
            "Long files: hub/mod.rs is not long",
            "Long files: proxy.rs is not long",
            "Long files: proxy.rs without a reason",
        ];
        assert_eq!(said, expected);
    }
}
