// Two stock clients go through everything that the rules of the edge allow and refuse.
//
// URL, CA, TRANSPORTS ("polling", "websocket" or "polling,websocket"), UNKNOWN_CODE, DEADLINE_MS.

import assert from "node:assert/strict";
import { Manager, io } from "socket.io-client";
import { Inbox, clientOptions, next, number, option, program, say, step } from "./program.mjs";

const MESSAGES = number("MESSAGES", 200);
const BIG_BYTES = number("BIG_BYTES", 300 * 1024);
const VOLATILE_TRIES = 200;
const ID = /^[A-Za-z0-9_-]{20}$/;
const OK = { ok: true };
const TEXT = "žluťoučký kůň 🐎 こんにちは \u0000\u2028\"\\ \u{1F468}\u200D\u{1F469}\u200D\u{1F467}";

const url = option("URL").replace(/\/$/, "");
const unknownCode = option("UNKNOWN_CODE", "unknown_event");
const options = clientOptions();
const upgrades = options.transports.length > 1;
const transport = upgrades ? "websocket" : options.transports[0];

function refused(code) {
  return { error: { code } };
}

async function connected(socket) {
  if (socket.connected) return socket;
  const failed = next(socket, "connect_error").then(([error]) => {
    throw new Error(`connect_error: ${error.message} (${JSON.stringify(error.context ?? "")})`);
  });
  // Once connected, nobody waits for the loser of this race.
  failed.catch(() => {});
  await Promise.race([next(socket, "connect"), failed]);
  return socket;
}

async function settled(socket) {
  const engine = socket.io.engine;
  if (upgrades && engine.transport.name !== transport) await next(engine, "upgrade");
  assert.equal(engine.transport.name, transport);
}

function bytes(length) {
  return Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8)) & 0xff);
}

/** Sends `count` messages at once; the acks in the order in which they came. */
function burst(socket, room, label, count) {
  const acks = [];
  return new Promise((resolve) => {
    for (let n = 0; n < count; n++) {
      socket.emit("message", { room, text: `${label} ${n}` }, (ack) => {
        acks.push([n, ack]);
        if (acks.length === count) resolve(acks);
      });
    }
  });
}

async function expectBurst(inbox, from, room, label, count) {
  for (let n = 0; n < count; n++) {
    assert.deepEqual(await inbox.take(), [{ room, text: `${label} ${n}`, from }]);
  }
}

function inOrder(acks) {
  assert.deepEqual(acks, acks.map((_, n) => [n, OK]));
}

