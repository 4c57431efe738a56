//! Session ticket keys: kept on the disk, rotated, shared by workers and by the next process.
//!
//! A ticket is the name of its key, a nonce, and the session, sealed (AES-256-GCM).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use tracing::{info, warn};

use super::{TlsError, state};

/// Seconds after which new tickets get a new key.
const ROTATE: u64 = 12 * 60 * 60;
/// Keys that are kept: the newest, and those that unexpired tickets were sealed with.
const KEPT: usize = 3;
const NAME: usize = 16;
const KEY: usize = 32;
const NONCE: usize = 12;
const FILE: &str = "ticket.keys";
/// Some more than the file can have.
const FILE_MAX: u64 = 4096;

/// Session ticket keys: one set for all workers and every generation of the configuration.
#[derive(Clone)]
pub struct Tickets(Arc<Ring>);

struct Ring {
    /// Newest first, never empty. Swapped whole, so that no handshake waits.
    keys: ArcSwap<Vec<Key>>,
    /// Where they are kept; `None` while they are only in memory.
    file: Mutex<Option<PathBuf>>,
}

#[derive(Clone)]
struct Key {
    /// Seconds since 1970.
    made: u64,
    /// The name and the key.
    secret: [u8; NAME + KEY],
    sealing: Arc<RandomizedNonceKey>,
}

impl Key {
    fn new(made: u64) -> Result<Self, TlsError> {
        let mut secret = [0; NAME + KEY];
        rand::fill(&mut secret).map_err(|_unspecified| TlsError::NO_RANDOM)?;
        Self::of(made, secret).ok_or(TlsError::NO_RANDOM)
    }

    fn of(made: u64, secret: [u8; NAME + KEY]) -> Option<Self> {
        let key = secret.get(NAME..)?;
        let sealing = Arc::new(RandomizedNonceKey::new(&AES_256_GCM, key).ok()?);
        Some(Self { made, secret, sealing })
    }

    fn name(&self) -> &[u8] {
        self.secret.get(..NAME).unwrap_or_default()
    }

    /// A line of the file: when it was made, and the secret in hexadecimal digits.
    fn line(&self) -> String {
        let digits: String = self.secret.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{} {digits}\n", self.made)
    }

    fn parse(line: &str) -> Option<Self> {
        let (made, digits) = line.split_once(' ')?;
        let mut secret = [0; NAME + KEY];
        if digits.len() != secret.len() * 2 || !digits.is_ascii() {
            return None;
        }
        for (index, byte) in secret.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(index * 2..index * 2 + 2)?, 16).ok()?;
        }
        Self::of(made.parse().ok()?, secret)
    }
}

impl Tickets {
    /// Keys that end with the process.
    pub fn new() -> Result<Self, TlsError> {
        let keys = ArcSwap::from_pointee(vec![Key::new(now())?]);
        Ok(Self(Arc::new(Ring { keys, file: Mutex::default() })))
    }

    /// Takes the keys that an earlier process left in `state`, and leaves its own there; once.
    ///
    /// Without a place to keep them they stay in memory, and the log says so.
    pub fn keep_in(&self, state: &Path) {
        if self.0.file.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return;
        }
        let file = state.join(FILE);
        let kept = read(&file);
        if !kept.is_empty() {
            info!(keys = kept.len(), "session tickets of an earlier process are taken");
            self.0.keys.store(Arc::new(kept));
        }
        *self.0.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        self.tend();
        self.write();
    }

    /// Makes a new key when it is time. To be called every minute or so.
    pub fn tend(&self) {
        self.tend_at(now());
    }

    fn tend_at(&self, now: u64) {
        let file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let due = |keys: &[Key]| {
            // A key of the future was made by a clock that was wrong.
            keys.first().is_none_or(|key| key.made + ROTATE <= now || key.made > now + ROTATE)
        };
        let mut keys = self.0.keys.load().as_ref().clone();
        if !due(&keys) {
            return;
        }
        // The process that takes over, or the one before, may have made one already.
        let others = file.as_deref().map(read).unwrap_or_default();
        if !due(&others) {
            keys = others;
        } else {
            match Key::new(now) {
                Ok(key) => keys.insert(0, key),
                Err(error) => {
                    warn!(%error, "no new key for session tickets");
                    return;
                }
            }
        }
        keys.truncate(KEPT);
        self.0.keys.store(Arc::new(keys));
        self.write();
    }

    fn write(&self) {
        let file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &*file else { return };
        let text: String = self.0.keys.load().iter().map(Key::line).collect();
        if let Err(error) = state::write(file, text.as_bytes()) {
            let file = file.display();
            warn!(%file, %error, "session tickets will end with this process");
        }
    }

    pub fn producer(&self) -> Arc<dyn ProducesTickets> {
        let ring: Arc<Ring> = Arc::clone(&self.0);
        ring
    }
}

