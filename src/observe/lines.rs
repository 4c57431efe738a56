//! Lines of JSON about what happened: collected by each worker, written by a thread of its own.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::metrics;

/// Bytes of lines a worker collects before it hands them to the writer.
const FLUSH_AT: usize = 16 * 1024;

/// How long a line may wait for company.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

thread_local! {
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static WAITING: Rc<Notify> = Rc::default();
}

/// Adds a line of JSON to this worker's.
pub fn write(line: &impl Serialize) {
    add(|lines| {
        // Writing to a Vec cannot fail, and a line has no map keys that could.
        let _written = serde_json::to_writer(&mut *lines, line);
    });
}

/// Adds a line of text.
pub fn write_text(line: &str) {
    add(|lines| lines.extend_from_slice(line.as_bytes()));
}

fn add(line: impl FnOnce(&mut Vec<u8>)) {
    LINES.with_borrow_mut(|lines| {
        let first = lines.is_empty();
        line(lines);
        lines.push(b'\n');
        if lines.len() >= FLUSH_AT {
            hand_over(lines);
        } else if first {
            WAITING.with(|waiting| waiting.notify_one());
        }
    });
}

/// A moment as lines have it.
pub fn time(moment: SystemTime) -> String {
    humantime::format_rfc3339_millis(moment).to_string()
}

static WRITER: OnceLock<SyncSender<Message>> = OnceLock::new();

enum Message {
    Lines(Vec<u8>),
    /// There are orders.
    Look,
    Flush(SyncSender<()>),
}

/// What the writer is to do before its next lines. Not in the queue: that may be full for as long as
/// nobody reads what was written, and whoever gives orders waits for nobody.
static ORDERS: Orders = Orders(Mutex::new(None));

struct Orders(Mutex<Option<Order>>);

enum Order {
    Target(Target),
    /// Opens the file anew.
    Reopen,
}

impl Orders {
    fn give(&self, order: Order) {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A target that has still to be opened will be new anyway.
        if !matches!((&*orders, &order), (Some(Order::Target(_)), Order::Reopen)) {
            *orders = Some(order);
        }
    }

    fn take(&self) -> Option<Order> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Where lines go.
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
            .name("lines".to_owned())
            .spawn(move || Writer::default().run(&receiver));
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for the access log");
        }
        sender
    });
    ORDERS.give(Order::Target(target));
    // With a full queue it looks by itself.
    let _told = writer.try_send(Message::Look);
}

/// Opens the file anew: whoever keeps old ones has moved it away.
pub fn reopen() {
    if let Some(writer) = WRITER.get() {
        ORDERS.give(Order::Reopen);
        // As above.
        let _told = writer.try_send(Message::Look);
    }
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

/// A log that takes longer than this is stuck; the exit is not held up for it.
const SETTLE: Duration = Duration::from_secs(1);
/// Between two looks whether the queue takes one more.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits until everything handed over is written; for the end of the process.
pub fn settle() {
    flush();
    let Some(writer) = WRITER.get() else { return };
    let begun = Instant::now();
    let (done, written) = sync_channel(1);
    let mut message = Message::Flush(done);
    loop {
        match writer.try_send(message) {
            Ok(()) => break,
            Err(TrySendError::Full(same)) if begun.elapsed() < SETTLE => message = same,
            Err(_) => return,
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    let _settled = written.recv_timeout(SETTLE.saturating_sub(begun.elapsed()));
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
            match ORDERS.take() {
                Some(Order::Target(target)) => self.point_at(target),
                Some(Order::Reopen) => {
                    self.target.clone().into_iter().for_each(|same| self.point_at(same));
                }
                None => (),
            }
            match message {
                Message::Lines(lines) => self.write(&lines),
                Message::Look => (),
                Message::Flush(done) => drop(done.send(())),
            }
        }
    }

    fn point_at(&mut self, target: Target) {
        let same = self.target.as_ref() == Some(&target);
        match &target {
            Target::File(path) => match OpenOptions::new().create(true).append(true).open(path) {
                Ok(file) => self.file = Some(file),
                Err(error) => {
                    // Better a file that was moved than none.
                    self.file = self.file.take().filter(|_| same);
                    tracing::error!(path = %path.display(), %error, "no access log");
                }
            },
            Target::Stdout | Target::Off => self.file = None,
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
