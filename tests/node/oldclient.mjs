// Clients of Socket.IO 2 (Engine.IO 3) among those of today.
//
// URL, CA, TRANSPORTS ("polling", "websocket" or "polling,websocket"), DEADLINE_MS.

import assert from "node:assert/strict";
import { io } from "socket.io-client";
import old from "socket.io-client-2";
import { Inbox, clientOptions, next, option, program, step } from "./program.mjs";

const OK = { ok: true };
const TEXT = "žluťoučký kůň 🐎 こんにちは \u0000\u2028\"\\ " + "long 🐎 ".repeat(300);

const url = option("URL").replace(/\/$/, "");
const options = clientOptions();
const upgrades = options.transports.length > 1;
const transport = upgrades ? "websocket" : options.transports[0];

async function connected(socket) {
  const failed = next(socket, "error");
  const error = failed.then(([why]) => {
    throw new Error(`error: ${JSON.stringify(why)}`);
  });
  // Once connected, nobody waits for the loser of this race.
  error.catch(() => {});
  if (!socket.connected) await Promise.race([next(socket, "connect"), error]);
  return socket;
}

/** An event of either client's; resolves with its acknowledgement. */
function ask(socket, ...event) {
  return new Promise((resolve) => socket.emit(...event, resolve));
}

async function settled(socket) {
  const { engine } = socket.io;
  if (engine.transport.name !== transport) await next(engine, "upgrade");
  assert.equal(engine.transport.name, transport);
}

function bytes(length) {
  return Buffer.from(Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8)) & 0xff));
}

/** What either client makes of binary data. */
function plain(value) {
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) return Buffer.from(value);
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, plain(inner)]));
}

program(async () => {
  const before = old(`${url}/chat`, { ...options, query: { who: "a b&c" } });
  const other = old(`${url}/chat`, { ...options, forceBase64: true });
  const today = io(`${url}/chat`, options);
  const everyone = [before, other, today];
  const inboxes = new Map(everyone.map((socket) => [socket, new Inbox(socket, "message")]));

  await step("connect", () => Promise.all(everyone.map(connected)));

  await step("join", async () => {
    for (const socket of everyone) assert.deepEqual(await ask(socket, "join", "a"), OK);
  });

  /** `from` says `message`, and the others must get it. */
  async function say(from, message) {
    assert.deepEqual(await ask(from, "message", { room: "a", ...message }), OK);
    const wanted = plain({ room: "a", ...message });
    for (const socket of everyone.filter((socket) => socket !== from)) {
      const [{ from: sender, ...got }] = await inboxes.get(socket).take();
      assert.deepEqual(plain(got), wanted);
      assert.match(sender, /^[A-Za-z0-9_-]{20}$/);
    }
  }

  await step("while the transport may still change", async () => {
    for (let n = 0; n < 50; n++) for (const from of everyone) await say(from, { n });
  });

  await step(`transport is ${transport}`, () => Promise.all(everyone.map(settled)));

  for (const from of everyone) {
    await step("text", () => say(from, { text: TEXT, list: [1, null, { a: [] }] }));

    await step("binary data", async () => {
      for (const length of [0, 1, 255, 256, 70_000]) await say(from, { bytes: bytes(length) });
      await say(from, { n: 1, list: [bytes(5), { deep: bytes(7) }], text: TEXT });
    });

    await step("many at once, in order", async () => {
      const asked = Array.from({ length: 100 }, (_, n) => {
        const data = n % 10 === 0 ? { bytes: bytes(n) } : {};
        return ask(from, "message", { room: "a", n, ...data });
      });
      for (const ack of await Promise.all(asked)) assert.deepEqual(ack, OK);
      for (const socket of everyone.filter((socket) => socket !== from)) {
        for (let n = 0; n < 100; n++) {
          const [got] = await inboxes.get(socket).take();
          assert.equal(got.n, n);
          if (n % 10 === 0) assert.deepEqual(plain(got.bytes), bytes(n));
        }
      }
    });
  }

  await step("refusals", async () => {
    const elsewhere = await ask(before, "message", { room: "b" });
    assert.deepEqual(elsewhere, { error: { code: "not_member" } });
    const unknown = await ask(before, "undeclared", bytes(3));
    assert.deepEqual(unknown, { error: { code: "unknown_event" } });
  });

  await step("it is in / without asking, and in others of its connection", async () => {
    const root = old(`${url}/`, { ...options, query: { who: "d" } });
    await connected(root);
    const chat = await connected(root.io.socket("/chat", { query: { room: "x" } }));
    const echoes = new Inbox(root, "echo");
    root.emit("echo", 1, bytes(2), null);
    assert.deepEqual(plain(await echoes.take()), [1, bytes(2), null]);
    assert.deepEqual(await ask(chat, "join", "b"), OK);

    const nowhere = root.io.socket("/nowhere");
    const [error] = await next(nowhere, "error");
    assert.deepEqual(error, { message: "Invalid namespace" });

    chat.disconnect();
    root.emit("echo", "still");
    assert.deepEqual(await echoes.take(), ["still"]);
    root.close();
  });

  await step("heartbeat", async () => {
    const pong = next(before.io.engine, "pong");
    before.io.engine.ping();
    await pong;
  });

  await step("reconnect", async () => {
    const id = before.id;
    const back = next(before, "connect");
    before.io.engine.close();
    await back;
    assert.notEqual(before.id, id);
    assert.deepEqual(await ask(before, "join", "a"), OK);
    await settled(before);
    await say(other, { text: "welcome back" });
    await say(before, { text: "thanks" });
  });

  await step("nothing came twice", () => {
    for (const inbox of inboxes.values()) assert.equal(inbox.size, 0);
  });

  for (const socket of everyone) socket.disconnect();
});
