//! What there is, and what each step does to it: see `super`.

mod outcome;

use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::hub::cluster::Said;
use crate::hub::cluster::line::LineError;
use crate::hub::cluster::order::{
    AHEAD, Enter, Entering, Fetching, Keeps, NOWHERE, Next, Opened, Order, PORTABLE, Unread, Way,
};
use crate::hub::cluster::reading::{Entry, Key, NUMBER, entries_after, entries_up_to};
use crate::hub::cluster::resp::Value;
use crate::hub::cluster::unsure::{self, Named};
use crate::hub::cluster::wire::{Session, id_of, number_of};
use crate::hub::engine::{Id, Message};
use crate::hub::namespace::Target;
use crate::hub::outbox::Notice;
use crate::hub::recovery::{Stamp, Wish, is_for, noted};

use super::{CLIENTS, NODES, ROOMS, Rules, Step};

const STREAM: &str = "s";

pub struct World {
    rules: Rules,
    stream: Vec<Entry>,
    /// The last that was given to an entry.
    last: u64,
    targets: Vec<Arc<Target>>,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    begun: usize,
    /// Clients that went on.
    pub recovered: usize,
}

struct Node {
    uid: String,
    order: Order,
    /// The last entry that was read.
    read: u64,
    /// The last that its clients have, if that says what they have.
    place: Option<u64>,
    number: u64,
    flights: VecDeque<Flight>,
    /// Over connections that are no more.
    late: VecDeque<Entry>,
    answered: HashSet<Key>,
}

struct Flight {
    named: Named,
    words: Entry,
    is_done: bool,
}

struct Client {
    id: Id,
    rooms: Arc<[String]>,
    state: State,
    wire: VecDeque<(usize, String)>,
    /// Of this life, with their places.
    got: Vec<(usize, Option<u64>)>,
    offset: Option<String>,
    /// What its node was told last that it sent it.
    last: Option<Stamp>,
    /// What is kept of it in Redis.
    kept: Session,
}

enum State {
    Here(usize),
    Away,
    Entering(usize, Box<Enter>),
}

/// Nothing here waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

fn place_in(id: &str) -> u64 {
    number_of(id).expect("an id")
}

/// A message's index and its offset, out of `42["m",INDEX,"OFFSET"]`.
fn read(message: &Message) -> (usize, String) {
    let text = message.words().0.expect("a text");
    let (_, rest) = text.split_once("\"m\",").expect("one of ours");
    let (index, offset) = rest.split_once(",\"").expect("an offset");
    (index.parse().expect("an index"), offset.trim_end_matches("\"]").to_owned())
}

impl World {
    pub fn new(rules: Rules) -> Self {
        let (stream, targets, nodes, clients) = Default::default();
        let (begun, recovered) = (0, 0);
        let mut world =
            Self { rules, stream, last: 1 << 30, targets, nodes, clients, begun, recovered };
        for _ in 0..NODES {
            let node = world.new_node();
            world.nodes.push(node);
        }
        for index in 0..CLIENTS {
            let rooms = ROOMS.iter().enumerate().filter(|(room, _)| (index >> room) & 1 == 1);
            world.clients.push(Client {
                id: Id::random(),
                rooms: rooms.map(|(_, room)| (*room).to_owned()).collect(),
                state: State::Away,
                wire: VecDeque::new(),
                got: Vec::new(),
                offset: None,
                last: None,
                kept: Session::default(),
            });
            world.begin_anew(index, index % NODES);
        }
        world
    }

