//! The main thread's part: carries what workers say to Redis, and what comes from there to them.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::drain::Drain;
use crate::hub::Hub;
use crate::hub::engine::random;
use crate::hub::outbox::{Letter, Notice};
use crate::observe::metrics::{self, Series};

use super::asking::{Absent, Ask, Asking, Elsewhere, others};
use super::gossip::{self, Gossip};
use super::link::{HEARD, Heard, Link};
use super::order::Order;
use super::reading::{Item, Reading};
use super::registry::Registry;
use super::rooms::Rooms;
use super::speaker::{Kind, Speaker};
use super::twins::Twins;
use super::wire::{Audience, Dialect, Matter, Payload, Subscription, Wire, fresh_name};
use super::{Cluster, Ends, Report, bytes_of};

pub struct Central {
    pub(super) cluster: Arc<Cluster>,
    pub(super) hub: Arc<Hub>,
    pub(super) drain: Drain,
    pub(super) asking: Asking,
    pub(super) answer_within: Duration,
    /// The last number of a message that came from other nodes.
    pub(super) numbers: Cell<u64>,
    /// The last acknowledgement that clients were asked for.
    pub(super) acks: Cell<u64>,
    /// When it was last said that something is not told.
    pub(super) complained: Cell<Option<Instant>>,
    pub(super) order: Order,
    pub(super) gossip: Gossip,
    /// What comes of the streams, and what is done in the same order.
    pub(super) items: mpsc::Sender<Item>,
    registry: Rc<Registry>,
    pub(super) link: Rc<Link>,
    pub(super) twins: RefCell<Twins>,
    /// Of the namespaces that there are.
    namespaces: RefCell<HashSet<Subscription>>,
    pub(super) rooms: Rooms,
    resume: Duration,
    /// What workers have not come to.
    lag: Arc<Series>,
}

/// Messages that workers are told of in one letter.
const LETTER: usize = 256;

impl Central {
    /// Begins on this thread, for as long as it lives. Does nothing where there is no cluster.
    /// `address` is where other nodes' requests are taken.
    pub fn start(hub: &Arc<Hub>, address: Option<String>, drain: &Drain) {
        let Some(cluster) = &hub.cluster else { return };
        let Some(Ends { servers, words, reports, asks }) = cluster.take_ends() else { return };
        let speaker = Speaker::new(uid_of_writer(cluster), words.timeout, words.buffer);
        let (up, targets) = (Arc::clone(&cluster.up), Arc::clone(&hub.targets));
        let (uid, told) = (&cluster.wire.uid, cluster.neighbours.clone());
        let others = (targets, told, Arc::clone(&cluster.sibling));
        let registry = Registry::new(hub.node, uid, &words, address, others);
        let (link, heard) = Link::new(servers, speaker, words.timeout, probe(cluster), up);
        let (items, ordered) = mpsc::channel(HEARD);
        let central = Rc::new(Self {
            cluster: Arc::clone(cluster),
            hub: Arc::clone(hub),
            drain: drain.clone(),
            asking: Asking::default(),
            answer_within: words.answer,
            numbers: Cell::new(0),
            acks: Cell::new(0),
            complained: Cell::default(),
            order: Order::default(),
            gossip: Gossip::default(),
            items,
            registry: Rc::clone(&registry),
            link: Rc::clone(&link),
            twins: RefCell::default(),
            namespaces: RefCell::default(),
            rooms: Rooms::default(),
            resume: words.resume,
            lag: metrics::series(&metrics::HUB_LAG, &[]),
        });
        if cluster.is_spread && matches!(cluster.wire.dialect, Dialect::Sharded(_)) {
            link.spread(words.buffer, drain);
        }
        link.start(drain);
        link.add(Subscription::Channel(gossip::channel(&cluster.wire)));
        drain.spawn_background(registry.keep(Rc::clone(&central)));
        drain.spawn_background(Rc::clone(&central).keep_telling());
        drain.spawn_background(Rc::clone(&central).watch_rooms());
        central.read_streams(ordered);
        drain.spawn_background(Rc::clone(&central).carry(reports));
        drain.spawn_background(Rc::clone(&central).hear(heard));
        drain.spawn_background(Rc::clone(&central).take_asks(asks));
        drain.spawn_background(central.watch_gaps());
    }

