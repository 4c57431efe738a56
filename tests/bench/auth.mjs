// What sessions cost: connects with a session that is known, a crowd whose sessions nobody knows yet,
// and a store that is away for ten seconds. Prints JSON; see README.md.
//
// VESTIBULE (the binary), CLIENTS, CONNECTS, ROUNDS, OUT (a file for the JSON).

import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const number = (name, usual) => Number(process.env[name] || usual);
const VESTIBULE = resolve(process.env.VESTIBULE || "target/release/vestibule");
const [CLIENTS, CONNECTS, ROUNDS] = [number("CLIENTS", 10_000), number("CONNECTS", 3_000), number("ROUNDS", 5)];
const OUTAGE_MS = 10_000;
const PATIENCE_MS = 60_000;

const folder = mkdtempSync(join(tmpdir(), "vestibule-bench-auth-"));
const children = [];

function start(program, args, options = {}) {
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "ignore"], cwd: folder, ...options });
  children.push(child);
  return child;
}

async function eventually(what, ask) {
  const begun = Date.now();
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() - begun > PATIENCE_MS) throw new Error(`waited in vain for ${what}`);
    await sleep(20);
  }
}

function freePort() {
  return new Promise((found) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => found(port));
    });
  });
}

/** PostgreSQL in the folder; it does not run as root. */
class Postgres {
  async init() {
    const versions = readdirSync("/usr/lib/postgresql").sort();
    this.bin = `/usr/lib/postgresql/${versions.at(-1)}/bin`;
    this.port = await freePort();
    this.who = process.getuid() === 0 ? { uid: 65534, gid: 65534 } : {};
    this.home = join(folder, "pg");
    mkdirSync(this.home);
    if (process.getuid() === 0) execFileSync("chown", ["-R", "65534:65534", folder]);
    const words = ["-D", `${this.home}/data`, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"];
    execFileSync(`${this.bin}/initdb`, words, { stdio: "ignore", cwd: "/", ...this.who });
    await this.begin();
  }

  async begin() {
    const words = ["-D", `${this.home}/data`, "-p", String(this.port), "-k", this.home];
    const more = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"];
    this.child = start(`${this.bin}/postgres`, [...words, ...more], { cwd: "/", ...this.who });
    await eventually("PostgreSQL", () => {
      try {
        return this.ask("SELECT 1");
      } catch {
        return undefined;
      }
    });
  }

  async end() {
    const gone = new Promise((done) => this.child.once("exit", done));
    // At once, as a crash is.
    this.child.kill("SIGQUIT");
    await gone;
  }

  ask(sql) {
    const words = ["-h", "127.0.0.1", "-p", String(this.port), "-U", "postgres", "-qtAc", sql];
    return execFileSync("psql", words, { stdio: ["ignore", "pipe", "ignore"] }).toString().trim();
  }
}

/** The edge with this `auth` section and this door of /chat. */
class Edge {
  constructor(name, auth, door) {
    Object.assign(this, { name, auth, door, socket: join(folder, `${name}.sock`) });
  }

  async begin(workers) {
    this.port = await freePort();
    const file = join(folder, `${this.name}.yaml`);
    writeFileSync(
      file,
      `listen: { http: ["127.0.0.1:${this.port}"], https: [], admin: "unix:${this.socket}" }
workers: ${workers}
log: { access: { to: none } }
${this.auth}
hub:
  origins: ["http://localhost"]
  limits: { per_ip: 1000000, pending: 1000000, handshakes: 1000000/s, per_user: 1000000 }
  namespaces: { /chat: { auth: ${this.door}, events: deny } }
`,
    );
    this.child = start(VESTIBULE, ["run", "-c", file]);
    await eventually(this.name, () => this.metric("vestibule_build").catch(() => undefined));
  }

