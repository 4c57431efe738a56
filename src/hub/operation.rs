//! What the operator's side wants of the clients: to tell, move, send away, list or count them.
//!
//! One worker leads: it does each operation and tells the others, in the same line as the events
//! that it emits; so all workers do everything in one order. Their answers are added up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::Hub;
use super::clients::Clients;
use super::cluster::{Change, Remote, Uplink};
use super::describe::remote;
use super::engine::{Close, Delivery};
use super::namespace::{Namespace, Target};
use super::outbox::{Letter, Notice, Order};
use super::socket::Socket;

/// One thing to be done in one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub namespace: Arc<str>,
    pub deed: Deed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    Emit {
        target: Target,
        /// An array that begins with the event's name.
        data: Box<str>,
        parts: Vec<Bytes>,
        delivery: Delivery,
    },
    Join {
        target: Target,
        rooms: Vec<String>,
    },
    Leave {
        target: Target,
        rooms: Vec<String>,
    },
    Disconnect {
        target: Target,
        close: bool,
    },
    Sockets {
        target: Target,
        page: Page,
    },
    Rooms {
        page: Page,
    },
    Count {
        room: Option<String>,
    },
    /// As other nodes want to know it.
    Describe {
        target: Target,
    },
}

/// A part of a list that has an order: what comes after `after`, `most` of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub after: String,
    pub most: usize,
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Sockets that were meant.
    Count(usize),
    Heads(Heads),
    /// In the order of their ids.
    Sockets(Listed<Seen>),
    /// How many are in each.
    Rooms(Listed<Heads>),
    Described(Vec<Remote>),
}

/// How many there are somewhere.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Heads {
    pub sockets: usize,
    /// How many different users they are of, among those of all providers; `None` where nobody is
    /// identified.
    pub users: Option<usize>,
    /// Users of another process, by their numbers, until it is known who of them is here as well.
    pub(super) elsewhere: BTreeSet<u64>,
}

impl Heads {
    pub(super) fn add(&mut self, other: Self) {
        self.sockets += other.sockets;
        if let Some(users) = other.users {
            *self.users.get_or_insert_default() += users;
        }
        self.elsewhere.extend(other.elsewhere);
    }
}

/// A page of a list, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    pub items: BTreeMap<String, T>,
    /// There is something beyond the page.
    pub more: bool,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), more: false }
    }
}

/// One socket as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub rooms: Vec<String>,
    /// Whose it is, where that is known.
    pub user: Option<String>,
    /// Unknown of some sockets of other nodes, as all transports there.
    pub address: Option<IpAddr>,
    pub transport: Option<&'static str>,
}

/// Workers that did not answer in time; what was asked may still happen there.
#[derive(Debug, thiserror::Error)]
#[error("{} did not answer in {ANSWER:?}; there it may still happen", who(workers, *of))]
pub struct Silent {
    /// None of them: the other process of an upgrade.
    pub workers: Vec<usize>,
    pub of: usize,
}

fn who(workers: &[usize], of: usize) -> String {
    match workers.len() {
        0 => "the other process of the upgrade under way".to_owned(),
        count => format!("{count} of {of} workers"),
    }
}

/// A worker that takes longer is stuck.
pub const ANSWER: Duration = Duration::from_secs(5);

impl Operation {
    /// An event for the clients that are meant; `data` is an array that begins with its name.
    pub fn emit(
        namespace: &str,
        target: Target,
        data: &str,
        parts: Vec<Bytes>,
        volatile: bool,
    ) -> Self {
        let delivery = if volatile { Delivery::Volatile } else { Delivery::Kept };
        Self::new(namespace, Deed::Emit { target, data: data.into(), parts, delivery })
    }

    pub fn new(namespace: &str, deed: Deed) -> Self {
        Self { namespace: namespace.into(), deed }
    }
}

impl Hub {
    /// Does all of it on every worker, in order. The outcomes are as many as the operations.
    pub async fn operate(&self, operations: Vec<Operation>) -> Result<Vec<Outcome>, Silent> {
        self.operate_within(operations, ANSWER).await
    }

