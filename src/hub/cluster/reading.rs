//! Reads streams: all entries, in order, from the newest that there was when this node began.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::line::{Line, LineError};
use super::order::Enter;
use super::resp::Value;
use super::servers::Servers;
use super::wire::{id_of, number_of};

/// What stands in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: Bytes,
    pub fields: Vec<(Bytes, Bytes)>,
}

/// A field of ours, `LINE.NUMBER`: what was said again after a break is known by it.
pub const NUMBER: &str = "n";
/// Lines of all nodes that are remembered. More: those that have been silent are forgotten.
const LINES_MAX: usize = 4096;

/// Numbers of one line that may still come late, of those before its first that was read and of
/// those behind it. More: the oldest of them count as taken.
const LATE_MAX: usize = 1024;

/// A line and a number in it: one message of one node.
pub type Key = (usize, u64);

/// What has come of each line of each node.
#[derive(Default)]
pub struct Numbers {
    lines: HashMap<(Bytes, usize), Taken>,
    /// Rises with each number.
    turn: u64,
}

struct Taken {
    /// When something came of it.
    turn: u64,
    /// The first that came. Those before it may stand in other streams, or be lost and said again.
    first: u64,
    /// Those before the first that have come.
    early: BTreeSet<u64>,
    last: u64,
    /// Those below that have not come: Redis may have lost them, and they are said again.
    late: BTreeSet<u64>,
}

impl Numbers {
    /// True if it was taken before. What other servers write has no number.
    pub fn repeats(&mut self, entry: &Entry) -> bool {
        let (Some(uid), Some((line, number))) = (entry.field("uid"), entry.key()) else {
            return false;
        };
        self.turn += 1;
        let turn = self.turn;
        // A copy of the name: the whole answer must not stay in memory for it.
        let name = (Bytes::copy_from_slice(uid), line);
        let Some(taken) = self.lines.get_mut(&name) else {
            self.lines.insert(name, Taken::new(turn, number));
            if self.lines.len() > LINES_MAX {
                self.forget_half();
            }
            return false;
        };
        taken.turn = turn;
        if number < taken.first {
            let is_old = taken.first - number > LATE_MAX as u64;
            return is_old || !taken.early.insert(number);
        }
        if number <= taken.last {
            return !taken.late.remove(&number);
        }
        let skipped = (taken.last + 1).max(number.saturating_sub(LATE_MAX as u64))..number;
        taken.late.extend(skipped);
        while taken.late.len() > LATE_MAX {
            taken.late.pop_first();
        }
        taken.last = number;
        false
    }

    /// Those that have been silent for the longest.
    fn forget_half(&mut self) {
        let mut turns: Vec<u64> = self.lines.values().map(|taken| taken.turn).collect();
        turns.sort_unstable();
        let middle = turns.get(turns.len() / 2).copied().unwrap_or_default();
        self.lines.retain(|_, taken| taken.turn >= middle);
    }
}

impl Taken {
    fn new(turn: u64, number: u64) -> Self {
        let (early, late) = (BTreeSet::new(), BTreeSet::new());
        Self { turn, first: number, early, last: number, late }
    }
}

impl Entry {
    /// Whether that node has written it.
    pub fn is_of(&self, uid: &str) -> bool {
        self.field("uid").is_some_and(|known| known == uid)
    }

    fn field(&self, name: &str) -> Option<&Bytes> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// What its node calls it.
    pub fn key(&self) -> Option<Key> {
        let number = std::str::from_utf8(self.field(NUMBER)?).ok()?;
        let (line, number) = number.split_once('.')?;
        Some((line.parse().ok()?, number.parse().ok()?))
    }

