//! Who speaks over a Redis, seen by somebody who takes no part: `vestibule doctor`.

use crate::config::{self, Adapter};

use super::dialect;
use super::line::{Line, LineError};
use super::resp::Value;
use super::servers::Servers;
use super::wire::{Census, Wire};

/// What there is under one key.
#[derive(Debug, Default)]
pub struct Neighbourhood {
    /// Of Redis: `7.0.15`.
    pub version: String,
    /// Of this program, that hold a lease.
    pub nodes: usize,
    /// That listen as this node would, and are none of this program's.
    pub others: usize,
    /// Servers that listen under the same key by another adapter, and hear nothing of this one's.
    pub strangers: Vec<(Adapter, usize)>,
}

/// Looks at what there is for these namespaces; takes no longer than a few commands may.
pub async fn neighbourhood(
    words: &config::Redis,
    namespaces: &[String],
) -> Result<Neighbourhood, String> {
    let looking = async {
        let servers = Servers::new(words).map_err(|error| error.to_string())?;
        look(words, namespaces, &servers).await.map_err(|error| error.to_string())
    };
    let deadline = words.timeout * 4;
    let late = || LineError::Late(deadline).to_string();
    tokio::time::timeout(deadline, looking).await.unwrap_or_else(|_elapsed| Err(late()))
}

async fn look(
    words: &config::Redis,
    namespaces: &[String],
    servers: &Servers,
) -> Result<Neighbourhood, LineError> {
    let mut home = servers.open().await?;
    let told = home.ask(&[b"INFO", b"server"]).await?;
    let lines = told.text().unwrap_or_default();
    let version = lines.lines().find_map(|line| line.strip_prefix("redis_version:"));
    let mut found =
        Neighbourhood { version: version.unwrap_or("?").to_owned(), ..Default::default() };
    found.nodes = nodes(&mut home, &words.wire.key).await?;
    // Each client is subscribed at one of a cluster's servers.
    let mut lines = Vec::new();
    if servers.is_cluster() {
        for server in servers.slots().await?.servers() {
            lines.push(servers.open_at(&server).await?);
        }
    } else {
        lines.push(home);
    }
    for adapter in [Adapter::Classic, Adapter::Sharded, Adapter::Streams] {
        let spoken = config::Wire { adapter, ..words.wire.clone() };
        let wire =
            Wire { dialect: dialect(&spoken), prefix: words.wire.key.clone(), uid: String::new() };
        let mut most = 0;
        for namespace in namespaces {
            let mut listen = 0;
            for line in &mut lines {
                listen += count(line, &wire.census(namespace)).await?;
            }
            most = most.max(listen);
        }
        if adapter == words.wire.adapter {
            found.others = most.saturating_sub(found.nodes);
        } else if most > 0 {
            found.strangers.push((adapter, most));
        }
    }
    Ok(found)
}

/// How many nodes of this program have an entry that lasts; see `registry`.
async fn nodes(line: &mut Line, key: &str) -> Result<usize, LineError> {
    let set = format!("{{{key}}}-nodes");
    let names = line.ask(&[b"SMEMBERS", set.as_bytes()]).await?;
    let keys = names.items().iter().filter_map(|name| Some(format!("{set}#{}", name.text()?)));
    let keys: Vec<String> = keys.collect();
    if keys.is_empty() {
        return Ok(0);
    }
    let words: Vec<&[u8]> =
        std::iter::once(&b"MGET"[..]).chain(keys.iter().map(String::as_bytes)).collect();
    let entries = line.ask(&words).await?;
    Ok(entries.items().iter().filter(|entry| entry.text().is_some()).count())
}

async fn count(line: &mut Line, census: &Census) -> Result<usize, LineError> {
    let (word, channel) = match census {
        Census::Numsub(channel) => (&b"NUMSUB"[..], channel),
        Census::ShardNumsub(channel) => (&b"SHARDNUMSUB"[..], channel),
    };
    match line.ask(&[b"PUBSUB", word, channel.as_bytes()]).await {
        Ok(answer) => {
            let number = answer.items().get(1).and_then(Value::number);
            Ok(number.and_then(|number| usize::try_from(number).ok()).unwrap_or_default())
        }
        // One without shards has nobody who listens to them.
        Err(LineError::Refused(_)) => Ok(0),
        Err(error) => Err(error),
    }
}
