// The page of Socket.IO's Admin UI as a person sees it, from its package, in Chromium.
//
// URL (of the hub), USERNAME, PASSWORD, SERVERS (how many it must show), CHROMIUM, DEADLINE_MS.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { launch } from "./chromium.mjs";
import { option, program, step } from "./program.mjs";

const url = option("URL").replace(/\/$/, "");
const servers = Number(option("SERVERS", "1"));
const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "node_modules/@socket.io/admin-ui/ui/dist");
const TYPES = { html: "text/html", js: "text/javascript", css: "text/css", png: "image/png", svg: "image/svg+xml" };

/** The page's own files stand where the hub is; its fonts, which are elsewhere, do not come. */
async function serve(route) {
  const asked = new URL(route.request().url());
  if (asked.origin !== url) return route.abort();
  if (!asked.pathname.startsWith("/ui/")) return route.continue();
  const name = normalize(asked.pathname.slice("/ui/".length));
  const type = TYPES[name.split(".").at(-1)] ?? "application/octet-stream";
  try {
    return await route.fulfill({ body: await readFile(join(dist, name)), contentType: type });
  } catch {
    return route.fulfill({ status: 404, body: "" });
  }
}

program(async () => {
  const browser = await step("start", launch);
  const context = await browser.newContext({ viewport: { width: 1400, height: 1000 }, locale: "en" });
  await context.route("**/*", serve);
  const page = await context.newPage();
  const broken = [];
  page.on("pageerror", (error) => broken.push(error.stack));

  const shown = (text) => page.getByText(text, { exact: true }).first().waitFor();
  const connect = async (password) => {
    await page.getByLabel("Server URL").fill(url);
    await page.getByLabel("Username").fill(option("USERNAME"));
    await page.getByLabel("Password").fill(password);
    await page.getByRole("button", { name: "Connect", exact: true }).click();
  };

  await step("open", () => page.goto(`${url}/ui/index.html`));
  await step("a wrong password", async () => {
    await connect("wrong");
    await page.getByText("Invalid credentials").first().waitFor();
  });
  await step("the right one", async () => {
    await connect(option("PASSWORD"));
    await page.getByLabel("Server URL").waitFor({ state: "hidden" });
  });
  await step("servers and their figures", async () => {
    await page.goto(`${url}/ui/index.html#/servers/`);
    for (;;) {
      const rows = await page.locator("table tbody tr").allInnerTexts();
      const alive = rows.filter((row) => /\bUP\b|Healthy/i.test(row));
      if (rows.length === servers && alive.length === servers) break;
      await page.waitForTimeout(100);
    }
  });
  await step("no errors", () => assert.deepEqual(broken, []));
  await browser.close();
});
