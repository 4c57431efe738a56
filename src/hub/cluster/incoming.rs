//! What other nodes say: dropped before it is read if it concerns nobody here, told to the workers,
//! or answered.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::hub::engine::{Delivery, Id, Message};
use crate::hub::json;
use crate::hub::namespace::Target;
use crate::hub::operation::{Deed, Heads, Operation, Outcome, Task};
use crate::hub::outbox::Notice;
use crate::hub::packet::{self, DEPTH_MAX};
use crate::hub::recovery::{Stamp, stamped};
use crate::observe::metrics;

use super::Cluster;
use super::Counted;
use super::central::{Central, probe_of};
use super::gossip;
use super::link::{Heard, MOVED};
use super::order::{Opened, Way};
use super::origin;
use super::questions::Asked;
use super::reading::Entry;
use super::wire::{
    Answer, Audience, Broadcast, Dialect, Matter, Payload, Place, Remote, Sealed, Telegram, Whisper,
};

/// What becomes of a message; the word is the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Taken,
    /// This node's own.
    Own,
    /// Said again after a break.
    Repeated,
    /// Nobody here is meant.
    ForNobody,
    Malformed,
    /// Clients would hang up at it.
    Unfit,
}

impl Fate {
    fn word(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Own => "own",
            Self::Repeated => "repeated",
            Self::ForNobody => "for_nobody",
            Self::Malformed => "malformed",
            Self::Unfit => "unfit",
        }
    }
}

/// Between two words about what is not told.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);
/// A worker that takes longer is stuck; whoever asked gets what the others said.
const WORKERS_ANSWER: Duration = Duration::from_secs(2);

impl Central {
    /// Takes a message; what workers must hear of it is added to `notices`.
    pub(super) fn take(self: &Rc<Self>, heard: &Heard, notices: &mut Vec<Notice>) {
        if heard.channel == gossip::channel(&self.cluster.wire).as_bytes() {
            // What nodes tell each other is no message: it is not counted.
            match Whisper::read(&heard.payload) {
                Some(whisper) => self.take_whisper(&whisper, notices),
                None => metrics::count(&metrics::REDIS_HEARD, Fate::Malformed.word()),
            }
            return;
        }
        if self.take_mark(heard, notices) {
            return;
        }
        let fate = self.take_one(heard, notices);
        metrics::count(&metrics::REDIS_HEARD, fate.word());
    }

    fn take_one(self: &Rc<Self>, heard: &Heard, notices: &mut Vec<Notice>) -> Fate {
        let wire = &self.cluster.wire;
        if let Some(pid) = heard.payload.strip_prefix(MOVED) {
            let Some(pid) = std::str::from_utf8(pid).ok().and_then(Id::parse) else {
                return Fate::Malformed;
            };
            if heard.channel != probe_of(wire, &wire.uid).as_bytes() {
                return Fate::Malformed;
            }
            notices.push(Notice::Taken(pid));
            return Fate::Taken;
        }
        let place = std::str::from_utf8(&heard.channel).ok().and_then(|name| wire.place(name));
        let Some(place) = place else { return Fate::Malformed };
        match place {
            Place::Room(namespace, room) if !self.is_wanted(namespace, &[room]) => {
                return Fate::ForNobody;
            }
            // Requests are for everybody, also where nobody is.
            Place::Namespace(namespace)
                if wire.dialect == Dialect::Classic && !self.is_wanted::<&str>(namespace, &[]) =>
            {
                return Fate::ForNobody;
            }
            _ => {}
        }
        match wire.read(place, &heard.payload) {
            Ok(telegram) => self.take_telegram(telegram, notices),
            Err(_malformed) => Fate::Malformed,
        }
    }

    /// The same for what stands in a stream.
    pub(super) fn take_entry(
        self: &Rc<Self>,
        stream: &Arc<str>,
        entry: &Entry,
        notices: &mut Vec<Notice>,
    ) {
        let own = entry.key().filter(|_| entry.is_of(&self.cluster.wire.uid));
        let fate = match self.cluster.wire.read_entry(&entry.fields) {
            _ if self.order.repeats(stream, entry, own) => Fate::Repeated,
            Ok(telegram) if self.cluster.is_ordered() => {
                self.take_in_order(entry, telegram, notices)
            }
            Ok(telegram) => self.take_telegram(telegram, notices),
            Err(_malformed) => Fate::Malformed,
        };
        metrics::count(&metrics::REDIS_HEARD, fate.word());
    }

