"use server";

import { redirect } from "next/navigation";

export async function greet(_previous: string, form: FormData): Promise<string> {
  const name = String(form.get("name") ?? "").trim();
  return `Hello, ${name || "stranger"}!`;
}

export async function finish(): Promise<void> {
  redirect("/action?done=1");
}
