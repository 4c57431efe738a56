//! Sends requests to the application: a target, a connection, a response.

mod attempt;
mod balance;
mod connect;
mod connection;
mod course;
mod download;
mod error;
pub mod health;
mod hold;
mod http1;
mod names;
mod pool;
pub mod probe;
mod record;
mod streak;
mod target;
mod tls;
mod tunnel;
mod upload;

use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::config;
use crate::exchange::headers::Lines;
use crate::exchange::{Body, Request, Response};
use crate::observe::access::Sent;

use attempt::{Answered, Failure, Outgoing};
use balance::Candidate;
use connection::Connection;
use course::Course;
use download::Keeping;
use hold::Hold;
use http1::Head;
use target::{Begins, Load, Target};
use upload::Upload;

pub use attempt::says_length;
pub use error::SendError;
#[cfg(any(test, fuzzing))]
pub use http1::fuzzing;
pub use pool::Pools;
pub use target::Registry;
pub use tls::CompileError;
pub use tunnel::Tunnel;

/// A named group of targets that are each as good as the other.
#[derive(Debug)]
pub struct Upstream {
    targets: Vec<Arc<Target>>,
    balance: config::Balance,
    /// Requests in flight per target, of all workers.
    max: Option<usize>,
    hold: Option<Hold>,
    eject: Option<config::Eject>,
    slow_start: Duration,
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

/// Connections in a row that a target was too slow to take before it gets no more requests. One may
/// be lost on the way, or meet a queue that is full for a moment.
const UNREACHED_DOWN: usize = 3;
/// Where Next.js listens that was told nothing.
const NEXT_PORT: u16 = 3000;

/// What the targets' own keep-alive time is cut by, so that no request meets a closing socket.
const KEEP_MARGIN: Duration = Duration::from_secs(1);

impl Upstream {
    /// Takes its targets from the registry, which keeps their state over reloads.
    pub fn compile(
        words: &config::Upstream,
        timeouts: &config::Timeouts,
        first_byte: Option<Duration>,
        registry: &Arc<Registry>,
    ) -> Result<Self, CompileError> {
        let tls = words.is_secure().then(|| registry.tls(&words.tls)).transpose()?;
        // One that is added to others can wait until it was asked. One that was up by other words (of
        // health checks, of TLS) is no other one.
        let alone = !registry.has_up(&words.targets);
        let begins = |target| match registry.has_up(std::slice::from_ref(target)) {
            true => Begins::Known,
            false if alone => Begins::Up,
            false => Begins::Down,
        };
        let all: Vec<_> = words.targets.iter().map(|target| (target, begins(target))).collect();
        let target =
            |(target, begins)| registry.target(target, &words.health, tls.as_ref(), begins);
        let targets: Result<Vec<_>, _> = all.into_iter().map(target).collect();
        let hold = words.hold.as_ref();
        Ok(Self {
            targets: targets?,
            balance: words.balance,
            max: words.max,
            hold: hold.map(|hold| Hold::compile(hold, &words.targets, registry)),
            eject: words.eject.clone(),
            slow_start: words.slow_start,
            keep: words.keep.clone(),
            tunnel_idle: timeouts.idle.max(timeouts.body_idle),
            deadlines: Deadlines {
                connect: timeouts.connect,
                first_byte: first_byte.unwrap_or(timeouts.first_byte),
                body_idle: timeouts.body_idle,
            },
        })
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

    /// True if a target listens at this port; without one, at that of its scheme. One on a unix socket
    /// calls itself by Next.js' own.
    pub fn has_port(&self, port: Option<u16>) -> bool {
        self.targets.iter().any(|target| match (port, target.port()) {
            (Some(port), Some(own)) => own == port,
            (None, Some(own)) => [80, 443].contains(&own),
            (port, None) => port.is_none_or(|port| port == NEXT_PORT),
        })
    }

    /// Sends a request and returns its response, whose body streams. Does not wait for a target.
    ///
    /// The body of the request is streamed too; a response may come before its end. A target that
    /// refuses is passed over, and a kept connection that turns out closed is replaced, as long as
    /// nothing can have been done twice.
    pub async fn send(&self, request: Request, pools: &Rc<Pools>) -> Result<Response, SendError> {
        let mut request = outgoing(request, Lines::default());
        let way = Way { pools, from: None };
        let reply = self.reply(&mut request, &way, &mut Sent::default()).await?;
        Ok(self.response(reply, request, pools))
    }

    /// Sends a client's request, with lines beside its headers. While no target can take it, it is
    /// held.
    pub async fn forward(
        &self,
        (request, lines): (Request, Lines),
        from: IpAddr,
        pools: &Rc<Pools>,
        sent: &mut Sent,
    ) -> Result<Response, SendError> {
        let mut request = outgoing(request, lines);
        let reply = self.reply(&mut request, &Way { pools, from: Some(from) }, sent).await?;
        Ok(self.response(reply, request, pools))
    }

    /// Sends a client's request that asks for another protocol; held as others are.
    pub async fn upgrade(
        &self,
        (request, lines): (Request, Lines),
        from: IpAddr,
        pools: &Rc<Pools>,
        sent: &mut Sent,
    ) -> Result<Upgrade, SendError> {
        let mut request = outgoing(request, lines);
        let reply = self.reply(&mut request, &Way { pools, from: Some(from) }, sent).await?;
        if reply.answered.head.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Upgrade::Refused(self.response(reply, request, pools)));
        }
        let response = with_body(reply.answered.head, Body::empty());
        let tunnel = Tunnel::new(reply.connection, reply.load, self.tunnel_idle);
        Ok(Upgrade::Accepted(response, tunnel))
    }

