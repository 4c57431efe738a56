//! One cluster of this program's nodes and servers of Node, with a client on each of them.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::node::Script;
use super::redis::Redis;
use super::socketio::{Heard, Line as _, Web, hub_only, wait_for_metric};
use super::{Client, Edge, eventually};

/// A server of Node, or an emitter.
pub struct Peer {
    script: Script,
    /// An emitter has none.
    pub address: Option<SocketAddr>,
}

impl Peer {
    fn start(redis: &Redis, adapter: &str, rooms: &str, library: &str) -> Self {
        Self::with(redis, &[("ADAPTER", adapter), ("MODE", rooms), ("LIBRARY", library)])
    }

    /// `words` are what `peer.mjs` takes.
    pub fn with(redis: &Redis, words: &[(&str, &str)]) -> Self {
        let port = redis.port.to_string();
        let words = [words, &[("REDIS", &*port)]].concat();
        let mut script = Script::start("peer.mjs", &words);
        let ready: Value = serde_json::from_str(&script.wait_for("ready")).expect("JSON");
        let port = u16::try_from(ready["port"].as_u64().expect("a port")).expect("a port");
        Self { script, address: Some(SocketAddr::from(([127, 0, 0, 1], port))) }
    }

    /// `kind` is the family of adapters that it speaks to.
    pub fn emitter(redis: &Redis, kind: &str, library: &str) -> Self {
        let port = redis.port.to_string();
        let words = [("REDIS", &*port), ("KIND", kind), ("LIBRARY", library)];
        let mut script = Script::start("emitter.mjs", &words);
        script.wait_for("ready");
        Self { script, address: None }
    }

    /// Has it do something, and waits for what comes of it.
    pub fn told(&mut self, words: &Value) -> Value {
        self.begin(words);
        self.done()
    }

    pub fn begin(&mut self, words: &Value) {
        self.script.tell(&words.to_string());
    }

    pub fn done(&mut self) -> Value {
        serde_json::from_str(&self.script.wait_for("\"done\"")).expect("JSON")
    }
}

/// A client in `/chat`.
pub struct Member {
    pub web: Web,
    pub id: String,
}

impl Member {
    fn of(address: SocketAddr) -> Self {
        let mut web = Web::over(Client::connect(address), "EIO=4");
        let id = web.enter("/chat");
        Self { web, id }
    }

    /// Into what its server calls `room:NAME`.
    pub fn join(&mut self, room: &str) {
        self.web.say(&format!("42/chat,1[\"join\",{}]", json!(room)));
        self.web.expect("43/chat,1[{\"ok\":true}]");
    }
}

/// Who says something: one of the servers, or an emitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Edge(usize),
    Node(usize),
    Emitter,
}

pub struct Cluster {
    pub adapter: &'static str,
    /// Which rooms have channels of their own, with `sharded`.
    rooms: &'static str,
    pub edges: Vec<Edge>,
    pub nodes: Vec<Peer>,
    pub emitter: Option<Peer>,
    /// One on each edge, then one on each server of Node.
    pub members: Vec<Member>,
    pub redis: Redis,
}

impl Cluster {
    /// Two and two, all of which know each other.
    pub fn start(adapter: &'static str) -> Self {
        Self::with_rooms(adapter, "dynamic")
    }

    pub fn with_rooms(adapter: &'static str, rooms: &'static str) -> Self {
        eprintln!("over {adapter}, {rooms}");
        let redis = Redis::start();
        let url = redis.url();
        let settings = format!("redis: {{ url: '{url}', adapter: {adapter}, rooms: {rooms} }}");
        let edges: Vec<_> = (0..2).map(|_| Edge::start(&hub_only(&settings))).collect();
        edges.iter().for_each(|edge| wait_for_metric(edge, "vestibule_hub_redis_up", 1));
        let libraries = ["ioredis", "redis"];
        let nodes = libraries.map(|library| Peer::start(&redis, adapter, rooms, library)).into();
        let emitter = match adapter {
            // There is none.
            "sharded" => None,
            kind => Some(Peer::emitter(&redis, kind, "ioredis")),
        };
        let mut cluster =
            Self { adapter, rooms, edges, nodes, emitter, members: Vec::new(), redis };
        cluster.wait_for_each_other();
        cluster.members = cluster.addresses().into_iter().map(Member::of).collect();
        cluster
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let nodes = self.nodes.iter().filter_map(|node| node.address);
        self.edges.iter().map(Edge::http).chain(nodes).collect()
    }

