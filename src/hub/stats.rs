//! The figures that the Admin UI draws, from the metrics of all workers.

use std::collections::BTreeMap;
use std::fs;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::observe::metrics;

use super::clients::Clients;
use super::engine::Delivery;
use super::namespace::Target;

/// The event `server_stats`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats<'a> {
    server_id: &'a str,
    hostname: &'a str,
    pid: u32,
    uptime: u64,
    clients_count: i64,
    polling_clients_count: i64,
    aggregated_events: &'a [Aggregate],
    namespaces: Vec<NamespaceCount>,
}

/// How often something happened in one second.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Aggregate {
    /// In milliseconds.
    timestamp: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_type: Option<String>,
    count: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NamespaceCount {
    name: String,
    sockets_count: i64,
}

/// What is counted each second, and every other second told.
const SECOND: Duration = Duration::from_secs(1);

impl Clients {
    fn names(&self) -> Vec<String> {
        self.namespaces().iter().map(|namespace| namespace.name.to_string()).collect()
    }

    /// The namespace of the Admin UI, if there is one.
    fn watched_by(&self) -> Option<String> {
        let namespaces = self.namespaces();
        let found = namespaces.iter().find(|namespace| namespace.policy().admin_ui.is_some());
        found.map(|namespace| namespace.name.to_string())
    }
}

/// Tells the pages that watch, for as long as the worker lives; one worker does it for all.
pub async fn tell(clients: Rc<Clients>) {
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname");
    let hostname = hostname.map_or_else(|_| "vestibule".to_owned(), |name| name.trim().to_owned());
    // Of two processes on one machine each has figures of its own.
    let server_id = format!("{hostname}#{}", std::process::id());
    let (started, mut before, mut events) = (Instant::now(), None::<Counts>, Vec::new());
    let mut seconds = interval(SECOND);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        for _ in 0..2 {
            seconds.tick().await;
            let now = clients.watched_by().map(|_| Counts::read());
            if let (Some(before), Some(now)) = (&before, &now) {
                now.since(before, timestamp(), &mut events);
            }
            before = now;
        }
        let told = std::mem::take(&mut events);
        let Some(counts) = &before else { continue };
        // Other nodes' pages are told as well, and nobody says whether there are any.
        let is_alone = clients.outbox.uplink.is_none();
        let name = clients.watched_by().filter(|name| !is_alone || is_watched(name));
        let Some(name) = name else { continue };
        let stats = Stats {
            server_id: &server_id,
            hostname: &hostname,
            pid: std::process::id(),
            uptime: started.elapsed().as_secs(),
            clients_count: counts.sessions,
            polling_clients_count: metrics::series(&metrics::HUB_SESSIONS, &["polling"]).value(),
            aggregated_events: &told,
            namespaces: namespaces(&clients),
        };
        // Its types have no keys or numbers that JSON could refuse.
        let stats = serde_json::to_string(&stats).unwrap_or_default();
        let data = format!(r#"["server_stats",{stats}]"#);
        if let Some(namespace) = clients.namespace(&name) {
            // Not dropped for a page that polls: what two nodes tell in one moment is two polls.
            clients.emit(&namespace, Target::default(), &data, Vec::new(), Delivery::Kept);
        }
    }
}

fn is_watched(name: &str) -> bool {
    metrics::series(&metrics::HUB_SOCKETS, &[name]).value() > 0
}

fn namespaces(clients: &Clients) -> Vec<NamespaceCount> {
    let mut names = clients.names();
    names.sort_unstable();
    let count = |name: String| {
        let sockets_count = metrics::series(&metrics::HUB_SOCKETS, &[&name]).value();
        NamespaceCount { name, sockets_count }
    };
    names.into_iter().map(count).collect()
}

/// The second that it is, in milliseconds.
fn timestamp() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() * 1000
}

/// The metrics at one moment.
struct Counts {
    sessions: i64,
    closes: BTreeMap<String, i64>,
    /// By the page's name for it.
    others: [(&'static str, i64); 4],
}

impl Counts {
    fn read() -> Self {
        let one = |metric, label| metrics::series(metric, &[label]).value();
        Self {
            sessions: metrics::total(&metrics::HUB_SESSIONS),
            closes: metrics::by_label(&metrics::HUB_CLOSES),
            others: [
                ("packetsIn", one(&metrics::HUB_EVENTS, "in")),
                ("packetsOut", one(&metrics::HUB_EVENTS, "out")),
                ("bytesIn", one(&metrics::HUB_BYTES, "in")),
                ("bytesOut", one(&metrics::HUB_BYTES, "out")),
            ],
        }
    }

    /// What has happened since `before`.
    fn since(&self, before: &Self, timestamp: u64, events: &mut Vec<Aggregate>) {
        let mut add = |kind, sub_type, count| {
            if count > 0 {
                events.push(Aggregate { timestamp, kind, sub_type, count });
            }
        };
        let mut closed = 0;
        for (reason, count) in &self.closes {
            let count = count - before.closes.get(reason).copied().unwrap_or_default();
            closed += count;
            // Node's reasons are the same words with spaces.
            add("rawDisconnection", Some(reason.replace('_', " ")), count);
        }
        add("rawConnection", None, self.sessions - before.sessions + closed);
        for ((kind, now), (_, before)) in self.others.iter().zip(&before.others) {
            add(kind, None, now - before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_went_is_told_by_reason() {
        let counts = |sessions, closed: &[(&str, i64)], bytes| Counts {
            sessions,
            closes: closed.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect(),
            others: [("packetsIn", 0), ("packetsOut", 0), ("bytesIn", bytes), ("bytesOut", 0)],
        };
        let before = counts(10, &[("ping_timeout", 1)], 100);
        let now = counts(9, &[("ping_timeout", 3), ("transport_close", 1)], 105);
        let mut events = Vec::new();
        now.since(&before, 1000, &mut events);
        let told: Vec<_> = events
            .iter()
            .map(|event| (event.kind, event.sub_type.as_deref().unwrap_or_default(), event.count))
            .collect();
        let wanted = [
            ("rawDisconnection", "ping timeout", 2),
            ("rawDisconnection", "transport close", 1),
            ("rawConnection", "", 2),
            ("bytesIn", "", 5),
        ];
        assert_eq!(told, wanted);
    }
}
