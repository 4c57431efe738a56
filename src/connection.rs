//! HTTP/1.1 and HTTP/2 on one socket: deadlines, and one Access line per exchange.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::config::Timeouts;
use crate::drain::Drain;
use crate::exchange::{Body, BodyError, Guard, Peer, Response, Stream, Watched};
use crate::observe::Access;
use crate::router::Local;
use crate::snapshot::Current;

/// Header lines of one request; Next.js and its cookies stay far below.
const HEADER_LINES: usize = 200;
/// Exchanges at once on one HTTP/2 connection, as nginx has it.
const STREAMS: u32 = 128;
/// At least this much is read at once.
const READ_BUFFER: usize = 64 * 1024;
/// A client that has just connected, or has sent a part of a request, is answered also while the
/// process leaves, if the rest comes within this time: whoever closed now would fail it.
const FIRST_REQUEST: Duration = Duration::from_secs(2);
/// HTTP/2 windows: an upload may be this far ahead of the application.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Serves one client's connection to its end; `guard` goes with the socket, also into an upgrade.
pub async fn serve(stream: Stream, peer: Peer, current: Current, local: Rc<Local>, guard: Guard) {
    let words = current.load();
    let (headers, timeouts) = (words.headers_max(), words.timeouts().clone());
    drop(words);
    let drain = local.drain.clone();
    let http2 = peer.tls.as_ref().is_some_and(|tls| tls.http2);
    let came = Arc::new(AtomicBool::new(false));
    let activity = Rc::new(Activity::new(Arc::clone(&came)));
    let watch = Watch { drain: drain.clone(), activity: Rc::clone(&activity), timeouts };
    let io = TokioIo::new(Watched::new(stream, came, guard));
    let conversation = Rc::new(Conversation { peer, current, local, activity });
    let service = service_fn(move |request| Rc::clone(&conversation).answer(request));
    let ended = if http2 {
        let connection = http2::Builder::new(LocalExecutor(drain))
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(headers).unwrap_or(u32::MAX))
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(Some(watch.timeouts.idle))
            .keep_alive_timeout(watch.timeouts.head)
            .serve_connection(io, service);
        watch.over(Box::pin(connection), |connection| connection.graceful_shutdown()).await
    } else {
        // No read timeout of hyper's: it would end idle connections as if their head were late.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_headers(HEADER_LINES)
            .max_header_size(headers)
            .max_buf_size(headers.max(READ_BUFFER))
            .serve_connection(io, service)
            .with_upgrades();
        watch.over(Box::pin(connection), |connection| connection.graceful_shutdown()).await
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

/// Runs HTTP/2's streams on this worker.
#[derive(Clone)]
struct LocalExecutor(Drain);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, stream: F) {
        self.0.spawn("stream", stream);
    }
}

/// What a connection is doing, for its deadlines.
struct Activity {
    exchanges: Cell<usize>,
    /// Since when it does what it does: accepted, last exchange ended, or head begun.
    since: Cell<Instant>,
    /// A head is awaited (new connection) or has begun.
    head: Cell<bool>,
    /// Set by the socket when bytes came.
    came: Arc<AtomicBool>,
}

impl Activity {
    fn new(came: Arc<AtomicBool>) -> Self {
        let (exchanges, since) = (Cell::new(0), Cell::new(Instant::now()));
        Self { exchanges, since, head: Cell::new(true), came }
    }

    fn begin(self: &Rc<Self>) -> Exchange {
        self.exchanges.set(self.exchanges.get() + 1);
        self.head.set(false);
        Exchange(Rc::clone(self))
    }

    /// True while a request may be on its way: none has come yet, or one has begun to come.
    fn awaits_head(&self) -> bool {
        self.exchanges.get() == 0 && self.head.get()
    }

    /// When the connection is to be closed if nothing changes; `None` while it is at work.
    fn due(&self, timeouts: &Timeouts) -> Option<Instant> {
        let came = self.came.swap(false, Ordering::Relaxed);
        if self.exchanges.get() > 0 {
            return None;
        }
        if came && !self.head.replace(true) {
            self.since.set(Instant::now());
        }
        let limit = if self.head.get() { timeouts.head } else { timeouts.idle };
        Some(self.since.get() + limit)
    }
}

/// One exchange at work; ends with its response's last byte.
struct Exchange(Rc<Activity>);

