//! `vestibule doctor`: looks at this machine, at the application and at Redis, and says what to mend.

mod application;
mod machine;
mod next;
mod queues;
mod redis;
mod speech;
mod streaming;

use clap::Args;
use tokio::runtime::Builder;

use crate::config::{self, Config, Site, Target};
use crate::service::Stop;

use super::{File, say};
use machine::Process;
use speech::Way;

/// What is looked at.
#[derive(Debug, Args)]
pub struct Words {
    #[command(flatten)]
    pub file: File,
    /// A page that streams, to see whether it still does here: /dashboard
    #[arg(long, value_name = "PATH", default_value = "/")]
    stream: String,
}

/// What one look came to.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Right(String),
    /// What could not be seen, or is as well as it can be, and what would show more.
    Note(String, String),
    /// What is wrong, and how it is mended.
    Wrong(String, String),
}

use Finding::{Note, Right, Wrong};

/// Prints a line for each look; an error with their number if some found something wrong.
pub fn run(words: &Words) -> Result<(), Stop> {
    let path = words.stream.as_str();
    if !path.starts_with('/') || path.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(Stop::Asked(format!("{path:?} is no path; write --stream /dashboard")));
    }
    let config = config::load(&words.file.config)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::Io { what: "no runtime", error })?;
    let findings = runtime.block_on(look(words, &config));
    let mut wrong = 0;
    for finding in &findings {
        match finding {
            Right(what) => say(&format!("ok     {what}"))?,
            Note(what, more) => say(&format!("note   {what}\n       {more}"))?,
            Wrong(what, mend) => {
                wrong += 1;
                say(&format!("WRONG  {what}\n       {mend}"))?;
            }
        }
    }
    if wrong == 0 { Ok(()) } else { Err(Stop::Asked(format!("{wrong} things to mend"))) }
}

async fn look(words: &Words, config: &Config) -> Vec<Finding> {
    let file = &words.file.config;
    let mut findings = vec![Right(format!("{} is right", file.display()))];
    findings.extend(machine::certificates(config));
    findings.push(machine::state(&config.state));
    let (process, told) = Process::ask(file, config);
    findings.extend(told);
    if let Some(redis) = config.hub.as_ref().and_then(|hub| hub.redis.as_ref()) {
        findings.extend(redis::look(redis, config, process.as_ref()).await);
    }
    for site in &config.sites {
        let edge = process.as_ref().and_then(|process| Way::edge(site, process));
        let targets = site.next.iter().flat_map(|next| &next.targets);
        for target in targets {
            findings.extend(look_at(site, target, edge.as_ref(), words).await);
        }
    }
    findings
}

/// One server of the application: by itself, and as the edge shows it.
async fn look_at(site: &Site, target: &Target, edge: Option<&Way>, words: &Words) -> Vec<Finding> {
    let Some(next) = &site.next else { return Vec::new() };
    let direct = Way::direct(site, next, target);
    let (mut findings, is_there) = application::look(&direct, site, next).await;
    if is_there {
        findings.extend(streaming::look(&direct, edge, &words.stream).await);
        findings.extend(next::actions(&direct, edge, site).await);
        findings.extend(next::hot_reload(&direct, edge, site).await);
    }
    findings
}
