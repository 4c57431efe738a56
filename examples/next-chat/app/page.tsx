import Link from "next/link";

const pages = [
  ["/chat", "Chat", "rooms, acks, typing and binary stickers over Socket.IO"],
  ["/stream", "Stream", "a page whose slow parts arrive after one and two seconds"],
  ["/isr", "ISR", "a static page made anew every five seconds"],
  ["/action", "Server Action", "two forms that work with and without JavaScript"],
  ["/image", "Image", "a picture through the image optimizer"],
];

const routes = [
  ["/api/health", "says ok"],
  ["/api/events", "five server-sent events"],
  ["/api/echo", "the request as the app saw it"],
  ["/api/redirect", "leads to the chat"],
];

export default function Home() {
  return (
    <>
      <h1>next-chat</h1>
      <p className="lead" data-testid="lead">
        A chat without a Socket.IO server.
      </p>
      <p>
        The app is plain <code>next build</code> and <code>next start</code>. The edge in front
        of it answers <code>/socket.io/</code>.
      </p>
      <ul className="cards">
        {pages.map(([href, name, what]) => (
          <li key={href}>
            <Link href={href}>{name}</Link>
            <span>{what}</span>
          </li>
        ))}
      </ul>
      <h2>Routes</h2>
      <ul className="routes">
        {routes.map(([href, what]) => (
          <li key={href}>
            <a href={href}>
              <code>{href}</code>
            </a>{" "}
            {what}
          </li>
        ))}
        <li>
          <code>POST /api/upload</code> size and digest of a body of any length
        </li>
      </ul>
    </>
  );
}
