//! A worker's memory of who showed what: asked once, however many wait for the answer.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::config::Source;
use crate::exchange::Client;
use crate::limits::{Buckets, Rate, key_of};

use super::clock;
use super::credentials::{self, Credentials};
use super::identity::{Cause, Denial, Identity};
use super::inquiry::{Ask, Inquiry, Verdict};
use super::memory::Memory;
use super::passwords::{self, Passwords};
use super::provider::{Compiled, Digest, Opened, Provider, Shown};
use super::seal::sha256_of;

/// The way to the desk, and what all workers know together.
#[derive(Clone)]
pub struct Way {
    desk: mpsc::Sender<Ask>,
    /// How often each address showed what is wrong.
    wrong: Arc<Buckets>,
    /// Tokens by which somebody is connected, on any worker.
    tokens: Arc<AtomicUsize>,
    begun: Instant,
}

/// Questions that nobody has come to yet. Full: they are answered as temporary at once.
const QUESTIONS: usize = 16_384;

impl Way {
    pub fn open() -> (Self, mpsc::Receiver<Ask>) {
        let (desk, questions) = mpsc::channel(QUESTIONS);
        let (wrong, tokens) = (Arc::default(), Arc::default());
        (Self { desk, wrong, tokens, begun: Instant::now() }, questions)
    }
}

/// How a provider's store does, as far as this worker has heard.
#[derive(Default)]
struct Health {
    /// Answers in a row that it did not give. Not begun anew by a pause: if it is still away then, the
    /// next answer says so.
    failed: u32,
    /// Nobody asks until then.
    away: Option<Instant>,
}

/// Why somebody is looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// Something was shown, which may be a guess.
    Shown,
    /// It was right before. How much at its address is wrong says nothing of it.
    Again,
}

/// So many in a row, and the store is away.
const FAILED_MAX: u32 = 3;
/// How long it is left alone then.
const AWAY: Duration = Duration::from_secs(1);

/// One worker's memory, and its way to the desk.
pub struct Local {
    way: Way,
    health: RefCell<HashMap<Arc<str>, Health>>,
    memory: Memory,
    /// Tokens that have been logged out of, until they end.
    revoked: RefCell<HashMap<Digest, i64>>,
    /// Tokens that have been seen, and until when they are no news.
    seen: RefCell<HashMap<Digest, Instant>>,
}

/// Somebody who was identified, and by what; the credential stays in here.
#[derive(Debug, Clone)]
pub struct Known {
    pub identity: Identity,
    pub provider: Arc<Provider>,
    pub digest: Digest,
    shown: Secretly,
    client: Client,
}

/// Does not print.
#[derive(Clone)]
struct Secretly(Shown);

/// What may open a session, and has still to be verified.
pub struct Candidate {
    provider: Arc<Provider>,
    shown: Secretly,
    client: Client,
    pub digest: Digest,
}

impl Candidate {
    /// What a provider finds in a request.
    pub fn find(provider: &Arc<Provider>, shown: &Credentials, client: &Client) -> Option<Self> {
        let shown = provider.find(shown, client).ok().flatten()?;
        let (digest, shown) = (provider.digest(&shown, client), Secretly(shown));
        Some(Self { provider: Arc::clone(provider), shown, client: client.clone(), digest })
    }
}

impl std::fmt::Debug for Secretly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Tokens that are refused, each of which was right. Full: those whose time is over go, and then the
/// tenth that ends first, which is logged.
const REVOKED: usize = 100_000;
/// So much later than they say tokens of these libraries end at the most, in milliseconds.
const LEEWAY: i64 = 60_000;
/// Tokens that are no news. Full: they all are again.
const SEEN: usize = 10_000;
/// How long a token is none.
const NO_NEWS: Duration = Duration::from_secs(15);

