//! What is refused before Next.js sees it, and what of its answers is not passed on as it is; pure.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::exchange::query::decode;
use crate::exchange::{Body, Fault, Response, Side};

use super::build::{Build, Images};

/// A request for the application.
pub struct Asked<'a> {
    pub method: &'a Method,
    /// Canonical.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// The public host, with its port if that is not the scheme's own.
    pub authority: &'a str,
    /// A body whose length is not said.
    pub unmeasured: bool,
}

/// Why a request is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 404: a path that only hosting platforms ask for, and that goes past middleware.
    Segment,
    /// 400: parameters that no image has.
    Image(&'static str),
    /// 403: an action called by a page of another origin.
    ActionOrigin,
    /// 400: no id of any action.
    ActionId,
    /// 409: an action of another build.
    ActionUnknown,
    /// 411: a rewrite to another server would pass the body on as a request.
    Unmeasured,
}

const ACTION: HeaderName = HeaderName::from_static("next-action");
const NOT_FOUND: HeaderName = HeaderName::from_static("x-nextjs-action-not-found");
const DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const RSC: HeaderName = HeaderName::from_static("rsc");

/// What Next.js itself takes at most.
const IMAGE_URL_MAX: usize = 3072;

/// What kind of path this is, whatever stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Static,
    Image,
    Other,
}

pub fn kind(path: &str) -> Kind {
    // With `trailingSlash` the application asks for it so.
    if path.trim_end_matches('/').ends_with("/_next/image") {
        Kind::Image
    } else if path.contains("/_next/static/") {
        Kind::Static
    } else {
        Kind::Other
    }
}

/// Refuses what can only be an attack or a mistake; `origins` may call actions besides the site.
pub fn judge(asked: &Asked<'_>, build: Option<&Build>, origins: &[String]) -> Option<Refusal> {
    let bodiless = [Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS, Method::TRACE];
    if asked.unmeasured && bodiless.contains(asked.method) {
        return Some(Refusal::Unmeasured);
    }
    if asked.path.ends_with(".rsc") || asked.path.contains(".segments/") {
        return Some(Refusal::Segment);
    }
    if kind(asked.path) == Kind::Image && !asked.query.unwrap_or_default().is_empty() {
        let images = build.and_then(|build| build.images.as_ref());
        return image(asked.query.unwrap_or_default(), images).map(Refusal::Image);
    }
    if *asked.method != Method::POST {
        return None;
    }
    if !asked.headers.contains_key(ACTION) {
        // A form may be an action without saying so. Of no origin at all some Next.js take it for the
        // site's own (CVE-2026-27978), which it may be: browsers say so where pages send no referrer.
        let is_form = asked.headers.get(header::CONTENT_TYPE).is_some_and(is_multipart);
        let is_nobodys = asked.headers.get(header::ORIGIN).is_some_and(|origin| origin == "null");
        let listed = |origins: &[String]| origins.iter().any(|origin| origin == "null");
        let listed = listed(origins) || build.is_some_and(|build| listed(&build.origins));
        let is_own = asked.headers.get(SITE).is_some_and(|site| site == "same-origin");
        let is_refused = is_form && is_nobodys && !is_own && !listed;
        return is_refused.then_some(Refusal::ActionOrigin);
    }
    if !is_own(asked, origins) && !build.is_some_and(|build| is_own(asked, &build.origins)) {
        return Some(Refusal::ActionOrigin);
    }
    let mut ids = asked.headers.get_all(ACTION).iter();
    let id = ids.next().and_then(|id| id.to_str().ok()).unwrap_or_default();
    let is_id = (32..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id || ids.next().is_some() {
        return Some(Refusal::ActionId);
    }
    let known = build.and_then(|build| build.actions.as_ref());
    known.filter(|known| !known.contains(id)).map(|_| Refusal::ActionUnknown)
}

fn is_multipart(kind: &HeaderValue) -> bool {
    const FORM: &[u8] = b"multipart/form-data";
    kind.as_bytes().get(..FORM.len()).is_some_and(|start| start.eq_ignore_ascii_case(FORM))
}

/// As Next.js compares: the origin's host with that of the site, or with those that are listed.
fn is_own(asked: &Asked<'_>, origins: &[String]) -> bool {
    // Next.js lets actions without an origin through: no browser sends them.
    let Some(origin) = asked.headers.get(header::ORIGIN) else { return true };
    host_of(origin).is_some_and(|host| host == asked.authority) || is_listed(origin, origins)
}

/// True if the host of an origin is one of these, as Next.js writes its `allowedOrigins`.
pub fn is_listed(origin: &HeaderValue, origins: &[String]) -> bool {
    host_of(origin).is_some_and(|host| origins.iter().any(|pattern| fits(&host, pattern)))
}

fn host_of(origin: &HeaderValue) -> Option<String> {
    let origin = origin.to_str().ok()?;
    let host = origin.split_once("://").map_or(origin, |(_, host)| host).to_ascii_lowercase();
    // The dot that says that nothing comes after it is no part of a name.
    Some(match host.split_once(".:") {
        Some((host, port)) => format!("{host}:{port}"),
        None => host.strip_suffix('.').map(str::to_owned).unwrap_or(host),
    })
}

fn fits(host: &str, pattern: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if !host.bytes().all(letter) {
        return false;
    }
    if let Some(domain) = pattern.strip_prefix("**.") {
        return host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'));
    }
    let Some(domain) = pattern.strip_prefix("*.") else { return host == pattern };
    let label = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
    label.is_some_and(|label| !label.is_empty() && !label.contains('.'))
}

/// What Next.js would refuse too, before it costs anything there.
fn image(query: &str, images: Option<&Images>) -> Option<&'static str> {
    let one = |name: &str| {
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut values =
            pairs.filter(|(key, _)| decode(key) == name).map(|(_, value)| decode(value));
        let first = values.next();
        first.filter(|_| values.next().is_none())
    };
    let number = |text: &str| {
        let is_number =
            !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|number| is_number && *number > 0)
    };
    let Some(url) = one("url") else { return Some("image_url") };
    let is_local = url.starts_with('/') && !url.starts_with("//") && !url.contains('\\');
    let is_remote = (url.starts_with("https://") || url.starts_with("http://"))
        && images.is_none_or(|images| images.remote);
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let is_itself = path.ends_with("/_next/image") || path.contains("/_next/image/");
    if url.len() > IMAGE_URL_MAX || !(is_local || is_remote) || (is_local && is_itself) {
        return Some("image_url");
    }
    let sources = images.and_then(|images| images.sources.as_ref());
    if sources.is_some_and(|sources| !sources.may_be(&url)) {
        return Some("image_url");
    }
    let Some(width) = one("w").and_then(|width| number(&width)) else { return Some("image_width") };
    if images.is_some_and(|images| !images.widths.is_empty() && !images.widths.contains(&width)) {
        return Some("image_width");
    }
    let quality = one("q").and_then(|quality| number(&quality)).filter(|quality| *quality <= 100);
    let Some(quality) = quality else { return Some("image_quality") };
    let known = images.and_then(|images| images.qualities.as_ref());
    if known.is_some_and(|known| !known.contains(&quality)) {
        return Some("image_quality");
    }
    None
}

