//! What one worker has to tell the others: in order, one letter each per turn of the loop.
//!
//! Nothing is lost when a worker lags: what is for it waits here, and sessions are not read until
//! it has caught up, so that whoever sends too much is slowed down by TCP.

use std::cell::{Cell, RefCell};
use std::mem;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Duration;

use crate::auth::Suspicion;
use crate::drain::Drain;
use crate::observe::metrics::{self, Series};

use super::asked::Question;
use super::cluster::{Cluster, Numbered, Replay, Uplink};
use super::engine::{Delivery, Id, Message};
use super::handover::{FAR, Way};
use super::namespace::Target;
use super::operation::{Answers, Operation, Outcome, Task};
use super::policy::Policy;
use super::presence::{Inquiry, Move};
use super::recovery::{self, Stamp};
use super::renewals::Renewal;

/// What a worker is told.
#[derive(Clone)]
pub enum Notice {
    Emit {
        namespace: Arc<str>,
        target: Arc<Target>,
        message: Arc<Message>,
        delivery: Delivery,
        stamp: Option<Stamp>,
    },
    /// To all but the worker that leads.
    Operation(Task),
    /// To another process: what came of the operation that it wanted.
    Outcome {
        number: u64,
        outcome: Outcome,
    },
    /// Of another node, which waits for clients' acknowledgements.
    Question(Box<Question>),
    /// To the one that leads: what a page of the Admin UI asks.
    Command(Arc<Operation>),
    /// To the worker that keeps the room.
    Moved(Move),
    Inquiry(Inquiry),
    /// The answer to an inquiry.
    Answer {
        namespace: Arc<str>,
        id: Id,
        ack: u64,
        data: Arc<str>,
    },
    Recovery(Box<recovery::Letter>),
    /// The same to a worker of another process, by the number that it has here.
    Far {
        to: usize,
        letter: Box<recovery::Letter>,
    },
    /// All that began there up to this was said before.
    Baseline {
        stamp: Stamp,
        attempt: u64,
    },
    /// What came over Redis before it, up to this, is heard; behind it stands the rest.
    Mark {
        mark: u64,
        stamp: Stamp,
    },
    /// A session of the application's may have ended.
    Suspect(Suspicion),
    /// A token of one has been followed by another.
    Renewed(Arc<Renewal>),
    /// All of the stream up to there was told before this.
    Placed {
        stream: Arc<str>,
        stamp: Stamp,
    },
    /// Some of the stream is gone that was never told.
    Trimmed(Arc<str>),
    /// Something that was said there before this was not heard.
    Gap {
        namespace: Arc<str>,
        stamp: Stamp,
    },
    /// What has become of messages that wait for their place in the order.
    Settled {
        said: Arc<[Numbered]>,
        lost: Arc<[Numbered]>,
    },
    /// The client with this secret has come elsewhere.
    Taken(Id),
    /// What a client of this worker has missed, all of it; `None` if it is not known any more.
    Entered {
        worker: usize,
        number: u64,
        missed: Option<Replay>,
    },
}

/// What the main thread has a worker do; answered when it is done.
pub enum Order {
    Install(Option<Arc<Policy>>, oneshot::Sender<()>),
    /// Close every session there is, spread over this time.
    Close(Duration, oneshot::Sender<()>),
    /// The same, and those that still open, and what is carried to other nodes.
    Leave(Duration, oneshot::Sender<()>),
    /// All workers have: nobody is here to be told anything any more, and the worker may end.
    End(oneshot::Sender<()>),
    /// Another process hears what this one says from now on, and the other way round.
    Bridge(Way, oneshot::Sender<()>),
    /// It does not any more.
    Unbridge(u64, oneshot::Sender<()>),
    /// What is to be closed over some time is to be closed at once.
    Hurry(oneshot::Sender<()>),
    /// To the worker that leads through operations.
    Operate(Arc<[Operation]>, Answers),
}

pub enum Letter {
    Notices(Vec<Notice>),
    Order(Order),
}

