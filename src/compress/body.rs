//! A body that is compressed as it passes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::exchange::{Body, BodyError};

use super::coder::Coder;

/// As much output as this goes out at once.
const PIECE: usize = 16 * 1024;
/// After as much input the worker turns to others, whatever the output is.
const TURN: usize = 128 * 1024;

/// Flushes whenever the body pauses, so nothing that has come waits for what has not.
pub struct Compressed {
    body: Body,
    coder: Coder,
    out: Vec<u8>,
    /// The compressor holds something back.
    dirty: bool,
    state: State,
}

enum State {
    Open,
    /// The last bytes are out, these are not.
    Trailers(HeaderMap),
    /// Told one turn later: what came before goes out first.
    Failed(BodyError),
    Ended,
}

impl Compressed {
    pub fn new(body: Body, coder: Coder) -> Self {
        Self { body, coder, out: Vec::new(), dirty: false, state: State::Open }
    }

    fn give(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(std::mem::take(&mut self.out))))))
    }

    fn end(&mut self, then: State) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.state = then;
        match self.coder.finish(&mut self.out) {
            Ok(()) => self.give(),
            Err(error) => Poll::Ready(Some(Err(BodyError::Own(error)))),
        }
    }
}

impl HttpBody for Compressed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        match std::mem::replace(&mut this.state, State::Ended) {
            State::Open => this.state = State::Open,
            State::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            State::Failed(error) => return Poll::Ready(Some(Err(error))),
            State::Ended => return Poll::Ready(None),
        }
        let mut taken = 0;
        loop {
            let frame = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                // The output is left without an end: nobody takes it for whole.
                Poll::Ready(Some(Err(error))) => {
                    this.state = State::Failed(error);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(None) => return this.end(State::Ended),
                Poll::Pending => {
                    if this.dirty {
                        this.dirty = false;
                        this.coder.flush(&mut this.out).map_err(BodyError::Own)?;
                    }
                    return if this.out.is_empty() { Poll::Pending } else { this.give() };
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    this.dirty |= !data.is_empty();
                    this.coder.write(&data, &mut this.out).map_err(BodyError::Own)?;
                    taken += data.len();
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return this.end(State::Trailers(trailers));
                }
            }
            if this.out.len() >= PIECE || (taken >= TURN && !this.out.is_empty()) {
                return this.give();
            }
            if taken >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}
