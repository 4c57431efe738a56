//! A tunnel through one stream of HTTP/2, made a socket: the far end of a pair is carried to it.
//!
//! What drives WebSockets writes from any task and may move to another thread. A stream of HTTP/2
//! belongs to its connection and can do neither.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};

use super::Near;

/// Read at once.
const READ: usize = 16 * 1024;
/// After one side has ended, how long the other may take.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long the client may take nothing. Whoever drives the socket has given it up by then.
const STUCK: Duration = Duration::from_secs(60);

thread_local! {
    /// Read into by all bridges of the worker, so that an idle one holds nothing.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// The near end, and what carries bytes between it and the stream until both have ended.
pub fn bridge(
    stream: TokioIo<Upgraded>,
    told: Near,
) -> io::Result<(UnixStream, impl Future<Output = ()>)> {
    let (near, far) = UnixStream::pair()?;
    Ok((near, carry((stream, told), far)))
}

async fn carry((mut stream, _told): (TokioIo<Upgraded>, Near), mut far: UnixStream) {
    let (mut up, mut down) = (Way::default(), Way::default());
    let mut alarm = pin!(sleep_until(Instant::now()));
    // What is waited for with a deadline.
    let mut awaited = None;
    poll_fn(|cx| {
        let upward = up.poll(&mut stream, &mut far, cx);
        let downward = down.poll(&mut far, &mut stream, cx);
        let wait = match (upward, downward) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(()),
            (Poll::Pending, Poll::Pending) if matches!(down.state, State::Open) => {
                if down.held.is_empty() {
                    awaited = None;
                    return Poll::Pending;
                }
                STUCK
            }
            _ => FAREWELL,
        };
        if awaited != Some((wait, down.moved)) {
            awaited = Some((wait, down.moved));
            alarm.as_mut().reset(Instant::now() + wait);
        }
        alarm.as_mut().poll(cx)
    })
    .await;
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Read and not written.
    held: Vec<u8>,
    /// Goes up with each byte that was written of it.
    moved: u64,
    state: State,
}

#[derive(Default, Clone, Copy)]
enum State {
    #[default]
    Open,
    Ending,
    Ended,
}

impl Way {
    fn poll(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.held.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.held))?;
                self.held.drain(..written);
                self.moved += written as u64;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
            }
            match self.state {
                State::Open => {
                    self.held = Vec::new();
                    let read = SCRATCH.with_borrow_mut(|scratch| {
                        let mut buffer = ReadBuf::new(scratch);
                        ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
                        let read = buffer.filled();
                        // Most of it goes out at once.
                        let written = match Pin::new(&mut *to).poll_write(cx, read) {
                            _ if read.is_empty() => 0,
                            Poll::Ready(written) => written?,
                            Poll::Pending => 0,
                        };
                        self.held = read.get(written..).unwrap_or_default().to_vec();
                        Poll::Ready(io::Result::Ok(read.len()))
                    });
                    if ready!(read)? == 0 {
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
