//! Asks the applications about clients: bounded, signed, with a deadline, again while one restarts.

mod application;
mod breaker;
mod lines;
mod losses;
pub mod reply;
mod sign;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use crate::drain::Drain;
use crate::exchange::{self, Body, BodyError, Peer, Request};
use crate::observe::metrics::{self, Series};
use crate::observe::trace::{Context, Kind, Span, Value};
use crate::upstream::Pools;

use super::engine::{Handshake, Id};
use super::policy::HookPolicy;

use application::Application;
use losses::Losses;

pub use application::Seat;
pub use lines::{Line, Lines, Place};
pub use losses::Loss;
pub use reply::{Emit, Outcome, Reply, Said};
pub use sign::uuid;

/// Bytes of an answer. More is an answer that means nothing, not none: asking again would have it
/// done again.
const ANSWER_MAX: usize = 1 << 20;
/// Before the first repetition; doubled for each that follows.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The same for farewells, which go on for as long as the application is away.
const PARTING_PAUSE_MAX: Duration = Duration::from_secs(5);

const SIGNATURE: HeaderName = HeaderName::from_static("x-vestibule-signature");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// One worker's way to the applications.
pub struct Hooks {
    policy: RefCell<Option<Arc<HookPolicy>>>,
    /// By the ids of their targets.
    applications: RefCell<HashMap<Arc<[u64]>, Rc<Application>>>,
    pub lines: Rc<Lines>,
    pools: Rc<Pools>,
    drain: Drain,
    losses: Losses,
    asked: Arc<Series>,
    failed: Arc<Series>,
}

/// A question, the same however often it is asked.
pub struct Question {
    pub path: Arc<str>,
    pub body: Bytes,
}

/// Why there was no answer that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unheard {
    /// Nobody was there.
    Away,
    /// Its handler fails.
    Failed,
}

/// Who is asked, and by which rules.
struct Way {
    policy: Arc<HookPolicy>,
    application: Rc<Application>,
}

impl Hooks {
    pub fn new(pools: Rc<Pools>, drain: &Drain) -> Rc<Self> {
        Rc::new(Self {
            policy: RefCell::default(),
            applications: RefCell::default(),
            lines: Rc::default(),
            pools,
            drain: drain.clone(),
            losses: Losses::default(),
            asked: metrics::series(&metrics::HOOKS, &["answered"]),
            failed: metrics::series(&metrics::HOOKS, &["failed"]),
        })
    }

    pub fn change(&self, policy: Option<Arc<HookPolicy>>) {
        let mut applications = self.applications.borrow_mut();
        applications.retain(|id, _| policy.as_ref().is_some_and(|policy| policy.asks(id)));
        *self.policy.borrow_mut() = policy;
    }

    /// The application of the site that the client came for; `None` if nobody is asked.
    fn way(&self, handshake: &Handshake) -> Option<Way> {
        let policy = self.policy.borrow().clone()?;
        let (id, _) = policy.upstream(&handshake.client.host)?;
        let mut applications = self.applications.borrow_mut();
        let application = applications.entry(Arc::clone(id)).or_default();
        let application = Rc::clone(application);
        Some(Way { policy, application })
    }

