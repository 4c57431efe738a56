// Edits a source file under `next dev` and waits until the open page shows it, without a reload.
//
// URL, FILE (a copy's source file), PAGE, TEXT (what FILE shows on PAGE), CHROMIUM, DEADLINE_MS.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { launch, watch } from "./chromium.mjs";
import { option, program, say, step } from "./program.mjs";

const EDITS = 2;

const url = option("URL").replace(/\/$/, "");
const file = option("FILE");
const text = option("TEXT", "A chat without a Socket.IO server.");
const original = readFileSync(file, "utf8");
const complaints = [];

/** Resolves with the page's HMR socket when its first frame has come. */
function hmrSocket(page) {
  return new Promise((resolve) => {
    page.on("websocket", (socket) => {
      if (!socket.url().includes("/_next/")) return;
      socket.on("framereceived", () => resolve(socket));
    });
  });
}

program(async () => {
  assert.ok(original.includes(text), `FILE does not contain ${JSON.stringify(text)}`);
  process.on("exit", () => writeFileSync(file, original));

  const browser = await step("start", launch);
  const page = await browser.newPage();
  watch(page, "page", complaints);

  const socket = await step("the HMR socket opens", async () => {
    const opened = hmrSocket(page);
    await page.goto(url + option("PAGE", "/"));
    return opened;
  });
  say("socket", { url: socket.url() });
  await page.getByText(text).waitFor();
  // A reload would lose this.
  await page.evaluate(() => (window.sameDocument = true));

  for (let n = 1; n <= EDITS; n++) {
    const edited = `Edited for the ${n}. time.`;
    await step(`edit ${n} shows`, async () => {
      writeFileSync(file, original.replace(text, edited));
      await page.getByText(edited).waitFor();
    });
  }
  await step("the original shows again", async () => {
    writeFileSync(file, original);
    await page.getByText(text).waitFor();
  });

  assert.equal(await page.evaluate(() => window.sameDocument), true, "the page was reloaded");
  assert.equal(socket.isClosed(), false, "the HMR socket was closed");
  await browser.close();
  assert.deepEqual(complaints, []);
}, 180);
