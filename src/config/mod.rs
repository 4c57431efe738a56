//! What the operator wrote, checked: words only, no machinery.
//!
//! `load` gives a whole `Config` or every problem of the file at once.

mod acme;
mod admin_ui;
mod auth;
mod changes;
mod door;
mod edge;
mod edge_keys;
mod edge_show;
mod expand;
mod field;
mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod glob;
mod hub;
mod keys;
mod limit_keys;
mod load;
mod log;
mod log_keys;
#[cfg(test)]
mod manual;
mod path;
mod pattern;
mod problem;
mod redis;
mod redis_keys;
mod room;
mod routes;
mod schema;
mod section;
mod show;
mod sites;
mod target;
mod template;
mod tls_keys;
mod units;
mod upstream;
mod upstream_keys;
mod validate;
mod yaml;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use acme::{Acme, AcmeChallenge, Eab, is_public};
pub use admin_ui::{AdminDoor, AdminUi};
pub use auth::{
    AuthJsVersion, BetterAuthStore, Callback, CallbackWords, Constant, Database, DatabaseKind, Jwt,
    JwtKeys, LuciaVariant, OnExpiry, Provider, ProviderKind, RedisAddress, RedisPlace, Rows,
    Source, Unit,
};
pub use door::{Basic, Forward, RouteAuth};
pub use edge::{
    Addresses, Build, Cors, ErrorPage, Files, HeaderRules, Hsts, Maintenance, Public, Rewrite,
    Share, When,
};
#[cfg(test)]
pub use glob::Glob;
pub use load::{admin_of, load};
#[cfg(test)]
pub use log::format as access_format;
pub use path::{canonical, opened};
pub use pattern::{Captures, HostPattern, PathPattern};
pub use problem::Problems;
pub use room::RoomPattern;
pub use schema::{reference, schema};
pub use template::{Template, TemplatePart};
pub use units::{ByteRate, Cidr, Rate, Secret};
pub use upstream::{Balance, Eject, Health, Hold, Images, Keep, Target, Upstream, UpstreamTls};

/// The effective configuration, every default filled in.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: Listen,
    /// Where this program keeps what the next process needs.
    pub state: PathBuf,
    /// Threads, one per core by default.
    pub workers: usize,
    /// Peers whose forwarding headers are believed.
    pub trust: Vec<Cidr>,
    pub tls: Tls,
    pub limits: Limits,
    pub timeouts: Timeouts,
    /// In the order written; the first one answers when SNI is absent.
    pub sites: Vec<Site>,
    pub hub: Option<Hub>,
    /// Whose sessions are believed.
    pub auth: Vec<Provider>,
    pub log: Log,
    /// Whether `GET /metrics` answers on the admin listener.
    pub metrics: bool,
    /// `None`: nothing is told of traces.
    pub traces: Option<Traces>,
    pub shutdown: Shutdown,
}

#[derive(Debug, Clone)]
pub struct Listen {
    pub http: Vec<SocketAddr>,
    pub https: Vec<SocketAddr>,
    pub admin: Option<Admin>,
}

/// The private listener.
#[derive(Debug, Clone)]
pub struct Admin {
    pub address: AdminAddress,
    /// Required of every request that changes something when the address is TCP.
    pub token: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, Clone)]
pub struct Tls {
    /// A folder of `NAME.pem` + `NAME.key`, or `NAME/fullchain.pem` + `NAME/privkey.pem`.
    pub certs: PathBuf,
    pub min: TlsVersion,
    /// `None`: no certificate is asked for.
    pub acme: Option<Acme>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    V12,
    V13,
}

#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections per process; above it new ones are refused.
    pub connections: usize,
    pub per_ip: PerIp,
    /// Bytes of a request head.
    pub headers: usize,
    /// Bytes of a request body; a route may raise it.
    pub body: u64,
    /// How fast it must come on the average; a route may say otherwise.
    pub body_rate: ByteRate,
    /// Bytes of a response body of an upstream's; `None` is no limit. A route may say otherwise.
    pub response_body: Option<u64>,
}

/// What one address may have; IPv6 by its /64. `None`: as much as there is.
#[derive(Debug, Clone)]
pub struct PerIp {
    pub connections: Option<usize>,
    pub requests: Option<Quota>,
}

/// So many in the long run, and so many at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    pub rate: Rate,
    pub burst: u32,
}

/// How often a route may be asked by each of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRate {
    pub quota: Quota,
    pub by: RateBy,
}

