"use client";

import { useActionState } from "react";
import { greet } from "./actions";

export function Greeting() {
  const [greeting, action, pending] = useActionState(greet, "");
  return (
    <form className="row" action={action} data-testid="greet-form">
      <input name="name" aria-label="Name" placeholder="Your name" data-testid="name" />
      <button data-testid="greet" disabled={pending}>
        Greet
      </button>
      <output data-testid="greeting">{greeting}</output>
    </form>
  );
}
