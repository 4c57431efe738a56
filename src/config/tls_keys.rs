//! The keys of `tls`.

use super::keys::{Key, Kind, key, later};

pub static TLS: &[Key] = &[
    key(
        "certs",
        Kind::Path,
        Some("certs"),
        "A folder of NAME.pem + NAME.key, or NAME/fullchain.pem + NAME/privkey.pem.",
    ),
    key(
        "min",
        Kind::Choice(&["1.2", "1.3"]),
        Some("1.2"),
        "The oldest version of TLS that is spoken.",
    ),
    later("acme"),
];