    /// As Redis answers it.
    fn answer(&self, words: &[&[u8]]) -> Value {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).expect("text").to_owned();
        let written = |entry: &Entry| {
            let fields = entry.fields.iter().flat_map(|(name, value)| [name, value]);
            let fields = fields.map(|field| Value::Text(field.clone())).collect();
            Value::List(vec![Value::Text(entry.id.clone()), Value::List(fields)])
        };
        let number = |entry: &&Entry| entry.number().expect("an id");
        // One at a time, so that all pages are gone through.
        let found = match words {
            [b"XRANGE", _, start, b"+", ..] => {
                let start = place_in(text(start).strip_prefix('(').expect("exclusive"));
                self.stream.iter().find(|entry| number(entry) > start)
            }
            [b"XREVRANGE", _, b"+", ..] => self.stream.last(),
            [b"XREVRANGE", _, end, ..] => {
                let end = text(end);
                let (end, excluded) = match end.strip_prefix('(') {
                    Some(end) => (place_in(end), 1),
                    None => (place_in(&end), 0),
                };
                self.stream.iter().rev().find(|entry| number(entry) + excluded <= end)
            }
            other => panic!("{other:?}"),
        };
        Value::List(found.into_iter().map(written).collect())
    }

    fn ask(&self) -> impl AsyncFnMut(&[&[u8]]) -> Result<Value, LineError> {
        async |words: &[&[u8]]| Ok(self.answer(words))
    }

    fn open(&self, entry: &Entry) -> Option<Opened> {
        let (_, index) = entry.fields.last()?;
        let index: usize = std::str::from_utf8(index).ok()?.parse().ok()?;
        let target = Arc::clone(self.targets.get(index)?);
        let data = format!("[\"m\",{index}]");
        Some(Opened { namespace: "/".into(), target, data, parts: Vec::new() })
    }

    fn new_node(&mut self) -> Node {
        self.begun += 1;
        let order = Order::default();
        let (messages, bytes, lasts) = (1000, 1 << 20, Duration::from_secs(60));
        order.serve(std::iter::once(("/".into(), STREAM.into())));
        order.keeps.set(Keeps { messages, bytes, lasts, queue: 1 << 20 });
        let before = entries_up_to(STREAM, b"+", self.rules.window, self.ask());
        let before = at_once(before).expect("answered");
        let number = |entry: Option<&Entry>| entry.and_then(Entry::number).unwrap_or_default();
        let read = number(before.entries.last());
        let since = if before.is_all { 0 } else { number(before.entries.first()) };
        order.begin(&STREAM.into(), since, &before.entries, |entry| self.open(entry));
        Node {
            uid: format!("n{}", self.begun),
            order,
            read,
            place: Some(read),
            number: 0,
            flights: VecDeque::new(),
            late: VecDeque::new(),
            answered: HashSet::new(),
        }
    }

    pub fn run(&mut self, step: &Step) {
        match *step {
            Step::Say { node, room, but } => self.say(node, room, but),
            Step::Do { node } => {
                self.perform(node);
                self.hear_answers(node);
            }
            Step::DoUnheard { node } => self.perform(node),
            Step::Break { node } => self.break_off(node),
            Step::DoLate { node } => {
                if let Some(entry) = self.nodes[node].late.pop_front() {
                    self.append(entry);
                }
            }
            Step::Lose { count } if self.rules.loses => self.lose(count),
            Step::Lose { .. } => {}
            Step::SayAgain { node } => self.say_again(node),
            Step::Read { node, count } => {
                (0..count).for_each(|_| self.read(node));
                self.place(node);
            }
            Step::Ahead { node, is_so } => self.go_ahead(node, is_so),
            Step::Crash { node } => self.crash(node),
            Step::Take { client, count } => (0..count).for_each(|_| self.take(client)),
            Step::Keep { client } => self.keep(client),
            Step::Cut { client } => self.leave(client),
            Step::Come { client, node } => self.come(client, node),
            Step::Enter { client } => self.enter(client),
            Step::Close { node } => self.close(node),
        }
    }

    fn say(&mut self, node: usize, room: usize, but: usize) {
        let rooms = ROOMS.get(room).map(|room| vec![(*room).to_owned()]);
        let but = self.clients.get(but).map(|client| client.id);
        self.targets.push(Arc::new(Target { rooms, except: Vec::new(), but }));
        let at = &mut self.nodes[node];
        at.number += 1;
        let key = (0, at.number);
        let index = (self.targets.len() - 1).to_string();
        let number = format!("0.{}", at.number);
        let fields = [("uid", at.uid.as_str()), (NUMBER, &number), ("index", &index)];
        let fields: Vec<_> = fields.map(|(name, value)| (bytes(name), bytes(value))).into();
        let named = Named { is_awaited: true, ..at.order.name(key, STREAM.into()) };
        let said = Said { stream: STREAM.into(), bytes: Bytes::new(), fields: fields.clone() };
        let unread = Unread { said, behind: named.behind, confirmed: None };
        at.order.unread.borrow_mut().insert(key, unread);
        let words = Entry { id: Bytes::new(), fields };
        at.flights.push_back(Flight { named, words, is_done: false });
        if at.order.goes_ahead.get() {
            self.send_ahead(node, key);
        }
    }

    fn append(&mut self, words: Entry) {
        self.last += 1;
        self.stream.push(Entry { id: bytes(&id_of(self.last)), ..words });
    }

    fn perform(&mut self, node: usize) {
        let next = self.nodes[node].flights.iter_mut().find(|flight| !flight.is_done);
        if let Some(flight) = next {
            flight.is_done = true;
            let words = flight.words.clone();
            self.append(words);
        }
    }

    fn hear_answers(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        while let Some(flight) = at.flights.pop_front_if(|flight| flight.is_done) {
            at.answered.insert(flight.named.key);
        }
    }

    /// The next connection ends this one, if it may, and looks for what was said.
    fn break_off(&mut self, node: usize) {
        let at = &self.nodes[node];
        let sought: Vec<Named> = at.flights.iter().map(|flight| flight.named.clone()).collect();
        let found = unsure::find(&at.uid, &sought, self.ask());
        let found = at_once(found).expect("answered");
        let lingers = self.rules.lingers;
        let at = &mut self.nodes[node];
        let open = at.flights.iter().filter(|flight| !flight.is_done && lingers);
        let late: Vec<Entry> = open.map(|flight| flight.words.clone()).collect();
        at.late.extend(late);
        at.flights.retain(|flight| !found.contains(&flight.named.key));
        at.answered.extend(found);
        at.flights.iter_mut().for_each(|flight| flight.is_done = false);
    }

    fn lose(&mut self, count: usize) {
        let left = self.stream.len().saturating_sub(count);
        self.stream.truncate(left);
        for node in 0..NODES {
            let at = &mut self.nodes[node];
            // The server that they came to is not the one that is asked.
            at.late.clear();
            self.break_off(node);
            let read = self.nodes[node].read;
            if read != 0 && !self.stream.iter().any(|entry| entry.number() == Some(read)) {
                self.nodes[node].order.trim(&STREAM.into());
                self.tell(node, vec![Notice::Trimmed(STREAM.into())]);
            }
        }
    }

    /// Who may have what is lost is sent away.
    fn close(&mut self, node: usize) {
        if self.nodes[node].order.outruns.get() {
            for client in 0..CLIENTS {
                if self.is_at(client, node) {
                    self.leave(client);
                }
            }
            self.nodes[node].order.outruns.set(false);
        }
    }

    fn say_again(&mut self, node: usize) {
        let at = &self.nodes[node];
        let unread = at.order.unread.borrow();
        let late = unread.iter().filter(|(key, _)| at.answered.contains(key));
        let late: Vec<(Named, Entry)> = late
            .map(|(key, unread)| {
                let (stream, behind) = (STREAM.into(), unread.behind);
                let named = Named { key: *key, stream, behind, is_awaited: true };
                (named, Entry { id: Bytes::new(), fields: unread.said.fields.clone() })
            })
            .collect();
        drop(unread);
        let sought: Vec<Named> = late.iter().map(|(named, _)| named.clone()).collect();
        let found = at_once(unsure::find(&at.uid, &sought, self.ask())).expect("answered");
        let at = &mut self.nodes[node];
        for (named, words) in late {
            if !found.contains(&named.key) {
                at.answered.remove(&named.key);
                at.flights.push_back(Flight { named, words, is_done: false });
            }
        }
    }

    fn read(&mut self, node: usize) {
        let read = self.nodes[node].read;
        let Some(entry) = self.stream.iter().find(|entry| entry.number() > Some(read)).cloned()
        else {
            return;
        };
        let (number, stream) = (entry.number().expect("an id"), STREAM.into());
        let opened = self.open(&entry).expect("one of ours");
        let at = &mut self.nodes[node];
        at.read = number;
        at.order.read(&stream, &entry);
        let own = entry.is_of(&at.uid).then(|| entry.key().expect("a key"));
        if at.order.repeats(&stream, &entry, own) {
            return;
        }
        let way = match own.map(|key| at.order.came(key)) {
            Some(Way::Unknown) => return,
            Some(way) => way,
            None => Way::Waited,
        };
        let mut notices = Vec::new();
        at.order.deliver(number, way, opened, false, &mut notices);
        self.tell(node, notices);
    }

    fn go_ahead(&mut self, node: usize, is_so: bool) {
        let order = &self.nodes[node].order;
        order.goes_ahead.set(is_so);
        let keys: Vec<Key> = order.unread.borrow().keys().copied().collect();
        keys.into_iter().filter(|_| is_so).for_each(|key| self.send_ahead(node, key));
    }

    fn send_ahead(&mut self, node: usize, key: Key) {
        let mut notices = Vec::new();
        let open =
            |said: &Said| self.open(&Entry { id: Bytes::new(), fields: said.fields.clone() });
        self.nodes[node].order.go_ahead(key, open, &mut notices);
        self.tell(node, notices);
    }

    fn tell(&mut self, node: usize, notices: Vec<Notice>) {
        let place = |stamp: Stamp| (stamp.origin == PORTABLE).then_some(stamp.number);
        for notice in notices {
            match notice {
                Notice::Placed { stamp, .. } => self.nodes[node].place = place(stamp),
                Notice::Trimmed(_) => {
                    for client in &mut self.clients {
                        if matches!(client.state, State::Here(there) if there == node) {
                            client.last = Some(Stamp { origin: AHEAD, number: 0 });
                        }
                    }
                }
                Notice::Emit { target, message, stamp, .. } => {
                    self.nodes[node].place = place(stamp.expect("a stamp"));
                    for client in &mut self.clients {
                        let is_here = matches!(client.state, State::Here(there) if there == node);
                        let inside = |room: &str| client.rooms.iter().any(|known| known == room);
                        if is_here && is_for(&target, client.id, inside) {
                            client.wire.push_back(read(&message));
                            client.last = stamp;
                        }
                    }
                }
                _ => panic!("no other"),
            }
        }
    }

    /// Whether it is there, or waits for it.
    fn is_at(&self, client: usize, node: usize) -> bool {
        let state = &self.clients[client].state;
        matches!(state, State::Here(at) | State::Entering(at, _) if *at == node)
    }

    fn cut_all(&mut self, node: usize) {
        for client in 0..CLIENTS {
            if self.is_at(client, node) {
                self.cut(client);
            }
        }
    }

    fn crash(&mut self, node: usize) {
        self.cut_all(node);
        let new = self.new_node();
        let old = std::mem::replace(&mut self.nodes[node], new);
        self.nodes[node].late = old.late;
        if self.rules.lingers {
            let open = old.flights.into_iter().filter(|flight| !flight.is_done);
            self.nodes[node].late.extend(open.map(|flight| flight.words));
        }
    }

    fn take(&mut self, client: usize) {
        let known = &mut self.clients[client];
        let Some((index, offset)) = known.wire.pop_front() else { return };
        let place = number_of(&offset);
        let before = &known.got;
        assert!(before.iter().all(|(got, _)| *got != index), "{index} twice to {client}");
        let last = before.iter().filter_map(|(_, place)| *place).next_back();
        let is_later = place.is_none() || last.is_none_or(|last| Some(last) < place);
        assert!(is_later || self.rules.loses, "{index} out of order to {client}");
        known.got.push((index, place));
        known.offset = Some(offset);
    }

    /// All of the batch is told.
    fn place(&mut self, node: usize) {
        let mut notices = Vec::new();
        self.nodes[node].order.place(&mut notices);
        self.tell(node, notices);
    }

    /// What it would leave is kept as it is now.
    fn keep(&mut self, client: usize) {
        let known = &mut self.clients[client];
        if let State::Here(node) = known.state {
            let (last, upto) = noted(known.last, self.nodes[node].place);
            (known.kept.last, known.kept.upto) = (last, upto);
        }
    }

    /// Its node sees it go.
    fn leave(&mut self, client: usize) {
        self.keep(client);
        self.cut(client);
    }

    fn cut(&mut self, client: usize) {
        let client = &mut self.clients[client];
        client.state = State::Away;
        client.wire.clear();
    }

    fn come(&mut self, client: usize, node: usize) {
        let known = &self.clients[client];
        if matches!(known.state, State::Entering(..)) {
            return;
        }
        let offset = known.offset.as_deref().filter(|offset| *offset != NOWHERE);
        let wish = Wish { pid: known.id, offset: offset.map(place_in) };
        let is_nowhere = known.offset.as_deref() == Some(NOWHERE);
        let returned = wish.returned(known.kept.clone(), &"/".into(), None);
        let afar = returned.ok().and_then(|returned| returned.afar).filter(|_| !is_nowhere);
        self.cut(client);
        let Some(afar) = afar else { return self.begin_anew(client, node) };
        let known = &mut self.clients[client];
        let (id, rooms, have) = (known.id, Arc::clone(&known.rooms), afar.have);
        known.last = afar.news.map(|number| Stamp { origin: PORTABLE, number });
        let entering = Entering { worker: 0, number: 0, namespace: "/".into(), id, rooms, have };
        let until = Instant::now() + Duration::from_secs(3600);
        known.state = State::Entering(node, Box::new(Enter { entering, fetched: None, until }));
    }

    fn begin_anew(&mut self, client: usize, node: usize) {
        let floor = self.nodes[node].place;
        let shown = self.clients[client].offset.as_deref().and_then(number_of);
        let is_there = |at: u64| self.stream.iter().any(|entry| entry.number() == Some(at));
        if shown.is_some_and(|shown| floor < Some(shown) && is_there(shown)) {
            // It waits until that has been read, and comes again.
            self.clients[client].state = State::Away;
            return;
        }
        let known = &mut self.clients[client];
        known.state = State::Here(node);
        known.got.clear();
        known.last = None;
        let (outgrown, id) = (shown.filter(|shown| floor < Some(*shown)), known.id.as_str());
        known.kept = Session { id: id.into(), floor, outgrown, ..Session::default() };
        self.keep(client);
    }

    fn enter(&mut self, client: usize) {
        let state = std::mem::replace(&mut self.clients[client].state, State::Away);
        let State::Entering(node, mut enter) = state else {
            self.clients[client].state = state;
            return;
        };
        match self.nodes[node].order.enter(STREAM, &enter) {
            Next::Enters(Some(missed)) => {
                let known = &mut self.clients[client];
                known.wire.extend(missed.iter().map(|(_, message)| read(message)));
                let last = missed.last().map(|(number, _)| *number);
                known.last = last.map(|number| Stamp { origin: PORTABLE, number }).or(known.last);
                known.state = State::Here(node);
                self.keep(client);
                self.recovered += 1;
                return;
            }
            Next::Enters(None) => return self.begin_anew(client, node),
            Next::Wait => {}
            Next::Fetch => {
                let Some(()) = self.fetch(&mut enter) else { return self.begin_anew(client, node) };
            }
        }
        self.clients[client].state = State::Entering(node, enter);
    }

    fn fetch(&self, enter: &mut Enter) -> Option<()> {
        let entering = &enter.entering;
        let keeps = self.nodes[0].order.keeps.get();
        let mut fetching = Fetching::new(entering, keeps);
        if entering.have != 0 {
            let (have, window) = (id_of(entering.have), self.rules.window);
            let before = at_once(entries_up_to(STREAM, have.as_bytes(), window, self.ask()));
            fetching.know(&before.expect("answered").entries).then_some(())?;
        }
        loop {
            let entries = at_once(entries_after(STREAM, fetching.end(), self.ask()));
            let entries = entries.expect("answered");
            if entries.is_empty() {
                enter.fetched = Some(fetching.done());
                return Some(());
            }
            assert!(fetching.take(&entries, |entry| self.open(entry)), "not too much");
        }
    }
}
