//! `vestibule doctor`: looks at this machine and at the application, and says what to mend.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{self, Config, Site, Target, is_public};
use crate::service::Stop;
use crate::tls::Certificates;

use super::ask::ask;
use super::figures::Figures;
use super::say;

/// How long the application may take to answer one question.
const DEADLINE: Duration = Duration::from_secs(5);
/// A certificate that ends earlier is told.
const SOON: i64 = 14 * 24 * 60 * 60;
/// What Next.js sends of its router's state may be larger than this.
const LARGE_HEADER: usize = 20 << 10;

/// What one look came to.
enum Finding {
    Right(String),
    /// What is wrong, and how it is mended.
    Wrong(String, String),
}

use Finding::{Right, Wrong};

/// Prints a line for each look; an error with their number if some found something wrong.
pub fn run(file: &Path) -> Result<(), Stop> {
    let config = config::load(file)?;
    let mut findings = vec![Right(format!("{} is right", file.display()))];
    findings.extend(certificates(&config));
    findings.push(state(&config.state));
    findings.extend(process(file, &config));
    for site in &config.sites {
        let targets = site.next.iter().flat_map(|next| &next.targets);
        targets.for_each(|target| findings.extend(application(site, target)));
    }
    let mut wrong = 0;
    for finding in &findings {
        match finding {
            Right(what) => say(&format!("ok     {what}"))?,
            Wrong(what, mend) => {
                wrong += 1;
                say(&format!("WRONG  {what}\n       {mend}"))?;
            }
        }
    }
    if wrong == 0 { Ok(()) } else { Err(Stop::Asked(format!("{wrong} things to mend"))) }
}

fn certificates(config: &Config) -> Vec<Finding> {
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
        findings.push(if left < SOON {
            let mend = "renew it: what is put in its place is taken by itself";
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

fn state(folder: &Path) -> Finding {
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

/// What the running process says of itself.
fn process(file: &Path, config: &Config) -> Vec<Finding> {
    let Ok(ready) = ask(file, "GET", "/health/ready") else {
        let mend = "vestibule run, or systemctl start vestibule";
        return vec![Wrong("no process answers at listen.admin".to_owned(), mend.into())];
    };
    let mut findings = Vec::new();
    let words: serde_json::Value = serde_json::from_str(&ready.body).unwrap_or_default();
    for (list, mend) in [
        ("reasons", "it gets no traffic from a balancer that asks until this is mended"),
        ("complaints", "it serves, but not as it should"),
    ] {
        let told = words.get(list).and_then(serde_json::Value::as_array);
        let told = told.into_iter().flatten().filter_map(serde_json::Value::as_str);
        findings.extend(told.map(|what| Wrong(what.to_owned(), mend.to_owned())));
    }
    if findings.is_empty() {
        findings.push(Right("the process is ready".to_owned()));
    }
    let page = ask(file, "GET", "/metrics").ok().filter(|answer| answer.status == 200);
    let Some(figures) = page.map(|page| Figures::parse(&page.body)) else { return findings };
    let files = figures.total("process_max_fds");
    // Each client takes one, each request to the application another.
    let needs = 2 * config.limits.connections;
    let needs = f64::from(u32::try_from(needs).unwrap_or(u32::MAX));
    if files > 0.0 {
        findings.push(if files < needs {
            Wrong(
                format!("{files:.0} files may be open; limits.connections asks for {needs:.0}"),
                format!("LimitNOFILE={needs:.0} in the unit, ulimit -n before the start, or less in limits.connections"),
            )
        } else {
            Right(format!("{files:.0} files may be open"))
        });
    }
    if figures.total("vestibule_listen_overflows_total") > 0.0 {
        findings.push(Wrong(
            "the kernel has dropped connections that waited to be accepted".to_owned(),
            "sysctl net.core.somaxconn=4096, or more workers".to_owned(),
        ));
    }
    if figures.has("vestibule_hub_redis_up")
        && config.hub.as_ref().is_some_and(|hub| hub.redis.is_some())
    {
        findings.push(if figures.total("vestibule_hub_redis_up") > 0.0 {
            Right("Redis answers".to_owned())
        } else {
            Wrong(
                "no link to Redis".to_owned(),
                "the log says why; hub.redis says where".to_owned(),
            )
        });
    }
    findings
}

/// What the application does that an edge in front of it must know.
fn application(site: &Site, target: &Target) -> Vec<Finding> {
    if let Target::Tls(..) = target {
        return vec![Right(format!("{target} speaks TLS and was left alone; see target_up"))];
    }
    let host = site.host.as_str().replace('*', "any");
    let answer = match ask_application(target, &host, 0) {
        Ok(answer) => answer,
        Err(error) => {
            let mend = "start the application, or correct sites.….next";
            return vec![Wrong(format!("{target} does not answer: {error}"), mend.into())];
        }
    };
    let mut findings = vec![Right(format!("{target} answers {}", answer.status))];
    let keep = site.next.as_ref().map(|next| next.keep.lasts).unwrap_or_default();
    if answer.field("connection").is_some_and(|value| value.contains("close")) {
        findings.push(Wrong(
            format!("{target} closes each connection"),
            "each request opens one more; let the application keep them alive".to_owned(),
        ));
    }
    let told = answer.field("keep-alive").and_then(|value| {
        let seconds = value.split(',').find_map(|word| word.trim().strip_prefix("timeout="));
        seconds?.parse().ok().map(Duration::from_secs)
    });
    if let Some(told) = told {
        findings.push(if keep >= told {
            Wrong(
                format!("{target} closes idle connections after {told:?}, keep.for is {keep:?}"),
                "requests meet closing sockets: write a shorter keep.for".to_owned(),
            )
        } else {
            Right(format!("{target} keeps idle connections for {told:?}, longer than keep.for"))
        });
    }
    if answer.field("content-encoding").is_some() {
        findings.push(Wrong(
            format!("{target} compresses what it answers"),
            "write compress: false in next.config, and leave it to the edge".to_owned(),
        ));
    }
    let large = ask_application(target, &host, LARGE_HEADER).map_or(0, |answer| answer.status);
    findings.push(if large == 431 || large == 0 {
        Wrong(
            format!("{target} refuses a header of {LARGE_HEADER} bytes"),
            "start it with NODE_OPTIONS=--max-http-header-size=65536: router state and cookies grow"
                .to_owned(),
        )
    } else {
        Right(format!("{target} takes a header of {LARGE_HEADER} bytes"))
    });
    findings
}

struct Answer {
    status: u16,
    head: String,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// The head of the answer to a GET with a header of so many bytes.
fn ask_application(target: &Target, host: &str, extra: usize) -> std::io::Result<Answer> {
    let state = "x".repeat(extra);
    let request = format!(
        "GET / HTTP/1.1\r\nhost: {host}\r\naccept-encoding: gzip, br\r\nx-vestibule-doctor: {state}\r\n\r\n"
    );
    match target {
        Target::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            head(stream, &request)
        }
        Target::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port))?;
            stream.set_read_timeout(Some(DEADLINE))?;
            head(stream, &request)
        }
        Target::Tls(..) => Err(std::io::Error::other("the doctor asks over plain HTTP alone")),
    }
}

fn head(mut stream: impl Read + Write, request: &str) -> std::io::Result<Answer> {
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < 1 << 20 {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            break;
        }
        head.extend(piece.iter().take(read));
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("it speaks no HTTP"))?;
    let (head, _) = head.split_once("\r\n\r\n").unwrap_or((&head, ""));
    Ok(Answer { status, head: head.to_owned() })
}
