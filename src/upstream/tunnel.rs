//! Two sockets that became a pipe: bytes both ways until both ends are done.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use super::target::Load;

/// What is read from a side at once; its memory is held only while something is under way.
const READ: usize = 16 * 1024;

/// The target's side of a connection that changed protocols.
pub struct Tunnel {
    connection: Connection,
    idle: Duration,
    /// A tunnel is work for its target.
    _load: Load,
}

impl Tunnel {
    pub(super) fn new(connection: Connection, load: Load, idle: Duration) -> Self {
        Self { connection, idle, _load: load }
    }

    /// Carries bytes until both sides have ended, one fails, or nothing moves for the idle time.
    ///
    /// `early` is what the client sent before its 101 arrived.
    pub async fn join(
        self,
        mut client: impl AsyncRead + AsyncWrite + Unpin,
        early: Bytes,
    ) -> io::Result<()> {
        let Connection { mut socket, buffer, .. } = self.connection;
        let mut up = Way::carrying(early);
        let mut down = Way::carrying(buffer.freeze());
        let mut alarm = pin!(sleep_until(Instant::now() + self.idle));
        poll_fn(|cx| {
            let before = (up.moved, down.moved);
            let up_ended = up.poll(&mut client, &mut socket, cx)?;
            let down_ended = down.poll(&mut socket, &mut client, cx)?;
            if up_ended.is_ready() && down_ended.is_ready() {
                return Poll::Ready(Ok(()));
            }
            if before != (up.moved, down.moved) {
                alarm.as_mut().reset(Instant::now() + self.idle);
            }
            ready!(alarm.as_mut().poll(cx));
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }
}

/// One direction.
struct Way {
    bytes: Bytes,
    state: State,
    moved: u64,
}

#[derive(Clone, Copy)]
enum State {
    Open,
    /// The source has ended; the other side is to be told.
    Ending,
    Ended,
}

impl Way {
    fn carrying(bytes: Bytes) -> Self {
        Self { bytes, state: State::Open, moved: 0 }
    }

    fn poll(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.bytes.has_remaining() {
                let written = ready!(pin!(to.write_buf(&mut self.bytes)).poll(cx))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.moved += written as u64;
            }
            match self.state {
                State::Open => {
                    let mut buffer = BytesMut::with_capacity(READ);
                    let read = match pin!(from.read_buf(&mut buffer)).poll(cx)? {
                        Poll::Ready(read) => read,
                        // TLS holds what it was given until it is flushed.
                        Poll::Pending => {
                            ready!(Pin::new(&mut *to).poll_flush(cx))?;
                            return Poll::Pending;
                        }
                    };
                    self.bytes = buffer.freeze();
                    if read == 0 {
                        self.state = State::Ending;
                    }
                }
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}
