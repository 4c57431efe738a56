//! Answers every request: site, route, handler, response or fault.

mod application;
mod build;
mod changes;
mod compile;
mod cors;
mod course;
mod door;
mod explain;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod handshakes;
mod health;
mod images;
mod keeper;
mod maintenance;
mod meter;
mod page;
mod pages;
mod share;
mod table;

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use crate::auth::{self, Auth};
use crate::config::{self, Captures, Cidr, Config};
use crate::drain::Drain;
use crate::exchange::headers::{Seen, Witness};
use crate::exchange::{self, Body, Challenges, Client, Fault, Peer, Request, Response, Scheme};
use crate::files::{Files, OUT_OF_FILES};
use crate::hub;
use crate::limits::Rate;
use crate::next;
use crate::observe::access::RouteCount;
use crate::observe::{Access, metrics};
use crate::proxy::Proxy;
use crate::redirect::Redirect;
use crate::upstream::{CompileError, Pools, Registry, Upstream};

use application::{expects, from_disk, guard, limit, sees_visitors, set_path};
use course::Course;
use door::{Door, Shut};
use handshakes::Handshakes;
use health::{HEALTH, health};
use page::Page;
use table::{Ask, Route, Site, Table};

pub use build::Builds;
pub use changes::{Added, Removed};
pub use explain::Explanation;
pub use handshakes::Handshake;
pub use images::{Flights, Optimizers};
pub use maintenance::Flags;
pub use meter::Meter;

/// How often an edge may have passed a request on before it is taken for one that goes round. An
/// application may come back a few times: with a rewrite to a page of its own host, or an edge
/// behind another.
const PASSES: usize = 8;

/// What a worker owns and lends to the handlers.
pub struct Local {
    pub hub: Rc<hub::Shard>,
    pub pools: Rc<Pools>,
    pub users: Rc<auth::Local>,
    /// Pictures that are asked for now.
    pub flights: Rc<Flights>,
    pub drain: Drain,
}

/// What sites share over reloads: what is known of the disk, and who makes pictures.
#[derive(Clone, Default)]
pub struct Kept {
    pub flags: Arc<Flags>,
    pub builds: Arc<Builds>,
    pub optimizers: Arc<Optimizers>,
}

/// Compiled from the sites; part of the snapshot.
#[derive(Clone)]
pub struct Router {
    table: Arc<Table>,
    handshakes: Handshakes,
    trust: Vec<Cidr>,
    hub: Option<Arc<hub::Policy>>,
    auth: Arc<Auth>,
    /// Headers by which the application is told who somebody is.
    vouched: Vec<HeaderName>,
    challenges: Challenges,
    meter: Arc<Meter>,
    /// What one address may ask for, and that in words.
    per_ip: Option<(Rate, String)>,
    hub_count: Arc<RouteCount>,
    edge_count: Arc<RouteCount>,
    /// Where plain HTTP is sent when the site has a certificate.
    https_port: Option<u16>,
}

/// What answers a route.
enum Handler {
    Proxy(Box<Proxy>),
    Redirect(Redirect),
    Files(Files),
}

impl Router {
    /// Compiles every site. `handshake` tells how a host is come to over HTTPS.
    pub fn compile(
        config: &Config,
        (hub, auth): (Option<Arc<hub::Policy>>, Arc<Auth>),
        (registry, kept, meter): (&Arc<Registry>, &Kept, &Arc<Meter>),
        challenges: Challenges,
        handshake: &dyn Fn(&str) -> Handshake,
    ) -> Result<Self, CompileError> {
        let Kept { flags, builds, optimizers } = kept;
        let around =
            compile::Around { config, registry, auth: &auth, flags, builds, optimizers, meter };
        let sites = config.sites.iter().enumerate();
        let sites = sites.map(|(number, site)| compile::site(site, number, &around));
        let sites: Result<Vec<_>, _> = sites.collect();
        let table = Table::new(sites?);
        let told = table.routes().filter_map(|route| route.door.as_ref()).flat_map(Door::told);
        let vouched =
            [door::USER, door::PROVIDER].into_iter().chain(auth.vouched()).chain(told.cloned());
        let (vouched, per_ip) = (vouched.collect(), config.limits.per_ip.requests.as_ref());
        Ok(Self {
            table: Arc::new(table),
            handshakes: Handshakes::of(config, handshake),
            vouched,
            trust: config.trust.clone(),
            hub,
            auth,
            challenges,
            meter: Arc::clone(meter),
            per_ip: per_ip.map(|words| (meter::rate(words), meter::said(words))),
            hub_count: RouteCount::new("hub"),
            edge_count: RouteCount::new("edge"),
            https_port: config.listen.https.first().map(std::net::SocketAddr::port),
        })
    }

