//! The end of a connection whose client is still sending.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a client may take to notice that it was answered, and between two of its bytes.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_QUIET: Duration = Duration::from_secs(2);
/// Bytes that are thrown away.
const LINGER_MAX: usize = 64 << 20;
/// Of them, at once.
const LINGER_READ: usize = 16 * 1024;

/// That are waited for at once, on one worker. One more, and whoever has been for longest is closed: it
/// has had the most time to notice.
const AT_ONCE: usize = 256;

thread_local! {
    /// Those of this worker, the oldest first; who is dropped here is not waited for any more.
    static ALL: RefCell<VecDeque<oneshot::Sender<Infallible>>> = RefCell::default();
}

/// Why a client is not waited for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// It has ended too, or all patience.
    Ended,
    /// Its place was another's.
    Crowded,
}

/// The wait for a client that has its answer and is still sending.
pub struct Lingering {
    ends: Instant,
    left: usize,
    alarm: Pin<Box<Sleep>>,
    place: oneshot::Receiver<Infallible>,
}

impl Lingering {
    pub fn begin() -> Self {
        let now = Instant::now();
        let alarm = Box::pin(sleep_until(now + LINGER_QUIET));
        Self { ends: now + LINGER, left: LINGER_MAX, alarm, place: take_place() }
    }

    /// Reads what comes and throws it away.
    pub fn poll(&mut self, socket: &mut TcpStream, cx: &mut Context<'_>) -> Poll<Over> {
        if Pin::new(&mut self.place).poll(cx).is_ready() {
            return Poll::Ready(Over::Crowded);
        }
        let mut bytes = [0; LINGER_READ];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *socket).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.left = self.left.saturating_sub(buffer.filled().len());
                    let quiet = (Instant::now() + LINGER_QUIET).min(self.ends);
                    self.alarm.as_mut().reset(quiet);
                    if self.left == 0 {
                        return Poll::Ready(Over::Ended);
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Over::Ended),
                Poll::Pending => return self.alarm.as_mut().poll(cx).map(|()| Over::Ended),
            }
        }
    }
}

fn take_place() -> oneshot::Receiver<Infallible> {
    let (place, taken) = oneshot::channel();
    ALL.with_borrow_mut(|all| {
        if all.len() >= AT_ONCE {
            all.retain(|other| !other.is_closed());
        }
        if all.len() >= AT_ONCE {
            all.pop_front();
        }
        all.push_back(place);
    });
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_its_place() {
        let has_place = |place: &mut oneshot::Receiver<Infallible>| {
            place.try_recv() == Err(oneshot::error::TryRecvError::Empty)
        };
        let mut places: Vec<_> = (0..AT_ONCE).map(|_| take_place()).collect();
        // Whoever has gone leaves room, wherever it stood.
        places.remove(7);
        places.push(take_place());
        assert!(places.iter_mut().all(has_place));
        places.push(take_place());
        assert!(!has_place(&mut places[0]) && places[1..].iter_mut().all(has_place));
        ALL.with_borrow(|all| assert_eq!(all.len(), AT_ONCE));
    }
}