    async fn reply(
        &self,
        request: &mut Outgoing,
        way: &Way<'_>,
        sent: &mut Sent,
    ) -> Result<Reply, SendError> {
        let began = sent.begin();
        let mut course = Course::begin();
        loop {
            // Who waits already comes first.
            let waited = self.is_waited(way, &course);
            let picked = if waited { Err(Lack::Room) } else { self.pick(&course.tried, way) };
            let (place, load) = match picked {
                Ok(picked) => picked,
                Err(lack) => Box::pin(self.resort(lack, &mut course, way)).await?,
            };
            course.goes();
            sent.asks(&load.target().name);
            let error = match self.attempt(load, request, way.pools, course.kept).await {
                Ok(reply) => {
                    sent.answered(began);
                    return Ok(reply);
                }
                Err(error) => error,
            };
            course.went_wrong(error, place, request)?;
        }
    }

    fn is_waited(&self, way: &Way<'_>, course: &Course) -> bool {
        let waited = || self.hold.as_ref().is_some_and(Hold::is_waited);
        self.max.is_some() && way.from.is_some() && course.until.is_none() && waited()
    }

    /// A target that is up, untried and has room. Those that fail come last.
    fn pick(&self, tried: &[usize], way: &Way<'_>) -> Result<(usize, Load), Lack> {
        if let [only] = self.targets.as_slice() {
            return if !only.is_up() {
                Err(Lack::Up)
            } else if tried.is_empty() {
                Load::begin(only, self.max).map(|load| (0, load)).ok_or(Lack::Room)
            } else {
                Err(Lack::Untried)
            };
        }
        let first = self.targets.first().ok_or(Lack::Up)?;
        let (turn, now) = (first.turn(), target::now());
        for failing in [false, true] {
            // What another worker takes meanwhile is not free the next time.
            while let Some(place) = self.choose(way, turn, now, &|place, target| {
                !tried.contains(&place)
                    && target.has_room(self.max)
                    && (failing || !target.record.is_out(now))
            }) {
                let target = self.targets.get(place).ok_or(Lack::Up)?;
                if let Some(load) = Load::begin(target, self.max) {
                    return Ok((place, load));
                }
            }
        }
        let mut up = self.targets.iter().enumerate().filter(|(_, target)| target.is_up());
        match up.next() {
            None => Err(Lack::Up),
            Some((place, _)) if tried.contains(&place) => {
                let untried = up.any(|(place, _)| !tried.contains(&place));
                Err(if untried { Lack::Room } else { Lack::Untried })
            }
            Some(_) => Err(Lack::Room),
        }
    }

