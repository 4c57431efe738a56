// Writes tests/vectors/cluster.json: what Node's Redis adapters and emitters really say, and what
// it means. Run by hand when a package's version changes: `node tests/node/vectors.mjs`.
//
// The servers are real; their Redis client only notes what it is told, and is fed by hand.

import { EventEmitter, once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { setImmediate as turn } from "node:timers/promises";
import { Server } from "socket.io";
import { io as connect } from "socket.io-client";

const require = createRequire(import.meta.url);
const crypto = require("node:crypto");
// Names that are the same every time. They must differ within one run.
let drawn = 0;
crypto.randomBytes = (size, done) => {
  const bytes = crypto.createHash("sha256").update(`${drawn++}`).digest().subarray(0, size);
  if (done) return done(null, bytes);
  return bytes;
};
// After that, since they look it up when they are loaded.
const { createAdapter, createShardedAdapter } = require("@socket.io/redis-adapter");
const { createAdapter: createStreamsAdapter } = require("@socket.io/redis-streams-adapter");
const { Emitter } = require("@socket.io/redis-emitter");

/** Looks like a client of ioredis. */
class Redis extends EventEmitter {
  constructor(parent) {
    super();
    this.options = {};
    this.said = parent?.said ?? [];
    this.heard = parent?.heard ?? [];
    this.copies = parent?.copies ?? [];
    this.copies.push(this);
  }
  duplicate() {
    return new Redis(this);
  }
  note(how, channel, payload) {
    this.said.push({ how, channel, payload: Buffer.from(payload) });
    return Promise.resolve(1);
  }
  publish(channel, payload) {
    return this.note("publish", channel, payload);
  }
  spublish(channel, payload) {
    return this.note("shard", channel, payload);
  }
  subscribe(channels) {
    this.heard.push(...[channels].flat().map((name) => ({ channel: name })));
  }
  psubscribe(pattern) {
    this.heard.push({ pattern });
  }
  ssubscribe(channel) {
    this.heard.push({ shard: channel });
  }
  send_command(_name, [how, channel], done) {
    this.counted = { [how]: channel };
    Object.assign(this, { counted: this.counted });
    for (const copy of this.copies) copy.counted = this.counted;
    if (done) return done(null, [channel, 2]);
    return Promise.resolve([channel, 2]);
  }
  xadd([stream, , , length, , ...fields]) {
    const pairs = [];
    for (let at = 0; at < fields.length; at += 2) pairs.push([fields[at], `${fields[at + 1]}`]);
    this.said.push({ how: "append", stream, length, fields: pairs });
    return Promise.resolve("1700000000000-0");
  }
  xread() {
    return new Promise(() => {});
  }
  set(key, value) {
    this.said.push({ how: "set", key, value });
    return Promise.resolve("OK");
  }
  disconnect() {}
  /** What another server has published. */
  hear(channel, payload) {
    const data = Buffer.isBuffer(payload) ? payload : Buffer.from(JSON.stringify(payload));
    for (const copy of this.copies) {
      for (const event of ["messageBuffer", "smessageBuffer"]) {
        copy.emit(event, Buffer.from(channel), data);
      }
      copy.emit("pmessageBuffer", Buffer.from("*"), Buffer.from(channel), data);
    }
  }
}

const vectors = [];
const hex = (bytes) => Buffer.from(bytes).toString("hex");

/** JSON with placeholders for what is binary. */
function payload(value) {
  const parts = [];
  const replace = (value) => {
    if (Buffer.isBuffer(value) || value instanceof Uint8Array) {
      parts.push(hex(value));
      return { _placeholder: true, num: parts.length - 1 };
    }
    if (Array.isArray(value)) return value.map(replace);
    if (!value || Object.getPrototypeOf(value) !== Object.prototype) return value;
    return Object.fromEntries(Object.entries(value).map(([key, value]) => [key, replace(value)]));
  };
  const data = JSON.stringify(replace(value));
  return data === undefined ? {} : { data, parts };
}

function wire(said) {
  const { how, payload, ...rest } = said;
  return payload ? { how, ...rest, payload: hex(payload) } : { how, ...rest };
}

class Stage {
  constructor(name, dialect, redis, decode) {
    Object.assign(this, { name, dialect, redis, decode });
  }

  /** Notes what `act` says, which means `matter`. Not `exact`: we say the same in other bytes. */
  async take(name, matter, act, { exact = true, namespace = "/", from } = {}) {
    this.redis.said.length = 0;
    act();
    for (let waits = 0; waits < 200 && !this.redis.said.length; waits++) await turn();
    if (this.redis.said.length !== 1) throw new Error(`${this.name} ${name}: ${this.redis.said.length} said`);
    const said = this.redis.said[0];
    const request = this.decode(said);
    const meaning = { ...matter, ...payload(matter.value) };
    if (meaning.request === true) meaning.request = request;
    delete meaning.value;
    vectors.push({ name: `${this.name} ${name}`, dialect: this.dialect, from, namespace, exact, wire: wire(said), matter: meaning });
  }
}

/** The id of the request in what was said. */
function requestOf(said) {
  if (!said.payload) return undefined;
  const text = said.payload.toString("latin1");
  const json = /"requestId":"([^"]+)"/.exec(text);
  if (json) return json[1];
  const packed = /\xa9requestId[\xa0-\xbf]/.exec(text);
  if (!packed) return undefined;
  const start = packed.index + packed[0].length;
  return text.slice(start, start + (text.charCodeAt(start - 1) & 0x1f));
}

