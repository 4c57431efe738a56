//! Who is in the watched rooms that one worker keeps, and what of it their members do not know yet;
//! pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use super::engine::Id;

/// Rooms by namespace and name.
#[derive(Default)]
pub struct Crowds {
    by_namespace: HashMap<Arc<str>, HashMap<Arc<str>, Crowd>>,
    /// Rooms whose members are to be told, in the order in which something happened.
    changed: VecDeque<(Arc<str>, Arc<str>)>,
}

/// Where somebody is: one that has moved is on both sides for a moment.
#[derive(Debug, Clone, Copy)]
pub enum Side {
    Here,
    /// On another node.
    Far,
}

/// What somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// With its user, where the namespace wants to know.
    Came(Option<User>),
    Went,
}

/// Whose a socket is, where its namespace wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Among the users of all providers.
    pub number: u64,
    pub id: Arc<str>,
}

/// Somebody in a room; how often.
#[derive(Default)]
struct Member {
    /// How often it has come more than it has left. A socket that goes on on another worker may be
    /// heard of there before its old one is heard to have left: then this is 2 for a moment.
    here: u32,
    is_far: bool,
    user: Option<User>,
}

impl Member {
    fn is_there(&self) -> bool {
        self.here > 0 || self.is_far
    }
}

/// Everybody in one room, on whatever worker or node.
#[derive(Default)]
struct Crowd {
    members: BTreeMap<Id, Member>,
    /// Users, and how many of the members each is.
    users: HashMap<u64, u32>,
    /// Since the members were told. Who came and went meanwhile is in neither.
    joined: BTreeSet<Id>,
    left: BTreeMap<Id, Option<User>>,
    is_listed: bool,
}

/// What the members of one room are told.
#[derive(Debug)]
pub struct Change {
    pub namespace: Arc<str>,
    pub room: Arc<str>,
    /// The event as an array.
    pub data: String,
}

/// Names in one message. More only show in the count: all told of all would be n² when a crowd
/// comes at once.
const NAMED: usize = 50;
/// Names in an answer.
const LISTED: usize = 100;

impl Crowds {
    /// Somebody came or went. True if there was nothing to tell before.
    pub fn take(
        &mut self,
        namespace: &Arc<str>,
        room: &Arc<str>,
        id: Id,
        step: Step,
        side: Side,
    ) -> bool {
        let crowds = self.by_namespace.entry(Arc::clone(namespace)).or_default();
        let crowd = crowds.entry(Arc::clone(room)).or_default();
        crowd.take(id, step, side);
        if crowd.is_listed {
            return false;
        }
        crowd.is_listed = true;
        self.changed.push_back((Arc::clone(namespace), Arc::clone(room)));
        self.changed.len() == 1
    }

    /// The next room whose members are to be told. Rooms that nobody is left in are forgotten.
    pub fn next_change(&mut self) -> Option<Change> {
        while let Some((namespace, room)) = self.changed.pop_front() {
            let Some(crowds) = self.by_namespace.get_mut(&namespace) else { continue };
            let Some(crowd) = crowds.get_mut(&room) else { continue };
            crowd.is_listed = false;
            let data = crowd.tell(&room);
            if crowd.members.is_empty() {
                crowds.remove(&room);
                shrink(crowds);
                if crowds.is_empty() {
                    self.by_namespace.remove(&namespace);
                    shrink(&mut self.by_namespace);
                }
            } else if let Some(data) = data {
                return Some(Change { namespace, room, data });
            }
        }
        self.changed.shrink_to(NAMED);
        None
    }

    /// Who is in the room, as the data of an acknowledgement.
    pub fn list(&self, namespace: &str, room: &str) -> String {
        let crowd = self.by_namespace.get(namespace).and_then(|crowds| crowds.get(room));
        let nobody = Crowd::default();
        let crowd = crowd.unwrap_or(&nobody);
        let (count, more) = (crowd.members.len(), crowd.members.len() > LISTED);
        let (room, users) = (serde_json::Value::from(room), crowd.users());
        let members = shown(crowd.members.iter().map(|(id, one)| (id, one.user.as_ref())), LISTED);
        format!(
            r#"[{{"ok":true,"room":{room},"count":{count},"users":{users},"members":{members},"more":{more}}}]"#
        )
    }
}

