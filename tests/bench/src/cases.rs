//! The cases: what is done to a server, and the figures that come of it.

use std::error::Error;
use std::io::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::{Way, find};
use crate::crowd::{Crowd, Pace, in_time, is_granted};
use crate::figure::Figure;
use vestibule_bench::server::{Kind, Memory, Server};

type Outcome<T> = Result<T, Box<dyn Error>>;
pub type Sample = Vec<(Figure, f64)>;

/// 10,000 sockets at Node's default interval of 25 s, for a minute.
const PINGS_A_MINUTE: f64 = 24_000.0;
/// As fast as the server goes.
const RUSH: Pace = Pace { together: 32, per_second: None };
/// Long polls take up to 100 ms of waiting each, by protocol.
const UPGRADES: Pace = Pace { together: 128, per_second: None };
/// A pace that every server can keep, so that pings come evenly and not in one burst.
const WALK: Pace = Pace { together: 64, per_second: Some(500) };

/// How much of everything.
pub struct Plan {
    pub rounds: usize,
    pub connects: usize,
    pub upgrades: usize,
    pub talk: Duration,
    pub crowd: usize,
    pub ping: Duration,
}

impl Plan {
    pub const WHOLE: Self = Self {
        rounds: 3,
        connects: 5_000,
        upgrades: 1_000,
        talk: Duration::from_secs(3),
        crowd: 10_000,
        ping: Duration::from_secs(25),
    };
    /// One round of everything, and a quarter of the crowd.
    pub const QUICK: Self = Self {
        rounds: 1,
        connects: 1_000,
        upgrades: 500,
        talk: Duration::from_secs(1),
        crowd: 2_500,
        // The same pings a second as the whole crowd has.
        ping: Duration::from_secs(6),
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    Connect,
    Upgrade,
    Echo,
    Delivery,
    Crowd,
    CrowdTls,
}

impl Case {
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Upgrade, Self::Echo, Self::Delivery, Self::Crowd, Self::CrowdTls];

    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Upgrade => "upgrade",
            Self::Echo => "echo",
            Self::Delivery => "delivery",
            Self::Crowd => "crowd",
            Self::CrowdTls => "crowd-tls",
        }
    }

    /// Long ones are done once, each on a new process; the others in turn, after a round that warms.
    pub fn is_long(self) -> bool {
        matches!(self, Self::Crowd | Self::CrowdTls)
    }

    /// TLS is the hub's alone: the other servers have it from elsewhere.
    pub fn is_for(self, kind: Kind) -> bool {
        self != Self::CrowdTls || kind == Kind::Vestibule
    }

    pub fn sample(self, server: &Server, plan: &Plan) -> Outcome<Sample> {
        match self {
            Self::Connect => connect(server, plan.connects, Way::WebSocket, RUSH, Figure::Connect),
            Self::Upgrade => {
                connect(server, plan.upgrades, Way::Upgrade, UPGRADES, Figure::Upgrade)
            }
            Self::Echo => echo(server, plan.talk),
            Self::Delivery => delivery(server, plan.talk),
            Self::Crowd => crowd(server, plan),
            Self::CrowdTls => crowd_tls(server, plan),
        }
    }
}

fn connect(server: &Server, count: usize, way: Way, pace: Pace, figure: Figure) -> Outcome<Sample> {
    let mut crowd = Crowd::new(server.address, None)?;
    let before = server.cpu()?;
    crowd.connect(count, way, pace)?;
    // What the server still does about the last of them.
    crowd.rest(Duration::from_millis(200))?;
    let spent = micros(server.cpu()? - before) / count as f64;
    // After an upgrade nothing else says that the server took the last step.
    crowd.ask(&echo_packet(0))?;
    crowd.leave()?;
    Ok(vec![(figure, spent)])
}

/// Fifty clients, each waiting for its acknowledgement before it sends again.
fn echo(server: &Server, time: Duration) -> Outcome<Sample> {
    let mut crowd = Crowd::new(server.address, None)?;
    crowd.connect(50, Way::WebSocket, RUSH)?;
    echoes(&mut crowd, time / 5)?;
    let (before, begun) = (server.cpu()?, Instant::now());
    let count = echoes(&mut crowd, time)?;
    let spent = micros(server.cpu()? - before) / count as f64;
    tell(&format!("  {:>9.0}/s", count as f64 / begun.elapsed().as_secs_f64()));
    crowd.leave()?;
    Ok(vec![(Figure::Echo, spent)])
}

