//! A request's body on its way to the target, and how much of it may be said again.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body as _;

use crate::exchange::{Body, BodyError, Interims, headers};

use super::connection::Connection;
use super::http1::{self, Framing};

/// A body's piece up to this size goes out in one write with what stands before it.
const SMALL: usize = 16 * 1024;

/// Bytes of a body that are kept so that they can be sent again.
const KEPT: usize = 64 * 1024;

/// The body, streamed: besides its beginning one piece is held at a time.
pub struct Upload {
    body: Body,
    framing: Framing,
    /// All that was pulled, until that is too much to be sent again.
    kept: Option<Kept>,
    /// What of it is still to be sent again.
    again: VecDeque<Bytes>,
    /// What came after the body; kept, so that it can be sent again too.
    trailers: Option<HeaderMap>,
    /// Bytes that the length still promises.
    left: u64,
    unsent: Unsent,
    /// Nothing more is to be pulled.
    ended: bool,
    /// Goes up whenever something was pulled or written.
    moved: u64,
}

/// What ended an upload before its end.
#[derive(Debug)]
pub enum UploadError {
    /// The client's side.
    Body(BodyError),
    /// The target's side.
    Write,
}

impl Upload {
    pub fn new(body: Body) -> Self {
        let framing = match body.size_hint().exact() {
            Some(0) => Framing::None,
            _ if body.is_end_stream() => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        Self {
            body,
            framing,
            kept: Some(Kept::default()),
            again: VecDeque::new(),
            trailers: None,
            left: 0,
            unsent: Unsent::default(),
            ended: false,
            moved: 0,
        }
    }

    /// Where interim responses to the request go.
    pub fn interims(&self) -> Option<&Interims> {
        self.body.interims()
    }

    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// True while everything that was pulled is still held.
    pub fn is_repeatable(&self) -> bool {
        self.kept.is_some()
    }

    /// Starts over; only what is repeatable can.
    pub fn begin(&mut self) {
        self.left = if let Framing::Length(length) = self.framing { length } else { 0 };
        self.ended = self.framing == Framing::None;
        self.again = self.kept.as_ref().map(Kept::pieces).unwrap_or_default();
        self.unsent = Unsent::default();
    }

    /// Adds the first piece to the head when it is small and here already.
    pub fn join(&mut self, head: &mut Vec<u8>, cx: &mut Context<'_>) -> Result<(), BodyError> {
        if self.ended {
            return Ok(());
        }
        if let Poll::Ready(pulled) = self.poll_pull(cx) {
            pulled?;
            if self.unsent.remaining() <= SMALL {
                head.extend(self.unsent.0.drain(..).flatten());
            }
        }
        Ok(())
    }

    /// Puts what is left of the head before everything else.
    pub fn put_first(&mut self, head: &[u8]) {
        if !head.is_empty() {
            self.unsent.0.push_front(Bytes::copy_from_slice(head));
        }
    }

    /// Sends on until everything is out.
    pub fn poll(
        &mut self,
        connection: &mut Connection,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), UploadError>> {
        loop {
            let before = self.unsent.remaining();
            let written = connection.poll_write_all(&mut self.unsent, cx);
            self.moved += (before - self.unsent.remaining()) as u64;
            ready!(written).map_err(|_closed| UploadError::Write)?;
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_pull(cx)).map_err(UploadError::Body)?;
        }
    }

    /// A number that stays the same only while nothing moves.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// True if bytes wait for the target rather than the client.
    pub fn is_blocked(&self) -> bool {
        self.unsent.has_remaining()
    }