/// Letters a worker has not come to yet. Full: see above.
pub const LETTERS: usize = 64;
/// Notices that may wait for one worker before sessions are not read any more.
const WAITING_MAX: usize = 4096;

/// One worker's notices to the others.
pub struct Outbox {
    boxes: Vec<Rc<Pigeonhole>>,
    /// To another process, while there is one.
    far: RefCell<Option<(u64, Rc<Pigeonhole>)>>,
    readers: RefCell<Vec<Waker>>,
    /// To other nodes, if there may be any.
    pub uplink: Option<Rc<Uplink>>,
    lag: Arc<Series>,
}

struct Pigeonhole {
    worker: usize,
    to: mpsc::Sender<Letter>,
    waiting: RefCell<Vec<Notice>>,
    filled: Notify,
    congested: Cell<bool>,
    /// Nobody is told any more.
    is_closed: Cell<bool>,
}

impl Pigeonhole {
    fn new(worker: usize, to: mpsc::Sender<Letter>) -> Rc<Self> {
        Rc::new(Self {
            worker,
            to,
            waiting: RefCell::default(),
            filled: Notify::new(),
            congested: Cell::new(false),
            is_closed: Cell::new(false),
        })
    }

    fn put(&self, notice: Notice) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.push(notice);
        self.congested.set(waiting.len() > WAITING_MAX);
        self.filled.notify_one();
    }
}

impl Outbox {
    /// To all of `others`, with one task each.
    pub fn start(
        others: Vec<(usize, mpsc::Sender<Letter>)>,
        cluster: Option<&Arc<Cluster>>,
        drain: &Drain,
    ) -> Rc<Self> {
        let boxes = others.into_iter().map(|(worker, to)| Pigeonhole::new(worker, to));
        let outbox = Rc::new_cyclic(|me: &Weak<Self>| {
            let me = Weak::clone(me);
            let relieved = move || me.upgrade().into_iter().for_each(|outbox| outbox.relieve());
            let uplink = cluster.map(|cluster| Uplink::start(Arc::clone(cluster), drain, relieved));
            let lag = metrics::series(&metrics::HUB_LAG, &[]);
            let (far, readers) = (RefCell::default(), RefCell::default());
            Self { boxes: boxes.collect(), far, readers, uplink, lag }
        });
        for pigeonhole in &outbox.boxes {
            drain.spawn_background(Rc::clone(&outbox).carry(Rc::clone(pigeonhole)));
        }
        outbox
    }

    /// What began on this worker is told to another process as well, from now on.
    pub fn begin_far(self: &Rc<Self>, way: Way, drain: &Drain) {
        let pigeonhole = Pigeonhole::new(FAR, way.letters);
        *self.far.borrow_mut() = Some((way.attempt, Rc::clone(&pigeonhole)));
        drain.spawn_background(Rc::clone(self).carry(pigeonhole));
    }

    pub fn end_far(&self, attempt: u64) {
        let ended = self.far.borrow_mut().take_if(|(known, _)| *known == attempt);
        ended.inspect(|(_, pigeonhole)| self.shut(pigeonhole));
    }

    /// Nobody is there to be told: what waits goes, and nothing waits for it.
    fn shut(&self, pigeonhole: &Pigeonhole) {
        pigeonhole.is_closed.set(true);
        let left = pigeonhole.waiting.take().len();
        self.heard(left);
        pigeonhole.congested.set(false);
        pigeonhole.filled.notify_one();
        self.relieve();
    }

    pub fn tell_far(&self, notice: Notice) {
        if let Some((_, pigeonhole)) = &*self.far.borrow() {
            self.put(pigeonhole, notice);
        }
    }

    /// True while another process is told what happens here, and no Redis tells it.
    pub fn bridges(&self) -> bool {
        self.uplink.is_none() && self.far.borrow().is_some()
    }

