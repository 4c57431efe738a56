//! The keys of limits that are counted by client.

use super::keys::{Key, Kind, key};

pub static PER_IP: &[Key] = &[
    key(
        "connections",
        Kind::Or("none", &Kind::Count),
        Some("none"),
        "Open connections; more are closed at once. none is no limit.",
    ),
    key(
        "requests",
        Kind::Or("none", &Kind::Rate),
        Some("none"),
        "Requests in the long run; more are answered 429. none is no limit.",
    ),
    key(
        "burst",
        Kind::Count,
        None,
        "Requests that may come at once; the number of requests unless written.",
    ),
];

pub static ROUTE_RATE: &[Key] = &[
    key("to", Kind::Rate, None, "Requests in the long run. Must be written."),
    key(
        "burst",
        Kind::Count,
        None,
        "Requests that may come at once; the number of to unless written.",
    ),
    key(
        "by",
        Kind::Text,
        Some("ip"),
        "What is counted by: ip, header:NAME or cookie:NAME; who has none is counted by ip.",
    ),
];

pub static HUB_PER_IP: &[Key] = &[
    key("connections", Kind::Count, Some("100"), "Clients that one address may have."),
    key(
        "events",
        Kind::Or("none", &Kind::Rate),
        Some("none"),
        "Events of all clients of one address; what comes earlier waits. none is no limit.",
    ),
    key("burst", Kind::Count, None, EVENTS_BURST),
];

pub static HUB_PER_USER: &[Key] = &[
    key("connections", Kind::Count, Some("20"), "Connections that one user may have at once."),
    key(
        "events",
        Kind::Or("none", &Kind::Rate),
        Some("none"),
        "Events of all clients of one user; what comes earlier waits. none is no limit.",
    ),
    key("burst", Kind::Count, None, EVENTS_BURST),
];

const EVENTS_BURST: &str = "Events that may come at once; the number of events unless written.";
