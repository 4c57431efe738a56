//! A session that is not listened to for a while, since it has said too much.
//!
//! What it has sent stays where it is: in the socket, whose peer waits when it is full, or in the
//! body of a POST, which is answered when all of it was taken, or when a WebSocket is to take over.
//! Pongs stand behind it, so nobody is taken for dead while what it said is not read.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::limits::Rate;

use super::Engine;
use super::packet::Version;
use super::queue::Control;
use super::session::Session;

/// From when a session is first not listened to until all that it said meanwhile is taken.
pub(super) struct Rest {
    until: Instant,
    /// Until then at most, for what the layer above has not come to.
    held: Instant,
    alarm: Pin<Box<Sleep>>,
    /// Whole messages may stand in what was read already.
    stopped: bool,
    /// A POST was answered before all of it was taken. Its task takes what is left, whatever the
    /// transport is by then.
    carries: bool,
    /// The client of the POST has gone.
    abandoned: bool,
    /// Whoever has read what was said after that.
    next: Option<Waker>,
    /// What was the session's turn when it began: all that waits was said before it could hear
    /// anything that it is sent since.
    turn: u32,
    /// When a client that pings by itself (protocol 3) last heard that its ping will be answered.
    soothed: Instant,
}

impl Rest {
    fn due(&self) -> Instant {
        self.until.max(self.held)
    }
}

impl Session {
    /// Takes nothing more of what the client says for so long. True if it was up to date before.
    pub fn rest(self: &Rc<Self>, wait: Duration) -> bool {
        self.pause(|rest, now| rest.until = rest.until.max(now + wait))
    }

    /// The same until it is released, or for so long.
    pub fn hold(self: &Rc<Self>, most: Duration) -> bool {
        self.pause(|rest, now| rest.held = now + most)
    }

    /// The layer above has come to what it was held for.
    pub fn release(&self) {
        if let Some(rest) = self.rest.borrow_mut().as_mut() {
            let now = Instant::now();
            rest.held = now;
            // Whoever waits is woken in time.
            rest.alarm.as_mut().reset(rest.until.max(now));
        }
    }

    /// The session has ended: whoever waits for its rest to be over is woken.
    pub(super) fn end_rest(&self) {
        if let Some(rest) = self.rest.borrow_mut().as_mut() {
            rest.alarm.as_mut().reset(Instant::now());
        }
    }

    /// The POST under way is answered, and is not all taken.
    pub(super) fn carry(&self) {
        if let Some(rest) = self.rest.borrow_mut().as_mut() {
            rest.carries = true;
        }
    }

    pub(super) fn carries(&self) -> bool {
        self.rest.borrow().as_ref().is_some_and(|rest| rest.carries)
    }

    /// Ready when nothing is left of a POST that was answered before, also when its session has ended.
    /// One task at a time waits here: that of the next POST, or that of the WebSocket, which takes
    /// over only when there is none.
    pub(super) fn poll_carried(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.rest.borrow_mut().as_mut() {
            Some(rest) if rest.carries => {
                rest.next = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    fn pause(self: &Rc<Self>, change: impl FnOnce(&mut Rest, Instant)) -> bool {
        let turn = self.turn();
        let now = Instant::now();
        let mut rest = self.rest.borrow_mut();
        let begins = rest.is_none();
        let rest = rest.get_or_insert_with(|| {
            let alarm = Box::pin(sleep_until(now));
            let (stopped, carries, abandoned) = (false, false, false);
            let (until, held, soothed, next) = (now, now, now, None);
            Box::new(Rest { until, held, alarm, stopped, carries, abandoned, next, turn, soothed })
        });
        change(rest, now);
        if self.version == Version::V3 && now - rest.soothed >= self.engine.soothe_after() {
            // Its own ping may be among what waits; any pong will do.
            rest.soothed = now;
            self.send_control(Control::Pong);
        }
        begins
    }

    /// Nothing is to be taken of what the client has said.
    pub(super) fn is_resting(&self) -> bool {
        let rest = self.rest.borrow();
        rest.as_ref().is_some_and(|rest| rest.due() > Instant::now()) && self.is_open()
    }

    /// The same; if so, something was read that is not taken yet.
    pub(super) fn stops(&self) -> bool {
        let stops = self.is_resting();
        if stops {
            self.rest.borrow_mut().iter_mut().for_each(|rest| rest.stopped = true);
        }
        stops
    }

    /// Something was read that was not taken; asked once.
    pub(super) fn has_stopped(&self) -> bool {
        let mut rest = self.rest.borrow_mut();
        rest.as_mut().is_some_and(|rest| std::mem::take(&mut rest.stopped))
    }

    /// The client has gone, and what it has said is taken for as long as silence is borne: no pong will
    /// follow it.
    pub(super) fn abandon_rest(&self) {
        if let Some(rest) = self.rest.borrow_mut().as_mut() {
            rest.abandoned = true;
        }
    }

    /// What the client has said may not have been taken yet, its pong for one.
    pub fn is_behind(&self) -> bool {
        self.rest.borrow().as_ref().is_some_and(|rest| !rest.abandoned)
    }

    /// In which turn it was behind before, if it is.
    pub(super) fn turn_behind(&self) -> Option<u32> {
        self.rest.borrow().as_ref().map(|rest| rest.turn)
    }

    /// All is taken that the client has said so far.
    pub(super) fn catch_up(&self) {
        let Some(rest) = self.rest.take() else { return };
        if self.version == Version::V3 {
            // It pings an interval after the last pong, and so has not yet since it was soothed.
            self.note_ping();
        }
        if let Some(next) = rest.next {
            next.wake();
        }
    }

    /// Ready when the client may be listened to again, or has gone. One task at a time waits here, as
    /// the alarm wakes one: that of the POST under way or carried, or that of the WebSocket, which
    /// listens only when there is none.
    pub(super) fn poll_rest(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_resting() {
            return Poll::Ready(());
        }
        let mut rest = self.rest.borrow_mut();
        let Some(rest) = rest.as_mut() else { return Poll::Ready(()) };
        let due = rest.due();
        if rest.alarm.deadline() != due {
            rest.alarm.as_mut().reset(due);
        }
        rest.alarm.as_mut().poll(cx)
    }
}

impl Engine {
    /// Bytes of messages that a session may send.
    pub(super) fn bytes_max(&self) -> Option<Rate> {
        self.settings.borrow().bytes
    }

    /// Clients of protocol 3 wait as long as `ping_timeout` for an answer to their ping.
    fn soothe_after(&self) -> Duration {
        self.settings.borrow().ping_timeout / 3
    }
}
