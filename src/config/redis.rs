//! `hub.redis` as written → `Redis`; pure.

use std::time::Duration;

use super::field::Field;
use super::section::Section;
use super::units::{Secret, address, deadline, duration};
use super::validate::{at_least_one, bytes};
use super::{
    Adapter, Protocol, Redis, RedisNode, RedisServers, RedisUrl, RoomChannels, Target, Wire,
};

pub fn read(section: &Section<'_>) -> Redis {
    let urls: Vec<RedisUrl> = section
        .written("url")
        .map(Field::items)
        .unwrap_or_default()
        .iter()
        .filter_map(|item| {
            let secret = item.read_secret()?;
            RedisUrl::parse(secret).map_err(|what| item.refuse(what)).ok()
        })
        .collect();
    if section.written("url").is_none_or(Field::is_empty_list) {
        section.refuse_lack("has no url; write redis://127.0.0.1:6379");
    }
    check_alike(section, &urls);
    let sentinel = section.get("sentinel", word);
    let cluster = section.flag("cluster");
    let servers = match sentinel {
        Some(_) if cluster => {
            section.refuse("has sentinel and cluster; a Redis is watched by one of them");
            RedisServers::Cluster
        }
        Some(name) => RedisServers::Sentinel(name),
        None if cluster => RedisServers::Cluster,
        None => {
            if urls.len() > 1 {
                section.refuse(
                    "has several urls; say what they are: cluster: true, or sentinel: NAME",
                );
            }
            RedisServers::One
        }
    };
    let numbered = urls.iter().any(|url| url.database != 0);
    if servers == RedisServers::Cluster && numbered {
        section.refuse("names a database; a cluster has only 0");
    }
    Redis {
        urls,
        servers,
        username: section.get("username", word),
        password: section.written("password").and_then(Field::read_secret),
        ca: section.written("ca").and_then(Field::read_path),
        protocol: section.choice("protocol", &PROTOCOLS).unwrap_or_default(),
        timeout: section.value("timeout", deadline),
        wire: wire(section),
        buffer: section.value("buffer", |text| bytes(text, 64 << 10, BUFFER_MAX)),
        answer: section.value("answer", deadline),
        resume: section.value("resume", duration),
        lease: section.section("node").value("lease", lease),
        node: node(&section.section("node")),
    }
}

/// A lease is renewed three times in its life, and Redis may be slow.
fn lease(text: &str) -> Result<Duration, String> {
    match deadline(text)? {
        short if short < LEASE_MIN => Err(format!("{text} is too short a lease; write 1s or more")),
        lease => Ok(lease),
    }
}

const LEASE_MIN: Duration = Duration::from_secs(1);
/// Characters of what nodes know each other by.
const NODE_SECRET_MIN: usize = 16;

fn node(section: &Section<'_>) -> Option<RedisNode> {
    let listen = section.get("listen", address);
    let reached = section.get("address", |text| {
        let found = super::target::authority(text, 0).filter(|(_, port)| *port > 0);
        let (host, port) = found.ok_or_else(|| {
            format!("{text:?} is no place that could be reached; write HOST:PORT")
        })?;
        Ok(Target::Tcp(host.to_owned(), port))
    });
    let secret = section.written("secret").and_then(Field::read_secret);
    let Some(listen) = listen else {
        if section.written("listen").is_none() && (reached.is_some() || secret.is_some()) {
            section.refuse_lack("has no listen; write where other nodes may come, 10.0.0.1:7420");
        }
        return None;
    };
    if listen.ip().is_unspecified() && section.written("address").is_none() {
        section.refuse(
            "listens on every address; say by which the others reach it: address: HOST:PORT",
        );
    }
    let Some(secret) = secret else {
        if section.written("secret").is_none() {
            section
                .refuse_lack("has no secret, so anybody could come; write the same on all nodes");
        }
        return None;
    };
    if secret.expose().len() < NODE_SECRET_MIN {
        section.refuse(format!(
            "has a secret that could be guessed; write {NODE_SECRET_MIN} characters or more"
        ));
    }
    Some(RedisNode { listen, address: reached, secret })
}

/// Held in memory while Redis is away.
const BUFFER_MAX: usize = 1 << 30;

const PROTOCOLS: [(&str, Protocol); 3] =
    [("auto", Protocol::Auto), ("2", Protocol::Resp2), ("3", Protocol::Resp3)];

const ADAPTERS: [(&str, Adapter); 3] =
    [("classic", Adapter::Classic), ("sharded", Adapter::Sharded), ("streams", Adapter::Streams)];

