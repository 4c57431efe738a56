//! What known tools try to smuggle requests with: whatever comes of it, it is one request or none.
//!
//! The ways of writing a header are those of `smuggler` (Evan Custodio, its lists `exhaustive` and
//! `doubles`), of `http-request-smuggler` (James Kettle, PortSwigger), and of the bugs that the HTTP
//! Garden (Narf Industries) has found in servers; the ends of chunks are those of "Funky chunks"
//! (Jeppe Bonde Weikop). Only what they are about is taken from there.

use crate::harness::origin::{Seen, reply};
use crate::harness::{Client, Edge, Origin, PLAIN};

/// An edge, and what came of all that was sent through it.
struct Corpus {
    edge: Edge,
    origin: Origin,
    /// What each number was about.
    sent: Vec<Vec<u8>>,
}

/// What no body, however it is cut, may become.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

impl Corpus {
    fn new() -> Self {
        // The answer says to which request it is one.
        let origin = Origin::start(|seen, stream| {
            let told = format!("<{}>ok", seen.path());
            reply(stream, "200 OK", "", told.as_bytes())
        });
        let edge = Edge::start(&format!(
            "{PLAIN}sites:\n  localhost:\n    next: {}\ntimeouts: {{ head: 2s, body_idle: 1s }}\n",
            origin.url()
        ));
        Self { edge, origin, sent: Vec::new() }
    }

    /// Sends a request, and another one on the same connection; the statuses of the answers.
    fn send(&mut self, method: &str, version: &str, lines: &[u8], body: &str) -> Vec<u16> {
        let number = self.sent.len();
        let head = format!("{method} /first/{number} {version}\r\nHost: localhost\r\n");
        let next = format!(
            "\r\n\r\n{body}GET /next/{number} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        let bytes = [head.as_bytes(), lines, next.as_bytes()].concat();
        let mut client = Client::connect(self.edge.http());
        // It may be refused before all of it is sent.
        let _sent = client.try_send(&bytes);
        let told = client.rest();
        self.sent.push(bytes);
        let told = String::from_utf8_lossy(&told).into_owned();
        let statuses = told.match_indices("HTTP/1.").filter(|(at, _)| {
            // At the begin of an answer: nothing of the requests is said again in a body.
            *at == 0
                || told
                    .get(..*at)
                    .is_some_and(|before| before.ends_with('\n') || before.ends_with("ok"))
        });
        let statuses: Vec<u16> =
            statuses.filter_map(|(at, _)| told.get(at + 9..at + 12)?.parse().ok()).collect();
        // The application was never led to give up.
        let fine = |status: &u16| [100, 200, 400, 411, 431].contains(status);
        assert!(statuses.iter().all(fine), "{statuses:?} for {:?}", self.sent.last());
        // The first answer is to the first request and the second to the second, of this client's.
        let own = [format!("</first/{number}>"), format!("</next/{number}>")];
        let answered: Vec<_> =
            told.split('<').skip(1).filter_map(|rest| rest.split_once('>')).collect();
        let answered = answered.iter().map(|(path, _)| format!("<{path}>"));
        let answered: Vec<_> = answered.filter(|path| path.starts_with("</")).collect();
        assert!(own.starts_with(&answered), "{answered:?} for {:?}", self.sent.last());
        let good = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(answered.len(), good, "{told} for {:?}", self.sent.last());
        statuses
    }

    /// One way of writing `Transfer-Encoding: chunked`: beside a length, and alone.
    fn coding(&mut self, line: &[u8]) {
        for body in [
            format!("0\r\n\r\n{SMUGGLED}"),
            format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len()),
        ] {
            let length = format!("Content-Length: {}", body.len());
            let before = [line, b"\r\n", length.as_bytes()].concat();
            let after = [length.as_bytes(), b"\r\n", line].concat();
            self.send("POST", "HTTP/1.1", &before, &body);
            self.send("POST", "HTTP/1.1", &after, &body);
        }
        self.send("POST", "HTTP/1.1", line, "5\r\nhello\r\n0\r\n\r\n");
        self.send("GET", "HTTP/1.0", line, "5\r\nhello\r\n0\r\n\r\n");
    }

