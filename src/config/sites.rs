//! The sites as written → `Site`s; pure.

use super::field::{Field, Named};
use super::routes;
use super::section::{Section, choose};
use super::units::{byte_rate, deadline, rate, size, size_or_none};
use super::validate::quota;
use super::{
    Action, Coding, HostPattern, Hub, PathPattern, RateBy, Rewrite, Route, RouteRate, Site,
    upstream,
};

/// Every site, in the order written.
pub fn read(file: &Section<'_>, hub: Option<&Hub>) -> Vec<Site> {
    let named = file.names("sites");
    if let Some(sites) = file.written("sites").filter(|sites| sites.is_map() && named.is_empty()) {
        sites.refuse_key("has no site; write one, or remove it");
    }
    let keys = file.keys("sites");
    let auth = file.names("auth");
    let providers: Vec<_> = auth.iter().map(|named| named.name).collect();
    let mut claims = Claims::default();
    named
        .iter()
        .filter_map(|named| {
            site(named, &Section::of(&named.field, keys), hub, &mut claims, &providers)
        })
        .collect()
}

/// Which hosts are taken, and by which site.
#[derive(Default)]
struct Claims(Vec<(HostPattern, HostPattern)>);

impl Claims {
    fn claim(&mut self, host: &HostPattern, owner: &HostPattern, field: &Field<'_>) {
        match self.0.iter().find(|(known, _)| known == host) {
            Some((_, other)) => field.refuse_key(format!(
                "{} is already answered by {}; a host belongs to one site",
                host.as_str(),
                other.as_str()
            )),
            None => self.0.push((host.clone(), owner.clone())),
        }
    }
}

fn site(
    named: &Named<'_>,
    section: &Section<'_>,
    hub: Option<&Hub>,
    claims: &mut Claims,
    providers: &[&str],
) -> Option<Site> {
    let host = HostPattern::parse(named.name).map_err(|what| named.field.refuse_key(what)).ok();
    let next = section.written("next").map(|_| upstream::read_next(&section.section("next")));
    if next.is_none() && section.written("routes").is_none() && hub.is_none() {
        section.refuse_lack(
            "has neither next nor routes, so nothing answers; write next: http://127.0.0.1:3000",
        );
    }
    // What is no host is refused already; its routes are read as those of any.
    let any = HostPattern::any();
    let around =
        Around { host: host.as_ref().unwrap_or(&any), has_next: next.is_some(), hub, providers };
    let routes = read_routes(section, &around);
    let client_ca = section.field("client_ca", |field| field.read_path()).flatten();
    let compress = compress(section);
    let addresses = routes::addresses(section);
    let dev = section.flag("dev");
    let hsts = section.written("hsts").map(|_| routes::hsts(&section.section("hsts")));
    let headers = routes::header_rules(&section.section("headers"));
    let cors = section.written("cors").map(|_| routes::cors(&section.section("cors")));
    let maintenance = section.written("maintenance");
    let maintenance =
        maintenance.and_then(|_| routes::maintenance(&section.section("maintenance")));
    let errors = routes::errors(section);
    let actions = section.section("actions");
    let action_origins = actions.list("origins", routes::action_origin);
    let build = section.section("next");
    let images = next.as_ref().and_then(|_| upstream::images(&build));
    let build = build.written("build").and_then(|_| routes::build(&build.section("build")));
    let host = host?;
    claims.claim(&host, &host, &named.field);
    let aliases = aliases(section, &host, claims);
    Some(Site {
        host,
        aliases,
        next,
        routes,
        client_ca,
        addresses,
        compress,
        dev,
        hsts,
        headers,
        cors,
        maintenance,
        errors,
        action_origins,
        build,
        images,
    })
}

/// What a route is read in.
struct Around<'a> {
    host: &'a HostPattern,
    has_next: bool,
    hub: Option<&'a Hub>,
    providers: &'a [&'a str],
}

