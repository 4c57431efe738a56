//! What everybody must hear, and must not.

use std::collections::{BTreeSet, HashMap, HashSet};

/// A message by who said it, and which of his it was.
type Name = (usize, u64);

/// A message that not everybody has yet.
struct Flight {
    room: usize,
    sent: u64,
    acknowledged: bool,
    /// Until it is acknowledged: who has it. Then: who must still hear it.
    members: HashSet<usize>,
}

/// Keeps the books of one soak. Time is the order in which things happened.
#[derive(Default)]
pub struct Judge {
    now: u64,
    /// Who surely is in a room, since when.
    rooms: HashMap<usize, HashMap<usize, u64>>,
    /// Who was ever in a room, or asked to be; and since when it surely is not.
    places: HashMap<(usize, usize), Option<u64>>,
    /// All that was said: in which room, and when.
    told: HashMap<Name, (usize, u64)>,
    flights: HashMap<Name, Flight>,
    /// Messages of a room that a member must still hear.
    owed: HashMap<(usize, usize), u64>,
    /// The last that somebody has heard of somebody.
    last: HashMap<(usize, usize), u64>,
    pub acknowledged: u64,
    pub delivered: u64,
    /// The first few, in words.
    pub faults: Vec<String>,
    pub fault_count: u64,
}

const FAULTS_TOLD: usize = 10;

