//! Whom a request comes from, and how the next server is told.

use std::cell::RefCell;
use std::net::IpAddr;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use crate::exchange::{Client, Fault, Peer, Scheme};

use super::{Seen, told};

pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const FORWARDED: HeaderName = header::FORWARDED;
const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
pub(super) const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
pub(super) const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Removed of whoever is not trusted, but for those that are written anew.
static REWRITTEN: [HeaderName; 4] =
    [FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PORT, FORWARDED_PROTO];

/// Words of servers that rewrite or decide about a request, for what was asked of them. Whoever
/// believes them is told another place than the one that was let in.
pub(super) const ORIGINAL: [&str; 9] = [
    "x-original-for",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-method",
    "x-original-proto",
    "x-original-remote-addr",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

/// Other words for what the edge writes as `X-Forwarded-*`; they are not passed on.
static FORWARDING: [HeaderName; 2] = [FORWARDED, REAL_IP];

/// Tells whom a request comes from; those whom `trusts` is true of may speak for others, but not with
/// two tongues.
pub fn client(
    peer: &Peer,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
    trusts: &dyn Fn(IpAddr) -> bool,
) -> Result<Client, Fault> {
    let authority = authority(uri, version, headers)?;
    let scheme = if peer.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let (host, port) = split_port(authority).ok_or(Fault::NO_HOST)?;
    let mut client = Client {
        address: peer.address.ip().to_canonical(),
        host: plain(host),
        port: port.unwrap_or(peer.local_port),
        scheme,
        chain: None,
    };
    // The port is what the browser used; without one it used the scheme's own.
    if port.is_none() {
        client.port = scheme.default_port();
    }
    if trusts(client.address) {
        told::believe(&mut client, port.is_some(), headers, trusts)?;
    }
    Ok(client)
}

/// A host as it is compared: in lower case, and without the dot that says that nothing comes after it.
pub(super) fn plain(host: &str) -> String {
    let bare = host.strip_suffix('.').filter(|bare| !bare.is_empty());
    bare.unwrap_or(host).to_ascii_lowercase()
}

/// The one host a request is for: `:authority` or the target's, else exactly one `Host`.
fn authority<'a>(uri: &'a Uri, version: Version, headers: &'a HeaderMap) -> Result<&'a str, Fault> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host =
        hosts.next().map(|host| host.to_str().map_err(|_error| Fault::NO_HOST)).transpose()?;
    if hosts.next().is_some() {
        return Err(Fault::NO_HOST);
    }
    match (uri.authority().map(http::uri::Authority::as_str), host) {
        (Some(target), Some(host)) if !target.eq_ignore_ascii_case(host) => Err(Fault::NO_HOST),
        (Some(target), _) => Ok(target),
        (None, Some(host)) => Ok(host),
        (None, None) if version == Version::HTTP_10 => Ok("localhost"),
        (None, None) => Err(Fault::NO_HOST),
    }
}

/// Host and port of an authority without user information: `a.example:443`, `[::1]:80`.
pub fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let valid = |host: &str| {
        !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        let host = authority.get(..address.len() + 2)?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(parse_port(port)?))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => valid(host).then_some((host, Some(parse_port(port)?))),
        None => valid(authority).then_some((authority, None)),
    }
}

/// Digits alone: a sign would be read, too.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Replaces `Host` and every forwarding header by what the edge knows itself.
///
/// Next.js reads `X-Forwarded-Proto` twice, once as a whole word: it is always one word.
/// `X-Forwarded-Host` carries the port only when it is not the scheme's own, as `Origin` does.
pub fn set_forwarded(headers: &mut HeaderMap, client: &Client, peer: &Peer) {
    for name in &FORWARDING {
        headers.remove(name);
    }
    match chain(client, peer.address.ip().to_canonical()) {
        Some(chain) => headers.insert(FORWARDED_FOR, chain),
        None => headers.remove(FORWARDED_FOR),
    };
    // Nearly every client writes its host as it is passed on.
    let same = headers.get(header::HOST).filter(|host| client.is_authority(host.as_bytes()));
    match same.cloned() {
        Some(host) => drop(headers.insert(FORWARDED_HOST, host)),
        None => {
            let host = HeaderValue::try_from(client.authority());
            for name in [header::HOST, FORWARDED_HOST] {
                match &host {
                    Ok(host) => headers.insert(name, host.clone()),
                    Err(_) => headers.remove(name),
                };
            }
        }
    }
    headers.insert(FORWARDED_PORT, port_value(client.port));
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(client.scheme.as_str()));
}

