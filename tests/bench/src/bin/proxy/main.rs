//! The proxy beside nginx and HAProxy, before the same application in the same minutes.
//!
//! Each proxy has one core, the application and the load the other. README.md says what is measured.

mod load;
mod report;
mod servers;
mod upstream;

use std::env;
use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use load::Load;
use report::{CASES, Case, Measure, Report, three_digits};
use servers::{Kind, Mode, Place, Server};

type Outcome<T> = Result<T, Box<dyn Error>>;

const USAGE: &str = "\
usage: bench-proxy [--rounds N] [--only CASE[,CASE]] [--servers NAME[,NAME]] [--vestibule PROGRAM]
                   [--before PROGRAM]
  servers  nginx haproxy relay vestibule
  before   another build of Vestibule, to be compared with this one";

struct Options {
    rounds: usize,
    cases: Vec<&'static Case>,
    kinds: Vec<Kind>,
    vestibule: Option<String>,
    before: Option<String>,
}

fn main() -> ExitCode {
    let options = match parse(env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
            eprintln!("bench-proxy: {problem}\n{USAGE}\n  cases    {}", names.join(" "));
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nbench-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        rounds: 10,
        cases: CASES.iter().collect(),
        kinds: Kind::ALL.to_vec(),
        vestibule: None,
        before: None,
    };
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{argument}: a value is missing"))?;
        match argument.as_str() {
            "--rounds" => {
                let rounds = value.parse().ok().filter(|rounds| *rounds > 0);
                options.rounds = rounds.ok_or_else(|| format!("{value} is no number of rounds"))?;
            }
            "--only" => options.cases = chosen(&options.cases, |case| case.name, &value)?,
            "--servers" => options.kinds = chosen(&Kind::ALL, |kind| kind.name(), &value)?,
            "--vestibule" => options.vestibule = Some(value),
            "--before" => options.before = Some(value),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    if options.before.is_some() {
        options.kinds.push(Kind::Before);
    }
    Ok(options)
}

fn chosen<T: Copy>(
    all: &[T],
    name: impl Fn(T) -> &'static str,
    list: &str,
) -> Result<Vec<T>, String> {
    let find = |wanted: &str| {
        let found = all.iter().copied().find(|&one| name(one) == wanted);
        found.ok_or_else(|| format!("unknown name {wanted}"))
    };
    list.split(',').map(find).collect()
}

fn run(options: &Options) -> Outcome<()> {
    let begun = Instant::now();
    let built = env::current_exe()?;
    let vestibule = match &options.vestibule {
        Some(program) => fs::canonicalize(program)?,
        None => built.parent().ok_or("a program in a folder")?.join("vestibule"),
    };
    let before = options.before.as_ref().map(fs::canonicalize).transpose()?;
    let folder = env::temp_dir().join(format!("vestibule-bench-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    servers::write_certificate(&folder)?;
    let upstream = upstream::start()?;
    let before = before.as_deref();
    let place = Place { folder: &folder, vestibule: &vestibule, before, upstream };
    let mut report = Report::default();
    let mut failed = Vec::new();
    for case in &options.cases {
        if let Err(error) = measure(case, options, &place, &mut report) {
            println!("\n{}: {error}", case.name);
            failed.push(case.name);
        }
    }
    println!("\n{}\n{}{}", report.table(), report.floors(), report.changes());
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    report.write(&out, &how(options.rounds))?;
    println!("proxy.md, proxy.json and proxy.svg are in target/bench; {:.0?}", begun.elapsed());
    fs::remove_dir_all(&folder)?;
    match failed.as_slice() {
        [] => Ok(()),
        names => Err(format!("failed: {}", names.join(", ")).into()),
    }
}

fn measure(
    case: &'static Case,
    options: &Options,
    place: &Place<'_>,
    report: &mut Report,
) -> Outcome<()> {
    if case.measure == Measure::Workers {
        return two_workers(case, options, place, report);
    }
    let kinds = options.kinds.iter().copied().filter(|kind| case.is_for(*kind));
    let start = |kind| Server::start(kind, case.mode, place);
    if let Measure::Idle { tls } = case.measure {
        for kind in kinds {
            let server = start(kind)?;
            let size = load::idle(&server, tls, 10_000, place.folder)?;
            println!("{:<22} {:<10} {} KiB", case.name, kind.name(), three_digits(size));
            report.add(case, kind, size);
        }
        return Ok(());
    }
    let servers = kinds.map(start).collect::<Outcome<Vec<_>>>()?;
    let mut seventy = None;
    for round in 0..=options.rounds {
        for server in &servers {
            let value = match case.measure {
                Measure::Cpu(load) => load::run(&load, server, place.folder)?.cpu,
                Measure::P99 => {
                    let rate = match seventy {
                        Some(rate) => rate,
                        None => *seventy.insert(most(&servers, place)?),
                    };
                    let load = Load { rate: Some(rate), ..report::SMALL };
                    load::run(&load, server, place.folder)?.p99.ok_or("h2load wrote no log")?
                }
                Measure::Idle { .. } | Measure::Workers => continue,
            };
            let shown = if round == 0 {
                "warm-up".to_owned()
            } else {
                format!("{round}/{}", options.rounds)
            };
            println!(
                "{:<22} {shown:<8} {:<10} {} {}",
                case.name,
                server.kind.name(),
                three_digits(value),
                case.unit()
            );
            std::io::stdout().flush()?;
            if round > 0 {
                report.add(case, server.kind, value);
            }
        }
    }
    Ok(())
}

/// How many times the requests of one worker two can answer, if each has a core to itself: twice as
/// many if a request costs no more.
fn two_workers(
    case: &'static Case,
    options: &Options,
    place: &Place<'_>,
    report: &mut Report,
) -> Outcome<()> {
    let one = Server::start(Kind::Vestibule, Mode { workers: 1, ..case.mode }, place)?;
    let two = Server::start(Kind::Vestibule, case.mode, place)?;
    for round in 0..=options.rounds {
        let cost = |server| load::run(&report::SMALL, server, place.folder).map(|done| done.cpu);
        let times = 2.0 * cost(&one)? / cost(&two)?;
        println!("{:<22} {round:<8} {times:.2} {}", case.name, case.unit());
        if round > 0 {
            report.add(case, Kind::Vestibule, times);
        }
    }
    Ok(())
}

/// Seven tenths of what nginx can do, or of the first server if it is not there.
fn most(servers: &[Server], place: &Place<'_>) -> Outcome<u32> {
    let nginx = servers.iter().find(|server| server.kind == Kind::Nginx);
    let server = nginx.or(servers.first()).ok_or("no server")?;
    let done = load::run(&report::SMALL, server, place.folder)?;
    if done.per_second <= 0.0 {
        return Err("h2load tells no rate".into());
    }
    Ok((done.per_second * 0.7) as u32)
}

/// The lines below the table.
fn how(rounds: usize) -> String {
    format!(
        "CPU is user and system time of the proxy's process ÷ requests, on one core; the application and the \
         load (h2load) have another. Ratios are medians of the {rounds} rounds' own ratios to nginx, \
         which ran in the same rotation; values are medians too. Memory is what the process has \
         resident more than before, for each of 10,000 connections. \
         Debian's nginx and HAProxy; all with one worker, forwarding headers, no access log and no \
         compression unless it says so."
    )
}
