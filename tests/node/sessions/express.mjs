// express-session with connect-redis, in a server of Node. URL, DATABASE, SECRET.

import { createServer } from "node:http";
import { RedisStore } from "connect-redis";
import session from "express-session";
import { createClient } from "redis";
import { option, program, step } from "../program.mjs";
import { comesAndGoes, pairs, refused } from "./clients.mjs";

program(async () => {
  const client = await createClient({ url: option("DATABASE") }).connect();
  const secret = ["the next one", option("SECRET")].reverse();
  const store = new RedisStore({ client });
  const handle = session({ store, secret, resave: false, saveUninitialized: true });
  const server = createServer((request, response) =>
    handle(request, response, () => {
      if (request.url === "/login") request.session.passport = { user: 42 };
      if (request.url === "/logout") return request.session.destroy(() => response.end());
      response.end();
    }),
  );
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const at = (path, cookie) =>
    fetch(`http://127.0.0.1:${server.address().port}${path}`, { headers: cookie ? { cookie } : {} });
  await step("a visitor has a session, and no name", async () => refused(pairs(await at("/"))));
  const cookie = pairs(await at("/login"));
  await comesAndGoes("express-session", cookie, 42, () => at("/logout", cookie));
});
