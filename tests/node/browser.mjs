// Two windows of a real browser use the example app through the edge.
//
// URL, CHROMIUM, SHOT (a PNG of both chat windows), DEADLINE_MS.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { launch, watch } from "./chromium.mjs";
import { option, program, say, step } from "./program.mjs";

const WINDOW = { width: 640, height: 720 };
const STICKER_BYTES = 64;
const STREAM_GAP_MS = 300;

const url = option("URL").replace(/\/$/, "");
const complaints = [];

function shown(page, id, text) {
  const found = page.getByTestId(id);
  return (text === undefined ? found : found.filter({ hasText: text })).first().waitFor();
}

/** Opens `path`, and checks by which protocol the document came. */
async function visit(page, path) {
  const response = await page.goto(url + path);
  assert.equal(response.status(), 200, path);
  const protocol = await page.evaluate(
    () => performance.getEntriesByType("navigation")[0].nextHopProtocol,
  );
  say("visit", { path, protocol });
  if (url.startsWith("https:")) assert.equal(protocol, "h2", path);
}

/** Resolves when the page's Socket.IO connection has moved to WebSocket. */
function upgraded(page) {
  return new Promise((resolve) => {
    page.on("websocket", (socket) => {
      if (!socket.url().includes("/socket.io/")) return;
      socket.on("framesent", ({ payload }) => payload === "5" && resolve());
    });
  });
}

/** Visits a page without a chat, and stays until its bell is at rest. */
async function visitQuietly(page, path) {
  const ready = upgraded(page);
  await visit(page, path);
  return ready;
}

/** A window of somebody who has logged in. */
async function openWindow(browser, name) {
  const context = await browser.newContext({ viewport: WINDOW });
  const page = await context.newPage();
  watch(page, name, complaints);
  await logIn(page, name);
  return page;
}

async function logIn(page, name) {
  await page.goto(`${url}/chat`);
  assert.equal(new URL(page.url()).pathname, "/login");
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill("correct horse");
  await page.getByTestId("log-in").click();
  await shown(page, "me", name);
  assert.equal(new URL(page.url()).pathname, "/chat");
}

async function openChat(page) {
  await visit(page, "/chat");
  await shown(page, "state", "connected via websocket");
  await shown(page, "joined", "in lobby");
  await page.locator('[data-testid="bell"][data-live="true"]').waitFor();
  return page.getByTestId("id").textContent();
}

/** Types and sends in one window, and finds it in both, under the sender's id and name. */
async function says(sender, id, receiver, text) {
  await sender.getByTestId("message").fill(text);
  await sender.getByTestId("send").click();
  await sender.locator('[data-testid="messages"] li.own', { hasText: text }).waitFor();
  const line = receiver.locator(`[data-testid="messages"] li[data-from="${id}"]`, { hasText: text });
  await line.waitFor();
  const name = await sender.getByTestId("me").textContent();
  assert.equal(await line.locator("small").textContent(), name);
}

async function screenshot(pages, path) {
  const [left, right] = await Promise.all(
    pages.map(async (page) => (await page.screenshot()).toString("base64")),
  );
  const both = await pages[0].context().newPage();
  await both.setViewportSize({ width: WINDOW.width * 2 + 12, height: WINDOW.height });
  const style = "margin:0;display:flex;gap:12px;background:#888";
  const image = (data) => `<img src="data:image/png;base64,${data}">`;
  await both.setContent(`<body style="${style}">${image(left)}${image(right)}</body>`);
  writeFileSync(path, await both.screenshot());
  await both.close();
}

/** Notes in the page when each element with a test id first appeared. */
function noteAppearances() {
  window.appeared = {};
  new MutationObserver(() => {
    for (const element of document.querySelectorAll("[data-testid]")) {
      window.appeared[element.dataset.testid] ??= performance.now();
    }
  }).observe(document, { subtree: true, childList: true });
}

