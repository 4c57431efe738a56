//! The hub's part of a snapshot: who may connect, what events come to, how the engine behaves.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;

use crate::auth::{Auth, Provider};
use crate::config::{
    self, AdminDoor, ByteRate, Config, HostPattern, HubLimits, MemoryMax, NamespaceAuth, Quota,
    RoomPattern, Secret, Template,
};
use crate::limits::Rate;
use crate::observe::metrics;
use crate::observe::trace::Share;
use crate::upstream::{CompileError, Registry, Upstream};

use super::engine::{Bounds, Deflate, Origins, Settings};
use super::meter::Allowance;
use super::paths::plain;
use super::recovery::RecoveryPolicy;
use super::rules::Rules;

/// Compiled from `hub:`; frozen.
#[derive(Debug)]
pub struct Policy {
    path: String,
    pub settings: Settings,
    pub namespaces: HashMap<String, Arc<NamespacePolicy>>,
    pub hooks: Option<Arc<HookPolicy>>,
    /// What one client may send.
    pub allowance: Allowance,
    pub memory: MemoryMax,
    /// Connections of one user.
    pub per_user: u64,
    /// Attachments of one packet.
    pub attachments: usize,
    pub recovery: Option<RecoveryPolicy>,
}

/// How the application is asked about clients.
#[derive(Debug)]
pub struct HookPolicy {
    pub timeout: Duration,
    pub retry: Duration,
    pub secret: Option<Secret>,
    /// How many questions are spans of traces.
    pub traced: Option<Share>,
    /// Attachments of one packet that a reply wants sent.
    pub attachments: usize,
    /// By the host that a client came for.
    upstreams: Vec<Asked>,
    /// Asked by the hub alone.
    paths: HashSet<String>,
}

/// Who is asked about clients that came for some host.
#[derive(Debug)]
struct Asked {
    host: HostPattern,
    /// The same for all who ask the same servers, over reloads too.
    id: Arc<[u64]>,
    upstream: Upstream,
}

/// What holds in one namespace.
#[derive(Debug)]
pub struct NamespacePolicy {
    pub rules: Rules,
    /// Rooms joined at connect.
    pub join: Vec<Template>,
    /// Rooms whose members hear who comes and goes.
    pub presence: Vec<RoomPattern>,
    /// Rooms one socket may be in.
    pub rooms_max: usize,
    /// Where the application decides who may connect.
    pub connect: Option<Arc<str>>,
    /// Where it hears who has left.
    pub disconnect: Option<Arc<str>>,
    /// Who may connect; `None` is everybody.
    pub users: Option<Vec<Arc<Provider>>>,
    /// Here are the pages of the Admin UI, and nobody else.
    pub admin_ui: Option<AdminDoor>,
}

/// What another policy does to the sockets that are here: a line for each namespace that they do not
/// stay in.
pub fn sent_away(before: Option<&Arc<Policy>>, after: Option<&Arc<Policy>>) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, rules) in before.into_iter().flat_map(|policy| &policy.namespaces) {
        let why = match after.and_then(|policy| policy.namespaces.get(name)) {
            None => "sent away from {}: there is no such namespace any more",
            Some(next) if !rules.has_same_pages(next) => {
                "sent away from {}: others are let in there"
            }
            Some(next) if !rules.has_same_door(next) => {
                "cut off from {}, and may come back: others are let in there"
            }
            Some(_) => continue,
        };
        let count = metrics::series(&metrics::HUB_SOCKETS, &[name]).value();
        if count > 0 {
            let sockets = if count == 1 { "socket is" } else { "sockets are" };
            lines.push(format!("! {count} {sockets} {}", why.replacen("{}", name, 1)));
        }
    }
    lines.sort_unstable();
    lines
}

/// A probed WebSocket takes over within this time, as with Node.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

