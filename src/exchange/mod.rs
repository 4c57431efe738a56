//! The words that every layer shares: a request, its response, who sent it, what went wrong.

mod body;
mod challenges;
mod fault;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod headers;
mod peer;
pub mod query;
mod rules;
mod socket;
mod stream;

pub use body::{Body, BodyError};
pub use challenges::Challenges;
pub use fault::{Fault, Side};
pub use peer::{Client, Peer, Scheme, TlsFacts};
pub use rules::HeaderRules;
pub use socket::{Asks, Detached, Guard, Socket};
pub use stream::{Stream, Watched, take_back};

pub type Request = http::Request<Body>;
pub type Response = http::Response<Body>;
