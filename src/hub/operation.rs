//! What the operator's side wants of the clients: to tell, move, send away, list or count them.
//!
//! An operation is done on every worker, in the order asked, and the answers are added up.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Hub;
use super::clients::Clients;
use super::engine::{Close, Delivery, Message, Outgoing};
use super::gather::gather;
use super::namespace::{Namespace, Target};
use super::outbox::{Letter, Order};
use super::packet;
use super::socket::Socket;

/// One thing to be done in one namespace.
pub struct Operation {
    pub namespace: Arc<str>,
    pub deed: Deed,
}

pub enum Deed {
    Emit {
        target: Target,
        message: Arc<Message>,
        /// What the message says, for those who must say it in another way.
        data: Box<str>,
        parts: Vec<Bytes>,
        delivery: Delivery,
    },
    Join {
        target: Target,
        rooms: Vec<String>,
    },
    Leave {
        target: Target,
        rooms: Vec<String>,
    },
    Disconnect {
        target: Target,
        close: bool,
    },
    Sockets {
        target: Target,
        page: Page,
    },
    Rooms {
        page: Page,
    },
    Count {
        room: Option<String>,
    },
}

/// A part of a list that has an order: what comes after `after`, `most` of it.
#[derive(Debug, Clone)]
pub struct Page {
    pub after: String,
    pub most: usize,
}

/// What came of an operation.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Sockets that were meant.
    Count(usize),
    /// In the order of their ids.
    Sockets(Listed<Seen>),
    /// How many are in each.
    Rooms(Listed<usize>),
}

/// A page of a list, by name.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed<T> {
    pub items: BTreeMap<String, T>,
    /// There is something beyond the page.
    pub more: bool,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), more: false }
    }
}

/// One socket as it is listed.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub rooms: Vec<String>,
    pub address: IpAddr,
    pub transport: &'static str,
}

/// Workers that did not answer in time; what was asked may still happen there.
#[derive(Debug, thiserror::Error)]
#[error("{} of {of} workers did not answer in {ANSWER:?}; there it may still happen", workers.len())]
pub struct Silent {
    pub workers: Vec<usize>,
    pub of: usize,
}

/// A worker that takes longer is stuck.
const ANSWER: Duration = Duration::from_secs(5);

impl Operation {
    /// An event for the clients that are meant; `data` is an array that begins with its name.
    pub fn emit(
        namespace: &str,
        target: Target,
        data: &str,
        parts: Vec<Bytes>,
        volatile: bool,
    ) -> Self {
        let text = packet::event(namespace, data, parts.len());
        let message = Arc::new(Message::with_parts(text, parts.clone()));
        let delivery = if volatile { Delivery::Volatile } else { Delivery::Kept };
        Self::new(namespace, Deed::Emit { target, message, data: data.into(), parts, delivery })
    }

    pub fn new(namespace: &str, deed: Deed) -> Self {
        Self { namespace: namespace.into(), deed }
    }
}

impl Hub {
    /// Does all of it on every worker, in order. The outcomes are as many as the operations.
    pub async fn operate(&self, operations: Vec<Operation>) -> Result<Vec<Outcome>, Silent> {
        self.operate_within(operations, ANSWER).await
    }

    async fn operate_within(
        &self,
        operations: Vec<Operation>,
        limit: Duration,
    ) -> Result<Vec<Outcome>, Silent> {
        let (operations, deadline): (Arc<[_]>, _) = (operations.into(), Instant::now() + limit);
        let asked = self.letters.iter().map(|letters| async {
            let (answer, answered) = oneshot::channel();
            let order = Order::Operate(Arc::clone(&operations), answer);
            let answered = async {
                // A worker that has ended has no clients left.
                if letters.send(Letter::Order(order)).await.is_err() {
                    return Vec::new();
                }
                answered.await.unwrap_or_default()
            };
            timeout_at(deadline, answered).await
        });
        let answers = gather(asked).await;
        let silent = answers.iter().enumerate().filter(|(_, answer)| answer.is_err());
        let silent: Vec<usize> = silent.map(|(worker, _)| worker).collect();
        if !silent.is_empty() {
            return Err(Silent { workers: silent, of: answers.len() });
        }
        let mut outcomes: Vec<Outcome> = operations.iter().map(Operation::nothing).collect();
        for answer in answers.into_iter().flatten() {
            outcomes.iter_mut().zip(answer).for_each(|(all, one)| all.add(one));
        }
        for (outcome, operation) in outcomes.iter_mut().zip(operations.iter()) {
            outcome.cut(operation);
        }
        Ok(outcomes)
    }
}

impl Operation {
    /// What comes of it where nobody is.
    fn nothing(&self) -> Outcome {
        match &self.deed {
            Deed::Sockets { .. } => Outcome::Sockets(Listed::default()),
            Deed::Rooms { .. } => Outcome::Rooms(Listed::default()),
            _ => Outcome::Count(0),
        }
    }
}

impl Outcome {
    fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::Count(all), Self::Count(one)) => *all += one,
            (Self::Sockets(all), Self::Sockets(one)) => {
                all.more |= one.more;
                all.items.extend(one.items);
            }
            (Self::Rooms(all), Self::Rooms(one)) => {
                all.more |= one.more;
                for (room, size) in one.items {
                    *all.items.entry(room).or_default() += size;
                }
            }
            // Every worker was asked the same.
            _ => (),
        }
    }

    /// Of several workers' pages one is left.
    fn cut(&mut self, operation: &Operation) {
        match (self, &operation.deed) {
            (Self::Sockets(all), Deed::Sockets { page, .. }) => page.cut(all),
            (Self::Rooms(all), Deed::Rooms { page }) => page.cut(all),
            _ => (),
        }
    }
}

