//! What we know of Next.js: its internal headers and query keys, its development sockets; pure.
//!
//! Next.js believes these from whoever sends them; only itself may.

mod build;
mod guard;
mod image;

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::exchange::headers::Seen;

/// Read by Next.js as if it had written them itself, or steering what it renders.
const REQUEST_HEADERS: [&str; 18] = [
    "x-now-route-matches",
    "x-matched-path",
    "x-nextjs-data",
    "x-nextjs-request-id",
    "x-nextjs-html-request-id",
    "x-next-resume-state-length",
    "next-resume",
    "x-prerender-revalidate",
    "x-prerender-revalidate-if-generated",
    "x-next-revalidated-tags",
    "x-next-revalidate-tag-token",
    "x-next-cache-tags",
    "x-next-cache-soft-tags",
    "x-action-forwarded",
    // Reflected by middleware into its own fetches.
    "location",
    // The nonce of scripts is read from the request.
    "content-security-policy",
    "content-security-policy-report-only",
    // What other proxies use to hide the path that was asked for.
    "x-original-url",
];
const REQUEST_PREFIXES: [&str; 4] = ["x-middleware-", "x-invoke-", "x-vercel-", "x-now-"];

/// What the browser's router sends with data of the Pages Router, and needs back.
const DATA_REQUEST_HEADERS: [&str; 2] = ["x-nextjs-data", "x-middleware-prefetch"];

/// What pages of `next dev` need to match an edit with what they show.
const DEV_REQUEST_HEADERS: [&str; 2] = ["x-nextjs-request-id", "x-nextjs-html-request-id"];

const RESPONSE_HEADERS: [&str; 6] = [
    "x-middleware-rewrite",
    "x-middleware-next",
    "x-middleware-override-headers",
    "x-middleware-set-cookie",
    "x-next-cache-tags",
    // To whoever buffers; nobody does here.
    "x-accel-buffering",
];
const RESPONSE_PREFIXES: [&str; 2] = ["x-middleware-request-", "x-invoke-"];

const POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");

/// Query keys that platforms inject, and Next.js obeys.
const QUERY_KEYS: [&str; 7] = [
    "nextInternalLocale",
    "__nextDataReq",
    "__nextLocale",
    "__nextDefaultLocale",
    "__nextInferredLocaleFromDefault",
    "__nextppronly",
    "__nextNotFoundSrcPage",
];
const QUERY_PREFIXES: [&str; 2] = ["nxtP", "nxtI"];

/// Where `next dev` takes its hot reload sockets, below any base path.
const DEV_SOCKETS: [&str; 2] = ["/_next/hmr", "/_next/webpack-hmr"];

pub use build::{Build, Cut, Manifests, is_holed, version};
pub use guard::{Asked, Expects, Refusal, is_listed, judge};
pub use image::normalize;

/// How the application runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Production,
    Development,
}

/// True if this can be the data of a Pages Router's page: `BASE/_next/data/BUILD/PAGE.json`.
pub fn is_data(path: &str) -> bool {
    path.split_once(DATA).is_some_and(|(_base, rest)| is_page(rest))
}

/// True if it is, in an application whose paths all begin with `base`. Below another one it may be
/// what a page that catches all is asked for.
pub fn is_data_below(path: &str, base: &str) -> bool {
    let rest = path.strip_prefix(base).and_then(|rest| rest.strip_prefix(DATA));
    rest.is_some_and(is_page)
}

const DATA: &str = "/_next/data/";

fn is_page(rest: &str) -> bool {
    let page = rest.split_once('/').filter(|(build, _)| !build.is_empty());
    page.and_then(|(_, page)| page.strip_suffix(".json")).is_some_and(|page| !page.is_empty())
}

/// False if nothing is said that only a request for a page's data may say.
pub fn may_be_for_data(seen: &Seen) -> bool {
    DATA_REQUEST_HEADERS.iter().any(|name| seen.may_have(name))
}

/// Removes what only a request for a page's data may say.
pub fn strip_data(headers: &mut HeaderMap) {
    DATA_REQUEST_HEADERS.iter().for_each(|name| drop(headers.remove(*name)));
}

/// False if none of the headers is one that Next.js says to itself: nothing of either kind is to be
/// removed.
pub fn may_be_internal(seen: &Seen) -> bool {
    seen.may_begin("lnx")
        || REQUEST_HEADERS.iter().any(|name| name.starts_with('c') && seen.may_have(name))
}

/// Removes what a client must not say to Next.js; `data` if it asks for a page's data.
pub fn strip_request(headers: &mut HeaderMap, data: bool, mode: Mode) {
    strip(headers, |name| {
        let internal = has_prefix(name, &REQUEST_PREFIXES)
            || REQUEST_HEADERS.contains(&name)
            || name == "x-rewrite-url";
        let dev = mode == Mode::Development && DEV_REQUEST_HEADERS.contains(&name);
        internal && !dev && !(data && DATA_REQUEST_HEADERS.contains(&name))
    });
}

/// Removes what Next.js says to itself.
pub fn strip_response(headers: &mut HeaderMap) {
    strip(headers, |name| has_prefix(name, &RESPONSE_PREFIXES) || RESPONSE_HEADERS.contains(&name));
    if headers.get(&POWERED_BY).is_some_and(|by| by.as_bytes() == b"Next.js") {
        headers.remove(POWERED_BY);
    }
}

/// What all internal names begin with, so that most others are passed over at a glance.
const BEGIN: &[u8] = b"clnx";

