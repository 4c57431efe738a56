//! Headers that belong to one connection, and the ones that tell who is behind it.
//!
//! The only file that reads or writes hop-by-hop and forwarding headers (RFC 9110 §7.6, RFC 7239).

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use super::{Client, Fault, Peer, Scheme};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

const HOP_BY_HOP_COUNT: usize = 9;
/// Never passed on, whichever way (RFC 9110 §7.6.1).
const HOP_BY_HOP: [HeaderName; HOP_BY_HOP_COUNT] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HTTP2_SETTINGS,
];

/// What their names begin with.
fn begins_hop_by_hop(first: u8) -> bool {
    matches!(first, b'c' | b'h' | b'k' | b'p' | b't' | b'u')
}

/// What a `Connection` header may not take away: the message itself and what the edge vouches for.
const NOT_NOMINABLE: [HeaderName; 8] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::AUTHORIZATION,
    header::COOKIE,
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_PORT,
    FORWARDED_PROTO,
];

/// What a trailer may not say: where a message ends, whom it is for, who asks, and what its head
/// has said already (RFC 9110 §6.5.1). Besides these, nothing that the edge itself writes or reads.
const NOT_IN_TRAILERS: [HeaderName; 27] = [
    header::AGE,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::EXPECT,
    header::EXPIRES,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::LOCATION,
    header::MAX_FORWARDS,
    header::PRAGMA,
    header::RANGE,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::TRAILER,
    header::VARY,
    header::WARNING,
    header::WWW_AUTHENTICATE,
];

/// What the edge, or Next.js, believes in when it is in a head.
const BELIEVED: [&str; 8] = [
    "x-forwarded-",
    "x-middleware-",
    "x-nextjs-",
    "x-vestibule-",
    "forwarded",
    "next-",
    "proxy-",
    "x-real-ip",
];

/// Other words for what the edge writes as `X-Forwarded-*`; a client's are removed.
const FORWARDING: [HeaderName; 2] = [header::FORWARDED, REAL_IP];

/// Tells whom a request comes from; `trusted` peers may speak for others.
pub fn client(
    peer: &Peer,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
    trusted: bool,
) -> Result<Client, Fault> {
    let authority = authority(uri, version, headers)?;
    let scheme = if peer.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let (host, port) = split_port(authority).ok_or(Fault::NO_HOST)?;
    let mut client = Client {
        address: peer.address.ip().to_canonical(),
        host: host.to_ascii_lowercase(),
        port: port.unwrap_or(peer.local_port),
        scheme,
        chain: None,
    };
    // The port is what the browser used; without one it used the scheme's own.
    if port.is_none() {
        client.port = scheme.default_port();
    }
    if trusted {
        believe(&mut client, headers);
    }
    Ok(client)
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
fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Takes what a trusted peer says about the client behind it.
fn believe(client: &mut Client, headers: &HeaderMap) {
    if let Some(chain) = joined(headers, &FORWARDED_FOR) {
        let nearest = chain.rsplit(',').next().unwrap_or_default();
        if let Some(address) = parse_address(nearest) {
            client.chain = Some(chain);
            client.address = address;
        }
    }
    let first = |name: &HeaderName| {
        let value = headers.get(name)?.to_str().ok()?;
        Some(value.split(',').next().unwrap_or_default().trim())
    };
    match first(&FORWARDED_PROTO) {
        Some("https") => (client.scheme, client.port) = (Scheme::Https, 443),
        Some("http") => (client.scheme, client.port) = (Scheme::Http, 80),
        _ => (),
    }
    if let Some((host, port)) = first(&FORWARDED_HOST).and_then(split_port) {
        client.host = host.to_ascii_lowercase();
        client.port = port.unwrap_or_else(|| client.scheme.default_port());
    }
    if let Some(port) = first(&FORWARDED_PORT).and_then(parse_port) {
        client.port = port;
    }
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let all = values.collect::<Vec<_>>().join(", ");
    (!all.is_empty()).then_some(all)
}

fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok();
    address.or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

/// Removes what belongs to the connection the message came on; first what `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::CONNECTION).iter();
    if !lines.all(|options| names_nothing(options.as_bytes())) {
        let nominated: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| !NOT_NOMINABLE.contains(name))
            .collect();
        for name in nominated {
            headers.remove(name);
        }
    }
    // Most messages have one or two of them: finding these costs less than asking for each.
    let mut found = [false; HOP_BY_HOP_COUNT];
    let may_be = |name: &HeaderName| name.as_str().bytes().next().is_some_and(begins_hop_by_hop);
    for name in headers.keys().filter(|name| may_be(name)) {
        for (known, found) in HOP_BY_HOP.iter().zip(&mut found) {
            *found |= known == name;
        }
    }
    for (known, _) in HOP_BY_HOP.iter().zip(found).filter(|(_, found)| *found) {
        headers.remove(known);
    }
}

