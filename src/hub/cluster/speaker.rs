//! What this node says to Redis: in order, many at once, each answered within a deadline.
//!
//! While nobody listens it waits in a bounded queue. Full: the oldest is dropped, and counted.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::observe::metrics::{self, Series};

use super::line::{Line, LineError, Reader, Writer};
use super::reading::Key;
use super::resp::{Value, command};
use super::unsure::{self, Named, Seat};

/// What becomes of a command that cannot be said, or may not have been heard.
pub enum Kind {
    /// Lost: twice would be worse.
    Once,
    /// Dropped at once while nobody listens.
    Volatile,
    /// Said again: it makes no difference.
    Again,
    /// An entry of a stream: said again if it does not stand there.
    Append(Named),
    /// Whoever asked is told that there is no answer.
    Ask(oneshot::Sender<Result<Value, LineError>>),
}

struct Command {
    bytes: Vec<u8>,
    kind: Kind,
    /// Has been said, and may have been done.
    is_unsure: bool,
}

impl Command {
    fn name(&self) -> Option<&Named> {
        match &self.kind {
            Kind::Append(named) => Some(named),
            _ => None,
        }
    }
}

/// What has become of what somebody wants to hear of.
#[derive(Default)]
pub struct Outcomes {
    pub said: Vec<Key>,
    /// Redis will not have it.
    pub lost: Vec<Key>,
}

struct Flight {
    command: Command,
    due: Instant,
}

pub struct Speaker {
    /// The name under which this node writes into streams.
    uid: Box<str>,
    timeout: Duration,
    /// Bytes that may wait.
    bytes_max: usize,
    waiting: RefCell<Waiting>,
    filled: Notify,
    /// Less waits than before, or nobody listens any more.
    relieved: Notify,
    /// Said and not answered yet.
    flights: RefCell<VecDeque<Flight>>,
    landed: Notify,
    /// Increases with each connection; odd while there is one.
    epoch: Cell<u64>,
    /// Since they were taken; no more than what may wait and be in flight.
    outcomes: RefCell<Outcomes>,
    pub settled: Notify,
    /// The connection over which entries were said last.
    seat: RefCell<Option<Seat>>,
    /// One of several, each of which has its slots.
    is_spread: bool,
    /// What is to be said elsewhere; no more than what was in flight.
    strays: RefCell<Vec<Command>>,
    pub strayed: Notify,
    waiting_bytes: Arc<Series>,
    said: Arc<Series>,
}

#[derive(Default)]
struct Waiting {
    commands: VecDeque<Command>,
    bytes: usize,
}

/// Commands that are said before the first of them is answered: the rest waits where it is bounded.
const FLIGHTS_MAX: usize = 1024;
/// Bytes of them in one write.
const WRITE_MAX: usize = 64 << 10;

impl Speaker {
    pub fn new(uid: &str, timeout: Duration, bytes_max: usize) -> Rc<Self> {
        Self::with(uid, timeout, bytes_max, false)
    }

    /// One of several, each of which has its slots; they have no streams.
    pub fn spread(timeout: Duration, bytes_max: usize) -> Rc<Self> {
        Self::with("", timeout, bytes_max, true)
    }

    fn with(uid: &str, timeout: Duration, bytes_max: usize, is_spread: bool) -> Rc<Self> {
        Rc::new(Self {
            uid: uid.into(),
            timeout,
            bytes_max,
            waiting: RefCell::default(),
            filled: Notify::new(),
            relieved: Notify::new(),
            flights: RefCell::default(),
            landed: Notify::new(),
            epoch: Cell::new(0),
            outcomes: RefCell::default(),
            settled: Notify::new(),
            seat: RefCell::default(),
            is_spread,
            strays: RefCell::default(),
            strayed: Notify::new(),
            waiting_bytes: metrics::series(&metrics::REDIS_WAITING, &[]),
            said: metrics::series(&metrics::REDIS_SAID, &[]),
        })
    }

    /// Which connection is spoken over; `None` while there is none.
    pub fn epoch(&self) -> Option<u64> {
        Some(self.epoch.get()).filter(|epoch| epoch % 2 == 1)
    }

    pub fn say(&self, bytes: Vec<u8>, kind: Kind) {
        match kind {
            Kind::Volatile if self.epoch().is_none() => return dropped("volatile", 1),
            // Dropping the sender is the answer.
            Kind::Ask(_) if self.epoch().is_none() => return,
            _ => {}
        }
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back(Command { bytes, kind, is_unsure: false });
        let overflown = waiting.bound(self.bytes_max);
        self.waiting_bytes.add(waiting.bytes as i64 - self.waiting_bytes.value());
        drop(waiting);
        self.lose(&overflown);
        self.filled.notify_one();
    }

