//! The catalogue of what a site and its routes do themselves.

use super::keys::{Key, Kind, key};
use super::limit_keys::ROUTE_RATE;
use super::upstream_keys::UPSTREAM;

pub static ROUTE: &[Key] = &[
    key(
        "path",
        Kind::PathPattern,
        None,
        "/exact, /prefix/*, /old/:slug, or ~ and a regular expression. May be left out beside host, method, when or share.",
    ),
    key(
        "host",
        Kind::List(&Kind::Host),
        Some("[]"),
        "Hosts of a site that answers for several; none is all.",
    ),
    key("method", Kind::List(&Kind::Text), Some("[]"), "Methods that are meant; none is all."),
    key("when", Kind::Object(WHEN), None, "What a request must have besides its path."),
    key(
        "share",
        Kind::Short("of", SHARE),
        None,
        "Only for a part of the clients; the others go on to the next route.",
    ),
    key("to", Kind::Short("targets", UPSTREAM), None, "Servers that answer instead of next."),
    key("strip", Kind::Text, None, "Removed from the front of the path before it is sent."),
    key("prefix", Kind::Text, None, "Put before the path before it is sent; after strip."),
    key("redirect", Kind::Text, None, "Where the client is sent; :slug and * are the path's."),
    key(
        "status",
        Kind::Choice(&["301", "302", "303", "307", "308"]),
        Some("308"),
        "The redirect's status.",
    ),
    key("body", Kind::Size, None, "Bytes of a request's body; limits.body unless written."),
    key(
        "body_rate",
        Kind::Or("none", &Kind::ByteRate),
        None,
        "How fast a request's body must come; limits.body_rate unless written.",
    ),
    key(
        "response_body",
        Kind::Or("none", &Kind::Size),
        None,
        "Bytes of a response's body; limits.response_body unless written.",
    ),
    key("timeouts", Kind::Object(ROUTE_TIMEOUTS), None, "Waits that differ here."),
    key(
        "rate",
        Kind::Short("to", ROUTE_RATE),
        None,
        "How often each client may ask here; more is answered 429.",
    ),
    key(
        "upgrade",
        Kind::Flag,
        Some("false"),
        "Whether WebSockets are tunnelled here; they are refused elsewhere.",
    ),
    key("files", Kind::Short("root", FILES), None, "A folder whose files are the answers."),
    key(
        "allow",
        Kind::List(&Kind::Cidr),
        Some("[]"),
        "Addresses that may come here; others get 403. None is all.",
    ),
    key("deny", Kind::List(&Kind::Cidr), Some("[]"), "Addresses that may not, before allow."),
    key(
        "headers",
        Kind::Object(HEADER_RULES),
        None,
        "Headers of responses here, after the site's.",
    ),
    key(
        "request_headers",
        Kind::Object(HEADER_RULES),
        None,
        "Headers of requests, as the upstream sees them.",
    ),
    key("cors", Kind::Short("origins", CORS), None, "As the site's cors, and instead of it."),
    key(
        "basic",
        Kind::Short("users", BASIC),
        None,
        "Names and passwords, one of which opens it; instead of auth.",
    ),
    key("auth", Kind::Short("by", ROUTE_AUTH), None, "Who may come here; left out, everybody."),
];

static ROUTE_AUTH: &[Key] = &[
    key(
        "by",
        Kind::List(&Kind::Text),
        None,
        "Providers of auth, asked in this order. Must be written, or forward.",
    ),
    key("login", Kind::Text, None, "Where pages are sent whose visitor is nobody; else 401."),
    key(
        "forward",
        Kind::Short("url", FORWARD),
        None,
        "Another server is asked about each request, instead of by.",
    ),
];

static FORWARD: &[Key] = &[
    key("url", Kind::Text, None, "What is asked by GET: http://HOST:PORT/PATH. Must be written."),
    key(
        "headers",
        Kind::List(&Kind::Text),
        Some("[]"),
        "Headers of its answer that the application is told; a client's own are removed.",
    ),
    key(
        "client_headers",
        Kind::List(&Kind::Text),
        Some("[]"),
        "Headers of an answer that lets a client in which the client is told, as set-cookie.",
    ),
    key("timeout", Kind::Duration, Some("2s"), "How long its answer may take; then 503."),
];

static BASIC: &[Key] = &[
    key(
        "users",
        Kind::Secret,
        None,
        "Lines NAME:HASH of bcrypt, as htpasswd -B writes them: file:PATH. Must be written.",
    ),
    key("realm", Kind::Text, Some("restricted"), "What a browser may show beside its question."),
];

