// The page's Socket.IO sockets, one per namespace, all over one connection.

import { io, type Socket } from "socket.io-client";

const sockets = new Map<string, Socket>();

/** The one socket of `namespace`; the caller connects it. Only for the browser. */
export function socketOf(namespace: string): Socket {
  let socket = sockets.get(namespace);
  if (!socket) {
    // A second io() of the same namespace would open a second connection.
    socket = io(namespace, { autoConnect: false });
    sockets.set(namespace, socket);
  }
  return socket;
}

/** What an ack carries: `{ok: true}` or `{error: {code}}`. */
export type Ack = { ok?: true; error?: { code: string } };
