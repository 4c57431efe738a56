// A crowd in one room that keeps talking until told to stop, then says what was lost.
//
// URL, CA, TRANSPORTS, ROOM, CLIENTS, EVERY_MS, SECONDS (without it: until "stop" or the end of stdin).
// After {"event":"ready"} all are in the room; {"event":"returned"} tells of each that was away and
// is heard again; the last line is the summary.

import { createInterface } from "node:readline";
import { io } from "socket.io-client";
import { clientOptions, next, number, option, program, say, step } from "./program.mjs";

const ACK_MS = 10_000;
const DRAIN_MS = 10_000;

const url = option("URL").replace(/\/$/, "");
const room = option("ROOM", "crowd");
const clients = number("CLIENTS", 20);
const everyMs = number("EVERY_MS", 50);
const seconds = number("SECONDS", 0);
const options = clientOptions();

const sum = {
  sent: 0,
  acked: 0,
  refused: 0,
  unanswered: 0,
  received: 0,
  gaps: 0,
  duplicates: 0,
  connects: 0,
  disconnects: 0,
  reconnects: 0,
  connect_errors: 0,
};

class Member {
  #number;
  #socket;
  #joined = false;
  #away = false;
  #pending = 0;
  // By sender, the number of the last message seen.
  #seen = new Array(clients).fill(0);
  sent = 0;

  constructor(number) {
    this.#number = number;
    this.#socket = io(`${url}/chat`, options);
    this.#socket.on("connect", () => {
      sum.connects += 1;
      this.#join();
    });
    this.#socket.on("disconnect", (reason, details) => {
      this.#joined = false;
      this.#away = true;
      sum.disconnects += 1;
      say("disconnect", { client: number, reason, details: details?.description?.message });
    });
    this.#socket.on("connect_error", (error) => {
      sum.connect_errors += 1;
      say("connect_error", { client: number, reason: error.message });
    });
    this.#socket.io.on("reconnect", () => (sum.reconnects += 1));
    this.#socket.on("message", ({ text }) => this.#receive(...text.split(":").map(Number)));
  }

  async #join() {
    const ack = await this.#socket.emitWithAck("join", room);
    if (!ack.ok) throw new Error(`join: ${JSON.stringify(ack)}`);
    this.#joined = true;
    this.#socket.io.engine.emit("joined");
  }

  async ready() {
    while (!this.#joined) {
      if (this.#socket.connected) await next(this.#socket.io.engine, "joined");
      else await next(this.#socket, "connect");
    }
  }

  #receive(sender, n) {
    sum.received += 1;
    const last = this.#seen[sender];
    if (n <= last) {
      sum.duplicates += 1;
      return;
    }
    sum.gaps += n - last - 1;
    this.#seen[sender] = n;
  }

  send() {
    // What a client buffers while it is away would be refused: it is in no room on its return.
    if (!this.#joined) return;
    this.sent += 1;
    sum.sent += 1;
    this.#pending += 1;
    const message = { room, text: `${this.#number}:${this.sent}` };
    this.#socket.timeout(ACK_MS).emit("message", message, (error, ack) => {
      this.#pending -= 1;
      if (error) sum.unanswered += 1;
      else if (!ack.ok) sum.refused += 1;
      else {
        sum.acked += 1;
        if (this.#away) say("returned", { client: this.#number });
        this.#away = false;
      }
    });
  }

  /** How many of the others' messages have not come yet. */
  missing(sent) {
    return sent.reduce((all, n, sender) => {
      return sender === this.#number ? all : all + Math.max(0, n - this.#seen[sender]);
    }, 0);
  }

  get pending() {
    return this.#pending;
  }

  close() {
    this.#socket.off("disconnect");
    this.#socket.disconnect();
  }
}

function stopped() {
  if (seconds) return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const lines = createInterface({ input: process.stdin });
  return new Promise((resolve) => {
    lines.on("line", (line) => line.trim() === "stop" && resolve());
    lines.on("close", resolve);
  });
}

program(async () => {
  const stop = stopped();
  const members = Array.from({ length: clients }, (_, number) => new Member(number));
  await step("everybody joins", () => Promise.all(members.map((member) => member.ready())));
  say("ready", { clients });

  await step("talking", async () => {
    const timers = members.map((member) => setInterval(() => member.send(), everyMs));
    await stop;
    timers.forEach(clearInterval);
    // A last word from each, so that whoever came back late has nothing older to wait for.
    members.forEach((member) => member.send());
  });

  await step("the last messages arrive", async () => {
    const sent = members.map((member) => member.sent);
    const missing = () => members.reduce((all, member) => all + member.missing(sent), 0);
    const pending = () => members.reduce((all, member) => all + member.pending, 0);
    const limit = performance.now() + DRAIN_MS;
    while ((missing() > 0 || pending() > 0) && performance.now() < limit) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    sum.unanswered += pending();
    sum.gaps += missing();
  });

  for (const member of members) member.close();
  // The program's closing line would come after the summary.
  process.stdout.write(`${JSON.stringify({ event: "summary", ...sum })}\n`, () => process.exit(0));
  await new Promise(() => {});
}, seconds ? seconds + 60 : 600);
