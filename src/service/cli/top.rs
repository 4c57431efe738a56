//! `vestibule top`: what the running process does, second by second.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::service::Stop;

use super::ask::ask;
use super::figures::Figures;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
const TOOK: &str = "vestibule_request_duration_seconds";
/// Clears the screen and goes to its corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows until it is interrupted; with `once` a single picture, of one second.
pub fn run(file: &Path, once: bool) -> Result<(), Stop> {
    let mut before = look(file)?;
    loop {
        thread::sleep(EVERY);
        let now = look(file)?;
        let picture = picture(&before, &now);
        let clear = if once { "" } else { CLEAR };
        let shown = write!(io::stdout(), "{clear}{picture}").and_then(|()| io::stdout().flush());
        shown.map_err(|error| Stop::Io { what: "standard output", error })?;
        if once {
            return Ok(());
        }
        before = now;
    }
}

fn look(file: &Path) -> Result<Figures, Stop> {
    let answer = ask(file, "GET", "/metrics")?;
    if answer.status == 200 {
        return Ok(Figures::parse(&answer.body));
    }
    Err(Stop::Asked("there are no metrics: metrics.prometheus is false".to_owned()))
}

/// One screen.
fn picture(before: &Figures, now: &Figures) -> String {
    let mut out = String::new();
    let more = |family: &str| now.total(family) - before.total(family);
    let classes = now.more(before, "vestibule_requests_total", "class");
    let classes: Vec<_> =
        classes.iter().map(|(class, count)| format!("{class} {count:.0}")).collect();
    let lines = [
        format!(
            "requests     {:>8.0}/s   {}",
            more("vestibule_requests_total"),
            classes.join("  ")
        ),
        format!(
            "latency      p50 {}  p95 {}  p99 {}",
            bound(now.quantile(before, TOOK, None, 0.5)),
            bound(now.quantile(before, TOOK, None, 0.95)),
            bound(now.quantile(before, TOOK, None, 0.99))
        ),
        format!(
            "connections  {:>8.0}     new {:.0}/s  refused {:.0}/s  TLS handshakes {:.0}/s",
            now.total("vestibule_connections_open"),
            more("vestibule_connections_total"),
            more("vestibule_connections_refused_total"),
            more("vestibule_tls_handshakes_total")
        ),
        format!(
            "hub          {:>8.0}     sockets {:.0}  events in and out {:.0}/s  waiting {:.0}",
            now.total("vestibule_hub_sessions"),
            now.total("vestibule_hub_sockets"),
            more("vestibule_hub_events_total"),
            now.total("vestibule_hub_notices_waiting")
        ),
        format!(
            "process      {:>8.0} MB  {:.0} of {:.0} files open, generation {:.0}",
            now.total("process_resident_memory_bytes") / 1e6,
            now.total("process_open_fds"),
            now.total("process_max_fds"),
            now.total("vestibule_generation")
        ),
    ];
    for line in lines {
        // Writing to a String cannot fail.
        let _written = writeln!(out, "{line}");
    }
    let routes = now.more(before, "vestibule_requests_total", "route");
    table(&mut out, "ROUTE", "req/s     p95", &routes, |route, count| {
        format!("{count:>6.0}  {:>6}", bound(now.quantile(before, TOOK, Some(route), 0.95)))
    });
    let up = now.by("vestibule_target_up", "target");
    let connects = now.more(before, "vestibule_target_connects_total", "target");
    table(&mut out, "TARGET", "up    connects/s", &up, |target, up| {
        let connects = connects.get(target).copied().unwrap_or_default();
        format!("{:<5} {connects:>5.0}", if up > 0.0 { "up" } else { "down" })
    });
    let sockets = now.by("vestibule_hub_sockets", "namespace");
    table(&mut out, "NAMESPACE", "sockets", &sockets, |_, count| format!("{count:>6.0}"));
    let faults = now.more(before, "vestibule_faults_total", "reason");
    let faults = faults.into_iter().filter(|(_, count)| *count > 0.0).collect();
    table(&mut out, "REFUSED BY THE EDGE", "/s", &faults, |_, count| format!("{count:>6.0}"));
    out
}

/// A heading and a line for each name; nothing if there is none.
fn table(
    out: &mut String,
    heading: &str,
    columns: &str,
    rows: &std::collections::BTreeMap<String, f64>,
    row: impl Fn(&str, f64) -> String,
) {
    if rows.is_empty() {
        return;
    }
    // Writing to a String cannot fail.
    let _written = writeln!(out, "\n{heading:<40} {columns}");
    for (name, value) in rows {
        let _written = writeln!(out, "{name:<40} {}", row(name, *value));
    }
}

/// A duration's upper bound as people say it.
fn bound(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds.is_infinite() => ">10s".to_owned(),
        Some(seconds) if seconds < 1.0 => format!("{:.0}ms", (seconds * 1000.0).ceil()),
        Some(seconds) => format!("{seconds:.1}s"),
    }
}