const DATE = new Date(1700000000123);
const BYTES = Buffer.from([3, 4]);
const VALUES = [null, true, false, 0, -1, -33, -200, -40000, 127, 200, 40000, 3e9, 5e9, -3e9, 1.5, "é😀\"\n", "x".repeat(40), {}, [], { a: { b: [1] } }];
const LONG = ["long", "y".repeat(300), Array.from({ length: 20 }, (_, number) => number), Object.fromEntries(Array.from({ length: 20 }, (_, number) => [`k${number}`, number]))];
const MANY = Buffer.alloc(300, 7);

/** What a server or an emitter can say to clients. */
async function broadcasts(stage, from, io, { emitter = false } = {}) {
  const one = { kind: "broadcast", rooms: [], except: [], flags: {} };
  const options = { from: from("/"), exact: !emitter };
  // Node's msgpack has dates, ours has the text that clients get.
  const dates = { ...options, exact: options.exact && stage.dialect !== "classic" };
  const take = (name, matter, act, more) => stage.take(name, matter, act, { ...options, ...more });
  const event = (value, more) => ({ ...one, value, ...more });
  await take("to all", event(["test", 1, "2", BYTES]), () => io.emit("test", 1, "2", BYTES));
  await take("no arguments", event(["x"]), () => io.emit("x"));
  await take("values", event(["v", ...VALUES]), () => io.emit("v", ...VALUES));
  await take("long values", event(LONG), () => io.emit(...LONG));
  await take("binary inside", event(["b", { a: [BYTES, MANY] }]), () => io.emit("b", { a: [BYTES, MANY] }));
  await take("a view of binary", event(["b", new Uint8Array([1, 2])]), () => io.emit("b", new Uint8Array([1, 2])));
  await take("a date", event(["d", DATE, new Date(1700000000000), new Date(-1)]), () => io.emit("d", DATE, new Date(1700000000000), new Date(-1)), dates);
  await take("a date and binary", event(["d", DATE, BYTES]), () => io.emit("d", DATE, BYTES), { exact: false });
  await take("undefined", event(["u", undefined, { b: 1 }]), () => io.emit("u", undefined, { a: undefined, b: 1 }));
  await take("to a room", event(["r"], { rooms: ["room1"] }), () => io.to("room1").emit("r"));
  await take("to a room, binary", event(["r", BYTES], { rooms: ["room1"] }), () => io.to("room1").emit("r", BYTES));
  await take("to a socket", event(["r"], { rooms: ["abcdefghijklmnopqrst"] }), () => io.to("abcdefghijklmnopqrst").emit("r"));
  await take("to a numeric room", event(["r"], { rooms: ["123"] }), () => io.to(123).emit("r"), { exact: false });
  await take("to rooms", event(["r"], { rooms: ["a", "b"] }), () => io.to("a").to("b").emit("r"));
  await take("except", event(["r"], { rooms: ["a"], except: ["b", "c"] }), () => io.to("a").except(["b", "c"]).emit("r"));
  await take("volatile", event(["r"], { flags: { volatile: true } }), () => io.volatile.emit("r"));
  await take("uncompressed", event(["r"], { flags: { compress: false } }), () => io.compress(false).emit("r"));
  const chat = { namespace: "/chat", from: from("/chat") };
  await take("in a namespace", event(["r", 1], { rooms: ["room1"] }), () => io.of("/chat").to("room1").emit("r", 1), chat);
}

