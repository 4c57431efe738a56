//! One order: proofs shown, a certificate taken.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::config::AcmeChallenge;
use crate::exchange::Challenges;
use crate::tls::certs;

use super::store;

/// How long the authority may take to look, and to sign.
fn patience() -> RetryPolicy {
    RetryPolicy::new().timeout(Duration::from_secs(90))
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error("{0}")]
    Acme(#[from] instant_acme::Error),
    #[error("{0}")]
    Client(#[from] crate::tls::TlsError),
    #[error("the authority offers no challenge {0:?} for it")]
    NoChallenge(ChallengeType),
    #[error("the authority did not find the proof: {0}")]
    Unproved(String),
    #[error("tls.acme.eab.key is no base64 as URLs have it")]
    Key,
    #[error("no request: {0}")]
    Request(#[from] rcgen::Error),
    #[error("what came is no certificate for this key")]
    Unfit,
    #[error("it could not be kept: {0}")]
    Kept(#[from] io::Error),
}

impl OrderError {
    fn problem(&self) -> &str {
        match self {
            Self::Acme(instant_acme::Error::Api(problem)) => {
                problem.r#type.as_deref().unwrap_or_default()
            }
            _ => "",
        }
    }

    /// The authority wants to hear less of us.
    pub fn is_limit(&self) -> bool {
        self.problem().ends_with(":rateLimited")
    }

    /// The authority has forgotten the account.
    pub fn is_stranger(&self) -> bool {
        self.problem().ends_with(":accountDoesNotExist")
    }
}

/// What is shown to an authority that looks. Clones are one and the same.
#[derive(Clone, Default)]
pub struct Proofs {
    http: Challenges,
    /// By name; RFC 8737.
    tls: Arc<Mutex<HashMap<String, Arc<CertifiedKey>>>>,
}

impl Proofs {
    pub fn http(&self) -> &Challenges {
        &self.http
    }

    /// The certificate for who asks for `acme-tls/1`.
    pub fn tls(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

/// One proof, shown until it is dropped.
struct Shown<'a> {
    proofs: &'a Proofs,
    what: What,
}

enum What {
    Token(String),
    Name(String),
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        match &self.what {
            What::Token(token) => self.proofs.http.forget(token),
            What::Name(name) => {
                self.proofs.tls.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            }
        }
    }
}

/// Gets a certificate for `name` and keeps it in `folder`.
pub async fn take(
    account: &Account,
    name: &str,
    replaces: Option<&CertificateIdentifier<'static>>,
    (challenge, proofs): (AcmeChallenge, &Proofs),
    folder: &Path,
) -> Result<(), OrderError> {
    let names = [Identifier::Dns(name.to_owned())];
    let mut order = begin(account, &names, replaces).await?;
    let shown = prove(&mut order, name, challenge, proofs).await?;
    match order.poll_ready(&patience()).await {
        Ok(OrderStatus::Ready) => (),
        Ok(status) => return Err(unproved(&mut order, &format!("{status:?}")).await),
        Err(instant_acme::Error::Api(problem)) => {
            return Err(unproved(&mut order, &problem.to_string()).await);
        }
        Err(error) => return Err(error.into()),
    }
    drop(shown);
    let key = KeyPair::generate()?;
    let mut words = CertificateParams::new(vec![name.to_owned()])?;
    words.distinguished_name = DistinguishedName::new();
    order.finalize_csr(words.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&patience()).await?;
    let key = key.serialize_pem();
    check(&chain, &key).ok_or(OrderError::Unfit)?;
    Ok(store::keep(folder, name, &chain, &key)?)
}

/// Says which certificate the new one replaces (RFC 9773 §5), if the authority hears of it.
async fn begin(
    account: &Account,
    names: &[Identifier],
    replaces: Option<&CertificateIdentifier<'static>>,
) -> Result<Order, instant_acme::Error> {
    if let Some(id) = replaces {
        let order = account.new_order(&NewOrder::new(names).replaces(id.clone())).await;
        if let Ok(order) = order {
            return Ok(order);
        }
        // It may know nothing of it, or of another order in its place.
    }
    account.new_order(&NewOrder::new(names)).await
}

async fn prove<'a>(
    order: &mut Order,
    name: &str,
    challenge: AcmeChallenge,
    proofs: &'a Proofs,
) -> Result<Vec<Shown<'a>>, OrderError> {
    let kind = match challenge {
        AcmeChallenge::Http => ChallengeType::Http01,
        AcmeChallenge::TlsAlpn => ChallengeType::TlsAlpn01,
    };
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let handle = authorization.challenge(kind.clone());
        let mut handle = handle.ok_or_else(|| OrderError::NoChallenge(kind.clone()))?;
        let proof = handle.key_authorization();
        let what = match challenge {
            AcmeChallenge::Http => {
                proofs.http.show(&handle.token, proof.as_str());
                What::Token(handle.token.clone())
            }
            AcmeChallenge::TlsAlpn => {
                let key = certificate(name, proof.digest().as_ref())?;
                let mut all = proofs.tls.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(name.to_owned(), Arc::new(key));
                What::Name(name.to_owned())
            }
        };
        shown.push(Shown { proofs, what });
        handle.set_ready().await?;
    }
    Ok(shown)
}

/// A certificate that carries the proof (RFC 8737 §3).
fn certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, OrderError> {
    let key = KeyPair::generate()?;
    let mut words = CertificateParams::new(vec![name.to_owned()])?;
    words.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = words.self_signed(&key)?;
    certs::certified(certificate.der().clone(), &key).ok_or(OrderError::Unfit)
}

/// What the authority says of the challenges, which tells more than the order.
async fn unproved(order: &mut Order, status: &str) -> OrderError {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let mut problems = state.challenges.iter().filter_map(|one| one.error.as_ref());
        if let Some(problem) = problems.next() {
            return OrderError::Unproved(problem.to_string());
        }
    }
    OrderError::Unproved(status.to_owned())
}

fn check(chain: &str, key: &str) -> Option<CertifiedKey> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).ok()?;
    certs::fitting(chain.ok()?, key)
}
