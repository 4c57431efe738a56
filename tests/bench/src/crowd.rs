//! Many clients in one loop.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use rustls::ClientConfig;

use crate::client::{Around, Client, Way, find};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Longer than anything here takes; a benchmark that hangs tells nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// How fast clients come.
#[derive(Clone, Copy)]
pub struct Pace {
    /// So many are connecting at the same time.
    pub together: usize,
    pub per_second: Option<u32>,
}

pub struct Crowd {
    clients: Vec<Client>,
    connected: usize,
    around: Around,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
}

impl Crowd {
    pub fn new(address: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Outcome<Self> {
        let poll = Poll::new()?;
        let around = Around { address, tls, registry: poll.registry().try_clone()? };
        let events = Events::with_capacity(1024);
        Ok(Self {
            clients: Vec::new(),
            connected: 0,
            around,
            poll,
            events,
            buffer: vec![0; 128 * 1024],
        })
    }

    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Adds `count` clients and waits until all are connected.
    pub fn connect(&mut self, count: usize, way: Way, pace: Pace) -> Outcome<()> {
        let begun = Instant::now();
        let first = self.len();
        while self.connected < first + count {
            let (started, connected) = (self.len() - first, self.connected - first);
            let due = pace.per_second.map_or(count, |rate| {
                (begun.elapsed().as_secs_f64() * f64::from(rate)) as usize + 1
            });
            let room = pace.together.saturating_sub(started - connected);
            for _ in 0..room.min(due.min(count).saturating_sub(started)) {
                self.clients.push(Client::start(self.len(), way, &self.around)?);
            }
            self.turn(Duration::from_millis(1), |_, _| None)?;
            in_time(begun, || format!("{connected} of {count} clients connected"))?;
        }
        Ok(())
    }

    /// Every client sends `packet`, which asks for an acknowledgement; waits for all of them.
    pub fn ask(&mut self, packet: &str) -> Outcome<()> {
        const TOGETHER: usize = 64;
        let begun = Instant::now();
        let (mut sent, mut answered) = (0, 0);
        let mut refused = None;
        while answered < self.len() {
            while sent < self.len() && sent - answered < TOGETHER {
                self.send(sent, packet)?;
                sent += 1;
            }
            self.turn(Duration::from_millis(10), |_, packet| {
                match is_granted(packet) {
                    true => answered += 1,
                    false => refused = Some(String::from_utf8_lossy(packet).into_owned()),
                }
                None
            })?;
            if let Some(packet) = refused {
                return Err(format!("the server answered {packet}").into());
            }
            in_time(begun, || format!("{answered} of {sent} acknowledged {packet}"))?;
        }
        Ok(())
    }

    pub fn send(&mut self, number: usize, packet: &str) -> Outcome<()> {
        self.clients.get_mut(number).ok_or("no such client")?.send(packet)
    }

    /// Answers pings for so long; returns how many there were.
    pub fn rest(&mut self, time: Duration) -> Outcome<u64> {
        let begun = Instant::now();
        let before = self.pings();
        while let Some(left) = time.checked_sub(begun.elapsed()) {
            self.turn(left, |_, _| None)?;
        }
        Ok(self.pings() - before)
    }

    fn pings(&self) -> u64 {
        self.clients.iter().map(|client| client.pings).sum()
    }

    /// All say goodbye and wait for the server's; no client is left.
    pub fn leave(mut self) -> Outcome<()> {
        let begun = Instant::now();
        let mut left = 0;
        while self.clients.iter().any(|client| !client.is_gone()) {
            for client in self.clients.iter_mut().skip(left).take(64) {
                client.leave()?;
            }
            left += 64;
            self.turn(Duration::from_millis(1), |_, _| None)?;
            let here = self.clients.iter().filter(|client| !client.is_gone()).count();
            in_time(begun, || format!("{here} of {} clients have not left", self.len()))?;
        }
        Ok(())
    }

    /// Waits for events, at most so long, and lets each client see to its own. `heard` is given the
    /// client's number and the packet, and may answer.
    pub fn turn(
        &mut self,
        longest: Duration,
        mut heard: impl FnMut(usize, &[u8]) -> Option<String>,
    ) -> Outcome<()> {
        match self.poll.poll(&mut self.events, Some(longest)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(error.into());
            }
            _ => {}
        }
        for event in &self.events {
            let (number, over_websocket) = Client::of(event.token());
            let Some(client) = self.clients.get_mut(number) else { continue };
            let was_connected = client.is_connected();
            client.ready(over_websocket, &mut self.buffer, &self.around, &mut |packet| {
                heard(number, packet)
            })?;
            if !was_connected && client.is_connected() {
                self.connected += 1;
            }
        }
        Ok(())
    }
}

/// Fails when this takes too long; says what was reached.
pub fn in_time(begun: Instant, reached: impl FnOnce() -> String) -> Outcome<()> {
    match begun.elapsed() < PATIENCE {
        true => Ok(()),
        false => Err(format!("not in time: {}", reached()).into()),
    }
}

/// True for an acknowledgement that is not an error.
pub fn is_granted(packet: &[u8]) -> bool {
    packet.starts_with(b"3/chat,") && find(packet, b"\"error\"").is_none()
}