    /// The same, where hosts are come to otherwise.
    pub fn with_handshakes(&self, config: &Config, handshake: &dyn Fn(&str) -> Handshake) -> Self {
        Self { handshakes: Handshakes::of(config, handshake), ..self.clone() }
    }

    /// Where plain HTTP is sent, if the site can be come to over HTTPS.
    fn secure_port(&self, site: &Site) -> Option<u16> {
        self.https_port.filter(|_| self.handshakes.are_possible(site))
    }

    /// The upstreams that requests may go to, for readiness.
    pub fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        self.table.routes().filter_map(|route| match &route.handler {
            Handler::Proxy(proxy) => Some(proxy.upstream()),
            Handler::Redirect(_) | Handler::Files(_) => None,
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
        let mut course = Course::begin(&request);
        let answered = self.choose(request, peer, local, &mut course, access).await;
        let mut response = answered.unwrap_or_else(|fault| {
            access.reason = Some(fault.reason);
            metrics::count(&metrics::FAULTS, fault.reason);
            if access.route.is_none() {
                let count = course.route.map_or(&self.edge_count, |route| &route.count);
                access.route = Some(Arc::clone(count));
            }
            course.fault(fault)
        });
        course.treat(response.headers_mut());
        response
    }

    /// Notes the fault of what could not be read as a request.
    pub fn refused(&self, fault: Fault, access: &mut Access) {
        access.route = Some(Arc::clone(&self.edge_count));
        refused(access, Some(fault.reason));
    }

    async fn choose<'a>(
        &'a self,
        mut request: Request,
        peer: &Peer,
        local: &Local,
        course: &mut Course<'a>,
        access: &mut Access,
    ) -> Result<Response, Fault> {
        let client = self.client(&request, peer)?;
        if request.version() == Version::HTTP_2 && application::may_be_bodiless(&request) {
            request.body_mut().settle().await;
        }
        access.meet(&client.host, client.address);
        self.count(&request, &client)?;
        let (route, captures, changed) = match self.decide(&request, (&client, peer), course)? {
            Way::Health => {
                access.route = Some(Arc::clone(&self.edge_count));
                return health(local);
            }
            Way::Hub => {
                access.route = Some(Arc::clone(&self.hub_count));
                // Hooks may be told of any header: here, too, a client cannot say who it is.
                self.unvouch(request.headers_mut(), course.seen, peer, &mut ());
                let (response, reason) = local.hub.answer(request, &client).await;
                refused(access, reason);
                return Ok(response);
            }
            Way::Answered(response, reason) => {
                let count = course.route.map_or(&self.edge_count, |route| &route.count);
                access.route = Some(Arc::clone(count));
                refused(access, reason);
                return Ok(response);
            }
            Way::Route(route, captures, changed) => (route, captures, changed),
        };
        access.route = Some(Arc::clone(&route.count));
        if let Some(quota) = &route.quota {
            self.meter.route(quota, &client, request.headers())?;
        }
        if let Handler::Redirect(redirect) = &route.handler {
            let capture = |name: &str| captures.get(name).map(str::to_owned);
            return Ok(redirect.answer(&capture, request.uri().query()));
        }
        let mut request = limit(request, route, course.site)?;
        // A client cannot say who it is.
        self.unvouch(request.headers_mut(), course.seen, peer, &mut ());
        if let Some(door) = &route.door {
            // Nor take away what is said of it.
            exchange::headers::strip_nominated(request.headers_mut());
            let page = Page::of(&request, &client, |origin| course.allows(origin));
            let (from, by) = ((&client, peer, page), (&*local.users, &local.pools));
            match Box::pin(door.admit(&mut request, from, &self.auth, by)).await {
                Ok(told) => {
                    // What was said of whoever asks stands there now.
                    (course.told, course.seen) = (told, Seen::of(request.headers()));
                }
                Err(Shut::Answer(response, reason)) => {
                    access.reason = Some(reason);
                    return Ok(*response);
                }
                Err(Shut::Fault(fault)) => return Err(fault),
            }
        }
        let disk = || from_disk(&request, changed.as_deref(), route, &captures, course);
        let answered = match disk() {
            // What is kept for later is less than what is wanted now.
            Some(Err(OUT_OF_FILES)) if local.pools.spare() => disk(),
            answered => answered,
        };
        // The application may have a descriptor for it.
        let passes = matches!(&answered, Some(Err(OUT_OF_FILES)))
            && matches!(&route.handler, Handler::Proxy(_));
        if let Some(answered) = answered.filter(|_| !passes) {
            let choice = course.site.map(|site| site.compress.accepted(&request));
            return answered.map(|mut response| {
                choice.inspect(|choice| choice.apply(&mut response));
                response
            });
        }
        let Handler::Proxy(proxy) = &route.handler else { return Err(Fault::NO_ROUTE) };
        let shown = self.auth.shown(request.headers());
        let shown = shown.map(|shown| (shown, request.uri().path().to_owned()));
        let expects = expects(&mut request, changed.as_deref(), route, course);
        if let Some(path) = changed.filter(|_| proxy.rewrites()) {
            set_path(&mut request, &path)?;
        }
        let choice = course.site.map(|site| site.compress.choose(&mut request));
        let images = course.site.and_then(|site| site.images.as_ref());
        let images = images.filter(|_| expects.is_some_and(|expects| expects.is_image()));
        let mut response = match images {
            Some(images) => {
                let alike = route.door.is_none() && !sees_visitors(course.site);
                let from = (&client, peer);
                let to = (&**proxy, &mut access.sent);
                Box::pin(images.answer(request, alike, to, from, local)).await?
            }
            None => {
                let (from, by) = ((&client, peer), (&local.pools, &local.drain));
                let answered = proxy.answer(request, from, &course.seen, by, &mut access.sent);
                answered.await.map_err(Fault::from)?
            }
        };
        choice.inspect(|choice| choice.apply(&mut response));
        if let Some((shown, path)) = shown {
            // A logout that passes by ends the sockets that it is about.
            local.hub.passed(&self.auth, &shown, response.headers(), (&client, &path));
        }
        if let Some(expects) = expects {
            expects.check(&mut response)?;
        }
        Ok(response)
    }

