//! Is the process well? For whoever asks on a public listener.

use http::header::{self, HeaderValue};

use crate::exchange::{Body, Fault, Response, Side};

use super::Local;

/// Answered by the edge itself on every public listener.
pub const HEALTH: &str = "/health";

pub fn health(local: &Local) -> Result<Response, Fault> {
    if local.drain.is_leaving() {
        return Err(Fault::new(503, Side::Edge, "draining"));
    }
    let mut response = Response::new(Body::from("ok\n"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
