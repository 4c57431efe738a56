//! The main thread's part: carries what workers say to Redis, and what comes from there to them.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::drain::Drain;
use crate::hub::Hub;
use crate::hub::engine::random;
use crate::hub::outbox::{Letter, Notice};
use crate::observe::metrics::{self, Series};

use super::asking::{Absent, Ask, Asking, others};
use super::link::{HEARD, Heard, Link};
use super::reading::{Entry, Numbers, Reading};
use super::registry::Registry;
use super::speaker::{Kind, Speaker};
use super::wire::{Audience, Dialect, Matter, Payload, Remote, Subscription, fresh_name};
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
    /// What of the streams was taken.
    pub(super) read: RefCell<Numbers>,
    registry: Rc<Registry>,
    link: Rc<Link>,
    /// Of the namespaces that there are.
    namespaces: RefCell<HashSet<Subscription>>,
    /// Workers by room.
    rooms: RefCell<HashMap<Subscription, usize>>,
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
        let speaker = Speaker::new(words.timeout, words.buffer);
        let (up, targets) = (Arc::clone(&cluster.up), Arc::clone(&hub.targets));
        let (uid, told) = (&cluster.wire.uid, cluster.neighbours.clone());
        let registry = Registry::new(hub.node, uid, &words, address, targets, told);
        let (link, heard) = Link::new(servers, speaker, words.timeout, probe(cluster), up);
        let central = Rc::new(Self {
            cluster: Arc::clone(cluster),
            hub: Arc::clone(hub),
            drain: drain.clone(),
            asking: Asking::default(),
            answer_within: words.answer,
            numbers: Cell::new(0),
            acks: Cell::new(0),
            read: RefCell::default(),
            registry: Rc::clone(&registry),
            link: Rc::clone(&link),
            namespaces: RefCell::default(),
            rooms: RefCell::default(),
            resume: words.resume,
            lag: metrics::series(&metrics::HUB_LAG, &[]),
        });
        link.start(drain);
        drain.spawn_background(registry.keep(Rc::clone(&link)));
        central.read_streams();
        drain.spawn_background(Rc::clone(&central).carry(reports));
        drain.spawn_background(Rc::clone(&central).hear(heard));
        drain.spawn_background(Rc::clone(&central).take_asks(asks));
        drain.spawn_background(central.watch_gaps());
    }

    async fn carry(self: Rc<Self>, mut reports: mpsc::Receiver<Vec<Report>>) {
        while let Some(list) = reports.recv().await {
            for report in list {
                match report {
                    Report::Say { bytes, is_volatile, is_kept } => {
                        let kind = match (is_kept, is_volatile) {
                            (_, true) => Kind::Volatile,
                            (true, _) => Kind::Again,
                            (false, _) => Kind::Once,
                        };
                        self.link.speaker.say(bytes, kind);
                    }
                    Report::Room { subscription, is_here } => self.move_room(subscription, is_here),
                }
            }
        }
    }

    /// Says something of the main thread's own.
    pub(super) fn say(&self, namespace: &str, matter: &Matter<Payload>) {
        if let Some(parcel) = self.cluster.wire.write(namespace, matter) {
            self.link.speaker.say(bytes_of(&parcel), Kind::Once);
        }
    }

    fn move_room(&self, subscription: Subscription, is_here: bool) {
        let mut rooms = self.rooms.borrow_mut();
        let workers = rooms.entry(subscription.clone()).or_default();
        if is_here {
            *workers += 1;
            if *workers == 1 {
                self.link.add(subscription);
            }
            return;
        }
        *workers = workers.saturating_sub(1);
        if *workers == 0 {
            rooms.remove(&subscription);
            self.link.remove(&subscription);
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
    fn read_streams(self: &Rc<Self>) {
        let streams = self.cluster.wire.streams();
        if streams.is_empty() {
            return;
        }
        let (to, entries) = mpsc::channel(HEARD);
        self.link.wait_for(streams.len());
        for stream in streams {
            let (link, servers) = (Rc::clone(&self.link), Rc::clone(&self.link.servers));
            let ready = Rc::new(move || link.is_waited_for_no_more());
            let reading = Reading::new(servers, stream, self.link.timeout, to.clone(), ready);
            self.drain.spawn_background(reading.work());
        }
        self.drain.spawn_background(Rc::clone(self).hear_entries(entries));
    }

    async fn hear_entries(self: Rc<Self>, mut entries: mpsc::Receiver<Entry>) {
        while let Some(first) = entries.recv().await {
            let mut notices = Vec::new();
            self.take_entry(&first, &mut notices);
            while notices.len() < LETTER
                && let Ok(next) = entries.try_recv()
            {
                self.take_entry(&next, &mut notices);
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
                Ask::Serve(names) => self.serve(&names),
                Ask::Look(looked) => self.registry.look(looked),
                Ask::Remotes { namespace, audience, answer } => {
                    let central = Rc::clone(&self);
                    self.drain.spawn_background(async move {
                        // Whoever asked may have stopped waiting.
                        let _told = answer.send(central.ask(&namespace, audience).await);
                    });
                }
            }
        }
    }

    /// These are the namespaces from now on.
    fn serve(&self, names: &[String]) {
        let wire = &self.cluster.wire;
        let wanted: HashSet<_> = names.iter().flat_map(|name| wire.subscriptions(name)).collect();
        let mut known = self.namespaces.borrow_mut();
        known.difference(&wanted).for_each(|gone| self.link.remove(gone));
        wanted.difference(&known).for_each(|new| self.link.add(new.clone()));
        *known = wanted;
    }

    async fn ask(&self, namespace: &str, audience: Audience) -> Result<Vec<Remote>, Absent> {
        if !self.cluster.is_up() {
            return Ok(Vec::new());
        }
        let wire = &self.cluster.wire;
        let expected = others(&self.link.speaker, &wire.census(namespace)).await;
        if expected == 0 {
            return Ok(Vec::new());
        }
        let request = fresh_name(&wire.dialect, random());
        let complete = self.asking.begin(&request, expected);
        let matter = Matter::Fetch { audience, request: request.as_str().into() };
        self.say(namespace, &matter);
        self.asking.end(&request, &complete, self.answer_within).await
    }

    /// After a time without the others, clients come back and see for themselves.
    async fn watch_gaps(self: Rc<Self>) {
        loop {
            self.link.gap.notified().await;
            let keeps = matches!(self.cluster.wire.dialect, Dialect::Streams(_));
            if !keeps && !self.resume.is_zero() {
                tracing::info!(over = ?self.resume, "clients come back for what they missed");
                // They begin anew: what is kept here to be sent again has the same gap.
                self.hub.close(self.resume).await;
            }
        }
    }
}

/// A channel of this node alone.
fn probe(cluster: &Cluster) -> Subscription {
    let wire = &cluster.wire;
    let name = format!("{}-probe#{}", wire.prefix, wire.uid);
    match wire.dialect {
        Dialect::Sharded(_) => Subscription::Shard(name),
        _ => Subscription::Channel(name),
    }
}