thread_local! {
    /// The port that was written last, where it is none of HTTP's own.
    static PORT: RefCell<(u16, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static("0"))) };
}

fn port_value(port: u16) -> HeaderValue {
    match port {
        443 => HeaderValue::from_static("443"),
        80 => HeaderValue::from_static("80"),
        port => PORT.with_borrow_mut(|last| {
            if last.0 != port {
                *last = (port, HeaderValue::from(port));
            }
            last.1.clone()
        }),
    }
}

/// The addresses that a request came by; `None` if a peer's words cannot stand in a header.
fn chain(client: &Client, address: IpAddr) -> Option<HeaderValue> {
    let mut text = Vec::with_capacity(16);
    write_chain(&mut text, client, address);
    HeaderValue::try_from(text).ok()
}

fn write_chain(text: &mut Vec<u8>, client: &Client, address: IpAddr) {
    if let Some(chain) = &client.chain {
        text.extend_from_slice(chain.as_bytes());
        text.extend_from_slice(b", ");
    }
    let IpAddr::V4(address) = address else {
        return text.extend_from_slice(address.to_string().as_bytes());
    };
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push(b'.');
        }
        text.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
    }
}

/// Header lines as they go out, each with its end; what `set_forwarded` would put among the headers
/// of a request, for one that is sent and looked at no more.
#[derive(Debug, Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Takes `Host`, if it is not as it is passed on, and every forwarding header off a request whose
    /// names were `seen`, and writes what the edge knows itself.
    pub fn forwarded(headers: &mut HeaderMap, client: &Client, peer: &Peer, seen: &Seen) -> Self {
        let others = FORWARDING.iter().chain(&REWRITTEN);
        for name in others.filter(|name| seen.may_have(name.as_str())) {
            headers.remove(name);
        }
        let mut lines = Self(Vec::with_capacity(192));
        let same = headers.get(header::HOST);
        if !same.is_some_and(|host| client.is_authority(host.as_bytes())) {
            headers.remove(header::HOST);
            lines.put(&header::HOST, |out| client.write_authority(out));
        }
        let address = peer.address.ip().to_canonical();
        lines.put(&FORWARDED_FOR, |out| write_chain(out, client, address));
        lines.put(&FORWARDED_HOST, |out| client.write_authority(out));
        let mut port = itoa::Buffer::new();
        lines
            .put(&FORWARDED_PORT, |out| out.extend_from_slice(port.format(client.port).as_bytes()));
        let scheme = client.scheme.as_str();
        lines.put(&FORWARDED_PROTO, |out| out.extend_from_slice(scheme.as_bytes()));
        lines
    }

    /// Nothing of what is written can end a line: a host has letters, digits and few signs, and a
    /// chain of addresses was visible ASCII when it was read.
    fn put(&mut self, name: &HeaderName, value: impl FnOnce(&mut Vec<u8>)) {
        self.0.extend_from_slice(name.as_str().as_bytes());
        self.0.extend_from_slice(b": ");
        value(&mut self.0);
        self.0.extend_from_slice(b"\r\n");
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Puts them among the headers.
    pub fn set(&self, headers: &mut HeaderMap) {
        let Ok(text) = std::str::from_utf8(&self.0) else { return };
        for (name, value) in text.lines().filter_map(|line| line.split_once(": ")) {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), value.parse()) {
                headers.insert::<HeaderName>(name, value);
            }
        }
    }
}

