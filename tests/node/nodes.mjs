// Stock clients behind a balancer that knows no sessions: they talk, nodes end, they talk again.
//
// URL, CLIENTS, DEADLINE_MS. Says "kill" and "end", and goes on when it is told that a node has been
// killed, and another has ended.

import assert from "node:assert/strict";
import readline from "node:readline";
import { Manager } from "socket.io-client";
import { clientOptions, next, number, option, program, say, step } from "./program.mjs";

const CLIENTS = number("CLIENTS", 12);
const KINDS = [["polling", "websocket"], ["polling"], ["websocket"]];

const url = option("URL");
const told = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

program(async () => {
  const clients = Array.from({ length: CLIENTS }, (_, index) => {
    const transports = KINDS[index % KINDS.length];
    const socket = new Manager(url, { ...clientOptions(), transports }).socket("/");
    const client = { index, socket, transports, heard: [], errors: 0 };
    socket.on("all", (round, from) => client.heard.push(`${round} ${from}`));
    socket.on("connect_error", () => client.errors++);
    return client;
  });
  const settled = async () => {
    for (const { socket, transports } of clients) {
      while (!socket.connected) await next(socket, "connect");
      const { engine } = socket.io;
      while (engine.transport.name !== transports.at(-1)) await next(engine, "upgrade");
    }
  };
  /**
   * Each says something, and everybody hears all of it once. Volatile: it is not kept for a
   * connection that is gone, nor for one that still waits for the answer to its last POST.
   */
  const talk = async (round, volatile = true) => {
    clients.forEach((client) => (client.heard = []));
    for (const { socket, index } of clients) {
      (volatile ? socket.volatile : socket).emit("all", round, index);
    }
    const wanted = clients.map(({ index }) => `${round} ${index}`).sort();
    const until = Date.now() + (volatile ? 5_000 : 20_000);
    const whole = () => clients.every(({ heard }) => heard.length >= wanted.length);
    while (!whole() && Date.now() < until) await pause(5);
    return clients.every(({ heard }) => JSON.stringify([...heard].sort()) === JSON.stringify(wanted));
  };
  const talkAgain = async (name) => {
    // Who has not noticed yet that its node is gone does so with its next request.
    for (let round = 0; round < 8; round++) {
      await settled();
      if (await talk(`${name} ${round}`)) return;
    }
    const counts = clients.map(({ heard, transports }) => `${transports}: ${heard.length}`);
    assert.fail(`not everybody hears everybody: ${counts.join(", ")}`);
  };

  await step("all connect and upgrade", settled);
  assert.deepEqual(clients.map(({ errors }) => errors), clients.map(() => 0));
  for (let round = 0; round < 5; round++) {
    await step(`they talk, ${round}`, async () => assert.ok(await talk(`first ${round}`, false)));
  }
  say("kill");
  await told.next();
  await step("after a crash", () => talkAgain("crash"));
  say("end");
  await told.next();
  await step("after a farewell", () => talkAgain("farewell"));
  const errors = clients.reduce((sum, client) => sum + client.errors, 0);
  for (const { socket } of clients) socket.io._close();
  say("summary", { errors });
}, 90);
