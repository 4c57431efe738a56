//! The handshake, with a deadline, and what it tells about the peer.

pub mod acme;
mod certs;
mod state;
mod tickets;
mod watch;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::SingleCertAndKey;
use rustls::{
    HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection, SupportedProtocolVersion,
};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

pub use certs::{Authorities, CertificateError, Certificates};
pub use tickets::Tickets;
pub use watch::{Look, Watch, look};

use crate::config::{self, Config, HostPattern};
use crate::exchange::TlsFacts;
use crate::observe::metrics::{self, Series};

/// Ends TLS with the certificates of one snapshot.
#[derive(Clone)]
pub struct Acceptor(Arc<Inner>);

struct Inner {
    proofs: acme::Proofs,
    usual: Arc<ServerConfig>,
    /// The sites in the order written, if one of them has its own way; else none.
    sites: Vec<Site>,
    deadline: Duration,
    handshakes: Vec<(ProtocolVersion, bool, Arc<Series>)>,
}

struct Site {
    hosts: Vec<HostPattern>,
    /// Asks clients for certificates of these authorities; `None`: as usual.
    strict: Option<(Arc<ServerConfig>, u64)>,
}

/// The TLS library refused what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Refused(#[from] rustls::Error),
    #[error(transparent)]
    Authorities(#[from] CertificateError),
    #[error("no verifier of clients: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl TlsError {
    const NO_RANDOM: Self = Self::Refused(rustls::Error::FailedToGetRandomBytes);
}

/// Why a handshake came to nothing. A client's business, logged at debug.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("no handshake within {0:?}")]
    Deadline(Duration),
    #[error("the handshake failed")]
    Failed(#[source] io::Error),
    #[error("an authority looked for the proof that a name is ours")]
    Proof,
}

/// The files that certificates are read from, for `Watch`.
pub fn files(config: &Config) -> Vec<PathBuf> {
    let authorities = config.sites.iter().filter_map(|site| site.client_ca.clone());
    let own = config.tls.acme.as_ref().map(|acme| acme::certificates(&config.state, acme));
    std::iter::once(config.tls.certs.clone()).chain(authorities).chain(own).collect()
}

/// Shows when each certificate ends, and no longer those that are gone.
pub fn show(certificates: &Certificates) {
    metrics::retain(&metrics::CERTIFICATE_ENDS, |file| {
        certificates.all().iter().any(|certificate| certificate.file == file)
    });
    for certificate in certificates.all() {
        metrics::series(&metrics::CERTIFICATE_ENDS, &[&certificate.file]).set(certificate.ends);
    }
}