fn compress(section: &Section<'_>) -> Vec<Coding> {
    let codings =
        [Coding::Zstd, Coding::Brotli, Coding::Gzip].map(|coding| (coding.name(), coding));
    let list = section.list("compress", |text| choose(text, &codings));
    let double =
        |(place, coding): &(usize, &Coding)| list.iter().take(*place).any(|other| other == *coding);
    if let Some((_, coding)) = list.iter().enumerate().find(double)
        && let Some(field) = section.written("compress")
    {
        field.refuse(format!("has {} twice", coding.name()));
    }
    list
}

fn aliases(section: &Section<'_>, host: &HostPattern, claims: &mut Claims) -> Vec<HostPattern> {
    let Some(field) = section.written("aliases") else { return Vec::new() };
    let items = field.items();
    if !items.is_empty() && !host.is_exact() {
        field.refuse_key(format!(
            "are redirected to the site's name, and {:?} is none",
            host.as_str()
        ));
    }
    let mut aliases = Vec::new();
    for item in items {
        if let Some(alias) = item.read(HostPattern::parse) {
            claims.claim(&alias, host, &item);
            aliases.push(alias);
        }
    }
    aliases
}

pub fn url_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("{text:?} is no path; write /{text}"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains('#') {
        return Err(format!(
            "{text:?} is not as it is sent; write spaces and letters beyond ASCII as %20"
        ));
    }
    Ok(text.to_owned())
}

fn read_routes(section: &Section<'_>, around: &Around<'_>) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for section in section.sections("routes") {
        let Some(route) = route(&section, around) else { continue };
        let takes_all = |before: &&Route| before.when.is_always() && before.share.is_none();
        let mut before = routes.iter().filter(takes_all);
        if let Some(before) = before.find(|before| before.path.covers(&route.path)) {
            section.refuse(format!(
                "{} is never reached: {} stands before it",
                route.path, before.path
            ));
        }
        if let Some(hub) = around.hub.filter(|hub| is_below(&route.path.literal(), &hub.path)) {
            section.refuse(format!("{} is never reached: hub.path is {}", route.path, hub.path));
        }
        routes.push(route);
    }
    routes
}

pub fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn route(section: &Section<'_>, around: &Around<'_>) -> Option<Route> {
    let others = ["host", "method", "when", "share"];
    if section.written("path").is_none() && !others.iter().any(|key| section.written(key).is_some())
    {
        section.refuse_lack("has no path; write /exact, /prefix/* or /old/:slug");
    }
    let path = match section.written("path") {
        Some(field) => field.read(PathPattern::parse),
        None => Some(PathPattern::any()),
    };
    let (action, rewrite) = action(section, path.as_ref(), around.has_next);
    let timeouts = section.section("timeouts");
    Some(Route {
        when: routes::when(section, around.host),
        share: section.written("share").map(|_| routes::share(&section.section("share"))),
        action,
        rewrite,
        body: section.get("body", size),
        body_rate: section.get("body_rate", byte_rate),
        response_body: section
            .get("response_body", size_or_none)
            .map(|max| max.unwrap_or(u64::MAX)),
        first_byte: timeouts.get("first_byte", deadline),
        body_idle: timeouts.get("body_idle", deadline),
        rate: section.written("rate").and_then(|_| route_rate(&section.section("rate"))),
        upgrade: section.flag("upgrade"),
        addresses: routes::addresses(section),
        headers: routes::header_rules(&section.section("headers")),
        request_headers: routes::header_rules(&section.section("request_headers")),
        cors: section.written("cors").map(|_| routes::cors(&section.section("cors"))),
        auth: super::door::read(section, around.providers),
        path: path?,
    })
}

fn route_rate(section: &Section<'_>) -> Option<RouteRate> {
    if section.written("to").is_none() {
        section.refuse_lack("has no to, so nothing is limited; write 10/s");
    }
    let (quota, by) = (quota(section, section.get("to", rate)), section.get("by", rate_by));
    Some(RouteRate { quota: quota?, by: by? })
}

