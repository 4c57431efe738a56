//! Looks how much memory the process has, and lets nobody new into the hub while it is too much.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::config::MemoryMax;
use crate::hub::Hub;
use crate::snapshot::Current;

use super::memory;

/// Twice a second: a crowd needs longer to fill a tenth of a machine.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What the allocator only keeps is given back while there is too much, but it takes time.
const TRIM_EVERY: Duration = Duration::from_secs(10);

/// Looks for as long as the process lives.
pub async fn watch(current: Current, hub: Arc<Hub>) {
    let allowed = allowed();
    let (mut strained, mut trimmed) = (false, None::<Instant>);
    loop {
        let max = match current.load().hub().map_or(MemoryMax::Off, |policy| policy.memory) {
            MemoryMax::Auto => allowed.map(|bytes| bytes / 10 * 9),
            MemoryMax::Bytes(bytes) => Some(bytes),
            MemoryMax::Off => None,
        };
        let is_over = |resident: Option<u64>| max.zip(resident).is_some_and(|(max, has)| has > max);
        let mut over = is_over(resident());
        if over && trimmed.is_none_or(|then| then.elapsed() >= TRIM_EVERY) {
            memory::trim();
            trimmed = Some(Instant::now());
            over = is_over(resident());
        }
        if over != strained {
            strained = over;
            hub.set_strained(strained);
            let (resident, max) = (resident().unwrap_or_default(), max.unwrap_or_default());
            if strained {
                warn!(resident, max, "too much memory: the hub takes no new clients");
            } else {
                info!(resident, max, "the hub takes new clients again");
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Bytes of memory that the process has; `None` where the kernel does not tell.
fn resident() -> Option<u64> {
    field("/proc/self/status", "VmRSS:")
}

/// Bytes that it may have: its control group's limit, or all that the machine has.
fn allowed() -> Option<u64> {
    let machine = field("/proc/meminfo", "MemTotal:");
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(limit_file).flat_map(|file| {
        // A limit holds for all groups below it.
        let above: Vec<_> = file.parent().into_iter().flat_map(Path::ancestors).collect();
        let name = file.file_name().unwrap_or_default();
        above.into_iter().filter_map(|group| number(&group.join(name))).collect::<Vec<_>>()
    });
    limits.chain(machine).min()
}

/// Where a line of `/proc/self/cgroup` says that its limit stands; in version 1 only for memory.
fn limit_file(line: &str) -> Option<PathBuf> {
    let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
    let group = group.trim_start_matches('/');
    if controllers.is_empty() {
        return Some(Path::new("/sys/fs/cgroup").join(group).join("memory.max"));
    }
    let memory = controllers.split(',').any(|controller| controller == "memory");
    let root = Path::new("/sys/fs/cgroup/memory");
    memory.then(|| root.join(group).join("memory.limit_in_bytes"))
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// A field in kilobytes of a file of the kernel's.
fn field(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim_end().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_say_where_the_limit_stands() {
        for (line, file) in [
            (
                "0::/system.slice/a.service",
                Some("/sys/fs/cgroup/system.slice/a.service/memory.max"),
            ),
            ("4:memory:/a/b", Some("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes")),
            ("4:cpu,memory:/", Some("/sys/fs/cgroup/memory/memory.limit_in_bytes")),
            ("3:cpu:/a", None),
            ("", None),
        ] {
            assert_eq!(limit_file(line), file.map(PathBuf::from), "{line}");
        }
    }

    #[test]
    fn this_process_has_some_memory_and_may_have_more() {
        let (resident, allowed) = (resident().expect("Linux"), allowed().expect("Linux"));
        assert!(resident > 0 && resident < allowed, "{resident} of {allowed}");
    }
}