impl Acceptor {
    /// With these certificates; the first of them answers a client that names no host.
    pub fn compile(
        config: &Config,
        (certificates, authorities): (&Arc<Certificates>, &Authorities),
        tickets: &Tickets,
        proofs: &acme::Proofs,
    ) -> Result<Self, TlsError> {
        let versions = versions(config.tls.min);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = || {
            ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions)
        };
        let resolver: Arc<dyn ResolvesServerCert> = certificates.clone();
        let mut usual = builder()?.with_no_client_auth().with_cert_resolver(Arc::clone(&resolver));
        usual.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        usual.session_storage = Arc::new(NoServerSessionStorage {});
        usual.ticketer = tickets.producer();
        usual.send_tls13_tickets = 2;
        // Early data could be sent again by whoever recorded it.
        usual.max_early_data_size = 0;
        let mut sites = Vec::new();
        for site in &config.sites {
            let hosts = std::iter::once(&site.host).chain(&site.aliases).cloned().collect();
            let mut strict = None;
            if let Some(believed) = authorities.of(site.host.as_str()) {
                let (roots, provider) = (Arc::clone(&believed.roots), Arc::clone(&provider));
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
                let mut server = builder()?
                    .with_client_cert_verifier(verifier)
                    .with_cert_resolver(Arc::clone(&resolver));
                server.alpn_protocols.clone_from(&usual.alpn_protocols);
                // No tickets: each connection shows its certificate, and one that is no longer
                // believed is refused at once.
                server.session_storage = Arc::new(NoServerSessionStorage {});
                server.send_tls13_tickets = 0;
                strict = Some((Arc::new(server), believed.id));
            }
            sites.push(Site { hosts, strict });
        }
        if sites.iter().all(|site| site.strict.is_none()) {
            sites.clear();
        }
        let (usual, deadline) = (Arc::new(usual), config.timeouts.handshake);
        let proofs = proofs.clone();
        Ok(Self(Arc::new(Inner { proofs, usual, sites, deadline, handshakes: handshakes() })))
    }

    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(Box<TlsStream<TcpStream>>, TlsFacts), HandshakeError> {
        let handshake = Box::pin(self.shake(stream));
        let done = timeout(self.0.deadline, handshake).await;
        done.map_err(|_elapsed| HandshakeError::Deadline(self.0.deadline))?
    }

    async fn shake(
        &self,
        stream: TcpStream,
    ) -> Result<(Box<TlsStream<TcpStream>>, TlsFacts), HandshakeError> {
        let begun = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let begun = begun.await.map_err(HandshakeError::Failed)?;
        if let Some(server) = self.proof(&begun.client_hello()) {
            // The certificate is the proof; nothing is said after it.
            begun.into_stream(server).await.map_err(HandshakeError::Failed)?;
            return Err(HandshakeError::Proof);
        }
        let (server, believed) = self.choose(&begun.client_hello());
        let stream = begun.into_stream(server).await.map_err(HandshakeError::Failed)?;
        let (_, session) = stream.get_ref();
        self.count(session);
        let facts = TlsFacts {
            version: match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            http2: session.alpn_protocol() == Some(b"h2"),
            name: session.server_name().map(str::to_ascii_lowercase),
            authorities: believed.filter(|_| session.peer_certificates().is_some()),
        };
        Ok((Box::new(stream), facts))
    }

    /// What holds for the site that the client asks for; without a name, for the first. With the
    /// authorities that its certificate must be of, if one is asked for.
    fn choose(&self, hello: &ClientHello<'_>) -> (Arc<ServerConfig>, Option<u64>) {
        let sites = &self.0.sites;
        let site = match hello.server_name().map(str::to_ascii_lowercase) {
            None => sites.first(),
            Some(name) => HostPattern::choose(sites, |site| &site.hosts, &name),
        };
        match site.and_then(|site| site.strict.as_ref()) {
            Some((strict, believed)) => (Arc::clone(strict), Some(*believed)),
            None => (Arc::clone(&self.0.usual), None),
        }
    }

    /// What answers an authority that asks for `acme-tls/1` (RFC 8737 §3).
    fn proof(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        hello.alpn()?.find(|name| *name == PROOF)?;
        let key = self.0.proofs.tls(&hello.server_name()?.to_ascii_lowercase())?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let mut server = builder
            .with_protocol_versions(FROM_1_2)
            .ok()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        server.alpn_protocols = vec![PROOF.to_vec()];
        Some(Arc::new(server))
    }

    fn count(&self, session: &ServerConnection) {
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let is_it = |(version, kind, _): &&(ProtocolVersion, bool, _)| {
            session.protocol_version() == Some(*version) && *kind == resumed
        };
        if let Some((_, _, series)) = self.0.handshakes.iter().find(is_it) {
            series.increment();
        }
        if let Some(group) = session.negotiated_key_exchange_group() {
            metrics::count(&metrics::TLS_KEY_EXCHANGES, word(group.name()));
        }
    }
}

/// The protocol of a challenge.
const PROOF: &[u8] = b"acme-tls/1";

/// What a key exchange is called in TLS's registry, for those that are spoken here.
fn word(group: rustls::NamedGroup) -> &'static str {
    match group {
        rustls::NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        rustls::NamedGroup::X25519 => "x25519",
        rustls::NamedGroup::secp256r1 => "secp256r1",
        rustls::NamedGroup::secp384r1 => "secp384r1",
        _ => "other",
    }
}

type Versions = &'static [&'static SupportedProtocolVersion];

static FROM_1_2: Versions = &[&rustls::version::TLS13, &rustls::version::TLS12];
static FROM_1_3: Versions = &[&rustls::version::TLS13];

fn versions(min: config::TlsVersion) -> Versions {
    match min {
        config::TlsVersion::V12 => FROM_1_2,
        config::TlsVersion::V13 => FROM_1_3,
    }
}

fn handshakes() -> Vec<(ProtocolVersion, bool, Arc<Series>)> {
    let versions = [(ProtocolVersion::TLSv1_2, "TLSv1.2"), (ProtocolVersion::TLSv1_3, "TLSv1.3")];
    let kinds = [(false, "full"), (true, "resumed")];
    let mut all = Vec::new();
    for (version, name) in versions {
        for (resumed, kind) in kinds {
            let series = metrics::series(&metrics::TLS_HANDSHAKES, &[name, kind]);
            all.push((version, resumed, series));
        }
    }
    all
}
