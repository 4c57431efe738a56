//! Every metric: its name, its labels, its help; counted per worker, added up when asked.
//!
//! A label is an enum's word or a name from the configuration, never a client's value.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// One family as `GET /metrics` shows it.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    /// In seconds; the upper bounds are `BOUNDS`.
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Upper bounds of a duration's buckets, in microseconds.
const BOUNDS: [u64; 12] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000,
];

/// Workers beyond this share a slot: still right, only slower.
const SLOTS: usize = 64;

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(0) };
}

/// Gives this thread a slot of its own; slot 0 is the main thread's.
pub fn enter_worker(worker: usize) {
    SLOT.set((worker + 1) % SLOTS);
}

/// One line, or one histogram, of a family. Adding to it touches only this worker's memory.
#[derive(Debug)]
pub struct Series {
    slots: Box<[Slot]>,
}

/// On cache lines of its own, so that workers do not slow each other.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot {
    value: AtomicI64,
    buckets: [AtomicI64; BOUNDS.len()],
    micros: AtomicI64,
}

impl Series {
    fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Slot::default()).collect() }
    }

    fn slot(&self) -> &Slot {
        self.slots.get(SLOT.get()).expect("a slot number is below SLOTS")
    }

    pub fn add(&self, amount: i64) {
        self.slot().value.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn increment(&self) {
        self.add(1);
    }

    pub fn decrement(&self) {
        self.add(-1);
    }

    /// Counts one duration of a histogram.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let slot = self.slot();
        let bucket = BOUNDS.iter().zip(&slot.buckets).find(|(bound, _)| micros <= **bound);
        if let Some((_, bucket)) = bucket {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        slot.value.fetch_add(1, Ordering::Relaxed);
        slot.micros.fetch_add(i64::try_from(micros).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// For a gauge that one thread alone sets.
    pub fn set(&self, value: i64) {
        self.slot().value.store(value, Ordering::Relaxed);
    }

    /// The sum over all workers.
    pub fn value(&self) -> i64 {
        self.slots.iter().map(|slot| slot.value.load(Ordering::Relaxed)).sum()
    }

    fn render(&self, metric: &Metric, labels: &[String], page: &mut String) {
        if metric.kind != Kind::Histogram {
            line(page, metric.name, "", metric.labels, labels, None, &self.value().to_string());
            return;
        }
        let mut below = 0;
        for (index, bound) in BOUNDS.iter().enumerate() {
            let loaded = self.slots.iter().filter_map(|slot| slot.buckets.get(index));
            below += loaded.map(|bucket| bucket.load(Ordering::Relaxed)).sum::<i64>();
            let bound = seconds(i64::try_from(*bound).unwrap_or(i64::MAX));
            line(
                page,
                metric.name,
                "_bucket",
                metric.labels,
                labels,
                Some(&bound),
                &below.to_string(),
            );
        }
        let count = self.value().to_string();
        let micros = self.slots.iter().map(|slot| slot.micros.load(Ordering::Relaxed)).sum();
        line(page, metric.name, "_bucket", metric.labels, labels, Some("+Inf"), &count);
        line(page, metric.name, "_sum", metric.labels, labels, None, &seconds(micros));
        line(page, metric.name, "_count", metric.labels, labels, None, &count);
    }
}

fn seconds(micros: i64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn line(
    page: &mut String,
    name: &str,
    suffix: &str,
    keys: &[&str],
    values: &[String],
    le: Option<&str>,
    value: &str,
) {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs = keys.iter().zip(values).map(|(key, value)| (*key, value.as_str()));
    let pairs: Vec<String> = pairs
        .chain(le.map(|bound| ("le", bound)))
        .map(|(key, value)| format!("{key}=\"{}\"", escape(value)))
        .collect();
    page.push_str(name);
    page.push_str(suffix);
    if !pairs.is_empty() {
        page.push('{');
        page.push_str(&pairs.join(","));
        page.push('}');
    }
    // Writing to a String cannot fail.
    let _written = writeln!(page, " {value}");
}

type Key = (&'static str, Vec<String>);

type All = BTreeMap<Key, (&'static Metric, Arc<Series>)>;

static SERIES: LazyLock<Mutex<All>> = LazyLock::new(Mutex::default);

/// The series of `metric` with these label values, made at its first use.
///
/// Takes a lock: find a series once, when a part is compiled, and keep it.
pub fn series(metric: &'static Metric, labels: &[&str]) -> Arc<Series> {
    debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
    let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
    let mut all = SERIES.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = all.entry((metric.name, labels));
    let (_, series) = entry.or_insert_with(|| (metric, Arc::new(Series::new())));
    Arc::clone(series)
}

type Known = (&'static str, &'static str, Arc<Series>);

thread_local! {
    static KNOWN_HERE: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
}

/// Adds one to the series of a family with one label; each worker finds a series once.
pub fn count(metric: &'static Metric, word: &'static str) {
    KNOWN_HERE.with_borrow_mut(|known| {
        let is_it = |(name, label, _): &&Known| *label == word && *name == metric.name;
        match known.iter().find(is_it) {
            Some((_, _, series)) => series.increment(),
            None => {
                let series = series(metric, &[word]);
                series.increment();
                known.push((metric.name, word, series));
            }
        }
    });
}

/// The sum of a family over all its labels.
pub fn total(metric: &Metric) -> i64 {
    let all = SERIES.lock().unwrap_or_else(PoisonError::into_inner);
    let family = all.iter().filter(|((name, _), _)| *name == metric.name);
    family.map(|(_, (_, series))| series.value()).sum()
}

/// The values of a family with one label, by that.
pub fn by_label(metric: &Metric) -> BTreeMap<String, i64> {
    let all = SERIES.lock().unwrap_or_else(PoisonError::into_inner);
    let family = all.iter().filter(|((name, _), _)| *name == metric.name);
    let values = family
        .filter_map(|((_, labels), (_, series))| Some((labels.first()?.clone(), series.value())));
    values.collect()
}

/// Forgets the series of a family with one label whose label is not to be kept.
pub fn retain(metric: &Metric, keep: impl Fn(&str) -> bool) {
    let mut all = SERIES.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|(name, labels), _| {
        *name != metric.name || labels.first().is_some_and(|label| keep(label))
    });
}

/// Forgets a series that nobody holds any more.
pub fn forget(metric: &Metric, labels: &[&str]) {
    let mut all = SERIES.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (metric.name, labels.iter().map(|&label| label.to_owned()).collect());
    if all.get(&key).is_some_and(|(_, series)| Arc::strong_count(series) == 1) {
        all.remove(&key);
    }
}

/// All metrics in the text format of Prometheus; a family that nothing has used yet has its help alone,
/// and a counter without labels its 0, so that a rate over it is not missing.
pub fn render() -> String {
    let all = SERIES.lock().unwrap_or_else(PoisonError::into_inner);
    let used = all.values().map(|(metric, _)| *metric);
    let families: BTreeMap<_, _> =
        used.chain(ALL.iter().copied()).map(|metric| (metric.name, metric)).collect();
    let mut page = String::new();
    for (name, metric) in families {
        let kind = metric.kind.word();
        // Writing to a String cannot fail.
        let _written = writeln!(page, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
        let mut series = all.range((name, Vec::new())..).take_while(|((of, _), _)| *of == name);
        let first = series.next();
        if first.is_none() && metric.kind == Kind::Counter && metric.labels.is_empty() {
            line(&mut page, name, "", &[], &[], None, "0");
        }
        for ((_, labels), (_, series)) in first.into_iter().chain(series) {
            series.render(metric, labels, &mut page);
        }
    }
    page
}

/// Every family as a row of a table in Markdown.
pub fn reference() -> String {
    let row = |metric: &&Metric| {
        let Metric { name, help, kind, labels } = metric;
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {} | {} | {help} |\n", kind.word(), labels.join(", "))
    };
    ALL.iter().map(row).collect()
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Metric = Metric {
                name: $name, help: $help, kind: Kind::$kind, labels: &[$($label),*],
            };
        )*

        /// Every family, in the order of the list below.
        static ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    CONNECTIONS: Counter "vestibule_connections_total" ["listener"] "Connections accepted.";
    CONNECTIONS_OPEN: Gauge "vestibule_connections_open" ["listener"] "Connections open now.";
    CONNECTIONS_PARKED: Gauge "vestibule_connections_parked" [] "Connections of HTTP/1.1 that wait for a request and hold no buffers meanwhile.";
    CONNECTIONS_REFUSED: Counter "vestibule_connections_refused_total" ["reason"] "Connections refused at accept or at the handshake.";
    CONNECTIONS_CUT: Counter "vestibule_connections_cut_total" ["reason"] "Connections ended for what their client did: ambiguous bytes, a flood of frames, too many resets, stuck without reading, crowded by others while what they still sent was thrown away; and streams of HTTP/2 that were, stream_stuck.";
    TLS_HANDSHAKES: Counter "vestibule_tls_handshakes_total" ["version" "kind"] "TLS handshakes: full ones, and sessions resumed.";
    TLS_KEY_EXCHANGES: Counter "vestibule_tls_key_exchanges_total" ["group"] "TLS handshakes by the group of their key exchange; x25519 with ML-KEM is safe from quantum computers.";
    CERTIFICATE_ENDS: Gauge "vestibule_certificate_expiry_timestamp_seconds" ["certificate"] "When a certificate ends, by its file; seconds since 1970.";
    CERTIFICATES_STALE: Gauge "vestibule_certificates_stale" [] "1 while the certificate files are not right and the last good ones are served.";
    ACME_ORDERS: Counter "vestibule_acme_orders_total" ["outcome"] "Certificates asked of an authority: issued or failed.";
    ACME_PENDING: Gauge "vestibule_acme_pending" [] "Names that wait for their first certificate.";
    REQUESTS: Counter "vestibule_requests_total" ["route" "class"] "Exchanges ended, by route and status class.";
    REQUEST_SECONDS: Histogram "vestibule_request_duration_seconds" ["route"] "From the request's head to the response's last byte.";
    REQUEST_BYTES: Counter "vestibule_response_bytes_total" ["route"] "Bytes of response bodies.";
    FAULTS: Counter "vestibule_faults_total" ["reason"] "Answers of the edge's own, by reason.";
    TARGET_UP: Gauge "vestibule_target_up" ["target"] "1 while an upstream target is up.";
    TARGET_CONNECTS: Counter "vestibule_target_connects_total" ["target"] "Connections opened to an upstream target.";
    TARGET_EJECTIONS: Counter "vestibule_target_ejections_total" ["target"] "Times that an upstream target failed so often that it was passed over.";
    RESENT: Counter "vestibule_upstream_resent_total" ["reason"] "Requests sent again: stale when a kept connection was closed, closed when a new one was, unreached when a target took none, late when one did not answer.";
    HELD: Gauge "vestibule_held_requests" ["upstream"] "Requests that wait until a target can take them.";
    HOLDS: Counter "vestibule_holds_total" ["upstream" "outcome"] "Requests that waited for a target: released to one, expired, full when they could not wait, left by their client.";
    IMAGES: Counter "vestibule_images_total" ["outcome"] "Requests for pictures of the image optimizer: asked of the application, shared with others that asked for the same, busy when their turn did not come.";
    IMAGES_WAITING: Gauge "vestibule_images_waiting" ["for"] "Requests for pictures that wait: for their turn, or for the same picture that somebody else has asked for.";
    HUB_SESSIONS: Gauge "vestibule_hub_sessions" ["transport"] "Engine.IO sessions open now.";
    HUB_SOCKETS: Gauge "vestibule_hub_sockets" ["namespace"] "Sockets connected now.";
    HUB_EVENTS: Counter "vestibule_hub_events_total" ["direction"] "Socket.IO events; out counts deliveries.";
    HUB_BYTES: Counter "vestibule_hub_bytes_total" ["direction"] "Bytes of Engine.IO messages.";
    HUB_CLOSES: Counter "vestibule_hub_closes_total" ["reason"] "Engine.IO sessions ended, by reason.";
    HUB_DENIED: Counter "vestibule_hub_denied_total" ["code"] "Events and connects refused, by the code that the client is told.";
    HUB_DROPPED: Counter "vestibule_hub_dropped_total" [] "Messages dropped: volatile ones for a client that could not take them at once, and what msgpack cannot say.";
    HUB_HELD: Counter "vestibule_hub_held_total" ["by"] "Times that a client was not listened to for a while, by what had been too much: its events, its user's or its address's, its bytes, or what waits for hooks.";
    HUB_LAG: Gauge "vestibule_hub_notices_waiting" [] "What workers have told each other and not come to yet.";
    HUB_RECOVERIES: Counter "vestibule_hub_recoveries_total" ["outcome"] "Clients that came back: recovered, or why they began anew.";
    HUB_AWAY: Gauge "vestibule_hub_away" [] "Sockets whose clients are away and may come back.";
    AUTH_LOOKUPS: Counter "vestibule_auth_lookups_total" ["outcome"] "Sessions looked up: valid, refused, temporary, misconfigured.";
    AUTH_RENEWALS: Counter "vestibule_auth_renewals_total" [] "Connections that go on by a newer token than the one that they came with.";
    AUTH_QUERIES: Counter "vestibule_auth_queries_total" [] "Statements and commands that stores of sessions were asked; one is for many sessions.";
    HOOKS: Counter "vestibule_hooks_total" ["outcome"] "Questions to the application: answered, failed attempts.";
    HOOKS_WAITING: Gauge "vestibule_hooks_left_waiting" [] "What those who have left leave to be told: disconnect hooks, and backlogs of events.";
    HOOKS_LOST: Counter "vestibule_hooks_lost_total" ["reason"] "Disconnect hooks, and events of those who have left, that are not told: full, unanswered, stopped, unconfigured.";
    REDIS_UP: Gauge "vestibule_hub_redis_up" [] "1 while other nodes are told and heard over Redis.";
    REDIS_GAPS: Counter "vestibule_hub_redis_gaps_total" [] "Times without a link to Redis that have ended; with pub/sub, messages of other nodes were missed.";
    REDIS_SAID: Counter "vestibule_hub_redis_said_total" [] "Commands that Redis has done.";
    REDIS_DROPPED: Counter "vestibule_hub_redis_dropped_total" ["reason"] "Messages that other nodes do not hear: overflow of what waits, unsure when a link broke, volatile without a link, refused.";
    REDIS_HEARD: Counter "vestibule_hub_redis_heard_total" ["fate"] "Messages that came over Redis: taken, own, repeated after a break, for_nobody here, unfit for clients, malformed.";
    HUB_NODES: Gauge "vestibule_hub_nodes" [] "Nodes that hold a lease in Redis, this one among them; 0 before it has one.";
    HUB_RELAYED: Counter "vestibule_hub_relayed_total" ["outcome"] "Requests brought to the node that their session lives on: begun, answered, or lost with it.";
    REDIS_WAITING: Gauge "vestibule_hub_redis_waiting_bytes" [] "Bytes that wait for Redis.";
    HUB_BUILT: Counter "vestibule_hub_messages_built_total" [] "Messages put into bytes; one that goes to many is built once.";
    ACCESS_LOST: Counter "vestibule_access_lines_lost_total" [] "Lines of access and of events dropped because the log could not take them.";
    RELOADS: Counter "vestibule_reloads_total" ["verdict"] "Reloads, installed or refused.";
    GENERATION: Gauge "vestibule_generation" [] "Number of the installed configuration, from 1.";
    CONFIG_LOADED: Gauge "vestibule_config_loaded_timestamp_seconds" [] "When the installed configuration was installed; seconds since 1970.";
    WORKERS: Gauge "vestibule_workers" [] "Threads that serve.";
    TRACE_SPANS: Counter "vestibule_trace_spans_total" ["outcome"] "Spans of traces: exported, dropped because too many waited, lost because the collector took none.";
    LISTEN_OVERFLOWS: Counter "vestibule_listen_overflows_total" [] "Connections that the kernel dropped because an accept queue was full, on all of this network namespace.";
    STARTED: Gauge "process_start_time_seconds" [] "When the process was started; seconds since 1970.";
    OPEN_FDS: Gauge "process_open_fds" [] "File descriptors that are open.";
    MAX_FDS: Gauge "process_max_fds" [] "File descriptors that may be open.";
    RESIDENT: Gauge "process_resident_memory_bytes" [] "Memory that the process has.";
    BUILD: Gauge "vestibule_build_info" ["version"] "1, with the version that runs.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_add_up_and_render() {
        static TEST: Metric = Metric {
            name: "test_seconds",
            help: "Help.",
            kind: Kind::Histogram,
            labels: &["route"],
        };
        let series = series(&TEST, &["a\"b"]);
        series.observe(Duration::from_millis(3));
        std::thread::spawn({
            let series = Arc::clone(&series);
            move || {
                enter_worker(1);
                series.observe(Duration::from_secs(60));
            }
        })
        .join()
        .expect("a thread that ends");
        assert_eq!(series.value(), 2);
        let page = render();
        assert!(page.contains("# TYPE test_seconds histogram"), "{page}");
        assert!(page.contains("test_seconds_bucket{route=\"a\\\"b\",le=\"0.005000\"} 1"), "{page}");
        assert!(page.contains("test_seconds_bucket{route=\"a\\\"b\",le=\"+Inf\"} 2"), "{page}");
        assert!(page.contains("test_seconds_sum{route=\"a\\\"b\"} 60.003000"), "{page}");
    }
}
