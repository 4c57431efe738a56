//! Asks targets whether they are there, on the main thread.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderValue, Method, Request, header};
use tokio::time::{sleep, timeout};

use crate::exchange::Body;

use super::attempt::{Outgoing, exchange};
use super::connection::Connection;
use super::target::{Registry, Target};
use super::upload::Upload;
use super::{Deadlines, connect};

/// How often a target that is down is asked, if its own pace is slower.
const DOWN_EVERY: Duration = Duration::from_millis(500);

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
    loop {
        let Some(used) = target.upgrade() else { return };
        let healthy = is_healthy(&used).await;
        used.set_up(healthy);
        let every = used.health.every;
        let pause = if healthy { every } else { every.min(DOWN_EVERY) };
        let found_down = Arc::clone(&used.found_down);
        drop(used);
        // Nothing is lost when the sleep is dropped; the word that a target is down is kept.
        if timeout(pause, found_down.notified()).await.is_ok() {
            sleep(every.min(DOWN_EVERY)).await;
        }
    }
}

async fn is_healthy(target: &Target) -> bool {
    let asked = timeout(target.health.timeout, ask(target)).await;
    asked.is_ok_and(|answered| answered.is_ok_and(|healthy| healthy))
}

async fn ask(target: &Target) -> io::Result<bool> {
    let mut connection = Connection::new(connect::open(&target.address).await?);
    let Some(path) = &target.health.path else { return Ok(true) };
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(header::HOST, target.authority())
        .header(header::USER_AGENT, HeaderValue::from_static("vestibule-health"))
        .header(header::CONNECTION, HeaderValue::from_static("close"))
        .body(())
        .map_err(io::Error::other)?;
    let (parts, ()) = request.into_parts();
    let mut request = Outgoing::new(parts, Upload::new(Body::empty()));
    let patience = target.health.timeout;
    let deadlines = Deadlines { connect: patience, first_byte: patience, body_idle: patience };
    let answered = exchange(&mut connection, &mut request, &deadlines).await;
    Ok(answered.is_ok_and(|answered| answered.head.status.as_u16() < 500))
}
