//! What the engine counts of its sessions.

use std::sync::Arc;

use crate::observe::metrics::{self, Series};

use super::Engine;
use super::session::Transport;

pub(super) struct Counts {
    polling: Arc<Series>,
    websocket: Arc<Series>,
    bytes_in: Arc<Series>,
    bytes_out: Arc<Series>,
    dropped: Arc<Series>,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self {
            polling: metrics::series(&metrics::HUB_SESSIONS, &["polling"]),
            websocket: metrics::series(&metrics::HUB_SESSIONS, &["websocket"]),
            bytes_in: metrics::series(&metrics::HUB_BYTES, &["in"]),
            bytes_out: metrics::series(&metrics::HUB_BYTES, &["out"]),
            dropped: metrics::series(&metrics::HUB_DROPPED, &[]),
        }
    }
}

impl Engine {
    pub(super) fn count_transport(&self, transport: &Transport, by: i64) {
        match transport {
            Transport::Polling(_) => self.counts.polling.add(by),
            Transport::WebSocket(_) => self.counts.websocket.add(by),
            Transport::Gone => (),
        }
    }

    pub(super) fn count_in(&self, bytes: usize) {
        self.counts.bytes_in.add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn count_dropped(&self, messages: usize) {
        if messages > 0 {
            self.counts.dropped.add(i64::try_from(messages).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn count_out(&self, bytes: usize) {
        if bytes > 0 {
            self.counts.bytes_out.add(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}
