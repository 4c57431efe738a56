//! What a trusted peer says of the client behind it, in either way of saying it.

use std::net::{IpAddr, SocketAddr};

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use crate::exchange::{Client, Fault, Scheme};

use super::elements::{self, Element};
use super::forwarded::{
    FORWARDED, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PORT, FORWARDED_PROTO, parse_port, plain,
    split_port,
};

/// What is said; each part may be missing.
#[derive(Debug, Default)]
struct Told {
    /// It is said who the client is, or that this stays hidden.
    names: bool,
    address: Option<IpAddr>,
    /// Those that the request came by, the nearest last.
    chain: Option<String>,
    scheme: Option<Scheme>,
    host: Option<(String, Option<u16>)>,
    port: Option<u16>,
}

/// Takes what a trusted peer says.
///
/// Each server on the way has added whom it was asked by. So the chain is read from its end, past
/// those that are trusted; what stands before the first that is not, that one may have made up.
/// A port that `Host` names stays where only the scheme is told: it is the browser's.
///
/// A peer that writes `X-Forwarded-*` passes on the `Forwarded` that its client wrote, and the other
/// way round. Nobody can tell which is whose: where both are there, `X-Forwarded-*` count, and a
/// request in which the other says something else is refused.
pub fn believe(
    client: &mut Client,
    names_port: bool,
    headers: &HeaderMap,
    trusts: &dyn Fn(IpAddr) -> bool,
) -> Result<(), Fault> {
    let (told, other) = match (by_names(headers, trusts)?, by_elements(headers, trusts)?) {
        (Some(told), other) => (told, other),
        (None, Some(told)) => (told, None),
        (None, None) => return Ok(()),
    };
    if other.is_some_and(|other| other.contradicts(&told)) {
        return Err(Fault::BAD_FORWARDED);
    }
    if let Some(address) = told.address {
        client.chain = told.chain;
        client.address = address;
    }
    if let Some(scheme) = told.scheme {
        client.scheme = scheme;
        if !names_port {
            client.port = scheme.default_port();
        }
    }
    if let Some((host, port)) = told.host {
        client.host = host;
        client.port = port.unwrap_or_else(|| client.scheme.default_port());
    }
    if let Some(port) = told.port {
        client.port = port;
    }
    Ok(())
}

impl Told {
    /// True if this says something else than `named`, which counts.
    fn contradicts(&self, named: &Self) -> bool {
        let scheme = self.scheme.zip(named.scheme).is_some_and(|(one, other)| one != other);
        let host = self.host.as_ref().zip(named.host.as_ref());
        let host = host.is_some_and(|((one, port), (other, other_port))| {
            one != other || port.zip(*other_port).is_some_and(|(one, other)| one != other)
        });
        (self.names && self.address != named.address) || scheme || host
    }
}

/// `X-Forwarded-*`, if there are any.
fn by_names(headers: &HeaderMap, trusts: &dyn Fn(IpAddr) -> bool) -> Result<Option<Told>, Fault> {
    let names = [&FORWARDED_FOR, &FORWARDED_PROTO, &FORWARDED_HOST, &FORWARDED_PORT];
    if !names.iter().any(|name| headers.contains_key(*name)) {
        return Ok(None);
    }
    let mut told = Told::default();
    if let Some(chain) = joined(headers, &FORWARDED_FOR)? {
        for entry in chain.rsplit(',') {
            let Some(address) = parse_address(entry) else { break };
            told.address = Some(address);
            if !trusts(address) {
                break;
            }
        }
        told.names = true;
        told.chain = Some(chain);
    }
    let first = |name: &HeaderName| {
        let value = headers.get(name)?.to_str().ok()?;
        Some(value.split(',').next().unwrap_or_default().trim())
    };
    told.scheme = first(&FORWARDED_PROTO).and_then(scheme);
    let host = first(&FORWARDED_HOST).and_then(split_port);
    told.host = host.map(|(host, port)| (plain(host), port));
    told.port = first(&FORWARDED_PORT).and_then(parse_port);
    Ok(Some(told))
}

