// The chat that every server of the benchmark offers, with Node's socket.io as it comes.
// Prints its address when it listens; SIGUSR2 collects garbage, so that its memory is at its best.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, {
  pingInterval: Number(process.env.PING_INTERVAL_MS),
  perMessageDeflate: false,
  serveClient: false,
});

io.of("/chat").on("connection", (socket) => {
  socket.on("join", (room, ack) => {
    socket.join(`room:${room}`);
    ack({ ok: true });
  });
  socket.on("leave", (room, ack) => {
    socket.leave(`room:${room}`);
    ack({ ok: true });
  });
  socket.on("message", (message) => {
    socket.to(`room:${message.room}`).emit("message", message);
  });
  socket.on("echo", (_message, ack) => {
    ack({ ok: true });
  });
});

process.on("SIGUSR2", () => globalThis.gc?.());

http.listen(0, "127.0.0.1", () => {
  console.log(`listening 127.0.0.1:${http.address().port}`);
});
