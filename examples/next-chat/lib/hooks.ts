// What the hub asks, checked: only it knows the secret that signs each question.

import { createHmac, timingSafeEqual } from "node:crypto";

const SECRET = process.env.HOOK_SECRET ?? "insecure demo secret";
const TOLERANCE_S = 300;

/** A question about one client; see the hub's manual for all of it. */
export type Question = {
  /** The same when the question is repeated. */
  id: string;
  type: "connect" | "event" | "disconnect";
  sid: string;
  event: string;
  args: unknown[];
  rooms: string[];
};

/** The question in `request`, or null if somebody else asks. */
export async function questionOf(request: Request): Promise<Question | null> {
  const body = await request.text();
  const signature = request.headers.get("x-vestibule-signature") ?? "";
  const { t = "", v1 = "" } = Object.fromEntries(
    signature.split(",").map((part) => part.split("=", 2)),
  );
  const wanted = createHmac("sha256", SECRET).update(`${t}.${body}`).digest();
  const given = Buffer.from(v1, "hex");
  const fresh = Math.abs(Date.now() / 1000 - Number(t)) < TOLERANCE_S;
  if (!fresh || given.length !== wanted.length || !timingSafeEqual(given, wanted)) return null;
  return JSON.parse(body);
}