/** What it can ask of servers. */
async function moves(stage, from, io, { emitter = false } = {}) {
  const options = { from: from("/"), exact: !emitter };
  const take = (name, matter, act, more) => stage.take(name, matter, act, { ...options, ...more });
  await take("join", { kind: "join", rooms: ["r"], except: [], names: ["j1"] }, () => io.in("r").socketsJoin("j1"));
  await take("join of all", { kind: "join", rooms: [], except: [], names: ["j1", "j2"] }, () => io.socketsJoin(["j1", "j2"]));
  await take("leave", { kind: "leave", rooms: ["r"], except: ["s"], names: ["j1"] }, () => io.in("r").except("s").socketsLeave("j1"));
  await take("disconnect", { kind: "disconnect", rooms: [], except: [], close: false }, () => io.disconnectSockets());
  await take("disconnect and close", { kind: "disconnect", rooms: ["r"], except: [], close: true }, () => io.in("r").disconnectSockets(true));
  await take("server-side emit", { kind: "serverSideEmit", value: ["hello", "w", 1] }, () => io.serverSideEmit("hello", "w", 1));
}

/** What it can ask of servers, with an answer. */
async function requests(stage, from, io) {
  const options = { from: from("/") };
  const take = (name, matter, act, more) => stage.take(name, matter, act, { ...options, ...more });
  await take("fetch", { kind: "fetch", rooms: [], except: [], request: true }, () => void io.fetchSockets().catch(() => {}));
  await take("fetch of a room", { kind: "fetch", rooms: ["a"], except: ["b"], request: true }, () => void io.in("a").except("b").fetchSockets().catch(() => {}));
  await take("server-side emit with ack", { kind: "serverSideEmit", value: ["hello"], request: true }, () => io.serverSideEmit("hello", () => {}));
  // Only a buffer of Node itself says what it is in JSON.
  const binary = stage.dialect === "classic" ? ["b", { type: "Buffer", data: [3, 4] }] : ["b", BYTES];
  await take("server-side emit, binary", { kind: "serverSideEmit", value: binary }, () => io.serverSideEmit("b", BYTES));
  const ack = { kind: "broadcast", rooms: [], except: [], flags: { timeout: 100 }, value: ["ackme", "p"], request: true };
  await take("emit with ack", ack, () => io.timeout(100).emit("ackme", "p", () => {}));
  await take("emit with ack, binary", { ...ack, rooms: ["a"], value: ["ackme", BYTES] }, () => io.to("a").timeout(100).emit("ackme", BYTES, () => {}));
}

const HANDSHAKE = { headers: { host: "a" }, time: "Tue Nov 14 2023", address: "127.0.0.1", xdomain: false, secure: false, issued: 1700000000123, url: "/socket.io/?EIO=4", query: { EIO: "4" }, auth: { token: "t" } };

