//! A request for a session of another node, edge to edge: brought there, or taken here.
//!
//! The way back is the response, as it streams; who hangs up here hangs up there.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::drain::Drain;
use crate::exchange::{
    Body, Client, Peer, Request, Response, Stream, Taking, Watched, headers, take_back, taking,
};
use crate::hub::engine::{Engine, Node, is_websocket, random};
use crate::observe::access::Sent;
use crate::observe::metrics;
use crate::upstream::{Pools, Tunnel, Upgrade};

use super::Cluster;
use super::asking::Ask;
use super::badge::{self, Seal};
use super::registry::{Neighbour, Neighbours};

/// Shown by nodes to each other; a client's own is overwritten.
const BADGE: HeaderName = HeaderName::from_static("x-vestibule-node");

/// One worker's end.
pub struct Relay {
    cluster: Arc<Cluster>,
    node: Node,
    pools: Rc<Pools>,
    drain: Drain,
    told: RefCell<watch::Receiver<Neighbours>>,
    known: RefCell<Neighbours>,
    /// What requests must show that come here, and what those for others would.
    badge: String,
    seal: Seal,
    phase: watch::Sender<Phase>,
    /// Over how long what is carried here ends, once it is to.
    closing: Cell<Option<Duration>>,
    closes: Notify,
}

/// By which way requests come from other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// The address that they know; of two processes, the new one has it in the end.
    Nodes,
    /// From the other process at that address, for as long as this one lives.
    Door,
}

/// What becomes of the connections of other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    /// Another process takes them: none is accepted, and those that there are end after an answer.
    Shut,
    /// No session is left.
    Ended,
}

/// Connections that are kept but not used are left alone for so long once they are to end: whoever
/// uses one learns by its answer that it ends, and none is closed under a request that is on its way.
const UNUSED: Duration = Duration::from_secs(1);
/// What other nodes keep open is kept longer here.
const IDLE: Duration = Duration::from_secs(60);
/// Between two pieces of a body: the node before has a deadline of its own.
const BODY_IDLE: Duration = Duration::from_secs(60);
/// Clients' heads have been bounded before, and have grown by a few lines.
const HEAD_MAX: usize = 1 << 20;
const HEADER_LINES: usize = 400;
const PAUSE: Duration = Duration::from_millis(100);
/// For a look at which nodes there are; Redis has the same time for one answer.
const LOOK: Duration = Duration::from_secs(2);

impl Relay {
    /// `None` if this node brings nothing to others.
    pub fn new(
        cluster: &Arc<Cluster>,
        node: Node,
        pools: &Rc<Pools>,
        drain: &Drain,
    ) -> Option<Rc<Self>> {
        let secret = cluster.secret.as_ref()?;
        let mut told = cluster.neighbours.subscribe();
        let known = Arc::clone(&told.borrow_and_update());
        Some(Rc::new(Self {
            cluster: Arc::clone(cluster),
            node,
            pools: Rc::clone(pools),
            drain: drain.clone(),
            told: RefCell::new(told),
            known: RefCell::new(known),
            badge: Seal::new(secret).badge(node),
            seal: Seal::new(secret),
            phase: watch::Sender::new(Phase::Open),
            closing: Cell::new(None),
            closes: Notify::new(),
        }))
    }

    /// The node that this request is for, if it is another one that can be reached.
    pub async fn elsewhere(&self, request: &Request) -> Option<Arc<Neighbour>> {
        let query = request.uri().query().unwrap_or_default();
        let node = Node::of_query(query).filter(|node| *node != self.node)?;
        let known = match self.find(node) {
            Some(known) => known,
            None => {
                self.look().await;
                self.find(node)?
            }
        };
        // One that takes no connections is gone: waiting for its lease would be a wait in vain.
        known.upstream.is_up().then_some(known)
    }

    fn find(&self, node: Node) -> Option<Arc<Neighbour>> {
        let mut told = self.told.borrow_mut();
        if told.has_changed().unwrap_or_default() {
            *self.known.borrow_mut() = Arc::clone(&told.borrow_and_update());
        }
        self.known.borrow().get(&node).cloned()
    }