impl Policy {
    pub fn compile(
        hub: &config::Hub,
        config: &Config,
        registry: &Arc<Registry>,
        auth: &Auth,
    ) -> Result<Self, CompileError> {
        let identifies =
            hub.namespaces.iter().any(|namespace| namespace.auth != NamespaceAuth::Anyone);
        let hooks = HookPolicy::compile(hub, config, registry)?;
        let names = hub.hooks.headers.iter().filter_map(|name| HeaderName::try_from(name).ok());
        let allowed = hub.origins.iter().map(|origin| origin.to_ascii_lowercase());
        let events = hub.limits.events;
        let events = Rate::new(events.count, events.per, small(hub.limits.burst));
        let allowance = Allowance {
            of_user: hub.limits.per_user.events.as_ref().map(quota),
            of_address: hub.limits.per_ip.events.as_ref().map(quota),
            ..Allowance::new(events)
        };
        let settings = Settings {
            ping_interval: hub.ping_interval,
            ping_timeout: hub.ping_timeout,
            upgrade_timeout: UPGRADE_TIMEOUT,
            settle: hub.connect_timeout,
            message_max: hub.limits.message,
            queue_max: hub.limits.queue,
            chatter: allowance.chatter(),
            bytes: byte_rate(hub.limits.bytes),
            remember: hooks.as_ref().map(|_| names.collect()),
            credentials: identifies.then(|| auth.wanted().clone()),
            origins: Origins {
                any: hub.origins.iter().any(|origin| origin == "*"),
                allowed: allowed.collect(),
            },
            deflate: hub.compress_above.map(|above| Deflate { above }),
            bounds: bounds(&hub.limits),
        };
        let namespaces = hub.namespaces.iter().map(|namespace| {
            let policy = NamespacePolicy {
                rules: rules(namespace),
                join: namespace.join.clone(),
                presence: namespace.presence.clone(),
                rooms_max: hub.limits.rooms,
                connect: namespace.connect.as_deref().map(Arc::from),
                disconnect: namespace.disconnect.as_deref().map(Arc::from),
                users: match &namespace.auth {
                    NamespaceAuth::Anyone => None,
                    NamespaceAuth::Users(names) => Some(auth.named(names)),
                },
                admin_ui: None,
            };
            (namespace.name.clone(), Arc::new(policy))
        });
        let admin = hub.admin_ui.iter().map(|words| {
            let mut door = words.door.clone();
            let node = hub.redis.as_ref().and_then(|redis| redis.node.as_ref());
            door.secret = door.secret.or(node.map(|node| node.secret.clone()));
            (words.namespace.clone(), Arc::new(NamespacePolicy::admin(door)))
        });
        Ok(Self {
            path: hub.path.clone(),
            settings,
            namespaces: namespaces.chain(admin).collect(),
            hooks,
            allowance,
            memory: hub.limits.memory,
            per_user: hub.limits.per_user.connections as u64,
            attachments: hub.limits.attachments,
            recovery: RecoveryPolicy::compile(hub),
        })
    }

    /// The namespaces that there are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(String::as_str)
    }

    /// Whose sessions open the namespace, by their names.
    pub fn providers(&self, namespace: &str) -> Vec<&str> {
        let users = self.namespaces.get(namespace).and_then(|policy| policy.users.as_ref());
        users.into_iter().flatten().map(|provider| &*provider.name).collect()
    }

    /// Where the hub answers, without the slash at its end.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// True if the application answers this path for the hub alone, however it is written.
    pub fn is_private(&self, path: &str) -> bool {
        self.hooks.as_ref().is_some_and(|hooks| hooks.paths.contains(&plain(path)))
    }
}

impl NamespacePolicy {
    fn admin(words: AdminDoor) -> Self {
        Self {
            rules: Rules::default(),
            join: Vec::new(),
            presence: Vec::new(),
            rooms_max: 0,
            connect: None,
            disconnect: None,
            users: None,
            admin_ui: Some(words),
        }
    }

    /// Whether who was let in by the other would be let in here. If not, all who are in are cut off:
    /// they come back, and are judged anew.
    pub fn has_same_door(&self, other: &Self) -> bool {
        let are_same = match (self.users.as_deref(), other.users.as_deref()) {
            (None, None) => true,
            (Some(one), Some(other)) => {
                let same = |(one, other): (&Arc<Provider>, &Arc<Provider>)| {
                    one.words.has_same_door(&other.words)
                };
                one.len() == other.len() && one.iter().zip(other).all(same)
            }
            _ => false,
        };
        are_same && self.has_same_pages(other)
    }

