//! Writes of one turn, gathered: the frames of several streams go out as one piece.
//!
//! hyper flushes after each frame of data, and over TLS each flush is a record and a system call.
//! Here a flush is put off until the connection has said all that it can say now: whoever drives it
//! then asks for [`Gathered::poll_out`].

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Watched;

/// Bytes that are gathered at most, those of one TLS record: more are written at once.
const GATHERED_MAX: usize = 16 * 1024;

thread_local! {
    /// What the last connection gathered in, for the next.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection whose flushes wait; clones are one and the same.
pub struct Gathered<S = Watched>(Rc<RefCell<Gathering<S>>>);

struct Gathering<S> {
    stream: S,
    /// Written, but not sent: from `sent` on.
    waiting: Vec<u8>,
    sent: usize,
    /// What sending met; whoever reads or writes next is told.
    failed: Option<io::Error>,
}

impl<S> Gathered<S> {
    pub fn new(stream: S) -> Self {
        let (waiting, sent, failed) = (Vec::new(), 0, None);
        Self(Rc::new(RefCell::new(Gathering { stream, waiting, sent, failed })))
    }
}

impl<S> Clone for Gathered<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Sends what was gathered, as far as the client takes it. False if that failed: then the next
    /// read or write says why.
    pub fn poll_out(&self, cx: &mut Context<'_>) -> bool {
        let mut gathering = self.0.borrow_mut();
        if gathering.failed.is_some() {
            return false;
        }
        match gathering.poll_flushed(cx) {
            Poll::Ready(Err(error)) => gathering.failed = Some(error),
            Poll::Ready(Ok(())) | Poll::Pending => (),
        }
        gathering.failed.is_none()
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        while let Some(left) = self.waiting.get(self.sent..).filter(|left| !left.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        if self.sent > 0 {
            let mut spare = mem::take(&mut self.waiting);
            spare.clear();
            SPARE.set(spare);
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Makes room for `more`; false if they are too many to be gathered.
    fn poll_room(&mut self, more: usize, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.failed.is_some() || self.waiting.len() + more > GATHERED_MAX {
            ready!(self.poll_sent(cx))?;
        }
        if more > GATHERED_MAX {
            return Poll::Ready(Ok(false));
        }
        if self.waiting.capacity() == 0 {
            self.waiting = SPARE.take();
        }
        Poll::Ready(Ok(true))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut gathering = self.0.borrow_mut();
        if let Some(error) = gathering.failed.take() {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut gathering.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut gathering = self.0.borrow_mut();
        if !ready!(gathering.poll_room(bytes.len(), cx))? {
            return Pin::new(&mut gathering.stream).poll_write(cx, bytes);
        }
        gathering.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathering = self.0.borrow_mut();
        let more = slices.iter().map(|slice| slice.len()).sum();
        if !ready!(gathering.poll_room(more, cx))? {
            return Pin::new(&mut gathering.stream).poll_write_vectored(cx, slices);
        }
        for slice in slices {
            gathering.waiting.extend_from_slice(slice);
        }
        Poll::Ready(Ok(more))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().stream.is_write_vectored()
    }

    /// Done later, by [`Gathered::poll_out`].
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.borrow_mut().failed.take().map_or(Ok(()), Err))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.borrow_mut();
        ready!(gathering.poll_flushed(cx))?;
        Pin::new(&mut gathering.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn pair(room: usize) -> (Gathered<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(room);
        (Gathered::new(ours), theirs)
    }

    /// What has come so far.
    fn came(theirs: &mut DuplexStream) -> Vec<u8> {
        let (mut all, mut cx) = (Vec::new(), Context::from_waker(Waker::noop()));
        let mut bytes = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *theirs).poll_read(&mut cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    all.extend_from_slice(buffer.filled());
                }
                _ => return all,
            }
        }
    }

    #[tokio::test]
    async fn a_turn_goes_out_as_one_piece() {
        let (mut gathered, mut theirs) = pair(64 * 1024);
        for piece in ["head ", "data ", "head ", "data"] {
            gathered.write_all(piece.as_bytes()).await.expect("it is gathered");
            gathered.flush().await.expect("it is put off");
        }
        assert_eq!(came(&mut theirs), b"", "nothing before the turn ends");
        assert!(poll_fn(|cx| Poll::Ready(gathered.poll_out(cx))).await);
        assert_eq!(came(&mut theirs), b"head data head data");
    }

    #[tokio::test]
    async fn an_end_takes_along_what_waits() {
        let (mut gathered, mut theirs) = pair(64 * 1024);
        gathered.write_all(b"goodbye").await.expect("it is gathered");
        gathered.shutdown().await.expect("it ends");
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.expect("all of it");
        assert_eq!(all, b"goodbye");
    }

    #[tokio::test]
    async fn a_failure_is_told_to_who_writes_next() {
        let (mut gathered, theirs) = pair(64);
        gathered.write_all(b"anyone?").await.expect("it is gathered");
        drop(theirs);
        assert!(!poll_fn(|cx| Poll::Ready(gathered.poll_out(cx))).await);
        assert!(gathered.flush().await.is_err());
    }

    proptest! {
        /// Whatever is written, however slowly it is taken: the same bytes, and only so many held.
        #[test]
        fn nothing_is_lost_or_held_without_bound(
            pieces in prop::collection::vec((0_usize..40_000, any::<bool>()), 1..20),
            room in 1_usize..50_000,
        ) {
            let (mut gathered, mut theirs) = pair(room);
            let mut cx = Context::from_waker(Waker::noop());
            let (mut sent, mut all) = (Vec::new(), Vec::new());
            for (index, (length, out)) in pieces.into_iter().enumerate() {
                let piece = vec![u8::try_from(index).unwrap_or_default(); length];
                let mut left = piece.as_slice();
                while !left.is_empty() {
                    let (first, second) = left.split_at(left.len() / 3);
                    let slices = [IoSlice::new(first), IoSlice::new(second)];
                    match Pin::new(&mut gathered).poll_write_vectored(&mut cx, &slices) {
                        Poll::Ready(written) => {
                            let written = written.expect("it is open");
                            left = left.get(written..).unwrap_or_default();
                        }
                        Poll::Pending => all.extend(came(&mut theirs)),
                    }
                    prop_assert!(gathered.0.borrow().waiting.len() <= GATHERED_MAX);
                }
                sent.extend(piece);
                if out {
                    prop_assert!(gathered.poll_out(&mut cx));
                }
            }
            while !gathered.0.borrow().waiting.is_empty() {
                prop_assert!(gathered.poll_out(&mut cx));
                all.extend(came(&mut theirs));
            }
            all.extend(came(&mut theirs));
            prop_assert_eq!(all, sent);
        }
    }
}
