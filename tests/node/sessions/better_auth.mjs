// better-auth: a sign-up and a sign-out by its own API. URL, STORE (postgres, mysql, sqlite or
// redis), DATABASE, SECRET; with APPLICATION, a port at which its endpoints are served.

import { redisStorage } from "@better-auth/redis-storage";
import { LibsqlDialect } from "@libsql/kysely-libsql";
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { Redis } from "ioredis";
import mysql from "mysql2/promise";
import pg from "pg";
import { option, program } from "../program.mjs";
import { comesAndGoes, pairs, serve } from "./clients.mjs";

const database = option("DATABASE");
const STORES = {
  postgres: () => ({ database: new pg.Pool({ connectionString: database }) }),
  mysql: () => ({ database: mysql.createPool({ uri: database, timezone: "Z" }) }),
  sqlite: () => ({
    database: { dialect: new LibsqlDialect({ url: `file:${database}` }), type: "sqlite" },
  }),
  redis: () => ({
    database: { dialect: new LibsqlDialect({ url: `file:${option("USERS")}` }), type: "sqlite" },
    secondaryStorage: redisStorage({ client: new Redis(database) }),
  }),
};

program(async () => {
  const options = {
    ...STORES[option("STORE")](),
    secret: option("SECRET"),
    baseURL: "http://localhost:3000",
    emailAndPassword: { enabled: true },
    telemetry: { enabled: false },
  };
  const { runMigrations } = await getMigrations(options);
  await runMigrations();
  const auth = betterAuth(options);
  const body = { name: "Anna", email: "anna@example.test", password: "correct horse battery" };
  const answer = await auth.api.signUpEmail({ body, asResponse: true });
  const { user } = await answer.json();
  const cookie = pairs(answer);
  if (process.env.APPLICATION) await serve(Number(process.env.APPLICATION), auth.handler);
  const logout = () => auth.api.signOut({ headers: new Headers({ cookie }) });
  await comesAndGoes("better-auth", cookie, user.id, logout);
});