/// What requests are counted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateBy {
    Address,
    /// A header's value; its name in lower case.
    Header(String),
    Cookie(String),
}

#[derive(Debug, Clone)]
pub struct Timeouts {
    /// TLS handshake, from accept.
    pub handshake: Duration,
    /// Request head, from its first byte or from accept.
    pub head: Duration,
    /// Between two pieces of a body, either way.
    pub body_idle: Duration,
    /// Between two requests on a kept connection.
    pub idle: Duration,
    /// Connecting to an upstream target.
    pub connect: Duration,
    /// From the request's last byte to the response's first.
    pub first_byte: Duration,
}

/// One public host and what answers for it.
#[derive(Debug, Clone)]
pub struct Site {
    pub host: HostPattern,
    /// Redirected to the site's own name.
    pub aliases: Vec<HostPattern>,
    pub next: Option<Upstream>,
    pub routes: Vec<Route>,
    /// What bodies are compressed with, the best first.
    pub compress: Vec<Coding>,
    /// Clients must show a certificate that comes from one of this file's.
    pub client_ca: Option<PathBuf>,
    /// Whom it is for, its hub too.
    pub addresses: Addresses,
    /// Tunnels Next's HMR sockets.
    pub dev: bool,
    pub hsts: Option<Hsts>,
    /// Of every response.
    pub headers: HeaderRules,
    /// Where no route says otherwise.
    pub cors: Option<Cors>,
    pub maintenance: Option<Maintenance>,
    pub errors: Vec<ErrorPage>,
    /// Hosts whose pages may call Server Actions, besides the site's own.
    pub action_origins: Vec<String>,
    /// What `next` was built to.
    pub build: Option<Build>,
    /// How pictures are asked for; `None`: as everything else.
    pub images: Option<Images>,
}

/// A content coding that responses can be given (RFC 9110 §8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    /// As the file and HTTP have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Route {
    pub path: PathPattern,
    pub when: When,
    /// Only for a part of the clients; the others go on to the next route.
    pub share: Option<Share>,
    pub action: Action,
    pub rewrite: Rewrite,
    /// `limits.body` unless given.
    pub body: Option<u64>,
    /// `limits.body_rate` unless given.
    pub body_rate: Option<ByteRate>,
    /// `limits.response_body` unless given; `Some(u64::MAX)` is no limit.
    pub response_body: Option<u64>,
    /// `timeouts.first_byte` unless given.
    pub first_byte: Option<Duration>,
    /// How often it may be asked.
    pub rate: Option<RouteRate>,
    /// `timeouts.body_idle` unless given.
    pub body_idle: Option<Duration>,
    /// Whether `Upgrade` requests become tunnels here.
    pub upgrade: bool,
    pub addresses: Addresses,
    /// Of the response, after the site's.
    pub headers: HeaderRules,
    /// Of the request, as the upstream sees it.
    pub request_headers: HeaderRules,
    /// Instead of the site's.
    pub cors: Option<Cors>,
    /// Who may come; `None` is everybody.
    pub auth: Option<RouteAuth>,
}

#[derive(Debug, Clone)]
pub enum Action {
    /// To the site's `next`.
    Next,
    /// To another upstream.
    To(Box<Upstream>),
    /// From the disk.
    Files(Files),
    /// `location` may name the path pattern's parameters (`:slug`) and `*`, its rest.
    Redirect { location: String, status: u16 },
}

#[derive(Debug, Clone)]
pub struct Hub {
    /// Without the slash at its end: `/socket.io`.
    pub path: String,
    /// Origins allowed besides the site's own; `*` is any.
    pub origins: Vec<String>,
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
    /// From the engine's handshake to the first namespace joined.
    pub connect_timeout: Duration,
    /// What has so many bytes or more is compressed; `None`: nothing is.
    pub compress_above: Option<usize>,
    pub limits: HubLimits,
    /// `None`: who was away begins anew.
    pub recovery: Option<Recovery>,
    /// Over this time transports are closed when the process stops.
    pub drain_over: Duration,
    pub hooks: Hooks,
    pub admin_ui: Option<AdminUi>,
    /// `None`: this process is alone.
    pub redis: Option<Redis>,
    pub namespaces: Vec<Namespace>,
}

