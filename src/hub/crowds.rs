//! Who is in the watched rooms that one worker keeps, and what of it their members do not know yet;
//! pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
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
    Here = 1,
    /// On another node.
    Far = 2,
}

/// Everybody in one room, on whatever worker or node.
#[derive(Default)]
struct Crowd {
    members: BTreeMap<Id, u8>,
    /// Since the members were told. Who came and went meanwhile is in neither.
    joined: BTreeSet<Id>,
    left: BTreeSet<Id>,
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
        is_here: bool,
        side: Side,
    ) -> bool {
        let crowds = self.by_namespace.entry(Arc::clone(namespace)).or_default();
        let crowd = crowds.entry(Arc::clone(room)).or_default();
        crowd.take(id, is_here, side);
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
                if crowds.is_empty() {
                    self.by_namespace.remove(&namespace);
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
        let count = crowd.map_or(0, |crowd| crowd.members.len());
        let members = crowd.into_iter().flat_map(|crowd| crowd.members.keys());
        let (more, room) = (count > LISTED, serde_json::Value::from(room));
        let members = shown(members, LISTED);
        format!(
            r#"[{{"ok":true,"room":{room},"count":{count},"users":null,"members":{members},"more":{more}}}]"#
        )
    }
}

impl Crowd {
    fn take(&mut self, id: Id, is_here: bool, side: Side) {
        let sides = self.members.entry(id).or_default();
        let before = *sides;
        *sides = if is_here { before | side as u8 } else { before & !(side as u8) };
        let after = *sides;
        if after == 0 {
            self.members.remove(&id);
        }
        if before == 0 && after != 0 {
            if !self.left.remove(&id) {
                self.joined.insert(id);
            }
        } else if before != 0 && after == 0 && !self.joined.remove(&id) {
            self.left.insert(id);
        }
    }

    /// The event that says what has happened since the last one; `None` if nothing has.
    fn tell(&mut self, room: &str) -> Option<String> {
        let (joined, left) = (std::mem::take(&mut self.joined), std::mem::take(&mut self.left));
        if joined.is_empty() && left.is_empty() {
            return None;
        }
        let (count, more) = (self.members.len(), joined.len().max(left.len()) > NAMED);
        let (joined, left) = (shown(joined.iter(), NAMED), shown(left.iter(), NAMED));
        let room = serde_json::Value::from(room);
        Some(format!(
            r#"["presence",{{"room":{room},"count":{count},"users":null,"joined":{joined},"left":{left},"more":{more}}}]"#
        ))
    }
}

/// The first of them as JSON. Nobody is identified where everybody may connect.
fn shown<'a>(ids: impl Iterator<Item = &'a Id>, most: usize) -> String {
    let ids: Vec<String> =
        ids.take(most).map(|id| format!(r#"{{"id":"{id}","user":null}}"#)).collect();
    format!("[{}]", ids.join(","))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn id(number: usize) -> Id {
        Id::parse(&format!("{number:020}")).expect("20 digits")
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
        assert!(crowds.take(&namespace, &room, id(1), true, Side::Here));
        assert!(!crowds.take(&namespace, &room, id(2), true, Side::Here));
        crowds.take(&namespace, &room, id(1), false, Side::Here);
        let told = next(&mut crowds);
        let member = json!([{ "id": id(2).as_str(), "user": null }]);
        let words = json!({ "room": "a", "count": 1, "users": null, "joined": member, "left": [], "more": false });
        assert_eq!(told, Some(json!(["presence", words])));
        assert_eq!(next(&mut crowds), None);
        // Away and back again is nothing to speak of.
        assert!(crowds.take(&namespace, &room, id(2), false, Side::Here));
        crowds.take(&namespace, &room, id(2), true, Side::Here);
        assert_eq!(next(&mut crowds), None);
        // Nobody is left to be told.
        crowds.take(&namespace, &room, id(2), false, Side::Here);
        assert_eq!(next(&mut crowds), None);
        assert!(crowds.by_namespace.is_empty());
    }

    #[test]
    fn who_moves_to_another_node_has_not_left() {
        let ((namespace, room), mut crowds) = (names(), Crowds::default());
        crowds.take(&namespace, &room, id(1), true, Side::Here);
        assert!(next(&mut crowds).is_some());
        crowds.take(&namespace, &room, id(1), true, Side::Far);
        crowds.take(&namespace, &room, id(1), false, Side::Here);
        assert_eq!(next(&mut crowds), None);
        crowds.take(&namespace, &room, id(2), true, Side::Here);
        crowds.take(&namespace, &room, id(1), false, Side::Far);
        let told = next(&mut crowds).expect("a change");
        assert_eq!(
            (&told[1]["count"], &told[1]["left"][0]["id"]),
            (&json!(1), &json!(id(1).as_str()))
        );
    }

    #[test]
    fn a_crowd_is_counted_not_named() {
        let ((namespace, room), mut crowds) = (names(), Crowds::default());
        for number in 0..1000 {
            crowds.take(&namespace, &room, id(number), true, Side::Here);
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

    proptest! {
        #[test]
        fn whoever_is_told_knows_all(steps in proptest::collection::vec((0usize..6, any::<bool>(), any::<bool>()), 0..100)) {
            let ((namespace, room), mut crowds) = (names(), Crowds::default());
            let (mut model, mut known) = (BTreeSet::new(), BTreeSet::new());
            for (number, is_here, look) in steps {
                crowds.take(&namespace, &room, id(number), is_here, Side::Here);
                if is_here { model.insert(id(number)); } else { model.remove(&id(number)); }
                if !look {
                    continue;
                }
                let Some(told) = next(&mut crowds) else {
                    prop_assert!(model.is_empty() || known == model);
                    known.clone_from(&model);
                    continue;
                };
                let ids = |field: &str| -> Vec<Id> {
                    let ids = told[1][field].as_array().expect("a list").iter();
                    ids.filter_map(|id| Id::parse(id["id"].as_str()?)).collect()
                };
                ids("left").iter().for_each(|id| assert!(known.remove(id), "{id} left"));
                ids("joined").into_iter().for_each(|id| assert!(known.insert(id), "{id} joined"));
                prop_assert_eq!(&known, &model);
                prop_assert_eq!(&told[1]["count"], &json!(model.len()));
            }
        }
    }
}