    async fn operate_within(
        &self,
        operations: Vec<Operation>,
        limit: Duration,
    ) -> Result<Vec<Outcome>, Silent> {
        let (operations, workers): (Arc<[_]>, _) = (operations.into(), self.letters.len());
        // Room for every answer, so that no worker waits; and for another process that moves its
        // clients here, or the other way round.
        let (answers, mut answered) = mpsc::channel((operations.len() * (workers + 1)).max(1));
        let mut outcomes: Vec<Outcome> = operations.iter().map(Operation::nothing).collect();
        let mut missing = vec![operations.len(); workers];
        let order = Letter::Order(Order::Operate(Arc::clone(&operations), answers));
        let gathering = async {
            let Some(first) = self.letters.first() else { return };
            // A worker that has ended has no clients left, and no answer any more.
            if first.send(order).await.is_err() {
                return;
            }
            while let Some(Done { worker, index, outcome }) = answered.recv().await {
                if let Some(missing) = missing.get_mut(worker) {
                    *missing = missing.saturating_sub(1);
                }
                if let Some(all) = outcomes.get_mut(index) {
                    all.add(outcome);
                }
            }
        };
        if timeout(limit, gathering).await.is_err() {
            let silent = missing.iter().enumerate().filter(|(_, missing)| **missing > 0);
            let workers = silent.map(|(worker, _)| worker).collect();
            return Err(Silent { workers, of: missing.len() });
        }
        for (outcome, operation) in outcomes.iter_mut().zip(operations.iter()) {
            outcome.cut(operation);
            self.count_users(operation, outcome);
        }
        Ok(outcomes)
    }
}

impl Hub {
    /// Users who are on several workers are counted once, where all have noted them.
    fn count_users(&self, operation: &Operation, outcome: &mut Outcome) {
        let attendance = self.attendances.of(&operation.namespace);
        outcome.each_head(operation, |heads, room| {
            let elsewhere = std::mem::take(&mut heads.elsewhere);
            if let Some(users) = &mut heads.users {
                *users += attendance.count(room) + attendance.strangers(room, elsewhere.iter());
            }
        });
    }
}

impl Operation {
    /// What comes of it where nobody is.
    pub(super) fn nothing(&self) -> Outcome {
        match &self.deed {
            Deed::Sockets { .. } => Outcome::Sockets(Listed::default()),
            Deed::Rooms { .. } => Outcome::Rooms(Listed::default()),
            Deed::Count { .. } => Outcome::Heads(Heads::default()),
            Deed::Describe { .. } => Outcome::Described(Vec::new()),
            _ => Outcome::Count(0),
        }
    }
}

impl Outcome {
    pub(super) fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::Described(all), Self::Described(one)) => all.extend(one),
            (Self::Count(all), Self::Count(one)) => *all += one,
            (Self::Heads(all), Self::Heads(one)) => all.add(one),
            (Self::Sockets(all), Self::Sockets(one)) => {
                all.more |= one.more;
                all.items.extend(one.items);
            }
            (Self::Rooms(all), Self::Rooms(one)) => {
                all.more |= one.more;
                for (room, heads) in one.items {
                    all.items.entry(room).or_default().add(heads);
                }
            }
            // Every worker was asked the same.
            _ => (),
        }
    }

    /// Whoever is counted in it, and in which room.
    pub(super) fn each_head(
        &mut self,
        operation: &Operation,
        mut visit: impl FnMut(&mut Heads, Option<&str>),
    ) {
        match (self, &operation.deed) {
            (Self::Heads(heads), Deed::Count { room }) => visit(heads, room.as_deref()),
            (Self::Rooms(listed), _) => {
                listed.items.iter_mut().for_each(|(room, heads)| visit(heads, Some(room)));
            }
            _ => (),
        }
    }

    /// Of several workers' pages one is left.
    pub(super) fn cut(&mut self, operation: &Operation) {
        match (self, &operation.deed) {
            (Self::Sockets(all), Deed::Sockets { page, .. }) => page.cut(all),
            (Self::Rooms(all), Deed::Rooms { page }) => page.cut(all),
            _ => (),
        }
    }
}

impl Page {
    fn cut<T>(&self, listed: &mut Listed<T>) {
        while listed.items.len() > self.most {
            listed.items.pop_last();
            listed.more = true;
        }
    }

    pub(super) fn add<T>(&self, listed: &mut Listed<T>, name: &str, value: impl FnOnce() -> T) {
        if name <= self.after.as_str() {
            return;
        }
        let full = listed.items.len() >= self.most;
        if full && listed.items.last_key_value().is_none_or(|(last, _)| name > last.as_str()) {
            listed.more = true;
            return;
        }
        listed.items.insert(name.to_owned(), value());
        self.cut(listed);
    }
}

/// One operation of several, as a worker is told of it.
#[derive(Clone)]
pub struct Task {
    operations: Arc<[Operation]>,
    index: usize,
    /// `None` if nobody waits.
    answers: Option<Answers>,
}

