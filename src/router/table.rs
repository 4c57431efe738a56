//! Host, path and the rest of a request's head to a route; pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, COOKIE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::compress::Compress;
use crate::config::{Addresses, Captures, HostPattern, PathPattern, When};
use crate::exchange::query::decode;
use crate::exchange::{Body, HeaderRules, Response};
use crate::observe::access::RouteCount;

use super::Handler;
use super::build::Assets;
use super::cors::Cors;
use super::door::Door;
use super::images::Images;
use super::maintenance::Maintenance;
use super::meter::Quota;
use super::pages::Pages;
use super::share::{Lots, Share};

/// Sites by host: exact names first, then patterns in the order written.
pub struct Table {
    sites: Vec<Site>,
    exact: HashMap<String, usize>,
}

pub struct Site {
    pub host: HostPattern,
    /// Answered with a redirect to `host`.
    pub aliases: Vec<HostPattern>,
    /// Among all sites, in the order written.
    pub number: usize,
    pub treatment: Treatment,
    pub cors: Option<Cors>,
    pub maintenance: Option<Maintenance>,
    pub pages: Pages,
    /// A development server answers: nothing is served or judged by its build.
    pub dev: bool,
    /// What the application was built to.
    pub assets: Option<Assets>,
    pub compress: Compress,
    /// Hosts whose pages may call actions, besides the site's own.
    pub action_origins: Vec<String>,
    /// Whom it is for, its hub too.
    pub addresses: Addresses,
    /// How pictures are asked for; `None`: as everything else.
    pub images: Option<Images>,
    /// First match wins.
    pub routes: Vec<Route>,
}

/// What happens to every response of a site.
#[derive(Default)]
pub struct Treatment {
    /// Strict-Transport-Security, over HTTPS.
    pub hsts: Option<HeaderValue>,
    pub headers: HeaderRules,
}

pub struct Route {
    /// `None` matches every path.
    pub path: Option<PathPattern>,
    pub when: When,
    pub share: Option<Share>,
    pub handler: Handler,
    /// The site's application answers, so what is known of it holds.
    pub to_next: bool,
    pub addresses: Addresses,
    /// `None`: for everybody.
    pub door: Option<Door>,
    pub headers: HeaderRules,
    /// Instead of the site's.
    pub cors: Option<Cors>,
    pub body_max: u64,
    /// How often it may be asked.
    pub quota: Option<Quota>,
    /// Between two pieces of the request's body, where it is not as everywhere.
    pub body_idle: Option<Duration>,
    /// Bytes a second that the request's body must come with, where it is not as everywhere.
    pub body_rate: Option<u64>,
    pub count: Arc<RouteCount>,
}

/// What of a request decides about its route.
pub struct Ask<'a> {
    /// Canonical.
    pub path: &'a str,
    pub query: Option<&'a str>,
    /// In lower case, without port.
    pub host: &'a str,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
}

/// Why a route is not meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmet {
    Path,
    Host,
    Method,
    Header,
    Cookie,
    Query,
    Share,
}

impl Table {
    pub fn new(sites: Vec<Site>) -> Self {
        let mut exact = HashMap::new();
        for (index, site) in sites.iter().enumerate() {
            for name in std::iter::once(&site.host).chain(&site.aliases) {
                exact.entry(name.as_str().to_owned()).or_insert(index);
            }
        }
        Self { sites, exact }
    }

    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.sites.iter().flat_map(|site| &site.routes)
    }

    /// Whose client names no host in its handshake.
    pub fn first(&self) -> Option<&Site> {
        self.sites.first()
    }

    /// The site for a lower-case host without port.
    pub fn site(&self, host: &str) -> Option<&Site> {
        if let Some(index) = self.exact.get(host) {
            return self.sites.get(*index);
        }
        self.sites.iter().find(|site| {
            site.host.matches(host) || site.aliases.iter().any(|alias| alias.matches(host))
        })
    }
}

impl Site {
    pub fn route(&self, ask: &Ask<'_>, lots: &mut Lots) -> Option<(&Route, Captures)> {
        self.routes.iter().find_map(|route| Some((route, route.judge(ask, lots).ok()?)))
    }
}

impl Route {
    /// What the path's pattern captured, or the first thing that does not fit.
    pub fn judge(&self, ask: &Ask<'_>, lots: &mut Lots) -> Result<Captures, Unmet> {
        let captures = match &self.path {
            None => Captures::default(),
            Some(pattern) => pattern.matches(ask.path).ok_or(Unmet::Path)?,
        };
        if !self.when.is_always() {
            meets(&self.when, ask)?;
        }
        match &self.share {
            Some(share) if !lots.wins(share, ask.headers) => Err(Unmet::Share),
            _ => Ok(captures),
        }
    }
}

