//! Sends spans to the collector (OTLP over HTTP, in JSON), on the main thread.
//!
//! What the collector does not take is tried again for a while; meanwhile spans wait, and when too
//! many do, new ones are dropped and counted. Nobody else waits for it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use crate::config::{self, Balance, Health, Keep, Timeouts, Traces, UpstreamTls};
use crate::drain::Drain;
use crate::exchange::{Body, Request};
use crate::observe::trace::{Context, Item, Share, Span};
use crate::observe::{metrics, otlp};
use crate::snapshot::Current;
use crate::upstream::{Pools, Registry, Upstream};

/// Spans of one request.
const BATCH: usize = 512;
/// How long a span may wait for company.
const GATHER: Duration = Duration::from_secs(1);
/// For one request.
const DEADLINE: Duration = Duration::from_secs(5);
/// Before the first repetition; doubled for each that follows. After the last, spans are lost.
const PAUSE: Duration = Duration::from_millis(500);
const TRIES: u32 = 4;
/// Bytes of an answer that are read.
const ANSWER_MAX: usize = 64 << 10;
/// Between two looks at the collector.
const WATCH: Duration = Duration::from_secs(10);

/// Takes what workers say for as long as the process lives.
pub async fn export(
    current: Current,
    registry: Arc<Registry>,
    mut items: mpsc::Receiver<Item>,
    drain: Drain,
) {
    let exporter = Exporter {
        pools: Pools::new(&drain),
        registry,
        instance: format!("{:016x}", Context::begin(Share(0)).span),
        drain,
    };
    let mut way: Option<Way> = None;
    let mut is_well = true;
    loop {
        let mut settled = Vec::new();
        let batch = gather(&mut items, &mut settled).await;
        let words = current.load().config().traces.clone();
        let is_same = match (&way, &words) {
            (Some(way), Some(words)) => way.words.is_same(words),
            (way, words) => way.is_none() && words.is_none(),
        };
        if !is_same {
            way = words.and_then(|words| exporter.way(words));
        }
        if !batch.is_empty() {
            let sent = match &way {
                Some(way) => exporter.send(way, &batch).await,
                None => Err("there is no collector any more".to_owned()),
            };
            let outcome = if sent.is_ok() { "exported" } else { "lost" };
            let series = metrics::series(&metrics::TRACE_SPANS, &[outcome]);
            series.add(i64::try_from(batch.len()).unwrap_or(i64::MAX));
            match sent {
                Ok(()) if !is_well => info!("the collector takes traces again"),
                Err(reason) if is_well => warn!(reason, "the collector takes no traces"),
                _ => (),
            }
            is_well = outcome == "exported";
        }
        for settled in settled {
            // Whoever asked may have stopped waiting.
            let _told = settled.send(());
        }
    }
}

/// What comes within a moment; at once if somebody waits for it.
async fn gather(
    items: &mut mpsc::Receiver<Item>,
    settled: &mut Vec<tokio::sync::oneshot::Sender<()>>,
) -> Vec<Span> {
    let mut batch = Vec::new();
    let mut until = None;
    while batch.len() < BATCH {
        let next = match until {
            None => items.recv().await,
            // Lost with a drop: nothing, what comes stays in the queue.
            Some(until) => timeout_at(until, items.recv()).await.unwrap_or_default(),
        };
        match next {
            Some(Item::Span(span)) => batch.push(*span),
            Some(Item::Settled(done)) => {
                settled.push(done);
                return batch;
            }
            None => return batch,
        }
        until = until.or_else(|| Some(Instant::now() + GATHER));
    }
    batch
}

struct Exporter {
    pools: Rc<Pools>,
    registry: Arc<Registry>,
    /// This process among those of its name.
    instance: String,
    drain: Drain,
}

/// One collector.
struct Way {
    words: Traces,
    upstream: Upstream,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Exporter {
    fn way(&self, words: Traces) -> Option<Way> {
        let targets = config::Upstream {
            targets: vec![words.to.clone()],
            balance: Balance::Least,
            health: Health {
                path: None,
                statuses: Vec::new(),
                every: WATCH,
                timeout: DEADLINE,
                rise: 1,
                fall: 1,
            },
            hold: None,
            eject: None,
            slow_start: Duration::ZERO,
            max: None,
            keep: Keep { idle: 1, lasts: Duration::from_secs(4) },
            tls: UpstreamTls::default(),
            head: usize::MAX,
        };
        let timeouts = Timeouts {
            handshake: DEADLINE,
            head: DEADLINE,
            body_idle: DEADLINE,
            idle: DEADLINE,
            connect: DEADLINE,
            first_byte: DEADLINE,
        };
        let upstream = Upstream::compile(&targets, &timeouts, None, &self.registry);
        let upstream = upstream.inspect_err(|error| warn!(%error, "no way to the collector"));
        let header = words.header.as_ref().and_then(|header| {
            let (name, value) = header.expose().split_once(':')?;
            let mut value = HeaderValue::try_from(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name.trim()).ok()?, value))
        });
        Some(Way { upstream: upstream.ok()?, words, header })
    }

    async fn send(&self, way: &Way, batch: &[Span]) -> Result<(), String> {
        let body = otlp::request(batch, &way.words.service, &self.instance);
        let mut pause = PAUSE;
        for tried in 1..=TRIES {
            let asked = timeout(DEADLINE, Box::pin(self.ask(way, &body))).await;
            let answer =
                asked.unwrap_or_else(|_elapsed| Err(format!("no answer within {DEADLINE:?}")));
            match answer {
                Ok(status) if status.is_success() => return Ok(()),
                // It will not like them any better (OTLP, "Failures").
                Ok(status) if !is_passing(status) => return Err(format!("it answers {status}")),
                // A process that leaves does not wait.
                answer if tried == TRIES || self.drain.is_leaving() => {
                    let answered = answer.map(|status| format!("it answers {status}"));
                    return Err(answered.unwrap_or_else(|error| error));
                }
                _ => sleep(pause).await,
            }
            pause *= 2;
        }
        Err("it takes none".to_owned())
    }

    async fn ask(&self, way: &Way, body: &str) -> Result<StatusCode, String> {
        let mut request = Request::new(Body::from(body.to_owned()));
        *request.method_mut() = Method::POST;
        let path = format!("{}/v1/traces", way.words.path);
        *request.uri_mut() = path.parse().map_err(|_error| format!("{path} is no path"))?;
        let fields = request.headers_mut();
        let host = way.words.to.to_string();
        let host = host.split_once("://").map_or("localhost", |(_, host)| host);
        fields.extend(HeaderValue::try_from(host).ok().map(|host| (header::HOST, host)));
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        fields.extend(way.header.clone());
        let sent = way.upstream.send(request, &self.pools).await;
        let response = sent.map_err(|error| error.to_string())?;
        let status = response.status();
        // Read to its end, so that the connection is used again.
        let _answer = response.into_body().read_all(ANSWER_MAX).await;
        Ok(status)
    }
}

/// Those that may be gone the next time.
fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}