/** What it answers; `ask` feeds it a request from another server. */
async function answers(stage, from, { io, socket, client, ask, to }) {
  const options = { from: stage.dialect === "classic" ? undefined : from("/") };
  const take = (name, matter, act, more) => stage.take(name, { kind: "answer", to, request: true, ...matter }, act, { ...options, ...more });
  const fetched = [{ id: socket.id, rooms: [socket.id, "a"], handshake: JSON.stringify(HANDSHAKE), data: '{"name":"n"}' }];
  socket.handshake = HANDSHAKE;
  socket.data = { name: "n" };
  await take("sockets", { answer: "sockets", sockets: fetched }, () => ask.fetch());
  if (stage.dialect !== "classic") {
    socket.data = { name: BYTES };
    const binary = [{ ...fetched[0], data: '{"name":{"$binary":"AwQ="}}' }];
    await take("sockets with binary data", { answer: "sockets", sockets: binary }, () => ask.fetch(), { exact: false });
  }
  await take("no sockets", { answer: "sockets", sockets: [] }, () => ask.fetch(["nobody"]));
  for (const [name, value] of [["a text", "yes"], ["nil", null], ["undefined", undefined], ["an object", { a: [1] }]]) {
    io.once("ask", (done) => done(value));
    // msgpack of the streams adapter says that something undefined is there, as nil.
    const meant = value === undefined && stage.dialect === "streams" ? { answer: "value", value: null } : { answer: "value", value };
    await take(`${name} to a server-side emit`, meant, () => ask.emit(["ask"]));
  }
  if (stage.dialect !== "classic") {
    io.once("ask", (done) => done(BYTES));
    await take("binary to a server-side emit", { answer: "value", value: BYTES }, () => ask.emit(["ask"]));
  }
  await take("no clients", { answer: "clients", count: 0 }, () => ask.broadcast(["q"], ["nobody"]));
  for (const [name, value] of [["a number", 1], ["binary", { b: BYTES }], ["nothing", undefined], ["nil", null]]) {
    let reply;
    client.once("q", (done) => (reply = done));
    await take(`one client (${name})`, { answer: "clients", count: 1 }, () => ask.broadcast(["q"], ["a"]));
    while (!reply) await new Promise((done) => setTimeout(done, 5));
    const meant = value === undefined && stage.dialect === "streams" ? null : value;
    const act = () => (value === undefined ? reply() : reply(value));
    stage.redis.said.length = 0;
    act();
    while (!stage.redis.said.length) await new Promise((done) => setTimeout(done, 5));
    const said = stage.redis.said.slice();
    await take(`${name} as an ack`, { answer: "ack", value: meant }, () => stage.redis.said.push(...said));
  }
}

async function server(adapter, options = {}) {
  const http = createServer();
  const io = new Server(http, { adapter, ...options });
  io.of("/chat");
  await once(http.listen(0, "127.0.0.1"), "listening");
  return { io, http, port: http.address().port };
}

async function visitor({ io, port }) {
  const connection = once(io, "connection");
  const client = connect(`http://127.0.0.1:${port}`, { transports: ["websocket"] });
  const [socket] = await connection;
  if (!client.connected) await once(client, "connect");
  socket.join("a");
  return { client, socket };
}

const listened = {};
const OTHER = "zzzzzz";
const ASKED = "Request-1";

