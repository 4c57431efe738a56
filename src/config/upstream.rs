//! `next`, and whatever else names targets, as written → `Upstream`; pure.

use std::path::PathBuf;
use std::time::Duration;

use super::edge_show;
use super::field::Field;
use super::routes;
use super::section::Section;
use super::show::absolute;
use super::sites::url_path;
use super::target::authority;
use super::units::{count, deadline, duration, show_duration, show_size};
use super::validate::{at_least_one, bytes};
use super::yaml::Yaml;

/// A named group of servers that are each as good as the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    pub targets: Vec<Target>,
    pub balance: Balance,
    pub health: Health,
    /// `None`: a request that no target can take fails at once.
    pub hold: Option<Hold>,
    /// `None`: what a target does to requests says nothing about the next ones.
    pub eject: Option<Eject>,
    /// Over this time a target that comes back gets more and more of its share.
    pub slow_start: Duration,
    /// Requests in flight per target, of all workers; `None` is no bound.
    pub max: Option<usize>,
    pub keep: Keep,
    /// For the targets that are `https://`.
    pub tls: UpstreamTls,
    /// Bytes of a request's head that it takes.
    pub head: usize,
}

/// Whom a target must be, and who we are to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Certificates that the target's must come from; `None` is those that the system believes.
    pub ca: Option<PathBuf>,
    /// The name in its certificate; `None` is the target's host.
    pub server_name: Option<String>,
    /// False: whoever answers is believed.
    pub verify: bool,
    /// What a target that asks is shown; both or none.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { ca: None, server_name: None, verify: true, cert: None, key: None }
    }
}

/// One server of the application, spoken to in HTTP/1.1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Host (name or address, IPv6 without brackets) and port.
    Tcp(String, u16),
    /// The same over TLS.
    Tls(String, u16),
    Unix(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// Fewest requests in flight.
    #[default]
    Least,
    /// In turn.
    Round,
    /// The same client at the same target, for as long as that is there.
    Hash,
}

const BALANCES: [(&str, Balance); 3] =
    [("least", Balance::Least), ("round", Balance::Round), ("hash", Balance::Hash)];

/// How a target shows that it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Asked by GET; without it a connection is enough.
    pub path: Option<String>,
    /// Answers that are good: a status, or 2 for all from 200 to 299.
    pub statuses: Vec<u16>,
    pub every: Duration,
    pub timeout: Duration,
    /// Good checks in a row before a target that was down gets requests.
    pub rise: usize,
    /// Bad checks in a row before a target that was up gets none.
    pub fall: usize,
}

/// Requests that wait until a target can take them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub lasts: Duration,
    /// That wait at once, of all workers; more fail at once.
    pub queue: usize,
}

/// A target that fails is passed over for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eject {
    /// Failures in a row.
    pub after: usize,
    /// The first time; doubled each time that it fails again.
    pub lasts: Duration,
    /// The longest.
    pub most: Duration,
    /// Answers that are failures too: a status, or 5 for all from 500 on.
    pub statuses: Vec<u16>,
}

/// How the pictures of Next.js' optimizer are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Requests in flight, for each target.
    pub at_once: usize,
    /// How long others wait for their turn.
    pub wait: Duration,
    /// That wait at once, of all workers.
    pub queue: usize,
    /// The same picture is asked for once for all who want it at the same time.
    pub share: bool,
}

/// Idle connections kept per target and worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    pub idle: usize,
    pub lasts: Duration,
}

/// One that is no application of Next.js, as far as is known.
pub fn read(section: &Section<'_>) -> Upstream {
    for key in ["build", "images"] {
        section.written(key).inspect(|field| field.refuse_key("goes only with next"));
    }
    read_next(section)
}

/// The socket itself comes and goes with who listens on it; its folder stays.
fn target(text: &str, section: &Section<'_>) -> Result<Target, String> {
    let target = Target::parse(text, section.folder())?;
    if let Target::Unix(path) = &target
        && let Some(folder) = path.parent()
        && !section.has_folder(folder)
    {
        return Err(format!("{target} cannot be reached: there is no folder {}", folder.display()));
    }
    Ok(target)
}

