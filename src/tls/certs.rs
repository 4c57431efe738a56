//! Certificates from a folder, chosen by the name the client asks for and by what it can verify.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use tracing::warn;

use crate::config::{Config, HostPattern, Site, is_public};

use super::acme;

/// Every certificate there is. A client that names no host, or one that no certificate is for,
/// gets the first site's, if it has one.
///
/// Where several are for a name, clients get the best that they can verify: one that holds
/// today before one that does not, an elliptic curve before RSA, then by the file's name.
#[derive(Debug)]
pub struct Certificates {
    /// Best first.
    all: Vec<Certificate>,
    /// Indices of those for the first site; all, if there is none for it.
    first: Vec<usize>,
    /// Public names that nobody but an authority has a certificate for.
    wanted: Vec<String>,
    /// What is shown for them until there is one.
    stand_ins: HashMap<String, Arc<CertifiedKey>>,
    /// Known hosts of the configuration, so that a handshake is one look-up.
    by_host: HashMap<String, Vec<usize>>,
}

/// One certificate with its key.
#[derive(Debug)]
pub struct Certificate {
    /// Its file, from the folder that it is in: a name of the operator's.
    pub file: String,
    /// Seconds since 1970.
    pub begins: i64,
    pub ends: i64,
    key: Arc<CertifiedKey>,
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
    #[error("{file}: is no certificate of X.509")]
    Malformed { file: PathBuf },
}

impl Certificates {
    /// Reads `NAME.pem` + `NAME.key` and `NAME/fullchain.pem` + `NAME/privkey.pem` in the folder,
    /// and what an authority gave.
    ///
    /// A folder that does not exist holds no certificate.
    pub fn read(config: &Config) -> Result<Self, CertificateError> {
        let folder = &config.tls.certs;
        let mut all = Vec::new();
        for (chain, key) in pairs(folder)? {
            let name = chain.strip_prefix(folder).unwrap_or(&chain).display().to_string();
            all.push(Certificate::read(name, &chain, &key)?);
        }
        let Some(acme) = &config.tls.acme else { return Ok(Self::of(all, config)) };
        let written = Self::of(all, config);
        let names = config.sites.iter().flat_map(Site::names).filter(|host| is_public(host));
        let names = names.map(HostPattern::as_str).filter(|name| !written.covers(name));
        let wanted: Vec<_> = names.map(str::to_owned).collect();
        let mut all = written.all;
        for file in acme::files(&acme::certificates(&config.state, acme)) {
            let name = file.file_name().unwrap_or_default().display().to_string();
            if !wanted.iter().any(|wanted| name.strip_suffix(".pem") == Some(wanted.as_str())) {
                continue;
            }
            match Certificate::read(format!("acme/{name}"), &file, &file) {
                Ok(certificate) => all.push(certificate),
                // It comes from an authority, so another can be had.
                Err(error) => warn!(%error, "a kept certificate is left out"),
            }
        }
        let mut certificates = Self::of(all, config);
        certificates.stand_ins = wanted
            .iter()
            .filter(|name| !certificates.covers(name))
            .filter_map(|name| Some((name.clone(), Arc::new(stand_in(name)?))))
            .collect();
        certificates.wanted = wanted;
        Ok(certificates)
    }

    fn of(mut all: Vec<Certificate>, config: &Config) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        all.sort_by(|one, other| one.rank(now).cmp(&other.rank(now)));
        let first = (0..all.len()).collect();
        let (stand_ins, by_host) = (HashMap::new(), HashMap::new());
        let mut certificates = Self { all, first, wanted: Vec::new(), stand_ins, by_host };
        let hosts = config.sites.iter().flat_map(Site::names);
        for (index, host) in hosts.enumerate() {
            let found = certificates.find(host.as_str());
            if found.is_empty() {
                continue;
            }
            if index == 0 {
                certificates.first.clone_from(&found);
            }
            certificates.by_host.insert(host.as_str().to_owned(), found);
        }
        certificates
    }

    /// True if no handshake could be answered.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.stand_ins.is_empty()
    }

    /// The names that an authority is to be asked for.
    pub fn wanted(&self) -> &[String] {
        &self.wanted
    }

    /// All of them, best first.
    pub fn all(&self) -> &[Certificate] {
        &self.all
    }

    /// What is different from those `before`, a line each.
    pub fn changes(&self, before: &Self) -> Vec<String> {
        let find = |all: &[Certificate], file: &str| all.iter().position(|one| one.file == file);
        let ends = |one: &Certificate| {
            let ends = u64::try_from(one.ends).unwrap_or_default();
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(ends)).to_string()
        };
        let mut lines = Vec::new();
        for one in &self.all {
            let was = find(&before.all, &one.file).and_then(|index| before.all.get(index));
            match was {
                None => lines.push(format!("+ certificate {}, until {}", one.file, ends(one))),
                Some(was) if was.key.cert != one.key.cert => {
                    lines.push(format!("~ certificate {}, until {}", one.file, ends(one)));
                }
                Some(_) => (),
            }
        }
        let gone = before.all.iter().filter(|one| find(&self.all, &one.file).is_none());
        lines.extend(gone.map(|one| format!("- certificate {}", one.file)));
        lines.sort_by(|one, other| one.get(1..).cmp(&other.get(1..)));
        lines
    }

    /// True if a client that asks for `host` gets a certificate that is made for it.
    pub fn covers(&self, host: &str) -> bool {
        self.by_host.contains_key(host) || !self.find(host).is_empty()
    }

    /// Those that are made for `host`.
    fn find(&self, host: &str) -> Vec<usize> {
        // A pattern is asked for as one name below it.
        let host =
            host.strip_prefix("*.").map_or(host.to_owned(), |parent| format!("any.{parent}"));
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let Ok(name) = ServerName::try_from(bare) else { return Vec::new() };
        let is_for = |certificate: &Certificate| {
            let leaf = certificate.key.end_entity_cert().and_then(ParsedCertificate::try_from);
            leaf.is_ok_and(|leaf| verify_server_name(&leaf, &name).is_ok())
        };
        let found = self.all.iter().enumerate().filter(|(_, certificate)| is_for(certificate));
        found.map(|(index, _)| index).collect()
    }

    /// The first that the client can verify; else the first, which the handshake then refuses.
    fn choose(&self, among: &[usize], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut keys = among.iter().filter_map(|index| self.all.get(*index));
        let first = keys.clone().next();
        let fits = keys.find(|certificate| certificate.key.key.choose_scheme(schemes).is_some());
        let chosen = fits.or(first).map(|certificate| &certificate.key);
        chosen.or_else(|| self.stand_ins.values().next()).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let Some(host) = hello.server_name().map(str::to_ascii_lowercase) else {
            return self.choose(&self.first, schemes);
        };
        if let Some(known) = self.by_host.get(&host) {
            return self.choose(known, schemes);
        }
        if let Some(stand_in) = self.stand_ins.get(&host) {
            return Some(Arc::clone(stand_in));
        }
        let found = self.find(&host);
        self.choose(if found.is_empty() { &self.first } else { &found }, schemes)
    }
}