async function classic() {
  const redis = new Redis();
  const running = await server(createAdapter(redis, redis.duplicate()));
  const { io } = running;
  const uid = (namespace) => io.of(namespace).adapter.uid;
  listened.classic = { uid: uid("/chat"), heard: redis.heard.filter((name) => Object.values(name)[0].includes("#/chat#")) };
  const stage = new Stage("redis-adapter", "classic", redis, requestOf);
  await broadcasts(stage, uid, io);
  await moves(stage, uid, io);
  await requests(stage, uid, io);
  listened.classic.counted = redis.counted;
  await stage.take("all rooms", { kind: "rooms", request: true }, () => void io.of("/").adapter.allRooms().catch(() => {}), { from: uid("/") });

  const { pack } = await import("./node_modules/@socket.io/redis-adapter/node_modules/notepack.io/lib/index.js").then((module) => ({ pack: module.default.encode }));
  const { client, socket } = await visitor(running);
  const say = (request) => redis.hear("socket.io-request#/#", request);
  const ask = {
    fetch: (rooms = []) => say({ uid: OTHER, requestId: ASKED, type: 5, opts: { rooms, except: [] } }),
    emit: (data) => say({ uid: OTHER, requestId: ASKED, type: 6, data }),
    broadcast: (data, rooms) => say(pack({ uid: OTHER, requestId: ASKED, type: 7, packet: { type: 2, data, nsp: "/" }, opts: { rooms, except: [], flags: { timeout: 1000 } } })),
  };
  await answers(stage, uid, { io, socket, client, ask, to: "" });
  const old = (name, matter, request) => stage.take(name, { kind: "answer", to: "", request: true, ...matter }, () => say(request));
  await old("all ids", { answer: "ids", ids: [socket.id] }, { uid: OTHER, requestId: ASKED, type: 0, rooms: [] });
  await old("rooms", { answer: "rooms", rooms: [socket.id, "a"] }, { uid: OTHER, requestId: ASKED, type: 1 });
  await old("join of long ago", { answer: "done" }, { requestId: ASKED, type: 2, sid: socket.id, room: "b" });
  client.close();

  const emitting = new Redis();
  const emitter = new Emitter(emitting);
  const outside = new Stage("redis-emitter", "classic", emitting, requestOf);
  const nobody = () => "emitter";
  await broadcasts(outside, nobody, emitter, { emitter: true });
  // `moves` are without a uid, but for the last.
  emitting.said.length = 0;
  await moves(outside, () => undefined, emitter, { emitter: true });
  vectors.at(-1).from = "emitter";
  io.close();
}

async function sharded(mode) {
  const redis = new Redis();
  const running = await server(createShardedAdapter(redis, redis.duplicate(), { subscriptionMode: mode }));
  const { io } = running;
  const uid = (namespace) => io.of(namespace).adapter.uid;
  const dialect = `sharded ${mode}`;
  listened[dialect] = { uid: uid("/chat"), heard: redis.heard.filter((name) => Object.values(name)[0].includes("#/chat#")) };
  const stage = new Stage(`sharded-adapter ${mode}`, dialect, redis, requestOf);
  if (mode !== "dynamic") {
    const event = (rooms, more) => ({ kind: "broadcast", rooms, except: [], flags: {}, value: ["r"], ...more });
    const take = (name, matter, act) => stage.take(name, matter, act, { from: uid("/") });
    await take("to a room", event(["room1"]), () => io.to("room1").emit("r"));
    await take("to a socket", event(["abcdefghijklmnopqrst"]), () => io.to("abcdefghijklmnopqrst").emit("r"));
    await take("to rooms", event(["a", "b"]), () => io.to(["a", "b"]).emit("r"));
    await io.fetchSockets().catch(() => {});
    listened[dialect].counted = { SHARDNUMSUB: "socket.io#/#" };
    return io.close();
  }
  await broadcasts(stage, uid, io);
  await moves(stage, uid, io);
  await requests(stage, uid, io);
  listened[dialect].counted = redis.counted;
  const { client, socket } = await visitor(running);
  const say = (type, data) => redis.hear("socket.io#/#", { type, data, uid: OTHER, nsp: "/" });
  const ask = {
    fetch: (rooms = []) => say(7, { opts: { rooms, except: [], flags: {} }, requestId: ASKED }),
    emit: (packet) => say(9, { requestId: ASKED, packet }),
    broadcast: (data, rooms) => say(3, { packet: { type: 2, data }, requestId: ASKED, opts: { rooms, except: [], flags: { timeout: 1000 } } }),
  };
  await answers(stage, uid, { io, socket, client, ask, to: OTHER });
  client.close();
  io.close();
}

