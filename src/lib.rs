#![doc = include_str!("ARCHITECTURE.md")]

mod config;
mod drain;
mod exchange;
mod observe;
