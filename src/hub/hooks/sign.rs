//! What makes a question the hub's own: a signature, an id, a trace.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{hmac, rand};

use crate::config::Secret;

/// `t=UNIXTIME,v1=HEX`: HMAC-SHA256 of `UNIXTIME.BODY`.
pub fn signature(secret: &Secret, body: &[u8]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(now.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    format!("t={now},v1={}", hex(context.sign().as_ref()))
}

/// A random UUID (RFC 9562 §5.4).
pub fn uuid() -> String {
    let mut bytes = random::<16>();
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    let mut text = hex(&bytes);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

/// A new trace (W3C Trace Context §3.2).
pub fn traceparent() -> String {
    format!("00-{}-{}-01", hex(&random::<16>()), hex(&random::<8>()))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The generator is seeded by the kernel at start; there is nothing sensible to do without it.
    rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_traces_have_their_shape() {
        let id = uuid();
        assert_eq!((id.len(), id.get(14..15), id.split('-').count()), (36, Some("4"), 5), "{id}");
        assert_ne!(uuid(), id);
        let trace = traceparent();
        let lengths: Vec<_> = trace.split('-').map(str::len).collect();
        assert_eq!(lengths, [2, 32, 16, 2], "{trace}");
    }
}
