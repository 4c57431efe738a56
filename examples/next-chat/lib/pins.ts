// The pinned messages, one JSON line each, in a file that outlives the app.

import { appendFile, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export type Pin = { id: string; room: string; text: string; from: string; at: string };

const FILE = process.env.PINS_FILE ?? join(tmpdir(), "next-chat-pins.jsonl");

/** All of `room`, the oldest first. */
export async function pinsOf(room: string): Promise<Pin[]> {
  const text = await readFile(FILE, "utf8").catch(() => "");
  const pins = text.split("\n").filter(Boolean).map((line) => JSON.parse(line) as Pin);
  return pins.filter((pin) => pin.room === room);
}

export async function addPin(pin: Pin): Promise<void> {
  await appendFile(FILE, JSON.stringify(pin) + "\n");
}
