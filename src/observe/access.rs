//! One line per exchange, also when it fails.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, Uri, Version};
use tokio::time::Instant;

use super::format::{Format, Noted};
use super::metrics::{self, Series};

/// What one exchange comes to; counted and written when it is dropped.
///
/// The path stands without its query, which may carry secrets: what a line has of it is redacted.
pub struct Access {
    started: Instant,
    pub client: Option<IpAddr>,
    pub method: Method,
    /// Empty where there is no line.
    pub host: String,
    pub path: String,
    pub version: Version,
    pub tls: Option<&'static str>,
    /// `None` until the response's head is known.
    pub status: Option<u16>,
    pub bytes: u64,
    pub reason: Option<&'static str>,
    pub route: Option<Arc<RouteCount>>,
    /// Set when the response's last byte was handed over.
    pub complete: bool,
    /// `None`: there is no line.
    line: Option<(Arc<Format>, Noted)>,
}

/// The counters of one route, found once when it is compiled.
#[derive(Debug)]
pub struct RouteCount {
    pub name: String,
    classes: [Arc<Series>; 5],
    seconds: Arc<Series>,
    bytes: Arc<Series>,
}

impl RouteCount {
    pub fn new(name: &str) -> Arc<Self> {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        Arc::new(Self {
            name: name.to_owned(),
            classes: classes.map(|class| metrics::series(&metrics::REQUESTS, &[name, class])),
            seconds: metrics::series(&metrics::REQUEST_SECONDS, &[name]),
            bytes: metrics::series(&metrics::REQUEST_BYTES, &[name]),
        })
    }
}

impl Access {
    pub fn begin(method: Method, version: Version) -> Self {
        Self {
            started: Instant::now(),
            client: None,
            method,
            host: String::new(),
            path: String::new(),
            version,
            tls: None,
            status: None,
            bytes: 0,
            reason: None,
            route: None,
            complete: false,
            line: None,
        }
    }

    /// Has a line of this shape written in the end; `uri` and `fields` are the request's.
    pub fn log(&mut self, format: &Arc<Format>, uri: &Uri, fields: &HeaderMap) {
        uri.path().clone_into(&mut self.path);
        self.line = Some((Arc::clone(format), format.note(uri.query(), fields)));
    }

    /// Whom the request is for, as far as it is believed, and whom it comes from.
    pub fn meet(&mut self, host: &str, client: IpAddr) {
        self.client = Some(client);
        if self.line.is_some() {
            host.clone_into(&mut self.host);
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        // nginx's word for a client that left before the answer.
        let status = self.status.unwrap_or(499);
        if !self.complete && self.reason.is_none() {
            self.reason = Some("aborted");
        }
        if let Some(route) = &self.route {
            let class = usize::from(status / 100).saturating_sub(1);
            if let Some(series) = route.classes.get(class) {
                series.increment();
            }
            route.seconds.observe(took);
            route.bytes.add(i64::try_from(self.bytes).unwrap_or(i64::MAX));
        }
        if let Some((format, noted)) = &self.line {
            format.write(self, noted, status, took);
        }
    }
}
