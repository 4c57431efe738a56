//! Streams of HTTP/2 whose client takes nothing of its answer: each is cut by itself.
//!
//! On HTTP/1.1 the socket tells it. Here a client may keep one stream's window shut while it reads
//! the others, and hyper would wait for it without end, with the application behind it.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::drain::Drain;
use crate::exchange::{BodyError, Left};
use crate::observe::metrics;

use super::{Activity, SEND_BUFFER};

/// What hyper may let go of at once: it forgets a stream whose last piece it has given to h2, which
/// keeps that for as long as the client does not take it. One frame has as much.
const PIECE: usize = 16 * 1024;
/// What it is given at once of more: it asks again only when nearly all of that has gone out, and the
/// client's patience is counted from one time to the next.
const GIVEN: usize = SEND_BUFFER;

/// Pieces of answers that were let go of and that the client has not taken, of one connection.
///
/// They are counted in two eras, which change places once in a client's patience: a piece that is
/// still there when its era comes again is older than that.
#[derive(Debug, Default)]
pub struct Unsent {
    eras: [AtomicUsize; 2],
    era: AtomicUsize,
}

impl Unsent {
    fn count(&self, era: usize) -> Option<&AtomicUsize> {
        self.eras.get(era % 2)
    }

    pub fn is_empty(&self) -> bool {
        self.eras.iter().all(|count| count.load(Ordering::Relaxed) == 0)
    }

    /// Begins the next era; true if something of it is still there from its last time.
    pub fn turn(&self) -> bool {
        let next = self.era.load(Ordering::Relaxed).wrapping_add(1);
        self.era.store(next, Ordering::Relaxed);
        self.count(next).is_some_and(|count| count.load(Ordering::Relaxed) > 0)
    }

    fn hold(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let era = self.era.load(Ordering::Relaxed);
        if let Some(count) = self.count(era) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Bytes::from_owner(Piece { bytes, unsent: Arc::clone(self), era })
    }
}

/// Bytes that are counted until they have gone out.
struct Piece {
    bytes: Bytes,
    unsent: Arc<Unsent>,
    era: usize,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(count) = self.unsent.count(self.era) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whose turn it is on one exchange: ours while a piece of the answer is asked for, else the client's.
#[derive(Debug, Default)]
pub struct Turn {
    /// Since when the client has what was given, and has not asked for more.
    given: Cell<Option<Instant>>,
    cut: Cell<bool>,
    unsent: Arc<Unsent>,
    /// Where the way out of a tunnel finds its near end.
    opening: Rc<RefCell<Option<Left>>>,
}

impl Turn {
    /// The next piece is asked for.
    pub fn ours(&self) {
        self.given.set(None);
    }

    /// It was given.
    pub fn theirs(&self) {
        self.given.set(Some(Instant::now()));
    }

    /// Divides what is given next into what may be given at once and the rest: hyper waits for the
    /// client before it lets go of that, and so is watched.
    pub fn divide(
        &self,
        next: Option<Result<Frame<Bytes>, BodyError>>,
    ) -> (Option<Result<Frame<Bytes>, BodyError>>, Option<Bytes>) {
        let frame = match next {
            Some(Ok(frame)) => frame,
            other => return (other, None),
        };
        let mut data = match frame.into_data() {
            Ok(data) if !data.is_empty() => data,
            Ok(empty) => return (Some(Ok(Frame::data(empty))), None),
            Err(trailers) => return (Some(Ok(trailers)), None),
        };
        if data.len() <= PIECE {
            return (Some(Ok(Frame::data(self.unsent.hold(data)))), None);
        }
        // In whole frames, so that there are no more of them.
        let rest = data.split_off(((data.len() - 1) / PIECE * PIECE).min(GIVEN));
        (Some(Ok(Frame::data(data))), Some(rest))
    }

    /// What comes next is a tunnel's way out.
    pub fn opens(&self, left: Left) {
        self.opening.replace(Some(left));
    }

