//! One JSON line per exchange, also when it fails; written by a thread of its own.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::{Method, Version};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::metrics::{self, Series};

/// What one exchange comes to; counted and written when it is dropped.
///
/// The path stands without its query, which may carry secrets.
pub struct Access {
    started: Instant,
    pub client: Option<IpAddr>,
    pub method: Method,
    pub host: String,
    pub path: String,
    pub version: Version,
    pub tls: Option<&'static str>,
    pub agent: Option<String>,
    /// `None` until the response's head is known.
    pub status: Option<u16>,
    pub bytes: u64,
    pub reason: Option<&'static str>,
    pub route: Option<Arc<RouteCount>>,
    /// Set when the response's last byte was handed over.
    pub complete: bool,
    pub log: bool,
}

/// The counters of one route, found once when it is compiled.
#[derive(Debug)]
pub struct RouteCount {
    pub name: String,
    classes: [Arc<Series>; 5],
    seconds: Arc<Series>,
    bytes: Arc<Series>,
}

impl RouteCount {
    pub fn new(name: &str) -> Arc<Self> {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        Arc::new(Self {
            name: name.to_owned(),
            classes: classes.map(|class| metrics::series(&metrics::REQUESTS, &[name, class])),
            seconds: metrics::series(&metrics::REQUEST_SECONDS, &[name]),
            bytes: metrics::series(&metrics::REQUEST_BYTES, &[name]),
        })
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    client: Option<IpAddr>,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'static str>,
    status: u16,
    bytes: u64,
    ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
}

impl Access {
    pub fn begin(method: Method, path: String, version: Version) -> Self {
        Self {
            started: Instant::now(),
            client: None,
            method,
            host: String::new(),
            path,
            version,
            tls: None,
            agent: None,
            status: None,
            bytes: 0,
            reason: None,
            route: None,
            complete: false,
            log: true,
        }
    }

    fn write(&self, status: u16, took: Duration) {
        let line = Line {
            time: humantime::format_rfc3339_millis(SystemTime::now() - took).to_string(),
            client: self.client,
            method: self.method.as_str(),
            host: &self.host,
            path: &self.path,
            protocol: match self.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            tls: self.tls,
            status,
            bytes: self.bytes,
            ms: (took.as_secs_f64() * 1e6).round() / 1e3,
            route: self.route.as_ref().map(|route| route.name.as_str()),
            reason: self.reason,
            agent: self.agent.as_deref(),
        };
        LINES.with_borrow_mut(|lines| {
            let first = lines.is_empty();
            // Writing to a Vec cannot fail, and the line has no map keys that could.
            let _written = serde_json::to_writer(&mut *lines, &line);
            lines.push(b'\n');
            if lines.len() >= FLUSH_AT {
                hand_over(lines);
            } else if first {
                WAITING.with(|waiting| waiting.notify_one());
            }
        });
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        // nginx's word for a client that left before the answer.
        let status = self.status.unwrap_or(499);
        if !self.complete && self.reason.is_none() {
            self.reason = Some("aborted");
        }
        if let Some(route) = &self.route {
            let class = usize::from(status / 100).saturating_sub(1);
            if let Some(series) = route.classes.get(class) {
                series.increment();
            }
            route.seconds.observe(took);
            route.bytes.add(i64::try_from(self.bytes).unwrap_or(i64::MAX));
        }
        if self.log && WRITING.load(Ordering::Relaxed) {
            self.write(status, took);
        }
    }
}

/// Bytes of lines a worker collects before it hands them to the writer.
const FLUSH_AT: usize = 16 * 1024;

/// How long a line may wait for company.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

thread_local! {
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static WAITING: Rc<Notify> = Rc::default();
}

/// False while lines would go nowhere.
static WRITING: AtomicBool = AtomicBool::new(false);
static WRITER: OnceLock<SyncSender<Message>> = OnceLock::new();

enum Message {
    Lines(Vec<u8>),
    Target(Target),
    Flush(SyncSender<()>),
}

/// Where access lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Stdout,
    File(PathBuf),
    Off,
}

/// Starts the writer, or tells the running one where to write from now on.
pub fn install(target: Target) {
    let writer = WRITER.get_or_init(|| {
        // 256 pieces of 16 KiB. Full: lines are dropped and counted, requests never wait for a log.
        let (sender, receiver) = sync_channel(256);
        let spawned = std::thread::Builder::new()
            .name("access".to_owned())
            .spawn(move || Writer::default().run(&receiver));
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for the access log");
        }
        sender
    });
    WRITING.store(target != Target::Off, Ordering::Relaxed);
    // The writer lives as long as the process.
    let _sent = writer.send(Message::Target(target));
}

/// Hands this worker's lines over whenever some wait; runs for as long as the worker.
pub async fn flush_lines() {
    let waiting = WAITING.with(Rc::clone);
    loop {
        waiting.notified().await;
        tokio::time::sleep(FLUSH_AFTER).await;
        flush();
    }
}

/// Hands over what this thread holds.
pub fn flush() {
    LINES.with_borrow_mut(|lines| {
        if !lines.is_empty() {
            hand_over(lines);
        }
    });
}

/// Waits until everything handed over is written; for the end of the process.
pub fn settle() {
    flush();
    let (done, written) = sync_channel(1);
    if WRITER.get().is_some_and(|writer| writer.send(Message::Flush(done)).is_ok()) {
        // A log that takes longer than this is stuck; the exit is not held up for it.
        let _settled = written.recv_timeout(Duration::from_secs(1));
    }
}

fn hand_over(lines: &mut Vec<u8>) {
    let Some(writer) = WRITER.get() else { return lines.clear() };
    let full = std::mem::replace(lines, Vec::with_capacity(FLUSH_AT + 1024));
    if let Err(TrySendError::Full(Message::Lines(lost))) = writer.try_send(Message::Lines(full)) {
        let count = lost.iter().filter(|byte| **byte == b'\n').count();
        metrics::series(&metrics::ACCESS_LOST, &[]).add(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

#[derive(Default)]
struct Writer {
    target: Option<Target>,
    file: Option<std::fs::File>,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>) {
        while let Ok(message) = receiver.recv() {
            match message {
                Message::Lines(lines) => self.write(&lines),
                Message::Target(target) => self.point_at(target),
                Message::Flush(done) => drop(done.send(())),
            }
        }
    }

    fn point_at(&mut self, target: Target) {
        self.file = None;
        if let Target::File(path) = &target {
            match OpenOptions::new().create(true).append(true).open(path) {
                Ok(file) => self.file = Some(file),
                Err(error) => tracing::error!(path = %path.display(), %error, "no access log"),
            }
        }
        self.target = Some(target);
    }

    fn write(&mut self, lines: &[u8]) {
        let written = match (&self.target, &mut self.file) {
            (Some(Target::Stdout), _) => io::stdout().lock().write_all(lines),
            (Some(Target::File(_)), Some(file)) => file.write_all(lines),
            _ => Ok(()),
        };
        if written.is_err() {
            let count = lines.iter().filter(|byte| **byte == b'\n').count();
            metrics::series(&metrics::ACCESS_LOST, &[])
                .add(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