impl Crowd {
    /// Workers are heard each in its order, and in any order among each other. Each has told as often
    /// of a socket that it left as of one that it came, or once less: so the sum is right whatever
    /// comes first. Of other nodes it is only told whether it is on any.
    fn take(&mut self, id: Id, step: Step, side: Side) {
        let member = self.members.entry(id).or_default();
        let before = member.is_there();
        let is_here = matches!(step, Step::Came(_));
        match (side, is_here) {
            (Side::Here, true) => member.here += 1,
            (Side::Here, false) => member.here = member.here.saturating_sub(1),
            (Side::Far, _) => member.is_far = is_here,
        }
        let after = member.is_there();
        if let Step::Came(user) = step
            && !before
        {
            user.iter().for_each(|user| *self.users.entry(user.number).or_default() += 1);
            member.user = user;
        }
        if !before && after {
            if self.left.remove(&id).is_none() {
                self.joined.insert(id);
            }
        } else if !after {
            let user = self.members.remove(&id).and_then(|member| member.user);
            user.iter().for_each(|user| self.forget(user.number));
            if before && !self.joined.remove(&id) {
                self.left.insert(id, user);
            }
        }
    }

    fn forget(&mut self, user: u64) {
        if let Some(count) = self.users.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&user);
                shrink(&mut self.users);
            }
        }
    }

    /// How many users the members are, as JSON.
    fn users(&self) -> serde_json::Value {
        let count = self.users.len();
        if count == 0 { serde_json::Value::Null } else { count.into() }
    }

    /// The event that says what has happened since the last one; `None` if nothing has.
    fn tell(&mut self, room: &str) -> Option<String> {
        let (joined, left) = (std::mem::take(&mut self.joined), std::mem::take(&mut self.left));
        if joined.is_empty() && left.is_empty() {
            return None;
        }
        let (count, more) = (self.members.len(), joined.len().max(left.len()) > NAMED);
        let user = |id| self.members.get(id).and_then(|member| member.user.as_ref());
        let joined = shown(joined.iter().map(|id| (id, user(id))), NAMED);
        let left = shown(left.iter().map(|(id, user)| (id, user.as_ref())), NAMED);
        let (room, users) = (serde_json::Value::from(room), self.users());
        Some(format!(
            r#"["presence",{{"room":{room},"count":{count},"users":{users},"joined":{joined},"left":{left},"more":{more}}}]"#
        ))
    }
}

/// What a crowd needed goes when it has left.
fn shrink<K: Eq + Hash, T>(map: &mut HashMap<K, T>) {
    let left = map.len();
    if left == 0 || left.is_power_of_two() {
        map.shrink_to(left * 2);
    }
}

