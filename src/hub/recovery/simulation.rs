//! Workers, clients and cuts in any order: whoever goes on gets everything once and in order.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use crate::hub::engine::{Delivery, Id, Message, Node, Outgoing};
use crate::hub::namespace::Target;

use super::claim::Returned;
use super::log::{self, Bounds, Log, Place, Vector};
use super::offset::{Offset, Stamp};
use super::shelf::Parcel;
use super::table::Away;
use super::ticket::{Leave, Ticket, is_for};

const WORKERS: usize = 3;
/// One for each worker, and what comes from outside.
const ORIGINS: usize = WORKERS + 1;
const ROOMS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    /// To a room, or to everybody; not to this client.
    Emit {
        origin: usize,
        room: usize,
        but: usize,
        volatile: bool,
    },
    /// Something comes from outside for everybody who is away, and nobody hears it.
    Miss,
    /// One worker hears the next message of another.
    Hear {
        worker: usize,
        origin: usize,
    },
    Move {
        client: usize,
        room: usize,
        joins: bool,
    },
    /// The client takes some of what is on its way to it.
    Take {
        client: usize,
        count: usize,
    },
    Cut {
        client: usize,
    },
    /// What it was sent at once when it came back is forgotten: because it has it, if it does, or
    /// to make room.
    Forget {
        client: usize,
        proved: bool,
    },
    /// It comes back; or only almost.
    Return {
        client: usize,
        worker: usize,
        enters: bool,
    },
    /// An earlier attempt to come back is heard of only now, with what the client had then.
    Stale {
        client: usize,
        worker: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0usize..3;
    let (worker, origin) = (0..WORKERS, 0..ORIGINS);
    prop_oneof![
        6 => (origin.clone(), 0usize..4, 0usize..6, prop::bool::weighted(0.2)).prop_map(
            |(origin, room, but, volatile)| Step::Emit { origin, room, but, volatile }
        ),
        1 => Just(Step::Miss),
        8 => (worker.clone(), origin)
            .prop_map(|(worker, origin)| Step::Hear { worker, origin }),
        2 => (client.clone(), 0usize..3, any::<bool>())
            .prop_map(|(client, room, joins)| Step::Move { client, room, joins }),
        3 => (client.clone(), 0usize..4).prop_map(|(client, count)| Step::Take { client, count }),
        2 => client.clone().prop_map(|client| Step::Cut { client }),
        2 => (client.clone(), prop::bool::weighted(0.7))
            .prop_map(|(client, proved)| Step::Forget { client, proved }),
        3 => (client.clone(), worker.clone(), prop::bool::weighted(0.8)).prop_map(
            |(client, worker, enters)| Step::Return { client, worker, enters }
        ),
        1 => (client, worker).prop_map(|(client, worker)| Step::Stale { client, worker }),
    ]
}

struct Sent {
    stamp: Stamp,
    target: Arc<Target>,
    message: Arc<Message>,
    delivery: Delivery,
    /// It is said that there was something, and not what.
    missed: bool,
}

struct World {
    node: Node,
    bounds: Bounds,
    now: Instant,
    numbers: [u64; ORIGINS],
    logs: [Log; WORKERS],
    /// By worker and origin: what has not been heard there.
    pending: [[VecDeque<usize>; ORIGINS]; WORKERS],
    sent: Vec<Sent>,
    clients: Vec<Client>,
    /// Nothing volatile is sent.
    deaf: bool,
    /// Nothing is forgotten that somebody may need, or missed.
    roomy: bool,
    anew: usize,
}

struct Client {
    id: Id,
    state: State,
    rooms: BTreeSet<String>,
    /// On the wire, and not taken yet.
    wire: VecDeque<(Stamp, Delivery)>,
    offset: Option<Offset>,
    /// Offsets that it had at some time of this session.
    offsets: Vec<Option<Offset>>,
    got: Vec<Stamp>,
    /// What it should have by the end.
    due: HashSet<Stamp>,
    /// What its last worker had heard when it left.
    heard: Vector,
    /// How much of what it was sent at once when it came back is still on the wire.
    unproved: usize,
}