  /** The sum of a family's series, or of those whose labels contain `label`. */
  async metric(family, label = "") {
    const page = await new Promise((done, failed) => {
      const words = { socketPath: this.socket, path: "/metrics" };
      const request = http.get(words, (response) => {
        let text = "";
        response.on("data", (data) => (text += data)).on("end", () => done(text));
      });
      request.on("error", failed);
    });
    const lines = page.split("\n").filter((line) => line.startsWith(family) && line.includes(label));
    return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
  }

  /** Microseconds of processor time of all its threads. */
  cpu() {
    const folder = `/proc/${this.child.pid}/task`;
    const times = readdirSync(folder).map((task) => readFileSync(`${folder}/${task}/schedstat`, "utf8"));
    return times.reduce((sum, text) => sum + Number(text.split(" ")[0]), 0) / 1000;
  }

  end() {
    this.child.kill("SIGKILL");
  }
}

const session = (user) => `session${String(user).padStart(33, "0")}`;

/** A client's frame of text, which must be masked; a mask of zeros changes nothing. */
function frame(text) {
  const head = Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]);
  return Buffer.concat([head, Buffer.from(text)]);
}

/** One socket of /chat as `user`: resolves when it is in, with the milliseconds it took. */
function connect(edge, user, all) {
  return new Promise((done, failed) => {
    const begun = performance.now();
    const socket = net.connect(edge.port, "127.0.0.1");
    const entry = { socket, closed: false };
    all.push(entry);
    let [heard, state] = ["", "head"];
    socket.setNoDelay(true);
    socket.on("connect", () =>
      socket.write(
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: localhost\r\n" +
          "origin: http://localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n" +
          "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
          `cookie: theme=dark; auth_session=${session(user)}\r\n\r\n`,
      ),
    );
    socket.on("data", (data) => {
      const text = data.toString("latin1");
      if (state === "in") {
        if (text.endsWith("\x012")) socket.write(frame("3"));
        return;
      }
      heard += text;
      if (state === "head" && heard.includes('"sid"')) {
        state = "asked";
        socket.write(frame("40/chat,"));
      }
      if (heard.includes("40/chat,{")) {
        [state, heard] = ["in", ""];
        done(performance.now() - begun);
      } else if (heard.includes("44/chat,") || heard.includes(" 503 ")) {
        failed(new Error(`refused: ${heard.slice(-80)}`));
      }
    });
    socket.on("error", failed);
    socket.on("close", () => {
      entry.closed = true;
      failed(new Error("closed"));
    });
  });
}

/** `count` connects, `together` at a time, by `users` in turn. */
async function crowd(edge, count, together, users, all) {
  const times = [];
  let next = 0;
  const one = async () => {
    while (next < count) times.push(await connect(edge, next++ % users, all));
  };
  await Promise.all(Array.from({ length: Math.min(together, count) }, one));
  return times.sort((a, b) => a - b);
}

function leave(all) {
  for (const { socket } of all.splice(0)) socket.destroy();
}

const median = (list) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)];
const share = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];

/** Processor time of a connect with a session that is known, and without any. */
async function known(figures, auth) {
  const edges = [new Edge("open", "", "none"), new Edge("users", auth("cache: 1h, recheck: 1h"), "app")];
  for (const edge of edges) await edge.begin(1);
  const [all, costs] = [[], [[], []]];
  for (let round = -1; round < ROUNDS; round++) {
    // Whoever comes first in one round comes last in the next.
    for (const at of round % 2 === 0 ? [0, 1] : [1, 0]) {
      const edge = edges[at];
      const before = edge.cpu();
      await crowd(edge, CONNECTS, 32, 100, all);
      await sleep(200);
      // The first round warms, and fills the memory of sessions.
      if (round >= 0) costs[at].push((edge.cpu() - before) / CONNECTS);
      leave(all);
      await sleep(200);
    }
  }
  const [open, users] = costs.map(median);
  const queries = await edges[1].metric("vestibule_auth_queries_total");
  figures.push({ case: "connect-open", unit: "µs", value: open });
  figures.push({ case: "connect-known-session", unit: "µs", value: users });
  figures.push({ case: "known-session-adds", unit: "µs", value: users - open, goal: 15 });
  figures.push({ case: "known-session-queries", unit: "queries", value: queries });
  edges.forEach((edge) => edge.end());
}