/// Removes what only looks like a header that the edge or the application believes in: servers that
/// make variables of headers take `x_forwarded_for` for `x-forwarded-for`.
pub fn strip_look_alikes(headers: &mut HeaderMap) {
    let is_odd = |name: &HeaderName| name.as_str().bytes().any(|byte| byte == b'_');
    if !headers.keys().any(is_odd) {
        return;
    }
    let odd: Vec<_> = headers.keys().filter(|name| is_odd(name)).cloned().collect();
    for name in odd {
        let plain = name.as_str().replace('_', "-");
        let meant = HeaderName::try_from(&plain);
        let known = meant.is_ok_and(|meant| {
            HOP_BY_HOP.contains(&meant) || NOT_NOMINABLE.contains(&meant) || meant == header::EXPECT
        });
        if known || is_believed(&plain) {
            headers.remove(name);
        }
    }
}

fn is_believed(name: &str) -> bool {
    BELIEVED.iter().any(|begin| name.starts_with(begin))
}

/// Removes from a message's trailers what only its head may say.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    let barred: Vec<_> = trailers
        .keys()
        .filter(|name| NOT_IN_TRAILERS.contains(name) || is_believed(name.as_str()))
        .cloned()
        .collect();
    for name in barred {
        trailers.remove(name);
    }
    strip_look_alikes(trailers);
}

/// True if whoever sent these headers takes trailers (RFC 9110 §10.1.4).
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(header::TE).iter().any(|value| {
        let mut codings = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
    })
}

/// Says that trailers are taken, for this hop.
pub fn set_takes_trailers(headers: &mut HeaderMap) {
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
}

/// True for the options that nearly every message has, and that name no header.
fn names_nothing(options: &[u8]) -> bool {
    options.eq_ignore_ascii_case(b"keep-alive") || options.eq_ignore_ascii_case(b"close")
}

/// True if the request asks to become another protocol, named in lower case.
pub fn upgrade(headers: &HeaderMap) -> Option<String> {
    let asked = headers.get_all(header::CONNECTION).iter().any(|value| {
        let value = value.to_str().unwrap_or_default();
        value.split(',').any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
    });
    let protocol = headers.get(header::UPGRADE)?.to_str().ok()?.trim().to_ascii_lowercase();
    asked.then_some(protocol)
}

