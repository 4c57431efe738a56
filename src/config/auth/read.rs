//! `auth` as written → `Provider`s; pure.

use std::time::Duration;

use super::super::field::{Field, Named};
use super::super::section::{Section, choose};
use super::super::sites;
use super::super::units::{Secret, deadline, duration, rate};
use super::super::upstream;
use super::super::validate::at_least_one;
use super::{
    AuthJsVersion, BetterAuthStore, Callback, CallbackWords, Constant, Database, Jwt, JwtKeys,
    KeyValue, LuciaVariant, OnExpiry, Provider, ProviderKind, RedisPlace, Rows, Source, Unit,
};

pub fn read(file: &Section<'_>) -> Vec<Provider> {
    let keys = file.keys("auth");
    let named = file.names("auth");
    named.iter().filter_map(|named| provider(named, &Section::of(&named.field, keys))).collect()
}

const KINDS: [&str; 7] = ["lucia", "authjs", "better_auth", "jwt", "iron", "redis", "http"];

fn provider(named: &Named<'_>, section: &Section<'_>) -> Option<Provider> {
    if named.name == "none" || named.name.is_empty() {
        named.field.refuse_key("is no name for a provider: in a namespace none is everybody");
    }
    let words = Words::read(section);
    let written = KINDS.into_iter().filter(|kind| section.written(kind).is_some());
    let kinds: Vec<_> = written.collect();
    let kind = match kinds.as_slice() {
        [kind] => words.kind(kind, section),
        [] => {
            section
                .refuse_lack(format!("has no kind of session; write one of {}", KINDS.join(", ")));
            None
        }
        _ => {
            section.refuse(format!("has {}; a provider is of one kind", kinds.join(" and ")));
            None
        }
    };
    let cookie = section.get("cookie", cookie);
    let token = matches!(kind, Some(ProviderKind::Jwt(_)));
    let provider = Provider {
        name: named.name.to_owned(),
        from: from(section, token, cookie.is_some(), kind.as_ref()),
        cookie: cookie.or(words.own_cookie),
        cache: section.value("cache", duration),
        recheck: recheck(section, kind.as_ref()),
        grace: section.value("grace", duration),
        max_age: section.value("max_age", deadline),
        on_expiry: section.choice("on_expiry", &ON_EXPIRY).unwrap_or(OnExpiry::Close),
        lookups: section.value("lookups", at_least_one),
        failures: section.value("failures", rate),
        kind: kind?,
    };
    let named_otherwise = matches!(
        provider.kind,
        ProviderKind::Iron { .. }
            | ProviderKind::Lucia { variant: LuciaVariant::File2026, .. }
            | ProviderKind::Http(Callback { words: CallbackWords::Own, .. })
    );
    if named_otherwise && provider.cookie.is_none() && provider.from.contains(&Source::Cookie) {
        section.refuse_lack("has no cookie, and this kind has no name for it; write cookie: NAME");
    }
    Some(provider)
}

const ON_EXPIRY: [(&str, OnExpiry); 2] = [("close", OnExpiry::Close), ("keep", OnExpiry::Keep)];

/// Asking Auth.js keeps its session alive, which is for the user to do.
const RECHECK_AUTHJS: Duration = Duration::from_secs(300);

fn recheck(section: &Section<'_>, kind: Option<&ProviderKind>) -> Duration {
    let written = section.value("recheck", deadline);
    let authjs =
        matches!(kind, Some(ProviderKind::Http(asked)) if asked.words == CallbackWords::AuthJs);
    if authjs && section.written("recheck").is_none() { RECHECK_AUTHJS } else { written }
}

/// A name that databases know, or a distance from UTC.
fn zone(text: &str) -> Result<String, String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-:/".contains(&byte);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(letter) {
        return Err(format!("{text:?} is no time zone; write Europe/Prague, or +01:00"));
    }
    Ok(text.to_owned())
}

fn cookie(text: &str) -> Result<String, String> {
    let letter = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
    if text.is_empty() || !text.bytes().all(letter) {
        return Err(format!("{text:?} is no cookie's name; write session"));
    }
    Ok(text.to_owned())
}

const SOURCES: [(&str, Source); 3] =
    [("cookie", Source::Cookie), ("bearer", Source::Bearer), ("connect", Source::Connect)];

fn from(
    section: &Section<'_>,
    token: bool,
    has_cookie: bool,
    kind: Option<&ProviderKind>,
) -> Vec<Source> {
    let written = section.list("from", |text| choose(text, &SOURCES));
    if section.written("from").is_some_and(Field::is_empty_list) {
        section.refuse("from is [], so nobody could show anything; write cookie");
    }
    if !written.is_empty() {
        return written;
    }
    let in_cookie = match kind {
        Some(ProviderKind::Jwt(jwt)) => jwt.supabase || !jwt.parties.is_empty() || has_cookie,
        _ => true,
    };
    match (token, in_cookie) {
        (true, true) => vec![Source::Cookie],
        (true, false) => vec![Source::Connect, Source::Bearer],
        (false, _) => vec![Source::Cookie],
    }
}

