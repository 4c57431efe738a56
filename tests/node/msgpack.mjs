// A client with socket.io-msgpack-parser and one without it, in the same rooms.
//
// URL, CA, TRANSPORTS ("polling", "websocket" or "polling,websocket"), DEADLINE_MS.

import assert from "node:assert/strict";
import { io } from "socket.io-client";
import parser from "socket.io-msgpack-parser";
import { Inbox, clientOptions, next, option, program, step } from "./program.mjs";

const OK = { ok: true };
const WHEN = new Date(1700000000123);
const NUMBERS = [0, -1, 1.5, -33, 200, -40000, 2 ** 31, 2 ** 40, -(2 ** 40), 1.5e-300, 0.1];
const TEXT = "žluťoučký kůň 🐎 \u0000\u2028\"\\ " + "long ".repeat(100);

const url = option("URL").replace(/\/$/, "");
const options = clientOptions();

async function connected(socket) {
  const failed = next(socket, "connect_error").then(([error]) => {
    throw new Error(`connect_error: ${error.message}`);
  });
  // Once connected, nobody waits for the loser of this race.
  failed.catch(() => {});
  if (!socket.connected) await Promise.race([next(socket, "connect"), failed]);
}

function bytes(length) {
  return Buffer.from(Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8)) & 0xff));
}

program(async () => {
  const packed = io(`${url}/chat`, { ...options, parser });
  const plain = io(`${url}/chat`, options);
  const third = io(`${url}/chat`, { ...options, parser, auth: { token: "x" } });
  const everyone = [packed, plain, third];
  const inboxes = new Map(everyone.map((socket) => [socket, new Inbox(socket, "message")]));

  await step("connect", () => Promise.all(everyone.map(connected)));

  await step("join", async () => {
    for (const socket of everyone) assert.deepEqual(await socket.emitWithAck("join", "a"), OK);
  });

  /** `from` says `message`; the others must get `wanted` of it. */
  async function say(from, message, wanted = message) {
    assert.deepEqual(await from.emitWithAck("message", { room: "a", ...message }), OK);
    for (const socket of everyone.filter((socket) => socket !== from)) {
      const [got] = await inboxes.get(socket).take();
      assert.deepEqual(got, { room: "a", ...wanted, from: from.id });
    }
  }

  for (const from of everyone) {
    await step("texts, numbers, nothing", async () => {
      const value = { TEXT, NUMBERS, none: null, yes: true, no: false, empty: [{}, [], ""] };
      await say(from, { value });
      await say(from, { list: Array.from({ length: 70 }, (_, at) => at), "": { "é\n\"": 1 } });
      await say(from, { _placeholder: true, num: 0 });
    });

    await step("binary data", async () => {
      for (const length of [0, 1, 255, 256, 70_000]) await say(from, { bytes: bytes(length) });
      await say(from, { n: 1, list: [bytes(5), { deep: bytes(7) }], after: "x" });
      const ten = Array.from({ length: 10 }, (_, at) => bytes(at));
      await say(from, { ten });
    });

    await step("a Date is its ISO string, what is undefined is gone", () =>
      say(from, { WHEN, list: [undefined, WHEN], gone: undefined }, {
        WHEN: WHEN.toISOString(),
        list: [null, WHEN.toISOString()],
      }),
    );
  }

  await step("an ArrayBuffer, which this parser writes in a way of its own", () =>
    say(packed, { bytes: new Uint8Array([1, 2, 3]).buffer }, { bytes: Buffer.from([1, 2, 3]) }),
  );

  await step("refusals", async () => {
    for (const socket of everyone) {
      const elsewhere = await socket.emitWithAck("message", { room: "b" });
      assert.deepEqual(elsewhere, { error: { code: "not_member" } });
      const unknown = await socket.emitWithAck("undeclared", bytes(3));
      assert.deepEqual(unknown, { error: { code: "unknown_event" } });
    }
  });

  await step("namespaces of one connection", async () => {
    const nowhere = packed.io.socket("/nowhere");
    const [error] = await next(nowhere, "connect_error");
    assert.equal(error.message, "Invalid namespace");
    const root = packed.io.socket("/");
    await connected(root);
    const echoes = new Inbox(root, "echo");
    // Without an id it is not answered.
    root.emit("echo", 1, bytes(2), null);
    assert.deepEqual(await echoes.take(), [1, bytes(2), null]);
    root.disconnect();
    assert.deepEqual(await packed.emitWithAck("leave", "a"), OK);
    assert.deepEqual(await packed.emitWithAck("join", "a"), OK);
  });

  await step("reconnect", async () => {
    const back = next(packed, "connect");
    packed.io.engine.close();
    await back;
    assert.deepEqual(await packed.emitWithAck("join", "a"), OK);
    await say(plain, { text: "welcome back" });
    await say(packed, { text: "thanks" });
  });

  await step("nothing came twice", () => {
    for (const inbox of inboxes.values()) assert.equal(inbox.size, 0);
  });

  for (const socket of everyone) socket.disconnect();
});
