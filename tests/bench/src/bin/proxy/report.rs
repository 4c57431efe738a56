//! What is measured and must be reached, and what came out: a table, JSON, a picture.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::load::Load;
use crate::servers::{Kind, Mode};

type Outcome<T> = Result<T, Box<dyn Error>>;

pub struct Case {
    /// In proxy.json.
    pub name: &'static str,
    pub title: &'static str,
    pub measure: Measure,
    pub mode: Mode,
    pub goal: Goal,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measure {
    Cpu(Load),
    /// At seven tenths of what nginx can do.
    P99,
    Idle {
        tls: bool,
    },
    Workers,
}

#[derive(Debug, Clone, Copy)]
pub enum Goal {
    OfNginx(f64),
    AtMost(f64),
    AtLeast(f64),
}

pub const SMALL: Load = Load {
    path: "/1k",
    tls: false,
    http2: false,
    gzip: false,
    clients: 64,
    streams: 1,
    requests: 40_000,
    rate: None,
};
const SECURE: Load = Load { tls: true, ..SMALL };

const QUIET: Mode = Mode { log: false, gzip: false, workers: 1 };

const fn cpu(name: &'static str, title: &'static str, load: Load, goal: f64) -> Case {
    Case { name, title, measure: Measure::Cpu(load), mode: QUIET, goal: Goal::OfNginx(goal) }
}

pub static CASES: [Case; 15] = [
    cpu("plain-1k", "1 KiB, saturated", SMALL, 0.85),
    cpu("plain-1k-10000", "1 KiB, 10,000 requests/s", Load { rate: Some(10_000), ..SMALL }, 0.95),
    cpu("tls-1k", "1 KiB, TLS 1.3", SECURE, 0.75),
    cpu(
        "h2-1k",
        "1 KiB, HTTP/2 over TLS",
        Load { http2: true, clients: 32, streams: 4, ..SECURE },
        0.85,
    ),
    cpu(
        "handshake",
        "Full handshake and one GET",
        Load { clients: 1000, requests: 1000, ..SECURE },
        0.55,
    ),
    cpu("100k", "100 KiB", Load { path: "/100k", requests: 8000, ..SMALL }, 1.00),
    cpu(
        "100k-chunked",
        "100 KiB, chunked",
        Load { path: "/100k-chunked", requests: 8000, ..SMALL },
        0.90,
    ),
    cpu("1m", "1 MiB", Load { path: "/1m", requests: 1500, ..SMALL }, 0.90),
    cpu("1m-tls", "1 MiB, TLS 1.3", Load { path: "/1m", requests: 800, ..SECURE }, 0.80),
    Case {
        mode: Mode { log: true, ..QUIET },
        ..cpu("access-log", "1 KiB with an access log", SMALL, 0.90)
    },
    Case {
        mode: Mode { gzip: true, ..QUIET },
        ..cpu(
            "gzip",
            "A page of 100 KiB, gzip at level 5",
            Load { path: "/page", gzip: true, requests: 1500, ..SMALL },
            0.90,
        )
    },
    Case {
        name: "p99",
        title: "99th percentile at 70 % load",
        measure: Measure::P99,
        mode: QUIET,
        goal: Goal::OfNginx(1.00),
    },
    Case {
        name: "workers",
        title: "Two workers ÷ one, at the same CPU",
        measure: Measure::Workers,
        mode: Mode { workers: 2, ..QUIET },
        goal: Goal::AtLeast(1.8),
    },
    Case {
        name: "idle",
        title: "An idle connection",
        measure: Measure::Idle { tls: false },
        mode: QUIET,
        goal: Goal::AtMost(8.0),
    },
    Case {
        name: "idle-tls",
        title: "An idle connection over TLS",
        measure: Measure::Idle { tls: true },
        mode: QUIET,
        goal: Goal::AtMost(16.0),
    },
];

impl Case {
    pub fn unit(&self) -> &'static str {
        match self.measure {
            Measure::Cpu(_) => "µs",
            Measure::P99 => "µs",
            Measure::Idle { .. } => "KiB",
            Measure::Workers => "×",
        }
    }

