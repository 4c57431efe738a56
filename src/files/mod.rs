//! Answers with files of a folder.
//!
//! Files are read by the worker itself, a piece at a time: what is served often is in the kernel's
//! memory. A folder on a network would make its neighbours wait.

mod body;
mod conditional;
mod encoding;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod place;
mod ranges;
mod types;

use std::collections::VecDeque;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::config;
use crate::exchange::{Body, Fault, Response, Side};

use body::Part;
use conditional::{Outcome, Validators, judge};
use encoding::Encoding;
use place::Place;

/// A folder that is served.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    index: Vec<String>,
    fallback: Option<String>,
    cache: HeaderValue,
    /// What else every file says.
    header: Option<(HeaderName, HeaderValue)>,
}

/// What of a request is answered from the disk.
pub struct Wanted<'a> {
    pub method: &'a Method,
    /// Below the folder: canonical, begins with a slash.
    pub path: &'a str,
    /// As it was asked for, for a redirect to a folder's own address.
    pub whole: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
}

const NOT_FOUND: Fault = Fault::new(404, Side::Client, "no_file");
/// The process has as many files and sockets open as it may.
pub const OUT_OF_FILES: Fault = Fault::new(503, Side::Edge, "out_of_files").after(1);
const UNREADABLE: Fault = Fault::new(500, Side::Edge, "unreadable_file");

/// A file that is there, open.
struct Found {
    file: File,
    length: u64,
    modified: SystemTime,
    path: PathBuf,
}

impl Files {
    pub fn compile(words: &config::Files) -> Self {
        Self {
            root: words.root.clone(),
            index: words.index.clone(),
            fallback: words.fallback.clone(),
            cache: cache_control(words.cache, words.immutable),
            header: None,
        }
    }

    /// Files alone, without an answer for folders.
    pub fn plain(root: PathBuf, cache: &'static str) -> Self {
        let cache = HeaderValue::from_static(cache);
        Self { root, index: Vec::new(), fallback: None, cache, header: None }
    }