/// `Forwarded` (RFC 7239), if there is one. Scheme and host are what the browser used only where they
/// were said of the client itself, by the first of those that are trusted.
fn by_elements(
    headers: &HeaderMap,
    trusts: &dyn Fn(IpAddr) -> bool,
) -> Result<Option<Told>, Fault> {
    let mut all = Vec::new();
    for line in headers.get_all(FORWARDED) {
        let line = line.to_str().map_err(|_error| Fault::BAD_FORWARDED)?;
        elements::read(line, &mut all).map_err(|_error| Fault::BAD_FORWARDED)?;
    }
    let mut chain: Vec<String> = Vec::new();
    let (mut told, mut first) = (Told::default(), None::<&Element<'_>>);
    for element in all.iter().rev() {
        first = Some(element);
        let Some(node) = &element.node else { break };
        told.names = true;
        let address = elements::address(node).map_err(|_error| Fault::BAD_FORWARDED)?;
        let Some(address) = address else { break };
        chain.push(address.to_string());
        told.address = Some(address);
        if !trusts(address) {
            break;
        }
    }
    let Some(first) = first else { return Ok(None) };
    chain.reverse();
    told.chain = Some(chain.join(", ")).filter(|chain| !chain.is_empty());
    told.scheme = first.proto.as_deref().and_then(scheme);
    if let Some(host) = &first.host {
        let (host, port) = split_port(host).ok_or(Fault::BAD_FORWARDED)?;
        told.host = Some((plain(host), port));
    }
    Ok(Some(told))
}

/// A WebSocket's scheme is that of the request it began with; some proxies write it.
fn scheme(word: &str) -> Option<Scheme> {
    let is = |known: [&str; 2]| known.iter().any(|known| word.eq_ignore_ascii_case(known));
    if is(["https", "wss"]) {
        Some(Scheme::Https)
    } else {
        is(["http", "ws"]).then_some(Scheme::Http)
    }
}

/// All lines of this name as one. A peer may have added to a line that its client began: none is passed
/// over for what stands before that.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Fault> {
    let values = headers.get_all(name).iter().map(HeaderValue::to_str);
    let all = values.collect::<Result<Vec<_>, _>>().map_err(|_error| Fault::BAD_FORWARDED)?;
    Ok(Some(all.join(", ")).filter(|all| !all.is_empty()))
}

fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::super::forwarded::client;
    use super::super::tests::map;
    use super::*;
    use crate::exchange::Peer;
    use http::{Uri, Version};

    /// Those who begin with 10 are trusted, the peer among them.
    fn check(lines: &[(&str, &str)], expected: &str) {
        let mut all = vec![("host", "inner.example")];
        all.extend(lines);
        let peer = Peer { address: ([10, 0, 0, 9], 4000).into(), local_port: 8080, tls: None };
        let trusts = |address: IpAddr| address.to_string().starts_with("10.");
        let found = client(&peer, &Uri::from_static("/"), Version::HTTP_11, &map(&all), &trusts);
        let found = found.map_or_else(
            |fault| fault.reason.to_owned(),
            |client| {
                let chain = client.chain.as_deref().unwrap_or("-");
                let scheme = client.scheme.as_str();
                format!("{} [{chain}] {scheme}://{}", client.address, client.authority())
            },
        );
        assert_eq!(found, expected, "{lines:?}");
    }

    fn check_forwarded(value: &str, expected: &str) {
        check(&[("forwarded", value)], expected);
    }

    #[test]
    fn forwarded_is_read_from_its_end_past_those_who_are_trusted() {
        check_forwarded("for=203.0.113.7", "203.0.113.7 [203.0.113.7] http://inner.example");
        check_forwarded(
            "for=\"[2001:DB8::1]:443\";proto=https;host=a.example",
            "2001:db8::1 [2001:db8::1] https://a.example",
        );
        // What stands before the first stranger, that one may have made up.
        check_forwarded(
            "for=6.6.6.6;host=evil;proto=http, for=203.0.113.7;host=\"a.example:8443\";proto=https, for=10.0.0.3;host=inner;proto=http",
            "203.0.113.7 [203.0.113.7, 10.0.0.3] https://a.example:8443",
        );
        check_forwarded(
            "for=\"not read\", for=203.0.113.7",
            "203.0.113.7 [203.0.113.7] http://inner.example",
        );
        check(
            &[("forwarded", "for=6.6.6.6"), ("forwarded", "for=203.0.113.7;proto=wss")],
            "203.0.113.7 [203.0.113.7] https://inner.example",
        );
        // All of them are trusted: the farthest is the client.
        check_forwarded(
            "for=10.0.0.4, for=10.0.0.3",
            "10.0.0.4 [10.0.0.4, 10.0.0.3] http://inner.example",
        );
        // Who does not want to be named is behind whoever says so.
        check_forwarded(
            "for=6.6.6.6, for=_gazonk;proto=https, for=10.0.0.2",
            "10.0.0.2 [10.0.0.2] https://inner.example",
        );
        check_forwarded("for=unknown;proto=https", "10.0.0.9 [-] https://inner.example");
        check_forwarded("proto=https;host=A.example.", "10.0.0.9 [-] https://a.example");
        check_forwarded("proto=gopher", "10.0.0.9 [-] http://inner.example");
        check_forwarded(" ,", "10.0.0.9 [-] http://inner.example");
    }

    #[test]
    fn what_is_not_as_it_should_be_is_not_guessed_at() {
        for value in [
            "for=\"203.0.113.7",
            "for=\"x, for=203.0.113.7",
            "for=203.0.113.7:80",
            "for=client",
            "for=203.0.113.7;host=\"a b\"",
            "for=203.0.113.7;for=6.6.6.6",
            "for=2001:db8::1",
        ] {
            check_forwarded(value, "bad_forwarded");
        }
    }

    #[test]
    fn two_ways_of_saying_it_must_say_the_same() {
        let both = |forwarded, name, value, expected| {
            check(&[("forwarded", forwarded), (name, value)], expected);
        };
        let seven = "203.0.113.7 [203.0.113.7] http://inner.example";
        both("for=203.0.113.7", "x-forwarded-for", "203.0.113.7", seven);
        both("for=6.6.6.6, for=203.0.113.7", "x-forwarded-for", "203.0.113.7", seven);
        // Of what only the other says nothing is taken.
        both("for=203.0.113.7;host=evil;proto=https", "x-forwarded-for", "203.0.113.7", seven);
        both("host=a.example", "x-forwarded-host", "A.example", "10.0.0.9 [-] http://a.example");
        both("host=evil", "x-forwarded-proto", "https", "10.0.0.9 [-] https://inner.example");
        for (forwarded, name, value) in [
            ("for=203.0.113.7", "x-forwarded-for", "6.6.6.6"),
            ("for=203.0.113.7", "x-forwarded-for", "unknown"),
            // Or somebody could take the name of whoever forwards.
            ("for=203.0.113.7", "x-forwarded-port", "443"),
            ("for=_hidden", "x-forwarded-for", "203.0.113.7"),
            ("host=a.example", "x-forwarded-host", "evil"),
            ("host=\"a.example:1\"", "x-forwarded-host", "a.example:2"),
            ("proto=http", "x-forwarded-proto", "https"),
            ("for=\"", "x-forwarded-for", "203.0.113.7"),
        ] {
            both(forwarded, name, value, "bad_forwarded");
        }
    }

    #[test]
    fn strangers_are_not_read_at_all() {
        let peer = Peer { address: ([192, 0, 2, 1], 4000).into(), local_port: 80, tls: None };
        let headers =
            map(&[("host", "a"), ("forwarded", "for=\""), ("x-forwarded-for", "1.1.1.1")]);
        let found = client(&peer, &Uri::from_static("/"), Version::HTTP_11, &headers, &|_| false);
        assert_eq!(found.expect("a client").address, peer.address.ip());
    }
}