/// What several kinds share, read before it is known which one it is.
struct Words {
    secrets: Vec<Secret>,
    rows: Option<Rows>,
    lucia: Option<LuciaVariant>,
    authjs: Option<AuthJsVersion>,
    better_auth: Option<(Option<RedisPlace>, String)>,
    jwt: Option<Jwt>,
    iron: Option<(String, bool)>,
    redis: Option<KeyValue>,
    http: Option<Callback>,
    own_cookie: Option<String>,
}

impl Words {
    fn read(section: &Section<'_>) -> Self {
        let given = |name: &str| section.written(name).map(|_| section.section(name));
        let secrets = secrets(section, "secret");
        let lucia = [
            ("v2", LuciaVariant::V2),
            ("v3", LuciaVariant::V3),
            ("guide-2024", LuciaVariant::Guide2024),
            ("guide-2025", LuciaVariant::Guide2025),
            ("file-2026", LuciaVariant::File2026),
        ];
        let authjs = [("v4", AuthJsVersion::V4), ("v5", AuthJsVersion::V5)];
        let (mut own_cookie, redis) = (None, given("redis"));
        let redis = redis.and_then(|redis| {
            own_cookie = redis.get("cookie", cookie);
            key_value(&redis)
        });
        let jwt = given("jwt").and_then(|section| {
            let (jwt, cookie) = jwt(&section, &secrets)?;
            own_cookie = cookie.or(own_cookie.take());
            Some(jwt)
        });
        Self {
            lucia: section.choice("lucia", &lucia),
            authjs: section.choice("authjs", &authjs),
            better_auth: given("better_auth").map(|section| {
                let place = place(&section, "redis");
                (place, section.value("prefix", |text| Ok(text.to_owned())))
            }),
            jwt,
            iron: given("iron").map(|section| {
                (must_path(&section, "user").unwrap_or_default(), section.flag("endless"))
            }),
            redis,
            http: given("http").and_then(|section| callback(&section)),
            rows: rows(section),
            secrets,
            own_cookie,
        }
    }

    fn kind(&self, kind: &str, section: &Section<'_>) -> Option<ProviderKind> {
        let database = || {
            if self.rows.is_none() {
                section.refuse_lack("has no database, where the sessions are; write one");
            }
            self.rows.clone()
        };
        let secret = || {
            if self.secrets.is_empty() {
                section.refuse_lack("has no secret, so nothing could be opened; write one");
            }
            self.secrets.first().cloned()
        };
        Some(match kind {
            "lucia" => {
                self.refuse_unused(section, kind, &["secret"]);
                let rows = database()?;
                let idle = rows.expires.as_deref() == Some("last_verified_at");
                let variant = match self.lucia? {
                    LuciaVariant::Guide2025 if idle => LuciaVariant::Guide2025Idle,
                    variant => variant,
                };
                ProviderKind::Lucia { variant, rows }
            }
            "authjs" => {
                if self.rows.is_none() {
                    secret()?;
                }
                let (secrets, rows) = (self.secrets.clone(), self.rows.clone());
                ProviderKind::AuthJs { version: self.authjs?, secrets, rows }
            }
            "better_auth" => {
                let store = match self.better_auth.clone()? {
                    (Some(place), prefix) => BetterAuthStore::Redis { place, prefix },
                    (None, _) => BetterAuthStore::Rows(database()?),
                };
                ProviderKind::BetterAuth { secret: secret()?, store }
            }
            "jwt" => {
                self.refuse_unused(section, kind, &["database"]);
                ProviderKind::Jwt(self.jwt.clone()?)
            }
            "iron" => {
                self.refuse_unused(section, kind, &["database"]);
                secret()?;
                let (user, endless) = self.iron.clone()?;
                ProviderKind::Iron { passwords: self.secrets.clone(), user, endless }
            }
            "redis" => {
                self.refuse_unused(section, kind, &["database", "secret"]);
                ProviderKind::Redis(self.redis.clone()?)
            }
            _ => {
                self.refuse_unused(section, kind, &["database", "secret"]);
                ProviderKind::Http(self.http.clone()?)
            }
        })
    }

    fn refuse_unused(&self, section: &Section<'_>, kind: &str, keys: &[&str]) {
        for key in keys {
            let refuse =
                |field: &Field<'_>| field.refuse_key(format!("has no meaning with {kind}"));
            section.written(key).inspect(|field| refuse(field));
        }
    }
}

