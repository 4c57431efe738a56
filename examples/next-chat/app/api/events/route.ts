// Server-sent events: ?count=N of them, ?every=MS apart, the first at once.

const MAX_COUNT = 10_000;

function whole(value: string | null, fallback: number, max: number): number {
  const number = Number(value ?? fallback);
  return Number.isInteger(number) && number >= 0 ? Math.min(number, max) : fallback;
}

export async function GET(request: Request) {
  const { searchParams } = new URL(request.url);
  const count = whole(searchParams.get("count"), 5, MAX_COUNT);
  const every = whole(searchParams.get("every"), 200, 60_000);
  const encoder = new TextEncoder();
  let timer: ReturnType<typeof setTimeout> | undefined;

  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      const send = (n: number) => {
        if (n >= count) return controller.close();
        const data = JSON.stringify({ n, at: Date.now() });
        controller.enqueue(encoder.encode(`id: ${n}\ndata: ${data}\n\n`));
        // After the last event the stream ends at once.
        timer = setTimeout(send, n + 1 < count ? every : 0, n + 1);
      };
      send(0);
    },
    cancel() {
      clearTimeout(timer);
    },
  });
  return new Response(body, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-cache, no-transform" },
  });
}
