//! Asks the application about clients: bounded, signed, with a deadline, again while it restarts.

mod breaker;
pub mod reply;
mod sign;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use crate::drain::Drain;
use crate::exchange::{self, Body, Peer, Request};
use crate::observe::metrics::{self, Series};
use crate::upstream::Pools;

use super::engine::Handshake;
use super::policy::HookPolicy;

use breaker::Breaker;

pub use reply::{Emit, Outcome, Reply};
pub use sign::uuid;

/// Questions under way at once, of one worker. More wait; each waits in its own socket's line.
const UNDER_WAY: usize = 256;
/// The same for farewells, for which nobody waits: they take no place from those who do.
const PARTING: usize = 32;
/// Farewells that wait to be told, of one worker. Full: the newest is dropped and counted.
const FAREWELLS: usize = 4096;
/// Bytes of an answer.
const ANSWER_MAX: usize = 1 << 20;
/// Before the first repetition; doubled for each that follows.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

const SIGNATURE: HeaderName = HeaderName::from_static("x-vestibule-signature");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// One worker's way to the application.
pub struct Hooks {
    policy: RefCell<Option<Arc<HookPolicy>>>,
    pools: Rc<Pools>,
    drain: Drain,
    under_way: Semaphore,
    parting: Semaphore,
    farewells: Cell<usize>,
    breaker: RefCell<Breaker>,
    asked: Arc<Series>,
    failed: Arc<Series>,
    lost: Arc<Series>,
}

/// A question, the same however often it is asked.
pub struct Question {
    pub path: Arc<str>,
    pub body: Bytes,
}

impl Hooks {
    pub fn new(pools: Rc<Pools>, drain: &Drain) -> Rc<Self> {
        Rc::new(Self {
            policy: RefCell::default(),
            pools,
            drain: drain.clone(),
            under_way: Semaphore::new(UNDER_WAY),
            parting: Semaphore::new(PARTING),
            farewells: Cell::new(0),
            breaker: RefCell::default(),
            asked: metrics::series(&metrics::HOOKS, &["answered"]),
            failed: metrics::series(&metrics::HOOKS, &["failed"]),
            lost: metrics::series(&metrics::HOOKS, &["lost"]),
        })
    }

    pub fn change(&self, policy: Option<Arc<HookPolicy>>) {
        *self.policy.borrow_mut() = policy;
    }

    /// Asks until there is an answer or the time for it is over.
    pub async fn ask(&self, question: &Question, handshake: &Handshake) -> Outcome {
        self.ask_among(&self.under_way, question, handshake).await
    }

    /// The same, in one of `places` while it is being asked; waiting for one takes of the time.
    async fn ask_among(
        &self,
        places: &Semaphore,
        question: &Question,
        handshake: &Handshake,
    ) -> Outcome {
        let Some(policy) = self.policy.borrow().clone() else { return Outcome::Unavailable };
        let until = Instant::now() + policy.retry;
        let mut pause = PAUSE;
        loop {
            // Never closed.
            let Ok(place) = timeout_at(until, places.acquire()).await else {
                return Outcome::Unavailable;
            };
            if let Some(outcome) = self.try_once(&policy, question, handshake).await {
                return outcome;
            }
            drop(place);
            if Instant::now() + pause > until {
                return Outcome::Unavailable;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Tells of somebody who has left, at least once, without anybody waiting for it.
    pub fn tell(self: &Rc<Self>, question: Question, handshake: Rc<Handshake>) {
        if self.farewells.get() >= FAREWELLS {
            self.lost.increment();
            return;
        }
        self.farewells.set(self.farewells.get() + 1);
        let hooks = Rc::clone(self);
        self.drain.spawn("farewell", async move {
            // The application may be away for longer than clients would wait.
            while hooks.ask_among(&hooks.parting, &question, &handshake).await
                == Outcome::Unavailable
            {
                let forgotten = hooks.policy.borrow().is_none();
                if forgotten || hooks.drain.is_leaving() {
                    hooks.lost.increment();
                    break;
                }
                // It may have come back without having waited for anything.
                sleep(PAUSE).await;
            }
            hooks.farewells.set(hooks.farewells.get() - 1);
        });
    }

    /// `None`: it is worth asking again.
    async fn try_once(
        &self,
        policy: &HookPolicy,
        question: &Question,
        handshake: &Handshake,
    ) -> Option<Outcome> {
        let upstream = policy.upstream(&handshake.client.host)?;
        if !self.breaker.borrow_mut().admits(Instant::now()) {
            return None;
        }
        let request = request(policy, question, handshake)?;
        let exchange = async {
            let response =
                upstream.send(request, &self.pools).await.map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            let body = response.into_body().read_all(ANSWER_MAX).await;
            let body = body.map_err(|error| error.to_string())?;
            reply::read(status, &body).map_err(|error| error.to_string())
        };
        let answer = timeout(policy.timeout, Box::pin(exchange)).await;
        match answer
            .unwrap_or_else(|_elapsed| Err(format!("no answer within {:?}", policy.timeout)))
        {
            Ok(outcome) => {
                self.asked.increment();
                self.breaker.borrow_mut().succeeded();
                Some(outcome)
            }
            Err(why) => {
                self.failed.increment();
                if self.breaker.borrow_mut().failed(Instant::now()) {
                    warn!(path = %question.path, reason = why, "the application does not answer hooks");
                } else {
                    info!(path = %question.path, reason = why, "a hook was not answered");
                }
                None
            }
        }
    }
}

fn request(policy: &HookPolicy, question: &Question, handshake: &Handshake) -> Option<Request> {
    let mut request = Request::new(Body::from(question.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = question.path.parse().ok()?;
    let fields = request.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    set(fields, TRACEPARENT, &sign::traceparent());
    for (name, value) in &handshake.headers {
        fields.append(name, value.clone());
    }
    if let Some(secret) = &policy.secret {
        set(fields, SIGNATURE, &sign::signature(secret, &question.body));
    }
    let peer = Peer {
        address: (handshake.client.address, 0).into(),
        local_port: handshake.client.port,
        tls: None,
    };
    exchange::headers::set_forwarded(fields, &handshake.client, &peer);
    Some(request)
}

fn set(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.insert(name, value);
    }
}
