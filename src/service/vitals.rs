//! What every process tells of itself, under the names that Prometheus' own libraries use.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use crate::observe::metrics::{self, Metric};

/// More often than it is scraped.
const EVERY: Duration = Duration::from_secs(5);

/// A configuration is in force from now on.
pub fn installed() {
    set(&metrics::CONFIG_LOADED, now());
}

/// Looks for as long as the process lives.
pub async fn watch() {
    set(&metrics::STARTED, now());
    loop {
        look();
        sleep(EVERY).await;
    }
}

fn look() {
    if let Some(open) = open_files() {
        set(&metrics::OPEN_FDS, i64::try_from(open).unwrap_or(i64::MAX));
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(max) = max_files(&limits) {
        set(&metrics::MAX_FDS, max);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kilobytes) = status.lines().find_map(|line| line.strip_prefix("VmRSS:")) {
        let kilobytes: i64 = kilobytes.trim().trim_end_matches(" kB").parse().unwrap_or_default();
        set(&metrics::RESIDENT, kilobytes * 1024);
    }
    let counts = fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    if let Some(overflows) = overflows(&counts) {
        set(&metrics::LISTEN_OVERFLOWS, overflows);
    }
}

/// Since Linux 6.2 the folder's size is how many there are. Before, they are counted, which takes
/// milliseconds where there are ten thousand.
fn open_files() -> Option<u64> {
    let folder = "/proc/self/fd";
    match fs::metadata(folder).ok()?.len() {
        // One of them is the folder, while it is read.
        0 => Some((fs::read_dir(folder).ok()?.count() as u64).saturating_sub(1)),
        open => Some(open),
    }
}

fn set(metric: &'static Metric, value: i64) {
    metrics::series(metric, &[]).set(value);
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The soft limit; `None` without one.
fn max_files(limits: &str) -> Option<i64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `ListenOverflows` of the lines `TcpExt:`, the first of which has the names.
fn overflows(netstat: &str) -> Option<i64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|name| name == "ListenOverflows")?;
    values.split(' ').nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let netstat = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 3\nIpExt: A\nIpExt: 4\n";
        assert_eq!(overflows(netstat), Some(22));
        assert_eq!(overflows("TcpExt: A B\n"), None);
        let limits = "Limit  Soft Limit Hard Limit Units\nMax open files            1024                 524288               files\n";
        assert_eq!(max_files(limits), Some(1024));
        assert_eq!(
            max_files(
                "Max open files            unlimited            unlimited            files\n"
            ),
            None
        );
    }
}
