// A form of /login: the session's cookie, and on to the chat.

import { isOwn, login } from "@/lib/auth";

export async function POST(request: Request) {
  if (!isOwn(request)) return new Response("not from here", { status: 403 });
  const form = await request.formData();
  const text = (name: string) => String(form.get(name) ?? "");
  const wrong = await login(request, text("name").trim(), text("password"));
  // A whole page, not a step inside the app: its sockets must open anew, with the cookie.
  const location = wrong ? `/login?wrong=${wrong}` : "/chat";
  return new Response(null, { status: 303, headers: { location } });
}
