// A namespace that is connected, left and connected again before the server has answered, as
// React's strict mode does, and left and connected again in one breath later, beside another on the same connection, which must not notice.
//
// URL, CA, TRANSPORTS, DEADLINE_MS.

import assert from "node:assert/strict";
import { io } from "socket.io-client";
import { clientOptions, next, option, program, step } from "./program.mjs";

const url = option("URL").replace(/\/$/, "");

program(async () => {
  const steady = io(`${url}/bell`, clientOptions());
  const lost = [];
  steady.on("disconnect", (reason) => lost.push(reason));
  await step("connect", () => next(steady, "connect"));

  const restless = steady.io.socket("/chat", { autoConnect: false });
  let connects = 0;
  restless.on("connect", () => (connects += 1));
  await step("connect, leave and connect", async () => {
    restless.connect();
    restless.disconnect();
    restless.connect();
    await next(restless, "connect");
  });

  await step("leave and connect", async () => {
    // In one write, or one body.
    restless.disconnect();
    restless.connect();
    await next(restless, "connect");
  });

  await step("both are there", async () => {
    assert.deepEqual(await restless.emitWithAck("join", "a"), { ok: true });
    assert.deepEqual(await steady.emitWithAck("hush"), { error: { code: "unknown_event" } });
    assert.deepEqual([connects, lost], [2, []]);
  });
  steady.io.engine.close();
});
