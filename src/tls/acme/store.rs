//! The account and the certificates of one authority, in the state directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use instant_acme::{AccountCredentials, CertificateIdentifier};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::Acme;
use crate::tls::state;

use super::schedule::Time;

/// Where everything of this authority is kept, so that another's is never taken for it.
pub fn folder(state: &Path, acme: &Acme) -> PathBuf {
    let word = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let authority = acme.directory.trim_start_matches("https://").chars().map(word);
    state.join("acme").join(authority.collect::<String>())
}

/// Where its certificates are: `NAME.pem`, the chain and then the key in one file, so that no
/// crash leaves one without the other.
pub fn certificates(state: &Path, acme: &Acme) -> PathBuf {
    folder(state, acme).join("certificates")
}

/// The files of certificates.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "pem"));
    files.sort();
    files
}

/// The account, and whom the authority knows as its owner.
#[derive(Serialize, Deserialize)]
pub struct Kept {
    pub email: String,
    pub credentials: AccountCredentials,
}

const ACCOUNT: &str = "account.json";
const ACCOUNT_MAX: u64 = 64 << 10;

/// The account; one that cannot be read is as none.
pub fn account(folder: &Path) -> Option<Kept> {
    let file = folder.join(ACCOUNT);
    let bytes = match state::read(&file, ACCOUNT_MAX) {
        Ok(bytes) => bytes?,
        Err(error) => {
            warn!(file = %file.display(), %error, "the account cannot be read");
            return None;
        }
    };
    let kept = serde_json::from_slice(&bytes);
    kept.inspect_err(|error| warn!(file = %file.display(), %error, "this is no account")).ok()
}

pub fn keep_account(folder: &Path, kept: &Kept) -> io::Result<()> {
    state::write(&folder.join(ACCOUNT), &serde_json::to_vec(kept)?)
}

/// The authority does not know it any more.
pub fn forget_account(folder: &Path) {
    // It may be gone already.
    let _gone = fs::remove_file(folder.join(ACCOUNT));
}

pub fn keep(folder: &Path, name: &str, chain: &str, key: &str) -> io::Result<()> {
    let whole = format!("{}\n{}\n", chain.trim_end(), key.trim_end());
    state::write(&folder.join(format!("{name}.pem")), whole.as_bytes())
}

/// A certificate that is held.
pub struct Held {
    pub begins: Time,
    pub ends: Time,
    /// How the authority is asked about it; not all certificates have what that takes.
    pub id: Option<CertificateIdentifier<'static>>,
}

/// The certificate for `name`, if there is one that can be read.
pub fn held(folder: &Path, name: &str) -> Option<Held> {
    let leaf = CertificateDer::from_pem_file(folder.join(format!("{name}.pem"))).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).ok()?;
    let validity = parsed.validity();
    let id = CertificateIdentifier::try_from(&leaf).ok().map(CertificateIdentifier::into_owned);
    Some(Held { begins: validity.not_before.timestamp(), ends: validity.not_after.timestamp(), id })
}
