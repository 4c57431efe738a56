//! What an Engine.IO request asks for, and how it is refused; pure.
//!
//! Source: the Engine.IO protocol documents and the error table of Node's engine.io.

use http::{HeaderValue, StatusCode, header};

use crate::exchange::query::decode;
use crate::exchange::{self, Body, Response};

use super::packet::Version;
use super::sid::Id;

/// The query of a request, as far as the engine reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    /// `EIO`; `None` is a protocol nobody speaks.
    pub version: Option<Version>,
    pub transport: Option<Transport>,
    pub id: Option<Result<Id, Refusal>>,
    /// `b64`: the client takes no binary.
    pub base64: bool,
    /// `j`: the answer is a script, for old clients across origins.
    pub jsonp: Option<String>,
    /// Which credentials came with it, where they count; not from the query.
    pub credentials: Option<[u8; 32]>,
}

/// What a request must have in common with the one that opened its session.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    pub version: Option<Version>,
    pub credentials: Option<[u8; 32]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Polling,
    WebSocket,
}

impl Query {
    pub fn shown(&self) -> Shown {
        Shown { version: self.version, credentials: self.credentials }
    }

    pub fn parse(query: &str) -> Self {
        let mut parsed = Self {
            version: None,
            transport: None,
            id: None,
            base64: false,
            jsonp: None,
            credentials: None,
        };
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "EIO" => {
                    parsed.version = match value {
                        "4" => Some(Version::V4),
                        "3" => Some(Version::V3),
                        _ => None,
                    }
                }
                "transport" => {
                    parsed.transport = match value {
                        "polling" => Some(Transport::Polling),
                        "websocket" => Some(Transport::WebSocket),
                        _ => None,
                    }
                }
                "sid" => {
                    let id = Id::parse(&decode(value)).ok_or(Refusal::UnknownSession);
                    parsed.id = Some(id);
                }
                "b64" => parsed.base64 = !matches!(value, "" | "0" | "false"),
                "j" => {
                    let digits = value.bytes().filter(u8::is_ascii_digit);
                    parsed.jsonp = Some(digits.map(char::from).collect());
                }
                _ => (),
            }
        }
        parsed
    }
}

/// Why a request is not served: Node's codes and messages, and the statuses it has none for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    UnknownTransport,
    UnknownSession,
    /// The same to the client: the session is of somebody who showed something else.
    Stranger,
    BadMethod,
    BadRequest,
    Forbidden,
    UnsupportedProtocol,
    /// A request that breaks a session's rules: status 400 without a body, as Node answers.
    Broken,
    /// A body past the largest message.
    TooLarge,
    /// Another worker cannot keep up.
    Busy,
    /// The address has as many sessions as it may.
    TooManySessions,
    /// The address has too many that have come to nothing yet.
    TooManyPending,
    /// The address opens them too fast.
    TooManyHandshakes,
    /// The process has no memory for more.
    Strained,
    /// Nobody can say now who it is; in so many seconds somebody may.
    AuthAway(u8),
}

impl Refusal {
    /// The stable word for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::UnknownTransport => "unknown_transport",
            Self::UnknownSession => "unknown_session",
            Self::Stranger => "another_credential",
            Self::BadMethod => "bad_handshake_method",
            Self::BadRequest => "bad_request",
            Self::Forbidden => "foreign_origin",
            Self::UnsupportedProtocol => "unsupported_protocol",
            Self::Broken => "broken_session",
            Self::TooLarge => "message_too_large",
            Self::Busy => "busy",
            Self::TooManySessions => "sessions_per_address",
            Self::TooManyPending => "pending_per_address",
            Self::TooManyHandshakes => "handshake_rate",
            Self::Strained => "memory",
            Self::AuthAway(_) => "auth_unavailable",
        }
    }

    fn code(self) -> Option<(u8, &'static str)> {
        Some(match self {
            Self::UnknownTransport => (0, "Transport unknown"),
            Self::UnknownSession | Self::Stranger => (1, "Session ID unknown"),
            Self::BadMethod => (2, "Bad handshake method"),
            Self::BadRequest => (3, "Bad request"),
            Self::Forbidden => (4, "Forbidden"),
            Self::UnsupportedProtocol => (5, "Unsupported protocol version"),
            _ => return None,
        })
    }

    /// The same to who asked for a WebSocket, as Node says it there: the bare message, and the end of
    /// the connection.
    pub fn aborted(self) -> Response {
        let mut response = self.response();
        let Some((_, message)) = self.code() else { return response };
        *response.body_mut() = Body::from(message);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        exchange::headers::set_close(headers);
        response
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy | Self::Strained | Self::AuthAway(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooManySessions | Self::TooManyPending | Self::TooManyHandshakes => {
                StatusCode::TOO_MANY_REQUESTS
            }
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn retry_after(self) -> Option<u16> {
        match self {
            Self::Busy | Self::TooManyHandshakes => Some(1),
            Self::AuthAway(seconds) => Some(seconds.into()),
            Self::TooManySessions | Self::TooManyPending | Self::Strained => Some(10),
            _ => None,
        }
    }

    pub fn response(self) -> Response {
        let mut response = match self.code() {
            None => Response::new(Body::empty()),
            Some((code, message)) => {
                let body = format!(r#"{{"code":{code},"message":"{message}"}}"#);
                let mut response = Response::new(Body::from(body));
                let kind = HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
        };
        *response.status_mut() = self.status();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_clients_write_them() {
        let id = Id::random();
        let query = Query::parse(&format!("EIO=4&transport=polling&t=abc&sid={id}"));
        assert_eq!((query.version, query.transport), (Some(Version::V4), Some(Transport::Polling)));
        assert_eq!(query.id, Some(Ok(id)));
        let query = Query::parse("EIO=3&transport=websocket&b64=1&j=0");
        assert_eq!(
            (query.version, query.transport),
            (Some(Version::V3), Some(Transport::WebSocket))
        );
        assert!(query.base64);
        assert_eq!(query.jsonp.as_deref(), Some("0"));
        let query = Query::parse("EIO=abc&transport=&sid=%2e%2e");
        assert_eq!((query.version, query.transport), (None, None));
        assert_eq!(query.id, Some(Err(Refusal::UnknownSession)));
    }
}
