//! The Socket.IO hub; the only face of it to the rest of the edge.

mod admin_ui;
#[cfg(test)]
mod arbitrary;
mod arrivals;
mod asked;
mod attendance;
mod auth_data;
mod binary;
mod client;
mod clients;
mod cluster;
mod connecting;
mod crowds;
mod describe;
mod emitting;
mod engine;
mod everywhere;
mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod handover;
mod hooks;
mod journal;
mod json;
mod leaving;
mod meter;
mod msgpack;
mod namespace;
mod operation;
mod opinions;
mod outbox;
mod owed;
mod pace;
mod packet;
mod partial;
mod paths;
mod placeholders;
mod policy;
mod porter;
mod presence;
mod recovery;
mod renewals;
mod returning;
mod rooms;
mod rules;
mod socket;
mod stats;
mod users;
mod watched;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use http::HeaderMap;
use http::header::ORIGIN;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use crate::auth;
use crate::drain::Drain;
use crate::exchange::{Client, Request};
use crate::limits::Counters;
use crate::upstream::{Pools, Registry};

use attendance::Attendances;
use clients::Clients;
use cluster::{Cluster, Relay};
use engine::{Admission, Ask, Close, Engine, Id, MAILBOX, Node, Place, Session, is_websocket};
use handover::Origins;
use hooks::Hooks;
use outbox::{LETTERS, Letter, Order, Outbox};
use pace::Pace;
use porter::Porter;
use presence::Presence;
use recovery::Recovery;
use watched::Users;

pub use binary::{check_parts, detach};
pub use cluster::{Central, Cluster as Nodes, Entrance, Neighbourhood, TrustError, neighbourhood};
pub use engine::{Answered, echo};
pub use everywhere::{Reach, Unanswered};
pub use handover::{Bridge, Role};
pub use namespace::Target;
pub use operation::{Deed, Heads, Listed, Operation, Outcome, Page, Seen};
pub use packet::is_reserved;
pub use policy::{Policy, sent_away};
pub use socket::user_room_of;

/// Whether this is what a socket's id looks like; a room of another name is no socket's own.
pub fn is_id(text: &str) -> bool {
    Id::parse(text).is_some()
}

/// The hub of the whole process: how its workers are reached.
pub struct Hub {
    node: Node,
    letters: Vec<mpsc::Sender<Letter>>,
    mailboxes: Arc<[mpsc::Sender<Ask>]>,
    admission: Arc<Admission>,
    porter: Arc<Porter>,
    connections: Arc<Counters>,
    pace: Arc<Pace>,
    attendances: Arc<Attendances>,
    /// Where other nodes are targets, too.
    targets: Arc<Registry>,
    /// `None`: this process is alone.
    cluster: Option<Arc<Cluster>>,
    origins: Arc<Origins>,
    /// Which workers have no client left who may still come.
    left: Arc<[AtomicBool]>,
    /// To other processes, so far.
    bridges: AtomicU64,
}

/// Between two looks whether other nodes are heard.
const JOINED_LOOK: Duration = Duration::from_millis(10);

/// A worker's ends of what `Hub` sends.
pub struct Inbox {
    letters: mpsc::Receiver<Letter>,
    mailbox: mpsc::Receiver<Ask>,
}

impl Hub {
    pub fn new(
        workers: usize,
        cluster: Option<Arc<Cluster>>,
        targets: &Arc<Registry>,
    ) -> (Arc<Self>, Vec<Inbox>) {
        let (mut letters, mut mailboxes, mut inboxes) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..workers {
            let (to_letters, from_letters) = mpsc::channel(LETTERS);
            let (to_mailbox, from_mailbox) = mpsc::channel(MAILBOX);
            letters.push(to_letters);
            mailboxes.push(to_mailbox);
            inboxes.push(Inbox { letters: from_letters, mailbox: from_mailbox });
        }
        let (node, mailboxes, admission) = (Node::random(), mailboxes.into(), Arc::default());
        let (porter, connections, targets) = (Arc::default(), Arc::default(), Arc::clone(targets));
        let (origins, bridges) = (Arc::new(Origins::new(node, workers)), AtomicU64::new(0));
        let left = (0..workers).map(|_| AtomicBool::new(false)).collect();
        let hub = Self {
            node,
            letters,
            mailboxes,
            admission,
            porter,
            connections,
            pace: Arc::default(),
            attendances: Arc::default(),
            targets,
            cluster,
            origins,
            left,
            bridges,
        };
        (Arc::new(hub), inboxes)
    }

    /// Applies a new snapshot's rules to every socket; returns when all workers have.
    pub async fn install(&self, policy: Option<Arc<Policy>>) {
        self.order(|done| Order::Install(policy.clone(), done)).await;
        self.tell_cluster(policy.as_deref()).await;
    }

    /// Has the other nodes' messages come for the namespaces that there are.
    pub async fn tell_cluster(&self, policy: Option<&Policy>) {
        let Some(cluster) = &self.cluster else { return };
        let names = policy.into_iter().flat_map(Policy::names).map(str::to_owned).collect();
        let keeps = policy.and_then(|policy| policy.recovery).map(|policy| policy.keeps());
        let attachments = policy.map_or(0, |policy| policy.attachments);
        cluster.change(names, keeps, attachments).await;
    }