    /// Whether pages of the Admin UI that the other let in would be let in here, or neither lets any
    /// in. If not, it is another namespace.
    pub fn has_same_pages(&self, other: &Self) -> bool {
        match (&self.admin_ui, &other.admin_ui) {
            (None, None) => true,
            (Some(one), Some(other)) => one.opens_like(other),
            _ => false,
        }
    }

    /// Whether the room's members hear who comes and goes.
    pub fn watches(&self, room: &str) -> bool {
        self.presence.iter().any(|pattern| pattern.matches(room))
    }
}

fn rules(namespace: &config::Namespace) -> Rules {
    let mut events = namespace.events.clone();
    if !namespace.presence.is_empty() && events.iter().all(|(name, _)| name != "presence") {
        // What the hub itself tells; no rule for "*" may let a client pretend.
        events.push(("presence".to_owned(), config::Rule::Deny.into()));
    }
    Rules::compile(&events, namespace.otherwise.as_ref())
}

fn bounds(limits: &HubLimits) -> Bounds {
    let HubLimits { per_ip, pending, handshakes, .. } = limits;
    // All that an address may have may come at once.
    let burst = small(per_ip.connections).max(handshakes.count);
    Bounds {
        sessions: per_ip.connections as u64,
        pending: *pending as u64,
        handshakes: Rate::new(handshakes.count, handshakes.per, burst),
    }
}

fn quota(quota: &Quota) -> Rate {
    Rate::new(quota.rate.count, quota.rate.per, quota.burst)
}

/// As many as in a second may come at once; a larger message is waited for when it was taken.
fn byte_rate(bytes: ByteRate) -> Option<Rate> {
    let count = u32::try_from(bytes.0).unwrap_or(u32::MAX);
    (count > 0).then(|| Rate::new(count, Duration::from_secs(1), count))
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl HookPolicy {
    /// `None` if no namespace asks.
    fn compile(
        hub: &config::Hub,
        config: &Config,
        registry: &Arc<Registry>,
    ) -> Result<Option<Arc<Self>>, CompileError> {
        let paths: HashSet<_> =
            hub.namespaces.iter().flat_map(config::Namespace::hooks).map(plain).collect();
        if paths.is_empty() {
            return Ok(None);
        }
        let asked = |host, words| {
            let upstream = Upstream::compile(words, &config.timeouts, None, registry)?;
            Ok::<_, CompileError>(Asked { host, id: upstream.id().into(), upstream })
        };
        let upstreams: Result<_, CompileError> = match &hub.hooks.to {
            Some(words) => asked(HostPattern::any(), words).map(|asked| vec![asked]),
            None => {
                let sites = config.sites.iter();
                let sites = sites.filter_map(|site| Some((site.host.clone(), site.next.as_ref()?)));
                sites.map(|(host, words)| asked(host, words)).collect()
            }
        };
        let hooks = &hub.hooks;
        Ok(Some(Arc::new(Self {
            timeout: hooks.timeout,
            retry: hooks.retry,
            secret: hooks.secret.clone(),
            traced: config.traces.as_ref().map(|traces| Share(traces.share)),
            attachments: hub.limits.attachments,
            upstreams: upstreams?,
            paths,
        })))
    }

    /// The application of the site at `host`, with its id; of the first site, for whom none is meant.
    pub fn upstream(&self, host: &str) -> Option<(&Arc<[u64]>, &Upstream)> {
        let found = HostPattern::choose(&self.upstreams, |asked| [&asked.host], host);
        found.or(self.upstreams.first()).map(|Asked { id, upstream, .. }| (id, upstream))
    }

    /// Whether the application of this id may be asked.
    pub fn asks(&self, id: &[u64]) -> bool {
        self.upstreams.iter().any(|asked| *asked.id == *id)
    }
}
