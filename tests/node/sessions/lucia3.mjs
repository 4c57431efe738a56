// Lucia 3 with its own adapters. URL, STORE (postgres, mysql or sqlite), DATABASE.

import { Mysql2Adapter } from "@lucia-auth/adapter-mysql";
import { NodePostgresAdapter } from "@lucia-auth/adapter-postgresql";
import { LibSQLAdapter } from "@lucia-auth/adapter-sqlite";
import { createClient } from "@libsql/client";
import { Lucia, generateIdFromEntropySize } from "lucia";
import mysql from "mysql2/promise";
import pg from "pg";
import { option, program } from "../program.mjs";
import { comesAndGoes, pair } from "./clients.mjs";

const database = option("DATABASE");

// Tables as the documentation of each adapter has them.
const STORES = {
  async postgres() {
    const pool = new pg.Pool({ connectionString: database });
    await pool.query("CREATE TABLE auth_user (id TEXT PRIMARY KEY)");
    await pool.query(
      "CREATE TABLE user_session (id TEXT PRIMARY KEY, expires_at TIMESTAMPTZ NOT NULL, " +
        "user_id TEXT NOT NULL REFERENCES auth_user(id))",
    );
    const add = (id) => pool.query("INSERT INTO auth_user VALUES ($1)", [id]);
    return [new NodePostgresAdapter(pool, { user: "auth_user", session: "user_session" }), add];
  },
  async mysql() {
    const pool = mysql.createPool(database);
    await pool.query("CREATE TABLE user (id VARCHAR(255) PRIMARY KEY)");
    await pool.query(
      "CREATE TABLE user_session (id VARCHAR(255) PRIMARY KEY, expires_at DATETIME NOT NULL, " +
        "user_id VARCHAR(255) NOT NULL, FOREIGN KEY (user_id) REFERENCES user(id))",
    );
    const add = (id) => pool.query("INSERT INTO user VALUES (?)", [id]);
    return [new Mysql2Adapter(pool, { user: "user", session: "user_session" }), add];
  },
  async sqlite() {
    const client = createClient({ url: `file:${database}` });
    await client.execute("PRAGMA journal_mode = WAL");
    await client.execute("CREATE TABLE user (id TEXT NOT NULL PRIMARY KEY)");
    await client.execute(
      "CREATE TABLE session (id TEXT NOT NULL PRIMARY KEY, expires_at INTEGER NOT NULL, " +
        "user_id TEXT NOT NULL, FOREIGN KEY (user_id) REFERENCES user(id))",
    );
    const add = (id) => client.execute({ sql: "INSERT INTO user VALUES (?)", args: [id] });
    return [new LibSQLAdapter(client, { user: "user", session: "session" }), add];
  },
};

program(async () => {
  const [adapter, add] = await STORES[option("STORE")]();
  const lucia = new Lucia(adapter, { sessionCookie: { attributes: { secure: false } } });
  const user = generateIdFromEntropySize(10);
  await add(user);
  const session = await lucia.createSession(user, {});
  const cookie = pair(lucia.createSessionCookie(session.id).serialize());
  await comesAndGoes("lucia 3", cookie, user, () => lucia.invalidateSession(session.id));
});
