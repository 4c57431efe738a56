//! Read, check, compile, install; or say why not.

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::admin::Verdict;
use crate::admin::history::What;
use crate::config;
use crate::hub;
use crate::observe::{log, metrics};
use crate::snapshot::Snapshot;
use crate::tls::{self, Look};
use crate::worker::Command;

use super::{Service, Stop, compile, install_lines, level, systemd, vitals};

impl Service {
    /// Reloads and tells whoever asked over the admin listener.
    pub(super) async fn reload_for(&mut self, answer: oneshot::Sender<Verdict>) {
        let verdict = self.reload().await;
        // Whoever asked may have gone.
        let _told = answer.send(verdict);
    }

    /// Takes the file as it is now. If anything is wrong with it, nothing changes.
    pub(super) async fn reload(&mut self) -> Verdict {
        systemd::reloading();
        let verdict = match self.take_file().await {
            Ok((notes, changes)) => {
                let status = self.status();
                info!("reloaded: {status}");
                for change in changes.iter().take(CHANGES_LOGGED) {
                    info!("{change}");
                }
                if let Some(more) =
                    changes.len().checked_sub(CHANGES_LOGGED).filter(|more| *more > 0)
                {
                    info!("and {more} more changes");
                }
                for note in &notes {
                    warn!("{note}");
                }
                systemd::ready(&status);
                self.verdict(true, notes, changes)
            }
            Err(stop) => {
                let why = stop.to_string();
                error!("not reloaded, the running configuration stays: {why}");
                let first = why.lines().nth(1).or(why.lines().next()).unwrap_or_default();
                systemd::ready(&format!(
                    "not reloaded, generation {} stays: {first}",
                    self.generation()
                ));
                self.verdict(false, why.lines().map(str::to_owned).collect(), Vec::new())
            }
        };
        let lines = [&verdict.notes[..], &verdict.changes].concat();
        self.history.note(What::Reload, verdict.installed, verdict.generation, &lines);
        let word = if verdict.installed { "installed" } else { "refused" };
        metrics::series(&metrics::RELOADS, &[word]).increment();
        verdict
    }

    fn verdict(&self, installed: bool, notes: Vec<String>, changes: Vec<String>) -> Verdict {
        Verdict { installed, generation: self.generation(), notes, changes }
    }

    /// Tells what a reload would change, or why it could not.
    pub(super) fn diff_for(&self, answer: oneshot::Sender<Verdict>) {
        let verdict = match self.compiled() {
            Ok((next, notes, _)) => self.verdict(true, notes, changes(&self.current.load(), &next)),
            Err(stop) => {
                let why = stop.to_string().lines().map(str::to_owned).collect();
                self.verdict(false, why, Vec::new())
            }
        };
        // Whoever asked may have gone.
        let _told = answer.send(verdict);
    }

    /// With what the certificate files were before they were read.
    fn compiled(&self) -> Result<(Snapshot, Vec<String>, Look), Stop> {
        let config = config::load(&self.file)?;
        let seen = tls::look(&tls::files(&config));
        let before = self.current.load();
        let notes = restart_notes(before.config(), &config);
        let next = compile(config, before.generation() + 1, &self.resident, &self.file)?;
        Ok((next, notes, seen))
    }

    pub(super) fn generation(&self) -> u64 {
        self.current.load().generation()
    }

    /// Everything that can fail comes first; from `install` on nothing can.
    async fn take_file(&mut self) -> Result<(Vec<String>, Vec<String>), Stop> {
        let (next, notes, seen) = self.compiled()?;
        let changes = changes(&self.current.load(), &next);
        let gone = self.listeners.change(&next.config().listen)?;
        if self.listeners.any_https() {
            self.resident.tickets.keep_in(&next.config().state);
        }
        log::set_level(level(next.config().log.level));
        install_lines(&next.config().log);
        let hub = next.hub().cloned();
        self.install(next, seen);
        self.resident.hub.install(hub).await;
        metrics::series(&metrics::GENERATION, &[]).increment();
        self.retry.notify_one();
        self.desk.probe(self.current.load().auth().providers().to_vec());
        let opened = self.listeners.take_new();
        self.hand_out(opened).await;
        for (scheme, address) in gone {
            for worker in &self.workers {
                worker.tell(Command::Unlisten(scheme, address)).await;
            }
        }
        Ok((notes, changes))
    }

    fn install(&mut self, next: Snapshot, seen: Look) {
        tls::show(next.certificates());
        vitals::installed();
        self.current.install(next);
        self.resident.registry.show();
        self.certificates_taken(seen, None);
    }

    /// Takes the certificates that have changed, under the configuration in force, and nothing else
    /// anew. If anything is wrong with them, the last good ones are served.
    pub(super) fn take_certificates(&mut self) {
        let before = self.current.load();
        let seen = tls::look(&tls::files(before.config()));
        let file = &self.file;
        let next = before.with_certificates(&self.resident);
        match next.map_err(|error| Stop::Compile { file: file.clone(), error }) {
            Ok(next) => {
                info!(certificates = next.certificates().all().len(), "certificates have changed");
                let lines = next.certificates().changes(before.certificates());
                self.history.note(What::Certificates, true, before.generation(), &lines);
                self.install(next, seen);
            }
            Err(stop) => {
                error!("certificates have changed, and the last good ones stay: {stop}");
                let lines: Vec<_> = stop.to_string().lines().map(str::to_owned).collect();
                self.history.note(What::Certificates, false, before.generation(), &lines);
                self.certificates_taken(seen, Some(stop.to_string()));
            }
        }
    }

    fn certificates_taken(&mut self, seen: Look, refused: Option<String>) {
        self.watch.taken(seen, refused.is_some());
        metrics::series(&metrics::CERTIFICATES_STALE, &[]).set(i64::from(refused.is_some()));
        *self.complaint.borrow_mut() = refused;
    }
}

/// More would hide what else is logged; `vestibule diff` and `vestibule reload` tell them all.
const CHANGES_LOGGED: usize = 20;

/// What differs: the configuration, then the certificates; and which sockets of the hub it ends.
fn changes(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut lines = before.config().changes(after.config());
    lines.extend(after.certificates().changes(before.certificates()));
    lines.extend(hub::sent_away(before.hub(), after.hub()));
    lines
}

/// What the file says that only a restart brings about.
fn restart_notes(before: &config::Config, after: &config::Config) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |changed: bool, key: &str| {
        if changed {
            notes.push(format!("{key} takes effect at the next restart"));
        }
    };
    note(before.workers != after.workers, "workers");
    note(before.state != after.state, "state");
    let address =
        |config: &config::Config| config.listen.admin.as_ref().map(|admin| admin.address.clone());
    note(address(before) != address(after), "listen.admin");
    note(before.metrics != after.metrics, "metrics.prometheus");
    let redis = |config: &config::Config| {
        let redis = config.hub.as_ref().and_then(|hub| hub.redis.as_ref());
        redis.map(config::Redis::identity)
    };
    note(redis(before) != redis(after), "hub.redis");
    note(before.log.format != after.log.format, "log.format");
    notes
}
