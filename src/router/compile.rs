//! The sites as written → sites that answer.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tracing::warn;

use crate::auth::Auth;
use crate::compress::Compress;
use crate::config::{self, Config};
use crate::exchange::HeaderRules;
use crate::files::Files;
use crate::next;
use crate::observe::access::RouteCount;
use crate::proxy::Proxy;
use crate::redirect::Redirect;
use crate::upstream::{CompileError, Registry, Upstream};

use super::build::{Assets, Builds};
use super::cors::Cors;
use super::door::Door;
use super::images::{Images, Optimizers};
use super::maintenance::{Flags, Maintenance};
use super::meter::{Meter, Quota};
use super::pages::Pages;
use super::share::Share;
use super::table::{Route, Site, Treatment};
use super::{Handler, application};

/// What sites are compiled with.
pub struct Around<'a> {
    pub config: &'a Config,
    pub registry: &'a Arc<Registry>,
    pub auth: &'a Auth,
    pub flags: &'a Flags,
    pub builds: &'a Builds,
    pub optimizers: &'a Optimizers,
    pub meter: &'a Meter,
}

pub fn site(site: &config::Site, number: usize, around: &Around<'_>) -> Result<Site, CompileError> {
    let mut routes = Vec::new();
    for words in &site.routes {
        routes.extend(route(words, site, around)?);
    }
    if let Some(next) = &site.next {
        routes.push(rest(next, site, around)?);
    }
    let maintenance = site.maintenance.as_ref();
    let compiled = Site {
        host: site.host.clone(),
        aliases: site.aliases.clone(),
        number,
        addresses: site.addresses.clone(),
        images: images(site, around),
        treatment: Treatment {
            hsts: site.hsts.as_ref().and_then(hsts),
            headers: rules(&site.headers),
        },
        cors: site.cors.as_ref().map(Cors::compile),
        maintenance: maintenance.map(|words| Maintenance::compile(words, around.flags)),
        pages: Pages::compile(&site.errors),
        dev: site.dev,
        assets: site.build.as_ref().map(|words| Assets::compile(words, around.builds)),
        compress: Compress::compile(site),
        action_origins: site.action_origins.clone(),
        routes,
    };
    tell_of_cuts(&compiled);
    Ok(compiled)
}

/// What is more than an application's middleware takes is lost without a word of Next.js'.
fn tell_of_cuts(site: &Site) {
    let Some(next::Cut { after, always }) = application::cut(site) else { return };
    let larger = site.routes.iter().filter(|route| route.to_next && route.body_max > after);
    for route in larger {
        let (site, max) = (site.host.as_str(), route.body_max);
        let path = route.path.as_ref().map_or_else(|| "/*".to_owned(), ToString::to_string);
        if always {
            warn!(%site, %path, max, after, "larger bodies are answered 413: the middleware cuts them");
        } else {
            warn!(%site, %path, max, after, "larger bodies may be cut by the middleware, without a word");
        }
    }
}

/// A development server makes every picture anew, and for one person.
fn images(site: &config::Site, around: &Around<'_>) -> Option<Images> {
    let (words, next) = (site.images.as_ref()?, site.next.as_ref()?);
    (!site.dev).then(|| Images::compile(words, &next.targets, around.optimizers))
}

/// What matches nothing goes to the application.
fn rest(
    next: &config::Upstream,
    site: &config::Site,
    around: &Around<'_>,
) -> Result<Route, CompileError> {
    Ok(Route {
        path: None,
        when: config::When::default(),
        share: None,
        handler: proxy(next, None, site, around)?,
        to_next: true,
        addresses: config::Addresses::default(),
        door: None,
        headers: HeaderRules::default(),
        cors: None,
        body_max: if site.dev { u64::MAX } else { around.config.limits.body },
        body_idle: None,
        body_rate: site.dev.then_some(0),
        quota: None,
        count: RouteCount::new("next"),
    })
}

/// `None` if the site has nothing that could answer it.
fn route(
    route: &config::Route,
    site: &config::Site,
    around: &Around<'_>,
) -> Result<Option<Route>, CompileError> {
    let handler = match (&route.action, &site.next) {
        (config::Action::Next, Some(next)) => proxy(next, Some(route), site, around)?,
        (config::Action::Next, None) => return Ok(None),
        (config::Action::To(upstream), _) => proxy(upstream, Some(route), site, around)?,
        (config::Action::Files(files), _) => Handler::Files(Files::compile(files)),
        (config::Action::Redirect { location, status }, _) => {
            Handler::Redirect(Redirect::compile(location, *status))
        }
    };
    let door = route
        .auth
        .as_ref()
        .map(|words| Door::compile(words, around.auth, &around.config.timeouts, around.registry));
    Ok(Some(Route {
        path: Some(route.path.clone()),
        when: route.when.clone(),
        share: route.share.as_ref().map(|share| Share {
            of: share.of,
            cookie: share.cookie.clone(),
            lasts: share.lasts,
        }),
        handler,
        to_next: matches!(route.action, config::Action::Next),
        addresses: route.addresses.clone(),
        door: door.transpose()?,
        headers: rules(&route.headers),
        cors: route.cors.as_ref().map(Cors::compile),
        // Whoever develops limits nobody.
        body_max: match route.body {
            _ if site.dev => u64::MAX,
            body => body.unwrap_or(around.config.limits.body),
        },
        body_idle: route.body_idle,
        body_rate: if site.dev { Some(0) } else { route.body_rate.map(|rate| rate.0) },
        quota: route
            .rate
            .as_ref()
            .filter(|_| !site.dev)
            .map(|rate| Quota::compile(rate, &named(route, site), around.meter)),
        count: RouteCount::new(&route.path.to_string()),
    }))
}

/// The same for the same route after a reload: two of one path differ in what else they ask for.
fn named(route: &config::Route, site: &config::Site) -> String {
    format!("{} {} {:?}", site.host.as_str(), route.path, route.when)
}

fn proxy(
    words: &config::Upstream,
    route: Option<&config::Route>,
    site: &config::Site,
    around: &Around<'_>,
) -> Result<Handler, CompileError> {
    let mut timeouts = around.config.timeouts.clone();
    let of = |time: fn(&config::Route) -> Option<Duration>| route.and_then(time);
    timeouts.body_idle = of(|route| route.body_idle).unwrap_or(timeouts.body_idle);
    let first_byte = of(|route| route.first_byte);
    let upstream = Upstream::compile(words, &timeouts, first_byte, around.registry)?;
    let response_max = around.config.limits.response_body;
    Ok(Handler::Proxy(Box::new(Proxy::compile(upstream, words, route, site.dev, response_max))))
}

fn rules(words: &config::HeaderRules) -> HeaderRules {
    HeaderRules::new(&words.remove, &words.set, &words.add)
}

fn hsts(words: &config::Hsts) -> Option<HeaderValue> {
    let subdomains = if words.subdomains { "; includeSubDomains" } else { "" };
    let preload = if words.preload { "; preload" } else { "" };
    HeaderValue::try_from(format!("max-age={}{subdomains}{preload}", words.max_age.as_secs())).ok()
}