impl Page {
    fn cut<T>(&self, listed: &mut Listed<T>) {
        while listed.items.len() > self.most {
            listed.items.pop_last();
            listed.more = true;
        }
    }

    fn add<T>(&self, listed: &mut Listed<T>, name: &str, value: impl FnOnce() -> T) {
        if name <= self.after.as_str() {
            return;
        }
        let full = listed.items.len() >= self.most;
        if full && listed.items.last_key_value().is_none_or(|(last, _)| name > last.as_str()) {
            listed.more = true;
            return;
        }
        listed.items.insert(name.to_owned(), value());
        self.cut(listed);
    }
}

impl Clients {
    /// Does it for the clients of this worker.
    pub fn operate(&self, operation: &Operation) -> Outcome {
        let Some(namespace) = self.namespace(&operation.namespace) else {
            return operation.nothing();
        };
        Outcome::Count(match &operation.deed {
            // For those who come back it must stand in one worker's line, which tells the others.
            Deed::Emit { target, data, parts, delivery, .. } if self.recovery.is_on() => {
                let meant = namespace.those(target).len();
                if self.recovery.is_first() {
                    self.emit(&namespace, target.clone(), data, parts.clone(), *delivery);
                }
                meant
            }
            Deed::Emit { target, message, delivery, .. } => {
                namespace.deliver(target, &Outgoing::new(Arc::clone(message)), *delivery, None)
            }
            Deed::Join { target, rooms } => for_each(&namespace, target, |socket| {
                // What clients may take is no limit for the operator.
                let _joined = namespace.join(socket, rooms, usize::MAX);
            }),
            Deed::Leave { target, rooms } => {
                for_each(&namespace, target, |socket| namespace.leave(socket, rooms))
            }
            Deed::Disconnect { target, close } => {
                for_each(&namespace, target, |socket| self.send_away(socket, *close))
            }
            Deed::Sockets { target, page } => {
                return Outcome::Sockets(list(&namespace, target, page));
            }
            Deed::Rooms { page } => {
                let mut listed = Listed::default();
                for (name, size) in namespace.rooms() {
                    page.add(&mut listed, &name, || size);
                }
                return Outcome::Rooms(listed);
            }
            Deed::Count { room } => namespace.count(room.as_deref()),
        })
    }

    /// As `disconnect` of Node: out of this namespace, or out of all and the transport closed.
    fn send_away(&self, socket: &Rc<Socket>, close: bool) {
        if !close {
            return self.expel(socket);
        }
        for socket in self.sockets_of(&socket.session) {
            self.expel(&socket);
        }
        socket.session.close_later(Close::Forced);
    }
}

fn for_each(namespace: &Namespace, target: &Target, does: impl Fn(&Rc<Socket>)) -> usize {
    let those = namespace.those(target);
    those.iter().for_each(does);
    those.len()
}

fn list(namespace: &Namespace, target: &Target, page: &Page) -> Listed<Seen> {
    let mut listed = Listed::default();
    for socket in namespace.those(target) {
        page.add(&mut listed, socket.id.as_str(), || Seen {
            rooms: socket.rooms(),
            address: socket.session.address,
            transport: socket.session.transport(),
        });
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_the_first_names_after_another() {
        let page = Page { after: "b".to_owned(), most: 2 };
        let mut listed = Listed::default();
        for (name, more) in [("a", false), ("f", false), ("c", false), ("e", true), ("d", true)] {
            page.add(&mut listed, name, || ());
            assert_eq!(listed.more, more, "{name}");
        }
        assert_eq!(listed.items.keys().collect::<Vec<_>>(), ["c", "d"]);
    }

    #[test]
    fn workers_add_up() {
        let rooms = |items: &[(&str, usize)], more| {
            let items = items.iter().map(|(room, size)| ((*room).to_owned(), *size)).collect();
            Outcome::Rooms(Listed { items, more })
        };
        let mut all = rooms(&[("a", 1), ("c", 1)], true);
        all.add(rooms(&[("a", 2), ("b", 1)], false));
        assert_eq!(all, rooms(&[("a", 3), ("b", 1), ("c", 1)], true));
        let page = Page { after: String::new(), most: 2 };
        all.cut(&Operation::new("/", Deed::Rooms { page }));
        assert_eq!(all, rooms(&[("a", 3), ("b", 1)], true));
    }

    #[test]
    fn a_worker_that_does_not_answer_is_named() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let (hub, mut inboxes) = Hub::new(3);
        // The last one has ended; of the others one is stuck.
        drop(inboxes.pop());
        let mut first = inboxes.remove(0);
        let answering = async {
            let Some(Letter::Order(Order::Operate(_, answer))) = first.letters.recv().await else {
                return false;
            };
            answer.send(vec![Outcome::Count(1)]).is_ok()
        };
        let count = Operation::new("/", Deed::Count { room: None });
        let asking = hub.operate_within(vec![count], Duration::from_millis(20));
        let (answered, outcome) =
            runtime.expect("a runtime").block_on(async { tokio::join!(answering, asking) });
        let silent = outcome.expect_err("one is stuck");
        assert_eq!((answered, &silent.workers[..], silent.of), (true, &[1][..], 3));
        assert!(silent.to_string().starts_with("1 of 3 workers did not answer in 5s"), "{silent}");
    }
}
