// A server of Node in a cluster, with one of its Redis adapters; it does what it is told on stdin.
//
// REDIS (port), ADAPTER (classic, sharded, streams), LIBRARY (ioredis, redis), MODE (of `sharded`),
// RECOVERY (its clients may come back).
// Each line on stdin is {"do": WORD, …}; each is answered by one line, {"event":"done", …}. Values
// may be {"$binary": base64} or {"$date": milliseconds}. Ends with stdin.

import { once } from "node:events";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { createAdapter, createShardedAdapter } from "@socket.io/redis-adapter";
import { createAdapter as createStreamsAdapter } from "@socket.io/redis-streams-adapter";
import { Server } from "socket.io";
import { connection, dressed, said } from "./cluster.mjs";
import { option, say } from "./program.mjs";

const OK = { ok: true };

const redis = await connection();
const other = redis.duplicate();
other.on("error", () => {});
if (option("LIBRARY", "ioredis") === "redis") await other.connect();

const ADAPTERS = {
  classic: () => createAdapter(redis, other),
  sharded: () => createShardedAdapter(redis, other, { subscriptionMode: option("MODE", "dynamic") }),
  streams: () => createStreamsAdapter(redis),
};

const http = createServer();
const recovery = process.env.RECOVERY ? { connectionStateRecovery: {} } : {};
const io = new Server(http, { adapter: ADAPTERS[option("ADAPTER")](), ...recovery });

/** Server-side emits that came and nobody has asked for yet. */
const told = [];
const servers = new Map();

for (const name of ["/", "/chat"]) {
  const namespace = io.of(name);
  servers.set(name, namespace);
  // As the edge's rules of the tests have it.
  namespace.on("connection", (socket) => {
    socket.on("join", (room, done) => {
      socket.join(`room:${room}`);
      done(OK);
    });
    socket.data = { node: true };
  });
  namespace.on("told", (...args) => {
    const done = typeof args.at(-1) === "function" ? args.pop() : undefined;
    told.push(said(args));
    done?.({ from: "node", args: args.length });
  });
  namespace.on("silence", () => {});
}

/** Whom it is for, as the operator says it. */
function audience({ namespace = "/", to = [], except = [], volatile, local, timeout }) {
  let whom = servers.get(namespace).to(to).except(except);
  if (volatile) whom = whom.volatile;
  if (local) whom = whom.local;
  return timeout ? whom.timeout(timeout) : whom;
}

/** What came of it: a list and, if that was not all, why. */
function outcome(error, list) {
  return { error: error ? error.message : null, list: said(list ?? []) };
}

const DEEDS = {
  emit: (words) => audience(words).emit(words.name, ...dressed(words.args ?? [])),
  ask: (words) =>
    new Promise((done) =>
      audience(words).emit(words.name, ...dressed(words.args ?? []), (error, list) => done(outcome(error, list))),
    ),
  join: (words) => audience(words).socketsJoin(words.rooms),
  leave: (words) => audience(words).socketsLeave(words.rooms),
  disconnect: (words) => audience(words).disconnectSockets(words.close),
  async fetch(words) {
    const sockets = await audience(words).fetchSockets();
    const list = sockets.map(({ id, rooms, handshake, data }) => ({ id, rooms: [...rooms].sort(), handshake, data }));
    return { list: list.sort((one, two) => (one.id < two.id ? -1 : 1)) };
  },
  async rooms({ namespace }) {
    return { list: [...(await servers.get(namespace).adapter.allRooms())].sort() };
  },
  tell: ({ namespace = "/", name = "told", args = [] }) => servers.get(namespace).serverSideEmit(name, ...dressed(args)),
  async tellAll({ namespace = "/", name = "told", args = [] }) {
    return new Promise((done) =>
      servers.get(namespace).serverSideEmit(name, ...dressed(args), (error, list) => done(outcome(error, list))),
    );
  },
  async count({ namespace = "/" }) {
    return { count: await servers.get(namespace).adapter.serverCount() };
  },
  told: () => ({ list: told.splice(0) }),
};

await once(http.listen(0, "127.0.0.1"), "listening");
say("ready", { port: http.address().port });
for await (const line of createInterface({ input: process.stdin })) {
  const { do: word, ...words } = JSON.parse(line);
  let came;
  try {
    came = (await DEEDS[word](words)) ?? {};
  } catch (error) {
    came = { error: `${error?.message ?? error}` };
  }
  say("done", typeof came === "object" ? came : {});
}
process.exit(0);
