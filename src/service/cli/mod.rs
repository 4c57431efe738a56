//! The command line.

mod ask;
pub mod check;
pub mod diff;
pub mod doctor;
pub mod explain;
mod figures;
pub mod reference;
pub mod reload;
pub mod status;
pub mod top;
pub mod upgrade;

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use super::Stop;

/// The edge of a self-hosted Next.js app: HTTP proxy, TLS and a Socket.IO hub in one binary.
#[derive(Debug, Parser)]
#[command(name = "vestibule", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM; SIGHUP reads the configuration again, SIGUSR2 upgrades.
    Run {
        #[command(flatten)]
        file: File,
        /// Take the sockets of the process before, which is at standard input.
        #[arg(long, hide = true)]
        take_over: bool,
    },
    /// Check the configuration: silent and 0 when it is right, every problem and 78 when not.
    Check {
        #[command(flatten)]
        file: File,
        /// Print the effective configuration, every default filled in.
        #[arg(long)]
        show: bool,
    },
    /// Say what a request would meet: site, route, upstream, headers, and why. Nothing is sent.
    Explain(explain::Words),
    /// Ask the running process to read its configuration again, and report its verdict.
    Reload(File),
    /// Say what a reload would change, without doing it.
    Diff(File),
    /// Have the binary that is installed now take over: no connection is refused, none is cut.
    Upgrade(File),
    /// Say whether the running process is ready, and why not.
    Status(File),
    /// Show what the running process does, second by second.
    Top {
        #[command(flatten)]
        file: File,
        /// One picture of one second, and no more.
        #[arg(long)]
        once: bool,
    },
    /// Look at this machine, the application and Redis, and say what to mend.
    Doctor(doctor::Words),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Print every command, key and metric, in Markdown.
    #[command(hide = true)]
    Reference,
    /// Print the manual page, in troff.
    Man,
    /// Print a completion script for a shell.
    Completions { shell: Shell },
}

#[derive(Debug, Args)]
pub struct File {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = "proxy.yaml")]
    pub config: PathBuf,
}

/// Prints to standard output.
pub fn say(text: &str) -> Result<(), Stop> {
    let written = writeln!(io::stdout(), "{}", text.trim_end());
    written.map_err(|error| Stop::Io { what: "standard output", error })
}

/// The manual page of this command, from the same words as `--help`.
pub fn man() -> Result<(), Stop> {
    let mut page = Vec::new();
    let words = Arguments::command();
    let commands: Vec<_> = words.get_subcommands().cloned().collect();
    let fail = |error| Stop::Io { what: "no manual page", error };
    clap_mangen::Man::new(words).render(&mut page).map_err(fail)?;
    for command in commands.iter().filter(|command| !command.is_hide_set()) {
        let about = command.get_long_about().or(command.get_about());
        let about = about.map(ToString::to_string).unwrap_or_default();
        page.extend(format!(".SS vestibule {}\n{about}\n", command.get_name()).bytes());
    }
    say(&String::from_utf8_lossy(&page))
}

pub fn completions(shell: Shell) -> Result<(), Stop> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "vestibule", &mut script);
    say(&String::from_utf8_lossy(&script))
}
