//! `vestibule diff`: what a reload would change, said by the running process.

use std::path::Path;

use serde_json::Value;

use crate::service::Stop;

use super::ask::ask;
use super::reload::changes;
use super::say;

/// Prints a line for each change; an error with every problem if the file could not be taken.
pub fn run(file: &Path) -> Result<(), Stop> {
    let answer = ask(file, "POST", "/diff")?;
    let verdict: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let notes = verdict.get("notes").and_then(Value::as_array);
    let notes: Vec<_> = notes.into_iter().flatten().filter_map(Value::as_str).collect();
    let notes = notes.join("\n");
    if answer.status != 200 {
        let why = if notes.is_empty() { answer.body } else { notes };
        return Err(Stop::Asked(format!("it could not be taken\n{why}")));
    }
    let changes = changes(&verdict);
    say(if changes.is_empty() { "nothing would change" } else { changes.trim_end() })?;
    if notes.is_empty() { Ok(()) } else { say(&notes) }
}
