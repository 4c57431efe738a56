//! The one form of a path that is compared with patterns; pure.
//!
//! Two paths that mean the same to an application must not meet different routes: what is guarded
//! at `/admin` is guarded at `/%61dmin` and `//admin` too. What has no clear meaning is refused.

use std::borrow::Cow;

/// Why a path is answered by nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPath {
    /// `%` without two hexadecimal digits behind it.
    Escape,
    /// An escaped control character.
    Control,
    /// `\` or `%5C`: a slash to some applications.
    Backslash,
    /// `.` or `..` as a segment, escaped or not. Browsers resolve them before they ask.
    Dots,
    /// Bytes that are no UTF-8: overlong forms of dots and slashes among them.
    Encoding,
}

/// The path with what needs no escape unescaped, and what needs one escaped as `%2F`: in capitals.
///
/// Slashes side by side are one. An escaped slash stays escaped: see `opened`.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, BadPath> {
    if is_canonical(path) {
        return Ok(Cow::Borrowed(path));
    }
    let mut out = Writer { text: String::with_capacity(path.len()), bytes: Vec::new() };
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let byte = after.first_chunk::<2>().and_then(unescaped).ok_or(BadPath::Escape)?;
                rest = after.get(2..).unwrap_or_default();
                out.escaped(byte)?;
            }
            b'/' => out.slash(),
            byte => out.byte(*byte)?,
        }
    }
    // A slash cannot be a part of a character, so the whole is as valid as its segments.
    std::str::from_utf8(&out.bytes).map_err(|_error| BadPath::Encoding)?;
    if out.text.split('/').any(is_dots) { Err(BadPath::Dots) } else { Ok(Cow::Owned(out.text)) }
}

/// A canonical path as an application reads it that takes escaped slashes for slashes; `None` if
/// there are none.
pub fn opened(path: &str) -> Result<Option<String>, BadPath> {
    if !path.contains("%2F") {
        return Ok(None);
    }
    let open = path.replace("%2F", "/");
    canonical(&open).map(|path| Some(path.into_owned()))
}

/// Nearly all paths are; nothing is built for them.
fn is_canonical(path: &str) -> bool {
    // What the segment is so far: nothing, one dot, two, or something else.
    let (mut dots, mut before, mut named) = (0, b' ', false);
    for byte in path.bytes() {
        let ends = byte == b'/' || byte == b';';
        if ends && !named && (dots == 1 || dots == 2) {
            return false;
        }
        match byte {
            b'/' if before == b'/' => return false,
            b'/' => (dots, named) = (0, false),
            b'.' => dots += usize::from(!named),
            byte if is_plain(byte) => named = true,
            _ => return false,
        }
        before = byte;
    }
    named || !(dots == 1 || dots == 2)
}

/// Also with parameters behind it, which some applications drop before they look (`..;x=1`).
fn is_dots(segment: &str) -> bool {
    let name = segment.split(';').next().unwrap_or_default();
    name == "." || name == ".."
}

fn unescaped(digits: &[u8; 2]) -> Option<u8> {
    let value =
        |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(value(digits[0])? << 4 | value(digits[1])?)
}

/// What stands for itself in a segment (RFC 3986 §3.3, pchar).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

struct Writer {
    text: String,
    /// The same, unescaped.
    bytes: Vec<u8>,
}

impl Writer {
    fn slash(&mut self) {
        if !self.text.ends_with('/') {
            self.text.push('/');
        }
        self.bytes.push(b'/');
    }

    fn escaped(&mut self, byte: u8) -> Result<(), BadPath> {
        match byte {
            b'/' => self.escape(byte),
            byte => return self.byte(byte),
        }
        Ok(())
    }

    fn byte(&mut self, byte: u8) -> Result<(), BadPath> {
        match byte {
            b'\\' => return Err(BadPath::Backslash),
            0..0x20 | 0x7f => return Err(BadPath::Control),
            byte if is_plain(byte) => {
                self.text.push(char::from(byte));
                self.bytes.push(byte);
            }
            byte => self.escape(byte),
        }
        Ok(())
    }

    fn escape(&mut self, byte: u8) {
        self.text.push('%');
        for digit in [byte >> 4, byte & 15] {
            let digit = char::from_digit(u32::from(digit), 16).unwrap_or('0');
            self.text.push(digit.to_ascii_uppercase());
        }
        self.bytes.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_means_the_same_is_compared_as_the_same() {
        for (path, expected) in [
            ("/", "/"),
            ("/admin/a%20b", "/admin/a%20b"),
            ("/%61dmin", "/admin"),
            ("//admin///x/", "/admin/x/"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%40b%3a%2B%7e", "/a@b:+~"),
            ("/%5bslug%5D", "/%5Bslug%5D"),
            ("/[slug]\"{}", "/%5Bslug%5D%22%7B%7D"),
            ("/a%252fb", "/a%252fb"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/a.b/...", "/a.b/..."),
            ("*", "*"),
        ] {
            assert_eq!(canonical(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_has_no_clear_meaning_is_refused() {
        for (path, expected) in [
            ("/a/../b", BadPath::Dots),
            ("/a/%2e%2E", BadPath::Dots),
            ("/.", BadPath::Dots),
            ("/a/..;x=1/b", BadPath::Dots),
            ("/a/%2e%3b/b", BadPath::Dots),
            ("/a%", BadPath::Escape),
            ("/a%2", BadPath::Escape),
            ("/a%+1", BadPath::Escape),
            ("/a%zz", BadPath::Escape),
            ("/a%00", BadPath::Control),
            ("/a%0d%0a", BadPath::Control),
            ("/a%7f", BadPath::Control),
            ("/a\\b", BadPath::Backslash),
            ("/a%5cb", BadPath::Backslash),
            ("/a%c0%afb", BadPath::Encoding),
            ("/a%c0%ae%c0%ae/b", BadPath::Encoding),
            ("/%ff", BadPath::Encoding),
            ("/%e2%82/", BadPath::Encoding),
        ] {
            assert_eq!(canonical(path), Err(expected), "{path}");
        }
    }

    #[test]
    fn an_escaped_slash_can_be_opened() {
        assert_eq!(opened("/a/b"), Ok(None));
        assert_eq!(opened("/a%2Fb"), Ok(Some("/a/b".to_owned())));
        assert_eq!(opened("/a%2F%2Fb"), Ok(Some("/a/b".to_owned())));
        assert_eq!(opened("/a%2F..%2Fb"), Err(BadPath::Dots));
    }

    /// The same rule by rule.
    fn is_canonical_slowly(path: &str) -> bool {
        let plain = |byte: u8| byte == b'/' || is_plain(byte);
        path.bytes().all(plain) && !path.contains("//") && !path.split('/').any(is_dots)
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_the_rules_say(path in "([a.;/%é]|//|\\.\\.){0,10}") {
            prop_assert_eq!(is_canonical(&path), is_canonical_slowly(&path), "{}", path);
        }

        #[test]
        fn once_is_enough(path in "/([a-z/.;%]|%[0-9a-fA-F]{2}|é){0,12}") {
            if let Ok(once) = canonical(&path) {
                prop_assert!(is_canonical(&once) || once.contains('%'), "{}", once);
                let again = canonical(&once);
                prop_assert_eq!(again.as_deref(), Ok(once.as_ref()));
            }
        }
    }
}
