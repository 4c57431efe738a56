//! A connection for whoever looks at a server once: it changes nothing that is known of targets.

use std::io;
use std::time::Duration;

use crate::config;

use super::connect;
use super::target::{Begins, Registry};

pub use super::connect::Socket;

/// Nobody checks on a target that is connected to once.
const UNCHECKED: config::Health = config::Health {
    path: None,
    statuses: Vec::new(),
    every: Duration::from_secs(1),
    timeout: Duration::from_secs(1),
    rise: 1,
    fall: 1,
};

/// Connects to where the words say, with TLS if they say so; the deadline is the caller's.
pub async fn reach(words: &config::Target, tls: &config::UpstreamTls) -> io::Result<Socket> {
    let registry = Registry::new();
    let is_secure = matches!(words, config::Target::Tls(..));
    let settings = is_secure.then(|| registry.tls(tls)).transpose().map_err(io::Error::other)?;
    let target = registry
        .target(words, &UNCHECKED, settings.as_ref(), Begins::Up)
        .map_err(io::Error::other)?;
    connect::open(&target).await
}