    fn choose(
        &self,
        way: &Way<'_>,
        turn: usize,
        now: u64,
        free: &dyn Fn(usize, &Target) -> bool,
    ) -> Option<usize> {
        let candidates = self.targets.iter().enumerate().map(|(place, target)| Candidate {
            load: target.load(),
            weight: target.record.weight(self.slow_start, now),
            key: target.key,
            free: free(place, target),
        });
        match (self.balance, way.from) {
            (config::Balance::Hash, None) => {
                balance::choose(config::Balance::Least, candidates, turn, 0)
            }
            (by, from) => balance::choose(by, candidates, turn, from.map_or(0, balance::number)),
        }
    }

    /// What is left when no target can be picked: to try those again that were tried, to wait, or
    /// to give up.
    async fn resort(
        &self,
        lack: Lack,
        course: &mut Course,
        way: &Way<'_>,
    ) -> Result<(usize, Load), SendError> {
        if let Some(last) = self.last_word(lack, course, way) {
            return Err(last);
        }
        course.tried.clear();
        if lack == Lack::Untried
            && course.may_go_on()
            && let Ok(picked) = self.pick(&[], way)
        {
            return Ok(picked);
        }
        match &self.hold {
            Some(hold) if way.from.is_some() => self.wait(hold, course, way).await,
            _ => self.hopeless(lack, course, way),
        }
    }

    /// The error of a request that is neither to wait nor to go where it has been.
    fn last_word(&self, lack: Lack, course: &mut Course, way: &Way<'_>) -> Option<SendError> {
        match &course.last {
            // It has waited, and only another target could be quicker.
            Some(SendError::HeadDeadline { .. }) => course.last.take(),
            // Targets that are up and take no connection just now: it has waited for one already.
            Some(SendError::ConnectDeadline { .. }) if lack == Lack::Untried => {
                let hold = self.hold.as_ref().filter(|_| way.from.is_some());
                let lasts = hold.map_or(Duration::ZERO, |hold| hold.lasts);
                let until = *course.until.get_or_insert_with(|| Instant::now() + lasts);
                if Instant::now() < until {
                    return None;
                }
                if hold.is_some() {
                    Some(SendError::HeldDown { after: lasts })
                } else {
                    course.last.take()
                }
            }
            _ => None,
        }
    }

