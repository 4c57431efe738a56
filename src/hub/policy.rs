//! The hub's part of a snapshot: who may connect, what events come to, how the engine behaves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, NamespaceAuth, Template};

use super::engine::{Origins, Settings};
use super::rules::Rules;

/// Compiled from `hub:`; frozen.
#[derive(Debug)]
pub struct Policy {
    path: String,
    pub settings: Settings,
    pub namespaces: HashMap<String, Arc<NamespacePolicy>>,
}

/// What holds in one namespace.
#[derive(Debug)]
pub struct NamespacePolicy {
    pub rules: Rules,
    /// Rooms joined at connect.
    pub join: Vec<Template>,
    /// Rooms one socket may be in.
    pub rooms_max: usize,
}

/// A probed WebSocket takes over within this time, as with Node.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

impl Policy {
    pub fn compile(hub: &config::Hub) -> Self {
        let allowed = hub.origins.iter().map(|origin| origin.to_ascii_lowercase());
        let settings = Settings {
            ping_interval: hub.ping_interval,
            ping_timeout: hub.ping_timeout,
            upgrade_timeout: UPGRADE_TIMEOUT,
            settle: hub.connect_timeout,
            message_max: hub.limits.message,
            queue_max: hub.limits.queue,
            origins: Origins {
                any: hub.origins.iter().any(|origin| origin == "*"),
                allowed: allowed.collect(),
            },
        };
        let namespaces = hub.namespaces.iter().map(|namespace| {
            let NamespaceAuth::Anyone = namespace.auth;
            let policy = NamespacePolicy {
                rules: Rules::compile(&namespace.events, namespace.otherwise.as_ref()),
                join: namespace.join.clone(),
                rooms_max: hub.limits.rooms,
            };
            (namespace.name.clone(), Arc::new(policy))
        });
        Self { path: hub.path.clone(), settings, namespaces: namespaces.collect() }
    }

    /// The namespaces that there are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(String::as_str)
    }

    /// Where the hub answers, without the slash at its end.
    pub fn path(&self) -> &str {
        &self.path
    }
}
