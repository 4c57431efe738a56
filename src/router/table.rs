//! Host and path to a route; pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::compress::Compress;
use crate::config::{Captures, HostPattern, PathPattern};
use crate::observe::access::RouteCount;

use super::Handler;
use super::door::Door;
use super::meter::Quota;

/// Sites by host: exact names first, then patterns in the order written.
pub struct Table {
    sites: Vec<Site>,
    exact: HashMap<String, usize>,
}

pub struct Site {
    pub host: HostPattern,
    /// Answered with a redirect to `host`.
    pub aliases: Vec<HostPattern>,
    /// Plain HTTP is redirected to HTTPS.
    pub secure: bool,
    /// Only for clients that showed a certificate.
    pub verified: bool,
    /// First match wins.
    pub routes: Vec<Route>,
    pub compress: Compress,
    /// Rates do not hold here.
    pub unlimited: bool,
}

pub struct Route {
    /// `None` matches every path.
    pub path: Option<PathPattern>,
    pub handler: Handler,
    /// `None`: for everybody.
    pub door: Option<Door>,
    pub body_max: u64,
    /// How often it may be asked.
    pub quota: Option<Quota>,
    pub count: Arc<RouteCount>,
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
    pub fn route(&self, path: &str) -> Option<(&Route, Captures)> {
        self.routes.iter().find_map(|route| match &route.path {
            None => Some((route, Captures::default())),
            Some(pattern) => Some((route, pattern.matches(path)?)),
        })
    }
}
