//! The operator's questions, answered for all nodes: this one's outcomes and what the others say.

use std::net::IpAddr;

use serde_json::Value;

use crate::auth;

use super::Hub;
use super::cluster::{Absent, Audience, Cluster, Remote};
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
    Count(Audience),
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
                query.ask(cluster, &namespace, outcome).await?;
            }
        }
        Ok(outcomes)
    }
}

fn query(operation: &Operation) -> Option<(String, Query)> {
    let query = match &operation.deed {
        Deed::Sockets { target, page } => Query::Sockets(target.audience(), page.clone()),
        Deed::Rooms { page } => Query::Rooms(page.clone()),
        Deed::Count { room } => {
            let rooms = room.iter().cloned().collect();
            Query::Count(Audience { rooms, ..Audience::default() })
        }
        _ => return None,
    };
    Some((operation.namespace.to_string(), query))
}

impl Query {
    async fn ask(
        self,
        cluster: &Cluster,
        namespace: &str,
        outcome: &mut Outcome,
    ) -> Result<(), Absent> {
        let audience = match &self {
            Self::Sockets(audience, _) | Self::Count(audience) => audience.clone(),
            Self::Rooms(_) => Audience::default(),
        };
        let remotes = cluster.ask(namespace, audience).await?;
        match (self, outcome) {
            (Self::Count(_), Outcome::Heads(all)) => {
                remotes.iter().for_each(|remote| all.add(heads(remote)));
            }
            (Self::Sockets(_, page), Outcome::Sockets(listed)) => {
                remotes.iter().for_each(|remote| page.add(listed, &remote.id, || seen(remote)));
            }
            (Self::Rooms(page), Outcome::Rooms(listed)) => add_rooms(listed, &page, &remotes),
            // It was asked what the outcome is of.
            _ => {}
        }
        Ok(())
    }
}

/// Rooms are added up before the page is cut, or one at its end would be counted in part.
fn add_rooms(listed: &mut Listed<Heads>, page: &Page, remotes: &[Remote]) {
    for remote in remotes {
        let one = heads(remote);
        for room in remote.rooms.iter().filter(|room| **room != *remote.id) {
            match listed.items.get_mut(room.as_str()) {
                Some(all) => all.add(one.clone()),
                None => page.add(listed, room, || one.clone()),
            }
        }
    }
}

/// One socket of another node, and whose it is if that says so; Node's do not.
fn heads(remote: &Remote) -> Heads {
    let says = remote.handshake.contains(r#""user":{"#);
    let handshake = says.then(|| serde_json::from_str(&remote.handshake).ok()).flatten();
    let number = |handshake: Value| {
        let word = |name: &str| handshake.get("user")?.get(name)?.as_str();
        Some(auth::number_of(word("provider")?, word("id")?))
    };
    Heads { sockets: 1, users: handshake.and_then(number).map(|user| [user].into()) }
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