enum State {
    Here { worker: usize, ticket: Rc<Ticket> },
    Away { worker: usize, away: Option<Away> },
    Returned(Arc<Returned>),
}

impl World {
    fn new(messages: usize) -> Self {
        let age = Duration::from_secs(3600);
        let mut world = Self {
            node: Node::random(),
            bounds: Bounds { messages, bytes: usize::MAX, age },
            now: Instant::now(),
            numbers: Default::default(),
            logs: Default::default(),
            pending: Default::default(),
            sent: Vec::new(),
            clients: Vec::new(),
            deaf: false,
            roomy: false,
            anew: 0,
        };
        for worker in 0..WORKERS {
            let client = world.newcomer(worker);
            world.clients.push(client);
        }
        world
    }

    fn newcomer(&self, worker: usize) -> Client {
        let log = &self.logs[worker];
        let ticket = Ticket::new(Id::random(), log);
        Client {
            id: Id::random(),
            state: State::Here { worker, ticket: Rc::new(ticket) },
            rooms: BTreeSet::new(),
            wire: VecDeque::new(),
            offset: None,
            offsets: vec![None],
            got: Vec::new(),
            due: HashSet::new(),
            heard: log.heard(),
            unproved: 0,
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Emit { origin, room, but, volatile } => self.emit(origin, room, but, volatile),
            Step::Miss if self.roomy => (),
            Step::Miss => {
                let target = Target { rooms: None, except: Vec::new(), but: None };
                self.say(WORKERS, target, Delivery::Kept, true);
            }
            Step::Hear { worker, origin } => self.hear(worker, origin),
            Step::Move { client, room, joins } => self.turn(client, ROOMS[room], joins),
            Step::Take { client, count } => self.take(client, count),
            Step::Cut { client } => self.cut(client),
            Step::Forget { client, proved } => self.forget(client, proved),
            Step::Return { client, worker, enters } => {
                let offset = self.clients[client].offset;
                self.claim(client, worker, offset);
                if enters {
                    self.enter(client, worker);
                }
            }
            Step::Stale { client, worker } => {
                let offsets = &self.clients[client].offsets;
                let offset = offsets[offsets.len() / 2];
                if matches!(self.clients[client].state, State::Here { .. }) {
                    self.claim(client, worker, offset);
                }
            }
        }
    }

    fn emit(&mut self, origin: usize, room: usize, but: usize, volatile: bool) {
        let rooms = ROOMS.get(room).map(|room| vec![(*room).to_owned()]);
        let but = self.clients.get(but).map(|client| client.id);
        let delivery = if volatile && !self.deaf { Delivery::Volatile } else { Delivery::Kept };
        self.say(origin, Target { rooms, except: Vec::new(), but }, delivery, false);
    }

    fn say(&mut self, from: usize, target: Target, delivery: Delivery, missed: bool) {
        self.numbers[from] += 1;
        let origin = u8::try_from(from).expect("few");
        let stamp = Stamp { origin, number: self.numbers[from] };
        let (target, message) = (Arc::new(target), Arc::new(Message::text("2[]".to_owned())));
        let index = self.sent.len();
        self.sent.push(Sent { stamp, target, message, delivery, missed });
        for worker in 0..WORKERS {
            if worker == from {
                self.deliver(worker, index);
            } else {
                self.pending[worker][from].push_back(index);
            }
        }
    }

    fn hear(&mut self, worker: usize, origin: usize) {
        if let Some(index) = self.pending[worker][origin].pop_front() {
            self.deliver(worker, index);
        }
    }

    fn hear_up_to(&mut self, worker: usize, vector: &[u64]) {
        while !self.logs[worker].has_heard(vector) {
            (0..ORIGINS).for_each(|origin| self.hear(worker, origin));
        }
    }

