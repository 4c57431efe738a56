//! What a site and its routes do themselves, as one would write it.

use std::fmt::Display;

use super::edge::{
    Build, Cors, ErrorPage, Files, HeaderRules, Hsts, Maintenance, Public, Share, When,
};
use super::glob::Glob;
use super::routes::show_percent;
use super::show::absolute;
use super::units::show_duration;
use super::yaml::Yaml;
use super::{HostPattern, Route};

/// A list, unless it is empty.
pub fn texts<T: Display>(texts: &[T]) -> Option<Yaml> {
    (!texts.is_empty()).then(|| Yaml::texts(texts))
}

fn pairs<T: Display>(pairs: &[(String, T)]) -> Option<Yaml> {
    let named = pairs.iter().map(|(name, value)| (name.clone(), Yaml::text(value)));
    (!pairs.is_empty()).then(|| Yaml::named(named))
}

pub fn timeouts(route: &Route) -> Option<Yaml> {
    let time = |time: Option<_>| time.map(|time| Yaml::text(show_duration(time)));
    let all = Yaml::map([])
        .with("first_byte", time(route.first_byte))
        .with("body_idle", time(route.body_idle));
    (route.first_byte.is_some() || route.body_idle.is_some()).then_some(all)
}

/// As `routes::status` reads it.
pub fn status(status: u16) -> String {
    match status {
        hundred @ 0..100 => format!("{hundred}xx"),
        status => status.to_string(),
    }
}

pub fn errors(errors: &[ErrorPage]) -> Option<Yaml> {
    let named =
        errors.iter().map(|error| (status(error.status), Yaml::text(absolute(&error.page.path))));
    (!errors.is_empty()).then(|| Yaml::named(named))
}

pub fn actions(origins: &[String]) -> Option<Yaml> {
    texts(origins).map(|origins| Yaml::map([("origins", origins)]))
}

impl Files {
    pub fn yaml(&self) -> Yaml {
        Yaml::map([
            ("root", Yaml::text(absolute(&self.root))),
            ("index", Yaml::texts(&self.index)),
            ("cache", Yaml::text(show_duration(self.cache))),
            ("immutable", Yaml::word(self.immutable)),
        ])
        .with("fallback", self.fallback.as_ref().map(Yaml::text))
    }
}

impl Build {
    pub fn yaml(&self) -> Yaml {
        let public = match self.public {
            Public::Auto => "auto",
            Public::Always => "always",
            Public::Never => "never",
        };
        let keep: Vec<_> = self.keep.iter().map(|path| absolute(path)).collect();
        Yaml::map([("path", Yaml::text(absolute(&self.path))), ("public", Yaml::text(public))])
            .with("keep", texts(&keep))
    }
}

impl When {
    pub fn with_yaml(&self, route: Yaml) -> Yaml {
        let hosts: Vec<_> = self.hosts.iter().map(HostPattern::as_str).collect();
        let globs: [(&str, &[(String, Glob)]); 3] =
            [("headers", &self.headers), ("cookies", &self.cookies), ("query", &self.query)];
        let when =
            globs.iter().fold(Yaml::map([]), |all, (name, globs)| all.with(name, pairs(globs)));
        let is_written = globs.iter().any(|(_, globs)| !globs.is_empty());
        route
            .with("host", texts(&hosts))
            .with("method", texts(&self.methods))
            .with("when", is_written.then_some(when))
    }
}

impl Share {
    pub fn yaml(&self) -> Yaml {
        Yaml::map([
            ("of", Yaml::text(show_percent(self.of))),
            ("cookie", Yaml::text(&self.cookie)),
            ("for", Yaml::text(show_duration(self.lasts))),
        ])
    }
}

impl HeaderRules {
    pub fn yaml(&self) -> Option<Yaml> {
        let rules = Yaml::map([])
            .with("remove", texts(&self.remove))
            .with("set", pairs(&self.set))
            .with("add", pairs(&self.add));
        (*self != Self::default()).then_some(rules)
    }
}

impl Hsts {
    pub fn yaml(&self) -> Yaml {
        Yaml::map([
            ("max_age", Yaml::text(show_duration(self.max_age))),
            ("subdomains", Yaml::word(self.subdomains)),
            ("preload", Yaml::word(self.preload)),
        ])
    }
}

impl Cors {
    pub fn yaml(&self) -> Yaml {
        Yaml::map([
            ("origins", Yaml::texts(&self.origins)),
            ("methods", Yaml::texts(&self.methods)),
            ("headers", Yaml::texts(&self.headers)),
            ("expose", Yaml::texts(&self.expose)),
            ("credentials", Yaml::word(self.credentials)),
            ("max_age", Yaml::text(show_duration(self.max_age))),
        ])
    }
}

impl Maintenance {
    pub fn yaml(&self) -> Yaml {
        let page = self.page.as_ref().map(|page| Yaml::text(absolute(&page.path)));
        Yaml::map([("file", Yaml::text(absolute(&self.file)))])
            .with("page", page)
            .with("allow", texts(&self.allow))
            .with("retry", Some(Yaml::text(show_duration(self.retry))))
    }
}
