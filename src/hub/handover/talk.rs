//! What two processes ask each other for the operator, and who is in watched rooms there.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::hub::attendance::Attendances;
use crate::hub::crowds::Step;
use crate::hub::engine::Id;
use crate::hub::operation::{ANSWER, Answers, Done, Operation, Outcome, Task};
use crate::hub::outbox::{Letter, Notice};
use crate::hub::presence::Move;
use crate::observe::metrics;

use super::FAR;
use super::frame::Frame;

/// Namespace, room and socket.
type Seat = (Arc<str>, Arc<str>, Id);

/// One conversation, on the main thread.
pub struct Talk {
    /// Whom the other process is asked for, and which of the answers it is.
    asked: RefCell<HashMap<u64, (usize, Answers)>>,
    last: Cell<u64>,
    /// How often its sockets are in which room: one that moves between workers is there twice for
    /// a moment.
    crowd: RefCell<HashMap<Seat, u32>>,
    /// To the other process, until there is nothing more to say.
    letters: mpsc::WeakSender<Letter>,
}

impl Talk {
    pub fn new(letters: mpsc::WeakSender<Letter>) -> Self {
        Self { asked: RefCell::default(), last: Cell::new(0), crowd: RefCell::default(), letters }
    }

    /// An operation that this process' leader has just led.
    pub fn ask(&self, task: &Task) -> Option<Frame> {
        let operation = task.operation()?.clone();
        let number = self.last.get() + 1;
        self.last.set(number);
        if let Some(answers) = task.answers() {
            let mut asked = self.asked.borrow_mut();
            // Who has stopped waiting is told nothing.
            asked.retain(|_, (_, answers)| !answers.is_closed());
            asked.insert(number, answers);
        }
        Some(Frame::Operate { number, operation: Box::new(operation) })
    }

    pub fn answered(&self, number: u64, outcome: Outcome) {
        if let Some((index, answers)) = self.asked.borrow_mut().remove(&number) {
            // There is room for all answers; whoever asked may have stopped waiting.
            let _told = answers.try_send(Done::new(FAR, index, outcome));
        }
    }

    /// What all workers are to be told to do, and what comes of it once they have.
    pub fn begin(
        &self,
        (number, operation): (u64, Operation),
        workers: usize,
        attendances: &Arc<Attendances>,
    ) -> (Notice, Gathering) {
        let (answers, answered) = mpsc::channel(workers.max(1));
        let (kept, letters) = (operation.clone(), self.letters.clone());
        let attendances = Arc::clone(attendances);
        let gathering = Gathering { number, operation: kept, answered, attendances, letters };
        (Notice::Operation(Task::alone(operation, Some(answers))), gathering)
    }

    /// Somebody has come there or gone; what workers are told if that makes a difference.
    pub fn moved(&self, seat: Seat, step: Step) -> Option<Notice> {
        let (is_here, key) = (matches!(step, Step::Came(_)), seat.clone());
        let mut crowd = self.crowd.borrow_mut();
        let count = crowd.entry(key.clone()).or_default();
        let before = *count;
        *count = if is_here { before + 1 } else { before.saturating_sub(1) };
        let changed = (before == 0) != (*count == 0);
        if *count == 0 {
            crowd.remove(&key);
        }
        changed.then(|| far(seat, step))
    }

    /// The other process is gone, and who was there with it.
    pub fn end(&self) -> Vec<Notice> {
        self.asked.borrow_mut().clear();
        self.crowd.take().into_keys().map(|seat| far(seat, Step::Went)).collect()
    }
}

fn far((namespace, room, id): Seat, step: Step) -> Notice {
    Notice::Moved(Move { namespace, room, id, step, is_far: true })
}

/// What this process' workers answer to the other one's operator.
pub struct Gathering {
    number: u64,
    operation: Operation,
    answered: mpsc::Receiver<Done>,
    attendances: Arc<Attendances>,
    letters: mpsc::WeakSender<Letter>,
}

impl Gathering {
    /// Says it when it is complete. If a worker is stuck nothing is said: whoever asked waits no
    /// longer, and hears that something may be missing.
    pub async fn say(mut self) {
        let mut outcome = self.operation.nothing();
        let gathering = async {
            while let Some(done) = self.answered.recv().await {
                outcome.add(done.into_outcome());
            }
        };
        if timeout(ANSWER, gathering).await.is_err() {
            return;
        }
        outcome.cut(&self.operation);
        // Who is with both processes is counted once, by the one that asked.
        let attendance = self.attendances.of(&self.operation.namespace);
        outcome.each_head(&self.operation, |heads, room| {
            if heads.users.is_some() {
                heads.elsewhere = attendance.all(room);
            }
        });
        let Some(letters) = self.letters.upgrade() else { return };
        metrics::series(&metrics::HUB_LAG, &[]).add(1);
        let notice = Notice::Outcome { number: self.number, outcome };
        // It is gone, then.
        let _said = letters.send(Letter::Notices(vec![notice])).await;
    }
}
