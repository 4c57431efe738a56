//! The process's own log: on standard error, one line per event, human or JSON.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts logging. The shape stays for the life of the process, the level may change.
pub fn init(level: LevelFilter, json: bool) {
    let (filter, handle) = reload::Layer::new(level);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let started = if json {
        registry.with(layer.json().flatten_event(true)).try_init()
    } else {
        registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init()
    };
    if started.is_ok() {
        // Only the first call gets here.
        let _first = LEVEL.set(handle);
    }
}

/// Changes what is worth a line; for a reload.
pub fn set_level(level: LevelFilter) {
    if let Some(handle) = LEVEL.get() {
        // Fails only when the subscriber is gone, and then nobody logs.
        let _changed = handle.reload(level);
    }
}
