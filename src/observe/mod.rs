//! What the process tells about itself: logs, access lines, metrics.

pub mod metrics;
