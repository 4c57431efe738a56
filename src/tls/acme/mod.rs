//! Certificates from an ACME server (RFC 8555): asked for, kept, renewed in time.
//!
//! What is kept is found by `Watch`, as any certificate that changes.

mod client;
mod order;
mod schedule;
mod store;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, ExternalAccountKey, NewAccount};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

pub use order::Proofs;
pub use store::{certificates, files};

use crate::config::{Acme, Config, Eab};
use crate::observe::metrics;

use super::Certificates;
use client::Client;
use order::OrderError;
use schedule::Time;
use store::{Held, Kept};

/// What is to be had, by the configuration in force.
pub struct Wanted {
    acme: Acme,
    state: PathBuf,
    names: Vec<String>,
}

impl Wanted {
    /// `None` if nobody is to be asked.
    pub fn of(config: &Config, certificates: &Certificates) -> Option<Self> {
        let acme = config.tls.acme.clone()?;
        let names = certificates.wanted().to_vec();
        Some(Self { acme, state: config.state.clone(), names })
    }
}

/// Names without a certificate or with one that is not renewed, and why.
pub type Troubles = Rc<RefCell<BTreeMap<String, String>>>;

/// Sees to it that every name has a certificate.
pub struct Keeper<W> {
    wanted: W,
    proofs: Proofs,
    troubles: Troubles,
    /// The operator wants it tried now.
    wake: Rc<Notify>,
    known: BTreeMap<String, Standing>,
    account: Option<(Owner, Account)>,
    folder: PathBuf,
}

/// How it stands with one name.
#[derive(Default)]
struct Standing {
    held: Option<Held>,
    /// When the authority would like it to be renewed, and when it is asked again.
    wish: Option<Time>,
    look: Time,
    failures: u32,
    /// Not before this.
    next: Time,
}

impl Standing {
    fn of(folder: &Path, name: &str) -> Self {
        Self { held: store::held(folder, name), ..Self::default() }
    }

    fn due(&self) -> Time {
        let Some(held) = &self.held else { return self.next };
        let own = schedule::renewal(held.begins, held.ends);
        // A wish for after its end would be a mistake.
        let wish = self.wish.filter(|wish| *wish < held.ends).unwrap_or(own);
        wish.max(self.next)
    }
}

/// All of one order: the server's own waits are shorter.
const DEADLINE: Duration = Duration::from_secs(5 * 60);
/// Nothing is looked at less often.
const LONGEST: i64 = 60 * 60;
/// After a look that failed.
const LOOK_AGAIN: u64 = 6 * 60 * 60;

impl<W: Fn() -> Option<Wanted>> Keeper<W> {
    pub fn new(wanted: W, proofs: Proofs, troubles: Troubles, wake: Rc<Notify>) -> Self {
        let (known, account, folder) = (BTreeMap::new(), None, PathBuf::new());
        Self { wanted, proofs, troubles, wake, known, account, folder }
    }

    /// Tends for as long as the thread lives.
    pub async fn tend(mut self) {
        loop {
            let pause = self.round().await;
            let pause = Duration::from_secs(u64::try_from(pause).unwrap_or(1));
            tokio::select! {
                // Nothing is lost when an arm is dropped: a call is kept until it is heard.
                () = sleep(pause) => (),
                () = self.wake.notified() => {
                    for standing in self.known.values_mut() {
                        (standing.failures, standing.next) = (0, 0);
                    }
                }
            }
        }
    }

    /// Does what is due; returns the seconds until something is.
    async fn round(&mut self) -> i64 {
        let Some(wanted) = (self.wanted)() else {
            self.known.clear();
            self.troubles.borrow_mut().clear();
            return LONGEST;
        };
        let folder = certificates(&wanted.state, &wanted.acme);
        if folder != self.folder {
            self.known.clear();
            self.folder.clone_from(&folder);
        }
        self.known.retain(|name, _| wanted.names.contains(name));
        self.troubles.borrow_mut().retain(|name, _| wanted.names.contains(name));
        let mut next = LONGEST;
        for name in &wanted.names {
            let read = || Standing::of(&folder, name);
            let mut standing = self.known.remove(name).unwrap_or_else(read);
            self.see_to(&wanted, name, &mut standing).await;
            let until =
                standing.due().min(if standing.held.is_some() { standing.look } else { Time::MAX });
            next = next.min(until - now());
            self.known.insert(name.clone(), standing);
        }
        let pending = self.known.values().filter(|standing| standing.held.is_none()).count();
        metrics::series(&metrics::ACME_PENDING, &[]).set(i64::try_from(pending).unwrap_or(0));
        next.max(1)
    }

    async fn see_to(&mut self, wanted: &Wanted, name: &str, standing: &mut Standing) {
        if standing.held.is_some() && standing.look <= now() {
            self.look(wanted, name, standing).await;
        }
        if standing.due() > now() {
            return;
        }
        let tried = timeout(DEADLINE, Box::pin(self.take(wanted, name, standing))).await;
        let late = || Err(OrderError::Acme(instant_acme::Error::Timeout(None)));
        let outcome = tried.unwrap_or_else(|_elapsed| late());
        metrics::count(&metrics::ACME_ORDERS, if outcome.is_ok() { "issued" } else { "failed" });
        match outcome {
            Ok(()) => {
                info!(name, "a certificate has come");
                self.troubles.borrow_mut().remove(name);
                let renewed = standing.held.is_some();
                *standing = Standing::of(&self.folder, name);
                if let Some(held) = standing.held.as_ref().filter(|_| renewed) {
                    standing.next = now() + schedule::rest(held.begins, held.ends);
                }
            }
            Err(error) => {
                standing.failures = standing.failures.saturating_add(1);
                let pause = schedule::pause(standing.failures, error.is_limit(), chance());
                standing.next = now() + pause;
                warn!(name, %error, again_in = pause, "no certificate");
                self.troubles.borrow_mut().insert(name.to_owned(), error.to_string());
                if error.is_stranger() {
                    store::forget_account(&store::folder(&wanted.state, &wanted.acme));
                    self.account = None;
                    // With a new one at once; but not again and again.
                    if standing.failures == 1 {
                        standing.next = now() + 1;
                    }
                }
            }
        }
    }