    /// True if the client was too slow.
    pub fn is_cut(&self) -> bool {
        self.cut.get()
    }
}

/// Runs a connection's streams on this worker, each with its turn.
#[derive(Clone)]
pub struct Turns {
    drain: Drain,
    activity: Rc<Activity>,
    patience: Duration,
    /// Of the request that hyper has just handed out; its stream comes next.
    latest: Rc<RefCell<Option<Rc<Turn>>>>,
    opening: Rc<RefCell<Option<Left>>>,
}

impl Turns {
    /// A client may leave an answer alone for so long as `patience`.
    pub fn new(drain: Drain, activity: Rc<Activity>, patience: Duration) -> Self {
        Self { drain, activity, patience, latest: Rc::default(), opening: Rc::default() }
    }

    /// The turn of a new request; the next stream that is run is its own.
    pub fn next(&self) -> Rc<Turn> {
        let turn = Rc::new(Turn {
            unsent: Arc::clone(&self.activity.unsent),
            opening: Rc::clone(&self.opening),
            ..Turn::default()
        });
        self.latest.replace(Some(Rc::clone(&turn)));
        turn
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Turns {
    fn execute(&self, stream: F) {
        match self.latest.take() {
            Some(turn) => {
                let patience = self.patience;
                let stream = Box::pin(stream);
                drop(self.drain.spawn("stream", Patient { stream, turn, patience, alarm: None }));
            }
            // The way out of a tunnel: the connection is at work for as long as it is open. What was
            // said last may wait for the client, but only as any other stream does.
            None => {
                let exchange = self.activity.begin();
                let (left, patience) = (self.opening.take(), self.patience);
                drop(self.drain.spawn("stream", async move {
                    let given_up = async {
                        match left {
                            Some(left) => left.wait().await,
                            None => std::future::pending().await,
                        }
                        sleep(patience).await;
                    };
                    tokio::select! {
                        () = stream => (),
                        () = given_up => metrics::count(&metrics::CONNECTIONS_CUT, "stream_stuck"),
                    }
                    drop(exchange);
                }));
            }
        }
    }
}

/// A stream that ends, and so is reset, when its client leaves the answer alone for too long.
struct Patient<F> {
    stream: Pin<Box<F>>,
    turn: Rc<Turn>,
    patience: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<F: Future<Output = ()>> Future for Patient<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(given) = this.turn.given.get() else { return Poll::Pending };
        let due = given + this.patience;
        let alarm = this.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if alarm.deadline() != due {
            alarm.as_mut().reset(due);
        }
        ready!(alarm.as_mut().poll(cx));
        this.turn.cut.set(true);
        metrics::count(&metrics::CONNECTIONS_CUT, "stream_stuck");
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_takes_nothing_is_no_shut_window() {
        let activity = Activity::new(Arc::default(), true);
        let turn = Turn { unsent: Arc::clone(&activity.unsent), ..Turn::default() };
        let _held = turn.divide(Some(Ok(Frame::data(Bytes::from_static(b"the end")))));
        // Each look is one patience after the other.
        let is_stuck = || activity.untaken(Duration::ZERO).is_err();
        activity.signs.set_unflushed(true);
        assert!((0..10).all(|_| !is_stuck()));
        activity.signs.set_unflushed(false);
        assert!(is_stuck() || is_stuck());
    }

    #[test]
    fn what_is_given_at_once_is_bounded_and_whole_frames() {
        for length in [1, PIECE, PIECE + 1, GIVEN, GIVEN + 1, GIVEN + PIECE + 1, 1 << 20] {
            let (turn, mut pieces) = (Turn::default(), Vec::new());
            let mut rest = Some(Bytes::from(vec![b'x'; length]));
            while let Some(data) = rest {
                let (given, left) = turn.divide(Some(Ok(Frame::data(data))));
                let given = given.and_then(Result::ok).and_then(|frame| frame.into_data().ok());
                pieces.push(given.expect("data").len());
                rest = left;
            }
            let last = pieces.pop().expect("a piece");
            assert!((1..=PIECE).contains(&last), "{length}: {last}");
            assert!(pieces.iter().all(|piece| piece % PIECE == 0 && *piece <= GIVEN), "{pieces:?}");
            assert_eq!(pieces.iter().sum::<usize>() + last, length);
        }
    }
}
