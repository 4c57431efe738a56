//! What the client sees of a response.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, LOCATION, REFRESH};
use http_body::{Body as _, Frame, SizeHint};

use crate::config::Rewrite;
use crate::exchange::{Body, BodyError, Client, Response, headers};
use crate::next;
use crate::upstream::Upstream;

/// Where a server listens that was told no name. Nobody can have meant a client to go there.
const UNSPECIFIED: [&str; 2] = ["0.0.0.0", "[::]"];
/// This machine, seen from itself.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Makes the application's headers the client's: those of its hop and Next.js' internal ones go,
/// and its bind address in redirects becomes the public one, with the path that `paths` took away.
pub fn rewrite(fields: &mut HeaderMap, client: &Client, upstream: &Upstream, paths: &Rewrite) {
    let seen = headers::Seen::of(fields);
    headers::strip_hop_by_hop_seen(fields, &seen);
    if next::may_be_internal(&seen) {
        next::strip_response(fields);
    }
    let has_port = |port| upstream.has_port(port);
    let is_own =
        |authority: &str| upstream.listens_at(authority) || is_local(authority, client, &has_port);
    for (name, start) in [(&LOCATION, ""), (&REFRESH, "url=")] {
        if seen.may_have(name.as_str()) {
            publish(fields, name, start, client, paths, &is_own);
        }
    }
}

/// True if an application that runs elsewhere means itself by this name of its own machine.
///
/// By its port: a command that waits on the client's machine for the end of a login has the same
/// names and another port (RFC 8252 §7.3), and is meant to be gone to.
fn is_local(authority: &str, client: &Client, has_port: &dyn Fn(Option<u16>) -> bool) -> bool {
    let Some((host, port)) = headers::split_port(authority) else { return false };
    // A client on this machine may be sent to another server here.
    UNSPECIFIED.contains(&host)
        || (LOCAL.contains(&host) && !LOCAL.contains(&client.host.as_str()) && has_port(port))
}

/// Replaces the origin of the URL after `start` if it is the application's own.
pub fn publish(
    fields: &mut HeaderMap,
    name: &HeaderName,
    start: &str,
    client: &Client,
    paths: &Rewrite,
    is_own: &dyn Fn(&str) -> bool,
) {
    let Some(value) = fields.get(name).and_then(|value| value.to_str().ok()) else { return };
    let Some(at) = value.to_ascii_lowercase().find(start) else { return };
    let Some((before, url)) = value.split_at_checked(at + start.len()) else { return };
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return;
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_own(authority) {
        return;
    }
    let path = asked_by(path, paths);
    let public = format!("{before}{}://{}{path}", client.scheme.as_str(), client.authority());
    if let Ok(public) = HeaderValue::try_from(public) {
        fields.insert(name, public);
    }
}

/// The target by which a client asks for what the application knows as `target`.
fn asked_by<'a>(target: &'a str, paths: &Rewrite) -> Cow<'a, str> {
    let rest = paths.prefix.as_deref().and_then(|prefix| below(target, prefix));
    let target = rest.unwrap_or(target);
    match paths.strip.as_deref().map(|strip| strip.trim_end_matches('/')) {
        // One that knows what is taken away, by `X-Forwarded-Prefix`, says it itself.
        Some(strip) if below(target, strip).is_none() => Cow::Owned(format!("{strip}{target}")),
        _ => Cow::Borrowed(target),
    }
}

/// What follows a prefix of whole segments.
fn below<'a>(target: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = target.strip_prefix(prefix.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then_some(rest)
}

/// The response with no more than `max` bytes of a body; `None` if it says that it has more.
///
/// One that does not say how long it is, and is longer, is cut: nobody takes it for whole.
pub fn limit(mut response: Response, max: u64) -> Option<Response> {
    match response.body().size_hint().exact() {
        Some(length) => (length <= max).then_some(response),
        None => {
            // `u64::MAX` is a route's word for no limit.
            if max < u64::MAX {
                let body = std::mem::replace(response.body_mut(), Body::empty());
                *response.body_mut() = Body::stream(Limited { body, max, left: max });
            }
            Some(response)
        }
    }
}

