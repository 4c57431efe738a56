//! Where the workers' questions about sessions are answered: on the main thread, which has the
//! connections to databases, to Redis and to the application.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::{self, HeaderName, HeaderValue};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use crate::config::{BetterAuthStore, DatabaseKind, ProviderKind, Source};
use crate::drain::Drain;
use crate::exchange::{self, Body, Client, Peer, Request};
use crate::observe::metrics;
use crate::upstream::{Pools, SendError};

use super::clock;
use super::identity::{Cause, Denial};
use super::inquiry::{Ask, Inquiry, Verdict};
use super::jwks::Documents;
use super::line::Line;
use super::passwords::Checker;
use super::preset::{better_auth, callback, express};
use super::provider::{Provider, Question, Shown, Store, callback_words};
use super::redis::{Redis, RedisError, Value};
use super::store::{Rows, StoreError};

/// From the question to its answer, the wait for its turn too.
const DEADLINE: Duration = Duration::from_secs(2);
/// What one statement or command may take of it.
const STEP: Duration = Duration::from_secs(1);
/// Between two words about the same trouble.
const QUIET: Duration = Duration::from_secs(10);

pub const EDGE_AUTH: HeaderName = HeaderName::from_static("x-edge-auth");

pub struct Desk {
    drain: Drain,
    pools: Rc<Pools>,
    rows: RefCell<HashMap<String, Rc<Rows>>>,
    redis: RefCell<Vec<(crate::config::RedisPlace, Rc<Redis>)>>,
    documents: Documents,
    turns: RefCell<HashMap<Arc<str>, Rc<Semaphore>>>,
    complained: RefCell<HashMap<Arc<str>, Instant>>,
    checker: Checker,
    lines: RefCell<HashMap<Arc<str>, Rc<Line>>>,
}

impl Desk {
    pub fn new(drain: &Drain) -> Rc<Self> {
        Rc::new(Self {
            drain: drain.clone(),
            pools: Pools::new(drain),
            rows: RefCell::default(),
            redis: RefCell::default(),
            documents: Documents::new(drain),
            turns: RefCell::default(),
            complained: RefCell::default(),
            checker: Checker::default(),
            lines: RefCell::default(),
        })
    }

    /// Answers for as long as the process lives.
    pub async fn work(self: Rc<Self>, mut questions: mpsc::Receiver<Ask>) {
        while let Some(ask) = questions.recv().await {
            match ask {
                Ask::Password(attempt) => self.checker.ask(*attempt),
                Ask::Session(inquiry) => self.take(inquiry),
            }
        }
    }

    fn take(self: &Rc<Self>, inquiry: Box<Inquiry>) {
        let desk = Rc::clone(self);
        if let Question::Row(_) | Question::Value(_) = inquiry.question {
            let line = self.line(&inquiry.provider);
            if line.push(*inquiry) {
                self.drain.spawn_background(async move { desk.work_off(&line).await });
            }
            return;
        }
        self.drain.spawn_background(async move {
            let answer = desk.answer(&inquiry.provider, &inquiry.question, &inquiry.client).await;
            inquiry.answer(answer);
        });
    }

    fn line(&self, provider: &Provider) -> Rc<Line> {
        let mut lines = self.lines.borrow_mut();
        let own = lines.entry(Arc::clone(&provider.name));
        Rc::clone(own.or_insert_with(|| Rc::new(Line::default())))
    }

    /// Asks for as many as wait, until nobody does.
    async fn work_off(&self, line: &Rc<Line>) {
        let _place = line.begin();
        while let Some(batch) = line.next() {
            let Some(provider) = batch.first().map(|one| Arc::clone(&one.provider)) else {
                continue;
            };
            let verdicts = timeout(STEP, self.look_up_all(&provider, &batch)).await;
            let mut verdicts = verdicts.unwrap_or_else(|_elapsed| {
                self.complain_of_lookups(&provider, &"no answer in time");
                Vec::new()
            });
            verdicts.resize(batch.len(), Err(Denial::Temporary(Cause::Store, "store_slow")));
            for (inquiry, verdict) in batch.into_iter().zip(verdicts) {
                inquiry.answer(verdict);
            }
        }
    }