    /// Waits until the main thread has looked again: the node may be new.
    async fn look(&self) {
        let (looked, waits) = oneshot::channel();
        let looking = async {
            // The main thread ends last.
            if self.cluster.asks.send(Ask::Look(looked)).await.is_ok() {
                let _looked = waits.await;
            }
        };
        // Too late, it is one that is not known.
        let _looked = timeout(LOOK, looking).await;
    }

    /// Brings the request there; `None` if the node has gone, and its sessions with it.
    pub async fn bring(
        self: &Rc<Self>,
        mut request: Request,
        neighbour: &Neighbour,
        client: &Client,
    ) -> Option<Response> {
        let websocket = headers::upgrade(request.headers()).filter(|word| word == "websocket");
        self.dress(request.headers_mut(), neighbour, client);
        metrics::count(&metrics::HUB_RELAYED, "begun");
        let bringing = async {
            match websocket {
                Some(protocol) => self.bring_upgrade(request, &protocol, neighbour, client).await,
                None => neighbour.upstream.send(request, &self.pools).await.map(|mut response| {
                    headers::strip_hop_by_hop(response.headers_mut());
                    response
                }),
            }
        };
        let brought = tokio::select! {
            brought = bringing => brought,
            // The session's node sees who has hung up: its client comes back, by another way. With
            // another process of this address it has just begun.
            () = self.closing(), if !neighbour.is_sibling => return None,
        };
        let word = if brought.is_ok() { "answered" } else { "lost" };
        metrics::count(&metrics::HUB_RELAYED, word);
        brought
            .inspect_err(|error| debug!(%error, "a request could not be brought to its node"))
            .ok()
    }

    /// As the other node must see it: who asks, and that it comes from one of us.
    fn dress(&self, fields: &mut HeaderMap, neighbour: &Neighbour, client: &Client) {
        headers::strip_hop_by_hop(fields);
        let client = Client { chain: None, ..client.clone() };
        let peer = Peer { address: (client.address, 0).into(), local_port: 0, tls: None };
        headers::set_forwarded(fields, &client, &peer);
        fields.insert(BADGE, neighbour.badge.clone());
    }

    async fn bring_upgrade(
        self: &Rc<Self>,
        mut request: Request,
        protocol: &str,
        neighbour: &Neighbour,
        client: &Client,
    ) -> Result<Response, crate::upstream::SendError> {
        let upgrade = taking(&mut request);
        headers::set_upgrade(request.headers_mut(), protocol);
        Ok(
            match neighbour
                .upstream
                .upgrade(
                    (request, headers::Lines::default()),
                    client.address,
                    &self.pools,
                    &mut Sent::default(),
                )
                .await?
            {
                Upgrade::Accepted(mut accepted, tunnel) => {
                    headers::strip_hop_by_hop(accepted.headers_mut());
                    headers::set_upgrade(accepted.headers_mut(), protocol);
                    self.carry(upgrade, tunnel);
                    accepted
                }
                Upgrade::Refused(mut refused) => {
                    headers::strip_hop_by_hop(refused.headers_mut());
                    // What the client may have sent early is no request.
                    headers::set_close(refused.headers_mut());
                    refused
                }
            },
        )
    }

    fn carry(self: &Rc<Self>, upgrade: Taking, tunnel: Tunnel) {
        let relay = Rc::clone(self);
        self.drain.spawn("relay", async move {
            let (client, early) = match take_back(upgrade).await {
                Ok(taken) => taken,
                Err(error) => return debug!(%error, "no relay"),
            };
            tokio::select! {
                // The session is the other node's; here it only loses its way, and comes back.
                ended = tunnel.join(client, early) => if let Err(error) = ended {
                    debug!(%error, "relay ended");
                },
                () = relay.closing() => (),
            }
        });
    }

    /// What is carried here ends, spread over `over`, so that not all clients return at once.
    pub fn close(&self, over: Duration) {
        self.closing.set(Some(over));
        self.closes.notify_waiters();
    }

    /// Returns when it is this one's turn.
    async fn closing(&self) {
        let over = loop {
            let told = self.closes.notified();
            match self.closing.get() {
                Some(over) => break over,
                None => told.await,
            }
        };
        let [turn] = random::<1>();
        sleep(over.mul_f32(f32::from(turn) / 256.0)).await;
    }

