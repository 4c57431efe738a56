// What servers and emitters of a cluster share: their Redis, and values that JSON does not have.

import { Cluster, Redis } from "ioredis";
import { createClient, createCluster } from "redis";
import { number, option } from "./program.mjs";

/** A connection by the LIBRARY that is wanted; REDIS is one server of several with CLUSTER. */
export async function connection() {
  const port = number("REDIS");
  const url = `redis://127.0.0.1:${port}`;
  if (option("LIBRARY", "ioredis") === "ioredis") {
    const redis = process.env.CLUSTER ? new Cluster([{ host: "127.0.0.1", port }]) : new Redis(port, "127.0.0.1");
    redis.on("error", () => {});
    return redis;
  }
  const redis = process.env.CLUSTER ? createCluster({ rootNodes: [{ url }] }) : createClient({ url });
  redis.on("error", () => {});
  await redis.connect();
  return redis;
}

/** {"$binary": base64} and {"$date": milliseconds} become what they stand for. */
export function dressed(value) {
  if (Array.isArray(value)) return value.map(dressed);
  if (value === null || typeof value !== "object") return value;
  if ("$binary" in value) return Buffer.from(value.$binary, "base64");
  if ("$date" in value) return new Date(value.$date);
  if ("$undefined" in value) return undefined;
  return Object.fromEntries(Object.entries(value).map(([key, value]) => [key, dressed(value)]));
}

/** The way back. */
export function said(value) {
  if (Buffer.isBuffer(value) || value instanceof Uint8Array) return { $binary: Buffer.from(value).toString("base64") };
  if (value instanceof Date) return { $date: value.getTime() };
  if (Array.isArray(value)) return value.map(said);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, value]) => [key, said(value)]));
}