/// Shorter ones are guessed.
const SECRET_MIN: usize = 16;
const SECRETS_MAX: usize = 5;
const WELL_KNOWN: [&str; 4] = ["secret", "changeme", "change-me", "your-secret"];

fn secrets(section: &Section<'_>, name: &str) -> Vec<Secret> {
    let Some(field) = section.written(name) else { return Vec::new() };
    let items = field.items();
    if items.len() > SECRETS_MAX {
        field.refuse("has more than 5 secrets; the oldest can go");
    }
    let check = |item: &Field<'_>| {
        let secret = item.read_secret()?;
        let text = secret.expose();
        if WELL_KNOWN.contains(&text.to_ascii_lowercase().as_str()) || text.len() < SECRET_MIN {
            item.refuse("is too easily guessed; 32 random bytes are not: openssl rand -base64 32");
        }
        Some(secret)
    };
    items.iter().filter_map(check).collect()
}

fn place(section: &Section<'_>, name: &str) -> Option<RedisPlace> {
    let field = section.written(name)?;
    let place = RedisPlace::parse(&field.read_secret()?, section.folder());
    place.map_err(|what| field.refuse(what)).ok()
}

/// A table's or a column's name, which is quoted but never escaped.
fn name(text: &str) -> Result<String, String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if !begins || text.len() > 63 || !text.bytes().all(letter) {
        return Err(format!("{text:?} is no name of a column; letters, digits and _ are"));
    }
    Ok(text.to_owned())
}

/// `table` or `schema.table`.
fn table(text: &str) -> Result<String, String> {
    text.split('.').try_for_each(|part| name(part).map(drop))?;
    if text.split('.').count() > 2 {
        return Err(format!("{text:?} has too many dots; write schema.table"));
    }
    Ok(text.to_owned())
}

fn constant(text: &str) -> Result<Constant, String> {
    Ok(match (text, text.parse()) {
        ("true", _) => Constant::Flag(true),
        ("false", _) => Constant::Flag(false),
        (_, Ok(number)) => Constant::Number(number),
        (text, Err(_)) => Constant::Text(text.to_owned()),
    })
}

fn rows(section: &Section<'_>) -> Option<Rows> {
    const NEED: [&str; 7] =
        ["table", "columns", "unit", "time_zone", "where", "user_table", "claims"];
    let columns = section.section("columns");
    let units = [("s", Unit::Seconds), ("ms", Unit::Milliseconds), ("iso", Unit::Iso)];
    let only = section.names("where").into_iter().filter_map(|Named { name: column, field }| {
        name(column).map_err(|what| field.refuse_key(what)).ok()?;
        Some((column.to_owned(), field.read(constant)?))
    });
    let (only, users) = (only.collect(), section.get("user_table", table));
    let user_key = section.value("user_key", name);
    let table = section.get("table", table);
    let time_zone: String = section.value("time_zone", zone);
    let (unit, claims) = (section.choice("unit", &units), section.list("claims", name));
    let [id, user, expires, hash] =
        ["id", "user", "expires", "hash"].map(|column| columns.get(column, name));
    let Some(field) = section.written("database") else {
        for key in NEED {
            section.written(key).inspect(|field| field.refuse_key("goes only with database"));
        }
        return None;
    };
    let database = Database::parse(&field.read_secret()?, section.folder());
    let database = database.map_err(|what| field.refuse(what)).ok()?;
    let users = users.map(|table| (table, user_key));
    Some(Rows { database, table, id, user, expires, hash, unit, time_zone, only, users, claims })
}

/// `user.id`: fields within fields.
fn path(text: &str) -> Result<String, String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_-$:/".contains(&byte);
    let step = |step: &str| !step.is_empty() && step.bytes().all(letter);
    if !text.split('.').all(step) {
        return Err(format!("{text:?} is no path to a field; write user.id"));
    }
    Ok(text.to_owned())
}

fn must_path(section: &Section<'_>, key: &str) -> Option<String> {
    if section.written(key).is_none() {
        section.refuse_lack(format!("has no {key}, so nobody would be known; write one"));
    }
    section.get(key, path)
}

fn key_value(section: &Section<'_>) -> Option<KeyValue> {
    if section.written("url").is_none() {
        section.refuse_lack("has no url; write redis://127.0.0.1:6379");
    }
    let (place, user) = (place(section, "url"), must_path(section, "user"));
    let key = section.value("key", |text| {
        if text.matches("{id}").count() == 1 {
            Ok(text.to_owned())
        } else {
            Err(format!("{text:?} has no {{id}} in it; write sess:{{id}}"))
        }
    });
    let expires = section.value("expires", path);
    let signed = secrets(section, "signed");
    Some(KeyValue { place: place?, key, user: user?, expires, signed })
}

