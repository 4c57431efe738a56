// A crowd of stock clients in one room that talks while processes change below it. Each says a number,
// waits for the acknowledgement (and says it again if none comes, as `retries` has it), says the next.
//
// URL, OTHER (a second node, for every other client), CA, TRANSPORTS, ROOM, CLIENTS, EVERY_MS (until "stop" or the end of stdin). After
// {"event":"ready"} all are in the room; the last line is the summary.

import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { io } from "socket.io-client";
import { clientOptions, number, option, program, say, step } from "./program.mjs";

const url = option("URL").replace(/\/$/, "");
const other = option("OTHER", url).replace(/\/$/, "");
const room = option("ROOM", "crowd");
const clients = number("CLIENTS", 20);
const everyMs = number("EVERY_MS", 20);
const PATIENCE_MS = 20_000;
const options = { ...clientOptions(), retries: 20, ackTimeout: 5_000 };

const sum = {
  sent: 0, acked: 0, out_of_order: 0, refused: 0, received: 0, gaps: 0, duplicates: 0,
  connects: 0, recovered: 0, anew: 0, connect_errors: 0,
};
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let talking = true;

class Member {
  // By sender, the number of the last message heard.
  seen = new Array(clients).fill(0);
  sent = 0;
  acked = 0;

  constructor(index) {
    this.index = index;
    this.socket = io(`${index % 2 ? other : url}/chat`, options);
    this.socket.on("connect", () => {
      sum.connects += 1;
      if (this.joined) sum[this.socket.recovered ? "recovered" : "anew"] += 1;
    });
    this.socket.on("connect_error", (error) => {
      sum.connect_errors += 1;
      say("connect_error", { client: index, reason: error.message, why: error.description?.message });
    });
    this.socket.on("message", ({ text }) => this.hear(...text.split(":").map(Number)));
  }

  async join() {
    const ack = await this.socket.emitWithAck("join", room);
    assert.ok(ack.ok, JSON.stringify(ack));
    this.joined = true;
  }

  hear(sender, n) {
    sum.received += 1;
    const last = this.seen[sender];
    if (n <= last) {
      sum.duplicates += 1;
      return say("duplicate", { client: this.index, sender, n, last });
    }
    if (n > last + 1) say("gap", { client: this.index, sender, n, last });
    sum.gaps += n - last - 1;
    this.seen[sender] = n;
  }

  async talk() {
    while (talking) {
      const n = ++this.sent;
      sum.sent += 1;
      const ack = await this.socket.emitWithAck("message", { room, text: `${this.index}:${n}` });
      if (!ack.ok) sum.refused += 1;
      if (n !== this.acked + 1) sum.out_of_order += 1;
      this.acked = n;
      sum.acked += 1;
      await pause(everyMs);
    }
  }

  missing(members) {
    return members.reduce((all, { index, sent }) => {
      return index === this.index ? all : all + Math.max(0, sent - this.seen[index]);
    }, 0);
  }
}

program(async () => {
  const stop = new Promise((resolve) => {
    const lines = createInterface({ input: process.stdin });
    lines.on("line", resolve);
    lines.on("close", resolve);
  });
  const members = Array.from({ length: clients }, (_, index) => new Member(index));
  await step("everybody joins", () => Promise.all(members.map((member) => member.join())));
  say("ready", { clients });
  await step("talking", async () => {
    const talks = members.map((member) => member.talk());
    await stop;
    talking = false;
    await Promise.all(talks);
  });
  await step("the last messages arrive", async () => {
    const missing = () => members.reduce((all, member) => all + member.missing(members), 0);
    const until = performance.now() + PATIENCE_MS;
    while (missing() > 0 && performance.now() < until) await pause(10);
    sum.gaps += missing();
  });
  members.forEach(({ socket }) => socket.disconnect());
  process.stdout.write(`${JSON.stringify({ event: "summary", ...sum })}\n`, () => process.exit(0));
  await new Promise(() => {});
}, 300);