    /// Removes what only this edge may say of who somebody is, and what applications that make
    /// variables of headers would take for it; and what only a peer that is trusted may say.
    fn unvouch(
        &self,
        headers: &mut HeaderMap,
        seen: Seen,
        peer: &Peer,
        witness: &mut impl Witness,
    ) {
        if seen.may_begin("x") && !self.is_trusted(peer) {
            exchange::headers::strip_claims(headers);
            witness.see("may be said by peers in trust alone", headers);
        }
        for name in self.vouched.iter().filter(|name| seen.may_have(name.as_str())) {
            headers.remove(name);
        }
        witness.see(VOUCHED, headers);
        if !seen.is_odd() {
            return;
        }
        let plain = |name: &HeaderName| name.as_str().replace('_', "-");
        let is_like = |name: &HeaderName| self.vouched.iter().any(|own| plain(own) == plain(name));
        let odd = headers.keys().filter(|name| name.as_str().contains('_') && is_like(name));
        let odd: Vec<_> = odd.cloned().collect();
        odd.iter().for_each(|name| drop(headers.remove(name)));
        witness.see(VOUCHED, headers);
    }

    /// Counts a request of its address's; the edge's own health is nobody's.
    fn count(&self, request: &Request, client: &Client) -> Result<(), Fault> {
        let Some((rate, _)) = self.per_ip(request, client) else { return Ok(()) };
        self.meter.address(client.address, *rate)
    }

