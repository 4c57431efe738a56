//! The hub, Node's socket.io and socketioxide, side by side in the same minutes.
//!
//! Each server has one core, this load generator the other. README.md says what is measured.

mod cases;
mod chart;
mod client;
mod crowd;
mod figure;
mod report;

use std::env;
use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cases::{Case, Plan};
use report::{Report, three_digits};
use vestibule_bench::server::{Kind, Programs, Server};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Of the servers. The load generator has the other one.
const CORE: &str = "0";

const USAGE: &str = "\
usage: bench-hub [--quick] [--rounds N] [--only CASE[,CASE]] [--servers NAME[,NAME]]
  rounds   counted turns of the short cases, 3 by default; 10 or more for a figure near its limit
  cases    connect upgrade echo delivery crowd crowd-tls
  servers  node socketioxide vestibule";

struct Options {
    quick: bool,
    rounds: Option<usize>,
    cases: Vec<Case>,
    kinds: Vec<Kind>,
}

fn main() -> ExitCode {
    let options = match parse(env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("bench-hub: {problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nbench-hub: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let (cases, kinds) = (Case::ALL.to_vec(), Kind::ALL.to_vec());
    let mut options = Options { quick: false, rounds: None, cases, kinds };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--rounds" => options.rounds = Some(rounds(arguments.next())?),
            "--only" => options.cases = chosen(&Case::ALL, Case::name, arguments.next())?,
            "--servers" => options.kinds = chosen(&Kind::ALL, Kind::name, arguments.next())?,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(options)
}

fn rounds(count: Option<String>) -> Result<usize, String> {
    let count = count.and_then(|count| count.parse().ok());
    count.filter(|count| *count > 0).ok_or_else(|| "--rounds needs a number above 0".to_owned())
}

fn chosen<T: Copy>(
    all: &[T],
    name: impl Fn(T) -> &'static str,
    list: Option<String>,
) -> Result<Vec<T>, String> {
    let list = list.ok_or("a name is missing")?;
    let find = |wanted: &str| {
        let found = all.iter().copied().find(|&one| name(one) == wanted);
        found.ok_or_else(|| format!("unknown name {wanted}"))
    };
    list.split(',').map(find).collect()
}

fn run(options: &Options) -> Outcome<()> {
    let begun = Instant::now();
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = env::current_exe()?;
    let built = built.parent().ok_or("a program in a folder")?;
    let folder = env::temp_dir().join(format!("vestibule-bench-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let programs = Programs {
        node: package.join("node/server.mjs"),
        socketioxide: built.join("peer-socketioxide"),
        vestibule: built.join("vestibule"),
        configuration: package.join("proxy.yaml"),
        folder: folder.clone(),
        cores: CORE,
    };
    let mut plan = if options.quick { Plan::QUICK } else { Plan::WHOLE };
    plan.rounds = options.rounds.unwrap_or(plan.rounds);

    let mut report = Report::default();
    let mut failed = Vec::new();
    for &case in &options.cases {
        if let Err(error) = measure(case, options, &plan, &programs, &mut report) {
            println!("\n{}: {error}", case.name());
            failed.push(case.name());
        }
    }
    println!("\n{}", report.table());
    let out = package.join("../../target/bench");
    report.write(&out, &how(&plan))?;
    println!("hub.md, hub.json and hub.svg are in target/bench; {:.0?}", begun.elapsed());
    fs::remove_dir_all(&folder)?;
    // Not a failure: on a machine that does other things as well, figures say little.
    let missed = report.missed();
    if missed > 0 {
        eprintln!("\n✗ {missed} FIGURES ARE NOT WHAT THEY MUST BE: the rows with ✗ above");
    }
    match failed.as_slice() {
        [] => Ok(()),
        names => Err(format!("failed: {}", names.join(", ")).into()),
    }
}

fn measure(
    case: Case,
    options: &Options,
    plan: &Plan,
    programs: &Programs,
    report: &mut Report,
) -> Outcome<()> {
    // Nobody is pinged while the short cases are measured.
    let ping = if case.is_long() { plan.ping } else { Duration::from_secs(25) };
    let start = |&kind: &Kind| Server::start(kind, ping, programs);
    if case.is_long() {
        for kind in options.kinds.iter().filter(|&&kind| case.is_for(kind)) {
            take(case, &start(kind)?, plan, report, "")?;
        }
        return Ok(());
    }
    let servers = options.kinds.iter().map(start).collect::<Outcome<Vec<_>>>()?;
    let mut unused = Report::default();
    for round in 0..=plan.rounds {
        for server in &servers {
            match round {
                0 => take(case, server, plan, &mut unused, "warm-up")?,
                _ => take(case, server, plan, report, &format!("{round}/{}", plan.rounds))?,
            }
        }
    }
    Ok(())
}

/// One sample of one server, told as it goes.
fn take(case: Case, server: &Server, plan: &Plan, report: &mut Report, round: &str) -> Outcome<()> {
    print!("{:<10} {round:<8} {:<13}", case.name(), server.kind.name());
    std::io::stdout().flush()?;
    let sample = case.sample(server, plan)?;
    for (figure, value) in sample {
        let words = figure.words();
        print!("  {} {} {}", words.case, three_digits(value), words.unit);
        report.add(figure, server.kind, value);
    }
    println!();
    Ok(())
}

/// The lines below the table.
fn how(plan: &Plan) -> String {
    let short = match plan.crowd {
        10_000 => String::new(),
        crowd => format!("A short run: where it says 10,000 there were {crowd}. "),
    };
    format!(
        "{short}CPU is user and system time of the server's process ÷ count, on one core; the load comes \
         from another. Medians of the rounds ({}) in rotation; memory and pings: one run, {} sockets in a \
         namespace and a room, ping interval {} s. Memory is what the process has resident more than \
         before they came, Node's after a forced garbage collection; the kernel's socket buffers are \
         not in it.",
        plan.rounds,
        plan.crowd,
        plan.ping.as_secs()
    )
}
