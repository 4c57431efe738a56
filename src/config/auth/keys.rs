//! The catalogue of keys below `auth`.

use super::super::keys::{Key, Kind, key};
use super::super::upstream_keys::UPSTREAM;

pub static PROVIDER: &[Key] = &[
    key(
        "lucia",
        Kind::Choice(&["v2", "v3", "guide-2024", "guide-2025", "file-2026"]),
        None,
        "Sessions of Lucia, or of what its author published after it; with database.",
    ),
    key(
        "authjs",
        Kind::Choice(&["v4", "v5"]),
        None,
        "Sessions of NextAuth 4 or Auth.js 5; with secret, or with database.",
    ),
    key(
        "better_auth",
        Kind::Object(BETTER_AUTH),
        None,
        "Sessions of better-auth; with secret, and database or its own redis.",
    ),
    key("jwt", Kind::Object(JWT), None, "Tokens that are signed: JSON Web Tokens."),
    key("iron", Kind::Object(IRON), None, "Sealed cookies of iron-session 9; with secret."),
    key("redis", Kind::Object(REDIS), None, "JSON in Redis, as express-session keeps it."),
    key("http", Kind::Short("path", HTTP), None, "The application is asked, at this path."),
    key(
        "secret",
        Kind::List(&Kind::Secret),
        None,
        "What the application signs or seals with; several while it changes, the newest first.",
    ),
    key(
        "database",
        Kind::Secret,
        None,
        "Where sessions are kept: postgres://, mysql:// or sqlite:PATH.",
    ),
    key("table", Kind::Text, None, "The table of sessions, if it is called otherwise."),
    key("columns", Kind::Object(COLUMNS), None, "Its columns, if they are called otherwise."),
    key(
        "unit",
        Kind::Choice(&["s", "ms", "iso"]),
        None,
        "How SQLite has a moment, if it is not the library's way.",
    ),
    key(
        "time_zone",
        Kind::Text,
        Some("UTC"),
        "Of columns of PostgreSQL and MySQL that have none: Europe/Prague, or +01:00.",
    ),
    key(
        "where",
        Kind::Map("column", &Kind::Text),
        Some("{}"),
        "Columns that must have these values, as two_factor_verified: 1.",
    ),
    key(
        "user_table",
        Kind::Text,
        None,
        "The table of users: a session whose user is gone is none, and claims come from it.",
    ),
    key("user_key", Kind::Text, Some("id"), "The key of user_table."),
    key(
        "claims",
        Kind::List(&Kind::Text),
        Some("[]"),
        "Columns that are known as user.COLUMN: of user_table, or of the session without one.",
    ),
    key(
        "cookie",
        Kind::Text,
        None,
        "The session cookie's name, if it is called otherwise; on HTTPS and HTTP alike.",
    ),
    key(
        "from",
        Kind::List(&Kind::Choice(&["cookie", "bearer", "connect"])),
        None,
        "Where the credential is; the first of these that is there counts.",
    ),
    key("cache", Kind::Duration, Some("5s"), "How long an answer is remembered; a refusal 1s."),
    key(
        "recheck",
        Kind::Duration,
        Some("30s"),
        "Between two looks at the sessions of those who are connected; 5m with words: authjs.",
    ),
    key(
        "grace",
        Kind::Duration,
        Some("10m"),
        "How long those who are connected stay while their sessions cannot be looked at.",
    ),
    key("max_age", Kind::Duration, Some("24h"), "How long anybody stays on one connection."),
    key(
        "on_expiry",
        Kind::Choice(&["close", "keep"]),
        Some("close"),
        "When a token has ended for a minute: the client is to come back, or stays for max_age.",
    ),
    key(
        "lookups",
        Kind::Count,
        Some("32"),
        "Questions to a store or to the application under way at once; more wait.",
    ),
    key(
        "failures",
        Kind::Rate,
        Some("10/s"),
        "Wrong credentials of one address; who shows more is told to come again.",
    ),
];

static BETTER_AUTH: &[Key] = &[
    key(
        "redis",
        Kind::Secret,
        None,
        "Where its secondary storage is, if sessions are kept there: redis://HOST.",
    ),
    key("prefix", Kind::Text, Some("'better-auth:'"), "What its keys begin with there."),
];

static JWT: &[Key] = &[
    key(
        "jwks",
        Kind::Text,
        None,
        "A document with the keys: https://, or http:// on this machine.",
    ),
    key("key", Kind::Secret, None, "One public key in PEM; with algorithm."),
    key(
        "algorithm",
        Kind::Choice(&[
            "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256", "ES384",
            "EdDSA",
        ]),
        None,
        "What key, or secret, is for; HS256 for a secret.",
    ),
    key("issuer", Kind::Text, None, "What iss must be."),
    key("audience", Kind::List(&Kind::Text), Some("[]"), "What aud must be, or one of these."),
    key("typ", Kind::Text, None, "What typ of the token's head must be."),
    key("user", Kind::Text, Some("sub"), "The claim that is the user's id."),
    key(
        "require",
        Kind::Map("claim", &Kind::Text),
        Some("{}"),
        "Claims that must have these values.",
    ),
    key(
        "supabase",
        Kind::Text,
        None,
        "The project's reference: cookie, issuer, audience and role are as Supabase has them.",
    ),
    key(
        "clerk",
        Kind::List(&Kind::Text),
        None,
        "Origins that tokens are for (azp): cookie and checks are as Clerk has them.",
    ),
];

static IRON: &[Key] = &[
    key(
        "user",
        Kind::Text,
        None,
        "The path to the user's id in the session: user.id. Must be written.",
    ),
    key("endless", Kind::Flag, Some("false"), "Takes seals that never end, of ttl: 0."),
];

static REDIS: &[Key] = &[
    key("url", Kind::Secret, None, "Where it is: redis://HOST:6379 or unix:PATH. Must be written."),
    key(
        "key",
        Kind::Text,
        Some("'sess:{id}'"),
        "The key of a session; {id} is what the cookie has.",
    ),
    key(
        "user",
        Kind::Text,
        None,
        "The path to the user's id in the value: passport.user. Must be written.",
    ),
    key("expires", Kind::Text, Some("cookie.expires"), "The path to its end, if it has one."),
    key("cookie", Kind::Text, Some("connect.sid"), "The cookie with the session's id."),
    key(
        "signed",
        Kind::List(&Kind::Secret),
        None,
        "The secrets that cookies are signed with; left out, they are not.",
    ),
];

static HTTP: &[Key] = &[
    key(
        "path",
        Kind::Text,
        None,
        "A path of the application that says who is asking, by GET; with words, their own.",
    ),
    key(
        "words",
        Kind::Choice(&["own", "authjs", "better-auth"]),
        Some("own"),
        "How it answers: { userId }, or as these libraries' session endpoints do.",
    ),
    key("user", Kind::Text, None, "The path to the user's id in the answer, if it is another."),
    key(
        "secret",
        Kind::Secret,
        None,
        "Sent as x-edge-auth, so that the application knows who asks.",
    ),
    key("timeout", Kind::Duration, Some("2s"), "How long an answer of it may take."),
    key(
        "to",
        Kind::Short("targets", UPSTREAM),
        None,
        "Servers that answer it instead of the next of the client's site.",
    ),
];

static COLUMNS: &[Key] = &[
    key("id", Kind::Text, None, "The session's id, or token."),
    key("user", Kind::Text, None, "Its user."),
    key("expires", Kind::Text, None, "When it ends, or since when it counts."),
    key("hash", Kind::Text, None, "The hash of its secret: guide-2025 and file-2026."),
];
