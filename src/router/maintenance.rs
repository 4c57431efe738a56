//! Sites that are closed while a file is there.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::sleep;
use tracing::info;

use crate::config::{self, Cidr};

/// When a site is closed, and what it says then.
pub struct Maintenance {
    flag: Arc<Flag>,
    pub page: Option<Arc<str>>,
    allow: Vec<Cidr>,
    pub retry: HeaderValue,
}

/// Every file that closes a site; outlives a reload.
#[derive(Default)]
pub struct Flags(Mutex<Vec<Arc<Flag>>>);

struct Flag {
    file: PathBuf,
    is_there: AtomicBool,
}

/// How long a site may take to notice.
const EVERY: Duration = Duration::from_millis(500);

impl Maintenance {
    pub fn compile(words: &config::Maintenance, flags: &Flags) -> Self {
        Self {
            flag: flags.flag(&words.file),
            page: words.page.as_ref().map(|page| Arc::clone(&page.html)),
            allow: words.allow.clone(),
            retry: HeaderValue::from(words.retry.as_secs().max(1)),
        }
    }

    /// True for clients that are to wait.
    pub fn closes_for(&self, address: IpAddr) -> bool {
        self.flag.is_there.load(Ordering::Relaxed)
            && !self.allow.iter().any(|block| block.contains(address))
    }
}

impl Flags {
    /// One flag for each file, also when several sites, or generations, go by it.
    fn flag(&self, file: &Path) -> Arc<Flag> {
        let mut flags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of configurations that are gone.
        flags.retain(|flag| Arc::strong_count(flag) > 1);
        if let Some(flag) = flags.iter().find(|flag| flag.file == file) {
            return Arc::clone(flag);
        }
        let is_there = AtomicBool::new(file.exists());
        let flag = Arc::new(Flag { file: file.to_owned(), is_there });
        flags.push(Arc::clone(&flag));
        flag
    }

    /// Looks at the files for ever; on the main thread, since a disk may be slow.
    pub async fn watch(self: Arc<Self>) {
        loop {
            sleep(EVERY).await;
            let flags = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            flags.iter().for_each(|flag| flag.look());
        }
    }
}

impl Flag {
    fn look(&self) {
        let is_there = self.file.exists();
        if self.is_there.swap(is_there, Ordering::Relaxed) != is_there {
            let file = self.file.display();
            if is_there {
                info!(%file, "closed for maintenance");
            } else {
                info!(%file, "open again");
            }
        }
    }
}