impl Route {
    /// What may be asked of it, as far as that is known here.
    pub fn options(&self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let methods = self.when.methods.join(", ");
        if let Ok(methods) = HeaderValue::try_from(methods)
            && !methods.is_empty()
        {
            response.headers_mut().insert(ALLOW, methods);
        }
        response
    }
}

fn meets(when: &When, ask: &Ask<'_>) -> Result<(), Unmet> {
    if !when.hosts.is_empty() && !when.hosts.iter().any(|host| host.matches(ask.host)) {
        return Err(Unmet::Host);
    }
    if !when.methods.is_empty() && !when.methods.iter().any(|method| method == ask.method.as_str())
    {
        return Err(Unmet::Method);
    }
    for (name, glob) in &when.headers {
        let values = ask.headers.get_all(name).iter().map(|value| value.as_bytes());
        if !glob.matches(values) {
            return Err(Unmet::Header);
        }
    }
    for (name, glob) in &when.cookies {
        if !glob.matches(cookies(ask.headers, name)) {
            return Err(Unmet::Cookie);
        }
    }
    for (name, glob) in &when.query {
        let pairs = ask.query.unwrap_or_default().split('&');
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let values: Vec<_> =
            pairs.filter(|(key, _)| decode(key) == *name).map(|(_, value)| decode(value)).collect();
        if !glob.matches(values.iter().map(|value| value.as_bytes())) {
            return Err(Unmet::Query);
        }
    }
    Ok(())
}

/// The values of a cookie, as they were sent.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let name = name.as_bytes().to_vec();
    let lines = headers.get_all(COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).filter_map(move |pair| {
        let rest = pair.trim_ascii().strip_prefix(name.as_slice())?;
        rest.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use http::header::HeaderName;

    use super::*;
    use crate::config::Glob;

    fn check(when: &When, expected: Result<(), Unmet>) {
        let lines =
            [("x-beta", "1"), ("x-beta", "2"), ("cookie", "a=1; plan=pro"), ("cookie", "b=")];
        let headers = lines.map(|(name, value)| {
            (HeaderName::from_str(name).expect("a name"), HeaderValue::from_static(value))
        });
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        let ask = Ask {
            path: "/",
            query: Some("q=a%20b&flag&q=c"),
            host: "a.example.com",
            method: &Method::POST,
            headers: &map,
        };
        assert_eq!(meets(when, &ask), expected, "{when:?}");
    }

    #[test]
    fn everything_that_is_written_must_hold() {
        let globs =
            |name: &str, glob: &str| vec![(name.to_owned(), Glob::parse(glob).expect("a glob"))];
        let host = |host| vec![HostPattern::parse(host).expect("a host")];
        check(&When::default(), Ok(()));
        check(&When { hosts: host("*.example.com"), ..When::default() }, Ok(()));
        check(&When { hosts: host("b.example.com"), ..When::default() }, Err(Unmet::Host));
        let methods = |method: &str| vec!["GET".to_owned(), method.to_owned()];
        check(&When { methods: methods("POST"), ..When::default() }, Ok(()));
        check(&When { methods: methods("PUT"), ..When::default() }, Err(Unmet::Method));
        for (name, glob, expected) in [
            ("x-beta", "2", Ok(())),
            ("x-beta", "!3", Ok(())),
            ("x-beta", "!*", Err(Unmet::Header)),
            ("x-gamma", "!*", Ok(())),
            ("x-gamma", "*", Err(Unmet::Header)),
        ] {
            check(&When { headers: globs(name, glob), ..When::default() }, expected);
        }
        for (name, glob, expected) in [
            ("plan", "pr*", Ok(())),
            ("b", "*", Ok(())),
            ("lan", "*", Err(Unmet::Cookie)),
            ("a", "2", Err(Unmet::Cookie)),
        ] {
            check(&When { cookies: globs(name, glob), ..When::default() }, expected);
        }
        for (name, glob, expected) in [
            ("q", "a b", Ok(())),
            ("q", "c", Ok(())),
            ("flag", "*", Ok(())),
            ("none", "*", Err(Unmet::Query)),
        ] {
            check(&When { query: globs(name, glob), ..When::default() }, expected);
        }
    }
}
