import type { Metadata } from "next";

export const metadata: Metadata = { title: "Log in · next-chat" };

const WRONG: Record<string, string> = {
  name: "A name has letters and digits, 32 at most.",
  password: "A password has eight letters at least.",
  wrong: "Somebody has this name, with another password.",
};

export default async function Page({
  searchParams,
}: {
  searchParams: Promise<{ wrong?: string }>;
}) {
  const { wrong } = await searchParams;
  return (
    <>
      <h1>Log in</h1>
      <p>A name that nobody has yet is yours, with the password that you choose.</p>
      <form className="row" action="/api/login" method="post" data-testid="login">
        <input name="name" aria-label="Name" placeholder="Name" autoComplete="username" required />
        <input
          name="password"
          type="password"
          aria-label="Password"
          placeholder="Password"
          autoComplete="current-password"
          required
        />
        <button data-testid="log-in">Log in</button>
      </form>
      <p className="problem" role="alert" data-testid="wrong">
        {wrong && WRONG[wrong]}
      </p>
    </>
  );
}
