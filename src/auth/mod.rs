//! Who is asking: the application's own sessions, read.
//!
//! A worker finds and opens what its client showed; what takes a store is asked of the main
//! thread's `Desk`, and remembered for a moment. What opens a session stays in here.

#[cfg(test)]
mod bad_inputs;
mod claims;
mod clock;
mod credentials;
mod desk;
mod fetch;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod identity;
mod inquiry;
mod jwks;
mod keys;
mod line;
mod memory;
mod passwords;
mod preset;
mod provider;
mod redis;
mod seal;
mod statement;
mod store;
mod time;
#[cfg(test)]
mod vectors;
mod watch;
mod worker;

use std::sync::Arc;

use crate::config::{Config, HostPattern, Source};
use crate::upstream::{Registry, Upstream};

pub use credentials::{Credentials, Wanted};
pub use desk::Desk;
pub use identity::{Denial, Identity};
pub use passwords::{Passwords, TOO_MANY};
pub use provider::{Digest, Provider};
pub use watch::Suspicion;
pub use worker::{Candidate, Known, Local, Way, number_of};

/// All providers, compiled; part of the snapshot.
#[derive(Debug, Default)]
pub struct Auth {
    providers: Vec<Arc<Provider>>,
    wanted: Wanted,
}

impl Auth {
    pub fn compile(config: &Config, registry: &Arc<Registry>) -> Result<Self, String> {
        let upstream = |words| {
            let compiled = Upstream::compile(words, &config.timeouts, None, registry);
            compiled.map_err(|error| error.to_string())
        };
        let mut providers = Vec::new();
        for words in &config.auth {
            let mut application = Vec::new();
            if let crate::config::ProviderKind::Http(callback) = &words.kind {
                if let Some(words) = &callback.to {
                    application.push((HostPattern::any(), upstream(words)?));
                } else {
                    for site in &config.sites {
                        if let Some(next) = &site.next {
                            application.push((site.host.clone(), upstream(next)?));
                        }
                    }
                }
            }
            let provider = Provider::compile(words, application)
                .map_err(|what| format!("auth.{}: the key {what}", words.name))?;
            providers.push(Arc::new(provider));
        }
        let cookies = providers.iter().flat_map(|provider| provider.cookies());
        let wanted = Wanted {
            cookies: cookies.map(str::to_owned).collect(),
            bearer: providers.iter().any(|provider| provider.reads(Source::Bearer)),
        };
        Ok(Self { providers, wanted })
    }

    pub fn providers(&self) -> &[Arc<Provider>] {
        &self.providers
    }

    /// Headers by which the application knows that it is this edge that asks; nobody else's.
    pub fn vouched(&self) -> Option<http::HeaderName> {
        let proves = |provider: &Arc<Provider>| match &provider.words.kind {
            crate::config::ProviderKind::Http(words) => words.secret.is_some(),
            _ => false,
        };
        self.providers.iter().any(proves).then_some(desk::EDGE_AUTH)
    }

    /// The providers of these names, in this order.
    pub fn named(&self, names: &[String]) -> Vec<Arc<Provider>> {
        let find = |name: &String| self.providers.iter().find(|known| *known.name == **name);
        names.iter().filter_map(find).cloned().collect()
    }

    /// What a request shows that an answer may end, or that is newer than what was shown before;
    /// `None` if it shows nothing.
    pub fn shown(&self, headers: &http::HeaderMap) -> Option<Credentials> {
        if self.providers.is_empty() {
            return None;
        }
        Credentials::read(headers, &self.wanted).ok().filter(|shown| !shown.is_empty())
    }

    /// All that a request shows; `None` if it has more cookies than anybody needs.
    pub fn all_shown(&self, headers: &http::HeaderMap) -> Option<Credentials> {
        Credentials::read(headers, &self.wanted).ok()
    }

    /// What of a request's headers is worth keeping.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }
}
