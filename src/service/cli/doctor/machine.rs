//! This machine: certificates, folders, limits, and what the running process says of itself.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::config::{self, Config, Site, is_public};
use crate::tls::Certificates;

use super::super::ask::ask;
use super::super::figures::Figures;
use super::{Finding, Right, Wrong, queues};

/// A certificate that ends earlier is told.
const SOON: i64 = 14 * 24 * 60 * 60;

/// The process that runs, as far as it says.
pub struct Process {
    pub figures: Figures,
    listening: Vec<(String, SocketAddr)>,
    /// `None`: none can be read.
    certificates: Option<Certificates>,
}

impl Process {
    pub fn listener(&self, scheme: &str) -> Option<SocketAddr> {
        let found = self.listening.iter().find(|(known, _)| known == scheme);
        found.map(|(_, address)| *address)
    }

    pub fn has_certificate(&self, site: &Site) -> bool {
        self.certificates.as_ref().is_some_and(|known| known.covers(site.host.as_str()))
    }

    /// What it says, and what of that is wrong; `None` if nobody answers.
    pub fn ask(file: &Path, config: &Config) -> (Option<Self>, Vec<Finding>) {
        let Ok(ready) = ask(file, "GET", "/health/ready") else {
            let mend = "vestibule run, or systemctl start vestibule";
            let wrong = Wrong("no process answers at listen.admin".to_owned(), mend.into());
            return (None, vec![wrong]);
        };
        let mut findings = Vec::new();
        let words: Value = serde_json::from_str(&ready.body).unwrap_or_default();
        for (list, mend) in [
            ("reasons", "it gets no traffic from a balancer that asks until this is mended"),
            ("complaints", "it serves, but not as it should"),
        ] {
            let told = texts(&words, list);
            findings.extend(told.map(|what| Wrong(what.to_owned(), mend.to_owned())));
        }
        if findings.is_empty() {
            findings.push(Right("the process is ready".to_owned()));
        }
        let overview = ask(file, "GET", "/overview").ok().filter(|answer| answer.status == 200);
        let overview: Value =
            overview.and_then(|page| serde_json::from_str(&page.body).ok()).unwrap_or_default();
        let listening = texts(&overview, "listening").filter_map(|url| {
            let (scheme, address) = url.split_once("://")?;
            Some((scheme.to_owned(), address.parse().ok()?))
        });
        let process = Self {
            figures: Figures::parse(overview.get("metrics").and_then(Value::as_str).unwrap_or("")),
            listening: listening.collect(),
            certificates: Certificates::read(config).ok(),
        };
        findings.extend(process.files(config));
        let addresses = process.listening.iter().map(|(_, address)| *address);
        findings.extend(queues::look(addresses, &process.figures));
        findings.extend(process.redis(config));
        (Some(process), findings)
    }

    fn files(&self, config: &Config) -> Option<Finding> {
        let files = self.figures.total("process_max_fds");
        // Each client takes one, each request to the application another.
        let needs = 2 * config.limits.connections;
        let needs = f64::from(u32::try_from(needs).unwrap_or(u32::MAX));
        (files > 0.0).then(|| match files < needs {
            true => Wrong(
                format!("{files:.0} files may be open; limits.connections asks for {needs:.0}"),
                format!("LimitNOFILE={needs:.0} in the unit, ulimit -n before the start, or less in limits.connections"),
            ),
            false => Right(format!("{files:.0} files may be open")),
        })
    }

    fn redis(&self, config: &Config) -> Option<Finding> {
        let wanted = config.hub.as_ref().is_some_and(|hub| hub.redis.is_some());
        if !wanted || !self.figures.has("vestibule_hub_redis_up") {
            return None;
        }
        Some(match self.figures.total("vestibule_hub_redis_up") > 0.0 {
            true => Right("the process speaks with Redis".to_owned()),
            false => Wrong(
                "the process has no link to Redis".to_owned(),
                "the log says why; hub.redis says where".to_owned(),
            ),
        })
    }
}

fn texts<'a>(words: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    let told = words.get(list).and_then(Value::as_array);
    told.into_iter().flatten().filter_map(Value::as_str)
}

pub fn certificates(config: &Config) -> Vec<Finding> {
    if config.listen.https.is_empty() {
        return Vec::new();
    }
    let certificates = match Certificates::read(config) {
        Ok(certificates) => certificates,
        Err(error) => {
            return vec![Wrong(error.to_string(), "tls.certs holds what cannot be served".into())];
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut findings = Vec::new();
    for one in certificates.all() {
        let left = one.ends - now;
        let days = left / (24 * 60 * 60);
        let mend = "renew it: what is put in its place is taken by itself";
        findings.push(if left < 0 {
            Wrong(format!("certificate {} has ended", one.file), mend.into())
        } else if left < SOON {
            Wrong(format!("certificate {} ends in {days} days", one.file), mend.into())
        } else {
            Right(format!("certificate {} holds for {days} days more", one.file))
        });
    }
    let names = config.sites.iter().flat_map(Site::names).filter(|name| is_public(name));
    for name in names.map(config::HostPattern::as_str).filter(|name| !certificates.covers(name)) {
        let mend = match config.tls.acme {
            Some(_) => {
                "an authority is asked for it; `vestibule status` and the log say why it is not there"
            }
            None => "put one into tls.certs, or write tls.acme: you@example.com",
        };
        findings.push(Wrong(format!("no certificate for {name}"), mend.into()));
    }
    findings
}

pub fn state(folder: &Path) -> Finding {
    let shown = folder.display();
    let probe = folder.join(format!(".doctor-{}", std::process::id()));
    let tried = fs::create_dir_all(folder).and_then(|()| fs::write(&probe, ""));
    // What could not be written cannot be removed either.
    let _gone = fs::remove_file(&probe);
    match tried {
        Ok(()) => Right(format!("{shown} can be written to")),
        Err(error) => Wrong(
            format!("{shown} cannot be written to: {error}"),
            "sessions and certificates do not outlive the process; give the folder to its user"
                .into(),
        ),
    }
}
