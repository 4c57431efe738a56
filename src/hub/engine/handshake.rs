//! What is remembered of the request that opened a session, for those who ask about it later.

use std::cell::RefCell;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, ORIGIN};

use crate::auth::Credentials;
use crate::exchange::Client;
use crate::observe::trace::Context;

/// Kept only where `Settings::remember` names what of it; small, since a session may be idle long.
#[derive(Debug)]
pub struct Handshake {
    pub client: Client,
    pub issued: SystemTime,
    /// Path and query as they came, the engine's own keys too.
    pub url: Box<str>,
    /// A page's script opened it, which tells where it is from.
    pub has_origin: bool,
    pub headers: Box<[(HeaderName, HeaderValue)]>,
    /// The span that it is, of a trace that is kept.
    pub trace: Option<Context>,
    /// What may say who the client is; the last that was shown and taken for the same.
    credentials: RefCell<Credentials>,
    /// Which of the engine's wants these were: see `Session::has_shown_all`.
    pub wants: u32,
}

impl Handshake {
    pub fn of(
        client: &Client,
        url: &str,
        fields: &HeaderMap,
        remember: &[HeaderName],
        (credentials, wants): (Credentials, u32),
    ) -> Self {
        let named = |name: &HeaderName| {
            fields.get_all(name).iter().map(|value| (name.clone(), copy(value))).collect()
        };
        Self {
            client: client.clone(),
            issued: SystemTime::now(),
            url: url.into(),
            has_origin: fields.contains_key(ORIGIN),
            trace: fields
                .get("traceparent")
                .and_then(|value| Context::read(value.to_str().ok()?))
                .filter(|context| context.is_sampled),
            credentials: RefCell::new(credentials),
            wants,
            headers: remember
                .iter()
                .flat_map(|name: &HeaderName| -> Vec<_> { named(name) })
                .collect(),
        }
    }

    /// Bytes that it keeps in memory, roughly.
    pub fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        self.url.len() + self.client.host.len() + headers.sum::<usize>()
    }
}

impl Handshake {
    pub fn query(&self) -> &str {
        self.url.split_once('?').map_or("", |(_, query)| query)
    }

    pub fn credentials(&self) -> Credentials {
        self.credentials.borrow().clone()
    }

    pub fn with_credentials<T>(&self, read: impl FnOnce(&Credentials) -> T) -> T {
        read(&self.credentials.borrow())
    }

    pub fn digest(&self) -> [u8; 32] {
        self.credentials.borrow().digest()
    }

    /// From now on these count.
    pub fn renew(&self, credentials: &Credentials) {
        self.credentials.borrow_mut().clone_from(credentials);
    }
}

/// A value that does not hold the whole head of its request in memory.
fn copy(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| HeaderValue::from_static(""))
}
