//! What was said and not answered when a connection broke: Redis may have done it, or may do it
//! still.
//!
//! Readers of a stream know by its number what stands there twice, but not all of them: Node's
//! servers do not, and a node that is new has not read what stood before. So a message is looked for
//! before it is said again.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::debug;

use super::line::{Line, LineError};
use super::reading::{Entry, Key, entries_after};
use super::resp::Value;

/// An entry of a stream, as its node knows it.
#[derive(Debug, Clone)]
pub struct Named {
    pub key: Key,
    pub stream: Arc<str>,
    /// It stands behind this entry, if it stands anywhere.
    pub behind: u64,
    /// Somebody wants to hear what has become of it.
    pub is_awaited: bool,
}

/// Which of these, all of them of the node `uid`, stand in their streams.
pub async fn find(
    uid: &str,
    sought: &[Named],
    mut ask: impl AsyncFnMut(&[&[u8]]) -> Result<Value, LineError>,
) -> Result<HashSet<Key>, LineError> {
    let mut streams: BTreeMap<&str, (u64, HashSet<Key>)> = BTreeMap::new();
    for Named { key, stream, behind, .. } in sought {
        let (first, keys) = streams.entry(stream).or_insert((u64::MAX, HashSet::new()));
        *first = (*first).min(*behind);
        keys.insert(*key);
    }
    let mut found = HashSet::new();
    for (stream, (behind, mut keys)) in streams {
        let mut last = behind;
        while !keys.is_empty() {
            let entries = entries_after(stream, last, &mut ask).await?;
            let Some(newest) = entries.last().and_then(Entry::number) else { break };
            last = newest;
            let own = entries.iter().filter(|entry| entry.is_of(uid));
            found.extend(own.filter_map(|entry| keys.take(&entry.key()?)));
        }
    }
    Ok(found)
}

/// A connection as its server knows it: another server has none with the same number from the same
/// address.
pub struct Seat {
    id: String,
    address: String,
}

impl Seat {
    /// Of this connection, if the server says so.
    pub async fn of(line: &mut Line, limit: Duration) -> Result<Option<Self>, LineError> {
        let told = ask(line, &[b"CLIENT", b"INFO"], limit).await?;
        Ok(told.as_ref().and_then(Value::text).and_then(Self::read))
    }

    /// `id=3 addr=127.0.0.1:51034 laddr=… …`.
    fn read(told: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut fields = told.split_ascii_whitespace();
            fields.find_map(|field| Some(field.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
        };
        Some(Self { id: field("id")?, address: field("addr")? })
    }

    /// Ends it, over another one: what was still on its way is not done any more.
    pub async fn end(&self, line: &mut Line, limit: Duration) -> Result<(), LineError> {
        let (id, address) = (self.id.as_bytes(), self.address.as_bytes());
        let words: [&[u8]; 6] = [b"CLIENT", b"KILL", b"ID", id, b"ADDR", address];
        ask(line, &words, limit).await.map(drop)
    }
}

/// One command, answered within the deadline; `None` if it is not allowed or not known.
pub async fn ask(
    line: &mut Line,
    words: &[&[u8]],
    limit: Duration,
) -> Result<Option<Value>, LineError> {
    match timeout(limit, line.ask(words)).await {
        Ok(Err(LineError::Refused(wrong))) if !is_elsewhere(&wrong) => {
            debug!(reason = %wrong, "refused by the Redis");
            Ok(None)
        }
        Ok(answer) => answer.map(Some),
        Err(_late) => Err(LineError::Late(limit)),
    }
}

/// Whether the server says that it is not the one to speak to, or not yet.
pub fn is_elsewhere(wrong: &str) -> bool {
    let words = ["READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "MOVED", "NOAUTH"];
    words.iter().any(|word| wrong.starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_who_we_are() {
        let told = "id=11 addr=127.0.0.1:51034 laddr=127.0.0.1:6379 fd=8 name=vestibule age=0\n";
        let seat = Seat::read(told).map(|seat| (seat.id, seat.address));
        assert_eq!(seat, Some(("11".to_owned(), "127.0.0.1:51034".to_owned())));
        for told in ["", "id=11", "addr=1.2.3.4:5", "laddr=127.0.0.1:6379 id=1", "identity"] {
            assert!(Seat::read(told).is_none(), "{told}");
        }
    }
}
