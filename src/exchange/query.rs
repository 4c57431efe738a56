//! The query of a URL; pure.

use std::borrow::Cow;

/// Names and values as they stand, decoded; a name alone has an empty value.
pub fn fields(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// A component of a query, decoded (`+` is a space).
pub fn decode(text: &str) -> Cow<'_, str> {
    if text.contains(['%', '+']) { Cow::Owned(decoded(text, b' ')) } else { Cow::Borrowed(text) }
}

/// A component of a path, decoded (`+` is itself).
pub fn decode_path(text: &str) -> Cow<'_, str> {
    if text.contains('%') { Cow::Owned(decoded(text, b'+')) } else { Cow::Borrowed(text) }
}

fn decoded(text: &str, plus: u8) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.first_chunk::<2>();
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = after;
        match (first, decoded) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', _) => bytes.push(plus),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_their_order() {
        let found = |query: &str| -> Vec<String> {
            fields(query).map(|(name, value)| format!("{name}|{value}")).collect()
        };
        let none: Vec<String> = Vec::new();
        assert_eq!(none, found(""));
        assert_eq!(none, found("&&"));
        assert_eq!(vec!["a|1", "b|", "|2", "a|x=y z"], found("a=1&b&=2&a=x=y+z"));
    }

    #[test]
    fn components_are_decoded() {
        for (text, decoded) in [
            ("a", "a"),
            ("a%20b+c", "a b c"),
            ("%", "%"),
            ("%zz", "%zz"),
            ("%+5", "% 5"),
            ("%E2%82%AC", "\u{20ac}"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(decode(text), decoded);
        }
        for (text, decoded) in [("a+b", "a+b"), ("a%2bb+%20c", "a+b+ c"), ("%", "%")] {
            assert_eq!(decode_path(text), decoded);
        }
    }
}
