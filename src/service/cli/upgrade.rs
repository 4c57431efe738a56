//! `vestibule upgrade`: the binary that is installed now takes over from the running process.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::service::Stop;

use super::ask::ask_within;
use super::say;

/// The new process has thirty seconds to serve, and its check some more.
const DEADLINE: Duration = Duration::from_secs(60);

/// Prints which process serves now; an error if it is still the same.
pub fn run(file: &Path) -> Result<(), Stop> {
    let answer = ask_within(DEADLINE, file, "POST", "/upgrade")?;
    let verdict: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let notes = verdict.get("notes").and_then(Value::as_array);
    let notes: Vec<_> = notes.into_iter().flatten().filter_map(Value::as_str).collect();
    let notes = notes.join("\n");
    if answer.status == 200 {
        return say(&notes);
    }
    let why = if notes.is_empty() { answer.body } else { notes };
    Err(Stop::Asked(format!("not upgraded, the running process goes on\n{why}")))
}
