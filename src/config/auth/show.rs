//! Providers as the file that would say them.

use super::super::Secret;
use super::super::units::show_duration;
use super::super::yaml::Yaml;
use super::{
    AuthJsVersion, BetterAuthStore, Callback, CallbackWords, Constant, Jwt, JwtKeys, KeyValue,
    LuciaVariant, OnExpiry, Provider, ProviderKind, Rows, Source, Unit,
};

impl Provider {
    pub fn yaml(&self) -> Yaml {
        let from = self.from.iter().map(|source| match source {
            Source::Cookie => "cookie",
            Source::Bearer => "bearer",
            Source::Connect => "connect",
        });
        let time = |duration| Some(Yaml::text(show_duration(duration)));
        let expiry = if self.on_expiry == OnExpiry::Close { "close" } else { "keep" };
        let in_place = matches!(self.kind, ProviderKind::Redis(_));
        self.kind
            .yaml(self.cookie.as_deref())
            .with("cookie", self.cookie.as_ref().filter(|_| !in_place).map(Yaml::text))
            .with("from", Some(Yaml::texts(from)))
            .with("cache", time(self.cache))
            .with("recheck", time(self.recheck))
            .with("grace", time(self.grace))
            .with("max_age", time(self.max_age))
            .with("on_expiry", Some(Yaml::text(expiry)))
            .with("lookups", Some(Yaml::word(self.lookups)))
            .with("failures", Some(Yaml::text(self.failures)))
    }
}

fn hidden(secrets: &[Secret]) -> Option<Yaml> {
    let all: Vec<_> = secrets.iter().map(|secret| Yaml::raw(shown(secret))).collect();
    (!all.is_empty()).then_some(Yaml::List(all))
}

/// Long enough to be read again.
fn shown(secret: &Secret) -> &str {
    match secret.written() {
        "***" => "****************",
        written => written,
    }
}

impl ProviderKind {
    fn yaml(&self, cookie: Option<&str>) -> Yaml {
        match self {
            Self::Lucia { variant, rows } => {
                let word = match variant {
                    LuciaVariant::V2 => "v2",
                    LuciaVariant::V3 => "v3",
                    LuciaVariant::Guide2024 => "guide-2024",
                    LuciaVariant::Guide2025 | LuciaVariant::Guide2025Idle => "guide-2025",
                    LuciaVariant::File2026 => "file-2026",
                };
                rows.add(Yaml::map([("lucia", Yaml::text(word))]))
            }
            Self::AuthJs { version, secrets, rows } => {
                let word = if *version == AuthJsVersion::V4 { "v4" } else { "v5" };
                let yaml =
                    Yaml::map([("authjs", Yaml::text(word))]).with("secret", hidden(secrets));
                rows.as_ref().map_or(yaml.clone(), |rows| rows.add(yaml))
            }
            Self::BetterAuth { secret, store } => {
                let secret = hidden(std::slice::from_ref(secret));
                match store {
                    BetterAuthStore::Rows(rows) => {
                        let yaml = Yaml::map([("better_auth", Yaml::Map(Vec::new()))]);
                        rows.add(yaml.with("secret", secret))
                    }
                    BetterAuthStore::Redis { place, prefix } => {
                        let redis = Yaml::map([
                            ("redis", Yaml::raw(place.shown())),
                            ("prefix", Yaml::text(prefix)),
                        ]);
                        Yaml::map([("better_auth", redis)]).with("secret", secret)
                    }
                }
            }
            Self::Jwt(jwt) => jwt.yaml(cookie),
            Self::Iron { passwords, user, endless } => {
                let iron =
                    Yaml::map([("user", Yaml::text(user)), ("endless", Yaml::word(endless))]);
                Yaml::map([("iron", iron)]).with("secret", hidden(passwords))
            }
            Self::Redis(words) => Yaml::map([("redis", words.yaml(cookie))]),
            Self::Http(words) => Yaml::map([("http", words.yaml())]),
        }
    }
}