/// What several nodes share an audience through.
#[derive(Debug, Clone)]
pub struct Redis {
    pub urls: Vec<RedisUrl>,
    pub servers: RedisServers,
    /// Instead of those in the urls.
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// Certificates that a server's must come from, with `rediss://`.
    pub ca: Option<PathBuf>,
    pub protocol: Protocol,
    /// For connecting, and for each command.
    pub timeout: Duration,
    pub wire: Wire,
    /// Bytes that wait while Redis is away.
    pub buffer: usize,
    /// How long other nodes may take to answer.
    pub answer: Duration,
    /// Clients are moved to recover over this time after a gap; zero: they are not.
    pub resume: Duration,
    /// A node that is silent for so long is gone.
    pub lease: Duration,
    /// How other nodes bring requests here; `None`: they do not.
    pub node: Option<RedisNode>,
}

/// This node among those that bring each other the requests of their sessions.
#[derive(Debug, Clone)]
pub struct RedisNode {
    pub listen: SocketAddr,
    /// By which the others reach it, if not by `listen`.
    pub address: Option<Target>,
    pub secret: Secret,
}

/// One server's address, or a first one of several.
#[derive(Debug, Clone)]
pub struct RedisUrl {
    pub tls: bool,
    /// IPv6 without brackets.
    pub host: String,
    pub port: u16,
    pub database: u32,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// The whole of it, which may have a password in it.
    pub written: Secret,
}

/// What the urls are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisServers {
    One,
    /// Sentinels, which know where the master of this name is.
    Sentinel(String),
    /// Some nodes of a cluster, which know the others.
    Cluster,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// 3 if the server speaks it.
    #[default]
    Auto,
    Resp2,
    Resp3,
}

/// What is written into Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    pub adapter: Adapter,
    /// What the names of channels and streams begin with.
    pub key: String,
    pub rooms: RoomChannels,
    /// Entries that one stream keeps, roughly.
    pub length: usize,
    /// Streams that namespaces are spread over.
    pub count: usize,
}

/// As which of Node's adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Adapter {
    #[default]
    Classic,
    Sharded,
    Streams,
}

/// The rooms that have channels of their own, where shards carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RoomChannels {
    /// But for those of single sockets.
    #[default]
    Dynamic,
    DynamicPrivate,
    Static,
}

/// How the application is asked about clients.
#[derive(Debug, Clone)]
pub struct Hooks {
    /// For one answer.
    pub timeout: Duration,
    /// How long an application that fails is asked again.
    pub retry: Duration,
    /// Signs every request.
    pub secret: Option<Secret>,
    /// Headers of the handshake that are passed on, in lower case.
    pub headers: Vec<String>,
    /// Asked instead of the `next` of the client's site.
    pub to: Option<Upstream>,
}

/// What is kept for clients that are away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// They are expected back within this time.
    pub lasts: Duration,
    /// Messages of one namespace.
    pub messages: usize,
    /// Bytes of them, and of what clients left behind.
    pub bytes: usize,
    /// Clients that are away.
    pub sessions: usize,
}

#[derive(Debug, Clone)]
pub struct HubLimits {
    /// Bytes of one message from a client (`maxPayload`).
    pub message: usize,
    /// Rooms one socket may be in.
    pub rooms: usize,
    /// Bytes queued for one client before it is closed as too slow.
    pub queue: usize,
    /// Events of one client, and how many may come at once.
    pub events: Rate,
    pub burst: usize,
    /// Bytes of messages of one client.
    pub bytes: ByteRate,
    /// Sessions that one address may have and their events, and how many have no namespace.
    pub per_ip: Together,
    pub pending: usize,
    /// New sessions of one address.
    pub handshakes: Rate,
    /// Connections of one user, and their events.
    pub per_user: Together,
    /// Attachments of one packet.
    pub attachments: usize,
    pub memory: MemoryMax,
}

/// What several clients of the hub may take together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Together {
    pub connections: usize,
    pub events: Option<Quota>,
}

/// Above which memory of the process no new client comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryMax {
    /// Nine tenths of what the process may have.
    #[default]
    Auto,
    Bytes(u64),
    Off,
}

#[derive(Debug, Clone)]
pub struct Namespace {
    /// With its slash: `/chat`.
    pub name: String,
    pub auth: NamespaceAuth,
    /// Rooms joined at connect.
    pub join: Vec<Template>,
    /// Rooms whose members hear who comes and goes.
    pub presence: Vec<RoomPattern>,
    /// The path of the application that decides who may connect.
    pub connect: Option<String>,
    /// The path of the application that is told who has left.
    pub disconnect: Option<String>,
    /// Rules by event name, in the order written.
    pub events: Vec<(String, EventRule)>,
    /// What holds for every other event: the rule of `"*"`.
    pub otherwise: Option<EventRule>,
}

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceAuth {
    Anyone,
    /// Whom one of these providers knows, asked in this order.
    Users(Vec<String>),
}

