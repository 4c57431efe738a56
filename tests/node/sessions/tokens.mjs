// A client whose page fetches a new token whenever one is needed. URL, SECRET.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { io } from "socket.io-client";
import { next, option, program, say, step } from "../program.mjs";

const secret = option("SECRET");
let made = 0;
let wrong = false;

function token() {
  made += 1;
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Math.floor(Date.now() / 1000);
  const claims = { sub: "anna", iss: "https://issuer.example.test", aud: "realtime" };
  const head = encode({ alg: "HS256", typ: "JWT" });
  const signed = `${head}.${encode({ ...claims, iat: now, exp: now + 60, jti: `${made}` })}`;
  const key = wrong ? `${secret}x` : secret;
  return `${signed}.${createHmac("sha256", key).update(signed).digest("base64url")}`;
}

program(async () => {
  const socket = io(option("URL"), {
    auth: (reply) => reply({ token: token() }),
    transports: ["websocket"],
    reconnectionDelay: 20,
    reconnectionDelayMax: 100,
  });
  await step("comes", () => next(socket, "connect"));
  const { id } = socket;
  const heard = next(socket, "all");
  // What it hears has an offset, from which it goes on.
  socket.emit("all", {});
  await heard;
  assert.equal(made, 1);
  // Something goes on, so that the edge looks at its clock.
  setInterval(() => socket.volatile.emit("all", {}), 20);

  const left = next(socket, "disconnect");
  const back = next(socket, "connect");
  say("first token");
  await step("is cut, and comes back as the same", async () => {
    assert.equal((await left)[0], "transport close");
    await back;
    assert.equal(socket.id, id);
    assert.equal(socket.recovered, true);
    assert.equal(made, 2);
  });

  wrong = true;
  const cut = next(socket, "disconnect");
  const refused = next(socket, "connect_error");
  say("next token");
  await step("is refused, and stays away", async () => {
    assert.equal((await cut)[0], "transport close");
    assert.equal((await refused)[0].message, "unauthorized");
    assert.equal(socket.active, false);
    assert.equal(made, 3);
  });
});
