//! A worker's idle connections, per target.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::drain::Drain;

use super::connection::Connection;
use super::target::Target;

/// How often connections that are too old are looked for, while there are any.
const SWEEP: Duration = Duration::from_secs(1);

/// What one worker keeps for its next requests. Belongs to its thread.
#[derive(Default)]
pub struct Pools {
    targets: RefCell<Targets>,
    /// Told when there is something to sweep.
    filled: Notify,
}

/// By their ids, in order.
#[derive(Default)]
struct Targets(Vec<(u64, Idle)>);

impl Targets {
    fn find(&mut self, target: &Target) -> Option<&mut Idle> {
        let at = self.0.binary_search_by_key(&target.id, |(id, _)| *id).ok()?;
        self.0.get_mut(at).map(|(_, idle)| idle)
    }

    fn entry(&mut self, target: &Target) -> &mut Idle {
        let at = match self.0.binary_search_by_key(&target.id, |(id, _)| *id) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (target.id, Idle::default()));
                at
            }
        };
        let found = self.0.get_mut(at);
        &mut found.expect("it was found, or put there").1
    }
}

#[derive(Default)]
struct Idle {
    /// The youngest at the end; it is used first, so that the others grow old.
    connections: Vec<Kept>,
}

struct Kept {
    connection: Connection,
    until: Instant,
}

impl Pools {
    pub fn new(drain: &Drain) -> Rc<Self> {
        let pools = Rc::new(Self::default());
        drain.spawn_background(sweep(Rc::clone(&pools)));
        pools
    }

    /// A connection that was used before and is neither too old nor closed.
    pub fn take(&self, target: &Target) -> Option<Connection> {
        let mut targets = self.targets.borrow_mut();
        let idle = targets.find(target)?;
        let now = Instant::now();
        while let Some(mut kept) = idle.connections.pop() {
            if kept.until > now && kept.connection.is_fresh() {
                return Some(kept.connection);
            }
        }
        None
    }

    /// Keeps a connection for at most `lasts`; when `max` are kept already the oldest goes.
    pub fn keep(&self, target: &Target, mut connection: Connection, lasts: Duration, max: usize) {
        if lasts.is_zero() || max == 0 {
            return;
        }
        // Its memory is the worker's.
        connection.buffer = bytes::BytesMut::new();
        connection.reused = true;
        let mut targets = self.targets.borrow_mut();
        let idle = targets.entry(target);
        if idle.connections.len() >= max {
            idle.connections.remove(0);
        }
        if idle.connections.is_empty() {
            self.filled.notify_one();
        }
        idle.connections.push(Kept { connection, until: Instant::now() + lasts });
    }

    /// Closes what is kept for `target`: one of them was found closed, so the others are too.
    pub fn forget(&self, target: &Target) {
        if let Some(idle) = self.targets.borrow_mut().find(target) {
            idle.connections.clear();
        }
    }

    /// Closes all that is kept, because the process has no descriptor left; true if that was any.
    pub fn spare(&self) -> bool {
        let mut targets = self.targets.borrow_mut();
        let idle = targets.0.iter_mut().map(|(_, idle)| idle);
        let kept = idle.filter(|idle| !idle.connections.is_empty());
        kept.map(|idle| idle.connections.clear()).count() > 0
    }

    /// Closes what is too old; false if nothing is left.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut targets = self.targets.borrow_mut();
        targets.0.retain_mut(|(_, idle)| {
            idle.connections.retain_mut(|kept| kept.until > now && kept.connection.is_fresh());
            !idle.connections.is_empty()
        });
        !targets.0.is_empty()
    }
}

async fn sweep(pools: Rc<Pools>) {
    loop {
        pools.filled.notified().await;
        while pools.sweep() {
            sleep(SWEEP).await;
        }
    }
}
