//! TLS to a target: whose certificates are believed there, and whose it is shown.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::warn;

use crate::config;
use crate::outside::{believed, certificates};

/// A connection to a target that is what it says.
pub type Secured = TlsStream<TcpStream>;

/// Why the targets of an upstream cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("next.tls.{key}: {file}: {why}", file = file.display())]
    File { key: &'static str, file: PathBuf, why: String },
    #[error("next.tls: {0}")]
    Tls(#[from] rustls::Error),
}

/// What the connections of one upstream have in common; the same over reloads that change nothing.
pub struct Settings {
    words: config::UpstreamTls,
    /// The files' contents, which a reload may find changed.
    read: [Option<Vec<u8>>; 3],
    config: Arc<ClientConfig>,
}

/// The way to one target.
#[derive(Debug)]
pub struct Client {
    pub settings: Arc<Settings>,
    name: ServerName<'static>,
}

impl Settings {
    /// Reads the files. `known` is taken instead if it is the same.
    pub fn compile<'a>(
        words: &config::UpstreamTls,
        known: impl Iterator<Item = &'a Arc<Self>>,
    ) -> Result<Arc<Self>, CompileError> {
        let read = [
            content("ca", words.ca.as_deref())?,
            content("cert", words.cert.as_deref())?,
            content("key", words.key.as_deref())?,
        ];
        let mut same = known.filter(|known| known.words == *words && known.read == read);
        if let Some(same) = same.next() {
            return Ok(Arc::clone(same));
        }
        let config = Arc::new(client_config(words, &read)?);
        Ok(Arc::new(Self { words: words.clone(), read, config }))
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.words.fmt(f)
    }
}

fn content(key: &'static str, file: Option<&Path>) -> Result<Option<Vec<u8>>, CompileError> {
    let read = file.map(|file| {
        std::fs::read(file).map_err(|error| CompileError::File {
            key,
            file: file.to_owned(),
            why: error.to_string(),
        })
    });
    read.transpose()
}

fn client_config(
    words: &config::UpstreamTls,
    [ca, cert, key]: &[Option<Vec<u8>>; 3],
) -> Result<ClientConfig, CompileError> {
    let wrong = |key: &'static str, file: &Option<PathBuf>, why: &str| CompileError::File {
        key,
        file: file.clone().unwrap_or_default(),
        why: why.to_owned(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = if words.verify {
        let roots = match ca {
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                let (added, _ignored) = roots.add_parsable_certificates(certificates(pem));
                if added == 0 {
                    return Err(wrong("ca", &words.ca, "no certificate in it"));
                }
                roots
            }
            None => believed(),
        };
        builder.with_root_certificates(roots)
    } else {
        warn!("certificates of targets are not verified (tls.verify: false)");
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    };
    let mut config = match (cert, key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert);
            if chain.is_empty() {
                return Err(wrong("cert", &words.cert, "no certificate in it"));
            }
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|error| wrong("key", &words.key, &format!("no key in it: {error}")))?;
            let config = builder.with_client_auth_cert(chain, key);
            config.map_err(|error| wrong("key", &words.key, &error.to_string()))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

impl Client {
    /// `host` is the target's, whose name its certificate must have unless the words say another.
    pub fn new(settings: Arc<Settings>, host: &str) -> Result<Self, CompileError> {
        let name = settings.words.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_error| {
            rustls::Error::General(format!("{name:?} is no name that a certificate can have"))
        })?;
        Ok(Self { settings, name })
    }

    pub async fn greet(&self, stream: TcpStream) -> io::Result<Secured> {
        let connector = TlsConnector::from(Arc::clone(&self.settings.config));
        connector.connect(self.name.clone(), stream).await
    }
}

/// True if the two do not understand or believe each other; the target itself is there.
pub fn is_distrust(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>())
}

/// Believes whoever answers; that it has the key of what it shows is checked all the same.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
