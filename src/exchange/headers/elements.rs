//! The elements of a `Forwarded` header (RFC 7239 §4): who asked whom, by which word and for which
//! host; pure.
//!
//! Strict: whoever reads past what it does not understand believes what somebody else has written.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Elements that are read. Every server on the way adds one.
pub const ELEMENTS_MAX: usize = 32;

/// What one server has said of the request that it was asked. Values are without their quotes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Element<'a> {
    pub node: Option<Cow<'a, str>>,
    pub host: Option<Cow<'a, str>>,
    pub proto: Option<Cow<'a, str>>,
    by: bool,
}

/// It is not as RFC 7239 has it.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Puts the elements of one line behind those of the lines before it.
pub fn read<'a>(line: &'a str, elements: &mut Vec<Element<'a>>) -> Result<(), Malformed> {
    let mut rest = line.trim_start_matches(SPACE);
    while !rest.is_empty() {
        let mut element = Element::default();
        let mut empty = true;
        loop {
            // A pair may be missing, as may whole elements of a list (RFC 9110 §5.6.1.2).
            if !rest.is_empty() && !rest.starts_with([';', ',']) {
                rest = element.pair(rest)?.trim_start_matches(SPACE);
                empty = false;
            }
            match rest.strip_prefix(';') {
                Some(after) => rest = after.trim_start_matches(SPACE),
                None => break,
            }
        }
        if !empty {
            if elements.len() == ELEMENTS_MAX {
                return Err(Malformed);
            }
            elements.push(element);
        }
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start_matches(SPACE),
            None if rest.is_empty() => rest,
            None => return Err(Malformed),
        };
    }
    Ok(())
}

const SPACE: [char; 2] = [' ', '\t'];

impl<'a> Element<'a> {
    /// Takes a pair off the text, and returns what follows.
    fn pair(&mut self, text: &'a str) -> Result<&'a str, Malformed> {
        let (name, rest) = token(text);
        let rest = rest.strip_prefix('=').filter(|_| !name.is_empty()).ok_or(Malformed)?;
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => match token(rest) {
                ("", _) => return Err(Malformed),
                (value, rest) => (Cow::Borrowed(value), rest),
            },
        };
        let place = match name {
            name if name.eq_ignore_ascii_case("for") => &mut self.node,
            name if name.eq_ignore_ascii_case("host") => &mut self.host,
            name if name.eq_ignore_ascii_case("proto") => &mut self.proto,
            name if name.eq_ignore_ascii_case("by") && self.by => return Err(Malformed),
            name if name.eq_ignore_ascii_case("by") => {
                self.by = true;
                return Ok(rest);
            }
            // Somebody's own words.
            _ => return Ok(rest),
        };
        match place.replace(value) {
            None => Ok(rest),
            Some(_) => Err(Malformed),
        }
    }
}

/// The letters of a token at the front (RFC 9110 §5.6.2), and what follows.
fn token(text: &str) -> (&str, &str) {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let end = text.bytes().position(|byte| !letter(byte)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// What stands before the closing quote, and what follows (RFC 9110 §5.6.4).
fn unquoted(text: &str) -> Result<(Cow<'_, str>, &str), Malformed> {
    let end = text.find(['"', '\\']).ok_or(Malformed)?;
    let (plain, rest) = text.split_at(end);
    if let Some(after) = rest.strip_prefix('"') {
        return Ok((Cow::Borrowed(plain), after));
    }
    let mut value = plain.to_owned();
    let mut letters = rest.chars();
    loop {
        match letters.next().ok_or(Malformed)? {
            '"' => return Ok((Cow::Owned(value), letters.as_str())),
            '\\' => value.push(letters.next().ok_or(Malformed)?),
            letter => value.push(letter),
        }
    }
}

/// Whom `for` names: `None` if it does not want to say, by `unknown` or a name of its own
/// (RFC 7239 §6).
pub fn address(node: &str) -> Result<Option<IpAddr>, Malformed> {
    let (name, port) = match node.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']').ok_or(Malformed)?;
            let address = inside.parse::<Ipv6Addr>().map_err(|_error| Malformed)?;
            let port = after.strip_prefix(':');
            if port.is_none() && !after.is_empty() {
                return Err(Malformed);
            }
            (Some(IpAddr::from(address)), port)
        }
        None => {
            let (name, port) = match node.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (node, None),
            };
            let hidden = name.eq_ignore_ascii_case("unknown") || is_obfuscated(name);
            let address = || name.parse::<Ipv4Addr>().map_err(|_error| Malformed);
            (if hidden { None } else { Some(IpAddr::from(address()?)) }, port)
        }
    };
    let is_port = |port: &str| {
        (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit())
    };
    match port {
        Some(port) if !is_port(port) && !is_obfuscated(port) => Err(Malformed),
        _ => Ok(name.map(|address| address.to_canonical())),
    }
}

