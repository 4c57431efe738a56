#![doc = include_str!("ARCHITECTURE.md")]

// The process.
mod service;
mod snapshot;
mod worker;
// The way in.
mod connection;
mod listener;
mod tls;
// The choice.
mod admin;
mod router;
// The answers.
mod compress;
mod files;
mod hub;
mod proxy;
mod redirect;
// Who is asking.
mod auth;
// The other wire.
mod next;
mod upstream;
// Words.
mod config;
mod drain;
mod exchange;
mod limits;
mod observe;
mod outside;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[doc(hidden)]
pub use hub::echo;
pub use service::{Stop, run};
