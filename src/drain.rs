//! The only spawn: who is still working, and when to stop.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tracing::trace;

/// Runs what waits in the kernel, and cannot be told to stop, on a thread of its own. The caller sees
/// to it that there are few.
pub fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    spawn_blocking(work)
}

/// The tasks of one thread. Clones are one and the same.
#[derive(Clone, Default)]
pub struct Drain {
    inner: Rc<Inner>,
}

#[derive(Default)]
struct Inner {
    working: Cell<usize>,
    leaving: Cell<bool>,
    told: Notify,
    emptied: Notify,
}

impl Drain {
    /// Runs `task` on this thread; `emptied` waits for it.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + 'static,
    {
        spawn_local(Task { task, _working: Working::begin(&self.inner, name) })
    }

    /// Runs `task` on this thread for as long as the thread lives; nobody waits for it.
    pub fn spawn_background<F>(&self, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + 'static,
    {
        spawn_local(task)
    }

    /// Tells every task to leave when it can.
    pub fn begin(&self) {
        self.inner.leaving.set(true);
        self.inner.told.notify_waiters();
    }

    pub fn is_leaving(&self) -> bool {
        self.inner.leaving.get()
    }

    /// Resolves once the tasks are told to leave.
    pub async fn leaving(&self) {
        let told = self.inner.told.notified();
        tokio::pin!(told);
        // Listening begins before the look, so a word in between is not missed.
        told.as_mut().enable();
        if !self.is_leaving() {
            told.await;
        }
    }

    /// How many tasks are still at work.
    pub fn working(&self) -> usize {
        self.inner.working.get()
    }

    /// Resolves once no task is at work.
    pub async fn emptied(&self) {
        while self.working() > 0 {
            self.inner.emptied.notified().await;
        }
    }
}

pin_project! {
    /// A task that is counted. An async block around it would keep the task's memory twice: as what
    /// it was given and as what it waits for.
    struct Task<F> {
        #[pin]
        task: F,
        _working: Working,
    }
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().task.poll(cx)
    }
}

/// Counts a task until it is dropped, finished or not.
struct Working {
    inner: Rc<Inner>,
    name: &'static str,
}

impl Working {
    fn begin(inner: &Rc<Inner>, name: &'static str) -> Self {
        inner.working.set(inner.working.get() + 1);
        Self { inner: Rc::clone(inner), name }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let left = self.inner.working.get() - 1;
        self.inner.working.set(left);
        trace!(task = self.name, left, "ended");
        if left == 0 {
            self.inner.emptied.notify_one();
        }
    }
}
