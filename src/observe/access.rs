//! One JSON line per exchange, also when it fails.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::{Method, Version};
use serde::Serialize;
use tokio::time::Instant;

use super::lines;
use super::metrics::{self, Series};

/// What one exchange comes to; counted and written when it is dropped.
///
/// The path stands without its query, which may carry secrets.
pub struct Access {
    started: Instant,
    pub client: Option<IpAddr>,
    pub method: Method,
    pub host: String,
    pub path: String,
    pub version: Version,
    pub tls: Option<&'static str>,
    pub agent: Option<String>,
    /// `None` until the response's head is known.
    pub status: Option<u16>,
    pub bytes: u64,
    pub reason: Option<&'static str>,
    pub route: Option<Arc<RouteCount>>,
    /// Set when the response's last byte was handed over.
    pub complete: bool,
    pub log: bool,
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

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    client: Option<IpAddr>,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'static str>,
    status: u16,
    bytes: u64,
    ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
}

impl Access {
    pub fn begin(method: Method, path: String, version: Version) -> Self {
        Self {
            started: Instant::now(),
            client: None,
            method,
            host: String::new(),
            path,
            version,
            tls: None,
            agent: None,
            status: None,
            bytes: 0,
            reason: None,
            route: None,
            complete: false,
            log: true,
        }
    }

    fn write(&self, status: u16, took: Duration) {
        let line = Line {
            time: lines::time(SystemTime::now() - took),
            client: self.client,
            method: self.method.as_str(),
            host: &self.host,
            path: &self.path,
            protocol: match self.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            tls: self.tls,
            status,
            bytes: self.bytes,
            ms: (took.as_secs_f64() * 1e6).round() / 1e3,
            route: self.route.as_ref().map(|route| route.name.as_str()),
            reason: self.reason,
            agent: self.agent.as_deref(),
        };
        lines::write(&line);
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
        if self.log && WRITING.load(Ordering::Relaxed) {
            self.write(status, took);
        }
    }
}

/// False while lines would go nowhere.
static WRITING: AtomicBool = AtomicBool::new(false);

/// Whether exchanges have lines at all.
pub fn set_wanted(wanted: bool) {
    WRITING.store(wanted, Ordering::Relaxed);
}
