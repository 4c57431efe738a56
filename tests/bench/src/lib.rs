//! What the benchmark and the soak have in common.

pub mod frame;
pub mod server;
pub mod socket;
