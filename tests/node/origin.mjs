// An application that can be killed: answers each request with its own process id.
//
// PORT: where it listens, on 127.0.0.1. `/slow/MS` is answered after so many milliseconds, with as
// many bytes of body. {"event":"ready"} is printed once it listens.

import { createServer } from "node:http";
import { number, say } from "./program.mjs";

const server = createServer((request, response) => {
  const slow = /^\/slow\/(\d+)/.exec(request.url);
  request.resume();
  request.on("end", () => {
    const answer = () => response.end(slow ? "x".repeat(Number(slow[1])) : String(process.pid));
    if (slow) setTimeout(answer, Number(slow[1]));
    else answer();
  });
});

server.listen(number("PORT"), "127.0.0.1", () => say("ready"));
