// Auth.js 5: a login through its own handler, and sessions of its adapter for PostgreSQL.
// URL, SECRET, and DATABASE for those; or APPLICATION, a port at which its endpoint is served.

import { randomUUID } from "node:crypto";
import { Auth } from "@auth/core";
import Credentials from "@auth/core/providers/credentials";
import PostgresAdapter from "@auth/pg-adapter";
import pg from "pg";
import { option, program } from "../program.mjs";
import { DAY_MS, comesAndGoes, pair, pairs, serve } from "./clients.mjs";

const SITE = "http://localhost:3000";

function config(long) {
  const authorize = () => ({ id: "user-42", name: "Anna" });
  return {
    secret: option("SECRET"),
    trustHost: true,
    basePath: "/api/auth",
    providers: [Credentials({ credentials: { name: {} }, authorize })],
    callbacks: {
      jwt: ({ token }) => (long ? { ...token, roles: "x".repeat(6000) } : token),
      // Without it, nobody is told the user's id.
      session: ({ session, token }) => ({ ...session, user: { ...session.user, id: token.sub } }),
    },
  };
}

async function login(long) {
  const csrf = await Auth(new Request(`${SITE}/api/auth/csrf`), config(long));
  const { csrfToken } = await csrf.json();
  const headers = {
    cookie: pairs(csrf),
    "content-type": "application/x-www-form-urlencoded",
    "x-auth-return-redirect": "1",
  };
  const body = new URLSearchParams({ csrfToken, name: "anna" });
  const callback = `${SITE}/api/auth/callback/credentials`;
  const response = await Auth(new Request(callback, { method: "POST", headers, body }), config(long));
  const lines = response.headers.getSetCookie().map(pair);
  return lines.filter((line) => line.startsWith("authjs.session-token")).join("; ");
}

program(async () => {
  if (process.env.APPLICATION) {
    // The edge asks the application's own endpoint.
    const answer = (request) => Auth(request, config(false));
    await serve(Number(process.env.APPLICATION), answer);
    return comesAndGoes("asked", await login(false), "user-42");
  }
  if (process.env.DATABASE) {
    const pool = new pg.Pool({ connectionString: process.env.DATABASE });
    // As its documentation has it.
    await pool.query(
      'CREATE TABLE sessions (id SERIAL, "userId" INTEGER NOT NULL, ' +
        'expires TIMESTAMPTZ NOT NULL, "sessionToken" VARCHAR(255) NOT NULL, PRIMARY KEY (id))',
    );
    await pool.query(
      "CREATE TABLE users (id SERIAL, name VARCHAR(255), email VARCHAR(255), " +
        '"emailVerified" TIMESTAMPTZ, image TEXT, PRIMARY KEY (id))',
    );
    const adapter = PostgresAdapter(pool);
    const user = await adapter.createUser({ name: "Anna", email: "anna@example.test" });
    const sessionToken = randomUUID();
    const expires = new Date(Date.now() + 30 * DAY_MS);
    await adapter.createSession({ sessionToken, userId: user.id, expires });
    const logout = () => adapter.deleteSession(sessionToken);
    return comesAndGoes("rows", `authjs.session-token=${sessionToken}`, user.id, logout);
  }
  const short = await login(false);
  await comesAndGoes("one cookie", short, "user-42");
  const long = await login(true);
  if (!long.includes("authjs.session-token.1=")) throw new Error(`not in pieces: ${long}`);
  await comesAndGoes("in pieces", long, "user-42");
});
