//! What the application sees of a request.

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};
use http::uri::{PathAndQuery, Uri};

use crate::exchange::{Client, Peer, Request, headers};
use crate::next;

use super::ForwardError;

/// Makes a client's request one to the application: an origin-form target without Next.js'
/// internal keys and without `strip`, headers of this hop removed, the edge's own written.
pub fn rewrite(
    request: &mut Request,
    client: &Client,
    peer: &Peer,
    strip: Option<&str>,
    mode: next::Mode,
) -> Result<(), ForwardError> {
    if let Some(target) = target(request.uri(), strip) {
        *request.uri_mut() =
            target.parse::<PathAndQuery>().map_err(|_error| ForwardError::Target)?.into();
    }
    let data = next::is_data(request.uri().path());
    let fields = request.headers_mut();
    let trailers = headers::takes_trailers(fields);
    headers::strip_hop_by_hop(fields);
    headers::strip_look_alikes(fields);
    next::strip_request(fields, data, mode);
    join_cookies(fields);
    headers::set_forwarded(fields, client, peer);
    if trailers {
        headers::set_takes_trailers(fields);
    }
    Ok(())
}

/// The target to ask for, if it is not the one that was asked for.
fn target(uri: &Uri, strip: Option<&str>) -> Option<String> {
    let query = uri.query().and_then(next::strip_query);
    let path = strip.and_then(|prefix| stripped(uri.path(), prefix));
    if query.is_none() && path.is_none() {
        return None;
    }
    let path = path.unwrap_or(uri.path());
    let query = query.as_deref().or(uri.query()).filter(|query| !query.is_empty());
    let slash = if path.starts_with('/') { "" } else { "/" };
    Some(match query {
        Some(query) => format!("{slash}{path}?{query}"),
        None => format!("{slash}{path}"),
    })
}

/// What follows a prefix of whole segments.
fn stripped<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// HTTP/2 sends cookies one by one, HTTP/1 in one line (RFC 9113 §8.2.3).
fn join_cookies(fields: &mut HeaderMap) {
    let mut crumbs = fields.get_all(COOKIE).iter();
    let Some(first) = crumbs.next() else { return };
    let mut joined = None;
    for crumb in crumbs {
        let line = joined.get_or_insert_with(|| first.as_bytes().to_vec());
        line.extend_from_slice(b"; ");
        line.extend_from_slice(crumb.as_bytes());
    }
    let Some(joined) = joined else { return };
    if let Ok(line) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        fields.insert(COOKIE, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, strip: Option<&str>, expected: Option<&str>) {
        let uri = uri.parse().expect("a URI");
        assert_eq!(target(&uri, strip).as_deref(), expected, "{uri} {strip:?}");
    }

    #[test]
    fn targets_lose_prefix_and_internal_keys_and_nothing_else() {
        check("/a%5Bb%5D//c?x=%2F&y", None, None);
        check("/a?nxtPx=1", None, Some("/a"));
        check("/a?nxtPx=1&b=%20", None, Some("/a?b=%20"));
        check("/docs/a?b", Some("/docs"), Some("/a?b"));
        check("/docs", Some("/docs"), Some("/"));
        check("/docs?b", Some("/docs/"), Some("/?b"));
        check("/docsy", Some("/docs"), None);
        check("https://a.example/p?q", None, None);
    }

    #[test]
    fn cookies_become_one_line() {
        let mut fields = HeaderMap::new();
        for crumb in ["a=1", "b=2", "c=3"] {
            fields.append(COOKIE, HeaderValue::from_static(crumb));
        }
        join_cookies(&mut fields);
        let lines: Vec<_> = fields.get_all(COOKIE).iter().collect();
        assert_eq!(lines, ["a=1; b=2; c=3"]);
    }
}
