// The application that the official Socket.IO v5 suite expects, behind the hub's hooks.
//
// PORT (3001). proxy.yaml beside this file sends it every CONNECT and every event.

import { createServer } from "node:http";

function answer({ type, event, args, sid, handshake }) {
  const back = (event, args) => ({ emit: [{ to: [sid], event, args }] });
  if (type === "connect") return back("auth", [handshake.auth]);
  if (event === "message") return back("message-back", args);
  return { ack: args };
}

createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(answer(JSON.parse(Buffer.concat(parts)))));
  });
}).listen(Number(process.env.PORT ?? 3001), "127.0.0.1");
