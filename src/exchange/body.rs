//! One body type for requests and responses, whoever makes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Interims;

/// A stream of bytes and, perhaps, trailers; never collected.
pub struct Body {
    kind: Kind,
    /// Of a request: where interim responses to it go.
    interims: Option<Interims>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Incoming(Box<Limited>),
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError>>>),
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body is larger than {max} bytes")]
    TooLarge { max: u64 },
    #[error("no byte of the body came for {0:?}")]
    Idle(Duration),
    #[error("the body came slower than {0} bytes a second")]
    Slow(u64),
    #[error("the body was cut off")]
    Cut(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the body is malformed: {0}")]
    Malformed(&'static str),
    /// Not its sender's fault: a file, or what is done to the body here.
    #[error("the edge could not go on with the body: {0}")]
    Own(#[source] io::Error),
}

impl BodyError {
    pub fn io(error: io::Error) -> Self {
        Self::Cut(Box::new(error))
    }

    /// The word for a response that ended so.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Idle(_) => "upstream_idle",
            Self::Malformed(_) => "upstream_bad_response",
            Self::Own(_) => "edge_cut",
            // The others are of a client's body alone.
            _ => "upstream_cut",
        }
    }
}

impl Body {
    pub fn empty() -> Self {
        Kind::Empty.into()
    }

    /// What a client sends, refused past `max` bytes and when nothing comes for `idle`.
    pub fn incoming(body: Incoming, max: u64, idle: Duration) -> Self {
        if body.is_end_stream() {
            return Self::empty();
        }
        let (left, pace, waited) = (max, 0, Duration::ZERO);
        let limited = Limited { body, ahead: None, max, left, idle, pace, waited, wait: None };
        Kind::Incoming(Box::new(limited)).into()
    }

    pub fn stream(body: impl HttpBody<Data = Bytes, Error = BodyError> + 'static) -> Self {
        Kind::Stream(Box::pin(body)).into()
    }

    /// The body of a request whose client may be sent interim responses.
    pub fn with_interims(self, interims: Interims) -> Self {
        Self { interims: Some(interims), ..self }
    }

    pub fn interims(&self) -> Option<&Interims> {
        self.interims.as_ref()
    }

    /// All of it, if it is here already.
    pub fn whole(self) -> Result<Bytes, Self> {
        match self.kind {
            Kind::Empty => Ok(Bytes::new()),
            Kind::Full(bytes) => Ok(bytes),
            kind => Err(kind.into()),
        }
    }

    /// Raises or lowers the limit of a client's body that was not read yet.
    pub fn limit(&mut self, max: u64) {
        if let Kind::Incoming(limited) = &mut self.kind {
            limited.max = max;
            limited.left = max;
        }
    }

    /// Waits so long between two pieces of a client's body.
    pub fn patience(&mut self, idle: Duration) {
        if let Kind::Incoming(limited) = &mut self.kind {
            limited.idle = idle;
        }
    }

    /// Refuses a client's body that comes slower than so many bytes a second on the average, once
    /// more time than between two pieces was spent waiting for it. 0: as slow as it likes.
    pub fn pace(&mut self, bytes: u64) {
        if let Kind::Incoming(limited) = &mut self.kind {
            limited.pace = bytes;
        }
    }

    /// Waits until a client's body has begun, or has ended without a byte: then there is none.
    ///
    /// HTTP/2 says so in a frame of its own where the head has not said it.
    pub async fn settle(&mut self) {
        let Kind::Incoming(limited) = &mut self.kind else { return };
        let idle = limited.idle;
        let settled = tokio::time::timeout(idle, std::future::poll_fn(|cx| limited.settle(cx)));
        if settled.await == Ok(false) {
            self.kind = Kind::Empty;
        }
    }

    /// Reads everything up to `max` bytes. For small control messages, never on the proxy's way.
    pub async fn read_all(mut self, max: usize) -> Result<Bytes, BodyError> {
        let mut all = bytes::BytesMut::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await
        {
            let Ok(data) = frame?.into_data() else { continue };
            if all.len() + data.len() > max {
                return Err(BodyError::TooLarge { max: max as u64 });
            }
            if all.is_empty() && self.is_end_stream() {
                return Ok(data);
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::empty() } else { Kind::Full(bytes).into() }
    }
}

impl From<Kind> for Body {
    fn from(kind: Kind) -> Self {
        Self { kind, interims: None }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Incoming(limited) => limited.poll(cx),
            Kind::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Incoming(limited) => limited.ahead.is_none() && limited.body.is_end_stream(),
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(limited) => limited.body.size_hint(),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}

struct Limited {
    body: Incoming,
    /// What was read to see whether there is a body.
    ahead: Option<hyper::Result<Frame<Bytes>>>,
    max: u64,
    left: u64,
    idle: Duration,
    /// Bytes a second; 0 is any.
    pace: u64,
    /// Spent in pauses that are over. What the application makes wait does not count.
    waited: Duration,
    /// Made at each pause; a body that never pauses needs no timer.
    wait: Option<Pause>,
}

/// One time that the client is waited for.
struct Pause {
    began: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl Limited {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = match self.ahead.take() {
            Some(ahead) => Poll::Ready(Some(ahead)),
            None => Pin::new(&mut self.body).poll_frame(cx),
        };
        match next {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(pause) = self.wait.take() {
                    self.waited += pause.began.elapsed();
                }
                let came = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(left) = self.left.checked_sub(came) else {
                    return Poll::Ready(Some(Err(BodyError::TooLarge { max: self.max })));
                };
                self.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Cut(error.into())))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let patience = self.patience();
                let pause = self.wait.get_or_insert_with(|| Pause::begin(patience));
                ready!(pause.alarm.as_mut().poll(cx));
                let late = pause.began.elapsed() >= self.idle;
                let error =
                    if late { BodyError::Idle(self.idle) } else { BodyError::Slow(self.pace) };
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    /// False if the body ends without a byte.
    fn settle(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while self.ahead.is_none() {
            let Some(next) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(false);
            };
            let data = next.as_ref().ok().and_then(Frame::data_ref);
            if !data.is_some_and(Bytes::is_empty) {
                self.ahead = Some(next);
            }
        }
        Poll::Ready(true)
    }

    /// How long this pause may last: what has come buys time for what has not.
    fn patience(&self) -> Duration {
        let came = self.max - self.left;
        match came.saturating_mul(1000).checked_div(self.pace) {
            None => self.idle,
            Some(bought) => {
                let bought = self.idle.saturating_add(Duration::from_millis(bought));
                bought.saturating_sub(self.waited).min(self.idle)
            }
        }
    }
}

impl Pause {
    fn begin(lasts: Duration) -> Self {
        let began = Instant::now();
        Self { began, alarm: Box::pin(sleep_until(began + lasts)) }
    }
}
