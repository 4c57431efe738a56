// The hub asks here when somebody pins a message: it is stored, and the room hears of it.
//
// The reply's `ack` is what the client's acknowledgement carries.

import { questionOf } from "@/lib/hooks";
import { addPin, pinsOf } from "@/lib/pins";

const TEXT_MAX = 500;

export async function POST(request: Request) {
  const question = await questionOf(request);
  if (!question) return Response.json({ error: "not the hub" }, { status: 401 });

  const { room, text } = (question.args[0] ?? {}) as { room?: unknown; text?: unknown };
  if (typeof room !== "string" || typeof text !== "string" || !text || text.length > TEXT_MAX) {
    return Response.json({ error: { code: "bad_arguments" } }, { status: 422 });
  }
  if (!question.rooms.includes(`room:${room}`)) {
    return Response.json({ error: { code: "not_member" } }, { status: 422 });
  }

  const pins = await pinsOf(room);
  // A question that is repeated was answered already, but the answer was lost.
  let pin = pins.find((pin) => pin.id === question.id);
  const emit = [];
  if (!pin) {
    pin = { id: question.id, room, text, from: question.sid, at: new Date().toISOString() };
    await addPin(pin);
    pins.push(pin);
    emit.push({ to: [`room:${room}`], event: "pinned", args: [pin] });
  }
  return Response.json({ ack: [{ ok: true, count: pins.length }], emit });
}
