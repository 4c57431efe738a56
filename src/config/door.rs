//! Who may come to a route: users of `auth`, whoever has a password, or whom another server lets
//! in; pure.

use std::time::Duration;

use super::admin_ui::check_hash;
use super::section::Section;
use super::units::deadline;
use super::yaml::Yaml;
use super::{Balance, Health, Keep, NamespaceAuth, Secret, Target, Upstream, UpstreamTls, sites};

/// Between two looks at a server that decides, and how long one may take.
const WATCH: Duration = Duration::from_secs(2);
/// As `htpasswd` makes them by itself, up to those that take seconds.
const COSTS: std::ops::RangeInclusive<u8> = 5..=14;

/// Whom a route is for.
#[derive(Debug, Clone)]
pub enum RouteAuth {
    /// Whom a provider of `auth` knows.
    Users {
        by: Vec<String>,
        /// Where pages are sent whose visitor is nobody.
        login: Option<String>,
    },
    Basic(Basic),
    Forward(Forward),
}

/// Names and passwords that open a route (RFC 7617).
#[derive(Debug, Clone)]
pub struct Basic {
    /// As it was written.
    pub file: Secret,
    /// Hashes of bcrypt by name.
    pub users: Vec<(String, Secret)>,
    pub realm: String,
}

/// Another server is asked about each request.
#[derive(Debug, Clone)]
pub struct Forward {
    pub target: Target,
    pub path: String,
    /// Headers of its answer that the application is told; nobody else may send them.
    pub headers: Vec<String>,
    /// Headers of an answer that lets a client in which the client is told.
    pub client_headers: Vec<String>,
    pub timeout: Duration,
}

/// What `auth` and `basic` of a route say.
pub fn read(route: &Section<'_>, providers: &[&str]) -> Option<RouteAuth> {
    if let (Some(_), Some(basic)) = (route.written("auth"), route.written("basic")) {
        basic.refuse_key("cannot stand beside auth; a route has one door");
    }
    if route.written("basic").is_some() {
        return Some(RouteAuth::Basic(basic(&route.section("basic"))));
    }
    route.written("auth")?;
    let section = route.section("auth");
    if section.written("forward").is_none() {
        return Some(users(&section, providers));
    }
    for key in ["by", "login"] {
        section.written(key).inspect(|field| field.refuse_key("has no meaning beside forward"));
    }
    forward(&section.section("forward")).map(RouteAuth::Forward)
}

fn users(section: &Section<'_>, providers: &[&str]) -> RouteAuth {
    let login = section.get("login", sites::url_path);
    if section.written("by").is_none() {
        section.refuse_lack("has no by, so it would be for nobody; write a provider's name");
    }
    let by = match super::hub::auth(section, "by", providers) {
        NamespaceAuth::Users(names) => names,
        NamespaceAuth::Anyone => {
            let open = section.written("by").filter(|field| field.is_word("none"));
            open.inspect(|field| field.refuse("is everybody, as without auth; remove it"));
            Vec::new()
        }
    };
    RouteAuth::Users { by, login }
}

fn basic(section: &Section<'_>) -> Basic {
    if section.written("users").is_none() {
        section.refuse_lack("has no users; write file:PATH");
    }
    let read = section.field("users", |field| {
        let file = field.read_secret()?;
        let users = htpasswd(file.expose()).map_err(|what| field.refuse(what)).ok()?;
        Some((file, users))
    });
    let (file, users) =
        read.flatten().unwrap_or_else(|| (Secret::new(String::new(), None), Vec::new()));
    Basic { file, users, realm: section.value("realm", realm) }
}

/// Lines `NAME:HASH`. Neither prints.
fn htpasswd(text: &str) -> Result<Vec<(String, Secret)>, String> {
    const USERS_MAX: usize = 10_000;
    let mut users: Vec<(String, Secret)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, hash) = line
            .split_once(':')
            .ok_or_else(|| format!("line {number} is no NAME:HASH; make it: htpasswd -B"))?;
        if name.is_empty() || name.len() > 256 || name.chars().any(char::is_control) {
            return Err(format!("line {number} has no name that can be sent"));
        }
        check_hash(hash, COSTS).map_err(|what| format!("line {number} {what}"))?;
        if users.iter().any(|(known, _)| known == name) {
            return Err(format!("line {number} has a name that is there before"));
        }
        users.push((name.to_owned(), Secret::new(hash.to_owned(), None)));
    }
    match users.len() {
        0 => Err("has nobody in it; make it: htpasswd -B".to_owned()),
        1..=USERS_MAX => Ok(users),
        many => Err(format!("has {many} names; up to {USERS_MAX} are read")),
    }
}

