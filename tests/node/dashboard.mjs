// A person looks at the page of the private listener.
//
// URL (of the listener), TOKEN, SHOT (a PNG of the page), CHROMIUM, DEADLINE_MS. Says "shown" when
// all is there; a line on stdin means that the process is gone.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { launch, watch } from "./chromium.mjs";
import { option, program, say, step } from "./program.mjs";

const url = option("URL");
const complaints = [];
const lines = createInterface({ input: process.stdin });

/** The texts of a table's rows. */
function rows(page, id) {
  return page.locator(`#${id} tbody tr`).evaluateAll((all) =>
    all.map((row) => [...row.cells].map((cell) => cell.innerText)),
  );
}

/** The row that begins with `name`, as soon as `fits` it. */
async function row(page, id, name, fits = () => true) {
  for (;;) {
    const found = (await rows(page, id)).find(([first]) => first === name);
    if (found && fits(found)) return found;
    await page.waitForTimeout(100);
  }
}

/** Contrast of texts with what is behind them, as WCAG 2 counts it, below what it asks for. */
function faintTexts() {
  const channel = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = (color) => {
    const [r, g, b] = color.match(/[\d.]+/g).map((part) => channel(Number(part) / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const own = getComputedStyle(element).backgroundColor;
    return own.endsWith(", 0)") && element.parentElement ? behind(element.parentElement) : own;
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!says || !element.checkVisibility()) continue;
    const [one, other] = [getComputedStyle(element).color, behind(element)].map(luminance);
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) faint.push(`${element.textContent.slice(0, 30)}: ${contrast.toFixed(2)}`);
  }
  return faint;
}

program(async () => {
  const browser = await step("start", launch);
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: "light" });
  const page = await context.newPage();
  const outside = [];
  page.on("request", (request) => request.url().startsWith(url) || outside.push(request.url()));

  await step("the token", async () => {
    await page.goto(url);
    await page.getByLabel("Token of listen.admin").fill("wrong");
    await page.keyboard.press("Enter");
    await page.getByText("That is not the token.").waitFor();
    await page.getByLabel("Token of listen.admin").fill(option("TOKEN"));
    await page.getByRole("button", { name: "Show" }).click();
    await page.getByRole("heading", { name: "Requests" }).waitFor();
  });
  watch(page, "dashboard", complaints);

  await step("all that there is", async () => {
    await page.getByRole("status").filter({ hasText: "ready" }).waitFor();
    const [, perSecond] = await row(page, "routes", "next", ([, count]) => Number(count) > 0);
    say("requests", { perSecond });
    const [target] = await rows(page, "upstreams");
    assert.match(target.join(" "), /^http:\/\/127\.0\.0\.1:\d+ ✓ up/);
    const [certificate] = await rows(page, "certificates");
    assert.match(certificate.join(" "), /secure\.pem .* left/);
    await row(page, "namespaces", "/chat", ([, sockets]) => sockets === "3");
    await page.getByLabel("Rooms and sockets of").selectOption("/chat");
    await row(page, "rooms", "room:kitchen", ([, sockets]) => sockets === "2");
    await row(page, "rooms", "room:lobby", ([, sockets]) => sockets === "3");
    let inside = [];
    while (inside.length !== 3) {
      await page.waitForTimeout(100);
      inside = await rows(page, "sockets");
    }
    assert.ok(inside.every(([, transport]) => transport === "websocket"), JSON.stringify(inside));
    const history = (await rows(page, "history")).map(([, what, generation, told]) => [what, generation, told]);
    assert.deepEqual(history.map(([what, generation]) => [what, generation]), [["reload", "2"], ["reload", "2"], ["start", "1"]]);
    assert.match(history[0][2], /refused[^]*workrs/);
    assert.match(history[1][2], /in force[^]*compress/);
    await row(page, "faults", "no_site");
  });

  await step("it lives", async () => {
    const tile = page.locator('[data-tile="Requests per second"]');
    const points = () => tile.locator("polyline").getAttribute("points");
    const before = await points();
    while ((await points()) === before) await page.waitForTimeout(100);
  });

  await step("by keyboard", async () => {
    await page.reload();
    await page.getByRole("heading", { name: "Requests" }).waitFor();
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "To the figures");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.getByRole("button", { pressed: true, name: "Go on" }).waitFor();
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.id), "namespace");
  });

  await step("for whoever does not see it", async () => {
    const bare = await page.evaluate(() =>
      [...document.querySelectorAll("table")].filter((table) =>
        [...table.tHead.rows[0].cells].some((cell) => cell.scope !== "col") ||
        [...table.tBodies[0].rows].some((row) => row.cells[0].scope !== "row") ||
        !table.closest("section[aria-labelledby]"),
      ).map((table) => table.id),
    );
    assert.deepEqual(bare, []);
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      assert.deepEqual(await page.evaluate(faintTexts), [], colorScheme);
    }
    await page.emulateMedia({ colorScheme: "light" });
    await page.setViewportSize({ width: 360, height: 800 });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= 360, `a narrow window scrolls sideways: ${wide}`);
    await page.setViewportSize({ width: 1280, height: 900 });
  });

  await step("nothing else runs in it", async () => {
    const [blocked] = await page.evaluate(() => new Promise((resolve) => {
      document.addEventListener("securitypolicyviolation", (event) => resolve([event.effectiveDirective]));
      const script = document.createElement("script");
      script.textContent = "window.ran = true";
      document.body.append(script);
    }));
    assert.equal(blocked, "script-src-elem");
    assert.equal(await page.evaluate(() => window.ran), undefined);
    const said = complaints.splice(0);
    assert.ok(said.every((text) => text.includes("Content Security Policy")), said.join("\n"));
  });

  await page.getByRole("button", { name: "Go on" }).click();
  if (process.env.SHOT) {
    await step("picture", async () => {
      await page.getByLabel("Rooms and sockets of").selectOption("/chat");
      await page.waitForTimeout(15000);
      const hub = await page.locator("section", { has: page.locator("#hub-h") }).boundingBox();
      const clip = { x: 0, y: 0, width: 1280, height: hub.y + hub.height + 16 };
      await page.screenshot({ path: process.env.SHOT, fullPage: true, clip });
    });
  }
  assert.deepEqual(complaints, []);
  assert.deepEqual(outside.filter((asked) => !asked.startsWith("data:")), []);
  say("shown");

  await step("the process is gone", async () => {
    await once(lines, "line");
    await page.getByRole("status").filter({ hasText: "no answer" }).waitFor();
    await page.getByText("what is shown is of").waitFor();
  });
  await browser.close();
}, 90);
