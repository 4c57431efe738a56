//! Follows the requests that an HTTP/1.1 client sends, and tells where they become ambiguous; pure.
//!
//! hyper reads the requests. This stands before it, because hyper lets pass what another server on
//! the way could read otherwise: a line that ends without a carriage return, a length beside a
//! coding, several lengths, a coding before `chunked` (RFC 9112 §2.2, §6.1, §6.3).

/// What of a line is kept until the rest of it comes. Lines that matter are shorter.
const KEPT: usize = 256;
/// Blank lines before a request.
const BLANK_MAX: u8 = 4;

/// Where in the stream of requests the next byte stands.
#[derive(Debug, Default)]
pub struct Requests {
    state: State,
    head: Head,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// More of that line has come than was kept.
    long: bool,
    /// The last byte of that line was a carriage return.
    returned: bool,
    blank: u8,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a request line.
    #[default]
    Start,
    Lines,
    Length(u64),
    Size,
    Chunk(u64),
    /// Before the CRLF that ends a chunk's data; `true` after its first byte.
    ChunkEnd(bool),
    Trailers,
    /// Another protocol may have begun.
    Opaque,
}

/// What a head has said so far.
#[derive(Debug, Default)]
struct Head {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    old: bool,
}

/// These bytes can be read in two ways, from this one on.
#[derive(Debug, PartialEq, Eq)]
pub struct Ambiguous {
    pub at: usize,
}

impl Requests {
    /// True after a request's first byte and before its last.
    pub fn is_amid(&self) -> bool {
        !self.line.is_empty() || !matches!(self.state, State::Start | State::Opaque)
    }

    /// Follows the next bytes.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<(), Ambiguous> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.state {
                State::Opaque => return Ok(()),
                State::Length(left) => {
                    let (here, left) = pass(rest, left);
                    self.state = if left == 0 { State::Start } else { State::Length(left) };
                    here
                }
                State::Chunk(left) => {
                    let (here, left) = pass(rest, left);
                    self.state =
                        if left == 0 { State::ChunkEnd(false) } else { State::Chunk(left) };
                    here
                }
                State::ChunkEnd(returned) => {
                    let wanted = if returned { b'\n' } else { b'\r' };
                    if rest.first() != Some(&wanted) {
                        return Err(Ambiguous { at });
                    }
                    self.state = if returned { State::Size } else { State::ChunkEnd(true) };
                    1
                }
                State::Start | State::Lines | State::Size | State::Trailers => {
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        self.keep(rest);
                        return Ok(());
                    };
                    let line = rest.get(..end).unwrap_or_default();
                    self.whole(line).map_err(|()| Ambiguous { at: at + end })?;
                    end + 1
                }
            };
        }
        Ok(())
    }

    fn keep(&mut self, part: &[u8]) {
        // With its carriage return.
        let room = (KEPT + 1).saturating_sub(self.line.len());
        self.line.extend_from_slice(part.get(..room).unwrap_or(part));
        self.long |= part.len() > room;
        self.returned = part.last().map_or(self.returned, |last| *last == b'\r');
    }

    /// A line without its line feed, after what was kept of it.
    fn whole(&mut self, rest: &[u8]) -> Result<(), ()> {
        if self.line.is_empty() {
            let Some((b'\r', line)) = rest.split_last() else { return Err(()) };
            let kept = line.get(..KEPT);
            return self
                .line(kept.unwrap_or(line), kept.is_some_and(|kept| kept.len() < line.len()));
        }
        self.keep(rest);
        let mut line = std::mem::take(&mut self.line);
        let long = std::mem::take(&mut self.long);
        if !self.returned {
            return Err(());
        }
        line.pop();
        let done = self.line(&line, long);
        line.clear();
        self.line = line;
        done
    }

    /// A line without its end; of a `long` one only the beginning.
    fn line(&mut self, line: &[u8], long: bool) -> Result<(), ()> {
        match self.state {
            State::Start if line.is_empty() => {
                self.blank += 1;
                if self.blank > BLANK_MAX { Err(()) } else { Ok(()) }
            }
            State::Start => {
                self.blank = 0;
                self.head = Head { old: line.ends_with(b" HTTP/1.0"), ..Head::default() };
                self.state = State::Lines;
                Ok(())
            }
            State::Lines if line.is_empty() => {
                self.state = self.head.body()?;
                Ok(())
            }
            State::Lines => self.head.line(line, long),
            State::Size => {
                let size = if long { None } else { size(line) };
                self.state = match size.ok_or(())? {
                    0 => State::Trailers,
                    size => State::Chunk(size),
                };
                Ok(())
            }
            State::Trailers if line.is_empty() => {
                self.state = State::Start;
                Ok(())
            }
            // Trailers are lines as headers are; what they say of a body comes too late.
            _ if line.starts_with(b" ") || line.starts_with(b"\t") => Err(()),
            _ => Ok(()),
        }
    }
}

impl Head {
    fn line(&mut self, line: &[u8], long: bool) -> Result<(), ()> {
        match line.first() {
            // A line that goes on with the one before.
            Some(b' ' | b'\t') => return Err(()),
            Some(b'c' | b'C' | b't' | b'T' | b'u' | b'U') => (),
            _ => return Ok(()),
        }
        let Some(colon) = memchr::memchr(b':', line) else { return Ok(()) };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            if long || self.length.is_some() {
                return Err(());
            }
            self.length = Some(decimal(value).ok_or(())?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if long || self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(());
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        }
        // As soon as both are there, so that hyper never sees the end of such a head.
        if self.chunked && (self.length.is_some() || self.old) { Err(()) } else { Ok(()) }
    }

