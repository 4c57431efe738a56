//! `next`, and whatever else names targets, as written → `Upstream`; pure.

use std::path::PathBuf;
use std::time::Duration;

use super::field::Field;
use super::section::Section;
use super::show::absolute;
use super::sites::url_path;
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
    /// Bytes of a request's head that it takes.
    pub head: usize,
}

/// One server of the application, spoken to in plain HTTP/1.1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Host (name or address, IPv6 without brackets) and port.
    Tcp(String, u16),
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
    /// Asked by GET, any status below 500 is healthy; without it a connection is enough.
    pub path: Option<String>,
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
}

/// Idle connections kept per target and worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    pub idle: usize,
    pub lasts: Duration,
}

/// One that is no application of Next.js, as far as is known.
pub fn read(section: &Section<'_>) -> Upstream {
    section.written("build").inspect(|build| build.refuse_key("goes only with next"));
    read_next(section)
}

/// A site's own application; what it was built to is the site's.
pub fn read_next(section: &Section<'_>) -> Upstream {
    let targets = section.list("targets", |text| Target::parse(text, section.folder()));
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
        head: section.value("head", |text| bytes(text, HEAD_MIN, HEAD_MAX)),
    }
}

/// What servers take at least.
const HEAD_MIN: usize = 4 << 10;
/// As much as a client's may have.
const HEAD_MAX: usize = 1 << 20;

fn health(section: &Section<'_>) -> Health {
    let health = Health {
        path: section.get("path", url_path),
        every: section.value("every", deadline),
        timeout: section.value("timeout", deadline),
        rise: section.value("rise", in_a_row),
        fall: section.value("fall", in_a_row),
    };
    if health.timeout > health.every && !health.every.is_zero() {
        section.refuse("timeout is longer than every, so checks would overtake each other");
    }
    health
}

fn eject(section: &Section<'_>) -> Eject {
    let eject = Eject {
        after: section.value("after", in_a_row),
        lasts: section.value("for", deadline),
        most: section.value("most", deadline),
    };
    if eject.lasts > eject.most && !eject.most.is_zero() {
        section.refuse("for is longer than most, which it grows up to");
    }
    eject
}

fn in_a_row(text: &str) -> Result<usize, String> {
    let count = count(text)?;
    if count == 0 { Err("0 in a row is always; write 1 or more".to_owned()) } else { Ok(count) }
}

impl Upstream {
    pub fn yaml(&self) -> Yaml {
        let targets = self.targets.iter().map(|target| match target {
            Target::Unix(path) => format!("unix:{}", absolute(path)),
            Target::Tcp(..) => target.to_string(),
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
    }
}

fn time(duration: Duration) -> Yaml {
    Yaml::text(show_duration(duration))
}

impl Health {
    fn yaml(&self) -> Yaml {
        let health = Yaml::map([
            ("every", time(self.every)),
            ("timeout", time(self.timeout)),
            ("rise", Yaml::word(self.rise)),
            ("fall", Yaml::word(self.fall)),
        ]);
        health.with("path", self.path.as_ref().map(Yaml::text))
    }
}

impl Hold {
    fn yaml(&self) -> Yaml {
        Yaml::map([("for", time(self.lasts)), ("queue", Yaml::word(self.queue))])
    }
}

impl Eject {
    fn yaml(&self) -> Yaml {
        Yaml::map([
            ("after", Yaml::word(self.after)),
            ("for", time(self.lasts)),
            ("most", time(self.most)),
        ])
    }
}

impl Keep {
    fn yaml(&self) -> Yaml {
        Yaml::map([("idle", Yaml::word(self.idle)), ("for", time(self.lasts))])
    }
}
