//! The words that every layer shares: a request, its response, who sent it, what went wrong.

mod body;
mod bridge;
mod challenges;
pub mod cookies;
mod fault;
mod frames;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gathered;
pub mod headers;
mod interim;
mod lingering;
mod peer;
pub mod query;
mod requests;
mod rules;
mod signs;
mod socket;
mod stream;
pub mod websocket;

pub use body::{Body, BodyError};
pub use challenges::Challenges;
pub use fault::{Fault, Side};
pub use gathered::Gathered;
pub use interim::Interims;
pub use peer::{Client, Peer, Scheme, TlsFacts};
pub use rules::HeaderRules;
pub use signs::{Cut, Signs};
pub use socket::{Asks, Detached, Guard, Socket};
pub use stream::{Left, Near, Stream, Taken, Taking, Watched, take_back, taking};

pub type Request = http::Request<Body>;
pub type Response = http::Response<Body>;