    fn size(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Its place in its stream.
    pub fn number(&self) -> Option<u64> {
        number_of(std::str::from_utf8(&self.id).ok()?)
    }
}

/// What comes of a stream, and what is done in the same order.
pub enum Item {
    /// Reading begins behind the last of these entries, or at the first that comes.
    Begins(Arc<str>, Before),
    Entry(Arc<str>, Entry),
    /// What stood behind the last entry that was read is there no more.
    Trimmed(Arc<str>),
    /// Of this node: not to wait for its place in the stream.
    Ahead(Key),
    /// Of this node, and all that there is.
    AllAhead,
    /// Of this node: never comes.
    Lost(Key),
    /// A client wants to go on.
    Enter(Box<Enter>),
}

/// What stands before a place in a stream.
pub struct Before {
    /// The newest, in their order.
    pub entries: Vec<Entry>,
    /// The stream has no others.
    pub is_all: bool,
}

/// One of the streams, and how far it is read.
pub struct Reading {
    servers: Rc<Servers>,
    stream: Arc<str>,
    timeout: Duration,
    to: mpsc::Sender<Item>,
    /// The last entry that was taken; without it, what comes from now on is read.
    last: Option<Bytes>,
    ready: Option<Rc<dyn Fn()>>,
}

/// Entries that are asked for at once: of the largest that clients may send, not too much for one
/// answer.
const COUNT: &[u8] = b"100";
/// What is looked at of what stands before: it is kept for those who come back, and what is said
/// again afterwards is known by it.
const BEFORE_MAX: usize = 4096;
const BEFORE_BYTES: usize = 8 << 20;
/// How long Redis waits for the first entry.
const BLOCK: Duration = Duration::from_secs(2);
/// Before all entries.
const NOTHING: &[u8] = b"0-0";
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Reading {
    /// `ready` is called when it is known where reading begins: what is written later is read.
    pub fn new(
        servers: Rc<Servers>,
        stream: Arc<str>,
        limit: Duration,
        to: mpsc::Sender<Item>,
        ready: Rc<dyn Fn()>,
    ) -> Self {
        Self { servers, stream, timeout: limit, to, last: None, ready: Some(ready) }
    }

    /// Reads for as long as somebody takes it.
    pub async fn work(mut self) {
        let mut pause = PAUSE;
        loop {
            let error = match self.servers.open().await {
                Ok(line) => {
                    pause = PAUSE;
                    self.read(line).await
                }
                Err(error) => error,
            };
            if self.to.is_closed() {
                return;
            }
            debug!(stream = &*self.stream, reason = %error, "the stream is read again later");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn read(&mut self, mut line: Line) -> LineError {
        let mut last = match self.begin(&mut line).await {
            Ok(last) => last,
            Err(error) => return error,
        };
        self.last = Some(last.clone());
        self.ready.take().into_iter().for_each(|ready| ready());
        let block = BLOCK.as_millis().to_string();
        loop {
            let words: [&[u8]; 8] = [
                b"XREAD",
                b"COUNT",
                COUNT,
                b"BLOCK",
                block.as_bytes(),
                b"STREAMS",
                self.stream.as_bytes(),
                &last,
            ];
            let limit = BLOCK + self.timeout;
            let answer = match timeout(limit, line.ask(&words)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => return error,
                Err(_late) => return LineError::Late(limit),
            };
            for entry in entries_of(&answer) {
                last = entry.id.clone();
                self.last = Some(last.clone());
                // Full: Redis keeps the rest meanwhile.
                if self.to.send(Item::Entry(Arc::clone(&self.stream), entry)).await.is_err() {
                    return LineError::Closed;
                }
            }
        }
    }

    /// The last entry that was taken, or the newest that there is.
    async fn begin(&self, line: &mut Line) -> Result<Bytes, LineError> {
        let stream = Arc::clone(&self.stream);
        let (last, item) = match &self.last {
            None => {
                let ask = async |words: &[&[u8]]| {
                    let late = LineError::Late(self.timeout);
                    timeout(self.timeout, line.ask(words)).await.unwrap_or(Err(late))
                };
                // Reading behind `$` would begin later at each question, and lose what is written
                // in between.
                let before = entries_up_to(&stream, b"+", BEFORE_MAX, ask).await?;
                let newest = before.entries.last().map(|entry| entry.id.clone());
                let newest = newest.unwrap_or(Bytes::from_static(NOTHING));
                (newest, Some(Item::Begins(stream, before)))
            }
            Some(last) => {
                let trimmed = !self.has(line, last).await?;
                (last.clone(), trimmed.then_some(Item::Trimmed(stream)))
            }
        };
        if let Some(item) = item {
            self.to.send(item).await.map_err(|_ended| LineError::Closed)?;
        }
        Ok(last)
    }

    /// Whether the entry is still there; if not, others behind it may be gone, too.
    async fn has(&self, line: &mut Line, id: &[u8]) -> Result<bool, LineError> {
        if id == NOTHING {
            return Ok(true);
        }
        let words: [&[u8]; 4] = [b"XRANGE", self.stream.as_bytes(), id, id];
        let late = LineError::Late(self.timeout);
        let answer = timeout(self.timeout, line.ask(&words)).await.unwrap_or(Err(late))?;
        Ok(!answer.items().is_empty())
    }
}

/// The newest entries up to `end`, no more than `max` and a few megabytes.
pub async fn entries_up_to(
    stream: &str,
    end: &[u8],
    max: usize,
    mut ask: impl AsyncFnMut(&[&[u8]]) -> Result<Value, LineError>,
) -> Result<Before, LineError> {
    let (mut entries, mut bytes, mut end) = (Vec::new(), 0, end.to_vec());
    let mut is_all = false;
    while entries.len() < max && bytes < BEFORE_BYTES && !is_all {
        let words: [&[u8]; 6] = [b"XREVRANGE", stream.as_bytes(), &end, b"-", b"COUNT", COUNT];
        let answer = ask(&words).await?;
        let page: Vec<Entry> = answer.items().iter().filter_map(entry).collect();
        match page.last() {
            Some(last) => end = [b"(", &*last.id].concat(),
            None => is_all = true,
        }
        bytes += page.iter().map(Entry::size).sum::<usize>();
        entries.extend(page);
    }
    entries.reverse();
    Ok(Before { entries, is_all })
}

/// The next entries behind this one; none if there are none.
pub async fn entries_after(
    stream: &str,
    last: u64,
    mut ask: impl AsyncFnMut(&[&[u8]]) -> Result<Value, LineError>,
) -> Result<Vec<Entry>, LineError> {
    let start = format!("({}", id_of(last));
    let words: [&[u8]; 6] = [b"XRANGE", stream.as_bytes(), start.as_bytes(), b"+", b"COUNT", COUNT];
    let entries: Vec<Entry> = ask(&words).await?.items().iter().filter_map(entry).collect();
    // Who goes on behind the newest of them comes to an end.
    match entries.last().map(Entry::number) {
        Some(newest) if newest.is_none_or(|newest| newest <= last) => Err(LineError::Malformed),
        _ => Ok(entries),
    }
}

/// Of an answer to XREAD about one stream: a list of pairs in RESP2, a map in RESP3.
pub fn entries_of(answer: &Value) -> Vec<Entry> {
    let list = match answer.items() {
        [Value::Text(_), list] => list,
        [pair] => match pair.items() {
            [_, list] => list,
            _ => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    list.items().iter().filter_map(entry).collect()
}

/// `[id, [field, value, …]]`.
pub fn entry(value: &Value) -> Option<Entry> {
    let [Value::Text(id), fields] = value.items() else { return None };
    let (pairs, _) = fields.items().as_chunks::<2>();
    let pairs = pairs.iter().filter_map(|pair| match pair {
        [Value::Text(field), Value::Text(value)] => Some((field.clone(), value.clone())),
        _ => None,
    });
    Some(Entry { id: id.clone(), fields: pairs.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &'static str) -> Value {
        Value::Text(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn what_is_said_again_is_known() {
        let mut numbers = Numbers::default();
        let mut repeats = |uid: &'static str, number: &'static str| {
            let fields = [("uid", uid), (NUMBER, number)];
            let fields = fields.map(|(name, value)| (Bytes::from(name), Bytes::from(value)));
            numbers.repeats(&Entry { id: Bytes::from("1-0"), fields: fields.to_vec() })
        };
        for (uid, number, repeated) in [
            ("a", "0.1", false),
            ("a", "0.2", false),
            ("a", "0.1", true),
            ("a", "0.2", true),
            ("a", "1.1", false),
            ("b", "0.1", false),
            ("a", "0.4", false),
            // Lost by Redis, and said again.
            ("a", "0.3", false),
            ("a", "0.3", true),
            // The first that was read is not the first that was said.
            ("c", "0.2000", false),
            ("c", "0.1999", false),
            ("c", "0.1999", true),
            ("c", "0.976", false),
            // Too old to be told from what was taken.
            ("c", "0.975", true),
            ("c", "0.2000", true),
            ("c", "0.2001", false),
            ("a", "x", false),
            ("a", "0.-1", false),
        ] {
            assert_eq!(repeats(uid, number), repeated, "{uid} {number}");
        }
    }

    #[test]
    fn who_speaks_is_not_forgotten_for_those_who_are_silent() {
        let mut numbers = Numbers::default();
        let mut repeats = |uid: &str, number: u64| {
            let fields = [("uid", uid.to_owned()), (NUMBER, format!("0.{number}"))];
            let fields = fields.map(|(name, value)| (Bytes::from(name), Bytes::from(value)));
            let repeats =
                numbers.repeats(&Entry { id: Bytes::from("1-0"), fields: fields.to_vec() });
            assert!(numbers.lines.len() <= LINES_MAX);
            repeats
        };
        for round in 0..3 * LINES_MAX as u64 {
            assert!(!repeats("me", round));
            assert!(!repeats(&format!("{round}"), 1));
            assert!(repeats("me", round));
        }
    }

    #[test]
    fn both_versions_answer_with_entries() {
        let list = || {
            let fields = Value::List(vec![text("uid"), text("a"), text("nsp"), text("/")]);
            Value::List(vec![Value::List(vec![text("1-0"), fields])])
        };
        let fields = [("uid", "a"), ("nsp", "/")];
        let fields = fields.map(|(name, value)| (Bytes::from(name), Bytes::from(value))).to_vec();
        let wanted = vec![Entry { id: Bytes::from("1-0"), fields }];
        let pairs = Value::List(vec![Value::List(vec![text("s"), list()])]);
        assert_eq!(entries_of(&pairs), wanted);
        assert_eq!(entries_of(&Value::List(vec![text("s"), list()])), wanted);
        for nothing in [Value::Nothing, Value::List(Vec::new()), text("s")] {
            assert_eq!(entries_of(&nothing), Vec::new());
        }
    }
}