    /// The answers to questions of one provider, in their order.
    async fn look_up_all(&self, provider: &Provider, batch: &[Inquiry]) -> Vec<Verdict> {
        metrics::series(&metrics::AUTH_QUERIES, &[]).increment();
        let failed = |denial: Denial| vec![Err(denial); batch.len()];
        match provider.store() {
            Store::Rows(database) => match self.find_rows(provider, database, batch).await {
                Ok(verdicts) => verdicts,
                Err(denial) => failed(denial),
            },
            Store::Redis(place) => {
                let redis = self.redis(place);
                match self.find_values(provider, &redis, batch).await {
                    Ok(verdicts) => verdicts,
                    Err(error) => failed(self.failed(provider, &error)),
                }
            }
            _ => failed(Denial::Misconfigured("no_store")),
        }
    }

    async fn find_rows(
        &self,
        provider: &Provider,
        database: &crate::config::Database,
        batch: &[Inquiry],
    ) -> Result<Vec<Verdict>, Denial> {
        let misfit = |error: &StoreError| {
            let denial = self.failed(provider, error);
            if error.is_misfit() { Denial::Misconfigured("database_misfit") } else { denial }
        };
        let rows = self.rows(database).map_err(|error| self.failed(provider, &error))?;
        let statement = provider.statement().ok_or(Denial::Misconfigured("no_statement"))?;
        let mut ids: Vec<String> = batch.iter().filter_map(Inquiry::row_id).collect();
        // Several workers may ask for the same.
        ids.sort_unstable();
        ids.dedup();
        let found = rows.find(&statement, &ids).await.map_err(|error| misfit(&error))?;
        let now = clock::now();
        let judge = |inquiry: &Inquiry| match &inquiry.question {
            Question::Row(key) => match found.get(&key.id) {
                Some(Err(error)) => Err(misfit(error)),
                Some(Ok(row)) => self.settle(provider, provider.judge_row(key, Some(row), now)),
                None => self.settle(provider, provider.judge_row(key, None, now)),
            },
            _ => Err(Denial::Misconfigured("no_store")),
        };
        Ok(batch.iter().map(judge).collect())
    }

    async fn find_values(
        &self,
        provider: &Provider,
        redis: &Redis,
        batch: &[Inquiry],
    ) -> Result<Vec<Verdict>, RedisError> {
        let key_of = |inquiry: &Inquiry| match (&inquiry.question, &provider.words.kind) {
            (Question::Value(id), ProviderKind::Redis(words)) => words.key.replace("{id}", id),
            (Question::Row(key), ProviderKind::BetterAuth { store, .. }) => match store {
                BetterAuthStore::Redis { prefix, .. } => format!("{prefix}{}", key.id),
                BetterAuthStore::Rows(_) => String::new(),
            },
            _ => String::new(),
        };
        let keys: Vec<String> = batch.iter().map(key_of).collect();
        let values = redis.get(&keys).await?;
        let now = clock::now();
        match &provider.words.kind {
            ProviderKind::Redis(words) => {
                let judge = |(inquiry, value): (&Inquiry, &Value)| {
                    let Question::Value(id) = &inquiry.question else {
                        return Err(Denial::Misconfigured("no_store"));
                    };
                    let (user, expires) = (&words.user, &words.expires);
                    let value = value.as_ref().map_err(|denial| *denial);
                    let judged = value
                        .and_then(|value| express::judge(id, value.as_deref(), user, expires, now));
                    self.settle(provider, judged)
                };
                Ok(batch.iter().zip(&values).map(judge).collect())
            }
            ProviderKind::BetterAuth { store: BetterAuthStore::Redis { prefix, .. }, .. } => {
                let user_of =
                    |value: &Value| better_auth::user_in(value.as_ref().ok()?.as_deref()?);
                let users: Vec<_> = values.iter().map(user_of).collect();
                let known = users.iter().flatten();
                let keys: Vec<_> =
                    known.map(|user| better_auth::revoked_key(prefix, user)).collect();
                let revoked = if keys.is_empty() { Vec::new() } else { redis.get(&keys).await? };
                let mut revoked = revoked.into_iter();
                let mut verdicts = Vec::with_capacity(batch.len());
                for ((inquiry, value), user) in batch.iter().zip(values).zip(users) {
                    let before = user.and_then(|_| revoked.next()).unwrap_or(Ok(None));
                    let Question::Row(key) = &inquiry.question else {
                        verdicts.push(Err(Denial::Misconfigured("no_store")));
                        continue;
                    };
                    let judged = value.and_then(|value| {
                        let (value, before) = (value.as_deref(), before?);
                        better_auth::judge_document(key, value, before.as_deref(), now)
                    });
                    verdicts.push(self.settle(provider, judged));
                }
                Ok(verdicts)
            }
            _ => Ok(Vec::new()),
        }
    }

