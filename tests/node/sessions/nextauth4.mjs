// NextAuth 4: a token as it makes it. URL, SECRET.

import { encode } from "next-auth/jwt";
import { option, program } from "../program.mjs";
import { comesAndGoes } from "./clients.mjs";

program(async () => {
  const secret = option("SECRET");
  const token = await encode({ token: { sub: "user-42", name: "Anna" }, secret });
  await comesAndGoes("token", `next-auth.session-token=${token}`, "user-42");
});
