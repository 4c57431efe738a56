import type { Metadata } from "next";

export const metadata: Metadata = { title: "ISR · next-chat" };
export const revalidate = 5;

export default function Page() {
  return (
    <>
      <h1>ISR</h1>
      <p>
        Rendered at <code data-testid="rendered">{new Date().toISOString()}</code>, kept for five
        seconds.
      </p>
    </>
  );
}