fn echoes(crowd: &mut Crowd, time: Duration) -> Outcome<usize> {
    let begun = Instant::now();
    for number in 0..crowd.len() {
        crowd.send(number, &echo_packet(0))?;
    }
    let (mut count, mut waiting, mut refused) = (0, crowd.len(), None);
    while waiting > 0 {
        crowd.turn(Duration::from_millis(10), |_, packet| {
            if !is_granted(packet) {
                refused = Some(String::from_utf8_lossy(packet).into_owned());
            }
            count += 1;
            if begun.elapsed() < time {
                return Some(echo_packet(count as u64));
            }
            waiting -= 1;
            None
        })?;
        if let Some(packet) = refused {
            return Err(format!("the server answered {packet}").into());
        }
        in_time(begun, || format!("{count} acknowledgements"))?;
    }
    Ok(count)
}

/// A room of 1,001, first with one speaker, then with ten.
fn delivery(server: &Server, time: Duration) -> Outcome<Sample> {
    let mut crowd = Crowd::new(server.address, None)?;
    crowd.connect(1_001, Way::WebSocket, RUSH)?;
    crowd.ask(&join_packet())?;
    talk(&mut crowd, 1, time / 5)?;
    let one = delivery_cost(server, &mut crowd, 1, time)?;
    talk(&mut crowd, 10, time / 5)?;
    let ten = delivery_cost(server, &mut crowd, 10, time)?;
    crowd.leave()?;
    Ok(vec![(Figure::DeliveryOne, one), (Figure::DeliveryTen, ten)])
}

fn delivery_cost(
    server: &Server,
    crowd: &mut Crowd,
    speakers: usize,
    time: Duration,
) -> Outcome<f64> {
    let (before, begun) = (server.cpu()?, Instant::now());
    let count = talk(crowd, speakers, time)?;
    let spent = micros(server.cpu()? - before) / count as f64;
    tell(&format!("  {:>9.0}/s", count as f64 / begun.elapsed().as_secs_f64()));
    Ok(spent)
}

/// A message that not everybody has yet.
struct Flight {
    speaker: usize,
    stamp: u64,
    left: usize,
}

/// Each speaker says the next thing when everybody has the last. Returns the number of deliveries.
fn talk(crowd: &mut Crowd, speakers: usize, time: Duration) -> Outcome<usize> {
    let begun = Instant::now();
    let others = crowd.len() - 1;
    let mut flights: Vec<Flight> =
        (0..speakers).map(|speaker| Flight { speaker, stamp: 0, left: 0 }).collect();
    let (mut stamp, mut count) = (0, 0);
    loop {
        let talking = begun.elapsed() < time;
        for flight in flights.iter_mut().filter(|flight| flight.left == 0) {
            if talking {
                stamp = (begun.elapsed().as_nanos() as u64).max(stamp + 1);
                (flight.stamp, flight.left) = (stamp, others);
                crowd.send(flight.speaker, &message_packet("message", stamp))?;
            }
        }
        if flights.iter().all(|flight| flight.left == 0) {
            return Ok(count);
        }
        crowd.turn(Duration::from_millis(10), |_, packet| {
            let stamp = stamp_of(packet);
            if let Some(flight) = flights.iter_mut().find(|flight| Some(flight.stamp) == stamp) {
                flight.left = flight.left.saturating_sub(1);
                count += 1;
            }
            None
        })?;
        in_time(begun, || format!("{count} deliveries"))?;
    }
}

fn crowd(server: &Server, plan: &Plan) -> Outcome<Sample> {
    warm_up(server)?;
    let empty = settled(server, None)?;
    let mut crowd = Crowd::new(server.address, None)?;
    let (mut sample, full) = gather(server, &mut crowd, plan, empty)?;

    tell("; pings");
    let before = server.cpu()?;
    let pings = crowd.rest(plan.ping)?;
    let spent = micros(server.cpu()? - before) / 1000.0;
    if pings < plan.crowd as u64 / 2 {
        return Err(format!("only {pings} pings in {:?}", plan.ping).into());
    }
    sample.push((Figure::Pings, spent / pings as f64 * PINGS_A_MINUTE));

    tell("; broadcasts");
    let cost = delivery_cost(server, &mut crowd, 1, plan.talk)?;
    sample.push((Figure::DeliveryCrowd, cost));
    let told = settled(server, Some(&mut crowd))?;
    sample.push((Figure::AfterBroadcast, told.resident / full.resident));
    tell(&format!("  {} KiB; leaving", told.resident));
    crowd.leave()?;
    let left = returned(server, empty)?;
    sample.push((Figure::AfterLeave, left.resident / empty.resident));
    tell(&format!(" {} KiB", left.resident));
    Ok(sample)
}

