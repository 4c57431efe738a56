//! The catalogue of keys: what may be written where, and what holds when nothing is.
//!
//! The reader, the suggestions, the JSON Schema and the test of proxy.yaml all go by it.

use super::auth::keys::PROVIDER;
use super::edge_keys::{ACTIONS, CORS, HEADER_RULES, HSTS, MAINTENANCE, ROUTE};
use super::limit_keys::{HUB_PER_IP, HUB_PER_USER, PER_IP};
use super::log_keys::{LOG, TRACES};
use super::redis_keys::REDIS;
use super::tls_keys::TLS;
use super::upstream_keys::UPSTREAM;

/// One key of a mapping.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// As one would write it; `None` if nothing holds unless written.
    pub default: Option<&'static str>,
    /// One sentence for editors.
    pub about: &'static str,
}

/// What may stand behind a key.
#[derive(Debug)]
pub enum Kind {
    Flag,
    Count,
    Duration,
    Size,
    /// `50/s`
    Rate,
    /// `240B/s`
    ByteRate,
    Text,
    /// A file or folder, from the file's own folder.
    Path,
    /// A text, or `file:PATH`.
    Secret,
    /// `:80`, `127.0.0.1:80`
    Address,
    Host,
    Cidr,
    /// `http://127.0.0.1:3000`, `https://HOST`, `unix:PATH`
    Target,
    PathPattern,
    Template,
    Choice(&'static [&'static str]),
    /// A list; one of them alone is a list of one.
    List(&'static Self),
    Object(&'static [Key]),
    /// An object, or the value of its main field alone.
    Short(&'static str, &'static [Key]),
    /// Names of the operator's, each with the same kind of value.
    Map(&'static str, &'static Self),
    /// This word, or the kind.
    Or(&'static str, &'static Self),
    /// In the language, but nothing acts on it yet.
    Later,
}

pub const fn key(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    about: &'static str,
) -> Key {
    Key { name, kind, default, about }
}

pub const fn later(name: &'static str) -> Key {
    Key { name, kind: Kind::Later, default: None, about: "" }
}

pub static FILE: &[Key] = &[
    key("listen", Kind::Object(LISTEN), None, "Where connections are accepted."),
    key(
        "state",
        Kind::Path,
        Some("state"),
        "The folder where this program keeps what the next process needs.",
    ),
    key(
        "workers",
        Kind::Or("auto", &Kind::Count),
        Some("auto"),
        "Threads that serve; auto is one per core.",
    ),
    key(
        "trust",
        Kind::List(&Kind::Cidr),
        Some("[]"),
        "Peers whose X-Forwarded-* or Forwarded headers are believed.",
    ),
    key("tls", Kind::Object(TLS), None, "How HTTPS is served."),
    key("limits", Kind::Object(LIMITS), None, "What is refused for being too much."),
    key("timeouts", Kind::Object(TIMEOUTS), None, "How long each wait may last."),
    key(
        "sites",
        Kind::Map("host", &Kind::Object(SITE)),
        None,
        "The public hosts, and what answers for each.",
    ),
    key("hub", Kind::Object(HUB), None, "The Socket.IO server; left out, there is none."),
    key("log", Kind::Object(LOG), None, "What is logged, where and how."),
    key(
        "metrics",
        Kind::Short("prometheus", METRICS),
        None,
        "What the admin listener tells of the process.",
    ),
    key(
        "traces",
        Kind::Short("to", TRACES),
        None,
        "Where exchanges and hooks are told as spans, by OTLP over HTTP; left out, nowhere.",
    ),
    key("shutdown", Kind::Object(SHUTDOWN), None, "How the process leaves."),
    key(
        "auth",
        Kind::Map("provider", &Kind::Object(PROVIDER)),
        None,
        "Whose sessions say who a client is, each under a name of yours.",
    ),
];

static LISTEN: &[Key] = &[
    key(
        "http",
        Kind::List(&Kind::Address),
        Some("[':80']"),
        "Addresses for plain HTTP; [] for none.",
    ),
    key("https", Kind::List(&Kind::Address), Some("[':443']"), "Addresses for HTTPS; [] for none."),
    key(
        "admin",
        Kind::Or("none", &Kind::Short("address", ADMIN)),
        None,
        "The private listener for health, metrics and reload; none for none.",
    ),
    later("proxy_protocol"),
];

static ADMIN: &[Key] = &[
    key(
        "address",
        Kind::Text,
        Some("unix:/run/vestibule/admin.sock"),
        "unix:PATH or an address and port; never a public one.",
    ),
    key("token", Kind::Secret, None, "Asked of every request that changes something over TCP."),
];

static LIMITS: &[Key] = &[
    key(
        "connections",
        Kind::Count,
        Some("100000"),
        "Open connections per process; more are refused, not queued.",
    ),
    key("headers", Kind::Size, Some("64KiB"), "Bytes of a request's head."),
    key("body", Kind::Size, Some("10MB"), "Bytes of a request's body; a route may raise it."),
    key(
        "body_rate",
        Kind::Or("none", &Kind::ByteRate),
        Some("240B/s"),
        "How fast a request's body must come on the average, while it is waited for; none: as it likes.",
    ),
    key(
        "response_body",
        Kind::Or("none", &Kind::Size),
        Some("none"),
        "Bytes of a response's body of an upstream's; none is no limit.",
    ),
    key("per_ip", Kind::Object(PER_IP), None, "What one address may have; IPv6 by its /64."),
];

static TIMEOUTS: &[Key] = &[
    key("handshake", Kind::Duration, Some("10s"), "The TLS handshake, from accept."),
    key(
        "head",
        Kind::Duration,
        Some("10s"),
        "A request's head, from its first byte or from accept.",
    ),
    key("body_idle", Kind::Duration, Some("30s"), "Between two pieces of a body, either way."),
    key("idle", Kind::Duration, Some("75s"), "Between two requests on a kept connection."),
    key("connect", Kind::Duration, Some("2s"), "Connecting to a target."),
    key(
        "first_byte",
        Kind::Duration,
        Some("60s"),
        "From a request's last byte to its response's first.",
    ),
];

static SITE: &[Key] = &[
    key(
        "aliases",
        Kind::List(&Kind::Host),
        Some("[]"),
        "Hosts that are redirected to the site's own.",
    ),
    key(
        "next",
        Kind::Short("targets", UPSTREAM),
        None,
        "The application that answers what no route does.",
    ),
    key(
        "routes",
        Kind::List(&Kind::Object(ROUTE)),
        Some("[]"),
        "Paths that are answered otherwise; the first match wins.",
    ),
    key(
        "client_ca",
        Kind::Path,
        None,
        "Certificates that each client's must come from; left out, clients need none.",
    ),
    key(
        "allow",
        Kind::List(&Kind::Cidr),
        Some("[]"),
        "Addresses that the site is for, its hub too; others get 403. None is all.",
    ),
    key(
        "deny",
        Kind::List(&Kind::Cidr),
        Some("[]"),
        "Addresses that the site is not for, before its allow.",
    ),
    key(
        "dev",
        Kind::Flag,
        Some("false"),
        "Whether next is a development server, whose hot reload is tunnelled.",
    ),
    key(
        "hsts",
        Kind::Short("max_age", HSTS),
        None,
        "Browsers come over HTTPS alone from now on; left out, they are not told.",
    ),
    key(
        "compress",
        Kind::List(&Kind::Choice(&["zstd", "br", "gzip"])),
        Some("[zstd, br, gzip]"),
        "What bodies are compressed with, the best first; [] leaves them alone.",
    ),
    key("headers", Kind::Object(HEADER_RULES), None, "Headers of every response of this site."),
    key(
        "cors",
        Kind::Short("origins", CORS),
        None,
        "What pages of other origins may read; left out, the application decides.",
    ),
    key(
        "maintenance",
        Kind::Short("file", MAINTENANCE),
        None,
        "While a file is there, the site answers 503.",
    ),
    key(
        "errors",
        Kind::Map("status", &Kind::Path),
        Some("{}"),
        "HTML pages for what the edge answers itself, by status: 502, or 5xx.",
    ),
    key(
        "actions",
        Kind::Short("origins", ACTIONS),
        None,
        "Who may call Server Actions besides the site's own pages.",
    ),
];

static HUB: &[Key] = &[
    key("path", Kind::Text, Some("/socket.io"), "Where Engine.IO is spoken, on every site."),
    key(
        "origins",
        Kind::List(&Kind::Text),
        Some("[]"),
        "Origins that may connect besides the site's own; '*' is any.",
    ),
    key("ping", Kind::Object(PING), None, "How a client shows that it is there."),
    key(
        "connect_timeout",
        Kind::Duration,
        Some("45s"),
        "From the handshake to the first namespace.",
    ),
    key(
        "compress",
        Kind::Short("above", COMPRESS),
        None,
        "Compresses what clients are sent, if they take it; left out, nothing is.",
    ),
    key("limits", Kind::Object(HUB_LIMITS), None, "What one client may take."),
    key(
        "recovery",
        Kind::Short("for", RECOVERY),
        None,
        "What a client missed while it was away is sent again; left out, it is not.",
    ),
    key("drain", Kind::Object(DRAIN), None, "How clients are sent away when the process stops."),
    key(
        "namespaces",
        Kind::Map("namespace", &Kind::Object(NAMESPACE)),
        None,
        "The namespaces; no other can be joined.",
    ),
    key("hooks", Kind::Object(HOOKS), None, "How the application is asked about clients."),
    key(
        "admin_ui",
        Kind::Object(ADMIN_UI),
        None,
        "Lets the page of Socket.IO's Admin UI in; left out, there is none.",
    ),
    key(
        "redis",
        Kind::Short("url", REDIS),
        None,
        "Shares the audience with other nodes, Node's too; left out, this process is alone.",
    ),
];

static HOOKS: &[Key] = &[
    key("timeout", Kind::Duration, Some("5s"), "How long one answer of the application may take."),
    key(
        "retry",
        Kind::Duration,
        Some("15s"),
        "How long an application that fails or restarts is asked again about a connect or an event.",
    ),
    key("secret", Kind::Secret, None, "Signs every request: x-vestibule-signature."),
    key(
        "headers",
        Kind::List(&Kind::Text),
        Some("[cookie, authorization, user-agent, accept-language]"),
        "Headers of a client's handshake that the application gets.",
    ),
    key(
        "to",
        Kind::Short("targets", UPSTREAM),
        None,
        "Servers that are asked instead of the next of the client's site.",
    ),
];

static ADMIN_UI: &[Key] = &[
    key("namespace", Kind::Text, Some("/admin"), "The namespace that the page connects to."),
    key(
        "mode",
        Kind::Choice(&["production"]),
        Some("production"),
        "What the page is told: figures only.",
    ),
    key("username", Kind::Text, None, "The name that the page must show. Must be written."),
    key("password", Kind::Secret, None, "The bcrypt hash of its password. Must be written."),
    key("readonly", Kind::Flag, Some("false"), "The page can see, but do nothing."),
    key(
        "secret",
        Kind::Secret,
        None,
        "Signs the page's sessions; that of redis.node unless written, or else each process's own.",
    ),
];

static PING: &[Key] = &[
    key("interval", Kind::Duration, Some("25s"), "Between two pings."),
    key("timeout", Kind::Duration, Some("20s"), "How long a pong may take."),
];

static HUB_LIMITS: &[Key] = &[
    key("message", Kind::Size, Some("1MB"), "Bytes of one message from a client."),
    key("rooms", Kind::Count, Some("256"), "Rooms that one socket may be in."),
    key(
        "queue",
        Kind::Size,
        Some("2MB"),
        "Bytes that wait for one client before it is closed as too slow; two messages at least.",
    ),
    key("events", Kind::Rate, Some("50/s"), "Events of one client; what comes earlier waits."),
    key("burst", Kind::Count, Some("100"), "Events that may come at once."),
    key(
        "bytes",
        Kind::ByteRate,
        Some("none"),
        "Bytes of messages of one client; what comes earlier waits. none is no limit.",
    ),
    key(
        "per_ip",
        Kind::Short("connections", HUB_PER_IP),
        None,
        "What the clients of one address may take together.",
    ),
    key(
        "pending",
        Kind::Count,
        Some("50"),
        "Clients of one address that have not joined a namespace yet.",
    ),
    key(
        "handshakes",
        Kind::Rate,
        Some("20/s"),
        "New clients of one address, after per_ip at once.",
    ),
    key(
        "memory",
        Kind::Or("auto", &Kind::Or("none", &Kind::Size)),
        Some("auto"),
        "Memory of the process above which no new client comes in.",
    ),
    key(
        "per_user",
        Kind::Short("connections", HUB_PER_USER),
        None,
        "What the clients of one user may take together.",
    ),
    key("attachments", Kind::Count, Some("10"), "Binary attachments of one event."),
];

static COMPRESS: &[Key] =
    &[key("above", Kind::Size, Some("1KiB"), "What has fewer bytes is sent as it is.")];

static RECOVERY: &[Key] = &[
    key("for", Kind::Duration, Some("2m"), "How long a client may be away."),
    key(
        "messages",
        Kind::Count,
        Some("10000"),
        "Messages of one namespace that are kept; the oldest go first.",
    ),
    key("bytes", Kind::Size, Some("16MiB"), "Bytes of them; and of what clients left behind."),
    key("sessions", Kind::Count, Some("10000"), "Clients that may be away at once."),
];

static DRAIN: &[Key] = &[key(
    "over",
    Kind::Duration,
    Some("60s"),
    "Clients are closed one after the other over this time.",
)];

static NAMESPACE: &[Key] = &[
    key(
        "auth",
        Kind::List(&Kind::Text),
        None,
        "Who may connect: whom one of these providers knows; none is everybody. Must be written.",
    ),
    key(
        "join",
        Kind::List(&Kind::Template),
        Some("[]"),
        "Rooms that a socket joins when it connects.",
    ),
    key(
        "presence",
        Kind::List(&Kind::Text),
        None,
        "Rooms whose members are told who comes and goes; room:* is all of a kind.",
    ),
    key(
        "events",
        Kind::Or("deny", &Kind::Map("event", &Kind::Or("deny", &Kind::Object(RULE)))),
        Some("{}"),
        "What clients may send, by the event's name; '*' is every other.",
    ),
    key("connect", Kind::Text, None, "A path of the application that decides who may connect."),
    key(
        "disconnect",
        Kind::Text,
        None,
        "A path of the application that is told who has left; at least once, in bounded memory.",
    ),
];

static RULE: &[Key] = &[
    key(
        "relay",
        Kind::List(&Kind::Template),
        None,
        "Rooms that get the event, all there but the sender; '*' is the whole namespace.",
    ),
    key("join", Kind::List(&Kind::Template), None, "Rooms that the sender joins."),
    key("presence", Kind::Template, None, "A room of the sender's; the answer is who is in it."),
    key("leave", Kind::List(&Kind::Template), None, "Rooms that the sender leaves."),
    key(
        "stamp",
        Kind::Map("field", &Kind::Template),
        Some("{}"),
        "Fields of the first argument that are overwritten; with relay.",
    ),
    key(
        "volatile",
        Kind::Flag,
        Some("false"),
        "Dropped for a client that cannot take it at once; with relay.",
    ),
    key("echo", Kind::Flag, Some("false"), "The sender gets it too; with relay."),
    key("member", Kind::Flag, Some("true"), "The sender must be in the room; with relay."),
    key(
        "forward",
        Kind::Text,
        None,
        "A path of the application that answers the event; its answer is the acknowledgement.",
    ),
    key("rate", Kind::Rate, None, "How often one client may send it; more is refused."),
    key("max", Kind::Size, None, "Bytes of its data, attachments too; more is refused."),
];

static METRICS: &[Key] =
    &[key("prometheus", Kind::Flag, Some("true"), "GET /metrics on the admin listener.")];

static SHUTDOWN: &[Key] = &[key(
    "grace",
    Kind::Duration,
    Some("30s"),
    "From SIGTERM to the exit, whatever is still open.",
)];