static ROUTE_TIMEOUTS: &[Key] = &[
    key(
        "first_byte",
        Kind::Duration,
        None,
        "From a request's last byte to its response's first; timeouts.first_byte unless written.",
    ),
    key(
        "body_idle",
        Kind::Duration,
        None,
        "Between two pieces of a body, either way; timeouts.body_idle unless written.",
    ),
];

static WHEN: &[Key] = &[
    key(
        "headers",
        Kind::Map("header", &Kind::Text),
        Some("{}"),
        "Headers by name, as texts with * for anything; ! before it for anything else.",
    ),
    key("cookies", Kind::Map("cookie", &Kind::Text), Some("{}"), "Cookies by name, likewise."),
    key("query", Kind::Map("parameter", &Kind::Text), Some("{}"), "Parameters, likewise."),
];

static SHARE: &[Key] = &[
    key("of", Kind::Text, None, "How many of the clients, as 10% or 0.5%. Must be written."),
    key(
        "cookie",
        Kind::Text,
        Some("vestibule-share"),
        "Keeps the lot that a client has drawn, so that it stays where it was.",
    ),
    key("for", Kind::Duration, Some("30d"), "How long it is kept."),
];

pub static HEADER_RULES: &[Key] = &[
    key("remove", Kind::List(&Kind::Text), Some("[]"), "Names; before the others."),
    key("set", Kind::Map("header", &Kind::Text), Some("{}"), "Instead of what is there."),
    key("add", Kind::Map("header", &Kind::Text), Some("{}"), "Besides what is there."),
];

pub static HSTS: &[Key] = &[
    key("max_age", Kind::Duration, Some("1y"), "How long browsers remember it."),
    key("subdomains", Kind::Flag, Some("false"), "For all hosts below this one, too."),
    key(
        "preload",
        Kind::Flag,
        Some("false"),
        "May be built into browsers; hard to take back. Takes a year, and subdomains.",
    ),
];

pub static CORS: &[Key] = &[
    key(
        "origins",
        Kind::List(&Kind::Text),
        None,
        "https://app.example.com, https://*.example.com, or '*' for any. Must be written.",
    ),
    key(
        "methods",
        Kind::List(&Kind::Text),
        Some("[GET, HEAD, POST, PUT, PATCH, DELETE]"),
        "What pages may send.",
    ),
    key(
        "headers",
        Kind::List(&Kind::Text),
        Some("[authorization, content-type]"),
        "Headers that they may send; '*' is any.",
    ),
    key("expose", Kind::List(&Kind::Text), Some("[]"), "Headers of responses that they may read."),
    key("credentials", Kind::Flag, Some("false"), "With cookies; not with any origin."),
    key("max_age", Kind::Duration, Some("10m"), "How long a browser remembers the answer."),
];

pub static MAINTENANCE: &[Key] = &[
    key("file", Kind::Path, None, "Whose being there switches it on. Must be written."),
    key("page", Kind::Path, None, "The HTML page that is shown; left out, a plain one."),
    key("allow", Kind::List(&Kind::Cidr), Some("[]"), "Addresses that see the site as it is."),
    key("retry", Kind::Duration, Some("1m"), "When clients are told to come back."),
];

static FILES: &[Key] = &[
    key("root", Kind::Path, None, "The folder. Must be written."),
    key(
        "index",
        Kind::List(&Kind::Text),
        Some("[index.html]"),
        "Answers for folders, the first that is there; [] for none.",
    ),
    key(
        "fallback",
        Kind::Text,
        None,
        "The file that answers where there is none, unless one was asked for by a name with a dot.",
    ),
    key(
        "cache",
        Kind::Duration,
        Some("0s"),
        "How long browsers may use a file without asking again.",
    ),
    key("immutable", Kind::Flag, Some("false"), "They never ask while it lasts; with cache."),
];

pub static BUILD: &[Key] = &[
    key("path", Kind::Path, None, "The .next folder. Must be written."),
    key(
        "public",
        Kind::Choice(&["auto", "always", "never"]),
        Some("auto"),
        "Whether files of public/ are served from the disk, too.",
    ),
    key(
        "keep",
        Kind::List(&Kind::Path),
        Some("[]"),
        "The .next folders of builds before, for pages that are still open.",
    ),
];

pub static ACTIONS: &[Key] = &[key(
    "origins",
    Kind::List(&Kind::Text),
    Some("[]"),
    "Hosts as app.example.com or *.example.com; as serverActions.allowedOrigins.",
)];