    /// With its place in the order of its stream.
    fn take_in_order(
        self: &Rc<Self>,
        entry: &Entry,
        telegram: Telegram,
        notices: &mut Vec<Notice>,
    ) -> Fate {
        let is_own = telegram.from.as_deref() == Some(self.cluster.wire.uid.as_str());
        let Some(number) = entry.number() else { return Fate::Malformed };
        let way = match entry.key().filter(|_| is_own).map(|key| self.order.came(key)) {
            // What was said before there was an order, or does not need one.
            Some(Way::Unknown) => return Fate::Own,
            Some(way) => way,
            None if is_own => return Fate::Own,
            None => Way::Waited,
        };
        let Matter::Broadcast(broadcast) = telegram.matter else {
            return self.take_telegram(telegram, notices);
        };
        let volatile = broadcast.flags.volatile;
        let opened = self.open(&telegram.namespace, broadcast);
        let Ok(opened) = opened else { return opened.err().unwrap_or(Fate::Malformed) };
        self.order.deliver(number, way, opened, volatile, notices);
        if is_own { Fate::Own } else { Fate::Taken }
    }

    /// A message that is not for its place in the order: all of its own that this node has told.
    pub(super) fn read_own(&self, fields: &[(bytes::Bytes, bytes::Bytes)]) -> Option<Opened> {
        let telegram = self.cluster.wire.read_entry(fields).ok()?;
        let Matter::Broadcast(broadcast) = telegram.matter else { return None };
        self.open(&telegram.namespace, broadcast).ok()
    }

    /// Of an entry that was written long before it is read.
    pub(super) fn read_kept(&self, entry: &Entry) -> Option<Opened> {
        let telegram = self.cluster.wire.read_entry(&entry.fields).ok()?;
        let Matter::Broadcast(broadcast) = telegram.matter else { return None };
        if broadcast.flags.volatile {
            return None;
        }
        self.open(&telegram.namespace, broadcast).ok()
    }

    fn open(&self, namespace: &str, broadcast: Broadcast<Sealed>) -> Result<Opened, Fate> {
        let packet = self.unseal(namespace, &broadcast.packet)?;
        let target = Arc::new(target(broadcast.audience));
        Ok(Opened {
            namespace: namespace.into(),
            target,
            data: packet.data.into(),
            parts: packet.parts,
        })
    }

    /// The packet, if the clients here take it.
    fn unseal(&self, namespace: &str, packet: &Sealed) -> Result<Payload, Fate> {
        let packet = packet.open(namespace).map_err(|_malformed| Fate::Malformed)?;
        let packet = packet.ok_or(Fate::ForNobody)?;
        let most = self.cluster.attachments.load(std::sync::atomic::Ordering::Relaxed);
        let too_many = packet.parts.len() > most;
        if !too_many && json::is_within(&packet.data, DEPTH_MAX) {
            return Ok(packet);
        }
        let now = Instant::now();
        if self.complained.get().is_none_or(|before| now >= before + COMPLAINT_PAUSE) {
            self.complained.set(Some(now));
            let name = packet.data.chars().take(64).collect::<String>();
            let parts = packet.parts.len();
            tracing::warn!(
                namespace,
                event = name,
                parts,
                "another server's event is not told: clients hang up at more than \
                 hub.limits.attachments ({most}) binary parts, and at data that are too deep"
            );
        }
        Err(Fate::Unfit)
    }

    /// False if certainly none of the rooms has a member, or, without rooms, the namespace.
    fn is_wanted<R: AsRef<str>>(&self, namespace: &str, rooms: &[R]) -> bool {
        let cluster = &self.cluster;
        // Who is away may come back for it.
        if cluster.recovers.load(std::sync::atomic::Ordering::Relaxed) {
            return true;
        }
        let interest = &cluster.interest;
        if rooms.is_empty() {
            return interest.is_any(namespace, None);
        }
        rooms.iter().any(|room| interest.is_any(namespace, Some(room.as_ref())))
    }

