//! What a worker remembers of answers, and who waits for one that is under way.
//!
//! An answer counts for whom it was asked of, as that was compiled: after a reload another may have
//! the name, and let in others.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::identity::{Cause, Denial};
use super::inquiry::Verdict;
use super::provider::{Compiled, Digest};

/// Answers, by what they are about.
#[derive(Default)]
pub struct Memory {
    remembered: RefCell<HashMap<Digest, Remembered>>,
    under_way: RefCell<HashMap<Digest, Rc<Question>>>,
}

struct Remembered {
    verdict: Verdict,
    until: Instant,
    asked: Compiled,
}

/// One that is under way. Others may join the latest of its digest.
struct Question {
    asked: Compiled,
    line: RefCell<Vec<oneshot::Sender<Verdict>>>,
}

/// Of whoever asks for all who wait. If it is dropped half way, the others hear that nothing came of
/// it.
struct Turn<'a> {
    memory: &'a Memory,
    digest: Digest,
    question: Rc<Question>,
}

/// Answers that are remembered. Full: those that are over go, and if none is, all.
const REMEMBERED: usize = 10_000;
/// How long a refusal is remembered.
const REFUSED: Duration = Duration::from_secs(1);

impl Memory {
    /// What is known; nothing of an identity that has ended since.
    pub fn recall(&self, asked: Compiled, digest: &Digest, now: i64) -> Option<Verdict> {
        let remembered = self.remembered.borrow();
        let known = remembered.get(digest)?;
        if known.asked != asked || known.until <= Instant::now() {
            return None;
        }
        let over = known
            .verdict
            .as_ref()
            .is_ok_and(|identity| identity.expires_at.is_some_and(|ends| ends <= now));
        (!over).then(|| known.verdict.clone())
    }

    pub fn remember(&self, asked: Compiled, digest: Digest, valid: Duration, verdict: &Verdict) {
        let lasts = match verdict {
            Ok(_) => valid,
            Err(denial) if denial.is_temporary() => return,
            Err(_) => REFUSED,
        };
        let now = Instant::now();
        let mut remembered = self.remembered.borrow_mut();
        if remembered.len() >= REMEMBERED {
            remembered.retain(|_, known| known.until > now);
        }
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        let (verdict, until) = (verdict.clone(), now + lasts);
        remembered.insert(digest, Remembered { verdict, until, asked });
    }

    /// What is known may have changed a while ago: whoever comes may join a question under way.
    pub fn doubt(&self, digest: &Digest) {
        self.remembered.borrow_mut().remove(digest);
    }

    /// It has changed just now: what was asked before is answered to those alone who wait for it.
    pub fn forget(&self, digest: &Digest) {
        self.doubt(digest);
        self.under_way.borrow_mut().remove(digest);
    }

    /// Asks once for all who want the same answer meanwhile.
    pub async fn once(
        &self,
        asked: Compiled,
        digest: Digest,
        valid: Duration,
        ask: impl Future<Output = Verdict>,
    ) -> Verdict {
        let (reply, answer) = oneshot::channel();
        if let Some(turn) = self.join(asked, digest, reply) {
            let verdict = ask.await;
            turn.end(valid, &verdict);
        }
        answer.await.unwrap_or(Err(Denial::Temporary(Cause::Edge, "interrupted")))
    }

    /// Waits with the others; whoever is the first asks.
    fn join(
        &self,
        asked: Compiled,
        digest: Digest,
        reply: oneshot::Sender<Verdict>,
    ) -> Option<Turn<'_>> {
        let mut under_way = self.under_way.borrow_mut();
        if let Some(known) = under_way.get(&digest).filter(|known| known.asked == asked) {
            known.line.borrow_mut().push(reply);
            return None;
        }
        let question = Rc::new(Question { asked, line: RefCell::new(vec![reply]) });
        under_way.insert(digest, Rc::clone(&question));
        Some(Turn { memory: self, digest, question })
    }
}

