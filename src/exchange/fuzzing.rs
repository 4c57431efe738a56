//! What must hold for any header of a request that tells whom it is for and from.
//!
//! Each function panics where something does not hold; see `crate::fuzzing`.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header};

use super::headers::{client, set_forwarded, split_port, strip_hop_by_hop, upgrade};
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
    let Ok(client) = client(&peer, &uri, Version::HTTP_11, &headers, trusted) else { return };
    check_client(&client);
    if !trusted {
        assert!(client.address == PEER && client.chain.is_none(), "a stranger was believed");
    }
    check_rewritten(headers, &client, &peer);
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
    let uri = Uri::from_static("/");
    let next = super::headers::client(peer, &uri, Version::HTTP_11, &headers, true);
    let next = next.expect("what we write can be read");
    assert_eq!((&next.host, next.port, next.scheme), (&client.host, client.port, client.scheme));
    assert_eq!(next.address, PEER, "the nearest is the one we saw");
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
