//! From the disk to a `Config`, or to every problem at once.

use std::fs;
use std::io::{self, Read as _};
use std::num::NonZeroUsize;
use std::path::Path;

use super::expand::expand;
use super::field::Surroundings;
use super::file::{self, FILE_MAX, Node, Parsed, Value};
use super::problem::{Place, Problem, Problems};
use super::validate;
use super::{Admin, Config};

const START: Place = Place { line: 1, column: 1 };

/// Reads and checks the file. Paths in it begin at the file's own folder.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let Parsed { root, mut problems, broken } = parsed(path)?;
    if let Some(root) = root.filter(|_| !broken) {
        // STATE_DIRECTORY of systemd.exec(5); of several, the first.
        let state = std::env::var("STATE_DIRECTORY").ok();
        let state = state.as_deref().and_then(|state| state.split(':').next()).map(Path::new);
        let around = Surroundings { state, ..around(path) };
        let (config, wrong) = validate::validate(&root, &around);
        problems.extend(wrong);
        if problems.is_empty() {
            return Ok(config);
        }
    } else if !broken {
        problems.push(Problem::new(START, "", "is empty; write sites or hub"));
    }
    Err(Problems::new(path, problems))
}

/// Where the process that runs by this file can be asked, even if the rest of the file is broken.
pub fn admin_of(path: &Path) -> Result<Option<Admin>, Problems> {
    let Parsed { root, mut problems, broken } = parsed(path)?;
    let root = root.unwrap_or(Node { place: START, value: Value::Map(Vec::new()) });
    let written = root.child("listen").and_then(|listen| listen.child("admin"));
    if broken && written.is_none() {
        // It may stand behind the mistake, so the default would be a guess.
        return Err(Problems::new(path, problems));
    }
    problems.retain(|problem| problem.key.starts_with("listen.admin"));
    let (admin, wrong) = validate::admin_of(&root, &around(path));
    problems.extend(wrong);
    if problems.is_empty() { Ok(admin) } else { Err(Problems::new(path, problems)) }
}

/// The file with the environment's values in it.
fn parsed(path: &Path) -> Result<Parsed, Problems> {
    let text = contents(path)
        .map_err(|error| Problems::of_the_file(path, format!("cannot be read: {error}")))?;
    let mut parsed = file::parse(&text);
    if let Some(root) = &mut parsed.root {
        let variable = |name: &str| std::env::var(name).ok();
        expand(root, "", &variable, &mut parsed.problems);
    }
    Ok(parsed)
}

fn around(path: &Path) -> Surroundings<'_> {
    Surroundings {
        folder: path.parent().unwrap_or(Path::new("")),
        contents: &contents,
        has_folder: &has_folder,
        cores: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        state: None,
    }
}

fn has_folder(path: &Path) -> bool {
    // What begins nowhere begins here.
    path.as_os_str().is_empty() || path.is_dir()
}

/// A text file that is not larger than a configuration may be.
fn contents(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let max = u64::try_from(FILE_MAX).unwrap_or(u64::MAX);
    fs::File::open(path)?.take(max + 1).read_to_string(&mut text)?;
    if text.len() > FILE_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}