    /// Waits while so much is to be said that the oldest might be dropped, although somebody listens;
    /// not for longer than `until`.
    pub async fn wait_for_room(&self, until: Instant) {
        // Lost with a drop: nothing, it looks again.
        while self.is_congested() && timeout_at(until, self.relieved.notified()).await.is_ok() {}
    }

    fn is_congested(&self) -> bool {
        self.epoch().is_some() && self.waiting.borrow().bytes > self.bytes_max / 2
    }

    /// Asks Redis itself; an error if there is no answer in time.
    pub async fn ask(&self, words: &[&[u8]]) -> Result<Value, LineError> {
        let (answer, heard) = oneshot::channel();
        self.say(command(words), Kind::Ask(answer));
        heard.await.unwrap_or(Err(LineError::Closed))
    }

    /// Speaks over `line` until it breaks.
    pub async fn speak(&self, mut line: Line) -> LineError {
        if let Err(error) = self.make_sure(&mut line).await {
            return error;
        }
        let Line { mut reader, mut writer } = line;
        self.epoch.set(self.epoch.get() + 1);
        let broken = tokio::select! {
            // Lost with a drop: nothing that `land_all` does not see to.
            error = self.write(&mut writer) => error,
            error = self.read(&mut reader) => error,
            error = self.watch() => error,
        };
        self.epoch.set(self.epoch.get() + 1);
        self.land_all();
        self.relieved.notify_one();
        broken
    }

    /// Finds out what has been done of that which was not answered, and is not said again.
    async fn make_sure(&self, line: &mut Line) -> Result<(), LineError> {
        let unsure = {
            let waiting = self.waiting.borrow();
            let unsure = waiting.commands.iter().filter(|command| command.is_unsure);
            unsure.filter_map(Command::name).cloned().collect::<Vec<_>>()
        };
        if !unsure.is_empty() {
            let before = self.seat.take();
            if let Some(seat) = &before
                && let Err(error) = seat.end(line, self.timeout).await
            {
                self.seat.replace(before);
                return Err(error);
            }
            let ask = async |words: &[&[u8]]| {
                let answer = unsure::ask(line, words, self.timeout).await?;
                // Who may not read may not write either, but say so to everything.
                Ok(answer.unwrap_or(Value::Nothing))
            };
            let found = unsure::find(&self.uid, &unsure, ask).await?;
            let done = |command: &Command| {
                command.is_unsure && command.name().is_some_and(|name| found.contains(&name.key))
            };
            self.waiting.borrow_mut().commands.retain(|command| !done(command));
            self.waiting.borrow_mut().measure();
            let done = unsure.iter().filter(|named| found.contains(&named.key));
            done.for_each(|named| self.settle(named, true));
        }
        if !self.uid.is_empty() {
            *self.seat.borrow_mut() = Seat::of(line, self.timeout).await?;
        }
        Ok(())
    }

    async fn write(&self, writer: &mut Writer) -> LineError {
        loop {
            let batch = self.take_batch();
            if batch.is_empty() {
                let full = self.flights.borrow().len() >= FLIGHTS_MAX;
                if full {
                    self.landed.notified().await;
                } else {
                    self.filled.notified().await;
                }
                continue;
            }
            if let Err(error) = writer.send(&batch).await {
                return error;
            }
        }
    }

    /// The bytes of what is said next, which is in flight from now on.
    fn take_batch(&self) -> Vec<u8> {
        let (mut waiting, mut flights) = (self.waiting.borrow_mut(), self.flights.borrow_mut());
        let due = Instant::now() + self.timeout;
        let mut batch = Vec::new();
        while flights.len() < FLIGHTS_MAX && batch.len() < WRITE_MAX {
            let Some(command) = waiting.pop_front() else { break };
            if batch.is_empty() {
                batch.reserve(command.bytes.len());
            }
            batch.extend_from_slice(&command.bytes);
            flights.push_back(Flight { command, due });
        }
        self.waiting_bytes.add(waiting.bytes as i64 - self.waiting_bytes.value());
        self.relieved.notify_one();
        batch
    }

    async fn read(&self, reader: &mut Reader) -> LineError {
        loop {
            let answer = match reader.next().await {
                Ok(Value::Push(_)) => continue,
                Ok(answer) => answer,
                Err(error) => return error,
            };
            let Some(flight) = self.flights.borrow_mut().pop_front() else {
                return LineError::Malformed;
            };
            if let Some(error) = self.land(flight, answer) {
                return error;
            }
            self.landed.notify_one();
        }
    }