    async fn carry(self: Rc<Self>, mut reports: mpsc::Receiver<Vec<Report>>) {
        while let Some(list) = reports.recv().await {
            // Of everybody at once there may be more to say than what may wait.
            let until = Instant::now() + self.link.timeout;
            for report in list {
                self.link.speaker.wait_for_room(until).await;
                match report {
                    Report::Say { bytes, is_volatile, entry } => {
                        let kind = match entry {
                            _ if is_volatile => Kind::Volatile,
                            Some((key, stream)) => Kind::Append(self.order.name(key, stream)),
                            None => Kind::Once,
                        };
                        self.link.say(bytes, kind);
                    }
                    Report::Append { key, said } => self.say_in_order(key, said).await,
                    Report::Whisper(told) => self.whisper(told),
                    Report::Mark(mark) => {
                        self.drain.spawn_background(Rc::clone(&self).mark(mark));
                    }
                    Report::Command(bytes) => self.link.speaker.say(bytes, Kind::Again),
                    Report::Room { subscription, is_here } => self.move_room(subscription, is_here),
                }
            }
            self.spare_rooms().await;
        }
    }

    /// Says something of the main thread's own.
    pub(super) fn say(&self, namespace: &str, matter: &Matter<Payload>) {
        if let Some(parcel) = self.cluster.wire.write(namespace, matter) {
            self.link.say(bytes_of(&parcel), Kind::Once);
        }
    }

    async fn hear(self: Rc<Self>, mut heard: mpsc::Receiver<Heard>) {
        while let Some(first) = heard.recv().await {
            let mut notices = Vec::new();
            self.take(&first, &mut notices);
            while notices.len() < LETTER
                && let Ok(next) = heard.try_recv()
            {
                self.take(&next, &mut notices);
            }
            self.tell(notices).await;
        }
    }

    /// Has the streams read, if this wire has any.
    fn read_streams(self: &Rc<Self>, ordered: mpsc::Receiver<Item>) {
        let streams = self.cluster.wire.streams();
        if streams.is_empty() {
            return;
        }
        self.link.wait_for(streams.len());
        for stream in streams {
            let (link, servers) = (Rc::clone(&self.link), Rc::clone(&self.link.servers));
            let ready = Rc::new(move || link.is_waited_for_no_more());
            let (limit, to) = (self.link.timeout, self.items.clone());
            let reading = Reading::new(servers, stream.into(), limit, to, ready);
            self.drain.spawn_background(reading.work());
        }
        self.drain.spawn_background(Rc::clone(self).hear_items(ordered));
        self.drain.spawn_background(Rc::clone(self).watch_outcomes());
        self.drain.spawn_background(Rc::clone(self).watch_order());
    }

    async fn hear_items(self: Rc<Self>, mut items: mpsc::Receiver<Item>) {
        while let Some(first) = items.recv().await {
            let mut notices = Vec::new();
            self.take_item(first, &mut notices);
            while notices.len() < LETTER
                && let Ok(next) = items.try_recv()
            {
                self.take_item(next, &mut notices);
            }
            if self.cluster.is_ordered() {
                self.order.place(&mut notices);
            }
            self.tell(notices).await;
        }
    }

    /// Tells every worker, in order; waits for one that lags.
    pub(super) async fn tell(&self, notices: Vec<Notice>) {
        if notices.is_empty() {
            return;
        }
        let last = self.hub.letters.len().saturating_sub(1);
        let mut notices = Some(notices);
        for (index, letters) in self.hub.letters.iter().enumerate() {
            let copy = if index == last { notices.take() } else { notices.clone() };
            let copy = copy.unwrap_or_default();
            self.lag.add(copy.len() as i64);
            // An error says that the worker is gone, and with it everybody to tell.
            let _told = letters.send(Letter::Notices(copy)).await;
        }
    }

