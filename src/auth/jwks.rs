//! Documents with keys, fetched and kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::drain::Drain;

use super::clock;
use super::fetch;
use super::identity::{Cause, Denial};
use super::inquiry::Verdict;
use super::keys::Key;
use super::preset::jwt::Unverified;
use super::provider::Provider;

/// By their URLs.
pub struct Documents {
    drain: Drain,
    known: RefCell<HashMap<String, Rc<Document>>>,
}

#[derive(Default)]
struct Document {
    state: RefCell<State>,
    /// One fetches, the others wait for what comes of it.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    keys: Option<Rc<Vec<Key>>>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

/// Read anew after so long, aside.
const FRESH: Duration = Duration::from_secs(600);
/// While the last attempt is no older, nobody who has keys waits for the next. After a longer pause
/// keys may have been taken back that are here: then it comes first.
const LATELY: Duration = Duration::from_secs(1200);
/// Kept for so long while it cannot be read.
const STALE: Duration = Duration::from_secs(86_400);
/// Between two attempts, whoever asks.
const COOL_DOWN: Duration = Duration::from_secs(30);
/// The same while there is no document at all.
const COOL_DOWN_AT_FIRST: Duration = Duration::from_secs(1);

/// Without any keys nobody can be let in. With some, that is so of tokens that name another.
const fn unread(cause: Cause) -> Denial {
    Denial::Temporary(cause, "keys_unread")
}

impl Documents {
    pub fn new(drain: &Drain) -> Self {
        Self { drain: drain.clone(), known: RefCell::default() }
    }

    /// Who the token is for, by the document's keys; read once more if it names another.
    pub async fn open(
        &self,
        provider: &Provider,
        url: &str,
        (token, since): (&str, Option<u32>),
    ) -> Verdict {
        let document = {
            let mut known = self.known.borrow_mut();
            Rc::clone(known.entry(url.to_owned()).or_default())
        };
        let keys = self.keys(&document, url).await.ok_or(unread(Cause::Store))?;
        match provider.open_token(token, since, &keys, clock::now()) {
            Ok(identity) => return Ok(identity),
            Err(Unverified::Denied(denial)) => return Err(denial),
            Err(Unverified::UnknownKey) => (),
        }
        let before = document.state.borrow().fetched;
        document.refresh(url, COOL_DOWN).await;
        let keys = document.kept().ok_or(unread(Cause::Store))?;
        match provider.open_token(token, since, &keys, clock::now()) {
            Ok(identity) => Ok(identity),
            Err(Unverified::Denied(denial)) => Err(denial),
            Err(Unverified::UnknownKey) => {
                let state = document.state.borrow();
                // A document that was read lately, and knows nothing of the key, has the last word.
                let read = state.fetched.is_some()
                    && (state.fetched == state.tried || state.fetched != before);
                if read { Err(Denial::Refused("unknown_key")) } else { Err(unread(Cause::Shown)) }
            }
        }
    }

    /// The keys of a document, which is read anew if it is time.
    async fn keys(&self, document: &Rc<Document>, url: &str) -> Option<Rc<Vec<Key>>> {
        if let Some(keys) = document.kept().filter(|_| document.was_tried_lately()) {
            if document.is_due(FRESH) {
                let (document, url) = (Rc::clone(document), url.to_owned());
                let refresh = async move { document.refresh(&url, FRESH).await };
                self.drain.spawn_background(refresh);
            }
            return Some(keys);
        }
        document.refresh(url, FRESH).await;
        document.kept()
    }
}

impl Document {
    /// Reads it, unless it was read so lately; waits for whoever does.
    async fn refresh(&self, url: &str, fresh: Duration) {
        if self.is_due(fresh) || self.fetching.try_lock().is_err() {
            let _one = self.fetching.lock().await;
            // Another may have fetched it meanwhile.
            if self.is_due(fresh) {
                self.fetch(url).await;
            }
        }
    }

    fn kept(&self) -> Option<Rc<Vec<Key>>> {
        let state = self.state.borrow();
        let kept = state.fetched.is_some_and(|fetched| fetched.elapsed() < STALE);
        state.keys.clone().filter(|_| kept)
    }

    fn was_tried_lately(&self) -> bool {
        self.state.borrow().tried.is_some_and(|tried| tried.elapsed() < LATELY)
    }

    fn is_due(&self, fresh: Duration) -> bool {
        let state = self.state.borrow();
        let cool = if state.keys.is_some() { COOL_DOWN } else { COOL_DOWN_AT_FIRST };
        let may = state.tried.is_none_or(|tried| tried.elapsed() >= cool);
        may && state.fetched.is_none_or(|fetched| fetched.elapsed() >= fresh)
    }

    async fn fetch(&self, url: &str) {
        let now = Instant::now();
        self.state.borrow_mut().tried = Some(now);
        let Ok(bytes) = fetch::get(url).await else { return };
        if let Ok(keys) = Key::set(&bytes) {
            let mut state = self.state.borrow_mut();
            (state.keys, state.fetched) = (Some(Rc::new(keys)), Some(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::task::LocalSet;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn who_has_keys_does_not_wait_for_newer_ones() {
        // Takes connections, and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/keys", silent.local_addr().expect("an address"));
        let documents = Documents::new(&Drain::default());
        let (tasks, document) = (LocalSet::new(), Rc::new(Document::default()));
        let at_once = async |what: &str| {
            let keys = timeout(Duration::ZERO, tasks.run_until(documents.keys(&document, &url)));
            assert!(keys.await.is_ok_and(|keys| keys.is_some()), "{what}");
        };
        let read = |before: Duration| {
            let at = Instant::now().checked_sub(before);
            *document.state.borrow_mut() =
                State { keys: Some(Rc::default()), fetched: at, tried: at };
        };
        read(FRESH + COOL_DOWN);
        at_once("they are old").await;
        assert!(document.is_due(FRESH));
        tasks.run_until(tokio::task::yield_now()).await;
        assert!(!document.is_due(FRESH), "somebody fetches");
        at_once("they are fetched").await;
        // Without any that are any good, whoever comes waits for who fetches.
        document.state.borrow_mut().keys = None;
        let waits = async || {
            let keys = tasks.run_until(documents.keys(&document, &url));
            assert!(timeout(Duration::ZERO, keys).await.is_err());
        };
        waits().await;
        read(LATELY);
        waits().await;
    }
}
