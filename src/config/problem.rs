//! What is wrong with a file: where, what, and what instead.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

/// Line and column of a character, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// `None` if it is about the file as a whole.
    pub place: Option<Place>,
    /// The path of the key, empty where there is none.
    pub key: String,
    pub what: String,
}

impl Problem {
    pub fn new(place: Place, key: &str, what: impl Into<String>) -> Self {
        Self { place: Some(place), key: key.to_owned(), what: what.into() }
    }
}

/// The path of `name` below `path`.
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Every problem of one file, in the order of the file.
#[derive(Debug, thiserror::Error)]
pub struct Problems {
    file: PathBuf,
    /// Invariant: sorted by place, at least one.
    all: Vec<Problem>,
}

impl Problems {
    pub fn new(file: &Path, mut all: Vec<Problem>) -> Self {
        all.sort();
        all.dedup();
        Self { file: file.to_owned(), all }
    }

    /// The file could not be read at all.
    pub fn of_the_file(file: &Path, what: String) -> Self {
        Self::new(file, vec![Problem { place: None, key: String::new(), what }])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        let plural = if self.all.len() == 1 { "" } else { "s" };
        write!(f, "vestibule: {file} has {} problem{plural}", self.all.len())?;
        for problem in self.all.iter().take(TOLD_MAX) {
            write!(f, "\n  {file}")?;
            if let Some(Place { line, column }) = problem.place {
                write!(f, ":{line}:{column}")?;
            }
            if !problem.key.is_empty() {
                write!(f, "  {}", Tame(&problem.key))?;
            }
            write!(f, "  {}", Tame(&problem.what))?;
        }
        match self.all.len().saturating_sub(TOLD_MAX) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// More say the same over and over, and must fit into the log.
const TOLD_MAX: usize = 100;

/// A text of the file's that must not draw on the operator's terminal, nor begin a line.
struct Tame<'a>(&'a str);

impl fmt::Display for Tame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match letter {
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                write!(f, "{}", letter.escape_unicode())
            }
            letter if letter.is_control() => write!(f, "{}", letter.escape_debug()),
            letter => f.write_char(letter),
        })
    }
}

/// The known word that `written` was probably meant to be.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written: Vec<char> = written.chars().take(LONGEST).collect();
    let nearest = known.into_iter().map(|word| (distance(&written, word), word)).min()?;
    // A third of the letters wrong is a slip; more is another word.
    (nearest.0 <= 1 + nearest.1.len().min(written.len()) / 3).then_some(nearest.1)
}

/// No key is as long; a longer word is near to none.
const LONGEST: usize = 40;

/// Letters to insert, remove, replace or swap with their neighbour.
fn distance(written: &[char], word: &str) -> usize {
    let word: Vec<char> = word.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=word.len()).collect();
    let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
    for (row, letter) in written.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, other) in word.iter().enumerate() {
            let replaced = at(&last, column) + usize::from(letter != other);
            let mut best = replaced.min(at(&last, column + 1) + 1).min(at(&next, column) + 1);
            let previous = |list: &[char], index: usize| {
                index.checked_sub(1).and_then(|index| list.get(index).copied())
            };
            let swapped =
                previous(written, row) == Some(*other) && previous(&word, column) == Some(*letter);
            if swapped {
                best = best.min(at(&before, column - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut last, next);
    }
    at(&last, word.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_word() {
        let known = ["next", "aliases", "routes", "first_byte", "to"];
        for (written, meant) in [
            ("nxet", Some("next")),
            ("Next", Some("next")),
            ("alias", Some("aliases")),
            ("firstbyte", Some("first_byte")),
            ("too", Some("to")),
            ("upstreams", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known), meant, "{written}");
        }
        assert_eq!(nearest(&"next".repeat(100_000), known), None);
    }

    #[test]
    fn problems_are_told_in_the_order_of_the_file() {
        let problem = |line, column, key: &str, what: &str| Problem {
            place: Some(Place { line, column }),
            key: key.to_owned(),
            what: what.to_owned(),
        };
        let all = vec![problem(10, 2, "b\u{1b}[2J", "wrong"), problem(9, 30, "a", "worse")];
        let expected = "vestibule: proxy.yaml has 2 problems\n  \
                        proxy.yaml:9:30  a  worse\n  \
                        proxy.yaml:10:2  b\\u{1b}[2J  wrong";
        assert_eq!(Problems::new(Path::new("proxy.yaml"), all).to_string(), expected);
        let many = (1..=105).map(|line| problem(line, 1, "a", "wrong")).collect();
        let many = Problems::new(Path::new("proxy.yaml"), many).to_string();
        assert!(many.contains("has 105 problems") && many.ends_with("and 5 more"), "{many}");
        let one = Problems::of_the_file(Path::new("x.yaml"), "cannot be read".to_owned());
        assert_eq!(one.to_string(), "vestibule: x.yaml has 1 problem\n  x.yaml  cannot be read");
    }
}
