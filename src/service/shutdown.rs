//! The order of leaving: accept no more, close the hub's transports gently, finish requests, end.

use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::observe::lines;
use crate::worker::Command;

use super::signals::{Event, Signals};
use super::{Service, systemd};

impl Service {
    /// Leaves within `shutdown.grace`; a second signal to stop hurries.
    pub(super) async fn leave(mut self, mut signals: Signals) {
        let (grace, over) = {
            let snapshot = self.current.load();
            let over = snapshot.config().hub.as_ref().map(|hub| hub.drain_over);
            (snapshot.config().shutdown.grace, over.unwrap_or_default())
        };
        systemd::stopping("draining");
        info!(?grace, "stopping");
        self.drain.begin();
        let until = Instant::now() + grace;
        let emptied = async {
            for worker in &self.workers {
                worker.tell(Command::Drain).await;
            }
            // Some of the grace is left for what the last transports still have to say.
            self.resident.hub.close(over.min(grace.mul_f32(0.7))).await;
            for worker in &mut self.workers {
                worker.ended().await;
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
        lines::settle();
        info!("stopped");
    }
}
