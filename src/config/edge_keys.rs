//! The catalogue of what a site and its routes do themselves.

use super::keys::{Key, Kind, key};

pub static WHEN: &[Key] = &[
    key(
        "headers",
        Kind::Map("header", &Kind::Text),
        Some("{}"),
        "Headers by name, as texts with * for anything; ! before it for anything else.",
    ),
    key("cookies", Kind::Map("cookie", &Kind::Text), Some("{}"), "Cookies by name, likewise."),
    key("query", Kind::Map("parameter", &Kind::Text), Some("{}"), "Parameters, likewise."),
];

pub static SHARE: &[Key] = &[
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
