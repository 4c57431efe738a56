//! Reads streams: all entries, in order, from the newest that there was when this node began.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::line::{Line, LineError};
use super::resp::Value;
use super::servers::Servers;

/// What stands in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: Bytes,
    pub fields: Vec<(Bytes, Bytes)>,
}

/// A field of ours, `LINE.NUMBER`: what was said again after a break is known by it.
pub const NUMBER: &str = "n";
/// Lines of all nodes that are remembered. More: a node that has been silent since is forgotten.
const LINES_MAX: usize = 4096;

/// The last number of each line of each node.
#[derive(Default)]
pub struct Numbers(HashMap<(Bytes, usize), u64>);

impl Numbers {
    /// True if it was taken before. What other servers write has no number.
    pub fn repeats(&mut self, entry: &Entry) -> bool {
        let field = |name: &str| entry.fields.iter().find(|(known, _)| known == name);
        let (Some((_, uid)), Some((_, number))) = (field("uid"), field(NUMBER)) else {
            return false;
        };
        let number = std::str::from_utf8(number).ok().and_then(|text| text.split_once('.'));
        let Some((line, number)) = number else { return false };
        let (Ok(line), Ok(number)) = (line.parse(), number.parse::<u64>()) else { return false };
        if self.0.len() >= LINES_MAX {
            self.0.clear();
        }
        // A copy of the name: the whole answer must not stay in memory for it.
        let last = self.0.entry((Bytes::copy_from_slice(uid), line)).or_default();
        let repeats = number <= *last;
        *last = number.max(*last);
        repeats
    }
}

/// One of the streams, and how far it is read.
pub struct Reading {
    servers: Rc<Servers>,
    stream: String,
    timeout: Duration,
    to: mpsc::Sender<Entry>,
    /// The last entry that was taken; without it, what comes from now on is read.
    last: Option<Bytes>,
    ready: Option<Rc<dyn Fn()>>,
}

/// Entries that are asked for at once, and how long Redis waits for the first.
const COUNT: &[u8] = b"100";
const BLOCK: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Reading {
    /// `ready` is called when it is known where reading begins: what is written later is read.
    pub fn new(
        servers: Rc<Servers>,
        stream: String,
        limit: Duration,
        to: mpsc::Sender<Entry>,
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
            debug!(stream = self.stream, reason = %error, "the stream is read again later");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn read(&mut self, mut line: Line) -> LineError {
        let mut last = match self.last.clone() {
            Some(last) => last,
            None => match self.newest(&mut line).await {
                Ok(newest) => newest,
                Err(error) => return error,
            },
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
                if self.to.send(entry).await.is_err() {
                    return LineError::Closed;
                }
            }
        }
    }

    /// The id of the newest entry: `$` would be a later one at each question, and lose what is
    /// written in between.
    async fn newest(&self, line: &mut Line) -> Result<Bytes, LineError> {
        let words: [&[u8]; 6] = [b"XREVRANGE", self.stream.as_bytes(), b"+", b"-", b"COUNT", b"1"];
        let late = LineError::Late(self.timeout);
        let answer = timeout(self.timeout, line.ask(&words)).await.unwrap_or(Err(late))?;
        let newest = answer.items().first().and_then(entry);
        Ok(newest.map_or(Bytes::from_static(b"0-0"), |entry| entry.id))
    }
}

/// Of an answer to XREAD about one stream: a list of pairs in RESP2, a map in RESP3.
fn entries_of(answer: &Value) -> Vec<Entry> {
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
            ("a", "x", false),
            ("a", "0.-1", false),
        ] {
            assert_eq!(repeats(uid, number), repeated, "{uid} {number}");
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
