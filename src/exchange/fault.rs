//! Why the edge answered instead of a handler: status, whose side it was, one stable word.

use http::{HeaderValue, StatusCode, header};

use super::{Body, Response};

/// An answer of the edge's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub status: u16,
    pub side: Side,
    /// One stable word: the access line's field, the metric's label, the page's second line.
    pub reason: &'static str,
    /// Seconds after which it may be tried again, if that is known.
    pub wait: u16,
}

/// Who made the exchange fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Upstream,
    Edge,
}

impl Fault {
    pub const NO_SITE: Self = Self::new(421, Side::Client, "no_site");
    /// RFC 9110 §15.5.20: the connection was made for another site.
    pub const MISDIRECTED: Self = Self::new(421, Side::Client, "misdirected");
    pub const NO_ROUTE: Self = Self::new(404, Side::Client, "no_route");
    pub const PRIVATE: Self = Self::new(404, Side::Client, "private");
    pub const NO_HOST: Self = Self::new(400, Side::Client, "bad_host");
    /// What a trusted peer passes on can be read in two ways.
    pub const BAD_FORWARDED: Self = Self::new(400, Side::Client, "bad_forwarded");
    pub const BAD_TARGET: Self = Self::new(400, Side::Client, "bad_target");
    pub const BAD_PATH: Self = Self::new(400, Side::Client, "bad_path");
    pub const UPGRADE_REFUSED: Self = Self::new(426, Side::Client, "upgrade_refused");
    /// RFC 5842 §7.2, for an upstream that leads back here.
    pub const LOOP: Self = Self::new(508, Side::Edge, "loop");
    pub const BODY_TOO_LARGE: Self = Self::new(413, Side::Client, "body_too_large");

    pub const fn new(status: u16, side: Side, reason: &'static str) -> Self {
        Self { status, side, reason, wait: 0 }
    }

    /// It may be tried again after so many seconds.
    pub const fn after(self, wait: u16) -> Self {
        Self { wait, ..self }
    }

    /// A short text page: status and reason. Never cached; 503 says when to come back.
    pub fn response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::new(Body::from(format!("{status}\n{}\n", self.reason)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.status {
            // RFC 9110 §15.5.22: what it would have to be.
            426 => super::headers::set_upgrade(headers, "websocket"),
            // RFC 9110 §15.5.2: what would let it in, where nobody says better. Browsers ask nothing.
            401 => {
                drop(headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
            }
            _ => (),
        }
        if self.wait > 0 || self.status == 503 {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(self.wait.max(1)));
        }
        response
    }
}
