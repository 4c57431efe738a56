//! Spans of traces on their way to whoever collects them.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};

use super::metrics;

pub use super::context::{Context, Share};

/// Which side of a request a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Server,
    Client,
}

/// What is said of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(i64),
}

/// Something that was done, and when.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: String,
    pub kind: Kind,
    pub context: Context,
    pub parent: Option<u64>,
    /// Another span that it came of, in a trace of its own.
    pub link: Option<Context>,
    pub began: SystemTime,
    pub took: Duration,
    pub attributes: Vec<(&'static str, Value)>,
    /// What went wrong, in a word.
    pub error: Option<String>,
}

/// What waits for the exporter.
pub enum Item {
    Span(Box<Span>),
    /// Answered when all before it is sent, or lost.
    Settled(oneshot::Sender<()>),
}

/// Spans that wait. Full: the newest is dropped and counted; requests never wait for a collector.
const WAITING_MAX: usize = 4096;

static WAY: OnceLock<mpsc::Sender<Item>> = OnceLock::new();

/// The exporter's end; `None` but the first time.
pub fn open() -> Option<mpsc::Receiver<Item>> {
    let (way, items) = mpsc::channel(WAITING_MAX);
    WAY.set(way).ok().map(|()| items)
}

impl Span {
    /// Leaves for the collector.
    pub fn send(self) {
        let sent = WAY.get().is_some_and(|way| way.try_send(Item::Span(Box::new(self))).is_ok());
        if !sent {
            metrics::count(&metrics::TRACE_SPANS, "dropped");
        }
    }
}

/// Waits until all that was sent before is with the collector, or lost.
pub async fn settle() {
    let (done, settled) = oneshot::channel();
    if let Some(way) = WAY.get()
        && way.send(Item::Settled(done)).await.is_ok()
    {
        // An error says that the exporter is gone.
        let _settled = settled.await;
    }
}
