//! One request to an ACME server at a time, over HTTPS.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::tls::TlsError;
use crate::tls::certs::authorities;

/// From the first packet to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// A chain of certificates has some kilobytes.
const ANSWER_MAX: usize = 1 << 20;

/// Believes the public authorities, or those of one file alone.
pub struct Client(TlsConnector);

impl Client {
    pub fn new(ca: Option<&Path>) -> Result<Self, TlsError> {
        let roots = match ca {
            Some(file) => authorities(file)?,
            None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect::<RootCertStore>(),
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut words = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A session belongs to a server, and here it would be taken for all of one name.
        words.resumption = Resumption::disabled();
        Ok(Self(TlsConnector::from(Arc::new(words))))
    }
}

type Answer = Result<BytesResponse, Error>;

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        let connector = self.0.clone();
        Box::pin(async move {
            let asked = timeout(DEADLINE, ask(connector, request)).await;
            asked.unwrap_or(Err(Error::Str("an answer in time")))
        })
    }
}

async fn ask(connector: TlsConnector, mut request: Request<BodyWrapper<Bytes>>) -> Answer {
    let uri = request.uri().clone();
    if uri.scheme_str() != Some("https") {
        return Err(Error::Str("an https URL"));
    }
    let host = uri.host().ok_or(Error::Str("a host in the URL"))?.trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(443);
    let stream = TcpStream::connect((host, port)).await.map_err(other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(other)?;
    let stream = connector.connect(name, stream).await.map_err(other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let host = HeaderValue::from_str(authority).map_err(other)?;
    request.headers_mut().insert(header::HOST, host);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>().map_err(other)?;
    let asking = async {
        let (parts, body) = sender.send_request(request).await.map_err(other)?.into_parts();
        Ok(BytesResponse { parts, body: Box::new(collect(body).await?) })
    };
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        // Polled so that bytes move; when it is over, what came is all there is.
        _ended = connection => asking.await,
    }
}

async fn collect(mut body: Incoming) -> Result<Bytes, Error> {
    let mut all = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(other)?;
        all.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if all.len() > ANSWER_MAX {
            return Err(Error::Str("an answer of a reasonable size"));
        }
    }
    Ok(Bytes::from(all))
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}
