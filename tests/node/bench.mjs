// The chat of the benchmark by Node's servers, as nodes of one audience over Redis.
//
// REDIS (port), ADAPTER (classic, streams). Prints its address when it listens.

import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { createAdapter as createStreamsAdapter } from "@socket.io/redis-streams-adapter";
import { Redis } from "ioredis";
import { Server } from "socket.io";

const redis = new Redis(Number(process.env.REDIS), "127.0.0.1");
const streams = process.env.ADAPTER === "streams";
const adapter = streams ? createStreamsAdapter(redis) : createAdapter(redis, redis.duplicate());
const http = createServer();
const io = new Server(http, { adapter, perMessageDeflate: false, serveClient: false });

io.of("/chat").on("connection", (socket) => {
  socket.on("join", (room, ack) => {
    socket.join(`room:${room}`);
    ack({ ok: true });
  });
  socket.on("message", (message) => {
    socket.to(`room:${message.room}`).emit("message", message);
  });
});

http.listen(0, "127.0.0.1", () => {
  console.log(`listening 127.0.0.1:${http.address().port}`);
});
