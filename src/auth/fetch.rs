//! A small document from another server, over HTTPS.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{StatusCode, Uri};
use http_body::Body as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// It could not be had; why is in the log of whoever asked.
#[derive(Debug)]
pub struct Unfetched;

const DEADLINE: Duration = Duration::from_secs(2);
const BYTES_MAX: usize = 256 << 10;

/// The document at `url`: 200 and no redirect, or nothing.
pub async fn get(url: &str) -> Result<Vec<u8>, Unfetched> {
    timeout(DEADLINE, Box::pin(fetch(url))).await.map_err(|_elapsed| Unfetched)?
}

async fn fetch(url: &str) -> Result<Vec<u8>, Unfetched> {
    let uri: Uri = url.parse().map_err(|_error| Unfetched)?;
    let host = uri.host().ok_or(Unfetched)?.trim_matches(['[', ']']).to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|_error| Unfetched)?;
    if !secure {
        return exchange(stream, &uri).await;
    }
    let name = ServerName::try_from(host).map_err(|_error| Unfetched)?;
    let stream = connector().connect(name, stream).await.map_err(|_error| Unfetched)?;
    exchange(stream, &uri).await
}

fn connector() -> TlsConnector {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    });
    TlsConnector::from(Arc::clone(config))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    uri: &Uri,
) -> Result<Vec<u8>, Unfetched> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|_error| Unfetched)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let mut request = http::Request::new(crate::exchange::Body::empty());
    *request.uri_mut() = path.parse().map_err(|_error| Unfetched)?;
    let fields = request.headers_mut();
    fields.insert(header::HOST, HeaderValue::from_str(host).map_err(|_error| Unfetched)?);
    fields.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let asking = async {
        let response = sender.send_request(request).await.map_err(|_error| Unfetched)?;
        if response.status() != StatusCode::OK {
            return Err(Unfetched);
        }
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(frame) =
            std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
        {
            let frame = frame.map_err(|_error| Unfetched)?;
            bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if bytes.len() > BYTES_MAX {
                return Err(Unfetched);
            }
        }
        Ok(bytes)
    };
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        // Polled so that bytes move; when it is over, what came is all there is.
        _ended = connection => asking.await,
    }
}
