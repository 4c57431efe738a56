//! Interim responses on their way to a client that waits for its answer (RFC 9110 §15.2).

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderMap, StatusCode};

use super::headers;

/// Bytes that wait for a connection at most. Full: the next one is lost, as each of them may be.
const BYTES_MAX: usize = 16 * 1024;

/// Interim responses of one HTTP/1.1 connection that are to go out before the next answer.
///
/// Goes with a request's body to whoever may have some. HTTP/2 connections have none:
/// the server beneath has no way to send them.
#[derive(Debug, Clone, Default)]
pub struct Interims(Arc<Mutex<Vec<u8>>>);

impl Interims {
    /// Queues one. A 100 is the connection's own word, and a 101 is no interim one.
    pub fn pass(&self, status: StatusCode, mut fields: HeaderMap) {
        let own = [StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS];
        if !status.is_informational() || own.contains(&status) {
            return;
        }
        headers::strip_hop_by_hop(&mut fields);
        fields.remove(CONTENT_LENGTH);
        fields.remove(TRAILER);
        let mut head = Vec::with_capacity(128);
        // Writing to a Vec cannot fail.
        let _written = write!(head, "HTTP/1.1 {status}\r\n");
        for (name, value) in &fields {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
        head.extend_from_slice(b"\r\n");
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() + head.len() <= BYTES_MAX {
            waiting.append(&mut head);
        }
    }

    /// What waits, to be written now.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The answer is here: what has not gone out is late.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn hints_are_written_without_what_belongs_to_their_hop() {
        let interims = Interims::default();
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("link", "</a.css>; rel=preload"),
            ("keep-alive", "timeout=5"),
            ("content-length", "3"),
        ] {
            fields.insert(name, HeaderValue::from_static(value));
        }
        interims.pass(StatusCode::CONTINUE, fields.clone());
        interims.pass(StatusCode::OK, fields.clone());
        interims.pass(StatusCode::EARLY_HINTS, fields);
        let text = String::from_utf8(interims.take()).expect("text");
        assert_eq!(text, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
        assert!(interims.take().is_empty());
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let interims = Interims::default();
        for _ in 0..10_000 {
            interims.pass(StatusCode::PROCESSING, HeaderMap::new());
        }
        assert!(interims.take().len() <= BYTES_MAX);
    }
}