fn read(file: &Path) -> Vec<Key> {
    match state::read(file, FILE_MAX) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default();
            text.lines().filter_map(Key::parse).take(KEPT).collect()
        }
        Err(error) => {
            warn!(file = %file.display(), %error, "the keys of session tickets cannot be read");
            Vec::new()
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl ProducesTickets for Ring {
    fn enabled(&self) -> bool {
        true
    }

    /// A ticket can be opened for at least this long.
    fn lifetime(&self) -> u32 {
        u32::try_from(ROTATE).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.load();
        let key = keys.first()?;
        let mut sealed = session.to_vec();
        let aad = Aad::from(key.name());
        let nonce = key.sealing.seal_in_place_append_tag(aad, &mut sealed).ok()?;
        Some([key.name(), nonce.as_ref(), sealed.as_slice()].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE)?;
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.name() == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut session = sealed.to_vec();
        let opened = key.sealing.open_in_place(nonce, Aad::from(name), &mut session).ok()?.len();
        session.truncate(opened);
        Some(session)
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tickets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("vestibule-tickets-{name}-{}", std::process::id()))
    }

    /// Else each start waits 40 ms for it: `.cargo/config.toml` was not heeded.
    #[test]
    fn random_numbers_do_not_wait_for_the_clocks_jitter() {
        assert!(aws_lc_rs::try_fips_cpu_jitter_entropy().is_err());
    }

    #[test]
    fn a_ticket_opens_as_long_as_its_key_is_kept() {
        let tickets = Tickets::new().expect("keys");
        let ticket = tickets.0.encrypt(b"session").expect("a ticket");
        assert_eq!(tickets.0.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        for index in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[index] ^= 1;
            assert_eq!(tickets.0.decrypt(&forged), None, "byte {index}");
            assert_eq!(tickets.0.decrypt(&ticket[..index]), None, "{index} bytes");
        }
        let begun = now();
        tickets.tend_at(begun);
        assert_eq!(tickets.0.keys.load().len(), 1, "it is not time");
        for turn in 1..=4 {
            tickets.tend_at(begun + turn * ROTATE);
            let opens = tickets.0.decrypt(&ticket).is_some();
            assert_eq!(opens, turn < 3, "turn {turn}");
        }
        assert_eq!(tickets.0.keys.load().len(), KEPT);
    }

    #[test]
    fn the_next_process_opens_the_tickets_of_the_last() {
        let folder = folder("next");
        let (first, second) = (Tickets::new().expect("keys"), Tickets::new().expect("keys"));
        first.keep_in(&folder);
        let ticket = first.0.encrypt(b"session").expect("a ticket");
        second.keep_in(&folder);
        assert_eq!(second.0.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        // Only one of them makes the next key; the other takes it.
        first.tend_at(now() + ROTATE);
        second.tend_at(now() + ROTATE);
        let ticket = second.0.encrypt(b"later").expect("a ticket");
        assert_eq!(first.0.decrypt(&ticket).as_deref(), Some(&b"later"[..]));
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn what_is_no_key_is_left_out() {
        let folder = folder("bad");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(FILE), "1 abc\nx\n\n5 zz\n").expect("written");
        let tickets = Tickets::new().expect("keys");
        tickets.keep_in(&folder);
        assert_eq!(tickets.0.keys.load().len(), 1);
        assert_eq!(read(&folder.join(FILE)).len(), 1);
        fs::remove_dir_all(folder).expect("removed");
    }
}
