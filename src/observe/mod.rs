//! What the process tells about itself: logs, access lines, metrics.

pub mod access;
pub mod log;
pub mod metrics;

pub use access::Access;