const ROOMS: [(&str, RoomChannels); 3] = [
    ("dynamic", RoomChannels::Dynamic),
    ("dynamic-private", RoomChannels::DynamicPrivate),
    ("static", RoomChannels::Static),
];

fn wire(section: &Section<'_>) -> Wire {
    let stream = section.section("stream");
    let adapter = section.choice("adapter", &ADAPTERS).unwrap_or_default();
    Wire {
        adapter,
        key: section.value("key", word),
        rooms: section.choice("rooms", &ROOMS).unwrap_or_default(),
        length: stream.value("length", at_least_one),
        count: stream.value("count", streams),
    }
}

/// Each is read on a connection of its own.
fn streams(text: &str) -> Result<usize, String> {
    match at_least_one(text)? {
        count if count > 64 => Err(format!("{count} streams are too many; write 64 or less")),
        count => Ok(count),
    }
}

fn word(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(format!("{text:?} is no name"));
    }
    Ok(text.to_owned())
}

/// All servers are of one kind, or it is not known how to speak to those that they name.
fn check_alike(section: &Section<'_>, urls: &[RedisUrl]) {
    let kind = |url: &RedisUrl| (url.tls, url.database);
    if urls.iter().any(|url| urls.first().is_some_and(|first| kind(first) != kind(url))) {
        section.refuse("has urls that differ in more than the host; all servers are of one kind");
    }
}

impl Redis {
    /// All of it, its secrets too, to be compared.
    pub fn identity(&self) -> String {
        let secrets = self.urls.iter().map(|url| &url.written).chain(&self.password);
        let secrets = secrets.chain(self.node.as_ref().map(|node| &node.secret));
        let secrets: Vec<_> = secrets.map(Secret::expose).collect();
        format!("{self:?} {secrets:?}")
    }
}

impl RedisUrl {
    /// `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, `rediss://` for TLS.
    fn parse(secret: Secret) -> Result<Self, String> {
        let text = secret.expose().to_owned();
        let (tls, rest) = match (text.strip_prefix("redis://"), text.strip_prefix("rediss://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            // The text may have a password in it.
            _ => return Err("is no url of a Redis; write redis://127.0.0.1:6379".to_owned()),
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = super::target::authority(authority, 6379)
            .ok_or("has no host and port that could be reached; write redis://127.0.0.1:6379")?;
        let database = if database.is_empty() { Some(0) } else { database.parse().ok() };
        let database = database.ok_or("names no database by a number; write redis://HOST/0")?;
        let (username, password) = match login {
            None => (None, None),
            Some(login) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                let part = |text: &str| (!text.is_empty()).then(|| decode(text)).transpose();
                (part(user)?, part(password)?)
            }
        };
        let (host, password) = (host.to_owned(), password.map(|text| Secret::new(text, None)));
        Ok(Self { tls, host, port, database, username, password, written: secret })
    }
}

/// `%40` → `@`.
fn decode(text: &str) -> Result<String, String> {
    let wrong = || "has a % in its credentials without two digits behind it".to_owned();
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(wrong)?;
        let digits = std::str::from_utf8(digits).map_err(|_error| wrong())?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_error| wrong())?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_error| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RedisUrl, String> {
        RedisUrl::parse(Secret::new(text.to_owned(), None))
    }

    fn check(text: &str, tls: bool, host: &str, port: u16, database: u32) {
        let url = read(text).expect(text);
        assert_eq!((url.tls, &*url.host, url.port, url.database), (tls, host, port, database));
    }

    #[test]
    fn urls_name_a_server() {
        check("redis://localhost", false, "localhost", 6379, 0);
        check("rediss://10.0.0.1:7000/3", true, "10.0.0.1", 7000, 3);
        check("redis://[::1]:1/", false, "::1", 1, 0);
        for text in ["", "localhost", "http://a", "redis://", "redis://a:0", "redis://a/x"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_are_read_and_never_said() {
        let url = read("redis://me:p%40ss:%2f@h:1").expect("a url");
        let password = url.password.as_ref().map(Secret::expose);
        assert_eq!((url.username.as_deref(), password), (Some("me"), Some("p@ss:/")));
        assert!(!format!("{url:?}").contains("p@ss"), "{url:?}");
        assert_eq!(read("redis://:p@h").expect("a url").username, None);
        for text in ["redis://a:s3cret%@h", "redis://:s3cret%zz@h", "redis://:s3cret@", "s3cret"] {
            let what = read(text).expect_err(text);
            assert!(!what.contains("s3cret"), "{what}");
        }
    }
}
