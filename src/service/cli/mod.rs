//! The command line.

mod ask;
pub mod check;
pub mod explain;
pub mod reload;
pub mod status;

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
    /// Serve until SIGTERM; SIGHUP reads the configuration again.
    Run(File),
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
    /// Say whether the running process is ready, and why not.
    Status(File),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
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

pub fn completions(shell: Shell) -> Result<(), Stop> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "vestibule", &mut script);
    say(&String::from_utf8_lossy(&script))
}
