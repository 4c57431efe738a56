//! Hands the process over to another binary: check, hand the sockets over, wait until it serves.
//!
//! If anything goes wrong before that, nothing has happened.

use std::future::pending;
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info};

use crate::admin::Verdict;
use crate::admin::history::What;
use crate::hub::{Bridge, Role};

use super::{Service, handover, systemd};

/// A process that does not serve after this long is given up.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A process that is hurried lets its clients go within a few seconds.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// How often it is looked whether a process that hung up has ended, and how many times.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const ENDS_WITHIN: u32 = 100;

/// What the next process is started with.
struct Plan {
    binary: PathBuf,
    file: PathBuf,
    /// A word about each socket, and the socket.
    sockets: Vec<(String, OwnedFd)>,
}

/// An upgrade that is under way, and who asked for it.
pub struct Upgrade {
    outcome: oneshot::Receiver<Result<u32, String>>,
    asked: Option<oneshot::Sender<Verdict>>,
}

/// An upgrade that waits until the process before this one is gone.
pub struct Postponed {
    pub(super) asked: Option<oneshot::Sender<Verdict>>,
    until: Instant,
}

impl Service {
    /// Starts the binary that now stands where this one was started from.
    pub(super) async fn begin_upgrade(&mut self, asked: Option<oneshot::Sender<Verdict>>) {
        if self.upgrade.is_some() || self.postponed.is_some() {
            return self.not_upgraded("another upgrade is under way", asked);
        }
        if let Some(before) = self.bridge_before.as_ref().filter(|before| !before.is_over()) {
            info!("the process before lets its last clients go; then this one is upgraded");
            before.hurry();
            self.postponed = Some(Postponed { asked, until: Instant::now() + GONE_WITHIN });
            return;
        }
        let sockets = match self.sockets_and_hub().await {
            Ok(sockets) => sockets,
            Err(error) => return self.not_upgraded(&format!("no sockets: {error}"), asked),
        };
        info!(binary = %self.binary.display(), "upgrading");
        let plan = Plan { binary: self.binary.clone(), file: self.file.clone(), sockets };
        let (done, outcome) = oneshot::channel();
        let begun = thread::Builder::new().name("upgrade".to_owned()).spawn(move || {
            // The main thread is there for as long as the process.
            let _heard = done.send(plan.carry_out());
        });
        match begun {
            Ok(_thread) => self.upgrade = Some(Upgrade { outcome, asked }),
            Err(error) => self.not_upgraded(&format!("no thread: {error}"), asked),
        }
    }

    /// Resolves when an upgrade has come to something; never, when there is none.
    pub(super) async fn upgraded(upgrade: &mut Option<Upgrade>) -> Result<u32, String> {
        let Some(upgrade) = upgrade else { return pending().await };
        let gone = |_gone| Err("the thread that did it is gone".to_owned());
        (&mut upgrade.outcome).await.unwrap_or_else(gone)
    }

    /// True if another process serves from now on.
    pub(super) fn end_upgrade(&mut self, outcome: Result<u32, String>) -> bool {
        let asked = self.upgrade.take().and_then(|upgrade| upgrade.asked);
        match outcome {
            Ok(next) => {
                info!(next, "another process has taken over");
                let notes = vec![format!("process {next} has taken over")];
                answer(
                    asked,
                    Verdict {
                        installed: true,
                        generation: self.generation(),
                        notes,
                        changes: Vec::new(),
                    },
                );
                true
            }
            Err(why) => {
                self.not_upgraded(&why, asked);
                false
            }
        }
    }

    fn not_upgraded(&self, why: &str, asked: Option<oneshot::Sender<Verdict>>) {
        error!("not upgraded, this process goes on: {why}");
        let notes: Vec<_> = why.lines().map(str::to_owned).collect();
        self.history.note(What::Upgrade, false, self.generation(), &notes);
        answer(
            asked,
            Verdict { installed: false, generation: self.generation(), notes, changes: Vec::new() },
        );
    }

    /// Resolves when the process before this one is gone for which an upgrade waits; one that does
    /// not go in time is spoken to no more.
    pub(super) async fn moved(before: &mut Option<Bridge>, postponed: Option<&Postponed>) {
        let (Some(before), Some(postponed)) = (before, postponed) else { return pending().await };
        if timeout_at(postponed.until, before.over()).await.is_err() {
            before.end();
        }
    }

