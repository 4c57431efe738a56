//! Documents with keys, fetched and kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::clock;
use super::fetch;
use super::identity::{Cause, Denial};
use super::inquiry::Verdict;
use super::keys::Key;
use super::preset::jwt::Unverified;
use super::provider::Provider;

/// By their URLs.
#[derive(Default)]
pub struct Documents(RefCell<HashMap<String, Rc<Document>>>);

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

/// Read anew after so long.
const FRESH: Duration = Duration::from_secs(600);
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
    /// Who the token is for, by the document's keys; read once more if it names another.
    pub async fn open(
        &self,
        provider: &Provider,
        url: &str,
        (token, since): (&str, Option<u32>),
    ) -> Verdict {
        let document = {
            let mut known = self.0.borrow_mut();
            Rc::clone(known.entry(url.to_owned()).or_default())
        };
        let keys = document.keys(url, FRESH).await.ok_or(unread(Cause::Store))?;
        match provider.open_token(token, since, &keys, clock::now()) {
            Ok(identity) => return Ok(identity),
            Err(Unverified::Denied(denial)) => return Err(denial),
            Err(Unverified::UnknownKey) => (),
        }
        let before = document.state.borrow().fetched;
        let keys = document.keys(url, COOL_DOWN).await.ok_or(unread(Cause::Store))?;
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
}

impl Document {
    /// The keys, not older than `fresh` if that can be had.
    async fn keys(&self, url: &str, fresh: Duration) -> Option<Rc<Vec<Key>>> {
        if self.is_due(fresh) {
            let _one = self.fetching.lock().await;
            // Another may have fetched it meanwhile.
            if self.is_due(fresh) {
                self.fetch(url).await;
            }
        }
        let state = self.state.borrow();
        let kept = state.fetched.is_some_and(|fetched| fetched.elapsed() < STALE);
        state.keys.clone().filter(|_| kept)
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