/** Everybody comes back at once, and no session is known. */
async function cold(figures, auth, postgres) {
  const edge = new Edge("crowd", auth("cache: 5s, recheck: 1h"), "app");
  await edge.begin(2);
  const [all, lines] = [[], []];
  const watch = setInterval(() => {
    const sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vestibule'";
    lines.push(Number(postgres.ask(sql)));
  }, 250);
  const begun = performance.now();
  const times = await crowd(edge, CLIENTS, CLIENTS, CLIENTS, all);
  const took = performance.now() - begun;
  clearInterval(watch);
  const sockets = await edge.metric("vestibule_hub_sockets");
  const queries = await edge.metric("vestibule_auth_queries_total");
  const lookups = await edge.metric("vestibule_auth_lookups_total", "valid");
  const temporary = await edge.metric("vestibule_auth_lookups_total", "temporary");
  for (const [name, unit, value, goal] of [
    ["crowd-connected", "sockets", sockets, CLIENTS],
    ["crowd-all-in", "ms", took],
    ["crowd-p50", "ms", share(times, 0.5)],
    ["crowd-p99", "ms", share(times, 0.99)],
    ["crowd-lookups", "sessions", lookups],
    ["crowd-queries", "queries", queries],
    ["crowd-temporary", "answers", temporary],
    ["crowd-database-connections", "connections", Math.max(...lines, 0), 8],
  ]) {
    figures.push({ case: name, unit, value, ...(goal === undefined ? {} : { goal }) });
  }
  leave(all);
  edge.end();
}

/** The database dies, and is there again after ten seconds. */
async function outage(figures, auth, postgres) {
  const edge = new Edge("outage", auth("cache: 1s, recheck: 2s"), "app");
  await edge.begin(2);
  const [all, count] = [[], Math.min(1000, CLIENTS)];
  await crowd(edge, count, 64, count, all);
  await postgres.end();
  const failed = () => edge.metric("vestibule_auth_lookups_total", "temporary");
  await eventually("failed looks", async () => ((await failed()) > 0 ? true : undefined));
  await sleep(OUTAGE_MS);
  const missed = await failed();
  await postgres.begin();
  const valid = () => edge.metric("vestibule_auth_lookups_total", "valid");
  const before = await valid();
  await eventually("looks again", async () => ((await valid()) > before + count ? true : undefined));
  const dropped = all.filter((entry) => entry.closed).length;
  figures.push({ case: "outage-failed-looks", unit: "answers", value: missed });
  figures.push({ case: "outage-dropped", unit: "sockets", value: dropped, goal: 0 });
  leave(all);
  edge.end();
}

async function main() {
  const postgres = new Postgres();
  await postgres.init();
  postgres.ask("CREATE TABLE user_session (id TEXT PRIMARY KEY, user_id TEXT, expires_at TIMESTAMPTZ)");
  postgres.ask(
    "INSERT INTO user_session SELECT 'session' || lpad(n::text, 33, '0'), 'user' || n, " +
      `now() + interval '1 day' FROM generate_series(0, ${CLIENTS}) n`,
  );
  const url = `postgres://postgres@127.0.0.1:${postgres.port}/postgres`;
  const auth = (more) => `auth: { app: { lucia: v3, database: "${url}", ${more} } }`;
  const figures = [];
  const cases = { known, cold, outage };
  for (const name of (process.env.ONLY || "known,cold,outage").split(",")) {
    await cases[name](figures, auth, postgres);
  }
  for (const figure of figures) figure.value = Math.round(figure.value * 100) / 100;
  const json = JSON.stringify(figures, null, 2);
  console.log(json);
  if (process.env.OUT) {
    mkdirSync(dirname(process.env.OUT), { recursive: true });
    writeFileSync(process.env.OUT, `${json}\n`);
  }
}

main()
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  })
  .finally(() => {
    for (const child of children) child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
    process.exit();
  });