    async fn take_asks(self: Rc<Self>, mut asks: mpsc::Receiver<Ask>) {
        while let Some(ask) = asks.recv().await {
            match ask {
                Ask::Serve(names, keeps) => {
                    self.order.keeps.set(keeps.unwrap_or_default());
                    self.serve(&names, keeps.is_some());
                }
                Ask::Recall { pid, namespace, user, answer } => {
                    let central = Rc::clone(&self);
                    self.drain.spawn_background(async move {
                        let found = central.recall(pid, &namespace, user.as_deref()).await;
                        // Whoever asked may have stopped waiting.
                        let _told = answer.send(found);
                    });
                }
                Ask::Pair { attempt, name, role } => self.pair(attempt, name, role),
                Ask::Rooms(channels) => self.listen_to(channels),
                Ask::Unpair(attempt) => self.unpair(attempt),
                Ask::Enter(entering) => {
                    let central = Rc::clone(&self);
                    self.drain.spawn_background(async move { central.enter(entering).await });
                }
                Ask::Look(looked) if self.cluster.is_up() => self.registry.look(looked),
                // Nothing changes meanwhile: what is known is known.
                Ask::Look(looked) => drop(looked),
                Ask::Remotes { namespace, audience, counts, answer } => {
                    let central = Rc::clone(&self);
                    self.drain.spawn_background(async move {
                        // Whoever asked may have stopped waiting.
                        let _told = answer.send(central.ask(&namespace, audience, counts).await);
                    });
                }
            }
        }
    }

    /// These are the namespaces from now on.
    fn serve(&self, names: &[String], recovers: bool) {
        let wire = &self.cluster.wire;
        let kept = names.iter().filter(|_| recovers);
        let kept = kept.filter_map(|name| Some((name.as_str().into(), wire.stream(name)?.into())));
        self.order.serve(kept);
        let wanted: HashSet<_> = names.iter().flat_map(|name| wire.subscriptions(name)).collect();
        let mut known = self.namespaces.borrow_mut();
        known.difference(&wanted).for_each(|gone| self.link.remove(gone));
        wanted.difference(&known).for_each(|new| self.link.add(new.clone()));
        *known = wanted;
    }

    async fn ask(
        &self,
        namespace: &str,
        audience: Audience,
        counts: bool,
    ) -> Result<Elsewhere, Absent> {
        if !self.cluster.is_up() {
            return Ok(Elsewhere::default());
        }
        let wire = &self.cluster.wire;
        let expected = others(&self.link, &wire.census(namespace)).await;
        if expected == 0 {
            return Ok(Elsewhere::default());
        }
        let request = fresh_name(&wire.dialect, random());
        let complete = self.asking.begin(&request, expected);
        let matter = Matter::Fetch { audience, request: request.as_str().into(), counts };
        self.say(namespace, &matter);
        self.asking.end(&request, &complete, self.answer_within).await
    }

    /// After a time without the others, clients come back and see for themselves.
    async fn watch_gaps(self: Rc<Self>) {
        loop {
            self.link.gap.notified().await;
            let keeps = matches!(self.cluster.wire.dialect, Dialect::Streams(_));
            let is_whole = keeps && !self.order.is_trimmed.replace(false);
            if !is_whole && !self.resume.is_zero() {
                tracing::info!(over = ?self.resume, "clients come back for what they missed");
                // They begin anew: what is kept here to be sent again has the same gap.
                self.hub.close(self.resume).await;
            }
            // Otherwise more has gone meanwhile.
            if !self.order.is_trimmed.get() {
                self.order.outruns.set(false);
            }
        }
    }
}

/// The name under which this node writes into streams, if there are any.
fn uid_of_writer(cluster: &Cluster) -> &str {
    match cluster.wire.dialect {
        Dialect::Streams(_) => &cluster.wire.uid,
        _ => "",
    }
}

/// A channel of this node alone.
fn probe(cluster: &Cluster) -> Subscription {
    let wire = &cluster.wire;
    let name = probe_of(wire, &wire.uid);
    match wire.dialect {
        // All servers of a cluster hear what is published.
        Dialect::Sharded(_) if !cluster.is_spread => Subscription::Shard(name),
        _ => Subscription::Channel(name),
    }
}

/// The channel of the node that talks under this name.
pub(super) fn probe_of(wire: &Wire, uid: &str) -> String {
    format!("{}-probe#{uid}", wire.prefix)
}
