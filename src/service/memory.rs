//! Gives memory back to the system when a crowd has left, or has nothing to say.
//!
//! What the C library's allocator is given back stays in the process, in holes between what is
//! still in use; only `malloc_trim` returns those.

use std::time::Duration;

use tokio::time::sleep;

use crate::observe::metrics;

/// How soon after a crowd has left its memory goes.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Fewer than this are no crowd.
const CROWD: i64 = 500;

/// Looks now and then whether at least half of those who were here have gone, or many more than
/// before are parked: what they have given back is worth asking for.
pub async fn give_back() {
    let (mut most, mut least) = (0, 0);
    loop {
        sleep(LOOK_EVERY).await;
        let here =
            metrics::total(&metrics::CONNECTIONS_OPEN) + metrics::total(&metrics::HUB_SESSIONS);
        let parked = metrics::total(&metrics::CONNECTIONS_PARKED);
        (most, least) = (most.max(here), least.min(parked));
        let left = most - here >= CROWD.max(most / 2);
        if left || parked - least >= CROWD.max(parked / 8) {
            trim();
            (most, least) = (here, parked);
        }
    }
}

#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "a C function without arguments that matter and without a safe wrapper"
)]
pub(super) fn trim() {
    // SAFETY: malloc_trim may be called at any time from any thread; it locks what it looks at.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
pub(super) fn trim() {}
