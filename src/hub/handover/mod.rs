//! From one process to the next: while clients move, both hear what either says, and the next one
//! asks the one before for what a client left there.
//!
//! The workers of the other process are further workers to those of this one, numbered from `FAR`: the
//! same letters go to them, and what they say has stamps of its own origins. The main thread carries
//! it all, in order for each worker, over a pair of sockets. What the operator wants is done in both,
//! and watched rooms have the members of both; over Redis they do by that. If the other process dies, or says
//! nothing that can be understood, the pair is closed: everybody who is here stays, and who was not
//! moved yet begins anew.
//!
//! Where nodes share a Redis by its pub/sub, both processes are nodes there: they hear the others
//! each by itself, and number what they hear each in its own way. What either says reaches the other
//! here, and not again from there. What a client missed of the others is cut at a mark, which the
//! new process sends over Redis and both hear: what comes before it is in the answer of the old one,
//! what comes behind it in the log of the new one. With streams all of this is in Redis.

mod deeds;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod origins;
mod talk;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, info};

use crate::drain::Drain;
use crate::observe::metrics;

use super::Hub;
use super::clients::Clients;
use super::engine::{Delivery, Message, Node};
use super::namespace::Target;
use super::outbox::{LETTERS, Letter, Notice, Order};
use super::presence::Move;
use super::recovery::{read_answer, read_claim, write_letter};

use frame::{FRAME_MAX, HEAD, VERSION};
use talk::Talk;

pub use frame::{Answer, Claim, Frame, Left, Missing, Place, Words};
pub use origins::Origins;

/// The number of the other process' first worker.
pub const FAR: usize = super::engine::WORKERS_MAX;
/// Whichever of its workers knows.
pub const FAR_ANY: usize = usize::MAX;

/// Which of the two this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Its clients move to the other.
    Old,
    New,
}

/// How a worker reaches the other process.
#[derive(Clone)]
pub struct Way {
    pub role: Role,
    pub letters: mpsc::Sender<Letter>,
    /// Rises with each: what is said of an earlier one does not count.
    pub attempt: u64,
}

/// Two processes that speak.
pub struct Bridge {
    task: JoinHandle<()>,
    hurry: Arc<Notify>,
}

impl Bridge {
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Has the old process let its last clients go at once.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Waits until the other process is gone, or all is said to it.
    pub async fn over(&mut self) {
        // It ends in no other way.
        let _ended = (&mut self.task).await;
    }

    /// Speaks no more.
    pub fn end(&self) {
        self.task.abort();
    }
}

/// The other process takes what it is sent, and ends what it has begun to say, within this.
const PROGRESS: Duration = Duration::from_secs(10);
/// Notices that are read before workers are told of them.
const BATCH: usize = 256;
/// Rooms that are told of in one frame.
const ROOMS: usize = 4096;

/// Why the two do not speak any more.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("it has said all that there was")]
    Done,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it did not go on in time")]
    Stuck,
    #[error("it speaks another version, or in a way that is none")]
    Foreign,
}

impl Clients {
    /// Another process hears what begins here from now on.
    pub fn begin_bridge(&self, way: Way, drain: &Drain) {
        let attempt = way.attempt;
        let stamp = self.recovery.begin_bridge(&way);
        self.outbox.begin_far(way, drain);
        self.namespaces().iter().for_each(|namespace| namespace.log.reach(stamp));
        self.outbox.tell_all(&Notice::Baseline { stamp, attempt });
        if self.outbox.bridges() {
            self.namespaces().iter().for_each(|namespace| namespace.show(&self.outbox));
        }
    }
}

impl Hub {
    /// Speaks with another process from now on; returns when every worker does. `peer` is the name
    /// under which it talks over Redis, if that is known before it says so.
    ///
    /// The task ends with the other process, or when this one's workers have ended and all is said.
    pub async fn bridge(
        self: &Arc<Self>,
        socket: OwnedFd,
        (role, peer): (Role, Option<&str>),
        drain: &Drain,
    ) -> io::Result<Bridge> {
        let socket = StdStream::from(socket);
        socket.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(socket)?.into_split();
        let (letters, said) = mpsc::channel(LETTERS);
        let attempt = self.bridges.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let way = Way { role, letters, attempt };
        if let (Some(cluster), Some(peer)) = (&self.cluster, peer) {
            cluster.pair(attempt, peer.into(), role).await;
        }
        let talk = Rc::new(Talk::new(way.letters.downgrade()));
        self.order(|done| Order::Bridge(way.clone(), done)).await;
        drop(way);
        let gatherers = drain.clone();
        let (hub, hurry) = (Arc::clone(self), Arc::new(Notify::new()));
        let hurried = Arc::clone(&hurry);
        let task = drain.spawn_background(async move {
            let mut said = said;
            let end = tokio::select! {
                // What is lost when an arm is dropped is for a process that is gone.
                end = hub.say(&mut said, write, (&hurried, &talk)) => end,
                end = hub.listen(read, (attempt, role), (&talk, &gatherers)) => end,
            };
            let mut told = Told::new(hub.letters.len());
            talk.end().iter().for_each(|notice| told.all(notice));
            hub.tell(&mut told).await;
            match end {
                Ok(()) | Err(End::Done) => debug!("all is said to the other process"),
                Err(end) => info!("clients move no more between processes: {end}"),
            }
            hub.order(|done| Order::Unbridge(attempt, done)).await;
            if let Some(cluster) = &hub.cluster {
                cluster.unpair(attempt).await;
            }
            forget(said);
        });
        Ok(Bridge { task, hurry })
    }