    fn deliver(&mut self, here: usize, index: usize) {
        let Sent { stamp, target, message, delivery, missed } = &self.sent[index];
        if *missed {
            return self.logs[here].gap(*stamp, self.now);
        }
        for client in &mut self.clients {
            let State::Here { worker, ticket } = &client.state else { continue };
            if *worker == here && is_for(target, client.id, |room| client.rooms.contains(room)) {
                client.wire.push_back((*stamp, *delivery));
                ticket.note_sent(*stamp, *delivery, true);
                if *delivery == Delivery::Kept {
                    client.due.insert(*stamp);
                }
            }
        }
        let message = Outgoing::new(Arc::clone(message));
        let parcel = Parcel { target: Arc::clone(target), message };
        let parcel = (*delivery == Delivery::Kept).then_some(parcel);
        self.logs[here].append(*stamp, parcel, self.now, &self.bounds);
    }

    fn turn(&mut self, client: usize, room: &str, joins: bool) {
        let client = &mut self.clients[client];
        let State::Here { worker, ticket } = &client.state else { return };
        let moved =
            if joins { client.rooms.insert(room.to_owned()) } else { client.rooms.remove(room) };
        if moved {
            ticket.note_move(&self.logs[*worker], room, joins);
        }
    }

    fn take(&mut self, client: usize, count: usize) {
        let (node, client) = (self.node, &mut self.clients[client]);
        for _ in 0..count {
            let Some((stamp, delivery)) = client.wire.pop_front() else { return };
            client.unproved = client.unproved.saturating_sub(1);
            client.offset = Some(Offset { node, stamp });
            client.offsets.push(client.offset);
            if delivery == Delivery::Kept {
                client.got.push(stamp);
            }
        }
    }

    fn forget(&self, client: usize, proved: bool) {
        let Client { state: State::Here { ticket, .. }, unproved, .. } = &self.clients[client]
        else {
            return;
        };
        match (proved, unproved) {
            (true, 0) => ticket.prove(),
            (true, _) => return,
            (false, _) if self.roomy => return,
            (false, _) => ticket.lose_track(),
        }
        assert_eq!(ticket.resent_size(), 0);
    }

    fn cut(&mut self, client: usize) {
        let client = &mut self.clients[client];
        let State::Here { worker, ticket } = &client.state else { return };
        let (worker, log) = (*worker, &self.logs[*worker]);
        client.wire.clear();
        client.heard = log.heard();
        let patience = Duration::from_secs(1);
        let leave = Leave { at: self.now, heard: log.heard(), end: log.end(), patience };
        let away = Away {
            user: None,
            id: client.id,
            namespace: "/".into(),
            rooms: client.rooms.iter().cloned().collect(),
            data: None,
            ticket: Rc::clone(ticket),
            leave,
            due: self.now,
        };
        client.state = State::Away { worker, away: Some(away) };
    }

    /// What it left comes to this worker, if that is possible.
    fn claim(&mut self, client: usize, to: usize, offset: Option<Offset>) {
        // It takes the place of a connection that is only half gone.
        self.cut(client);
        let client_of = &mut self.clients[client];
        let answer = match &mut client_of.state {
            State::Away { worker, away } => {
                let away = away.take().expect("taken once");
                away.give(&self.logs[*worker], offset.map(|offset| offset.stamp))
            }
            State::Returned(returned) => {
                Arc::clone(returned).renew(offset.map(|offset| offset.stamp))
            }
            State::Here { .. } => return,
        };
        match answer {
            Ok(returned) => client_of.state = State::Returned(returned),
            Err(_) => self.begin_anew(client, to),
        }
    }

    fn enter(&mut self, index: usize, worker: usize) {
        let State::Returned(returned) = &self.clients[index].state else { return };
        let returned = Arc::clone(returned);
        self.hear_up_to(worker, &returned.heard);
        let log = &self.logs[worker];
        let Ok(missed) = returned.missed(log) else { return self.begin_anew(index, worker) };
        let ticket = Ticket::renewed(&returned, &missed, log, self.now);
        let client = &mut self.clients[index];
        client.wire = missed.iter().map(|(stamp, _)| (*stamp, Delivery::Kept)).collect();
        client.unproved = missed.len();
        // All that it would have heard, had it been here.
        let heard = log.heard();
        for Sent { stamp, target, delivery, .. } in &self.sent {
            let meanwhile = !log::has(&client.heard, *stamp) && log::has(&heard, *stamp);
            let meant = is_for(target, client.id, |room| client.rooms.contains(room));
            if meanwhile && meant && *delivery == Delivery::Kept {
                client.due.insert(*stamp);
            }
        }
        client.state = State::Here { worker, ticket: Rc::new(ticket) };
    }

