//! Answers every request: site, route, handler, response or fault.

mod door;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod meter;
mod table;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, header};

use crate::auth::{self, Auth};
use crate::compress::Compress;
use crate::config::{self, Cidr, Config};
use crate::drain::Drain;
use crate::exchange::{self, Body, Client, Fault, Peer, Request, Response, Scheme};
use crate::hub;
use crate::limits::Rate;
use crate::observe::access::RouteCount;
use crate::observe::{Access, metrics};
use crate::proxy::Proxy;
use crate::redirect::Redirect;
use crate::upstream::{Pools, Registry, Upstream};

use door::{Door, Shut};
pub use meter::Meter;
use meter::Quota;
use table::{Route, Site, Table};

/// What a worker owns and lends to the handlers.
pub struct Local {
    pub hub: Rc<hub::Shard>,
    pub pools: Rc<Pools>,
    pub users: Rc<auth::Local>,
    pub drain: Drain,
}

/// Compiled from the sites; part of the snapshot.
pub struct Router {
    table: Table,
    trust: Vec<Cidr>,
    hub: Option<Arc<hub::Policy>>,
    auth: Arc<Auth>,
    meter: Arc<Meter>,
    /// What one address may ask for.
    per_ip: Option<Rate>,
    hub_count: Arc<RouteCount>,
    edge_count: Arc<RouteCount>,
    /// Where plain HTTP is sent when the site has a certificate.
    https_port: Option<u16>,
}

/// What answers a route.
enum Handler {
    Proxy(Box<Proxy>),
    Redirect(Redirect),
}

impl Router {
    /// Compiles every site. `has_certificate` tells which hosts HTTPS can be served for.
    pub fn compile(
        config: &Config,
        (hub, auth): (Option<Arc<hub::Policy>>, Arc<Auth>),
        (registry, meter): (&Arc<Registry>, &Arc<Meter>),
        has_certificate: &dyn Fn(&str) -> bool,
    ) -> Self {
        let sites = config.sites.iter().map(|site| {
            compile_site(site, config, (registry, &auth), has_certificate(site.host.as_str()))
        });
        Self {
            table: Table::new(sites.collect()),
            trust: config.trust.clone(),
            hub,
            auth,
            meter: Arc::clone(meter),
            per_ip: config.limits.per_ip.requests.as_ref().map(meter::rate),
            hub_count: RouteCount::new("hub"),
            edge_count: RouteCount::new("edge"),
            https_port: config.listen.https.first().map(std::net::SocketAddr::port),
        }
    }

