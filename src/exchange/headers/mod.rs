//! Headers that belong to one connection, and the ones that tell who is behind it.
//!
//! Only this folder writes hop-by-hop and forwarding headers (RFC 9110 §7.6, RFC 7239).

mod elements;
mod forwarded;
mod seen;
mod told;
mod witness;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method};

use super::Client;

use forwarded::{
    FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PORT, FORWARDED_PROTO, ORIGINAL, REAL_IP,
};

pub use seen::Seen;
pub use witness::Witness;

pub use forwarded::{Lines, client, set_forwarded, set_original, split_port, strip_claims};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// By which edges a request has come (RFC 8586).
pub const LOOP: &str = "cdn-loop";
const CDN_LOOP: HeaderName = HeaderName::from_static(LOOP);

/// Never passed on, whichever way (RFC 9110 §7.6.1).
static HOP_BY_HOP: [HeaderName; 9] = [
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

/// What a `Connection` header may not take away: the message itself and what the edge vouches for.
static NOT_NOMINABLE: [HeaderName; 9] = [
    CDN_LOOP,
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
static NOT_IN_TRAILERS: [HeaderName; 27] = [
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
const BELIEVED: [&str; 7] =
    ["x-forwarded-", "x-middleware-", "x-nextjs-", "x-vestibule-", "forwarded", "next-", "proxy-"];

/// Removes what belongs to the connection the message came on; first what `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let seen = Seen::of(headers);
    strip_hop_by_hop_seen(headers, &seen);
}

/// The same for a head that was looked at.
pub fn strip_hop_by_hop_seen(headers: &mut HeaderMap, seen: &Seen) {
    if seen.may_have("connection") {
        nominated(headers).into_iter().for_each(|name| drop(headers.remove(name)));
    }
    for known in HOP_BY_HOP.iter().filter(|known| seen.may_have(known.as_str())) {
        headers.remove(known);
    }
}

/// What `Connection` names that may be taken away, beside what goes anyway.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(header::CONNECTION);
    if lines.iter().all(|options| names_nothing(options.as_bytes())) {
        return Vec::new();
    }
    lines
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !NOT_NOMINABLE.contains(name) && !HOP_BY_HOP.contains(name))
        .collect()
}

/// How often an edge has passed this request on (RFC 8586).
pub fn passes(headers: &HeaderMap) -> usize {
    let lines = headers.get_all(CDN_LOOP).iter();
    let edges = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let names = edges.filter_map(|edge| edge.split(|byte| *byte == b';').next());
    names.filter(|name| name.trim_ascii() == b"vestibule").count()
}