/// What stands between quotes in a header (RFC 9110 §5.6.4).
fn realm(text: &str) -> Result<String, String> {
    let plain =
        |byte: u8| (byte == b' ' || byte.is_ascii_graphic()) && byte != b'"' && byte != b'\\';
    if text.is_empty() || !text.bytes().all(plain) {
        return Err(format!("{text:?} cannot be shown; letters without quotes can"));
    }
    Ok(text.to_owned())
}

fn forward(section: &Section<'_>) -> Option<Forward> {
    if section.written("url").is_none() {
        section.refuse_lack("has no url; write http://HOST:PORT/PATH");
    }
    let folder = section.folder();
    let url = section.get("url", |text| {
        let at =
            text.find("://").map(|at| at + 3).and_then(|at| Some(at + text.get(at..)?.find('/')?));
        let (origin, path) = at.and_then(|at| text.split_at_checked(at)).unwrap_or((text, "/"));
        Ok((Target::parse(origin, folder)?, sites::url_path(path)?))
    });
    let headers = section.list("headers", header);
    let client_headers = section.list("client_headers", client_header);
    let timeout = section.value("timeout", deadline);
    let (target, path) = url?;
    Some(Forward { target, path, headers, client_headers, timeout })
}

/// One that another server may write, and that is not about the connection or the body.
fn header(text: &str) -> Result<String, String> {
    const OURS: [&str; 10] = [
        "connection",
        "content-length",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let name = text.to_ascii_lowercase();
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || !name.bytes().all(letter) {
        return Err(format!("{text:?} is no header; write remote-user"));
    }
    if OURS.contains(&name.as_str())
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-vestibule-")
    {
        return Err(format!("{text:?} is the edge's own to write; write remote-user"));
    }
    Ok(name)
}

/// One that may stand in another server's answer, and that is not about the connection or the body.
fn client_header(text: &str) -> Result<String, String> {
    let name = header(text)?;
    if name.starts_with("content-") || name == "location" || name == "alt-svc" {
        return Err(format!("{text:?} is of the answer itself; write set-cookie"));
    }
    Ok(name)
}

impl Forward {
    /// Who is asked, as one of the servers that requests are sent to.
    pub fn upstream(&self) -> Upstream {
        Upstream {
            targets: vec![self.target.clone()],
            balance: Balance::Least,
            health: Health {
                path: None,
                statuses: Vec::new(),
                every: WATCH,
                timeout: WATCH,
                rise: 1,
                fall: 1,
            },
            // Whoever waits for a word waits no longer than for the answer.
            hold: None,
            eject: None,
            slow_start: Duration::ZERO,
            max: None,
            keep: Keep { idle: 64, lasts: Duration::from_secs(4) },
            tls: UpstreamTls::default(),
            head: usize::MAX,
        }
    }
}

impl RouteAuth {
    /// Its keys in the route that it belongs to.
    pub fn yaml(&self, route: Yaml) -> Yaml {
        match self {
            Self::Users { by, login } => {
                let by = Yaml::map([("by", Yaml::texts(by))]);
                route.with("auth", Some(by.with("login", login.as_ref().map(Yaml::text))))
            }
            Self::Basic(basic) => route.with(
                "basic",
                Some(Yaml::map([
                    ("users", Yaml::raw(basic.file.written())),
                    ("realm", Yaml::text(&basic.realm)),
                ])),
            ),
            Self::Forward(forward) => {
                let url = format!("{}{}", forward.target, forward.path);
                let words = Yaml::map([
                    ("url", Yaml::text(url)),
                    ("headers", Yaml::texts(&forward.headers)),
                    ("client_headers", Yaml::texts(&forward.client_headers)),
                    ("timeout", Yaml::text(super::units::show_duration(forward.timeout))),
                ]);
                route.with("auth", Some(Yaml::map([("forward", words)])))
            }
        }
    }
}