    /// Looks at all that the application has seen.
    fn judge(&self) {
        let all = self.origin.seen();
        for seen in &all {
            let told = |what: &str| panic!("{what}: {seen:?}\nof {:?}", self.what(seen));
            let words: Vec<_> = seen.line.split(' ').collect();
            let [method, path, "HTTP/1.1"] = words.as_slice() else { return told("another line") };
            let first = path.starts_with("/first/") && ["POST", "GET"].contains(method);
            let next = path.starts_with("/next/") && *method == "GET";
            if !(first || next) {
                return told("another request");
            }
            let framing: Vec<_> =
                seen.headers.iter().filter(|(name, _)| is_framing(name)).collect();
            let is_clear = match framing.as_slice() {
                [] => true,
                [(name, value)] if name.eq_ignore_ascii_case("content-length") => {
                    value.parse() == Ok(seen.body.len())
                }
                [(name, value)] => {
                    name.eq_ignore_ascii_case("transfer-encoding") && value == "chunked"
                }
                _ => false,
            };
            if !is_clear || (!first && !seen.body.is_empty()) {
                return told("an unclear end");
            }
            let is_plain = |text: &str| text.bytes().all(|byte| byte >= b' ' && byte != 0x7f);
            if !seen.headers.iter().all(|(name, value)| is_plain(name) && is_plain(value)) {
                return told("a control character");
            }
        }
        for kind in ["/first/", "/next/"] {
            let mut paths: Vec<_> =
                all.iter().map(Seen::path).filter(|path| path.starts_with(kind)).collect();
            let count = paths.len();
            paths.sort_unstable();
            paths.dedup();
            assert_eq!(paths.len(), count, "one came twice");
        }
    }

    fn what(&self, seen: &Seen) -> Option<String> {
        let number: usize = seen.path().rsplit('/').next()?.parse().ok()?;
        Some(String::from_utf8_lossy(self.sent.get(number)?).into_owned())
    }
}

