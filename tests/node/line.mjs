// A line between a client and its server that can be cut.

import net from "node:net";
import { next } from "./program.mjs";

/** A line between a client and the server that can be cut in several ways. */
export class Line {
  #pairs = new Set();
  open = true;

  static async to(server) {
    const line = new Line();
    line.listener = net.createServer((client) => line.#connect(client, server));
    line.listener.listen(0, "127.0.0.1");
    await next(line.listener, "listening");
    line.url = `http://127.0.0.1:${line.listener.address().port}`;
    return line;
  }

  #connect(client, server) {
    if (!this.open) return client.destroy();
    const far = net.connect(server.port, server.hostname);
    const pair = { client, far, silent: false };
    this.#pairs.add(pair);
    for (const socket of [client, far]) socket.setNoDelay(true).on("error", () => {});
    client.on("data", (data) => far.write(data));
    far.on("data", (data) => pair.silent || client.write(data));
    client.on("close", () => {
      if (pair.silent) return;
      far.destroy();
      this.#pairs.delete(pair);
    });
    far.on("close", () => {
      client.destroy();
      this.#pairs.delete(pair);
    });
  }

  /** Both sides see it. */
  cut() {
    for (const { client, far } of this.#pairs) client.destroy() && far.resetAndDestroy();
  }

  /** Only the client sees it: what the server says then goes nowhere. */
  halfCut() {
    for (const pair of this.#pairs) {
      pair.silent = true;
      pair.client.destroy();
    }
  }

  close() {
    this.open = false;
    this.listener.close();
    for (const { client, far } of this.#pairs) {
      client.destroy();
      far.destroy();
    }
  }
}