/// What an event comes to, and how much of it one client may send.
#[derive(Debug, Clone)]
pub struct EventRule {
    pub rule: Rule,
    pub rate: Option<Rate>,
    /// Bytes of its data, attachments too.
    pub max: Option<usize>,
}

impl From<Rule> for EventRule {
    fn from(rule: Rule) -> Self {
        Self { rule, rate: None, max: None }
    }
}

#[derive(Debug, Clone)]
pub enum Rule {
    Relay(Relay),
    Join(Vec<Template>),
    Leave(Vec<Template>),
    /// The application answers, at this path.
    Forward(String),
    /// Who is in the room, for one who is in it.
    Presence(Template),
    Deny,
}

impl Site {
    /// Its own name, then its aliases.
    pub fn names(&self) -> impl Iterator<Item = &HostPattern> {
        std::iter::once(&self.host).chain(&self.aliases)
    }
}

impl Config {
    /// A hook that no application could answer.
    fn asks_nobody(&self) -> Option<&str> {
        let hub = self.hub.as_ref()?;
        let asked = hub.hooks.to.is_some() || self.sites.iter().any(|site| site.next.is_some());
        let mut hooks = hub.namespaces.iter().flat_map(Namespace::hooks);
        hooks.next().filter(|_| !asked)
    }
}

impl Namespace {
    /// The paths of the application that are asked about clients here.
    pub fn hooks(&self) -> impl Iterator<Item = &str> {
        let rules = self.events.iter().map(|(_, rule)| rule).chain(&self.otherwise);
        let forwards = rules.filter_map(|event| match &event.rule {
            Rule::Forward(path) => Some(path),
            _ => None,
        });
        self.connect.iter().chain(&self.disconnect).chain(forwards).map(String::as_str)
    }
}

/// An event passed on to rooms, to everyone there but the sender.
#[derive(Debug, Clone)]
pub struct Relay {
    pub to: Audience,
    /// Fields of the first argument that are overwritten.
    pub stamp: Vec<(String, Template)>,
    /// Dropped for a client that cannot take it at once.
    pub volatile: bool,
    /// The sender gets it too.
    pub echo: bool,
    /// The sender must be in the room.
    pub member: bool,
}

#[derive(Debug, Clone)]
pub enum Audience {
    /// `"*"`: the whole namespace.
    Everyone,
    Rooms(Vec<Template>),
}

#[derive(Debug, Clone)]
pub struct Log {
    pub access: Access,
    pub level: Level,
    pub format: LogFormat,
    /// What of the hub gets a line each.
    pub events: Vec<EventKind>,
}

/// What happens in the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Connect,
    Disconnect,
    Event,
    Deny,
}

/// One line for each exchange.
#[derive(Debug, Clone)]
pub struct Access {
    pub to: AccessTo,
    pub format: AccessFormat,
    /// Words of a query's keys whose values are not written, in lower case.
    pub redact: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessFormat {
    Json,
    /// As Apache and nginx have it.
    Combined,
    Template {
        written: String,
        pieces: Vec<LogPiece>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogPiece {
    Text(String),
    Field(LogField),
    /// Of the request, in lower case.
    Header(String),
}

/// What is known of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogField {
    Agent,
    Bytes,
    Client,
    Host,
    Method,
    Ms,
    Path,
    Protocol,
    Query,
    Reason,
    Referer,
    Route,
    Status,
    /// Path and query.
    Target,
    Time,
    Tls,
    /// The id of the trace that it is a part of.
    Trace,
    /// How often a target was asked.
    Tries,
    /// The target that was asked last.
    Upstream,
    /// Until the head of its answer, tries and waiting included.
    UpstreamMs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessTo {
    Stdout,
    File(PathBuf),
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Human,
    Json,
}

/// Who collects traces, and how many.
#[derive(Debug, Clone)]
pub struct Traces {
    pub to: Target,
    /// Before `/v1/traces`; without the slash at its end.
    pub path: String,
    /// Of ten thousand.
    pub share: u16,
    pub service: String,
    /// Of each request to the collector.
    pub header: Option<Secret>,
}

#[derive(Debug, Clone)]
pub struct Shutdown {
    /// From SIGTERM to the exit, whatever is still open.
    pub grace: Duration,
}