    /// Carries what workers say until they have all ended.
    async fn say(
        &self,
        said: &mut mpsc::Receiver<Letter>,
        mut to: OwnedWriteHalf,
        (hurry, talk): (&Notify, &Talk),
    ) -> Result<(), End> {
        let lag = metrics::series(&metrics::HUB_LAG, &[]);
        let name = self.cluster.as_ref().map(|cluster| cluster.name().into());
        let hello = Frame::Hello { version: VERSION, node: self.node, name };
        let mut bytes = hello.write().unwrap_or_default();
        loop {
            if !bytes.is_empty() {
                timeout(PROGRESS, to.write_all(&bytes)).await.map_err(|_late| End::Stuck)??;
                bytes.clear();
            }
            let letter = tokio::select! {
                // Nothing is lost when an arm is dropped.
                letter = said.recv() => letter,
                () = hurry.notified() => {
                    bytes.extend(Frame::Hurry.write().into_iter().flatten());
                    continue;
                }
                rooms = self.moved_rooms() => {
                    for some in rooms.chunks(ROOMS) {
                        let frame = Frame::Rooms(some.to_vec());
                        bytes.extend(frame.write().into_iter().flatten());
                    }
                    continue;
                }
            };
            let Some(letter) = letter else { return Err(End::Done) };
            let Letter::Notices(notices) = letter else { continue };
            lag.add(-i64::try_from(notices.len()).unwrap_or_default());
            for notice in notices {
                // What is too long for a frame is not said: nobody may be sent as much.
                let frame = self.frame(notice, talk).and_then(|frame| frame.write());
                bytes.extend(frame.into_iter().flatten());
                if bytes.len() > FRAME_MAX {
                    let sent = timeout(PROGRESS, to.write_all(&bytes)).await;
                    sent.map_err(|_late| End::Stuck)??;
                    bytes.clear();
                }
            }
        }
    }

    /// Channels of rooms that are listened to here and the next process does not know of.
    async fn moved_rooms(&self) -> Vec<String> {
        match &self.cluster {
            Some(cluster) => cluster.moved_rooms().await,
            None => std::future::pending().await,
        }
    }

    fn frame(&self, notice: Notice, talk: &Talk) -> Option<Frame> {
        match notice {
            Notice::Emit { namespace, target, message, delivery, stamp } => {
                let (text, parts) = message.words();
                Some(Frame::Emit {
                    namespace: (*namespace).into(),
                    rooms: target.rooms.clone(),
                    except: target.except.clone(),
                    but: target.but,
                    volatile: delivery == Delivery::Volatile,
                    place: stamp.and_then(|stamp| self.origins.place(stamp)),
                    words: Words { text: text?.to_owned(), parts: parts.to_vec() },
                })
            }
            Notice::Baseline { stamp, .. } => self.origins.place(stamp).map(Frame::Baseline),
            Notice::Far { to, letter } => write_letter(to, &letter, &self.origins),
            Notice::Moved(Move { namespace, room, id, step, .. }) => Some(Frame::Moved {
                namespace: (*namespace).into(),
                room: (*room).into(),
                id,
                step,
            }),
            Notice::Operation(task) => talk.ask(&task),
            Notice::Outcome { number, outcome } => {
                Some(Frame::Outcome { number, outcome: Box::new(outcome) })
            }
            _ => None,
        }
    }