    /// Other nodes are taken by another process from now on.
    pub fn shut(&self) {
        self.phase.send_replace(Phase::Shut);
    }

    /// No session is left here: what other nodes keep open ends.
    pub fn end(&self) {
        self.phase.send_replace(Phase::Ended);
    }

    async fn reached(&self, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // The sender lives as long as this.
        let _reached = phases.wait_for(|now| *now >= phase).await;
    }

    /// Takes what other nodes bring, for as long as it is this process that does.
    pub async fn take(self: Rc<Self>, listener: TcpListener, by: Entrance, engine: Rc<Engine>) {
        loop {
            let accepted = tokio::select! {
                // Nothing is lost when an arm is dropped: who was not accepted still waits.
                accepted = listener.accept() => accepted,
                () = self.reached(Phase::Shut), if by == Entrance::Nodes => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    // Only a closed socket refuses this, and the first read will say so.
                    let _set = stream.set_nodelay(true);
                    let peer = Peer { address, local_port: 0, tls: None };
                    let engine = Rc::clone(&engine);
                    let conversation = Rc::clone(&self).converse(stream, peer, by, engine);
                    self.drain.spawn("node", conversation);
                }
                Err(error) => {
                    debug!(%error, "cannot accept from other nodes");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn converse(
        self: Rc<Self>,
        stream: TcpStream,
        peer: Peer,
        by: Entrance,
        engine: Rc<Engine>,
    ) {
        let io = TokioIo::new(Watched::new(Stream::Plain(stream), None));
        let here = Rc::clone(&self);
        let service = service_fn(move |request: http::Request<Incoming>| {
            let (relay, peer, engine) = (Rc::clone(&here), peer.clone(), Rc::clone(&engine));
            async move {
                let request = request.map(|body| Body::incoming(body, u64::MAX, BODY_IDLE));
                let mut response = Box::pin(relay.answer(request, &peer, &engine)).await;
                let moves = by == Entrance::Nodes && *relay.phase.borrow() == Phase::Shut;
                if moves && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    headers::set_close(response.headers_mut());
                }
                Ok::<_, Infallible>(response)
            }
        });
        let leave = async {
            if by == Entrance::Nodes {
                self.reached(Phase::Shut).await;
                let _ended = timeout(UNUSED, self.reached(Phase::Ended)).await;
            } else {
                self.reached(Phase::Ended).await;
            }
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_headers(HEADER_LINES)
            .max_header_size(HEAD_MAX)
            .max_buf_size(HEAD_MAX)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            // Nothing is lost when an arm is dropped: the connection goes on below.
            ended = connection.as_mut() => ended,
            () = leave => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "another node's connection ended");
        }
    }

    async fn answer(
        self: &Rc<Self>,
        mut request: Request,
        peer: &Peer,
        engine: &Rc<Engine>,
    ) -> Response {
        // No more than other paths tell: nothing is here for strangers.
        let Some(shown) = request.headers_mut().remove(BADGE) else { return nothing() };
        let (uri, fields) = (request.uri(), request.headers());
        // The other node says whom it was asked by, and nobody else: there is one entry.
        let client = headers::client(peer, uri, request.version(), fields, &|_| true);
        let Ok(client) = client else { return nothing() };
        if badge::is_same(&self.badge, shown.as_bytes()) {
            return engine.answer(request, &client).await.0;
        }
        // For the other process at this address, or for one that was here before.
        let is_shown = |node: &Node| badge::is_same(&self.seal.badge(*node), shown.as_bytes());
        let node = Node::of_query(uri.query().unwrap_or_default()).filter(is_shown);
        let Some(node) = node else { return nothing() };
        let asked = (fields.get(header::ORIGIN).cloned(), is_websocket(fields));
        let brought = match self.find(node).filter(|neighbour| neighbour.is_sibling) {
            Some(sibling) => Box::pin(self.bring(request, &sibling, &client)).await,
            None => None,
        };
        brought.unwrap_or_else(|| engine.answer_unknown(asked, &client).0)
    }
}

fn nothing() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
