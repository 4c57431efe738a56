//! The operator's questions, answered for all nodes: this one's outcomes and what the others say.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use serde_json::Value;

use crate::auth;

use super::Hub;
use super::attendance::Attendance;
use super::cluster::{Absent, Audience, Counted, Elsewhere, Remote};
use super::operation::{Deed, Heads, Listed, Operation, Outcome, Page, Seen, Silent};

/// Who did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error(transparent)]
    Workers(#[from] Silent),
    #[error(transparent)]
    Nodes(#[from] Absent),
    #[error("applied on this node alone: Redis is away, and the others were not told")]
    Here,
    #[error("Redis is away, and the other nodes cannot be asked; here=true asks this one alone")]
    Alone,
}

/// Whom the operator asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Everywhere,
    /// This node alone.
    Here,
}

/// What the other nodes are asked, too.
enum Query {
    Sockets(Audience, Page),
    Rooms(Page),
    Count(Option<String>),
}

impl Hub {
    /// Does all of it on all nodes, in order. What is listed or counted is of all of them; how many
    /// sockets an event was for is counted on this node alone, since nobody answers an event.
    pub async fn operate_everywhere(
        &self,
        operations: Vec<Operation>,
        reach: Reach,
    ) -> Result<Vec<Outcome>, Unanswered> {
        let queries: Vec<_> = match &self.cluster {
            Some(_) if reach == Reach::Everywhere => operations.iter().map(query).collect(),
            _ => Vec::new(),
        };
        let disconnects = operations.iter().any(|one| matches!(one.deed, Deed::Disconnect { .. }));
        let mut outcomes = self.operate(operations).await?;
        let Some(cluster) = &self.cluster else { return Ok(outcomes) };
        // Who is to be sent away may be elsewhere, and would stay.
        if disconnects && !cluster.is_up() {
            return Err(Unanswered::Here);
        }
        // What this node alone has is no answer to what was asked.
        if queries.iter().any(Option::is_some) && !cluster.is_up() {
            return Err(Unanswered::Alone);
        }
        for (outcome, query) in outcomes.iter_mut().zip(queries) {
            if let Some((namespace, query)) = query {
                let counts = matches!(query, Query::Count(_));
                let elsewhere = cluster.ask(&namespace, query.audience(), counts).await?;
                query.add(&self.attendances.of(&namespace), outcome, &elsewhere);
            }
        }
        Ok(outcomes)
    }
}

fn query(operation: &Operation) -> Option<(String, Query)> {
    let query = match &operation.deed {
        Deed::Sockets { target, page } => Query::Sockets(target.audience(), page.clone()),
        Deed::Rooms { page } => Query::Rooms(page.clone()),
        Deed::Count { room } => Query::Count(room.clone()),
        _ => return None,
    };
    Some((operation.namespace.to_string(), query))
}

impl Query {
    fn audience(&self) -> Audience {
        match self {
            Self::Sockets(audience, _) => audience.clone(),
            Self::Count(room) => {
                Audience { rooms: room.iter().cloned().collect(), ..Audience::default() }
            }
            Self::Rooms(_) => Audience::default(),
        }
    }

    /// Adds what the other nodes have; `here` is who is on this one.
    fn add(self, here: &Attendance, outcome: &mut Outcome, elsewhere: &Elsewhere) {
        let Elsewhere { remotes, heads } = elsewhere;
        match (self, outcome) {
            (Self::Count(room), Outcome::Heads(all)) => {
                let mut others = Others::default();
                remotes.iter().for_each(|remote| others.count(remote));
                heads.iter().for_each(|heads| others.add(heads));
                all.add(others.heads(here, room.as_deref()));
            }
            (Self::Sockets(_, page), Outcome::Sockets(listed)) => {
                remotes.iter().for_each(|remote| page.add(listed, &remote.id, || seen(remote)));
            }
            (Self::Rooms(page), Outcome::Rooms(listed)) => add_rooms(here, listed, &page, remotes),
            // It was asked what the outcome is of.
            _ => {}
        }
    }
}

/// Who is somewhere on other nodes.
#[derive(Default)]
struct Others {
    sockets: usize,
    users: HashSet<u64>,
}

impl Others {
    /// One socket, and whose it is if that says so; Node's do not.
    fn count(&mut self, remote: &Remote) {
        self.sockets += 1;
        self.users.extend(user_of(remote));
    }

    /// Those of a node that has counted them.
    fn add(&mut self, heads: &Counted) {
        self.sockets =
            self.sockets.saturating_add(usize::try_from(heads.sockets).unwrap_or_default());
        self.users.extend(&heads.users);
    }

    /// How many are there beside those of this node.
    fn heads(&self, here: &Attendance, room: Option<&str>) -> Heads {
        let strangers = || here.strangers(room, self.users.iter());
        let users = (!self.users.is_empty()).then(strangers);
        Heads { sockets: self.sockets, users, ..Heads::default() }
    }
}

/// Rooms are added up before the page is cut, or one at its end would be counted in part.
fn add_rooms(here: &Attendance, listed: &mut Listed<Heads>, page: &Page, remotes: &[Remote]) {
    let mut others: HashMap<&str, Others> = HashMap::new();
    for remote in remotes {
        for room in remote.rooms.iter().filter(|room| **room != *remote.id) {
            others.entry(room).or_default().count(remote);
        }
    }
    for (room, others) in others {
        let heads = || others.heads(here, Some(room));
        match listed.items.get_mut(room) {
            Some(all) => all.add(heads()),
            None => page.add(listed, room, heads),
        }
    }
}

fn user_of(remote: &Remote) -> Option<u64> {
    let says = remote.handshake.contains(r#""user":{"#);
    let handshake: Value = says.then(|| serde_json::from_str(&remote.handshake).ok()).flatten()?;
    let word = |name: &str| handshake.get("user")?.get(name)?.as_str();
    Some(auth::number_of(word("provider")?, word("id")?))
}

fn seen(remote: &Remote) -> Seen {
    let handshake: Value = serde_json::from_str(&remote.handshake).unwrap_or_default();
    let user = handshake.pointer("/user/id").and_then(Value::as_str).map(str::to_owned);
    let address = handshake.get("address").and_then(Value::as_str);
    // Node writes IPv4 as it comes over an IPv6 socket.
    let address = address.map(|text| text.strip_prefix("::ffff:").unwrap_or(text));
    let address: Option<IpAddr> = address.and_then(|text| text.parse().ok());
    let rooms = remote.rooms.iter().filter(|room| **room != *remote.id).cloned().collect();
    Seen { rooms, user, address, transport: None }
}