fn rate_by(text: &str) -> Result<RateBy, String> {
    let (kind, name) = text.split_once(':').unwrap_or((text, ""));
    let is_name = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    match kind {
        "ip" if text == "ip" => Ok(RateBy::Address),
        "header" if is_name => Ok(RateBy::Header(name.to_ascii_lowercase())),
        "cookie" if is_name => Ok(RateBy::Cookie(name.to_owned())),
        _ => Err(format!("{text:?} is nothing to count by; write ip, header:NAME or cookie:NAME")),
    }
}

fn action(section: &Section<'_>, path: Option<&PathPattern>, has_next: bool) -> (Action, Rewrite) {
    let written = ["to", "redirect", "files"].map(|key| section.written(key));
    if section.written("redirect").is_none() {
        section.written("status").inspect(|status| status.refuse_key("goes only with redirect"));
    }
    let mut all = written.iter().flatten();
    if let (Some(first), Some(other)) = (all.next(), all.next()) {
        let first = first.path.rsplit('.').next().unwrap_or_default();
        other.refuse_key(format!("cannot stand beside {first}; a route does one thing"));
        return (Action::Next, Rewrite::default());
    }
    match written {
        [Some(_), ..] => {
            let upstream = Box::new(upstream::read(&section.section("to")));
            (Action::To(upstream), routes::rewrite(section, path))
        }
        [_, Some(_), _] => (redirect_of(section, path), Rewrite::default()),
        [.., Some(_)] => {
            meaningless(section, "files");
            // What is refused is read as anything else.
            let files = routes::files(&section.section("files"));
            (files.map_or(Action::Next, Action::Files), Rewrite::default())
        }
        [None, None, None] => {
            if !has_next {
                section.refuse_lack(
                    "goes to next, which the site has not; write to, redirect or files",
                );
            }
            (Action::Next, routes::rewrite(section, path))
        }
    }
}

/// What changes a request has no meaning where none is sent on.
fn meaningless(section: &Section<'_>, beside: &str) {
    let keys = [
        "strip",
        "prefix",
        "body",
        "body_rate",
        "response_body",
        "timeouts",
        "upgrade",
        "request_headers",
    ];
    for field in keys.iter().filter_map(|key| section.written(key)) {
        field.refuse_key(format!("has no meaning beside {beside}"));
    }
}

fn redirect_of(section: &Section<'_>, path: Option<&PathPattern>) -> Action {
    meaningless(section, "redirect");
    for field in ["auth", "basic"].iter().filter_map(|key| section.written(key)) {
        field.refuse_key("has no meaning beside redirect");
    }
    let location = section.get("redirect", |text| location(text, path));
    let statuses = [301, 302, 303, 307, 308].map(|status| (status.to_string(), status));
    let statuses: Vec<_> = statuses.iter().map(|(text, status)| (text.as_str(), *status)).collect();
    let status = section.get("status", |text| choose(text, &statuses));
    Action::Redirect { location: location.unwrap_or_default(), status: status.unwrap_or(308) }
}

/// Names only what the path's pattern captures.
fn location(text: &str, path: Option<&PathPattern>) -> Result<String, String> {
    if !["/", "http://", "https://"].iter().any(|begin| text.starts_with(begin)) {
        return Err(format!("{text:?} is no place to go; write /path or https://host/path"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{text:?} is not as it is sent; write spaces and letters beyond ASCII as %20"
        ));
    }
    let Some(path) = path else { return Ok(text.to_owned()) };
    for name in names(text) {
        if !path.names().any(|known| known == name) {
            let name = if name == "*" { name.to_owned() } else { format!(":{name}") };
            return Err(format!("{text:?} names {name}, which {path} does not"));
        }
    }
    Ok(text.to_owned())
}

/// The names after a colon that begin with a letter (a port does not), and `*`.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let named = text.split(':').skip(1).filter_map(|after| {
        let end = after.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let name = after.get(..end.unwrap_or(after.len()))?;
        name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_').then_some(name)
    });
    named.chain(text.contains('*').then_some("*"))
}
