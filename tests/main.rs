//! The binary, driven from outside: by its sockets, signals and exit codes.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may stop, and say why"
)]

mod harness;

/// The lines of exchanges: their shapes, what is left out of them, and files that are moved away.
mod access_log;
/// Certificates from a real ACME server: had, renewed, refused.
mod acme;
/// Health, readiness, metrics and reload on the private listener.
mod admin;
/// The example app in a real browser and with the stock Socket.IO client.
mod app;
/// The application's own sessions: who gets in, who stays, who is sent away.
mod auth;
/// What must not let anybody in, or must not be taken for a refusal: one test for each.
mod auth_bad_inputs;
/// Lucia, Auth.js, better-auth and others at work, and stock clients with their cookies.
mod auth_libraries;
/// What lets somebody in at one place and must not at another: other sites, other pages, other words.
mod auth_sites;
/// Sessions in PostgreSQL, MariaDB and Redis.
mod auth_stores;
/// Sessions as time passes: tokens that end and are followed by others, clocks that are set.
mod auth_time;
/// Sessions when things go wrong: stores that are away, crowds, guessing, keys that change.
mod auth_trouble;
/// Bodies on their way: compressed, limited, with trailers, after interim responses.
mod bodies;
/// Certificates that change, come in two kinds, and are asked of clients; sessions that go on.
mod certificates;
/// The command line and what it says of a configuration.
mod cli;
/// Several nodes over one Redis: whatever happens on one reaches all.
mod cluster;
/// A crowd on three nodes, while nodes are killed and their Redis fails.
mod cluster_chaos;
/// Nodes and servers of Node with the packages of npm, as one.
mod cluster_matrix;
/// Nodes behind a balancer without sticky sessions: requests find their session's node.
mod cluster_nodes;
/// Who is in a room, whose connections there are, and who is sent away, on all nodes.
mod cluster_presence;
/// Clients that are cut from one node and go on at another, with what they missed.
mod cluster_recovery;
/// Nodes over a Redis Cluster of three servers.
mod cluster_spread;
/// Several nodes, and a Redis that fails.
mod cluster_trouble;
/// proxy.yaml in, problems or the effective configuration out.
mod config;
/// The page of the private listener, in a browser.
mod dashboard;
/// Routes for whoever has a password, or whom another server lets in.
mod doors;
/// SIGTERM: requests finish, transports close, nothing hangs.
mod drain;
/// What is said of a request, beside what an application sees of it.
mod explain;
/// Folders that are served: types, conditions, ranges, and what is not there.
mod files;
/// HTTP/1.1 and HTTP/2 on the way in: limits, deadlines, hosts, access lines.
mod http;
/// What only HTTP/2 has: ends in frames of their own, windows that stay shut.
mod http2;
/// The page of Socket.IO's Admin UI: who gets in, what it sees and does.
mod hub_admin_ui;
/// What the operator's side tells, moves, sends away and lists.
mod hub_api;
/// Bad input and its answer: requests, payloads, packets.
mod hub_bad_input;
/// Compressed messages, on WebSockets and in answers to polls.
mod hub_deflate;
/// What is asked about one client, and whom a slow application harms: order, places, what is lost.
mod hub_farewells;
/// WebSocket frames, right and wrong.
mod hub_frames;
/// What the application decides about clients, and what happens while it is away.
mod hub_hooks;
/// The hub under a reload and at the end of the process.
mod hub_life;
/// What one client, one address and the process may take.
mod hub_limits;
/// Clients that move from one process to the next, and lose nothing.
mod hub_moves;
/// Engine.IO 3: clients of Socket.IO 2.
mod hub_old_clients;
/// Whose pages may use the hub.
mod hub_origins;
/// Clients that write msgpack among those that write JSON.
mod hub_parsers;
/// Engine.IO and Socket.IO over long polling.
mod hub_polling;
/// Members of watched rooms hear who comes and goes, and may ask who is there.
mod hub_presence;
/// Clients that come back after their connection was cut.
mod hub_recovery;
/// What clients may do in a namespace.
mod hub_rules;
/// Clients that do not read.
mod hub_slow_clients;
/// From long polling to WebSocket.
mod hub_upgrade;
/// Engine.IO and Socket.IO over WebSocket.
mod hub_websocket;
/// The hub on two workers.
mod hub_workers;
/// Pictures that the application makes when they are asked for: so many at once, the same one once.
mod images;
/// What is too much: connections, requests, clients that are slow, frames that carry nothing.
mod limits;
/// The guides that lead here from nginx and Node.
mod migration;
/// What the edge knows of Next.js: its builds, its actions, its images.
mod next;
/// What the operator looks with: pictures, advice, pages.
mod operator;
/// What the application sees, what the client gets back, and what happens when one of them fails.
mod proxy;
/// What the README and the demo show is what the binary takes.
mod readme;
/// The reference: every command, key, metric and endpoint.
mod reference;
/// SIGHUP: installed or refused, and nobody notices.
mod reload;
/// Which route a request takes, and what it does to it.
mod routes;
/// Ambiguous framing: bytes in, and exactly what the application saw.
mod smuggling;
/// What known tools try to smuggle requests with.
mod smuggling_corpus;
/// The units, socket activation, the notify protocol.
mod systemd;
/// Another binary takes over: no connection refused, no request failed.
mod takeover;
/// Certificates by name, ALPN, versions.
mod tls;
/// What testssl.sh and sslyze say of the TLS that is spoken.
mod tls_scan;
/// Spans of OpenTelemetry, as a collector gets them.
mod traces;
/// WebSockets that are not the hub's.
mod upgrade;
/// The wire between the edge and the application.
mod upstream;
/// Which of several targets is asked, and for how long one that fails is not.
mod upstream_balance;
/// What goes wrong while a load runs, and who notices.
mod upstream_faults;
/// Requests that wait until a target can take them.
mod upstream_hold;
/// Targets that are written by a name, while nobody can say where it is.
mod upstream_names;
/// Targets that are spoken to over TLS.
mod upstream_tls;
