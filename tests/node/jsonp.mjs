// A browser's page of another origin with the client of Socket.IO 2, by scripts and forms (JSONP),
// and by what browsers have for it since (CORS).
//
// URL, CHROMIUM, DEADLINE_MS.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { launch, watch } from "./chromium.mjs";
import { option, program, step } from "./program.mjs";

const url = option("URL").replace(/\/$/, "");
const client = createRequire(import.meta.url).resolve("socket.io-client-2/dist/socket.io.js");
const WAYS = {
  scripts: { forceJSONP: true, transports: ["polling"] },
  polling: { transports: ["polling"] },
  websocket: { transports: ["websocket"] },
  upgrade: {},
};

/** Runs in the page: what came back of what was said. */
function talk([url, options]) {
  const text = "a\\nb\nc \"quoted\" žluťoučký 🐎 \u2028 + & = %41 </script>";
  const sent = [{ text }, [1, null, "\\n"], "x".repeat(5000)];
  return new Promise((resolve, reject) => {
    const socket = window.io(url, { ...options, forceNew: true });
    for (const event of ["error", "connect_error"]) {
      socket.on(event, (error) => reject(new Error(`${event}: ${error?.message ?? error}`)));
    }
    socket.on("echo", (...event) => {
      const bytes = new Uint8Array([0, 1, 254, 255]);
      socket.emit("binary", { bytes: bytes.buffer }, (ack) => {
        const { engine } = socket.io;
        const done = () => {
          const scripts = "script" in engine.transport;
          const { name } = engine.transport;
          socket.close();
          const same = JSON.stringify(event) === JSON.stringify(sent);
          resolve({ same, event, ack, scripts, name });
        };
        // A browser complains of a WebSocket that is closed before it was open.
        if (options.transports || engine.transport.name === "websocket") done();
        else engine.on("upgrade", done);
      });
    });
    socket.on("connect", () => socket.emit("echo", ...sent));
  });
}

program(async () => {
  const server = createServer((request, response) => {
    const script = request.url === "/socket.io.js";
    response.setHeader("content-type", script ? "text/javascript" : "text/html; charset=utf-8");
    const icon = "<link rel=icon href=data:,>";
    response.end(script ? readFileSync(client) : `${icon}<body><script src=/socket.io.js></script>`);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const browser = await launch();
  const complaints = [];
  for (const [name, options] of Object.entries(WAYS)) {
    await step(name, async () => {
      const page = await browser.newPage();
      watch(page, name, complaints);
      await page.goto(`http://127.0.0.1:${server.address().port}/`);
      const { same, event, ack, ...transport } = await page.evaluate(talk, [url, options]);
      assert.ok(same, JSON.stringify(event));
      assert.deepEqual(ack, { error: { code: "unknown_event" } });
      const polls = ["scripts", "polling"].includes(name);
      const wanted = { scripts: name === "scripts", name: polls ? "polling" : "websocket" };
      assert.deepEqual(transport, wanted);
      await page.close();
    });
  }
  await browser.close();
  server.close();
  await step("nothing to complain of", () => assert.deepEqual(complaints, []));
});