    /// A new client where that one was.
    pub fn replace(&mut self, member: usize) {
        self.members[member] = Member::of(self.addresses()[member]);
    }

    /// Every server counts all four; a reader of a stream waits for its next entry.
    fn wait_for_each_other(&mut self) {
        for namespace in ["/", "/chat"] {
            for node in &mut self.nodes {
                eventually("four servers", || {
                    let counted = node.told(&json!({ "do": "count", "namespace": namespace }));
                    (counted["count"] == 4).then_some(())
                });
            }
        }
        if self.adapter == "streams" {
            wait_for_readers(&self.redis, 4);
        }
    }

    /// Until that many servers listen to what is said to the room, if it has a channel of its own.
    ///
    /// Redis is told a moment after a socket has joined, by Node too.
    pub fn wait_for_room(&self, room: &str, servers: usize) {
        let is_public = room.len() != 20;
        let has_channel = match self.rooms {
            "static" => false,
            "dynamic" => is_public,
            _ => true,
        };
        if self.adapter != "sharded" || !has_channel {
            return;
        }
        let channel = format!("socket.io#/chat#{room}#");
        eventually("all that listen", || {
            let counted = self.redis.ask(&["pubsub", "shardnumsub", &channel]);
            counted.ends_with(&servers.to_string()).then_some(())
        });
    }

    /// All that can say something.
    pub fn origins(&self) -> Vec<Origin> {
        let servers = [Origin::Edge(0), Origin::Edge(1), Origin::Node(0), Origin::Node(1)];
        servers.into_iter().chain(self.emitter.as_ref().map(|_| Origin::Emitter)).collect()
    }

    /// `words` as `peer.mjs` takes them, for clients in `/chat`.
    pub fn say(&mut self, origin: Origin, words: &Value) {
        let mut words = words.clone();
        words["namespace"] = json!("/chat");
        let peer = match origin {
            Origin::Edge(index) => return operate(&self.edges[index], words),
            Origin::Node(index) => &mut self.nodes[index],
            Origin::Emitter => self.emitter.as_mut().expect("an emitter"),
        };
        let done = peer.told(&words);
        assert_eq!(done["error"], Value::Null, "{words}");
    }

    /// The next that these hear is this, and before the origin's next word nobody hears more.
    #[track_caller]
    pub fn expect(&mut self, origin: Origin, who: &[usize], packets: &[Heard]) {
        self.say(origin, &json!({ "do": "emit", "name": "settled" }));
        for (index, member) in self.members.iter_mut().enumerate() {
            let mut heard = Vec::new();
            loop {
                match member.web.hear() {
                    Heard::Text(text) if text == "42/chat,[\"settled\"]" => break,
                    closed @ Heard::Closed(_) => panic!("{index} {closed:?} after {heard:?}"),
                    other => heard.push(other),
                }
            }
            let wanted = if who.contains(&index) { packets } else { &[] };
            assert_eq!(heard, wanted, "{origin:?} to {index}, over {}", self.adapter);
        }
    }
}

/// Until that many read the stream, and know their place in it.
///
/// Until Node has read a first entry it may miss one between two reads.
pub fn wait_for_readers(redis: &Redis, count: usize) {
    let readers = || redis.ask(&["client", "list"]).matches("cmd=xread").count();
    eventually("readers", || (readers() == count).then_some(()));
    redis.ask(&["xadd", "socket.io", "*", "nsp", "/nobody", "type", "2", "uid", "x"]);
}

/// The same by the hub API.
fn operate(edge: &Edge, mut words: Value) {
    let fields = words.as_object_mut().expect("an object");
    let operation = fields.remove("do").expect("a word");
    let operation = operation.as_str().expect("a word");
    if let Some(name) = fields.remove("name") {
        fields.insert("event".to_owned(), name);
    }
    if operation != "emit" && !fields.contains_key("to") {
        fields.insert("to".to_owned(), json!("*"));
    }
    let body = words.to_string();
    let answer = edge.admin_with("POST", &format!("/hub/{operation}"), body.as_bytes());
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
}

/// An event in `/chat` without attachments.
pub fn event(data: &str) -> Heard {
    Heard::Text(format!("42/chat,{data}"))
}