    /// What does not work as it should, though clients are served.
    pub fn complaint(&self) -> Option<&'static str> {
        let is_down = self.cluster.as_ref().is_some_and(|cluster| !cluster.is_up());
        is_down.then_some("hub.redis: no link; clients are served by this node alone")
    }

    /// Whether clients move to the process that takes over, and what either says is heard in both:
    /// always but over a Redis that does as much, or in which two cannot agree what they heard.
    pub fn bridges(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.bridges())
    }

    /// Waits until other nodes are heard and find this one, or for so long.
    pub async fn joined(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let joined = |cluster: &Arc<Cluster>| cluster.is_up() && cluster.is_listed();
        while !self.cluster.as_ref().is_none_or(joined) && Instant::now() < until {
            sleep(JOINED_LOOK).await;
        }
    }

    /// As sessions' ids name this process.
    pub fn node(&self) -> &str {
        self.node.as_str()
    }

    /// Another process at this one's address, one of which takes over from the other: what comes here
    /// and is for a session of that one is brought to its door.
    pub fn meet(&self, node: &str, door: &str) {
        if let (Some(cluster), Some(node)) = (&self.cluster, Node::parse(node)) {
            cluster.meet(node, door, &self.targets);
        }
    }

    /// Under which other nodes know this one, if it is not alone.
    pub fn name(&self) -> Option<&str> {
        self.cluster.as_ref().map(|cluster| cluster.name())
    }

    /// While it is so, nobody new comes in.
    pub fn set_strained(&self, strained: bool) {
        self.admission.set_strained(strained);
    }

    /// Closes every transport, spread over `over`, so that not all clients return at once.
    ///
    /// No Socket.IO DISCONNECT is sent: clients come back by themselves.
    pub async fn close(&self, over: Duration) {
        self.order(|done| Order::Close(over, done)).await;
    }

    /// The same for the last time: who still comes is sent away, too. Workers that drain wait for it.
    ///
    /// They all do until the last of them has nobody left: each has its part in what the clients of
    /// the others are told.
    pub async fn leave(&self, over: Duration) {
        self.order(|done| Order::Leave(over, done)).await;
        self.order(Order::End).await;
    }

    async fn order(&self, order: impl Fn(oneshot::Sender<()>) -> Order) {
        let mut waits = Vec::new();
        for letters in &self.letters {
            let (done, wait) = oneshot::channel();
            // A worker that has ended has nobody left to tell.
            if letters.send(Letter::Order(order(done))).await.is_ok() {
                waits.push(wait);
            }
        }
        for wait in waits {
            let _done = wait.await;
        }
    }
}

/// One worker's part of the hub. Lives as long as the worker.
pub struct Shard {
    engine: Rc<Engine>,
    clients: Rc<Clients>,
    /// To the nodes that other sessions live on, if there may be any.
    relay: Option<Rc<Relay>>,
    /// Every session of the process has been closed, and no other comes.
    left: Notify,
}

impl Shard {
    pub fn start(
        worker: usize,
        hub: &Hub,
        inbox: Inbox,
        policy: Option<&Policy>,
        (pools, auth): (&Rc<Pools>, &Rc<auth::Local>),
        drain: &Drain,
    ) -> Rc<Self> {
        let others = hub.letters.iter().enumerate().filter(|(index, _)| *index != worker);
        let others = others.map(|(other, letters)| (other, letters.clone())).collect();
        let outbox = Outbox::start(others, hub.cluster.as_ref(), drain);
        let workers = hub.letters.len();
        let presence = Presence::new(worker, workers, Rc::clone(&outbox));
        let hooks = Hooks::new(Rc::clone(pools), drain);
        let here = (hub.node, worker, workers);
        let recovery = Recovery::new(
            here,
            Rc::clone(&outbox),
            Rc::clone(&hooks.lines),
            (Arc::clone(&hub.origins), Arc::clone(&hub.left)),
        );
        let users =
            Users::new(Rc::clone(auth), Arc::clone(&hub.connections), outbox.uplink.clone());
        let (attendances, pace) = (Arc::clone(&hub.attendances), Arc::clone(&hub.pace));
        let doors = (Arc::clone(&hub.porter), users, attendances, pace);
        let clients = Clients::new(outbox, presence, hooks, recovery, doors, policy, drain);
        let place = Place {
            node: hub.node,
            worker,
            workers: Arc::clone(&hub.mailboxes),
            mailbox: inbox.mailbox,
            admission: Arc::clone(&hub.admission),
        };
        let settings = policy.map(|policy| policy.settings.clone()).unwrap_or_default();
        let engine = Engine::start(place, settings, Rc::clone(&clients) as _, drain);
        let cluster = hub.cluster.as_ref();
        let relay = cluster.and_then(|cluster| Relay::new(cluster, hub.node, pools, drain));
        let shard = Rc::new(Self { engine, clients, relay, left: Notify::new() });
        drain.spawn_background(Rc::clone(&shard.clients).tell_presence());
        if worker == 0 {
            drain.spawn_background(stats::tell(Rc::clone(&shard.clients)));
        }
        drain.spawn_background(Rc::clone(&shard).work(inbox.letters, drain.clone()));
        shard
    }

