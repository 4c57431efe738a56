// When the server starts, the file of users is there, whoever asks first.
export async function register() {
  if (process.env.NEXT_RUNTIME === "nodejs") (await import("./lib/users")).users();
}
