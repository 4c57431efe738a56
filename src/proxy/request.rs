//! What the application sees of a request.

use std::borrow::Cow;

use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::Rewrite;
use crate::exchange::headers::{Seen, Witness};
use crate::exchange::{Request, cookies, headers};
use crate::next;

use super::ForwardError;

/// Makes a client's request one to the application: an origin-form target without Next.js'
/// internal keys, the path as `paths` has it, headers of this hop removed. What of its headers was
/// not `seen` is not looked for; the witness hears why each is changed.
pub fn rewrite(
    request: &mut Request,
    seen: &Seen,
    paths: &Rewrite,
    mode: next::Mode,
    witness: &mut impl Witness,
) -> Result<(), ForwardError> {
    let taken =
        paths.strip.as_deref().filter(|strip| stripped(request.uri().path(), strip).is_some());
    if let Some(target) = target(request.uri(), paths) {
        *request.uri_mut() =
            target.parse::<PathAndQuery>().map_err(|_error| ForwardError::Target)?.into();
    }
    let data = next::is_data(request.uri().path());
    let forwards = seen.may_have("max-forwards");
    let forwards =
        forwards.then(|| headers::forwards_left(request.method(), request.headers())).flatten();
    let fields = request.headers_mut();
    let trailers = seen.may_have("te") && headers::takes_trailers(fields);
    headers::strip_hop_by_hop_seen(fields, seen);
    witness.see("is of one hop, or named by connection", fields);
    if seen.is_odd() {
        headers::strip_look_alikes(fields);
        witness.see("looks like a header that is believed", fields);
    }
    if next::may_be_internal(seen) {
        next::strip_request(fields, data, mode);
        witness.see("is what Next.js says to itself", fields);
    }
    cookies::join(fields);
    witness.see("cookies are one line", fields);
    if trailers {
        headers::set_takes_trailers(fields);
        witness.see("the client takes trailers", fields);
    }
    if let Some(left) = forwards {
        headers::count_forward(fields, left);
        witness.see("this is one more that it passes", fields);
    }
    if let Some(taken) = taken {
        set_forwarded_prefix(fields, taken);
        witness.see("strip has taken it", fields);
    }
    Ok(())
}

/// Says what was taken from the path's front, after what a trusted peer took before.
fn set_forwarded_prefix(fields: &mut HeaderMap, taken: &str) {
    let before = fields.get(&FORWARDED_PREFIX).and_then(|value| value.to_str().ok());
    let before = before.unwrap_or_default().trim_end_matches('/');
    if let Ok(value) = HeaderValue::try_from(format!("{before}{}", taken.trim_end_matches('/'))) {
        fields.insert(FORWARDED_PREFIX, value);
    }
}

const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// What the codec adds: a length, or how the body is framed.
const FRAMING: usize = 64;

/// The bytes of a head as Node counts them against its limit: target, names and values.
pub fn head_size(request: &Request) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let fields = request.headers().iter();
    fields.map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>() + target + FRAMING
}

/// The target to ask for, if it is not the one that was asked for.
fn target(uri: &Uri, paths: &Rewrite) -> Option<String> {
    let query = uri.query().and_then(next::strip_query);
    let path = asked_for(uri.path(), paths);
    if query.is_none() && matches!(path, Cow::Borrowed(_)) {
        return None;
    }
    let query = query.as_deref().or(uri.query()).filter(|query| !query.is_empty());
    Some(match query {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    })
}

/// The path that is asked for in place of `path`; owned if it is another.
pub fn asked_for<'a>(path: &'a str, paths: &Rewrite) -> Cow<'a, str> {
    let rest = paths.strip.as_deref().and_then(|prefix| stripped(path, prefix));
    if rest.is_none() && paths.prefix.is_none() {
        return Cow::Borrowed(path);
    }
    let rest = rest.unwrap_or(path);
    let prefix = paths.prefix.as_deref().unwrap_or_default();
    let slash = if rest.starts_with('/') { "" } else { "/" };
    Cow::Owned(format!("{prefix}{slash}{rest}"))
}

/// What follows a prefix of whole segments.
fn stripped<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, strip: Option<&str>, expected: Option<&str>) {
        check_with(uri, strip, None, expected);
    }

    fn check_with(uri: &str, strip: Option<&str>, prefix: Option<&str>, expected: Option<&str>) {
        let uri = uri.parse().expect("a URI");
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let paths = Rewrite { strip: owned(strip), prefix: owned(prefix) };
        assert_eq!(target(&uri, &paths).as_deref(), expected, "{uri} {paths:?}");
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
        check_with("/docs/a?b", Some("/docs"), Some("/v2"), Some("/v2/a?b"));
        check_with("/docs", Some("/docs"), Some("/v2"), Some("/v2/"));
        check_with("/a", None, Some("/v2"), Some("/v2/a"));
    }
}
