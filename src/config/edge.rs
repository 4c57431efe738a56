//! What a site and its routes do themselves, besides passing on: data.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::HostPattern;
use super::glob::Glob;
use super::units::Cidr;

/// What a request must have besides its path for a route to be meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct When {
    /// Hosts of a site that answers for several; none is all.
    pub hosts: Vec<HostPattern>,
    /// Methods in capitals; none is all.
    pub methods: Vec<String>,
    /// Names in lower case.
    pub headers: Vec<(String, Glob)>,
    pub cookies: Vec<(String, Glob)>,
    pub query: Vec<(String, Glob)>,
}

impl When {
    /// True if the path alone decides.
    pub fn is_always(&self) -> bool {
        *self == Self::default()
    }
}

/// A part of the clients, who stay in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Of ten thousand.
    pub of: u16,
    /// Keeps the lot that a client has drawn.
    pub cookie: String,
    pub lasts: Duration,
}

/// How the path that is asked for differs from the one that came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Removed from the front.
    pub strip: Option<String>,
    /// Put before what is left.
    pub prefix: Option<String>,
}

/// Headers that are changed, in this order: removed, set, added. Names are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderRules {
    pub remove: Vec<String>,
    pub set: Vec<(String, String)>,
    pub add: Vec<(String, String)>,
}

/// Strict-Transport-Security (RFC 6797).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hsts {
    pub max_age: Duration,
    pub subdomains: bool,
    pub preload: bool,
}

/// What pages of other origins may read (the Fetch standard's CORS protocol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// `https://app.example.com`, `https://*.example.com`, or `*`.
    pub origins: Vec<String>,
    pub methods: Vec<String>,
    /// `*` is whatever a page asks for.
    pub headers: Vec<String>,
    /// What its scripts may read of a response.
    pub expose: Vec<String>,
    pub credentials: bool,
    pub max_age: Duration,
}

/// Whom a route is for, by address. `deny` goes before `allow`; no `allow` is everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    pub allow: Vec<Cidr>,
    pub deny: Vec<Cidr>,
}

impl Addresses {
    pub fn admits(&self, address: IpAddr) -> bool {
        let is_in = |blocks: &[Cidr]| blocks.iter().any(|block| block.contains(address));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}

/// While the file is there, everybody gets the page.
#[derive(Debug, Clone)]
pub struct Maintenance {
    pub file: PathBuf,
    pub page: Option<Page>,
    /// These see the site as it is.
    pub allow: Vec<Cidr>,
    /// When clients may ask again.
    pub retry: Duration,
}

/// An HTML page of the operator's, read with the configuration.
#[derive(Debug, Clone)]
pub struct Page {
    pub path: PathBuf,
    pub html: Arc<str>,
}

/// What the edge answers with when it answers itself.
#[derive(Debug, Clone)]
pub struct ErrorPage {
    /// The status, or the hundred: 4 of 4xx.
    pub status: u16,
    pub page: Page,
}

/// A folder that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub root: PathBuf,
    /// Answers for folders, the first that is there.
    pub index: Vec<String>,
    /// Answers where nothing else is.
    pub fallback: Option<String>,
    /// How long browsers may use a file without asking.
    pub cache: Duration,
    pub immutable: bool,
}

/// What Next.js has built, whose files are served from the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The `.next` folder.
    pub path: PathBuf,
    pub public: Public,
    /// Folders of builds before, whose pages are still open somewhere.
    pub keep: Vec<PathBuf>,
}

/// Whether the files of `public/` are served from the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Public {
    /// If nothing of the application's stands before them.
    Auto,
    Always,
    Never,
}
