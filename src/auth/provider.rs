//! One kind of session of the application's, compiled: what it reads, opens, asks for and judges.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::{
    self, AuthJsVersion, BetterAuthStore, CallbackWords, HostPattern, JwtKeys, LuciaVariant,
    ProviderKind, Source,
};
use crate::exchange::{Client, Scheme};
use crate::upstream::Upstream;

use super::credentials::{Chunks, Credentials};
use super::identity::{Denial, Identity};
use super::keys::{Algorithm, Key as SigningKey};
use super::preset::{Key, Row, authjs, better_auth, callback, express, iron, jwt, lucia};
use super::seal::{JweKey, sha256_of};
use super::statement::{Layout, Statement};

/// Which credential it is, without being one.
pub type Digest = [u8; 32];

/// Which of those that were compiled, of one name too; by default none of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compiled(u64);

impl Compiled {
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

pub struct Provider {
    pub name: Arc<str>,
    pub compiled: Compiled,
    pub words: config::Provider,
    /// What the session cookie is called on HTTPS, and on HTTP.
    names: [Vec<String>; 2],
    opener: Opener,
}

/// What a kind needs, made ready once.
enum Opener {
    Lucia(lucia::Variant),
    Sealed {
        version: authjs::Version,
        keys: [Vec<JweKey>; 2],
    },
    AuthJsRow,
    BetterAuth,
    Jwt {
        keys: Option<Vec<SigningKey>>,
        rules: jwt::Rules,
    },
    Iron(Vec<(String, String)>),
    KeyValue,
    /// By the host that a client came for.
    Application(Vec<(HostPattern, Upstream)>),
}

/// What a client showed, as far as one provider reads it.
#[derive(Clone)]
pub struct Shown {
    pub value: String,
    pub from: Source,
    pub secure: bool,
    /// Seconds since 1970: what was issued before is over, since the user has left elsewhere.
    pub issued_since: Option<u32>,
}

/// What was shown: somebody, or something to ask about.
pub enum Opened {
    Known(Identity),
    Ask(Question),
}

/// For a store, or for the application.
pub enum Question {
    Row(Key),
    /// A key in Redis.
    Value(String),
    /// A token whose keys are a document, and since when it must have been issued.
    Token(String, Option<u32>),
    /// The application decides.
    Application(Box<Shown>),
}

/// Where an answer is.
pub enum Store<'a> {
    Rows(&'a config::Database),
    Redis(&'a config::RedisPlace),
    Jwks(&'a str),
    Application,
    None,
}

/// Bytes of a credential that an application is sent. Node.js takes no longer heads than this.
const ASKED_MAX: usize = 16 << 10;

impl Provider {
    /// `upstream` is whom a callback may ask.
    pub fn compile(
        words: &config::Provider,
        application: Vec<(HostPattern, Upstream)>,
    ) -> Result<Self, String> {
        let names = names(words);
        let opener = match &words.kind {
            ProviderKind::Lucia { variant, .. } => Opener::Lucia(variant_of(*variant)),
            ProviderKind::AuthJs { rows: Some(_), .. } => Opener::AuthJsRow,
            ProviderKind::AuthJs { version, secrets, rows: None } => {
                let version = match version {
                    AuthJsVersion::V4 => authjs::Version::V4,
                    AuthJsVersion::V5 => authjs::Version::V5,
                };
                let secrets: Vec<_> = secrets.iter().map(config::Secret::expose).collect();
                let keys = |names: &Vec<String>| {
                    let name = names.first().map(String::as_str).unwrap_or_default();
                    authjs::keys(version, &secrets, name)
                };
                Opener::Sealed { version, keys: [keys(&names[0]), keys(&names[1])] }
            }
            ProviderKind::BetterAuth { .. } => Opener::BetterAuth,
            ProviderKind::Jwt(words) => {
                Opener::Jwt { keys: static_keys(&words.keys)?, rules: rules(words) }
            }
            ProviderKind::Iron { passwords, .. } => {
                let numbered = passwords.iter().zip(1..);
                let numbered = numbered
                    .map(|(password, id): (_, u32)| (id.to_string(), password.expose().to_owned()));
                Opener::Iron(numbered.collect())
            }
            ProviderKind::Redis(_) => Opener::KeyValue,
            ProviderKind::Http(_) => Opener::Application(application),
        };
        let (name, compiled) = (words.name.as_str().into(), Compiled::next());
        Ok(Self { name, compiled, words: words.clone(), names, opener })
    }

    /// Cookies that it may read.
    pub fn cookies(&self) -> impl Iterator<Item = &str> {
        self.names.iter().flatten().map(String::as_str)
    }

    pub fn reads(&self, source: Source) -> bool {
        self.words.from.contains(&source)
    }

    /// The first credential of its kind, wherever it may be; `None` if there is none.
    pub fn find(&self, shown: &Credentials, client: &Client) -> Result<Option<Shown>, Denial> {
        let secure = client.scheme == Scheme::Https;
        for from in self.words.from.iter().copied() {
            let value = match from {
                Source::Cookie => self.cookie(shown, secure)?,
                Source::Bearer => shown.bearer().map(str::to_owned),
                Source::Connect => shown.token().map(str::to_owned),
            };
            if let Some(value) = value {
                if self.asks_application() && value.len() > ASKED_MAX {
                    return Err(Denial::MALFORMED);
                }
                let issued_since = self.issued_since(shown, from)?;
                return Ok(Some(Shown { value, from, secure, issued_since }));
            }
        }
        Ok(None)
    }

    fn cookie(&self, shown: &Credentials, secure: bool) -> Result<Option<String>, Denial> {
        let [https, http] = &self.names;
        let names = if secure { https } else { http };
        if self.asks_application() {
            let Some(line) = shown.cookie_line(names) else { return Ok(None) };
            return String::from_utf8(line).map(Some).map_err(|_error| Denial::MALFORMED);
        }
        let name = names.first().map(String::as_str).unwrap_or_default();
        match &self.opener {
            Opener::Sealed { .. } => shown.chunked(name, Chunks::Strict),
            Opener::Iron(_) => shown.chunked(name, Chunks::FirstGap),
            Opener::Jwt { .. } if self.is_supabase() => shown.chunked(name, Chunks::FirstGap),
            _ => shown.cookie(name),
        }
    }

    /// Clerk's other cookie, which says when the user's state last changed.
    fn issued_since(&self, shown: &Credentials, from: Source) -> Result<Option<u32>, Denial> {
        let ProviderKind::Jwt(words) = &self.words.kind else { return Ok(None) };
        if words.parties.is_empty() || from != Source::Cookie {
            return Ok(None);
        }
        let Some(name) = self.names[0].get(1) else { return Ok(None) };
        match shown.cookie(name)?.as_deref() {
            None => Ok(None),
            Some("0") => Err(Denial::Refused("signed_out")),
            Some(since) => since.parse().map(Some).map_err(|_error| Denial::MALFORMED),
        }
    }

    fn is_supabase(&self) -> bool {
        matches!(&self.words.kind, ProviderKind::Jwt(words) if words.supabase)
    }

    fn asks_application(&self) -> bool {
        matches!(self.opener, Opener::Application(_))
    }

    /// What answers are remembered by. An application is told which host the client came for, and
    /// answers for that alone; what is opened or found here is the same for all.
    pub fn digest(&self, shown: &Shown, client: &Client) -> Digest {
        let from = [shown.from as u8, u8::from(shown.secure)];
        let since = shown.issued_since.unwrap_or_default().to_be_bytes();
        let host = if self.asks_application() { client.host.as_bytes() } else { &[] };
        sha256_of([self.name.as_bytes(), &from, shown.value.as_bytes(), &since, host])
    }

    /// What is said by what was shown alone.
    pub fn open(&self, shown: &Shown, now: i64) -> Result<Opened, Denial> {
        let value = shown.value.as_str();
        let question = match &self.opener {
            Opener::Lucia(variant) => Question::Row(lucia::open(*variant, value)?),
            Opener::AuthJsRow => Question::Row(authjs::open_database(value)?),
            Opener::BetterAuth => {
                let ProviderKind::BetterAuth { secret, .. } = &self.words.kind else {
                    return Err(Denial::MALFORMED);
                };
                Question::Row(better_auth::open(secret.expose(), value)?)
            }
            Opener::KeyValue => {
                let ProviderKind::Redis(words) = &self.words.kind else {
                    return Err(Denial::MALFORMED);
                };
                let signed: Vec<_> = words.signed.iter().map(config::Secret::expose).collect();
                Question::Value(express::open(&signed, value)?)
            }
            Opener::Sealed { version, keys: [https, http] } => {
                let keys = if shown.secure { https } else { http };
                return authjs::open(*version, keys, value, "sub", now).map(Opened::Known);
            }
            Opener::Iron(passwords) => {
                let ProviderKind::Iron { user, endless, .. } = &self.words.kind else {
                    return Err(Denial::MALFORMED);
                };
                return iron::open(passwords, value, user, *endless, now).map(Opened::Known);
            }
            Opener::Jwt { keys, .. } => {
                let in_cookie = shown.from == Source::Cookie && self.is_supabase();
                let token = if in_cookie { jwt::supabase_token(value)? } else { value.to_owned() };
                match keys {
                    None => Question::Token(token, shown.issued_since),
                    Some(keys) => {
                        let opened = self.open_token(&token, shown.issued_since, keys, now);
                        return opened.map(Opened::Known).map_err(refused);
                    }
                }
            }
            Opener::Application(_) => Question::Application(Box::new(shown.clone())),
        };
        Ok(Opened::Ask(question))
    }

    /// Who a token is for, by these keys.
    pub fn open_token(
        &self,
        token: &str,
        issued_since: Option<u32>,
        keys: &[SigningKey],
        now: i64,
    ) -> Result<Identity, jwt::Unverified> {
        let Opener::Jwt { rules, .. } = &self.opener else {
            return Err(Denial::MALFORMED.into());
        };
        if issued_since.is_none() {
            return jwt::open(token, keys, rules, now);
        }
        jwt::open(token, keys, &jwt::Rules { issued_since, ..rules.clone() }, now)
    }

    pub fn store(&self) -> Store<'_> {
        match &self.words.kind {
            ProviderKind::Lucia { rows, .. }
            | ProviderKind::AuthJs { rows: Some(rows), .. }
            | ProviderKind::BetterAuth { store: BetterAuthStore::Rows(rows), .. } => {
                Store::Rows(&rows.database)
            }
            ProviderKind::BetterAuth { store: BetterAuthStore::Redis { place, .. }, .. } => {
                Store::Redis(place)
            }
            ProviderKind::Redis(words) => Store::Redis(&words.place),
            ProviderKind::Jwt(words) => match &words.keys {
                JwtKeys::Jwks(url) => Store::Jwks(url),
                _ => Store::None,
            },
            ProviderKind::Http(_) => Store::Application,
            ProviderKind::AuthJs { .. } | ProviderKind::Iron { .. } => Store::None,
        }
    }

    /// The one statement that finds a session.
    pub fn statement(&self) -> Option<Statement> {
        let (rows, layout) = match &self.words.kind {
            ProviderKind::Lucia { variant, rows } => (rows, Layout::lucia(*variant, rows)),
            ProviderKind::AuthJs { rows: Some(rows), .. } => (rows, Layout::authjs()),
            ProviderKind::BetterAuth { store: BetterAuthStore::Rows(rows), .. } => {
                (rows, Layout::better_auth())
            }
            _ => return None,
        };
        Some(Statement::new(rows, &layout))
    }

    pub fn judge_row(&self, key: &Key, row: Option<&Row>, now: i64) -> Result<Identity, Denial> {
        match &self.opener {
            Opener::Lucia(variant) => lucia::judge(*variant, key, row, now),
            _ => authjs::judge(key, row, now),
        }
    }

    /// The application of the site at `host`; of the first site, for whom none is meant.
    pub fn application(&self, host: &str) -> Option<&Upstream> {
        let Opener::Application(upstreams) = &self.opener else { return None };
        let found = HostPattern::choose(upstreams, |(pattern, _)| [pattern], host);
        found.or(upstreams.first()).map(|(_, upstream)| upstream)
    }

    /// The answer is another's word, which knows of nobody while its own database is away.
    pub fn answers_for_another(&self) -> bool {
        let words = match &self.words.kind {
            ProviderKind::Http(words) => words.words,
            _ => return false,
        };
        words == CallbackWords::AuthJs
    }

    /// It says by itself who it is, and until when: nobody can be asked whether it still holds.
    pub fn is_stateless(&self) -> bool {
        matches!(self.opener, Opener::Sealed { .. } | Opener::Iron(_) | Opener::Jwt { .. })
    }
}

fn refused(unverified: jwt::Unverified) -> Denial {
    match unverified {
        jwt::Unverified::Denied(denial) => denial,
        jwt::Unverified::UnknownKey => Denial::Refused("unknown_key"),
    }
}

fn variant_of(variant: LuciaVariant) -> lucia::Variant {
    match variant {
        LuciaVariant::V2 => lucia::Variant::V2,
        LuciaVariant::V3 => lucia::Variant::V3,
        LuciaVariant::Guide2024 => lucia::Variant::Guide2024,
        LuciaVariant::Guide2025 => lucia::Variant::Guide2025(lucia::ABSOLUTE),
        LuciaVariant::Guide2025Idle => lucia::Variant::Guide2025(lucia::IDLE),
        LuciaVariant::File2026 => lucia::Variant::File2026,
    }
}

/// On HTTPS a cookie that only HTTPS can set is believed alone.
fn names(words: &config::Provider) -> [Vec<String>; 2] {
    if let Some(name) = &words.cookie {
        let mut names = vec![name.clone()];
        if matches!(&words.kind, ProviderKind::Jwt(words) if !words.parties.is_empty()) {
            let suffix = name.strip_prefix("__session").unwrap_or_default();
            names.push(format!("__client_uat{suffix}"));
        }
        return [names.clone(), names];
    }
    let both = |name: &str| [vec![format!("__Secure-{name}")], vec![name.to_owned()]];
    let same = |name: &str| [vec![name.to_owned()], vec![name.to_owned()]];
    match &words.kind {
        ProviderKind::Lucia { variant, .. } => same(match variant {
            LuciaVariant::V2 | LuciaVariant::V3 => "auth_session",
            LuciaVariant::Guide2024 => "session",
            _ => "session_token",
        }),
        ProviderKind::AuthJs { version: AuthJsVersion::V5, .. } => both("authjs.session-token"),
        ProviderKind::AuthJs { version: AuthJsVersion::V4, .. } => both("next-auth.session-token"),
        ProviderKind::BetterAuth { .. } => both("better-auth.session_token"),
        ProviderKind::Http(words) => match words.words {
            CallbackWords::AuthJs => {
                let names = ["authjs.session-token", "next-auth.session-token"];
                [
                    names.map(|name| format!("__Secure-{name}")).to_vec(),
                    names.map(str::to_owned).to_vec(),
                ]
            }
            CallbackWords::BetterAuth => both("better-auth.session_token"),
            CallbackWords::Own => Default::default(),
        },
        ProviderKind::Jwt(_) | ProviderKind::Iron { .. } | ProviderKind::Redis(_) => {
            Default::default()
        }
    }
}

/// `None`: they are in a document.
fn static_keys(keys: &JwtKeys) -> Result<Option<Vec<SigningKey>>, String> {
    let algorithm = |name: &str| Algorithm::parse(name).unwrap_or(Algorithm::Hs256);
    match keys {
        JwtKeys::Jwks(_) => Ok(None),
        JwtKeys::Secrets(secrets, name) => {
            let key =
                |secret: &config::Secret| SigningKey::secret(secret.expose(), algorithm(name));
            Ok(Some(secrets.iter().map(key).collect()))
        }
        JwtKeys::Pem(pem, name) => {
            let key = SigningKey::pem(pem.expose(), algorithm(name)).map_err(str::to_owned)?;
            Ok(Some(vec![key]))
        }
    }
}

fn rules(words: &config::Jwt) -> jwt::Rules {
    jwt::Rules {
        issuer: words.issuer.clone(),
        audience: words.audience.clone(),
        user_claim: words.user.clone(),
        typ: words.typ.clone(),
        require: words.require.clone(),
        parties: words.parties.clone(),
        issued_since: None,
    }
}

/// How a callback's answer is read.
pub fn callback_words(words: &config::Callback) -> (callback::Words, &str) {
    let (kind, path) = match words.words {
        CallbackWords::Own => (callback::Words::Own, "userId"),
        CallbackWords::AuthJs => (callback::Words::AuthJs, "user.id"),
        CallbackWords::BetterAuth => (callback::Words::BetterAuth, "user.id"),
    };
    (kind, words.user.as_deref().unwrap_or(path))
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "provider {}", self.name)
    }
}