    fn take_telegram(self: &Rc<Self>, telegram: Telegram, notices: &mut Vec<Notice>) -> Fate {
        let Telegram { from, namespace, matter } = telegram;
        if from.as_deref() == Some(self.cluster.wire.uid.as_str()) {
            return Fate::Own;
        }
        let is_twins = self.is_twins(from.as_deref());
        let to = from.unwrap_or_default();
        match matter {
            // What is to be acknowledged comes in no other way.
            Matter::Broadcast(broadcast) if is_twins && broadcast.request.is_none() => {
                return Fate::Own;
            }
            Matter::Broadcast(broadcast) => {
                return self.take_broadcast(&namespace, &to, broadcast, notices);
            }
            Matter::Join { audience, rooms, request } => {
                let deed = Deed::Join { target: target(audience), rooms };
                self.change(&namespace, &to, deed, request, notices);
            }
            Matter::Leave { audience, rooms, request } => {
                let deed = Deed::Leave { target: target(audience), rooms };
                self.change(&namespace, &to, deed, request, notices);
            }
            Matter::Disconnect { audience, close, request } => {
                let deed = Deed::Disconnect { target: target(audience), close };
                self.change(&namespace, &to, deed, request, notices);
            }
            Matter::Fetch { audience, request, counts: true } if is_counted(&audience) => {
                self.count(&namespace, &to, request, audience, notices);
            }
            Matter::Fetch { audience, request, .. } => {
                self.describe(&namespace, &to, request, audience, notices, Answer::Sockets);
            }
            Matter::Ids { audience, request } => {
                let ids = |remotes: Vec<Remote>| {
                    Answer::Ids(remotes.into_iter().map(|remote| remote.id.into()).collect())
                };
                self.describe(&namespace, &to, request, audience, notices, ids);
            }
            Matter::Rooms { request } => {
                let everyone = Audience::default();
                self.describe(&namespace, &to, request, everyone, notices, rooms_of);
            }
            Matter::ServerSideEmit { request, .. } => {
                // No handlers are here, but whoever asked waits for all nodes.
                if let Some(request) = request {
                    self.answer(&namespace, &to, request, Answer::Value(None));
                }
            }
            Matter::Answer { request, answer, .. } => self.asking.take(&request, answer),
            Matter::Nothing => {}
        }
        Fate::Taken
    }

    pub(super) fn answer(&self, namespace: &str, to: &str, request: Box<str>, answer: Answer) {
        self.say(namespace, &Matter::Answer { to: to.into(), request, answer });
    }

    fn take_broadcast(
        self: &Rc<Self>,
        namespace: &str,
        to: &str,
        broadcast: Broadcast<Sealed>,
        notices: &mut Vec<Notice>,
    ) -> Fate {
        let Broadcast { audience, flags, request, packet } = broadcast;
        let is_wanted = self.is_wanted(namespace, &audience.rooms);
        if !is_wanted {
            if let Some(request) = request {
                self.answer(namespace, to, request, Answer::Clients(0));
            }
            return Fate::ForNobody;
        }
        let packet = match self.unseal(namespace, &packet) {
            Ok(packet) => packet,
            Err(fate) => {
                // Whoever asked waits for all nodes.
                if let Some(request) = request {
                    self.answer(namespace, to, request, Answer::Clients(0));
                }
                return fate;
            }
        };
        if let Some(request) = request {
            let asked = Asked { namespace, to, request, audience, within: flags.timeout };
            notices.push(self.question(asked, &packet));
            return Fate::Taken;
        }
        let delivery = if flags.volatile { Delivery::Volatile } else { Delivery::Kept };
        let (data, stamp) = self.stamp(packet.data.into());
        let text = packet::event(namespace, &data, packet.parts.len());
        notices.push(Notice::Emit {
            namespace: namespace.into(),
            target: Arc::new(target(audience)),
            message: Arc::new(Message::with_parts(text, packet.parts)),
            delivery,
            stamp,
        });
        Fate::Taken
    }

    /// The event's array with its offset, if clients may come back.
    fn stamp(&self, data: String) -> (String, Option<Stamp>) {
        let recovers = self.cluster.recovers.load(std::sync::atomic::Ordering::Relaxed);
        let (true, Some(origin)) = (recovers, origin(self.hub.letters.len())) else {
            return (data, None);
        };
        self.numbers.set(self.numbers.get() + 1);
        let stamp = Stamp { origin, number: self.numbers.get() };
        (stamped(self.hub.node, stamp, &data), Some(stamp))
    }

