//! Names and passwords that open a route, checked one after the other on a thread of their own.
//!
//! bcrypt takes a tenth of a second by design; neither a worker nor the main thread can spare that.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::{self, Secret};
use crate::limits::{Buckets, Rate, key_of};

use super::identity::{Cause, Denial, Identity};
use super::inquiry::Verdict;
use super::provider::Digest;
use super::seal::sha256_of;

/// The names of one route, compiled.
pub struct Passwords {
    pub realm: String,
    users: HashMap<String, Secret>,
    /// Whose work is done for a name that nobody has.
    nobody: Secret,
    /// Changes with every hash: what was right before is asked again.
    stamp: Digest,
}

/// A name and a password that somebody shows.
pub struct Attempt {
    pub user: String,
    pub password: String,
    hash: Secret,
    is_known: bool,
    pub address: IpAddr,
    pub reply: oneshot::Sender<Verdict>,
}

/// The thread, which begins with the first who asks.
#[derive(Default)]
pub struct Checker(OnceLock<SyncSender<Attempt>>);

/// Attempts that wait for the thread. Full: the next are told to come again.
const WAITING: usize = 32;
/// Wrong passwords that one address may try in a minute. Right ones are not counted: each worker asks
/// by itself, and whole offices have one address.
const TRIES: u32 = 30;
const TRIES_PER: Duration = Duration::from_secs(60);
/// How long a password that was right is not checked again.
pub const REMEMBERED: Duration = Duration::from_secs(60);
/// How long an answer may take, the wait for the thread too.
pub const DEADLINE: Duration = Duration::from_secs(5);

pub const TOO_MANY: Denial = Denial::Temporary(Cause::Shown, "too_many_tries");

impl Passwords {
    /// How many names there are.
    pub fn count(&self) -> usize {
        self.users.len()
    }

    pub fn compile(words: &config::Basic) -> Self {
        let nobody = words.users.first().map(|(_, hash)| hash.clone());
        let parts = words.users.iter().flat_map(|(name, hash)| [name.as_str(), hash.expose()]);
        Self {
            realm: words.realm.clone(),
            stamp: sha256_of(parts.map(str::as_bytes)),
            users: words.users.iter().cloned().collect(),
            nobody: nobody.unwrap_or_else(|| Secret::new(String::new(), None)),
        }
    }

    pub fn digest(&self, user: &str, password: &str) -> Digest {
        sha256_of([b"password", &self.stamp[..], user.as_bytes(), password.as_bytes()])
    }

    pub fn attempt(
        &self,
        user: String,
        password: String,
        address: IpAddr,
        reply: oneshot::Sender<Verdict>,
    ) -> Attempt {
        let hash = self.users.get(&user);
        let is_known = hash.is_some();
        let hash = hash.unwrap_or(&self.nobody).clone();
        Attempt { user, password, hash, is_known, address, reply }
    }
}

impl Checker {
    /// Has the thread answer; at once if it has too much to do.
    pub fn ask(&self, attempt: Attempt) {
        if let Err(refused) = self.0.get_or_init(begin).try_send(attempt) {
            let (std::sync::mpsc::TrySendError::Full(attempt)
            | std::sync::mpsc::TrySendError::Disconnected(attempt)) = refused;
            // Its client may have gone.
            let _told = attempt.reply.send(Err(Denial::Temporary(Cause::Edge, "busy")));
        }
    }
}

fn begin() -> SyncSender<Attempt> {
    let (door, attempts) = sync_channel(WAITING);
    // Without a thread there is no receiver, and everybody is told to come again.
    let _begun = thread::Builder::new().name("passwords".to_owned()).spawn(move || work(&attempts));
    door
}

fn work(attempts: &Receiver<Attempt>) {
    let (tries, begun) = (Buckets::default(), Instant::now());
    let rate = Rate::new(TRIES, TRIES_PER, TRIES);
    while let Ok(attempt) = attempts.recv() {
        if attempt.reply.is_closed() {
            continue;
        }
        let key = key_of(attempt.address);
        let within = tries.has(key, rate, begun.elapsed());
        let verdict = if within { check(&attempt) } else { Err(TOO_MANY) };
        if within && verdict.is_err() {
            // There is one: nobody else takes any.
            let _taken = tries.take(key, rate, begun.elapsed());
        }
        // As above.
        let _told = attempt.reply.send(verdict);
    }
}

/// Takes the same time whether or not the name is known.
fn check(attempt: &Attempt) -> Verdict {
    let right = bcrypt::verify(&attempt.password, attempt.hash.expose()).unwrap_or(false);
    if !right || !attempt.is_known {
        return Err(Denial::Refused("wrong_password"));
    }
    Identity::new(&attempt.user, "", None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_passwords_are_no_tries() {
        let hash = bcrypt::hash("right", 4).expect("a hash");
        let words = config::Basic {
            file: Secret::new(String::new(), None),
            users: vec![("anna".to_owned(), Secret::new(hash, None))],
            realm: String::new(),
        };
        let passwords = Passwords::compile(&words);
        let (door, attempts) = sync_channel(WAITING);
        let thread = thread::spawn(move || work(&attempts));
        let attempt = |password: &str| {
            let (reply, answer) = oneshot::channel();
            let address = IpAddr::from([192, 0, 2, 1]);
            let attempt = passwords.attempt("anna".to_owned(), password.to_owned(), address, reply);
            door.send(attempt).expect("a thread");
            answer.blocking_recv().expect("an answer").map(|identity| identity.user)
        };
        for number in 0..3 * TRIES {
            assert_eq!(attempt("right"), Ok("anna".to_owned()), "{number}");
        }
        const WRONG: Denial = Denial::Refused("wrong_password");
        let wrong = std::iter::repeat_with(|| attempt("wrong"));
        let tries = wrong.take_while(|verdict| *verdict == Err(WRONG)).count();
        assert!(tries >= TRIES as usize, "{tries}");
        // Whoever guesses so much may guess right.
        assert_eq!(attempt("right"), Err(TOO_MANY));
        drop(door);
        thread.join().expect("its end");
    }
}