    /// HAProxy has no log to a file, and what reads no byte does nothing with them.
    pub fn is_for(&self, kind: Kind) -> bool {
        match kind {
            Kind::Haproxy => !self.mode.log,
            Kind::Relay => {
                matches!(self.measure, Measure::Cpu(load) if !load.tls) && self.mode == QUIET
            }
            _ => true,
        }
    }
}

/// Samples by round.
#[derive(Default)]
pub struct Report(Vec<(&'static Case, Kind, Vec<f64>)>);

#[derive(Serialize)]
struct Comparison {
    case: &'static str,
    unit: &'static str,
    ours: f64,
    peer: &'static str,
    peer_value: Option<f64>,
    ratio: Option<f64>,
}

impl Report {
    pub fn add(&mut self, case: &'static Case, kind: Kind, value: f64) {
        let same = |(of, by, _): &&mut (&'static Case, Kind, Vec<f64>)| {
            of.name == case.name && *by == kind
        };
        match self.0.iter_mut().find(same) {
            Some((_, _, values)) => values.push(value),
            None => self.0.push((case, kind, vec![value])),
        }
    }

    fn samples(&self, case: &Case, kind: Kind) -> &[f64] {
        let found = self.0.iter().find(|(of, by, _)| of.name == case.name && *by == kind);
        found.map(|(_, _, values)| values.as_slice()).unwrap_or_default()
    }

    fn value(&self, case: &Case, kind: Kind) -> Option<f64> {
        median(self.samples(case, kind).to_vec())
    }

    /// The median of what each rotation gives.
    fn ratio(&self, case: &Case, peer: Kind) -> Option<f64> {
        self.ratio_of(case, Kind::Vestibule, peer)
    }

    fn ratio_of(&self, case: &Case, kind: Kind, peer: Kind) -> Option<f64> {
        let (ours, theirs) = (self.samples(case, kind), self.samples(case, peer));
        median(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect())
    }

    fn measured(&self) -> impl Iterator<Item = &'static Case> {
        CASES.iter().filter(|case| self.0.iter().any(|(of, _, _)| of.name == case.name))
    }

    pub fn table(&self) -> String {
        let mut text = String::from(
            "| | unit | Vestibule | nginx | HAProxy | ÷ nginx | ÷ HAProxy | goal | |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        let show = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), three_digits);
        for case in self.measured() {
            let ratio = self.ratio(case, Kind::Nginx);
            let (goal, reached) = match case.goal {
                Goal::OfNginx(most) => {
                    (format!("≤ {most:.2} × nginx"), ratio.map(|ratio| ratio <= most))
                }
                Goal::AtMost(most) => {
                    let ours = self.value(case, Kind::Vestibule);
                    (format!("≤ {most}"), ours.map(|ours| ours <= most))
                }
                Goal::AtLeast(least) => {
                    let ours = self.value(case, Kind::Vestibule);
                    (format!("≥ {least}"), ours.map(|ours| ours >= least))
                }
            };
            let _infallible = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {goal} | {} |",
                case.title,
                case.unit(),
                show(self.value(case, Kind::Vestibule)),
                show(self.value(case, Kind::Nginx)),
                show(self.value(case, Kind::Haproxy)),
                show(ratio),
                show(self.ratio(case, Kind::Haproxy)),
                reached.map_or("", |reached| if reached { "✓" } else { "✗" })
            );
        }
        text
    }

    /// How much of what nginx costs is beyond any proxy's reach: the system calls of one that reads
    /// nothing.
    pub fn floors(&self) -> String {
        let mut text = String::new();
        for case in self.measured() {
            let Some(ratio) = self.ratio_of(case, Kind::Relay, Kind::Nginx) else { continue };
            let _infallible =
                writeln!(text, "{}: passing the bytes on unread is {ratio:.2} × nginx", case.title);
        }
        text
    }

    /// What was done to the costs since another build, if one was measured too.
    pub fn changes(&self) -> String {
        let mut text = String::new();
        for case in self.measured() {
            let Some(ratio) = self.ratio(case, Kind::Before) else { continue };
            let _infallible = writeln!(text, "{}: {ratio:.3} of before", case.title);
        }
        text
    }

    fn comparisons(&self) -> Vec<Comparison> {
        let mut list = Vec::new();
        for case in self.measured() {
            let Some(ours) = self.value(case, Kind::Vestibule) else { continue };
            for peer in [Kind::Nginx, Kind::Haproxy, Kind::Relay] {
                let (peer_value, ratio) = (self.value(case, peer), self.ratio(case, peer));
                let (case, unit, peer) = (case.name, case.unit(), peer.name());
                list.push(Comparison { case, unit, ours, peer, peer_value, ratio });
            }
        }
        list
    }

    /// Writes proxy.md, proxy.json and proxy.svg.
    pub fn write(&self, folder: &Path, how: &str) -> Outcome<()> {
        fs::create_dir_all(folder)?;
        fs::write(
            folder.join("proxy.md"),
            format!("{}\n{}\n{how}\n", self.table(), self.floors()),
        )?;
        let json = serde_json::to_string_pretty(&self.comparisons())?;
        fs::write(folder.join("proxy.json"), json + "\n")?;
        fs::write(folder.join("proxy.svg"), self.draw())?;
        Ok(())
    }

    /// The ratios to nginx as bars, readable on light and dark pages.
    fn draw(&self) -> String {
        const LABEL: f64 = 250.0;
        const BAR: f64 = 360.0;
        let mut body = String::new();
        let mut y = 24.0;
        // Where nginx is.
        let one = |most: f64| LABEL + BAR / most;
        let cases: Vec<_> = self
            .measured()
            .filter_map(|case| Some((case, self.ratio(case, Kind::Nginx)?)))
            .filter(|(case, _)| !matches!(case.measure, Measure::Idle { .. }))
            .collect();
        let most = cases.iter().map(|(_, ratio)| *ratio).fold(1.0, f64::max);
        for (case, ratio) in &cases {
            let class = if *ratio <= 1.0 { "better" } else { "worse" };
            let _infallible = writeln!(
                body,
                "<text class=\"label\" x=\"{:.0}\" y=\"{:.0}\">{}</text>\
                 <rect class=\"{class}\" x=\"{LABEL}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"14\" rx=\"2\"/>\
                 <text x=\"{:.1}\" y=\"{:.0}\">{ratio:.2}</text>",
                LABEL - 8.0,
                y + 11.0,
                case.title,
                BAR * ratio / most,
                LABEL + BAR * ratio / most + 8.0,
                y + 11.0
            );
            y += 20.0;
        }
        let at = one(most);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 680 {end}\" width=\"680\" height=\"{end}\" role=\"img\">\n\
             <title>CPU per request of the proxy, and its 99th percentile, as parts of nginx's; shorter is better</title>\n\
             <style>\ntext {{ font: 12px system-ui, sans-serif; fill: #57606a }}\n.label {{ text-anchor: end }}\n\
             .better {{ fill: #0969da }}\n.worse {{ fill: #bc4c00 }}\nline {{ stroke: #57606a; stroke-dasharray: 3 3 }}\n\
             @media (prefers-color-scheme: dark) {{ text {{ fill: #9198a1 }} .better {{ fill: #4493f8 }} .worse {{ fill: #db6d28 }} line {{ stroke: #9198a1 }} }}\n</style>\n\
             <text x=\"{at:.0}\" y=\"12\" text-anchor=\"middle\">nginx</text><line x1=\"{at:.0}\" y1=\"16\" x2=\"{at:.0}\" y2=\"{y:.0}\"/>\n{body}</svg>\n",
            end = y + 8.0
        )
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// As many digits as the measurement is worth.
pub fn three_digits(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