    async fn wait(
        &self,
        hold: &Hold,
        course: &mut Course,
        way: &Way<'_>,
    ) -> Result<(usize, Load), SendError> {
        let first = course.until.is_none();
        let until = *course.until.get_or_insert_with(|| Instant::now() + hold.lasts);
        let place = hold.enter(&self.targets, self.max).ok_or(SendError::HoldFull)?;
        let mut behind = first && self.max.is_some();
        loop {
            let room = |place: &hold::Place<'_>| {
                (!behind || place.is_alone())
                    && self.targets.iter().any(|target| target.has_room(self.max))
            };
            if !place.news(until, room).await {
                place.expire();
                let after = hold.lasts;
                let busy = self.is_up();
                return Err(if busy {
                    SendError::HeldBusy { after }
                } else {
                    SendError::HeldDown { after }
                });
            }
            behind = false;
            if let Ok(picked) = self.pick(&[], way) {
                place.release();
                return Ok(picked);
            }
        }
    }

    /// Without waiting: a target that is down is asked all the same, once, since the verdict may be
    /// wrong or old.
    fn hopeless(
        &self,
        lack: Lack,
        course: &mut Course,
        way: &Way<'_>,
    ) -> Result<(usize, Load), SendError> {
        if let Some(last) = course.last.take() {
            return Err(last);
        }
        if lack != Lack::Up {
            return Err(SendError::Busy);
        }
        let first = self.targets.first().ok_or(SendError::NoTarget)?;
        let (turn, now) = (first.turn(), target::now());
        let place = self.choose(way, turn, now, &|_, _| true).ok_or(SendError::NoTarget)?;
        let target = self.targets.get(place).ok_or(SendError::NoTarget)?;
        course.hopeless = true;
        Load::begin(target, self.max).map(|load| (place, load)).ok_or(SendError::Busy)
    }

    async fn attempt(
        &self,
        load: Load,
        request: &mut Outgoing,
        pools: &Pools,
        kept: bool,
    ) -> Result<Reply, SendError> {
        let target = load.target();
        let mut connection = match kept.then(|| take(target, request, pools)).flatten() {
            Some(connection) => connection,
            None => match Box::pin(self.connect(target, pools)).await {
                Ok(connection) => connection,
                Err(error) => return Err(self.noted(error, &load)),
            },
        };
        match attempt::exchange(&mut connection, request, &self.deadlines).await {
            Ok(answered) => {
                self.judge(answered.head.status, &load);
                Ok(Reply { answered, connection, load })
            }
            Err(failure) => {
                let error = self.blame(failure, target, &connection);
                if connection.reused && matches!(error, SendError::Closed { .. }) {
                    // The target has closed what it kept: the rest is closed too, or soon.
                    pools.forget(target);
                }
                Err(self.noted(error, &load))
            }
        }
    }

    /// An answer shows that a target is well, unless the operator says of its status that it is not.
    fn judge(&self, status: StatusCode, load: &Load) {
        let rule = self.eject.as_ref().filter(|_| status.is_server_error());
        match rule.filter(|rule| rule.is_failure(status.as_u16())) {
            Some(rule) => load.failed(rule),
            None => load.succeeded(),
        }
    }

    /// What a target does to requests is held against it.
    fn noted(&self, error: SendError, load: &Load) -> SendError {
        if let Some(rule) = self.eject.as_ref().filter(|_| error.is_failure()) {
            load.failed(rule);
        }
        error
    }

    async fn connect(&self, target: &Target, pools: &Pools) -> Result<Connection, SendError> {
        let socket = match connect::connect(target, self.deadlines.connect).await {
            // What is kept for later is less than what is wanted now.
            Err(SendError::NoSocket { .. }) if pools.spare() => {
                connect::connect(target, self.deadlines.connect).await
            }
            socket => socket,
        };
        match &socket {
            Ok(_) => target.record.reached(),
            // The only one is asked on: that it took too long is no reason not to ask at all.
            Err(error @ SendError::ConnectDeadline { .. }) => {
                if target.record.unreached() >= UNREACHED_DOWN && self.targets.len() > 1 {
                    target.mark_down(error);
                }
            }
            Err(_) => (),
        }
        socket.map(Connection::new)
    }

    fn blame(&self, failure: Failure, target: &Target, connection: &Connection) -> SendError {
        let reused = connection.reused;
        let target = Arc::clone(&target.name);
        match failure {
            Failure::Closed { unsent } => SendError::Closed { target, reused, unsent },
            Failure::Cut => SendError::Cut { target },
            Failure::BadResponse(what) => SendError::BadResponse { target, what },
            Failure::HeadDeadline { silent } => {
                SendError::HeadDeadline { target, after: self.deadlines.first_byte, silent }
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

/// What a request goes with.
struct Way<'a> {
    pools: &'a Rc<Pools>,
    /// The client, whose requests wait; others do not.
    from: Option<IpAddr>,
}

/// Why no target can be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    /// None is up.
    Up,
    /// Those that are up have all that they may.
    Room,
    /// Those that are up were tried.
    Untried,
}

fn outgoing(request: Request, lines: Lines) -> Outgoing {
    let (parts, body) = request.into_parts();
    Outgoing::new(parts, lines, Upload::new(body))
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