    /// How often who asks may do so on the whole.
    fn per_ip(&self, request: &Request, client: &Client) -> Option<&(Rate, String)> {
        let all = self.per_ip.as_ref()?;
        let free = request.uri().path() == HEALTH
            || self.trusts(client.address)
            || self.table.site(&client.host).is_some_and(|site| site.dev);
        (!free).then_some(all)
    }

    /// Where a request goes. Nothing is done on the way that cannot be done again.
    fn decide<'a>(
        &'a self,
        request: &Request,
        (client, peer): (&Client, &Peer),
        course: &mut Course<'a>,
    ) -> Result<Way<'a>, Fault> {
        course.secure = client.scheme == Scheme::Https;
        let path = request.uri().path();
        // Before everything else, and for any host: an authority asks over plain HTTP.
        if let Some(proof) = self.challenges.at(path) {
            return Ok(Way::Answered(Response::new(Body::from(proof)), None));
        }
        if path == HEALTH && request.method() == Method::GET {
            return Ok(Way::Health);
        }
        let changed = match config::canonical(path).map_err(|_bad| Fault::BAD_PATH)? {
            Cow::Borrowed(_) => None,
            Cow::Owned(path) => Some(path),
        };
        let site = self.table.site(&client.host);
        if let Some(site) = site
            && self.is_misdirected(site, peer, client.scheme)
        {
            return Err(Fault::MISDIRECTED);
        }
        if let Some(site) = site
            && !site.addresses.admits(client.address)
        {
            course.site = Some(site);
            return Err(DENIED);
        }
        if let Some(site) = site
            && let Some(response) = self.elsewhere(site, request, (client, peer))
        {
            course.site = Some(site);
            return Ok(Way::Answered(response, None));
        }
        // Without sites the process is a hub for whoever asks.
        if let Some(policy) = &self.hub
            && (site.is_some() || self.table.is_empty())
            && is_below(path, policy.path())
        {
            return Ok(Way::Hub);
        }
        let site = site.ok_or(Fault::NO_SITE)?;
        course.site = Some(site);
        // What the application answers for the hub is not there for anybody else.
        if self.is_private(path) {
            return Err(Fault::PRIVATE);
        }
        if let Some(closed) = &site.maintenance
            && closed.closes_for(client.address)
        {
            course.page.clone_from(&closed.page);
            course.retry = Some(closed.retry.clone());
            return Err(Fault::new(503, exchange::Side::Edge, "maintenance"));
        }
        let (route, captures) = find(site, request, changed.as_deref(), client, course)?;
        course.route = Some(route);
        // Nor by another name that a route gives it.
        if let Handler::Proxy(proxy) = &route.handler
            && proxy.rewrites()
            && self.is_private(&proxy.asked_for(changed.as_deref().unwrap_or(path)))
        {
            return Err(Fault::PRIVATE);
        }
        if course.seen.may_have(exchange::headers::LOOP)
            && exchange::headers::passes(request.headers()) >= PASSES
        {
            return Err(Fault::LOOP);
        }
        if !route.addresses.admits(client.address) {
            return Err(DENIED);
        }
        if let Some(response) = course.preflight(request) {
            return Ok(Way::Answered(response, None));
        }
        // Asked of whoever is so far on the way, which is here (RFC 9110 §7.6.2).
        if matches!(&route.handler, Handler::Proxy(_))
            && course.seen.may_have("max-forwards")
            && exchange::headers::forwards_left(request.method(), request.headers()) == Some(0)
        {
            return Ok(Way::Answered(route.options(), None));
        }
        if route.to_next
            && !site.dev
            && let Some(refusal) = guard(request, changed.as_deref(), client, site)
            // A file of that name goes past nobody.
            && !(refusal == next::Refusal::Segment
                && matches!(from_disk(request, changed.as_deref(), route, &captures, course), Some(Ok(_))))
        {
            let fault = refusal.fault();
            let response = refusal.response().ok_or(fault)?;
            return Ok(Way::Answered(response, Some(fault.reason)));
        }
        Ok(Way::Route(route, captures, changed))
    }

    fn is_private(&self, path: &str) -> bool {
        self.hub.as_ref().is_some_and(|policy| policy.is_private(path))
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
        let (uri, headers) = (request.uri(), request.headers());
        let trusts = |address| self.trusts(address);
        exchange::headers::client(peer, uri, request.version(), headers, &trusts)
    }

    /// True if the connection was not made for this site: another name was asked for in the
    /// handshake, or no certificate of the client's.
    fn is_misdirected(&self, site: &Site, peer: &Peer, scheme: Scheme) -> bool {
        let Some(tls) = &peer.tls else {
            // Plain HTTP is sent to HTTPS; what a proxy says of its own handshakes is no proof.
            let redirected = self.secure_port(site).is_some() && scheme == Scheme::Http;
            return self.handshakes.authorities(site).is_some() && !redirected;
        };
        let made_for = match &tls.name {
            Some(name) => self.table.site(name),
            None => self.table.first(),
        };
        let same = made_for.is_some_and(|other| std::ptr::eq(site, other));
        if let Some(authorities) = self.handshakes.authorities(site) {
            // Those that hold now: a reload may have put others in their place.
            return !(same && tls.authorities == Some(authorities));
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
    fn elsewhere(
        &self,
        site: &Site,
        request: &Request,
        (client, peer): (&Client, &Peer),
    ) -> Option<Response> {
        let secure = self.secure_port(site).filter(|_| client.scheme == Scheme::Http);
        let alias = !site.host.matches(&client.host);
        if !alias && secure.is_none() {
            return None;
        }
        let host = if alias { site.host.as_str() } else { &client.host };
        let (scheme, port) = match secure {
            // Clients of port 80 whose bytes come in at another one come through something that has a
            // port for HTTPS as well: a container's host, a load balancer, a packet filter.
            Some(_) if client.port == 80 && peer.local_port != 80 => (Scheme::Https, 443),
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

/// Why a client's word of who it is does not stay.
const VOUCHED: &str = "says who asks, which the edge alone may";

/// An address that a site, or a route, is not for.
const DENIED: Fault = Fault::new(403, exchange::Side::Client, "denied");

/// Where a request goes.
enum Way<'a> {
    /// Is the process well?
    Health,
    Hub,
    /// Answered already; with a reason if that is a refusal.
    Answered(Response, Option<&'static str>),
    /// To a route, with what its pattern captured, and the path if it came in another form.
    Route(&'a Route, Captures, Option<String>),
}

fn refused(access: &mut Access, reason: Option<&'static str>) {
    access.reason = reason;
    if let Some(reason) = reason {
        metrics::count(&metrics::FAULTS, reason);
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The route of a request, whose path is `changed` if it came in another form.
///
/// A path with an escaped slash is one segment here, and two for some applications: it is refused
/// if they would find it on another route than this.
fn find<'a>(
    site: &'a Site,
    request: &Request,
    changed: Option<&str>,
    client: &Client,
    course: &mut Course<'a>,
) -> Result<(&'a Route, Captures), Fault> {
    let uri = request.uri();
    let mut ask = Ask {
        path: changed.unwrap_or(uri.path()),
        query: uri.query(),
        host: &client.host,
        method: request.method(),
        headers: request.headers(),
    };
    let found = site.route(&ask, &mut course.lots).ok_or(Fault::NO_ROUTE)?;
    if let Some(open) = config::opened(ask.path).map_err(|_bad| Fault::BAD_PATH)? {
        ask.path = &open;
        let other = site.route(&ask, &mut course.lots).map(|(route, _)| route);
        if !other.is_some_and(|other| std::ptr::eq(other, found.0)) {
            return Err(Fault::new(400, exchange::Side::Client, "ambiguous_path"));
        }
    }
    Ok(found)
}
