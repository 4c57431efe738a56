// What Lucia's author published after the library, as code to copy. URL, KIND, DATABASE (a file).

import { createHash, randomBytes } from "node:crypto";
import { createClient } from "@libsql/client";
import { option, program } from "../program.mjs";
import { DAY_MS, comesAndGoes } from "./clients.mjs";

const client = createClient({ url: `file:${option("DATABASE")}` });
const run = (sql, args = []) => client.execute({ sql, args });
const sha256 = (data) => createHash("sha256").update(data).digest();

function letters(count) {
  const alphabet = "abcdefghijkmnpqrstuvwxyz23456789";
  return [...randomBytes(count)].map((byte) => alphabet[byte >> 3]).join("");
}

const seconds = () => Math.floor(Date.now() / 1000);

const KINDS = {
  async "guide-2024"() {
    await run("CREATE TABLE user_session (id TEXT PRIMARY KEY, user_id INTEGER, expires_at INTEGER)");
    const token = letters(32);
    const id = sha256(token).toString("hex");
    const ends = Math.floor((Date.now() + 30 * DAY_MS) / 1000);
    await run("INSERT INTO user_session VALUES (?, 7, ?)", [id, ends]);
    return [`session=${token}`, 7, () => run("DELETE FROM user_session WHERE id = ?", [id])];
  },
  async "guide-2025"() {
    await run(
      "CREATE TABLE session (id TEXT PRIMARY KEY, secret_hash BLOB, user_id TEXT, " +
        "created_at INTEGER) STRICT",
    );
    const [id, secret] = [letters(24), letters(24)];
    await run("INSERT INTO session VALUES (?, ?, 'anna', ?)", [id, sha256(secret), seconds()]);
    const logout = () => run("DELETE FROM session WHERE id = ?", [id]);
    return [`session_token=${id}.${secret}`, "anna", logout];
  },
  async "file-2026"() {
    await run(
      "CREATE TABLE auth_session (id TEXT PRIMARY KEY, user_id INTEGER, secret_hash BLOB, " +
        "token_last_verified_at INTEGER, created_at INTEGER)",
    );
    const [id, secret, now] = [letters(16), randomBytes(32), seconds()];
    await run("INSERT INTO auth_session VALUES (?, 9, ?, ?, ?)", [id, sha256(secret), now, now]);
    const token = encodeURIComponent(`${id}.${secret.toString("base64")}`);
    return [`session=${token}`, 9, () => run("DELETE FROM auth_session WHERE id = ?", [id])];
  },
};

program(async () => {
  await run("PRAGMA journal_mode = WAL");
  const kind = option("KIND");
  const [cookie, user, logout] = await KINDS[kind]();
  await comesAndGoes(kind, cookie, user, logout);
});