impl Turn<'_> {
    /// An answer that was overtaken by another question counts for those alone who wait for it.
    fn end(self, valid: Duration, verdict: &Verdict) {
        if self.is_latest() {
            self.memory.remember(self.question.asked, self.digest, valid, verdict);
        }
        // Some may have gone.
        let line = self.question.line.take();
        line.into_iter().for_each(|one| drop(one.send(verdict.clone())));
    }

    fn is_latest(&self) -> bool {
        let under_way = self.memory.under_way.borrow();
        under_way.get(&self.digest).is_some_and(|known| Rc::ptr_eq(known, &self.question))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.is_latest() {
            self.memory.under_way.borrow_mut().remove(&self.digest);
        }
        self.question.line.take();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::timeout;

    use super::super::identity::Identity;
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DIGEST: Digest = [7; 32];

    fn anna() -> Verdict {
        Identity::new("anna", "s1", None)
    }

    /// Asks what is answered later.
    async fn ask(memory: &Memory, asked: Compiled, answer: oneshot::Receiver<Verdict>) -> Verdict {
        let ask = async { answer.await.unwrap_or(Err(Denial::Missing)) };
        memory.once(asked, DIGEST, HOUR, ask).await
    }

    #[tokio::test]
    async fn what_was_asked_before_a_reload_says_nothing_after_it() {
        let memory = Memory::default();
        let (before, now) = (Compiled::next(), Compiled::next());
        memory.remember(before, DIGEST, HOUR, &anna());
        assert_eq!(memory.recall(before, &DIGEST, 0), Some(anna()));
        assert_eq!(memory.recall(now, &DIGEST, 0), None);
        let ((old, first), (new, second)) = (oneshot::channel(), oneshot::channel());
        let mut one = pin!(ask(&memory, before, first));
        assert!(timeout(Duration::ZERO, &mut one).await.is_err());
        let mut two = pin!(ask(&memory, now, second));
        assert!(timeout(Duration::ZERO, &mut two).await.is_err());
        // It is not asked again for whoever comes meanwhile.
        let mut three = pin!(ask(&memory, now, oneshot::channel().1));
        assert!(timeout(Duration::ZERO, &mut three).await.is_err());
        new.send(Err(Denial::UNKNOWN)).expect("it waits");
        assert_eq!((two.await, three.await), (Err(Denial::UNKNOWN), Err(Denial::UNKNOWN)));
        old.send(anna()).expect("it waits");
        assert_eq!(one.await, anna());
        assert_eq!(memory.recall(now, &DIGEST, 0), Some(Err(Denial::UNKNOWN)));
        assert!(memory.under_way.borrow().is_empty());
    }

    #[tokio::test]
    async fn what_was_asked_before_a_logout_says_nothing_after_it() {
        let (memory, asked) = (Memory::default(), Compiled::next());
        let ((old, first), (new, second)) = (oneshot::channel(), oneshot::channel());
        let mut one = pin!(ask(&memory, asked, first));
        assert!(timeout(Duration::ZERO, &mut one).await.is_err());
        memory.forget(&DIGEST);
        let mut two = pin!(ask(&memory, asked, second));
        assert!(timeout(Duration::ZERO, &mut two).await.is_err());
        old.send(anna()).expect("it waits");
        assert_eq!(one.await, anna());
        assert_eq!(memory.recall(asked, &DIGEST, 0), None, "it was overtaken");
        new.send(Err(Denial::UNKNOWN)).expect("it waits");
        assert_eq!(two.await, Err(Denial::UNKNOWN));
        assert_eq!(memory.recall(asked, &DIGEST, 0), Some(Err(Denial::UNKNOWN)));
        // Nobody asks again after this one.
        let (last, third) = oneshot::channel();
        let mut three = pin!(ask(&memory, asked, third));
        assert!(timeout(Duration::ZERO, &mut three).await.is_err());
        memory.forget(&DIGEST);
        last.send(anna()).expect("it waits");
        assert_eq!(three.await, anna());
        assert_eq!(memory.recall(asked, &DIGEST, 0), None);
    }
}
