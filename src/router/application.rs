//! What the site's application is asked, and what is known without asking it.

use http::Method;
use http::uri::{PathAndQuery, Uri};

use crate::config::Captures;
use crate::exchange::{Body, Client, Fault, Request, Response};
use crate::files::Wanted;
use crate::next;

use super::Handler;
use super::course::Course;
use super::table::{Route, Site};

/// A body whose length is not said.
fn is_unmeasured(body: &Body) -> bool {
    !http_body::Body::is_end_stream(body) && http_body::Body::size_hint(body).exact().is_none()
}

/// True for a method that has no body as a rule, where only the next frame says that there is none.
pub fn may_be_bodiless(request: &Request) -> bool {
    let bodiless = [Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS];
    bodiless.contains(request.method()) && is_unmeasured(request.body())
}

/// Why the application is not asked, as far as its build is known.
pub fn guard(
    request: &Request,
    changed: Option<&str>,
    client: &Client,
    site: &Site,
) -> Option<next::Refusal> {
    let (uri, body) = (request.uri(), request.body());
    // Only actions are told by it, and those are posted.
    let is_post = request.method() == Method::POST;
    let authority = if is_post { client.authority() } else { String::new() };
    let unmeasured = is_unmeasured(body);
    let asked = next::Asked {
        method: request.method(),
        path: changed.unwrap_or(uri.path()),
        query: uri.query(),
        headers: request.headers(),
        authority: &authority,
        unmeasured,
    };
    let judge = |build: Option<&next::Build>| next::judge(&asked, build, &site.action_origins);
    let Some(assets) = &site.assets else { return judge(None) };
    match assets.built.with(|build| judge(Some(build))) {
        // Another build has taken its place, and was not read yet.
        Some(next::Refusal::ActionUnknown) if !assets.built.is_fresh() => None,
        found => found,
    }
}

/// A file of the route's folder, or of the application's build.
pub fn from_disk(
    request: &Request,
    changed: Option<&str>,
    route: &Route,
    captures: &Captures,
    course: &Course<'_>,
) -> Option<Result<Response, Fault>> {
    let uri = request.uri();
    let whole = changed.unwrap_or(uri.path());
    let wanted = |path| Wanted {
        method: request.method(),
        path,
        whole,
        query: uri.query(),
        headers: request.headers(),
    };
    match &route.handler {
        Handler::Files(files) => {
            let rest = captures.get("*").map(|rest| format!("/{rest}"));
            Some(files.answer(&wanted(rest.as_deref().unwrap_or(whole))))
        }
        Handler::Proxy(proxy) if route.to_next && !proxy.rewrites() => {
            let site = course.site.filter(|site| !site.dev)?;
            site.assets.as_ref()?.look(&wanted(whole)).transpose()
        }
        _ => None,
    }
}

/// What an answer of the site's application must be; what it need not know is taken away.
pub fn expects(
    request: &mut Request,
    changed: Option<&str>,
    route: &Route,
    course: &Course<'_>,
) -> Option<next::Expects> {
    let site = course.site.filter(|site| route.to_next && !site.dev)?;
    let path = changed.unwrap_or(request.uri().path());
    let expects = next::Expects::of(request.method(), path, request.headers());
    let assets = site.assets.as_ref().filter(|_| next::may_be_for_data(&course.seen));
    let elsewhere = assets
        .is_some_and(|assets| assets.built.with(|build| !next::is_data_below(path, &build.base)));
    if !sees_visitors(Some(site)) {
        expects.strip(request.headers_mut());
    }
    if elsewhere {
        next::strip_data(request.headers_mut());
    }
    Some(expects)
}

/// Bytes of a body that may come to a route. Where the application's middleware would leave out what
/// is more than it takes, and the application would take the rest for the whole, that is too much.
pub fn body_max(route: &Route, site: Option<&Site>) -> u64 {
    let cut = site.filter(|_| route.to_next).and_then(cut).filter(|cut| cut.always);
    cut.map_or(route.body_max, |cut| cut.after.min(route.body_max))
}

/// How the site's application cuts bodies, as far as its build is known.
pub fn cut(site: &Site) -> Option<next::Cut> {
    let assets = site.assets.as_ref().filter(|_| !site.dev)?;
    assets.built.with(|build| build.cut)
}

/// True if something of the application's looks at each request before its files and pictures.
pub fn sees_visitors(site: Option<&Site>) -> bool {
    let assets = site.and_then(|site| site.assets.as_ref());
    assets.is_some_and(|assets| assets.built.with(|build| build.middleware))
}

/// Refuses a body that says it is too large before a byte of it is read.
pub fn limit(mut request: Request, route: &Route, site: Option<&Site>) -> Result<Request, Fault> {
    if http_body::Body::is_end_stream(request.body()) {
        return Ok(request);
    }
    let max = body_max(route, site);
    let length = http_body::Body::size_hint(request.body()).exact();
    if length.is_some_and(|length| length > max) {
        return Err(Fault::BODY_TOO_LARGE);
    }
    let body = request.body_mut();
    body.limit(max);
    if let Some(idle) = route.body_idle {
        body.patience(idle);
    }
    if let Some(rate) = route.body_rate {
        body.pace(rate);
    }
    Ok(request)
}

/// Asks for the path in the form that was compared.
pub fn set_path(request: &mut Request, path: &str) -> Result<(), Fault> {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("{path}{query}").parse::<PathAndQuery>();
    *request.uri_mut() = Uri::from(target.map_err(|_error| Fault::BAD_TARGET)?);
    Ok(())
}
