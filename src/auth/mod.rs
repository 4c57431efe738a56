//! Who is asking: the application's own sessions, read.

mod claims;
mod credentials;
mod identity;
mod keys;
mod preset;
mod seal;
mod time;
#[cfg(test)]
mod vectors;