    /// Answers a request below the hub's path.
    pub async fn answer(&self, request: Request, client: &Client) -> Answered {
        if let Some(relay) = &self.relay
            && let Some(neighbour) = relay.elsewhere(&request).await
        {
            let asked = request.headers();
            let (origin, upgrade) = (asked.get(ORIGIN).cloned(), is_websocket(asked));
            let brought = Box::pin(relay.bring(request, &neighbour, client)).await;
            return match brought {
                Some(response) => (response, None),
                None => self.engine.answer_unknown((origin, upgrade), client),
            };
        }
        self.engine.answer(request, client).await
    }

    /// Takes the requests that other nodes bring.
    pub fn listen(&self, listener: TcpListener, by: Entrance, drain: &Drain) {
        if let Some(relay) = &self.relay {
            let taking = Rc::clone(relay).take(listener, by, Rc::clone(&self.engine));
            drain.spawn_background(taking);
        }
    }

    /// Other nodes are taken by another process from now on.
    pub fn shut(&self) {
        self.relay.iter().for_each(|relay| relay.shut());
    }

    /// What a request of the application's has shown of its sessions, and what the answer does to
    /// them. `asked` is who has sent it, and for which path.
    pub fn passed(
        &self,
        auth: &auth::Auth,
        shown: &auth::Credentials,
        answer: &HeaderMap,
        asked: (&Client, &str),
    ) {
        self.clients.passed(auth, shown, answer, asked);
    }

    async fn work(self: Rc<Self>, mut letters: mpsc::Receiver<Letter>, drain: Drain) {
        while let Some(letter) = letters.recv().await {
            match letter {
                Letter::Notices(notices) => {
                    let count = notices.len();
                    notices.into_iter().for_each(|notice| self.clients.hear(notice));
                    self.clients.outbox.heard(count);
                }
                Letter::Order(Order::Install(policy, done)) => {
                    self.install(policy.as_deref());
                    // Whoever ordered may have stopped waiting.
                    let _told = done.send(());
                }
                Letter::Order(Order::Bridge(way, done)) => {
                    self.clients.begin_bridge(way, &drain);
                    // Whoever ordered may have stopped waiting.
                    let _told = done.send(());
                }
                Letter::Order(Order::Unbridge(attempt, done)) => {
                    self.clients.recovery.end_bridge(attempt);
                    self.clients.outbox.end_far(attempt);
                    // As above.
                    let _told = done.send(());
                }
                Letter::Order(Order::Hurry(done)) => {
                    self.clients.recovery.hurry();
                    // As above.
                    let _told = done.send(());
                }
                Letter::Order(Order::Close(over, done)) => {
                    let (shard, sessions) = (Rc::clone(&self), self.engine.sessions());
                    drain.spawn("farewell", async move {
                        shard.close_over(sessions, over).await;
                        // Whoever ordered may have stopped waiting.
                        let _told = done.send(());
                    });
                }
                Letter::Order(Order::Leave(over, done)) => {
                    self.relay.iter().for_each(|relay| relay.close(over));
                    let (shard, sessions) = (Rc::clone(&self), self.engine.leave());
                    drain.spawn("farewell", async move {
                        shard.close_over(sessions, over).await;
                        shard.clients.recovery.closed();
                        shard.clients.recovery.linger().await;
                        // As above.
                        let _told = done.send(());
                    });
                }
                Letter::Order(Order::End(done)) => {
                    self.relay.iter().for_each(|relay| relay.end());
                    self.left.notify_one();
                    // As above.
                    let _told = done.send(());
                }
                Letter::Order(Order::Operate(operations, answers)) => {
                    self.clients.lead(operations, answers).await;
                }
            }
        }
    }

    /// Resolves once `Hub::leave` has been heeded here: sessions that poll are no tasks to wait for.
    pub async fn left(&self) {
        self.left.notified().await;
    }

    fn install(&self, policy: Option<&Policy>) {
        self.clients.install(policy);
        match policy {
            Some(policy) => self.engine.change(policy.settings.clone()),
            None => {
                for session in self.engine.sessions() {
                    session.close(Close::Forced);
                }
            }
        }
    }

    /// One after the other over this time, or at once when all is to hurry; nobody waits for those
    /// who have gone meanwhile.
    async fn close_over(&self, sessions: Vec<Rc<Session>>, over: Duration) {
        let pause = over / u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
        let mut due = Instant::now();
        for session in sessions {
            if session.is_open() && due > Instant::now() {
                tokio::select! {
                    // Nothing is lost when an arm is dropped.
                    () = sleep_until(due) => {}
                    () = self.clients.recovery.hurried() => {}
                }
            }
            if session.is_open() {
                session.close(Close::ShuttingDown);
                due += pause;
            }
        }
    }
}