impl Rows {
    fn add(&self, yaml: Yaml) -> Yaml {
        let columns = [
            ("id", &self.id),
            ("user", &self.user),
            ("expires", &self.expires),
            ("hash", &self.hash),
        ];
        let written = columns
            .into_iter()
            .filter_map(|(name, column)| Some((name.to_owned(), Yaml::text(column.as_ref()?))));
        let columns: Vec<_> = written.collect();
        let only = self.only.iter().map(|(column, value)| {
            let value = match value {
                Constant::Flag(flag) => Yaml::word(flag),
                Constant::Number(number) => Yaml::word(number),
                Constant::Text(text) => Yaml::text(text),
            };
            (column.clone(), value)
        });
        let unit = self.unit.map(|unit| match unit {
            Unit::Seconds => "s",
            Unit::Milliseconds => "ms",
            Unit::Iso => "iso",
        });
        yaml.with("database", Some(Yaml::raw(self.database.shown())))
            .with("table", self.table.as_ref().map(Yaml::text))
            .with("columns", (!columns.is_empty()).then_some(Yaml::Map(columns)))
            .with("unit", unit.map(Yaml::text))
            .with("time_zone", Some(Yaml::text(&self.time_zone)))
            .with("where", Some(Yaml::named(only)))
            .with("user_table", self.users.as_ref().map(|(table, _)| Yaml::text(table)))
            .with("user_key", self.users.as_ref().map(|(_, key)| Yaml::text(key)))
            .with("claims", Some(Yaml::texts(&self.claims)))
    }
}

impl Jwt {
    fn yaml(&self, cookie: Option<&str>) -> Yaml {
        let require = self.require.iter();
        // What a project of Supabase's requires is said by its name.
        let require = require.filter(|(name, _)| !(self.supabase && name == "role"));
        let require = require.map(|(name, value)| (name.clone(), Yaml::text(value)));
        let text = |text: &Option<String>| text.as_ref().map(Yaml::text);
        let project = cookie.filter(|_| self.supabase).and_then(|cookie| {
            cookie.strip_prefix("sb-").and_then(|rest| rest.strip_suffix("-auth-token"))
        });
        let project = project.or(self.supabase.then_some("project"));
        let yaml = Yaml::map([
            ("audience", Yaml::texts(&self.audience)),
            ("user", Yaml::text(&self.user)),
            ("require", Yaml::named(require)),
        ])
        .with("issuer", text(&self.issuer))
        .with("typ", text(&self.typ))
        .with("supabase", project.map(Yaml::text))
        .with("clerk", (!self.parties.is_empty()).then(|| Yaml::texts(&self.parties)));
        match &self.keys {
            JwtKeys::Jwks(url) => Yaml::map([("jwt", yaml.with("jwks", Some(Yaml::text(url))))]),
            JwtKeys::Pem(pem, algorithm) => {
                let yaml = yaml.with("key", Some(Yaml::raw(pem.written())));
                Yaml::map([("jwt", yaml.with("algorithm", Some(Yaml::text(algorithm))))])
            }
            JwtKeys::Secrets(secrets, algorithm) => {
                let yaml = yaml.with("algorithm", Some(Yaml::text(algorithm)));
                Yaml::map([("jwt", yaml)]).with("secret", hidden(secrets))
            }
        }
    }
}

impl KeyValue {
    fn yaml(&self, cookie: Option<&str>) -> Yaml {
        Yaml::map([
            ("url", Yaml::raw(self.place.shown())),
            ("key", Yaml::text(&self.key)),
            ("user", Yaml::text(&self.user)),
            ("expires", Yaml::text(&self.expires)),
        ])
        .with("cookie", cookie.map(Yaml::text))
        .with("signed", hidden(&self.signed))
    }
}

impl Callback {
    fn yaml(&self) -> Yaml {
        let words = match self.words {
            CallbackWords::Own => "own",
            CallbackWords::AuthJs => "authjs",
            CallbackWords::BetterAuth => "better-auth",
        };
        Yaml::map([
            ("path", Yaml::text(&self.path)),
            ("words", Yaml::text(words)),
            ("timeout", Yaml::text(show_duration(self.timeout))),
        ])
        .with("user", self.user.as_ref().map(Yaml::text))
        .with("secret", self.secret.as_ref().map(|secret| Yaml::raw(secret.written())))
        .with("to", self.to.as_ref().map(super::super::Upstream::yaml))
    }
}
