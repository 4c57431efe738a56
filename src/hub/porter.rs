//! Who may see the Admin UI: passwords are checked one after the other on a thread of their own.
//!
//! bcrypt takes a tenth of a second by design; no worker can spare that.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{constant_time, hmac, rand};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::AdminDoor;
use crate::limits::{Buckets, Rate, key_of};

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

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// With a new session, if the password was shown.
    Welcome(Option<String>),
    Wrong,
    /// Too many attempts, of this address or at this time.
    Later,
}

/// Attempts that wait for the thread. Full: the next are sent away, and may come again.
const WAITING: usize = 8;
/// Passwords that one address may try: so many at once, then one in a tenth of a minute.
const TRIES: u32 = 10;
const TRIES_PER: Duration = Duration::from_secs(60);
/// How long one lasts, as with Node.
const SESSION_LASTS: Duration = Duration::from_secs(86_400);
/// So much may the clock of another node that gives them out be ahead.
const AHEAD: Duration = Duration::from_secs(60);

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
    let Some(mut book) = Book::new() else { return };
    let begun = Instant::now();
    while let Ok(attempt) = attempts.recv() {
        let Attempt { pass, wanted, address, verdict } = attempt;
        let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Now { since_start: begun.elapsed(), today: today.as_secs() };
        // The client may have gone meanwhile.
        let _told = verdict.send(book.judge(pass, &wanted, address, now));
    }
}

#[derive(Clone, Copy)]
struct Now {
    since_start: Duration,
    /// Seconds since 1970.
    today: u64,
}

/// What the porter knows.
struct Book {
    /// Signs sessions where nothing else does that other processes know.
    own: hmac::Key,
    tries: Buckets,
}