impl Task {
    /// One operation that came alone.
    pub fn alone(operation: Operation, answers: Option<Answers>) -> Self {
        Self { operations: [operation].into(), index: 0, answers }
    }

    pub fn operation(&self) -> Option<&Operation> {
        self.operations.get(self.index)
    }

    /// Where the answer goes, and which of several it is; `None` if nobody waits for it.
    pub fn answers(&self) -> Option<(usize, Answers)> {
        self.answers.clone().map(|answers| (self.index, answers))
    }
}

/// Where the workers' answers go. Never full: it has room for all of them.
pub type Answers = mpsc::Sender<Done>;

/// What came of an operation on one worker.
pub struct Done {
    worker: usize,
    index: usize,
    outcome: Outcome,
}

impl Done {
    pub fn new(worker: usize, index: usize, outcome: Outcome) -> Self {
        Self { worker, index, outcome }
    }

    pub fn into_outcome(self) -> Outcome {
        self.outcome
    }
}

/// The worker that leads.
const LEADER: usize = 0;

impl Clients {
    /// Leads through a list of operations.
    pub(super) async fn lead(&self, operations: Arc<[Operation]>, answers: Answers) {
        for index in 0..operations.len() {
            let (operations, answers) = (Arc::clone(&operations), Some(answers.clone()));
            self.lead_one(&Task { operations, index, answers });
            // A long list must not keep everybody else waiting.
            yield_now().await;
        }
    }

    fn lead_one(&self, task: &Task) {
        self.outbox.tell_all(&Notice::Operation(task.clone()));
        self.follow(task);
        let Some(Operation { namespace, deed }) = task.operations.get(task.index) else { return };
        match &self.outbox.uplink {
            Some(uplink) => tell_nodes(uplink, namespace, deed),
            // Before the event, in one line with it.
            None => self.outbox.tell_far(Notice::Operation(task.clone())),
        }
        if let (Deed::Emit { target, data, parts, delivery }, Some(namespace)) =
            (deed, self.namespace(namespace))
        {
            self.emit(&namespace, target.clone(), data, parts.clone(), *delivery);
        }
    }

    /// Does what a client of this worker may ask; its outcome is told to nobody.
    pub(super) fn command(&self, operation: Arc<Operation>) {
        if self.worker() != LEADER {
            return self.outbox.tell(LEADER, Notice::Command(operation));
        }
        if let Some(operation) = Arc::into_inner(operation) {
            self.lead_one(&Task { operations: [operation].into(), index: 0, answers: None });
        }
    }

    /// Does on this worker what the leader has told.
    pub(super) fn follow(&self, task: &Task) {
        let Some(operation) = task.operations.get(task.index) else { return };
        let outcome = self.operate(operation);
        if let Some(answers) = &task.answers {
            let done = Done { worker: self.worker(), index: task.index, outcome };
            // Whoever asked may have stopped waiting.
            let _told = answers.try_send(done);
        }
    }

    fn operate(&self, operation: &Operation) -> Outcome {
        let Some(namespace) = self.namespace(&operation.namespace) else {
            return operation.nothing();
        };
        Outcome::Count(match &operation.deed {
            // The worker that leads has its words delivered, behind what it has told of before.
            Deed::Emit { target, .. } => namespace.count_of(target),
            Deed::Join { target, rooms } => for_each(&namespace, target, |socket| {
                // What clients may take is no limit for the operator.
                let _joined = namespace.join(socket, rooms, usize::MAX);
                self.recovery.keep_afar(socket);
            }),
            Deed::Leave { target, rooms } => for_each(&namespace, target, |socket| {
                namespace.leave(socket, rooms);
                self.recovery.keep_afar(socket);
            }),
            Deed::Disconnect { target, close } => {
                for_each(&namespace, target, |socket| self.send_away(socket, *close))
            }
            Deed::Sockets { target, page } => {
                return Outcome::Sockets(list(&namespace, target, page));
            }
            Deed::Rooms { page } => {
                let mut listed = Listed::default();
                for (name, sockets) in namespace.rooms() {
                    page.add(&mut listed, &name, || Heads { sockets, ..Heads::default() });
                }
                // Of those that are on the page.
                for (name, heads) in &mut listed.items {
                    *heads = namespace.heads(Some(name));
                }
                return Outcome::Rooms(listed);
            }
            Deed::Count { room } => return Outcome::Heads(namespace.heads(room.as_deref())),
            Deed::Describe { target } => {
                let those = namespace.those(target);
                return Outcome::Described(those.iter().map(|socket| remote(socket)).collect());
            }
        })
    }

