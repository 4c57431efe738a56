"use client";

// The bell in the top bar: counts what other windows ring.

import { useEffect, useState } from "react";
import { socketOf } from "@/lib/sockets";

export function Bell() {
  const [count, setCount] = useState(0);
  const [live, setLive] = useState(false);

  useEffect(() => {
    const socket = socketOf("/notifications");
    const onConnect = () => setLive(true);
    const onDisconnect = () => setLive(false);
    const onRing = () => setCount((n) => n + 1);
    socket.on("connect", onConnect);
    socket.on("disconnect", onDisconnect);
    socket.on("ring", onRing);
    socket.connect();
    return () => {
      socket.off("connect", onConnect);
      socket.off("disconnect", onDisconnect);
      socket.off("ring", onRing);
      socket.disconnect();
    };
  }, []);

  return (
    <span className="bell">
      <span aria-hidden>🔔</span>
      <span className="badge" data-testid="bell" data-live={live}>
        {count}
      </span>
      <button
        type="button"
        data-testid="ring"
        disabled={!live}
        onClick={() => socketOf("/notifications").emit("ring", { text: "ding" })}
      >
        Ring
      </button>
    </span>
  );
}
