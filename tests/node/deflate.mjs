// Clients that offer to compress their messages, among those that do not.
//
// URL, AGREED ("true" if the edge takes up the offer), DEADLINE_MS.

import assert from "node:assert/strict";
import { io } from "socket.io-client";
import old from "socket.io-client-2";
import parser from "socket.io-msgpack-parser";
import { Inbox, next, option, program, step } from "./program.mjs";

const url = option("URL").replace(/\/$/, "");
const agreed = option("AGREED") === "true";
const OK = { ok: true };
const offers = { perMessageDeflate: { threshold: 0 }, forceNew: true };

const clients = {
  websocket: [io, { ...offers, transports: ["websocket"] }],
  upgraded: [io, { ...offers, transports: ["polling", "websocket"] }],
  msgpack: [io, { ...offers, transports: ["websocket"], parser }],
  old: [old, { ...offers, transports: ["polling", "websocket"] }],
  base64: [old, { ...offers, transports: ["websocket"], forceBase64: true }],
  silent: [io, { forceNew: true, transports: ["websocket"], perMessageDeflate: false }],
};

const ask = (socket, ...event) => new Promise((resolve) => socket.emit(...event, resolve));
const words = "All work and no play makes Jack a dull boy. ".repeat(400);
const noise = Buffer.from(Uint8Array.from({ length: 5000 }, (_, at) => (at * at * 31) >> 3));

program(async () => {
  const sockets = new Map();
  for (const [name, [connect, options]] of Object.entries(clients)) {
    await step(`connect ${name}`, async () => {
      const socket = connect(`${url}/chat`, options);
      sockets.set(socket, new Inbox(socket, "message"));
      await next(socket, "connect");
      const { engine } = socket.io;
      if (engine.transport.name !== "websocket") await next(engine, "upgrade");
      const { extensions } = engine.transport.ws;
      const compressed = agreed && name !== "silent";
      assert.equal(extensions.includes("permessage-deflate"), compressed, extensions);
      assert.deepEqual(await ask(socket, "join", "a"), OK);
    });
  }
  for (const from of sockets.keys()) {
    await step("to each other", async () => {
      const said = [{}, { words }, { noise }, { words, bytes: Buffer.from(words) }];
      for (const message of said) {
        assert.deepEqual(await ask(from, "message", { room: "a", ...message }), OK);
        for (const [socket, inbox] of sockets) {
          if (socket === from) continue;
          const [got] = await inbox.take();
          assert.equal(got.words, message.words);
          for (const name of ["noise", "bytes"]) {
            if (message[name]) assert.ok(message[name].equals(Buffer.from(got[name])));
          }
        }
      }
    });
  }
  for (const socket of sockets.keys()) socket.close();
});