program(async () => {
  const browser = await step("start", launch);
  const a = await openWindow(browser, "Anna");
  const b = await openWindow(browser, "Bert");

  const [idA, idB] = await step("two windows open the chat", () =>
    Promise.all([openChat(a), openChat(b)]),
  );
  assert.notEqual(idA, idB);

  await step("typing shows", async () => {
    await a.getByTestId("message").pressSequentially("he");
    await shown(b, "typing", "Anna is typing");
  });

  await step("messages", async () => {
    await says(a, idA, b, "Hello from A 👋");
    await says(b, idB, a, "Hello from B, žluťoučký kůň");
    assert.equal(await a.locator('[data-testid="messages"] li').count(), 2);
    assert.equal(await b.locator('[data-testid="messages"] li').count(), 2);
  });

  await step("a binary sticker", async () => {
    await a.getByTestId("sticker").click();
    await shown(b, "stickers", String(STICKER_BYTES));
  });

  await step("a message pinned by the app itself", async () => {
    const text = `Keep this ${Date.now()}`;
    await a.getByTestId("message").fill(text);
    await a.getByTestId("pin").click();
    await shown(a, "pins", text);
    await shown(b, "pins", text);
  });

  await step("the bell", async () => {
    await a.getByTestId("ring").click();
    await shown(b, "bell", "1");
    assert.equal(await a.getByTestId("bell").textContent(), "0");
  });

  await step("another room", async () => {
    for (const page of [a, b]) {
      await page.getByTestId("room").fill("kitchen");
      await page.getByTestId("join").click();
      await shown(page, "joined", "in kitchen");
    }
    await says(a, idA, b, "Anybody in the kitchen?");
    assert.equal(await b.getByTestId("problem").textContent(), "");
  });

  if (process.env.SHOT) await step("screenshot", () => screenshot([a, b], process.env.SHOT));

  await step("moving inside the app keeps the bell", async () => {
    await a.getByRole("link", { name: "next-chat" }).click();
    await shown(a, "lead");
    await b.getByTestId("ring").click();
    await shown(a, "bell", "1");
    await a.getByRole("link", { name: "Chat", exact: true }).first().click();
    await shown(a, "state", "connected via websocket");
    await shown(a, "joined", "in lobby");
  });

  await step("/", async () => {
    await visitQuietly(a, "/");
    await shown(a, "lead");
  });

  await step("/stream", async () => {
    const page = await openWindow(browser, "Carl");
    await page.addInitScript(noteAppearances);
    await visitQuietly(page, "/stream");
    await shown(page, "slow-2");
    const at = await page.evaluate(() => window.appeared);
    say("stream", { shell: at.shell, first: at["slow-1"], second: at["slow-2"] });
    assert.ok(at["slow-1"] - at.shell > STREAM_GAP_MS, "the shell waited for the first slow part");
    assert.ok(at["slow-2"] - at["slow-1"] > STREAM_GAP_MS, "the first waited for the second");
    await page.close();
  });

  await step("/isr", async () => {
    await visitQuietly(a, "/isr");
    const rendered = await a.getByTestId("rendered").textContent();
    assert.ok(!Number.isNaN(Date.parse(rendered)), rendered);
  });

  await step("/action", async () => {
    await visitQuietly(a, "/action");
    await a.getByTestId("name").fill("Eve");
    await a.getByTestId("greet").click();
    await shown(a, "greeting", "Hello, Eve!");
    await a.getByTestId("finish").click();
    await shown(a, "done");
    assert.equal(new URL(a.url()).search, "?done=1");
  });

  await step("/action without JavaScript", async () => {
    const context = await browser.newContext({ javaScriptEnabled: false });
    const page = await context.newPage();
    watch(page, "plain", complaints);
    await page.goto(`${url}/action`);
    await page.getByTestId("name").fill("Adam");
    await page.getByTestId("greet").click();
    await shown(page, "greeting", "Hello, Adam!");
    await page.getByTestId("finish").click();
    await shown(page, "done");
    assert.equal(page.url(), `${url}/action?done=1`);
    await context.close();
  });

  await step("/image", async () => {
    await visitQuietly(a, "/image");
    const picture = await a.getByTestId("picture").elementHandle();
    await a.waitForFunction((image) => image.complete && image.naturalWidth > 0, picture);
    const source = await picture.evaluate((image) => image.currentSrc);
    assert.match(source, /\/_next\/image\?/);
  });

  await step("a logout closes the socket at once", async () => {
    const other = await a.context().newPage();
    await other.goto(`${url}/chat`);
    await shown(other, "state", "connected via websocket");
    await visit(a, "/chat");
    await a.getByTestId("log-out").click();
    await a.getByTestId("login").waitFor();
    await shown(other, "state", "disconnected: io server disconnect");
    await a.goto(`${url}/chat`);
    assert.equal(new URL(a.url()).pathname, "/login");
  });

  await step("another password", async () => {
    await a.getByLabel("Name").fill("Bert");
    await a.getByLabel("Password").fill("incorrect horse");
    await a.getByTestId("log-in").click();
    await shown(a, "wrong", "another password");
  });

  await browser.close();
  assert.deepEqual(complaints, []);
}, 120);
