//! Servers that others run: whose certificates are believed there, and one question to one of them.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::Authority;
use http::{Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where systems keep the certificates that they believe.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Those that the system believes, or browsers where a system has none, as in bare containers.
pub fn believed() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let files = SYSTEM.iter().filter_map(|file| std::fs::read(file).ok());
    let found = files.map(|pem| certificates(&pem)).find(|found| !found.is_empty());
    roots.add_parsable_certificates(found.unwrap_or_default());
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// Those that are certificates; others in the file are passed over.
pub fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error("{0} is no URL of a server")]
    Url(Uri),
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    #[error("no handshake: {0}")]
    Tls(#[source] io::Error),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
}

/// How servers are asked whose certificates come from certain others.
#[derive(Clone)]
pub struct Way(TlsConnector);

impl Way {
    pub fn believing(roots: RootCertStore) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut words = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A session belongs to a server, and here it would be taken for all of one name.
        words.resumption = Resumption::disabled();
        Ok(Self(TlsConnector::from(Arc::new(words))))
    }

    /// Asks the server of the request's URL on a connection of its own, without following redirects.
    ///
    /// An answer of more than `most` bytes is none. There is no deadline: whoever asks has one.
    pub async fn ask<B>(
        &self,
        request: Request<B>,
        most: usize,
    ) -> Result<Response<Bytes>, Unanswered>
    where
        B: Body + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let uri = request.uri().clone();
        let secure = uri.scheme_str() == Some("https");
        let wrong = || Unanswered::Url(uri.clone());
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await;
        let stream = stream.map_err(Unanswered::Connect)?;
        if !secure {
            return exchange(stream, request, &uri, most).await;
        }
        let name = ServerName::try_from(host).map_err(|_error| wrong())?;
        let stream = self.0.connect(name, stream).await.map_err(Unanswered::Tls)?;
        exchange(stream, request, &uri, most).await
    }
}

async fn exchange<B>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    mut request: Request<B>,
    uri: &Uri,
    most: usize,
) -> Result<Response<Bytes>, Unanswered>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let wrong = || Unanswered::Url(uri.clone());
    let host = uri.authority().map(Authority::as_str).unwrap_or_default();
    let host = HeaderValue::from_str(host).map_err(|_error| wrong())?;
    request.headers_mut().insert(header::HOST, host);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_error| wrong())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut asking = pin!(async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(parts, collect(body, most).await?))
    });
    tokio::select! {
        answer = &mut asking => answer,
        // Polled so that bytes move; when it is over, what came is all there is.
        _ended = connection => asking.await,
    }
}

async fn collect(mut body: Incoming, most: usize) -> Result<Bytes, Unanswered> {
    let mut all = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame?;
        all.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if all.len() > most {
            return Err(Unanswered::TooLarge(most));
        }
    }
    Ok(Bytes::from(all))
}
