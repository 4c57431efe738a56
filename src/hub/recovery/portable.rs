//! What is asked and answered about clients between two processes, in numbers that both understand.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::hub::engine::{Message, Node, Outgoing};
use crate::hub::handover::{self, FAR, FAR_ANY, Frame, Left, Missing, Origins, Place, Words};

use super::claim::{Answer, Claim, Letter, Returned};
use super::log::{Log, Vector};
use super::offset::{Offset, Stamp};
use super::{Miss, Recovery};

/// Longer than anybody may be away.
const LASTS_MAX: Duration = Duration::from_secs(86_400);

impl Recovery {
    /// What a client left, with all that it missed: the other process does not have what was said
    /// before the two spoke.
    ///
    /// Of what came over Redis, it is what came before the mark; without one nobody could say where
    /// the other process goes on.
    pub(super) fn pack(&self, returned: Arc<Returned>, log: &Log, mark: Option<u64>) -> Answer {
        // Of what some worker said before that, this one may not have heard all.
        if !self.is_level() {
            return Err(Miss::TooMuch);
        }
        let cut = match mark {
            Some(mark) => Some(self.marks.borrow().number(mark).ok_or(Miss::TooMuch)?),
            None if self.is_shared() => return Err(Miss::TooMuch),
            None => None,
        };
        let mut missed = self.missed(log, &returned)?;
        missed.retain(|(stamp, _)| {
            !self.origins.is_shared(*stamp) || cut.is_none_or(|cut| stamp.number <= cut)
        });
        let mut packed = Arc::unwrap_or_clone(returned);
        packed.heard = log.heard();
        if missed.is_empty() {
            packed.have = Vector::clone(&packed.heard);
        }
        let missed = missed.iter().map(|(stamp, message)| (*stamp, message.message()));
        packed.packed = Some(missed.collect());
        packed.mark = mark;
        Ok(Arc::new(packed))
    }
}

/// A letter to a worker of the other process.
pub fn write_letter(to: usize, letter: &Letter, origins: &Origins) -> Option<Frame> {
    match letter {
        Letter::Claim { claim, from, number } => {
            let to = if to == FAR_ANY { None } else { Some(there(to)?) };
            Some(Frame::Claim(handover::Claim {
                to,
                pid: claim.pid,
                namespace: (*claim.namespace).into(),
                user: claim.user.as_deref().map(Into::into),
                offset: claim.offset.map(|Offset { node, stamp }| Place {
                    node,
                    worker: stamp.origin,
                    number: stamp.number,
                }),
                from: there(*from)?,
                number: *number,
                mark: claim.mark,
            }))
        }
        Letter::Answer { answer, number } => {
            let found = match answer {
                Ok(returned) => Ok(Box::new(left(returned, origins))),
                Err(Miss::Unknown) => Err(Missing::Unknown),
                Err(Miss::Expired) => Err(Missing::Expired),
                Err(Miss::TooMuch) => Err(Missing::TooMuch),
            };
            let answer = handover::Answer { to: there(to)?, number: *number, found };
            Some(Frame::Answer(answer))
        }
        Letter::Gone(_) => None,
    }
}

/// A worker by the number that it has on the other side.
fn there(worker: usize) -> Option<u8> {
    let number = worker.checked_sub(FAR).or(worker.checked_add(FAR))?;
    u8::try_from(number).ok()
}

