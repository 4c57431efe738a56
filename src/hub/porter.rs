//! Who may see the Admin UI: passwords are checked one after the other on a thread of their own.
//!
//! bcrypt takes a tenth of a second by design; no worker can spare that.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::AdminDoor;
use crate::limits::{Buckets, Rate, key_of};

use super::engine::Id;

/// The process's one porter; his thread begins with the first who asks.
#[derive(Default)]
pub struct Porter(OnceLock<SyncSender<Attempt>>);

/// What somebody shows who wants to come in.
pub enum Pass {
    /// Given out when the password was right.
    Session(String),
    Password {
        username: String,
        password: String,
    },
}

struct Attempt {
    pass: Pass,
    wanted: AdminDoor,
    address: IpAddr,
    verdict: oneshot::Sender<Verdict>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// With a new session, if the password was shown.
    Welcome(Option<Id>),
    Wrong,
    /// Too many attempts, of this address or at this time.
    Later,
}

/// Attempts that wait for the thread. Full: the next are sent away, and may come again.
const WAITING: usize = 8;
/// Passwords that one address may try: so many at once, then one in a tenth of a minute.
const TRIES: u32 = 10;
const TRIES_PER: Duration = Duration::from_secs(60);
/// Sessions that are remembered. Full: the oldest must show the password again.
const SESSIONS: usize = 1000;
/// How long one lasts, as with Node.
const SESSION_LASTS: Duration = Duration::from_secs(86_400);

impl Porter {
    /// Decides about `pass`, which came from `address`.
    pub async fn ask(&self, pass: Pass, wanted: AdminDoor, address: IpAddr) -> Verdict {
        let (verdict, heard) = oneshot::channel();
        let attempt = Attempt { pass, wanted, address, verdict };
        if self.0.get_or_init(begin).try_send(attempt).is_err() {
            return Verdict::Later;
        }
        heard.await.unwrap_or(Verdict::Later)
    }
}

fn begin() -> SyncSender<Attempt> {
    let (door, attempts) = sync_channel(WAITING);
    // Without a thread there is no receiver, and everybody is sent away.
    let _begun = thread::Builder::new().name("porter".to_owned()).spawn(move || work(&attempts));
    door
}

fn work(attempts: &Receiver<Attempt>) {
    let mut book = Book::default();
    let begun = Instant::now();
    while let Ok(attempt) = attempts.recv() {
        let Attempt { pass, wanted, address, verdict } = attempt;
        // The client may have gone meanwhile.
        let _told = verdict.send(book.judge(pass, &wanted, address, begun.elapsed()));
    }
}

/// What the porter knows.
#[derive(Default)]
struct Book {
    sessions: HashMap<String, Session>,
    tries: Buckets,
}

struct Session {
    ends: Duration,
    /// What the password was checked against: a session ends when that changes.
    wanted: AdminDoor,
}

impl Book {
    fn judge(&mut self, pass: Pass, wanted: &AdminDoor, address: IpAddr, now: Duration) -> Verdict {
        match pass {
            Pass::Session(id) => {
                let known = self.sessions.get(&id);
                let valid = known
                    .is_some_and(|session| session.ends > now && session.wanted.opens_like(wanted));
                if valid { Verdict::Welcome(None) } else { Verdict::Wrong }
            }
            Pass::Password { username, password } => {
                let rate = Rate::new(TRIES, TRIES_PER, TRIES);
                if !self.tries.take(key_of(address), rate, now) {
                    return Verdict::Later;
                }
                // Takes the same time whether or not the name is known.
                let right = bcrypt::verify(password, wanted.password.expose()).unwrap_or(false);
                if !right || username != wanted.username {
                    return Verdict::Wrong;
                }
                Verdict::Welcome(Some(self.remember(wanted, now)))
            }
        }
    }

    fn remember(&mut self, wanted: &AdminDoor, now: Duration) -> Id {
        self.sessions.retain(|_, session| session.ends > now);
        if self.sessions.len() >= SESSIONS {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.ends);
            let oldest = oldest.map(|(id, _)| id.clone());
            oldest.inspect(|id| drop(self.sessions.remove(id)));
        }
        let (id, wanted) = (Id::random(), wanted.clone());
        self.sessions.insert(id.as_str().to_owned(), Session { ends: now + SESSION_LASTS, wanted });
        id
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Secret;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// The password is `s3cret`; the cost is far below what the configuration takes.
    fn wanted() -> AdminDoor {
        let hash = bcrypt::hash("s3cret", 4).expect("a hash");
        AdminDoor { username: "me".to_owned(), password: Secret::new(hash, None), readonly: false }
    }

    fn try_password(book: &mut Book, wanted: &AdminDoor, password: &str, second: u64) -> Verdict {
        let pass = Pass::Password { username: "me".to_owned(), password: password.to_owned() };
        book.judge(pass, wanted, HERE, Duration::from_secs(second))
    }

    fn show(book: &mut Book, wanted: &AdminDoor, id: Id, second: u64) -> Verdict {
        let pass = Pass::Session(id.as_str().to_owned());
        book.judge(pass, wanted, HERE, Duration::from_secs(second))
    }

    #[test]
    fn a_session_lasts_a_day_or_until_the_password_changes() {
        let (mut book, wanted) = (Book::default(), wanted());
        assert_eq!(try_password(&mut book, &wanted, "wrong", 0), Verdict::Wrong);
        let Verdict::Welcome(Some(id)) = try_password(&mut book, &wanted, "s3cret", 0) else {
            panic!("the password is right")
        };
        assert_eq!(show(&mut book, &wanted, id, 86_399), Verdict::Welcome(None));
        assert_eq!(show(&mut book, &wanted, Id::random(), 0), Verdict::Wrong);
        assert_eq!(show(&mut book, &self::wanted(), id, 0), Verdict::Wrong);
        assert_eq!(show(&mut book, &wanted, id, 86_400), Verdict::Wrong);
        let stranger = Pass::Password { username: "you".to_owned(), password: "s3cret".to_owned() };
        assert_eq!(book.judge(stranger, &wanted, HERE, Duration::ZERO), Verdict::Wrong);
    }

    #[test]
    fn guesses_are_few_and_sessions_are_bounded() {
        let (mut book, wanted) = (Book::default(), wanted());
        for _ in 0..TRIES {
            assert_eq!(try_password(&mut book, &wanted, "wrong", 0), Verdict::Wrong);
        }
        assert_eq!(try_password(&mut book, &wanted, "s3cret", 0), Verdict::Later);
        assert_ne!(try_password(&mut book, &wanted, "s3cret", 6), Verdict::Later);
        let first = book.remember(&wanted, Duration::from_secs(1));
        for _ in 0..SESSIONS {
            book.remember(&wanted, Duration::from_secs(2));
        }
        assert_eq!(book.sessions.len(), SESSIONS);
        assert_eq!(show(&mut book, &wanted, first, 2), Verdict::Wrong);
    }
}
