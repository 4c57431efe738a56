//! `vestibule status`: is the running process ready, and if not, why not.

use std::path::Path;

use serde_json::Value;

use crate::service::Stop;

use super::ask::ask;
use super::say;

/// Prints `ready`; an error with the reasons if it is not.
pub fn run(file: &Path) -> Result<(), Stop> {
    let answer = ask(file, "GET", "/health/ready")?;
    if answer.status == 200 {
        return say("ready");
    }
    let readiness: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let reasons = readiness.get("reasons").and_then(Value::as_array);
    let reasons: Vec<_> = reasons.into_iter().flatten().filter_map(Value::as_str).collect();
    Err(Stop::Asked(format!("not ready\n{}", reasons.join("\n"))))
}
