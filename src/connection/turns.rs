//! Streams of HTTP/2 whose client takes nothing of its answer: each is cut by itself.
//!
//! On HTTP/1.1 the socket tells it. Here a client may keep one stream's window shut while it reads
//! the others, and hyper would wait for it without end, with the application behind it.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::drain::Drain;
use crate::observe::metrics;

use super::Activity;

/// Whose turn it is on one exchange: ours while a piece of the answer is asked for, else the client's.
#[derive(Debug, Default)]
pub struct Turn {
    /// Since when the client has what was given, and has not asked for more.
    given: Cell<Option<Instant>>,
    cut: Cell<bool>,
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
}

impl Turns {
    /// A client may leave an answer alone for so long as `patience`.
    pub fn new(drain: Drain, activity: Rc<Activity>, patience: Duration) -> Self {
        Self { drain, activity, patience, latest: Rc::default() }
    }

    /// The turn of a new request; the next stream that is run is its own.
    pub fn next(&self) -> Rc<Turn> {
        let turn = Rc::<Turn>::default();
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
            // The way out of a tunnel: the connection is at work for as long as it is open.
            None => {
                let exchange = self.activity.begin();
                drop(self.drain.spawn("stream", async move {
                    stream.await;
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
