//! The keys of `hub.redis`, a part of the catalogue.

use super::keys::{Key, Kind, key};

pub static REDIS: &[Key] = &[
    key(
        "url",
        Kind::List(&Kind::Secret),
        None,
        "redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS. Must be written.",
    ),
    key(
        "adapter",
        Kind::Choice(&["classic", "sharded", "streams"]),
        Some("classic"),
        "Which of Node's adapters the other nodes use.",
    ),
    key("key", Kind::Text, Some("socket.io"), "What the names of channels and streams begin with."),
    key(
        "rooms",
        Kind::Choice(&["dynamic", "dynamic-private", "static"]),
        Some("dynamic"),
        "Which rooms have channels of their own; with adapter: sharded.",
    ),
    key("stream", Kind::Object(STREAM), None, "How much the streams hold; with adapter: streams."),
    key("sentinel", Kind::Text, None, "The name of the master; url lists its Sentinels then."),
    key("cluster", Kind::Flag, Some("false"), "The url is of a Redis Cluster; some nodes of it."),
    key("username", Kind::Text, None, "Instead of the one in the url."),
    key("password", Kind::Secret, None, "Instead of the one in the url."),
    key(
        "ca",
        Kind::Path,
        None,
        "Certificates that the server's must come from, with rediss; left out, the system's.",
    ),
    key(
        "protocol",
        Kind::Choice(&["auto", "2", "3"]),
        Some("auto"),
        "The version of RESP; auto is 3 if the server speaks it.",
    ),
    key("timeout", Kind::Duration, Some("2s"), "For connecting, and for each command."),
    key(
        "buffer",
        Kind::Size,
        Some("16MiB"),
        "What waits while Redis is away; then the oldest of it is dropped.",
    ),
    key("answer", Kind::Duration, Some("5s"), "How long other nodes may take to answer."),
    key(
        "resume",
        Kind::Duration,
        Some("0s"),
        "After a gap clients are made to come back over this time; 0s: they are not.",
    ),
    key("node", Kind::Object(NODE), None, "This node among the others, and how they reach it."),
];

static NODE: &[Key] = &[
    key(
        "listen",
        Kind::Address,
        None,
        "Where other nodes bring the requests of sessions that live here; on a private network.",
    ),
    key(
        "address",
        Kind::Text,
        None,
        "HOST:PORT by which the others reach it; left out, that of listen.",
    ),
    key("secret", Kind::Secret, None, "What nodes know each other by; the same on all."),
    key(
        "lease",
        Kind::Duration,
        Some("10s"),
        "A node that has not been heard of for so long is gone, and with it its clients.",
    ),
];

static STREAM: &[Key] = &[
    key("length", Kind::Count, Some("10000"), "Entries that are kept, roughly."),
    key("count", Kind::Count, Some("1"), "Streams that the namespaces are spread over."),
];
