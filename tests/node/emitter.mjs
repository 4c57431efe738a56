// An emitter: tells a cluster's servers and clients what it is told on stdin, and is no server.
//
// REDIS (port), KIND (classic, streams), LIBRARY (ioredis, redis). Lines as those of peer.mjs.

import { createInterface } from "node:readline";
import { encode } from "@msgpack/msgpack";
import { Emitter } from "@socket.io/redis-emitter";
import { connection, dressed } from "./cluster.mjs";
import { option, say } from "./program.mjs";

const redis = await connection();

/** The words of @socket.io/redis-streams-emitter 0.1, whose package is not in every registry. */
class StreamsEmitter {
  constructor(namespace = "/", words = { rooms: [], except: [], flags: {} }) {
    Object.assign(this, { namespace, words });
  }
  with(more) {
    return new StreamsEmitter(this.namespace, { ...this.words, ...more });
  }
  of(namespace) {
    return new StreamsEmitter(namespace);
  }
  to(rooms) {
    return this.with({ rooms: [...this.words.rooms, ...[rooms].flat()] });
  }
  except(rooms) {
    return this.with({ except: [...this.words.except, ...[rooms].flat()] });
  }
  get volatile() {
    return this.with({ flags: { ...this.words.flags, volatile: true } });
  }
  emit(...data) {
    const { rooms, flags, except } = this.words;
    return this.add(3, { packet: { type: 2, data, nsp: this.namespace }, opts: { rooms, flags, except } });
  }
  socketsJoin(rooms) {
    return this.add(4, { opts: { ...this.words, flags: {} }, rooms: [rooms].flat() });
  }
  socketsLeave(rooms) {
    return this.add(5, { opts: { ...this.words, flags: {} }, rooms: [rooms].flat() });
  }
  disconnectSockets(close = false) {
    return this.add(6, { opts: { ...this.words, flags: {} }, close });
  }
  serverSideEmit(...packet) {
    return this.add(9, { packet });
  }
  add(type, data) {
    const text = hasBinary(data) ? Buffer.from(encode(data)).toString("base64") : JSON.stringify(data);
    const fields = { uid: "emitter", nsp: this.namespace, type: `${type}`, data: text };
    if (option("LIBRARY", "ioredis") === "redis") return redis.xAdd("socket.io", "*", fields);
    return redis.xadd("socket.io", "MAXLEN", "~", 10000, "*", ...Object.entries(fields).flat());
  }
}

function hasBinary(value) {
  if (ArrayBuffer.isView(value)) return true;
  return value !== null && typeof value === "object" && Object.values(value).some(hasBinary);
}

const emitter = option("KIND") === "streams" ? new StreamsEmitter() : new Emitter(redis);

const of = (namespace) => (namespace === "/" ? emitter : emitter.of(namespace));

/** Whom it is for. */
function audience({ namespace = "/", to = [], except = [], volatile }) {
  const whom = of(namespace).to(to).except(except);
  return volatile ? whom.volatile : whom;
}

const DEEDS = {
  emit: (words) => audience(words).emit(words.name, ...dressed(words.args ?? [])),
  join: (words) => audience(words).socketsJoin(words.rooms),
  leave: (words) => audience(words).socketsLeave(words.rooms),
  disconnect: (words) => audience(words).disconnectSockets(words.close),
  tell: ({ namespace = "/", args = [] }) => of(namespace).serverSideEmit("told", ...dressed(args)),
};

say("ready");
for await (const line of createInterface({ input: process.stdin })) {
  const { do: word, ...words } = JSON.parse(line);
  await DEEDS[word](words);
  say("done");
}
process.exit(0);