struct Limited {
    body: Body,
    max: u64,
    left: u64,
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let came = match &next {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
            _ => 0,
        };
        let Some(left) = self.left.checked_sub(came) else {
            return Poll::Ready(Some(Err(BodyError::TooLarge { max: self.max })));
        };
        self.left = left;
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Scheme;

    fn check(host: &str, name: HeaderName, value: &str, expected: &str) {
        let client = Client {
            address: [10, 0, 0, 9].into(),
            host: host.to_owned(),
            port: 443,
            scheme: Scheme::Https,
            chain: None,
        };
        let start = if name == LOCATION { "" } else { "url=" };
        let mut fields = HeaderMap::new();
        fields.insert(name.clone(), HeaderValue::from_str(value).expect("a value"));
        let has_port = |port| port == Some(3000);
        let is_own =
            |authority: &str| authority == "app:3000" || is_local(authority, &client, &has_port);
        publish(&mut fields, &name, start, &client, &Rewrite::default(), &is_own);
        assert_eq!(fields.get(name).and_then(|value| value.to_str().ok()), Some(expected));
    }

    #[test]
    fn the_applications_own_address_becomes_the_public_one() {
        for (value, expected) in [
            ("/x", "/x"),
            ("http://0.0.0.0:3000/x?y", "https://a.example/x?y"),
            ("https://localhost:3000", "https://a.example"),
            ("http://app:3000/x", "https://a.example/x"),
            ("http://[::]:3000?x", "https://a.example?x"),
            ("http://other:3000/x", "http://other:3000/x"),
            ("http://localhost.evil/x", "http://localhost.evil/x"),
            ("//localhost/x", "//localhost/x"),
            // A command on the client's machine waits for the end of its login.
            ("http://127.0.0.1:53127/cb?code=x", "http://127.0.0.1:53127/cb?code=x"),
            ("http://localhost:53127/cb", "http://localhost:53127/cb"),
            ("http://[::1]:53127/cb", "http://[::1]:53127/cb"),
            ("http://localhost/cb", "http://localhost/cb"),
            ("http://0.0.0.0:53127/x", "https://a.example/x"),
            ("ftp://localhost/x", "ftp://localhost/x"),
        ] {
            check("a.example", LOCATION, value, expected);
        }
        check("a.example", REFRESH, "0;URL=http://localhost:3000/x", "0;URL=https://a.example/x");
        check("a.example", REFRESH, "5", "5");
        check("localhost", LOCATION, "http://localhost:4000/x", "http://localhost:4000/x");
        check("localhost", LOCATION, "http://0.0.0.0:4000/x", "https://localhost/x");
    }

    #[test]
    fn what_was_taken_from_a_path_is_given_back() {
        for (strip, prefix, target, expected) in [
            (None, None, "/login?a", "/login?a"),
            (Some("/docs"), None, "/login?a", "/docs/login?a"),
            (Some("/docs/"), None, "/login", "/docs/login"),
            (Some("/docs"), None, "", "/docs"),
            (Some("/docs"), None, "?a", "/docs?a"),
            (Some("/docs"), None, "/docs/login", "/docs/login"),
            (Some("/docs"), None, "/docsy", "/docs/docsy"),
            (Some("/docs"), Some("/v2"), "/v2/login", "/docs/login"),
            (Some("/docs"), Some("/v2/"), "/v2", "/docs"),
            (Some("/docs"), Some("/v2"), "/v3/login", "/docs/v3/login"),
            (None, Some("/v2"), "/v2/a#b", "/a#b"),
        ] {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let paths = Rewrite { strip: owned(strip), prefix: owned(prefix) };
            assert_eq!(asked_by(target, &paths), expected, "{target} {paths:?}");
        }
    }
}
