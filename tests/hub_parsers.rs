//! Clients that write msgpack among those that write JSON.

use crate::harness::Edge;
use crate::harness::node::Script;
use crate::harness::socketio::{Heard, Line, Poller, Web, hub_only};

const CONNECT: &[u8] = b"\x83\xa4type\x00\xa4data\xd4\x00\x00\xa3nsp\xa1/";
const TELL: &[u8] = b"\x83\xa4type\x02\xa4data\x92\xa4tell\xc4\x01\x07\xa3nsp\xa1/";

/// The hub of a test, and where it is.
fn start() -> (Edge, String) {
    let edge = Edge::start(&hub_only(""));
    let url = format!("http://localhost:{}", edge.http().port());
    (edge, url)
}

#[test]
fn the_stock_clients_with_both_parsers_in_one_room() {
    let (_edge, url) = start();
    for transports in ["websocket", "polling", "polling,websocket"] {
        Script::start("msgpack.mjs", &[("URL", &url), ("TRANSPORTS", transports)]).finish();
    }
}

fn binary(line: &mut impl Line) -> Vec<u8> {
    match line.hear() {
        Heard::Binary(data) => data,
        other => panic!("heard {other:?} in place of data"),
    }
}

#[test]
fn the_first_message_shows_the_parser() {
    let (edge, _) = start();
    let mut json = Web::open(&edge);
    json.enter("/");
    let (mut web, mut poller) = (Web::open(&edge), Poller::open(&edge));
    enter_packed(&mut web);
    enter_packed(&mut poller);
    web.say_bytes(TELL);
    json.expect(r#"451-["tell",{"_placeholder":true,"num":0}]"#);
    assert_eq!(json.hear(), Heard::Binary(vec![7]));
    // As it was written, since nothing in it has two ways to be.
    assert_eq!(binary(&mut poller), TELL);
    json.say(r#"42["tell",{"a":[1,null]}]"#);
    let told = b"\x83\xa4type\x02\xa4data\x92\xa4tell\x81\xa1a\x92\x01\xc0\xa3nsp\xa1/";
    assert_eq!(binary(&mut web), told);
    assert_eq!(binary(&mut poller), told);
}

fn enter_packed(line: &mut impl Line) {
    line.say_bytes(CONNECT);
    let answer = binary(line);
    assert!(answer.starts_with(b"\x83\xa4type\x00\xa4data\x81\xa3sid\xb4"), "{answer:x?}");
    assert!(answer.ends_with(b"\xa3nsp\xa1/"), "{answer:x?}");
}

#[test]
fn nobody_changes_the_parser() {
    let (edge, _) = start();
    let mut json = Web::open(&edge);
    json.enter("/");
    json.say_bytes(TELL);
    assert_eq!(json.hear(), Heard::Closed(None));
    let mut packed = Web::open(&edge);
    enter_packed(&mut packed);
    packed.say("42[\"tell\"]");
    assert_eq!(packed.hear(), Heard::Closed(None));
    // Old clients were spoken to in JSON before they said anything.
    let mut old = Web::over(edge.connect(), "EIO=3");
    old.expect("40");
    old.say_bytes(CONNECT);
    assert_eq!(old.hear(), Heard::Closed(None));
}

#[test]
fn what_is_no_packet_ends_the_session() {
    let (edge, _) = start();
    for data in [
        &b"\x80"[..],
        b"\x93\x01\x02",
        &CONNECT[..CONNECT.len() - 1],
        b"\x83\xa4type\x00\xa4data\xc0\xa3nsp\xa1/",
        b"\x83\xa4type\x07\xa4data\xd4\x00\x00\xa3nsp\xa1/",
        TELL,
    ] {
        let mut web = Web::open(&edge);
        web.say_bytes(data);
        assert_eq!(web.hear(), Heard::Closed(None), "{data:x?}");
    }
    let mut web = Web::open(&edge);
    enter_packed(&mut web);
    // The name of an event that only the library may emit.
    web.say_bytes(b"\x83\xa4type\x02\xa4data\x91\xa7connect\xa3nsp\xa1/");
    assert_eq!(web.hear(), Heard::Closed(None));
}