impl Judge {
    fn fault(&mut self, words: impl FnOnce() -> String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_TOLD {
            self.faults.push(words());
        }
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    pub fn joins(&mut self, member: usize, room: usize) {
        self.places.insert((member, room), None);
    }

    pub fn joined(&mut self, member: usize, room: usize) {
        let now = self.tick();
        self.rooms.entry(room).or_default().insert(member, now);
        self.places.insert((member, room), None);
    }

    /// True unless there is something that it must hear first: leaving overtakes what other workers
    /// have said already.
    pub fn may_leave(&self, member: usize, room: usize) -> bool {
        !self.owed.contains_key(&(member, room))
    }

    pub fn leaves(&mut self, member: usize, room: usize) {
        self.rooms.entry(room).or_default().remove(&member);
    }

    pub fn has_left(&mut self, member: usize, room: usize) {
        let now = self.tick();
        self.places.insert((member, room), Some(now));
    }

    pub fn says(&mut self, member: usize, number: u64, room: usize) {
        let sent = self.tick();
        let flight = Flight { room, sent, acknowledged: false, members: HashSet::new() };
        self.flights.insert((member, number), flight);
        self.told.insert((member, number), (room, sent));
    }

    /// Nobody knows whether it was heard: its acknowledgement was lost with the connection.
    pub fn is_unsure(&mut self, member: usize, number: u64) {
        self.flights.remove(&(member, number));
    }

    pub fn said(&mut self, member: usize, number: u64) {
        self.acknowledged += 1;
        let Some(flight) = self.flights.get_mut(&(member, number)) else { return };
        let inside = self.rooms.get(&flight.room).into_iter().flatten();
        let meant = inside.filter(|(other, since)| **other != member && **since < flight.sent);
        let missing: HashSet<usize> = meant
            .map(|(other, _)| *other)
            .filter(|other| !flight.members.contains(other))
            .collect();
        for other in &missing {
            *self.owed.entry((*other, flight.room)).or_default() += 1;
        }
        flight.acknowledged = true;
        flight.members = missing;
        if flight.members.is_empty() {
            self.flights.remove(&(member, number));
        }
    }

    pub fn hears(&mut self, member: usize, by: usize, number: u64) {
        self.delivered += 1;
        let last = self.last.insert((member, by), number);
        if let Some(last) = last.filter(|last| *last >= number) {
            self.fault(|| format!("{member} heard {by}'s {number} after {last}"));
        }
        // Also of what everybody has who must have it.
        let Some((room, sent)) = self.told.get(&(by, number)).copied() else {
            return self.fault(|| format!("{member} heard {by}'s {number}, which was never said"));
        };
        let place = self.places.get(&(member, room));
        if member == by || place.is_none_or(|left| left.is_some_and(|since| since < sent)) {
            return self.fault(|| format!("{member} heard {by}'s {number}, and is not in {room}"));
        }
        let Some(flight) = self.flights.get_mut(&(by, number)) else { return };
        if !flight.acknowledged {
            flight.members.insert(member);
        } else if flight.members.remove(&member) {
            if flight.members.is_empty() {
                self.flights.remove(&(by, number));
            }
            if let Some(owed) = self.owed.get_mut(&(member, room)) {
                *owed -= 1;
                if *owed == 0 {
                    self.owed.remove(&(member, room));
                }
            }
        }
    }

    pub fn begins_anew(&mut self, member: usize) {
        self.fault(|| format!("{member} came back and was somebody else"));
    }

    /// Nothing is on its way any more.
    pub fn is_settled(&self) -> bool {
        self.flights.is_empty()
    }

    /// What is still on its way now is lost.
    pub fn close(&mut self) {
        let flights = std::mem::take(&mut self.flights);
        let names: BTreeSet<Name> = flights.keys().copied().collect();
        for name in names {
            let Some(flight) = flights.get(&name) else { continue };
            let (by, number) = name;
            if flight.acknowledged {
                let who: BTreeSet<_> = flight.members.iter().collect();
                self.fault(|| format!("{who:?} never heard {by}'s {number} in {}", flight.room));
            } else {
                self.fault(|| format!("{by}'s {number} was never acknowledged"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two members of room 7.
    fn room() -> Judge {
        let mut judge = Judge::default();
        judge.joined(1, 7);
        judge.joined(2, 7);
        judge
    }

    #[test]
    fn what_was_heard_once_in_order_is_right() {
        let mut judge = room();
        for number in 0..3 {
            judge.says(1, number, 7);
        }
        judge.hears(2, 1, 0);
        (0..3).for_each(|number| judge.said(1, number));
        assert!(!judge.is_settled() && !judge.may_leave(2, 7));
        judge.hears(2, 1, 1);
        judge.hears(2, 1, 2);
        assert!(judge.is_settled() && judge.may_leave(2, 7));
        judge.close();
        assert_eq!(judge.fault_count, 0, "{:?}", judge.faults);
    }

    #[test]
    fn who_is_on_the_way_in_or_out_may_hear_it() {
        let mut judge = room();
        judge.joins(3, 7);
        judge.leaves(2, 7);
        judge.says(1, 0, 7);
        judge.hears(2, 1, 0);
        judge.hears(3, 1, 0);
        judge.said(1, 0);
        judge.says(1, 1, 7);
        judge.has_left(2, 7);
        judge.hears(2, 1, 1);
        judge.said(1, 1);
        judge.close();
        assert_eq!(judge.fault_count, 0, "{:?}", judge.faults);
    }

    #[test]
    fn faults_are_seen() {
        type Deed = fn(&mut Judge);
        let table: [(&str, Deed); 9] = [
            ("lost", |judge| judge.said(1, 0)),
            ("twice", |judge| {
                judge.hears(2, 1, 0);
                judge.said(1, 0);
                judge.hears(2, 1, 0);
            }),
            ("out of order", |judge| {
                judge.says(1, 1, 7);
                judge.hears(2, 1, 1);
                judge.hears(2, 1, 0);
                judge.said(1, 0);
                judge.said(1, 1);
            }),
            ("no member", |judge| {
                judge.is_unsure(1, 0);
                judge.leaves(2, 7);
                judge.has_left(2, 7);
                judge.says(1, 1, 7);
                judge.hears(2, 1, 1);
                judge.said(1, 1);
            }),
            ("a stranger, when all had it", |judge| {
                judge.hears(2, 1, 0);
                judge.said(1, 0);
                judge.hears(3, 1, 0);
            }),
            ("no member, and nobody else is", |judge| {
                judge.is_unsure(1, 0);
                judge.leaves(2, 7);
                judge.has_left(2, 7);
                judge.says(1, 1, 7);
                judge.said(1, 1);
                judge.hears(2, 1, 1);
            }),
            ("who said it", |judge| {
                judge.is_unsure(1, 0);
                judge.hears(1, 1, 0);
            }),
            ("what nobody said", |judge| {
                judge.is_unsure(1, 0);
                judge.hears(2, 1, 3);
            }),
            ("never acknowledged", |_| {}),
        ];
        for (name, deed) in table {
            let mut judge = room();
            judge.says(1, 0, 7);
            deed(&mut judge);
            judge.close();
            assert_eq!(judge.fault_count, 1, "{name}: {:?}", judge.faults);
        }
    }
}