    /// The upstreams that requests may go to, for readiness.
    pub fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        self.table.routes().filter_map(|route| match &route.handler {
            Handler::Proxy(proxy) => Some(proxy.upstream()),
            Handler::Redirect(_) => None,
        })
    }

    /// Answers every request: with a handler's response, or with a fault.
    pub async fn answer(
        &self,
        request: Request,
        peer: &Peer,
        local: &Local,
        access: &mut Access,
    ) -> Response {
        let answered = self.choose(request, peer, local, access).await;
        answered.unwrap_or_else(|fault| {
            access.reason = Some(fault.reason);
            metrics::count(&metrics::FAULTS, fault.reason);
            if access.route.is_none() {
                access.route = Some(Arc::clone(&self.edge_count));
            }
            fault.response()
        })
    }

    async fn choose(
        &self,
        request: Request,
        peer: &Peer,
        local: &Local,
        access: &mut Access,
    ) -> Result<Response, Fault> {
        let client = self.client(&request, peer)?;
        access.client = Some(client.address);
        access.host.clone_from(&client.host);
        if request.uri().path() == HEALTH && request.method() == Method::GET {
            access.route = Some(Arc::clone(&self.edge_count));
            return health(local);
        }
        let site = self.table.site(&client.host);
        if let Some(rate) = self.per_ip
            && site.is_none_or(|site| !site.unlimited)
            && !self.trusts(client.address)
        {
            self.meter.address(client.address, rate)?;
        }
        if let Some(site) = site
            && self.is_misdirected(site, peer, client.scheme)
        {
            return Err(Fault::MISDIRECTED);
        }
        if let Some(site) = site
            && let Some(response) = self.elsewhere(site, &request, &client)
        {
            access.route = Some(Arc::clone(&self.edge_count));
            return Ok(response);
        }
        // Without sites the process is a hub for whoever asks.
        if let Some(policy) = &self.hub
            && (site.is_some() || self.table.is_empty())
            && is_below(request.uri().path(), policy.path())
        {
            access.route = Some(Arc::clone(&self.hub_count));
            let (response, reason) = local.hub.answer(request, &client).await;
            access.reason = reason;
            if let Some(reason) = reason {
                metrics::count(&metrics::FAULTS, reason);
            }
            return Ok(response);
        }
        let site = site.ok_or(Fault::NO_SITE)?;
        // What the application answers for the hub is not there for anybody else.
        if self.hub.as_ref().is_some_and(|policy| policy.is_private(request.uri().path())) {
            return Err(Fault::PRIVATE);
        }
        let (route, captures) = site.route(request.uri().path()).ok_or(Fault::NO_ROUTE)?;
        access.route = Some(Arc::clone(&route.count));
        if let Some(quota) = route.quota.as_ref().filter(|_| !site.unlimited) {
            self.meter.route(quota, &client, request.headers())?;
        }
        match &route.handler {
            Handler::Redirect(redirect) => {
                let capture = |name: &str| captures.get(name).map(str::to_owned);
                Ok(redirect.answer(&capture, request.uri().query()))
            }
            Handler::Proxy(proxy) => {
                let mut request = limit(request, route.body_max)?;
                door::strip(&mut request);
                if let Some(door) = &route.door {
                    match door.admit(&mut request, &client, &self.auth, &local.users).await {
                        Ok(()) => (),
                        Err(Shut::Login(login)) => return Ok(door::to_login(login)),
                        Err(Shut::Fault(fault)) => return Err(fault),
                    }
                }
                let shown = self.auth.shown(request.headers());
                let choice = site.compress.choose(&mut request);
                let answered = proxy.answer(request, &client, peer, &local.pools, &local.drain);
                let mut response = answered.await.map_err(Fault::from)?;
                choice.apply(&mut response);
                if let Some(shown) = shown {
                    // A logout that passes by ends the sockets that it is about.
                    for found in self.auth.suspicions(&shown, response.headers(), &client) {
                        local.hub.suspect(found);
                    }
                }
                Ok(response)
            }
        }
    }

    /// Whom the request comes from. Only origin-form targets are answered, and `*` for OPTIONS.
    fn client(&self, request: &Request, peer: &Peer) -> Result<Client, Fault> {
        let path = request.uri().path();
        let asterisk = path == "*" && request.method() == Method::OPTIONS;
        if request.method() == Method::CONNECT || !(path.starts_with('/') || asterisk) {
            return Err(Fault::BAD_TARGET);
        }
        // It would show a script what the edge and others on the way add to a request.
        if request.method() == Method::TRACE {
            return Err(Fault::new(501, exchange::Side::Client, "method_refused"));
        }
        let trusted = self.is_trusted(peer);
        let (uri, headers) = (request.uri(), request.headers());
        exchange::headers::client(peer, uri, request.version(), headers, trusted)
    }

    /// True if the connection was not made for this site: another name was asked for in the
    /// handshake, or no certificate of the client's.
    fn is_misdirected(&self, site: &Site, peer: &Peer, scheme: Scheme) -> bool {
        let Some(tls) = &peer.tls else {
            // Plain HTTP is sent to HTTPS; what a proxy says of its own handshakes is no proof.
            let redirected = site.secure && scheme == Scheme::Http;
            return site.verified && !redirected;
        };
        let made_for = match &tls.name {
            Some(name) => self.table.site(name),
            None => self.table.first(),
        };
        let same = made_for.is_some_and(|other| std::ptr::eq(site, other));
        if site.verified {
            return !(same && tls.verified);
        }
        // Who speaks for others has one connection for all of them.
        !same && tls.name.is_some() && !self.is_trusted(peer)
    }

    fn is_trusted(&self, peer: &Peer) -> bool {
        self.trusts(peer.address.ip().to_canonical())
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trust.iter().any(|block| block.contains(address))
    }

    /// A redirect to the place where the site is answered: its own name, or HTTPS.
    fn elsewhere(&self, site: &Site, request: &Request, client: &Client) -> Option<Response> {
        let secure = self.https_port.filter(|_| site.secure && client.scheme == Scheme::Http);
        let alias = !site.host.matches(&client.host);
        if !alias && secure.is_none() {
            return None;
        }
        let host = if alias { site.host.as_str() } else { &client.host };
        let (scheme, port) = match secure {
            Some(port) => (Scheme::Https, port),
            None => (client.scheme, client.port),
        };
        let port = if port == scheme.default_port() { String::new() } else { format!(":{port}") };
        let rest = request.uri().path_and_query().map_or("/", |rest| rest.as_str());
        let location = format!("{}://{host}{port}{rest}", scheme.as_str());
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(header::LOCATION, HeaderValue::try_from(location).ok()?);
        Some(response)
    }
}