async function streams() {
  const { encode } = require("@msgpack/msgpack");
  const redis = new Redis();
  const running = await server(createStreamsAdapter(redis), { connectionStateRecovery: {} });
  const { io } = running;
  await turn();
  const uid = (namespace) => io.of(namespace).adapter.uid;
  listened.streams = { uid: uid("/chat"), heard: redis.heard.filter((name) => Object.values(name)[0].includes("#/chat#")) };
  const stage = new Stage("streams-adapter", "streams", redis, requestOf);
  await broadcasts(stage, uid, io);
  await moves(stage, uid, io);
  await requests(stage, uid, io);
  listened.streams.counted = redis.counted;
  const { client, socket } = await visitor(running);
  const say = (type, data) => redis.hear("socket.io#/#", Buffer.from(encode({ type, data, uid: OTHER, nsp: "/" })));
  const ask = {
    fetch: (rooms = []) => say(7, { opts: { rooms, except: [], flags: {} }, requestId: ASKED }),
    emit: (packet) => say(9, { requestId: ASKED, packet }),
    broadcast: (data, rooms) => say(3, { packet: { type: 2, data }, requestId: ASKED, opts: { rooms, except: [], flags: { timeout: 1000 } } }),
  };
  await answers(stage, uid, { io, socket, client, ask, to: OTHER });
  redis.said.length = 0;
  io.of("/").adapter.persistSession({ sid: "sid-1", pid: "pid-1", rooms: ["sid-1", "a"], data: { name: "n" } });
  const { key, value } = redis.said[0];
  vectors.push({ name: "a session", dialect: "session", wire: { key, value }, matter: { sid: "sid-1", pid: "pid-1", rooms: ["sid-1", "a"], data: '{"name":"n"}' } });
  // The package of this emitter is not in every registry; this is what its source says it writes.
  const outside = new Redis();
  const emitter = new Stage("streams-emitter", "streams", outside, requestOf);
  const add = (type, data) => outside.xadd(["socket.io", "MAXLEN", "~", 10000, "*", "uid", "emitter", "nsp", "/", "type", `${type}`, "data", data]);
  const opts = { rooms: ["a"], flags: {}, except: ["b"] };
  const matter = { kind: "broadcast", rooms: ["a"], except: ["b"], flags: {} };
  const plain = JSON.stringify({ packet: { type: 2, data: ["x", DATE], nsp: "/" }, opts });
  await emitter.take("text", { ...matter, value: ["x", DATE] }, () => add(3, plain), { from: "emitter", exact: false });
  const packed = Buffer.from(encode({ packet: { type: 2, data: ["x", BYTES, DATE], nsp: "/" }, opts })).toString("base64");
  await emitter.take("binary", { ...matter, value: ["x", BYTES, DATE] }, () => add(3, packed), { from: "emitter", exact: false });
  const emit = JSON.stringify({ packet: ["hello", 1] });
  await emitter.take("server-side emit", { kind: "serverSideEmit", value: ["hello", 1] }, () => add(9, emit), { from: "emitter", exact: false });
  client.close();
  io.close();
}

await classic();
for (const mode of ["dynamic", "static", "dynamic-private"]) await sharded(mode);
await streams();
const file = new URL("../vectors/cluster.json", import.meta.url);
const lines = vectors.map((vector) => `  ${JSON.stringify(vector)}`).join(",\n");
writeFileSync(file, `{ "listened": ${JSON.stringify(listened)},\n"vectors": [\n${lines}\n] }\n`);
console.log(`${vectors.length} vectors`);
process.exit(0);