    /// What is handed over. The hub speaks with the next process from now on: nothing is said by
    /// whoever is there first that the others do not hear.
    async fn sockets_and_hub(&mut self) -> std::io::Result<Vec<(String, OwnedFd)>> {
        let mut sockets = self.sockets()?;
        let hub = &self.resident.hub;
        if hub.bridges() {
            let (ours, theirs) = handover::hub_pair()?;
            self.bridge = Some(hub.bridge(ours, (Role::Old, None), &self.drain).await?);
            sockets.push((format!("hub {}", hub.name().unwrap_or_default()), theirs));
        }
        Ok(sockets)
    }

    fn sockets(&self) -> std::io::Result<Vec<(String, OwnedFd)>> {
        let mut sockets = Vec::new();
        for (scheme, configured, socket) in self.listeners.kept() {
            let word = format!("socket {} {configured}", scheme.as_str());
            sockets.push((word, socket.as_fd().try_clone_to_owned()?));
        }
        for (configured, socket) in &self.node_sockets {
            let socket = socket.as_fd().try_clone_to_owned()?;
            sockets.push((format!("node {configured}"), socket));
        }
        if let Some((address, socket)) = &self.admin_socket {
            sockets.push((format!("admin {address}"), socket.try_clone()?));
        }
        Ok(sockets)
    }
}

/// How a process ended that has closed its end of the line; one that stays all the same is killed.
fn end_of(child: &mut Child) -> String {
    for _ in 0..ENDS_WITHIN {
        match child.try_wait() {
            Ok(None) => thread::sleep(LOOK_EVERY),
            Ok(Some(status)) => {
                return format!("the new process ended, {status}; the log says why");
            }
            Err(error) => return error.to_string(),
        }
    }
    // It may have ended by itself.
    let _killed = child.kill();
    let _ended = child.wait();
    "the new process hung up, and was ended".to_owned()
}

fn answer(asked: Option<oneshot::Sender<Verdict>>, verdict: Verdict) {
    if let Some(asked) = asked {
        // Whoever asked may have gone.
        let _told = asked.send(verdict);
    }
}

impl Plan {
    /// Returns the id of the process that serves now.
    fn carry_out(&self) -> Result<u32, String> {
        self.check()?;
        let (line, theirs) = handover::pair().map_err(|error| format!("no sockets: {error}"))?;
        let mut child = self.start(theirs)?;
        let handed = self.hand_over(&line);
        let ready = handed.and_then(|()| line.hear(READY_WITHIN));
        let why = match ready {
            Ok(Some((word, _))) if word == "ready" => {
                systemd::main_is(child.id());
                // If it is gone by now, its end is in its log.
                let _gone = line.say("go", None);
                return Ok(child.id());
            }
            Ok(Some((word, _))) => format!("it said {word:?}"),
            Ok(None) => return Err(end_of(&mut child)),
            // It left before it had heard everything.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
            {
                return Err(end_of(&mut child));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                format!("it did not serve within {READY_WITHIN:?}")
            }
            Err(error) => error.to_string(),
        };
        // It may have ended by itself.
        let _killed = child.kill();
        let _ended = child.wait();
        Err(format!("the new process was given up: {why}"))
    }

    /// Has the new binary judge the configuration, so that what is wrong with it can be told.
    fn check(&self) -> Result<(), String> {
        let mut command = Command::new(&self.binary);
        let checked = command.arg("check").arg("-c").arg(&self.file).stdin(Stdio::null()).output();
        let binary = self.binary.display();
        let checked = checked.map_err(|error| format!("{binary} does not start: {error}"))?;
        if checked.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&checked.stderr);
        Err(if said.trim().is_empty() {
            format!("{binary} check: {}", checked.status)
        } else {
            said.trim().to_owned()
        })
    }

    fn start(&self, line: OwnedFd) -> Result<Child, String> {
        let mut command = Command::new(&self.binary);
        command
            .args(["run", "--take-over", "-c"])
            .arg(&self.file)
            .stdin(Stdio::from(line))
            // These speak of this process.
            .env_remove("WATCHDOG_PID")
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES");
        command
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", self.binary.display()))
    }

    fn hand_over(&self, line: &handover::Line) -> std::io::Result<()> {
        for (word, socket) in &self.sockets {
            line.say(word, Some(socket.as_fd()))?;
        }
        line.say("end", None)
    }
}
