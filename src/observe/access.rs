//! One line per exchange, also when it fails.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use tokio::time::Instant;

use super::format::{Format, Noted};
use super::metrics::{self, Series};
use super::trace::{Context, Kind, Share, Span, Value};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

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
    /// What an upstream had of it.
    pub sent: Sent,
    /// Set when the response's last byte was handed over.
    pub complete: bool,
    /// `None`: there is no line.
    line: Option<(Arc<Format>, Noted)>,
    /// `None`: it is no part of a trace that is kept.
    span: Option<Box<Traced>>,
}

/// What became of the request that an upstream was sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// There is a line that says so.
    is_told: bool,
    /// The target that was asked last.
    pub target: Option<Arc<str>>,
    /// How often one was asked.
    pub tries: u32,
    /// Until its answer's head was here, with all tries, and all that it waited for a target.
    pub took: Option<Duration>,
}

impl Sent {
    /// The clock, if anybody wants to know.
    pub fn begin(&self) -> Option<Instant> {
        self.is_told.then(Instant::now)
    }

    /// A target is asked.
    pub fn asks(&mut self, target: &Arc<str>) {
        if self.is_told {
            self.target = Some(Arc::clone(target));
            self.tries = self.tries.saturating_add(1);
        }
    }

    pub fn answered(&mut self, began: Option<Instant>) {
        self.took = began.map(|began| began.elapsed());
    }
}

/// The span of one exchange.
struct Traced {
    context: Context,
    parent: Option<u64>,
    began: SystemTime,
    host: String,
    path: String,
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
            sent: Sent::default(),
            complete: false,
            line: None,
            span: None,
        }
    }

    /// Makes it a span of the trace that the request comes with, or of a new one; what is asked on
    /// its behalf is below it. A trace that is not kept is left as it came.
    pub fn trace(&mut self, share: Share, uri: &Uri, fields: &mut HeaderMap) {
        let came = fields.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let came = came.and_then(Context::read);
        let context = came.map_or_else(|| Context::begin(share), |came| came.below(share));
        if !context.is_sampled {
            return;
        }
        if let Ok(value) = HeaderValue::try_from(context.write()) {
            fields.insert(TRACEPARENT, value);
        }
        self.span = Some(Box::new(Traced {
            context,
            parent: came.map(|came| came.span),
            began: SystemTime::now(),
            host: String::new(),
            path: uri.path().to_owned(),
        }));
    }

    /// Has a line of this shape written in the end; `uri` and `fields` are the request's.
    pub fn log(&mut self, format: &Arc<Format>, uri: &Uri, fields: &HeaderMap) {
        uri.path().clone_into(&mut self.path);
        self.sent.is_told = true;
        self.line = Some((Arc::clone(format), format.note(uri.query(), fields)));
    }

    /// The trace that it is a span of, if that is kept.
    pub fn traced(&self) -> Option<u128> {
        self.span.as_ref().map(|span| span.context.trace)
    }

    /// Whom the request is for, as far as it is believed, and whom it comes from.
    pub fn meet(&mut self, host: &str, client: IpAddr) {
        self.client = Some(client);
        if self.line.is_some() {
            host.clone_into(&mut self.host);
        }
        if let Some(span) = &mut self.span {
            host.clone_into(&mut span.host);
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
        if let Some(span) = self.span.take() {
            self.told(*span, status, took).send();
        }
    }
}

impl Access {
    /// By the names of OpenTelemetry's conventions for HTTP servers.
    fn told(&self, traced: Traced, status: u16, took: Duration) -> Span {
        let Traced { context, parent, began, host, path } = traced;
        let text = |text: &str| Value::Text(text.to_owned());
        let version = match self.version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
        let mut attributes = vec![
            ("http.request.method", text(self.method.as_str())),
            ("url.scheme", text(if self.tls.is_some() { "https" } else { "http" })),
            ("server.address", Value::Text(host)),
            ("url.path", Value::Text(path)),
            ("network.protocol.version", text(version)),
            ("http.response.status_code", Value::Number(status.into())),
            (
                "http.response.body.size",
                Value::Number(i64::try_from(self.bytes).unwrap_or(i64::MAX)),
            ),
        ];
        let route = self.route.as_ref().map(|route| route.name.as_str());
        attributes.extend(route.map(|route| ("http.route", text(route))));
        attributes.extend(self.client.map(|client| ("client.address", text(&client.to_string()))));
        attributes.extend(self.reason.map(|reason| ("error.type", text(reason))));
        // What a client did wrong is no error of the server's span.
        let error = self.reason.filter(|_| status >= 500).map(str::to_owned);
        let name = [self.method.as_str(), route.unwrap_or("edge")].join(" ");
        let kind = Kind::Server;
        Span { name, kind, context, parent, link: None, began, took, attributes, error }
    }
}