    fn begin_anew(&mut self, client: usize, worker: usize) {
        // The client keeps the offset that it had.
        let offset = self.clients[client].offset;
        self.check(client, false);
        let known = offset.map(|offset| log::vector_of(offset.stamp)).unwrap_or_default();
        self.hear_up_to(worker, &known);
        self.clients[client] = Client { offset, ..self.newcomer(worker) };
        self.clients[client].offsets = vec![offset];
        self.anew += 1;
    }

    fn end(&mut self) {
        for worker in 0..WORKERS {
            for origin in 0..ORIGINS {
                while !self.pending[worker][origin].is_empty() {
                    self.hear(worker, origin);
                }
            }
        }
        for client in 0..self.clients.len() {
            if !matches!(self.clients[client].state, State::Here { .. }) {
                let offset = self.clients[client].offset;
                self.claim(client, 0, offset);
                self.enter(client, 0);
            }
            self.take(client, usize::MAX);
            self.check(client, true);
        }
    }

    fn check(&self, client: usize, whole: bool) {
        let Client { got, due, .. } = &self.clients[client];
        for origin in 0..ORIGINS {
            let numbers = got.iter().filter(|stamp| usize::from(stamp.origin) == origin);
            let numbers: Vec<u64> = numbers.map(|stamp| stamp.number).collect();
            assert!(numbers.is_sorted_by(|one, next| one < next), "{client}: {numbers:?}");
        }
        let got: HashSet<Stamp> = got.iter().copied().collect();
        assert!(got.is_subset(due), "{client} got {:?}", got.difference(due));
        if whole {
            assert_eq!(&got, due, "{client} lacks {:?}", due.difference(&got));
        }
    }
}

/// As when two processes lose each other, and find each other again.
#[test]
fn what_another_process_has_said_unheard_is_a_gap() {
    let (log, now, bounds) = (Log::default(), Instant::now(), World::new(9).bounds);
    let at = |origin, number| Stamp { origin, number };
    log.append(at(0, 1), None, now, &bounds);
    log.pass(at(3, 5), now);
    log.append(at(3, 6), None, now, &bounds);
    log.pass(at(3, 6), now);
    assert_eq!((log.place(at(0, 1)), log.place(at(3, 6))), (Place::At(0), Place::At(1)));
    log.pass(at(3, 9), now);
    assert_eq!((log.place(at(0, 1)), log.place(at(3, 6))), (Place::Gone, Place::Gone));
    assert!(log.has_all_after(&[1, 0, 0, 9]) && !log.has_all_after(&[1, 0, 0, 8]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn everybody_goes_on(steps in prop::collection::vec(step(), 0..150)) {
        let mut world = World::new(usize::MAX);
        // Where in what may be dropped a client stands is not known of one that is replaced twice.
        world.deaf = steps.iter().any(|step| matches!(step, Step::Stale { .. }));
        world.roomy = true;
        steps.iter().for_each(|step| world.run(step));
        world.end();
        prop_assert_eq!(world.anew, 0);
    }

    #[test]
    fn who_goes_on_although_it_is_forgotten_what_was_sent_lacks_nothing(
        steps in prop::collection::vec(step(), 0..150),
    ) {
        let mut world = World::new(usize::MAX);
        steps.iter().for_each(|step| world.run(step));
        world.end();
    }

    #[test]
    fn who_goes_on_although_little_is_kept_lacks_nothing(
        messages in 1usize..12,
        steps in prop::collection::vec(step(), 0..150),
    ) {
        let mut world = World::new(messages);
        steps.iter().for_each(|step| world.run(step));
        world.end();
    }
}
