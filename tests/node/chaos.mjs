// A crowd of stock clients that talk while nodes and their Redis fail, and a judge of what they hear.
//
// URL, CLIENTS, RATE (events a second), ROOM (members of each room), DEADLINE_MS. Begins to talk when
// all are in, and says "talking"; ends when it is told to on stdin. Its last line but one is the
// summary: what was acknowledged, lost, heard twice or out of order, and who began anew. Who began
// anew is somebody else: what that one hears of what it had heard before counts as `again`.

import readline from "node:readline";
import { Manager } from "socket.io-client";
import { clientOptions, number, option, program, say, step } from "./program.mjs";

const CLIENTS = number("CLIENTS", 100);
const RATE = number("RATE", 100);
const ROOM = number("ROOM", 20);
/** How long an event may take to be acknowledged, an outage of Redis included. */
const ACK_MS = 60_000;
/** Who is cut may not notice for so long: what was said meanwhile is missed if it begins anew. */
const UNNOTICED_MS = 10_000;
const SETTLE_MS = number("SETTLE_MS", 20_000);

const url = option("URL");
const told = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** All events, by number: who said it, where, when, and whether that was acknowledged. */
const events = [];

class Member {
  heard = [];
  /** When, and over which of its connections, each of these came. */
  cameBy = [];
  /** Who it was then: how often it had begun anew. */
  heardAs = [];
  connections = 0;
  lives = 0;
  /** Times in which it was nobody's: it began anew. */
  gaps = [];
  recovered = 0;
  ready = false;

  constructor(index) {
    this.index = index;
    this.room = `r${Math.floor(index / ROOM)}`;
    const transports = index % 10 === 0 ? ["polling", "websocket"] : ["websocket"];
    const options = { ...clientOptions(), transports, reconnectionDelay: 100, reconnectionDelayMax: 1000 };
    this.socket = new Manager(url, options).socket("/chat");
    this.socket.on("message", ({ n }) => {
      this.heard.push(n);
      this.cameBy.push(`${Date.now()} by ${this.connections}`);
      this.heardAs.push(this.lives);
    });
    this.socket.on("disconnect", () => (this.cutAt = Date.now()));
    this.socket.on("connect", () => this.#connected());
  }

  async #connected() {
    this.connections++;
    if (this.socket.recovered) this.recovered++;
    else this.lives++;
    // It may have been cut before it was in its room.
    if (this.socket.recovered && this.ready) return;
    const since = this.joinedAt === undefined ? undefined : (this.cutAt ?? Date.now()) - UNNOTICED_MS;
    this.ready = false;
    for (;;) {
      try {
        await this.socket.timeout(5_000).emitWithAck("join", this.room);
        break;
      } catch {
        if (!this.socket.connected) return void (this.lost ??= since);
      }
    }
    const from = this.lost ?? since;
    this.lost = undefined;
    this.joinedAt ??= Date.now();
    if (from !== undefined) this.gaps.push([from, Date.now()]);
    this.ready = true;
  }

  async talk() {
    const event = { n: events.length, from: this.index, room: this.room, at: Date.now(), acked: false };
    events.push(event);
    try {
      const ack = await this.socket.timeout(ACK_MS).emitWithAck("message", { room: this.room, n: event.n });
      event.acked = ack?.ok === true;
      event.ackedAt = Date.now();
      if (!event.acked) refusals.push(ack?.error?.code);
    } catch {
      // Cut: it may have been said or not.
    }
  }

  missed(event) {
    return this.gaps.some(([from, to]) => event.at >= from && event.at <= to);
  }
}

const refusals = [];

program(async () => {
  const members = [];
  await step("all come", async () => {
    for (let index = 0; index < CLIENTS; index++) {
      members.push(new Member(index));
      if (index % 50 === 49) await pause(20);
    }
    while (!members.every((member) => member.ready)) await pause(20);
  });
  say("talking");
  let talking = true;
  const talk = (async () => {
    const begun = Date.now();
    for (let count = 0; talking; count++) {
      const due = begun + (count * 1000) / RATE;
      if (due > Date.now()) await pause(due - Date.now());
      const member = members[Math.floor(Math.random() * members.length)];
      if (member.ready && member.socket.connected) void member.talk();
    }
  })();
  await told.next();
  talking = false;
  await talk;
  const summary = await step("all is heard", async () => {
    const until = Date.now() + SETTLE_MS;
    for (;;) {
      const found = judge(members);
      if (found.lost === 0 && found.waiting === 0) return found;
      if (Date.now() > until) return found;
      await pause(200);
    }
  });
  for (const { socket } of members) socket.io._close();
  say("summary", summary);
}, 400);

function judge(members) {
  const summary = {
    events: events.length, acked: 0, waiting: 0, deliveries: 0, lost: 0, excused: 0, twice: 0,
    again: 0, disordered: 0, recovered: 0, anew: 0, refused: refusals.length, lostAt: [], examples: [],
  };
  /** What was lost. */
  const lost = new Set();
  const byRoom = new Map();
  for (const event of events) {
    if (event.acked) summary.acked++;
    if (!byRoom.has(event.room)) byRoom.set(event.room, []);
    byRoom.get(event.room).push(event);
  }
  const example = (words) => summary.examples.length < 10 && summary.examples.push(words);
  const strange = (words) => summary.examples.length < 20 && summary.examples.push(words);
  for (const member of members) {
    summary.recovered += member.recovered;
    summary.anew += member.gaps.length;
    summary.deliveries += member.heard.length;
    if (!member.socket.connected || !member.ready) summary.waiting++;
    /** As whom each was heard. */
    const counts = new Map();
    const last = new Map();
    for (const [index, n] of member.heard.entries()) {
      const { from, at } = events[n];
      const before = counts.get(n);
      counts.set(n, member.heardAs[index]);
      if (before !== undefined && before !== member.heardAs[index]) {
        summary.again++;
      } else if (before !== undefined) {
        summary.twice++;
        const times = [member.heard.indexOf(n), index].map((index) => member.cameBy[index]);
        strange(`${member.index} heard ${n} of ${from}, said at ${at}, at ${times.join(" and ")}`);
      } else if ((last.get(from) ?? -1) > n) {
        summary.disordered++;
        strange(`${member.index} heard ${n} of ${from} after ${last.get(from)}`);
      }
      last.set(from, Math.max(last.get(from) ?? -1, n));
    }
    for (const event of byRoom.get(member.room) ?? []) {
      if (!event.acked || event.from === member.index || counts.has(event.n)) continue;
      if (member.missed(event)) summary.excused++;
      else {
        summary.lost++;
        lost.add(event);
        const ago = Date.now() - event.at;
        example(`${member.index} did not hear ${event.n} of ${event.from}, said ${ago} ms ago`);
      }
    }
  }
  // When it was said and when acknowledged, in milliseconds since 1970.
  summary.lostAt = [...lost].map(({ at, ackedAt }) => [at, ackedAt]);
  return summary;
}