    /// What follows the head.
    fn body(&self) -> Result<State, ()> {
        match self.length {
            _ if self.chunked => Ok(State::Size),
            Some(length @ 1..) => Ok(State::Length(length)),
            _ if self.upgrade => Ok(State::Opaque),
            _ => Ok(State::Start),
        }
    }
}

/// How many of the bytes belong to what is left, and what is left then.
fn pass(rest: &[u8], left: u64) -> (usize, u64) {
    let here = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
    (here, left - here as u64)
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A chunk's size; its extensions are passed over.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    // White space stands only before an extension, if at all.
    let digits = if digits.len() < line.len() { digits.trim_ascii_end() } else { digits };
    let clean = !line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
    if digits.is_empty() || digits.len() > 16 || !clean {
        return None;
    }
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How many bytes are fine, if not all; the same however they come.
    fn follow(bytes: &[u8], step: usize) -> Result<State, usize> {
        let (mut requests, mut done) = (Requests::default(), 0);
        for piece in bytes.chunks(step) {
            requests.follow(piece).map_err(|Ambiguous { at }| done + at)?;
            done += piece.len();
        }
        Ok(requests.state)
    }

    fn check(bytes: &str, expected: Result<State, &str>) {
        for step in [1, 2, 3, 7, 1000] {
            let found = follow(bytes.as_bytes(), step);
            let expected = expected.map_err(str::len);
            assert_eq!(found, expected, "{bytes:?} by {step}");
        }
    }

    #[test]
    fn clear_requests_follow_each_other() {
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(State::Start));
        check("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HT", Ok(State::Start));
        check(
            "POST / HTTP/1.1\r\ncontent-LENGTH:  3 \r\n\r\nabcGET / HTTP/1.1\r\n",
            Ok(State::Lines),
        );
        check("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nb", Ok(State::Start));
        check("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na", Ok(State::Length(2)));
        check("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Ok(State::Start));
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n";
        check(
            &format!("{chunked}3;a=b\r\na\nb\r\n0A\r\n0123456789\r\n0\r\nx-t: 1\r\n\r\n"),
            Ok(State::Start),
        );
        check(&format!("{chunked}3 ;a\r\nabc"), Ok(State::ChunkEnd(false)));
        check("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\x01\x02\n", Ok(State::Opaque));
        let long = "x".repeat(1000);
        check(
            &format!("GET /{long} HTTP/1.1\r\nx-a: {long}\r\n{long}: 1\r\n\r\n"),
            Ok(State::Start),
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways() {
        for (fine, rest) in [
            ("GET / HTTP/1.1", "\nHost: a\n\n"),
            ("GET / HTTP/1.1\r\nHost: a", "\n\r\n"),
            ("GET / HTTP/1.1\r\nHost: a\r\n", "\n"),
            ("\r\n\r\n\r\n\r\n\r", "\nGET / HTTP/1.1\r\n\r\n"),
            ("GET / HTTP/1.1\r\nx-a: b\r\n folded\r", "\n\r\n"),
            ("GET / HTTP/1.1\r\n\tfolded: b\r", "\n\r\n"),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\ncontent-length: 3\r", "\n\r\n"),
            ("POST / HTTP/1.1\r\nContent-Length: 3, 3\r", "\n\r\n"),
            ("POST / HTTP/1.1\r\nContent-Length: +3\r", "\n\r\n"),
            ("POST / HTTP/1.1\r\nContent-Length: 0x3\r", "\n\r\n"),
            ("POST / HTTP/1.1\r\nContent-Length:\r", "\n\r\n"),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r", "\n\r\n"),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r", "\n\r\n"),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r", "\n\r\n"),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r",
                "\n\r\n",
            ),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r", "\n\r\n"),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r", "\n\r\n"),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: identity\r", "\n\r\n"),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\x01\r", "\n\r\n"),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r", "\n\r\n"),
        ] {
            check(&format!("{fine}{rest}"), Err(fine));
        }
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (fine, rest) in [
            ("3", "\nabc\r\n"),
            ("3\r\nabc", "d\r\n"),
            ("3\r\nabc", "\n0\r\n\r\n"),
            ("3\r\nabc\r", "x"),
            ("0x3\r", "\nabc\r\n"),
            ("+3\r", "\nabc\r\n"),
            (" 3\r", "\nabc\r\n"),
            ("3 \r", "\nabc\r\n"),
            ("\r", "\nabc\r\n"),
            ("3;a\rb\r", "\nabc\r\n"),
            ("00000000000000003\r", "\nabc\r\n"),
            ("0\r\n", "\n"),
            ("0\r\nx: 1\r\n y\r", "\n\r\n"),
        ] {
            check(&format!("{chunked}{fine}{rest}"), Err(&format!("{chunked}{fine}")));
        }
    }

    #[test]
    fn a_long_line_that_matters_is_refused() {
        let long = " ".repeat(400);
        let head = format!("POST / HTTP/1.1\r\nContent-Length:{long}3\r\n\r\n");
        assert!(follow(head.as_bytes(), 10).is_err());
        let chunk = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;{long}\r\n");
        assert!(follow(chunk.as_bytes(), 10).is_err());
    }

    proptest! {
        #[test]
        fn the_pieces_make_no_difference(
            lines in prop::collection::vec("(GET / HTTP/1.1|Content-Length: [0-9]|Transfer-Encoding: chunked|[0-3]|[a-c]{0,3})(\r\n|\n|\r)?", 0..20),
            step in 1_usize..40,
        ) {
            let bytes = lines.concat().into_bytes();
            prop_assert_eq!(follow(&bytes, step), follow(&bytes, bytes.len().max(1)));
        }
    }
}