    /// Tells workers what the other process says, until that ends.
    async fn listen(
        &self,
        from: OwnedReadHalf,
        (attempt, role): (u64, Role),
        (talk, gatherers): (&Talk, &Drain),
    ) -> Result<(), End> {
        let mut from = BufReader::with_capacity(64 << 10, from);
        let Some(Frame::Hello { version: VERSION, node: peer, name }) = next(&mut from).await?
        else {
            return Err(End::Foreign);
        };
        if peer == self.node {
            return Err(End::Foreign);
        }
        if let (Some(cluster), Some(name)) = (&self.cluster, name) {
            cluster.pair(attempt, name, role).await;
        }
        let mut told = Told::new(self.letters.len());
        loop {
            if from.buffer().is_empty() || told.count >= BATCH {
                self.tell(&mut told).await;
            }
            let Some(frame) = next(&mut from).await? else {
                self.tell(&mut told).await;
                return Err(End::Done);
            };
            match frame {
                Frame::Hurry => self.order(Order::Hurry).await,
                Frame::Rooms(channels) => {
                    if let Some(cluster) = &self.cluster {
                        cluster.listen_to(channels).await;
                    }
                }
                Frame::Operate { number, operation } => {
                    let asked = (number, *operation);
                    let (notice, gathering) =
                        talk.begin(asked, self.letters.len(), &self.attendances);
                    told.all(&notice);
                    gatherers.spawn_background(gathering.say());
                }
                Frame::Outcome { number, outcome } => talk.answered(number, *outcome),
                Frame::Moved { namespace, room, id, step } => {
                    let moved = talk.moved((namespace.into(), room.into(), id), step);
                    moved.iter().for_each(|notice| told.all(notice));
                }
                frame => self.take(frame, peer, &mut told)?,
            }
        }
    }

    fn take(&self, frame: Frame, peer: Node, told: &mut Told) -> Result<(), End> {
        match frame {
            Frame::Hello { .. } => return Err(End::Foreign),
            // Heeded before.
            Frame::Hurry | Frame::Rooms(_) | Frame::Moved { .. } => {}
            Frame::Operate { .. } | Frame::Outcome { .. } => {}
            Frame::Emit { namespace, rooms, except, but, volatile, place, words } => {
                let stamp = place.map(|place| self.origins.meet(place).ok_or(End::Foreign));
                let delivery = if volatile { Delivery::Volatile } else { Delivery::Kept };
                told.all(&Notice::Emit {
                    namespace: namespace.into(),
                    target: Arc::new(Target { rooms, except, but }),
                    message: Arc::new(Message::with_parts(words.text, words.parts)),
                    delivery,
                    stamp: stamp.transpose()?,
                });
            }
            Frame::Baseline(place) => {
                let stamp = self.origins.meet(place).ok_or(End::Foreign)?;
                told.all(&Notice::Baseline { stamp, attempt: 0 });
            }
            Frame::Claim(claim) => {
                let maker = claim.pid.maker(self.node, self.letters.len());
                let to = claim.to.map_or(maker, usize::from);
                told.one(to, Notice::Recovery(Box::new(read_claim(claim))));
            }
            Frame::Answer(answer) => {
                let to = usize::from(answer.to);
                let letter = read_answer(answer, &self.origins, [self.node, peer]);
                told.one(to, Notice::Recovery(Box::new(letter)));
            }
        }
        Ok(())
    }

    async fn tell(&self, told: &mut Told) {
        let lag = metrics::series(&metrics::HUB_LAG, &[]);
        told.count = 0;
        for (letters, notices) in self.letters.iter().zip(&mut told.notices) {
            if !notices.is_empty() {
                let notices = std::mem::take(notices);
                lag.add(i64::try_from(notices.len()).unwrap_or_default());
                // A worker that has ended has nobody left to tell.
                let _told = letters.send(Letter::Notices(notices)).await;
            }
        }
    }
}

/// Nobody waits for what was not said.
fn forget(mut said: mpsc::Receiver<Letter>) {
    let lag = metrics::series(&metrics::HUB_LAG, &[]);
    said.close();
    while let Ok(Letter::Notices(notices)) = said.try_recv() {
        lag.add(-i64::try_from(notices.len()).unwrap_or_default());
    }
}

/// What workers are about to be told, in its order.
struct Told {
    notices: Vec<Vec<Notice>>,
    count: usize,
}

impl Told {
    fn new(workers: usize) -> Self {
        Self { notices: vec![Vec::new(); workers], count: 0 }
    }

    fn all(&mut self, notice: &Notice) {
        self.notices.iter_mut().for_each(|notices| notices.push(notice.clone()));
        self.count += 1;
    }

    /// Nobody, if there are not as many workers.
    fn one(&mut self, worker: usize, notice: Notice) {
        if let Some(notices) = self.notices.get_mut(worker) {
            notices.push(notice);
        }
        self.count += 1;
    }
}

/// The next frame; `None` at the end between two.
async fn next(from: &mut BufReader<OwnedReadHalf>) -> Result<Option<Frame>, End> {
    let mut head = [0; HEAD];
    let (first, rest) = head.split_at_mut(1);
    // For as long as there is nothing to say.
    if from.read(first).await? == 0 {
        return Ok(None);
    }
    timeout(PROGRESS, from.read_exact(rest)).await.map_err(|_late| End::Stuck)??;
    let length = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if length > FRAME_MAX {
        return Err(End::Foreign);
    }
    let mut frame = vec![0; length];
    timeout(PROGRESS, from.read_exact(&mut frame)).await.map_err(|_late| End::Stuck)??;
    Frame::read(Bytes::from(frame)).map(Some).map_err(|_malformed| End::Foreign)
}
