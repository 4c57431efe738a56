//! The builds of Next.js on the disk: what they say of themselves, and their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::{self, Public};
use crate::exchange::{Fault, Response};
use crate::files::{Files, Wanted};
use crate::next::{self, Build, Manifests};

/// Every build that sites were given; outlives a reload.
#[derive(Default)]
pub struct Builds(Mutex<Vec<Arc<Built>>>);

/// One `.next` folder.
pub struct Built {
    folder: PathBuf,
    facts: ArcSwap<Facts>,
}

struct Facts {
    build: Build,
    /// When the build that was read was made; a deploy changes it.
    stamp: Option<SystemTime>,
}

/// How long a deploy in place may go unnoticed.
const EVERY: Duration = Duration::from_secs(2);

/// A manifest of this size is none.
const MANIFEST_MAX: u64 = 32 << 20;

impl Builds {
    pub fn built(&self, folder: &Path) -> Arc<Built> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of configurations that are gone.
        all.retain(|built| Arc::strong_count(built) > 1);
        let known = all.iter().find(|built| built.folder == folder);
        known.cloned().unwrap_or_else(|| {
            let facts = ArcSwap::from_pointee(Facts::read(folder));
            let built = Arc::new(Built { folder: folder.to_owned(), facts });
            all.push(Arc::clone(&built));
            built
        })
    }

    /// Reads what was built anew, for ever; on the main thread.
    pub async fn watch(self: Arc<Self>) {
        loop {
            sleep(EVERY).await;
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for built in all.iter().filter(|built| !built.is_fresh()) {
                built.facts.store(Arc::new(Facts::read(&built.folder)));
                info!(build = %built.folder.display(), "another build of the application");
            }
        }
    }
}

impl Built {
    /// Calls `look` with what is known of the build.
    pub fn with<T>(&self, look: impl FnOnce(&Build) -> T) -> T {
        look(&self.facts.load().build)
    }

    /// False once another build is in its place.
    pub fn is_fresh(&self) -> bool {
        self.facts.load().stamp == stamp(&self.folder)
    }
}

impl Facts {
    fn read(folder: &Path) -> Self {
        // Before what it stamps: a build that ends meanwhile is seen the next time.
        let stamp = stamp(folder);
        let text = |name: &str| {
            let path = folder.join(name);
            let is_small = path.metadata().is_ok_and(|meta| meta.len() <= MANIFEST_MAX);
            fs::read_to_string(path).ok().filter(|_| is_small)
        };
        tell_of_holes(folder);
        let build = Build::parse(&Manifests {
            routes: text("routes-manifest.json"),
            images: text("images-manifest.json"),
            actions: text("server/server-reference-manifest.json"),
            required: text("required-server-files.json"),
            middleware: text("server/middleware-manifest.json"),
            functions: text("server/functions-config-manifest.json"),
        });
        Self { build, stamp }
    }
}

/// What stands in front of an old application cannot mend it.
fn tell_of_holes(folder: &Path) {
    let package = folder.with_file_name("node_modules/next/package.json");
    let Ok(text) = fs::read_to_string(package) else { return };
    if let Some(version) = next::version(&text).filter(|version| next::is_holed(version)) {
        let build = folder.display();
        warn!(%build, version, "this Next.js has holes that are known: update it");
    }
}

fn stamp(folder: &Path) -> Option<SystemTime> {
    folder.join("BUILD_ID").metadata().and_then(|meta| meta.modified()).ok()
}

/// The files of a build, and of those before it.
pub struct Assets {
    pub built: Arc<Built>,
    statics: Vec<Files>,
    workers: Files,
    public: Files,
    policy: Public,
}

const FOREVER: &str = "public, max-age=31536000, immutable";
const AGAIN: &str = "public, max-age=0, must-revalidate";
const PUBLIC: &str = "public, max-age=0";

impl Assets {
    pub fn compile(words: &config::Build, builds: &Builds) -> Self {
        let built = builds.built(&words.path);
        let folders = std::iter::once(&words.path).chain(&words.keep);
        let base = built.with(|build| build.base.clone());
        let scope = HeaderValue::try_from(if base.is_empty() { "/" } else { &base });
        let scope = scope.unwrap_or_else(|_| HeaderValue::from_static("/"));
        let workers = Files::plain(words.path.join("static"), AGAIN);
        Self {
            statics: folders.map(|path| Files::plain(path.join("static"), FOREVER)).collect(),
            workers: workers.with("service-worker-allowed", scope),
            public: Files::plain(words.path.with_file_name("public"), PUBLIC),
            policy: words.public,
            built,
        }
    }

    /// The file that is asked for, if it is one of the build's.
    ///
    /// What is missing may be another build's, whose application answers then.
    pub fn look(&self, wanted: &Wanted<'_>) -> Result<Option<Response>, Fault> {
        let (base, plain) = self.built.with(|build| (build.base.clone(), build.plain_public));
        let Some(path) = wanted.path.strip_prefix(base.as_str()) else { return Ok(None) };
        let below = |path| Wanted { path, ..*wanted };
        if let Some(rest) = path.strip_prefix("/_next/static").filter(|rest| rest.starts_with('/'))
        {
            if rest.starts_with("/service-worker/") {
                return self.workers.look(&below(rest));
            }
            for files in &self.statics {
                if let Some(response) = files.look(&below(rest))? {
                    return Ok(Some(response));
                }
            }
            return Ok(None);
        }
        let is_public = match self.policy {
            Public::Auto => plain,
            Public::Always => true,
            Public::Never => false,
        };
        if !is_public || path.starts_with("/_next/") || path.ends_with('/') || path.is_empty() {
            return Ok(None);
        }
        self.public.look(&below(path))
    }
}
