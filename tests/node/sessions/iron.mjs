// iron-session: a sealed cookie. URL, SECRET.

import { getIronSession } from "iron-session";
import { option, program } from "../program.mjs";
import { comesAndGoes, pairs } from "./clients.mjs";

program(async () => {
  const response = new Response();
  const options = { password: option("SECRET"), cookieName: "app-session" };
  const session = await getIronSession(new Request("http://localhost/"), response, options);
  session.user = { id: 42, name: "Anna" };
  await session.save();
  await comesAndGoes("sealed", pairs(response), 42);
});