    async fn answer(&self, provider: &Provider, question: &Question, client: &Client) -> Verdict {
        let turns = self.turns(provider);
        let answer = timeout(DEADLINE, async {
            // Never closed.
            let _turn = turns.acquire().await;
            self.look_up(provider, question, client).await
        });
        match Box::pin(answer).await {
            Ok(verdict) => verdict,
            Err(_elapsed) => {
                self.complain_of_lookups(provider, &"no answer in time");
                Err(Denial::Temporary(Cause::Store, "store_slow"))
            }
        }
    }

    fn turns(&self, provider: &Provider) -> Rc<Semaphore> {
        let mut turns = self.turns.borrow_mut();
        let own = turns.entry(Arc::clone(&provider.name));
        Rc::clone(own.or_insert_with(|| Rc::new(Semaphore::new(provider.words.lookups))))
    }

    async fn look_up(&self, provider: &Provider, question: &Question, client: &Client) -> Verdict {
        match (question, provider.store()) {
            (Question::Token(token, since), Store::Jwks(url)) => {
                let opened = self.documents.open(provider, url, (token, *since)).await;
                opened.inspect_err(|denial| {
                    if denial.is_temporary() {
                        self.complain(provider, "its keys cannot be read", &url);
                    }
                })
            }
            (Question::Application(shown), Store::Application) => {
                let answer = self.ask_application(provider, shown, client).await;
                self.settle(provider, answer)
            }
            _ => Err(Denial::Misconfigured("no_store")),
        }
    }

    fn rows(&self, database: &crate::config::Database) -> Result<Rc<Rows>, StoreError> {
        let mut known = self.rows.borrow_mut();
        if let Some(rows) = known.get(database.url.expose()) {
            return Ok(Rc::clone(rows));
        }
        let rows = Rc::new(Rows::open(database)?);
        known.insert(database.url.expose().to_owned(), Rc::clone(&rows));
        Ok(rows)
    }

    fn redis(&self, place: &crate::config::RedisPlace) -> Rc<Redis> {
        let mut known = self.redis.borrow_mut();
        // With its password: a reload may have brought another.
        if let Some((_, redis)) = known.iter().find(|(known, _)| known == place) {
            return Rc::clone(redis);
        }
        let redis = Rc::new(Redis::new(place));
        known.push((place.clone(), Rc::clone(&redis)));
        redis
    }

    async fn ask_application(
        &self,
        provider: &Provider,
        shown: &Shown,
        client: &Client,
    ) -> Verdict {
        const SILENT: Denial = Denial::Temporary(Cause::Store, "application_silent");
        let ProviderKind::Http(words) = &provider.words.kind else { return Err(SILENT) };
        let upstream = provider.application(&client.host).ok_or(SILENT)?;
        let request = request(words, shown, client).ok_or(Denial::MALFORMED)?;
        let exchange = async {
            let response = upstream.send(request, &self.pools).await?;
            let status = response.status().as_u16();
            let kind = response.headers().get(header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).map(str::to_owned);
            let body = response.into_body().read_all(callback::ANSWER_MAX).await;
            Ok((status, kind, body))
        };
        match timeout(words.timeout, Box::pin(exchange)).await {
            Ok(Ok((status, kind, body))) => {
                // What is too long, or not said to the end, says nothing.
                let body = body.inspect_err(|why| self.complain_of_lookups(provider, why));
                let (body, (kinds, path)) = (body.unwrap_or_default(), callback_words(words));
                callback::judge(kinds, path, status, kind.as_deref(), &body, clock::now())
            }
            Ok(Err(why @ SendError::BadResponse { .. })) => {
                self.complain_of_lookups(provider, &why);
                Err(callback::STRANGE)
            }
            Ok(Err(why)) => Err(self.failed(provider, &why)),
            Err(_elapsed) => {
                self.complain(provider, "the application does not answer", &words.path);
                Err(SILENT)
            }
        }
    }