/// A site's own application; what it was built to is the site's.
pub fn read_next(section: &Section<'_>) -> Upstream {
    let targets = section.list("targets", |text| target(text, section));
    if section.written("targets").is_none_or(Field::is_empty_list) {
        section.refuse_lack("has no targets; write http://127.0.0.1:3000");
    }
    let double = |(index, target): &(usize, &Target)| {
        targets.iter().take(*index).any(|other| other == *target)
    };
    if let Some((_, target)) = targets.iter().enumerate().find(double) {
        section.refuse(format!("{target} is listed twice"));
    }
    let keep = section.section("keep");
    let tls = tls(&section.section("tls"));
    let secure = targets.iter().any(|target| matches!(target, Target::Tls(..)));
    if let Some(field) = section.written("tls").filter(|_| !secure) {
        field.refuse_key("is for targets that begin with https://, and there is none");
    }
    let unless_none = |name: &str| {
        let none = section.written(name).is_some_and(|field| field.is_word("none"));
        (!none).then(|| section.section(name))
    };
    Upstream {
        targets,
        balance: section.choice("balance", &BALANCES).unwrap_or_default(),
        health: health(&section.section("health")),
        hold: unless_none("hold").map(|section| Hold {
            lasts: section.value("for", deadline),
            queue: section.value("queue", at_least_one),
        }),
        eject: unless_none("eject").map(|section| eject(&section)),
        slow_start: section.value("slow_start", duration),
        max: section.get("max", at_least_one),
        keep: Keep { idle: keep.value("idle", count), lasts: keep.value("for", duration) },
        tls,
        head: section.value("head", |text| bytes(text, HEAD_MIN, HEAD_MAX)),
    }
}

/// What servers take at least.
const HEAD_MIN: usize = 4 << 10;
/// As much as a client's may have.
const HEAD_MAX: usize = 1 << 20;

fn tls(section: &Section<'_>) -> UpstreamTls {
    let path = |name: &str| section.written(name).and_then(Field::read_path);
    let tls = UpstreamTls {
        ca: path("ca"),
        server_name: section.get("server_name", |text| match authority(text, 1) {
            Some((host, 1)) => Ok(host.to_owned()),
            _ => Err(format!("{text:?} is no name; write it as it stands in the certificate")),
        }),
        verify: section.flag("verify"),
        cert: path("cert"),
        key: path("key"),
    };
    if !tls.verify {
        for name in ["ca", "server_name"] {
            let useless = section.written(name);
            useless.inspect(|field| field.refuse_key("says what to verify; verify is false"));
        }
    }
    if tls.cert.is_some() != tls.key.is_some() {
        section.refuse("has one of cert and key; write both");
    }
    tls
}

fn health(section: &Section<'_>) -> Health {
    let health = Health {
        path: section.get("path", url_path),
        statuses: section.list("statuses", healthy),
        every: section.value("every", deadline),
        timeout: section.value("timeout", deadline),
        rise: section.value("rise", in_a_row),
        fall: section.value("fall", in_a_row),
    };
    if health.timeout > health.every && !health.every.is_zero() {
        section.refuse("timeout is longer than every, so checks would overtake each other");
    }
    if let Some(field) = section.written("statuses") {
        if section.written("path").is_none() {
            field.refuse_key("is for answers, and none is asked for; write a path too");
        } else if field.is_empty_list() {
            field.refuse("would let nothing pass; write [2xx]");
        }
    }
    health
}

/// A status that a server may answer in the end, or the hundred that `2xx` stands for.
fn healthy(text: &str) -> Result<u16, String> {
    let known = match text.as_bytes() {
        [hundred @ b'2'..=b'5', b'x', b'x'] => Some(u16::from(hundred - b'0')),
        [b'2'..=b'5', _, _] => text.parse().ok(),
        _ => None,
    };
    known.ok_or_else(|| format!("{text:?} is no status of an answer; write 200 or 2xx"))
}

/// True if a status is in a list of statuses and hundreds.
fn has_status(statuses: &[u16], status: u16) -> bool {
    statuses.iter().any(|known| *known == status || *known == status / 100)
}

fn eject(section: &Section<'_>) -> Eject {
    let eject = Eject {
        after: section.value("after", in_a_row),
        lasts: section.value("for", deadline),
        most: section.value("most", deadline),
        statuses: section.list("statuses", ejecting),
    };
    if eject.lasts > eject.most && !eject.most.is_zero() {
        section.refuse("for is longer than most, which it grows up to");
    }
    eject
}

fn ejecting(text: &str) -> Result<u16, String> {
    routes::status(text)
        .ok()
        .filter(|status| *status == 5 || (500..600).contains(status))
        .ok_or_else(|| format!("{text:?} is no failure of a server's; write 502 or 5xx"))
}

