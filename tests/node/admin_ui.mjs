// What the page of Socket.IO's Admin UI does, by the stock client that it is made of.
//
// URL, USERNAME, PASSWORD, TRANSPORTS, DEADLINE_MS.

import assert from "node:assert/strict";
import { io } from "socket.io-client";
import { clientOptions, next, option, program, step } from "./program.mjs";

const url = option("URL").replace(/\/$/, "");
const credentials = { username: option("USERNAME"), password: option("PASSWORD") };
const COMMANDS = ["EMIT", "JOIN", "LEAVE", "DISCONNECT", "MJOIN", "MLEAVE", "MDISCONNECT"];

function open(namespace, auth) {
  return io(url + namespace, { ...clientOptions(), auth });
}

async function refused(auth) {
  const page = open("/admin", auth);
  const [error] = await next(page, "connect_error");
  page.close();
  return error.message;
}

/** A page that was let in, and what it was told in which order. */
async function admitted(auth) {
  const page = open("/admin", auth);
  const told = [];
  page.onAny((event) => told.push(event));
  page.on("connect", () => told.push("connect"));
  const session = next(page, "session");
  const config = next(page, "config");
  const failed = next(page, "connect_error").then(([error]) => Promise.reject(error));
  failed.catch(() => {});
  await Promise.race([next(page, "connect"), failed]);
  const [{ supportedFeatures }] = await config;
  return { page, told, session, supportedFeatures };
}

program(async () => {
  let sessionId;

  await step("strangers are refused", async () => {
    for (const auth of [
      {},
      { ...credentials, password: "wrong" },
      { ...credentials, username: "stranger" },
      { sessionId: "unknown" },
      { username: 1, password: {} },
    ]) {
      assert.equal(await refused(auth), "invalid credentials");
    }
  });

  await step("the password lets in and gives a session", async () => {
    const { page, told, session, supportedFeatures } = await admitted(credentials);
    [sessionId] = await session;
    assert.match(sessionId, /^[A-Za-z0-9_-]{16,}$/);
    assert.deepEqual(told.slice(0, 2), ["session", "connect"]);
    assert.deepEqual(supportedFeatures, [...COMMANDS, "AGGREGATED_EVENTS"]);
    page.close();
  });

  const { page, told } = await step("the session lets in without the password", () => admitted({ sessionId }));
  assert.ok(!told.includes("session"));

  const client = open("/", {});
  await next(client, "connect");

  await step("figures come every other second", async () => {
    await next(page, "server_stats");
    client.emit("hello", "x".repeat(1000));
    const stats = [];
    const kinds = new Set();
    while (!["packetsIn", "bytesIn", "bytesOut", "rawConnection"].every((kind) => kinds.has(kind)) || stats.length < 2) {
      const [words] = await next(page, "server_stats");
      stats.push(words);
      for (const { timestamp, type, count } of words.aggregatedEvents) {
        assert.equal(timestamp % 1000, 0);
        assert.ok(Math.abs(Date.now() - timestamp) < 20_000 && count > 0);
        kinds.add(type);
      }
      if (!kinds.has("rawConnection")) open("/", {});
      else client.emit("hello", "again");
    }
    const last = stats.at(-1);
    assert.ok(last.serverId && last.hostname && last.pid > 0 && last.uptime >= 2, JSON.stringify(last));
    assert.ok(last.clientsCount >= 2 && last.pollingClientsCount >= 0);
    const count = (name) => last.namespaces.find((known) => known.name === name)?.socketsCount;
    assert.ok(count("/admin") === 1 && count("/") >= 1 && count("/other") === 0, JSON.stringify(last));
  });

  await step("the page commands", async () => {
    const other = open("/", {});
    await next(other, "connect");
    page.emit("join", "/", "vip", client.id);
    page.emit("emit", "/", "vip", "news", { a: 1 }, [2]);
    assert.deepEqual(await next(client, "news"), [{ a: 1 }, [2]]);
    page.emit("leave", "/", "vip");
    let stray = false;
    client.once("stray", () => (stray = true));
    page.emit("emit", "/", "vip", "stray");
    const all = [next(client, "all"), next(other, "all")];
    page.emit("emit", "/", null, "all", new Uint8Array([1, 2, 3]));
    for (const [data] of await Promise.all(all)) {
      assert.deepEqual([...new Uint8Array(data)], [1, 2, 3]);
    }
    assert.ok(!stray);
    page.emit("_disconnect", "/", false, other.id);
    assert.deepEqual((await next(other, "disconnect"))[0], "io server disconnect");
    const closed = next(client.io.engine, "close");
    page.emit("_disconnect", "/", true, client.id);
    assert.deepEqual((await next(client, "disconnect"))[0], "io server disconnect");
    await closed;
    assert.ok(page.connected);
  });
});
