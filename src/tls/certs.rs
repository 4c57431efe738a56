//! Certificates from a folder, chosen by the name the client asks for.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::HostPattern;

/// Every certificate of the folder. A client that names no host, or one that no certificate is
/// for, gets the first: the first site's, if it has one.
#[derive(Debug)]
pub struct Certificates {
    /// Sorted by file name, the first site's moved to the front.
    all: Vec<Arc<CertifiedKey>>,
    /// Known hosts of the configuration, so that a handshake is one look-up.
    by_host: HashMap<String, Arc<CertifiedKey>>,
}

/// Why the folder could not be taken as it is.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{file}: cannot be read: {source}")]
    Read { file: PathBuf, source: io::Error },
    #[error("{file}: no PEM as expected: {source}")]
    Pem { file: PathBuf, source: pem::Error },
    #[error("{file}: there is no key beside it; put it at {key}")]
    NoKey { file: PathBuf, key: PathBuf },
    #[error("{file}: certificate and key do not fit: {source}")]
    Unfit { file: PathBuf, source: rustls::Error },
}

impl Certificates {
    /// Reads `NAME.pem` + `NAME.key` and `NAME/fullchain.pem` + `NAME/privkey.pem` in `folder`.
    ///
    /// A folder that does not exist holds no certificate.
    pub fn read<'a>(
        folder: &Path,
        hosts: impl Iterator<Item = &'a HostPattern>,
    ) -> Result<Self, CertificateError> {
        let mut all = Vec::new();
        for (chain, key) in pairs(folder)? {
            all.push(Arc::new(certified(&chain, &key)?));
        }
        let mut certificates = Self { all, by_host: HashMap::new() };
        for (index, host) in hosts.enumerate() {
            let Some(found) = certificates.find(host.as_str()) else { continue };
            if index == 0 {
                certificates.all.swap(0, found);
            }
            let found = if index == 0 { 0 } else { found };
            if let Some(key) = certificates.all.get(found).cloned() {
                certificates.by_host.insert(host.as_str().to_owned(), key);
            }
        }
        Ok(certificates)
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// True if a client that asks for `host` gets a certificate that is made for it.
    pub fn covers(&self, host: &str) -> bool {
        self.by_host.contains_key(host) || self.find(host).is_some()
    }

    fn find(&self, host: &str) -> Option<usize> {
        // A pattern is asked for as one name below it.
        let host =
            host.strip_prefix("*.").map_or(host.to_owned(), |parent| format!("any.{parent}"));
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare).ok()?;
        self.all.iter().position(|key| {
            let leaf = key.end_entity_cert().and_then(ParsedCertificate::try_from);
            leaf.is_ok_and(|leaf| verify_server_name(&leaf, &name).is_ok())
        })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let first = || self.all.first().cloned();
        let Some(host) = hello.server_name().map(str::to_ascii_lowercase) else { return first() };
        if let Some(key) = self.by_host.get(&host) {
            return Some(Arc::clone(key));
        }
        let found = self.find(&host).and_then(|index| self.all.get(index));
        found.cloned().or_else(first)
    }
}

/// Chain and key files, in the order of their names.
fn pairs(folder: &Path) -> Result<Vec<(PathBuf, PathBuf)>, CertificateError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(CertificateError::Read { file: folder.to_owned(), source }),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|source| CertificateError::Read { file: folder.to_owned(), source })?
            .path();
        let (chain, key) = if path.join("fullchain.pem").is_file() {
            (path.join("fullchain.pem"), path.join("privkey.pem"))
        } else if path.is_file() && path.extension().is_some_and(|kind| kind == "pem") {
            (path.clone(), path.with_extension("key"))
        } else {
            continue;
        };
        if !key.is_file() {
            return Err(CertificateError::NoKey { file: chain, key });
        }
        found.push((chain, key));
    }
    found.sort();
    Ok(found)
}

fn certified(chain: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let pem = |file: &Path, source| CertificateError::Pem { file: file.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| pem(chain, source))?;
    if certificates.is_empty() {
        return Err(pem(chain, pem::Error::NoItemsFound));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|source| pem(key, source))?;
    CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider())
        .map_err(|source| CertificateError::Unfit { file: chain.to_owned(), source })
}
