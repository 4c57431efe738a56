// Who is logged in, by Lucia 3.

import { randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { generateIdFromEntropySize, verifyRequestOrigin } from "lucia";
import { cookies } from "next/headers";
import { users } from "./users";

export type User = { id: string; name: string };
type Row = { id: string; password: string };

const NAME = /^[\p{L}\p{N}][\p{L}\p{N} ._-]{0,31}$/u;
const PASSWORD_MIN = 8;

const hash = promisify<string, Buffer, number, Buffer>(scrypt);

/** The cookie, which is `Secure` where the page came that way. */
function carry(request: Request, cookie: { name: string; value: string; attributes: object }) {
  const secure = request.headers.get("x-forwarded-proto") === "https";
  return [cookie.name, cookie.value, { ...cookie.attributes, secure }] as const;
}

/** True if a page of this site sent the form. */
export function isOwn(request: Request): boolean {
  const origin = request.headers.get("origin");
  const host = request.headers.get("x-forwarded-host") ?? request.headers.get("host");
  return origin !== null && host !== null && verifyRequestOrigin(origin, [host]);
}

/** Who asks for this page; null if nobody is logged in. */
export async function userOf(): Promise<User | null> {
  const { lucia } = users();
  const id = (await cookies()).get(lucia.sessionCookieName)?.value;
  const user = id ? (await lucia.validateSession(id)).user : null;
  return user && { id: user.id, name: (user as unknown as User).name };
}

/** Logs in, as somebody new if nobody has the name; what was wrong if that is not to be. */
export async function login(request: Request, name: string, password: string) {
  if (!NAME.test(name)) return "name";
  if (password.length < PASSWORD_MIN || password.length > 256) return "password";
  const { db, lucia } = users();
  let row = db.prepare("SELECT id, password FROM user WHERE name = ?").get(name) as Row | undefined;
  if (row) {
    const [salt, kept] = row.password.split(":").map((part) => Buffer.from(part, "hex"));
    if (!timingSafeEqual(await hash(password, salt, 32), kept)) return "wrong";
  } else {
    const salt = randomBytes(16);
    const kept = (await hash(password, salt, 32)).toString("hex");
    row = { id: generateIdFromEntropySize(10), password: `${salt.toString("hex")}:${kept}` };
    db.prepare("INSERT INTO user VALUES (?, ?, ?)").run(row.id, name, row.password);
  }
  const session = await lucia.createSession(row.id, {});
  (await cookies()).set(...carry(request, lucia.createSessionCookie(session.id)));
}

/** Ends the session; the edge sees the cookie go, and closes its sockets. */
export async function logout(request: Request) {
  const { lucia } = users();
  const jar = await cookies();
  const id = jar.get(lucia.sessionCookieName)?.value;
  if (id) await lucia.invalidateSession(id);
  jar.set(...carry(request, lucia.createBlankSessionCookie()));
}
