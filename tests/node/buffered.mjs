// Stock clients of today and of then say much while they are away, and all of it when they are back.
//
// URL, EACH, DEADLINE_MS. What one says is to be heard whole, in its order and acknowledged, over one
// connection.

import assert from "node:assert/strict";
import { io } from "socket.io-client";
import old from "socket.io-client-2";
import { Line } from "./line.mjs";
import { clientOptions, next, number, option, program, say, step } from "./program.mjs";

const EACH = [400, number("EACH", 1500)];
const KINDS = [["websocket"], ["polling"], ["polling", "websocket"]];

const url = new URL(option("URL"));

async function connected(socket) {
  if (!socket.connected) await next(socket, "connect");
  return socket;
}

async function settled(socket, transports) {
  const { engine } = socket.io;
  while (engine.transport.name !== transports.at(-1)) await next(engine, "upgrade");
}

async function speaker(open, transports, count, name) {
  const line = await Line.to(url);
  const socket = await connected(open(line.url, { ...clientOptions(), transports }));
  await settled(socket, transports);
  const gone = next(socket, "disconnect");
  line.open = false;
  line.cut();
  await gone;
  let answered = 0;
  const all = new Promise((resolve) => {
    for (let at = 0; at < count; at++) {
      socket.emit("tell", { name, at }, (answer) => {
        assert.deepEqual(answer, { ok: true }, `${name}: ${at}`);
        assert.equal(at, answered++, `${name}: answers in their order`);
        if (answered === count) resolve();
      });
    }
  });
  const back = next(socket, "connect");
  line.open = true;
  await back;
  let ended;
  socket.on("disconnect", (why) => (ended = why));
  return { name, count, all, socket, line, ended: () => ended };
}

program(async () => {
  const hearer = await connected(io(String(url), { ...clientOptions(), transports: ["websocket"] }));
  const heard = new Map();
  hearer.on("tell", ({ name, at }) => {
    assert.equal(at, heard.get(name) ?? 0, `${name}: in its order, once`);
    heard.set(name, at + 1);
  });
  const speakers = await step("everybody is back", () =>
    Promise.all(
      KINDS.flatMap((transports) =>
        [io, old].map((open, which) => {
          const name = `${which ? "then" : "today"} over ${transports.join("+")}`;
          return speaker(open, transports, EACH[which ? 0 : 1], name);
        }),
      ),
    ),
  );
  for (const { name, count, all, socket, line, ended } of speakers) {
    await step(name, () => all);
    while ((heard.get(name) ?? 0) < count) await next(hearer, "tell");
    assert.equal(ended(), undefined, `${name} has lost its connection`);
    socket.close();
    line.close();
  }
  say("heard", Object.fromEntries(heard));
});
