import type { Metadata } from "next";
import { Chat } from "./chat";

export const metadata: Metadata = { title: "Chat · next-chat" };

export default function Page() {
  return <Chat />;
}
