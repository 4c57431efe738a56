//! TERM, INT, HUP, USR2 → Event.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What the operator asks by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Reload,
    Upgrade,
    Stop,
}

pub struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
    user2: Signal,
}

impl Signals {
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    pub async fn next(&mut self) -> Event {
        tokio::select! {
            // Nothing is lost when an arm is dropped: the signal stays pending.
            _ = self.hangup.recv() => Event::Reload,
            _ = self.interrupt.recv() => Event::Stop,
            _ = self.terminate.recv() => Event::Stop,
            _ = self.user2.recv() => Event::Upgrade,
        }
    }
}
