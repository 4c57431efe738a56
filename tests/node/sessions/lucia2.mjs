// Lucia 2 on PostgreSQL. URL, DATABASE.

import { pg as adapter } from "@lucia-auth/adapter-postgresql-2";
import { lucia } from "lucia-2";
import { web } from "lucia-2/middleware";
import pg from "pg";
import { option, program } from "../program.mjs";
import { comesAndGoes, pair } from "./clients.mjs";

program(async () => {
  const pool = new pg.Pool({ connectionString: option("DATABASE") });
  await pool.query("CREATE TABLE auth_user (id TEXT NOT NULL PRIMARY KEY)");
  await pool.query(
    "CREATE TABLE user_key (id TEXT NOT NULL PRIMARY KEY, user_id TEXT NOT NULL " +
      "REFERENCES auth_user(id), hashed_password TEXT)",
  );
  await pool.query(
    "CREATE TABLE user_session (id TEXT NOT NULL PRIMARY KEY, user_id TEXT NOT NULL " +
      "REFERENCES auth_user(id), active_expires BIGINT NOT NULL, idle_expires BIGINT NOT NULL)",
  );
  const names = { user: "auth_user", key: "user_key", session: "user_session" };
  const auth = lucia({ adapter: adapter(pool, names), middleware: web(), env: "DEV" });
  const key = { providerId: "username", providerUserId: "anna", password: "correct horse" };
  const { userId } = await auth.createUser({ key, attributes: {} });
  const session = await auth.createSession({ userId, attributes: {} });
  const cookie = pair(auth.createSessionCookie(session).serialize());
  await comesAndGoes("lucia 2", cookie, userId, () => auth.invalidateSession(session.sessionId));
});
