//! The process's own log: on standard error, one line per event, human or JSON.
//!
//! Where systemd keeps it, each line begins with its level, as sd-daemon(3) has it: the journal takes
//! it as PRIORITY, so `journalctl -p warning` works, and adds the time itself. Its own protocol would
//! carry each field by itself, but not to whoever runs the program in a terminal or a container.

use std::fmt as text;
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatFields, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts logging. The shape stays for the life of the process, the level may change.
pub fn init(level: LevelFilter, json: bool) {
    let (filter, handle) = reload::Layer::new(level);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = fmt::format().with_target(false);
    let started = match (json, is_journal()) {
        (true, false) => registry.with(layer.json().flatten_event(true)).try_init(),
        (false, false) => {
            registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init()
        }
        (true, true) => {
            let lines = Prioritized(lines.without_time().json().flatten_event(true));
            registry.with(layer.fmt_fields(JsonFields::new()).event_format(lines)).try_init()
        }
        (false, true) => {
            let lines = Prioritized(lines.without_time().with_level(false).with_ansi(false));
            registry.with(layer.with_ansi(false).event_format(lines)).try_init()
        }
    };
    if started.is_ok() {
        // Only the first call gets here.
        let _first = LEVEL.set(handle);
    }
}

/// True if standard error is the journal: `$JOURNAL_STREAM` names its device and inode, also to
/// children whose standard error is another.
fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let own = std::fs::metadata("/proc/self/fd/2");
    own.is_ok_and(|own| named == format!("{}:{}", own.dev(), own.ino()))
}

/// Changes what is worth a line; for a reload.
pub fn set_level(level: LevelFilter) {
    if let Some(handle) = LEVEL.get() {
        // Fails only when the subscriber is gone, and then nobody logs.
        let _changed = handle.reload(level);
    }
}

/// Lines with their level before them.
struct Prioritized<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritized<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> text::Result {
        // syslog(3).
        writer.write_str(match *event.metadata().level() {
            Level::ERROR => "<3>",
            Level::WARN => "<4>",
            Level::INFO => "<6>",
            Level::DEBUG | Level::TRACE => "<7>",
        })?;
        self.0.format_event(context, writer, event)
    }
}
