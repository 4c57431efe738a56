//! The keys of `tls`.

use super::keys::{Key, Kind, key};

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
    key(
        "acme",
        Kind::Short("email", ACME),
        None,
        "Asks an authority for the certificates that the folder lacks.",
    ),
];

static ACME: &[Key] = &[
    key("email", Kind::Text, None, "Where the authority can reach you. Must be written."),
    key(
        "directory",
        Kind::Text,
        Some("letsencrypt"),
        "letsencrypt, letsencrypt-staging, or the URL of another authority's directory.",
    ),
    key(
        "challenge",
        Kind::Choice(&["http-01", "tls-alpn-01"]),
        Some("http-01"),
        "How it is shown that a name is yours: over port 80 or over port 443.",
    ),
    key("ca", Kind::Path, None, "Certificates that the directory's own must come from."),
    key("eab", Kind::Object(EAB), None, "Ties the account to one that the authority gave you."),
];

static EAB: &[Key] = &[
    key("id", Kind::Text, None, "The name of the key that the authority gave you."),
    key("key", Kind::Secret, None, "The key itself, in base64 as URLs have it."),
];
