//! Compressed messages, on WebSockets and in answers to polls.

use std::io::{Read as _, Write as _};

use flate2::read::GzDecoder;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use crate::harness::Edge;
use crate::harness::client::Upgraded;
use crate::harness::node::Script;
use crate::harness::socketio::{Line as _, Poller, UPGRADE, hub, hub_only, metric};

const OFFER: &str = "permessage-deflate; client_max_window_bits";
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const BUILT: &str = "vestibule_hub_messages_built_total";
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Frames as they are; the first byte tells whether one is compressed.
struct Raw(Upgraded);

impl Raw {
    /// A session in `/`, and what was answered to `offer`.
    fn open(edge: &Edge, offer: &str) -> (Self, Option<String>) {
        let mut client = edge.connect();
        let headers = [&UPGRADE[..], &[("Sec-WebSocket-Extensions", offer)]].concat();
        let answer = client.ask("GET", &hub("EIO=4&transport=websocket"), &headers, b"");
        assert_eq!(answer.status, 101);
        let agreed = answer.header("sec-websocket-extensions").map(str::to_owned);
        let mut raw = Self(client.upgraded());
        assert_eq!(raw.frame().0, 0x81);
        raw.send(0x81, b"40");
        assert!(raw.frame().1.starts_with(b"40{"));
        (raw, agreed)
    }

    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("a frame");
        let mut wide = vec![0; [0, 2, 8][usize::from(head[1].saturating_sub(125))]];
        self.0.read_exact(&mut wide).expect("its length");
        let wide = wide.into_iter().fold(0, |length, byte| length << 8 | usize::from(byte));
        let length = if head[1] < 126 { usize::from(head[1]) } else { wide };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).expect("its payload");
        (head[0], payload)
    }

    /// The next message, which must be compressed.
    #[track_caller]
    fn compressed(&mut self) -> Vec<u8> {
        let (first, payload) = self.frame();
        assert_eq!(first, 0xc1, "{}", String::from_utf8_lossy(&payload));
        let mut into = Vec::with_capacity(10_000_000);
        let whole = [&payload[..], &TAIL].concat();
        let inflated =
            Decompress::new(false).decompress_vec(&whole, &mut into, FlushDecompress::Sync);
        inflated.expect("compressed data");
        into
    }

    /// Sends one frame whose mask is zeros.
    fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match payload.len() {
            short @ ..126 => frame.push(0x80 | u8::try_from(short).expect("short")),
            medium @ ..0x10000 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(medium).expect("medium").to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.0.write_all(&frame).expect("sent");
    }

    #[track_caller]
    fn expect_close(&mut self, code: u16) {
        let (first, payload) = self.frame();
        assert_eq!((first, payload), (0x88, code.to_be_bytes().to_vec()));
    }
}

fn compress(data: &[u8]) -> Vec<u8> {
    let mut into = Vec::with_capacity(data.len() + 1000);
    let mut deflate = Compress::new(Compression::default(), false);
    deflate.compress_vec(data, &mut into, FlushCompress::Sync).expect("compressed");
    assert!(into.ends_with(&TAIL));
    into.truncate(into.len() - TAIL.len());
    into
}

fn event(length: usize) -> String {
    format!("42[\"all\",\"{}\"]", "x".repeat(length))
}

#[test]
fn nothing_is_agreed_unless_it_is_configured() {
    let edge = Edge::start(&hub_only(""));
    let (mut raw, agreed) = Raw::open(&edge, OFFER);
    assert_eq!(agreed, None);
    raw.send(0x81, event(5000).as_bytes());
    assert_eq!(raw.frame(), (0x81, event(5000).into_bytes()));
    raw.send(0xc1, &compress(b"42[\"echo\"]"));
    raw.expect_close(1002);
}

#[test]
fn an_offer_that_cannot_be_taken_is_declined() {
    let edge = Edge::start(&hub_only("compress: { above: 100B }"));
    let (mut raw, agreed) = Raw::open(&edge, "permessage-deflate; server_max_window_bits=9");
    assert_eq!(agreed, None);
    raw.send(0x81, event(5000).as_bytes());
    assert_eq!(raw.frame().0, 0x81);
    assert_eq!(Raw::open(&edge, "x-unknown, permessage-deflate").1.as_deref(), Some(AGREED));
}

