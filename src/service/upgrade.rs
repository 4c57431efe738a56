//! Hands the process over to another binary: check, hand the sockets over, wait until it serves.
//!
//! If anything goes wrong before that, nothing has happened.

use std::future::pending;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info};

use crate::admin::Verdict;
use crate::admin::history::What;
use crate::hub::{Bridge, Entrance, Hub, Role};
use crate::worker::Command;

use super::handover::Door;
use super::{Service, handover, listeners, systemd};

/// A process that does not serve after this long is given up.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A process that is hurried lets its clients go within a few seconds.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// How often it is looked whether a process that hung up has ended, and how many times.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const ENDS_WITHIN: u32 = 100;

/// What the next process is told, most often of a socket that comes with it.
type Word = (String, Option<OwnedFd>);

/// What the next process is started with.
struct Plan {
    binary: PathBuf,
    file: PathBuf,
    words: Vec<Word>,
    hub: Arc<Hub>,
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
        let words = match self.words().await {
            Ok(words) => words,
            Err(error) => return self.not_upgraded(&format!("no sockets: {error}"), asked),
        };
        info!(binary = %self.binary.display(), "upgrading");
        let (binary, hub) = (self.binary.clone(), Arc::clone(&self.resident.hub));
        let plan = Plan { binary, file: self.file.clone(), words, hub };
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
    async fn words(&mut self) -> std::io::Result<Vec<Word>> {
        let mut words = self.sockets()?;
        if !self.node_sockets.is_empty() {
            words.push((self.door().await?.word(), None));
        }
        let hub = &self.resident.hub;
        if hub.bridges() {
            let (ours, theirs) = handover::hub_pair()?;
            self.bridge = Some(hub.bridge(ours, (Role::Old, None), &self.drain).await?);
            words.push((format!("hub {}", hub.name().unwrap_or_default()), Some(theirs)));
        }
        Ok(words)
    }

    fn sockets(&self) -> std::io::Result<Vec<Word>> {
        let mut sockets = Vec::new();
        for (scheme, configured, socket) in self.listeners.kept() {
            let word = format!("socket {} {configured}", scheme.as_str());
            sockets.push((word, Some(socket.as_fd().try_clone_to_owned()?)));
        }
        for (configured, socket) in &self.node_sockets {
            let socket = socket.as_fd().try_clone_to_owned()?;
            sockets.push((format!("nodes {configured}"), Some(socket)));
        }
        if let Some((address, socket)) = &self.admin_socket {
            sockets.push((format!("admin {address}"), Some(socket.try_clone()?)));
        }
        Ok(sockets)
    }

    /// Where this process takes what other nodes bring for its sessions to the other process at its
    /// address; open from the first upgrade on.
    pub(super) async fn door(&mut self) -> std::io::Result<Door> {
        let node = self.resident.hub.node().to_owned();
        let address = match &self.door {
            Some(address) => address.clone(),
            None => {
                let opened = listeners::bind_door(self.workers.len())?;
                let address = opened.address.to_string();
                for (worker, socket) in self.workers.iter().zip(opened.sockets) {
                    worker.tell(Command::Neighbours(socket, Entrance::Door)).await;
                }
                self.door.insert(address).clone()
            }
        };
        Ok(Door { node, address })
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
        let ready = self.hand_over(&line).and_then(|()| self.hear(&line));
        let why = match ready {
            Ok(Some(word)) if word == "ready" => {
                systemd::main_is(child.id());
                // If it is gone by now, its end is in its log.
                let _gone = line.say("go", None);
                return Ok(child.id());
            }
            Ok(Some(word)) => format!("it said {word:?}"),
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
        let mut command = Process::new(&self.binary);
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
        let mut command = Process::new(&self.binary);
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
        for (word, socket) in &self.words {
            line.say(word, socket.as_ref().map(AsFd::as_fd))?;
        }
        line.say("end", None)
    }

    /// The next word that is not about its door.
    fn hear(&self, line: &handover::Line) -> std::io::Result<Option<String>> {
        loop {
            let Some((word, _)) = line.hear(READY_WITHIN)? else { return Ok(None) };
            let Some(door) = Door::parse(&word) else { return Ok(Some(word)) };
            self.hub.meet(&door.node, &door.address);
            line.say("heard", None)?;
        }
    }
}
