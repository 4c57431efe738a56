//! What the process tells about itself: logs, lines of access and of events, metrics.

pub mod access;
pub mod context;
pub mod events;
mod format;
pub mod lines;
pub mod log;
pub mod metrics;
pub mod otlp;
pub mod trace;

pub use access::Access;
pub use format::Format;