    /// True if nothing waits for the other process.
    pub fn has_told_far(&self) -> bool {
        self.far.borrow().as_ref().is_none_or(|(_, far)| far.waiting.borrow().is_empty())
    }

    /// True if there is nobody to tell: no other worker, and no other process.
    pub fn is_alone(&self) -> bool {
        self.boxes.is_empty() && self.far.borrow().is_none()
    }

    /// Leaves at the end of this turn.
    pub fn tell_all(&self, notice: &Notice) {
        self.boxes.iter().for_each(|pigeonhole| self.put(pigeonhole, notice.clone()));
        if matches!(notice, Notice::Emit { .. } | Notice::Baseline { .. }) {
            self.tell_far(notice.clone());
        }
    }

    /// To one other worker, in order with what all are told.
    pub fn tell(&self, worker: usize, notice: Notice) {
        let found = self.boxes.iter().find(|pigeonhole| pigeonhole.worker == worker);
        found.inspect(|pigeonhole| self.put(pigeonhole, notice));
    }

    fn put(&self, pigeonhole: &Pigeonhole, notice: Notice) {
        if pigeonhole.is_closed.get() {
            return;
        }
        self.lag.add(1);
        pigeonhole.put(notice);
    }

    /// This worker has come to so many notices of others.
    pub fn heard(&self, notices: usize) {
        self.lag.add(-i64::try_from(notices).unwrap_or(i64::MAX));
    }

    /// True if nothing more may be added now; the waker is called when that changes.
    pub fn is_congested(&self, waker: &Waker) -> bool {
        let congested = self.boxes.iter().any(|pigeonhole| pigeonhole.congested.get())
            || self.far.borrow().as_ref().is_some_and(|(_, far)| far.congested.get())
            || self.uplink.as_ref().is_some_and(|uplink| uplink.is_congested());
        if congested {
            self.readers.borrow_mut().push(waker.clone());
        }
        congested
    }

    async fn carry(self: Rc<Self>, pigeonhole: Rc<Pigeonhole>) {
        loop {
            pigeonhole.filled.notified().await;
            if pigeonhole.is_closed.get() {
                return;
            }
            // An error says that the worker is gone, and with it everybody to tell.
            let Ok(place) = pigeonhole.to.reserve().await else { return self.shut(&pigeonhole) };
            let notices = mem::take(&mut *pigeonhole.waiting.borrow_mut());
            if !notices.is_empty() {
                place.send(Letter::Notices(notices));
            }
            if pigeonhole.congested.replace(false) {
                self.relieve();
            }
        }
    }

    /// Sessions are read again.
    fn relieve(&self) {
        self.readers.take().into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::yield_now;

    use super::*;

    /// What a worker says to one that has ended is neither kept nor waited for.
    #[test]
    fn nothing_waits_for_a_worker_that_is_gone() {
        let runtime = Builder::new_current_thread().build_local(LocalOptions::default());
        runtime.expect("a runtime").block_on(async {
            let (to_gone, gone) = mpsc::channel(LETTERS);
            let (to_other, mut other) = mpsc::channel(LETTERS);
            let others = vec![(1, to_gone), (2, to_other)];
            let outbox = Outbox::start(others, None, &Drain::default());
            drop(gone);
            let notice = Notice::Taken(Id::random());
            for _ in 0..=WAITING_MAX {
                outbox.tell_all(&notice);
            }
            assert!(outbox.is_congested(Waker::noop()));
            let Some(Letter::Notices(heard)) = other.recv().await else { panic!("no notices") };
            assert_eq!(heard.len(), WAITING_MAX + 1);
            yield_now().await;
            assert!(!outbox.is_congested(Waker::noop()));
            outbox.tell_all(&notice);
            assert!(outbox.boxes.iter().all(|one| one.is_closed.get() == (one.worker == 1)));
            let waiting = outbox.boxes.iter().map(|one| one.waiting.borrow().len());
            assert_eq!(waiting.collect::<Vec<_>>(), [0, 1]);
        });
    }
}
