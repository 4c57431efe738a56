//! Which parts of a file a request asks for (RFC 9110 §14), and how several are sent at once; pure.

use std::fmt::Write as _;

/// The first and the last byte of a part.
pub type Range = (u64, u64);

/// What a `Range` header comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is none, or asks for so much that all of it costs less.
    Whole,
    /// One or more, in the order they were asked for.
    Parts(Vec<Range>),
    /// 416
    Unsatisfiable,
}

/// More are answered with the whole: each costs a head of its own.
const PARTS_MAX: usize = 64;

/// What is asked for of a file with so many bytes. Parts that are not there are left out; those that
/// come to more than the file, because they overlap, are answered with it.
pub fn asked(range: &str, length: u64) -> Asked {
    let Some((unit, set)) = range.split_once('=') else { return Asked::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Asked::Whole;
    }
    let (mut parts, mut named) = (Vec::new(), 0);
    // Empty members of a list are passed over (RFC 9110 §5.6.1.2).
    for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        named += 1;
        match part(spec, length) {
            None => return Asked::Whole,
            Some(_) if named > PARTS_MAX => return Asked::Whole,
            Some(found) => parts.extend(found),
        }
    }
    let sum = parts.iter().fold(0_u64, |sum, (from, to)| sum.saturating_add(to - from + 1));
    match (named, parts.len()) {
        (0, _) => Asked::Whole,
        (_, 0) => Asked::Unsatisfiable,
        (_, 2..) if sum > length => Asked::Whole,
        _ => Asked::Parts(parts),
    }
}

/// `None` if it is no range; `Some(None)` if the file has nothing there.
fn part(spec: &str, length: u64) -> Option<Option<Range>> {
    let (from, to) = spec.split_once('-')?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // What is more than can be counted is beyond every file.
        is_number.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (from, to) = match (number(from), number(to)) {
        (Some(from), Some(to)) if from <= to => (from, to),
        (Some(from), None) if to.is_empty() => (from, u64::MAX),
        (None, Some(0)) if from.is_empty() => return Some(None),
        (None, Some(count)) if from.is_empty() => (length.saturating_sub(count), u64::MAX),
        _ => return None,
    };
    let last = length.checked_sub(1);
    Some(last.filter(|last| from <= *last).map(|last| (from, to.min(last))))
}

/// What stands before each part of a `multipart/byteranges`, and at its end.
pub struct Multipart {
    pub heads: Vec<String>,
    pub end: String,
    pub content_type: String,
}

/// `boundary` is in none of the parts; `kind` is what each of them is.
pub fn multipart(ranges: &[Range], length: u64, kind: &str, boundary: &str) -> Multipart {
    let head = |(from, to): &Range| {
        let mut head = format!("\r\n--{boundary}\r\n");
        // Writing to a String cannot fail.
        let _written = write!(
            head,
            "Content-Type: {kind}\r\nContent-Range: bytes {from}-{to}/{length}\r\n\r\n"
        );
        head
    };
    Multipart {
        heads: ranges.iter().map(head).collect(),
        end: format!("\r\n--{boundary}--\r\n"),
        content_type: format!("multipart/byteranges; boundary={boundary}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_that_are_there() {
        let parts = |all: &[Range]| Asked::Parts(all.to_vec());
        for (range, expected) in [
            ("bytes=0-0", parts(&[(0, 0)])),
            ("bytes=2-4", parts(&[(2, 4)])),
            ("Bytes=5-", parts(&[(5, 9)])),
            ("bytes=-3", parts(&[(7, 9)])),
            ("bytes=-30", parts(&[(0, 9)])),
            ("bytes=9-99999999999999999999999", parts(&[(9, 9)])),
            ("bytes=10-", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=4-2", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=,", Asked::Whole),
            ("lines=0-1", Asked::Whole),
            ("0-1", Asked::Whole),
            // Several, in the order they are asked for.
            ("bytes=0-1,3-4", parts(&[(0, 1), (3, 4)])),
            ("bytes=8-, ,0-0,", parts(&[(8, 9), (0, 0)])),
            ("bytes=0-1,20-30,-0", parts(&[(0, 1)])),
            ("bytes=20-30,10-", Asked::Unsatisfiable),
            ("bytes=0-1,x", Asked::Whole),
            ("bytes=0-1,4-2", Asked::Whole),
            // More than there is.
            ("bytes=0-9,0-9", Asked::Whole),
            ("bytes=0-,1-,2-", Asked::Whole),
            ("bytes=0-4,5-9", parts(&[(0, 4), (5, 9)])),
        ] {
            assert_eq!(asked(range, 10), expected, "{range}");
        }
        assert_eq!(asked("bytes=0-", 0), Asked::Unsatisfiable);
        assert_eq!(asked("bytes=-5", 0), Asked::Unsatisfiable);
        let many = |count: usize| {
            let specs: Vec<_> = (0..count).map(|at| format!("{at}-{at}")).collect();
            asked(&format!("bytes={}", specs.join(",")), 1000)
        };
        assert!(matches!(many(PARTS_MAX), Asked::Parts(parts) if parts.len() == PARTS_MAX));
        assert_eq!(many(PARTS_MAX + 1), Asked::Whole);
    }

    #[test]
    fn each_part_says_where_it_is_from() {
        let all = multipart(&[(0, 1), (7, 9)], 10, "text/css", "xyz");
        assert_eq!(all.content_type, "multipart/byteranges; boundary=xyz");
        let head = "\r\n--xyz\r\nContent-Type: text/css\r\nContent-Range: bytes 7-9/10\r\n\r\n";
        assert_eq!(all.heads.get(1).map(String::as_str), Some(head));
        assert_eq!((all.heads.len(), all.end.as_str()), (2, "\r\n--xyz--\r\n"));
    }
}
