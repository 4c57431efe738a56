//! What a connection is doing, as far as its deadlines go.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Timeouts;
use crate::exchange::Signs;

use super::PARK_AFTER;
use super::turns::Unsent;

/// What a connection is doing, for its deadlines.
pub struct Activity {
    exchanges: Cell<usize>,
    /// Since when it does what it does: accepted, last exchange ended, or head begun.
    pub since: Cell<Instant>,
    /// A head is awaited (new connection) or has begun.
    pub head: Cell<bool>,
    /// No request has come yet.
    pub fresh: Cell<bool>,
    /// Told by the socket.
    pub signs: Arc<Signs>,
    http2: bool,
    pub unsent: Arc<Unsent>,
    /// Since when it is as it is counted.
    counted: Cell<Option<Instant>>,
}

impl Activity {
    pub fn new(signs: Arc<Signs>, http2: bool) -> Self {
        let (exchanges, since) = (Cell::new(0), Cell::new(Instant::now()));
        let (head, fresh) = (Cell::new(true), Cell::new(true));
        let (unsent, counted) = (Arc::default(), Cell::new(None));
        Self { exchanges, since, head, fresh, signs, http2, unsent, counted }
    }

    pub fn begin(self: &Rc<Self>) -> Exchange {
        self.exchanges.set(self.exchanges.get() + 1);
        self.head.set(false);
        self.fresh.set(false);
        self.signs.set_at_work(true);
        Exchange(Rc::clone(self))
    }

    /// When the connection is to be parked if nothing changes; `None` while it is at work.
    pub fn parks(&self) -> Option<Instant> {
        let idle = self.exchanges.get() == 0 && !self.head.get() && self.signs.is_flushed();
        let idle = idle && !self.signs.lingers();
        idle.then(|| self.since.get() + PARK_AFTER)
    }

    /// When to look again for answers that have ended, but not for a client that does not take them;
    /// `Err` if there are some that have waited for longer than its patience.
    pub fn untaken(&self, patience: Duration) -> Result<Option<Instant>, Untaken> {
        if self.unsent.is_empty() {
            self.counted.set(None);
            return Ok(None);
        }
        let now = Instant::now();
        let since = self.counted.get().unwrap_or(now);
        let due = since + patience;
        self.counted.set(Some(if due <= now { now } else { since }));
        if due > now {
            return Ok(Some(due));
        }
        // While the socket takes nothing, it is not their windows that hold them: it is watched itself.
        let old = self.unsent.turn();
        if old && self.signs.is_flushed() { Err(Untaken) } else { Ok(Some(now + patience)) }
    }

    /// When a connection that was told to close at `at` ends all the same: what an exchange said last
    /// that has ended since then may still be on its way.
    pub fn ends(&self, told: Instant, at: Instant, patience: Duration) -> Instant {
        // A client that takes nothing is the socket's to judge.
        if !self.signs.is_flushed() {
            self.since.set(Instant::now());
        }
        let since = self.since.get();
        if since >= told { at.max(since + patience) } else { at }
    }

    /// True while a request may be on its way: none has come yet, or one has begun to come.
    pub fn awaits_head(&self) -> bool {
        self.exchanges.get() == 0 && self.head.get()
    }

    /// When the connection is to be closed if nothing changes; `None` while it is at work.
    pub fn due(&self, timeouts: &Timeouts) -> Option<Instant> {
        let came = self.signs.take_bytes();
        if self.exchanges.get() > 0 {
            return None;
        }
        // On HTTP/2 other frames come between requests; on HTTP/1.1 whatever comes is a head.
        let head = match self.http2 {
            true => self.fresh.get() || self.signs.in_head(),
            false => self.head.get() || came,
        };
        if self.head.replace(head) != head {
            self.since.set(Instant::now());
        }
        let limit = if self.head.get() { timeouts.head } else { timeouts.idle };
        Some(self.since.get() + limit)
    }
}

/// A client leaves alone what has been said to it.
pub struct Untaken;

/// One exchange at work; ends with its response's last byte.
pub struct Exchange(pub Rc<Activity>);

impl Drop for Exchange {
    fn drop(&mut self) {
        let left = self.0.exchanges.get() - 1;
        self.0.exchanges.set(left);
        self.0.signs.set_at_work(left > 0);
        self.0.since.set(Instant::now());
    }
}