#[test]
fn large_messages_are_compressed_both_ways() {
    let edge = Edge::start(&hub_only("compress: { above: 100B }"));
    let (mut raw, agreed) = Raw::open(&edge, OFFER);
    assert_eq!(agreed.as_deref(), Some(AGREED));
    // Nothing of one message helps with the next.
    for _ in 0..3 {
        raw.send(0xc1, &compress(event(5000).as_bytes()));
        assert_eq!(raw.compressed(), event(5000).into_bytes());
    }
    raw.send(0xc1, &compress(event(5).as_bytes()));
    assert_eq!(raw.frame(), (0x81, event(5).into_bytes()));
    raw.send(0x81, event(5000).as_bytes());
    assert_eq!(raw.compressed(), event(5000).into_bytes());
    // In pieces, with a ping between them; empty pieces are pieces.
    let whole = compress(event(5000).as_bytes());
    let (begin, end) = whole.split_at(whole.len() / 2);
    raw.send(0x41, begin);
    raw.send(0x89, b"ping");
    raw.send(0x00, b"");
    raw.send(0x80, end);
    assert_eq!(raw.frame(), (0x8a, b"ping".to_vec()));
    assert_eq!(raw.compressed(), event(5000).into_bytes());
}

#[test]
fn a_message_for_many_is_compressed_once() {
    let edge = Edge::start(&hub_only("compress: 100B"));
    let mut raws: Vec<Raw> = (0..20).map(|_| Raw::open(&edge, OFFER).0).collect();
    let before = metric(&edge, BUILT);
    raws[0].send(0x81, event(5000).as_bytes());
    let frames: Vec<_> = raws.iter_mut().map(Raw::frame).collect();
    assert!(frames.iter().all(|frame| *frame == frames[0]));
    assert_eq!(frames[0].0, 0xc1);
    assert_eq!(metric(&edge, BUILT) - before, 1);
}

#[test]
fn what_is_wrong_ends_the_session() {
    let edge = Edge::start(&hub_only("compress: 100B"));
    let fine = compress(event(10).as_bytes());
    let bomb = compress(&vec![b'x'; 50_000_000]);
    assert!(bomb.len() < 60_000);
    for (frames, code) in [
        // Small, but for what it would become; also in pieces.
        (vec![(0xc1, &bomb[..])], 1009),
        (vec![(0x41, &bomb[..500]), (0x80, &bomb[500..])], 1009),
        (vec![(0xc1, &[0xff, 0xff, 0xff][..])], 1007),
        (vec![(0xc1, b"42[\"echo\"]")], 1007),
        (vec![(0xc1, &compress(b"4\xff"))], 1007),
        // The bit belongs to a message's first frame, and to no control frame.
        (vec![(0x41, &fine), (0xc0, b"")], 1002),
        (vec![(0x01, b"42"), (0xc0, &fine)], 1002),
        (vec![(0xc9, &fine)], 1002),
        (vec![(0xa1, b"2")], 1002),
    ] {
        let (mut raw, _) = Raw::open(&edge, OFFER);
        for (first, payload) in &frames {
            raw.send(*first, payload);
        }
        raw.expect_close(code);
    }
}

#[test]
fn a_reload_leaves_what_was_agreed() {
    let edge = Edge::start(&hub_only("compress: 100B"));
    let (mut raw, _) = Raw::open(&edge, OFFER);
    edge.folder.write("proxy.yaml", &hub_only(""));
    assert_eq!(edge.admin("POST", "/reload").status, 200);
    let (mut after, agreed) = Raw::open(&edge, OFFER);
    assert_eq!(agreed, None);
    after.send(0x81, event(5000).as_bytes());
    assert_eq!(after.frame().0, 0x81);
    assert_eq!(raw.compressed(), event(5000).into_bytes());
}

#[test]
fn answers_to_polls_are_compressed_for_who_takes_it() {
    for (settings, encoding, packed) in [
        ("compress: 100B", "deflate, gzip;q=0.8", true),
        ("compress: 100B", "deflate", false),
        ("compress: 100B", "gzip;q=0", false),
        ("compress: 1MB", "gzip", false),
        ("", "gzip", false),
    ] {
        let edge = Edge::start(&hub_only(settings));
        let mut poller = Poller::open(&edge);
        poller.enter("/");
        poller.say(&event(5000));
        let path = poller.path().to_owned();
        let answer = poller.get.ask("GET", &path, &[("Accept-Encoding", encoding)], b"");
        assert_eq!(answer.header("content-encoding"), packed.then_some("gzip"), "{encoding}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
        let mut body = Vec::new();
        if packed {
            GzDecoder::new(answer.body.as_slice()).read_to_end(&mut body).expect("gzip");
        } else {
            body = answer.body;
        }
        assert_eq!(body, event(5000).into_bytes());
    }
}

#[test]
fn the_stock_clients_that_offer_it_and_those_that_do_not() {
    for (settings, agreed) in [("", "false"), ("compress: {}", "true"), ("compress: 1B", "true")] {
        let edge = Edge::start(&hub_only(settings));
        let url = format!("http://localhost:{}", edge.http().port());
        Script::start("deflate.mjs", &[("URL", &url), ("AGREED", agreed)]).finish();
    }
}