const ALGORITHMS: [&str; 10] =
    ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"];

/// The token's rules, and the cookie that it is in by convention.
fn jwt(section: &Section<'_>, secrets: &[Secret]) -> Option<(Jwt, Option<String>)> {
    let algorithms = ALGORITHMS.map(|name| (name, name));
    let algorithm = section.choice("algorithm", &algorithms);
    let jwks = section.get("jwks", jwks_url);
    let pem = section.written("key").and_then(Field::read_secret);
    let keys = match (section.written("jwks"), section.written("key"), secrets) {
        (Some(_), None, []) => jwks.map(JwtKeys::Jwks),
        (None, Some(key), []) => {
            let public = algorithm.filter(|name| !name.starts_with("HS"));
            if public.is_none() {
                key.refuse_key("is a public key; write its algorithm beside it, as RS256");
            }
            pem.zip(public).map(|(pem, name)| JwtKeys::Pem(pem, name.to_owned()))
        }
        (None, None, [_, ..]) => {
            let name = algorithm.unwrap_or("HS256");
            if !name.starts_with("HS") {
                section.refuse(format!("{name} is not for a secret; write key or jwks"));
            }
            Some(JwtKeys::Secrets(secrets.to_vec(), name.to_owned()))
        }
        (None, None, []) => {
            section.refuse_lack("has no keys; write jwks, key, or secret beside jwt");
            None
        }
        _ => {
            section.refuse("has several of jwks, key and secret; tokens are signed in one way");
            None
        }
    };
    let text = |key: &str| section.get(key, |text| Ok(text.to_owned()));
    let supabase = section.get("supabase", reference);
    let parties = section.list("clerk", |text| Ok(text.trim_end_matches('/').to_owned()));
    let mut audience = section.list("audience", |text| Ok(text.to_owned()));
    let (mut issuer, mut typ, mut cookie) = (text("issuer"), text("typ"), None);
    let require = section.names("require").into_iter().filter_map(|Named { name, field }| {
        Some((name.to_owned(), field.read(|text| Ok(text.to_owned()))?))
    });
    let mut require: Vec<_> = require.collect();
    if let Some(project) = &supabase {
        issuer.get_or_insert_with(|| format!("https://{project}.supabase.co/auth/v1"));
        if audience.is_empty() {
            audience.push("authenticated".to_owned());
        }
        // The public key of every page is a token of the same secret.
        require.push(("role".to_owned(), "authenticated".to_owned()));
        cookie = Some(format!("sb-{project}-auth-token"));
    }
    if !parties.is_empty() {
        typ.get_or_insert_with(|| "JWT".to_owned());
        cookie = Some("__session".to_owned());
    }
    if parties.is_empty() && (issuer.is_none() || audience.is_empty()) {
        section
            .refuse_lack("has no issuer or no audience, so tokens for others would do; write both");
    }
    let user = section.value("user", path);
    let supabase = supabase.is_some();
    Some((Jwt { keys: keys?, issuer, audience, typ, user, require, parties, supabase }, cookie))
}

fn reference(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(format!(
            "{text:?} is no project's reference; it is the first part of its host"
        ));
    }
    Ok(text.to_owned())
}

/// A document that a stranger could change on its way is none.
fn jwks_url(text: &str) -> Result<String, String> {
    let local = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
    let near = local
        .iter()
        .any(|start| text.strip_prefix(start).is_some_and(|rest| rest.starts_with([':', '/'])));
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['@', '#']);
    if plain && (near || text.starts_with("https://")) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no address for keys; write https://HOST/PATH"))
}

fn callback(section: &Section<'_>) -> Option<Callback> {
    let words = [
        ("own", CallbackWords::Own),
        ("authjs", CallbackWords::AuthJs),
        ("better-auth", CallbackWords::BetterAuth),
    ];
    let written = section.get("path", sites::url_path);
    let words = section.choice("words", &words).unwrap_or(CallbackWords::Own);
    let own = match words {
        CallbackWords::Own => None,
        CallbackWords::AuthJs => Some("/api/auth/session"),
        // It would answer by the cookie alone for five minutes, and lengthen the session.
        CallbackWords::BetterAuth => {
            Some("/api/auth/get-session?disableCookieCache=true&disableRefresh=true")
        }
    };
    if section.written("path").is_none() && own.is_none() {
        section.refuse_lack("has no path; write /api/realtime/auth");
    }
    let url_path = written.or(own.map(str::to_owned));
    Some(Callback {
        words,
        user: section.get("user", path),
        secret: section.written("secret").and_then(Field::read_secret),
        timeout: section.value("timeout", deadline),
        to: section.written("to").map(|_| upstream::read(&section.section("to"))),
        path: url_path?,
    })
}
