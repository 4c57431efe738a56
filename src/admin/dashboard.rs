//! The page for people, and what it is drawn from.
//!
//! The page is one file that asks nobody but this listener. It changes nothing.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::exchange::{Body, Response};
use crate::observe::metrics;

use super::history::Event;
use super::{Admin, Readiness, json};

const PAGE: &str = include_str!("dashboard.html");

/// The page's own script and style alone run in it, by their hashes, and it speaks to this listener
/// alone.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; \
        base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("<script>", "</script>"),
        hash("<style>", "</style>")
    );
    // A hash in base64 is always a header's value.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// CSP Level 3, 2.3.1: a hash source for what stands between two tags.
fn hash(open: &str, close: &str) -> String {
    let inside = PAGE.split_once(open).and_then(|(_, rest)| rest.split_once(close));
    let inside = inside.map_or("", |(inside, _)| inside);
    let hash = digest::digest(&digest::SHA256, inside.as_bytes());
    format!("'sha256-{}'", STANDARD.encode(hash))
}

pub fn page() -> Response {
    let mut response = Response::new(Body::from(PAGE));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    let fixed: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[derive(Serialize)]
struct Overview {
    version: &'static str,
    pid: u32,
    /// Seconds since 1970.
    now: u64,
    generation: u64,
    readiness: Readiness,
    /// Where the process listens: `https://0.0.0.0:443`.
    listening: Vec<String>,
    namespaces: Vec<String>,
    /// Newest first.
    history: Vec<Event>,
    /// As `GET /metrics` tells them, also where that is closed.
    metrics: String,
}

pub fn overview(admin: &Admin) -> Response {
    let policy = (admin.hub.policy)();
    let mut namespaces: Vec<_> =
        policy.iter().flat_map(|policy| policy.names()).map(str::to_owned).collect();
    namespaces.sort_unstable();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let generation = metrics::series(&metrics::GENERATION, &[]).value();
    let overview = Overview {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        now: since.as_secs(),
        generation: u64::try_from(generation).unwrap_or_default(),
        readiness: (admin.readiness)(),
        listening: admin.listening.borrow().clone(),
        namespaces,
        history: admin.history.told(),
        metrics: metrics::render(),
    };
    let mut response = json(StatusCode::OK, &overview);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_that_names_nobody_else() {
        assert_eq!((PAGE.matches("<script").count(), PAGE.matches("<style").count()), (1, 1));
        for outside in ["src=", "href=\"http", "url(", "@import", "innerHTML", "onclick", " style="]
        {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        let policy = POLICY.to_str().expect("text");
        assert_eq!(policy.matches("sha256-").count(), 2, "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    }
}