fn left(returned: &Returned, origins: &Origins) -> Left {
    let place = |stamp: Stamp| origins.place(stamp);
    let stamps = |vector: &[u64]| -> Vec<Stamp> {
        let stamps = (0..).zip(vector).map(|(origin, &number)| Stamp { origin, number });
        stamps.filter(|stamp| stamp.number > 0).collect()
    };
    // The other process hears what comes over Redis, but never under our numbers.
    let heard = stamps(&returned.heard).into_iter().filter(|stamp| !origins.is_shared(*stamp));
    let packed = returned.packed.iter().flat_map(|packed| packed.iter());
    let missed = packed.filter_map(|(stamp, message)| {
        let (text, parts) = message.words();
        Some((place(*stamp)?, Words { text: text?.to_owned(), parts: parts.to_vec() }))
    });
    let lasts = returned.due.saturating_duration_since(Instant::now());
    Left {
        pid: returned.pid,
        id: returned.id,
        namespace: (*returned.namespace).into(),
        user: returned.user.as_deref().map(Into::into),
        rooms: returned.rooms.clone(),
        data: returned.data.clone(),
        lasts: u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX),
        have: stamps(&returned.have).into_iter().filter_map(place).collect(),
        heard: heard.filter_map(place).collect(),
        turned_out: returned.turned_out.and_then(place),
        mark: returned.mark,
        missed: missed.collect(),
    }
}

pub fn read_claim(claim: handover::Claim) -> Letter {
    let handover::Claim { pid, namespace, user, offset, from, number, mark, .. } = claim;
    let offset = offset.map(|Place { node, worker, number }| Offset {
        node,
        stamp: Stamp { origin: worker, number },
    });
    let user = user.map(Into::into);
    let claim = Claim { pid, namespace: namespace.into(), user, offset, mark };
    Letter::Claim { claim, from: usize::from(from), number }
}

/// `spoken` are the two nodes that hear each other; who is only remembered says nothing more.
pub fn read_answer(answer: handover::Answer, origins: &Origins, spoken: [Node; 2]) -> Letter {
    let handover::Answer { number, found, .. } = answer;
    let answer = match found {
        Ok(left) => returned(*left, origins, spoken).map(Arc::new).ok_or(Miss::TooMuch),
        Err(Missing::Unknown) => Err(Miss::Unknown),
        Err(Missing::Expired) => Err(Miss::Expired),
        Err(Missing::TooMuch) => Err(Miss::TooMuch),
    };
    Letter::Answer { answer, number }
}

fn returned(left: Left, origins: &Origins, spoken: [Node; 2]) -> Option<Returned> {
    let vector = |places: &[Place]| -> Option<Vector> {
        let mut vector = Vec::new();
        for place in places.iter().filter(|place| spoken.contains(&place.node)) {
            let Stamp { origin, number } = origins.meet(*place)?;
            let index = usize::from(origin);
            vector.resize(vector.len().max(index + 1), 0);
            vector.get_mut(index).into_iter().for_each(|at| *at = number.max(*at));
        }
        Some(vector.into())
    };
    let message = |(place, words): (Place, Words)| {
        let message = Arc::new(Message::with_parts(words.text, words.parts));
        Some((origins.meet(place)?, message))
    };
    let (now, lasts) = (Instant::now(), Duration::from_millis(left.lasts).min(LASTS_MAX));
    let missed: Option<Vec<(Stamp, Arc<Message>)>> = left.missed.into_iter().map(message).collect();
    Some(Returned {
        pid: left.pid,
        id: left.id,
        namespace: left.namespace.into(),
        user: left.user.map(Into::into),
        rooms: left.rooms,
        data: left.data,
        due: now + lasts,
        have: vector(&left.have)?,
        since: now,
        heard: vector(&left.heard)?,
        queued: Vec::new(),
        turned_out: left.turned_out.and_then(|place| origins.known(place)),
        packed: Some(missed?.into()),
        mark: left.mark,
        afar: None,
        line: None,
    })
}

impl Returned {
    /// What its client was not sent by the other process.
    pub(super) fn unpacked(&self) -> impl Iterator<Item = super::Missed> {
        let packed = self.packed.iter().flat_map(|packed| packed.iter());
        packed.map(|(stamp, message)| (*stamp, Outgoing::new(Arc::clone(message))))
    }

    pub(super) fn packed_size(&self) -> usize {
        self.packed.iter().flat_map(|packed| packed.iter()).map(|(_, message)| message.size()).sum()
    }
}
