// Counts and hashes a body as it arrives; keeps none of it.

import { createHash } from "node:crypto";

export async function POST(request: Request) {
  const hash = createHash("sha256");
  let bytes = 0;
  if (request.body) {
    const reader = request.body.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      bytes += part.value.byteLength;
      hash.update(part.value);
    }
  }
  return Response.json({ bytes, sha256: hash.digest("hex") });
}
