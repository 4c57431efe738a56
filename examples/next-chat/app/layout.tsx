import type { Metadata } from "next";
import Link from "next/link";
import type { ReactNode } from "react";
import { Bell } from "./bell";
import "./globals.css";

export const metadata: Metadata = {
  title: "next-chat",
  description: "A stock Next.js app behind Vestibule",
};

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <body>
        <header>
          <Link href="/" className="brand">
            next-chat
          </Link>
          <Link href="/chat">Chat</Link>
          <span className="fill" />
          <Bell />
        </header>
        <main>{children}</main>
      </body>
    </html>
  );
}
