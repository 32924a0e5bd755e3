// Layer: apps/playground. The built page in a real browser, on each backend that it has: two models learn, write, are saved and
// loaded again, and the command line goes on with what the page has saved.
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { unzipSync } from "fflate";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findChromium, openStage, type Stage, Visit } from "./e2e.testing.js";

const chromium = findChromium();
const title = chromium === undefined ? "the page: there is no Chromium (Debian: chromium)" : "the page";
const command = path.resolve(import.meta.dirname, "../../cli/bin/diffmamba.js");

/** Runs of seconds: scores often, samples short. */
const quick = { steps: 2000, evaluateEvery: 20, evaluateTokens: 1024, sampleEvery: 40, sampleTokens: 40 };

describe.skipIf(chromium === undefined)(title, { timeout: 240_000 }, () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await openStage(chromium as string);
  }, 120_000);
  afterAll(() => stage?.close());

  it.each([["wasm", "small", /^WASM, (relaxed )?SIMD, \d+ threads?$/]] as const)(
    "trains on %s, writes, saves and loads again",
    async (backend, size, device) => {
      const visit = await Visit.begin(stage, { backend, size, ...quick });
      const { page } = visit;
      expect(await page.locator("#backend").inputValue()).toBe(backend);
      expect(await visit.text("#backend-device")).toMatch(device);
      expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);

      const scores = await visit.trainBelow(3, 150_000);
      expect(scores.every((score) => score > 0)).toBe(true);
      await page.click("#pause");
      await page.locator("#pause", { hasText: "Resume" }).waitFor();
      expect(await visit.text("#phase")).toMatch(/^Paused at step \d+ of 2,000$/);
      expect(await visit.text(".lambdas li:first-child b")).toMatch(/^0\.\d{3}$/);
      expect((await page.locator(".sample-text").allInnerTexts()).every((text) => text.length > 0)).toBe(true);

      const texts = await visit.write("both", "One evening ", 60);
      expect(texts.map(({ length }) => length)).toEqual([60, 60]);
      const zip = await visit.save("differential", stage.folder);
      expect(await visit.load(zip)).toBe(path.basename(zip, ".zip"));
      expect(await visit.write("loaded", "One evening ", 60)).toEqual([texts[1]]);

      const goesOn = await generate(unpack(zip, path.join(stage.folder, backend)), "One evening ", 24);
      expect(goesOn).toBe(texts[1]?.slice(0, 24));

      await page.click("#pause");
      await page.locator("#pause", { hasText: "Pause" }).waitFor();
      expect(visit.complaints).toEqual([]);
      await page.close();
    },
  );
});

/** @returns the model's folder */
function unpack(zip: string, folder: string): string {
  for (const [name, content] of Object.entries(unzipSync(readFileSync(zip)))) {
    const file = path.join(folder, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, content);
  }
  return path.join(folder, path.basename(zip, ".zip"));
}

/** What the command line writes with a checkpoint, without chance. */
async function generate(checkpoint: string, prompt: string, tokens: number): Promise<string> {
  const args = ["generate", "--checkpoint", checkpoint, "--prompt", prompt, "--max-tokens", String(tokens)];
  const { stdout } = await promisify(execFile)(process.execPath, [command, ...args, "--temperature", "0", "--json"]);
  return (JSON.parse(stdout) as { readonly text: string }).text;
}
