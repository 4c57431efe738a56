//! A SQLite file, written as the application would.

use std::path::PathBuf;
use std::process::Command;

pub struct Sqlite(pub PathBuf);

impl Sqlite {
    pub fn run(&self, sql: &str) {
        let output = Command::new("sqlite3").arg(&self.0).arg(sql).output();
        let output = output.expect("sqlite3; tests/tools.sh installs it");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