    /// What an operator must know of an answer that says something of the configuration.
    fn settle(&self, provider: &Provider, judged: Verdict) -> Verdict {
        if let Err(Denial::Misconfigured(what) | Denial::Temporary(_, what)) = &judged {
            self.complain(provider, "an answer does not fit", what);
        }
        if let Err(Denial::Refused(what @ ("malformed_store_value" | "no_expiry"))) = &judged {
            self.complain(provider, "a session is not as it should be", what);
        }
        judged
    }

    fn failed(&self, provider: &Provider, why: &dyn std::fmt::Display) -> Denial {
        self.complain_of_lookups(provider, why);
        Denial::Temporary(Cause::Store, "store_failed")
    }

    fn complain_of_lookups(&self, provider: &Provider, why: &dyn std::fmt::Display) {
        self.complain(provider, "sessions cannot be looked up", why);
    }

    /// Once for each provider and while.
    fn complain(&self, provider: &Provider, what: &'static str, why: &dyn std::fmt::Display) {
        let now = Instant::now();
        let mut complained = self.complained.borrow_mut();
        let last = complained.get(&provider.name).copied();
        if last.is_none_or(|last| now.duration_since(last) >= QUIET) {
            complained.insert(Arc::clone(&provider.name), now);
            error!(provider = %provider.name, reason = %why, "{what}");
        }
    }

    /// Says at once what would come out with the first client.
    pub fn probe(self: &Rc<Self>, providers: Vec<Arc<Provider>>) {
        let desk = Rc::clone(self);
        self.drain.spawn_background(async move {
            for provider in providers {
                desk.probe_one(&provider).await;
            }
        });
    }

    async fn probe_one(&self, provider: &Provider) {
        let (Store::Rows(database), Some(statement)) = (provider.store(), provider.statement())
        else {
            return;
        };
        let asking = async {
            let rows = self.rows(database)?;
            rows.find(&statement, &["no session has this id".to_owned()]).await?;
            // Whoever may read the table may not be told of what it is made.
            Ok::<_, StoreError>(rows.is_zoneless(&statement).await.unwrap_or(false))
        };
        let name = &provider.name;
        match timeout(DEADLINE, Box::pin(asking)).await {
            Ok(Ok(zoneless)) => {
                info!(provider = %name, "sessions can be looked up");
                if zoneless {
                    warn!(
                        provider = %name,
                        "its moments have no time zone and are taken as UTC; if they are the \
                         application's local time, write time_zone"
                    );
                }
            }
            Ok(Err(why)) => error!(provider = %name, reason = %why, "sessions cannot be looked up"),
            Err(_elapsed) => warn!(provider = %name, "the database does not answer"),
        }
        if database.kind == DatabaseKind::Sqlite && provider.words.grace.is_zero() {
            warn!(provider = %name, "grace is 0s: a database that is busy cuts connections");
        }
    }
}

fn request(words: &crate::config::Callback, shown: &Shown, client: &Client) -> Option<Request> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = words.path.parse().ok()?;
    let fields = request.headers_mut();
    fields.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let (name, value) = match shown.from {
        Source::Cookie => (header::COOKIE, shown.value.clone()),
        Source::Bearer | Source::Connect => {
            (header::AUTHORIZATION, format!("Bearer {}", shown.value))
        }
    };
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    fields.insert(name, value);
    if let Some(secret) = &words.secret {
        let mut secret = HeaderValue::from_str(secret.expose()).ok()?;
        secret.set_sensitive(true);
        fields.insert(EDGE_AUTH, secret);
    }
    let peer = Peer { address: (client.address, 0).into(), local_port: client.port, tls: None };
    exchange::headers::set_forwarded(fields, client, &peer);
    Some(request)
}