/// The first of them as JSON. Nobody is identified where everybody may connect.
fn shown<'a>(those: impl Iterator<Item = (&'a Id, Option<&'a User>)>, most: usize) -> String {
    let one = |(id, user): (&Id, Option<&User>)| {
        let user = user.map_or(serde_json::Value::Null, |user| (*user.id).into());
        format!(r#"{{"id":"{id}","user":{user}}}"#)
    };
    let those: Vec<String> = those.take(most).map(one).collect();
    format!("[{}]", those.join(","))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn id(number: usize) -> Id {
        Id::parse(&format!("{number:020}")).expect("20 digits")
    }

    fn step(is_here: bool) -> Step {
        if is_here { Step::Came(None) } else { Step::Went }
    }

    fn came(user: &str) -> Step {
        let number = user.bytes().map(u64::from).sum();
        Step::Came(Some(User { number, id: user.into() }))
    }

    fn names() -> (Arc<str>, Arc<str>) {
        ("/".into(), "a".into())
    }

    fn next(crowds: &mut Crowds) -> Option<Value> {
        crowds.next_change().map(|change| serde_json::from_str(&change.data).expect("JSON"))
    }

    #[test]
    fn what_happened_is_told_once_and_together() {
        let ((namespace, room), mut crowds) = (names(), Crowds::default());
        assert!(crowds.take(&namespace, &room, id(1), step(true), Side::Here));
        assert!(!crowds.take(&namespace, &room, id(2), step(true), Side::Here));
        crowds.take(&namespace, &room, id(1), step(false), Side::Here);
        let told = next(&mut crowds);
        let member = json!([{ "id": id(2).as_str(), "user": null }]);
        let words = json!({ "room": "a", "count": 1, "users": null, "joined": member, "left": [], "more": false });
        assert_eq!(told, Some(json!(["presence", words])));
        assert_eq!(next(&mut crowds), None);
        // Away and back again is nothing to speak of.
        assert!(crowds.take(&namespace, &room, id(2), step(false), Side::Here));
        crowds.take(&namespace, &room, id(2), step(true), Side::Here);
        assert_eq!(next(&mut crowds), None);
        // Nobody is left to be told.
        crowds.take(&namespace, &room, id(2), step(false), Side::Here);
        assert_eq!(next(&mut crowds), None);
        assert!(crowds.by_namespace.is_empty());
    }

    #[test]
    fn who_moves_to_another_node_has_not_left() {
        let ((namespace, room), mut crowds) = (names(), Crowds::default());
        crowds.take(&namespace, &room, id(1), step(true), Side::Here);
        assert!(next(&mut crowds).is_some());
        crowds.take(&namespace, &room, id(1), step(true), Side::Far);
        crowds.take(&namespace, &room, id(1), step(false), Side::Here);
        assert_eq!(next(&mut crowds), None);
        crowds.take(&namespace, &room, id(2), step(true), Side::Here);
        crowds.take(&namespace, &room, id(1), step(false), Side::Far);
        let told = next(&mut crowds).expect("a change");
        assert_eq!(
            (&told[1]["count"], &told[1]["left"][0]["id"]),
            (&json!(1), &json!(id(1).as_str()))
        );
    }

    #[test]
    fn users_are_counted_however_many_sockets_they_have() {
        let ((namespace, room), mut crowds) = (names(), Crowds::default());
        for (number, user) in [(1, "anna"), (2, "anna"), (3, "b\"ob")] {
            crowds.take(&namespace, &room, id(number), came(user), Side::Here);
        }
        let told = next(&mut crowds).expect("a change");
        assert_eq!((&told[1]["count"], &told[1]["users"]), (&json!(3), &json!(2)));
        let joined = told[1]["joined"].as_array().expect("a list").iter();
        let users: Vec<_> = joined.map(|one| one["user"].clone()).collect();
        assert_eq!(users, ["anna", "anna", "b\"ob"]);
        // On two nodes for a moment, and told of twice.
        crowds.take(&namespace, &room, id(2), came("anna"), Side::Far);
        crowds.take(&namespace, &room, id(2), Step::Went, Side::Here);
        crowds.take(&namespace, &room, id(3), Step::Went, Side::Here);
        let told = next(&mut crowds).expect("a change");
        assert_eq!((&told[1]["count"], &told[1]["users"]), (&json!(2), &json!(1)));
        assert_eq!(told[1]["left"], json!([{ "id": id(3).as_str(), "user": "b\"ob" }]));
        crowds.take(&namespace, &room, id(1), Step::Went, Side::Here);
        let list: Value = serde_json::from_str(&crowds.list("/", "a")).expect("JSON");
        let members = json!([{ "id": id(2).as_str(), "user": "anna" }]);
        assert_eq!((&list[0]["users"], &list[0]["members"]), (&json!(1), &members));
        crowds.take(&namespace, &room, id(2), Step::Went, Side::Far);
        assert_eq!(next(&mut crowds), None);
        assert!(crowds.by_namespace.is_empty());
    }

    #[test]
    fn a_crowd_is_counted_not_named() {
        let ((namespace, room), mut crowds) = (names(), Crowds::default());
        for number in 0..1000 {
            crowds.take(&namespace, &room, id(number), step(true), Side::Here);
        }
        let told = next(&mut crowds).expect("a change");
        assert_eq!((&told[1]["count"], &told[1]["more"]), (&json!(1000), &json!(true)));
        assert_eq!(told[1]["joined"].as_array().map(Vec::len), Some(NAMED));
        let list: Value = serde_json::from_str(&crowds.list("/", "a")).expect("JSON");
        assert_eq!((&list[0]["count"], &list[0]["more"]), (&json!(1000), &json!(true)));
        assert_eq!(list[0]["members"].as_array().map(Vec::len), Some(LISTED));
        let nobody = crowds.list("/", "\"b");
        let wanted =
            r#"[{"ok":true,"room":"\"b","count":0,"users":null,"members":[],"more":false}]"#;
        assert_eq!(nobody, wanted);
    }

    #[test]
    fn who_goes_on_elsewhere_is_here_whoever_is_heard_first() {
        for old_first in [true, false] {
            let ((namespace, room), mut crowds) = (names(), Crowds::default());
            crowds.take(&namespace, &room, id(1), step(true), Side::Here);
            assert!(next(&mut crowds).is_some());
            for is_here in [!old_first, old_first] {
                crowds.take(&namespace, &room, id(1), step(is_here), Side::Here);
            }
            assert_eq!(next(&mut crowds), None);
            assert!(crowds.list("/", "a").contains("\"count\":1,"), "{old_first}");
        }
    }

    /// Sockets that move between the workers of a process, and the worker that keeps their room.
    struct World {
        /// Where each socket is, and whether it is in the room.
        sockets: Vec<(usize, bool)>,
        /// What the keeper has not heard yet of each worker.
        lines: Vec<VecDeque<(Id, bool)>>,
        crowds: Crowds,
        /// What a member knows that has been told everything.
        known: BTreeSet<Id>,
    }

    impl World {
        const WORKERS: usize = 4;

        fn new() -> Self {
            let lines = (0..Self::WORKERS).map(|_| VecDeque::new()).collect();
            let sockets = (0..5).map(|number| (number % Self::WORKERS, false)).collect();
            Self { sockets, lines, crowds: Crowds::default(), known: BTreeSet::new() }
        }

        /// Joins the room or leaves it.
        fn turn(&mut self, socket: usize, is_here: bool) {
            let (worker, was_here) = &mut self.sockets[socket];
            if std::mem::replace(was_here, is_here) != is_here {
                self.lines[*worker].push_back((id(socket), is_here));
            }
        }

        /// Is cut off, and goes on on another worker in the rooms that it was in.
        fn go_on(&mut self, socket: usize, worker: usize) {
            let was_here = self.sockets[socket].1;
            self.turn(socket, false);
            self.sockets[socket].0 = worker;
            self.turn(socket, was_here);
        }

        fn hear(&mut self, worker: usize) {
            let (namespace, room) = names();
            if let Some((id, is_here)) = self.lines[worker].pop_front() {
                self.crowds.take(&namespace, &room, id, step(is_here), Side::Here);
            }
        }

        /// Nobody is said to come who was here, or to go who was not.
        fn tell(&mut self) {
            let Some(told) = next(&mut self.crowds) else { return };
            for gone in ids(&told, "left") {
                assert!(self.known.remove(&gone), "{gone} left");
            }
            for come in ids(&told, "joined") {
                assert!(self.known.insert(come), "{come} joined");
            }
            assert_eq!(told[1]["count"], self.known.len());
        }
    }

    fn ids(told: &Value, field: &str) -> Vec<Id> {
        let ids = told[1][field].as_array().expect("a list").iter();
        ids.filter_map(|id| Id::parse(id["id"].as_str()?)).collect()
    }

    proptest! {
        #[test]
        fn the_crowd_is_right_once_all_is_heard(
            steps in proptest::collection::vec((0u8..6, 0usize..5, 0usize..World::WORKERS), 0..200),
        ) {
            let mut world = World::new();
            // Somebody stays, or nobody would be told.
            world.turn(4, true);
            world.hear(0);
            for (step, socket, worker) in steps {
                match step {
                    0 => world.turn(socket % 4, true),
                    1 => world.turn(socket % 4, false),
                    2 | 3 => world.go_on(socket % 4, worker),
                    4 => world.hear(worker),
                    _ => world.tell(),
                }
            }
            for worker in 0..World::WORKERS {
                while !world.lines[worker].is_empty() {
                    world.hear(worker);
                }
            }
            world.tell();
            let here = (0..).zip(&world.sockets).filter(|(_, (_, is_here))| *is_here);
            let here: BTreeSet<Id> = here.map(|(number, _)| id(number)).collect();
            prop_assert_eq!(&world.known, &here);
            let count = format!("\"count\":{},", here.len());
            prop_assert!(world.crowds.list("/", "a").contains(&count));
        }

        #[test]
        fn whoever_is_told_knows_all(steps in proptest::collection::vec((0usize..6, any::<bool>(), any::<bool>()), 0..100)) {
            let ((namespace, room), mut crowds) = (names(), Crowds::default());
            let (mut model, mut known) = (BTreeSet::new(), BTreeSet::new());
            for (number, is_here, look) in steps {
                let moved =
                    if is_here { model.insert(id(number)) } else { model.remove(&id(number)) };
                if moved {
                    crowds.take(&namespace, &room, id(number), step(is_here), Side::Here);
                }
                if !look {
                    continue;
                }
                let Some(told) = next(&mut crowds) else {
                    prop_assert!(model.is_empty() || known == model);
                    known.clone_from(&model);
                    continue;
                };
                ids(&told, "left").iter().for_each(|id| assert!(known.remove(id), "{id} left"));
                let come = ids(&told, "joined").into_iter();
                come.for_each(|id| assert!(known.insert(id), "{id} joined"));
                prop_assert_eq!(&known, &model);
                prop_assert_eq!(&told[1]["count"], &json!(model.len()));
            }
        }
    }
}
