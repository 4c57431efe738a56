//! Two nodes over one Redis: Vestibule's beside Node's servers with the adapter of the same wire.
//!
//! Servers and Redis are started here and ended by their process ids. README.md says what is
//! measured.

#[expect(dead_code, reason = "the hub's benchmark has clients that come another way")]
#[path = "../../client.rs"]
mod client;
#[expect(dead_code, reason = "the hub's benchmark has crowds that rest")]
#[path = "../../crowd.rs"]
mod crowd;
mod nodes;

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use client::{Way, find};
use crowd::{Crowd, Pace, in_time};
use nodes::{Kind, Nodes};

type Outcome<T> = Result<T, Box<dyn Error>>;

const RUSH: Pace = Pace { together: 32, per_second: None };
/// Messages that not everybody has yet.
const IN_FLIGHT: usize = 256;
const EVENTS_PER_SECOND: f64 = 100.0;

/// How much of everything.
struct Plan {
    rounds: usize,
    talk: Duration,
}

#[derive(Serialize)]
struct Comparison {
    case: String,
    unit: &'static str,
    ours: f64,
    peer: &'static str,
    peer_value: f64,
    ratio: f64,
}

/// What one round of one kind of servers comes to.
#[derive(Default)]
struct Sample(Vec<(&'static str, &'static str, f64)>);

fn main() -> ExitCode {
    let quick = env::args().any(|argument| argument == "--quick");
    let plan = if quick {
        Plan { rounds: 1, talk: Duration::from_secs(2) }
    } else {
        Plan { rounds: 3, talk: Duration::from_secs(5) }
    };
    match run(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nbench-cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan) -> Outcome<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut list = Vec::new();
    for adapter in ["classic", "streams"] {
        let mut samples: Vec<(Kind, Vec<Sample>)> =
            Kind::ALL.into_iter().map(|kind| (kind, Vec::new())).collect();
        // The first round warms: Node's compiler is still at work in it.
        for round in 0..=plan.rounds {
            for (kind, of_kind) in &mut samples {
                let nodes = Nodes::start(*kind, adapter, package)?;
                let sample = measure(&nodes, plan)?;
                println!("{adapter} {} {round}/{}: {}", kind.name(), plan.rounds, sample.words());
                if round > 0 {
                    of_kind.push(sample);
                }
            }
        }
        list.extend(compared(adapter, &samples));
    }
    let folder = package.join("../../target/bench");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("cluster.json"), serde_json::to_string_pretty(&list)? + "\n")?;
    println!("\n{:<36} {:>8} {:>12} {:>12} {:>8}", "", "", "Vestibule", "Node", "ratio");
    for one in &list {
        let Comparison { case, unit, ours, peer_value, ratio, .. } = one;
        println!("{case:<36} {unit:>8} {ours:>12.2} {peer_value:>12.2} {ratio:>8.2}");
    }
    println!("cluster.json is in target/bench");
    Ok(())
}