impl Certificate {
    fn read(name: String, chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        let pem = |file: &Path, source| CertificateError::Pem { file: file.to_owned(), source };
        let certificates = CertificateDer::pem_file_iter(chain)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| pem(chain, source))?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|source| pem(key, source))?;
        Self::new(name, chain, certificates, private)
    }

    fn new(
        name: String,
        file: &Path,
        chain: Vec<CertificateDer<'static>>,
        private: PrivateKeyDer<'static>,
    ) -> Result<Self, CertificateError> {
        let Some(leaf) = chain.first() else {
            let source = pem::Error::NoItemsFound;
            return Err(CertificateError::Pem { file: file.to_owned(), source });
        };
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|_error| CertificateError::Malformed { file: file.to_owned() })?;
        let validity = parsed.validity();
        let (begins, ends) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let key = CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider())
            .map_err(|source| CertificateError::Unfit { file: file.to_owned(), source })?;
        Ok(Self { file: name, begins, ends, key: Arc::new(key) })
    }

    /// Sorts the best to the front.
    fn rank(&self, now: i64) -> (bool, bool, &str) {
        let is_rsa = self.key.key.algorithm() == SignatureAlgorithm::RSA;
        (self.ends <= now || self.begins > now, is_rsa, &self.file)
    }
}

/// A chain and its key, if they fit.
pub fn fitting(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Option<CertifiedKey> {
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).ok()
}

/// A certificate of this program's own making.
pub fn certified(
    certificate: CertificateDer<'static>,
    key: &rcgen::KeyPair,
) -> Option<CertifiedKey> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).ok()?;
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).ok()?;
    // They fit, and a proof has an extension that only the authority understands.
    Some(CertifiedKey::new(vec![certificate], key))
}

/// What is shown for a name until an authority has given a certificate.
fn stand_in(name: &str) -> Option<CertifiedKey> {
    let key = rcgen::KeyPair::generate().ok()?;
    let words = rcgen::CertificateParams::new(vec![name.to_owned()]).ok()?;
    certified(words.self_signed(&key).ok()?.der().clone(), &key)
}

/// Chain and key files.
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
    Ok(found)
}

/// On whose word clients' certificates are believed, for each site that asks for them.
#[derive(Default)]
pub struct Authorities(HashMap<String, Believed>);

/// The certificates that clients of a site must show one from.
#[derive(Clone)]
pub struct Believed {
    pub roots: Arc<rustls::RootCertStore>,
    /// The same for the same ones, whatever file they are in.
    pub id: u64,
}

impl Authorities {
    pub fn read(config: &Config) -> Result<Self, CertificateError> {
        let strict = config.sites.iter().filter_map(|site| Some((site, site.client_ca.as_ref()?)));
        let read = strict.map(|(site, file)| {
            let roots = authorities(file)?;
            let mut keys: Vec<(&[u8], &[u8])> = roots
                .roots
                .iter()
                .map(|root| (root.subject.as_ref(), root.subject_public_key_info.as_ref()))
                .collect();
            keys.sort_unstable();
            let mut hasher = DefaultHasher::new();
            keys.hash(&mut hasher);
            let (id, roots) = (hasher.finish(), Arc::new(roots));
            Ok((site.host.as_str().to_owned(), Believed { roots, id }))
        });
        read.collect::<Result<_, _>>().map(Self)
    }

    /// Of a site, by its host as it is written.
    pub fn of(&self, host: &str) -> Option<&Believed> {
        self.0.get(host)
    }
}

/// Certificates of a file, all of which must be fit for it.
pub fn authorities(file: &Path) -> Result<rustls::RootCertStore, CertificateError> {
    let pem = |source| CertificateError::Pem { file: file.to_owned(), source };
    let mut roots = rustls::RootCertStore::empty();
    let all = CertificateDer::pem_file_iter(file).map_err(pem)?;
    for certificate in all {
        roots
            .add(certificate.map_err(pem)?)
            .map_err(|source| CertificateError::Unfit { file: file.to_owned(), source })?;
    }
    if roots.is_empty() {
        return Err(pem(pem::Error::NoItemsFound));
    }
    Ok(roots)
}