    /// Takes an answer; an error if this server is not the one to speak to.
    fn land(&self, flight: Flight, answer: Value) -> Option<LineError> {
        let wrong = match answer.right() {
            Ok(answer) => {
                self.said.increment();
                flight.command.name().inspect(|name| self.settle(name, true));
                if let Kind::Ask(asked) = flight.command.kind {
                    // Whoever asked may have stopped waiting.
                    let _told = asked.send(Ok(answer));
                }
                return None;
            }
            Err(wrong) => wrong,
        };
        let moved = ["MOVED", "ASK", "TRYAGAIN"].iter().any(|word| wrong.starts_with(word));
        if self.is_spread && moved && !matches!(flight.command.kind, Kind::Ask(_)) {
            self.strays.borrow_mut().push(flight.command);
            self.strayed.notify_one();
            return None;
        }
        let is_elsewhere = unsure::is_elsewhere(&wrong);
        match flight.command.kind {
            Kind::Ask(asked) => {
                let _told = asked.send(Err(LineError::Refused(wrong.clone())));
            }
            // Refused before it was done.
            Kind::Once | Kind::Again | Kind::Append(_) if is_elsewhere => {
                self.waiting.borrow_mut().push_front(flight.command);
            }
            _ => {
                flight.command.name().inspect(|name| self.settle(name, false));
                dropped("refused", 1);
                tracing::debug!(reason = %wrong, "refused by the Redis");
            }
        }
        is_elsewhere.then_some(LineError::Refused(wrong))
    }

    /// Looks whether answers come in time; asks for one if nothing else does.
    async fn watch(&self) -> LineError {
        loop {
            let due = self.flights.borrow().front().map(|flight| flight.due);
            let Some(due) = due else {
                sleep(self.timeout).await;
                if self.flights.borrow().is_empty() {
                    let (answer, _nobody) = oneshot::channel();
                    self.say(command(&[b"PING"]), Kind::Ask(answer));
                    tokio::task::yield_now().await;
                }
                continue;
            };
            sleep_until(due).await;
            let is_late = |flight: &Flight| flight.due <= Instant::now();
            if self.flights.borrow().front().is_some_and(is_late) {
                return LineError::Late(self.timeout);
            }
        }
    }

    /// What was said and not answered, when the connection is gone.
    fn land_all(&self) {
        let mut unsure = 0;
        let mut waiting = self.waiting.borrow_mut();
        // In their order, so from the back.
        for Flight { mut command, .. } in self.flights.take().into_iter().rev() {
            match command.kind {
                Kind::Again | Kind::Append(_) => {
                    command.is_unsure = true;
                    waiting.push_front(command);
                }
                Kind::Ask(_) => {}
                Kind::Once | Kind::Volatile => unsure += 1,
            }
        }
        let waits = |kind: &Kind| matches!(kind, Kind::Once | Kind::Again | Kind::Append(_));
        waiting.commands.retain(|command| waits(&command.kind));
        waiting.measure();
        let overflown = waiting.bound(self.bytes_max);
        dropped("unsure", unsure);
        self.lose(&overflown);
    }

    fn lose(&self, overflown: &[Command]) {
        dropped("overflow", overflown.len());
        overflown.iter().filter_map(Command::name).for_each(|name| self.settle(name, false));
    }

    fn settle(&self, named: &Named, said: bool) {
        if !named.is_awaited {
            return;
        }
        let mut outcomes = self.outcomes.borrow_mut();
        if said { &mut outcomes.said } else { &mut outcomes.lost }.push(named.key);
        self.settled.notify_one();
    }

    /// What this server would not have, since its slots are another's.
    pub fn take_strays(&self) -> Vec<(Vec<u8>, Kind)> {
        let strays = self.strays.take();
        strays.into_iter().map(|command| (command.bytes, command.kind)).collect()
    }

    pub fn take_outcomes(&self) -> Outcomes {
        self.outcomes.take()
    }
}

impl Waiting {
    fn push_back(&mut self, command: Command) {
        self.bytes += command.bytes.len();
        self.commands.push_back(command);
    }

    fn push_front(&mut self, command: Command) {
        self.bytes += command.bytes.len();
        self.commands.push_front(command);
    }

    fn measure(&mut self) {
        self.bytes = self.commands.iter().map(|command| command.bytes.len()).sum();
    }

    fn pop_front(&mut self) -> Option<Command> {
        let command = self.commands.pop_front();
        self.bytes -= command.as_ref().map_or(0, |command| command.bytes.len());
        if self.commands.is_empty() {
            // What an outage needed goes with it.
            self.commands.shrink_to(FLIGHTS_MAX);
        }
        command
    }

    /// Drops the oldest until there is room; which those were.
    fn bound(&mut self, bytes_max: usize) -> Vec<Command> {
        let mut dropped = Vec::new();
        while self.bytes > bytes_max && self.commands.len() > 1 {
            dropped.extend(self.pop_front());
        }
        dropped
    }
}

/// Counts what other nodes will not hear.
pub fn dropped(reason: &'static str, count: usize) {
    if count > 0 {
        metrics::series(&metrics::REDIS_DROPPED, &[reason]).add(count as i64);
    }
}
