// What every program here shares: its deadline, its steps, its waiting.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

let doing = "starting";

/** One line of what was seen, as JSON. */
export function say(event, more = {}) {
  console.log(JSON.stringify({ event, ...more }));
}

/** The environment variable `name`, or `fallback`; without either the program ends. */
export function option(name, fallback) {
  const value = process.env[name] || fallback;
  if (value === undefined) fail(new Error(`the environment variable ${name} is missing`));
  return value;
}

/** The same for a whole number. */
export function number(name, fallback) {
  const value = Number(option(name, fallback));
  if (!Number.isInteger(value) || value < 0) fail(new Error(`${name} is not a whole number`));
  return value;
}

/** Runs `body` under the deadline and turns its outcome into the exit code. */
export function program(body, seconds = 60) {
  const limit = number("DEADLINE_MS", seconds * 1000);
  const timer = setTimeout(() => fail(new Error(`deadline of ${limit} ms passed`)), limit);
  process.on("unhandledRejection", fail);
  process.on("uncaughtException", fail);
  body().then(() => {
    clearTimeout(timer);
    say("passed");
    // Exit handlers of a browser or a socket must not keep a finished program alive.
    process.exit(0);
  }, fail);
}

function fail(error) {
  console.error(`FAILED while ${doing}: ${error?.stack ?? error}`);
  process.exit(1);
}

/** Runs one named step; its name is in the reason if it fails or hangs. */
export async function step(name, body) {
  doing = name;
  const began = performance.now();
  const result = await body();
  say("step", { name, ms: Math.round(performance.now() - began) });
  return result;
}

/** The next `event` of `emitter`. */
export function next(emitter, event) {
  return new Promise((resolve) => emitter.once(event, (...args) => resolve(args)));
}

/** Every `event` of `emitter` from now on, in order. */
export class Inbox {
  #items = [];
  #wake = () => {};

  constructor(emitter, event) {
    emitter.on(event, (...args) => {
      this.#items.push(args);
      this.#wake();
    });
  }

  get size() {
    return this.#items.length;
  }

  async take() {
    while (this.#items.length === 0) {
      await new Promise((resolve) => (this.#wake = resolve));
    }
    return this.#items.shift();
  }

  clear() {
    this.#items.length = 0;
  }
}

/** Options of a stock client, from TRANSPORTS and CA. */
export function clientOptions() {
  const transports = option("TRANSPORTS", "polling,websocket").split(",");
  for (const name of transports) assert.ok(["polling", "websocket"].includes(name), name);
  return {
    transports,
    ca: process.env.CA ? readFileSync(process.env.CA) : undefined,
    forceNew: true,
    reconnectionDelay: 20,
    reconnectionDelayMax: 500,
  };
}