fn crowd_tls(server: &Server, plan: &Plan) -> Outcome<Sample> {
    let (address, client) = server.secure.clone().ok_or("a server without TLS")?;
    warm_up(server)?;
    let empty = settled(server, None)?;
    let mut crowd = Crowd::new(address, Some(client))?;
    let (sample, _full) = gather(server, &mut crowd, plan, empty)?;
    crowd.leave()?;
    let resident = sample.into_iter().find(|(figure, _)| *figure == Figure::Memory);
    Ok(resident.map(|(_, value)| (Figure::MemoryTls, value)).into_iter().collect())
}

/// What a process allocates once, it has allocated.
fn warm_up(server: &Server) -> Outcome<()> {
    let mut crowd = Crowd::new(server.address, None)?;
    crowd.connect(200, Way::WebSocket, RUSH)?;
    crowd.ask(&join_packet())?;
    talk(&mut crowd, 1, Duration::from_millis(200))?;
    crowd.leave()
}

/// Everybody comes and enters the room; what each of them costs in memory.
fn gather(
    server: &Server,
    crowd: &mut Crowd,
    plan: &Plan,
    empty: Memory,
) -> Outcome<(Sample, Memory)> {
    tell(&format!(" {} KiB; gathering", empty.resident));
    crowd.connect(plan.crowd, Way::WebSocket, WALK)?;
    crowd.ask(&join_packet())?;
    let full = settled(server, Some(crowd))?;
    tell(&format!(" {} KiB", full.resident));
    let each = |full: f64, empty: f64| (full - empty) / plan.crowd as f64;
    let sample = vec![
        (Figure::Memory, each(full.resident, empty.resident)),
        (Figure::MemoryProportional, each(full.proportional, empty.proportional)),
        (Figure::MemoryPrivate, each(full.private, empty.private)),
    ];
    Ok((sample, full))
}

/// The memory once it no longer changes; the crowd goes on answering pings meanwhile.
fn settled(server: &Server, mut crowd: Option<&mut Crowd>) -> Outcome<Memory> {
    const STEP: Duration = Duration::from_millis(500);
    server.tidy()?;
    let mut last = server.memory()?;
    for _ in 0..10 {
        match &mut crowd {
            Some(crowd) => drop(crowd.rest(STEP)?),
            None => sleep(STEP),
        }
        let now = server.memory()?;
        if (now.resident - last.resident).abs() < last.resident * 0.002 {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

/// The memory after all have left; whoever gives it back with a delay has that.
fn returned(server: &Server, empty: Memory) -> Outcome<Memory> {
    const DELAY: Duration = Duration::from_secs(12);
    let begun = Instant::now();
    loop {
        let now = settled(server, None)?;
        if now.resident < empty.resident * 1.1 || begun.elapsed() > DELAY {
            return Ok(now);
        }
    }
}

fn join_packet() -> String {
    "2/chat,0[\"join\",\"fan\"]".to_owned()
}

fn echo_packet(stamp: u64) -> String {
    message_packet("echo", stamp).replacen(',', ",7", 1)
}

/// The payload of every message: a room, a time, and 80 bytes.
fn message_packet(event: &str, stamp: u64) -> String {
    let text = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor i";
    format!("2/chat,[\"{event}\",{{\"room\":\"fan\",\"t\":{stamp},\"b\":\"{text}\"}}]")
}

fn stamp_of(packet: &[u8]) -> Option<u64> {
    let begin = find(packet, b"\"t\":")? + 4;
    let digits = packet.get(begin..)?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

/// What has been done so far, on the line of the sample.
fn tell(text: &str) {
    print!("{text}");
    let _shown = std::io::stdout().flush();
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_carry_their_stamp() {
        assert_eq!(stamp_of(message_packet("message", 17).as_bytes()), Some(17));
        assert!(echo_packet(3).starts_with("2/chat,7[\"echo\","));
        assert_eq!(stamp_of(b"2/chat,[\"other\"]"), None);
    }
}