/// Whatever some server could take for one of the two.
fn is_framing(name: &str) -> bool {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    ["transferencoding", "contentlength"].contains(&letters.to_ascii_lowercase().as_str())
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn a_coding_that_is_written_oddly_ends_a_request_where_it_ends_for_all() {
    let mut corpus = Corpus::new();
    let (name, value) = (&b"Transfer-Encoding"[..], &b"chunked"[..]);
    for byte in (0x01..0x21).chain(0x7f..=0xff_u8) {
        let odd = &[byte][..];
        for line in [
            // One odd place of four, then two of them.
            join(&[name, b":", odd, value]),
            join(&[name, odd, b": ", value]),
            join(&[odd, name, b": ", value]),
            join(&[name, b": ", value, odd]),
            join(&[odd, name, odd, b": ", value]),
            join(&[odd, name, b":", odd, value]),
            join(&[odd, name, b": ", value, odd]),
            join(&[name, odd, b":", odd, value]),
            join(&[name, odd, b": ", value, odd]),
            join(&[name, b":", odd, value, odd]),
        ] {
            // All but the first two ways of framing are the same for each byte.
            let body = format!("0\r\n\r\n{SMUGGLED}");
            let length = format!("\r\nContent-Length: {}", body.len());
            corpus.send("POST", "HTTP/1.1", &join(&[&line, length.as_bytes()]), &body);
            corpus.send("POST", "HTTP/1.1", &line, "5\r\nhello\r\n0\r\n\r\n");
        }
    }
    corpus.judge();
}

#[test]
fn a_coding_of_another_name_or_value_ends_a_request_where_it_ends_for_all() {
    let mut corpus = Corpus::new();
    for line in [
        &b"Transfer-Encoding: chunked"[..],
        b" Transfer-Encoding: chunked",
        b"Foo: bar\r\n Transfer-Encoding: chunked",
        b"Transfer-Encoding:\tchunked",
        b"Transfer-Encoding\t:\tchunked",
        b"Transfer Encoding: chunked",
        b"Transfer Encoding:chunked",
        b"Transfer_Encoding: chunked",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:  chunked",
        b"Transfer-Encoding:chunked",
        b"Transfer-Encoding: chunked, cow",
        b"Transfer-Encoding: cow, chunked",
        b"Transfer-Encoding: cow chunked bar",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: identity, chunked",
        b"Content-Encoding: chunked",
        b"Transfer-Encoding:\n chunked",
        b"Transfer-Encoding:\r\n chunked",
        b"Transfer-Encoding:\r\n\tchunked",
        b"Transfer-Encoding: \r\n\x0bchunked",
        b"Transfer-Encoding:\r\n \r\n chunked",
        b"Transfer-Encoding\n: chunked",
        b"Transfer-\r\n Encoding: chunked",
        b"Transfer-Encoding: \"chunked\"",
        b"Transfer-Encoding: 'chunked'",
        b"Transfer-Encoding: chunk",
        b"TrAnSFer-EnCODinG: cHuNkeD",
        b"TRANSFER-ENCODING: CHUNKED",
        b"Transfer-Encoding: chunked\r",
        b"Transfer-Encoding: chunked\t",
        b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-encoding: identity",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked,",
        b"Transfer-Encoding: ,chunked",
        b"Transfer-Encoding: chunked;q=1",
        b"Transfer-Encoding:",
        b"Transfer-Encoding: ",
        b"Transfer-Encoding",
        b"Transfer\r-Encoding: chunked",
        b"Transfer-Encoding: ch\x96nked",
        b"Transf\x82r-Encoding: chunked",
        b"Transfer-Encoding: \xe2\x80\x8bchunked",
        b"Transfer-Encoding:\xc2\xa0chunked",
        b"Transfer-Encoding:\xc2\x85chunked",
        b"Transfer\xc2\xadEncoding: chunked",
        b"Transfer\xad-Encoding: chunked",
        b"Transfer\\-Encoding: chunked",
        b"Transfer-%45ncoding: chunked",
        b"Transfer-Encoding: %63hunked",
        b"=?iso-8859-1?B?VHJhbnNmZXItRW5jb2Rpbmc=?=: chunked",
        b"Transfer-Encoding: =?iso-8859-1?B?Y2h1bmtlZA==?=",
        b"X:X\rTransfer-Encoding: chunked",
        b"X:X\nTransfer-Encoding: chunked",
        b"Foo: bar\r\rTransfer-Encoding: chunked",
        b"Foo: bar\r\n\rTransfer-Encoding: chunked",
        b"Foo: barn\n\nTransfer-Encoding: chunked",
        b"Foo: bar\0\r\nTransfer-Encoding: chunked",
        b": \r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding",
        b"Connection: close, Transfer-Encoding\r\nTransfer-Encoding: chunked",
        b"TE: chunked",
        b"Trailer: Content-Length\r\nTransfer-Encoding: chunked",
        b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\nTransfer-Encoding: chunked",
    ] {
        corpus.coding(line);
    }
    corpus.judge();
}

#[test]
fn a_length_that_is_written_oddly_ends_a_request_where_it_ends_for_all() {
    let mut corpus = Corpus::new();
    // Cut after five bytes, its rest would be a request; taken for one itself, it is none.
    let body = format!("0\r\n\r\n{SMUGGLED}");
    let length = body.len();
    for line in [
        format!("Content-Length: +{length}"),
        format!("Content-Length: -{length}"),
        format!("Content-Length: 0{length}"),
        format!("Content-Length: 000000000000000000000000{length}"),
        format!("Content-Length: {length}e0"),
        format!("Content-Length: {length}.0"),
        format!("Content-Length: 0x{length:x}"),
        "Content-Length: 5_0".to_owned(),
        "Content-Length: 5 0".to_owned(),
        "Content-Length: 5e1".to_owned(),
        "Content-Length: 5.0".to_owned(),
        "Content-Length: 5;".to_owned(),
        format!("Content-Length: 5, {length}"),
        format!("Content-Length: {length}, 5"),
        format!("Content-Length: 5\r\nContent-Length: {length}"),
        format!("Content-Length: {length}\r\nContent-Length: 5"),
        format!("Content-Length: 0, {length}"),
        format!("Content-Length: {length}, 0"),
        format!("Content-Length: {length},"),
        format!("Content-Length: {length} "),
        format!("Content-Length: {length}\t"),
        format!("Content-Length: {length} 0"),
        format!("Content-Length:\x0b{length}"),
        format!("Content-Length:\r\n {length}"),
        format!("Content-Length : {length}"),
        format!("Content_Length: {length}"),
        format!("Content-Length: \u{661}{length}"),
        format!(" Content-Length: {length}"),
        format!("X: y\nContent-Length: {length}"),
        format!("X: y\rContent-Length: {length}"),
        format!("Content-Length: 0\r\nContent-Length: {length}"),
        format!("Content-Length: {length}\r\nContent-Length: 0"),
        format!("Content-Length: {length}\r\nContent-length: {length}"),
        format!("Content-Length: {length}\r\nExpect: 100-continue"),
        format!("Content-Length: {length}\r\nExpect: x 100-continue"),
        format!("Content-Length: {length}\r\nExpect: 100-continue, 100-continue"),
        format!("Content-Length: {length}\r\nRange: bytes=0-0"),
        format!("Content-Length: {length}\r\nConnection: Content-Length"),
        format!("Content-Length: {}", u64::MAX),
        format!("Content-Length: {}", u128::MAX),
        "Content-Length: Z".to_owned(),
        "Content-Length:".to_owned(),
    ] {
        for (method, version) in [("POST", "HTTP/1.1"), ("GET", "HTTP/1.1"), ("GET", "HTTP/1.0")] {
            corpus.send(method, version, line.as_bytes(), &body);
        }
    }
    corpus.judge();
}

#[test]
fn chunks_that_end_oddly_are_no_chunks() {
    let mut corpus = Corpus::new();
    let coding = b"Transfer-Encoding: chunked";
    for end in ["\n", "\r", "\rX", "\r\r", "\0", "\x0b", "\x0c"] {
        for chunks in [
            // In an extension: where does its line end?
            format!("2;{end}xx\r\n2d\r\n0\r\n\r\n{SMUGGLED}\r\n0\r\n\r\n"),
            format!("2d;{end}0\r\n\r\n{SMUGGLED}\r\n0\r\n\r\n"),
            format!("2{end}xx\r\n0\r\n\r\n{SMUGGLED}0\r\n\r\n"),
            // After the data: what is a chunk's end?
            format!("5\r\nAAAAA{end}2d\r\n0\r\n\r\n{SMUGGLED}\r\n0\r\n\r\n"),
            format!("0{end}\r\n{SMUGGLED}"),
            format!("0\r\n{end}\r\n{SMUGGLED}"),
            format!("0\r\nX: y{end}\r\n\r\n{SMUGGLED}"),
        ] {
            let told = corpus.send("POST", "HTTP/1.1", coding, &chunks);
            assert_eq!(told, [400], "{chunks:?}");
        }
    }
    for chunks in [
        // One byte more, or less, than it says; and nothing at its end.
        "5\r\nAAAA\r\n0\r\n\r\n",
        "5\r\nAAAAAA\r\n0\r\n\r\n",
        "5\r\nAAAAA0\r\n\r\n",
        "5\r\nAAAAAXX0\r\n\r\n",
        // A number that is not quite one.
        "0_5\r\nAAAAA\r\n0\r\n\r\n",
        "0x5\r\nAAAAA\r\n0\r\n\r\n",
        "+5\r\nAAAAA\r\n0\r\n\r\n",
        "-5\r\nAAAAA\r\n0\r\n\r\n",
        "5_\r\nAAAAA\r\n0\r\n\r\n",
        "5 5\r\nAAAAA\r\n0\r\n\r\n",
        "5\t\r\nAAAAA\r\n0\r\n\r\n",
        "\t5\r\nAAAAA\r\n0\r\n\r\n",
        "5.0\r\nAAAAA\r\n0\r\n\r\n",
        "5,\r\nAAAAA\r\n0\r\n\r\n",
        "\r\n\r\n",
        ";\r\nAAAAA\r\n0\r\n\r\n",
        "g\r\nAAAAA\r\n0\r\n\r\n",
        "10000000000000005\r\nAAAAA\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nAAAAA\r\n0\r\n\r\n",
        "\u{ff15}\r\nAAAAA\r\n0\r\n\r\n",
    ] {
        let told = corpus.send("POST", "HTTP/1.1", coding, chunks);
        assert_eq!(told, [400], "{chunks:?}");
    }
    corpus.judge();
}
