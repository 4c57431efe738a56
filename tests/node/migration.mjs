// The client of the guides in docs/, unchanged before and after.
//
// URL, and OTHER for a second client elsewhere (by default the same); PIN and PAGE are 1 if the
// server answers `pin`, and serves the app's pages; CA, DEADLINE_MS.

import assert from "node:assert/strict";
import { io } from "socket.io-client";
import { Inbox, clientOptions, next, option, program, step } from "./program.mjs";

const url = option("URL").replace(/\/$/, "");
const other = option("OTHER", url).replace(/\/$/, "");

program(async () => {
  const [ann, bob] = [url, other].map((base) => io(`${base}/chat`, { ...clientOptions(), forceNew: true }));
  const heard = Object.fromEntries(
    ["message", "typing", "pinned"].map((event) => [event, new Inbox(bob, event)]),
  );

  await step("connect", () =>
    Promise.all([ann, bob].map((socket) => socket.connected || next(socket, "connect"))),
  );
  await step("join", async () => {
    for (const socket of [ann, bob]) {
      assert.deepEqual(await socket.emitWithAck("join", "lobby"), { ok: true });
    }
  });
  await step("message", async () => {
    const message = { room: "lobby", text: "žluťoučký 🐎", from: "somebody else" };
    // Over Redis the other node may hear of its member's room a moment later.
    while (heard.message.size === 0) {
      assert.deepEqual(await ann.emitWithAck("message", message), { ok: true });
    }
    const [got] = await heard.message.take();
    assert.deepEqual(got, { ...message, from: ann.id });
  });
  if (option("PIN", "0") === "1") {
    await step("typing", async () => {
      ann.emit("typing", { room: "lobby" });
      const [got] = await heard.typing.take();
      assert.deepEqual(got, { room: "lobby", from: ann.id });
    });
    await step("pin", async () => {
      const { ok, count } = await ann.emitWithAck("pin", { room: "lobby", text: "read this" });
      assert.deepEqual({ ok, known: count >= 1 }, { ok: true, known: true });
      const [{ room, text, from }] = await heard.pinned.take();
      assert.deepEqual({ room, text, from }, { room: "lobby", text: "read this", from: ann.id });
    });
  }
  if (option("PAGE", "0") === "1") {
    await step("page", async () => {
      const answer = await fetch(`${url}/chat`);
      assert.equal(answer.status, 200);
      assert.match(await answer.text(), /<html/);
    });
  }
  ann.close();
  bob.close();
});
