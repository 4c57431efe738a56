//! Which server of Redis takes what we say: the one, the master that Sentinels name, or any of a
//! cluster.

use std::cell::Cell;
use std::sync::Arc;

use crate::config::{Redis, RedisServers, RedisUrl};

use super::line::{Address, Dialer, Line, LineError, Login};
use super::slots::{Slots, slot_of};
use super::tls::{Trust, TrustError};

pub struct Servers {
    words: Redis,
    dialer: Dialer,
    /// The url that answered last; the next is asked when it does not.
    turn: Cell<usize>,
}

impl Servers {
    pub fn new(words: &Redis) -> Result<Self, TrustError> {
        let is_tls = words.urls.iter().any(|url| url.tls);
        let trust = is_tls.then(|| Trust::read(words.ca.as_deref()).map(Arc::new)).transpose()?;
        let dialer = Dialer::new(words, trust);
        Ok(Self { words: words.clone(), dialer, turn: Cell::new(0) })
    }

    /// A connection to the server that takes what we say.
    pub async fn open(&self) -> Result<Line, LineError> {
        let url = self.words.urls.get(self.turn.get() % self.words.urls.len().max(1));
        let Some(url) = url else { return Err(LineError::Closed) };
        let opened = match &self.words.servers {
            RedisServers::Sentinel(name) => self.open_master(url, name).await,
            RedisServers::One => self.dialer.dial(&address(url), &self.login(url)).await,
            RedisServers::Cluster => self.open_home(url).await,
        };
        if opened.is_err() {
            self.turn.set(self.turn.get().wrapping_add(1));
        }
        opened
    }

    /// Of a cluster: the server that has what all nodes share. What is published there is heard at
    /// every server.
    async fn open_home(&self, seed: &RedisUrl) -> Result<Line, LineError> {
        let (line, slots) = self.survey(seed).await?;
        let home = slots.of(slot_of(self.words.wire.key.as_bytes())).ok_or(LineError::NoSlots)?;
        if *home == address(seed) {
            return Ok(line);
        }
        self.dialer.dial(home, &self.login(seed)).await
    }

    /// Which servers there are, by one of them.
    async fn survey(&self, seed: &RedisUrl) -> Result<(Line, Slots), LineError> {
        let asked = address(seed);
        let mut line = self.dialer.dial(&asked, &self.login(seed)).await?;
        let late = LineError::Late(self.dialer.timeout);
        let words: [&[u8]; 2] = [b"CLUSTER", b"SLOTS"];
        let answer = tokio::time::timeout(self.dialer.timeout, line.ask(&words)).await;
        let slots = Slots::read(&answer.unwrap_or(Err(late))?, &asked);
        Ok((line, slots))
    }

    /// Of a cluster: each server once, and which slots it has.
    pub async fn slots(&self) -> Result<Slots, LineError> {
        let mut last = LineError::Closed;
        for url in &self.words.urls {
            match self.survey(url).await {
                Ok((_, slots)) => return Ok(slots),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A connection to this server of a cluster.
    pub async fn open_at(&self, server: &Address) -> Result<Line, LineError> {
        let Some(url) = self.words.urls.first() else { return Err(LineError::Closed) };
        self.dialer.dial(server, &self.login(url)).await
    }

    pub fn is_cluster(&self) -> bool {
        self.words.servers == RedisServers::Cluster
    }

    async fn open_master(&self, sentinel: &RedisUrl, name: &str) -> Result<Line, LineError> {
        let mut line = self.dialer.dial(&address(sentinel), &own_login(sentinel)).await?;
        let words = [b"SENTINEL", &b"get-master-addr-by-name"[..], name.as_bytes()];
        let late = LineError::Late(self.dialer.timeout);
        let asked = tokio::time::timeout(self.dialer.timeout, line.ask(&words)).await;
        let answer = asked.unwrap_or(Err(late))?;
        let [host, port] = answer.items() else {
            return Err(LineError::NoMaster(name.to_owned()));
        };
        let port = port.number().and_then(|port| u16::try_from(port).ok());
        let (Some(host), Some(port)) = (host.text(), port) else {
            return Err(LineError::Malformed);
        };
        let master = Address { host: host.to_owned(), port };
        let mut line = self.dialer.dial(&master, &self.login(sentinel)).await?;
        // A Sentinel that was cut off may name one that is no master any more.
        let role = tokio::time::timeout(self.dialer.timeout, line.ask(&[b"ROLE"])).await;
        let role = role.unwrap_or(Err(LineError::Late(self.dialer.timeout)))?;
        match role.items().first().and_then(|word| word.text()) {
            Some("master") => Ok(line),
            _ => Err(LineError::NotMaster(format!("{}:{}", master.host, master.port))),
        }
    }

    fn login(&self, url: &RedisUrl) -> Login {
        let mut login = own_login(url);
        login.database = url.database;
        if self.words.password.is_some() {
            login.username.clone_from(&self.words.username);
            login.password.clone_from(&self.words.password);
        } else if self.words.username.is_some() {
            login.username.clone_from(&self.words.username);
        }
        login
    }
}

/// As the url says.
fn own_login(url: &RedisUrl) -> Login {
    Login { username: url.username.clone(), password: url.password.clone(), database: 0 }
}

fn address(url: &RedisUrl) -> Address {
    Address { host: url.host.clone(), port: url.port }
}
