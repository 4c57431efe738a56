// Starts the installed Chromium for a program, and collects what its pages complain about.

import { chromium } from "playwright-core";
import { option, say } from "./program.mjs";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // The harness makes its own authority; Chromium reads none from a file.
  "--ignore-certificate-errors",
];

export function launch() {
  const executablePath = option("CHROMIUM", "/usr/bin/chromium");
  return chromium.launch({ executablePath, headless: true, args: FLAGS });
}

/** Adds every error of `page` to `complaints`. */
export function watch(page, name, complaints) {
  const complain = (what, text) => {
    complaints.push(`${name}: ${what}: ${text}`);
    say("complaint", { page: name, what, text });
  };
  page.on("console", (message) => {
    const { url } = message.location();
    if (message.type() === "error") complain("console", `${message.text()} (${url})`);
  });
  page.on("pageerror", (error) => complain("exception", error.stack));
  page.on("response", (response) => {
    if (response.status() >= 400) complain("status", `${response.status()} ${response.url()}`);
  });
}
