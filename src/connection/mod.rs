//! HTTP/1.1 and HTTP/2 on one socket: deadlines, and one Access line per exchange.

mod activity;
mod turns;
mod unread;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::config::Timeouts;
use crate::drain::Drain;
use crate::exchange::{
    Body, BodyError, Fault, Gathered, Guard, Interims, Left, Peer, Response, Signs, Stream,
    Watched, headers, websocket,
};
use crate::observe::Access;
use crate::observe::metrics::{self, Series};
use crate::router::Local;
use crate::snapshot::Current;

use activity::{Activity, Exchange, Untaken};
use turns::{Turn, Turns};

/// Exchanges at once on one HTTP/2 connection, as nginx has it.
const STREAMS: u32 = 128;
/// At least this much is read at once.
const READ_BUFFER: usize = 64 * 1024;
/// After this time without a request a connection is parked: hyper's buffers, 16 KiB, are given back
/// until the client says something. Pages ask for what is in them sooner, and people much later.
const PARK_AFTER: Duration = Duration::from_millis(500);
/// A client that has just connected, or has sent a part of a request, is answered also while the
/// process leaves, if the rest comes within this time: whoever closed now would fail it.
const FIRST_REQUEST: Duration = Duration::from_secs(2);
/// HTTP/2 windows: an upload may be this far ahead of the application.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What one stream of HTTP/2 may hold of an answer that its client does not take yet.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client may make us reset, before its connection ends.
const RESETS: usize = 256;

/// Serves one client's connection to its end; `guard` goes with the socket, also into an upgrade.
pub async fn serve(stream: Stream, peer: Peer, current: Current, local: Rc<Local>, guard: Guard) {
    let words = current.load();
    let (headers_max, timeouts) = (words.headers_max(), words.timeouts().clone());
    drop(words);
    let drain = local.drain.clone();
    let http2 = peer.tls.as_ref().is_some_and(|tls| tls.http2);
    let (signs, interims) = (Arc::<Signs>::default(), Interims::default());
    let activity = Rc::new(Activity::new(Arc::clone(&signs), http2));
    let watch = Watch { drain: drain.clone(), activity: Rc::clone(&activity), timeouts };
    let (stream, patience) = (Watched::new(stream, guard), watch.timeouts.body_idle);
    let stream = if http2 {
        stream.http2(Arc::clone(&signs), patience)
    } else {
        stream.http1(Arc::clone(&signs), interims.clone(), patience)
    };
    let conversation = Rc::new(Conversation { peer, current, local, activity, interims });
    let told = Rc::clone(&conversation);
    let ended = if http2 {
        Box::pin(serve_http2(stream, conversation, &watch, headers_max)).await
    } else {
        serve_http1(stream, conversation, &watch, headers_max).await
    };
    if let Some(cut) = signs.cut() {
        metrics::count(&metrics::CONNECTIONS_CUT, cut.as_str());
    }
    if signs.is_crowded() {
        metrics::count(&metrics::CONNECTIONS_CUT, "crowded");
    }
    if let Err(error) = ended {
        unread::note(&told.current, &told.peer, &error, signs.cut());
        debug!(%error, "connection ended");
    }
}

async fn serve_http2(
    stream: Watched,
    conversation: Rc<Conversation>,
    watch: &Watch,
    headers_max: usize,
) -> hyper::Result<()> {
    let patience = watch.timeouts.body_idle;
    let turns = Turns::new(watch.drain.clone(), Rc::clone(&watch.activity), patience);
    let builder = http2::Builder::new(turns.clone());
    let service =
        service_fn(move |request| Rc::clone(&conversation).answer(request, Some(turns.next())));
    let builder = tuned(builder, headers_max, &watch.timeouts);
    let out = Gathered::new(stream);
    let connection = Box::pin(builder.serve_connection(TokioIo::new(out.clone()), service));
    let graceful: fn(Pin<&mut _>) = |connection| http2::Connection::graceful_shutdown(connection);
    let connection = Box::pin(Flushed { connection, out, graceful });
    let ended = watch.over(connection, |flushed| flushed.get_mut().leave(), false).await;
    match ended {
        Ended::Over(ended) => ended,
        Ended::Idle(_) => Ok(()),
    }
}

/// A connection that says at the end of each turn what it has to say, in one piece.
struct Flushed<C> {
    connection: Pin<Box<C>>,
    out: Gathered,
    graceful: fn(Pin<&mut C>),
}

impl<C> Flushed<C> {
    fn leave(&mut self) {
        (self.graceful)(self.connection.as_mut());
    }
}

impl<C: Future> Future for Flushed<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let over = self.connection.as_mut().poll(cx);
        if over.is_ready() || self.out.poll_out(cx) {
            return over;
        }
        // It is told of the failure as soon as it reads or writes, which it does at each turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

