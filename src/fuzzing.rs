//! The doors through which bytes are thrown at whatever reads a peer's; for `tests/fuzz` alone.
//!
//! Beside each reader stands what must hold for any bytes, also beyond "no panic": what was written
//! is read the same, no more is taken than is there, nothing grows by more than a small factor.

use std::sync::LazyLock;

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config::PathPattern;
use crate::next;
use crate::observe::context::{Context, Share};
use crate::redirect::Redirect;

pub use crate::admin::fuzzing::operations;
pub use crate::auth::fuzzing::{cookies, sessions};
pub use crate::compress::fuzzing::codings;
pub use crate::config::fuzzing::{paths, patterns, proxy_yaml};
pub use crate::exchange::fuzzing::{forwarded, h2_frames, host, requests};
pub use crate::files::fuzzing::files;
pub use crate::hub::fuzzing::{
    binary, claim, deflate, frames, handover, msgpack, offset, origins, packet, packets, partial,
    payload, private_paths, query, reply, resp, rules, wire,
};
pub use crate::proxy::fuzzing::{locations, proxied};
pub use crate::router::fuzzing::{asked, sites};
pub use crate::upstream::fuzzing::{chunked, response};

/// Panics if something does not hold for these bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its corpus.
pub const TARGETS: [(&str, Target); 41] = [
    ("asked", asked),
    ("binary", binary),
    ("built", built),
    ("chunked", chunked),
    ("claim", claim),
    ("codings", codings),
    ("cookies", cookies),
    ("deflate", deflate),
    ("files", files),
    ("forwarded", forwarded),
    ("frames", frames),
    ("guarded", guarded),
    ("h2_frames", h2_frames),
    ("handover", handover),
    ("host", host),
    ("locations", locations),
    ("msgpack", msgpack),
    ("next_query", next_query),
    ("offset", offset),
    ("operations", operations),
    ("origins", origins),
    ("packet", packet),
    ("packets", packets),
    ("partial", partial),
    ("paths", paths),
    ("patterns", patterns),
    ("payload", payload),
    ("private_paths", private_paths),
    ("proxied", proxied),
    ("proxy_yaml", proxy_yaml),
    ("query", query),
    ("redirects", redirects),
    ("reply", reply),
    ("requests", requests),
    ("resp", resp),
    ("response", response),
    ("rules", rules),
    ("sessions", sessions),
    ("sites", sites),
    ("traceparent", traceparent),
    ("wire", wire),
];

/// A query on its way to Next.js.
pub fn next_query(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };
    let Some(stripped) = next::strip_query(query) else { return };
    assert!(stripped.len() < query.len());
    assert_eq!(next::strip_query(&stripped), None, "something was left");
    let mut pairs = query.split('&');
    assert!(stripped.is_empty() || stripped.split('&').all(|kept| pairs.any(|pair| pair == kept)));
}

/// A `traceparent` of a client.
pub fn traceparent(data: &[u8]) {
    let Some(came) = std::str::from_utf8(data).ok().and_then(Context::read) else { return };
    assert!(came.trace != 0 && came.span != 0);
    assert_eq!(Context::read(&came.write()), Some(came));
    let below = came.below(Share(10_000));
    assert!(below.trace == came.trace && below.span != 0 && below.is_sampled);
}

/// A manifest of a build, in the place of each.
pub fn built(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let all = || Some(text.to_owned());
    let build = next::Build::parse(&next::Manifests {
        routes: all(),
        images: all(),
        actions: all(),
        required: all(),
        middleware: all(),
        functions: all(),
    });
    assert!(!build.base.ends_with('/'));
    assert!(!build.middleware || !build.plain_public, "public goes past the middleware");
}

/// A request to the application: method, path, query, then its headers, a line each.
pub fn guarded(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut line = || std::str::from_utf8(lines.next().unwrap_or_default()).unwrap_or_default();
    let (method, path, query) = (line(), line(), line());
    let Ok(method) = method.parse::<Method>() else { return };
    let mut headers = HeaderMap::new();
    for line in lines.take(32) {
        let (name, value) = line.split_at(memchr::memchr(b':', line).unwrap_or(line.len()));
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            headers.append(name, value);
        }
    }
    let asked = next::Asked {
        method: &method,
        path,
        query: Some(query),
        headers: &headers,
        authority: "a.example",
        unmeasured: false,
    };
    let refused = next::judge(&asked, None, &["*.b.example".to_owned()]);
    assert!(refused.is_none_or(|refusal| (400..500).contains(&refusal.fault().status)));
    if refused.is_none() && method == Method::POST && headers.contains_key("next-action") {
        let origin =
            headers.get(header::ORIGIN).map_or("", |origin| origin.to_str().unwrap_or("?"));
        let host = origin.rsplit("://").next().unwrap_or_default().to_ascii_lowercase();
        assert!(host.is_empty() || host == "a.example" || host.ends_with(".b.example"), "{origin}");
    }
    // A build refuses more, and never less.
    let built = next::judge(&asked, Some(&BUILT), &["*.b.example".to_owned()]);
    assert!(built.is_some() || refused.is_none() || refused == Some(next::Refusal::ActionOrigin));
    next::Expects::of(&method, path, &headers).strip(&mut headers);
    next::normalize(&mut headers);
    let once = headers.clone();
    next::normalize(&mut headers);
    assert_eq!(headers, once);
}

