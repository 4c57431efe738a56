// Stock clients whose connections are cut come back as who they were, with what they missed.
//
// URL, TRANSPORTS, RECEIVERS, SENDERS, MESSAGES, DEADLINE_MS. Says "reload" and goes on when it is
// told that the server has read its configuration again.

import assert from "node:assert/strict";
import readline from "node:readline";
import { Manager } from "socket.io-client";
import { Line } from "./line.mjs";
import { Inbox, clientOptions, next, number, option, program, say, step } from "./program.mjs";

const RECEIVERS = number("RECEIVERS", 50);
const SENDERS = number("SENDERS", 4);
const MESSAGES = number("MESSAGES", 1000);
const ROOMS = ["one", "two", "three", "four"];
const OK = { ok: true };
const KINDS = [["websocket"], ["polling"], ["polling", "websocket"]];

const url = new URL(option("URL"));
const told = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

function connect(target, name, transports) {
  const manager = new Manager(String(target), { ...clientOptions(), transports });
  return manager.socket(name);
}

const once = (socket) => (socket.connected ? socket : next(socket, "connect").then(() => socket));

async function settled(socket, transports) {
  const wanted = transports.at(-1);
  while (socket.io.engine.transport.name !== wanted) await next(socket.io.engine, "upgrade");
}

program(async () => {
  const sender = await once(connect(url, "/chat", ["websocket"]));
  assert.equal(sender.recovered, false);
  for (const room of ROOMS) await sender.emitWithAck("join", room);

  for (const transports of KINDS) await oneByOne(sender, transports);
  await soak();
}, 120);

async function oneByOne(sender, transports) {
  const line = await Line.to(url);
  const socket = connect(line.url, "/chat", transports);
  const root = socket.io.socket("/");
  const inbox = new Inbox(socket, "message");
  await Promise.all([once(socket), once(root)]);
  assert.deepEqual(await socket.emitWithAck("join", "one"), OK);
  const title = (name) => `${transports.join("+")}: ${name}`;
  let count = 0;

  const send = async () => {
    const ack = await sender.emitWithAck("message", { room: "one", count: count++ });
    assert.deepEqual(ack, OK);
  };
  const expect = async (from) => {
    for (let at = from; at < count; at++) assert.equal((await inbox.take())[0].count, at);
    assert.equal(inbox.size, 0);
  };
  const returns = async (breakIt, between) => {
    const [id, rootId] = [socket.id, root.id];
    const gone = Promise.all([next(socket, "disconnect"), next(root, "disconnect")]);
    const back = Promise.all([next(socket, "connect"), next(root, "connect")]);
    line.open = false;
    breakIt();
    await gone;
    for (let more = 0; more < between; more++) await send();
    line.open = true;
    await back;
    assert.equal(socket.recovered, true);
    assert.equal(root.recovered, true);
    assert.deepEqual([socket.id, root.id], [id, rootId]);
    await settled(socket, transports);
  };
  const check = async (name, breakIt) => {
    for (const between of [0, 3]) {
      await step(title(`${name}, ${between} missed`), async () => {
        const from = count;
        await returns(breakIt, between);
        await send();
        await expect(from);
      });
    }
  };

  await settled(socket, transports);
  await check("before the first event, the line is cut", () => line.cut());
  await check("the line is cut", () => line.cut());
  await check("only the client notices", () => line.halfCut());
  await check("the client stops and starts", () => socket.io.engine.close());

  await step(title("after a reload"), async () => {
    say("reload");
    await told.next();
    const from = count;
    await returns(() => line.cut(), 2);
    await expect(from);
  });

  await step(title("a binary event and the volatile ones before it"), async () => {
    for (let more = 0; more < 3; more++) await sender.emitWithAck("typing", { room: "one" });
    const from = count;
    await returns(() => line.cut(), 1);
    await expect(from);
  });

  await step(title("not after a disconnect"), async () => {
    const id = socket.id;
    socket.disconnect().connect();
    await once(socket);
    assert.equal(socket.recovered, false);
    assert.notEqual(socket.id, id);
  });
  socket.io._close();
  line.close();
}

/** Continuous broadcasts, random cuts: everybody gets everything once and in order. */
async function soak() {
  const receivers = await Promise.all(
    Array.from({ length: RECEIVERS }, async (_, index) => {
      const line = await Line.to(url);
      const socket = connect(line.url, "/chat", KINDS[index % KINDS.length]);
      const rooms = ROOMS.filter((_, at) => (index + at) % 3 !== 0);
      const got = new Map();
      socket.on("message", ({ room, from, number }) => {
        const key = `${from} ${room}`;
        if (!got.has(key)) got.set(key, []);
        got.get(key).push(number);
      });
      await once(socket);
      for (const room of rooms) assert.deepEqual(await socket.emitWithAck("join", room), OK);
      const receiver = { line, socket, rooms, got, id: socket.id, cuts: 0, back: 0, lost: 0 };
      socket.on("connect", () => {
        receiver.back++;
        if (!socket.recovered || socket.id !== receiver.id) receiver.lost++;
      });
      return receiver;
    }),
  );
  const senders = await Promise.all(
    Array.from({ length: SENDERS }, () => once(connect(url, "/chat", ["websocket"]))),
  );
  for (const socket of senders) {
    for (const room of ROOMS) assert.deepEqual(await socket.emitWithAck("join", room), OK);
  }

  let sending = true;
  const cutting = (async () => {
    while (sending) {
      const receiver = receivers[Math.floor(Math.random() * receivers.length)];
      if (receiver.socket.connected) {
        receiver.cuts++;
        [() => receiver.line.cut(), () => receiver.line.halfCut()][Math.floor(Math.random() * 2)]();
      }
      await new Promise((resolve) => setTimeout(resolve, 3));
    }
  })();

  await step("messages under cuts", () =>
    Promise.all(
      senders.map(async (socket) => {
        for (let number = 0; number < MESSAGES; number++) {
          const room = ROOMS[number % ROOMS.length];
          const ack = await socket.emitWithAck("message", { room, number });
          assert.deepEqual(ack, OK);
        }
      }),
    ),
  );
  sending = false;
  await cutting;

  await step("everybody has everything", async () => {
    for (const [index, receiver] of receivers.entries()) {
      await once(receiver.socket);
      for (const { id } of senders) {
        for (const [at, room] of ROOMS.entries()) {
          const sent = Array.from({ length: MESSAGES }, (_, count) => count);
          const wanted = receiver.rooms.includes(room)
            ? sent.filter((count) => count % ROOMS.length === at)
            : [];
          const list = () => receiver.got.get(`${id} ${room}`) ?? [];
          const limit = Date.now() + 15_000;
          while (list().length < wanted.length && Date.now() < limit) {
            await new Promise((resolve) => setTimeout(resolve, 5));
          }
          const who = `receiver ${index} (${receiver.id}, ${KINDS[index % KINDS.length]})`;
          const [got, due] = [list().join(" "), wanted.join(" ")];
          if (got !== due) assert.fail(`${who} of ${id} in ${room}: ${got}\nwanted: ${due}`);
        }
      }
      assert.equal(receiver.lost, 0, `receiver ${index} began anew`);
    }
  });
  const sum = (field) => receivers.reduce((all, receiver) => all + receiver[field], 0);
  say("soak", { cuts: sum("cuts"), back: sum("back") });
  assert.ok(sum("back") >= RECEIVERS, "too few cuts to say anything");
  for (const { socket, line } of receivers) {
    socket.io._close();
    line.close();
  }
}