    /// As `disconnect` of Node: out of this namespace, or out of all and the transport closed.
    fn send_away(&self, socket: &Rc<Socket>, close: bool) {
        if !close {
            return self.expel(socket);
        }
        for socket in self.sockets_of(&socket.session) {
            self.expel(&socket);
        }
        socket.session.close_later(Close::Forced);
    }
}

/// What sockets of other nodes are to do, too.
fn tell_nodes(uplink: &Uplink, namespace: &str, deed: &Deed) {
    let (target, change) = match deed {
        Deed::Join { target, rooms } => (target, Change::Join(rooms)),
        Deed::Leave { target, rooms } => (target, Change::Leave(rooms)),
        Deed::Disconnect { target, close } => (target, Change::Disconnect { close: *close }),
        _ => return,
    };
    uplink.change(namespace, target.audience(), &change);
}

fn for_each(namespace: &Namespace, target: &Target, does: impl Fn(&Rc<Socket>)) -> usize {
    let those = namespace.those(target);
    those.iter().for_each(does);
    those.len()
}

fn list(namespace: &Namespace, target: &Target, page: &Page) -> Listed<Seen> {
    let mut listed = Listed::default();
    for socket in namespace.those(target) {
        page.add(&mut listed, socket.id.as_str(), || Seen {
            rooms: socket.rooms(),
            user: socket.user().map(|known| known.identity.user.clone()),
            address: Some(socket.session.address),
            transport: Some(socket.session.transport()),
        });
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_the_first_names_after_another() {
        let page = Page { after: "b".to_owned(), most: 2 };
        let mut listed = Listed::default();
        for (name, more) in [("a", false), ("f", false), ("c", false), ("e", true), ("d", true)] {
            page.add(&mut listed, name, || ());
            assert_eq!(listed.more, more, "{name}");
        }
        assert_eq!(listed.items.keys().collect::<Vec<_>>(), ["c", "d"]);
    }

    #[test]
    fn workers_add_up() {
        let rooms = |items: &[(&str, usize)], more| {
            let heads = |sockets| Heads { sockets, users: Some(0), ..Heads::default() };
            let items = items.iter().map(|(room, size)| ((*room).to_owned(), heads(*size)));
            let items = items.collect();
            Outcome::Rooms(Listed { items, more })
        };
        let mut all = rooms(&[("a", 1), ("c", 1)], true);
        all.add(rooms(&[("a", 2), ("b", 1)], false));
        assert_eq!(all, rooms(&[("a", 3), ("b", 1), ("c", 1)], true));
        let page = Page { after: String::new(), most: 2 };
        all.cut(&Operation::new("/", Deed::Rooms { page }));
        assert_eq!(all, rooms(&[("a", 3), ("b", 1)], true));
    }

    #[test]
    fn a_worker_that_does_not_answer_is_named() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let (hub, mut inboxes) = Hub::new(3, None, &Arc::default());
        let mut first = inboxes.remove(0);
        let answering = async {
            let letter = first.letters.recv().await;
            let Some(Letter::Order(Order::Operate(_, answers))) = letter else { return None };
            for worker in [0, 2] {
                let done = Done { worker, index: 0, outcome: Outcome::Heads(Heads::default()) };
                answers.try_send(done).ok()?;
            }
            // The other one is stuck, and still has it.
            Some(answers)
        };
        let count = Operation::new("/", Deed::Count { room: None });
        let asking = hub.operate_within(vec![count], Duration::from_millis(20));
        let (answers, outcome) =
            runtime.expect("a runtime").block_on(async { tokio::join!(answering, asking) });
        let silent = outcome.expect_err("one is stuck");
        assert_eq!((&silent.workers[..], silent.of), (&[1][..], 3));
        assert!(silent.to_string().starts_with("1 of 3 workers did not answer in 5s"), "{silent}");
        assert!(answers.is_some());
    }

    #[test]
    fn workers_that_have_ended_have_nobody() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let (hub, inboxes) = Hub::new(2, None, &Arc::default());
        drop(inboxes);
        let count = Operation::new("/", Deed::Count { room: None });
        let outcomes = runtime.expect("a runtime").block_on(hub.operate(vec![count]));
        assert_eq!(outcomes.expect("an answer"), [Outcome::Heads(Heads::default())]);
    }
}
