//! One line for each socket id: what is asked about a socket reaches the application in order, also
//! when its client has come back on another connection, or on another worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;

use crate::hub::engine::Id;

/// Who is asked about next; clones are one and the same, and may go to another worker.
#[derive(Debug, Clone)]
pub struct Line(Arc<Semaphore>);

impl Line {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// The lines in which somebody stands on this worker, and how many do.
#[derive(Default)]
pub struct Lines {
    lines: RefCell<HashMap<Id, (Line, usize)>>,
}

impl Lines {
    /// Takes the last place in the line of `id`.
    pub fn stand(self: &Rc<Self>, id: Id) -> Place {
        self.stand_in(id, Line::new)
    }

    /// Makes the line that `id` had elsewhere its line here, and takes the last place in it;
    /// `None` if there is a line here, which is that one.
    pub fn adopt(self: &Rc<Self>, id: Id, line: Line) -> Option<Place> {
        let is_known = self.lines.borrow().contains_key(&id);
        (!is_known).then(|| self.stand_in(id, || line))
    }

    /// The line of `id`, if anybody stands in it.
    pub fn find(&self, id: Id) -> Option<Line> {
        self.lines.borrow().get(&id).map(|(line, _)| line.clone())
    }

    fn stand_in(self: &Rc<Self>, id: Id, line: impl FnOnce() -> Line) -> Place {
        let mut lines = self.lines.borrow_mut();
        let (line, standing) = lines.entry(id).or_insert_with(|| (line(), 0));
        *standing += 1;
        Place { lines: Rc::clone(self), id, turn: Turn::take(line) }
    }

    fn leave(&self, id: Id) {
        let mut lines = self.lines.borrow_mut();
        if let Some((_, standing)) = lines.get_mut(&id) {
            *standing -= 1;
            if *standing == 0 {
                lines.remove(&id);
            }
        }
        if lines.is_empty() {
            // What a crowd needed goes when it has left.
            lines.shrink_to_fit();
        }
    }
}

/// A place in a line. Those behind it move up when it is dropped.
pub struct Place {
    lines: Rc<Lines>,
    id: Id,
    turn: Turn,
}

type Wait = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>>>>;

enum Turn {
    Waits(Wait),
    /// Held until it is dropped. Lines are never closed.
    Come {
        _permit: Result<OwnedSemaphorePermit, AcquireError>,
    },
}

impl Turn {
    fn take(Line(line): &Line) -> Self {
        if let Ok(permit) = Arc::clone(line).try_acquire_owned() {
            return Self::Come { _permit: Ok(permit) };
        }
        let mut wait: Wait = Box::pin(unconstrained(Arc::clone(line).acquire_owned()));
        // The place is taken by the first look, so that is now and not when a task comes to it.
        match wait.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Self::Come { _permit: permit },
            Poll::Pending => Self::Waits(wait),
        }
    }
}

impl Place {
    pub fn is_first(&self) -> bool {
        matches!(self.turn, Turn::Come { .. })
    }

    /// Resolves when all who stood before are gone. A wait that is given up keeps its place.
    pub async fn turn(&mut self) {
        if let Turn::Waits(wait) = &mut self.turn {
            self.turn = Turn::Come { _permit: wait.await };
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lines.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn turns_come_in_the_order_of_places() {
        let (lines, id) = (Rc::new(Lines::default()), Id::random());
        let (first, mut second, mut third) = (lines.stand(id), lines.stand(id), lines.stand(id));
        assert!(first.is_first() && !second.is_first() && !third.is_first());
        assert!(lines.stand(Id::random()).is_first(), "another line");
        for _ in 0..2 {
            let early = timeout(Duration::from_millis(1), second.turn()).await;
            assert!(early.is_err(), "before its turn");
        }
        drop(first);
        // It has given up twice and is still before the third.
        assert!(timeout(Duration::from_millis(1), third.turn()).await.is_err());
        second.turn().await;
        drop(second);
        third.turn().await;
        drop(third);
        assert!(lines.lines.borrow().is_empty());
    }

    #[tokio::test]
    async fn a_line_goes_on_where_its_socket_goes() {
        let [old, new] = [(); 2].map(|()| Rc::new(Lines::default()));
        let id = Id::random();
        assert!(old.find(id).is_none());
        let farewell = old.stand(id);
        let line = old.find(id).expect("a line");
        let adopted = new.adopt(id, line.clone()).expect("no line there yet");
        let mut connect = new.stand(id);
        assert!(!adopted.is_first() && !connect.is_first());
        assert!(new.adopt(id, line).is_none(), "it is there");
        // Who leaves a line does not hold up those behind.
        drop(adopted);
        drop(farewell);
        connect.turn().await;
        drop(connect);
        assert!(new.find(id).is_none());
    }
}
