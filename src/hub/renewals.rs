//! Tokens that follow one another: whoever is here by an older one goes on by the newer.
//!
//! A page fetches its next token before the last one ends, and shows it with whatever it asks for.
//! A WebSocket has shown only the one that it came with; it need not be cut for that.

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;

use crate::auth::{Auth, Candidate, Credentials, Digest, Known, Suspicion};
use crate::exchange;
use crate::observe::metrics;

use super::clients::Clients;
use super::cluster::Told;
use super::engine::{Close, Session};
use super::outbox::Notice;

/// A token that is right, and which it follows.
pub struct Renewal {
    /// The one in whose place the application has set it; `None`: any older one of its session.
    before: Option<Digest>,
    known: Known,
    /// All that was shown with it; `None`: once, by the client of a connection.
    shown: Option<Credentials>,
}

impl Clients {
    /// What a request of the application's has shown, and what its answer has made of it.
    pub(super) fn passed(
        self: &Rc<Self>,
        auth: &Auth,
        shown: &Credentials,
        answer: &HeaderMap,
        (client, path): (&exchange::Client, &str),
    ) {
        if self.users.local.awaits_tokens() {
            for token in auth.tokens(shown, client) {
                if self.users.local.is_news(&token.digest) {
                    self.consider(token, shown.clone(), None);
                }
            }
        }
        for passed in auth.passed(shown, answer, (client, path)) {
            let found = passed.suspicion;
            if !found.stateless {
                self.tell_suspicion(found);
                continue;
            }
            if !found.replaced {
                self.end_token(passed.before);
                continue;
            }
            // The old one is no worse for that; what counts is whose the new one is.
            if let Some(next) = passed.next.filter(|_| self.users.local.awaits_tokens()) {
                self.consider(next, passed.after, Some(found.digest));
            }
        }
    }

    fn tell_suspicion(&self, found: Suspicion) {
        self.outbox.tell_all(&Notice::Suspect(found));
        self.outbox.uplink.iter().for_each(|uplink| uplink.whisper(Told::Suspect(found)));
        self.suspect(found);
    }

    /// A token has been logged out of. What was none ends nothing: applications take away whatever
    /// they cannot read, and anybody could fill the list of those that are refused.
    fn end_token(self: &Rc<Self>, before: Candidate) {
        match self.users.local.tell_at_once(&before) {
            // Before the client hears of it: what it shows next is refused.
            Some(Ok(known)) => self.tell_end(&known),
            Some(Err(_)) => (),
            None => {
                let clients = Rc::clone(self);
                self.drain.spawn_background(async move {
                    let Ok(known) = clients.users.local.confirm(before).await else { return };
                    clients.tell_end(&known);
                });
            }
        }
    }

    fn tell_end(&self, known: &Known) {
        let of = |digest, until| Suspicion { digest, replaced: false, stateless: true, until };
        self.tell_suspicion(of(known.digest, known.refused_until()));
        // A logout shows the last token of a session; some are connected by those before.
        known.thread().into_iter().for_each(|thread| self.tell_suspicion(of(thread, 0)));
    }

    /// Verifies a token, and tells all workers if somebody may go on by it.
    fn consider(self: &Rc<Self>, token: Candidate, shown: Credentials, before: Option<Digest>) {
        let clients = Rc::clone(self);
        self.drain.spawn_background(async move {
            let Ok(known) = clients.users.local.confirm(token).await else { return };
            clients.tell_renewal(Renewal { before, known, shown: Some(shown) });
        });
    }

    /// Somebody has connected by a token, and others may be here by an older one.
    pub(super) fn spread(&self, known: &Rc<Known>) {
        if known.thread().is_some() && self.users.local.is_news(&known.digest) {
            let known = Known::clone(known);
            self.tell_renewal(Renewal { before: None, known, shown: None });
        }
    }

    fn tell_renewal(&self, renewal: Renewal) {
        if renewal.before.is_none() && renewal.known.thread().is_none() {
            return;
        }
        let renewal = Arc::new(renewal);
        self.outbox.tell_all(&Notice::Renewed(Arc::clone(&renewal)));
        self.renewed(&renewal);
    }

    pub(super) fn renewed(&self, renewal: &Renewal) {
        let older = match renewal.before {
            Some(before) => vec![before],
            None => self.users.older(&renewal.known),
        };
        if older.is_empty() {
            return;
        }
        let known = Rc::new(renewal.known.clone());
        for before in older {
            for session in self.users.sessions_of(&before) {
                self.go_on(&session, &before, &known, renewal.shown.as_ref());
            }
        }
    }

    fn go_on(
        &self,
        session: &Rc<Session>,
        before: &Digest,
        known: &Rc<Known>,
        shown: Option<&Credentials>,
    ) {
        let Some(client) = self.client(session) else { return };
        let here: Vec<_> = {
            let here = client.here.borrow();
            let by_it = here.iter().filter(|one| one.known.digest == *before);
            by_it.map(|one| (Arc::clone(&one.namespace), Rc::clone(&one.known))).collect()
        };
        // The browser is another's now: the client comes back as that.
        if here.iter().any(|(_, one)| one.user_key() != known.user_key()) {
            return session.close(Close::Expired);
        }
        // As its next request will show it.
        if let (Some(shown), Some(handshake)) = (shown, &session.handshake)
            && here.iter().any(|(_, one)| one.is_ambient() && one.came_as(known))
        {
            handshake.renew(shown);
        }
        if !here.is_empty() {
            metrics::series(&metrics::AUTH_RENEWALS, &[]).increment();
        }
        for (namespace, _) in here {
            self.users.replace(session, &client, &namespace, known);
        }
    }
}