/// Removes what `Connection` names, and the names with it: what the edge writes later in the place
/// of one of these is no client's to take away.
pub fn strip_nominated(headers: &mut HeaderMap) {
    let nominated = nominated(headers);
    if nominated.is_empty() {
        return;
    }
    nominated.into_iter().for_each(|name| drop(headers.remove(name)));
    match upgrade(headers) {
        Some(_) => drop(headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"))),
        None => drop(headers.remove(header::CONNECTION)),
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
        || ORIGINAL.contains(&name)
        || name == REAL_IP
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

/// How often a request for what somebody on the way can do may still be passed on; `None` if it does
/// not say, or is none (RFC 9110 §7.6.2). TRACE is passed on by nobody here.
pub fn forwards_left(method: &Method, headers: &HeaderMap) -> Option<u64> {
    if *method != Method::OPTIONS {
        return None;
    }
    let mut values = headers.get_all(header::MAX_FORWARDS).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}

/// Counts down what `forwards_left` has found, before the request is passed on.
pub fn count_forward(headers: &mut HeaderMap, left: u64) {
    headers.insert(header::MAX_FORWARDS, HeaderValue::from(left.saturating_sub(1)));
}

/// Makes the origin of the site's own pages the one that the application knows: browsers that were
/// asked for `a.example.` say that dot, which `Host` has no more.
pub fn settle_origin(headers: &mut HeaderMap, client: &Client) {
    let Some(origin) = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()) else {
        return;
    };
    if !origin.ends_with('.') && !origin.contains(".:") {
        return;
    }
    let Some((scheme, authority)) = origin.split_once("://") else { return };
    let Some((host, port)) = split_port(authority) else { return };
    let Some(host) = host.strip_suffix('.') else { return };
    if !host.eq_ignore_ascii_case(&client.host) {
        return;
    }
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    if let Ok(origin) = HeaderValue::try_from(format!("{scheme}://{host}{port}")) {
        headers.insert(header::ORIGIN, origin);
    }
}

/// True if the request asks to become another protocol, named in lower case.
pub fn upgrade(headers: &HeaderMap) -> Option<String> {
    let protocol = headers.get(header::UPGRADE)?.to_str().ok()?.trim();
    let asked = headers.get_all(header::CONNECTION).iter().any(|value| {
        let value = value.to_str().unwrap_or_default();
        value.split(',').any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
    });
    asked.then(|| protocol.to_ascii_lowercase())
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
/// handlers and the application know, with a key of the edge's own: there is none over HTTP/2.
pub fn become_upgrade(headers: &mut HeaderMap, protocol: &str, key: HeaderValue) {
    set_upgrade(headers, protocol);
    headers.insert(header::SEC_WEBSOCKET_KEY, key);
}

/// Makes a 101's headers those of the 200 by which HTTP/2 opens a tunnel.
pub fn forget_upgrade(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(header::SEC_WEBSOCKET_ACCEPT);
}

/// Asks the far end to close the connection after this message.
pub fn set_close(headers: &mut HeaderMap) {
    // One that names a protocol goes on naming it (RFC 9110 §7.8).
    let upgrades = headers.get(header::CONNECTION).is_some_and(|words| words == "upgrade");
    let words = if upgrades { "upgrade, close" } else { "close" };
    headers.insert(header::CONNECTION, HeaderValue::from_static(words));
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn map(lines: &[(&str, &str)]) -> HeaderMap {
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

    #[test]
    fn what_connection_names_goes_and_names_nothing_later() {
        let mut headers = map(&[
            ("connection", "keep-alive, x-private, x-user"),
            ("x-private", "1"),
            ("accept", "*/*"),
        ]);
        strip_nominated(&mut headers);
        headers.insert("x-user", HeaderValue::from_static("anna"));
        strip_hop_by_hop(&mut headers);
        assert_eq!(names(&headers), ["accept", "x-user"]);
        let mut socket = map(&[("connection", "Upgrade, x-a"), ("upgrade", "websocket")]);
        strip_nominated(&mut socket);
        assert_eq!(upgrade(&socket).as_deref(), Some("websocket"));
    }

    #[test]
    fn every_hop_by_hop_header_goes() {
        for name in HOP_BY_HOP.iter() {
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
            ("x_original_url", "/"),
            ("x-original_method", "GET"),
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
    fn edges_on_the_way_are_counted() {
        assert_eq!(passes(&map(&[("accept", "*/*"), ("via", "1.1 vestibule")])), 0);
        let lines = [
            ("cdn-loop", "cloudflare; loops=1; subreqs=1"),
            ("cdn-loop", "vestibule, other;a=\"b\" , vestibule;v=2"),
            ("cdn-loop", "vestibule"),
            ("cdn-loop", ",, vestibule2"),
        ];
        assert_eq!(passes(&map(&lines)), 3);
    }

    #[test]
    fn only_options_are_counted_down() {
        let left = |method, value: &[&str]| {
            let lines: Vec<_> = value.iter().map(|value| ("max-forwards", *value)).collect();
            forwards_left(&method, &map(&lines))
        };
        assert_eq!(left(Method::OPTIONS, &["0"]), Some(0));
        assert_eq!(left(Method::OPTIONS, &["070"]), Some(70));
        for value in
            [&[][..], &["-1"], &["+1"], &["a"], &[""], &["99999999999999999999"], &["1", "2"]]
        {
            assert_eq!(left(Method::OPTIONS, value), None, "{value:?}");
        }
        assert_eq!(left(Method::GET, &["0"]), None);
    }

    #[test]
    fn the_sites_own_origin_has_no_dot_at_its_end() {
        let client = Client {
            address: [127, 0, 0, 1].into(),
            host: "a.example".to_owned(),
            port: 443,
            scheme: crate::exchange::Scheme::Https,
            chain: None,
        };
        for (origin, expected) in [
            ("https://A.example.", "https://A.example"),
            ("https://a.example.:8443", "https://a.example:8443"),
            ("https://a.example", "https://a.example"),
            ("https://b.example.", "https://b.example."),
            ("https://a.example..", "https://a.example.."),
            ("https://a.example.:x", "https://a.example.:x"),
            ("null", "null"),
        ] {
            let mut headers = map(&[("origin", origin)]);
            settle_origin(&mut headers, &client);
            assert_eq!(headers["origin"], expected, "{origin}");
        }
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
