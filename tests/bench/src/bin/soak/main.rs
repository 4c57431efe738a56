//! Thousands of sockets join, leave, speak, are cut off and come back, for minutes; whoever must
//! hear something hears it once and in order, and the server's memory stays where it was.

mod judge;
mod member;

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use vestibule_bench::server::{Kind, Programs, Server};

use judge::Judge;
use member::{Heard, Member};

type Outcome<T> = Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: soak [--sockets N] [--seconds N] [--seed N]";
/// Both: the load is light, and workers are to be interrupted.
const CORES: &str = "0,1";
const PING: Duration = Duration::from_secs(25);
/// Connecting at the same time, while all come.
const TOGETHER: usize = 64;
/// Rooms have this many members at first.
const ROOM: usize = 25;
/// What happens in a second among 5,000.
const SAYS: f64 = 500.0;
const MOVES: f64 = 150.0;
const CUTS: f64 = 40.0;
/// How long one is away at the most, in milliseconds.
const AWAY_MS: u64 = 3_000;
/// The end of what is on its way.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Messages acknowledged ÷ planned. Some fall to who is away, or are cut off before the answer.
const SAID_MIN: f64 = 0.9;
/// Memory at the end ÷ memory after a third.
const GROWTH_MAX: f64 = 1.10;

struct Options {
    sockets: usize,
    seconds: u64,
    seed: u64,
}

