//! What must hold for any request that is passed on to the application, and for where it leads.
//!
//! Each function panics where something does not hold; see `crate::fuzzing`.

use std::net::Ipv4Addr;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Uri, Version};

use crate::config::Rewrite;
use crate::exchange::{Body, Client, Peer, Request, Scheme, headers};
use crate::next;

use super::request::rewrite;
use super::response::publish;

/// A request: `d` for a development server, the prefix to strip, the target, the headers.
pub fn proxied(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let mode = if line() == b"d" { next::Mode::Development } else { next::Mode::Production };
    let Ok(prefix) = std::str::from_utf8(line()) else { return };
    let Ok(uri) = Uri::try_from(line()) else { return };
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    for line in lines.take(64) {
        let (name, value) = line.split_at(memchr::memchr(b':', line).unwrap_or(line.len()));
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            request.headers_mut().append(name, value);
        }
    }
    let peer = Peer { address: (Ipv4Addr::LOCALHOST, 1).into(), local_port: 80, tls: None };
    let (uri, fields) = (request.uri(), request.headers());
    let client = headers::client(&peer, uri, Version::HTTP_11, fields, &|_| false);
    let Ok(client) = client else { return };
    let strip = Some(prefix).filter(|prefix| prefix.starts_with('/')).map(str::to_owned);
    let paths = Rewrite { strip, prefix: None };
    let length = request.uri().to_string().len();
    let seen = headers::Seen::of(request.headers());
    if rewrite(&mut request, &seen, &paths, mode, &mut ()).is_err() {
        return;
    }
    headers::set_forwarded(request.headers_mut(), &client, &peer);
    let target = request.uri();
    assert!(target.to_string().len() <= length + 1, "{target} grew");
    assert_eq!(target.query().and_then(next::strip_query), None, "{target} has an internal key");
    let fields = request.headers();
    assert!(fields.get_all(header::COOKIE).iter().count() <= 1);
    for name in fields.keys().map(HeaderName::as_str) {
        let internal = ["x-middleware-subrequest", "x-matched-path", "x-now-route-matches"];
        assert!(!internal.contains(&name) && !name.starts_with("x-invoke-"), "{name} came through");
    }
}

/// Where the application leads to, in a `Location` and in a `Refresh`.
pub fn locations(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let client = Client {
        address: Ipv4Addr::LOCALHOST.into(),
        host: "public.example".to_owned(),
        port: 8443,
        scheme: Scheme::Https,
        chain: None,
    };
    for (name, start) in [(header::LOCATION, ""), (header::REFRESH, "url=")] {
        let mut fields = HeaderMap::from_iter([(name.clone(), value.clone())]);
        let paths = Rewrite::default();
        let is_own = |authority: &str| authority == "inside:3000";
        publish(&mut fields, &name, start, &client, &paths, &is_own);
        let published = fields.get(&name).expect("it is there as before");
        if *published == value {
            continue;
        }
        let before = value.to_str().expect("what is no text is left alone");
        let after = published.to_str().expect("a text stays one");
        let (public, inside) = ("https://public.example:8443", "://inside:3000");
        let same = after.match_indices(public).any(|(at, _)| {
            let (start, end) = (&after[..at], &after[at + public.len()..]);
            ["http", "https"].iter().any(|scheme| format!("{start}{scheme}{inside}{end}") == before)
        });
        assert!(same, "{before} became {after}");
    }
}
