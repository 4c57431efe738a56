import type { Metadata } from "next";
import { redirect } from "next/navigation";
import { userOf } from "@/lib/auth";
import { Chat } from "./chat";

export const metadata: Metadata = { title: "Chat · next-chat" };

export default async function Page() {
  const user = await userOf();
  if (!user) redirect("/login");
  return <Chat name={user.name} />;
}
