//! WebSocket frames that are right in unusual ways, and those that are wrong.

use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::harness::Edge;
use crate::harness::socketio::{Heard, Line as _, Web, hub_only, masked, wait_for_metric};

fn data(payload: &[u8], kind: Data, last: bool) -> Frame {
    Frame::message(payload.to_vec(), OpCode::Data(kind), last)
}

#[test]
fn a_message_in_pieces_is_one() {
    let edge = Edge::start(&hub_only(""));
    let mut web = Web::open(&edge);
    web.enter("/");
    let event = "42[\"echo\",\"\u{20ac}\u{1f600}\"]";
    for size in [1, 2, 3, 7] {
        let pieces: Vec<&[u8]> = event.as_bytes().chunks(size).collect();
        for (number, piece) in pieces.iter().enumerate() {
            let kind = if number == 0 { Data::Text } else { Data::Continue };
            web.frame(data(piece, kind, number + 1 == pieces.len()));
        }
        web.expect(event);
    }
    // Empty pieces count as pieces.
    web.frame(data(b"", Data::Text, false));
    web.frame(data(event.as_bytes(), Data::Continue, false));
    web.frame(data(b"", Data::Continue, true));
    web.expect(event);
    let binary = "451-[\"echo\",{\"_placeholder\":true,\"num\":0}]";
    web.say(binary);
    web.frame(data(&[1, 2], Data::Binary, false));
    web.frame(data(&[3], Data::Continue, true));
    web.expect(binary);
    assert_eq!(web.hear(), Heard::Binary(vec![1, 2, 3]));
}

#[test]
fn control_frames_pass_between_pieces() {
    let edge = Edge::start(&hub_only(""));
    let mut web = Web::open(&edge);
    web.enter("/");
    web.frame(data(b"42[\"ec", Data::Text, false));
    web.frame(Frame::ping(b"are you there".to_vec()));
    assert_eq!(web.hear(), Heard::Pong(b"are you there".to_vec()));
    web.frame(Frame::pong(b"unasked".to_vec()));
    web.frame(data(b"ho\",1]", Data::Continue, true));
    web.expect("42[\"echo\",1]");
    web.frame(Frame::ping(Vec::new()));
    assert_eq!(web.hear(), Heard::Pong(Vec::new()));
    web.frame(Frame::ping(vec![7; 125]));
    assert_eq!(web.hear(), Heard::Pong(vec![7; 125]));
}

#[test]
fn frames_come_as_the_network_cuts_them() {
    let edge = Edge::start(&hub_only(""));
    let mut web = Web::open(&edge);
    web.enter("/");
    let mut bytes = Vec::new();
    for number in 0..3 {
        let event = format!("42[\"echo\",{number},\"{}\"]", "y".repeat(120 * number));
        bytes.extend(masked(0x81, event.as_bytes()));
    }
    for byte in &bytes {
        web.raw(&[*byte]);
    }
    for number in 0..3 {
        web.expect(&format!("42[\"echo\",{number},\"{}\"]", "y".repeat(120 * number)));
    }
    // Thousands at once.
    let many: Vec<u8> = (0..5000)
        .flat_map(|number| masked(0x81, format!("42[\"echo\",{number}]").as_bytes()))
        .collect();
    web.raw(&many);
    for number in 0..5000 {
        web.expect(&format!("42[\"echo\",{number}]"));
    }
}

/// What is wrong is answered with the code that RFC 6455 §7.4.1 has for it.
#[test]
fn wrong_frames_and_their_codes() {
    let edge = Edge::start(&hub_only("limits: { message: 2KB }"));
    let long = vec![b'4'; 2001];
    let half = masked(0x01, &long[..1001]);
    let rows: &[(&str, Vec<u8>, u16)] = &[
        ("no mask", b"\x81\x014".to_vec(), 1002),
        ("a reserved bit", masked(0xc1, b"4"), 1002),
        ("another reserved bit", masked(0xa1, b"4"), 1002),
        ("the last reserved bit", masked(0x91, b"4"), 1002),
        ("an opcode for data nobody knows", masked(0x83, b"4"), 1002),
        ("an opcode for control nobody knows", masked(0x8b, b""), 1002),
        ("a ping in pieces", masked(0x09, b""), 1002),
        ("a long ping", masked(0x89, &[0; 126]), 1002),
        ("a long goodbye", masked(0x88, &[0; 126]), 1002),
        ("the end of nothing", masked(0x80, b"4"), 1002),
        ("the middle of nothing", masked(0x00, b"4"), 1002),
        ("a text inside another", [masked(0x01, b"4"), masked(0x81, b"4")].concat(), 1002),
        ("a beginning inside another", [masked(0x01, b"4"), masked(0x02, b"4")].concat(), 1002),
        ("no text", masked(0x81, b"4\xff"), 1007),
        ("half a character", masked(0x81, b"4\xe2\x82"), 1007),
        ("a surrogate", masked(0x81, b"4\xed\xa0\x80"), 1007),
        ("no text, in pieces", [masked(0x01, b"4\xe2"), masked(0x80, b"(")].concat(), 1007),
        ("too long", masked(0x81, &long), 1009),
        ("too long, and only announced", b"\x82\xff\0\0\0\x01\0\0\0\0abcd".to_vec(), 1009),
        ("longer than anything", b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xffabcd".to_vec(), 1009),
        ("too long, in pieces", [half, masked(0x80, &long[..1000])].concat(), 1009),
    ];
    for (what, bytes, code) in rows {
        let mut web = Web::open(&edge);
        web.enter("/");
        web.raw(bytes);
        assert_eq!(web.hear(), Heard::Closed(Some(*code)), "{what}");
    }
    let count = |code| rows.iter().filter(|row| row.2 == code).count();
    let closes = |reason: &str| format!("vestibule_hub_closes_total{{reason=\"{reason}\"}}");
    wait_for_metric(
        &edge,
        &closes("bad_frame"),
        (count(1002) + count(1007)).try_into().expect("few"),
    );
    wait_for_metric(&edge, &closes("message_too_large"), count(1009).try_into().expect("few"));
    wait_for_metric(&edge, "vestibule_hub_sockets{namespace=\"/\"}", 0);
    wait_for_metric(&edge, "vestibule_hub_sessions{transport=\"websocket\"}", 0);
}
