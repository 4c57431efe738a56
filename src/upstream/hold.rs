//! Requests that wait until a target can take them: bounded in number and in time.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::config;
use crate::observe::metrics::{self, Series};

use super::target::{Registry, Target};

/// What one upstream lets wait; the places are those of all upstreams with the same targets.
#[derive(Debug)]
pub struct Hold {
    pub lasts: Duration,
    queue: usize,
    waiting: Arc<Waiting>,
}

/// Who waits for a group of targets, on all workers.
#[derive(Debug)]
pub struct Waiting {
    count: AtomicUsize,
    gauge: Arc<Series>,
    released: Arc<Series>,
    expired: Arc<Series>,
    full: Arc<Series>,
    left: Arc<Series>,
}

/// One request's place among those that wait; given back when it is dropped.
pub struct Place<'a> {
    waiting: &'a Waiting,
    targets: &'a [Arc<Target>],
    /// Requests in flight that each may have.
    max: Option<usize>,
    /// What has come of it; a client that leaves says nothing.
    outcome: Option<&'a Series>,
}

impl Waiting {
    pub fn new(upstream: &str) -> Self {
        let outcome = |word| metrics::series(&metrics::HOLDS, &[upstream, word]);
        Self {
            count: AtomicUsize::new(0),
            gauge: metrics::series(&metrics::HELD, &[upstream]),
            released: outcome("released"),
            expired: outcome("expired"),
            full: outcome("full"),
            left: outcome("left"),
        }
    }
}

impl Hold {
    pub fn compile(words: &config::Hold, targets: &[config::Target], registry: &Registry) -> Self {
        Self { lasts: words.lasts, queue: words.queue, waiting: registry.waiting(targets) }
    }

    /// Others wait already.
    pub fn is_waited(&self) -> bool {
        self.waiting.count.load(Ordering::SeqCst) > 0
    }

    /// `None` if as many wait as may.
    pub fn enter<'a>(
        &'a self,
        targets: &'a [Arc<Target>],
        max: Option<usize>,
    ) -> Option<Place<'a>> {
        let waiting = &*self.waiting;
        let more = |count: usize| (count < self.queue).then(|| count.saturating_add(1));
        if waiting.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_err() {
            waiting.full.increment();
            return None;
        }
        waiting.gauge.increment();
        targets.iter().for_each(|target| target.want(true));
        Some(Place { waiting, targets, max, outcome: None })
    }
}

impl Place<'_> {
    /// Waits for news of a target. False when `until` has come.
    ///
    /// `now` looks whether a target can take the request already; it is asked once whoever brings
    /// news would be heard.
    pub async fn news(&self, until: Instant, now: impl FnOnce(&Self) -> bool) -> bool {
        let news = self.targets.iter().map(|target| Box::pin(target.freed.notified()));
        let mut news: Vec<_> = news.collect();
        for each in &mut news {
            // What it says is asked for below.
            let _told = each.as_mut().enable();
        }
        if now(self) {
            return true;
        }
        // Who is told of a place and does not poll again passes the word on when it is dropped.
        let told = poll_fn(|cx| {
            let told = news.iter_mut().any(|each| each.as_mut().poll(cx).is_ready());
            if told { Poll::Ready(()) } else { Poll::Pending }
        });
        timeout_at(until, told).await.is_ok()
    }

    /// Nobody else waits.
    pub fn is_alone(&self) -> bool {
        self.waiting.count.load(Ordering::SeqCst) <= 1
    }

    pub fn release(mut self) {
        self.outcome = Some(&self.waiting.released);
    }

    pub fn expire(mut self) {
        self.outcome = Some(&self.waiting.expired);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.count.fetch_sub(1, Ordering::SeqCst);
        self.waiting.gauge.decrement();
        self.outcome.unwrap_or(&self.waiting.left).increment();
        for target in self.targets {
            target.want(false);
            // There may be room for the next one too, who was not told.
            if target.is_wanted() && target.has_room(self.max) {
                target.freed.notify_one();
            }
        }
    }
}