async fn serve_http1(
    stream: Watched,
    conversation: Rc<Conversation>,
    watch: &Watch,
    headers_max: usize,
) -> hyper::Result<()> {
    // Behind a handshake the first request may be here already, where the socket cannot tell.
    let mut parked = conversation.peer.tls.is_none();
    let mut service = service_fn(move |request| Rc::clone(&conversation).answer(request, None));
    let mut io = TokioIo::new(stream);
    loop {
        if parked && !watch.parked(io.inner()).await {
            let farewell = timeout(watch.timeouts.head, io.inner_mut().shutdown());
            // It may be gone already.
            let _told = farewell.await;
            return Ok(());
        }
        // No read timeout of hyper's: it would end idle connections as if their head were late.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            // A hundred lines, as hyper has it: it would allocate for more at each request.
            .max_header_size(headers_max)
            .max_buf_size(headers_max.max(READ_BUFFER))
            .serve_connection(io, service)
            .with_upgrades();
        let connection = Box::pin(connection);
        // What only a connection at work needs is not a part of one that is parked.
        let over = watch.over(connection, |connection| connection.graceful_shutdown(), true);
        let ended = Box::pin(over).await;
        let parts = match ended {
            Ended::Over(ended) => return ended,
            Ended::Idle(connection) => Pin::into_inner(connection).into_parts(),
        };
        // There is nothing to take apart of what has become another protocol.
        let Some(parts) = parts else { return Ok(()) };
        (io, service, parked) = (parts.io, parts.service, parts.read_buf.is_empty());
        // An empty buffer has its memory still.
        if !parked {
            io.inner_mut().put_back(parts.read_buf);
        }
    }
}

fn tuned(
    mut builder: http2::Builder<Turns>,
    headers_max: usize,
    timeouts: &Timeouts,
) -> http2::Builder<Turns> {
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(headers_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS)
        .enable_connect_protocol()
        .max_local_error_reset_streams(RESETS)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Some(timeouts.idle))
        .keep_alive_timeout(timeouts.head);
    builder
}

/// Keeps a connection to its deadlines and lets it leave when the process does.
struct Watch {
    drain: Drain,
    activity: Rc<Activity>,
    timeouts: Timeouts,
}

thread_local! {
    static PARKED: Arc<Series> = metrics::series(&metrics::CONNECTIONS_PARKED, &[]);
}

/// One connection that is parked; counted until it is dropped.
struct Parked;

impl Parked {
    fn begin() -> Self {
        PARKED.with(|parked| parked.increment());
        Self
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        // At the thread's end there may be nothing left to count on.
        let _counted = PARKED.try_with(|parked| parked.decrement());
    }
}

/// Why a connection is not driven any more.
enum Ended<C> {
    Over(hyper::Result<()>),
    /// It has nothing to do and nothing to say.
    Idle(Pin<Box<C>>),
}

impl Watch {
    /// Waits for the client to say something; false if the connection is to be closed instead.
    async fn parked(&self, stream: &Watched) -> bool {
        let activity = &self.activity;
        let _parked = Parked::begin();
        let limit = if activity.fresh.get() { self.timeouts.head } else { self.timeouts.idle };
        tokio::select! {
            // Who has asked already is answered, also while the process leaves.
            biased;
            // Nothing is lost when an arm is dropped: bytes stay in the socket.
            _readable = poll_fn(|cx| stream.poll_readable(cx)) => true,
            () = sleep_until(activity.since.get() + limit) => false,
            () = self.drain.leaving() => {
                stream.has_bytes() || (activity.fresh.get() && self.comes(stream).await)
            }
        }
    }

    /// True if the first request of a client that has just connected comes while the process leaves.
    async fn comes(&self, stream: &Watched) -> bool {
        let wait = FIRST_REQUEST.min(self.timeouts.head);
        timeout(wait, poll_fn(|cx| stream.poll_readable(cx))).await.is_ok()
    }