program(async () => {
  const a = io(`${url}/chat`, options);
  const b = io(`${url}/chat`, options);
  const toA = new Inbox(a, "message");
  const toB = new Inbox(b, "message");

  await step("connect", () => Promise.all([connected(a), connected(b)]));

  await step("ids", async () => {
    for (const socket of [a, b]) {
      assert.match(socket.id, ID);
      assert.match(socket.io.engine.id, ID);
      assert.notEqual(socket.id, socket.io.engine.id);
      assert.ok(!socket.recovered);
      say("client", { id: socket.id, engine: socket.io.engine.id });
    }
    assert.notEqual(a.id, b.id);
  });

  await step("join", async () => {
    assert.deepEqual(await a.emitWithAck("join", "lobby"), OK);
    assert.deepEqual(await b.emitWithAck("join", "lobby"), OK);
  });

  await step("messages while the transport may still change", async () => {
    const acks = await burst(a, "lobby", "early", 50);
    inOrder(acks);
    await expectBurst(toB, a.id, "lobby", "early", 50);
  });

  await step(`transport is ${transport}`, () => Promise.all([settled(a), settled(b)]));

  await step("relay both ways, stamped", async () => {
    assert.deepEqual(await a.emitWithAck("message", { room: "lobby", text: "from a" }), OK);
    assert.deepEqual(await toB.take(), [{ room: "lobby", text: "from a", from: a.id }]);
    assert.deepEqual(await b.emitWithAck("message", { room: "lobby", text: "from b" }), OK);
    // The first that A receives is B's, so its own did not come back.
    assert.deepEqual(await toA.take(), [{ room: "lobby", text: "from b", from: b.id }]);
  });

  await step("a forged stamp is overwritten", async () => {
    await a.emitWithAck("message", { room: "lobby", text: "forged", from: b.id });
    assert.deepEqual(await toB.take(), [{ room: "lobby", text: "forged", from: a.id }]);
  });

  await step("no ack asked", async () => {
    a.emit("message", { room: "lobby", text: "no ack" });
    assert.deepEqual(await toB.take(), [{ room: "lobby", text: "no ack", from: a.id }]);
  });

  await step("unicode", async () => {
    assert.deepEqual(await a.emitWithAck("message", { room: "lobby", text: TEXT }), OK);
    assert.deepEqual(await toB.take(), [{ room: "lobby", text: TEXT, from: a.id }]);
  });

  await step(`${MESSAGES} messages each way, in order, once`, async () => {
    const [acksA, acksB] = await Promise.all([
      burst(a, "lobby", "a", MESSAGES),
      burst(b, "lobby", "b", MESSAGES),
      expectBurst(toB, a.id, "lobby", "a", MESSAGES),
      expectBurst(toA, b.id, "lobby", "b", MESSAGES),
    ]);
    inOrder(acksA);
    inOrder(acksB);
    assert.equal(toA.size + toB.size, 0);
  });

  const stickers = new Inbox(b, "sticker");
  for (const length of [0, 1, 256, BIG_BYTES]) {
    await step(`binary, ${length} bytes`, async () => {
      const sent = bytes(length);
      assert.deepEqual(await a.emitWithAck("sticker", { room: "lobby", bytes: sent }), OK);
      const [sticker] = await stickers.take();
      assert.deepEqual(Object.keys(sticker), ["room", "bytes"]);
      assert.ok(Buffer.from(sent).equals(Buffer.from(sticker.bytes)), "bytes differ");
    });
  }

  await step("several attachments in one event", async () => {
    const event = { room: "lobby", bytes: bytes(3), list: [bytes(5), { deep: bytes(7) }], n: 1 };
    assert.deepEqual(await a.emitWithAck("sticker", event), OK);
    const [got] = await stickers.take();
    const lengths = [got.bytes, got.list[0], got.list[1].deep].map((part) => part.byteLength);
    assert.deepEqual(lengths, [3, 5, 7]);
    assert.equal(got.n, 1);
  });

  await step("volatile typing arrives", async () => {
    const typing = new Inbox(a, "typing");
    let tries = 0;
    // A volatile event may be dropped between two polls, so it is sent until one passes.
    while (typing.size === 0) {
      assert.ok(++tries <= VOLATILE_TRIES, "never arrived");
      assert.deepEqual(await b.emitWithAck("typing", { room: "lobby" }), OK);
      await b.emitWithAck("message", { room: "lobby", text: "fence" });
      await toA.take();
    }
    assert.deepEqual(await typing.take(), [{ room: "lobby", from: b.id }]);
    say("typing", { tries });
  });

  await step("ack with a timeout", async () => {
    const ack = await a.timeout(10_000).emitWithAck("message", { room: "lobby", text: "timed" });
    assert.deepEqual(ack, OK);
    await toB.take();
  });

  await step("refusals", async () => {
    const notMember = await a.emitWithAck("message", { room: "elsewhere", text: "x" });
    assert.deepEqual(notMember, refused("not_member"));
    assert.deepEqual(await a.emitWithAck("undeclared", 1), refused(unknownCode));
    assert.deepEqual(await a.emitWithAck("undeclared", { bytes: bytes(9) }), refused(unknownCode));
    assert.equal(a.connected, true);
  });

  await step("leave", async () => {
    for (const socket of [a, b]) assert.deepEqual(await socket.emitWithAck("join", "fence"), OK);
    assert.deepEqual(await a.emitWithAck("leave", "lobby"), OK);
    await b.emitWithAck("message", { room: "lobby", text: "A must not see this" });
    await b.emitWithAck("message", { room: "fence", text: "A must see this" });
    assert.deepEqual(await toA.take(), [{ room: "fence", text: "A must see this", from: b.id }]);
    const ack = await a.emitWithAck("message", { room: "lobby", text: "x" });
    assert.deepEqual(ack, refused("not_member"));
    assert.deepEqual(await a.emitWithAck("join", "lobby"), OK);
  });

  await step("an invalid namespace", async () => {
    const manager = new Manager(url, options);
    const [error] = await next(manager.socket("/nowhere"), "connect_error");
    assert.equal(error.message, "Invalid namespace");
    // Its neighbours on the same connection are not harmed.
    const good = await connected(manager.socket("/chat"));
    assert.deepEqual(await good.emitWithAck("join", "lobby"), OK);
    manager._close();
  });

  await step("three namespaces over one connection", async () => {
    const [one, two] = [new Manager(url, options), new Manager(url, options)];
    const open = (manager) =>
      Promise.all(["/", "/chat", "/notifications"].map((name) => connected(manager.socket(name))));
    const [[root, chat, bell], [root2, , bell2]] = await Promise.all([open(one), open(two)]);
    const engine = one.engine.id;
    assert.equal(new Set([root.id, chat.id, bell.id, engine]).size, 4);
    assert.ok([root, chat, bell].every((socket) => socket.io.engine.id === engine));

    const shouts = new Inbox(root2, "shout");
    const rings = new Inbox(bell2, "ring");
    assert.deepEqual(await root.emitWithAck("shout", { text: "all" }, 2, null), OK);
    assert.deepEqual(await shouts.take(), [{ text: "all" }, 2, null]);
    assert.deepEqual(await bell.emitWithAck("ring", { text: "ding" }), OK);
    assert.deepEqual(await rings.take(), [{ text: "ding" }]);
    assert.deepEqual(await chat.emitWithAck("ring", {}), refused(unknownCode));

    root.disconnect();
    assert.equal(root.connected, false);
    assert.deepEqual(await chat.emitWithAck("join", "lobby"), OK);
    assert.deepEqual(await bell.emitWithAck("ring", { text: "still" }), OK);
    assert.deepEqual(await rings.take(), [{ text: "still" }]);
    assert.equal(one.engine.id, engine);

    root.connect();
    await connected(root);
    assert.equal(root.io.engine.id, engine);
    assert.deepEqual(await root.emitWithAck("shout", "back"), OK);
    assert.deepEqual(await shouts.take(), ["back"]);
    for (const manager of [one, two]) manager._close();
  });

  await step("reconnect after the engine was closed", () => reconnects(() => a.io.engine.close()));

  const socket = a.io.engine.transport.ws;
  if (socket) await step("reconnect after a broken line", () => reconnects(() => socket.terminate()));

  async function reconnects(breakIt) {
    const before = { id: a.id, engine: a.io.engine.id };
    const back = next(a, "connect");
    const gone = next(a, "disconnect");
    breakIt();
    say("disconnect", { reason: (await gone)[0] });
    await back;
    await settled(a);
    assert.match(a.id, ID);
    assert.notEqual(a.id, before.id);
    assert.notEqual(a.io.engine.id, before.engine);
    // The new session is in no room.
    const ack = await a.emitWithAck("message", { room: "lobby", text: "x" });
    assert.deepEqual(ack, refused("not_member"));
    assert.deepEqual(await a.emitWithAck("join", "lobby"), OK);
    await b.emitWithAck("message", { room: "lobby", text: "welcome back" });
    assert.deepEqual(await toA.take(), [{ room: "lobby", text: "welcome back", from: b.id }]);
    await a.emitWithAck("message", { room: "lobby", text: "thanks" });
    assert.deepEqual(await toB.take(), [{ room: "lobby", text: "thanks", from: a.id }]);
  }

  await step("nothing came twice", async () => assert.equal(toA.size + toB.size, 0));

  await step("disconnect", async () => {
    for (const socket of [a, b]) {
      const { transport } = socket.io.engine;
      const closed = next(socket.io.engine, "close");
      const gone = next(socket, "disconnect");
      socket.disconnect();
      assert.equal((await gone)[0], "io client disconnect");
      await closed;
      // The engine counts as closed before the server was told, and this program ends soon.
      if (transport.name === "polling") await next(transport, "drain");
    }
  });
});
