//! TLS to a Redis: whose certificates are believed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::outside::{believed, certificates};

pub struct Trust(TlsConnector);

/// Why nobody could be believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("hub.redis.ca: {file}: no certificates in it: {why}")]
    File { file: PathBuf, why: String },
    #[error("hub.redis: {0}")]
    Tls(#[from] rustls::Error),
}

impl Trust {
    /// In those of the file, or in the system's.
    pub fn read(file: Option<&Path>) -> Result<Self, TrustError> {
        let roots = match file {
            Some(file) => {
                let wrong = |why: String| TrustError::File { file: file.to_owned(), why };
                let read = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
                let mut roots = RootCertStore::empty();
                if roots.add_parsable_certificates(certificates(&read)).0 == 0 {
                    return Err(wrong("there is none".to_owned()));
                }
                roots
            }
            None => believed(),
        };
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
