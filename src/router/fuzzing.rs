//! What must hold for any host and path that a client asks for.
//!
//! Panics where something does not hold; see `crate::fuzzing`.

use std::time::Duration;

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::compress::Compress;
use crate::config::{self, Addresses, HostPattern, PathPattern, When};
use crate::exchange::headers::Seen;
use crate::exchange::{Client, Fault, HeaderRules, Scheme, Side};
use crate::observe::access::RouteCount;
use crate::redirect::Redirect;

use super::Handler;
use super::cors::Cors;
use super::page::Page;
use super::pages::{Pages, Wants};
use super::share::{Lots, Share};
use super::table::{Ask, Route, Site, Table, Treatment};

const SITES: usize = 4;
const ROUTES: usize = 4;

/// Four sites, each as its host and its aliases; four paths of routes, which all sites have; then
/// what is asked for as a host and a path: a line each, with a space between two words.
pub fn sites(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let sites: Vec<Vec<HostPattern>> =
        lines.by_ref().take(SITES).map(hosts).filter(|all| !all.is_empty()).collect();
    let paths: Vec<PathPattern> =
        lines.by_ref().take(ROUTES).flat_map(PathPattern::parse).collect();
    let table = Table::new(sites.iter().map(|hosts| site(hosts, &paths)).collect());
    for line in lines.take(16) {
        let (host, path) = line.split_once(' ').unwrap_or((line, "/"));
        let host = host.to_ascii_lowercase();
        let found = table.site(&host);
        assert_eq!(found.map(|site| &site.host), slowly(&sites, &host), "{host}");
        let (method, headers) = (Method::GET, HeaderMap::new());
        let ask = Ask { path, query: None, host: &host, method: &method, headers: &headers };
        let mut lots = Lots::default();
        let route = found.and_then(|site| site.route(&ask, &mut lots));
        let route = route.map(|(route, _)| route.body_max);
        let meant = paths.iter().position(|pattern| pattern.matches(path).is_some());
        assert_eq!(route, found.and(meant).map(|index| index as u64), "{path}");
    }
}

/// Headers of a request, a line each, as the router looks at them.
pub fn asked(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(32) {
        let (name, value) = line.split_at(memchr::memchr(b':', line).unwrap_or(line.len()));
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            headers.append(name, value);
        }
    }
    let fault = Fault::new(404, Side::Client, "no_route");
    let answer = Pages::default().answer(fault, &Wants::of(&headers, &Seen::of(&headers)), None);
    assert_eq!(answer.status(), 404);
    let origins = vec!["https://a.example".to_owned(), "https://*.b.example".to_owned()];
    let cors = Cors::compile(&config::Cors {
        origins,
        methods: vec!["GET".to_owned()],
        headers: vec!["*".to_owned()],
        expose: Vec::new(),
        credentials: true,
        max_age: Duration::ZERO,
    });
    let origin = headers.get(header::ORIGIN);
    let mut answer = HeaderMap::new();
    cors.apply(origin, &mut answer, false);
    if let Some(allowed) = answer.get(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        let allowed = allowed.to_str().expect("an origin is ASCII");
        let label =
            allowed.strip_prefix("https://").and_then(|host| host.strip_suffix(".b.example"));
        let is_below = label.is_some_and(|label| !label.is_empty() && !label.contains(['.', '/']));
        assert!(allowed == "https://a.example" || is_below, "{allowed}");
    }
    let (address, host) = ([127, 0, 0, 1].into(), "a.example".to_owned());
    let client = Client { address, host, port: 443, scheme: Scheme::Https, chain: None };
    let mut request = http::Request::new(());
    *request.method_mut() = Method::POST;
    headers.clone_into(request.headers_mut());
    let is_own = Page::of(&request, &client, |_| false) == Page::Own;
    if is_own && !headers.contains_key("sec-fetch-site") {
        let own = b"https://a.example";
        let told = headers.get_all(header::ORIGIN).iter();
        assert!(told.into_iter().all(|origin| origin.as_bytes().eq_ignore_ascii_case(own)));
    }
    let _answered = cors.preflight(&Method::OPTIONS, &headers);
    let share = Share { of: 5000, cookie: "lot".to_owned(), lasts: Duration::ZERO };
    let mut lots = Lots::default();
    let first = lots.wins(&share, &headers);
    assert_eq!(lots.wins(&share, &headers), first, "a lot is drawn once");
}

fn hosts(line: &str) -> Vec<HostPattern> {
    line.split(' ').take(4).flat_map(HostPattern::parse).collect()
}

/// A route of it is known by its number, which stands where the size of a body does.
fn site(hosts: &[HostPattern], paths: &[PathPattern]) -> Site {
    let count = RouteCount::new("fuzzing");
    let route = |(index, path): (usize, &PathPattern)| Route {
        path: Some(path.clone()),
        when: When::default(),
        share: None,
        handler: Handler::Redirect(Redirect::compile("/", 308)),
        to_next: false,
        addresses: Addresses::default(),
        door: None,
        headers: HeaderRules::default(),
        cors: None,
        body_max: index as u64,
        body_idle: None,
        body_rate: None,
        quota: None,
        count: count.clone(),
    };
    let (host, aliases) = hosts.split_first().expect("a site has a host");
    let routes = paths.iter().enumerate().map(route).collect();
    Site {
        host: host.clone(),
        aliases: aliases.to_vec(),
        number: 0,
        addresses: Addresses::default(),
        images: None,
        treatment: Treatment::default(),
        cors: None,
        maintenance: None,
        pages: Pages::default(),
        dev: false,
        assets: None,
        compress: Compress::default(),
        action_origins: Vec::new(),
        routes,
    }
}

/// A name goes before all patterns; then the first goes.
fn slowly<'a>(sites: &'a [Vec<HostPattern>], host: &str) -> Option<&'a HostPattern> {
    let first = |fits: &dyn Fn(&HostPattern) -> bool| {
        sites.iter().find(|hosts| hosts.iter().any(fits)).and_then(|hosts| hosts.first())
    };
    first(&|pattern| pattern.as_str() == host).or_else(|| first(&|pattern| pattern.matches(host)))
}