    /// Queues the next piece with its framing.
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let piece = match self.again.pop_front() {
            Some(again) => Some(again),
            None => ready!(self.poll_piece(cx))?,
        };
        let queue = &mut self.unsent.0;
        match (self.framing, piece) {
            (Framing::Chunked, Some(data)) => {
                queue.push_back(Bytes::from(format!("{:x}\r\n", data.len())));
                queue.push_back(data);
                // Trailers were read already where the body is sent again.
                self.ended =
                    self.again.is_empty() && self.trailers.is_none() && self.body.is_end_stream();
                let end: &[u8] = if self.ended { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                queue.push_back(Bytes::from_static(end));
            }
            (Framing::Chunked, None) => {
                self.ended = true;
                queue.push_back(match &self.trailers {
                    Some(trailers) => Bytes::from(http1::encode_trailers(trailers)),
                    None => Bytes::from_static(b"0\r\n\r\n"),
                });
            }
            (_, Some(data)) => {
                let left = self.left.checked_sub(data.len() as u64);
                self.left = left.ok_or(BodyError::Malformed("longer than its length"))?;
                self.ended = self.left == 0;
                queue.push_back(data);
            }
            (_, None) if self.left > 0 => {
                return Poll::Ready(Err(BodyError::Malformed("shorter than its length")));
            }
            (_, None) => self.ended = true,
        }
        Poll::Ready(Ok(()))
    }

    fn keep(&mut self, data: &Bytes) {
        if !self.kept.as_mut().is_some_and(|kept| kept.take(data)) {
            self.kept = None;
        }
    }

    /// The next bytes of the body; trailers are noted. Only a chunked body can carry them on.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(Ok(None));
            };
            let data = match frame?.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    headers::strip_trailers(&mut trailers);
                    self.trailers = Some(trailers);
                    continue;
                }
            };
            if data.is_empty() {
                continue;
            }
            self.keep(&data);
            return Poll::Ready(Ok(Some(data)));
        }
    }
}

/// The beginning of a body. Of what came in many pieces only the bytes are kept: each piece may have
/// a whole buffer behind it, for a single byte.
#[derive(Debug, Default)]
struct Kept {
    first: Bytes,
    more: BytesMut,
}

impl Kept {
    /// Keeps one more piece; false if that is too much. One is held anyhow, however large it is.
    fn take(&mut self, data: &Bytes) -> bool {
        if self.first.is_empty() {
            self.first = data.clone();
            return true;
        }
        let fits = self.first.len() + self.more.len() + data.len() <= KEPT;
        if fits {
            self.more.extend_from_slice(data);
        }
        fits
    }

    /// All of it, in as few pieces as there are.
    fn pieces(&self) -> VecDeque<Bytes> {
        let mut pieces = VecDeque::new();
        if !self.first.is_empty() {
            pieces.push_back(self.first.clone());
        }
        if !self.more.is_empty() {
            pieces.push_back(Bytes::copy_from_slice(&self.more));
        }
        pieces
    }
}

/// Pieces that go out in order, in one write where the kernel takes them.
#[derive(Debug, Default)]
struct Unsent(VecDeque<Bytes>);

impl Buf for Unsent {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map(Bytes::as_ref).unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pairs = slices.iter_mut().zip(&self.0);
        pairs.map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.0.front_mut() {
            let step = count.min(front.len());
            front.advance(step);
            count -= step;
            if front.has_remaining() {
                return;
            }
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body::Frame;

    use super::*;

    /// So many pieces of one byte, each with a buffer of its own.
    struct Bits(usize);

    impl http_body::Body for Bits {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            let Some(left) = self.0.checked_sub(1) else { return Poll::Ready(None) };
            self.0 = left;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; 8192]).split_to(1)))))
        }
    }

    /// What is said again of a body of so many pieces: their lengths.
    fn again(count: usize) -> Option<Vec<usize>> {
        let mut upload = Upload::new(Body::stream(Bits(count)));
        let mut cx = Context::from_waker(Waker::noop());
        upload.begin();
        while !upload.ended {
            assert!(matches!(upload.poll_pull(&mut cx), Poll::Ready(Ok(()))));
            upload.unsent.0.clear();
        }
        upload.begin();
        let pieces = || upload.again.iter().map(Bytes::len).collect();
        upload.is_repeatable().then(pieces)
    }

    #[test]
    fn of_many_small_pieces_only_the_bytes_are_kept() {
        assert_eq!(again(0), Some(vec![]));
        assert_eq!(again(1), Some(vec![1]));
        assert_eq!(again(2), Some(vec![1, 1]));
        assert_eq!(again(KEPT), Some(vec![1, KEPT - 1]));
        assert_eq!(again(KEPT + 1), None);
    }
}
