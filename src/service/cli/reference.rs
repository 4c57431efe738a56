//! `vestibule reference`: every command, key and metric in Markdown, from the same words as `--help`,
//! the JSON Schema and `GET /metrics`.

use std::fmt::Write as _;

use clap::CommandFactory as _;

use crate::config;
use crate::observe::metrics;
use crate::service::Stop;

use super::{Arguments, say};

const HEAD: &str = "# Reference

Printed by `vestibule reference`; a test holds this page to the binary.
What the hub asks the app is in [hooks](hooks.md), what the private listener answers in [its API](api.md).
";

const COMMANDS: &str = "
## Commands

| Command | Arguments | |
|---|---|---|
";

const EXITS: &str = "
| Exit code | Means |
|---|---|
| 0 | done; for `check`, the file is right; for `status`, ready; for `doctor`, nothing is wrong |
| 1 | not done, and standard error says why: nobody answers, not ready, a reload or an upgrade was refused |
| 2 | the arguments are wrong |
| 78 | the configuration is wrong (`EX_CONFIG`): every problem is on standard error |

| Signal to `run` | Does |
|---|---|
| SIGTERM, SIGINT | drains and ends; a second one hurries |
| SIGHUP | reads the file again |
| SIGUSR1 | opens the access log anew |
| SIGUSR2 | upgrades |
";

const KEYS: &str = "
## Keys of proxy.yaml

Durations, sizes and rates have units: `10s`, `250ms`, `64KiB`, `50/s`.
A secret is a text or `file:PATH`, a target `http://`, `https://` or `unix:`.
`[]` is each of a list, a word in capitals a name of yours.
`proxy.yaml` tells more of each key.

";

const METRICS: &str = "
## Metrics

| Metric | Kind | Labels | |
|---|---|---|---|
";

pub fn run() -> Result<(), Stop> {
    say(&page())
}

fn page() -> String {
    let mut page = format!("{HEAD}{COMMANDS}");
    let mut words = Arguments::command();
    // Only then its arguments can be written.
    words.build();
    for command in words
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
    {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let arguments = command
            .get_arguments()
            .filter(|argument| !argument.is_hide_set() && argument.get_id() != "help");
        let arguments: Vec<_> = arguments.map(|argument| format!("`{argument}`")).collect();
        // Writing to a String cannot fail.
        let _written = writeln!(
            page,
            "| `vestibule {}` | {} | {about} |",
            command.get_name(),
            arguments.join(" ").replace('|', "\\|")
        );
    }
    page + EXITS + KEYS + &config::reference() + METRICS + &metrics::reference()
}
