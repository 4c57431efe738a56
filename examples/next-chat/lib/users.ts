// Users and their sessions: Lucia 3 over a SQLite file, which the edge reads too.

import { tmpdir } from "node:os";
import { join } from "node:path";
import { BetterSqlite3Adapter } from "@lucia-auth/adapter-sqlite";
import Database from "libsql";
import { Lucia } from "lucia";

const FILE = process.env.AUTH_DB ?? join(tmpdir(), "next-chat-users.db");

/** The file, with its tables, and Lucia on top of it. */
function open() {
  const db = new Database(FILE);
  // Whoever only reads is not held up by those who write.
  db.exec("PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 1000");
  db.exec(
    "CREATE TABLE IF NOT EXISTS user (id TEXT NOT NULL PRIMARY KEY, " +
      "name TEXT NOT NULL UNIQUE, password TEXT NOT NULL)",
  );
  db.exec(
    "CREATE TABLE IF NOT EXISTS session (id TEXT NOT NULL PRIMARY KEY, " +
      "expires_at INTEGER NOT NULL, user_id TEXT NOT NULL REFERENCES user(id))",
  );
  const adapter = new BetterSqlite3Adapter(db as never, { user: "user", session: "session" });
  const lucia = new Lucia(adapter, {
    getUserAttributes: (attributes: object) => attributes as { name: string },
  });
  return { db, lucia };
}

let opened: ReturnType<typeof open> | undefined;

/** Opened when it is first wanted: a build opens nothing. */
export function users() {
  return (opened ??= open());
}
