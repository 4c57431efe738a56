//! What must hold for any text of an operator, and for the paths that clients ask for.
//!
//! Each function panics where something does not hold; see `crate::fuzzing`.

use std::io;
use std::path::Path;

use super::Config;
use super::expand::expand;
use super::field::Surroundings;
use super::file::{self, FILE_MAX, Parsed};
use super::glob::Glob;
use super::path;
use super::pattern::{HostPattern, PathPattern};
use super::problem::Problem;
use super::validate::validate;

/// Two patterns of paths, two of hosts, then paths and hosts, a line each.
pub fn patterns(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines: Vec<_> = text.split('\n').take(16).collect();
    let paths: Vec<_> = lines.iter().take(2).flat_map(|line| PathPattern::parse(line)).collect();
    let hosts: Vec<_> = lines.iter().take(4).flat_map(|line| HostPattern::parse(line)).collect();
    for pattern in &paths {
        assert_eq!(PathPattern::parse(&pattern.to_string()).as_ref(), Ok(pattern));
        assert!(pattern.covers(pattern));
        lines.iter().for_each(|path| check_path(pattern, path));
    }
    if let [one, other] = paths.as_slice()
        && one.covers(other)
    {
        let meant = |pattern: &PathPattern, path: &str| pattern.matches(path).is_some();
        assert!(lines.iter().all(|path| meant(one, path) || !meant(other, path)));
    }
    for pattern in &hosts {
        assert_eq!(HostPattern::parse(pattern.as_str()).as_ref(), Ok(pattern));
        for host in &lines {
            assert!(!pattern.is_exact() || pattern.matches(host) == (pattern.as_str() == *host));
        }
    }
}

/// A path as a client sends it, a glob, a value that it may mean.
pub fn paths(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (path, glob, value) = (line(), line(), line());
    if let Ok(canonical) = path::canonical(path) {
        assert!(canonical.len() <= 3 * path.len(), "{path} grew");
        assert_eq!(path::canonical(&canonical).as_deref(), Ok(canonical.as_ref()), "{path}");
        assert!(!canonical.contains("//") && !canonical.contains(['\\', '"', '<']), "{canonical}");
        assert!(canonical.bytes().all(|byte| byte.is_ascii_graphic()), "{canonical}");
        assert!(!canonical.split('/').any(|segment| segment == "." || segment == ".."));
        if let Ok(Some(open)) = path::opened(&canonical) {
            assert!(!open.contains("%2F") && path::canonical(&open).is_ok(), "{open}");
        }
    }
    let Ok(glob) = Glob::parse(glob) else { return };
    assert_eq!(Glob::parse(&glob.to_string()).as_ref(), Ok(&glob));
    let values = [value.as_bytes(), path.as_bytes()];
    let one_by_one = values.map(|value| glob.matches([value]));
    let none = glob.matches([]);
    let expected = if none { one_by_one == [true, true] } else { one_by_one.contains(&true) };
    assert_eq!(glob.matches(values), expected, "{glob}");
}

/// A pattern with its captures put back is the path.
fn check_path(pattern: &PathPattern, path: &str) {
    let Some(captures) = pattern.matches(path) else { return };
    if pattern.to_string().starts_with('~') {
        let known: Vec<_> = pattern.names().collect();
        return assert!(
            captures.iter().all(|(name, part)| known.contains(&name) && path.contains(part))
        );
    }
    let segment = |segment: &str| match segment.strip_prefix(':') {
        Some(name) => captures.get(name).expect("a name is captured").to_owned(),
        None if segment == "*" => captures.get("*").expect("a rest is captured").to_owned(),
        None => segment.to_owned(),
    };
    let written = pattern.to_string();
    let filled = written.split('/').map(segment).collect::<Vec<_>>().join("/");
    // `/docs/*` means `/docs` too.
    assert!(filled == path || filled.strip_suffix('/') == Some(path), "{written} took {path}");
    assert!(path.starts_with(&pattern.literal()));
}

/// A whole file. What is shown of it is read, and shown again, the same.
pub fn proxy_yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.len() > FILE_MAX {
        return;
    }
    let (config, problems) = read(text);
    // A carriage return alone ends a line of YAML, too.
    let lines = 1 + text.bytes().filter(|byte| b"\r\n".contains(byte)).count();
    for problem in &problems {
        let line = problem.place.map_or(1, |place| place.line);
        assert!(line <= lines, "{problem:?} is nowhere");
    }
    let Some(config) = config.filter(|_| problems.is_empty()) else { return };
    let shown = config.show();
    let (again, problems) = read(&shown);
    assert_eq!(problems, [], "{shown}");
    assert_eq!(again.map(|config| config.show()).as_ref(), Some(&shown));
}

fn read(text: &str) -> (Option<Config>, Vec<Problem>) {
    let Parsed { root, mut problems, broken } = file::parse(text);
    let Some(mut root) = root.filter(|_| !broken) else { return (None, problems) };
    let variable = |name: &str| name.starts_with('V').then(|| "8080".to_owned());
    expand(&mut root, "", &variable, &mut problems);
    let contents = |path: &Path| match path.file_name() {
        Some(_) => Ok("a secret in a file of its own".to_owned()),
        None => Err(io::Error::other("no file")),
    };
    let folder = Path::new("/etc/vestibule");
    let has_folder = |path: &Path| !path.ends_with("gone");
    let around = Surroundings {
        folder,
        contents: &contents,
        has_folder: &has_folder,
        cores: 2,
        state: None,
    };
    let (config, wrong) = validate(&root, &around);
    problems.extend(wrong);
    (Some(config), problems)
}
