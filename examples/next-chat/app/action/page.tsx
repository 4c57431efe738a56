import type { Metadata } from "next";
import { finish } from "./actions";
import { Greeting } from "./greeting";

export const metadata: Metadata = { title: "Server Action · next-chat" };

export default async function Page({
  searchParams,
}: {
  searchParams: Promise<{ done?: string }>;
}) {
  const { done } = await searchParams;
  return (
    <>
      <h1>Server Action</h1>
      <Greeting />
      <form className="row" action={finish} data-testid="finish-form">
        <button data-testid="finish">Finish</button>
        {done && <span data-testid="done">Done, and redirected.</span>}
      </form>
    </>
  );
}
