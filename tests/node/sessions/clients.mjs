// Stock clients that come with a cookie, as a page of the application's would.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { io } from "socket.io-client";
import { next, option, step } from "../program.mjs";

const url = option("URL");
export const DAY_MS = 86_400_000;

/** What a `Set-Cookie` gives back with the next request. */
export function pair(line) {
  return line.split(";")[0];
}

/** All of them, in one line. */
export function pairs(response) {
  return response.headers.getSetCookie().map(pair).join("; ");
}

function open(cookie, transports) {
  const headers = { Cookie: cookie, Origin: new URL(url).origin };
  return io(url, { transports, extraHeaders: headers, forceNew: true, reconnection: false });
}

/** What answers Requests, on a port of this machine. */
export async function serve(port, answer) {
  const server = createServer(async (request, response) => {
    const target = new URL(request.url, "http://localhost:3000");
    const answered = await answer(new Request(target, { headers: request.headers }));
    response.writeHead(answered.status, Object.fromEntries(answered.headers));
    response.end(await answered.text());
  });
  await new Promise((ready) => server.listen(port, "127.0.0.1", ready));
}

/** A client that the edge takes for `user`, over both transports. */
export async function enters(cookie, user) {
  let socket;
  for (const transport of ["polling", "websocket"]) {
    socket?.disconnect();
    socket = open(cookie, [transport]);
    const failed = next(socket, "connect_error").then(([error]) => {
      throw new Error(`${transport}, ${cookie.split("=")[0]}: ${error.message}`);
    });
    failed.catch(() => {});
    await Promise.race([next(socket, "connect"), failed]);
    const told = next(socket, "all");
    socket.emit("all", { from: "somebody else" });
    assert.equal((await told)[0].from, String(user));
  }
  return socket;
}

/** The edge takes it for nobody. */
export async function refused(cookie) {
  const socket = open(cookie, ["websocket"]);
  const [error] = await next(socket, "connect_error");
  assert.equal(error.message, "unauthorized");
  socket.disconnect();
}

/** What every library must come to: in, kept out when anything is changed, out after the logout. */
export async function comesAndGoes(name, cookie, user, logout) {
  const socket = await step(`${name}: in`, () => enters(cookie, user));
  await step(`${name}: changed`, async () => {
    // Not at the end: the last letter of a signature may say nothing.
    const from = cookie.indexOf("=") + 1;
    const at = from + Math.floor((cookie.length - from) / 4);
    const other = cookie[at] === "a" ? "b" : "a";
    await refused(cookie.slice(0, at) + other + cookie.slice(at + 1));
  });
  if (!logout) return void socket.disconnect();
  await step(`${name}: out`, async () => {
    const gone = next(socket, "disconnect");
    await logout();
    assert.equal((await gone)[0], "io server disconnect");
    await refused(cookie);
  });
}
