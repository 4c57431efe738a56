import { isOwn, logout } from "@/lib/auth";

export async function POST(request: Request) {
  if (!isOwn(request)) return new Response("not from here", { status: 403 });
  await logout(request);
  return new Response(null, { status: 303, headers: { location: "/login" } });
}
