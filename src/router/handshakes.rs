//! How each site is come to over HTTPS. Certificates change more often than sites, and alone.

use crate::config::Config;

use super::table::Site;

/// What a handshake for a host is.
#[derive(Debug, Clone, Copy)]
pub struct Handshake {
    /// There is a certificate for it.
    pub possible: bool,
    /// On whose word clients' certificates are believed; `None`: none is asked for.
    pub authorities: Option<u64>,
}

/// That of each site, by its number.
#[derive(Clone)]
pub struct Handshakes(Vec<Handshake>);

impl Handshakes {
    pub fn of(config: &Config, handshake: &dyn Fn(&str) -> Handshake) -> Self {
        Self(config.sites.iter().map(|site| handshake(site.host.as_str())).collect())
    }

    /// On whose word clients of a site are believed; `None`: nobody's is asked for.
    pub fn authorities(&self, site: &Site) -> Option<u64> {
        self.0.get(site.number)?.authorities
    }

    /// True if there is a certificate for a site.
    pub fn are_possible(&self, site: &Site) -> bool {
        self.0.get(site.number).is_some_and(|handshake| handshake.possible)
    }
}