/// What was asked for, to a server that decides about it: in the words of Traefik and of nginx.
pub fn set_original(headers: &mut HeaderMap, client: &Client, method: &Method, uri: &Uri) {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let url = format!("{}://{}{target}", client.scheme.as_str(), client.authority());
    for (name, value) in [
        (FORWARDED_METHOD, method.as_str()),
        (ORIGINAL_METHOD, method.as_str()),
        (FORWARDED_URI, target),
        (ORIGINAL_URI, target),
        (ORIGINAL_URL, url.as_str()),
    ] {
        // A client's own never stays.
        headers.remove(&name);
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}

/// Removes what only somebody who may speak for others may say: `X-Forwarded-User`, `-Prefix`,
/// `-Client-Cert` and what else applications believe in, `X-Original-URL` and the like. Those that
/// `set_forwarded` writes anew are left to it.
pub fn strip_claims(headers: &mut HeaderMap) {
    let is_claim = |name: &&HeaderName| {
        let text = name.as_str();
        (text.starts_with("x-forwarded-") && !REWRITTEN.contains(name))
            || (text.starts_with("x-") && ORIGINAL.contains(&text))
    };
    let claims: Vec<_> = headers.keys().filter(is_claim).cloned().collect();
    claims.into_iter().for_each(|name| drop(headers.remove(name)));
}

#[cfg(test)]
mod tests {
    use super::super::tests::map;
    use super::*;
    use proptest::prelude::*;

    fn peer() -> Peer {
        Peer { address: ([10, 0, 0, 9], 4000).into(), local_port: 8443, tls: None }
    }

    fn told(lines: &[(&str, &str)], trusted: bool) -> Result<String, &'static str> {
        let headers = map(lines);
        let trusts = |address: IpAddr| trusted && address == peer().address.ip();
        let client = client(&peer(), &Uri::from_static("/"), Version::HTTP_11, &headers, &trusts)
            .map_err(|fault| fault.reason)?;
        let mut sent = headers;
        set_forwarded(&mut sent, &client, &peer());
        let get = |name: &HeaderName| {
            sent.get(name).and_then(|v| v.to_str().ok()).unwrap_or("-").to_owned()
        };
        Ok(format!(
            "{} {} {} {}",
            get(&FORWARDED_FOR),
            get(&FORWARDED_HOST),
            get(&FORWARDED_PORT),
            get(&FORWARDED_PROTO)
        ))
    }

    #[test]
    fn forwarding_headers_come_from_the_connection() {
        let lines =
            [("host", "A.example"), ("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")];
        assert_eq!(told(&lines, false).as_deref(), Ok("10.0.0.9 a.example 80 http"));
        assert_eq!(told(&lines, true).as_deref(), Ok("1.2.3.4, 10.0.0.9 a.example 443 https"));
        assert_eq!(
            told(&[("host", "a.example:8080")], false).as_deref(),
            Ok("10.0.0.9 a.example:8080 8080 http")
        );
        // The port that is remembered is never another's.
        for (host, expected) in [
            ("A.example:81", "10.0.0.9 a.example:81 81 http"),
            ("a.example:82", "10.0.0.9 a.example:82 82 http"),
            ("a.example:0", "10.0.0.9 a.example:0 0 http"),
            ("a.example:080", "10.0.0.9 a.example 80 http"),
        ] {
            assert_eq!(told(&[("host", host)], false).as_deref(), Ok(expected));
        }
    }

    proptest! {
        #[test]
        fn lines_say_the_same_as_headers(
            host in prop::option::of("[aA](:(80|443|8080))?"),
            before in prop::collection::vec(
                ("(x-forwarded-(for|host|port|proto|prefix)|forwarded|x-real-ip|accept)", "[ -~]{0,12}"),
                0..6,
            ),
            v6 in any::<bool>(),
            trusted in any::<bool>(),
            secure in any::<bool>(),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &before {
                let name = HeaderName::try_from(name.as_str()).expect("a name");
                headers.append(name, HeaderValue::try_from(value.trim()).expect("a value"));
            }
            let host = host.as_deref().unwrap_or("b");
            headers.insert(header::HOST, HeaderValue::try_from(host).expect("a value"));
            let mut peer = peer();
            if v6 {
                peer.address = ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 1).into();
            }
            let uri = Uri::from_static("/");
            let client = client(&peer, &uri, Version::HTTP_11, &headers, &|_| trusted);
            let Ok(mut client) = client else { return Ok(()) };
            if secure {
                client.scheme = Scheme::Https;
            }
            let seen = Seen::of(&headers);
            let mut told = headers.clone();
            set_forwarded(&mut told, &client, &peer);
            let lines = Lines::forwarded(&mut headers, &client, &peer, &seen);
            let names = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"];
            prop_assert!(names.iter().all(|name| !headers.contains_key(*name)));
            prop_assert_eq!(headers.contains_key("host"), client.is_authority(host.as_bytes()));
            prop_assert_eq!(lines.as_bytes().windows(2).filter(|end| end == b"\r\n").count(),
                4 + usize::from(!headers.contains_key("host")));
            lines.set(&mut headers);
            prop_assert_eq!(headers, told);
        }
    }

    #[test]
    fn what_a_peer_says_of_scheme_and_port_is_taken_together() {
        for (host, proto, port, expected) in [
            ("a.example", "wss", "", "a.example 443 https"),
            ("a.example", "ws", "", "a.example 80 http"),
            ("a.example", "HTTPS", "", "a.example 443 https"),
            ("a.example", "wss", "443", "a.example 443 https"),
            ("a.example:8443", "https", "", "a.example:8443 8443 https"),
            ("a.example:8443", "Wss", "", "a.example:8443 8443 https"),
            ("a.example:8443", "https", "443", "a.example 443 https"),
            ("a.example:8443", "gopher", "", "a.example:8443 8443 http"),
            ("A.example.", "https", "", "a.example 443 https"),
            ("a.example.:8443", "https", "", "a.example:8443 8443 https"),
            (".", "https", "", ". 443 https"),
        ] {
            let lines = [("host", host), ("x-forwarded-proto", proto), ("x-forwarded-port", port)];
            let told = told(&lines, true).expect("a host");
            assert_eq!(told, format!("10.0.0.9 {expected}"), "{host} {proto} {port}");
        }
        let lines =
            [("host", "b:1"), ("x-forwarded-host", "a.example."), ("x-forwarded-proto", "wss")];
        assert_eq!(told(&lines, true).as_deref(), Ok("10.0.0.9 a.example 443 https"));
    }

    #[test]
    fn a_chain_is_read_from_its_end_past_those_who_are_trusted() {
        let trusts = |address: IpAddr| address.to_string().starts_with("10.");
        for (chain, expected) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7, 10.0.0.2", "203.0.113.7"),
            ("6.6.6.6, 203.0.113.7, 10.0.0.3, 10.0.0.2", "203.0.113.7"),
            ("6.6.6.6, 10.0.0.3, 203.0.113.7", "203.0.113.7"),
            ("10.0.0.4, 10.0.0.2", "10.0.0.4"),
            ("203.0.113.7, unknown, 10.0.0.2", "10.0.0.2"),
            ("[2001:db8::1]:443, ::ffff:10.0.0.2", "2001:db8::1"),
            ("unknown", "10.0.0.9"),
            ("", "10.0.0.9"),
        ] {
            let headers = map(&[("host", "a"), ("x-forwarded-for", chain)]);
            let uri = Uri::from_static("/");
            let found = client(&peer(), &uri, Version::HTTP_11, &headers, &trusts);
            assert_eq!(found.expect("a host").address.to_string(), expected, "{chain}");
        }
    }

    #[test]
    fn claims_of_strangers_go() {
        let mut headers = map(&[
            ("x-forwarded-user", "root"),
            ("x-forwarded-prefix", "/a"),
            ("x-forwarded-for", "left to set_forwarded"),
            ("x-original-url", "/open"),
            ("x-rewrite-url", "/open"),
            ("x-original-filename", "the application's own"),
            ("x-request-id", "1"),
        ]);
        strip_claims(&mut headers);
        assert_eq!(names(&headers), ["x-forwarded-for", "x-original-filename", "x-request-id"]);
    }

    #[test]
    fn one_host_or_none() {
        assert_eq!(told(&[], false), Err("bad_host"));
        assert_eq!(told(&[("host", "a"), ("host", "b")], false), Err("bad_host"));
        for bad in ["a b", "a@b", "", "a:x", "[::1", "a/b", "[::g]", "a:+80", "[::1]:+80"] {
            assert_eq!(told(&[("host", bad)], false), Err("bad_host"), "{bad}");
        }
        assert_eq!(
            told(&[("host", "[::1]:3000")], false).as_deref(),
            Ok("10.0.0.9 [::1]:3000 3000 http")
        );
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        left
    }
}
