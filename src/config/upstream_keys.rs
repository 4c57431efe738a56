//! The keys of `next`, and of whatever else names targets; a part of the catalogue.

use super::edge_keys::BUILD;
use super::keys::{Key, Kind, key};

pub static UPSTREAM: &[Key] = &[
    key(
        "targets",
        Kind::List(&Kind::Target),
        None,
        "Servers that are each as good as the other: http://HOST:PORT, https://HOST:PORT or unix:PATH.",
    ),
    key(
        "balance",
        Kind::Choice(&["least", "round", "hash"]),
        Some("least"),
        "Which target is asked: the one with the fewest requests in flight, each in turn, or the same for the same client.",
    ),
    key("health", Kind::Object(HEALTH), None, "How a target shows that it is there."),
    key(
        "hold",
        Kind::Or("none", &Kind::Short("for", HOLD)),
        None,
        "How long requests wait while no target can take them; none: they fail at once.",
    ),
    key(
        "eject",
        Kind::Or("none", &Kind::Short("after", EJECT)),
        None,
        "When a target that fails is passed over for a while, if there are others; none: never.",
    ),
    key(
        "slow_start",
        Kind::Duration,
        Some("10s"),
        "Over this time a target that comes back gets more and more of its share; 0s: all at once.",
    ),
    key(
        "max",
        Kind::Count,
        None,
        "Requests in flight per target, of all workers; more are held. Left out, there is no bound.",
    ),
    key("keep", Kind::Object(KEEP), None, "Idle connections that are kept for the next request."),
    key(
        "tls",
        Kind::Object(TLS),
        None,
        "Whom targets with https:// must be, and who we are to them.",
    ),
    key(
        "head",
        Kind::Size,
        Some("16KiB"),
        "Bytes of a request's head that the targets take; more is answered 431.",
    ),
    key(
        "build",
        Kind::Short("path", BUILD),
        None,
        "The .next folder, whose static files are served from the disk; with next alone.",
    ),
    key(
        "images",
        Kind::Or("none", &Kind::Short("at_once", IMAGES)),
        None,
        "How many pictures /_next/image makes at once, and for whom; with next alone. none: any number.",
    ),
];

static IMAGES: &[Key] = &[
    key("at_once", Kind::Count, Some("8"), "Requests for pictures in flight, for each target."),
    key("wait", Kind::Duration, Some("15s"), "How long others wait for their turn before 503."),
    key(
        "queue",
        Kind::Count,
        Some("1000"),
        "Requests for pictures that wait; more are answered 503.",
    ),
    key(
        "share",
        Kind::Flag,
        Some("true"),
        "Clients that ask for the same picture at the same time get the answer to one request.",
    ),
];

static HEALTH: &[Key] = &[
    key("path", Kind::Text, None, "Asked by GET. Left out, a connection is enough."),
    key(
        "statuses",
        Kind::List(&Kind::Text),
        Some("[2xx, 3xx]"),
        "Answers to path that are good, by status: 200, or 2xx.",
    ),
    key("every", Kind::Duration, Some("2s"), "Between two checks of a target."),
    key("timeout", Kind::Duration, Some("1s"), "How long one check may take."),
    key(
        "rise",
        Kind::Count,
        Some("2"),
        "Good checks in a row before a target that was down is up.",
    ),
    key("fall", Kind::Count, Some("3"), "Bad checks in a row before a target that was up is down."),
];

static HOLD: &[Key] = &[
    key(
        "for",
        Kind::Duration,
        Some("15s"),
        "How long one request waits before it is answered 503.",
    ),
    key("queue", Kind::Count, Some("1000"), "Requests that wait at once; more are answered 503."),
];

static EJECT: &[Key] = &[
    key("after", Kind::Count, Some("5"), "Failures in a row."),
    key(
        "for",
        Kind::Duration,
        Some("1s"),
        "The first time; doubled each time that it fails again.",
    ),
    key("most", Kind::Duration, Some("1m"), "The longest that a target is passed over."),
    key(
        "statuses",
        Kind::List(&Kind::Text),
        Some("[]"),
        "Answers that are failures too, by status: 502, or 5xx.",
    ),
];

static TLS: &[Key] = &[
    key(
        "ca",
        Kind::Path,
        None,
        "Certificates in PEM that a target's must come from; left out, those that the system believes.",
    ),
    key(
        "server_name",
        Kind::Host,
        None,
        "The name in its certificate; left out, the target's host.",
    ),
    key("verify", Kind::Flag, Some("true"), "false believes whoever answers."),
    key("cert", Kind::Path, None, "A certificate in PEM for targets that ask for one; with key."),
    key("key", Kind::Path, None, "Its key in PEM."),
];

static KEEP: &[Key] = &[
    key("idle", Kind::Count, Some("256"), "Idle connections per target and worker."),
    key(
        "for",
        Kind::Duration,
        Some("4s"),
        "How long one may be idle; below the application's own keep-alive.",
    ),
];