    /// Drives the connection; when it is due, or the process leaves, it closes gracefully. One that
    /// `parks` is given back when it is idle.
    async fn over<C>(
        &self,
        mut connection: Pin<Box<C>>,
        graceful: fn(Pin<&mut C>),
        parks: bool,
    ) -> Ended<C>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let (mut closing, mut left, mut told) = (None, false, None);
        let patience = self.timeouts.body_idle;
        let mut alarm = pin!(sleep_until(Instant::now() + self.timeouts.head));
        let mut leaving = pin!(self.drain.leaving());
        let over = poll_fn(|cx| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Some(ended));
                }
                let due = self.activity.due(&self.timeouts);
                left = left || leaving.as_mut().poll(cx).is_ready();
                if left && told.is_none() && !self.activity.awaits_head() {
                    let now = Instant::now();
                    (told, closing) = (Some(now), Some(now + self.timeouts.idle));
                    graceful(connection.as_mut());
                    continue;
                }
                if left && closing.is_none() {
                    closing = Some(Instant::now() + FIRST_REQUEST.min(self.timeouts.head));
                }
                let untaken = match self.activity.untaken(patience) {
                    Ok(untaken) => untaken,
                    // Whatever else is under way on it may end.
                    Err(Untaken) if told.is_none() => {
                        let now = Instant::now();
                        (told, closing) = (Some(now), Some(now + patience));
                        metrics::count(&metrics::CONNECTIONS_CUT, "stream_stuck");
                        graceful(connection.as_mut());
                        continue;
                    }
                    Err(Untaken) => None,
                };
                // Once it was told, it ends by itself as soon as all is out.
                let due = match (closing, told) {
                    (Some(at), Some(told)) => due.map(|_| self.activity.ends(told, at, patience)),
                    (Some(at), None) => due.and(Some(at)),
                    (None, _) => due,
                };
                let parks = self.activity.parks().filter(|_| parks && closing.is_none());
                let next = [due, parks, untaken].into_iter().flatten().min();
                // The alarm is only ever set earlier; one that rings too early is set anew.
                if let Some(next) = next.filter(|next| *next < alarm.deadline()) {
                    alarm.as_mut().reset(next);
                }
                if alarm.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let now = Instant::now();
                if parks.is_some_and(|at| at <= now) {
                    return Poll::Ready(None);
                }
                match due {
                    Some(due) if due > now => alarm.as_mut().reset(next.unwrap_or(due)),
                    Some(_) if left && told.is_none() => {
                        (told, closing) = (Some(now), Some(now + self.timeouts.head));
                        graceful(connection.as_mut());
                    }
                    Some(_) if closing.is_some() || self.activity.head.get() => {
                        return Poll::Ready(Some(Ok(())));
                    }
                    Some(_) => {
                        (told, closing) = (Some(now), Some(now + self.timeouts.head));
                        graceful(connection.as_mut());
                    }
                    None => alarm.as_mut().reset(untaken.unwrap_or(now + self.timeouts.idle)),
                }
            }
        });
        match over.await {
            Some(ended) => Ended::Over(ended),
            None => Ended::Idle(connection),
        }
    }
}

/// What all exchanges of one connection share.
struct Conversation {
    peer: Peer,
    current: Current,
    local: Rc<Local>,
    activity: Rc<Activity>,
    interims: Interims,
}

impl Conversation {
    async fn answer(
        self: Rc<Self>,
        mut request: http::Request<Incoming>,
        turn: Option<Rc<Turn>>,
    ) -> Result<http::Response<Served>, Infallible> {
        let exchange = self.activity.begin();
        let tunnel = become_upgrade(&mut request);
        let left = tunnel.then(Left::default);
        if let Some(left) = &left {
            request.extensions_mut().insert(left.clone());
        }
        let named = turn.is_none() && headers::names_protocol(request.headers());
        let snapshot = self.current.load();
        let method = request.method().clone();
        let mut access = Access::begin(method, request.version());
        access.client = Some(self.peer.address.ip().to_canonical());
        access.tls = self.peer.tls.as_ref().map(|tls| tls.version);
        if let Some(lines) = snapshot.lines() {
            access.log(lines, request.uri(), request.headers());
        }
        if let Some(share) = snapshot.traced() {
            let uri = request.uri().clone();
            access.trace(share, &uri, request.headers_mut());
        }
        let (idle, pace) = (snapshot.timeouts().body_idle, snapshot.body_rate());
        let takes_interims = request.version() == Version::HTTP_11;
        let request = request.map(|body| {
            let mut body = Body::incoming(body, u64::MAX, idle);
            body.pace(pace);
            if takes_interims { body.with_interims(self.interims.clone()) } else { body }
        });
        let answer = snapshot.router().answer(request, &self.peer, &self.local, &mut access);
        let mut response = Box::pin(answer).await;
        // What follows was not looked at, since it could have been the other protocol.
        if named && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            headers::set_close(response.headers_mut());
        }
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS if tunnel => {
                *response.status_mut() = StatusCode::OK;
                headers::forget_upgrade(response.headers_mut());
                if let (Some(turn), Some(left)) = (&turn, left) {
                    turn.opens(left);
                }
            }
            // Here no answer may name another protocol (RFC 9113 §8.2.2).
            StatusCode::UPGRADE_REQUIRED if turn.is_some() => {
                headers::forget_upgrade(response.headers_mut());
            }
            // An answer is not a socket, and here a client takes every one that is good for that.
            status if tunnel && status.is_success() => {
                access.reason = Some(Fault::UPGRADE_REFUSED.reason);
                response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
            }
            _ => (),
        }
        access.status = Some(response.status().as_u16());
        self.interims.clear();
        Ok(Served::wrap(response, access, exchange, turn))
    }
}