    /// Has every worker do it.
    fn change(
        self: &Rc<Self>,
        namespace: &str,
        to: &str,
        deed: Deed,
        request: Option<Box<str>>,
        notices: &mut Vec<Notice>,
    ) {
        // What is said to the rooms right behind it may be here before the workers have joined.
        let expected = match &deed {
            Deed::Join { rooms, .. } => Some(Expected::new(&self.cluster, namespace, rooms)),
            _ => None,
        };
        let operation = Operation::new(namespace, deed);
        if expected.is_none() && request.is_none() {
            notices.push(Notice::Operation(Task::alone(operation, None)));
            return;
        }
        let (answers, answered) = mpsc::channel(self.hub.letters.len().max(1));
        notices.push(Notice::Operation(Task::alone(operation, Some(answers))));
        let (central, namespace, to) = (Rc::clone(self), namespace.to_owned(), to.to_owned());
        self.drain.spawn_background(async move {
            let outcome = gather(answered, Outcome::Count(0)).await;
            drop(expected);
            // Of a server of long ago: who has the socket says so.
            if let (Some(request), Outcome::Count(1..)) = (request, outcome) {
                central.answer(&namespace, &to, request, Answer::Done);
            }
        });
    }

    /// Asks every worker how many sockets it has, and answers that, and whose they are.
    fn count(
        self: &Rc<Self>,
        namespace: &str,
        to: &str,
        request: Box<str>,
        audience: Audience,
        notices: &mut Vec<Notice>,
    ) {
        let (answers, answered) = mpsc::channel(self.hub.letters.len().max(1));
        let room = audience.rooms.into_iter().next();
        let operation = Operation::new(namespace, Deed::Count { room: room.clone() });
        notices.push(Notice::Operation(Task::alone(operation, Some(answers))));
        let (central, namespace, to) = (Rc::clone(self), namespace.to_owned(), to.to_owned());
        self.drain.spawn_background(async move {
            let outcome = gather(answered, Outcome::Heads(Heads::default())).await;
            let Outcome::Heads(all) = outcome else { return };
            let users = central.hub.attendances.of(&namespace).all(room.as_deref());
            let users = users.into_iter().collect();
            let heads = Counted { sockets: all.sockets as u64, users };
            central.answer(&namespace, &to, request, Answer::Heads(heads));
        });
    }

    /// Asks every worker about its sockets, and answers what `say` makes of them all.
    fn describe(
        self: &Rc<Self>,
        namespace: &str,
        to: &str,
        request: Box<str>,
        audience: Audience,
        notices: &mut Vec<Notice>,
        say: impl FnOnce(Vec<Remote>) -> Answer + 'static,
    ) {
        let (answers, answered) = mpsc::channel(self.hub.letters.len().max(1));
        let operation = Operation::new(namespace, Deed::Describe { target: target(audience) });
        notices.push(Notice::Operation(Task::alone(operation, Some(answers))));
        let (central, namespace, to) = (Rc::clone(self), namespace.to_owned(), to.to_owned());
        self.drain.spawn_background(async move {
            let outcome = gather(answered, Outcome::Described(Vec::new())).await;
            let Outcome::Described(remotes) = outcome else { return };
            central.answer(&namespace, &to, request, say(remotes));
        });
    }
}

/// Whether it is known how many they are without looking at each of them.
fn is_counted(audience: &Audience) -> bool {
    audience.rooms.len() <= 1 && audience.except.is_empty()
}

/// Rooms that sockets of this node are about to be in.
struct Expected {
    cluster: Arc<Cluster>,
    namespace: String,
    rooms: Vec<String>,
}

impl Expected {
    fn new(cluster: &Arc<Cluster>, namespace: &str, rooms: &[String]) -> Self {
        rooms.iter().for_each(|room| cluster.interest.begin(namespace, Some(room)));
        let (cluster, namespace) = (Arc::clone(cluster), namespace.to_owned());
        Self { cluster, namespace, rooms: rooms.to_vec() }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let Self { cluster, namespace, rooms } = self;
        rooms.iter().for_each(|room| cluster.interest.end(namespace, Some(room)));
    }
}

/// Adds up what all workers answer.
async fn gather(
    mut answered: mpsc::Receiver<crate::hub::operation::Done>,
    mut all: Outcome,
) -> Outcome {
    let gathering = async {
        while let Some(done) = answered.recv().await {
            all.add(done.into_outcome());
        }
    };
    // Whoever is late is left out.
    let _in_time = timeout(WORKERS_ANSWER, gathering).await;
    all
}

pub(super) fn target(audience: Audience) -> Target {
    let Audience { rooms, except } = audience;
    Target { rooms: (!rooms.is_empty()).then_some(rooms), except, but: None }
}

fn rooms_of(remotes: Vec<Remote>) -> Answer {
    let all: std::collections::BTreeSet<String> =
        remotes.into_iter().flat_map(|remote| remote.rooms).collect();
    Answer::Rooms(all.into_iter().collect())
}