impl Known {
    /// The same session, as it is now.
    pub fn renewed(&self, identity: Identity) -> Self {
        let (provider, digest) = (Arc::clone(&self.provider), self.digest);
        let (shown, client) = (Secretly(self.shown.0.clone()), self.client.clone());
        Self { identity, provider, digest, shown, client }
    }

    /// The same by another provider of the name, which opens what this one does.
    pub fn under(&self, provider: &Arc<Provider>) -> Self {
        let mut known = self.renewed(self.identity.clone());
        known.provider = Arc::clone(provider);
        known
    }

    /// Until its end; `None` if it has none of its own.
    pub fn left(&self) -> Option<Duration> {
        let left = self.identity.expires_at?.saturating_sub(clock::now());
        Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    /// How long it must be refused once it is logged out of, in milliseconds since 1970: there is no
    /// end to what has none.
    pub fn refused_until(&self) -> i64 {
        self.identity.expires_at.map_or(i64::MAX, |ends| ends.saturating_add(LEEWAY))
    }

    /// True if it has ended.
    pub fn is_over(&self) -> bool {
        self.identity.expires_at.is_some_and(|ends| ends <= clock::now())
    }

    /// Whose connection it is: the same for another credential of the same session. Some tokens
    /// have no name for their session that outlives them: there the user counts.
    pub fn owner(&self) -> Digest {
        let lasting = self.identity.is_lasting;
        let session = if lasting { self.identity.session.as_str() } else { "" };
        sha256_of([self.user_key().as_bytes(), session.as_bytes()])
    }

    /// What all tokens of one session have in common; `None` if nothing tells them.
    pub fn thread(&self) -> Option<Digest> {
        (self.provider.is_stateless() && self.identity.is_lasting).then(|| self.owner())
    }

    /// It came with each request, rather than once.
    pub fn is_ambient(&self) -> bool {
        self.shown.0.from != Source::Connect
    }

    /// A browser may have sent it by itself.
    pub fn is_cookie(&self) -> bool {
        self.shown.0.from == Source::Cookie
    }

    /// It came as the other did, as a cookie or as a header.
    pub fn came_as(&self, other: &Self) -> bool {
        self.shown.0.from == other.shown.0.from
    }

    /// The user among those of all providers.
    pub fn user_key(&self) -> String {
        user_key(&self.provider.name, &self.identity.user)
    }

    /// The same as a number, to count by.
    pub fn user_number(&self) -> u64 {
        number_of(&self.provider.name, &self.identity.user)
    }
}

fn user_key(provider: &str, user: &str) -> String {
    format!("{provider}:{user}")
}

/// A user among those of all providers, as a number that is the same in every process.
pub fn number_of(provider: &str, user: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = sha256_of([user_key(provider, user).as_bytes()]);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn rate_of(provider: &Provider) -> Rate {
    let failures = provider.words.failures;
    Rate::new(failures.count, failures.per, failures.count)
}

impl Local {
    pub fn new(way: Way) -> Rc<Self> {
        Rc::new(Self {
            way,
            health: RefCell::default(),
            memory: Memory::default(),
            revoked: RefCell::default(),
            seen: RefCell::default(),
        })
    }

    /// Who it is, by the first provider of whose kind something was shown.
    pub async fn identify(
        &self,
        shown: &Credentials,
        client: &Client,
        providers: &[Arc<Provider>],
    ) -> Result<Rc<Known>, Denial> {
        for provider in providers {
            let Some(shown) = provider.find(shown, client)? else { continue };
            let digest = provider.digest(&shown, client);
            let identity = self.verify(provider, &shown, digest, client, Occasion::Shown).await?;
            let (provider, client) = (Arc::clone(provider), client.clone());
            let known = Known { identity, provider, digest, shown: Secretly(shown), client };
            return Ok(Rc::new(known));
        }
        Err(Denial::Missing)
    }

    /// The same if it is known already; `None` if somebody must be asked.
    pub fn recognize(
        &self,
        shown: &Credentials,
        client: &Client,
        providers: &[Arc<Provider>],
    ) -> Option<Result<Rc<Known>, Denial>> {
        for provider in providers {
            let shown = match provider.find(shown, client) {
                Ok(None) => continue,
                Ok(Some(shown)) => shown,
                Err(denial) => return Some(Err(denial)),
            };
            let (digest, now) = (provider.digest(&shown, client), clock::now());
            if self.is_revoked(&digest, now) {
                return Some(Err(Denial::REVOKED));
            }
            let (provider, client) = (Arc::clone(provider), client.clone());
            let known = self.memory.recall(provider.compiled, &digest, now)?.map(|identity| {
                Rc::new(Known { identity, provider, digest, shown: Secretly(shown), client })
            });
            return Some(known);
        }
        Some(Err(Denial::Missing))
    }

    /// The same one once more, without what is remembered.
    pub async fn recheck(&self, known: &Known) -> Verdict {
        self.memory.doubt(&known.digest);
        let Known { provider, shown, digest, client, .. } = known;
        self.verify(provider, &shown.0, *digest, client, Occasion::Again).await
    }

    /// Who a candidate is.
    pub async fn confirm(&self, candidate: Candidate) -> Result<Known, Denial> {
        let Candidate { provider, shown, client, digest } = candidate;
        // Whoever guesses is not listened to here either.
        self.may_ask(&provider, &client, Occasion::Shown)?;
        let identity = self.verify(&provider, &shown.0, digest, &client, Occasion::Shown).await?;
        Ok(Known { identity, provider, digest, shown, client })
    }

    /// Who a candidate is; `None` if that cannot be said at once.
    pub fn tell_at_once(&self, candidate: &Candidate) -> Option<Result<Known, Denial>> {
        let Candidate { provider, shown, client, digest } = candidate;
        let (digest, now) = (*digest, clock::now());
        if self.is_revoked(&digest, now) {
            return Some(Err(Denial::REVOKED));
        }
        // What was refused a moment ago may be right by now.
        let verdict = match self.memory.recall(provider.compiled, &digest, now) {
            Some(Ok(identity)) => Ok(identity),
            _ => match provider.open(&shown.0, now) {
                Ok(Opened::Known(identity)) => Ok(identity),
                Ok(Opened::Ask(_)) => return None,
                Err(denial) => {
                    self.count_wrong(provider, client, &Err(denial));
                    Err(denial)
                }
            },
        };
        Some(verdict.map(|identity| {
            let (provider, shown, client) = (Arc::clone(provider), shown.clone(), client.clone());
            Known { identity, provider, digest, shown, client }
        }))
    }

    /// True now and then for each token: it is worth looking whom it concerns.
    pub fn is_news(&self, token: &Digest) -> bool {
        let now = Instant::now();
        let mut seen = self.seen.borrow_mut();
        if seen.get(token).is_some_and(|until| *until > now) {
            return false;
        }
        if seen.len() >= SEEN {
            seen.clear();
        }
        seen.insert(*token, now + NO_NEWS);
        true
    }

    /// One token more, or one fewer, by which somebody is connected here.
    pub fn count_token(&self, is_more: bool) {
        if is_more {
            self.way.tokens.fetch_add(1, Ordering::Relaxed);
        } else {
            self.way.tokens.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// False if nobody is connected by a token, on any worker.
    pub fn awaits_tokens(&self) -> bool {
        self.way.tokens.load(Ordering::Relaxed) > 0
    }

    /// What was shown is worth nothing any more.
    pub fn forget(&self, digest: &Digest) {
        self.memory.forget(digest);
    }

    /// A token that nobody can take back is refused from now on, until it ends by itself.
    pub fn revoke(&self, digest: Digest, until: i64) {
        let now = clock::now();
        let mut revoked = self.revoked.borrow_mut();
        if revoked.len() >= REVOKED {
            revoked.retain(|_, until| *until > now);
        }
        if revoked.len() >= REVOKED {
            let mut ends: Vec<_> = revoked.values().copied().collect();
            let (_, first, _) = ends.select_nth_unstable(REVOKED / 10);
            let first = *first;
            // Of those that end at the same moment some stay.
            let mut many = REVOKED / 10 + 1;
            revoked.retain(|_, until| {
                let goes = *until <= first && many > 0;
                many -= usize::from(goes);
                !goes
            });
            warn!("more tokens were logged out of than are kept: those that end first are let in");
        }
        revoked.insert(digest, until);
        drop(revoked);
        self.forget(&digest);
    }

    fn is_revoked(&self, digest: &Digest, now: i64) -> bool {
        self.revoked.borrow().get(digest).is_some_and(|until| *until > now)
    }

    async fn verify(
        &self,
        provider: &Arc<Provider>,
        shown: &Shown,
        digest: Digest,
        client: &Client,
        occasion: Occasion,
    ) -> Verdict {
        let now = clock::now();
        if self.is_revoked(&digest, now) {
            return Err(Denial::REVOKED);
        }
        match self.memory.recall(provider.compiled, &digest, now) {
            Some(verdict) => verdict,
            None => {
                let verdict = self.look(provider, shown, digest, client, occasion).await;
                // It may have been logged out of meanwhile.
                let is_revoked = self.is_revoked(&digest, clock::now());
                if is_revoked { Err(Denial::REVOKED) } else { verdict }
            }
        }
    }

    /// Opens it, and asks if somebody must be asked; whatever was known of it.
    async fn look(
        &self,
        provider: &Arc<Provider>,
        shown: &Shown,
        digest: Digest,
        client: &Client,
        occasion: Occasion,
    ) -> Verdict {
        let count_wrong = |verdict: &Verdict| {
            if occasion == Occasion::Shown {
                self.count_wrong(provider, client, verdict);
            }
        };
        let verdict = match provider.open(shown, clock::now()) {
            Ok(Opened::Known(identity)) => Ok(identity),
            Err(denial) => Err(denial),
            Ok(Opened::Ask(question)) => {
                self.may_ask(provider, client, occasion)?;
                let ask = async {
                    let verdict = self.ask(provider, question, client).await;
                    self.learn(provider, &verdict);
                    count_wrong(&verdict);
                    verdict
                };
                let (compiled, cache) = (provider.compiled, provider.words.cache);
                return self.memory.once(compiled, digest, cache, ask).await;
            }
        };
        count_wrong(&verdict);
        self.memory.remember(provider.compiled, digest, provider.words.cache, &verdict);
        verdict
    }

    /// True if nothing can be said of who shows this, since the store is away.
    pub fn is_away(
        &self,
        shown: &Credentials,
        client: &Client,
        providers: &[Arc<Provider>],
    ) -> bool {
        for provider in providers {
            match provider.find(shown, client) {
                Ok(None) => (),
                // It is refused without a store.
                Err(_) => return false,
                Ok(Some(shown)) => {
                    let digest = provider.digest(&shown, client);
                    let known = self.memory.recall(provider.compiled, &digest, clock::now());
                    return known.is_none() && self.is_store_away(provider);
                }
            }
        }
        false
    }

    /// False if some provider's store is away.
    pub fn is_well(&self) -> bool {
        let now = Instant::now();
        self.health.borrow().values().all(|health| health.away.is_none_or(|until| until <= now))
    }

    fn is_store_away(&self, provider: &Provider) -> bool {
        let health = self.health.borrow();
        let until = health.get(&provider.name).and_then(|health| health.away);
        until.is_some_and(|until| until > Instant::now())
    }

    fn may_ask(
        &self,
        provider: &Provider,
        client: &Client,
        occasion: Occasion,
    ) -> Result<(), Denial> {
        if self.is_store_away(provider) {
            return Err(Denial::Temporary(Cause::Store, "store_away"));
        }
        let (rate, now) = (rate_of(provider), self.way.begun.elapsed());
        if occasion == Occasion::Shown && !self.way.wrong.has(key_of(client.address), rate, now) {
            return Err(Denial::Temporary(Cause::Shown, "too_many_wrong"));
        }
        Ok(())
    }

    /// Whether the store is there. What one client can bring about must shut nobody else out.
    fn learn(&self, provider: &Provider, verdict: &Verdict) {
        let failed = match verdict {
            Err(Denial::Temporary(Cause::Edge, _)) => return,
            Err(Denial::Temporary(Cause::Store, _)) => true,
            _ => false,
        };
        let mut health = self.health.borrow_mut();
        let health = health.entry(Arc::clone(&provider.name)).or_default();
        health.failed = if failed { health.failed + 1 } else { 0 };
        health.away = (health.failed >= FAILED_MAX).then(|| Instant::now() + AWAY);
    }

    fn count_wrong(&self, provider: &Provider, client: &Client, verdict: &Verdict) {
        let is_wrong = match verdict {
            // What has ended was right once: that is no guess.
            Err(denial @ Denial::Refused(_)) => *denial != Denial::EXPIRED,
            // What cannot be judged may be as much of a guess.
            Err(Denial::Temporary(cause, _)) => *cause == Cause::Shown,
            _ => false,
        };
        if is_wrong {
            let (rate, now) = (rate_of(provider), self.way.begun.elapsed());
            let _within = self.way.wrong.take(key_of(client.address), rate, now);
        }
    }

    /// Who has such a name and password; the name alone is known of them.
    pub async fn check_password(
        &self,
        passwords: &Passwords,
        headers: &http::HeaderMap,
        client: &Client,
    ) -> Verdict {
        let (user, password) = credentials::basic(headers).ok_or(Denial::Missing)?;
        let digest = passwords.digest(&user, &password);
        // What they are checked by is part of their digests.
        let asked = Compiled::default();
        if let Some(verdict) = self.memory.recall(asked, &digest, clock::now()) {
            return verdict;
        }
        let ask = async {
            let (reply, answer) = oneshot::channel();
            let attempt = passwords.attempt(user, password, client.address, reply);
            if self.way.desk.try_send(Ask::Password(Box::new(attempt))).is_err() {
                return Err(Denial::Temporary(Cause::Edge, "busy"));
            }
            let answer = timeout(passwords::DEADLINE, answer).await;
            answer.map_or(Err(Denial::Temporary(Cause::Edge, "busy")), |answer| {
                answer.unwrap_or(Err(Denial::Temporary(Cause::Edge, "stopping")))
            })
        };
        self.memory.once(asked, digest, passwords::REMEMBERED, ask).await
    }

    async fn ask(
        &self,
        provider: &Arc<Provider>,
        question: super::provider::Question,
        client: &Client,
    ) -> Verdict {
        let (reply, answer) = oneshot::channel();
        let (provider, client) = (Arc::clone(provider), client.clone());
        let inquiry = Box::new(Inquiry { provider, question, client, reply });
        if self.way.desk.try_send(Ask::Session(inquiry)).is_err() {
            return Err(Denial::Temporary(Cause::Edge, "busy"));
        }
        answer.await.unwrap_or(Err(Denial::Temporary(Cause::Edge, "stopping")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_logouts_are_kept_and_those_that_end_first_go() {
        let local = Local::new(Way::open().0);
        let now = clock::now();
        let digest = |number: usize| sha256_of([&number.to_be_bytes()[..]]);
        let ends = |number: usize| now + 3_600_000 + i64::try_from(number).unwrap_or(0);
        for number in 0..=REVOKED {
            local.revoke(digest(number), ends(number));
        }
        assert!(local.revoked.borrow().len() <= REVOKED);
        let is_kept = |number| local.is_revoked(&digest(number), now);
        assert!(!is_kept(0) && is_kept(REVOKED / 2) && is_kept(REVOKED));
        local.revoke(digest(0), now - 1);
        assert!(!is_kept(0), "it has ended by itself");
    }
}
