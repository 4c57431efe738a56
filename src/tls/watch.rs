//! Tells when certificate files change, by looking; works on every file system.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A look is a few calls for each file.
const EVERY: Duration = Duration::from_secs(1);
/// How often files that could not be taken are tried again, as they are.
const AGAIN: Duration = Duration::from_secs(60);

/// What one look saw of each file: its name, when it was written, its size, and which it is.
pub type Look = Vec<(PathBuf, i64, i64, u64, u64)>;

/// Watches files and folders.
pub struct Watch {
    next: Instant,
    /// What was there when the certificates in force were read.
    taken: Look,
    /// What the last look saw, if it differs.
    fresh: Option<Look>,
    /// When files that were refused are tried again.
    retry: Option<Instant>,
}

impl Watch {
    /// From here on these are the files in force.
    pub fn new(paths: &[PathBuf]) -> Self {
        let next = Instant::now() + EVERY;
        Self { next, taken: look(paths), fresh: None, retry: None }
    }

    /// What a look saw, before the files were read, is in force, or was refused. What has changed
    /// since is seen by the next look.
    pub fn taken(&mut self, seen: Look, refused: bool) {
        self.taken = seen;
        self.fresh = None;
        self.retry = refused.then(|| Instant::now() + AGAIN);
    }

    /// Resolves when it is time for the next `look`.
    pub async fn due(&self) {
        sleep_until(self.next).await;
    }

    /// True if the files differ from those in force, and have not changed since the last look:
    /// whoever writes a certificate and its key is likely done.
    pub fn look(&mut self, paths: &[PathBuf]) -> bool {
        self.next = Instant::now() + EVERY;
        let now = look(paths);
        if now == self.taken {
            self.fresh = None;
            return self.retry.is_some_and(|retry| retry <= Instant::now());
        }
        let settled = self.fresh.as_ref() == Some(&now);
        self.fresh = Some(now);
        settled
    }
}

/// What is there now. To be asked before the files are read.
pub fn look(paths: &[PathBuf]) -> Look {
    let mut seen = Vec::new();
    for path in paths {
        see(path, 2, &mut seen);
    }
    seen.sort();
    seen
}

/// Follows links, as whoever reads the files does.
fn see(path: &Path, depth: usize, seen: &mut Look) {
    let Ok(facts) = fs::metadata(path) else { return };
    if facts.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        if depth > 0 {
            entries.for_each(|entry| see(&entry.path(), depth - 1, seen));
        }
        return;
    }
    seen.push((path.to_owned(), facts.mtime(), facts.mtime_nsec(), facts.size(), facts.ino()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_it_rests() {
        let folder = std::env::temp_dir().join(format!("vestibule-watch-{}", std::process::id()));
        fs::create_dir_all(folder.join("a")).expect("a folder");
        fs::write(folder.join("a/x.pem"), "1").expect("written");
        let paths = [folder.clone(), folder.join("absent")];
        let mut watch = Watch::new(&paths);
        assert!(!watch.look(&paths) && !watch.look(&paths));
        fs::write(folder.join("a/x.pem"), "22").expect("written");
        assert!(!watch.look(&paths), "it may still be written to");
        fs::write(folder.join("y.pem"), "3").expect("written");
        assert!(!watch.look(&paths), "it is");
        assert!(watch.look(&paths));
        watch.taken(look(&paths), false);
        assert!(!watch.look(&paths) && !watch.look(&paths));
        // One that changes after the look, while the files are read, is no less a change.
        let seen = look(&paths);
        fs::write(folder.join("a/x.pem"), "333").expect("written");
        watch.taken(seen, false);
        assert!(!watch.look(&paths) && watch.look(&paths));
        watch.taken(look(&paths), false);
        fs::remove_file(folder.join("y.pem")).expect("removed");
        assert!(!watch.look(&paths));
        assert!(watch.look(&paths));
        fs::remove_dir_all(folder).expect("removed");
    }
}
