//! READY, RELOADING, STOPPING, STATUS and WATCHDOG to the service manager, if there is one.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// `Type=notify-reload` wants the time with it, to match READY to this reload.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "no monotonic clock"),
    }
}

/// Another process is the service's main one from now on.
pub fn main_is(process: u32) {
    notify(&[NotifyState::MainPid(process), NotifyState::Status("upgraded")]);
}

pub fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "the service manager was not told");
    }
}

/// Tells the service manager at half its interval that the process lives.
pub struct Watchdog {
    every: Option<Duration>,
    next: Instant,
}

impl Watchdog {
    pub fn from_env() -> Self {
        Self { every: sd_notify::watchdog_enabled().map(|limit| limit / 2), next: Instant::now() }
    }

    /// Resolves when it is time; never, when nobody watches.
    pub async fn due(&self) {
        match self.every {
            Some(_) => sleep_until(self.next).await,
            None => std::future::pending().await,
        }
    }

    pub fn tell(&mut self) {
        self.next = Instant::now() + self.every.unwrap_or_default();
        notify(&[NotifyState::Watchdog]);
    }

    /// Tries again soon without having told anything: a few times before the limit.
    pub fn postpone(&mut self) {
        self.next = Instant::now() + self.every.unwrap_or_default() / 4;
    }
}
