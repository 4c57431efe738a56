import type { Metadata } from "next";
import { connection } from "next/server";
import { Suspense } from "react";

export const metadata: Metadata = { title: "Stream · next-chat" };

async function Slow({ id, ms }: { id: string; ms: number }) {
  await connection();
  await new Promise((resolve) => setTimeout(resolve, ms));
  return (
    <p className="card" data-testid={id}>
      Here after {ms} ms.
    </p>
  );
}

export default function Page() {
  return (
    <>
      <h1>Stream</h1>
      <p data-testid="shell">This shell comes at once.</p>
      <Suspense fallback={<p className="card quiet">One second …</p>}>
        <Slow id="slow-1" ms={1000} />
      </Suspense>
      <Suspense fallback={<p className="card quiet">Two seconds …</p>}>
        <Slow id="slow-2" ms={2000} />
      </Suspense>
    </>
  );
}