fn strip(headers: &mut HeaderMap<HeaderValue>, is_internal: impl Fn(&str) -> bool) {
    let may_be = |name: &str| name.as_bytes().first().is_some_and(|first| BEGIN.contains(first));
    let found = |name: &&HeaderName| {
        let name = name.as_str();
        may_be(name) && is_internal(name)
    };
    let internal: Vec<HeaderName> = headers.keys().filter(found).cloned().collect();
    for name in internal {
        headers.remove(name);
    }
}

fn has_prefix(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// The query without internal keys, if there are any; the other bytes and their order stay.
pub fn strip_query(query: &str) -> Option<String> {
    let kept = || query.split('&').filter(|pair| !is_internal_pair(pair));
    let changed = kept().count() != query.split('&').count();
    changed.then(|| kept().collect::<Vec<_>>().join("&"))
}

fn is_internal_pair(pair: &str) -> bool {
    let key = pair.split('=').next().unwrap_or_default();
    let key = decode(key);
    QUERY_KEYS.contains(&&*key)
        || QUERY_PREFIXES.iter().any(|prefix| key.starts_with(prefix) && key.len() > prefix.len())
}

/// A key as the application reads it.
fn decode(key: &str) -> Cow<'_, str> {
    if !key.contains('%') {
        return Cow::Borrowed(key);
    }
    let mut decoded = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

/// True if `next dev` takes a hot reload socket at this path.
pub fn is_dev_socket(path: &str) -> bool {
    DEV_SOCKETS.iter().any(|socket| path.ends_with(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(names: &[&'static str], strip: impl Fn(&mut HeaderMap)) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(*name, HeaderValue::from_static("Next.js"));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        left.sort();
        left
    }

    #[test]
    fn requests_keep_what_the_router_needs() {
        let names = [
            "rsc",
            "next-action",
            "next-router-state-tree",
            "next-url",
            "x-deployment-id",
            "origin",
            "x-middleware-subrequest",
            "x-middleware-prefetch",
            "x-nextjs-data",
            "next-resume",
            "x-vercel-id",
            "content-security-policy",
            "x-action-forwarded",
            "x-rewrite-url",
        ];
        let page = left(&names, |headers| strip_request(headers, false, Mode::Production));
        let kept = [
            "next-action",
            "next-router-state-tree",
            "next-url",
            "origin",
            "rsc",
            "x-deployment-id",
        ];
        assert_eq!(page, kept);
        let data = left(&names, |headers| strip_request(headers, true, Mode::Production));
        assert_eq!(data.len(), kept.len() + 2, "{data:?}");
    }

    #[test]
    fn paths_that_are_something_else() {
        for (path, base, can_be, is) in [
            ("/_next/data/b/page.json", "", true, true),
            ("/_next/data/b/en/a/b.json", "", true, true),
            ("/shop/_next/data/b/index.json", "/shop", true, true),
            ("/shop/_next/data/b/index.json", "", true, false),
            ("/blog/a/_next/data/b/c.json", "/blog", true, false),
            ("/_next/data/b/page.json", "/shop", true, false),
            ("/shopper/_next/data/b/page.json", "/shop", true, false),
            ("/_next/data/b/page", "", false, false),
            ("/_next/data/page.json", "", false, false),
            ("/_next/data//page.json", "", false, false),
            ("/_next/data/b/.json", "", false, false),
            ("/_next/static/data/x", "", false, false),
        ] {
            assert_eq!((is_data(path), is_data_below(path, base)), (can_be, is), "{path} {base}");
        }
        assert!(is_dev_socket("/base/_next/hmr") && !is_dev_socket("/_next/hmr/x"));
    }

    #[test]
    fn nothing_internal_is_passed_over_at_a_glance() {
        let exact = REQUEST_HEADERS.iter().chain(&RESPONSE_HEADERS).chain(&["x-rewrite-url"]);
        let names = exact.chain(&REQUEST_PREFIXES).chain(&RESPONSE_PREFIXES);
        for name in names.copied().chain([POWERED_BY.as_str()]) {
            let mut headers = HeaderMap::new();
            headers.insert("cookie", HeaderValue::from_static("a=1"));
            assert!(!may_be_internal(&Seen::of(&headers)));
            let name = HeaderName::try_from(name).expect("a name");
            headers.insert(&name, HeaderValue::from_static("1"));
            assert!(may_be_internal(&Seen::of(&headers)), "{name}");
        }
    }

    #[test]
    fn responses_keep_what_the_router_needs() {
        let names = [
            "vary",
            "x-nextjs-prerender",
            "x-action-redirect",
            "x-middleware-rewrite",
            "x-middleware-request-cookie",
            "x-next-cache-tags",
            "x-powered-by",
            "x-middleware-skip",
            "x-accel-buffering",
        ];
        let kept = ["vary", "x-action-redirect", "x-middleware-skip", "x-nextjs-prerender"];
        assert_eq!(left(&names, strip_response), kept);
    }

    #[test]
    fn queries_lose_only_internal_keys() {
        for (query, expected) in [
            ("a=1&b=2", None),
            ("", None),
            ("_rsc=abc&dpl=1", None),
            ("nxtP=1", None),
            ("nxtpslug=1", None),
            ("a=1&nxtPslug=2&_rsc=abc", Some("a=1&_rsc=abc")),
            ("nxtIx", Some("")),
            ("%6extPslug=2&a=%2F&a", Some("a=%2F&a")),
            ("__nextLocale=de&&x", Some("&x")),
            ("nextInternalLocale%", None),
        ] {
            assert_eq!(strip_query(query).as_deref(), expected, "{query}");
        }
    }

    #[test]
    fn keys_are_decoded_as_the_application_does() {
        for (key, decoded) in [("a%20", "a "), ("%", "%"), ("%2", "%2"), ("%+5", "%+5")] {
            assert_eq!(decode(key), decoded);
        }
    }
}
