//! Sends requests to the application: a target, a connection, a response.

mod attempt;
mod balance;
mod connect;
mod connection;
mod download;
mod error;
pub mod health;
mod http1;
mod pool;
mod target;
mod tunnel;
mod upload;

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;

use crate::config;
use crate::exchange::{Body, Request, Response};

use attempt::{Answered, Failure, Outgoing};
use balance::Candidate;
use connection::Connection;
use download::Keeping;
use http1::Head;
use target::{Load, Target};
use upload::Upload;

pub use error::SendError;
#[cfg(any(test, fuzzing))]
pub use http1::fuzzing;
pub use pool::Pools;
pub use target::Registry;
pub use tunnel::Tunnel;

/// A named group of targets that are each as good as the other.
#[derive(Debug)]
pub struct Upstream {
    targets: Vec<Arc<Target>>,
    balance: config::Balance,
    keep: config::Keep,
    deadlines: Deadlines,
    /// A WebSocket may be silent for as long as a kept connection: its pings come every 30 s or so.
    tunnel_idle: Duration,
}

/// How long one exchange waits for what.
#[derive(Debug, Clone)]
pub struct Deadlines {
    pub connect: Duration,
    /// From the request's last byte to the response's head.
    pub first_byte: Duration,
    /// Between two pieces of a body, either way.
    pub body_idle: Duration,
}

/// What became of a request to change protocols.
pub enum Upgrade {
    /// The 101, and the connection that now speaks the other protocol.
    Accepted(Response, Tunnel),
    Refused(Response),
}

/// The head of a response, and what it came on.
struct Reply {
    answered: Answered,
    connection: Connection,
    load: Load,
}

/// What the targets' own keep-alive time is cut by, so that no request meets a closing socket.
const KEEP_MARGIN: Duration = Duration::from_secs(1);

impl Upstream {
    /// Takes its targets from the registry, which keeps their state over reloads.
    pub fn compile(
        words: &config::Upstream,
        timeouts: &config::Timeouts,
        first_byte: Option<Duration>,
        registry: &Arc<Registry>,
    ) -> Self {
        let targets = words.targets.iter().map(|target| registry.target(target, &words.health));
        Self {
            targets: targets.collect(),
            balance: words.balance,
            keep: words.keep.clone(),
            tunnel_idle: timeouts.idle.max(timeouts.body_idle),
            deadlines: Deadlines {
                connect: timeouts.connect,
                first_byte: first_byte.unwrap_or(timeouts.first_byte),
                body_idle: timeouts.body_idle,
            },
        }
    }

    /// The same for upstreams of the same targets, also over reloads.
    pub fn id(&self) -> Vec<u64> {
        let mut id: Vec<_> = self.targets.iter().map(|target| target.id).collect();
        id.sort_unstable();
        id
    }

    pub fn is_up(&self) -> bool {
        self.targets.iter().any(|target| target.is_up())
    }

    /// True if a target listens at this authority, `host:port`, by whatever name of this machine.
    pub fn listens_at(&self, authority: &str) -> bool {
        let local = local_port(authority);
        self.targets.iter().any(|target| {
            let own = target.authority();
            own == authority || (local.is_some() && local_port(own) == local)
        })
    }

    /// Sends a request and returns its response, whose body streams.
    ///
    /// The body of the request is streamed too; a response may come before its end. A target that
    /// refuses is passed over, and a kept connection that turns out closed is replaced, as long as
    /// nothing can have been done twice.
    pub async fn send(&self, request: Request, pools: &Rc<Pools>) -> Result<Response, SendError> {
        let mut request = outgoing(request);
        let reply = self.reply(&mut request, pools).await?;
        Ok(self.response(reply, request, pools))
    }