fn compared(adapter: &str, samples: &[(Kind, Vec<Sample>)]) -> Vec<Comparison> {
    let median = |kind: Kind, index: usize| {
        let found = samples.iter().find(|(known, _)| *known == kind);
        let all = found.into_iter().flat_map(|(_, samples)| samples);
        let mut values: Vec<f64> =
            all.filter_map(|sample| sample.0.get(index).map(|(_, _, value)| *value)).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let cases = samples.first().and_then(|(_, samples)| samples.first());
    let cases = cases.map(|sample| sample.0.as_slice()).unwrap_or_default();
    let comparisons = cases.iter().enumerate().map(|(index, (case, unit, _))| {
        let (ours, peer_value) = (median(Kind::Vestibule, index), median(Kind::Node, index));
        Comparison {
            case: format!("{adapter}-{case}"),
            unit,
            ours,
            peer: Kind::Node.name(),
            peer_value,
            ratio: ours / peer_value,
        }
    });
    comparisons.collect()
}

impl Sample {
    fn words(&self) -> String {
        let words = self.0.iter().map(|(case, unit, value)| format!("{case} {value:.1} {unit}"));
        words.collect::<Vec<_>>().join(", ")
    }
}

fn measure(nodes: &Nodes, plan: &Plan) -> Outcome<Sample> {
    let mut sample = Sample::default();
    let [first, second] = nodes.addresses();
    let mut speakers = Crowd::new(first, None)?;
    speakers.connect(1, Way::WebSocket, RUSH)?;
    let mut members = Crowd::new(second, None)?;
    members.connect(10, Way::WebSocket, RUSH)?;
    for crowd in [&mut speakers, &mut members] {
        crowd.ask(&join_packet())?;
    }
    settle(&mut speakers, &mut members)?;

    talk(&mut speakers, &mut members, plan.talk / 4)?;
    let (before, begun) = (nodes.cpu()?, Instant::now());
    let events = talk(&mut speakers, &mut members, plan.talk)? as f64;
    let spent = micros(nodes.cpu()? - before);
    sample.0.push(("events-10-members", "1/s", events / begun.elapsed().as_secs_f64()));
    sample.0.push(("cpu-per-event-10-members", "µs", spent / events));

    let mut waits = pace(&mut speakers, &mut members, plan.talk)?;
    waits.sort_unstable();
    let median = waits.get(waits.len() / 2).copied().unwrap_or_default();
    sample.0.push(("latency-p50-100-per-second", "µs", micros(median)));

    members.connect(990, Way::WebSocket, RUSH)?;
    members.ask(&join_packet())?;
    talk(&mut speakers, &mut members, plan.talk / 4)?;
    let before = nodes.cpu()?;
    let events = talk(&mut speakers, &mut members, plan.talk)? as f64;
    let spent = micros(nodes.cpu()? - before);
    sample.0.push(("cpu-per-delivery-1000-members", "µs", spent / (events * 1000.0)));
    members.leave()?;
    speakers.leave()?;
    Ok(sample)
}

/// Until what one node is told comes to the other.
fn settle(speakers: &mut Crowd, members: &mut Crowd) -> Outcome<()> {
    let begun = Instant::now();
    let mut heard = 0;
    while heard < members.len() {
        speakers.send(0, &message_packet(0))?;
        for _ in 0..20 {
            speakers.turn(Duration::ZERO, |_, _| None)?;
            members.turn(Duration::from_millis(5), |_, _| {
                heard += 1;
                None
            })?;
        }
        in_time(begun, || "the other node hears nothing".to_owned())?;
    }
    Ok(())
}

/// The speaker says the next thing when all have what was said `IN_FLIGHT` before. Returns how many
/// things everybody has heard.
fn talk(speakers: &mut Crowd, members: &mut Crowd, time: Duration) -> Outcome<usize> {
    let (begun, count) = (Instant::now(), members.len());
    let (mut said, mut heard) = (0_usize, 0_usize);
    loop {
        let talking = begun.elapsed() < time;
        let whole = heard / count;
        if !talking && heard >= said * count {
            return Ok(said);
        }
        while talking && said - whole < IN_FLIGHT {
            said += 1;
            speakers.send(0, &message_packet(said as u64))?;
        }
        speakers.turn(Duration::ZERO, |_, _| None)?;
        members.turn(Duration::from_millis(1), |_, packet| {
            heard += usize::from(stamp_of(packet).is_some());
            None
        })?;
        in_time(begun, || format!("{heard} of {} heard", said * count))?;
    }
}

/// A steady pace: how long each message takes to each member.
fn pace(speakers: &mut Crowd, members: &mut Crowd, time: Duration) -> Outcome<Vec<Duration>> {
    let begun = Instant::now();
    let (mut said, mut waits) = (0_u32, Vec::new());
    let micros = |begun: Instant| begun.elapsed().as_micros() as u64;
    loop {
        let due = Duration::from_secs_f64(f64::from(said) / EVENTS_PER_SECOND);
        if begun.elapsed() >= due && begun.elapsed() < time {
            said += 1;
            speakers.send(0, &message_packet(micros(begun)))?;
        }
        speakers.turn(Duration::ZERO, |_, _| None)?;
        members.turn(Duration::from_micros(500), |_, packet| {
            if let Some(stamp) = stamp_of(packet) {
                waits.push(Duration::from_micros(micros(begun).saturating_sub(stamp)));
            }
            None
        })?;
        if begun.elapsed() >= time && waits.len() >= said as usize * members.len() {
            return Ok(waits);
        }
        in_time(begun, || format!("{} waits", waits.len()))?;
    }
}

fn join_packet() -> String {
    "2/chat,0[\"join\",\"fan\"]".to_owned()
}

/// A room, a number, and 80 bytes.
fn message_packet(stamp: u64) -> String {
    let text = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor i";
    format!("2/chat,[\"message\",{{\"room\":\"fan\",\"t\":{stamp},\"b\":\"{text}\"}}]")
}

fn stamp_of(packet: &[u8]) -> Option<u64> {
    let begin = find(packet, b"\"t\":")? + 4;
    let digits = packet.get(begin..)?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}
