"use client";

// The chat itself: one room at a time over the /chat namespace.

import { type FormEvent, useEffect, useRef, useState } from "react";
import { type Ack, socketOf } from "@/lib/sockets";

/** `from` is the sender's socket, `name` its user, by the hub's own word. */
type Line = { key: number; from: string; name: string; text: string; own: boolean };

const TYPING_SHOWN_MS = 2000;
const TYPING_EVERY_MS = 500;
const STICKER_BYTES = 64;

export function Chat({ name }: { name: string }) {
  const [state, setState] = useState("connecting");
  const [id, setId] = useState("");
  const [room, setRoom] = useState("lobby");
  const [wanted, setWanted] = useState("lobby");
  const [joined, setJoined] = useState("");
  const [lines, setLines] = useState<Line[]>([]);
  const [text, setText] = useState("");
  const [typist, setTypist] = useState("");
  const [pins, setPins] = useState<string[]>([]);
  const [stickerBytes, setStickerBytes] = useState(0);
  const [problem, setProblem] = useState("");
  const nextKey = useRef(0);
  const lastTyping = useRef(0);

  function append(line: Omit<Line, "key">) {
    const key = nextKey.current++;
    setLines((lines) => [...lines, { key, ...line }]);
  }

  function report(ack: Ack): boolean {
    setProblem(ack.error ? ack.error.code : "");
    return ack.ok === true;
  }

  useEffect(() => {
    const socket = socketOf("/chat");
    let typistGone: ReturnType<typeof setTimeout> | undefined;
    const handlers: Record<string, (...args: any[]) => void> = {
      connect() {
        const engine = socket.io.engine;
        setId(socket.id ?? "");
        setState(`connected via ${engine.transport.name}`);
        engine.once("upgrade", (transport) => setState(`connected via ${transport.name}`));
      },
      disconnect(reason: string) {
        setId("");
        setJoined("");
        setState(`disconnected: ${reason}`);
      },
      connect_error(error: Error) {
        setState(`not connected: ${error.message}`);
      },
      message({ from, name, text }: { from: string; name: string; text: string }) {
        setTypist("");
        append({ from, name, text, own: false });
      },
      typing({ name }: { name: string }) {
        setTypist(name);
        clearTimeout(typistGone);
        typistGone = setTimeout(() => setTypist(""), TYPING_SHOWN_MS);
      },
      pinned({ text }: { text: string }) {
        setPins((pins) => [...pins, text]);
      },
      sticker({ bytes }: { bytes: ArrayBuffer }) {
        setStickerBytes((sum) => sum + bytes.byteLength);
      },
    };
    for (const [event, handler] of Object.entries(handlers)) socket.on(event, handler);
    socket.connect();
    return () => {
      clearTimeout(typistGone);
      for (const [event, handler] of Object.entries(handlers)) socket.off(event, handler);
      socket.disconnect();
    };
  }, []);

  // A new id is a new session, which is in no room yet.
  useEffect(() => {
    if (!id) return;
    const socket = socketOf("/chat");
    socket.emit("join", room, (ack: Ack) => {
      if (report(ack)) setJoined(room);
    });
    return () => {
      setJoined("");
      if (socket.connected) socket.emit("leave", room);
    };
  }, [id, room]);

  function join(event: FormEvent) {
    event.preventDefault();
    setRoom(wanted.trim() || "lobby");
  }

  function send(event: FormEvent) {
    event.preventDefault();
    if (!text) return;
    setText("");
    socketOf("/chat").emit("message", { room, text }, (ack: Ack) => {
      if (report(ack)) append({ from: id, name, text, own: true });
    });
  }

  function type(value: string) {
    setText(value);
    const now = Date.now();
    if (now - lastTyping.current < TYPING_EVERY_MS) return;
    lastTyping.current = now;
    socketOf("/chat").volatile.emit("typing", { room });
  }

  function pin() {
    if (!text) return;
    setText("");
    // Answered by the app's own route handler, which stores it and tells the room.
    socketOf("/chat").emit("pin", { room, text }, report);
  }

  function sendSticker() {
    const bytes = crypto.getRandomValues(new Uint8Array(STICKER_BYTES));
    socketOf("/chat").emit("sticker", { room, bytes }, report);
  }

  return (
    <>
      <h1>Chat</h1>
      <p className="status">
        <span className="pill" data-testid="state">
          {state}
        </span>
        <code data-testid="id">{id}</code>
        <span className="quiet" data-testid="me">
          {name}
        </span>
      </p>
      <form action="/api/logout" method="post">
        <button data-testid="log-out">Log out</button>
      </form>
      <form className="row" onSubmit={join}>
        <label htmlFor="room">Room</label>
        <input
          id="room"
          data-testid="room"
          value={wanted}
          onChange={(event) => setWanted(event.target.value)}
        />
        <button data-testid="join">Join</button>
        <span className="quiet" data-testid="joined">
          {joined && `in ${joined}`}
        </span>
      </form>
      <ol className="messages" data-testid="messages">
        {lines.map((line) => (
          <li key={line.key} className={line.own ? "own" : undefined} data-from={line.from}>
            <small>{line.own ? "you" : line.name}</small>
            <span>{line.text}</span>
          </li>
        ))}
      </ol>
      <p className="quiet typing" data-testid="typing">
        {typist && `${typist} is typing …`}
      </p>
      <form className="row" onSubmit={send}>
        <input
          className="fill"
          aria-label="Message"
          placeholder="Message"
          data-testid="message"
          value={text}
          onChange={(event) => type(event.target.value)}
        />
        <button data-testid="send" disabled={!joined}>
          Send
        </button>
        <button type="button" data-testid="pin" disabled={!joined} onClick={pin}>
          Pin
        </button>
        <button type="button" data-testid="sticker" disabled={!joined} onClick={sendSticker}>
          Sticker
        </button>
      </form>
      <ul className="quiet" data-testid="pins">
        {pins.map((text, at) => (
          <li key={at}>📌 {text}</li>
        ))}
      </ul>
      <p className="quiet">
        Stickers received: <span data-testid="stickers">{stickerBytes}</span> bytes
      </p>
      <p className="problem" role="alert" data-testid="problem">
        {problem}
      </p>
    </>
  );
}