fn main() -> ExitCode {
    let outcome = parse(env::args().skip(1)).and_then(|options| run(&options));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Outcome<Options> {
    let mut options = Options { sockets: 5_000, seconds: 180, seed: 1 };
    while let Some(name) = arguments.next() {
        let mut number = || arguments.next().and_then(|word| word.parse().ok()).ok_or(USAGE);
        match name.as_str() {
            "--sockets" => options.sockets = usize::try_from(number()?)?,
            "--seconds" => options.seconds = number()?,
            "--seed" => options.seed = number()?,
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

/// False if something was wrong with the server.
fn run(options: &Options) -> Outcome<bool> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = env::current_exe()?;
    let built = built.parent().ok_or("a program in a folder")?;
    let folder = env::temp_dir().join(format!("vestibule-soak-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let programs = Programs {
        node: package.join("node/server.mjs"),
        socketioxide: built.join("peer-socketioxide"),
        vestibule: built.join("vestibule"),
        configuration: package.join("soak.yaml"),
        folder: folder.clone(),
        cores: CORES,
    };
    let server = Server::start(Kind::Vestibule, PING, &programs)?;
    let mut soak = Soak::new(&server, options)?;
    let right = soak.run(Duration::from_secs(options.seconds))?;
    drop(soak);
    fs::remove_dir_all(&folder)?;
    Ok(right)
}

/// What a client has asked for.
#[derive(Clone, Copy)]
enum Asked {
    Join(usize),
    Leave(usize),
    Say(u64),
}

struct Soak<'a> {
    server: &'a Server,
    poll: Poll,
    members: Vec<Member>,
    /// What each is in or asked to be in, and whether that is sure.
    places: Vec<HashMap<usize, bool>>,
    asked: Vec<HashMap<u64, Asked>>,
    /// To be asked again when it is back.
    again: Vec<Vec<Asked>>,
    next_id: u64,
    said: Vec<u64>,
    away: Vec<(Instant, usize)>,
    rooms: usize,
    dice: Dice,
    judge: Judge,
    cuts: u64,
    returned: u64,
    moves: u64,
}

impl<'a> Soak<'a> {
    fn new(server: &'a Server, options: &Options) -> Outcome<Self> {
        let count = options.sockets;
        Ok(Self {
            server,
            poll: Poll::new()?,
            members: (0..count).map(Member::new).collect(),
            places: vec![HashMap::new(); count],
            asked: vec![HashMap::new(); count],
            again: vec![Vec::new(); count],
            next_id: 0,
            said: vec![0; count],
            away: Vec::new(),
            rooms: count.div_ceil(ROOM),
            dice: Dice(options.seed.max(1)),
            judge: Judge::default(),
            cuts: 0,
            returned: 0,
            moves: 0,
        })
    }

    fn run(&mut self, time: Duration) -> Outcome<bool> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 << 10];
        self.gather(&mut events, &mut buffer)?;
        let (begun, mut looked, mut memory) = (Instant::now(), Instant::now(), Vec::new());
        let mut done = [0_u64; 3];
        let share = self.members.len() as f64 / 5_000.0;
        while begun.elapsed() < time {
            self.turn(&mut events, &mut buffer)?;
            let due = |rate: f64| (begun.elapsed().as_secs_f64() * rate * share) as u64;
            while done[0] < due(SAYS) {
                done[0] += 1;
                self.say()?;
            }
            while done[1] < due(MOVES) {
                done[1] += 1;
                self.move_one()?;
            }
            while done[2] < due(CUTS) {
                done[2] += 1;
                self.cut()?;
            }
            self.bring_back()?;
            if looked.elapsed() > LOOK_EVERY {
                looked = Instant::now();
                memory.push(self.server.memory()?.resident);
                self.tell(begun.elapsed(), &memory);
            }
        }
        let ended = Instant::now();
        while ended.elapsed() < PATIENCE && !(self.judge.is_settled() && self.is_calm()) {
            self.turn(&mut events, &mut buffer)?;
            self.bring_back()?;
        }
        self.judge.close();
        Ok(self.verdict(&memory, done[0]))
    }

    /// Everybody is in, and nobody waits for an answer.
    fn is_calm(&self) -> bool {
        self.away.is_empty()
            && self.members.iter().all(Member::is_in)
            && self.asked.iter().all(HashMap::is_empty)
    }

    /// All connect, and join a first room.
    fn gather(&mut self, events: &mut Events, buffer: &mut [u8]) -> Outcome<()> {
        let begun = Instant::now();
        let mut started = 0;
        loop {
            let inside = self.members.iter().filter(|member| member.is_in()).count();
            if inside == self.members.len() {
                break;
            }
            while started < self.members.len() && started < inside + TOGETHER {
                let registry = self.poll.registry();
                let member = self.members.get_mut(started).ok_or("no such client")?;
                member.connect(self.server.address, registry)?;
                started += 1;
            }
            self.turn(events, buffer)?;
            if begun.elapsed() > PATIENCE * 2 {
                return Err(format!("{inside} connected in time").into());
            }
        }
        for number in 0..self.members.len() {
            self.join(number, number % self.rooms)?;
        }
        println!("{} sockets, {} rooms", self.members.len(), self.rooms);
        Ok(())
    }

    fn turn(&mut self, events: &mut Events, buffer: &mut [u8]) -> Outcome<()> {
        match self.poll.poll(events, Some(Duration::from_millis(2))) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(error.into());
            }
            _ => {}
        }
        let mut heard = Vec::new();
        for event in &*events {
            let number = event.token().0;
            let member = self.members.get_mut(number).ok_or("no such client")?;
            member.ready(buffer, &mut heard)?;
            for word in heard.drain(..) {
                self.take(number, word)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, number: usize, heard: Heard) -> Outcome<()> {
        match heard {
            Heard::Message { by, number: message } => self.judge.hears(number, by, message),
            Heard::Connected { same } => {
                if !same {
                    self.judge.begins_anew(number);
                }
                for asked in std::mem::take(&mut self.again[number]) {
                    self.ask(number, asked)?;
                }
            }
            Heard::Granted { id } => match self.asked[number].remove(&id) {
                Some(Asked::Join(room)) => {
                    self.places[number].insert(room, true);
                    self.judge.joined(number, room);
                }
                Some(Asked::Leave(room)) => {
                    self.places[number].remove(&room);
                    self.judge.has_left(number, room);
                }
                Some(Asked::Say(message)) => self.judge.said(number, message),
                None => return Err(format!("{number} was granted what it has not asked").into()),
            },
        }
        Ok(())
    }

    fn ask(&mut self, number: usize, asked: Asked) -> Outcome<()> {
        self.next_id += 1;
        let id = self.next_id;
        self.asked[number].insert(id, asked);
        let packet = match asked {
            Asked::Join(room) => format!("2/chat,{id}[\"join\",\"{room}\"]"),
            Asked::Leave(room) => format!("2/chat,{id}[\"leave\",\"{room}\"]"),
            Asked::Say(_) => return Err("a message is not asked".into()),
        };
        self.members[number].send(&packet)
    }

    fn join(&mut self, number: usize, room: usize) -> Outcome<()> {
        self.moves += 1;
        self.places[number].insert(room, false);
        self.judge.joins(number, room);
        self.ask(number, Asked::Join(room))
    }

    /// Somebody who is here.
    fn somebody(&mut self) -> Option<usize> {
        let number = self.dice.below(self.members.len());
        self.members[number].is_in().then_some(number)
    }

    /// One of its rooms in which it surely is.
    fn place(&mut self, number: usize) -> Option<usize> {
        let mut sure: Vec<usize> =
            self.places[number].iter().filter(|(_, sure)| **sure).map(|(room, _)| *room).collect();
        sure.sort_unstable();
        (!sure.is_empty()).then(|| sure[self.dice.below(sure.len())])
    }

    fn say(&mut self) -> Outcome<()> {
        let Some(number) = self.somebody() else { return Ok(()) };
        let Some(room) = self.place(number) else { return Ok(()) };
        self.said[number] += 1;
        let message = self.said[number];
        self.next_id += 1;
        let id = self.next_id;
        self.asked[number].insert(id, Asked::Say(message));
        self.judge.says(number, message, room);
        let words = format!("{{\"room\":\"{room}\",\"by\":{number},\"n\":{message}}}");
        self.members[number].send(&format!("2/chat,{id}[\"message\",{words}]"))
    }

    /// Somebody joins a room, or leaves one.
    fn move_one(&mut self) -> Outcome<()> {
        let Some(number) = self.somebody() else { return Ok(()) };
        let room = self.dice.below(self.rooms);
        if self.places[number].len() < 2 {
            return if self.places[number].contains_key(&room) {
                Ok(())
            } else {
                self.join(number, room)
            };
        }
        let Some(room) = self.place(number) else { return Ok(()) };
        if self.judge.may_leave(number, room) {
            self.moves += 1;
            self.places[number].insert(room, false);
            self.judge.leaves(number, room);
            self.ask(number, Asked::Leave(room))?;
        }
        Ok(())
    }

    /// Somebody's connection is lost, and it will be back.
    fn cut(&mut self) -> Outcome<()> {
        let Some(number) = self.somebody() else { return Ok(()) };
        self.cuts += 1;
        let half = self.dice.below(3) == 0;
        self.members[number].cut(half, self.poll.registry())?;
        for (_, asked) in self.asked[number].drain() {
            match asked {
                Asked::Say(message) => self.judge.is_unsure(number, message),
                moved => self.again[number].push(moved),
            }
        }
        let away = Duration::from_millis(self.dice.below(AWAY_MS as usize) as u64);
        self.away.push((Instant::now() + away, number));
        Ok(())
    }

    fn bring_back(&mut self) -> Outcome<()> {
        let now = Instant::now();
        let (back, away) = self.away.drain(..).partition(|(due, _)| *due <= now);
        self.away = away;
        let back: Vec<(Instant, usize)> = back;
        for (_, number) in back {
            self.returned += 1;
            self.members[number].connect(self.server.address, self.poll.registry())?;
        }
        Ok(())
    }

    fn tell(&self, elapsed: Duration, memory: &[f64]) {
        println!(
            "{:>4} s  {:>7} said  {:>9} delivered  {:>6} moves  {:>6} cuts  {:>8} KiB  {} faults",
            elapsed.as_secs(),
            self.judge.acknowledged,
            self.judge.delivered,
            self.moves,
            self.cuts,
            memory.last().copied().unwrap_or_default(),
            self.judge.fault_count,
        );
    }

    /// `planned` messages were to be said.
    fn verdict(&self, memory: &[f64], planned: u64) -> bool {
        let judge = &self.judge;
        for fault in &judge.faults {
            println!("fault: {fault}");
        }
        let third = memory.get(memory.len() / 3).copied().unwrap_or_default();
        let growth = memory.last().copied().unwrap_or_default() / third;
        println!(
            "{} messages acknowledged, {} deliveries, {} moves; {} cuts, {} came back; {} faults; \
             memory {growth:.2} of what it was after a third",
            judge.acknowledged,
            judge.delivered,
            self.moves,
            self.cuts,
            self.returned,
            judge.fault_count,
        );
        let outside = self.members.iter().filter(|member| !member.is_in()).count();
        let unanswered: usize = self.asked.iter().map(HashMap::len).sum();
        println!(
            "{planned} were planned; {outside} never came back, {unanswered} wait for an answer"
        );
        let is_busy = judge.delivered > 0 && judge.acknowledged as f64 >= SAID_MIN * planned as f64;
        let is_calm = outside == 0 && unanswered == 0;
        judge.fault_count == 0 && growth <= GROWTH_MAX && is_busy && is_calm
    }
}

/// Repeatable chance (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
