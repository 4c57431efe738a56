//! The handshake, with a deadline, and what it tells about the peer.

mod certs;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::server::ProducesTickets;
use rustls::{ProtocolVersion, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use certs::{CertificateError, Certificates};

use crate::config;
use crate::exchange::TlsFacts;

/// Session ticket keys: one set for all workers and every generation of the configuration.
pub struct Tickets(Arc<dyn ProducesTickets>);

impl Tickets {
    pub fn new() -> Result<Self, TlsError> {
        Ok(Self(aws_lc_rs::Ticketer::new()?))
    }
}

/// Ends TLS with the certificates of one snapshot.
#[derive(Clone)]
pub struct Acceptor {
    acceptor: TlsAcceptor,
    deadline: Duration,
}

/// The TLS library refused what was asked of it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TlsError(#[from] rustls::Error);

/// Why a handshake came to nothing. A client's business, logged at debug.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("no handshake within {0:?}")]
    Deadline(Duration),
    #[error("the handshake failed")]
    Failed(#[source] io::Error),
}

impl Acceptor {
    /// With these certificates; the first of them answers a client that names no host.
    pub fn compile(
        words: &config::Tls,
        deadline: Duration,
        certificates: Certificates,
        tickets: &Tickets,
    ) -> Result<Self, TlsError> {
        let versions: &[&rustls::SupportedProtocolVersion] = match words.min {
            config::TlsVersion::V12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            config::TlsVersion::V13 => &[&rustls::version::TLS13],
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certificates));
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        server.ticketer = Arc::clone(&tickets.0);
        server.send_tls13_tickets = 2;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(server)), deadline })
    }

    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, TlsFacts), HandshakeError> {
        let handshake = Box::pin(self.acceptor.accept(stream));
        let done = timeout(self.deadline, handshake).await;
        let stream = done
            .map_err(|_elapsed| HandshakeError::Deadline(self.deadline))?
            .map_err(HandshakeError::Failed)?;
        let (_, session) = stream.get_ref();
        let facts = TlsFacts {
            version: match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            http2: session.alpn_protocol() == Some(b"h2"),
        };
        Ok((stream, facts))
    }
}
