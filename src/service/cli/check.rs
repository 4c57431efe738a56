//! `vestibule check`: what a start or a reload would say, without either.

use std::path::Path;

use crate::config;
use crate::service::{Stop, compile, resident};

use super::say;

pub fn run(file: &Path, show: bool) -> Result<(), Stop> {
    let config = config::load(file)?;
    let (resident, _inboxes) = resident(&config)?;
    let snapshot = compile(config, 1, &resident, file)?;
    if show { say(&snapshot.config().show()) } else { Ok(()) }
}
