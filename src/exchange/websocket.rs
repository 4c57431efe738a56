//! The key that a WebSocket's handshake begins with, and the word that it is answered by (RFC 6455).

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

/// A key that nobody had before: a server that answers what it once said cannot know it.
pub fn key() -> HeaderValue {
    let mut bytes = [0; 16];
    // The generator is seeded by the kernel at start.
    rand::fill(&mut bytes).expect("the system gives random bytes");
    HeaderValue::try_from(STANDARD.encode(bytes)).expect("base64 is printable")
}

/// What a server that speaks WebSocket answers to this key (§4.2.2).
pub fn accept(key: &HeaderValue) -> HeaderValue {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(GUID);
    HeaderValue::try_from(STANDARD.encode(context.finish())).expect("base64 is printable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_that_of_the_standard() {
        // RFC 6455 §1.3.
        let sample = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&sample), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let (one, other) = (key(), key());
        assert_eq!((one.len(), one == other), (24, false));
    }
}