/// Answered by the edge itself on every public listener.
const HEALTH: &str = "/health";

fn health(local: &Local) -> Result<Response, Fault> {
    if local.drain.is_leaving() {
        return Err(Fault::new(503, exchange::Side::Edge, "draining"));
    }
    let mut response = Response::new(Body::from("ok\n"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Refuses a body that says it is too large before a byte of it is read.
fn limit(mut request: Request, max: u64) -> Result<Request, Fault> {
    let length = http_body::Body::size_hint(request.body()).exact();
    if length.is_some_and(|length| length > max) {
        return Err(Fault::BODY_TOO_LARGE);
    }
    request.body_mut().limit(max);
    Ok(request)
}

fn compile_site(
    site: &config::Site,
    config: &Config,
    (registry, auth): (&Arc<Registry>, &Auth),
    has_certificate: bool,
) -> Site {
    let proxy =
        |upstream: &config::Upstream, strip: Option<String>, route: Option<&config::Route>| {
            let first_byte = route.and_then(|route| route.first_byte);
            let upstream = Upstream::compile(upstream, &config.timeouts, first_byte, registry);
            let upgrade = route.is_some_and(|route| route.upgrade);
            Handler::Proxy(Box::new(Proxy::compile(upstream, strip, upgrade, site.dev)))
        };
    let routes = site.routes.iter().filter_map(|route| {
        let handler = match &route.action {
            config::Action::Next => proxy(site.next.as_ref()?, None, Some(route)),
            config::Action::To { upstream, strip } => proxy(upstream, strip.clone(), Some(route)),
            config::Action::Redirect { location, status } => {
                Handler::Redirect(Redirect::compile(location, *status))
            }
        };
        Some(Route {
            path: Some(route.path.clone()),
            handler,
            door: route.auth.as_ref().map(|words| Door::compile(words, auth)),
            body_max: route.body.unwrap_or(config.limits.body),
            quota: route
                .rate
                .as_ref()
                .map(|rate| Quota::compile(rate, site.host.as_str(), &route.path.to_string())),
            count: RouteCount::new(&route.path.to_string()),
        })
    });
    let rest = site.next.as_ref().map(|next| Route {
        path: None,
        handler: proxy(next, None, None),
        door: None,
        body_max: config.limits.body,
        quota: None,
        count: RouteCount::new("next"),
    });
    Site {
        host: site.host.clone(),
        aliases: site.aliases.clone(),
        secure: has_certificate && !config.listen.https.is_empty(),
        verified: site.client_ca.is_some(),
        routes: routes.chain(rest).collect(),
        compress: Compress::compile(site),
        unlimited: site.dev,
    }
}
