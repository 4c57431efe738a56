//! The tree as written → a whole `Config`, and every problem on the way; pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::field::{Field, Reader, Surroundings};
use super::file::Node;
use super::keys::FILE;
use super::problem::Problem;
use super::section::Section;
use super::units::{Cidr, address, byte_rate, count, deadline, duration, rate, size, size_or_none};
use super::{
    Admin, AdminAddress, Config, Limits, Listen, PerIp, Quota, Rate, Shutdown, Timeouts, Tls,
    TlsVersion, acme, auth, hub, log, sites,
};

/// The configuration, worth something only if there are no problems.
pub fn validate(root: &Node, around: &Surroundings<'_>) -> (Config, Vec<Problem>) {
    let reader = Reader::new(around);
    let file = Section::of(&reader.root(root), FILE);
    let auth = auth::read::read(&file);
    let providers: Vec<_> = file.names("auth").iter().map(|named| named.name).collect();
    let hub = file.written("hub").map(|_| hub::read(&file.section("hub"), &providers));
    let config = Config {
        listen: listen(&file.section("listen")),
        state: state(&file, around),
        workers: workers(&file, around.cores),
        trust: file.list("trust", Cidr::parse),
        tls: tls(&file.section("tls")),
        limits: limits(&file.section("limits")),
        timeouts: timeouts(&file.section("timeouts")),
        sites: sites::read(&file, hub.as_ref()),
        hub,
        auth,
        log: log::read(&file.section("log")),
        metrics: file.section("metrics").flag("prometheus"),
        traces: log::traces(&file.section("traces"), file.written("traces").is_some()),
        shutdown: Shutdown { grace: file.section("shutdown").value("grace", duration) },
    };
    if file.written("sites").is_none() && file.written("hub").is_none() {
        file.refuse_lack("has neither sites nor hub, so there is nothing to do; write one");
    }
    acme::check(&file.section("tls"), &config.tls, &config.listen, &config.sites);
    if let Some(path) = config.asks_nobody() {
        let hub = file.section("hub");
        hub.refuse(format!(
            "has the hook {path}, but no site has a next that could answer; write hooks.to"
        ));
    }
    (config, reader.into_problems())
}

/// `listen.admin` and its problems, whatever else is wrong.
pub fn admin_of(root: &Node, around: &Surroundings<'_>) -> (Option<Admin>, Vec<Problem>) {
    let reader = Reader::new(around);
    let admin = admin(&Section::of(&reader.root(root), FILE).section("listen"));
    let mut problems = reader.into_problems();
    problems.retain(|problem| problem.key.starts_with("listen.admin"));
    (admin, problems)
}

/// What is written, what the service manager gives, or the default.
fn state(file: &Section<'_>, around: &Surroundings<'_>) -> PathBuf {
    let given = around.state.filter(|_| file.written("state").is_none());
    let read = || file.field("state", |field| field.read_path()).flatten().unwrap_or_default();
    given.map_or_else(read, Path::to_owned)
}

fn workers(file: &Section<'_>, cores: usize) -> usize {
    let parse =
        |text: &str| match text {
            "auto" => Ok(cores.clamp(1, WORKERS_MAX)),
            text => count(text).ok().filter(|count| (1..=WORKERS_MAX).contains(count)).ok_or_else(
                || format!("{text:?} is no number of workers; write auto, or 1 to {WORKERS_MAX}"),
            ),
        };
    file.value("workers", parse)
}

/// A worker has one letter of 64 in a session's id.
const WORKERS_MAX: usize = 64;

fn listen(section: &Section<'_>) -> Listen {
    let listen = Listen {
        http: section.list("http", address),
        https: section.list("https", address),
        admin: admin(section),
    };
    let mut seen: Vec<SocketAddr> = Vec::new();
    for address in listen.http.iter().chain(&listen.https) {
        // The kernel chooses another one for each 0.
        if address.port() != 0 && seen.contains(address) {
            section.refuse(format!("{address} is listed twice; one socket can be one thing"));
        }
        seen.push(*address);
    }
    if seen.is_empty() {
        section.refuse("http and https are both [], so nobody could come in; write one");
    }
    listen
}

fn admin(listen: &Section<'_>) -> Option<Admin> {
    if listen.written("admin").is_some_and(|field| field.is_word("none")) {
        return None;
    }
    let section = listen.section("admin");
    let parse = |text: &str| AdminAddress::parse(text, listen.folder());
    let token = section.written("token").and_then(Field::read_secret);
    let address = section.get("address", parse)?;
    if let AdminAddress::Tcp(tcp) = &address
        && !tcp.ip().is_loopback()
        && section.written("token").is_none()
    {
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), tcp.port());
        section.refuse(format!("{tcp} is open to others; write {local}, or a token beside it"));
    }
    Some(Admin { address, token })
}

fn tls(section: &Section<'_>) -> Tls {
    let versions = [("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];
    Tls {
        acme: acme::read(section),
        certs: section.field("certs", |field| field.read_path()).flatten().unwrap_or_default(),
        min: section.choice("min", &versions).unwrap_or(TlsVersion::V12),
    }
}

fn limits(section: &Section<'_>) -> Limits {
    Limits {
        connections: section.value("connections", at_least_one),
        per_ip: per_ip(&section.section("per_ip")),
        headers: section.value("headers", |text| bytes(text, HEADERS_MIN, HEADERS_MAX)),
        body: section.value("body", size),
        body_rate: section.value("body_rate", byte_rate),
        response_body: section.value("response_body", size_or_none),
    }
}

fn per_ip(section: &Section<'_>) -> PerIp {
    let none = |text: &str| text == "none";
    let connections = |text: &str| {
        if none(text) { Ok(None) } else { at_least_one(text).map(Some) }
    };
    let requests = |text: &str| if none(text) { Ok(None) } else { rate(text).map(Some) };
    PerIp {
        connections: section.value("connections", connections),
        requests: quota(section, section.value("requests", requests)),
    }
}

/// A rate with the `burst` that stands beside it.
pub fn quota(section: &Section<'_>, rate: Option<Rate>) -> Option<Quota> {
    let burst = section.get("burst", |text| {
        let burst = u32::try_from(at_least_one(text)?).ok();
        burst.ok_or_else(|| format!("{text:?} is too much; write 1 to {}", u32::MAX))
    });
    rate.map(|rate| Quota { burst: burst.unwrap_or(rate.count), rate })
}

/// Browsers alone send heads of some kilobytes.
const HEADERS_MIN: usize = 8 << 10;
/// Held in memory for each connection.
const HEADERS_MAX: usize = 1 << 20;

/// A size that is held in memory, between two others.
pub fn bytes(text: &str, min: usize, max: usize) -> Result<usize, String> {
    let bytes = usize::try_from(size(text)?).ok().filter(|bytes| (min..=max).contains(bytes));
    bytes.ok_or_else(|| {
        let show = |bytes: usize| super::units::show_size(u64::try_from(bytes).unwrap_or(u64::MAX));
        format!("{text} is out of bounds; write {} to {}", show(min), show(max))
    })
}

pub fn at_least_one(text: &str) -> Result<usize, String> {
    let count = count(text)?;
    if count == 0 { Err("0 would refuse everybody; write 1 or more".to_owned()) } else { Ok(count) }
}

fn timeouts(section: &Section<'_>) -> Timeouts {
    Timeouts {
        handshake: section.value("handshake", deadline),
        head: section.value("head", deadline),
        body_idle: section.value("body_idle", deadline),
        idle: section.value("idle", deadline),
        connect: section.value("connect", deadline),
        first_byte: section.value("first_byte", deadline),
    }
}
