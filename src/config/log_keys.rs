//! The keys of the log.

use super::keys::{Key, Kind, key};

pub static LOG: &[Key] = &[
    key("access", Kind::Short("to", ACCESS), None, "One line for each exchange."),
    key(
        "level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        Some("info"),
        "What of the process's own log is written.",
    ),
    key(
        "format",
        Kind::Choice(&["human", "json"]),
        Some("human"),
        "How the process's own log is written, to standard error.",
    ),
    key(
        "events",
        Kind::List(&Kind::Choice(&["connect", "disconnect", "event", "deny"])),
        Some("[]"),
        "What of the hub gets a line each, where the lines of access go.",
    ),
];

static ACCESS: &[Key] = &[
    key("to", Kind::Text, Some("stdout"), "stdout, none, or the path of a file."),
    key(
        "format",
        Kind::Text,
        Some("json"),
        "json, combined, or a text with fields in braces: {method} {path} {status} {ms}.",
    ),
    key(
        "redact",
        Kind::List(&Kind::Text),
        Some(
            "[token, code, key, apikey, secret, password, passwd, pwd, signature, sig, auth, \
             authorization, session, sessionid, sid, jwt, otp, ticket, credential]",
        ),
        "Words of a query's keys whose values are not written: token covers access_token.",
    ),
];

pub static TRACES: &[Key] = &[
    key(
        "to",
        Kind::Text,
        None,
        "The collector: http://HOST:4318, with a path before /v1/traces if need be.",
    ),
    key("share", Kind::Text, Some("100%"), "How many traces are kept, as 10% or 0.5%."),
    key("service", Kind::Text, Some("vestibule"), "What the collector calls this: service.name."),
    key(
        "header",
        Kind::Secret,
        None,
        "A header for the collector, as \"authorization: Bearer …\".",
    ),
];