/// `None`: pictures are asked for as everything else.
pub fn images(next: &Section<'_>) -> Option<Images> {
    if next.written("images").is_some_and(|field| field.is_word("none")) {
        return None;
    }
    let section = next.section("images");
    Some(Images {
        at_once: section.value("at_once", at_least_one),
        wait: section.value("wait", deadline),
        queue: section.value("queue", count),
        share: section.flag("share"),
    })
}

fn in_a_row(text: &str) -> Result<usize, String> {
    let count = count(text)?;
    if count == 0 { Err("0 in a row is always; write 1 or more".to_owned()) } else { Ok(count) }
}

impl Upstream {
    /// Whether some target is spoken to over TLS.
    pub fn is_secure(&self) -> bool {
        self.targets.iter().any(|target| matches!(target, Target::Tls(..)))
    }

    pub fn yaml(&self) -> Yaml {
        let targets = self.targets.iter().map(|target| match target {
            Target::Unix(path) => format!("unix:{}", absolute(path)),
            Target::Tcp(..) | Target::Tls(..) => target.to_string(),
        });
        let balance = BALANCES.iter().find(|(_, balance)| *balance == self.balance);
        let none = || Yaml::text("none");
        Yaml::map([
            ("targets", Yaml::texts(targets)),
            ("balance", Yaml::text(balance.map_or("least", |(word, _)| word))),
            ("health", self.health.yaml()),
            ("hold", self.hold.as_ref().map_or_else(none, Hold::yaml)),
            ("eject", self.eject.as_ref().map_or_else(none, Eject::yaml)),
            ("slow_start", time(self.slow_start)),
            ("keep", self.keep.yaml()),
            ("head", Yaml::text(show_size(u64::try_from(self.head).unwrap_or(u64::MAX)))),
        ])
        .with("max", self.max.map(Yaml::word))
        .with("tls", self.is_secure().then(|| self.tls.yaml()))
    }
}

fn time(duration: Duration) -> Yaml {
    Yaml::text(show_duration(duration))
}

impl UpstreamTls {
    fn yaml(&self) -> Yaml {
        let path = |path: &Option<PathBuf>| path.as_deref().map(|path| Yaml::text(absolute(path)));
        Yaml::map([("verify", Yaml::word(self.verify))])
            .with("ca", path(&self.ca))
            .with("server_name", self.server_name.as_ref().map(Yaml::text))
            .with("cert", path(&self.cert))
            .with("key", path(&self.key))
    }
}

impl Health {
    /// True for an answer to a check that shows a target to be well.
    pub fn is_good(&self, status: u16) -> bool {
        has_status(&self.statuses, status)
    }

    fn yaml(&self) -> Yaml {
        let health = Yaml::map([
            ("every", time(self.every)),
            ("timeout", time(self.timeout)),
            ("rise", Yaml::word(self.rise)),
            ("fall", Yaml::word(self.fall)),
        ]);
        let statuses: Vec<_> = self.statuses.iter().map(|one| edge_show::status(*one)).collect();
        let statuses = edge_show::texts(&statuses).filter(|_| self.path.is_some());
        health.with("path", self.path.as_ref().map(Yaml::text)).with("statuses", statuses)
    }
}

impl Hold {
    fn yaml(&self) -> Yaml {
        Yaml::map([("for", time(self.lasts)), ("queue", Yaml::word(self.queue))])
    }
}

impl Images {
    pub fn yaml(&self) -> Yaml {
        Yaml::map([
            ("at_once", Yaml::word(self.at_once)),
            ("wait", time(self.wait)),
            ("queue", Yaml::word(self.queue)),
            ("share", Yaml::word(self.share)),
        ])
    }
}

impl Eject {
    /// True for an answer that counts as a failure of the target's.
    pub fn is_failure(&self, status: u16) -> bool {
        has_status(&self.statuses, status)
    }

    fn yaml(&self) -> Yaml {
        let statuses: Vec<_> =
            self.statuses.iter().map(|status| edge_show::status(*status)).collect();
        Yaml::map([
            ("after", Yaml::word(self.after)),
            ("for", time(self.lasts)),
            ("most", time(self.most)),
        ])
        .with("statuses", edge_show::texts(&statuses))
    }
}

impl Keep {
    fn yaml(&self) -> Yaml {
        Yaml::map([("idle", Yaml::word(self.idle)), ("for", time(self.lasts))])
    }
}
