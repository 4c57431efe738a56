//! Where databases and Redis are: URLs that may have a password in them; pure.

use std::fmt;
use std::path::Path;

use super::super::Secret;

/// A database's URL.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    pub kind: DatabaseKind,
    pub url: Secret,
    shown: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    Postgres,
    MySql,
    Sqlite,
}

impl Database {
    /// `postgres://`, `mysql://`, or `sqlite:PATH`, which begins at `folder`.
    pub fn parse(url: &Secret, folder: &Path) -> Result<Self, String> {
        let text = url.expose();
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = folder.join(path.strip_prefix("//").unwrap_or(path));
            let path = std::path::absolute(&path).unwrap_or(path);
            let url = format!("sqlite:{}", path.display());
            let kind = DatabaseKind::Sqlite;
            return Ok(Self { kind, url: Secret::new(url.clone(), None), shown: url });
        }
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let kind = match scheme {
            "postgres" | "postgresql" => DatabaseKind::Postgres,
            "mysql" | "mariadb" => DatabaseKind::MySql,
            _ => {
                return Err("is no database; write postgres://, mysql:// or sqlite:PATH".to_owned());
            }
        };
        let scheme = if kind == DatabaseKind::MySql { "mysql" } else { "postgres" };
        if rest.is_empty() || rest.starts_with(['/', ':', '?']) {
            return Err("names no host; write postgres://USER:PASSWORD@HOST/DATABASE".to_owned());
        }
        let shown = match url.written() {
            "***" => format!("{scheme}://{}", masked(rest)),
            written => written.to_owned(),
        };
        Ok(Self { kind, url: Secret::new(format!("{scheme}://{rest}"), None), shown })
    }

    /// The same for somebody who has no password.
    pub fn without_password(&self) -> Self {
        let url = self.url.expose();
        let url = match url.split_once("://") {
            Some((scheme, rest)) => format!("{scheme}://{}", masked(rest)),
            None => url.to_owned(),
        };
        Self { kind: self.kind, url: Secret::new(url, None), shown: String::new() }
    }

    /// Without its password; as it was written if that is no secret.
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

/// One Redis server.
#[derive(Debug, Clone, PartialEq)]
pub struct RedisPlace {
    pub address: RedisAddress,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub database: u32,
    shown: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisAddress {
    Tcp(String, u16),
    Unix(String),
}

const REDIS: &str = "write redis://HOST:6379, redis://:PASSWORD@HOST:6379/0 or unix:PATH";

impl RedisPlace {
    pub fn parse(url: &Secret, folder: &Path) -> Result<Self, String> {
        let text = url.expose();
        if let Some(path) = text.strip_prefix("unix:") {
            let path = folder.join(path);
            let path = std::path::absolute(&path).unwrap_or(path).display().to_string();
            let shown = format!("unix:{path}");
            let address = RedisAddress::Unix(path);
            return Ok(Self { address, user: None, password: None, database: 0, shown });
        }
        let rest = match text.strip_prefix("redis://") {
            Some(rest) => rest,
            None if text.starts_with("rediss://") => {
                return Err(format!("is with TLS, which is not spoken to Redis; {REDIS}"));
            }
            None => return Err(format!("is no Redis; {REDIS}")),
        };
        let (login, place) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        let wrong = || format!("is no Redis; {REDIS}");
        let database = if database.is_empty() { Ok(0) } else { database.parse() };
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "6379"));
        let port = port.parse().map_err(|_error| wrong())?;
        if host.is_empty() {
            return Err(wrong());
        }
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let shown = match url.written() {
            "***" => format!("redis://{}", masked(rest)),
            written => written.to_owned(),
        };
        Ok(Self {
            address: RedisAddress::Tcp(host.trim_matches(['[', ']']).to_owned(), port),
            user: given(user),
            password: given(password).map(|password| Secret::new(password, None)),
            database: database.map_err(|_error| wrong())?,
            shown,
        })
    }

    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The same for somebody who has no password.
    pub fn without_password(&self) -> Self {
        Self { password: None, shown: String::new(), ..self.clone() }
    }
}

/// What stands before the last `@`, after the first `:`, is a password.
fn masked(rest: &str) -> String {
    match rest.rsplit_once('@') {
        Some((login, place)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:***@{place}"),
            None => rest.to_owned(),
        },
        None => rest.to_owned(),
    }
}

impl fmt::Display for RedisPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned(), None)
    }

    #[test]
    fn places_are_known_and_their_passwords_hidden() {
        let folder = Path::new("/srv");
        let database = |text: &str| {
            Database::parse(&secret(text), folder).map(|database| database.shown().to_owned())
        };
        assert_eq!(database("postgresql://a:b@h/d").as_deref(), Ok("postgres://a:***@h/d"));
        let bare = |text: &str| Database::parse(&secret(text), folder).unwrap().without_password();
        assert!(bare("postgres://a:b@h/d") == bare("postgresql://a:c@h/d"));
        assert!(bare("postgres://a:b@h/d") != bare("postgres://a:b@h/e"));
        assert_eq!(database("mysql://a@h/d").as_deref(), Ok("mysql://a@h/d"));
        assert_eq!(database("sqlite:app.db").as_deref(), Ok("sqlite:/srv/app.db"));
        for wrong in ["app.db", "mongodb://h/d", "postgres:///d", ""] {
            assert!(database(wrong).is_err(), "{wrong}");
        }
        let redis = |text: &str| RedisPlace::parse(&secret(text), folder);
        let place = redis("redis://u:p@h:7000/3").expect("a place");
        assert_eq!(place.address, RedisAddress::Tcp("h".to_owned(), 7000));
        assert_eq!((place.database, place.shown()), (3, "redis://u:***@h:7000/3"));
        let other = redis("redis://u:q@h:7000/3").expect("a place");
        assert!(place != other && place.without_password() == other.without_password());
        assert!(redis("redis://h").is_ok() && redis("unix:r.sock").is_ok());
        for wrong in ["h:6379", "rediss://h", "redis://", "redis://h:x", "redis://h/x"] {
            assert!(redis(wrong).is_err(), "{wrong}");
        }
    }
}