/// A build with pictures of its own, and of one other server.
static BUILT: LazyLock<next::Build> = LazyLock::new(|| {
    let images = r#"{ "images": { "loader": "default", "path": "/_next/image", "deviceSizes": [640],
        "remotePatterns": [{}] } }"#;
    let required = r#"{ "config": { "images": { "domains": ["a.example"], "remotePatterns":
        [{ "protocol": "https", "hostname": "**.b.example" }], "localPatterns":
        [{ "pathname": "/a/**/*.png", "search": "" }] } } }"#;
    next::Build::parse(&next::Manifests {
        images: Some(images.to_owned()),
        required: Some(required.to_owned()),
        ..next::Manifests::default()
    })
});

/// A redirect: the route's pattern, where it leads to, the path that is asked for, a line each.
pub fn redirects(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (Ok(pattern), location, path) = (PathPattern::parse(line()), line(), line()) else {
        return;
    };
    let is_own = |location: &str| {
        let rest = location.strip_prefix('/');
        rest.is_some_and(|rest| !rest.starts_with(['/', '\\']))
    };
    let Some(captures) = pattern.matches(path).filter(|_| is_own(location)) else { return };
    let captured = |name: &str| captures.get(name).map(str::to_owned);
    let response = Redirect::compile(location, 308).answer(&captured, None);
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    assert!(location.is_none_or(is_own), "{location:?} is on another host");
}

#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a target that fails does not say what it was given")]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;

    /// The seeds of a target, by their files' names.
    fn seeds(name: &str) -> Vec<(String, Vec<u8>)> {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        let files = fs::read_dir(corpus.join(name)).expect("a corpus").map(|entry| {
            let path = entry.expect("an entry").path();
            (path.display().to_string(), fs::read(&path).expect("a readable seed"))
        });
        files.collect()
    }

    /// What was found once must not come back, and what is written down must be met at all.
    #[test]
    fn the_corpus_holds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        let folders = fs::read_dir(&corpus).expect("the corpus").map(|entry| {
            entry.expect("an entry").file_name().into_string().expect("a name in ASCII")
        });
        let names = TARGETS.iter().map(|(name, _)| (*name).to_owned());
        assert_eq!(folders.collect::<BTreeSet<_>>(), names.collect());
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name} has no seed");
            for (file, data) in seeds {
                println!("{file}");
                target(&data);
                // Whatever comes in pieces can end anywhere.
                (0..data.len().min(512)).for_each(|end| target(&data[..end]));
            }
        }
    }

    /// One change to a seed: here so many bytes make way for others.
    type Change = (Index, usize, Vec<u8>);

    fn changed(seed: &[u8], changes: &[Change]) -> Vec<u8> {
        let mut data = seed.to_vec();
        for (place, gone, new) in changes {
            let start = place.index(data.len() + 1);
            let end = data.len().min(start + gone);
            data.splice(start..end, new.iter().copied());
        }
        data
    }

    /// Bytes that mean something to somebody, and others.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let signs = select(b"\0\x04\x1e\x7f\x80\xff \r\n\t\"\\/%+-.,:;=?&*[]{}0159abefx".to_vec());
        proptest::collection::vec(prop_oneof![signs, any::<u8>()], 0..6)
    }

    /// Some of what `make fuzz` does, without its patience.
    #[test]
    fn bytes_of_strangers_hold() {
        for (name, target) in TARGETS {
            println!("{name}");
            let seeds = seeds(name).into_iter().map(|(_, data)| data).collect::<Vec<_>>();
            let change = (any::<Index>(), 0..4_usize, bytes());
            let strategy = (select(seeds), proptest::collection::vec(change, 1..5));
            proptest!(ProptestConfig::with_cases(2000), |((seed, changes) in strategy)| {
                target(&changed(&seed, &changes));
            });
            proptest!(ProptestConfig::with_cases(500), |(data in proptest::collection::vec(any::<u8>(), 0..200))| {
                target(&data);
            });
        }
    }
}
