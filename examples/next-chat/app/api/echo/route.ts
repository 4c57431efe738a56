// Answers with the request as the app saw it.

async function echo(request: Request) {
  const body = await request.arrayBuffer();
  return Response.json(
    {
      method: request.method,
      url: request.url,
      headers: Object.fromEntries(request.headers),
      length: body.byteLength,
    },
    { headers: { "cache-control": "no-store" } },
  );
}

export {
  echo as DELETE,
  echo as GET,
  echo as HEAD,
  echo as OPTIONS,
  echo as PATCH,
  echo as POST,
  echo as PUT,
};