    /// Sends a request that asks for another protocol.
    pub async fn upgrade(&self, request: Request, pools: &Rc<Pools>) -> Result<Upgrade, SendError> {
        let mut request = outgoing(request);
        let reply = self.reply(&mut request, pools).await?;
        if reply.answered.head.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Upgrade::Refused(self.response(reply, request, pools)));
        }
        let response = with_body(reply.answered.head, Body::empty());
        let tunnel = Tunnel::new(reply.connection, reply.load, self.tunnel_idle);
        Ok(Upgrade::Accepted(response, tunnel))
    }

    async fn reply(&self, request: &mut Outgoing, pools: &Rc<Pools>) -> Result<Reply, SendError> {
        let mut tried = Vec::new();
        let mut kept = true;
        let mut last = None;
        while let Some((place, target)) = self.pick(&tried, pools) {
            let hopeless = !target.is_up();
            let error = match self.attempt(target, request, pools, kept).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let allowed = error.retry().allows(&request.parts.method);
            if !allowed || !request.upload.is_repeatable() {
                return Err(error);
            }
            if let SendError::Closed { .. } = error {
                // The target has closed what it kept: the next one must be new.
                pools.forget(target);
                kept = false;
            } else {
                tried.push(place);
            }
            last = Some(if hopeless { error.of_a_target_that_is_down() } else { error });
        }
        Err(last.unwrap_or(SendError::NoTarget))
    }

    /// A target that is up and untried; when none is up, any, so that a wrong verdict of a health
    /// check does not take the whole application away.
    fn pick(&self, tried: &[usize], pools: &Pools) -> Option<(usize, &Arc<Target>)> {
        if let [only] = self.targets.as_slice() {
            return tried.is_empty().then_some((0, only));
        }
        let turn = pools.turn(self.targets.first()?);
        let choose = |anyhow: bool| {
            let candidates = self.targets.iter().enumerate().map(|(place, target)| Candidate {
                load: target.load.load(Ordering::Relaxed),
                free: anyhow || (target.is_up() && !tried.contains(&place)),
            });
            balance::choose(self.balance, candidates, turn)
        };
        let place = choose(false).or_else(|| tried.is_empty().then(|| choose(true)).flatten())?;
        Some((place, self.targets.get(place)?))
    }

    async fn attempt(
        &self,
        target: &Arc<Target>,
        request: &mut Outgoing,
        pools: &Pools,
        kept: bool,
    ) -> Result<Reply, SendError> {
        let load = Load::begin(target);
        let mut connection = match kept.then(|| take(target, request, pools)).flatten() {
            Some(connection) => connection,
            None => {
                Connection::new(Box::pin(connect::connect(target, self.deadlines.connect)).await?)
            }
        };
        match attempt::exchange(&mut connection, request, &self.deadlines).await {
            Ok(answered) => Ok(Reply { answered, connection, load }),
            Err(failure) => Err(self.blame(failure, target, &connection)),
        }
    }

    fn blame(&self, failure: Failure, target: &Target, connection: &Connection) -> SendError {
        let reused = connection.reused;
        let target = Arc::clone(&target.name);
        match failure {
            Failure::Closed { unsent } => SendError::Closed { target, reused, unsent },
            Failure::Cut => SendError::Cut { target },
            Failure::BadResponse(what) => SendError::BadResponse { target, what },
            Failure::HeadDeadline => {
                SendError::HeadDeadline { target, after: self.deadlines.first_byte }
            }
            Failure::UploadDeadline => {
                SendError::UploadDeadline { target, after: self.deadlines.body_idle }
            }
            Failure::Body(source) => SendError::Body { source },
        }
    }

    fn response(&self, reply: Reply, request: Outgoing, pools: &Rc<Pools>) -> Response {
        let Reply { answered: Answered { head, sent }, connection, load } = reply;
        let lasts = match head.lasts {
            _ if !head.persists => Duration::ZERO,
            Some(lasts) => lasts.saturating_sub(KEEP_MARGIN).min(self.keep.lasts),
            None => self.keep.lasts,
        };
        let keeping = Keeping { load, pools: Rc::clone(pools), lasts, max: self.keep.idle };
        let upload = (!sent).then_some(request.upload);
        let body = download::body(&head, connection, upload, keeping, self.deadlines.body_idle);
        with_body(head, body)
    }
}

fn outgoing(request: Request) -> Outgoing {
    let (parts, body) = request.into_parts();
    Outgoing::new(parts, Upload::new(body))
}

/// A kept connection. What cannot be sent twice is given one that the kernel vouches for.
fn take(target: &Target, request: &Outgoing, pools: &Pools) -> Option<Connection> {
    while let Some(connection) = pools.take(target) {
        if request.parts.method.is_idempotent() || connection.socket.is_silent() {
            return Some(connection);
        }
    }
    None
}

fn with_body(head: Head, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, target) in self.targets.iter().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            let state = if target.is_up() { "up" } else { "down" };
            write!(f, "{comma}{} is {state}", target.name)?;
        }
        Ok(())
    }
}
/// The port of an authority that names this machine.
fn local_port(authority: &str) -> Option<&str> {
    let (host, port) = authority.rsplit_once(':')?;
    ["localhost", "127.0.0.1", "[::1]"].contains(&host).then_some(port)
}