    /// Asks until there is an answer or the time for it is over, which began when the client said
    /// what is asked about. Waiting behind what it said before, for its turn in the line, for a free
    /// place and for the circuit to close takes of that time; it is asked once at least, if it can be
    /// at once then.
    pub async fn ask(
        &self,
        place: &mut Place,
        question: &Question,
        since: Instant,
        handshake: &Handshake,
    ) -> Outcome {
        let Some(Way { policy, .. }) = self.way(handshake) else { return Outcome::Unavailable };
        let until = since + policy.retry;
        if timeout_at(until, place.turn()).await.is_err() {
            return Outcome::Unavailable;
        }
        let mut pause = PAUSE;
        // A reload may have changed who is asked.
        while let Some(way) = self.way(handshake) {
            let free = timeout_at(until, way.application.under_way.acquire()).await;
            // Never closed.
            let Ok(free) = free else { break };
            if let Ok(outcome) = self.try_once(&way, question, handshake).await {
                return outcome;
            }
            drop(free);
            if Instant::now() + pause > until {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Outcome::Unavailable
    }

    /// Tells of somebody who has left, at least once, without anybody waiting for it; after all that
    /// is asked about the same socket. `heard` is called with what comes of it, if anything does.
    pub fn tell(
        self: &Rc<Self>,
        id: Id,
        question: Question,
        handshake: Rc<Handshake>,
        heard: impl FnOnce(Outcome) + 'static,
    ) {
        let Some(seat) = self.seat(&handshake, question.body.len(), 1) else { return };
        let (hooks, place) = (Rc::clone(self), self.lines.stand(id));
        self.drain.spawn("farewell", async move {
            match hooks.tell_until_heard(place, &question, &handshake).await {
                Ok(outcome) => heard(outcome),
                Err(loss) => hooks.losses.add(loss),
            }
            drop(seat);
        });
    }

    /// A handler that fails for as long as `retry`, while the application is there for others, holds up
    /// the socket's line no longer: its client may be back.
    async fn tell_until_heard(
        &self,
        mut place: Place,
        question: &Question,
        handshake: &Handshake,
    ) -> Result<Outcome, Loss> {
        place.turn().await;
        let mut place = Some(place);
        let (begun, mut pause) = (Instant::now(), PAUSE);
        loop {
            let way = self.way(handshake).ok_or(Loss::Unconfigured)?;
            // Never closed.
            let free = way.application.parting.acquire().await;
            let unheard = match self.try_once(&way, question, handshake).await {
                Ok(outcome) => return Ok(outcome),
                Err(unheard) => unheard,
            };
            drop(free);
            let is_late = begun.elapsed() >= way.policy.retry;
            if self.drain.is_leaving() && is_late {
                return Err(Loss::Stopped);
            }
            if unheard == Unheard::Failed && is_late && place.take().is_some() {
                warn!(path = %question.path, "a handler fails; what else is asked of its sockets goes on");
            }
            sleep(pause).await;
            pause = (pause * 2).min(PARTING_PAUSE_MAX);
        }
    }

    /// Room for `count` things of `bytes` that somebody has left behind; `None`, and they are
    /// counted as lost, if too much waits already.
    pub fn seat(&self, handshake: &Handshake, bytes: usize, count: usize) -> Option<Seat> {
        let seat = match self.way(handshake) {
            Some(way) => way.application.seat(bytes + handshake.size()).ok_or(Loss::Full),
            None => Err(Loss::Unconfigured),
        };
        seat.inspect_err(|loss| self.lose(*loss, count)).ok()
    }

    /// So many will not be told.
    pub fn lose(&self, loss: Loss, count: usize) {
        (0..count).for_each(|_| self.losses.add(loss));
    }

    /// A socket has come from another worker: who stands in its line there is asked about first.
    pub fn adopt(&self, id: Id, line: Line) {
        if let Some(mut place) = self.lines.adopt(id, line).filter(|place| !place.is_first()) {
            // It keeps the line known here until those are through.
            self.drain.spawn("line", async move { place.turn().await });
        }
    }

    /// An error: it is worth asking again.
    async fn try_once(
        &self,
        Way { policy, application }: &Way,
        question: &Question,
        handshake: &Handshake,
    ) -> Result<Outcome, Unheard> {
        let (_, upstream) = policy.upstream(&handshake.client.host).ok_or(Unheard::Away)?;
        if !application.breaker.borrow_mut().admits(Instant::now()) {
            return Err(Unheard::Away);
        }
        let context = policy.traced.map(Context::begin);
        let request = request(policy, question, handshake, context).ok_or(Unheard::Away)?;
        let told = Asked::begin(context, question, handshake);
        let exchange = async {
            let response =
                upstream.send(request, &self.pools).await.map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            match response.into_body().read_all(ANSWER_MAX).await {
                Ok(body) => Ok(reply::read(status, &body, policy.attachments)),
                Err(BodyError::TooLarge { .. }) => Ok(reply::read_oversized(status, ANSWER_MAX)),
                Err(error) => Err(error.to_string()),
            }
        };
        let answer = timeout(policy.timeout, Box::pin(exchange)).await;
        let answer =
            answer.unwrap_or_else(|_elapsed| Err(format!("no answer within {:?}", policy.timeout)));
        if let Some(told) = told {
            told.end(match &answer {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(why) => Some(why.clone()),
            });
        }
        let answer = match answer {
            // One handler fails, and the application is there for the others.
            Ok(Err(error)) if !error.is_absence() => {
                self.failed.increment();
                application.breaker.borrow_mut().succeeded();
                info!(path = %question.path, reason = %error, "a hook was not answered");
                return Err(Unheard::Failed);
            }
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(why) => Err(why),
        };
        match answer {
            Ok(outcome) => {
                if let Some(mistake) = outcome.mistake() {
                    warn!(path = %question.path, reason = mistake, "a hook's reply cannot be done");
                }
                self.asked.increment();
                application.breaker.borrow_mut().succeeded();
                Ok(outcome)
            }
            Err(why) => {
                self.failed.increment();
                if application.breaker.borrow_mut().failed(Instant::now()) {
                    warn!(path = %question.path, reason = why, "the application does not answer hooks");
                } else {
                    info!(path = %question.path, reason = why, "a hook was not answered");
                }
                Err(Unheard::Away)
            }
        }
    }
}

/// The span of one question.
struct Asked {
    span: Span,
    since: Instant,
}

impl Asked {
    /// In a trace of its own, since a socket may last for days; linked to the handshake's.
    fn begin(context: Option<Context>, question: &Question, handshake: &Handshake) -> Option<Self> {
        let context = context.filter(|context| context.is_sampled)?;
        let text = |text: &str| Value::Text(text.to_owned());
        let attributes = vec![
            ("http.request.method", text("POST")),
            ("url.path", text(&question.path)),
            ("server.address", text(&handshake.client.host)),
            ("http.request.body.size", Value::Number(question.body.len() as i64)),
        ];
        let span = Span {
            name: format!("hook {}", question.path),
            kind: Kind::Client,
            context,
            parent: None,
            link: handshake.trace,
            began: SystemTime::now(),
            took: Duration::ZERO,
            attributes,
            error: None,
        };
        Some(Self { span, since: Instant::now() })
    }

    fn end(mut self, error: Option<String>) {
        (self.span.took, self.span.error) = (self.since.elapsed(), error);
        self.span.send();
    }
}

fn request(
    policy: &HookPolicy,
    question: &Question,
    handshake: &Handshake,
    context: Option<Context>,
) -> Option<Request> {
    let mut request = Request::new(Body::from(question.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = question.path.parse().ok()?;
    let fields = request.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let trace = context.map_or_else(sign::traceparent, |context| context.write());
    set(fields, TRACEPARENT, &trace);
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
