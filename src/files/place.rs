//! A path of a URL as a path below a folder; pure.

use std::ffi::OsStr;
use std::path::PathBuf;

/// Where a file would be.
#[derive(Debug, PartialEq)]
pub struct Place {
    /// Relative, of plain names alone.
    pub path: PathBuf,
    /// Ends in a slash.
    pub folder: bool,
}

/// The one hidden folder that is meant to be seen (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

impl Place {
    /// `None` for what no file can be meant by: hidden names, slashes and NULs in names, what is no
    /// UTF-8.
    pub fn of(path: &str) -> Option<Self> {
        let inside = path.strip_prefix('/')?;
        let (inside, folder) = match inside.strip_suffix('/') {
            Some(inside) => (inside, true),
            None => (inside, inside.is_empty()),
        };
        let mut place = PathBuf::new();
        if inside.is_empty() {
            return Some(Self { path: place, folder });
        }
        for (depth, segment) in inside.split('/').enumerate() {
            let name = decode(segment)?;
            let hidden = name.starts_with('.') && !(depth == 0 && name == WELL_KNOWN);
            if name.is_empty() || hidden || name.contains(['/', '\\', '\0']) {
                return None;
            }
            place.push(name);
        }
        Some(Self { path: place, folder })
    }

    pub fn has_extension(&self) -> bool {
        !self.folder
            && self
                .path
                .file_name()
                .map(OsStr::as_encoded_bytes)
                .unwrap_or_default()
                .contains(&b'.')
    }
}

/// Once: what is still escaped then is meant so.
fn decode(segment: &str) -> Option<String> {
    let mut name = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            name.push(*first);
            continue;
        }
        let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        name.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after.get(2..).unwrap_or_default();
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_plain_names_lead_to_a_file() {
        for (path, expected, folder) in [
            ("/", "", true),
            ("/a/b.css", "a/b.css", false),
            ("/a/", "a", true),
            ("/a%20b", "a b", false),
            ("/%5Bslug%5D/(x)/@y", "[slug]/(x)/@y", false),
            ("/a%252Fb", "a%2Fb", false),
            ("/.well-known/acme-challenge/x", ".well-known/acme-challenge/x", false),
            ("/a..b", "a..b", false),
        ] {
            let expected = Place { path: Path::new(expected).to_owned(), folder };
            assert_eq!(Place::of(path), Some(expected), "{path}");
        }
        for path in [
            "",
            "*",
            "a",
            "/..",
            "/a/../b",
            "/.",
            "/.env",
            "/a/.git/config",
            "/a/.well-known/x",
            "/%2e%2e",
            "/a%2Fb",
            "/a%5Cb",
            "/a%00",
            "//a",
            "/a//b",
            "/%ff",
            "/%c0%ae",
            "/%",
            "/%2",
            "/%+1",
        ] {
            assert_eq!(Place::of(path), None, "{path}");
        }
    }
}
