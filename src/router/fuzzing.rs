//! What must hold for any host and path that a client asks for.
//!
//! Panics where something does not hold; see `crate::fuzzing`.

use crate::compress::Compress;
use crate::config::{HostPattern, PathPattern};
use crate::observe::access::RouteCount;
use crate::redirect::Redirect;

use super::Handler;
use super::table::{Route, Site, Table};

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
        let route = found.and_then(|site| site.route(path)).map(|(route, _)| route.body_max);
        let meant = paths.iter().position(|pattern| pattern.matches(path).is_some());
        assert_eq!(route, found.and(meant).map(|index| index as u64), "{path}");
    }
}

fn hosts(line: &str) -> Vec<HostPattern> {
    line.split(' ').take(4).flat_map(HostPattern::parse).collect()
}

/// A route of it is known by its number, which stands where the size of a body does.
fn site(hosts: &[HostPattern], paths: &[PathPattern]) -> Site {
    let count = RouteCount::new("fuzzing");
    let route = |(index, path): (usize, &PathPattern)| Route {
        path: Some(path.clone()),
        handler: Handler::Redirect(Redirect::compile("/", 308)),
        door: None,
        body_max: index as u64,
        quota: None,
        count: count.clone(),
    };
    let (host, aliases) = hosts.split_first().expect("a site has a host");
    let routes = paths.iter().enumerate().map(route).collect();
    let (aliases, compress) = (aliases.to_vec(), Compress::default());
    let (host, secure, verified, unlimited) = (host.clone(), false, false, false);
    Site { host, aliases, secure, verified, routes, compress, unlimited }
}

/// A name goes before all patterns; then the first goes.
fn slowly<'a>(sites: &'a [Vec<HostPattern>], host: &str) -> Option<&'a HostPattern> {
    let first = |fits: &dyn Fn(&HostPattern) -> bool| {
        sites.iter().find(|hosts| hosts.iter().any(fits)).and_then(|hosts| hosts.first())
    };
    first(&|pattern| pattern.as_str() == host).or_else(|| first(&|pattern| pattern.matches(host)))
}