fn is_obfuscated(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.strip_prefix('_').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(letter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(lines: &[&str], expected: Option<&[[&str; 3]]>) {
        let mut elements = Vec::new();
        let read = lines.iter().try_for_each(|line| read(line, &mut elements));
        let text = |value: &Option<Cow<'_, str>>| value.as_deref().unwrap_or("-").to_owned();
        let found = elements
            .iter()
            .map(|element| [&element.node, &element.host, &element.proto].map(text))
            .collect::<Vec<_>>();
        let expected = expected.map(|all| all.iter().map(|one| one.map(str::to_owned)).collect());
        assert_eq!(read.is_ok().then_some(found), expected, "{lines:?}");
    }

    #[test]
    fn each_server_has_said_what_it_was_asked() {
        check(&["for=192.0.2.60"], Some(&[["192.0.2.60", "-", "-"]]));
        check(
            &["For=\"[2001:db8:cafe::17]:4711\";proto=https;by=203.0.113.43;host=a.example"],
            Some(&[["[2001:db8:cafe::17]:4711", "a.example", "https"]]),
        );
        check(
            &["for=192.0.2.43, for=198.51.100.17", "for=_x;secret=\"a,b;c\""],
            Some(&[["192.0.2.43", "-", "-"], ["198.51.100.17", "-", "-"], ["_x", "-", "-"]]),
        );
        check(
            &["for=unknown; Host=\"a.example:8443\" ;\tproto=http"],
            Some(&[["unknown", "a.example:8443", "http"]]),
        );
        check(&["host=\"a\\\"b\\\\c\""], Some(&[["-", "a\"b\\c", "-"]]));
        check(&["", " , ,;, for=_a ,;;"], Some(&[["_a", "-", "-"]]));
    }

    #[test]
    fn nothing_is_read_past_what_is_not_understood() {
        for line in [
            "for",
            "for=",
            "=a",
            "for =a",
            "for= a",
            "for=a b",
            "for=1.2.3.4:80",
            "for=[::1]",
            "for=\"a",
            "for=\"a\\",
            "for=\"a\"b",
            "for=a;for=b",
            "by=a;by=b",
            "host=a;proto=http;Host=a",
            "for=a for=b",
            "for=ä",
            "\u{b}for=a",
        ] {
            check(&[line], None);
        }
        check(&[&"for=_a,".repeat(ELEMENTS_MAX)], Some(&[["_a", "-", "-"]; ELEMENTS_MAX]));
        check(&[&"for=_a,".repeat(ELEMENTS_MAX), "for=_b"], None);
    }

    #[test]
    fn who_is_named_and_who_does_not_want_to_be() {
        let address = |node: &str| address(node).map(|address| address.map(|a| a.to_string()));
        for (node, expected) in [
            ("192.0.2.60", "192.0.2.60"),
            ("192.0.2.60:80", "192.0.2.60"),
            ("192.0.2.60:_p", "192.0.2.60"),
            ("[2001:DB8::17]", "2001:db8::17"),
            ("[::ffff:192.0.2.60]:65535", "192.0.2.60"),
        ] {
            assert_eq!(address(node), Ok(Some(expected.to_owned())), "{node}");
        }
        for node in ["unknown", "Unknown:1", "_hidden", "_SEVKISEK.a-b_c:_x"] {
            assert_eq!(address(node), Ok(None), "{node}");
        }
        for node in [
            "",
            "_",
            "_a b",
            "localhost",
            "1.2.3",
            "01.2.3.4",
            "1.2.3.4:",
            "1.2.3.4:123456",
            "1.2.3.4:_",
            "1.2.3.4:+1",
            "[::1",
            "[::1]80",
            "[1.2.3.4]",
            "::1",
            "[::g]",
            "[fe80::1%1]",
        ] {
            assert_eq!(address(node), Err(Malformed), "{node}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_out_as_it_was(
            values in prop::collection::vec("[ -~]{0,8}", 1..6),
            space in "[ \t]{0,2}",
        ) {
            let quoted = |value: &String| {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                format!("x=\"{value}\"{space};{space}host=\"{value}\"")
            };
            let line = values.iter().map(quoted).collect::<Vec<_>>().join(&format!("{space},{space}"));
            let mut elements = Vec::new();
            prop_assert_eq!(read(&line, &mut elements), Ok(()));
            let hosts: Vec<_> = elements.iter().filter_map(|one| one.host.as_deref()).collect();
            prop_assert_eq!(hosts, values);
        }

        #[test]
        fn any_text_is_read_to_its_end_or_not_at_all(line in "[a-c=;,\" \\\\]{0,24}") {
            let mut elements = Vec::new();
            if read(&line, &mut elements).is_ok() {
                let doubled = format!("{line},{line}");
                let mut twice = Vec::new();
                prop_assert_eq!(read(&doubled, &mut twice), Ok(()));
                prop_assert_eq!(twice.len(), 2 * elements.len());
            }
        }
    }
}
