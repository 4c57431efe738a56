//! One request to an ACME server at a time, over HTTPS.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio::time::timeout;

use crate::outside::{Way, believed};
use crate::tls::TlsError;
use crate::tls::certs::authorities;

/// From the first packet to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// A chain of certificates has some kilobytes.
const ANSWER_MAX: usize = 1 << 20;

/// Believes those whom the system does, or those of one file alone.
pub struct Client(Way);

impl Client {
    pub fn new(ca: Option<&Path>) -> Result<Self, TlsError> {
        let roots = ca.map(authorities).transpose()?;
        Ok(Self(Way::believing(roots.unwrap_or_else(believed))?))
    }
}

type Answer = Result<BytesResponse, Error>;

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        let way = self.0.clone();
        Box::pin(async move {
            if request.uri().scheme_str() != Some("https") {
                return Err(Error::Str("an https URL"));
            }
            let asked = timeout(DEADLINE, way.ask(request, ANSWER_MAX)).await;
            let (parts, body) = asked
                .map_err(|_elapsed| Error::Str("an answer in time"))?
                .map_err(|error| Error::Other(Box::new(error)))?
                .into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}