/// True if another protocol is named at all, whether or not the request asks for it as it should.
pub fn names_protocol(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// The `Connection: upgrade` pair of a tunnelled handshake, either way.
pub fn set_upgrade(headers: &mut HeaderMap, protocol: &str) {
    if let Ok(protocol) = HeaderValue::from_str(protocol) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

/// Makes the request for a tunnel that HTTP/2 has (RFC 8441 §5) the one that HTTP/1.1 has, which
/// handlers and the application know. Its key opens nothing, as the stream is one's own already.
pub fn become_upgrade(headers: &mut HeaderMap, protocol: &str) {
    set_upgrade(headers, protocol);
    let key = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA==");
    headers.insert(header::SEC_WEBSOCKET_KEY, key);
}

/// Makes a 101's headers those of the 200 by which HTTP/2 opens a tunnel.
pub fn forget_upgrade(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(header::SEC_WEBSOCKET_ACCEPT);
}

/// Asks the far end to close the connection after this message.
pub fn set_close(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
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
    if client.chain.is_none()
        && let IpAddr::V4(address) = address
    {
        // Written where it stands: one allocation, that of the value.
        let (mut text, mut end) = ([0; 16], 0);
        for (place, octet) in address.octets().into_iter().enumerate() {
            let mut digits = itoa::Buffer::new();
            let dot: &[u8] = if place > 0 { b"." } else { b"" };
            for byte in dot.iter().chain(digits.format(octet).as_bytes()) {
                *text.get_mut(end)? = *byte;
                end += 1;
            }
        }
        return HeaderValue::from_bytes(text.get(..end)?).ok();
    }
    let before = client.chain.as_ref().map(|chain| format!("{chain}, ")).unwrap_or_default();
    HeaderValue::try_from(format!("{before}{address}")).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (
                name.parse::<HeaderName>().expect("a name"),
                HeaderValue::from_str(value).expect("a value"),
            )
        };
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    fn peer() -> Peer {
        Peer { address: ([10, 0, 0, 9], 4000).into(), local_port: 8443, tls: None }
    }

    fn told(lines: &[(&str, &str)], trusted: bool) -> Result<String, &'static str> {
        let headers = map(lines);
        let client = client(&peer(), &Uri::from_static("/"), Version::HTTP_11, &headers, trusted)
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

    #[test]
    fn every_hop_by_hop_header_goes() {
        for name in HOP_BY_HOP {
            let mut headers = map(&[("accept", "*/*"), (name.as_str(), "a")]);
            strip_hop_by_hop(&mut headers);
            assert_eq!(names(&headers), ["accept"], "{name}");
        }
    }

    #[test]
    fn nominated_headers_go_but_not_the_edges_own() {
        let mut headers = map(&[
            ("connection", "close, X-Private , cookie, x-forwarded-host"),
            ("x-private", "1"),
            ("cookie", "a=b"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("x-forwarded-host", "kept for set_forwarded"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "cookie", "x-forwarded-host"]);
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn look_alikes_go_and_other_underscores_stay() {
        let mut headers = map(&[
            ("x_forwarded_for", "1.2.3.4"),
            ("x-forwarded_host", "a"),
            ("content_length", "5"),
            ("transfer_encoding", "chunked"),
            ("x_middleware_subrequest", "a"),
            ("x_vestibule_user", "root"),
            ("api_key", "kept"),
            ("x-forwarded-for", "the edge's own"),
        ]);
        strip_look_alikes(&mut headers);
        assert_eq!(names(&headers), ["api_key", "x-forwarded-for"]);
    }

    #[test]
    fn trailers_say_nothing_that_only_a_head_may() {
        let mut trailers = map(&[
            ("server-timing", "db;dur=5"),
            ("grpc-status", "0"),
            ("x-checksum", "abc"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("host", "a"),
            ("cookie", "a=b"),
            ("set-cookie", "a=b"),
            ("authorization", "Basic x"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-middleware-rewrite", "/"),
            ("connection", "x-checksum2"),
            ("x-checksum2", "nominated"),
        ]);
        strip_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["grpc-status", "server-timing", "x-checksum"]);
    }

    #[test]
    fn who_takes_trailers_says_so() {
        assert!(takes_trailers(&map(&[("te", "gzip, Trailers")])));
        assert!(!takes_trailers(&map(&[("te", "trailers;q=0")])));
        assert!(!takes_trailers(&map(&[("trailer", "trailers")])));
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        assert_eq!(
            upgrade(&map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]))
                .as_deref(),
            Some("websocket")
        );
        assert_eq!(upgrade(&map(&[("upgrade", "websocket")])), None);
        assert_eq!(upgrade(&map(&[("connection", "upgrade")])), None);
    }
}