    /// Asks when the authority would like this certificate to be renewed (RFC 9773).
    async fn look(&mut self, wanted: &Wanted, name: &str, standing: &mut Standing) {
        standing.look = now() + schedule::next_look(LOOK_AGAIN);
        let Some(id) = standing.held.as_ref().and_then(|held| held.id.clone()) else { return };
        let Ok(account) = self.account(wanted).await else { return };
        match account.renewal_info(&id).await {
            Ok((info, again)) => {
                standing.look = now() + schedule::next_look(again.as_secs());
                let window = info.suggested_window;
                let (start, end) = (window.start.unix_timestamp(), window.end.unix_timestamp());
                // The same moment as long as it lies in the window.
                if standing.wish.is_none_or(|wish| !(start..=end).contains(&wish)) {
                    standing.wish = Some(schedule::moment(start, end, chance()));
                    info!(name, start, end, why = info.explanation_url, "the time to renew");
                }
            }
            Err(instant_acme::Error::Unsupported(_)) => (),
            Err(error) => debug!(name, %error, "the authority does not say when to renew"),
        }
    }

    async fn take(
        &mut self,
        wanted: &Wanted,
        name: &str,
        standing: &Standing,
    ) -> Result<(), OrderError> {
        let account = self.account(wanted).await?;
        // Only an authority that says when to renew wants to know what is replaced.
        let replaces = standing.held.as_ref().filter(|_| standing.wish.is_some());
        let replaces = replaces.and_then(|held| held.id.as_ref());
        let challenge = (wanted.acme.challenge, &self.proofs);
        order::take(&account, name, replaces, challenge, &self.folder).await
    }

    /// The account of an earlier day, or a new one.
    async fn account(&mut self, wanted: &Wanted) -> Result<Account, OrderError> {
        if let Some((owner, account)) = &self.account
            && *owner == Owner::of(&wanted.acme)
        {
            return Ok(account.clone());
        }
        let folder = store::folder(&wanted.state, &wanted.acme);
        let account = match store::account(&folder) {
            Some(kept) => restore(&wanted.acme, kept, &folder).await?,
            None => create(&wanted.acme, &folder).await?,
        };
        self.account = Some((Owner::of(&wanted.acme), account.clone()));
        Ok(account)
    }
}

/// What an account is for.
#[derive(PartialEq, Eq)]
struct Owner {
    directory: String,
    email: String,
    ca: Option<PathBuf>,
}

impl Owner {
    fn of(acme: &Acme) -> Self {
        let (directory, email) = (acme.directory.clone(), acme.email.clone());
        Self { directory, email, ca: acme.ca.clone() }
    }
}

fn client(acme: &Acme) -> Result<Box<Client>, OrderError> {
    Ok(Box::new(Client::new(acme.ca.as_deref())?))
}

async fn restore(acme: &Acme, mut kept: Kept, folder: &Path) -> Result<Account, OrderError> {
    let known = serde_json::to_vec(&kept.credentials).map_err(instant_acme::Error::Json)?;
    let credentials = serde_json::from_slice(&known).map_err(instant_acme::Error::Json)?;
    let account = Account::builder_with_http(client(acme)?).from_credentials(credentials).await?;
    if kept.email != acme.email {
        account.update_contacts(&[contact(acme).as_str()]).await?;
        kept.email.clone_from(&acme.email);
        store::keep_account(folder, &kept)?;
    }
    Ok(account)
}

async fn create(acme: &Acme, folder: &Path) -> Result<Account, OrderError> {
    let contact = contact(acme);
    let words = NewAccount {
        contact: &[contact.as_str()],
        // Whoever writes `tls.acme` agrees, and the manual says so.
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let key = acme.eab.as_ref().map(external).transpose()?;
    let builder = Account::builder_with_http(client(acme)?);
    let created = builder.create(&words, acme.directory.clone(), key.as_ref()).await;
    let (account, credentials) = created?;
    store::keep_account(folder, &Kept { email: acme.email.clone(), credentials })?;
    info!(directory = acme.directory, "an account has been made");
    Ok(account)
}

fn contact(acme: &Acme) -> String {
    format!("mailto:{}", acme.email)
}

fn external(words: &Eab) -> Result<ExternalAccountKey, OrderError> {
    let text = words.key.as_ref().map(|key| key.expose().trim_end_matches('=')).unwrap_or_default();
    let key = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_error| OrderError::Key)?;
    Ok(ExternalAccountKey::new(words.id.clone(), &key))
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(Time::MAX)
}

fn chance() -> u32 {
    let mut bytes = [0; 4];
    // Without chance it is only less spread.
    let _filled = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}