impl Book {
    /// `None` if there is no chance to be had, without which sessions could be guessed.
    fn new() -> Option<Self> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).ok()?;
        Some(Self { own: hmac::Key::new(hmac::HMAC_SHA256, &bytes), tries: Buckets::default() })
    }

    fn judge(&mut self, pass: Pass, wanted: &AdminDoor, address: IpAddr, now: Now) -> Verdict {
        match pass {
            Pass::Session(shown) => {
                let ends = shown.split('-').next().and_then(|ends| ends.parse::<u64>().ok());
                let latest = now.today + SESSION_LASTS.as_secs() + AHEAD.as_secs();
                let lasts = |ends: &u64| (now.today + 1..=latest).contains(ends);
                let valid = ends.filter(lasts).is_some_and(|ends| {
                    let right = self.session(wanted, ends);
                    constant_time::verify_slices_are_equal(right.as_bytes(), shown.as_bytes())
                        .is_ok()
                });
                if valid { Verdict::Welcome(None) } else { Verdict::Wrong }
            }
            Pass::Password { username, password } => {
                let rate = Rate::new(TRIES, TRIES_PER, TRIES);
                if !self.tries.take(key_of(address), rate, now.since_start) {
                    return Verdict::Later;
                }
                // Takes the same time whether or not the name is known.
                let right = bcrypt::verify(password, wanted.password.expose()).unwrap_or(false);
                if !right || username != wanted.username {
                    return Verdict::Wrong;
                }
                let ends = now.today + SESSION_LASTS.as_secs();
                Verdict::Welcome(Some(self.session(wanted, ends)))
            }
        }
    }

    /// What is shown in place of the password until then: nobody remembers it, whoever has the same
    /// secret can tell it. It ends as well when the name or the password changes.
    fn session(&self, wanted: &AdminDoor, ends: u64) -> String {
        let shared = wanted.secret.as_ref();
        let shared =
            shared.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()));
        let mut context = hmac::Context::with_key(shared.as_ref().unwrap_or(&self.own));
        // The secret may sign other things too.
        context.update(b"vestibule admin ui\n");
        for word in [&wanted.username, wanted.password.expose(), &ends.to_string()] {
            context.update(&(word.len() as u64).to_be_bytes());
            context.update(word.as_bytes());
        }
        let mut session = format!("{ends}-");
        for byte in context.sign().as_ref() {
            // Writing to a String cannot fail.
            let _written = write!(session, "{byte:02x}");
        }
        session
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Secret;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const TODAY: u64 = 1_800_000_000;

    /// The password is `s3cret`; the cost is far below what the configuration takes.
    fn wanted(secret: Option<&str>) -> AdminDoor {
        let hash = bcrypt::hash("s3cret", 4).expect("a hash");
        let secret = secret.map(|secret| Secret::new(secret.to_owned(), None));
        let password = Secret::new(hash, None);
        AdminDoor { username: "me".to_owned(), password, readonly: false, secret }
    }

    fn at(second: u64) -> Now {
        Now { since_start: Duration::from_secs(second), today: TODAY + second }
    }

    fn try_password(book: &mut Book, wanted: &AdminDoor, password: &str, second: u64) -> Verdict {
        let pass = Pass::Password { username: "me".to_owned(), password: password.to_owned() };
        book.judge(pass, wanted, HERE, at(second))
    }

    fn show(book: &mut Book, wanted: &AdminDoor, session: &str, second: u64) -> bool {
        let pass = Pass::Session(session.to_owned());
        book.judge(pass, wanted, HERE, at(second)) == Verdict::Welcome(None)
    }

    #[test]
    fn a_session_lasts_a_day_or_until_the_password_changes() {
        let (mut book, wanted) = (Book::new().expect("a book"), wanted(None));
        assert_eq!(try_password(&mut book, &wanted, "wrong", 0), Verdict::Wrong);
        let Verdict::Welcome(Some(session)) = try_password(&mut book, &wanted, "s3cret", 0) else {
            panic!("the password is right")
        };
        assert!(show(&mut book, &wanted, &session, 86_399));
        assert!(!show(&mut book, &wanted, &session, 86_400));
        assert!(!show(&mut book, &self::wanted(None), &session, 0), "another hash");
        let other = AdminDoor { username: "you".to_owned(), ..wanted.clone() };
        assert!(!show(&mut book, &other, &session, 0));
        assert!(!show(&mut Book::new().expect("a book"), &wanted, &session, 0), "another process");
        let stranger = Pass::Password { username: "you".to_owned(), password: "s3cret".to_owned() };
        assert_eq!(book.judge(stranger, &wanted, HERE, at(0)), Verdict::Wrong);
    }

    #[test]
    fn whoever_has_the_secret_takes_the_others_sessions() {
        let (mut one, mut other) = (Book::new().expect("a book"), Book::new().expect("a book"));
        let wanted = wanted(Some("shared"));
        let Verdict::Welcome(Some(session)) = try_password(&mut one, &wanted, "s3cret", 0) else {
            panic!("the password is right")
        };
        assert!(show(&mut one, &wanted, &session, 5) && show(&mut other, &wanted, &session, 5));
        let secret = Some(Secret::new("another".to_owned(), None));
        assert!(!show(&mut other, &AdminDoor { secret, ..wanted.clone() }, &session, 5));
        // Nothing of it can be changed, nor can it be made to last.
        let (ends, signed) = session.split_once('-').expect("two parts");
        let later = ends.parse::<u64>().expect("a number") + AHEAD.as_secs() + 1;
        let longer = one.session(&wanted, later);
        for forged in [
            "",
            "-",
            ends,
            &format!("{ends}-"),
            &format!("{later}-{signed}"),
            &format!("{ends}-{}", &signed[1..]),
            &format!("+{session}"),
            &format!("0{session}"),
            &format!("{session}0"),
            &longer,
        ] {
            assert!(!show(&mut one, &wanted, forged, 0), "{forged}");
        }
        assert!(show(&mut one, &wanted, &longer, 1));
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let (mut ahead, mut behind) = (Book::new().expect("a book"), Book::new().expect("a book"));
        let wanted = wanted(Some("shared"));
        let Verdict::Welcome(Some(session)) = try_password(&mut ahead, &wanted, "s3cret", 100)
        else {
            panic!("the password is right")
        };
        assert!(show(&mut behind, &wanted, &session, 40));
        assert!(!show(&mut behind, &wanted, &session, 39));
    }

    #[test]
    fn guesses_are_few() {
        let (mut book, wanted) = (Book::new().expect("a book"), wanted(None));
        for _ in 0..TRIES {
            assert_eq!(try_password(&mut book, &wanted, "wrong", 0), Verdict::Wrong);
        }
        assert_eq!(try_password(&mut book, &wanted, "s3cret", 0), Verdict::Later);
        assert_ne!(try_password(&mut book, &wanted, "s3cret", 6), Verdict::Later);
    }
}
