//! A response's body on its way from the target; owns the connection and gives it back.

use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::exchange::{Body, BodyError, headers};

use super::connection::Connection;
use super::http1::{BadResponse, Chunked, Decoded, Framing, Head};
use super::pool::Pools;
use super::target::Load;
use super::upload::Upload;

/// Where a connection goes after a response, and for how long.
pub struct Keeping {
    pub load: Load,
    pub pools: Rc<Pools>,
    /// Zero if the connection cannot carry another request.
    pub lasts: Duration,
    pub max: usize,
}

impl Keeping {
    /// Keeps the connection if nothing is left on it that no request asked for.
    fn keep(self, connection: Connection) {
        if connection.buffer.is_empty() {
            self.pools.keep(self.load.target(), connection, self.lasts, self.max);
        }
    }
}

/// The body that follows `head`. A small one is whole already, and the connection free again.
///
/// `upload` is what is left of the request when the response came early.
pub fn body(
    head: &Head,
    mut connection: Connection,
    upload: Option<Upload>,
    keeping: Keeping,
    idle: Duration,
) -> Body {
    let left = match head.framing {
        Framing::None => Left::Length(0),
        Framing::Length(length) => Left::Length(length),
        Framing::Chunked => Left::Chunked(Chunked::default()),
        Framing::Close => Left::Close,
    };
    if let Left::Length(length) = left
        && let Ok(length) = usize::try_from(length)
        && length <= connection.buffer.len()
    {
        let whole = connection.buffer.split_to(length).freeze();
        // An answer that is whole before the request is ends the request.
        if upload.is_none() {
            keeping.keep(connection);
        }
        return Body::from(whole);
    }
    let upload = upload.map(Box::new);
    let flow = Some(Box::new(Flow { connection, keeping, upload, moved: 0 }));
    Body::stream(Download { flow, left, idle, alarm: None, paused: false, failed: None })
}

/// Streams one response. Dropped before its end it closes the connection, so that the target
/// hears that nobody listens any more.
struct Download {
    /// `None` after the end.
    flow: Option<Box<Flow>>,
    left: Left,
    idle: Duration,
    /// Made at the first pause, set anew at each.
    alarm: Option<Pin<Box<Sleep>>>,
    paused: bool,
    /// Told one turn later: what came before goes out first.
    failed: Option<BodyError>,
}

struct Flow {
    connection: Connection,
    keeping: Keeping,
    /// The rest of the request, while the target still takes it.
    upload: Option<Box<Upload>>,
    /// What the upload had moved when it was looked at last.
    moved: u64,
}

/// What of the body is still to come.
enum Left {
    Length(u64),
    Chunked(Chunked),
    Close,
}

impl Left {
    fn decode(&mut self, connection: &mut Connection) -> Result<Decoded, BadResponse> {
        let buffer = &mut connection.buffer;
        match self {
            Self::Chunked(chunked) => chunked.decode(buffer),
            Self::Length(0) => Ok(Decoded::End),
            _ if buffer.is_empty() => Ok(Decoded::More),
            Self::Close => Ok(Decoded::Data(buffer.split().freeze())),
            Self::Length(left) => {
                let here =
                    usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
                *left -= here as u64;
                Ok(Decoded::Data(buffer.split_to(here).freeze()))
            }
        }
    }
}

impl Flow {
    /// Sends on what is left of the request; true if that moved. A failure only ends it.
    fn send_on(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(upload) = &mut self.upload else { return false };
        let sent = upload.poll(&mut self.connection, cx);
        let before = std::mem::replace(&mut self.moved, upload.moved());
        let moved = before != self.moved;
        if let Poll::Ready(sent) = sent {
            self.upload = None;
            if sent.is_err() {
                self.keeping.lasts = Duration::ZERO;
            }
        }
        moved
    }
}

impl Download {
    /// The last byte is here: the connection is free, unless the request never ended.
    fn end(&mut self) {
        if let Some(flow) = self.flow.take()
            && flow.upload.is_none()
        {
            flow.keeping.keep(flow.connection);
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let at = Instant::now() + self.idle;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if !self.paused {
            self.paused = true;
            alarm.as_mut().reset(at);
        }
        ready!(alarm.as_mut().poll(cx));
        Poll::Ready(BodyError::Idle(self.idle))
    }

    fn fail(
        &mut self,
        error: BodyError,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.flow = None;
        self.failed = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(failed) = this.failed.take() {
            return Poll::Ready(Some(Err(failed)));
        }
        loop {
            let Some(flow) = &mut this.flow else { return Poll::Ready(None) };
            if flow.send_on(cx) {
                this.paused = false;
            }
            match this.left.decode(&mut flow.connection) {
                Ok(Decoded::Data(data)) => {
                    this.paused = false;
                    // Nobody asks for the end of a body whose length is reached.
                    if matches!(this.left, Left::Length(0)) {
                        this.end();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Decoded::Trailers(mut trailers)) => {
                    this.end();
                    headers::strip_trailers(&mut trailers);
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Decoded::End) => {
                    this.end();
                    return Poll::Ready(None);
                }
                Ok(Decoded::More) => match flow.connection.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => (),
                    Poll::Ready(Ok(0)) if matches!(this.left, Left::Close) => {
                        this.flow = None;
                        return Poll::Ready(None);
                    }
                    Poll::Ready(Ok(0)) => {
                        return this.fail(BodyError::io(ErrorKind::UnexpectedEof.into()), cx);
                    }
                    Poll::Ready(Err(error)) => return this.fail(BodyError::io(error), cx),
                    Poll::Pending => {
                        let late = ready!(this.poll_idle(cx));
                        return this.fail(late, cx);
                    }
                },
                Err(bad) => return this.fail(BodyError::Malformed(bad.as_str()), cx),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.flow.is_none() && self.failed.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.left {
            Left::Length(left) => SizeHint::with_exact(*left),
            _ => SizeHint::new(),
        }
    }
}
