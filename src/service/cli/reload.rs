//! `vestibule reload`: the running process reads its file again and says what came of it.

use std::path::Path;

use serde_json::Value;

use crate::service::Stop;

use super::ask::ask;
use super::say;

/// The lines of what is different, or would be.
pub fn changes(verdict: &Value) -> String {
    let changes = verdict.get("changes").and_then(Value::as_array);
    let changes = changes.into_iter().flatten().filter_map(Value::as_str);
    changes.map(|change| format!("{change}\n")).collect()
}

/// Prints the verdict; an error if nothing was installed.
pub fn run(file: &Path) -> Result<(), Stop> {
    let answer = ask(file, "POST", "/reload")?;
    let verdict: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let notes = verdict.get("notes").and_then(Value::as_array);
    let notes: Vec<_> = notes.into_iter().flatten().filter_map(Value::as_str).collect();
    let notes = notes.join("\n");
    if answer.status == 200 {
        let generation = verdict.get("generation").and_then(Value::as_u64).unwrap_or_default();
        let changes = changes(&verdict);
        return say(&format!("installed as generation {generation}\n{changes}{notes}"));
    }
    // What no verdict has come about may be in force in a moment.
    if verdict.is_null() {
        return Err(Stop::Asked(answer.body));
    }
    let why = if notes.is_empty() { answer.body } else { notes };
    Err(Stop::Asked(format!("not reloaded, the running configuration stays\n{why}")))
}
