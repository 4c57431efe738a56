//! How many different users are where, on all workers of the process.
//!
//! Each socket of somebody who is known is noted as it comes and goes, so the number is there when it
//! is asked for, however many sockets there are.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

/// Of all namespaces, by their names.
#[derive(Default)]
pub struct Attendances(Mutex<HashMap<Box<str>, Arc<Attendance>>>);

impl Attendances {
    /// Kept for as long as anybody has it.
    pub fn of(&self, namespace: &str) -> Arc<Attendance> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|name, known| &**name == namespace || Arc::strong_count(known) > 1);
        Arc::clone(all.entry(namespace.into()).or_default())
    }
}

/// Of one namespace.
#[derive(Default)]
pub struct Attendance {
    here: Mutex<Users>,
    /// In parts, by the room's name, so that workers seldom wait for each other.
    rooms: [Mutex<HashMap<Box<str>, Users>>; PARTS],
}

const PARTS: usize = 16;

/// Users by their numbers, and how many sockets each has there.
type Users = HashMap<u64, u32>;

impl Attendance {
    /// A socket of the user has come into the room, or into the namespace; or has gone.
    pub fn note(&self, room: Option<&str>, user: u64, is_here: bool) {
        let Some(room) = room else {
            let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
            return step(&mut here, user, is_here);
        };
        let mut rooms = self.part(room).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(users) = rooms.get_mut(room) {
            step(users, user, is_here);
            if users.is_empty() {
                rooms.remove(room);
                give_back(&mut rooms);
            }
        } else if is_here {
            rooms.insert(room.into(), Users::from([(user, 1)]));
        }
    }

    /// How many different users are there.
    pub fn count(&self, room: Option<&str>) -> usize {
        self.look(room, Users::len)
    }

    /// Who is there, by their numbers.
    pub fn all(&self, room: Option<&str>) -> BTreeSet<u64> {
        self.look(room, |users| users.keys().copied().collect())
    }

    /// How many of these are not there.
    pub fn strangers<'a>(&self, room: Option<&str>, users: impl Iterator<Item = &'a u64>) -> usize {
        self.look(room, |here| users.filter(|user| !here.contains_key(user)).count())
    }

    fn look<T>(&self, room: Option<&str>, look: impl FnOnce(&Users) -> T) -> T {
        let Some(room) = room else {
            return look(&self.here.lock().unwrap_or_else(PoisonError::into_inner));
        };
        let rooms = self.part(room).lock().unwrap_or_else(PoisonError::into_inner);
        match rooms.get(room) {
            Some(users) => look(users),
            None => look(&Users::new()),
        }
    }

    fn part(&self, room: &str) -> &Mutex<HashMap<Box<str>, Users>> {
        let mut hasher = DefaultHasher::new();
        room.hash(&mut hasher);
        let [first, ..] = hasher.finish().to_le_bytes();
        let [zeroth, ..] = &self.rooms;
        self.rooms.get(usize::from(first) % PARTS).unwrap_or(zeroth)
    }
}

fn step(users: &mut Users, user: u64, is_here: bool) {
    let sockets = users.entry(user).or_default();
    *sockets = if is_here { sockets.saturating_add(1) } else { sockets.saturating_sub(1) };
    if *sockets == 0 {
        users.remove(&user);
        give_back(users);
    }
}

/// What a crowd needed goes when it has left.
fn give_back<K: Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>) {
    let left = map.len();
    if left == 0 || left.is_power_of_two() {
        map.shrink_to(left * 2);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_goes_with_the_last_namespace_of_its_name() {
        let all = Attendances::default();
        let (one, two) = (all.of("/a"), all.of("/a"));
        one.note(None, 7, true);
        assert_eq!(two.count(None), 1);
        drop((one, two));
        drop(all.of("/b"));
        assert_eq!(all.of("/a").count(None), 0);
    }

    proptest! {
        #[test]
        fn it_is_what_a_list_of_sockets_is(
            steps in proptest::collection::vec((0usize..12, 0usize..4), 0..120),
        ) {
            let rooms = [None, Some("a"), Some("b"), Some("")];
            let attendance = Attendance::default();
            // Socket and room; two sockets of each user.
            let mut there: HashSet<(usize, usize)> = HashSet::new();
            for (socket, room) in steps {
                let is_here = there.insert((socket, room)) || !there.remove(&(socket, room));
                attendance.note(rooms[room], socket as u64 / 2, is_here);
            }
            for (index, room) in rooms.iter().enumerate() {
                let inside = there.iter().filter(|(_, at)| *at == index);
                let users: HashSet<u64> = inside.map(|(socket, _)| *socket as u64 / 2).collect();
                prop_assert_eq!(attendance.count(*room), users.len());
                let all: Vec<u64> = (0..6).collect();
                prop_assert_eq!(attendance.strangers(*room, all.iter()), 6 - users.len());
            }
            there.iter().for_each(|(socket, room)| attendance.note(rooms[*room], *socket as u64 / 2, false));
            for part in &attendance.rooms {
                let part = part.lock().expect("whole");
                prop_assert_eq!((part.len(), part.capacity()), (0, 0));
            }
        }
    }
}
