//! The order of leaving: accept no more, close the hub's transports gently, finish requests, end.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use crate::observe::{lines, trace};
use crate::worker::Command;

use super::signals::{Event, Signals};
use super::{Service, systemd};

/// Why the process leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// It was told to stop.
    Stopped,
    /// Another process serves in its place.
    Succeeded,
}

/// The last spans have this long to reach their collector.
const SETTLED_WITHIN: Duration = Duration::from_secs(2);
/// What the private listener answered last has this long to reach whoever asked.
const LAST_ANSWER: Duration = Duration::from_millis(200);

impl Service {
    /// Leaves within `shutdown.grace`; a second signal to stop hurries.
    ///
    /// After an upgrade nobody waits for it, so clients of the hub are closed over all of
    /// `hub.drain.over`, and the grace begins after that.
    pub(super) async fn leave(self, mut signals: Signals, farewell: Farewell) {
        let Self { current, listeners, node_sockets, admin_socket, mut workers, .. } = self;
        let Self { resident, drain, background, bridge, .. } = self;
        let (mut grace, mut over, away) = {
            let snapshot = current.load();
            let hub = snapshot.config().hub.as_ref();
            let recovery = hub.and_then(|hub| hub.recovery.as_ref());
            let over = hub.map(|hub| hub.drain_over).unwrap_or_default();
            let away = recovery.map(|recovery| recovery.lasts).unwrap_or_default();
            (snapshot.config().shutdown.grace, over, away)
        };
        // The sockets are open for as long as somebody has them: the workers let go of theirs below.
        drop((listeners, node_sockets, admin_socket));
        if farewell == Farewell::Succeeded {
            background.iter().for_each(JoinHandle::abort);
            // Who was cut off comes to the next process, which asks this one what it left.
            grace += over + away;
        } else {
            // Some of the grace is left for what the last transports still have to say.
            over = over.min(grace.mul_f32(0.7));
            systemd::stopping("draining");
        }
        info!(?grace, "stopping");
        drain.begin();
        let until = Instant::now() + grace;
        let emptied = async {
            for worker in &workers {
                if farewell == Farewell::Succeeded {
                    worker.tell(Command::Shut).await;
                }
                worker.tell(Command::Drain).await;
            }
            resident.hub.leave(over).await;
            if farewell == Farewell::Succeeded {
                sleep(LAST_ANSWER).await;
            }
            for worker in &mut workers {
                worker.ended().await;
            }
            if let Some(mut bridge) = bridge.filter(|_| farewell == Farewell::Succeeded) {
                // It has an end: all workers have said what they had to.
                bridge.over().await;
            }
        };
        let hurried = async { while signals.next().await != Event::Stop {} };
        let done = tokio::select! {
            // Nothing is lost when an arm is dropped: the process ends next.
            done = timeout_at(until, emptied) => done.is_ok(),
            () = hurried => false,
        };
        if !done {
            warn!("stopped with work unfinished");
        }
        // One that does not answer is not waited for.
        let _settled = timeout(SETTLED_WITHIN, trace::settle()).await;
        lines::settle();
        info!("stopped");
    }
}
