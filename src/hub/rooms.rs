//! Who is in which room; pure.
//!
//! Both directions are kept and joined by position, so that joining, leaving and going from one to
//! the other take constant time whatever the crowd.

use std::collections::HashMap;
use std::rc::Rc;

use slab::Slab;

/// The rooms of one namespace on one worker. Members are numbers, given anew after they are free.
#[derive(Default)]
pub struct Rooms {
    rooms: Slab<Room>,
    by_name: HashMap<Rc<str>, usize>,
    /// By member: the rooms it is in.
    stays: Vec<Vec<Stay>>,
}

struct Room {
    name: Rc<str>,
    seats: Vec<Seat>,
}

/// A member in a room's list, and where that stands in the member's own list.
#[derive(Clone, Copy)]
struct Seat {
    member: u32,
    stay: u32,
}

/// The same from the other side.
#[derive(Clone, Copy)]
struct Stay {
    room: u32,
    seat: u32,
}

fn small(number: usize) -> u32 {
    u32::try_from(number).expect("fewer than 2^32 rooms and members fit into memory")
}

impl Rooms {
    /// False if the member was there already.
    pub fn join(&mut self, member: u32, name: &str) -> bool {
        if self.is_member(member, name) {
            return false;
        }
        let room = match self.by_name.get(name) {
            Some(room) => *room,
            None => {
                let name: Rc<str> = name.into();
                let room = self.rooms.insert(Room { name: Rc::clone(&name), seats: Vec::new() });
                self.by_name.insert(name, room);
                room
            }
        };
        if self.stays.len() <= member as usize {
            self.stays.resize_with(member as usize + 1, Vec::new);
        }
        let (Some(seats), Some(stays)) =
            (self.rooms.get_mut(room), self.stays.get_mut(member as usize))
        else {
            return false;
        };
        let seat = Seat { member, stay: small(stays.len()) };
        stays.push(Stay { room: small(room), seat: small(seats.seats.len()) });
        seats.seats.push(seat);
        true
    }

    /// False if the member was not there.
    pub fn leave(&mut self, member: u32, name: &str) -> bool {
        let Some(room) = self.by_name.get(name).copied() else { return false };
        let stays = self.stays.get(member as usize).map(Vec::as_slice).unwrap_or_default();
        let Some(stay) = stays.iter().position(|stay| stay.room as usize == room) else {
            return false;
        };
        self.end_stay(member, stay);
        true
    }

    /// Takes the member out of every room.
    pub fn leave_all(&mut self, member: u32) {
        while let Some(last) =
            self.stays.get(member as usize).and_then(|stays| stays.len().checked_sub(1))
        {
            self.end_stay(member, last);
        }
        if let Some(stays) = self.stays.get_mut(member as usize) {
            *stays = Vec::new();
        }
        while self.stays.pop_if(|last| last.is_empty()).is_some() {}
        if self.stays.is_empty() || self.stays.len().is_power_of_two() {
            // What a crowd needed goes when it has left.
            self.stays.shrink_to(self.stays.len() * 2);
        }
    }

    /// Removes one stay; what moves into its places is told of its new position.
    fn end_stay(&mut self, member: u32, stay: usize) {
        let Some(stays) = self.stays.get_mut(member as usize) else { return };
        let Stay { room, seat } = stays.swap_remove(stay);
        if let Some(moved) = stays.get(stay) {
            let seats = self.rooms.get_mut(moved.room as usize).map(|room| &mut room.seats);
            if let Some(seat) = seats.and_then(|seats| seats.get_mut(moved.seat as usize)) {
                seat.stay = small(stay);
            }
        }
        let Some(left) = self.rooms.get_mut(room as usize) else { return };
        left.seats.swap_remove(seat as usize);
        if let Some(moved) = left.seats.get(seat as usize).copied() {
            let stays = self.stays.get_mut(moved.member as usize);
            if let Some(stay) = stays.and_then(|stays| stays.get_mut(moved.stay as usize)) {
                stay.seat = seat;
            }
        }
        if left.seats.is_empty() {
            let gone = self.rooms.remove(room as usize);
            self.by_name.remove(&gone.name);
            let left = self.rooms.len();
            if left == 0 || left.is_power_of_two() {
                // What many rooms needed goes when they have.
                self.rooms.shrink_to_fit();
                self.by_name.shrink_to(left * 2);
            }
        } else if left.seats.capacity() > 64 && left.seats.len() < left.seats.capacity() / 4 {
            left.seats.shrink_to(left.seats.len() * 2);
        }
    }

    pub fn is_member(&self, member: u32, name: &str) -> bool {
        let Some(room) = self.by_name.get(name) else { return false };
        self.stays_of(member).iter().any(|stay| stay.room as usize == *room)
    }

    pub fn members(&self, name: &str) -> impl Iterator<Item = u32> {
        let room = self.by_name.get(name).and_then(|room| self.rooms.get(*room));
        room.into_iter().flat_map(|room| &room.seats).map(|seat| seat.member)
    }

    /// How many members the room has.
    pub fn size(&self, name: &str) -> usize {
        let room = self.by_name.get(name).and_then(|room| self.rooms.get(*room));
        room.map_or(0, |room| room.seats.len())
    }

    /// Every room and how many members it has.
    pub fn all(&self) -> impl Iterator<Item = (&str, usize)> {
        self.rooms.iter().map(|(_, room)| (room.name.as_ref(), room.seats.len()))
    }

    /// The rooms that the member is in.
    pub fn of(&self, member: u32) -> impl Iterator<Item = &str> {
        let rooms =
            self.stays_of(member).iter().filter_map(|stay| self.rooms.get(stay.room as usize));
        rooms.map(|room| room.name.as_ref())
    }

    /// How many rooms the member is in.
    pub fn count_of(&self, member: u32) -> usize {
        self.stays_of(member).len()
    }

    fn stays_of(&self, member: u32) -> &[Stay] {
        self.stays.get(member as usize).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_what_a_map_of_sets_is(steps in proptest::collection::vec((0u8..3, 0u32..6, 0usize..4), 0..200)) {
            let names = ["a", "b", "c", "d"];
            let mut rooms = Rooms::default();
            let mut model: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
            for (step, member, name) in steps {
                let name = names[name];
                match step {
                    0 => prop_assert_eq!(rooms.join(member, name), model.entry(name).or_default().insert(member)),
                    1 => prop_assert_eq!(rooms.leave(member, name), model.entry(name).or_default().remove(&member)),
                    _ => {
                        rooms.leave_all(member);
                        model.values_mut().for_each(|members| { members.remove(&member); });
                    }
                }
                for name in names {
                    let members: BTreeSet<u32> = rooms.members(name).collect();
                    prop_assert_eq!(&members, &model.entry(name).or_default().clone());
                    prop_assert_eq!(members.len(), rooms.members(name).count());
                    prop_assert_eq!(members.len(), rooms.size(name));
                }
                for member in 0..6 {
                    let inside = model.values().filter(|members| members.contains(&member)).count();
                    prop_assert_eq!(rooms.count_of(member), inside);
                    prop_assert!(rooms.of(member).all(|name| rooms.is_member(member, name)));
                    prop_assert_eq!(rooms.of(member).count(), inside);
                }
                prop_assert_eq!(rooms.rooms.len(), model.values().filter(|members| !members.is_empty()).count());
                prop_assert_eq!(rooms.by_name.len(), rooms.rooms.len());
                let sizes: usize = rooms.all().map(|(_, size)| size).sum();
                prop_assert_eq!(sizes, model.values().map(BTreeSet::len).sum::<usize>());
            }
        }
    }
}
