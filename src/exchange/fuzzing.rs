//! What must hold for any header of a request that tells whom it is for and from.
//!
//! Each function panics where something does not hold; see `crate::fuzzing`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header};

use super::frames::Frames;
use super::headers::{client, set_forwarded, split_port, strip_hop_by_hop, upgrade};
use super::requests::{Ambiguous, Requests};
use super::{Client, Peer};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A request: `t` if the peer is trusted, the target, then the headers, a line each.
pub fn forwarded(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let mut lines = rest.split(|byte| *byte == b'\n');
    let Ok(uri) = Uri::try_from(lines.next().unwrap_or_default()) else { return };
    let headers = headers(lines);
    let peer = Peer { address: (PEER, 50_000).into(), local_port: 8443, tls: None };
    let trusted = *first == b't';
    let trusts = |address: IpAddr| trusted && address == PEER;
    let Ok(client) = client(&peer, &uri, Version::HTTP_11, &headers, &trusts) else { return };
    check_client(&client);
    if !trusted {
        assert!(client.address == PEER && client.chain.is_none(), "a stranger was believed");
    }
    let text = |byte: u8| byte == b'\t' || byte == b' ' || byte.is_ascii_graphic();
    assert!(client.chain.iter().all(|chain| chain.bytes().all(text)));
    check_two_tongues(&headers, &client, &|headers| {
        super::headers::client(&peer, &uri, Version::HTTP_11, headers, &trusts).ok()
    });
    check_rewritten(headers, &client, &peer);
}

/// `Forwarded` beside `X-Forwarded-*` has a request refused or changes nothing.
fn check_two_tongues(
    headers: &HeaderMap,
    client: &Client,
    read: &dyn Fn(&HeaderMap) -> Option<Client>,
) {
    let named = ["for", "host", "port", "proto"].map(|end| format!("x-forwarded-{end}"));
    if !named.iter().any(|name| headers.contains_key(name)) {
        return;
    }
    let mut alone = headers.clone();
    alone.remove("forwarded");
    let alone = read(&alone).expect("it was read beside the other");
    assert_eq!((alone.address, alone.host), (client.address, client.host.clone()));
    assert_eq!((alone.port, alone.scheme), (client.port, client.scheme));
    assert_eq!(alone.chain, client.chain);
}

fn headers<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let end = memchr::memchr(b':', line).unwrap_or(line.len());
        let (name, value) = (line.get(..end), line.get(end + 1..).unwrap_or_default());
        let name = HeaderName::from_bytes(name.unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.trim_ascii())) {
            headers.append(name, value);
        }
    }
    headers
}

fn check_client(client: &Client) {
    let host = client.host.as_str();
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:".contains(&byte);
    assert!(!host.is_empty() && host.bytes().all(letter), "{host:?}");
    assert!(!host.bytes().any(|byte| byte.is_ascii_uppercase()));
    let port = Some(client.port).filter(|port| *port != client.scheme.default_port());
    assert_eq!(split_port(&client.authority()), Some((host, port)));
}

/// What the next server reads is what we believe, and nothing that the client wrote beside it.
fn check_rewritten(mut headers: HeaderMap, client: &Client, peer: &Peer) {
    let size = |headers: &HeaderMap| {
        headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>()
    };
    let before = size(&headers);
    strip_hop_by_hop(&mut headers);
    let stripped = headers.clone();
    strip_hop_by_hop(&mut headers);
    assert_eq!(headers, stripped, "something was left");
    for name in ["connection", "keep-alive", "te", "transfer-encoding", "upgrade"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(upgrade(&headers), None);
    set_forwarded(&mut headers, client, peer);
    assert!(size(&headers) <= 3 * before + 512, "it grew");
    assert!(
        !headers.contains_key("forwarded") && headers.get_all(header::HOST).iter().count() == 1
    );
    let (uri, us) = (Uri::from_static("/"), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)));
    let edge = Peer { address: (us, 1).into(), ..peer.clone() };
    let trusts = |address: IpAddr| address == us;
    let next = super::headers::client(&edge, &uri, Version::HTTP_11, &headers, &trusts);
    let next = next.expect("what we write can be read");
    assert_eq!((&next.host, next.port, next.scheme), (&client.host, client.port, client.scheme));
    assert_eq!(next.address, PEER, "the nearest is the one we saw");
    let passes = super::headers::passes(&headers);
    headers.append(super::headers::LOOP, HeaderValue::from_static("vestibule"));
    assert_eq!(super::headers::passes(&headers), passes + 1, "whatever came before");
}

/// A host with its port, or without.
pub fn host(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((host, port)) = split_port(text) else { return };
    assert!(text.starts_with(host));
    match port {
        None => assert_eq!(host, text),
        Some(port) => {
            let digits = text.strip_prefix(host).and_then(|rest| rest.strip_prefix(':'));
            assert!(digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())));
            assert_eq!(split_port(&format!("{host}:{port}")), Some((host, Some(port))));
        }
    }
}

/// Requests of an HTTP/1.1 client, in pieces as long as the first byte says.
pub fn requests(data: &[u8]) {
    let Some((step, bytes)) = data.split_first() else { return };
    let (whole, pieces) =
        (clear(bytes, bytes.len().max(1)), clear(bytes, usize::from(*step).max(1)));
    assert_eq!(whole, pieces, "it depends on the pieces");
    // What is clear stays so whatever comes after it, and what is not is not mended.
    if let Some(at) = whole {
        assert!(at < bytes.len());
        assert_eq!(clear(bytes.get(..at).unwrap_or_default(), 7), None);
        assert_eq!(clear(&[bytes, b"\r\n"].concat(), 5), Some(at));
    }
}

/// Where the bytes become ambiguous, if they do.
fn clear(bytes: &[u8], step: usize) -> Option<usize> {
    let (mut requests, mut done) = (Requests::default(), 0);
    for piece in bytes.chunks(step) {
        if let Err(Ambiguous { at }) = requests.follow(piece) {
            return Some(done + at);
        }
        done += piece.len();
    }
    None
}

/// Frames of an HTTP/2 client after its preface, in pieces as long as the first byte says.
pub fn h2_frames(data: &[u8]) {
    let Some((step, bytes)) = data.split_first() else { return };
    let follow = |step: usize| {
        let mut frames = Frames::default();
        frames.follow(&[0; 24], || Duration::ZERO).expect("a preface");
        let flood =
            bytes.chunks(step).find_map(|piece| frames.follow(piece, || Duration::ZERO).err());
        (flood, flood.is_some() || frames.in_head())
    };
    let whole = follow(bytes.len().max(1));
    assert_eq!(whole, follow(usize::from(*step).max(1)), "it depends on the pieces");
    // Fewer frames than a browser may send are no flood.
    assert!(whole.0.is_none() || bytes.len() > 9 * 500);
}
