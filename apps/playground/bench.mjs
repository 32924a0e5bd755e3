#!/usr/bin/env node
// Layer: apps/playground. Times our backends in a browser tab beside @jax-js/jax in the same tab: bench.html in headless Chromium.
// Knows Chromium. Knows no device.
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { servePage } from "./serve.mjs";

const usage = `usage: bench.mjs [OPTIONS]

Matrix products and training steps of a network of two layers in one tab, ours beside @jax-js/jax, in turns, after both have
given the same numbers. A ratio above 1: ours is faster.

  --device NAME   wasm or webgpu; default: wasm
  --budget MS     milliseconds for each contender and work; default: 2000
  --json          one JSON array on stdout
  --help

CHROMIUM names the browser; default: Debian's.
`;

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        device: { type: "string", default: "wasm" },
        budget: { type: "string", default: "2000" },
        json: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    });
    if (!["wasm", "webgpu"].includes(values.device))
      throw new Error(`--device ${values.device}: expected wasm or webgpu.`);
    const budget = Number(values.budget);
    if (!(budget > 0)) throw new Error(`--budget ${values.budget}: expected a number of milliseconds.`);
    return { ...values, budget };
  } catch (error) {
    process.stderr.write(`${error.message}\n\n${usage}`);
    process.exit(2);
  }
}

/** @returns the rows of src/bench/contender.ts, and what the browser says it is */
async function measure({ device, budget }) {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  if (!existsSync(executablePath)) {
    throw new Error(`there is no ${executablePath}: install Debian's chromium, or name another in CHROMIUM`);
  }
  const outDir = mkdtempSync(path.join(os.tmpdir(), "diffmamba-bench-"));
  const server = await servePage({ port: 0, outDir, page: "bench.html" });
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--enable-unsafe-webgpu"] });
  try {
    const page = await browser.newPage();
    await page.goto(new URL("bench.html", server.url).href);
    const rows = await page.evaluate(([name, time]) => globalThis.race(name, time), [device, budget]);
    return { rows, browser: browser.version() };
  } finally {
    await browser.close();
    await server.close();
    rmSync(outDir, { recursive: true, force: true });
  }
}

/** Each row with how much longer the peer took on the same work. */
function compare(rows) {
  return rows.map((row) => {
    const peer = rows.find(({ work, name }) => work === row.work && name.startsWith("@"));
    return { ...row, ratio: peer === row || peer === undefined ? null : peer.median / row.median };
  });
}

const options = readOptions();
if (options.help) process.stdout.write(usage);
else {
  try {
    const { rows, browser } = await measure(options);
    const compared = compare(rows);
    if (options.json) process.stdout.write(`${JSON.stringify(compared)}\n`);
    else {
      process.stdout.write(`Chromium ${browser}, ${options.device}\n`);
      for (const { work, name, median, best, ratio } of compared) {
        const figures = [median.toFixed(2), best.toFixed(2)].map((text) => text.padStart(9)).join("");
        process.stdout.write(`${work.padEnd(22)}${name.padEnd(18)}${figures} ms  ${ratio?.toFixed(2) ?? ""}\n`);
      }
    }
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  }
}
