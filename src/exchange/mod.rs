//! The words that every layer shares: a request, its response, who sent it, what went wrong.

mod body;
mod fault;
pub mod headers;
mod peer;
mod stream;

pub use body::{Body, BodyError};
pub use fault::{Fault, Side};
pub use peer::{Client, Peer, Scheme, TlsFacts};
pub use stream::Stream;

pub type Request = http::Request<Body>;
pub type Response = http::Response<Body>;

/// Resolves to `None` when `future` is not done within `limit`.
pub async fn deadline<F: Future>(limit: std::time::Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}
