//! HTTP/1.1 towards a target: requests to bytes, bytes to responses, strictly; pure.
//!
//! One table says what frames a body, in `response::framing`; whatever is ambiguous is refused.

mod chunked;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod request;
mod response;

pub use chunked::{Chunked, Decoded};
pub use request::{encode_head, encode_trailers};
pub use response::{Head, HeadReader, Names};

/// What says where a body ends (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    Length(u64),
    Chunked,
    /// The end of the connection.
    Close,
}

/// Why the bytes of a target are not a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    #[error("the head is malformed: {0}")]
    Head(httparse::Error),
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    #[error("the head is larger than {max} bytes")]
    HeadTooLarge { max: usize },
    #[error("Content-Length is not one number")]
    Length,
    #[error("Transfer-Encoding is not chunked alone")]
    Coding,
    #[error("Content-Length and Transfer-Encoding together")]
    TwoFramings,
    #[error("a chunk's size is malformed")]
    ChunkSize,
    #[error("a chunk does not end where it says")]
    ChunkEnd,
    #[error("the trailers are malformed or too large")]
    Trailers,
    #[error("it switches protocols without being asked to")]
    Switched,
}

impl BadResponse {
    /// Why, as one constant.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Head(_) => "head",
            Self::BareLineFeed => "bare line feed",
            Self::HeadTooLarge { .. } => "head too large",
            Self::Length => "content-length",
            Self::Coding => "transfer-encoding",
            Self::TwoFramings => "two framings",
            Self::ChunkSize => "chunk size",
            Self::ChunkEnd => "chunk end",
            Self::Trailers => "trailers",
            Self::Switched => "unasked switch of protocols",
        }
    }
}