impl Drop for Exchange {
    fn drop(&mut self) {
        let left = self.0.exchanges.get() - 1;
        self.0.exchanges.set(left);
        self.0.since.set(Instant::now());
    }
}

/// Keeps a connection to its deadlines and lets it leave when the process does.
struct Watch {
    drain: Drain,
    activity: Rc<Activity>,
    timeouts: Timeouts,
}

impl Watch {
    /// Drives the connection; when it is due, or the process leaves, it closes gracefully.
    async fn over<C>(
        self,
        mut connection: Pin<Box<C>>,
        graceful: fn(Pin<&mut C>),
    ) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let (mut closing, mut left, mut told) = (None, false, false);
        let mut alarm = pin!(sleep_until(Instant::now() + self.timeouts.head));
        let mut leaving = pin!(self.drain.leaving());
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    return Poll::Ready(ended);
                }
                let due = self.activity.due(&self.timeouts);
                left = left || leaving.as_mut().poll(cx).is_ready();
                if left && !told && !self.activity.awaits_head() {
                    told = true;
                    closing = Some(Instant::now() + self.timeouts.idle);
                    graceful(connection.as_mut());
                    continue;
                }
                if left && closing.is_none() {
                    closing = Some(Instant::now() + FIRST_REQUEST.min(self.timeouts.head));
                }
                let due = if closing.is_some() { due.and(closing) } else { due };
                // The alarm is only ever set earlier; one that rings too early is set anew.
                if let Some(due) = due.filter(|due| *due < alarm.deadline()) {
                    alarm.as_mut().reset(due);
                }
                if alarm.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let now = Instant::now();
                match due {
                    Some(due) if due > now => alarm.as_mut().reset(due),
                    Some(_) if left && !told => {
                        told = true;
                        closing = Some(now + self.timeouts.head);
                        graceful(connection.as_mut());
                    }
                    Some(_) if closing.is_some() || self.activity.head.get() => {
                        return Poll::Ready(Ok(()));
                    }
                    Some(_) => {
                        told = true;
                        closing = Some(now + self.timeouts.head);
                        graceful(connection.as_mut());
                    }
                    None => alarm.as_mut().reset(now + self.timeouts.idle),
                }
            }
        })
        .await
    }
}

/// What all exchanges of one connection share.
struct Conversation {
    peer: Peer,
    current: Current,
    local: Rc<Local>,
    activity: Rc<Activity>,
}

impl Conversation {
    async fn answer(
        self: Rc<Self>,
        request: http::Request<Incoming>,
    ) -> Result<http::Response<Served>, Infallible> {
        let exchange = self.activity.begin();
        let snapshot = self.current.load();
        let method = request.method().clone();
        let mut access = Access::begin(method, request.uri().path().to_owned(), request.version());
        access.client = Some(self.peer.address.ip().to_canonical());
        access.tls = self.peer.tls.as_ref().map(|tls| tls.version);
        let agent = request.headers().get(header::USER_AGENT);
        access.agent = agent.and_then(|agent| agent.to_str().ok()).map(str::to_owned);
        let idle = snapshot.timeouts().body_idle;
        let request = request.map(|body| Body::incoming(body, u64::MAX, idle));
        let answer = snapshot.router().answer(request, &self.peer, &self.local, &mut access);
        let response = Box::pin(answer).await;
        access.status = Some(response.status().as_u16());
        Ok(Served::wrap(response, access, exchange))
    }
}

/// A response's body that carries its Access line to the last byte.
struct Served {
    body: Body,
    access: Access,
    /// Bytes still promised by the length, when there is one.
    left: Option<u64>,
    _exchange: Exchange,
}

impl Served {
    fn wrap(response: Response, access: Access, exchange: Exchange) -> http::Response<Self> {
        response.map(|body| {
            let left = body.size_hint().exact();
            let mut served = Self { body, access, left, _exchange: exchange };
            // hyper does not read the body of an answer to HEAD.
            served.access.complete =
                served.body.is_end_stream() || served.access.method == Method::HEAD;
            served
        })
    }
}

impl http_body::Body for Served {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &next {
            Some(Ok(frame)) => {
                let came = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.access.bytes += came;
                self.left = self.left.map(|left| left.saturating_sub(came));
                self.access.complete = self.left == Some(0) || self.body.is_end_stream();
            }
            Some(Err(_)) => self.access.reason = Some("upstream_cut"),
            None => self.access.complete = true,
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