impl Refusal {
    pub fn fault(self) -> Fault {
        let client = |status, reason| Fault::new(status, Side::Client, reason);
        match self {
            Self::Segment => client(404, "internal_path"),
            Self::Image(reason) => client(400, reason),
            Self::ActionOrigin => client(403, "action_origin"),
            Self::ActionId => client(400, "action_id"),
            Self::ActionUnknown => client(409, "action_unknown"),
            Self::Unmeasured => client(411, "length_required"),
        }
    }

    /// As Next.js says it, where its own pages wait for the words.
    pub fn response(self) -> Option<Response> {
        if !matches!(self, Self::ActionId | Self::ActionUnknown) {
            return None;
        }
        let mut response = Response::new(Body::from("Server Action unavailable."));
        *response.status_mut() =
            StatusCode::from_u16(self.fault().status).unwrap_or(StatusCode::BAD_REQUEST);
        let headers = response.headers_mut();
        headers.insert(NOT_FOUND, HeaderValue::from_static("1"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(response)
    }
}

/// What of a request decides about the response.
#[derive(Debug, Clone, Copy)]
pub struct Expects {
    kind: Kind,
    /// A browser would show whatever comes.
    document: bool,
    rsc: bool,
    /// An editor looks at what is not public yet.
    draft: bool,
}

impl Expects {
    pub fn of(method: &Method, path: &str, headers: &HeaderMap) -> Self {
        let is_read = *method == Method::GET || *method == Method::HEAD;
        let shown = headers.get(DESTINATION).is_some_and(|destination| destination == "document");
        let rsc = headers.contains_key(RSC);
        let draft = headers.get_all(header::COOKIE).iter().any(|line| is_draft(line.as_bytes()));
        Self { kind: kind(path), document: is_read && shown && !rsc, rsc, draft }
    }

    /// True for a picture that the application makes when it is asked for.
    pub fn is_image(self) -> bool {
        self.kind == Kind::Image
    }

    /// Nobody's sessions go where they cannot matter: what is there is the same for all.
    pub fn strip(self, headers: &mut HeaderMap) {
        if self.kind != Kind::Other {
            headers.remove(header::COOKIE);
            headers.remove(header::AUTHORIZATION);
        }
    }

    /// Refuses, or sets right, what a browser or a cache would take for something else.
    pub fn check(self, response: &mut Response) -> Result<(), Fault> {
        let has_type = |response: &Response, start: &[u8]| {
            let kind = response.headers().get(header::CONTENT_TYPE);
            kind.is_some_and(|kind| kind.as_bytes().starts_with(start))
        };
        if self.document && has_type(response, b"text/x-component") {
            return Err(Fault::new(502, Side::Upstream, "rsc_for_document"));
        }
        let status = response.status();
        // A script's place would run the page.
        if self.kind == Kind::Static && status == StatusCode::NOT_FOUND {
            if has_type(response, b"text/html") {
                *response = missing();
            }
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        // No cache on the way may show it to others.
        if self.draft && self.kind == Kind::Other {
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        }
        // It depends on headers that it does not name.
        if self.rsc
            && status == StatusCode::TEMPORARY_REDIRECT
            && !response.headers().contains_key(header::CACHE_CONTROL)
        {
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        Ok(())
    }
}

/// The cookies of Next.js' draft and preview modes.
const DRAFT: [&[u8]; 2] = [b"__prerender_bypass=", b"__next_preview_data="];

fn is_draft(cookies: &[u8]) -> bool {
    if memchr::memchr(b'_', cookies).is_none() {
        return false;
    }
    cookies.split(|byte| *byte == b';').any(|pair| {
        let pair = pair.trim_ascii_start();
        DRAFT.iter().any(|name| pair.starts_with(name))
    })
}

/// What Next.js says of an asset that is not there.
fn missing() -> Response {
    let mut response = Response::new(Body::from("Not Found"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "606c2298c58bfd3a070aa510122ed5283978c38d67";

    fn build() -> Build {
        Build {
            actions: Some([ID.to_owned()].into()),
            origins: vec!["*.listed.example".to_owned()],
            images: Some(Images {
                widths: vec![640],
                qualities: Some(vec![75]),
                ..Images::default()
            }),
            ..Build::default()
        }
    }

    fn action(lines: &[(&'static str, &str)], build: Option<&Build>) -> Option<Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let asked = Asked {
            method: &Method::POST,
            path: "/page",
            query: None,
            headers: &headers,
            authority: "app.example:8443",
            unmeasured: true,
        };
        judge(&asked, build, &["**.any.example".to_owned()])
    }

    #[test]
    fn actions_are_called_by_the_sites_own_pages() {
        for (origin, expected) in [
            ("https://app.example:8443", None),
            ("https://App.example:8443", None),
            ("https://app.example", Some(Refusal::ActionOrigin)),
            ("null", Some(Refusal::ActionOrigin)),
            ("https://evil.example", Some(Refusal::ActionOrigin)),
            ("https://a.listed.example", None),
            ("https://a.b.listed.example", Some(Refusal::ActionOrigin)),
            ("https://listed.example", Some(Refusal::ActionOrigin)),
            ("https://a.b.any.example", None),
            ("https://any.example", Some(Refusal::ActionOrigin)),
        ] {
            let found = action(&[("next-action", ID), ("origin", origin)], Some(&build()));
            assert_eq!(found, expected, "{origin}");
        }
    }

    #[test]
    fn forms_of_no_origin_are_the_sites_own_alone() {
        let form = ("content-type", "Multipart/Form-Data; boundary=x");
        let null = ("origin", "null");
        for (lines, expected) in [
            (vec![form, null], Some(Refusal::ActionOrigin)),
            (vec![form, null, ("sec-fetch-site", "cross-site")], Some(Refusal::ActionOrigin)),
            // A site that tells nobody where its visitors come from.
            (vec![form, null, ("sec-fetch-site", "same-origin")], None),
            (vec![form], None),
            (vec![form, ("origin", "https://evil.example")], None),
            (vec![("content-type", "application/x-www-form-urlencoded"), null], None),
            (vec![null], None),
        ] {
            assert_eq!(action(&lines, Some(&build())), expected, "{lines:?}");
        }
    }

    #[test]
    fn actions_have_ids_that_were_built() {
        let other = ID.replace('6', "7");
        assert_eq!(action(&[("next-action", ID)], Some(&build())), None);
        assert_eq!(
            action(&[("next-action", &other)], Some(&build())),
            Some(Refusal::ActionUnknown)
        );
        assert_eq!(action(&[("next-action", &other)], None), None);
        for id in ["", "abc", &format!("{ID}x"), "$ACTION_ID_606c2298c58bfd3a070aa510122ed52839"] {
            assert_eq!(action(&[("next-action", id)], None), Some(Refusal::ActionId), "{id}");
        }
        let twice = [("next-action", ID), ("next-action", ID)];
        assert_eq!(action(&twice, None), Some(Refusal::ActionId));
        assert_eq!(action(&[], None), None);
        let answer = Refusal::ActionUnknown.response().expect("an answer");
        assert_eq!(answer.status(), 409);
        assert!(answer.headers().contains_key("x-nextjs-action-not-found"));
    }

    #[test]
    fn images_are_asked_for_with_what_was_built() {
        let build = build();
        for (query, expected) in [
            ("url=%2Fa.png&w=640&q=75", None),
            ("url=/a.png&w=641&q=75", Some("image_width")),
            ("url=/a.png&w=640&q=80", Some("image_quality")),
            ("url=/a.png&w=640", Some("image_quality")),
            ("url=/a.png&w=640&q=75&w=640", Some("image_width")),
            ("url=/a.png&w=+640&q=75", Some("image_width")),
            ("url=//evil/a.png&w=640&q=75", Some("image_url")),
            ("url=/\\evil/a.png&w=640&q=75", Some("image_url")),
            ("url=https://evil/a.png&w=640&q=75", Some("image_url")),
            ("url=ftp://evil/a.png&w=640&q=75", Some("image_url")),
            ("url=/_next/image?url=/a&w=640&q=75", Some("image_url")),
            ("w=640&q=75", Some("image_url")),
        ] {
            assert_eq!(image(query, build.images.as_ref()), expected, "{query}");
        }
        assert_eq!(image("url=https://other/a.png&w=641&q=80", None), None);
        assert_eq!(image("url=/a.png&w=0&q=75", None), Some("image_width"));
        assert_eq!(image("url=/a.png&w=1&q=101", None), Some("image_quality"));
        let long = format!("url=/{}&w=640&q=75", "a".repeat(IMAGE_URL_MAX));
        assert_eq!(image(&long, None), Some("image_url"));
    }

    #[test]
    fn paths_have_kinds() {
        for (path, expected) in [
            ("/_next/image", Kind::Image),
            ("/_next/image/", Kind::Image),
            ("/shop/_next/image", Kind::Image),
            ("/_next/images", Kind::Other),
            ("/_next/image/x", Kind::Other),
            ("/shop/_next/static/a.js", Kind::Static),
            ("/_next/static", Kind::Other),
            ("/", Kind::Other),
        ] {
            assert_eq!(kind(path), expected, "{path}");
        }
    }

    #[test]
    fn paths_and_bodies_that_go_past_the_application() {
        let headers = HeaderMap::new();
        let asked = |method, path, unmeasured| {
            let (query, authority) = (None, "a.example");
            judge(
                &Asked { method, path, query, headers: &headers, authority, unmeasured },
                None,
                &[],
            )
        };
        assert_eq!(asked(&Method::GET, "/a.rsc", false), Some(Refusal::Segment));
        assert_eq!(
            asked(&Method::GET, "/a.segments/_tree.segment.rsc", false),
            Some(Refusal::Segment)
        );
        assert_eq!(asked(&Method::GET, "/a.rsc/b", false), None);
        assert_eq!(asked(&Method::DELETE, "/a", true), Some(Refusal::Unmeasured));
        assert_eq!(asked(&Method::DELETE, "/a", false), None);
        assert_eq!(asked(&Method::PUT, "/a", true), None);
    }

    fn answered(
        lines: &[(&'static str, &'static str)],
        path: &str,
        status: u16,
        kind: &'static str,
    ) -> String {
        let map = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers = lines.iter().map(map).collect();
        let mut response = Response::new(Body::from("text"));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        match Expects::of(&Method::GET, path, &headers).check(&mut response) {
            Ok(()) => {
                let get = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
                let kind = get(header::CONTENT_TYPE).unwrap_or_default();
                format!("{kind} {}", get(header::CACHE_CONTROL).unwrap_or("-"))
            }
            Err(fault) => fault.reason.to_owned(),
        }
    }

    #[test]
    fn answers_are_what_was_asked_for() {
        let document = [("sec-fetch-dest", "document")];
        let flight = "text/x-component";
        assert_eq!(answered(&document, "/", 200, flight), "rsc_for_document");
        assert_eq!(answered(&document, "/", 200, "text/html"), "text/html -");
        assert_eq!(answered(&[("rsc", "1")], "/", 200, flight), "text/x-component -");
        assert_eq!(answered(&[("rsc", "1")], "/", 307, flight), "text/x-component no-store");
        let plain = "text/plain; charset=utf-8 no-store";
        assert_eq!(answered(&[], "/_next/static/a.js", 404, "text/html"), plain);
        assert_eq!(answered(&[], "/_next/static/a.js", 404, "text/plain"), "text/plain no-store");
        assert_eq!(answered(&[], "/a.js", 404, "text/html"), "text/html -");
        let draft = [("cookie", "a=1; __prerender_bypass=x")];
        assert_eq!(answered(&draft, "/", 200, "text/html"), "text/html private, no-store");
        let other = [("cookie", "x__prerender_bypass=x")];
        assert_eq!(answered(&other, "/", 200, "text/html"), "text/html -");
    }
}