/// Makes the request of HTTP/2 for a WebSocket one that handlers know; true if it was one.
fn become_upgrade(request: &mut http::Request<Incoming>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    let asked = request.method() == Method::CONNECT
        && protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
    if asked {
        *request.method_mut() = Method::GET;
        headers::become_upgrade(request.headers_mut(), "websocket", websocket::key());
    }
    asked
}

/// A response's body that carries its Access line to the last byte.
struct Served {
    body: Body,
    access: Access,
    /// Of the piece that was given last, on HTTP/2.
    rest: Option<Bytes>,
    /// Bytes still promised by the length, when there is one.
    left: Option<u64>,
    turn: Option<Rc<Turn>>,
    exchange: Exchange,
}

impl Served {
    fn wrap(
        mut response: Response,
        access: Access,
        exchange: Exchange,
        turn: Option<Rc<Turn>>,
    ) -> http::Response<Self> {
        if access.method == Method::HEAD && turn.is_some() {
            headers_alone(&mut response);
        }
        response.map(|body| {
            let left = body.size_hint().exact();
            let mut served = Self { body, access, rest: None, left, turn, exchange };
            // hyper does not read the body of an answer to HEAD, where that is HTTP/1.1.
            served.access.complete =
                served.body.is_end_stream() || served.access.method == Method::HEAD;
            if served.access.version < Version::HTTP_11 && left.is_none() {
                served.exchange.0.signs.set_unended(!served.access.complete);
            }
            served
        })
    }
}

/// An answer to HEAD says what length the body would have; on HTTP/2 hyper would send that too.
fn headers_alone(response: &mut Response) {
    let body = std::mem::replace(response.body_mut(), Body::empty());
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
    {
        let length = || HeaderValue::from(length);
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(length);
    }
}

impl http_body::Body for Served {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(turn) = &self.turn {
            turn.ours();
        }
        let mut next = match self.rest.take() {
            Some(rest) => Some(Ok(Frame::data(rest))),
            None => ready!(Pin::new(&mut self.body).poll_frame(cx)),
        };
        if let Some(turn) = &self.turn {
            turn.theirs();
            let (given, rest) = turn.divide(next);
            (next, self.rest) = (given, rest);
        }
        match &next {
            Some(Ok(frame)) => {
                let came = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.access.bytes += came;
                self.left = self.left.map(|left| left.saturating_sub(came));
                self.access.complete = self.left == Some(0) || self.is_end_stream();
            }
            Some(Err(error)) => self.access.reason = Some(error.reason()),
            None => self.access.complete = true,
        }
        if self.access.complete && self.left.is_none() {
            self.exchange.0.signs.set_unended(false);
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.turn.as_ref().is_some_and(|turn| turn.is_cut()) {
            self.access.reason = Some("client_stuck");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::task::Waker;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn watch(idle: Duration) -> Watch {
        let timeouts = Timeouts {
            handshake: LONG,
            head: LONG,
            body_idle: LONG,
            idle,
            connect: LONG,
            first_byte: LONG,
        };
        let activity = Rc::new(Activity::new(Arc::default(), false));
        Watch { drain: Drain::default(), activity, timeouts }
    }

    #[tokio::test]
    async fn an_answer_that_ends_while_the_process_leaves_goes_out_whole() {
        let watch = watch(Duration::ZERO);
        let (exchange, out) = (watch.activity.begin(), Cell::new(false));
        let connection = poll_fn(|_cx| if out.get() { Poll::Ready(Ok(())) } else { Poll::Pending });
        watch.drain.begin();
        let mut over = pin!(watch.over(Box::pin(connection), |_| (), true));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(over.as_mut().poll(&mut cx).is_pending());
        // All is given, and the client has not taken it.
        drop(exchange);
        for unflushed in [true, false] {
            watch.activity.signs.set_unflushed(unflushed);
            for _ in 0..3 {
                assert!(over.as_mut().poll(&mut cx).is_pending(), "it ends by itself");
                // What is due by now rings.
                sleep_until(Instant::now() + Duration::from_millis(2)).await;
            }
        }
        out.set(true);
        assert!(over.as_mut().poll(&mut cx).is_ready());
    }

    #[tokio::test]
    async fn who_has_asked_already_is_answered_also_while_the_process_leaves() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut client = TcpStream::connect(address).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("a client");
        let stream = Watched::new(Stream::Plain(stream), None);
        let watch = watch(LONG);
        watch.activity.fresh.set(false);
        watch.drain.begin();
        client.write_all(b"GET / HTTP/1.1\r\n").await.expect("sent");
        poll_fn(|cx| stream.poll_readable(cx)).await.expect("bytes");
        for _ in 0..64 {
            assert!(watch.parked(&stream).await);
        }
    }
}