    /// As `plain`, and with a header of its own.
    pub fn with(self, name: &'static str, value: HeaderValue) -> Self {
        Self { header: Some((HeaderName::from_static(name), value)), ..self }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that is asked for, a 405, or why there is none: 404 `no_file`, 503 `out_of_files`, or
    /// 500 if the disk fails.
    pub fn answer(&self, wanted: &Wanted<'_>) -> Result<Response, Fault> {
        if !self.takes(wanted.method) {
            let mut response = Fault::new(405, Side::Client, "no_method").response();
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(response);
        }
        match self.look(wanted)? {
            Some(response) => Ok(response),
            None => Err(NOT_FOUND),
        }
    }

    /// As `answer`; `None` where another may have it.
    pub fn look(&self, wanted: &Wanted<'_>) -> Result<Option<Response>, Fault> {
        if !self.takes(wanted.method) {
            return Ok(None);
        }
        let failed =
            |error: io::Error| if is_exhausted(&error) { OUT_OF_FILES } else { UNREADABLE };
        let Some(place) = Place::of(wanted.path) else { return Ok(None) };
        let folder = wanted.whole.ends_with('/');
        let found = match self.open(&place.path).map_err(failed)? {
            Opened::File(found) if !folder => Some(found),
            Opened::Folder => match self.open_index(&place.path).map_err(failed)? {
                Some(_) if !folder => return Ok(Some(to_folder(wanted))),
                found => found,
            },
            _ => None,
        };
        // What is named like a file is one, or missing: a page in its place would be run as it.
        let found = if found.is_none()
            && !place.has_extension()
            && let Some(fallback) = &self.fallback
            && let Opened::File(fallback) = self.open(Path::new(fallback)).map_err(failed)?
        {
            Some(fallback)
        } else {
            found
        };
        found.map(|found| self.send(found, wanted).map_err(failed)).transpose()
    }

    fn takes(&self, method: &Method) -> bool {
        *method == Method::GET || *method == Method::HEAD
    }

    fn open_index(&self, folder: &Path) -> io::Result<Option<Found>> {
        for name in &self.index {
            if let Opened::File(found) = self.open(&folder.join(name))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Opens what is inside of the folder, also through links that stay inside.
    fn open(&self, relative: &Path) -> io::Result<Opened> {
        let path = self.root.join(relative);
        // A pipe would be waited for, so what it is comes first.
        let meta = match path.metadata() {
            Ok(meta) => meta,
            Err(error) if is_absent(&error) => return Ok(Opened::Nothing),
            Err(error) => return Err(error),
        };
        if !(meta.is_file() || meta.is_dir()) || !self.is_inside(relative, &path)? {
            return Ok(Opened::Nothing);
        }
        if meta.is_dir() {
            return Ok(Opened::Folder);
        }
        match File::open(&path) {
            // What is served is what was opened, not what has its name by now.
            Ok(file) => {
                let meta = file.metadata()?;
                let modified = meta.modified().unwrap_or(UNIX_EPOCH);
                Ok(Opened::File(Found { file, length: meta.len(), modified, path }))
            }
            Err(error) if is_absent(&error) => Ok(Opened::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Most paths have no link in them, and need no more than a look at each part.
    fn is_inside(&self, relative: &Path, path: &Path) -> io::Result<bool> {
        let mut part = self.root.clone();
        for name in relative.components() {
            part.push(name);
            if part.symlink_metadata()?.is_symlink() {
                let (whole, root) = (path.canonicalize()?, self.root.canonicalize()?);
                return Ok(whole.starts_with(root));
            }
        }
        Ok(true)
    }

    fn send(&self, found: Found, wanted: &Wanted<'_>) -> io::Result<Response> {
        let kind = types::of(&found.path);
        let (found, encoding, varies) = self.encoded(found, wanted.headers)?;
        let Found { length, modified, .. } = found;
        let validators =
            Validators { etag: etag(modified, length, encoding), modified: seconds(modified) };
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        if let Ok(etag) = HeaderValue::from_str(&validators.etag) {
            headers.insert(header::ETAG, etag);
        }
        if let Ok(modified) = HeaderValue::try_from(httpdate::fmt_http_date(modified)) {
            headers.insert(header::LAST_MODIFIED, modified);
        }
        headers.insert(header::CACHE_CONTROL, self.cache.clone());
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if varies {
            headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        if let Some((name, value)) = &self.header {
            headers.insert(name, value.clone());
        }
        let mut content_type = HeaderValue::from_static(kind);
        let (status, parts) = match judge(wanted.method, wanted.headers, &validators, length) {
            Outcome::Whole => {
                (StatusCode::OK, Some(VecDeque::from([Part::File { at: 0, count: length }])))
            }
            Outcome::Parts(ranges) => {
                let parts = match ranges.as_slice() {
                    [(from, to)] => {
                        let range = HeaderValue::try_from(format!("bytes {from}-{to}/{length}"));
                        headers.extend(range.ok().map(|range| (header::CONTENT_RANGE, range)));
                        VecDeque::from([part(&(*from, *to))])
                    }
                    several => {
                        let (parts, told) = multipart(several, length, kind);
                        content_type = told;
                        parts
                    }
                };
                (StatusCode::PARTIAL_CONTENT, Some(parts))
            }
            Outcome::NotModified => (StatusCode::NOT_MODIFIED, None),
            Outcome::Failed => (StatusCode::PRECONDITION_FAILED, None),
            Outcome::Unsatisfiable => {
                let range = HeaderValue::try_from(format!("bytes */{length}"));
                headers.extend(range.ok().map(|range| (header::CONTENT_RANGE, range)));
                (StatusCode::RANGE_NOT_SATISFIABLE, None)
            }
        };
        if let Some(parts) = parts {
            let count: u64 = parts.iter().map(Part::length).sum();
            headers.insert(header::CONTENT_TYPE, content_type);
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(count));
            if let Some(encoding) = encoding {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.word()));
            }
            if *wanted.method == Method::GET {
                *response.body_mut() = body::of(found.file, parts)?;
            }
        }
        *response.status_mut() = status;
        Ok(response)
    }

    /// The file itself, or one beside it that was compressed before; and whether there are any.
    fn encoded(
        &self,
        found: Found,
        headers: &HeaderMap,
    ) -> io::Result<(Found, Option<Encoding>, bool)> {
        let mut varies = false;
        for encoding in encoding::accepted(headers) {
            let mut path = found.path.clone().into_os_string();
            path.push(encoding.suffix());
            let Ok(relative) = Path::new(&path).strip_prefix(&self.root) else { continue };
            if let Opened::File(beside) = self.open(relative)? {
                return Ok((beside, Some(encoding), true));
            }
        }
        for encoding in Encoding::ALL {
            let mut path = found.path.clone().into_os_string();
            path.push(encoding.suffix());
            varies |= Path::new(&path).is_file();
        }
        Ok((found, None, varies))
    }
}

fn part((from, to): &ranges::Range) -> Part {
    Part::File { at: *from, count: to - from + 1 }
}

/// Several parts as one body, and its type.
fn multipart(all: &[ranges::Range], length: u64, kind: &str) -> (VecDeque<Part>, HeaderValue) {
    // Nobody can put it into a file: it is drawn anew each time.
    let boundary = format!("{:016x}", RandomState::new().hash_one(length));
    let ranges::Multipart { heads, end, content_type } =
        ranges::multipart(all, length, kind, &boundary);
    let text = |text: String| Part::Text(text.into());
    let mut parts: VecDeque<_> =
        heads.into_iter().zip(all).flat_map(|(head, range)| [text(head), part(range)]).collect();
    parts.push_back(text(end));
    let told = HeaderValue::try_from(content_type);
    (parts, told.unwrap_or_else(|_| HeaderValue::from_static("multipart/byteranges")))
}

enum Opened {
    File(Found),
    Folder,
    Nothing,
}

/// What is not there for this client; a name that is too long is no name.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound, PermissionDenied};
    let kinds = [NotFound, NotADirectory, PermissionDenied, InvalidInput, InvalidFilename];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(LOOP)
}

/// `EMFILE` of this process, `ENFILE` of the machine: no more can be opened just now.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// `ELOOP`: links that lead to each other.
const LOOP: i32 = 40;

/// A folder's own address ends in a slash, or what its page names would be looked for beside it.
fn to_folder(wanted: &Wanted<'_>) -> Response {
    let query = wanted.query.map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(location) = HeaderValue::try_from(format!("{}/{query}", wanted.whole)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn cache_control(lasts: Duration, immutable: bool) -> HeaderValue {
    let seconds = lasts.as_secs();
    let end = match (immutable, seconds) {
        (true, _) => ", immutable",
        (false, 0) => ", must-revalidate",
        (false, _) => "",
    };
    let text = format!("public, max-age={seconds}{end}");
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("no-cache"))
}

fn etag(modified: SystemTime, length: u64, encoding: Option<Encoding>) -> String {
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let encoding = encoding.map(|encoding| format!("-{}", encoding.word())).unwrap_or_default();
    format!("\"{:x}-{:x}-{length:x}{encoding}\"", since.as_secs(), since.subsec_nanos())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
