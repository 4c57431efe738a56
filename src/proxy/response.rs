//! What the client sees of a response.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, LOCATION, REFRESH};
use http_body::{Body as _, Frame, SizeHint};

use crate::exchange::{Body, BodyError, Client, Response, headers};
use crate::next;
use crate::upstream::Upstream;

/// Where a server listens that was told no name. Nobody can have meant a client to go there.
const UNSPECIFIED: [&str; 2] = ["0.0.0.0", "[::]"];
/// This machine, seen from itself.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Makes the application's headers the client's: those of its hop and Next.js' internal ones go,
/// and its bind address in redirects becomes the public one.
pub fn rewrite(fields: &mut HeaderMap, client: &Client, upstream: &Upstream) {
    let seen = headers::Seen::of(fields);
    headers::strip_hop_by_hop_seen(fields, &seen);
    if next::may_be_internal(&seen) {
        next::strip_response(fields);
    }
    let is_own = |authority: &str| upstream.listens_at(authority) || is_local(authority, client);
    for (name, start) in [(&LOCATION, ""), (&REFRESH, "url=")] {
        if seen.may_have(name.as_str()) {
            publish(fields, name, start, client, &is_own);
        }
    }
}

fn is_local(authority: &str, client: &Client) -> bool {
    let Some((host, _port)) = headers::split_port(authority) else { return false };
    // A client on this machine may be sent to another server here.
    UNSPECIFIED.contains(&host) || (LOCAL.contains(&host) && !LOCAL.contains(&client.host.as_str()))
}

/// Replaces the origin of the URL after `start` if it is the application's own.
pub fn publish(
    fields: &mut HeaderMap,
    name: &HeaderName,
    start: &str,
    client: &Client,
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
    let public = format!("{before}{}://{}{path}", client.scheme.as_str(), client.authority());
    if let Ok(public) = HeaderValue::try_from(public) {
        fields.insert(name, public);
    }
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
        let is_own = |authority: &str| authority == "app:3000" || is_local(authority, &client);
        publish(&mut fields, &name, start, &client, &is_own);
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
            ("ftp://localhost/x", "ftp://localhost/x"),
        ] {
            check("a.example", LOCATION, value, expected);
        }
        check("a.example", REFRESH, "0;URL=http://localhost:3000/x", "0;URL=https://a.example/x");
        check("a.example", REFRESH, "5", "5");
        check("localhost", LOCATION, "http://localhost:4000/x", "http://localhost:4000/x");
        check("localhost", LOCATION, "http://0.0.0.0:4000/x", "https://localhost/x");
    }
}
