//! TLS to a Redis: whose certificates are believed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub struct Trust(TlsConnector);

/// Why nobody could be believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("hub.redis.ca: {file}: no certificates in it: {why}")]
    File { file: PathBuf, why: String },
    #[error("hub.redis: none of the places where systems keep certificates has any; write ca")]
    NoSystem,
    #[error("hub.redis: {0}")]
    Tls(#[from] rustls::Error),
}

/// Where systems keep the certificates that they believe.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

impl Trust {
    /// In those of the file, or in the system's.
    pub fn read(file: Option<&Path>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        match file {
            Some(file) => {
                let wrong = |why: String| TrustError::File { file: file.to_owned(), why };
                let read = certificates(file).map_err(|error| wrong(error.to_string()))?;
                if roots.add_parsable_certificates(read).0 == 0 {
                    return Err(wrong("it is empty".to_owned()));
                }
            }
            None => {
                let found = SYSTEM.iter().find_map(|place| certificates(Path::new(place)).ok());
                roots.add_parsable_certificates(found.unwrap_or_default());
                if roots.is_empty() {
                    return Err(TrustError::NoSystem);
                }
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub async fn greet(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.0.connect(name, stream).await
    }
}

fn certificates(
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_file_iter(file)?.collect()
}
