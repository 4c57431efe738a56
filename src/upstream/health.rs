//! Asks targets whether they are there, on the main thread.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderValue, Method, Request, header};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::exchange::Body;
use crate::exchange::headers::Lines;

use super::attempt::{Outgoing, exchange};
use super::connection::Connection;
use super::streak::{Finding, Streak};
use super::target::{Begins, Registry, Target};
use super::upload::Upload;
use super::{Deadlines, connect, tls};

/// How often a target is asked whose verdict may change, if its own pace is slower.
const UNSURE_EVERY: Duration = Duration::from_millis(500);
/// The same while requests wait for it.
const WANTED_EVERY: Duration = Duration::from_millis(100);

/// Asks every target of the registry at its pace, for as long as some snapshot uses it.
pub async fn watch(registry: Arc<Registry>) {
    let mut followed: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    let mut next_id = 0;
    loop {
        let mut added = pin!(registry.added.notified());
        for target in registry.since(next_id) {
            next_id = next_id.max(target.id + 1);
            followed.push(Box::pin(follow(Arc::downgrade(&target))));
        }
        poll_fn(|cx| {
            followed.retain_mut(|following| following.as_mut().poll(cx).is_pending());
            added.as_mut().poll(cx)
        })
        .await;
    }
}

async fn follow(target: Weak<Target>) {
    let known = target.upgrade().is_some_and(|target| target.begins == Begins::Known);
    let mut streak = if known { Streak::known() } else { Streak::default() };
    let mut first = true;
    loop {
        let Some(used) = target.upgrade() else { return };
        let (finding, why) = find(&used).await;
        let was_up = used.is_up();
        let up = streak.judge(finding, was_up, &used.health);
        used.set_up(up, &why);
        if std::mem::take(&mut first) && !was_up && !up {
            // Nothing has changed, and nobody has heard of it yet.
            info!(target = %used.name, reason = %why, "target is down");
        }
        let every = used.health.every;
        let pace = if !streak.is_unsure(up) {
            every
        } else if used.is_wanted() {
            every.min(WANTED_EVERY)
        } else {
            every.min(UNSURE_EVERY)
        };
        let hurry = Arc::clone(&used.hurry);
        // A target that nobody uses any more is not kept by its checks.
        drop(used);
        // Also in a hurry it is not asked without a pause.
        let shortest = every.min(WANTED_EVERY);
        sleep(shortest).await;
        // Nothing is lost when the wait is dropped: a word that there is a hurry is kept.
        let _hurried = timeout(pace.saturating_sub(shortest), hurry.notified()).await;
    }
}

/// What one check finds, and the reason if that is nothing good.
async fn find(target: &Target) -> (Finding, String) {
    let patience = target.health.timeout;
    match timeout(patience, Box::pin(ask(target))).await {
        Ok(Ok(())) => (Finding::Good, String::new()),
        Ok(Err(Unhealthy::Unreached(error))) if connect::is_ours(&error) => {
            warn!(target = %target.name, %error, "a check cannot be made");
            (Finding::Unknown, String::new())
        }
        Ok(Err(Unhealthy::Unreached(error))) if tls::is_distrust(&error) => {
            (Finding::Bad, error.to_string())
        }
        Ok(Err(Unhealthy::Unreached(error))) => (Finding::Gone, error.to_string()),
        Ok(Err(Unhealthy::Answer(why))) => (Finding::Bad, why),
        Err(_elapsed) => (Finding::Bad, format!("no answer to a check within {patience:?}")),
    }
}

/// What is wrong with a target.
enum Unhealthy {
    Unreached(io::Error),
    Answer(String),
}

async fn ask(target: &Target) -> Result<(), Unhealthy> {
    let socket = connect::open(target).await.map_err(Unhealthy::Unreached)?;
    let mut connection = Connection::new(socket);
    let Some(path) = &target.health.path else { return Ok(()) };
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(header::HOST, target.authority())
        .header(header::USER_AGENT, HeaderValue::from_static("vestibule-health"))
        .header(header::CONNECTION, HeaderValue::from_static("close"))
        .body(())
        .map_err(|error| Unhealthy::Answer(error.to_string()))?;
    let (parts, ()) = request.into_parts();
    let mut request = Outgoing::new(parts, Lines::default(), Upload::new(Body::empty()));
    let patience = target.health.timeout;
    let deadlines = Deadlines { connect: patience, first_byte: patience, body_idle: patience };
    match exchange(&mut connection, &mut request, &deadlines).await {
        Ok(answered) if target.health.is_good(answered.head.status.as_u16()) => Ok(()),
        Ok(answered) => {
            Err(Unhealthy::Answer(format!("a check is answered {}", answered.head.status)))
        }
        Err(failure) => Err(Unhealthy::Answer(format!("a check is not answered: {failure:?}"))),
    }
}
