//! `auth:`: whose sessions are believed, and where they are kept.

pub mod keys;
mod places;
pub mod read;
mod show;

use std::time::Duration;

use super::{Rate, Secret, Upstream};

pub use places::{Database, DatabaseKind, RedisAddress, RedisPlace};

/// One kind of session of the application's, under a name of the operator's.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    pub name: String,
    pub kind: ProviderKind,
    /// The session cookie's own name; by default the library's.
    pub cookie: Option<String>,
    /// Where a credential may be, the first that is there counts.
    pub from: Vec<Source>,
    /// How long an answer is remembered.
    pub cache: Duration,
    /// Between two looks at the sessions of those who are connected.
    pub recheck: Duration,
    /// How long they stay while that is not possible.
    pub grace: Duration,
    /// How long anybody stays on one connection.
    pub max_age: Duration,
    pub on_expiry: OnExpiry,
    /// Look-ups under way at once.
    pub lookups: usize,
    /// Wrong credentials of one address.
    pub failures: Rate,
}

impl Provider {
    /// Whether both let in the same people, by the same credentials: how often and how long they are
    /// looked at, how many at once, and with which password a store is opened are no part of that.
    pub fn has_same_door(&self, other: &Self) -> bool {
        self.door() == other.door()
    }

    /// Without all that is no part of it.
    fn door(&self) -> (&str, ProviderKind, Option<&str>, &[Source]) {
        let Self { name, kind, cookie, from, .. } = self;
        let mut kind = kind.clone();
        match &mut kind {
            ProviderKind::Lucia { rows, .. }
            | ProviderKind::AuthJs { rows: Some(rows), .. }
            | ProviderKind::BetterAuth { store: BetterAuthStore::Rows(rows), .. } => {
                rows.database = rows.database.without_password();
            }
            ProviderKind::BetterAuth { store: BetterAuthStore::Redis { place, .. }, .. }
            | ProviderKind::Redis(KeyValue { place, .. }) => *place = place.without_password(),
            ProviderKind::Http(callback) => callback.timeout = Duration::ZERO,
            ProviderKind::AuthJs { rows: None, .. }
            | ProviderKind::Jwt(_)
            | ProviderKind::Iron { .. } => {}
        }
        (name, kind, cookie.as_deref(), from)
    }
}

/// What becomes of a connection whose token has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExpiry {
    /// It is cut, and the client comes back with its next token.
    Close,
    /// It stays until it has its greatest age.
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Cookie,
    /// `Authorization: Bearer`
    Bearer,
    /// `auth.token` of the client's CONNECT.
    Connect,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ProviderKind {
    Lucia {
        variant: LuciaVariant,
        rows: Rows,
    },
    /// Encrypted cookies, or sessions in a database.
    AuthJs {
        version: AuthJsVersion,
        secrets: Vec<Secret>,
        rows: Option<Rows>,
    },
    BetterAuth {
        secret: Secret,
        store: BetterAuthStore,
    },
    Jwt(Jwt),
    Iron {
        passwords: Vec<Secret>,
        user: String,
        endless: bool,
    },
    Redis(KeyValue),
    Http(Callback),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LuciaVariant {
    V2,
    V3,
    Guide2024,
    /// Ends a day after it began.
    Guide2025,
    /// Ends ten days after it was last used.
    Guide2025Idle,
    File2026,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthJsVersion {
    V4,
    V5,
}

#[derive(Debug, Clone, PartialEq)]
pub enum BetterAuthStore {
    Rows(Rows),
    Redis { place: RedisPlace, prefix: String },
}

/// Which rows of which table are sessions. What is `None` is as the library has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    pub database: Database,
    pub table: Option<String>,
    pub id: Option<String>,
    pub user: Option<String>,
    pub expires: Option<String>,
    pub hash: Option<String>,
    pub unit: Option<Unit>,
    /// Of moments that have none of their own.
    pub time_zone: String,
    /// Columns that must have these values.
    pub only: Vec<(String, Constant)>,
    /// The users' table and its key: a session without a user is none.
    pub users: Option<(String, String)>,
    /// Columns of the user, or of the session where there is no table of users.
    pub claims: Vec<String>,
}

/// How SQLite has a moment, which has no type for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Milliseconds,
    Iso,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constant {
    Flag(bool),
    Number(i64),
    Text(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Jwt {
    pub keys: JwtKeys,
    pub issuer: Option<String>,
    pub audience: Vec<String>,
    pub typ: Option<String>,
    pub user: String,
    pub require: Vec<(String, String)>,
    /// Clerk's; empty: it is not Clerk.
    pub parties: Vec<String>,
    /// The cookie holds a session of Supabase's, in which the token is.
    pub supabase: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum JwtKeys {
    /// A document at this URL.
    Jwks(String),
    /// Shared secrets.
    Secrets(Vec<Secret>, String),
    /// One public key in PEM, for the algorithm.
    Pem(Secret, String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct KeyValue {
    pub place: RedisPlace,
    /// With `{id}` in it.
    pub key: String,
    pub user: String,
    pub expires: String,
    pub signed: Vec<Secret>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Callback {
    pub path: String,
    pub words: CallbackWords,
    pub user: Option<String>,
    pub secret: Option<Secret>,
    pub timeout: Duration,
    /// Asked instead of the `next` of the client's site.
    pub to: Option<Upstream>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackWords {
    Own,
    AuthJs,
    BetterAuth,
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.expose().as_bytes())
    }
}
