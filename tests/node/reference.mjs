// The rules of the demo by the stock Socket.IO server, to check the other programs against.
//
// NEXT (an app that everything else is passed on to). Its first line has the port; ends with stdin.

import { createServer, request } from "node:http";
import { connect } from "node:net";
import { Server } from "socket.io";
import { say } from "./program.mjs";

const OK = { ok: true };
const refused = (code) => ({ error: { code } });

const next = process.env.NEXT ? new URL(process.env.NEXT) : undefined;

const server = createServer((incoming, outgoing) => {
  if (!next) return outgoing.writeHead(404).end();
  const { hostname, port } = next;
  const { method, url: path, headers } = incoming;
  const onward = request({ hostname, port, method, path, headers }, (answer) => {
    outgoing.writeHead(answer.statusCode, answer.rawHeaders);
    answer.pipe(outgoing);
  });
  onward.on("error", () => outgoing.destroy());
  incoming.pipe(onward);
});

// Next's own WebSockets; engine.io's listener leaves alone what is not on its path.
server.on("upgrade", (incoming, socket, head) => {
  if (!next || incoming.url.startsWith("/socket.io/")) return;
  const onward = connect(Number(next.port), next.hostname, () => {
    const lines = [`${incoming.method} ${incoming.url} HTTP/1.1`];
    for (let at = 0; at < incoming.rawHeaders.length; at += 2) {
      lines.push(`${incoming.rawHeaders[at]}: ${incoming.rawHeaders[at + 1]}`);
    }
    onward.write(`${lines.join("\r\n")}\r\n\r\n`);
    onward.write(head);
    socket.pipe(onward).pipe(socket);
  });
  for (const end of [socket, onward]) {
    end.on("error", () => (socket.destroy(), onward.destroy()));
    end.on("close", () => (socket.destroy(), onward.destroy()));
  }
});

const io = new Server(server, { destroyUpgrade: false });

/** Answers each event by its rule, and every other one with a refusal. */
function obey(namespace, rules) {
  io.of(namespace).on("connection", (socket) => {
    socket.onAny((event, ...args) => {
      const ack = typeof args.at(-1) === "function" ? args.pop() : () => {};
      ack((rules[event] ?? (() => refused("unknown_event")))(socket, event, args));
    });
  });
}

function everyone(socket, event, args) {
  socket.broadcast.emit(event, ...args);
  return OK;
}

function inRoom({ stamp = false, volatile = false }) {
  return (socket, event, [first, ...rest]) => {
    const room = `room:${first?.room}`;
    if (!socket.rooms.has(room)) return refused("not_member");
    const to = volatile ? socket.volatile.to(room) : socket.to(room);
    to.emit(event, stamp ? { ...first, from: socket.id } : first, ...rest);
    return OK;
  };
}

obey("/", { shout: everyone });
obey("/chat", {
  join: (socket, _, [room]) => (socket.join(`room:${room}`), OK),
  leave: (socket, _, [room]) => (socket.leave(`room:${room}`), OK),
  message: inRoom({ stamp: true }),
  typing: inRoom({ stamp: true, volatile: true }),
  sticker: inRoom({}),
});
obey("/notifications", { ring: everyone });

server.listen(0, "127.0.0.1", () => say("ready", { port: server.address().port }));
process.stdin.on("end", () => process.exit(0)).resume();
