//! How fast clients are heard: as fast as each of them, its user and its address may send.
//!
//! What comes too early stays where it is, unread, so that nothing of it is lost: a client that was
//! away sends all at once what its pages have said meanwhile.

use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{Buckets, Rate, key_of};
use crate::observe::metrics;

use super::client::Client;
use super::clients::Clients;
use super::engine::Session;
use super::meter::{Allowance, PATIENCE, Verdict};
use super::packet::Kind;

/// What all clients of a user, and of an address, have sent to the workers of this process. Tables
/// that never grow, made when somebody first has to be counted.
pub struct Pace {
    started: Instant,
    users: OnceLock<Buckets>,
    addresses: OnceLock<Buckets>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { started: Instant::now(), users: OnceLock::new(), addresses: OnceLock::new() }
    }
}

/// What a client with others needs to say one thing more; what is granted is not asked for again.
#[derive(Default)]
pub struct Turn {
    pub own: bool,
    shared: [bool; 2],
}

/// What all clients of somebody may send: at which rate, whose, where it is counted, and the word for
/// who that is.
type Share<'a> = (Rate, u64, &'a OnceLock<Buckets>, &'static str);

impl Pace {
    fn shares(
        &self,
        allowance: &Allowance,
        (session, client): (&Rc<Session>, &Client),
        namespace: &str,
    ) -> [Option<Share<'_>>; 2] {
        let user = allowance.of_user.and_then(|rate| {
            Some((rate, client.user_in(namespace)?.user_number(), &self.users, "user"))
        });
        let address = allowance.of_address;
        let address =
            address.map(|rate| (rate, key_of(session.address), &self.addresses, "address"));
        [user, address]
    }

    /// Has one of many say one thing more, when its user and its address may: at once, or after so
    /// long at least.
    pub fn take_turn(
        &self,
        allowance: &Allowance,
        whose: (&Rc<Session>, &Client),
        namespace: &str,
        turn: &mut Turn,
    ) -> Result<(), Duration> {
        let shares = self.shares(allowance, whose, namespace);
        for (share, granted) in shares.into_iter().zip(&mut turn.shared) {
            if let Some((rate, key, table, _)) = share.filter(|_| !*granted) {
                // Charged as what comes behind it is: the others of the crowd must not go first for
                // ever.
                self.charge(table, key, rate)?;
            }
            *granted = true;
        }
        Ok(())
    }

    /// Counts one packet that makes work, beside what `verdict` says of the client alone, and has the
    /// session rest for as long as any of them has to. The namespace is where it is for.
    pub fn count(
        &self,
        allowance: &Allowance,
        verdict: Verdict,
        (session, client): (&Rc<Session>, &Client),
        namespace: &str,
    ) -> Verdict {
        let (mut wait, mut by) = match verdict {
            Verdict::Within => (Duration::ZERO, "events"),
            Verdict::Rest(wait) => (wait, "events"),
            Verdict::Over | Verdict::Flood => return verdict,
        };
        let shares = self.shares(allowance, (session, client), namespace);
        for (rate, key, table, whose) in shares.into_iter().flatten() {
            match self.charge(table, key, rate) {
                Ok(longer) if longer > wait => (wait, by) = (longer, whose),
                Ok(_) => (),
                Err(_) => return Verdict::Over,
            }
        }
        if !wait.is_zero() && session.rest(wait) {
            metrics::count(&metrics::HUB_HELD, by);
        }
        Verdict::Within
    }

    fn charge(
        &self,
        table: &OnceLock<Buckets>,
        key: u64,
        rate: Rate,
    ) -> Result<Duration, Duration> {
        let (table, now) = (table.get_or_init(Buckets::large), self.started.elapsed());
        if rate.each() > PATIENCE {
            // Whoever may say so little is told, and is not made to wait for the next.
            return table.ask(key, rate, now).map(|()| Duration::ZERO);
        }
        table.charge(key, rate, now, PATIENCE)
    }
}

impl Clients {
    /// Has the client say one thing more, when it may: at once, or after so long.
    pub(super) fn take_turn(
        &self,
        (session, client): (&Rc<Session>, &Client),
        namespace: &str,
        turn: &mut Turn,
    ) -> Result<(), Duration> {
        let Some(allowance) = self.allowance() else { return Ok(()) };
        if !turn.own {
            client.meter.take_turn(&allowance, self.now())?;
            turn.own = true;
        }
        self.pace.take_turn(&allowance, (session, client), namespace, turn)
    }

    /// Counts one packet, after which the session may have to rest.
    pub(super) fn count(
        &self,
        session: &Rc<Session>,
        client: &Client,
        name: &str,
        kind: Kind,
    ) -> Verdict {
        let works = matches!(kind, Kind::Event | Kind::Connect);
        let Some(allowance) = self.allowance() else { return Verdict::Within };
        let verdict = client.meter.count(&allowance, self.now(), works);
        if !works {
            return verdict;
        }
        self.pace.count(&allowance, verdict, (session, client), name)
    }
}
